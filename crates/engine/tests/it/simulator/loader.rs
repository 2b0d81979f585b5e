//! How a node reads its disk: what waits is read together, several reads of the same row among them, and each is answered
//! in its own time.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use cairn_engine::{Entry, Loaded, Near, ReadId, TierError};

use super::{
    disk::Disk,
    machine::{Local, Machine},
};
use crate::planted::Bug;

/// How long a read of the disk is waited for.
const DISK_TIMEOUT: u64 = 4_500;
/// Reads of one statement.
const MAX_BATCH: usize = 8;

/// A read that waits.
pub(crate) struct Look {
    pub(crate) partition: u32,
    pub(crate) read: ReadId,
    pub(crate) name: Bytes,
    pub(crate) with_value: bool,
}

#[derive(Default)]
pub(crate) struct Loader {
    waiting: VecDeque<Look>,
    /// Readers that are on their way: each has a connection of its own.
    readers: usize,
}

impl Machine {
    pub(crate) fn look(&mut self, look: Look) {
        self.loader.waiting.push_back(look);
        if self.loader.readers < 2 {
            self.loader.readers += 1;
            let delay = self.random.between(0, self.read_delay);
            self.later(delay, Local::Read);
        }
    }

    /// Reads what waits.
    pub(crate) fn read(&mut self, now: u64) {
        let waiting = &mut self.loader.waiting;
        let with_value = waiting.front().is_some_and(|look| look.with_value);
        let same = waiting.iter().take(MAX_BATCH).take_while(|look| look.with_value == with_value).count();
        let batch: Vec<Look> = waiting.drain(..same).collect();
        self.loader.readers -= 1;
        if !self.loader.waiting.is_empty() {
            self.loader.readers += 1;
            self.later(1, Local::Read);
        }
        let mut rows = self.read_disk(now, |disk, wall| {
            let load = |look: &Look| (look.name.clone(), disk.load(&look.name, with_value, wall));
            batch.iter().map(load).collect::<BTreeMap<Bytes, Loaded>>()
        });
        for Look { partition, read, name, .. } in batch {
            let result = match &mut rows {
                Ok(rows) if self.has(Bug::OneReaderOfARow) => Ok(rows.remove(&name).unwrap_or(Loaded::Nothing)),
                Ok(rows) => Ok(rows.get(&name).cloned().unwrap_or(Loaded::Nothing)),
                Err(error) => Err(error.clone()),
            };
            self.answer_read(|result| Local::Loaded { partition, read, result }, result);
        }
    }

    pub(crate) fn loaded(&mut self, partition: u32, read: ReadId, result: &Result<Loaded, TierError>, now: u64) {
        if let (Ok(Loaded::Value(entry, _)), true) = (result, self.has(Bug::LateLoadKept)) {
            self.memory.insert(Entry::clone(entry));
        }
        self.drive(partition, now, |engine, step| engine.loaded(read, result, step));
    }

    pub(crate) fn read_disk<T>(&mut self, now: u64, read: impl FnOnce(&Disk, u64) -> T) -> Result<T, TierError> {
        if now < self.disk.hangs_until {
            return Err(TierError::DiskHangs);
        }
        if now < self.disk.fails_until && self.random.chance(200) {
            return Err(TierError::Disk("input/output error".to_owned()));
        }
        Ok(read(&self.disk, self.wall(now)))
    }

    /// What was read arrives later; a disk that hangs is given up after a while.
    pub(crate) fn answer_read<T>(
        &mut self,
        arrive: impl FnOnce(Result<T, TierError>) -> Local,
        result: Result<T, TierError>,
    ) {
        let delay = match &result {
            Err(TierError::DiskHangs) => DISK_TIMEOUT,
            _ => self.random.between(0, self.read_delay),
        };
        self.later(delay, arrive(result));
    }
}
