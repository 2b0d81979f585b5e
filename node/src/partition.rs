//! The state of every partition that this node may hold, and the order of its writes.
//!
//! The rules of replication are those of `cairn_replication`; here is what they are about: a write is decided against
//! the newest state of its key (a queued write, else memory, else the disk). Deciding, giving the version and queueing
//! are one critical section, so a condition can never pass twice. Reads see committed state only; and a write that is
//! refused because of a queued one is answered when that one is settled, or its client could learn of it and then read
//! what was before.
//!
//! Nothing here waits or does I/O; the critical sections are short and never nested.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use cairn_api_spec::{TraceContext, Version, operation::Durability};
use cairn_replication::{Effect, Member, Replica, Role, Settings, Write as Replicated};
use futures_util::future::{BoxFuture, Shared};
use tokio::sync::watch;
use xxhash_rust::xxh3::xxh3_64;

use crate::{
    claim::{Claims, Holder},
    clock,
    disk::{Change, Idempotency, Reservation, Write},
    entry::Entry,
    error::NodeError,
    mailbox::{Reply, Settled, deliver},
    memory::Memory,
};

/// The id of a node.
pub type NodeId = Arc<str>;

/// What is kept of a write until it is on every in-sync replica.
#[derive(Clone)]
pub struct Payload {
    /// What changes.
    pub change: Change,
    /// How durable every copy must be.
    pub durability: Durability,
    /// Room in the queue of this node's clients.
    pub reservation: Option<Reservation>,
    /// What the write can be known by when it is sent again.
    pub idempotency: Option<Idempotency>,
    /// The trace that it belongs to, for those that it is sent to.
    pub trace: Option<TraceContext>,
}

/// The newest state of a key, as a write must see it.
#[derive(Clone, Copy, Debug)]
pub struct Current {
    /// The version of the value or of the deletion; 0 when there is neither.
    pub version: Version,
    /// Whether the key is there.
    pub live: bool,
    /// Whether a write that is not committed yet made it so.
    pub pending: bool,
}

/// The newest write of a key while it is not committed, or not on the disk.
struct Pending {
    current: Current,
    on_disk: bool,
    /// Once committed: what reads see when memory has dropped it.
    visible: Option<Option<Entry>>,
}

/// What a read finds of a key's newest write.
pub enum Newest {
    /// There is none under way.
    Settled,
    /// It is committed, and not on the disk yet: its version, and its value, or none for a deletion.
    Ahead(Version, Option<Entry>),
    /// It has this version and is not committed.
    Uncommitted(Version),
}

/// What a read of the lower tiers found.
#[derive(Clone, Debug)]
pub enum Loaded {
    /// Nothing was ever stored, or its deletion is forgotten.
    Nothing,
    /// The row without its value, or a tombstone.
    Head(Arc<crate::disk::Row>),
    /// The value, and the tier that had it.
    Value(Entry, cairn_api_spec::operation::Tier),
}

/// What a read of the lower tiers comes to, for everybody who waits for it.
pub type Looked = Shared<BoxFuture<'static, Result<Loaded, NodeError>>>;

/// One read of the lower tiers that everybody who asks for the key shares.
#[derive(Clone)]
pub struct Flight {
    /// The read.
    pub result: Looked,
    /// Set when the key changes after the read began: then it may have seen what is not committed, and must neither
    /// decide a write nor answer a read nor fill memory.
    pub stale: Arc<AtomicBool>,
    /// The count of changes when it began.
    since: u64,
    _looking: Arc<()>,
}

/// Changed keys that are remembered while somebody looks.
const MAX_CHANGED_KEYS: usize = 4_096;

/// What other rooms must do for the protocol.
pub type Outward = Effect<NodeId, Payload>;

/// The lock-guarded part of a partition.
pub struct State {
    /// What this node is to the partition, and the writes that are not everywhere yet.
    pub replica: Replica<NodeId, Payload>,
    /// The idempotency keys of requests and writes under way.
    pub claims: Claims,
    pending: HashMap<Bytes, Pending>,
    /// Who must know what becomes of the write with this version.
    waiting: Vec<(Version, Reply)>,
    flights: HashMap<(Bytes, bool), Flight>,
    /// Held by whoever looks, or has looked, at the lower tiers.
    looking: Arc<()>,
    /// Counts changes of keys while somebody looks.
    changed: u64,
    /// The last of them for each key, by the hash of its name: what was found before is out of date.
    changed_keys: HashMap<u64, u64>,
    /// What was begun before this count may be out of date: not all changes are remembered.
    doubted: u64,
    /// The role that everybody has heard of.
    published: Role,
}

/// Every partition, and the memory tier over them.
pub struct Partitions {
    /// The memory tier.
    pub memory: Memory,
    states: Vec<Mutex<State>>,
    /// The epoch at which a partition is served, 0 when it is not: what reads look at, without the lock.
    serving: Vec<AtomicU64>,
    /// Until when, on [`clock`], reads may be answered.
    leases: Vec<AtomicU64>,
    /// Grows whenever a role or a lease changes.
    changes: watch::Sender<u64>,
}

/// A locked partition.
pub struct Locked<'a> {
    partitions: &'a Partitions,
    partition: u32,
    state: MutexGuard<'a, State>,
}

impl Partitions {
    /// `count` partitions that this node, in this process, has nothing to do with yet.
    pub fn new(count: u32, memory: Memory, me: &Member<NodeId>) -> Self {
        let state = || {
            Mutex::new(State {
                replica: Replica::new(me.clone(), Settings::default()),
                claims: Claims::default(),
                pending: HashMap::new(),
                waiting: Vec::new(),
                flights: HashMap::new(),
                looking: Arc::default(),
                changed: 0,
                changed_keys: HashMap::new(),
                doubted: 0,
                published: Role::Idle,
            })
        };
        let zeros = || std::iter::repeat_with(AtomicU64::default).take(count as usize).collect();
        Self {
            memory,
            states: std::iter::repeat_with(state).take(count as usize).collect(),
            serving: zeros(),
            leases: zeros(),
            changes: watch::Sender::new(0),
        }
    }

    /// How many there are.
    pub fn count(&self) -> u32 {
        u32::try_from(self.states.len()).unwrap_or(u32::MAX)
    }

    /// Locks one partition. `partition` comes from the partition function or was compared with [`Partitions::count`].
    pub fn lock(&self, partition: u32) -> Locked<'_> {
        let state = self.states[partition as usize].lock().unwrap_or_else(PoisonError::into_inner);
        Locked { partitions: self, partition, state }
    }

    /// What the node is to a partition.
    pub fn role(&self, partition: u32) -> Role {
        self.lock(partition).state.replica.role()
    }

    /// The epoch at which the partition is served; 0 when it is not.
    pub fn serving_epoch(&self, partition: u32) -> u64 {
        self.serving.get(partition as usize).map_or(0, |epoch| epoch.load(Ordering::Acquire))
    }

    /// Whether the leases for a partition that is served have not run out.
    pub fn has_lease(&self, partition: u32) -> bool {
        if cfg!(feature = "planted-bug") {
            return true;
        }
        match self.leases.get(partition as usize).map_or(0, |until| until.load(Ordering::Acquire)) {
            u64::MAX => true,
            until => clock::now() < until,
        }
    }

    /// How many partitions are served.
    pub fn serving_count(&self) -> u32 {
        let served = self.serving.iter().filter(|epoch| epoch.load(Ordering::Relaxed) > 0).count();
        u32::try_from(served).unwrap_or(u32::MAX)
    }

    /// Whether this node is to serve a partition and does not yet.
    pub fn any_unready(&self) -> bool {
        (0..self.count()).map(|partition| self.role(partition)).any(|role| role.leads() && !role.reads())
    }

    /// Writes that are not everywhere, and since when the oldest of them waits.
    pub fn lag(&self) -> (u64, Option<u64>) {
        (0..self.count()).map(|partition| self.lock(partition)).filter(|locked| locked.replica.role().leads()).fold(
            (0, None),
            |(sum, oldest): (u64, Option<u64>), locked| {
                let (count, since) = locked.replica.lag();
                (sum + count as u64, oldest.into_iter().chain(since).min())
            },
        )
    }

    /// Wakes with every change of a role or a lease.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// What a read must know of writes under way.
    pub fn newest(&self, partition: u32, name: &[u8]) -> Newest {
        let locked = self.lock(partition);
        match locked.pending.get(name) {
            None => Newest::Settled,
            Some(Pending { current, visible: Some(entry), .. }) => Newest::Ahead(current.version, entry.clone()),
            Some(Pending { current, .. }) => Newest::Uncommitted(current.version),
        }
    }

    /// Settles a batch of the disk's writer.
    pub fn settle(&self, writes: Vec<Write>, result: &Settled) {
        let mut told = Vec::with_capacity(writes.len());
        let mut replies = Vec::new();
        let mut effects = Vec::new();
        for write in writes {
            let mut locked = self.lock(write.partition);
            match result {
                Ok(()) => locked.persisted(&write.change, &mut effects),
                Err(error) => locked.persist_failed(&write.change, error, &mut effects, &mut told),
            }
            if let Some(Idempotency { key, .. }) = &write.idempotency {
                locked.claims.release(key, Holder::Write(write.change.version()));
            }
            locked.absorb(&mut effects, &mut told);
            replies.extend(write.reply);
        }
        deliver(replies, result);
        tell(told);
    }

    fn show(&self, change: &Change) {
        match change {
            Change::Put(entry) => self.memory.insert(entry.clone()),
            Change::Delete { name, .. } => self.memory.remove(name),
        }
    }
}

/// Answers, in few wake-ups: mostly all are the same.
pub fn tell(told: Vec<(Reply, Settled)>) {
    let (good, bad): (Vec<_>, Vec<_>) = told.into_iter().partition(|(_, settled)| settled.is_ok());
    deliver(good.into_iter().map(|(reply, _)| reply).collect(), &Ok(()));
    for (reply, settled) in bad {
        deliver(vec![reply], &settled);
    }
}

impl Locked<'_> {
    /// The newest state of a key, if memory or the queue knows it.
    pub fn known(&self, name: &[u8], now: u64) -> Option<Current> {
        self.pending.get(name).map(|pending| pending.current).or_else(|| {
            self.partitions.memory.get(name).map(|entry| Current {
                version: entry.version(),
                live: entry.is_live(now),
                pending: false,
            })
        })
    }

    /// Notes a write that was proposed and queued.
    pub fn begin(&mut self, change: &Change) {
        let (name, live) = match change {
            Change::Put(entry) => (Bytes::copy_from_slice(entry.name()), true),
            Change::Delete { name, .. } => (name.clone(), false),
        };
        self.forget_flights(&name);
        let current = Current { version: change.version(), live, pending: true };
        self.pending.insert(name, Pending { current, on_disk: false, visible: None });
    }

    fn persisted(&mut self, change: &Change, effects: &mut Vec<Outward>) {
        let (name, version) = (change.name(), change.version());
        if let Some(pending) = self.pending.get_mut(name)
            && pending.current.version == version
        {
            pending.on_disk = true;
            if pending.visible.is_some() {
                self.pending.remove(name);
            }
        }
        self.forget_flights(name);
        self.replica.persisted(version, effects);
    }

    fn persist_failed(
        &mut self,
        change: &Change,
        error: &NodeError,
        effects: &mut Vec<Outward>,
        told: &mut Vec<(Reply, Settled)>,
    ) {
        let (name, version) = (change.name(), change.version());
        if self.replica.persist_failed(version, effects) {
            if self.pending.get(name).is_some_and(|pending| pending.current.version == version) {
                self.pending.remove(name);
            }
            self.forget_flights(name);
            let lost = self.waiting.extract_if(.., |(awaited, _)| *awaited == version);
            told.extend(lost.map(|(_, reply)| (reply, Err(error.clone()))));
        }
    }

    /// Does what the protocol asks of this room, leaves the rest in `effects`, and publishes the role. `told` is to be
    /// told when the lock is gone.
    pub fn absorb(&mut self, effects: &mut Vec<Outward>, told: &mut Vec<(Reply, Settled)>) {
        if effects.iter().any(|effect| matches!(effect, Effect::Committed(_) | Effect::Abandoned)) {
            effects.retain(|effect| match effect {
                Effect::Committed(write) => {
                    self.commit(write, told);
                    false
                }
                Effect::Abandoned => {
                    self.abandon(told);
                    false
                }
                _ => true,
            });
        }
        self.publish();
    }

    fn commit(&mut self, write: &Replicated<Payload>, told: &mut Vec<(Reply, Settled)>) {
        let Replicated { version, data } = write;
        let name = data.change.name();
        self.partitions.show(&data.change);
        if let Some(pending) = self.pending.get_mut(name)
            && pending.current.version == *version
        {
            pending.current.pending = false;
            pending.visible = Some(match &data.change {
                Change::Put(entry) => Some(entry.clone()),
                Change::Delete { .. } => None,
            });
            if pending.on_disk {
                self.pending.remove(name);
            }
        }
        self.forget_flights(name);
        told.extend(self.waiting.extract_if(.., |(awaited, _)| awaited == version).map(|(_, reply)| (reply, Ok(()))));
    }

    /// Nobody knows what becomes of the writes that are not committed.
    fn abandon(&mut self, told: &mut Vec<(Reply, Settled)>) {
        self.claims.clear();
        self.pending.retain(|_, pending| pending.visible.is_some());
        told.extend(self.waiting.drain(..).map(|(_, reply)| (reply, Err(NodeError::Superseded))));
    }

    fn publish(&mut self) {
        let (role, index) = (self.replica.role(), self.partition as usize);
        let epoch = if role.reads() { self.replica.entry().epoch } else { 0 };
        let lease = self.replica.lease_until();
        let (serving, leases) = (&self.partitions.serving[index], &self.partitions.leases[index]);
        let known = (self.published, serving.load(Ordering::Relaxed), leases.load(Ordering::Relaxed));
        if known == (role, epoch, lease) {
            return;
        }
        self.published = role;
        leases.store(lease, Ordering::Release);
        serving.store(epoch, Ordering::Release);
        if epoch == 0 {
            // What a read finds from now on, or has found, may be overtaken elsewhere, and must not count when the
            // partition comes back.
            self.flights.drain().for_each(|(_, flight)| flight.stale.store(true, Ordering::Release));
            self.changed += 1;
            self.doubted = self.changed;
        }
        self.partitions.changes.send_modify(|n| *n += 1);
    }

    /// Tells what becomes of the write with this version, which is not committed.
    pub fn tell_of(&mut self, version: Version, reply: Reply) {
        self.waiting.push((version, reply));
    }

    /// The read of the lower tiers that is under way for a key, or the one that `start` makes.
    pub fn flight(&mut self, name: &Bytes, with_value: bool, start: impl FnOnce(Arc<AtomicBool>) -> Looked) -> Flight {
        let (since, looking) = (self.changed, self.looking.clone());
        let begin = || {
            let stale = Arc::new(AtomicBool::new(false));
            Flight { result: start(stale.clone()), stale, since, _looking: looking }
        };
        self.flights.entry((name.clone(), with_value)).or_insert_with(begin).clone()
    }

    /// Whether what a read found is still what the key is: a write may have come and gone since it ended.
    pub fn is_current(&self, name: &[u8], flight: &Flight) -> bool {
        let changed = self.changed_keys.get(&xxh3_64(name)).copied().unwrap_or(0);
        !flight.stale.load(Ordering::Acquire) && flight.since >= self.doubted && flight.since >= changed
    }

    /// Forgets a read that has ended, unless another one has taken its place.
    pub fn end_flight(&mut self, name: &Bytes, with_value: bool, stale: &Arc<AtomicBool>) {
        let key = (name.clone(), with_value);
        if self.flights.get(&key).is_some_and(|flight| Arc::ptr_eq(&flight.stale, stale)) {
            self.flights.remove(&key);
        }
    }

    /// Makes whoever asks from now on read anew.
    fn forget_flights(&mut self, name: &[u8]) {
        if Arc::strong_count(&self.looking) == 1 {
            self.changed_keys.clear();
            return;
        }
        self.changed += 1;
        let changed = self.changed;
        if self.changed_keys.len() >= MAX_CHANGED_KEYS {
            self.changed_keys.clear();
            self.doubted = changed;
        }
        self.changed_keys.insert(xxh3_64(name), changed);
        for with_value in [false, true] {
            if let Some(flight) = self.flights.remove(&(Bytes::copy_from_slice(name), with_value)) {
                flight.stale.store(true, Ordering::Release);
            }
        }
    }
}

impl std::ops::Deref for Locked<'_> {
    type Target = State;

    fn deref(&self) -> &State {
        &self.state
    }
}

impl std::ops::DerefMut for Locked<'_> {
    fn deref_mut(&mut self) -> &mut State {
        &mut self.state
    }
}
