//! The protobuf messages that our own processes exchange over the link, and their translation to and from
//! [`Operation`] and [`Outcome`].
//!
//! A peer runs the same software but not always the same release: fields are only added, and what cannot be read is
//! an error, never a guess.

use std::time::Duration;

use bytes::Bytes;
use prost::{Message, Oneof};

use crate::{
    error::{ApiError, ErrorCode},
    name::EntryName,
    operation::{Action, Durability, ListQuery, ListedName, Metadata, Operation, Outcome, Put, Tier},
    version::{Condition, Version},
};

/// What one process asks another.
#[derive(Clone, PartialEq, Message)]
pub struct Request {
    /// The question.
    #[prost(oneof = "RequestKind", tags = "1, 2, 3")]
    pub kind: Option<RequestKind>,
}

/// The kinds of [`Request`].
#[derive(Clone, PartialEq, Oneof)]
pub enum RequestKind {
    /// One operation on one key.
    #[prost(message, tag = "1")]
    Execute(Execute),
    /// A page of names out of the partitions that the node serves.
    #[prost(message, tag = "2")]
    List(List),
    /// A learner asks a primary for a partition's rows.
    #[prost(message, tag = "3")]
    Fetch(Fetch),
}

/// What the other answers.
#[derive(Clone, PartialEq, Message)]
pub struct Response {
    /// The answer.
    #[prost(oneof = "ResponseKind", tags = "1, 2, 3, 4")]
    pub kind: Option<ResponseKind>,
}

/// The kinds of [`Response`].
#[derive(Clone, PartialEq, Oneof)]
pub enum ResponseKind {
    /// The operation's outcome.
    #[prost(message, tag = "1")]
    Executed(Executed),
    /// The names.
    #[prost(message, tag = "2")]
    Listed(Listed),
    /// The rows.
    #[prost(message, tag = "3")]
    Fetched(Fetched),
    /// It failed.
    #[prost(message, tag = "4")]
    Failed(Failed),
}

/// One operation on one key.
#[derive(Clone, PartialEq, Message)]
pub struct Execute {
    /// The epoch of the partition that the sender knows; a node that knows a lower one refreshes its map.
    #[prost(uint64, tag = "1")]
    pub epoch: u64,
    /// See [`EntryName`].
    #[prost(bytes = "bytes", tag = "2")]
    pub name: Bytes,
    /// 0 get, 1 head, 2 put, 3 delete.
    #[prost(uint32, tag = "3")]
    pub action: u32,
    /// 0 none, 1 exists, 2 matches, 3 absent, 4 differs.
    #[prost(uint32, tag = "4")]
    pub condition: u32,
    /// The version of a condition that has one.
    #[prost(uint64, tag = "5")]
    pub condition_version: u64,
    /// The value to store.
    #[prost(bytes = "bytes", tag = "6")]
    pub value: Bytes,
    /// Its content type.
    #[prost(string, tag = "7")]
    pub content_type: String,
    /// Milliseconds to live; 0 means the node's default.
    #[prost(uint64, tag = "8")]
    pub ttl_ms: u64,
    /// 0 means the default, else 1 + the position in [`Durability`].
    #[prost(uint32, tag = "9")]
    pub durability: u32,
}

/// The outcome of an operation.
#[derive(Clone, PartialEq, Message)]
pub struct Executed {
    /// 0 found, 1 missing, 2 not modified, 3 stored over an old value, 4 created, 5 deleted, 6 condition failed.
    #[prost(uint32, tag = "1")]
    pub outcome: u32,
    /// The key's version.
    #[prost(uint64, tag = "2")]
    pub version: u64,
    /// Milliseconds since the Unix epoch.
    #[prost(uint64, tag = "3")]
    pub modified_at: u64,
    /// Milliseconds since the Unix epoch; 0 means never.
    #[prost(uint64, tag = "4")]
    pub expires_at: u64,
    /// The value's length.
    #[prost(uint64, tag = "5")]
    pub size: u64,
    /// The value's content type.
    #[prost(string, tag = "6")]
    pub content_type: String,
    /// The position in [`Tier::ALL`].
    #[prost(uint32, tag = "7")]
    pub tier: u32,
    /// The value; absent when it is larger than a frame may be.
    #[prost(bytes = "bytes", optional, tag = "8")]
    pub value: Option<Bytes>,
}

/// An [`ApiError`].
#[derive(Clone, PartialEq, Message)]
pub struct Failed {
    /// The code's text.
    #[prost(string, tag = "1")]
    pub code: String,
    /// What was wrong.
    #[prost(string, tag = "2")]
    pub detail: String,
    /// Seconds until a retry makes sense.
    #[prost(uint32, optional, tag = "3")]
    pub retry_after: Option<u32>,
    /// The key's version.
    #[prost(uint64, optional, tag = "4")]
    pub version: Option<u64>,
}

/// See [`ListQuery`].
#[derive(Clone, PartialEq, Message)]
pub struct List {
    /// The first name, included.
    #[prost(bytes = "bytes", tag = "1")]
    pub start: Bytes,
    /// The end, not included; empty means none.
    #[prost(bytes = "bytes", tag = "2")]
    pub end: Bytes,
    /// The most names to return.
    #[prost(uint32, tag = "3")]
    pub limit: u32,
    /// The partitions that the sender wants from this node: one that it does not serve is `not_owner`.
    #[prost(uint32, repeated, tag = "4")]
    pub partitions: Vec<u32>,
}

/// The names of a [`List`].
#[derive(Clone, PartialEq, Message)]
pub struct Listed {
    /// In the order of their bytes.
    #[prost(message, repeated, tag = "1")]
    pub names: Vec<ListedRow>,
}

/// One name of [`Listed`].
#[derive(Clone, PartialEq, Message)]
pub struct ListedRow {
    /// See [`EntryName`].
    #[prost(bytes = "bytes", tag = "1")]
    pub name: Bytes,
    /// The key's version.
    #[prost(uint64, tag = "2")]
    pub version: u64,
    /// Milliseconds since the Unix epoch.
    #[prost(uint64, tag = "3")]
    pub modified_at: u64,
    /// Milliseconds since the Unix epoch; 0 means never.
    #[prost(uint64, tag = "4")]
    pub expires_at: u64,
    /// The value's length.
    #[prost(uint64, tag = "5")]
    pub size: u64,
}

/// A learner asks for the rows of a partition whose version is above `after_version`, from `cursor` on.
#[derive(Clone, PartialEq, Message)]
pub struct Fetch {
    /// The partition.
    #[prost(uint32, tag = "1")]
    pub partition: u32,
    /// The epoch that made the sender a learner.
    #[prost(uint64, tag = "2")]
    pub epoch: u64,
    /// Who asks.
    #[prost(string, tag = "3")]
    pub learner: String,
    /// Only rows with a higher version.
    #[prost(uint64, tag = "4")]
    pub after_version: u64,
    /// Where to go on; 0 at first.
    #[prost(int64, tag = "5")]
    pub cursor: i64,
    /// Stop taking writes to the partition until its epoch grows, and finish those under way, before reading.
    #[prost(bool, tag = "6")]
    pub hold_writes: bool,
}

/// Rows of a partition.
#[derive(Clone, PartialEq, Message)]
pub struct Fetched {
    /// The rows.
    #[prost(message, repeated, tag = "1")]
    pub rows: Vec<Row>,
    /// Where to go on; 0 when this was the last page.
    #[prost(int64, tag = "2")]
    pub next_cursor: i64,
    /// The highest version that the partition had given when the page was read.
    #[prost(uint64, tag = "3")]
    pub last_version: u64,
}

/// One stored row, tombstones included.
#[derive(Clone, PartialEq, Message)]
pub struct Row {
    /// See [`EntryName`].
    #[prost(bytes = "bytes", tag = "1")]
    pub name: Bytes,
    /// The key's version.
    #[prost(uint64, tag = "2")]
    pub version: u64,
    /// Milliseconds since the Unix epoch.
    #[prost(uint64, tag = "3")]
    pub modified_at: u64,
    /// Milliseconds since the Unix epoch; 0 means never.
    #[prost(uint64, tag = "4")]
    pub expires_at: u64,
    /// The value's length.
    #[prost(uint64, tag = "5")]
    pub size: u64,
    /// The value's content type.
    #[prost(string, tag = "6")]
    pub content_type: String,
    /// The value; absent for a tombstone and for a value that only the object store holds.
    #[prost(bytes = "bytes", optional, tag = "7")]
    pub value: Option<Bytes>,
    /// The version that the object store holds; 0 for none.
    #[prost(uint64, tag = "8")]
    pub object_version: u64,
    /// Whether the row is a deletion.
    #[prost(bool, tag = "9")]
    pub tombstone: bool,
    /// The value's checksum, as stored.
    #[prost(uint64, tag = "10")]
    pub checksum: u64,
}

const DURABILITIES: [Durability; 4] = [Durability::Memory, Durability::Disk, Durability::Fsync, Durability::Object];

fn unreadable(what: &str) -> ApiError {
    ApiError::new(ErrorCode::Internal, format!("a peer sent a message without a readable {what}"))
}

fn to_u32(durability: Option<Durability>) -> u32 {
    durability.map_or(0, |d| d as u32 + 1)
}

fn expiry(millis: u64) -> Option<u64> {
    (millis > 0).then_some(millis)
}

impl Execute {
    /// The message for an operation, for a partition that the sender knows at `epoch`.
    pub fn new(operation: Operation, epoch: u64) -> Self {
        let (condition, version) = match operation.condition {
            Condition::None => (0, Version::NONE),
            Condition::Exists => (1, Version::NONE),
            Condition::Matches(version) => (2, version),
            Condition::Absent => (3, Version::NONE),
            Condition::Differs(version) => (4, version),
        };
        let mut message = Self {
            epoch,
            name: operation.name.as_bytes().clone(),
            condition,
            condition_version: version.0,
            ..Self::default()
        };
        match operation.action {
            Action::Get => {}
            Action::Head => message.action = 1,
            Action::Put(put) => {
                message.action = 2;
                message.value = put.value;
                message.content_type = put.content_type;
                message.ttl_ms = put.ttl.map_or(0, |ttl| u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX));
                message.durability = to_u32(put.durability);
            }
            Action::Delete { durability } => {
                message.action = 3;
                message.durability = to_u32(durability);
            }
        }
        message
    }

    /// The operation that the message stands for.
    ///
    /// # Errors
    /// `internal` or `invalid_key` when it stands for none.
    pub fn into_operation(self) -> Result<Operation, ApiError> {
        let durability = match self.durability.checked_sub(1) {
            None => None,
            Some(i) => Some(*DURABILITIES.get(i as usize).ok_or_else(|| unreadable("durability"))?),
        };
        let version = Version(self.condition_version);
        Ok(Operation {
            name: EntryName::from_bytes(self.name)?,
            condition: match self.condition {
                0 => Condition::None,
                1 => Condition::Exists,
                2 => Condition::Matches(version),
                3 => Condition::Absent,
                4 => Condition::Differs(version),
                _ => return Err(unreadable("condition")),
            },
            action: match self.action {
                0 => Action::Get,
                1 => Action::Head,
                2 => Action::Put(Put {
                    value: self.value,
                    content_type: self.content_type,
                    ttl: (self.ttl_ms > 0).then(|| Duration::from_millis(self.ttl_ms)),
                    durability,
                }),
                3 => Action::Delete { durability },
                _ => return Err(unreadable("action")),
            },
        })
    }
}

impl From<Outcome> for Executed {
    fn from(outcome: Outcome) -> Self {
        let of = |outcome: u32, metadata: Metadata| Self {
            outcome,
            version: metadata.version.0,
            modified_at: metadata.modified_at,
            expires_at: metadata.expires_at.unwrap_or(0),
            size: metadata.size,
            content_type: metadata.content_type,
            ..Self::default()
        };
        let bare = |outcome: u32, version: Version| Self { outcome, version: version.0, ..Self::default() };
        match outcome {
            Outcome::Found { metadata, tier, value } => Self { tier: tier as u32, value, ..of(0, metadata) },
            Outcome::Missing(version) => bare(1, version),
            Outcome::NotModified(metadata, tier) => Self { tier: tier as u32, ..of(2, metadata) },
            Outcome::Stored { created, metadata } => of(if created { 4 } else { 3 }, metadata),
            Outcome::Deleted(version) => bare(5, version),
            Outcome::ConditionFailed(version) => bare(6, version),
        }
    }
}

impl TryFrom<Executed> for Outcome {
    type Error = ApiError;

    fn try_from(message: Executed) -> Result<Self, ApiError> {
        let tier = Tier::ALL.get(message.tier as usize).copied().ok_or_else(|| unreadable("tier"))?;
        let version = Version(message.version);
        let metadata = Metadata {
            version,
            modified_at: message.modified_at,
            expires_at: expiry(message.expires_at),
            size: message.size,
            content_type: message.content_type,
        };
        Ok(match message.outcome {
            0 => Self::Found { metadata, tier, value: message.value },
            1 => Self::Missing(version),
            2 => Self::NotModified(metadata, tier),
            3 => Self::Stored { created: false, metadata },
            4 => Self::Stored { created: true, metadata },
            5 => Self::Deleted(version),
            6 => Self::ConditionFailed(version),
            _ => return Err(unreadable("outcome")),
        })
    }
}

impl From<ApiError> for Failed {
    fn from(error: ApiError) -> Self {
        Self {
            code: error.code.as_str().to_owned(),
            detail: error.detail,
            retry_after: error.retry_after,
            version: error.version.map(|v| v.0),
        }
    }
}

impl From<Failed> for ApiError {
    fn from(message: Failed) -> Self {
        let code = ErrorCode::ALL.iter().copied().find(|c| c.as_str() == message.code).unwrap_or(ErrorCode::Internal);
        Self {
            code,
            detail: message.detail,
            retry_after: message.retry_after,
            version: message.version.map(Version),
            node: None,
        }
    }
}

impl List {
    /// The message for a query on these partitions.
    pub fn new(query: ListQuery, partitions: Vec<u32>) -> Self {
        let limit = u32::try_from(query.limit).unwrap_or(u32::MAX);
        Self { start: query.start, end: query.end, limit, partitions }
    }

    /// The query, and the partitions that it wants.
    pub fn into_query(self) -> (ListQuery, Vec<u32>) {
        (ListQuery { start: self.start, end: self.end, limit: self.limit as usize }, self.partitions)
    }
}

impl From<ListedName> for ListedRow {
    fn from(listed: ListedName) -> Self {
        Self {
            name: listed.name.as_bytes().clone(),
            version: listed.metadata.version.0,
            modified_at: listed.metadata.modified_at,
            expires_at: listed.metadata.expires_at.unwrap_or(0),
            size: listed.metadata.size,
        }
    }
}

impl TryFrom<ListedRow> for ListedName {
    type Error = ApiError;

    fn try_from(row: ListedRow) -> Result<Self, ApiError> {
        Ok(Self {
            name: EntryName::from_bytes(row.name)?,
            metadata: Metadata {
                version: Version(row.version),
                modified_at: row.modified_at,
                expires_at: expiry(row.expires_at),
                size: row.size,
                content_type: String::new(),
            },
        })
    }
}

impl Response {
    /// The answer for a failure.
    pub fn failed(error: ApiError) -> Self {
        Self { kind: Some(ResponseKind::Failed(error.into())) }
    }
}
