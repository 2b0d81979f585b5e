//! One parsed request on a key, and its outcome: what every adapter (HTTP, the link) turns into, and from.

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    name::EntryName,
    version::{Condition, Version},
};

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
}

impl Tier {
    /// Every tier, from the top.
    pub const ALL: [Self; 3] = [Self::Memory, Self::Disk, Self::Object];

    /// The tier as it stands in `Cache-Status` and in metric labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Disk => "disk",
            Self::Object => "object",
        }
    }
}

/// One request on one key.
#[derive(Clone, Debug)]
pub struct Operation {
    /// The key and its bucket.
    pub name: EntryName,
    /// What must hold of the key.
    pub condition: Condition,
    /// What to do.
    pub action: Action,
}

/// What to do with a key.
#[derive(Clone, Debug)]
pub enum Action {
    /// Read the value.
    Get,
    /// Read everything but the value.
    Head,
    /// Store a value.
    Put(Put),
    /// Remove the key.
    Delete {
        /// When to answer.
        durability: Option<Durability>,
    },
}

impl Action {
    /// The action as it stands in metric labels.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Head => "head",
            Self::Put(_) => "put",
            Self::Delete { .. } => "delete",
        }
    }

    /// Whether the action changes anything.
    pub fn is_write(&self) -> bool {
        matches!(self, Self::Put(_) | Self::Delete { .. })
    }
}

/// A value to store.
#[derive(Clone, Debug)]
pub struct Put {
    /// The value.
    pub value: Bytes,
    /// Given back as `Content-Type`; empty means `application/octet-stream`.
    pub content_type: String,
    /// How long it lives; `None` means the default of the node.
    pub ttl: Option<Duration>,
    /// When to answer; `None` means the default, `disk`.
    pub durability: Option<Durability>,
}

/// What is known of a live key. Times are milliseconds since the Unix epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metadata {
    /// Its version.
    pub version: Version,
    /// When it was written.
    pub modified_at: u64,
    /// When it expires, if it does.
    pub expires_at: Option<u64>,
    /// The value's length in bytes.
    pub size: u64,
    /// Empty means `application/octet-stream`.
    pub content_type: String,
}

/// What became of an operation that did not fail.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// A read found the key.
    Found {
        /// What is known of it.
        metadata: Metadata,
        /// Which tier answered.
        tier: Tier,
        /// The value: empty for [`Action::Head`], `None` when it is too large for the way it would have to go.
        value: Option<Bytes>,
    },
    /// A read found no key; the version is that of its deletion, if it is remembered.
    Missing(Version),
    /// A read with [`Condition::Differs`] found the version that the client has.
    NotModified(Metadata, Tier),
    /// A write was stored.
    Stored {
        /// Whether the key was absent before.
        created: bool,
        /// What is known of it now.
        metadata: Metadata,
    },
    /// A delete removed the key.
    Deleted(Version),
    /// The condition does not hold; the version is the live one, or that of the deletion, or 0.
    ConditionFailed(Version),
}

/// A page of a bucket's keys, to be asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListQuery {
    /// The first name of the range, included.
    pub start: Bytes,
    /// The end of the range, not included; empty means no end.
    pub end: Bytes,
    /// The most names to return.
    pub limit: usize,
}

/// One name of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedName {
    /// The key and its bucket.
    pub name: EntryName,
    /// What is known of it. The content type is left out.
    pub metadata: Metadata,
}
