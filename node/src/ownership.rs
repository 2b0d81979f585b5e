//! From the partition map to the roles of this node: what it prepares, learns and drops.
//!
//! The map is the only truth about who holds a partition; the disk says whether this node's rows of it are a complete
//! copy. Where the two disagree the node serves nothing: a primary without a complete copy first restores it from the
//! object store, and rows of a partition that belongs to others are dropped.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use cairn_api_spec::{
    Version,
    cluster::{Partition, Replication, Ring, Strategy},
};
use cairn_replication::{Entry, Member, Role, Settings};
use tokio::sync::Semaphore;
use tokio_util::task::AbortOnDropHandle;

use crate::{disk::HeldPartition, error::NodeError, metrics::role_name, partition::NodeId, store::Store, transfer};

/// Partitions restored, or learned, at the same time.
const CONCURRENCY: usize = 8;
/// Pauses after failures: at first, and at most.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));
/// How long rows of a partition that went elsewhere are kept.
const DISCARD_AFTER: Duration = Duration::from_secs(60);
/// Rows stored at a time.
const INGEST_ROWS: usize = 500;

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
    store: Store,
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
    /// What is being restored, learned or dropped; one task for each partition.
    tasks: HashMap<u32, AbortOnDropHandle<()>>,
    /// The last known process of each node.
    sessions: HashMap<String, u64>,
    replication: Replication,
}

/// What an entry has changed.
struct RoleChange {
    before: Role,
    now: Role,
    same_primary: bool,
    /// In-sync processes that were not in sync by the entry that was known before.
    strangers: Vec<Member<NodeId>>,
}

impl Ownership {
    /// Reads from the disk what this node holds.
    ///
    /// # Errors
    /// When the disk fails.
    pub async fn open(store: Store, identity: Identity) -> Result<Arc<Self>, NodeError> {
        let held: HashMap<u32, HeldPartition> = store.disk.partitions().await?.into_iter().collect();
        for (partition, held) in held.iter().filter(|(partition, _)| **partition < store.partitions.count()) {
            store.partitions.lock(*partition).replica.observe(held.last_version);
        }
        let inner =
            Inner { held, tasks: HashMap::new(), sessions: HashMap::new(), replication: Replication::default() };
        let (inner, slots, ring_epoch) = (Mutex::new(inner), Semaphore::new(CONCURRENCY), AtomicU64::new(0));
        let foreign = AtomicBool::new(false);
        Ok(Arc::new_cyclic(|itself| Self {
            store,
            identity,
            ring_epoch,
            foreign,
            slots,
            inner,
            itself: itself.clone(),
        }))
    }

    /// The tiers.
    pub fn store(&self) -> &Store {
        &self.store
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
        self.store.peers.set_addresses(others.map(|node| (node.node_id.as_str(), node.peer_address.as_str())));
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
        self.store.metrics.ring_epoch.set(ring.epoch.cast_signed());
    }

    /// Takes over one entry, which may be newer than the map.
    pub fn apply_entry(&self, entry: &Partition) {
        self.apply_entries(&mut self.inner(), std::slice::from_ref(entry));
    }

    fn apply_entries(&self, inner: &mut Inner, entries: &[Partition]) {
        let changes: Vec<_> = entries.iter().filter_map(|entry| Some((entry, self.configure(entry)?))).collect();
        // Before anything is served: what memory has may be older than what another primary wrote.
        let outdated = |(entry, change): &(&Partition, RoleChange)| {
            let left = change.before.leads() && !change.now.leads();
            (left || change.now == Role::Preparing).then_some(entry.id)
        };
        self.forget(&changes.iter().filter_map(outdated).collect());
        for (entry, change) in changes {
            self.follow_role(inner, entry, &change);
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
        for partition in 0..self.store.partitions.count() {
            self.store.partitions.lock(partition).replica.set_settings(settings);
        }
        self.store.chain.store(replication.strategy == Strategy::Chain, Ordering::Relaxed);
    }

    /// A node has begun a session: nothing need be kept of what was promised to its former processes.
    fn end_session(&self, node: &str, began: u64) {
        let ended = Member { node: node.into(), session: began.saturating_sub(1) };
        for partition in 0..self.store.partitions.count() {
            self.store.drive(partition, |locked, now, effects| locked.replica.session_ended(&ended, now, effects));
        }
    }

    fn forget(&self, partitions: &HashSet<u32>) {
        if !partitions.is_empty() {
            let count = self.store.partitions.count();
            let memory = &self.store.partitions.memory;
            memory.retain(|name| !partitions.contains(&cairn_api_spec::name::partition_of(name, count)));
        }
    }

    /// Takes over one entry, if it is news.
    fn configure(&self, entry: &Partition) -> Option<RoleChange> {
        if entry.id >= self.store.partitions.count() {
            return None;
        }
        let change = self.store.drive(entry.id, |locked, now, effects| {
            let (role, before) = (locked.replica.role(), locked.replica.entry().clone());
            locked.replica.configure(replica_entry(entry), now, effects).then(|| {
                let entry = locked.replica.entry();
                let is_strange =
                    |member: &&Member<NodeId>| **member != self.store.me && !before.in_sync.contains(member);
                RoleChange {
                    before: role,
                    now: locked.replica.role(),
                    same_primary: before.primary_process() == entry.primary_process(),
                    strangers: entry.in_sync.iter().filter(is_strange).cloned().collect(),
                }
            })
        })?;
        if change.before != change.now {
            self.store.metrics.replication.role_changes.with_label_values(&[role_name(change.now)]).inc();
            let (from, to) = (role_name(change.before), role_name(change.now));
            tracing::debug!(partition = entry.id, epoch = entry.epoch, from, to, "the role changed");
        }
        Some(change)
    }

    /// Starts what a new role asks for.
    fn follow_role(&self, inner: &mut Inner, entry: &Partition, change: &RoleChange) {
        let (partition, generation) = (entry.id, entry.generation);
        // What was begun goes on as long as it is about the same data.
        let goes_on = change.same_primary && change.before == change.now && inner.tasks.contains_key(&partition);
        let merges = inner.replication.strategy == Strategy::Quorum && !change.strangers.is_empty();
        match change.now {
            // An entry that speaks of a former process of this node may soon speak of this one.
            Role::Idle if entry.sessions.contains_key(&*self.identity.node_id) => {}
            Role::Idle => {
                let had = inner.held.remove(&partition).is_some() || change.before != Role::Idle;
                // A node that is about to stop has other things to do.
                if had && !self.store.leaving.load(Ordering::Relaxed) {
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
            Role::Preparing if !goes_on || merges => {
                inner.tasks.remove(&partition);
                if inner.held.get(&partition).is_some_and(|held| held.generation == generation) {
                    let strangers = change.strangers.clone();
                    self.spawn(inner, partition, move |this, partition| async move {
                        if merges { this.merge(partition, &strangers).await } else { this.settle(partition).await }
                    });
                    return;
                }
                inner.held.remove(&partition);
                self.spawn(inner, partition, move |this, partition| async move {
                    this.restore(partition, generation).await;
                });
            }
            Role::Replica => {
                inner.tasks.remove(&partition);
            }
            _ => {}
        }
    }

    /// Takes the lead once everything that this node has acknowledged is on its disk, where reads look for it.
    async fn settle(&self, partition: u32) {
        retry("what was acknowledged is not on the disk", partition, || self.store.disk.barrier()).await;
        self.lead(partition);
    }

    fn lead(&self, partition: u32) {
        // What another primary has uploaded is not known here to the last object.
        self.store.uploads.inherit(partition);
        let inner = self.inner();
        self.store.drive(partition, |locked, now, effects| {
            locked.replica.lead(now, effects);
            let has_ended = |member: &&Member<NodeId>| {
                inner.sessions.get(&*member.node).is_some_and(|session| member.session < *session)
            };
            let ended: Vec<_> = locked.replica.entry().in_sync.iter().filter(has_ended).cloned().collect();
            ended.iter().for_each(|process| locked.replica.session_ended(process, now, effects));
        });
    }

    fn spawn<F>(&self, inner: &mut Inner, partition: u32, work: impl FnOnce(Arc<Self>, u32) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let Some(this) = self.itself.upgrade() else { return };
        let task = tokio::spawn(work(this, partition));
        inner.tasks.insert(partition, AbortOnDropHandle::new(task));
    }

    /// Brings back what the object store has, then takes the lead.
    async fn restore(&self, partition: u32, generation: u64) {
        let restored = retry("a partition cannot be restored", partition, || async {
            let _slot = self.slots.acquire().await;
            self.store.disk.drop_partition(partition).await?;
            let rows = match &self.store.objects {
                Some(objects) => objects.restore(partition).await?,
                None => Vec::new(),
            };
            let last_version = rows.iter().map(|row| row.metadata.version).max().unwrap_or_default();
            let held = HeldPartition { generation, last_version };
            let count = rows.len();
            for chunk in rows.chunks(INGEST_ROWS) {
                self.store.disk.ingest(chunk.to_vec()).await?;
            }
            self.store.disk.adopt_partition(partition, held).await?;
            Ok((held, count))
        });
        let (held, count) = restored.await;
        if count > 0 {
            self.store.metrics.restored.inc_by(count as u64);
            tracing::info!(partition, keys = count, "restored from the object store");
        }
        self.inner().held.insert(partition, held);
        self.store.partitions.lock(partition).replica.observe(held.last_version);
        self.lead(partition);
    }

    /// Processes of a quorum were restarted: they do not know any more which of their writes may not be everywhere. Takes
    /// over all that they have, then the lead; they learn it all anew.
    async fn merge(&self, partition: u32, others: &[Member<NodeId>]) {
        let me = &self.store.me;
        let merged = retry("the copies of a partition cannot be merged", partition, || async {
            let _slot = self.slots.acquire().await;
            let mut last = Version::NONE;
            for other in others {
                last = last.max(transfer::merge(&self.store, me, partition, &other.node).await?);
            }
            Ok(last)
        });
        let last = merged.await;
        self.store.partitions.lock(partition).replica.observe(last);
        self.lead(partition);
        for other in others {
            self.store.drive(partition, |locked, now, effects| locked.replica.refused(other, true, now, effects));
        }
    }

    /// Copies everything from the primary, and stays with it until it is in-sync; the entry that says so, or that it is
    /// none any more, ends the task.
    async fn learn(&self, partition: u32, generation: u64, primary: NodeId) {
        let learner = Member { node: self.identity.node_id.clone(), session: self.identity.session };
        retry("a partition cannot be learned", partition, || async {
            let mut copy = transfer::Copy::new(&self.store, &learner, partition, &primary)?;
            let held = {
                let _slot = self.slots.acquire().await;
                self.store.disk.disown_partition(partition).await?;
                let held = HeldPartition { generation, last_version: copy.run().await? };
                self.store.disk.adopt_partition(partition, held).await?;
                held
            };
            self.inner().held.insert(partition, held);
            self.store.partitions.lock(partition).replica.observe(held.last_version);
            copy.stay().await
        })
        .await;
    }

    /// Drops the rows of a partition that is no longer this node's: after a while, since it may come back before long,
    /// and then needs only what has changed.
    async fn discard(&self, partition: u32) {
        retry("a partition cannot be disowned", partition, || self.store.disk.disown_partition(partition)).await;
        tokio::time::sleep(DISCARD_AFTER).await;
        retry("a partition cannot be dropped", partition, || self.store.disk.drop_partition(partition)).await;
    }
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

/// Does something again until it works; the task that it stands in ends it.
async fn retry<T, F: Future<Output = Result<T, NodeError>>>(what: &str, partition: u32, work: impl Fn() -> F) -> T {
    let mut pause = BACKOFF.0;
    loop {
        match work().await {
            Ok(done) => return done,
            Err(error) => tracing::warn!(partition, %error, retry_in = ?pause, "{what}"),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(BACKOFF.1);
    }
}
