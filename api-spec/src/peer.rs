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
    #[prost(oneof = "RequestKind", tags = "1, 2, 3, 4, 5, 6")]
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
    /// A primary brings writes to a replica.
    #[prost(message, tag = "4")]
    Replicate(Replicate),
    /// A primary asks a replica for leases.
    #[prost(message, tag = "5")]
    Renew(Renew),
    /// A new primary asks an in-sync replica for what may not be everywhere.
    #[prost(message, tag = "6")]
    Collect(Collect),
}

/// What the other answers.
#[derive(Clone, PartialEq, Message)]
pub struct Response {
    /// The answer.
    #[prost(oneof = "ResponseKind", tags = "1, 2, 3, 4, 5, 6, 7")]
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
    /// What became of the writes.
    #[prost(message, tag = "5")]
    Replicated(Replicated),
    /// The leases.
    #[prost(message, tag = "6")]
    Granted(Granted),
    /// The writes that may not be everywhere.
    #[prost(message, tag = "7")]
    Collected(Collected),
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
    /// See [`IdempotencyKey`](crate::operation::IdempotencyKey); empty means none.
    #[prost(string, tag = "10")]
    pub idempotency_key: String,
    /// Any in-sync replica may answer.
    #[prost(bool, tag = "11")]
    pub eventual: bool,
    /// The trace that the operation belongs to.
    #[prost(message, optional, tag = "12")]
    pub trace: Option<Trace>,
}

/// See [`TraceContext`](crate::TraceContext). Absent where nobody asked for a trace.
#[derive(Clone, Copy, PartialEq, Message)]
pub struct Trace {
    /// The upper half of the trace's id.
    #[prost(fixed64, tag = "1")]
    pub trace_id_high: u64,
    /// The lower half.
    #[prost(fixed64, tag = "2")]
    pub trace_id_low: u64,
    /// The span that asks; 0 in an answer.
    #[prost(fixed64, tag = "3")]
    pub span_id: u64,
    /// Whether the trace is recorded.
    #[prost(bool, tag = "4")]
    pub sampled: bool,
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
    /// The position in [`Tier`](crate::operation::Tier).
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
    /// The trace under which the sender has logged it.
    #[prost(message, optional, tag = "5")]
    pub trace: Option<Trace>,
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
    /// The trace that the question belongs to.
    #[prost(message, optional, tag = "5")]
    pub trace: Option<Trace>,
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

/// A learner asks for a page of a partition's rows.
#[derive(Clone, PartialEq, Message)]
pub struct Fetch {
    /// The partition.
    #[prost(uint32, tag = "1")]
    pub partition: u32,
    /// The epoch of the entry that the learner knows.
    #[prost(uint64, tag = "2")]
    pub epoch: u64,
    /// Who asks.
    #[prost(string, tag = "3")]
    pub learner: String,
    /// Its session.
    #[prost(uint64, tag = "4")]
    pub session: u64,
    /// Where to go on. With 0 the copy begins: from now on the learner gets every write, too.
    #[prost(int64, tag = "5")]
    pub cursor: i64,
    /// The learner has all pages: it asks to be in-sync.
    #[prost(bool, tag = "6")]
    pub done: bool,
    /// The number that the first page gave to this copy.
    #[prost(uint64, tag = "7")]
    pub copy: u64,
    /// The learner has rows already: the page is to have all but the values.
    #[prost(bool, tag = "8")]
    pub heads: bool,
    /// A new primary asks, whose own copy may lack writes that only others of a quorum have.
    #[prost(bool, tag = "20")]
    pub merge: bool,
    /// The page is to have the rows of these names, the first ones if they do not fit.
    #[prost(bytes = "bytes", repeated, tag = "9")]
    pub names: Vec<Bytes>,
    /// The page is to have idempotency keys and no rows: those of the writes after this version, in their order.
    #[prost(uint64, optional, tag = "10")]
    pub keys_after: Option<u64>,
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
    /// Bytes of all values of the partition, on the first page.
    #[prost(uint64, tag = "4")]
    pub total_bytes: u64,
    /// The number of this copy.
    #[prost(uint64, tag = "5")]
    pub copy: u64,
    /// The learner is not in-sync, and its copy is not complete: it must begin again.
    #[prost(bool, tag = "20")]
    pub begin_again: bool,
    /// How many of the names that were asked for the page answers; those without a row are gone.
    #[prost(uint32, tag = "6")]
    pub answered: u32,
    /// The idempotency keys that were asked for; none: there are no more.
    #[prost(message, repeated, tag = "7")]
    pub keys: Vec<FirstOutcome>,
}

/// What became of the first write with an idempotency key.
#[derive(Clone, PartialEq, Message)]
pub struct FirstOutcome {
    /// See [`IdempotencyKey`](crate::operation::IdempotencyKey).
    #[prost(string, tag = "1")]
    pub key: String,
    /// What was written: see [`EntryName`](crate::EntryName).
    #[prost(bytes = "bytes", tag = "2")]
    pub name: Bytes,
    /// The version that the write was given.
    #[prost(uint64, tag = "3")]
    pub version: u64,
    /// The name was absent before.
    #[prost(bool, tag = "4")]
    pub created: bool,
    /// The write was a deletion.
    #[prost(bool, tag = "5")]
    pub tombstone: bool,
    /// Milliseconds since the Unix epoch.
    #[prost(uint64, tag = "6")]
    pub modified_at: u64,
    /// Milliseconds since the Unix epoch; 0 means never.
    #[prost(uint64, tag = "7")]
    pub expires_at: u64,
}

/// Writes of a primary, in the order of their versions within each partition.
#[derive(Clone, PartialEq, Message)]
pub struct Replicate {
    /// The primary.
    #[prost(string, tag = "1")]
    pub primary: String,
    /// The session of the node that is to take them.
    #[prost(uint64, tag = "2")]
    pub session: u64,
    /// The writes.
    #[prost(message, repeated, tag = "3")]
    pub appends: Vec<Append>,
    /// The nodes that the receiver passes them on to, in a chain.
    #[prost(message, repeated, tag = "4")]
    pub route: Vec<Hop>,
    /// Uploads that have ended.
    #[prost(message, repeated, tag = "5")]
    pub uploads: Vec<Uploaded>,
    /// The primary's session.
    #[prost(uint64, tag = "6")]
    pub primary_session: u64,
}

/// A node further down a chain.
#[derive(Clone, PartialEq, Message)]
pub struct Hop {
    /// Its id.
    #[prost(string, tag = "1")]
    pub node_id: String,
    /// Its session.
    #[prost(uint64, tag = "2")]
    pub session: u64,
}

/// One write.
#[derive(Clone, PartialEq, Message)]
pub struct Append {
    /// The partition.
    #[prost(uint32, tag = "1")]
    pub partition: u32,
    /// The epoch at which the primary sends it.
    #[prost(uint64, tag = "2")]
    pub epoch: u64,
    /// Every write up to this version is on every in-sync replica.
    #[prost(uint64, tag = "3")]
    pub stable: u64,
    /// The position in [`Durability`](crate::operation::Durability).
    #[prost(uint32, tag = "4")]
    pub durability: u32,
    /// The row.
    #[prost(message, required, tag = "5")]
    pub row: Row,
    /// See [`IdempotencyKey`](crate::operation::IdempotencyKey); empty means none.
    #[prost(string, tag = "6")]
    pub idempotency_key: String,
    /// The name was absent before. Said only with an idempotency key.
    #[prost(bool, tag = "7")]
    pub created: bool,
    /// The trace that the write belongs to.
    #[prost(message, optional, tag = "8")]
    pub trace: Option<Trace>,
}

/// The object store has a version of a key.
#[derive(Clone, PartialEq, Message)]
pub struct Uploaded {
    /// See [`EntryName`](crate::EntryName).
    #[prost(bytes = "bytes", tag = "1")]
    pub name: Bytes,
    /// The key's version that was looked at.
    #[prost(uint64, tag = "2")]
    pub version: u64,
    /// The version that the object store has; 0: none any more.
    #[prost(uint64, tag = "3")]
    pub object_version: u64,
}

/// What became of the writes of a [`Replicate`]: all that are not refused are stored.
#[derive(Clone, PartialEq, Message)]
pub struct Replicated {
    /// Who refused which partitions.
    #[prost(message, repeated, tag = "1")]
    pub refused: Vec<Refused>,
}

/// A node refused the writes of a partition.
#[derive(Clone, PartialEq, Message)]
pub struct Refused {
    /// The node.
    #[prost(string, tag = "1")]
    pub node_id: String,
    /// The partition.
    #[prost(uint32, tag = "2")]
    pub partition: u32,
    /// The highest epoch that the node knows.
    #[prost(uint64, tag = "3")]
    pub epoch: u64,
    /// It could not store them.
    #[prost(bool, tag = "4")]
    pub failed: bool,
}

/// A primary asks for leases: promises that the receiver will not take its place for a while.
#[derive(Clone, PartialEq, Message)]
pub struct Renew {
    /// The primary.
    #[prost(string, tag = "1")]
    pub primary: String,
    /// Its session.
    #[prost(uint64, tag = "2")]
    pub primary_session: u64,
    /// The session of the receiver.
    #[prost(uint64, tag = "3")]
    pub session: u64,
    /// The partitions.
    #[prost(message, repeated, tag = "4")]
    pub leases: Vec<Lease>,
}

/// One partition of a [`Renew`].
#[derive(Clone, PartialEq, Message)]
pub struct Lease {
    /// The partition.
    #[prost(uint32, tag = "1")]
    pub partition: u32,
    /// The epoch of its entry.
    #[prost(uint64, tag = "2")]
    pub epoch: u64,
    /// See [`Append::stable`].
    #[prost(uint64, tag = "3")]
    pub stable: u64,
}

/// The leases that were given.
#[derive(Clone, PartialEq, Message)]
pub struct Granted {
    /// The partitions.
    #[prost(uint32, repeated, tag = "1")]
    pub partitions: Vec<u32>,
    /// The process is about to stop: it gives no lease and takes no write any more.
    #[prost(bool, tag = "2")]
    pub leaving: bool,
}

/// A new primary asks for the writes of a partition that may not be on every replica.
#[derive(Clone, PartialEq, Message)]
pub struct Collect {
    /// The new primary.
    #[prost(string, tag = "1")]
    pub primary: String,
    /// Its session.
    #[prost(uint64, tag = "2")]
    pub primary_session: u64,
    /// The session of the receiver.
    #[prost(uint64, tag = "3")]
    pub session: u64,
    /// The partition.
    #[prost(uint32, tag = "4")]
    pub partition: u32,
    /// The epoch that made the sender the primary.
    #[prost(uint64, tag = "5")]
    pub epoch: u64,
    /// See [`Append::stable`].
    #[prost(uint64, tag = "6")]
    pub stable: u64,
}

/// The answer to a [`Collect`].
#[derive(Clone, PartialEq, Message)]
pub struct Collected {
    /// Writes above `stable`.
    #[prost(message, repeated, tag = "1")]
    pub appends: Vec<Append>,
    /// Every write up to this version is on every in-sync replica.
    #[prost(uint64, tag = "2")]
    pub stable: u64,
    /// The highest version that the replica has heard of.
    #[prost(uint64, tag = "3")]
    pub last_version: u64,
    /// The receiver is no holder, or another process, and so no primary of an earlier epoch.
    #[prost(bool, tag = "4")]
    pub no_holder: bool,
    /// The receiver knows a later epoch: nothing else counts then.
    #[prost(bool, tag = "5")]
    pub stale: bool,
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
