//! The partition map as it stands in the metadata store, and its copy in memory.
//!
//! Beside the public entry the store holds under which incarnation each holder got its copy. That is how lost data are
//! found out: a node that comes back with another incarnation has an empty disk under an old name.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use cairn_api_spec::cluster::{HASH, Partition, Replication};
use cairn_placement::{Reason, Step};
use serde::{Deserialize, Serialize};

use crate::metastore::{Change, MetadataStore, Revision, StoreError, decode, encode};

const PREFIX: &str = "partitions/";
const CLUSTER: &str = "cluster";
const REPLICATION: &str = "replication";

/// What is fixed when a cluster is made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct ClusterRecord {
    /// Random; tells one cluster's store from another's.
    cluster_id: u64,
    partition_count: u32,
    hash: String,
}

/// Why a store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The cluster was made with another number of partitions.
    #[error(
        "the cluster was made with {stored} partitions, and that cannot change: \
         set `partitions` to {stored}, or start a new cluster in another `data_dir`"
    )]
    PartitionCount {
        /// The number in the store.
        stored: u32,
    },
    /// The cluster was made with another partition function.
    #[error("the cluster was made with the partition function {stored}, this program has {HASH}")]
    Hash {
        /// The function in the store.
        stored: String,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A partition in the store.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredPartition {
    /// The public entry.
    pub partition: Partition,
    /// The incarnation of each node in `in_sync` and `learners` at the time when it became a holder.
    pub holders: BTreeMap<String, u64>,
    /// Who was to hold it, the primary first, when the entry was stored.
    #[serde(default)]
    pub planned: Vec<String>,
}

impl StoredPartition {
    /// Everyone with a copy, those first that are to have it in the end.
    pub fn holders(&self) -> impl Iterator<Item = &String> {
        self.partition.learners.iter().chain(&self.partition.in_sync)
    }

    /// The session of a holder. Entries from before there were sessions speak of session 0.
    pub fn session(&self, id: &str) -> u64 {
        self.partition.sessions.get(id).copied().unwrap_or_default()
    }

    /// The entry after a step. A holder keeps its incarnation, unless the step begins anew.
    pub fn after(&self, step: &Step, incarnation: impl Fn(&str) -> Option<u64>, planned: &[String]) -> Self {
        let next = &step.next;
        let anew = matches!(step.reason, Reason::Assigned | Reason::Reassigned);
        let holders = next.in_sync.iter().chain(&next.learners).filter_map(|id| {
            let known = self.holders.get(id).copied().filter(|_| !anew);
            Some((id.clone(), known.or_else(|| incarnation(id))?))
        });
        Self { partition: next.clone(), holders: holders.collect(), planned: planned.to_vec() }
    }
}

struct Slot {
    stored: StoredPartition,
    revision: Option<Revision>,
}

/// The copy in memory.
pub struct Map {
    store: Arc<dyn MetadataStore>,
    cluster_id: u64,
    /// The copy is the store's content at this revision.
    revision: Revision,
    slots: Vec<Slot>,
}

impl Map {
    /// Makes the cluster with `partition_count` partitions, or finds it made so.
    ///
    /// # Errors
    /// [`OpenError`] when it was made otherwise, or the store fails.
    pub async fn open(store: Arc<dyn MetadataStore>, partition_count: u32) -> Result<Self, OpenError> {
        if store.get(CLUSTER).await?.is_none() {
            // 53 bits: readers of JSON that know only floats get it whole.
            let cluster_id = rand::random::<u64>() >> 11;
            let record = ClusterRecord { cluster_id, partition_count, hash: HASH.to_owned() };
            match store.cas(CLUSTER, None, Some(encode(CLUSTER, &record)?)).await {
                // Another master was faster; what it wrote is checked like what was there before.
                Ok(_) | Err(StoreError::Conflict { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let entry = store.get(CLUSTER).await?.ok_or_else(|| StoreError::Conflict { key: CLUSTER.to_owned() })?;
        let record: ClusterRecord = decode(CLUSTER, &entry.value)?;
        if record.hash != HASH {
            return Err(OpenError::Hash { stored: record.hash });
        }
        if record.partition_count != partition_count {
            return Err(OpenError::PartitionCount { stored: record.partition_count });
        }
        let slots = (0..partition_count).map(Slot::unassigned).collect();
        let mut map = Self { store, cluster_id: record.cluster_id, revision: 0, slots };
        map.reload().await?;
        Ok(map)
    }

    /// Stores how partitions are replicated, when that is another way than before: it is published with the map, and
    /// readers know a map by its revision.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn store_replication(&mut self, replication: Replication) -> Result<(), StoreError> {
        let stored = self.store.get(REPLICATION).await?;
        let known: Option<Replication> = stored.as_ref().map(|entry| decode(REPLICATION, &entry.value)).transpose()?;
        if known != Some(replication) {
            let value = Some(encode(REPLICATION, &replication)?);
            self.store.cas(REPLICATION, stored.map(|entry| entry.revision), value).await?;
        }
        Ok(())
    }

    /// See [`cairn_api_spec::cluster::Ring::cluster_id`].
    pub fn cluster_id(&self) -> u64 {
        self.cluster_id
    }

    /// The store's revision that the copy stands at.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// Every partition, by id.
    pub fn partitions(&self) -> impl ExactSizeIterator<Item = &StoredPartition> {
        self.slots.iter().map(|slot| &slot.stored)
    }

    /// A partition, if there is one with this id.
    pub fn get(&self, id: u32) -> Option<&StoredPartition> {
        self.slots.get(id as usize).map(|slot| &slot.stored)
    }

    /// Whether the store has changed since the copy was made.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn is_behind(&self) -> Result<bool, StoreError> {
        Ok(self.store.revision().await? != self.revision)
    }

    /// Reads the map again.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn reload(&mut self) -> Result<(), StoreError> {
        // Read before the entries: what changes in between makes the copy count as behind.
        let revision = self.store.revision().await?;
        let mut entries = HashMap::new();
        for (key, entry) in self.store.list(PREFIX).await? {
            let stored: StoredPartition = decode(&key, &entry.value)?;
            entries.insert(stored.partition.id, Slot { stored, revision: Some(entry.revision) });
        }
        for (id, slot) in (0..).zip(&mut self.slots) {
            *slot = entries.remove(&id).unwrap_or_else(|| Slot::unassigned(id));
        }
        self.revision = revision;
        Ok(())
    }

    /// Stores the entries in the place of those with their ids: all, or none when one of them was changed meanwhile.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when one was changed, or what the store fails with.
    pub async fn replace(&mut self, entries: Vec<StoredPartition>) -> Result<(), StoreError> {
        let mut changes = Vec::with_capacity(entries.len());
        for entry in &entries {
            let id = entry.partition.id;
            let key = format!("{PREFIX}{id}");
            let value = Some(encode(&key, entry)?);
            let expected = self.slots.get(id as usize).and_then(|slot| slot.revision);
            changes.push(Change { key, expected, value });
        }
        let revision = self.store.cas_all(changes).await?;
        for stored in entries {
            if let Some(slot) = self.slots.get_mut(stored.partition.id as usize) {
                *slot = Slot { stored, revision: Some(revision) };
            }
        }
        // With a gap somebody else wrote in between: the copy stays behind until it is read again.
        if revision == self.revision + 1 {
            self.revision = revision;
        }
        Ok(())
    }
}

impl Slot {
    fn unassigned(id: u32) -> Self {
        let partition = Partition { id, ..Partition::default() };
        Self { stored: StoredPartition { partition, ..StoredPartition::default() }, revision: None }
    }
}
