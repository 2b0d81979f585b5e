//! The engines of all partitions behind their locks, and what everybody may know of them without one.

use std::sync::{
    Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use cairn_engine::{Engine, NodeId};
use cairn_replication::{Member, Role};
use tokio::sync::watch;

use crate::{clock, mailbox::Reply};

/// See the module.
pub struct Partitions {
    engines: Vec<Mutex<Engine<Reply>>>,
    /// The epoch at which a partition is served, 0 when it is not.
    serving: Vec<AtomicU64>,
    /// Until when, on the clock of leases, reads may be answered.
    leases: Vec<AtomicU64>,
    /// The roles that everybody has heard of.
    roles: Vec<AtomicU64>,
    /// Grows whenever a role, an epoch or a lease changes.
    changes: watch::Sender<u64>,
}

impl Partitions {
    /// `count` partitions that this node, in this process, has nothing to do with yet.
    pub fn new(count: u32, me: &Member<NodeId>) -> Self {
        let zeros = || std::iter::repeat_with(AtomicU64::default).take(count as usize).collect();
        Self {
            engines: (0..count).map(|partition| Mutex::new(Engine::new(partition, me.clone()))).collect(),
            serving: zeros(),
            leases: zeros(),
            roles: zeros(),
            changes: watch::Sender::new(0),
        }
    }

    /// How many there are.
    pub fn count(&self) -> u32 {
        u32::try_from(self.engines.len()).unwrap_or(u32::MAX)
    }

    /// Locks one partition. `partition` comes from the partition function or was compared with [`Partitions::count`].
    pub fn lock(&self, partition: u32) -> MutexGuard<'_, Engine<Reply>> {
        self.engines[partition as usize].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the node is to a partition.
    pub fn role(&self, partition: u32) -> Role {
        self.lock(partition).replica().role()
    }

    /// The epoch at which the partition is served; 0 when it is not.
    pub fn serving_epoch(&self, partition: u32) -> u64 {
        self.serving.get(partition as usize).map_or(0, |epoch| epoch.load(Ordering::Acquire))
    }

    /// Whether the leases for a partition that is served have not run out.
    pub fn has_lease(&self, partition: u32) -> bool {
        if cfg!(cairn_planted_bug) {
            return true;
        }
        match self.leases.get(partition as usize).map_or(0, |until| until.load(Ordering::Acquire)) {
            u64::MAX => true,
            until => clock::now() < until,
        }
    }

    /// The partitions that are served.
    pub fn served(&self) -> Vec<u32> {
        (0..self.count()).filter(|partition| self.serving_epoch(*partition) > 0).collect()
    }

    /// Whether this node is to serve a partition and does not yet.
    pub fn any_unready(&self) -> bool {
        (0..self.count()).map(|partition| self.role(partition)).any(|role| role.leads() && !role.reads())
    }

    /// Wakes with every change of a role, an epoch or a lease.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Publishes what has changed of a partition, under its lock.
    pub(super) fn publish(&self, partition: u32, engine: &Engine<Reply>) {
        let (published, index) = (engine.published(), partition as usize);
        let (serving, lease, role) = (&self.serving[index], &self.leases[index], &self.roles[index]);
        let known = (serving.load(Ordering::Relaxed), lease.load(Ordering::Relaxed), role.load(Ordering::Relaxed));
        let now = (published.serving, published.lease_until, published.role as u64);
        if known != now {
            role.store(now.2, Ordering::Relaxed);
            lease.store(now.1, Ordering::Release);
            serving.store(now.0, Ordering::Release);
            self.changes.send_modify(|n| *n += 1);
        }
    }
}
