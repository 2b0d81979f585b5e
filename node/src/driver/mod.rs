//! The driver of the engines: it owns clocks, locks, queues and wake-ups, gives the engines what is asked and what has
//! happened, and does what they want done. It decides nothing about a key.
//!
//! | module | owns |
//! |---|---|
//! | [`partitions`] | the engines behind their locks |
//! | `effects` | what is done for them: the disk's queue, messages to peers, answers |
//! | `batch` | operations that come together |
//! | `explain` | where a key is and why |
//! | `execute` | one operation, from its arrival to its answer; listings |
//! | `load` | reads of the lower tiers |
//! | [`checkpoint`] | checkpoints of partitions in the object store |
//! | [`restore`] | what is brought back from there |
//! | [`upload`] | the way down to the object store |
//! | [`uploads`] | what this process knows of its objects |
//! | [`moving`] | what is left in segments that are mostly dead |
//! | [`sweep`] | expiry, the disk budget, statistics |

mod batch;
pub mod checkpoint;
mod effects;
mod execute;
mod explain;
mod load;
pub mod moving;
pub mod partitions;
pub mod restore;
pub mod sweep;
pub mod upload;
pub mod uploads;

use std::{
    sync::{
        Arc, OnceLock, RwLock, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use cairn_engine::{Engine, NodeId};
use cairn_operations::Feed;
use cairn_replication::{Member, Replica, Role};
use cairn_server_kit::trace::Tracer;
use tokio::sync::Semaphore;

pub use self::effects::{After, Network, Outgoing, Task, Tasks, tasks};
use self::{partitions::Partitions, uploads::Uploads};
use crate::{
    clock,
    config::StoreSettings,
    error::NodeError,
    metrics::{NodeMetrics, PartitionTotals},
    tiers::{disk::Disk, memory::Memory, object::ObjectStore},
};

/// How long whoever waits for a role waits.
const READY_TIMEOUT: Duration = Duration::from_secs(3);

/// A disk that does not answer for so many milliseconds counts as failed.
const DISK_LATE: u64 = 5_000;
/// Reads that may wait for the disk and the object store: half of what may be in flight on a master's connection.
const MAX_SLOW_READS: usize = 2_048;

/// What the disk keeps of it: see [`Driver::begin_lending`].
const LENDS: &str = "lends";

/// See the module.
pub struct Driver {
    /// The engines.
    pub partitions: Partitions,
    /// The memory tier.
    pub memory: Memory,
    /// The disk tier.
    pub disk: Disk,
    /// The object tier, if there is one.
    pub objects: Option<ObjectStore>,
    /// What must be looked at before more is uploaded.
    pub uploads: Uploads,
    /// This process of the node.
    pub me: Member<NodeId>,
    /// What becomes visible here, for those who have subscribed.
    pub feed: Feed,
    /// What is counted.
    pub metrics: NodeMetrics,
    /// What makes spans.
    pub tracer: Tracer,
    /// What was configured.
    pub settings: StoreSettings,
    /// The master knows this node.
    pub registered: AtomicBool,
    /// The node is about to stop, and hands over what it can.
    pub leaving: AtomicBool,
    /// Whether writes go from replica to replica.
    pub chain: AtomicBool,
    /// Held for reading while writes of a primary, once accepted, are on their way to the disk's queue: a copy that begins
    /// must not meet them later, as what it has to compare.
    pub accepting: RwLock<()>,
    /// The disk holds more than it should: values fetched from the object store are not put back there.
    over_budget: AtomicBool,
    /// The disk knows that this node has given leases.
    lends: AtomicBool,
    /// The clock of this node is too far from the cluster's.
    clock_is_off: AtomicBool,
    /// The disk has not answered for long.
    disk_hung: AtomicBool,
    /// Places of reads that memory does not answer.
    slow_reads: Semaphore,
    network: Arc<dyn Network>,
    tasks: Tasks,
    itself: Weak<Driver>,
}

impl Driver {
    /// Opens the data directory's tiers for a cluster of `partition_count` partitions, none of them served yet, and
    /// begins a new session. `tasks` leads to whoever asks peers and the master.
    ///
    /// # Errors
    /// When the disk tier cannot be opened.
    #[expect(clippy::too_many_arguments, reason = "the composition root alone calls it")]
    pub async fn open(
        node_id: NodeId,
        settings: StoreSettings,
        partition_count: u32,
        objects: Option<ObjectStore>,
        network: Arc<dyn Network>,
        metrics: NodeMetrics,
        tracer: Tracer,
        tasks: Tasks,
    ) -> Result<Arc<Self>, NodeError> {
        let opened: Arc<OnceLock<Weak<Self>>> = Arc::default();
        let committed = {
            let opened = opened.clone();
            Box::new(move |writes, result| {
                if let Some(driver) = opened.get().and_then(Weak::upgrade) {
                    driver.stored(writes, &result);
                }
            })
        };
        let disk = Disk::open(&settings.data_dir.join("data.sqlite"), objects.is_some(), committed).await?;
        let me = Member { node: node_id, session: disk.begin_session().await? };
        let partitions = Partitions::new(partition_count, &me);
        let lends = disk.identity(LENDS, None).await?.is_some();
        let driver = Arc::new_cyclic(|itself: &Weak<Self>| Self {
            partitions,
            memory: Memory::new(settings.lru_size, settings.max_memory),
            disk,
            objects,
            uploads: Uploads::default(),
            me,
            feed: Feed::new(rand::random()),
            metrics,
            tracer,
            settings,
            registered: AtomicBool::new(false),
            leaving: AtomicBool::new(false),
            chain: AtomicBool::new(false),
            accepting: RwLock::new(()),
            over_budget: AtomicBool::new(false),
            lends: AtomicBool::new(false),
            clock_is_off: AtomicBool::new(false),
            disk_hung: AtomicBool::new(false),
            slow_reads: Semaphore::new(MAX_SLOW_READS),
            network,
            tasks,
            itself: itself.clone(),
        });
        opened.get_or_init(|| Arc::downgrade(&driver));
        if lends {
            // The former process may have given leases, and nobody knows to whom.
            let began = clock::now();
            for partition in 0..partition_count {
                driver.protocol(partition, |replica, _, _| replica.restarted(began));
            }
        }
        Ok(driver)
    }

    /// To be called before a lease is given: a later process must know that there may be some.
    ///
    /// # Errors
    /// When the disk does not take note; then no lease must be given.
    pub async fn begin_lending(&self) -> Result<(), NodeError> {
        if !self.lends.load(Ordering::Relaxed) {
            self.disk.identity(LENDS, Some("yes".to_owned())).await?;
            self.lends.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Whether this node's clock is too far from the cluster's for it to lead.
    pub fn clock_is_off(&self) -> bool {
        self.clock_is_off.load(Ordering::Relaxed)
    }

    /// Says so, or that it no longer is.
    pub fn set_clock_is_off(&self, is_off: bool) {
        if self.clock_is_off.swap(is_off, Ordering::Relaxed) != is_off {
            for partition in 0..self.partitions.count() {
                self.drive(partition, |engine, step| engine.set_clock_is_off(is_off, step));
            }
        }
    }

    /// The error for a partition that is not this node's.
    pub fn not_owner(&self, partition: u32) -> NodeError {
        let known = partition < self.partitions.count();
        let epoch = if known { self.partitions.lock(partition).replica().entry().epoch } else { 0 };
        cairn_engine::Error::NotOwner { partition, epoch }.into()
    }

    /// Waits, for a while, until reads of the partition may be answered here at `epoch` or later. Returns the epoch
    /// served.
    ///
    /// # Errors
    /// When the partition is another node's, or is not ready in time.
    pub async fn ready(&self, partition: u32, epoch: u64) -> Result<u64, NodeError> {
        let served = self.partitions.serving_epoch(partition);
        if served > 0 && served >= epoch && self.partitions.has_lease(partition) {
            return Ok(served);
        }
        self.wait_for(partition, epoch, |role| role.reads() && self.partitions.has_lease(partition)).await
    }

    /// Waits, for a while, until the node has a role in an entry of `epoch` or later. Returns the entry's epoch.
    ///
    /// # Errors
    /// When the partition is another node's, or the role does not come in time.
    pub async fn wait_for(&self, partition: u32, epoch: u64, good: impl Fn(Role) -> bool) -> Result<u64, NodeError> {
        if partition >= self.partitions.count() {
            return Err(self.not_owner(partition));
        }
        let look = || {
            let engine = self.partitions.lock(partition);
            (engine.replica().role(), engine.replica().entry().epoch)
        };
        let mut changes = self.partitions.changes();
        let wait = async {
            loop {
                changes.borrow_and_update();
                let (role, known) = look();
                // An asker that knows a later map knows one that is on its way here, too.
                if known >= epoch {
                    if good(role) {
                        return Ok(known);
                    }
                    if !role.leads() {
                        return Err(self.not_owner(partition));
                    }
                }
                if changes.changed().await.is_err() {
                    return Err(cairn_engine::TierError::ShuttingDown.into());
                }
            }
        };
        match tokio::time::timeout(READY_TIMEOUT, wait).await {
            Ok(result) => result,
            Err(_) if look().0.leads() => {
                let why = "it does not serve yet, or its replicas do not answer";
                Err(cairn_engine::Error::PartitionOffline { partition, why }.into())
            }
            Err(_) => Err(self.not_owner(partition)),
        }
    }

    /// Whether the disk has not answered for so long that it counts as failed.
    pub fn disk_hangs(&self) -> bool {
        self.disk.busy_for(clock::now()) >= DISK_LATE
    }

    /// Leaves a disk that hangs to other copies, also those partitions that nobody writes to.
    pub fn watch_disk(&self) {
        let hangs = self.disk_hangs();
        if self.disk_hung.swap(hangs, Ordering::Relaxed) != hangs {
            if hangs {
                tracing::error!("the disk does not answer: other copies take over");
            } else {
                tracing::info!("the disk answers again");
            }
        }
        for partition in self.partitions.served().into_iter().filter(|_| hangs) {
            self.protocol(partition, Replica::disk_failed);
        }
    }

    /// Tells whoever waits for an upload that nothing is uploaded any more.
    pub fn end_uploads(&self) {
        for partition in 0..self.partitions.count() {
            self.drive(partition, Engine::end_uploads);
        }
    }

    /// Requests that are not answered.
    pub fn waiting_requests(&self) -> usize {
        (0..self.partitions.count()).map(|partition| self.partitions.lock(partition).waiting_requests()).sum()
    }

    /// Takes over into the metrics what memory holds, and what the node is to its partitions.
    pub fn refresh_metrics(&self) {
        let mut totals = PartitionTotals::default();
        for partition in 0..self.partitions.count() {
            let has_lease = self.partitions.has_lease(partition);
            totals.add(self.partitions.lock(partition).replica(), has_lease);
        }
        self.metrics.refresh(&self.memory, &totals);
    }
}
