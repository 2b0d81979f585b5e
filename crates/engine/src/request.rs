//! A request, and where it stands on its way.

use std::collections::HashMap;

use cairn_api_spec::{
    EntryName, Outcome, TraceContext, Version,
    operation::{Durability, IdempotencyKey},
    peer::FirstOutcome,
    version::Condition,
};

use crate::{change::Room, error::Error, verb::Verb};

/// The number of a request in its partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobId(u64);

impl JobId {
    pub(crate) const FIRST: Self = Self(0);
    pub(crate) const LAST: Self = Self(u64::MAX);
}

/// What is asked of one key.
#[derive(Clone)]
pub struct Request {
    /// The key and its bucket.
    pub name: EntryName,
    /// What to do with it.
    pub verb: Verb,
    /// What must hold of it.
    pub condition: Condition,
    /// How durable every copy of a write must be before it is answered.
    pub durability: Durability,
    /// What makes a write safe to send again.
    pub key: Option<IdempotencyKey>,
    /// The epoch of the partition's entry that the asker knows; 0: none.
    pub epoch: u64,
    /// Any in-sync copy may answer the read.
    pub eventual: bool,
    /// Room in the queue of the disk, for a write.
    pub room: Option<Room>,
    /// The trace that the request belongs to.
    pub trace: Option<TraceContext>,
}

impl Request {
    /// A request without a condition, an idempotency key or a trace, by an asker who knows no epoch.
    pub fn new(name: EntryName, verb: Verb) -> Self {
        Self {
            name,
            verb,
            condition: Condition::None,
            durability: Durability::default(),
            key: None,
            epoch: 0,
            eventual: false,
            room: None,
            trace: None,
        }
    }
}

/// What a request waits for.
pub(crate) enum Stage {
    /// A role, a lease, or an entry.
    Parked,
    /// The request or write that holds its idempotency key.
    Claiming,
    /// The disk's word on what became of the first write with its idempotency key.
    Recalling,
    /// A read of the lower tiers.
    Loading,
    /// The version to be committed, or known never to be; then the request is looked at anew.
    Awaiting,
    /// The same; when the version is committed, it is refused with this outcome.
    Refusing(Result<Outcome, Error>),
    /// Its write to be committed.
    Committing(Outcome),
    /// The first write with its idempotency key to be committed.
    Repeating(FirstOutcome),
    /// A look at whether that write is in the object store.
    CheckingUpload(Version, Outcome),
    /// The version to be in the object store.
    Uploading(Version, Outcome),
}

/// A request that is not answered.
pub(crate) struct Job<W> {
    pub(crate) request: Request,
    pub(crate) waiter: W,
    pub(crate) stage: Stage,
    /// The version that it waits for, or waited for last.
    pub(crate) awaited: Version,
    /// When the stage is given up.
    pub(crate) deadline: u64,
    /// It holds its idempotency key.
    pub(crate) claimed: bool,
}

/// The requests that are not answered.
pub(crate) struct Jobs<W> {
    last: u64,
    jobs: HashMap<JobId, Job<W>>,
    /// No deadline is earlier.
    next_deadline: u64,
}

impl<W> Default for Jobs<W> {
    fn default() -> Self {
        Self { last: 0, jobs: HashMap::new(), next_deadline: u64::MAX }
    }
}

impl<W> Jobs<W> {
    pub(crate) fn len(&self) -> usize {
        self.jobs.len()
    }

    pub(crate) fn add(&mut self, request: Request, waiter: W, deadline: u64) -> JobId {
        self.last += 1;
        let id = JobId(self.last);
        self.next_deadline = self.next_deadline.min(deadline);
        let (stage, awaited) = (Stage::Parked, Version::NONE);
        self.jobs.insert(id, Job { request, waiter, stage, awaited, deadline, claimed: false });
        id
    }

    pub(crate) fn get(&self, id: JobId) -> Option<&Job<W>> {
        self.jobs.get(&id)
    }

    pub(crate) fn get_mut(&mut self, id: JobId) -> Option<&mut Job<W>> {
        self.jobs.get_mut(&id)
    }

    pub(crate) fn remove(&mut self, id: JobId) -> Option<Job<W>> {
        self.jobs.remove(&id)
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Job<W>> {
        self.jobs.values_mut()
    }

    /// Lets a request wait for something else, until `deadline`.
    pub(crate) fn enter(&mut self, id: JobId, stage: Stage, deadline: u64) {
        if let Some(job) = self.jobs.get_mut(&id) {
            (job.stage, job.deadline) = (stage, deadline);
            self.next_deadline = self.next_deadline.min(deadline);
        }
    }

    /// The requests whose deadline has passed, in the order of their arrival.
    pub(crate) fn overdue(&mut self, now: u64) -> Vec<JobId> {
        if now < self.next_deadline {
            return Vec::new();
        }
        self.next_deadline =
            self.jobs.values().map(|job| job.deadline).filter(|at| *at > now).min().unwrap_or(u64::MAX);
        let mut overdue: Vec<_> = self.jobs.iter().filter(|(_, job)| job.deadline <= now).map(|(id, _)| *id).collect();
        overdue.sort_unstable();
        overdue
    }
}
