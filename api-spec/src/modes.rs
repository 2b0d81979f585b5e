//! How durable a write is to be, who may answer a read, which tier did, and why a key was removed.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What must have happened on every in-sync replica (for `object`: in the bucket) before a write is answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Durability {
    /// It stands in memory; the disk follows within milliseconds.
    Memory,
    /// It is in the disk tier and survives the end of the process.
    #[default]
    Disk,
    /// It is flushed to the medium and survives a power cut.
    Fsync,
    /// It is in the object store and survives the loss of the node's disk.
    Object,
}

impl Durability {
    /// The level as it stands in queries and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Disk => "disk",
            Self::Fsync => "fsync",
            Self::Object => "object",
        }
    }
}

/// Who may answer a read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Consistency {
    /// The primary: the read sees every write that was answered before it.
    #[default]
    Strong,
    /// Any in-sync replica: the value may be stale.
    Eventual,
}

impl Consistency {
    /// The level as it stands in queries.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Strong => "strong",
            Self::Eventual => "eventual",
        }
    }
}

/// Why a key was removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Removal {
    /// A client asked for it.
    #[default]
    Delete,
    /// Its time had come.
    Expire,
    /// It made room for others.
    Evict,
}

/// Which tier answered a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Tier {
    /// The LRU in memory.
    Memory,
    /// The local SQLite file.
    Disk,
    /// The object store.
    Object,
    /// Answered by a replica: the value may be stale.
    Replica,
}

impl Tier {
    /// Every tier of a node, from the top.
    pub const ALL: [Self; 3] = [Self::Memory, Self::Disk, Self::Object];

    /// The tier as it stands in `Cache-Status` and in metric labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Disk => "disk",
            Self::Object => "object",
            Self::Replica => "replica",
        }
    }
}
