//! A node's disk: one writer that takes what waits in order, and fails everything behind what fails; and what is stored.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use cairn_api_spec::{Version, operation::IdempotencyKey, peer::FirstOutcome};
use cairn_engine::{Change, Head, Idempotency, Loaded, TierError};

use super::{
    network::{Fetch, Process},
    random::Random,
};

/// Writes of one batch, at most.
const MAX_BATCH: u64 = 8;

#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) partition: u32,
    /// A put or a deletion.
    pub(crate) change: Change,
    pub(crate) uploaded: bool,
}

/// A partition whose rows are a complete copy.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Held {
    pub(crate) generation: u64,
    pub(crate) last: Version,
}

#[derive(Clone)]
pub(crate) struct Write {
    pub(crate) partition: u32,
    pub(crate) change: Change,
    pub(crate) awaited: bool,
    pub(crate) idempotency: Option<Idempotency>,
    /// The primary that waits for the write, and the process of this node that it was sent to.
    pub(crate) asked: Option<(Process, Process)>,
}

pub(crate) struct Task {
    pub(crate) partition: u32,
    /// The attempt of the work on a partition that it belongs to.
    pub(crate) attempt: u64,
    pub(crate) work: Work,
}

pub(crate) enum Work {
    /// Nothing but its place in the queue.
    Barrier,
    /// The first page for a learner is read behind what was queued before.
    Snapshot {
        learner: Process,
        fetch: Fetch,
    },
    /// Declares the rows no complete copy, drops the idempotency keys, and lists the rows.
    BeginCopy {
        mine: BTreeMap<Bytes, Version>,
    },
    StoreRows {
        outdated: Vec<(Bytes, Version)>,
        rows: Vec<Row>,
    },
    StoreKeys(Vec<FirstOutcome>),
    Adopt(Held),
    /// Forgets deletions.
    Forget(Vec<(Bytes, Version)>),
    Disown,
    Drop,
}

pub(crate) enum Job {
    Write(Write),
    Task(Task),
}

/// What the disk has done.
pub(crate) enum Done {
    /// With the tasks that are given up because they stood behind a write that failed.
    Writes(Vec<Write>, Result<(), TierError>, Vec<Task>),
    Task(Task, bool),
    Nothing,
}

#[derive(Default)]
pub(crate) struct Tables {
    pub(crate) rows: BTreeMap<Bytes, Row>,
    pub(crate) keys: BTreeMap<(u32, Version), FirstOutcome>,
    pub(crate) held: BTreeMap<u32, Held>,
}

#[derive(Default)]
pub(crate) struct Disk {
    pub(crate) tables: Tables,
    pub(crate) queue: VecDeque<Job>,
    pub(crate) is_busy: bool,
    /// It failed, and was not opened again.
    pub(crate) is_refusing: bool,
    /// The longest that it takes for a batch.
    pub(crate) delay: u64,
    /// Until when most of what it does fails.
    pub(crate) fails_until: u64,
    /// Until when it does nothing.
    pub(crate) hangs_until: u64,
    /// Leaves out the idempotency keys of writes.
    pub(crate) drops_keys: bool,
}

impl Disk {
    /// Returns whether the writer must be woken.
    pub(crate) fn push(&mut self, job: Job) -> Result<bool, TierError> {
        if self.is_refusing {
            return Err(TierError::Disk("it has failed".to_owned()));
        }
        self.queue.push_back(job);
        Ok(!std::mem::replace(&mut self.is_busy, true))
    }

    /// The process ends: what waits is lost.
    pub(crate) fn crash(&mut self) {
        self.queue.clear();
        (self.is_busy, self.is_refusing) = (false, false);
    }

    /// Does what is next.
    pub(crate) fn work(&mut self, now: u64, random: &mut Random) -> Done {
        let fails = now < self.fails_until && random.chance(700);
        let is_write = |job: &Job| matches!(job, Job::Write(_));
        if !self.queue.front().is_some_and(is_write) {
            let Some(Job::Task(mut task)) = self.queue.pop_front() else { return Done::Nothing };
            self.is_refusing = fails;
            if !fails {
                self.tables.apply(&mut task);
            }
            return Done::Task(task, !fails);
        }
        let most = random.between(1, MAX_BATCH);
        let mut writes = Vec::new();
        while (writes.len() as u64) < most && self.queue.front().is_some_and(is_write) {
            if let Some(Job::Write(write)) = self.queue.pop_front() {
                writes.push(write);
            }
        }
        if fails {
            self.is_refusing = true;
            let error = TierError::Disk("input/output error".to_owned());
            let mut tasks = Vec::new();
            for job in std::mem::take(&mut self.queue) {
                match job {
                    Job::Write(write) => writes.push(write),
                    Job::Task(task) => tasks.push(task),
                }
            }
            return Done::Writes(writes, Err(error), tasks);
        }
        for write in &writes {
            self.tables.store(write, !self.drops_keys);
        }
        Done::Writes(writes, Ok(()), Vec::new())
    }

    /// The row of a key, as reads of the lower tiers find it.
    pub(crate) fn load(&self, name: &[u8], with_value: bool, wall: u64) -> Loaded {
        let Some(Row { change, uploaded, .. }) = self.tables.rows.get(name) else { return Loaded::Nothing };
        match change {
            Change::Put(entry) if with_value && entry.is_live(wall) => {
                Loaded::Value(entry.clone(), cairn_api_spec::operation::Tier::Disk)
            }
            change => {
                let peer = change.to_peer();
                let metadata = cairn_api_spec::operation::Metadata {
                    version: change.version(),
                    modified_at: change.at(),
                    expires_at: Some(peer.expires_at).filter(|at| *at > 0),
                    size: peer.size,
                    content_type: peer.content_type,
                };
                Loaded::Head(Head { metadata, tombstone: peer.tombstone, uploaded: *uploaded, on_disk: true })
            }
        }
    }

    /// What became of the newest write with an idempotency key.
    pub(crate) fn first_outcome(&self, partition: u32, key: &IdempotencyKey) -> Option<FirstOutcome> {
        let keys = self.tables.keys.range((partition, Version::NONE)..=(partition, Version::MAX));
        keys.map(|(_, first)| first).rfind(|first| first.key == key.as_str()).cloned()
    }
}

impl Tables {
    fn store(&mut self, write: &Write, with_keys: bool) {
        if let Some(first) = first_outcome(write).filter(|_| with_keys) {
            self.keys.insert((write.partition, write.change.version()), first);
        }
        if !matches!(write.change, Change::Note { .. }) {
            self.put(Row { partition: write.partition, change: write.change.clone(), uploaded: false });
        }
    }

    fn put(&mut self, row: Row) {
        let name = Bytes::copy_from_slice(row.change.name());
        if self.rows.get(&name).is_none_or(|known| known.change.version() < row.change.version()) {
            self.rows.insert(name, row);
        }
    }

    /// Removes a row, unless it has another version by now.
    fn remove(&mut self, name: &Bytes, version: Version) {
        if self.rows.get(name).is_some_and(|row| row.change.version() == version) {
            self.rows.remove(name);
        }
    }

    fn drop_keys(&mut self, partition: u32) {
        self.keys.retain(|(of, _), _| *of != partition);
    }

    /// The highest version of a partition that is stored.
    pub(crate) fn last(&self, partition: u32) -> Version {
        let rows = self.rows.values().filter(|row| row.partition == partition).map(|row| row.change.version());
        let keys = self.keys.keys().filter(|(of, _)| *of == partition).map(|(_, version)| *version);
        rows.chain(keys).chain(self.held.get(&partition).map(|held| held.last)).max().unwrap_or_default()
    }

    fn apply(&mut self, Task { partition, work, .. }: &mut Task) {
        let partition = *partition;
        match work {
            Work::Barrier | Work::Snapshot { .. } => {}
            Work::BeginCopy { mine } => {
                self.held.remove(&partition);
                self.drop_keys(partition);
                let rows = self.rows.iter().filter(|(_, row)| row.partition == partition);
                *mine = rows.map(|(name, row)| (name.clone(), row.change.version())).collect();
            }
            Work::StoreRows { outdated, rows } => {
                outdated.iter().for_each(|(name, version)| self.remove(name, *version));
                rows.drain(..).for_each(|row| self.put(row));
            }
            Work::StoreKeys(keys) => {
                for first in keys.drain(..) {
                    self.keys.entry((partition, Version(first.version))).or_insert(first);
                }
            }
            Work::Adopt(held) => drop(self.held.insert(partition, *held)),
            Work::Forget(deletions) => {
                for (name, version) in deletions.iter() {
                    if let Some(held) = self.held.get_mut(&partition) {
                        held.last = held.last.max(*version);
                    }
                    self.remove(name, *version);
                }
            }
            Work::Disown => drop(self.held.remove(&partition)),
            Work::Drop => {
                self.held.remove(&partition);
                self.rows.retain(|_, row| row.partition != partition);
                self.drop_keys(partition);
            }
        }
    }
}

/// What is kept of a write with an idempotency key.
fn first_outcome(write: &Write) -> Option<FirstOutcome> {
    let Idempotency { key, created, counted } = write.idempotency.as_ref()?;
    let (tombstone, expires_at, (refused, refused_version)) = match &write.change {
        Change::Put(entry) => (false, entry.metadata().expires_at.unwrap_or(0), (0, 0)),
        Change::Delete { .. } => (true, 0, (0, 0)),
        Change::Note { refused, deletes, .. } => (*deletes, 0, refused.to_peer()),
    };
    Some(FirstOutcome {
        key: key.as_str().to_owned(),
        name: Bytes::copy_from_slice(write.change.name()),
        version: write.change.version().0,
        created: *created,
        tombstone,
        modified_at: write.change.at(),
        expires_at,
        refused,
        refused_version,
        counted: *counted,
    })
}
