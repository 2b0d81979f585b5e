//! Events: what became visible of a key, and why.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{data::timestamp, modes::Removal, name::EntryName, version::Version};

/// What happened to a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// It has a new value.
    Put,
    /// A client removed it.
    Delete,
    /// Its time had come.
    Expire,
    /// It made room for others.
    Evict,
}

impl EventKind {
    /// Every kind.
    pub const ALL: [Self; 4] = [Self::Put, Self::Delete, Self::Expire, Self::Evict];

    /// The kind as it stands in the field `event` of a stream.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Put => "put",
            Self::Delete => "delete",
            Self::Expire => "expire",
            Self::Evict => "evict",
        }
    }
}

impl From<Removal> for EventKind {
    fn from(why: Removal) -> Self {
        match why {
            Removal::Delete => Self::Delete,
            Removal::Expire => Self::Expire,
            Removal::Evict => Self::Evict,
        }
    }
}

/// What stands in the field `event` where events are missing that nobody can tell any more.
pub const GAP: &str = "gap";

/// One change of one key, as every adapter turns it into its own form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// What happened.
    pub kind: EventKind,
    /// The key and its bucket.
    pub name: EntryName,
    /// The version that the change gave. Those of one key only grow.
    pub version: Version,
    /// When, in milliseconds since the Unix epoch.
    pub at: u64,
    /// The new value's length in bytes.
    pub size: u64,
    /// When the new value expires, in milliseconds since the Unix epoch.
    pub expires_at: Option<u64>,
}

/// The data of an event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Event {
    /// The bucket.
    #[schema(example = "default")]
    pub bucket: String,
    /// The key.
    #[schema(example = "user:42")]
    pub key: String,
    /// The version that the change gave to the key. An event that comes twice has the same.
    pub version: Version,
    /// When.
    #[schema(value_type = String, example = "2026-01-01T00:00:00Z")]
    pub at: Timestamp,
    /// The new value's length in bytes; absent when the key was removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = 6)]
    pub size: Option<u64>,
    /// When the new value expires; absent when it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "2026-01-01T00:00:00Z")]
    pub expires_at: Option<Timestamp>,
}

impl From<&Change> for Event {
    fn from(change: &Change) -> Self {
        Self {
            bucket: change.name.bucket().to_owned(),
            key: change.name.key().to_owned(),
            version: change.version,
            at: timestamp(change.at),
            size: (change.kind == EventKind::Put).then_some(change.size),
            expires_at: change.expires_at.map(timestamp),
        }
    }
}

/// Where a subscriber stands: the process that numbers the events, and the last one that it has seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// Random, made with the process.
    pub process: u64,
    /// The number of the event.
    pub number: u64,
}

impl Position {
    /// Reads what `Last-Event-ID` says; `None` for what no server has said.
    pub fn parse(text: &str) -> Option<Self> {
        let (process, number) = text.split_once('-')?;
        Some(Self { process: u64::from_str_radix(process, 16).ok()?, number: number.parse().ok()? })
    }
}

impl std::fmt::Display for Position {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:x}-{}", self.process, self.number)
    }
}
