//! One partition on one node: from what is asked and what has happened to what must be done.

mod read;
mod settle;
mod write;

use std::collections::{BTreeSet, HashMap, VecDeque};

use bytes::Bytes;
use cairn_api_spec::{Outcome, TraceContext, Version, operation::IdempotencyKey, peer};
use cairn_replication::{Effect as ReplicaEffect, Member, Replica, Role, Settings, Write};

use crate::{
    change::{Change, NodeId, Payload},
    claims::{Claims, Holder},
    entry::Entry,
    error::Error,
    kept::Kept,
    reads::{ReadId, Reads},
    request::{JobId, Jobs, Request, Stage},
    verb::Current,
};

/// How long a request waits for a partition that is about to be served, or to be given away, in milliseconds.
const READY: u64 = 3_000;
/// How long a write, or a read of what it changed, waits for acknowledgements: a peer that is lost is given up before.
const COMMIT: u64 = 5_000;
/// How long a write with `durability=object` waits for its upload.
const UPLOAD: u64 = 5_000;
/// How long a request waits for the lower tiers.
const LOAD: u64 = 5_000;
/// Requests that may wait for one partition.
const MAX_JOBS: usize = 65_536;

/// A replicated write, with what is kept of it.
pub type Replicated = Write<Payload>;

/// The time, as the caller's clocks have it.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// Milliseconds of a clock that goes on while the machine sleeps: leases and deadlines.
    pub now: u64,
    /// Milliseconds since the Unix epoch: expiry.
    pub wall: u64,
}

/// What is at hand without waiting: the memory tier, and what is known of the disk.
pub trait Near {
    /// The committed entry that memory has under a name.
    fn get(&self, name: &[u8]) -> Option<Entry>;
    /// Takes a committed entry into memory, in place of an older one.
    fn insert(&self, entry: Entry);
    /// Forgets a name.
    fn remove(&self, name: &[u8]);
    /// Whether the disk may know of an earlier write with an idempotency key. "No" is always true.
    fn may_recall(&self, partition: u32, key: &IdempotencyKey) -> bool;
}

/// What every call of the engine gets.
pub struct Step<'a, W> {
    /// What is at hand.
    pub near: &'a dyn Near,
    /// The time.
    pub moment: Moment,
    /// What the caller must do, in this order.
    pub out: &'a mut Vec<Effect<W>>,
}

/// What the caller must do.
pub enum Effect<W> {
    /// Send to a peer, or ask the master. Never [`ReplicaEffect::Persist`], [`ReplicaEffect::Committed`] or
    /// [`ReplicaEffect::Abandoned`].
    Protocol(ReplicaEffect<NodeId, Payload>),
    /// Put a write into the disk's queue, behind those before it; tell [`Engine::persisted`] or
    /// [`Engine::persist_failed`].
    Persist(Replicated),
    /// Read a key from the disk, and its value from where it is; tell [`Engine::loaded`].
    Load {
        /// The number to give back.
        read: ReadId,
        /// The key.
        name: Bytes,
        /// Whether the value is wanted.
        with_value: bool,
        /// The trace of whoever asked first.
        trace: Option<TraceContext>,
    },
    /// Look for the first write with an idempotency key; tell [`Engine::recalled`].
    Recall {
        /// The request to give back.
        job: JobId,
        /// The key.
        key: IdempotencyKey,
    },
    /// Tell whoever has subscribed that this is what reads see now. After a takeover it may be told once more.
    Publish(Change),
    /// Answer a request.
    Reply {
        /// Whoever waits.
        to: W,
        /// The answer.
        result: Result<Outcome, Error>,
    },
}

/// A write of a key while it is not committed, or not on the disk.
struct Pending {
    version: Version,
    /// `None` for a deletion. Once committed, it is what reads see when memory has dropped it.
    entry: Option<Entry>,
    committed: bool,
    on_disk: bool,
}

/// The newest write of a key, as everybody may know it.
#[derive(Clone, Debug)]
pub enum Newest {
    /// None is under way.
    Stored,
    /// It is committed, and not on the disk yet: its version, and its entry, or none for a deletion.
    Ahead(Version, Option<Entry>),
    /// It is not committed.
    Uncommitted,
}

/// What the engine knows of a key at once.
struct Known {
    current: Current,
    /// The write that made it so is not committed.
    pending: bool,
}

/// What everybody may know of the partition without its lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Published {
    /// What this node is to the partition.
    pub role: Role,
    /// The epoch at which it answers reads; 0 when it does not.
    pub serving: u64,
    /// Until when it may, on the clock of leases.
    pub lease_until: u64,
}

/// One partition on one node. `W` is whatever waits for an answer.
pub struct Engine<W> {
    partition: u32,
    replica: Replica<NodeId, Payload>,
    jobs: Jobs<W>,
    claims: Claims,
    kept: Kept,
    /// Of each key the newest committed write that is not on the disk, and those that are not committed, the newest last.
    pending: HashMap<Bytes, Vec<Pending>>,
    /// The newest write that was committed here.
    committed: Version,
    reads: Reads,
    /// Requests that wait for a version to be committed.
    waiting: BTreeSet<(Version, JobId)>,
    /// Requests that wait for a role, a lease or an entry.
    parked: Vec<JobId>,
    /// Writes that wait for their upload.
    uploading: Vec<JobId>,
    /// Requests to look at.
    ready: VecDeque<JobId>,
    effects: Vec<ReplicaEffect<NodeId, Payload>>,
    published: Published,
    /// The clock of this node is too far from the cluster's for it to lead.
    clock_is_off: bool,
}

impl<W> Engine<W> {
    /// A partition that this node, in this process, has nothing to do with yet.
    pub fn new(partition: u32, me: Member<NodeId>) -> Self {
        Self {
            partition,
            replica: Replica::new(me, Settings::default()),
            jobs: Jobs::default(),
            claims: Claims::default(),
            kept: Kept::default(),
            pending: HashMap::new(),
            committed: Version::NONE,
            reads: Reads::default(),
            waiting: BTreeSet::new(),
            parked: Vec::new(),
            uploading: Vec::new(),
            ready: VecDeque::new(),
            effects: Vec::new(),
            published: Published { role: Role::Idle, serving: 0, lease_until: 0 },
            clock_is_off: false,
        }
    }

    /// The state of the protocol.
    pub fn replica(&self) -> &Replica<NodeId, Payload> {
        &self.replica
    }

    /// What everybody may know without the partition's lock.
    pub fn published(&self) -> Published {
        self.published
    }

    /// Requests that are not answered.
    pub fn waiting_requests(&self) -> usize {
        self.jobs.len()
    }

    /// Places in which requests stand until something happens: no more than requests that are not answered.
    pub fn waiting_places(&self) -> usize {
        self.waiting.len() + self.claims.waiting() + self.parked.len() + self.uploading.len()
    }

    /// The newest write of a key.
    pub fn newest(&self, name: &[u8]) -> Newest {
        match self.newest_pending(name) {
            None => Newest::Stored,
            Some(Pending { committed: false, .. }) => Newest::Uncommitted,
            Some(Pending { version, entry, .. }) => Newest::Ahead(*version, entry.clone()),
        }
    }

    /// Name and version of the newest write of each key that is not on this disk, because it was refused, as heads of rows.
    /// A learner may have it from before, and acknowledges it when it is sent: it must not drop it as something that the
    /// primary lacks.
    pub fn heads_ahead(&self) -> Vec<peer::Row> {
        let changes = self.replica.not_stored().map(|write| &write.data.change);
        let of_keys = changes.filter(|change| !matches!(change, Change::Note { .. }));
        let newest: HashMap<&[u8], Version> = of_keys.map(|change| (change.name(), change.version())).collect();
        let head = |(name, version): (&[u8], Version)| {
            let name = Bytes::copy_from_slice(name);
            peer::Row { name, version: version.0, ..peer::Row::default() }
        };
        newest.into_iter().map(head).collect()
    }

    fn newest_pending(&self, name: &[u8]) -> Option<&Pending> {
        self.pending.get(name)?.last()
    }

    /// Forgets those writes of a key on their way for which `keep` is false.
    fn retain_pending(&mut self, name: &[u8], keep: impl Fn(&Pending) -> bool) {
        if let Some(pending) = self.pending.get_mut(name) {
            pending.retain(keep);
            if pending.is_empty() {
                self.pending.remove(name);
            }
        }
    }

    /// Gives the replica a message, an entry, an answer of the master: whatever concerns the protocol and no key.
    pub fn protocol<R>(
        &mut self,
        step: &mut Step<'_, W>,
        work: impl FnOnce(&mut Replica<NodeId, Payload>, u64, &mut Vec<ReplicaEffect<NodeId, Payload>>) -> R,
    ) -> R {
        let result = work(&mut self.replica, step.moment.now, &mut self.effects);
        self.settle(step);
        result
    }

    /// Takes a request. It is answered by [`Effect::Reply`], now or later.
    pub fn submit(&mut self, request: Request, waiter: W, step: &mut Step<'_, W>) {
        if self.jobs.len() >= MAX_JOBS {
            step.out.push(Effect::Reply { to: waiter, result: Err(Error::Overloaded(self.partition)) });
            return;
        }
        let id = self.jobs.add(request, waiter, step.moment.now + READY);
        self.look_at(id, step);
        self.settle(step);
    }

    /// Time has passed. To be called a few times a second.
    pub fn tick(&mut self, step: &mut Step<'_, W>) {
        self.replica.tick(step.moment.now, &mut self.effects);
        self.settle(step);
        for id in self.jobs.overdue(step.moment.now) {
            self.give_up(id, step);
        }
        self.settle(step);
    }

    /// Says whether the node's clock is too far from the cluster's: then it answers nothing as a primary.
    pub fn set_clock_is_off(&mut self, is_off: bool, step: &mut Step<'_, W>) {
        self.clock_is_off = is_off;
        self.settle(step);
    }

    fn look_at(&mut self, id: JobId, step: &mut Step<'_, W>) {
        let Some(job) = self.jobs.get(id) else { return };
        if job.request.verb.is_write() { self.write(id, None, step) } else { self.read(id, None, step) }
    }

    /// Lets a request wait for a read of its key.
    fn load(&mut self, id: JobId, with_value: bool, stage: Stage, step: &mut Step<'_, W>) {
        let Some(job) = self.jobs.get(id) else { return };
        let (name, trace) = (job.request.name.as_bytes().clone(), job.request.trace);
        self.jobs.enter(id, stage, step.moment.now + LOAD);
        if let Some(read) = self.reads.join(&name, with_value, id) {
            step.out.push(Effect::Load { read, name, with_value, trace });
        }
    }

    /// Lets a request wait for a version.
    fn wait_for(&mut self, id: JobId, version: Version, stage: Stage, step: &Step<'_, W>) {
        self.jobs.enter(id, stage, step.moment.now + COMMIT);
        if let Some(job) = self.jobs.get_mut(id) {
            job.awaited = version;
            self.waiting.insert((version, id));
        }
    }

    /// Lets a request wait for a role, a lease or an entry. The time that it has for that does not begin again.
    fn park(&mut self, id: JobId) {
        if let Some(job) = self.jobs.get_mut(id) {
            job.stage = Stage::Parked;
            self.parked.push(id);
        }
    }

    fn finish(&mut self, id: JobId, result: Result<Outcome, Error>, step: &mut Step<'_, W>) {
        let Some(job) = self.jobs.remove(id) else { return };
        if let Some(key) = job.request.key.as_ref().filter(|_| job.claimed) {
            let waiting = self.claims.release(key, Holder::Request(id));
            self.ready.extend(waiting);
        }
        step.out.push(Effect::Reply { to: job.waiter, result });
    }

    fn not_owner(&self) -> Error {
        Error::NotOwner { partition: self.partition, epoch: self.replica.entry().epoch }
    }

    fn offline(&self, why: &'static str) -> Error {
        Error::PartitionOffline { partition: self.partition, why }
    }
}
