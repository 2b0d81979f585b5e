//! From the partition map to the roles of this node: what it prepares, learns and drops.
//!
//! The map is the only truth about who holds a partition; the disk says whether this node's rows of it are a complete
//! copy. Where the two disagree the node serves nothing: a primary without a complete copy first restores it from the
//! object store, and rows of a partition that belongs to others are dropped.

mod work;

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use cairn_api_spec::cluster::{HeartbeatReply, Partition, Replication, Ring, Strategy};
use cairn_engine::NodeId;
use cairn_replication::{Entry, Member, Role, Settings};
use tokio::sync::Semaphore;
use tokio_util::task::AbortOnDropHandle;

use super::{peers::Peers, skew::Skew, transfers::Transfers};
use crate::{clock, driver::Driver, error::NodeError, metrics::role_name, tiers::disk::HeldPartition};

/// Partitions restored, or learned, at the same time.
const CONCURRENCY: usize = 8;
/// The epoch in which a partition is assigned for the first time.
const FIRST_EPOCH: u64 = 1;

/// Who this node is.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Its stable name.
    pub node_id: NodeId,
    /// See `RegisterNode::incarnation`.
    pub incarnation: u64,
    /// See `RegisterNode::session`.
    pub session: u64,
    /// See `Ring::cluster_id`.
    pub cluster_id: u64,
}

/// See the module.
pub struct Ownership {
    driver: Arc<Driver>,
    peers: Arc<Peers>,
    /// The copies that this node makes of other nodes' partitions.
    pub transfers: Transfers,
    skew: Mutex<Skew>,
    identity: Identity,
    ring_epoch: AtomicU64,
    /// The master that answers is another cluster's.
    foreign: AtomicBool,
    slots: Semaphore,
    inner: Mutex<Inner>,
    itself: Weak<Ownership>,
}

struct Inner {
    /// Partitions of which the rows here are a complete copy.
    held: HashMap<u32, HeldPartition>,
    /// Partitions that have rows of an earlier process here, until the map says what becomes of them.
    left_over: HashSet<u32>,
    /// What is being restored, learned or dropped; one task for each partition.
    tasks: HashMap<u32, AbortOnDropHandle<()>>,
    /// For each partition, in-sync processes of which this one does not know that they were in sync with the same primary
    /// as it: of a quorum, what they have beyond the writes that they name, nobody else may have.
    strangers: HashMap<u32, Vec<Member<NodeId>>>,
    /// The last known process of each node.
    sessions: HashMap<String, u64>,
    replication: Replication,
}

/// What an entry has changed.
struct RoleChange {
    before: Role,
    now: Role,
    same_primary: bool,
    /// See [`Inner::strangers`].
    strangers: Vec<Member<NodeId>>,
    /// There are others than before.
    meets_strangers: bool,
}

impl Ownership {
    /// Reads from the disk what this node holds.
    ///
    /// # Errors
    /// When the disk fails.
    pub async fn open(driver: Arc<Driver>, peers: Arc<Peers>, identity: Identity) -> Result<Arc<Self>, NodeError> {
        let held: HashMap<u32, HeldPartition> = driver.disk.partitions().await?.into_iter().collect();
        for (partition, held) in held.iter().filter(|(partition, _)| **partition < driver.partitions.count()) {
            driver.protocol(*partition, |replica, _, _| replica.observe(held.last_version));
        }
        let left_over = driver.disk.partitions_with_rows().await?.into_iter().collect();
        let inner = Inner {
            held,
            left_over,
            tasks: HashMap::new(),
            strangers: HashMap::new(),
            sessions: HashMap::new(),
            replication: Replication::default(),
        };
        let (inner, slots, ring_epoch) = (Mutex::new(inner), Semaphore::new(CONCURRENCY), AtomicU64::new(0));
        let foreign = AtomicBool::new(false);
        Ok(Arc::new_cyclic(|itself| Self {
            driver,
            peers,
            transfers: Transfers::default(),
            skew: Mutex::default(),
            identity,
            ring_epoch,
            foreign,
            slots,
            inner,
            itself: itself.clone(),
        }))
    }

    /// The driver.
    pub fn driver(&self) -> &Driver {
        &self.driver
    }

    /// Who this node is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The map epoch that the node knows.
    pub fn ring_epoch(&self) -> u64 {
        self.ring_epoch.load(Ordering::Acquire)
    }

    /// Whether the master that answers is another cluster's: it must not count on this node.
    pub fn is_foreign(&self) -> bool {
        self.foreign.load(Ordering::Relaxed)
    }

    /// What the wall clock is ahead of the master's, in milliseconds, as far as it is known.
    pub fn clock_offset_ms(&self) -> Option<i64> {
        self.skew().offset_ms()
    }

    /// Judges the node's clock by the answer to a heartbeat that was sent at `sent`, by that clock.
    pub fn judge_clock(&self, sent: u64, reply: &HeartbeatReply) {
        let bound = Some(reply.max_clock_skew_ms).filter(|bound| *bound > 0).map(Duration::from_millis);
        if reply.now_ms > 0 {
            self.skew().judge(sent, clock::wall(), clock::now(), reply.now_ms, bound);
        }
        self.watch_clock();
    }

    /// Takes the lead from the node, or gives it back, as its clock is.
    pub fn watch_clock(&self) {
        let is_off = self.skew().is_off(clock::wall(), clock::now());
        if is_off != self.driver.clock_is_off() {
            let offset_ms = self.clock_offset_ms();
            if is_off {
                tracing::error!(offset_ms, "the clock is too far from the master's: this node leads no partition");
            } else {
                tracing::info!(offset_ms, "the clock is near the master's again");
            }
            self.driver.set_clock_is_off(is_off);
        }
    }

    fn skew(&self) -> MutexGuard<'_, Skew> {
        self.skew.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes over a map, unless it is another cluster's: then the master was started on another store, and the rows here
    /// mean nothing there. Runs on the node's runtime.
    pub fn apply(&self, ring: &Ring) {
        let is_foreign = ring.cluster_id != self.identity.cluster_id;
        self.foreign.store(is_foreign, Ordering::Relaxed);
        if is_foreign {
            let (ours, theirs) = (self.identity.cluster_id, ring.cluster_id);
            tracing::error!(ours, theirs, "the master belongs to another cluster; start it on its own data_dir");
            return;
        }
        let mut inner = self.inner();
        let others = ring.nodes.iter().filter(|node| *node.node_id != *self.identity.node_id);
        self.peers.set_addresses(others.map(|node| (node.node_id.as_str(), node.peer_address.as_str())));
        self.set_replication(&mut inner, ring.replication);
        self.apply_entries(&mut inner, &ring.partitions);
        for node in &ring.nodes {
            let before = inner.sessions.insert(node.node_id.clone(), node.session).unwrap_or(0);
            if before < node.session {
                self.end_session(&node.node_id, node.session);
            }
        }
        drop(inner);
        self.ring_epoch.store(ring.epoch, Ordering::Release);
        self.driver.metrics.ring_epoch.set(ring.epoch.cast_signed());
    }

    /// Takes over one entry, which may be newer than the map.
    pub fn apply_entry(&self, entry: &Partition) {
        self.apply_entries(&mut self.inner(), std::slice::from_ref(entry));
    }

    fn apply_entries(&self, inner: &mut Inner, entries: &[Partition]) {
        let changes: Vec<_> = entries.iter().filter_map(|entry| Some((entry, self.configure(inner, entry)?))).collect();
        // Before anything is served: what memory has may be older than what another primary wrote.
        let outdated = |(entry, change): &(&Partition, RoleChange)| {
            let left = change.before.leads() && !change.now.leads();
            (left || change.now == Role::Preparing).then_some(entry.id)
        };
        self.forget(&changes.iter().filter_map(outdated).collect());
        // One moment for all of them, so that those that are restored share what is asked of the object store.
        let now = Instant::now();
        for (entry, change) in changes {
            self.follow_role(inner, entry, &change, now);
        }
    }

    fn set_replication(&self, inner: &mut Inner, replication: Replication) {
        if inner.replication == replication {
            return;
        }
        inner.replication = replication;
        let quorum = (replication.strategy == Strategy::Quorum).then_some(replication.write_quorum as usize);
        let settings =
            Settings { write_quorum: quorum, min_in_sync: replication.min_in_sync as usize, ..Settings::default() };
        for partition in 0..self.driver.partitions.count() {
            self.driver.protocol(partition, |replica, _, _| replica.set_settings(settings));
        }
        self.driver.chain.store(replication.strategy == Strategy::Chain, Ordering::Relaxed);
    }

    /// A node has begun a session: nothing need be kept of what was promised to its former processes.
    fn end_session(&self, node: &str, began: u64) {
        let ended = Member { node: node.into(), session: began.saturating_sub(1) };
        for partition in 0..self.driver.partitions.count() {
            self.driver.protocol(partition, |replica, now, effects| replica.session_ended(&ended, now, effects));
        }
    }

    fn forget(&self, partitions: &HashSet<u32>) {
        if !partitions.is_empty() {
            let count = self.driver.partitions.count();
            let memory = &self.driver.memory;
            memory.retain(|name| !partitions.contains(&cairn_api_spec::name::partition_of(name, count)));
        }
    }

    /// Takes over one entry, if it is news.
    fn configure(&self, inner: &mut Inner, entry: &Partition) -> Option<RoleChange> {
        if entry.id >= self.driver.partitions.count() {
            return None;
        }
        let known = inner.strangers.get(&entry.id).cloned().unwrap_or_default();
        let change = self.driver.protocol(entry.id, |replica, now, effects| {
            let (role, before) = (replica.role(), replica.entry().clone());
            replica.configure(replica_entry(entry), now, effects).then(|| {
                let entry = replica.entry();
                let strangers = strangers(&self.driver.me, &before, entry, &known);
                RoleChange {
                    before: role,
                    now: replica.role(),
                    same_primary: before.primary_process() == entry.primary_process(),
                    meets_strangers: strangers != known && !strangers.is_empty(),
                    strangers,
                }
            })
        })?;
        inner.strangers.insert(entry.id, change.strangers.clone());
        if change.before != change.now {
            self.driver.metrics.replication.role_changes.with_label_values(&[role_name(change.now)]).inc();
            let (from, to) = (role_name(change.before), role_name(change.now));
            tracing::debug!(partition = entry.id, epoch = entry.epoch, from, to, "the role changed");
        }
        Some(change)
    }

    /// Starts what a new role asks for, which was taken on before `now`.
    fn follow_role(&self, inner: &mut Inner, entry: &Partition, change: &RoleChange, now: Instant) {
        let (partition, generation) = (entry.id, entry.generation);
        // What was begun goes on as long as it is about the same data.
        let goes_on = change.same_primary && change.before == change.now && inner.tasks.contains_key(&partition);
        let is_quorum = inner.replication.strategy == Strategy::Quorum;
        match change.now {
            // An entry that speaks of a former process of this node may soon speak of this one.
            Role::Idle if entry.sessions.contains_key(&*self.identity.node_id) => {}
            Role::Idle => {
                let is_left_over = inner.left_over.remove(&partition);
                let had = inner.held.remove(&partition).is_some() || change.before != Role::Idle || is_left_over;
                // A node that is about to stop has other things to do.
                if had && !self.driver.leaving.load(Ordering::Relaxed) {
                    self.spawn(inner, partition, |this, partition| async move { this.discard(partition).await });
                }
            }
            Role::Learner if !goes_on => {
                inner.held.remove(&partition);
                let primary = entry.primary.as_deref().map(NodeId::from);
                self.spawn(inner, partition, move |this, partition| async move {
                    if let Some(primary) = primary {
                        this.learn(partition, generation, primary).await;
                    }
                });
            }
            Role::Preparing if !goes_on || (is_quorum && change.meets_strangers) => {
                inner.tasks.remove(&partition);
                if inner.held.get(&partition).is_some_and(|held| held.generation == generation) {
                    let strangers = if is_quorum { change.strangers.clone() } else { Vec::new() };
                    let quorum = (inner.replication.write_quorum as usize).min(entry.in_sync.len());
                    self.spawn(inner, partition, move |this, partition| async move {
                        if strangers.is_empty() {
                            this.resume(partition).await;
                        } else {
                            this.merge(partition, generation, &strangers, quorum).await;
                        }
                    });
                    return;
                }
                inner.held.remove(&partition);
                let is_first = entry.epoch == FIRST_EPOCH;
                self.spawn(inner, partition, move |this, partition| async move {
                    this.restore(partition, generation, is_first, now).await;
                });
            }
            Role::Replica => {
                inner.tasks.remove(&partition);
            }
            _ => {}
        }
    }

    fn spawn<F>(&self, inner: &mut Inner, partition: u32, work: impl FnOnce(Arc<Self>, u32) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let Some(this) = self.itself.upgrade() else { return };
        let task = tokio::spawn(work(this, partition));
        inner.tasks.insert(partition, AbortOnDropHandle::new(task));
    }
}

/// See [`Inner::strangers`]; `known` are those by the entry before.
fn strangers(
    me: &Member<NodeId>,
    before: &Entry<NodeId>,
    entry: &Entry<NodeId>,
    known: &[Member<NodeId>],
) -> Vec<Member<NodeId>> {
    let held = |member: &Member<NodeId>| before.in_sync.contains(member) || before.learners.contains(member);
    let is_strange =
        |member: &&Member<NodeId>| **member != *me && (!held(me) || !held(member) || known.contains(member));
    if entry.in_sync.contains(me) { entry.in_sync.iter().filter(is_strange).cloned().collect() } else { Vec::new() }
}

/// The entry as the state machine knows it.
fn replica_entry(entry: &Partition) -> Entry<NodeId> {
    let member = |node: &String| Member {
        node: node.as_str().into(),
        session: entry.sessions.get(node).copied().unwrap_or_default(),
    };
    Entry {
        epoch: entry.epoch,
        primary: entry.primary.as_deref().map(Into::into),
        in_sync: entry.in_sync.iter().map(member).collect(),
        learners: entry.learners.iter().map(member).collect(),
        successor: entry.successor.as_deref().map(Into::into),
    }
}
