//! What can be said about the cluster at this moment: the registry and the published map, read together.

use std::{collections::HashMap, time::Duration};

use cairn_api_spec::cluster::{ByTier, Node, NodeState, NodeStats, Partition, Stats};

mod moves;
mod warnings;

use crate::{
    error::Error,
    rebalance::Rebalancing,
    registry::{Member, Registry},
    ring::PublishedRing,
};

/// The registry, the published map, and how it moves. Every `now` is the time since the master started.
pub struct Cluster {
    /// Who is there.
    pub registry: Registry,
    /// Who holds what.
    pub ring: PublishedRing,
    /// How fast the map moves.
    pub rebalancing: Rebalancing,
}

/// What a node holds in sync.
#[derive(Clone, Copy, Default)]
struct Copies {
    primaries: u32,
    replicas: u32,
}

/// How a partition does, for counting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PartitionState {
    /// Its primary was heard of lately.
    Online,
    /// Online, with a learner.
    Moving,
    /// It has no primary, or a silent one.
    Offline,
}

impl Cluster {
    /// Every registered node, by id.
    pub fn nodes(&self, now: Duration) -> Vec<Node> {
        let ring = self.ring.load();
        let mut copies: HashMap<&str, Copies> = HashMap::new();
        for partition in &ring.partitions {
            for id in &partition.in_sync {
                let copies = copies.entry(id).or_default();
                let is_primary = partition.primary.as_ref() == Some(id);
                *(if is_primary { &mut copies.primaries } else { &mut copies.replicas }) += 1;
            }
        }
        let describe = |(id, member): (String, Member)| {
            self.describe(member, copies.get(id.as_str()).copied().unwrap_or_default(), now)
        };
        self.registry.members().into_iter().map(describe).collect()
    }

    /// One node.
    ///
    /// # Errors
    /// [`Error::NodeNotFound`].
    pub fn node(&self, node_id: &str, now: Duration) -> Result<Node, Error> {
        let node = self.nodes(now).into_iter().find(|node| node.node_id == node_id);
        node.ok_or_else(|| Error::NodeNotFound { node_id: node_id.to_owned(), other_incarnation: false })
    }

    /// Sums over what the nodes last said.
    pub fn stats(&self, now: Duration) -> Stats {
        let nodes = self.nodes(now);
        let total = nodes.iter().map(|node| &node.stats).fold(NodeStats::default(), |sum, node| add(&sum, node));
        let reads = total.hits.saturating_add(total.misses);
        let states = self.partition_states(now);
        let count = |state| u32::try_from(states.iter().filter(|s| **s == state).count()).unwrap_or(u32::MAX);
        #[expect(clippy::cast_precision_loss, reason = "a ratio needs no more than 52 bits")]
        let hit_ratio = if reads == 0 { 0.0 } else { total.hits as f64 / reads as f64 };
        Stats {
            epoch: self.ring.load().epoch,
            hit_ratio,
            total,
            partitions_offline: count(PartitionState::Offline),
            partitions_moving: count(PartitionState::Moving),
            partitions_under_replicated: u32::try_from(self.under_replicated()).unwrap_or(u32::MAX),
            nodes,
        }
    }

    /// Whether every key has a primary and a node is there to answer.
    ///
    /// # Errors
    /// [`Error::NotReady`] with what is missing.
    pub fn check_ready(&self, now: Duration) -> Result<(), Error> {
        let ring = self.ring.load();
        let unassigned = ring.partitions.iter().filter(|partition| partition.primary.is_none()).count();
        if unassigned > 0 {
            return Err(Error::NotReady(format!(
                "{unassigned} of {} partitions have no primary yet",
                ring.partition_count
            )));
        }
        if !self.nodes(now).iter().any(|node| node.state == NodeState::Active) {
            return Err(Error::NotReady("no node is active".to_owned()));
        }
        Ok(())
    }

    /// Partitions with fewer in-sync copies than the replication factor asks for.
    pub fn under_replicated(&self) -> usize {
        let ring = self.ring.load();
        let lacks = |partition: &&Partition| partition.in_sync.len() < ring.replication.factor as usize;
        ring.partitions.iter().filter(lacks).count()
    }

    /// The state of every partition, by id.
    pub fn partition_states(&self, now: Duration) -> Vec<PartitionState> {
        let alive = self.registry.alive(now);
        let state = |partition: &Partition| match &partition.primary {
            Some(primary) if !alive.contains(primary) => PartitionState::Offline,
            Some(_) if partition.learners.is_empty() => PartitionState::Online,
            Some(_) => PartitionState::Moving,
            None => PartitionState::Offline,
        };
        self.ring.load().partitions.iter().map(state).collect()
    }

    fn describe(&self, member: Member, copies: Copies, now: Duration) -> Node {
        let state = member.state(self.registry.patience(), copies.primaries + copies.replicas, now);
        let node = member.registration().clone();
        Node {
            node_id: node.node_id,
            incarnation: node.incarnation,
            session: node.session,
            address: node.address,
            peer_address: node.peer_address,
            weight: node.weight,
            zone: node.zone,
            state,
            partitions: copies.primaries,
            replicas: copies.replicas,
            last_heartbeat: member.last_heartbeat,
            clock_offset_ms: member.clock_offset_ms,
            stats: member.stats,
        }
    }
}

/// Saturates: the numbers are the nodes' own words.
fn add(sum: &NodeStats, node: &NodeStats) -> NodeStats {
    NodeStats {
        hits: sum.hits.saturating_add(node.hits),
        misses: sum.misses.saturating_add(node.misses),
        hits_by_tier: add_tiers(sum.hits_by_tier, node.hits_by_tier),
        entries: sum.entries.saturating_add(node.entries),
        entries_by_tier: add_tiers(sum.entries_by_tier, node.entries_by_tier),
        bytes_by_tier: add_tiers(sum.bytes_by_tier, node.bytes_by_tier),
        evictions_memory: sum.evictions_memory.saturating_add(node.evictions_memory),
        evictions: sum.evictions.saturating_add(node.evictions),
        expirations: sum.expirations.saturating_add(node.expirations),
        uploads_pending: sum.uploads_pending.saturating_add(node.uploads_pending),
        upload_age_seconds: sum.upload_age_seconds.max(node.upload_age_seconds),
        partitions_serving: sum.partitions_serving.saturating_add(node.partitions_serving),
        replication_pending: sum.replication_pending.saturating_add(node.replication_pending),
        replication_lag_ms: sum.replication_lag_ms.max(node.replication_lag_ms),
    }
}

fn add_tiers(a: ByTier, b: ByTier) -> ByTier {
    ByTier {
        memory: a.memory.saturating_add(b.memory),
        disk: a.disk.saturating_add(b.disk),
        object: a.object.saturating_add(b.object),
    }
}
