//! Moves the stored partition map towards what is planned, one legal step at a time, and publishes it. The steps that
//! only a primary can know of are asked for (`changes`).
//!
//! Every step is a compare-and-swap, so a second controller, or a step computed from an old copy, does no harm: it
//! loses. The controller never decides from who is *registered now* that data are gone, only from a forced removal, a
//! changed incarnation, or a session that is older than one that was in sync.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use cairn_api_spec::cluster::{HASH, Partition, Replication, Ring, RingNode};
use cairn_placement::{Expected, LAST_EPOCH, Reason, Step};
use tokio_util::sync::CancellationToken;

mod changes;

use self::changes::Asked;
use crate::{
    clock::Clock,
    cluster::Cluster,
    error::Error,
    map::{Map, OpenError, StoredPartition},
    metastore::{MetadataStore, StoreError},
    metrics::Metrics,
    plan::{Planner, Sight},
    rebalance::Limits,
    registry::Member,
};

/// How the controller goes about it.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Quiet time after a node joined before partitions are first assigned, so that nodes that start together get
    /// their shares at once instead of by moves.
    pub settle: Duration,
    /// How often silence is looked for.
    pub tick: Duration,
    /// See [`Expected::stuck_after`].
    pub stuck_after: Duration,
    /// See [`Expected::page_bytes`].
    pub page_bytes: u64,
}

/// What the map is to be like.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Partitions; fixed when the cluster is made.
    pub partition_count: u32,
    /// Points on the ring for a node of average weight.
    pub vnodes: u32,
    /// How partitions are replicated.
    pub replication: Replication,
}

/// The one writer of the partition map.
pub struct Controller {
    store: Arc<dyn MetadataStore>,
    cluster: Arc<Cluster>,
    metrics: Metrics,
    clock: Clock,
    pace: Pace,
    state: tokio::sync::Mutex<State>,
    /// Changes asked for by primaries that wait for the state: whoever gets it makes them all, in one transaction.
    asked: Mutex<Vec<Asked>>,
}

struct State {
    map: Map,
    planner: Planner,
    /// Partitions at the last epoch that the log has told of.
    at_last_epoch: usize,
}

type Members = BTreeMap<String, Member>;

impl Controller {
    /// Opens the map and publishes it.
    ///
    /// # Errors
    /// [`OpenError`] when the store fails or belongs to another kind of cluster.
    pub async fn open(
        store: Arc<dyn MetadataStore>,
        cluster: Arc<Cluster>,
        metrics: Metrics,
        shape: Shape,
        pace: Pace,
        clock: Clock,
    ) -> Result<Self, OpenError> {
        let mut map = Map::open(store.clone(), shape.partition_count).await?;
        map.store_replication(shape.replication).await?;
        map.reload().await?;
        let planner = Planner::new(shape.vnodes, shape.replication, &map);
        let state = tokio::sync::Mutex::new(State { map, planner, at_last_epoch: 0 });
        let controller = Self { store, cluster, metrics, clock, pace, state, asked: Mutex::default() };
        controller.publish(&*controller.state.lock().await);
        Ok(controller)
    }

    /// Works until `shutdown`: at every change of the store, at news of nodes, and at every tick.
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
            self.metrics.observe(&self.cluster, self.clock.now());
            tokio::select! {
                () = shutdown.cancelled() => {}
                _ = changes.changed() => {}
                () = self.cluster.registry.news() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Takes every step that can be taken now. Returns how long to wait for the next look.
    async fn reconcile(&self) -> Result<Duration, Error> {
        let state = &mut *self.state.lock().await;
        self.catch_up(state).await?;
        let unsettled = self.unsettled(&state.map);
        if unsettled.is_zero() {
            let members = self.cluster.registry.members();
            let (sight, limits) = (self.sight(&members), self.cluster.rebalancing.limits());
            report_last_epochs(state);
            self.give_up_stuck(state, sight, limits);
            state.planner.propose(&state.map, sight);
            let steps = state.planner.steps(&state.map, sight, limits);
            match self.apply(state, &members, steps).await {
                // Somebody else was faster: the next look sees what they did.
                Ok(()) | Err(StoreError::Conflict { .. }) => {}
                Err(error) => return Err(error.into()),
            }
            self.cluster.rebalancing.set_left(state.planner.copies_left(&state.map, sight));
            self.drop_drained(&state.map, &members).await?;
        }
        self.publish(state);
        Ok(if unsettled.is_zero() { self.pace.tick } else { unsettled.min(self.pace.tick) })
    }

    async fn catch_up(&self, state: &mut State) -> Result<(), StoreError> {
        if state.map.is_behind().await? {
            // The map goes last: it is behind until both are read.
            self.cluster.registry.reload(self.clock.now()).await?;
            state.map.reload().await?;
        }
        Ok(())
    }

    /// How long nodes may still join before partitions are first assigned.
    fn unsettled(&self, map: &Map) -> Duration {
        if map.partitions().all(|stored| stored.partition.primary.is_some()) {
            return Duration::ZERO;
        }
        self.pace.settle.saturating_sub(self.cluster.registry.since_last_join(self.clock.now()))
    }

    fn sight<'a>(&self, members: &'a Members) -> Sight<'a> {
        Sight { members, patience: self.cluster.registry.patience(), now: self.clock.now() }
    }

    fn give_up_stuck(&self, state: &mut State, sight: Sight<'_>, limits: Limits) {
        let Pace { stuck_after, page_bytes, .. } = self.pace;
        let expected = Expected { stuck_after, page_bytes, bytes_per_second: limits.bytes_per_second };
        for stuck in state.planner.watch(&state.map, sight, expected) {
            tracing::warn!(
                partition = stuck.partition,
                node = stuck.node,
                "a copy does not come forward and is given up for a while"
            );
        }
    }

    async fn apply(&self, state: &mut State, members: &Members, steps: Vec<Step>) -> Result<(), StoreError> {
        if steps.is_empty() {
            return Ok(());
        }
        let incarnation = |id: &str| members.get(id).map(|member| member.registration().incarnation);
        let after = |step: &Step| {
            let id = step.next.id;
            Some(state.map.get(id)?.after(step, incarnation, state.planner.planned(id)))
        };
        let entries = steps.iter().filter_map(after).collect();
        state.map.replace(entries).await?;
        for reason in Reason::ALL {
            let count = steps.iter().filter(|step| step.reason == *reason).count();
            if count == 0 {
                continue;
            }
            self.metrics.map_changes.with_label_values(&[reason.as_str()]).inc_by(count as u64);
            let (reason_name, epoch) = (reason.as_str(), state.map.revision());
            if *reason == Reason::CaughtUp {
                self.cluster.rebalancing.count_done(count);
                // Primaries ask for these one by one.
                tracing::debug!(reason = reason_name, partitions = count, epoch, "the partition map changed");
            } else {
                tracing::info!(reason = reason_name, partitions = count, epoch, "the partition map changed");
            }
        }
        Ok(())
    }

    /// Takes nodes out of the registry that were draining and hold nothing any more.
    async fn drop_drained(&self, map: &Map, members: &Members) -> Result<(), Error> {
        let draining = members.iter().filter(|(_, member)| member.is_draining()).map(|(id, _)| id);
        let mut drained: BTreeSet<&String> = draining.collect();
        if !drained.is_empty() {
            for id in map.partitions().flat_map(StoredPartition::holders) {
                drained.remove(id);
            }
        }
        for id in drained {
            match self.cluster.registry.remove(id, self.clock.now()).await {
                Ok(()) | Err(Error::NodeNotFound { .. } | Error::Store(StoreError::Conflict { .. })) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn publish(&self, state: &State) {
        let map = &state.map;
        if self.cluster.ring.load().epoch == map.revision() {
            return;
        }
        let nodes = self.cluster.registry.members().into_values().map(|member| {
            let node = member.registration().clone();
            RingNode {
                node_id: node.node_id,
                incarnation: node.incarnation,
                session: node.session,
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
            replication: state.planner.replication(),
            partitions,
            nodes: nodes.collect(),
        });
    }
}

/// Says loudly when entries have come to their last epoch: no step is taken with them any more.
fn report_last_epochs(state: &mut State) {
    let is_last = |stored: &&StoredPartition| stored.partition.epoch >= LAST_EPOCH;
    let count = state.map.partitions().filter(is_last).count();
    if count > state.at_last_epoch {
        let partition = state.map.partitions().find(is_last).map(|stored| stored.partition.id);
        tracing::error!(
            partitions = count,
            first = partition,
            "partitions are at the last epoch: no failover any more"
        );
    }
    state.at_last_epoch = count;
}
