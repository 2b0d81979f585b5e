//! The protobuf messages that our own processes exchange over the link, and their translation to and from
//! [`Operation`](crate::Operation) and [`Outcome`](crate::Outcome).
//!
//! A peer runs the same software but not always the same release: fields are only added, and what cannot be read is
//! an error, never a guess.

mod convert;

use bytes::Bytes;
use prost::{Message, Oneof};

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
    /// See [`EntryName`](crate::EntryName).
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
    /// 0 means the default, else 1 + the position in [`Durability`](crate::operation::Durability).
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
    /// The position in [`Tier::ALL`](crate::operation::Tier::ALL).
    #[prost(uint32, tag = "7")]
    pub tier: u32,
    /// The value; absent when it is larger than a frame may be.
    #[prost(bytes = "bytes", optional, tag = "8")]
    pub value: Option<Bytes>,
}

/// An [`ApiError`](crate::ApiError).
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

/// See [`ListQuery`](crate::operation::ListQuery).
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
    /// See [`EntryName`](crate::EntryName).
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
    /// See [`EntryName`](crate::EntryName).
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
