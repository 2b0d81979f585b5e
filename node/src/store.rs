//! What a node does with a key: reads through the tiers, ordered writes.
//!
//! This is the one room that knows all tiers, and the only one that adapters (HTTP, the link) call. It knows neither.

mod read;
mod repeat;
mod write;

use std::{
    sync::{
        Arc, OnceLock, RwLock, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use cairn_api_spec::{
    Operation, Outcome, TraceContext,
    operation::{Action, ListQuery, ListedName},
};
use cairn_data_api::metrics::{Details, End, Kind};
use cairn_replication::{Member, Role};
use cairn_server_kit::trace::Tracer;

use crate::{
    clock,
    config::StoreSettings,
    disk::Disk,
    entry::now_millis,
    error::NodeError,
    mailbox::Mailbox,
    memory::Memory,
    metrics::NodeMetrics,
    object::ObjectStore,
    partition::{NodeId, Partitions},
    peers::Peers,
    replication::Tasks,
    transfer::Transfers,
    upload::Uploads,
};

/// How long a request waits for a partition that is about to be served, or to be given away.
const READY_TIMEOUT: Duration = Duration::from_secs(3);

/// How long a write, or a read of what it changed, waits for acknowledgements: a peer that is lost is given up before.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(5);

/// What the disk keeps of it: see [`Store::begin_lending`].
const LENDS: &str = "lends";

/// See the module. Cloning shares it.
#[derive(Clone)]
pub struct Store {
    parts: Arc<Parts>,
    mailbox: Option<Arc<Mailbox>>,
}

/// The parts of a [`Store`], for what works beside it: sweeper, uploads, ownership.
pub struct Parts {
    /// What is served, and the memory tier.
    pub partitions: Arc<Partitions>,
    /// The disk tier.
    pub disk: Disk,
    /// The object tier, if there is one.
    pub objects: Option<ObjectStore>,
    /// Who waits for which upload.
    pub uploads: Uploads,
    /// This process of the node.
    pub me: Member<NodeId>,
    /// The other nodes.
    pub peers: Peers,
    /// Whether writes go from replica to replica.
    pub chain: AtomicBool,
    /// The copies that this node makes of other nodes' partitions.
    pub transfers: Transfers,
    pub(crate) tasks: Tasks,
    /// What is counted.
    pub metrics: NodeMetrics,
    /// What makes spans.
    pub tracer: Tracer,
    /// What was configured.
    pub settings: StoreSettings,
    /// The master knows this node.
    pub registered: AtomicBool,
    /// The disk knows that this node has given leases.
    lends: AtomicBool,
    /// The node is about to stop, and hands over what it can.
    pub leaving: AtomicBool,
    /// Held for reading while writes of a primary, once accepted, are on their way to the disk's queue: a copy that begins
    /// must not meet them later, as what it has to compare.
    pub(crate) accepting: RwLock<()>,
    /// The disk holds more than it should: values fetched from the object store are not put back there.
    pub over_budget: AtomicBool,
}

impl std::ops::Deref for Store {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.parts
    }
}

impl Store {
    /// Opens the data directory's tiers for a cluster of `partition_count` partitions, none of them served yet, and
    /// begins a new session. `tasks` leads to [`crate::replication::run`].
    ///
    /// # Errors
    /// When the disk tier cannot be opened.
    pub async fn open(
        node_id: NodeId,
        settings: StoreSettings,
        partition_count: u32,
        objects: Option<ObjectStore>,
        metrics: NodeMetrics,
        tracer: Tracer,
        tasks: Tasks,
    ) -> Result<Self, NodeError> {
        let settled: Arc<OnceLock<Arc<Partitions>>> = Arc::default();
        let committed = {
            let settled = settled.clone();
            Box::new(move |writes, result| {
                if let Some(partitions) = settled.get() {
                    partitions.settle(writes, &result);
                }
            })
        };
        let disk = Disk::open(&settings.data_dir.join("data.sqlite"), objects.is_some(), committed).await?;
        let me = Member { node: node_id, session: disk.begin_session().await? };
        let memory = Memory::new(settings.lru_size, settings.max_memory);
        let partitions = settled.get_or_init(|| Arc::new(Partitions::new(partition_count, memory, &me))).clone();
        if disk.identity(LENDS, None).await?.is_some() {
            // The former process may have given leases, and nobody knows to whom.
            let began = clock::now();
            (0..partition_count).for_each(|partition| partitions.lock(partition).replica.restarted(began));
        }
        let parts = Arc::new_cyclic(|parts: &Weak<Parts>| {
            let parts = parts.clone();
            let answered = Box::new(move |batch, result| {
                if let Some(parts) = parts.upgrade() {
                    parts.answered(batch, result);
                }
            });
            Parts {
                partitions,
                disk,
                objects,
                uploads: Uploads::default(),
                me,
                peers: Peers::new(answered),
                chain: AtomicBool::new(false),
                transfers: Transfers::default(),
                tasks,
                metrics,
                tracer,
                settings,
                registered: AtomicBool::new(false),
                lends: AtomicBool::new(false),
                leaving: AtomicBool::new(false),
                accepting: RwLock::new(()),
                over_budget: AtomicBool::new(false),
            }
        });
        Ok(Self { parts, mailbox: None })
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

    /// The same store for the tasks of a thread that has a mailbox.
    #[must_use]
    pub fn with_mailbox(&self, mailbox: Arc<Mailbox>) -> Self {
        Self { parts: self.parts.clone(), mailbox: Some(mailbox) }
    }

    fn mailbox(&self) -> Option<Arc<Mailbox>> {
        self.mailbox.clone()
    }

    /// Executes one operation on a partition that the asker knows at `epoch` (0: not at all).
    ///
    /// # Errors
    /// See [`NodeError`].
    pub async fn execute(&self, mut operation: Operation, epoch: u64) -> Result<Outcome, NodeError> {
        let (kind, began) = (Kind::of(&operation.action), Instant::now());
        let result = self.run(&mut operation, epoch).await;
        let end = End::of(result.as_ref().ok());
        self.metrics.operations.observe(kind, began, end, || Details {
            bucket: operation.name.bucket(),
            tier: match &result {
                Ok(Outcome::Found { tier, .. } | Outcome::NotModified(_, tier)) => Some(*tier),
                _ => None,
            },
            trace_id: operation.trace.map(|trace| trace.trace_id),
            ..Details::default()
        });
        result
    }

    /// Takes the value out of a put.
    async fn run(&self, operation: &mut Operation, epoch: u64) -> Result<Outcome, NodeError> {
        let partition = operation.name.partition(self.partitions.count());
        match operation.action {
            Action::Get | Action::Head if operation.is_eventual() => self.read_replica(partition, operation).await,
            Action::Get | Action::Head => self.read(partition, operation, epoch).await,
            Action::Put(_) | Action::Delete { .. } => {
                self.ready_to_write(partition, epoch).await?;
                self.change(partition, operation).await
            }
        }
    }

    /// The first live keys of a range that stand in `partitions`, in the order of their names.
    ///
    /// # Errors
    /// [`NodeError::NotOwner`] when one of the partitions is not served here.
    pub async fn list(
        &self,
        query: ListQuery,
        wanted: &[u32],
        trace: Option<TraceContext>,
    ) -> Result<Vec<ListedName>, NodeError> {
        let began = Instant::now();
        let result = self.list_names(query.clone(), wanted).await;
        let end = if result.is_ok() { End::Hit } else { End::Error };
        self.metrics.operations.observe(Kind::List, began, end, || Details {
            bucket: query.bucket(),
            trace_id: trace.map(|trace| trace.trace_id),
            ..Details::default()
        });
        result
    }

    async fn list_names(&self, query: ListQuery, wanted: &[u32]) -> Result<Vec<ListedName>, NodeError> {
        let mut chosen = vec![false; self.partitions.count() as usize];
        for partition in wanted {
            self.ready(*partition, 0).await?;
            chosen[*partition as usize] = true;
        }
        // Answered writes may still be on their way to the disk.
        self.disk.barrier().await?;
        let now = now_millis();
        let mut query = query;
        let mut listed = Vec::new();
        while listed.len() < query.limit {
            let page = self.disk.list(&query, now, query.limit).await?;
            let Some(last) = page.last() else { break };
            let more = page.len() == query.limit;
            query.start = Bytes::from([&last.name[..], &[0]].concat());
            for row in page.iter().filter(|row| chosen[row.partition as usize]) {
                self.committed(row.partition, row.metadata.version).await?;
            }
            for row in page {
                if chosen[row.partition as usize] && listed.len() < query.limit {
                    let name = cairn_api_spec::EntryName::from_bytes(row.name).map_err(|_| NodeError::Corrupt)?;
                    listed.push(ListedName { name, metadata: row.metadata });
                }
            }
            if !more {
                break;
            }
        }
        // What moved away meanwhile may have changed there.
        for partition in wanted {
            if self.partitions.serving_epoch(*partition) == 0 {
                return Err(self.not_owner(*partition));
            }
        }
        Ok(listed)
    }

    /// The partitions that this node serves.
    pub fn served(&self) -> Vec<u32> {
        (0..self.partitions.count()).filter(|p| self.partitions.serving_epoch(*p) > 0).collect()
    }

    fn not_owner(&self, partition: u32) -> NodeError {
        NodeError::NotOwner { partition, epoch: self.metrics.ring_epoch.get().cast_unsigned() }
    }

    /// Waits, for a while, until reads of the partition may be answered here at `epoch` or later. Returns the epoch
    /// served.
    pub(crate) async fn ready(&self, partition: u32, epoch: u64) -> Result<u64, NodeError> {
        let served = self.partitions.serving_epoch(partition);
        if served > 0 && served >= epoch && self.partitions.has_lease(partition) {
            return Ok(served);
        }
        self.wait_for(partition, epoch, |role| role.reads() && self.partitions.has_lease(partition)).await
    }

    /// The same for writes.
    async fn ready_to_write(&self, partition: u32, epoch: u64) -> Result<u64, NodeError> {
        self.wait_for(partition, epoch, |role| role == Role::Serving).await
    }

    pub(crate) async fn wait_for(
        &self,
        partition: u32,
        epoch: u64,
        good: impl Fn(Role) -> bool,
    ) -> Result<u64, NodeError> {
        if partition >= self.partitions.count() {
            return Err(self.not_owner(partition));
        }
        let look = || {
            let locked = self.partitions.lock(partition);
            (locked.replica.role(), locked.replica.entry().epoch)
        };
        let (role, known) = look();
        if known >= epoch && good(role) {
            return Ok(known);
        }
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
                    return Err(NodeError::ShuttingDown);
                }
            }
        };
        match tokio::time::timeout(READY_TIMEOUT, wait).await {
            Ok(result) => result,
            Err(_) => Err(match look().0 {
                Role::Idle | Role::Learner | Role::Replica => self.not_owner(partition),
                role => NodeError::PartitionOffline { partition, why: why_offline(role) },
            }),
        }
    }
}

fn why_offline(role: Role) -> &'static str {
    match role {
        Role::Preparing => "it is being restored from the object store",
        Role::Collecting | Role::Syncing => "it is being taken over from its former primary",
        Role::Failing => "its disk takes no writes",
        Role::HandingOver => "it is moving to another node",
        Role::Serving => "its replicas do not answer",
        Role::Idle | Role::Learner | Role::Replica => "it belongs to another node",
    }
}
