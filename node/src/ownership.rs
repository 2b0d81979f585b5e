//! From the partition map to the roles of this node: what it serves, restores, learns and drops.
//!
//! The map is the only truth about who owns a partition; the disk says whether this node's rows of it are
//! authoritative. Where the two disagree the node serves nothing: a primary without authoritative rows first restores
//! them from the object store, and rows of a partition that belongs to others are dropped.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use cairn_api_spec::cluster::{Partition, Ring};
use tokio::sync::Semaphore;
use tokio_util::task::AbortOnDropHandle;

use crate::{disk::HeldPartition, error::NodeError, handover, masters::Masters, partition::Role, store::Store};

/// Partitions restored, or learned, at the same time.
const CONCURRENCY: usize = 8;
/// Pauses after failures: at first, and at most.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));
/// Rows stored at a time.
const INGEST_ROWS: usize = 500;

/// Who this node is.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Its stable name.
    pub node_id: String,
    /// See `RegisterNode::incarnation`.
    pub incarnation: u64,
}

/// See the module.
pub struct Ownership {
    store: Store,
    masters: Arc<Masters>,
    identity: Identity,
    ring_epoch: AtomicU64,
    slots: Semaphore,
    inner: Mutex<Inner>,
    itself: Weak<Ownership>,
}

struct Inner {
    /// Partitions whose rows here are authoritative.
    held: HashMap<u32, HeldPartition>,
    /// What is being restored, learned or dropped; one task for each partition.
    tasks: HashMap<u32, AbortOnDropHandle<()>>,
    /// Addresses of the nodes' peer listeners.
    peers: HashMap<String, String>,
}

impl Ownership {
    /// Reads from the disk what this node holds.
    ///
    /// # Errors
    /// When the disk fails.
    pub async fn open(store: Store, masters: Arc<Masters>, identity: Identity) -> Result<Arc<Self>, NodeError> {
        let held = store.disk.partitions().await?.into_iter().collect();
        let inner = Mutex::new(Inner { held, tasks: HashMap::new(), peers: HashMap::new() });
        let slots = Semaphore::new(CONCURRENCY);
        let ring_epoch = AtomicU64::new(0);
        Ok(Arc::new_cyclic(|itself| Self {
            store,
            masters,
            identity,
            ring_epoch,
            slots,
            inner,
            itself: itself.clone(),
        }))
    }

    /// The tiers.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The map epoch that the node knows.
    pub fn ring_epoch(&self) -> u64 {
        self.ring_epoch.load(Ordering::Acquire)
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes over a map.
    pub fn apply(&self, ring: &Ring) {
        let mut inner = self.inner();
        inner.peers = ring.nodes.iter().map(|node| (node.node_id.clone(), node.peer_address.clone())).collect();
        let current = |node: &&cairn_api_spec::cluster::RingNode| node.node_id == self.identity.node_id;
        // Until the master knows this incarnation, what it says of the node is about data that are gone.
        if ring.nodes.iter().find(current).is_none_or(|node| node.incarnation == self.identity.incarnation) {
            let dropped: HashSet<u32> =
                ring.partitions.iter().filter_map(|partition| self.apply_partition(&mut inner, partition)).collect();
            self.forget(&dropped);
        }
        drop(inner);
        self.ring_epoch.store(ring.epoch, Ordering::Release);
        self.store.metrics.ring_epoch.set(ring.epoch.cast_signed());
    }

    fn forget(&self, partitions: &HashSet<u32>) {
        if !partitions.is_empty() {
            let count = self.store.partitions.count();
            self.store
                .partitions
                .memory
                .retain(|name| !partitions.contains(&cairn_api_spec::name::partition_of(name, count)));
        }
    }

    /// Gives this node its role in one partition. Returns the partition when memory must forget it.
    fn apply_partition(&self, inner: &mut Inner, entry: &Partition) -> Option<u32> {
        let partition = entry.id;
        if partition >= self.store.partitions.count() {
            return None;
        }
        let me = |node: &String| *node == self.identity.node_id;
        let mut state = self.store.partitions.lock(partition);
        if entry.epoch <= state.epoch {
            return None;
        }
        let (had, first) = (state.role, state.epoch == 0);
        state.epoch = entry.epoch;
        inner.tasks.remove(&partition);
        if entry.primary.as_ref().is_some_and(me) {
            if let Some(held) = inner.held.get(&partition).filter(|held| held.generation == entry.generation) {
                state.last_version = state.last_version.max(held.last_version);
                // A process that has just started may have promised this learner to hold before it ended.
                let role = if first && !entry.learners.is_empty() { Role::Held } else { Role::Serving };
                self.store.partitions.set_role(partition, &mut state, role);
                return None;
            }
            inner.held.remove(&partition);
            self.store.partitions.set_role(partition, &mut state, Role::Restoring);
            let generation = entry.generation;
            self.spawn(inner, partition, entry.epoch, |this, partition, epoch| async move {
                this.restore(partition, epoch, generation).await;
            });
        } else if entry.learners.iter().any(me) {
            self.store.partitions.set_role(partition, &mut state, Role::Learning);
            inner.held.remove(&partition);
            let generation = entry.generation;
            let primary = entry.primary.clone().and_then(|primary| inner.peers.get(&primary).cloned());
            self.spawn(inner, partition, entry.epoch, |this, partition, epoch| async move {
                this.learn(partition, epoch, generation, primary).await;
            });
        } else {
            self.store.partitions.set_role(partition, &mut state, Role::None);
            if inner.held.remove(&partition).is_none() && had == Role::None {
                return None;
            }
            self.spawn(
                inner,
                partition,
                entry.epoch,
                |this, partition, _| async move { this.discard(partition).await },
            );
        }
        Some(partition)
    }

    fn spawn<F>(&self, inner: &mut Inner, partition: u32, epoch: u64, work: impl FnOnce(Arc<Self>, u32, u64) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let Some(this) = self.itself.upgrade() else { return };
        let task = tokio::spawn(work(this, partition, epoch));
        inner.tasks.insert(partition, AbortOnDropHandle::new(task));
    }

    /// Brings back what the object store has, then serves.
    async fn restore(&self, partition: u32, epoch: u64, generation: u64) {
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
        self.serve(partition, epoch, held);
    }

    fn serve(&self, partition: u32, epoch: u64, held: HeldPartition) {
        let mut inner = self.inner();
        let mut state = self.store.partitions.lock(partition);
        if state.epoch == epoch && state.role == Role::Restoring {
            inner.held.insert(partition, held);
            state.last_version = held.last_version;
            self.store.partitions.set_role(partition, &mut state, Role::Serving);
        }
    }

    /// Fetches everything from the primary, then asks to take its place.
    async fn learn(&self, partition: u32, epoch: u64, generation: u64, primary: Option<String>) {
        let Some(primary) = primary else { return };
        let learned = retry("a partition cannot be learned", partition, || async {
            let _slot = self.slots.acquire().await;
            self.store.disk.drop_partition(partition).await?;
            let last_version = handover::fetch_all(&self.store, &self.identity, partition, epoch, &primary).await?;
            let held = HeldPartition { generation, last_version };
            self.store.disk.adopt_partition(partition, held).await?;
            Ok(held)
        });
        let held = learned.await;
        {
            let mut inner = self.inner();
            if self.store.partitions.lock(partition).epoch != epoch {
                return;
            }
            // Before the master is asked: the map that makes this node the primary may be here before the answer, and
            // without this it would take the rows for foreign ones.
            inner.held.insert(partition, held);
        }
        let Some(entry) = handover::take_over(&self.masters, &self.identity, partition, epoch).await else { return };
        self.apply_partition(&mut self.inner(), &entry);
    }

    async fn discard(&self, partition: u32) {
        retry("a partition cannot be dropped", partition, || self.store.disk.drop_partition(partition)).await;
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
