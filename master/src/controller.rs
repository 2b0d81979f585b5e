//! Moves the stored partition map towards what the ring proposes, one legal step at a time, and publishes it.
//!
//! Every step is a compare-and-swap, so a second controller, or a step computed from an old copy, does no harm: it
//! loses. The controller never decides from who is *registered now* that data are gone, only from a forced removal or
//! a changed incarnation.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use cairn_api_spec::cluster::{CaughtUp, HASH, Partition, Ring, RingNode};
use cairn_placement::{Candidate, Holder, Reason, Step, desired, next_step, promote};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use crate::{
    cluster::Cluster,
    error::Error,
    map::{Map, OpenError, StoredPartition},
    metastore::{MetadataStore, StoreError},
    metrics::Metrics,
    registry::Member,
};

/// Copies of a partition.
const REPLICATION_FACTOR: usize = 1;

/// How the controller goes about it.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Points on the ring for a node of average weight.
    pub vnodes: u32,
    /// Partitions that may be moving at the same time.
    pub max_moves: usize,
    /// Quiet time after a node joined before partitions are first assigned, so that nodes that start together get
    /// their shares at once instead of by moves.
    pub settle: Duration,
    /// How often silence is looked for.
    pub tick: Duration,
}

/// The one writer of the partition map.
pub struct Controller {
    store: Arc<dyn MetadataStore>,
    cluster: Arc<Cluster>,
    metrics: Metrics,
    pace: Pace,
    map: Mutex<Map>,
}

impl Controller {
    /// Opens the map of `partition_count` partitions and publishes it.
    ///
    /// # Errors
    /// [`OpenError`] when the store fails or belongs to another kind of cluster.
    pub async fn open(
        store: Arc<dyn MetadataStore>,
        cluster: Arc<Cluster>,
        metrics: Metrics,
        partition_count: u32,
        pace: Pace,
    ) -> Result<Self, OpenError> {
        let map = Map::open(store.clone(), partition_count).await?;
        let controller = Self { store, cluster, metrics, pace, map: Mutex::new(map) };
        controller.refresh().await?;
        Ok(controller)
    }

    /// Works until `shutdown`: at every change of the store, and at every tick.
    pub async fn run(&self, shutdown: CancellationToken) {
        let mut changes = self.store.watch();
        while !shutdown.is_cancelled() {
            let pause = match self.reconcile().await {
                Ok(pause) => pause,
                Err(error) => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "the partition map could not be brought up to date"
                    );
                    self.pace.tick
                }
            };
            self.metrics.observe(&self.cluster);
            tokio::select! {
                () = shutdown.cancelled() => {}
                _ = changes.changed() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Reads what changed in the store and publishes it, without taking a step.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn refresh(&self) -> Result<(), StoreError> {
        let mut map = self.map.lock().await;
        self.catch_up(&mut map).await?;
        self.publish(&map);
        Ok(())
    }

    /// Makes a learner the primary, when it learned from the present entry. The same request again gives the same
    /// answer.
    ///
    /// # Errors
    /// [`Error::InvalidParameter`] for a partition that does not exist, [`Error::NotLearning`] when the entry is
    /// another one by now, [`Error::Store`].
    pub async fn caught_up(&self, id: u32, asked: &CaughtUp) -> Result<Partition, Error> {
        let mut map = self.map.lock().await;
        self.catch_up(&mut map).await?;
        let count = map.partitions().len();
        let stored = map.get(id).ok_or_else(|| {
            Error::InvalidParameter(format!("there is no partition {id}: they are 0 to {}", count.saturating_sub(1)))
        })?;
        let current = &stored.partition;
        let same_data = stored.holders.get(&asked.node_id) == Some(&asked.incarnation);
        if same_data && current.epoch == asked.epoch + 1 && current.primary.as_ref() == Some(&asked.node_id) {
            return Ok(current.clone());
        }
        let step = promote(current, &asked.node_id).filter(|_| same_data && current.epoch == asked.epoch);
        let step = step.ok_or_else(|| Error::NotLearning {
            partition: id,
            epoch: current.epoch,
            node_id: asked.node_id.clone(),
            asked: asked.epoch,
        })?;
        let next = step.next.clone();
        self.apply(&mut map, &self.cluster.registry.members(), vec![step]).await?;
        self.publish(&map);
        Ok(next)
    }

    /// Takes every step that can be taken now. Returns how long to wait for the next look.
    async fn reconcile(&self) -> Result<Duration, Error> {
        let mut map = self.map.lock().await;
        self.catch_up(&mut map).await?;
        let unsettled = self.unsettled(&map);
        if unsettled.is_zero() {
            let members = self.cluster.registry.members();
            let steps = self.plan(&map, &members);
            match self.apply(&mut map, &members, steps).await {
                // Somebody else was faster: the next look sees what they did.
                Ok(()) | Err(StoreError::Conflict { .. }) => {}
                Err(error) => return Err(error.into()),
            }
            self.drop_drained(&map, &members).await?;
        }
        self.publish(&map);
        Ok(if unsettled.is_zero() { self.pace.tick } else { unsettled.min(self.pace.tick) })
    }

    async fn catch_up(&self, map: &mut Map) -> Result<(), StoreError> {
        if map.is_behind().await? {
            map.reload().await?;
            self.cluster.registry.reload().await?;
        }
        Ok(())
    }

    /// How long nodes may still join before partitions are first assigned.
    fn unsettled(&self, map: &Map) -> Duration {
        if map.partitions().all(|stored| stored.partition.primary.is_some()) {
            return Duration::ZERO;
        }
        self.pace.settle.saturating_sub(self.cluster.registry.since_last_join())
    }

    fn plan(&self, map: &Map, members: &BTreeMap<String, Member>) -> Vec<Step> {
        let patience = self.cluster.registry.patience();
        let candidates: Vec<Candidate> = members
            .values()
            .filter(|member| !member.is_draining())
            .map(|member| Candidate {
                node_id: member.registration().node_id.clone(),
                weight: member.registration().weight,
                accepts: member.is_alive(patience),
            })
            .collect();
        let standing = |stored: &StoredPartition, id: &str| match (members.get(id), stored.holders.get(id)) {
            (None, _) => Holder::Removed,
            (Some(member), Some(incarnation)) if member.registration().incarnation != *incarnation => Holder::DataLost,
            (Some(member), _) if member.is_alive(patience) => Holder::Alive,
            _ => Holder::Silent,
        };
        let has_data =
            |stored: &StoredPartition, id: &str| matches!(standing(stored, id), Holder::Alive | Holder::Silent);
        let current: Vec<Vec<String>> = map
            .partitions()
            .map(|stored| stored.holders().filter(|id| has_data(stored, id)).cloned().collect())
            .collect();
        let proposal = desired(&candidates, self.pace.vnodes, &current, REPLICATION_FACTOR);
        let mut moving = map.partitions().filter(|stored| !stored.partition.learners.is_empty()).count();
        let step = |(stored, desired): (&StoredPartition, Vec<String>)| {
            let step = next_step(&stored.partition, &desired, &|id| standing(stored, id))?;
            if step.reason == Reason::LearnerAdded {
                moving += 1;
            }
            Some(step).filter(|step| step.reason != Reason::LearnerAdded || moving <= self.pace.max_moves)
        };
        map.partitions().zip(proposal).filter_map(step).collect()
    }

    async fn apply(
        &self,
        map: &mut Map,
        members: &BTreeMap<String, Member>,
        steps: Vec<Step>,
    ) -> Result<(), StoreError> {
        if steps.is_empty() {
            return Ok(());
        }
        let incarnation = |id: &str| members.get(id).map(|member| member.registration().incarnation);
        let entries = steps.iter().filter_map(|step| Some(map.get(step.next.id)?.after(step, incarnation))).collect();
        map.replace(entries).await?;
        for reason in Reason::ALL {
            let count = steps.iter().filter(|step| step.reason == reason).count();
            if count > 0 {
                self.metrics.map_changes.with_label_values(&[reason.as_str()]).inc_by(count as u64);
                tracing::info!(
                    reason = reason.as_str(),
                    partitions = count,
                    epoch = map.revision(),
                    "the partition map changed"
                );
            }
        }
        Ok(())
    }

    /// Takes nodes out of the registry that were draining and hold nothing any more.
    async fn drop_drained(&self, map: &Map, members: &BTreeMap<String, Member>) -> Result<(), Error> {
        let draining = members.iter().filter(|(_, member)| member.is_draining()).map(|(id, _)| id);
        let mut drained: BTreeSet<&String> = draining.collect();
        if !drained.is_empty() {
            for id in map.partitions().flat_map(StoredPartition::holders) {
                drained.remove(id);
            }
        }
        for id in drained {
            match self.cluster.registry.remove(id).await {
                Ok(()) | Err(Error::NodeNotFound { .. } | Error::Store(StoreError::Conflict { .. })) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn publish(&self, map: &Map) {
        if self.cluster.ring.load().epoch == map.revision() {
            return;
        }
        let nodes = self.cluster.registry.members().into_values().map(|member| {
            let node = member.registration().clone();
            RingNode {
                node_id: node.node_id,
                incarnation: node.incarnation,
                address: node.address,
                peer_address: node.peer_address,
            }
        });
        let partitions: Vec<Partition> = map.partitions().map(|stored| stored.partition.clone()).collect();
        self.cluster.ring.publish(Ring {
            cluster_id: map.cluster_id(),
            epoch: map.revision(),
            partition_count: u32::try_from(partitions.len()).unwrap_or(u32::MAX),
            hash: HASH.to_owned(),
            partitions,
            nodes: nodes.collect(),
        });
    }
}
