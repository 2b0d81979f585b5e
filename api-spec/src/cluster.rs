//! The JSON documents of the cluster API: nodes, the partition map, statistics.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The partition function's name, as `GET /ring` gives it.
pub const HASH: &str = "xxh3-64";

/// What a node says of itself when it registers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RegisterNode {
    /// A stable name: 1 to 63 of a–z, A–Z, 0–9, '.', '_' and '-'.
    #[schema(example = "node-1")]
    pub node_id: String,
    /// Random, made when the data directory is made: it changes when the data are gone.
    pub incarnation: u64,
    /// Grows with every start of the node on these data, and begins above what it was on data that are gone: a process
    /// that has just started is in sync with nothing until the map names its session.
    #[serde(default)]
    pub session: u64,
    /// Where clients reach the node.
    #[schema(example = "http://127.0.0.1:8081")]
    pub address: String,
    /// Where other nodes and masters reach it (`host:port`).
    #[schema(example = "127.0.0.1:9081")]
    pub peer_address: String,
    /// Its share of the ring next to other nodes, 0.1 to 100.
    #[serde(default = "default_weight")]
    #[schema(example = 1.0)]
    pub weight: f64,
    /// The failure zone that it stands in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
}

fn default_weight() -> f64 {
    1.0
}

/// Where a node stands in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum NodeState {
    /// Registered, with partitions still on their way to it.
    Joining,
    /// Beating, with the partitions that the ring gives it.
    Active,
    /// Silent for longer than the suspicion time.
    Suspect,
    /// On its way out: its partitions move to others.
    Draining,
    /// Silent for so long that it counts as crashed.
    Gone,
}

/// How full a node is, as it says with each heartbeat.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct NodeStats {
    /// Reads that found a live key.
    pub hits: u64,
    /// Reads that found none.
    pub misses: u64,
    /// Hits by tier.
    pub hits_by_tier: ByTier,
    /// Live keys held by the disk tier's index.
    pub entries: u64,
    /// Entries by the tier that holds their value.
    pub entries_by_tier: ByTier,
    /// Bytes by tier: what memory entries really take, and value bytes for the other two.
    pub bytes_by_tier: ByTier,
    /// Entries dropped from memory to keep within its bounds.
    pub evictions_memory: u64,
    /// Entries dropped from the bottom tier, and so lost, to keep within its bounds.
    pub evictions: u64,
    /// Entries dropped because their time had come.
    pub expirations: u64,
    /// Changes that the object store has not got.
    pub uploads_pending: u64,
    /// Seconds that the oldest of them has waited.
    pub upload_age_seconds: f64,
    /// Partitions whose primary the node is and that it serves.
    pub partitions_serving: u32,
    /// Writes that wait for acknowledgements of replicas.
    pub replication_pending: u64,
    /// Milliseconds that the oldest of them has waited.
    pub replication_lag_ms: u64,
}

/// One number for each tier.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct ByTier {
    /// The LRU in memory.
    pub memory: u64,
    /// The local SQLite file.
    pub disk: u64,
    /// The object store.
    pub object: u64,
}

impl std::ops::AddAssign for ByTier {
    fn add_assign(&mut self, other: Self) {
        self.memory += other.memory;
        self.disk += other.disk;
        self.object += other.object;
    }
}

/// What a node says once a second.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Heartbeat {
    /// The same as at registration: another one means that the data are gone.
    pub incarnation: u64,
    /// The map epoch that the node knows.
    pub epoch: u64,
    /// See [`RegisterNode::session`]: a process that another one has followed should stop.
    #[serde(default)]
    pub session: u64,
    /// The node is about to stop: its primaries should go to in-sync replicas.
    #[serde(default)]
    pub leaving: bool,
    /// The partitions that it is copying.
    #[serde(default)]
    pub transfers: Vec<Transfer>,
    /// How full it is.
    #[serde(default)]
    pub stats: NodeStats,
}

/// How far a learner has come with a partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Transfer {
    /// The partition.
    pub partition: u32,
    /// Bytes of values copied so far.
    pub bytes: u64,
    /// Bytes of values that the primary had at the beginning.
    pub total_bytes: u64,
}

/// The answer to a heartbeat.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HeartbeatReply {
    /// The map epoch that the master knows.
    pub epoch: u64,
    /// The node was removed from the cluster, and should stop.
    #[serde(default)]
    pub leave: bool,
    /// The most bytes a second that the node may copy from other nodes; 0: no limit.
    #[serde(default)]
    pub transfer_bytes_per_second: u64,
}

/// A registered node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Node {
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
    /// Its share of the ring.
    pub weight: f64,
    /// The failure zone that it stands in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// Where it stands in its life.
    pub state: NodeState,
    /// Partitions whose primary it is.
    pub partitions: u32,
    /// Partitions of which it holds another in-sync copy.
    #[serde(default)]
    pub replicas: u32,
    /// When it was last heard, by the master's clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "2026-01-01T00:00:00Z")]
    pub last_heartbeat: Option<Timestamp>,
    /// What it last said of itself.
    pub stats: NodeStats,
}

/// Every registered node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct NodeList {
    /// The nodes, by id.
    pub nodes: Vec<Node>,
}

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

/// How the map moves towards what the ring proposes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Rebalance {
    /// No move is begun.
    pub paused: bool,
    /// Partitions that may be copied at the same time.
    pub max_moves: u32,
    /// The most bytes a second that each node may copy from others; 0: no limit.
    pub bytes_per_second: u64,
    /// Copies finished since the master started.
    pub moves_done: u64,
    /// Copies that are being made.
    pub moves_active: u32,
    /// Copies still to begin.
    pub moves_left: u32,
    /// Bytes copied by the active moves, as far as the nodes have told.
    pub bytes_copied: u64,
    /// Bytes that the active moves have to copy.
    pub bytes_total: u64,
    /// Bytes copied a second, lately.
    pub bytes_rate: f64,
    /// Seconds until everything is where it should be, from what is left and the rate; absent when nothing moves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eta_seconds: Option<f64>,
    /// The active moves, by partition.
    pub moves: Vec<Move>,
}

/// A partition on its way to a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Move {
    /// The partition.
    pub partition: u32,
    /// Its primary, which is copied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "node-1")]
    pub from: Option<String>,
    /// The node that copies.
    #[schema(example = "node-2")]
    pub to: String,
    /// Bytes copied.
    pub bytes: u64,
    /// Bytes to copy.
    pub total_bytes: u64,
}

/// A change of how the map moves; what is absent stays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ChangeRebalance {
    /// Begin no move.
    #[schema(example = true)]
    pub paused: Option<bool>,
    /// Partitions that may be copied at the same time, 1 to 65536.
    #[schema(example = 8)]
    pub max_moves: Option<u32>,
    /// The most bytes a second that each node may copy from others; 0: no limit.
    #[schema(example = 10_000_000)]
    pub bytes_per_second: Option<u64>,
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
