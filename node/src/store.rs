//! What a node does with a key: reads through the tiers, ordered writes.
//!
//! This is the one room that knows all tiers, and the only one that adapters (HTTP, the link) call. It knows neither.

mod read;
mod write;

use std::{
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use bytes::Bytes;
use cairn_api_spec::{
    Operation, Outcome,
    operation::{Action, ListQuery, ListedName},
};

use crate::{
    config::StoreSettings,
    disk::Disk,
    entry::now_millis,
    error::NodeError,
    mailbox::Mailbox,
    memory::Memory,
    metrics::NodeMetrics,
    object::ObjectStore,
    partition::{Partitions, Role},
    upload::Uploads,
};

/// How long a request waits for a partition that is about to be served, or to be given away.
const READY_TIMEOUT: Duration = Duration::from_secs(3);

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
    /// What is counted.
    pub metrics: NodeMetrics,
    /// What was configured.
    pub settings: StoreSettings,
    /// The master knows this node.
    pub registered: AtomicBool,
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
    /// Opens the data directory's tiers for a cluster of `partition_count` partitions, none of them served yet.
    ///
    /// # Errors
    /// When the disk tier cannot be opened.
    pub async fn open(
        settings: StoreSettings,
        partition_count: u32,
        objects: Option<ObjectStore>,
        metrics: NodeMetrics,
    ) -> Result<Self, NodeError> {
        let memory = Memory::new(settings.lru_size, settings.max_memory);
        let partitions = Arc::new(Partitions::new(partition_count, memory));
        let committed = {
            let partitions = partitions.clone();
            Box::new(move |writes, result| partitions.settle(writes, &result))
        };
        let disk = Disk::open(&settings.data_dir.join("data.sqlite"), objects.is_some(), committed).await?;
        let parts = Parts {
            partitions,
            disk,
            objects,
            uploads: Uploads::default(),
            metrics,
            settings,
            registered: AtomicBool::new(false),
            over_budget: AtomicBool::new(false),
        };
        Ok(Self { parts: Arc::new(parts), mailbox: None })
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
    pub async fn execute(&self, operation: Operation, epoch: u64) -> Result<Outcome, NodeError> {
        let partition = operation.name.partition(self.partitions.count());
        let Operation { name, condition, action } = operation;
        match action {
            Action::Get => self.read(partition, name, condition, true, epoch).await,
            Action::Head => self.read(partition, name, condition, false, epoch).await,
            Action::Put(put) => {
                self.ready(partition, epoch).await?;
                self.put(partition, name, condition, put).await
            }
            Action::Delete { durability } => {
                self.ready(partition, epoch).await?;
                self.delete(partition, name, condition, durability.unwrap_or_default()).await
            }
        }
    }

    /// The first live keys of a range that stand in `partitions`, in the order of their names.
    ///
    /// # Errors
    /// [`NodeError::NotOwner`] when one of the partitions is not served here.
    pub async fn list(&self, query: ListQuery, wanted: &[u32]) -> Result<Vec<ListedName>, NodeError> {
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

    /// Waits, for a while, until the partition is served here at `epoch` or later. Returns the epoch served.
    async fn ready(&self, partition: u32, epoch: u64) -> Result<u64, NodeError> {
        let served = self.partitions.serving_epoch(partition);
        if served > 0 && served >= epoch {
            return Ok(served);
        }
        if partition >= self.partitions.count() {
            return Err(self.not_owner(partition));
        }
        let mut changes = self.partitions.changes();
        let wait = async {
            loop {
                changes.borrow_and_update();
                let (role, known) = {
                    let state = self.partitions.lock(partition);
                    (state.role, state.epoch)
                };
                match role {
                    Role::Serving if known >= epoch => return Ok(known),
                    // The asker knows a later map, which is on its way here, too.
                    _ if known < epoch => {}
                    Role::None | Role::Learning => return Err(self.not_owner(partition)),
                    Role::Serving | Role::Restoring | Role::Held => {}
                }
                if changes.changed().await.is_err() {
                    return Err(NodeError::ShuttingDown);
                }
            }
        };
        match tokio::time::timeout(READY_TIMEOUT, wait).await {
            Ok(result) => result,
            Err(_) => Err(match self.partitions.lock(partition).role {
                Role::Restoring => {
                    NodeError::PartitionOffline { partition, why: "it is being restored from the object store" }
                }
                Role::Serving | Role::Held => {
                    NodeError::PartitionOffline { partition, why: "it is moving to another node" }
                }
                Role::None | Role::Learning => self.not_owner(partition),
            }),
        }
    }
}
