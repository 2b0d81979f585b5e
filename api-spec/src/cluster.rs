//! The JSON documents of the cluster API: nodes, the partition map, statistics.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

mod node;
mod rebalance;

pub use node::{ByTier, Heartbeat, HeartbeatReply, Node, NodeList, NodeState, NodeStats, RegisterNode, Transfer};
pub use rebalance::{ChangeRebalance, Move, Rebalance};

/// The partition function's name, as `GET /ring` gives it.
pub const HASH: &str = "xxh3-64";

/// Who holds a partition: the stored truth, changed only by compare-and-swap on its epoch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Partition {
    /// 0 to `partition_count` − 1.
    pub id: u32,
    /// Grows by one with every change of this entry; 0 means never assigned.
    pub epoch: u64,
    /// The epoch at which the data began anew: empty, or with what the object store had. Copies of an earlier
    /// generation count for nothing.
    #[serde(default)]
    pub generation: u64,
    /// The node that orders writes and answers reads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "node-1")]
    pub primary: Option<String>,
    /// The nodes that hold every acknowledged write, the primary among them.
    pub in_sync: Vec<String>,
    /// The nodes that are being brought up to date.
    pub learners: Vec<String>,
    /// The session of every node above: the entry speaks of that process, not of one started later.
    #[serde(default)]
    pub sessions: BTreeMap<String, u64>,
    /// The in-sync node that the primary is to hand over to, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub successor: Option<String>,
}

/// A node as clients and peers need it to route.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RingNode {
    /// Its stable name.
    #[schema(example = "node-1")]
    pub node_id: String,
    /// See [`RegisterNode::incarnation`].
    pub incarnation: u64,
    /// See [`RegisterNode::session`].
    #[serde(default)]
    pub session: u64,
    /// Where clients reach it.
    #[schema(example = "http://127.0.0.1:8081")]
    pub address: String,
    /// Where other nodes and masters reach it.
    #[schema(example = "127.0.0.1:9081")]
    pub peer_address: String,
}

/// The partition map.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Ring {
    /// Random, made with the cluster: the data of a node belong to one cluster.
    pub cluster_id: u64,
    /// Grows with every change of any partition or node.
    pub epoch: u64,
    /// How many partitions there are; fixed when the cluster is made.
    #[schema(example = 256)]
    pub partition_count: u32,
    /// The partition function: `xxh3-64` of bucket, a zero byte and key, modulo `partition_count`.
    #[schema(example = "xxh3-64")]
    pub hash: String,
    /// How partitions are replicated.
    #[serde(default)]
    pub replication: Replication,
    /// Every partition, by id.
    pub partitions: Vec<Partition>,
    /// Every registered node, by id.
    pub nodes: Vec<RingNode>,
}

/// How partitions are replicated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Replication {
    /// Copies of each partition, the primary's included, where there are so many nodes.
    #[schema(example = 2)]
    pub factor: u32,
    /// With fewer in-sync copies, writes are refused.
    #[schema(example = 1)]
    pub min_in_sync: u32,
    /// When a write is acknowledged, and on which way it goes to the replicas.
    pub strategy: Strategy,
    /// With the strategy `quorum`: the copies, the primary's included, that must have a write before it is answered.
    #[schema(example = 2)]
    pub write_quorum: u32,
}

impl Default for Replication {
    fn default() -> Self {
        Self { factor: 1, min_in_sync: 1, strategy: Strategy::PrimaryReplica, write_quorum: 1 }
    }
}

/// When a write is acknowledged, and on which way it goes to the replicas.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    /// When every in-sync replica has it; the primary sends to all of them.
    #[default]
    PrimaryReplica,
    /// When every in-sync replica has it; each sends to the next.
    Chain,
    /// When `write_quorum` copies have it. Weaker: a write that was answered can be lost when more than
    /// `factor` − `write_quorum` copies are lost, even if others are left.
    Quorum,
}

impl Strategy {
    /// Every strategy.
    pub const ALL: [Self; 3] = [Self::PrimaryReplica, Self::Chain, Self::Quorum];

    /// The strategy as it stands in settings and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::PrimaryReplica => "primary_replica",
            Self::Chain => "chain",
            Self::Quorum => "quorum",
        }
    }
}

/// A primary asks for a change of its partition's entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangePartition {
    /// The primary, which asks.
    pub node_id: String,
    /// Its session.
    pub session: u64,
    /// The entry's epoch that it knows; another one by now is refused.
    pub epoch: u64,
    /// What should become of the node `subject`.
    pub change: PartitionChange,
    /// The node that the change is about.
    pub subject: String,
}

/// What should become of a node in a partition's entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum PartitionChange {
    /// The learner has everything: it becomes in-sync.
    CaughtUp,
    /// It does not acknowledge: it is neither in-sync nor a learner any more.
    Remove,
    /// It becomes the primary; the primary that asks has stopped serving and stays in-sync.
    HandOver,
    /// It becomes the primary; the primary that asks cannot store writes and is not in-sync any more.
    StepDown,
}

/// Totals over the cluster, and the same by node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Stats {
    /// The map epoch.
    pub epoch: u64,
    /// Hits over hits and misses; 0 before the first read.
    pub hit_ratio: f64,
    /// Sums over the nodes (the age is the greatest).
    #[serde(flatten)]
    pub total: NodeStats,
    /// Partitions without a primary that answers.
    pub partitions_offline: u32,
    /// Partitions that are moving.
    pub partitions_moving: u32,
    /// Partitions with fewer in-sync copies than the replication factor asks for.
    #[serde(default)]
    pub partitions_under_replicated: u32,
    /// The nodes, by id.
    pub nodes: Vec<Node>,
}

/// The answer of `/health/live` and `/health/ready`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Health {
    /// `ok`.
    #[schema(example = "ok")]
    pub status: String,
    /// The version of the running program.
    #[schema(example = "0.1.0")]
    pub version: String,
    /// What an operator should know although the server is ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warning: Option<String>,
}
