//! A node's disk: one writer that takes what waits in order, and fails everything behind what fails.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use cairn_api_spec::{Version, operation::IdempotencyKey, peer::FirstOutcome};
use cairn_engine::{Change, Head, Idempotency, Loaded, TierError};

use super::{
    network::{Fetch, Process},
    random::Random,
    tables::{Held, Row, Tables},
    uploads::Mark,
};
use crate::planted::Bug;

/// Writes of one batch, at most.
const MAX_BATCH: u64 = 8;
/// How often a commit that need not be flushed is all the same: the database copies its log back, or the system writes.
const FLUSHED_PER_MILLE: u64 = 50;

#[derive(Clone)]
pub(crate) struct Write {
    pub(crate) partition: u32,
    pub(crate) change: Change,
    pub(crate) awaited: bool,
    /// Whether the medium must be flushed.
    pub(crate) flush: bool,
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
    /// What the bucket has, and what it does not have after all.
    Mark {
        marks: Vec<Mark>,
        waiting: Vec<(Bytes, Version)>,
    },
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
    pub(crate) bug: Option<Bug>,
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
                let flush = matches!(task.work, Work::Adopt(_)) && self.bug != Some(Bug::AdoptedUnflushed);
                self.commit(flush, random);
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
        if self.bug == Some(Bug::AnsweredBeforeFlush) {
            self.tables.flush();
        }
        for write in &writes {
            self.tables.store(write, self.bug);
        }
        let flush = writes.iter().any(|write| write.flush) && self.bug != Some(Bug::AnsweredBeforeFlush);
        self.commit(flush, random);
        Done::Writes(writes, Ok(()), Vec::new())
    }

    /// One that flushes the medium flushes all before it, too: they are in the same log.
    fn commit(&mut self, flush: bool, random: &mut Random) {
        if flush || random.chance(FLUSHED_PER_MILLE) {
            self.tables.flush();
        }
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
