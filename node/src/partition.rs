//! The state of every partition that this node may hold, and the order of its writes.
//!
//! A write is decided against the newest state of its key: a queued write, else memory, else the disk. Deciding,
//! giving the version and queueing are one critical section, so writes stand in the disk's queue in the order of their
//! versions, and a condition can never pass twice. Reads see committed state only; and a write that is refused because of
//! a queued one is answered when that one is settled, or its client could learn of it and then read what was before.
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
use cairn_api_spec::Version;
use futures_util::future::{BoxFuture, Shared};
use tokio::sync::watch;

use crate::{
    disk::{Change, Row, Write},
    entry::Entry,
    error::NodeError,
    mailbox::{Reply, deliver},
    memory::Memory,
};

/// What this node is to a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Nothing.
    None,
    /// Its primary, bringing back from the object store what the disk does not have.
    Restoring,
    /// Its primary.
    Serving,
    /// Its primary until the map changes; nothing is served, so that a learner can take over.
    Held,
    /// To be its primary, fetching everything from the present one.
    Learning,
}

/// The newest state of a key, as a write must see it.
#[derive(Clone, Copy, Debug)]
pub struct Current {
    /// The version of the value or of the deletion; 0 when there is neither.
    pub version: Version,
    /// Whether the key is there.
    pub live: bool,
    /// Whether a write that is not settled yet made it so.
    pub pending: bool,
}

/// A write that is queued and not yet settled.
struct Pending {
    current: Current,
    /// With `durability=memory`, the write is answered, so reads see it here once memory has dropped it.
    visible: Option<Option<Entry>>,
}

/// What a read of the lower tiers found.
#[derive(Clone, Debug)]
pub enum Loaded {
    /// Nothing was ever stored, or its deletion is forgotten.
    Nothing,
    /// The row without its value, or a tombstone.
    Head(Arc<Row>),
    /// The value, and the tier that had it.
    Value(Entry, cairn_api_spec::operation::Tier),
}

/// One read of the lower tiers that everybody who asks for the key shares.
#[derive(Clone)]
pub struct Flight {
    /// The read.
    pub result: Shared<BoxFuture<'static, Result<Loaded, NodeError>>>,
    /// Set when the key changes after the read began: then the result must neither decide a write nor fill memory.
    pub stale: Arc<AtomicBool>,
}

/// The lock-guarded part of a partition.
pub struct State {
    /// What this node is to the partition.
    pub role: Role,
    /// The epoch of the map entry that gave the role.
    pub epoch: u64,
    /// The highest version given.
    pub last_version: Version,
    pending: HashMap<Bytes, Pending>,
    /// Who must know what becomes of the write with this version.
    waiting: Vec<(Version, Reply)>,
    flights: HashMap<(Bytes, bool), Flight>,
}

/// Every partition, and the memory tier over them.
pub struct Partitions {
    /// The memory tier.
    pub memory: Memory,
    states: Vec<Mutex<State>>,
    /// The epoch at which a partition is served, 0 when it is not: what reads look at, without the lock.
    serving: Vec<AtomicU64>,
    /// Grows whenever a role changes or a pending write is settled while someone waits for that.
    changes: watch::Sender<u64>,
}

impl Partitions {
    /// `count` partitions that this node has nothing to do with yet.
    pub fn new(count: u32, memory: Memory) -> Self {
        let state = || {
            Mutex::new(State {
                role: Role::None,
                epoch: 0,
                last_version: Version::NONE,
                pending: HashMap::new(),
                waiting: Vec::new(),
                flights: HashMap::new(),
            })
        };
        Self {
            memory,
            states: std::iter::repeat_with(state).take(count as usize).collect(),
            serving: std::iter::repeat_with(AtomicU64::default).take(count as usize).collect(),
            changes: watch::Sender::new(0),
        }
    }

    /// How many there are.
    pub fn count(&self) -> u32 {
        u32::try_from(self.states.len()).unwrap_or(u32::MAX)
    }

    /// Locks one partition. `partition` comes from the partition function or was compared with [`Partitions::count`].
    pub fn lock(&self, partition: u32) -> MutexGuard<'_, State> {
        self.states[partition as usize].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The epoch at which the partition is served; 0 when it is not.
    pub fn serving_epoch(&self, partition: u32) -> u64 {
        self.serving.get(partition as usize).map_or(0, |epoch| epoch.load(Ordering::Acquire))
    }

    /// How many partitions are served.
    pub fn serving_count(&self) -> u32 {
        let served = self.serving.iter().filter(|epoch| epoch.load(Ordering::Relaxed) > 0).count();
        u32::try_from(served).unwrap_or(u32::MAX)
    }

    /// Whether any partition waits to be restored.
    pub fn restoring(&self) -> bool {
        (0..self.count()).any(|partition| self.lock(partition).role == Role::Restoring)
    }

    /// Wakes with every change of a role, and when held writes are settled.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Gives a role. The caller holds the partition's lock.
    pub fn set_role(&self, partition: u32, state: &mut State, role: Role) {
        state.role = role;
        if role != Role::Serving {
            // What a read finds from now on may be overtaken elsewhere, and must not be in memory when the partition
            // comes back.
            state.flights.drain().for_each(|(_, flight)| flight.stale.store(true, Ordering::Release));
        }
        let served = if role == Role::Serving { state.epoch } else { 0 };
        self.serving[partition as usize].store(served, Ordering::Release);
        self.changes.send_modify(|n| *n += 1);
    }

    /// The newest state of a key, if memory or the queue knows it. The caller holds the lock.
    pub fn known(&self, state: &State, name: &[u8], now: u64) -> Option<Current> {
        state.pending.get(name).map(|pending| pending.current).or_else(|| {
            self.memory.get(name).map(|entry| Current {
                version: entry.version(),
                live: entry.is_live(now),
                pending: false,
            })
        })
    }

    /// A write that was answered before it reached the disk: its version, and its value if memory has dropped that, or
    /// none for a deletion.
    pub fn answered_ahead(&self, partition: u32, name: &[u8]) -> Option<(Version, Option<Entry>)> {
        let state = self.lock(partition);
        let pending = state.pending.get(name)?;
        Some((pending.current.version, pending.visible.clone()?))
    }

    /// Notes a write that was just queued. With `visible`, reads see it from now on.
    pub fn begin(&self, state: &mut State, change: &Change, visible: bool) {
        let (name, entry) = match change {
            Change::Put(entry) => (Bytes::copy_from_slice(entry.name()), Some(entry)),
            Change::Delete { name, .. } => (name.clone(), None),
        };
        state.last_version = change.version();
        state.forget_flights(&name);
        if visible {
            self.show(change);
        }
        let current = Current { version: change.version(), live: entry.is_some(), pending: !visible };
        state.pending.insert(name, Pending { current, visible: visible.then(|| entry.cloned()) });
    }

    /// Settles a batch: what is on the disk becomes visible, what is not is forgotten; then whoever waits is told.
    pub fn settle(&self, writes: Vec<Write>, result: &Result<(), NodeError>) {
        let mut replies = Vec::with_capacity(writes.len());
        let mut held = false;
        for write in writes {
            let name = write.change.name();
            {
                let mut state = self.lock(write.partition);
                let newest = state.pending.get(name).is_some_and(|p| p.current.version == write.change.version());
                // An entry that was shown ahead may have been replaced in memory by a newer one already.
                if result.is_ok() && state.pending.get(name).is_none_or(|p| newest || p.visible.is_none()) {
                    self.show(&write.change);
                }
                if newest {
                    state.pending.remove(name);
                }
                state.forget_flights(name);
                let version = write.change.version();
                replies
                    .extend(state.waiting.extract_if(.., |(awaited, _)| *awaited == version).map(|(_, reply)| reply));
                held |= state.role == Role::Held && state.pending.is_empty();
            }
            replies.extend(write.reply);
        }
        deliver(replies, result);
        if held {
            self.changes.send_modify(|n| *n += 1);
        }
    }

    fn show(&self, change: &Change) {
        match change {
            Change::Put(entry) => self.memory.insert(entry.clone()),
            Change::Delete { name, .. } => self.memory.remove(name),
        }
    }
}

impl State {
    /// Whether any write is queued and not settled.
    pub fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Tells what becomes of the write with this version, which is queued.
    pub fn tell_of(&mut self, version: Version, reply: Reply) {
        self.waiting.push((version, reply));
    }

    /// The read of the lower tiers that is under way for a key, or the one that `start` makes.
    pub fn flight(&mut self, name: &Bytes, with_value: bool, start: impl FnOnce(Arc<AtomicBool>) -> Flight) -> Flight {
        self.flights
            .entry((name.clone(), with_value))
            .or_insert_with(|| start(Arc::new(AtomicBool::new(false))))
            .clone()
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
        if self.flights.is_empty() {
            return;
        }
        for with_value in [false, true] {
            if let Some(flight) = self.flights.remove(&(Bytes::copy_from_slice(name), with_value)) {
                flight.stale.store(true, Ordering::Release);
            }
        }
    }
}
