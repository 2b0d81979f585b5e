//! Nodes: what they say of themselves, and what is said of them.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

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
    /// Milliseconds by which its wall clock is ahead of the master's (behind: negative), as it estimates from the
    /// answers to earlier heartbeats; absent while it cannot tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock_offset_ms: Option<i64>,
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
    /// Everything is here: the learner waits until it counts as in sync.
    #[serde(default)]
    pub complete: bool,
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
    /// The master's wall clock when it answered, in milliseconds since 1970-01-01T00:00:00Z; 0: not told.
    #[serde(default)]
    pub now_ms: i64,
    /// A node whose wall clock is further from `now_ms` does not lead, in milliseconds; 0: no node is judged, since all
    /// clocks differ from the master's.
    #[serde(default)]
    pub max_clock_skew_ms: u64,
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
    /// Milliseconds by which its wall clock is ahead of the master's (behind: negative), as it last said. Beyond
    /// `max_clock_skew` it leads no partition of which another in-sync copy can be the primary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock_offset_ms: Option<i64>,
    /// What it last said of itself.
    pub stats: NodeStats,
}

/// Every registered node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct NodeList {
    /// The nodes, by id.
    pub nodes: Vec<Node>,
}
