//! What a node does about what its disk has written.

use bytes::Bytes;
use cairn_api_spec::Version;
use cairn_engine::{Change, TierError};

use super::{
    disk::{Done, Write},
    machine::{Local, Machine},
    network::Message,
};
use crate::planted::Bug;

impl Machine {
    pub(crate) fn work_disk(&mut self, now: u64) {
        if now < self.disk.hangs_until {
            return self.later(self.disk.hangs_until - now, Local::Disk);
        }
        let done = self.disk.work(now, &mut self.random);
        let delay = self.random.between(0, 2);
        self.later(delay, Local::Settled(done));
    }

    /// Says what the disk has done, before it does more.
    pub(crate) fn settled(&mut self, done: Done, now: u64) {
        match done {
            Done::Writes(writes, result, given_up) => {
                writes.into_iter().for_each(|write| self.stored(write, &result, now));
                given_up.into_iter().for_each(|task| self.task_done(task, false, now));
            }
            Done::Task(task, is_done) => self.task_done(task, is_done, now),
            Done::Nothing => {}
        }
        if self.disk.is_refusing {
            let delay = self.random.between(0, 200);
            self.later(delay, Local::Reopened);
        } else {
            self.go_on_writing();
        }
    }

    pub(crate) fn go_on_writing(&mut self) {
        self.disk.is_busy = !self.disk.queue.is_empty();
        if self.disk.is_busy {
            let delay = self.random.between(0, self.disk.delay);
            self.later(delay, Local::Disk);
        }
    }

    fn stored(&mut self, write: Write, result: &Result<(), TierError>, now: u64) {
        let Write { partition, change, awaited, idempotency, asked, .. } = write;
        let (tells, early) = (!self.has(Bug::FailureNotTold), self.has(Bug::StoredWhenQueued) && asked.is_none());
        self.drive(partition, now, |engine, step| match result {
            Ok(()) if early => {}
            Ok(()) => engine.persisted(&change, idempotency.as_ref(), step),
            Err(error) if tells => engine.persist_failed(&change, idempotency.as_ref(), !awaited, error, step),
            Err(_) => {}
        });
        if result.is_ok() && asked.is_none() && self.random.chance(700) {
            self.upload_later(partition, &change);
        }
        if let Some((primary, addressed)) = asked.filter(|_| awaited) {
            let message = match result {
                Ok(()) => Message::Appended { version: change.version() },
                Err(_) => Message::AppendRefused { failed: true },
            };
            self.answer(partition, addressed, primary, message);
        }
    }

    pub(crate) fn uploaded(&mut self, partition: u32, name: &Bytes, version: Version, now: u64) {
        self.disk.tables.mark_uploaded(name, version);
        self.drive(partition, now, |engine, step| engine.uploaded(name, version, step));
    }

    /// The object store gets the row at some time, if nothing comes between.
    fn upload_later(&mut self, partition: u32, change: &Change) {
        let (name, version) = (Bytes::copy_from_slice(change.name()), change.version());
        let delay = self.random.between(5, 3_000);
        if !matches!(change, Change::Note { .. }) {
            self.later(delay, Local::Uploaded { partition, name, version });
        }
    }
}
