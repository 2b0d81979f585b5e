//! How the map moves.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// How the map moves towards what the ring proposes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Rebalance {
    /// No move is begun.
    pub paused: bool,
    /// Partitions that may be copied at the same time, and as many again of which copies were lost.
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
    /// Partitions that may be copied at the same time, and as many again of which copies were lost, 1 to 65536.
    #[schema(example = 8)]
    pub max_moves: Option<u32>,
    /// The most bytes a second that each node may copy from others; 0: no limit.
    #[schema(example = 10_000_000)]
    pub bytes_per_second: Option<u64>,
}
