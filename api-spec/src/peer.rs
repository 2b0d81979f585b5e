//! The protobuf messages that our own processes exchange over the link, and their translation to and from
//! [`Operation`](crate::Operation) and [`Outcome`](crate::Outcome).
//!
//! A peer runs the same software but not always the same release: fields are only added, and what cannot be read is
//! an error, never a guess.

mod batch;
mod client;
mod convert;
mod lease;

pub use batch::{BatchAnswer, ExecuteBatch, ExecutedBatch};
pub use client::{Execute, Executed, Failed, List, Listed, ListedRow, Trace};
pub use lease::{Granted, Lease, Renew};

use bytes::Bytes;
use prost::{Message, Oneof};

/// What one process asks another.
#[derive(Clone, PartialEq, Message)]
pub struct Request {
    /// The question.
    #[prost(oneof = "RequestKind", tags = "1, 2, 3, 4, 5, 6, 7, 8")]
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
    /// Operations on several keys.
    #[prost(message, tag = "7")]
    ExecuteBatch(ExecuteBatch),
    /// A node asks a primary whether an object is of no more use to its partition.
    #[prost(message, tag = "8")]
    Release(Release),
}

/// What the other answers.
#[derive(Clone, PartialEq, Message)]
pub struct Response {
    /// The answer.
    #[prost(oneof = "ResponseKind", tags = "1, 2, 3, 4, 5, 6, 7, 8, 9")]
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
    /// What became of each operation.
    #[prost(message, tag = "8")]
    ExecutedBatch(ExecutedBatch),
    /// Whether the object is.
    #[prost(message, tag = "9")]
    Released(Released),
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
    /// 0: the write was done, 1: its condition did not hold, 2: the key to be removed was not there.
    #[prost(uint32, tag = "8")]
    pub refused: u32,
    /// The version that the refusal named.
    #[prost(uint64, tag = "9")]
    pub refused_version: u64,
    /// The sum, if the write was an increment.
    #[prost(sint64, optional, tag = "10")]
    pub counted: Option<i64>,
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
    /// See [`FirstOutcome::refused`]: then the row changes nothing.
    #[prost(uint32, tag = "9")]
    pub refused: u32,
    /// See [`FirstOutcome::refused_version`].
    #[prost(uint64, tag = "10")]
    pub refused_version: u64,
    /// The sum, if the write is an increment. Said only with an idempotency key.
    #[prost(sint64, optional, tag = "11")]
    pub counted: Option<i64>,
}

/// The object store has a version of a key.
#[derive(Clone, PartialEq, Message)]
pub struct Uploaded {
    /// See [`EntryName`](crate::EntryName).
    #[prost(bytes = "bytes", tag = "1")]
    pub name: Bytes,
    /// The version.
    #[prost(uint64, tag = "2")]
    pub version: u64,
    /// Where it is; absent for a deletion.
    #[prost(message, optional, tag = "4")]
    pub place: Option<Place>,
    /// The epoch of the partition in which it was uploaded.
    #[prost(uint64, tag = "5")]
    pub epoch: u64,
    /// The primary's process.
    #[prost(uint64, tag = "6")]
    pub primary_session: u64,
    /// The process that is told.
    #[prost(uint64, tag = "7")]
    pub session: u64,
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
    /// Where the object store holds the value, if it is packed with others or has a name of its own.
    #[prost(message, optional, tag = "11")]
    pub place: Option<Place>,
}

/// Asks whether a segment is of no more use to a partition.
#[derive(Clone, PartialEq, Message)]
pub struct Release {
    /// The segment, without the prefix.
    #[prost(string, tag = "1")]
    pub segment: String,
    /// The partition.
    #[prost(uint32, tag = "2")]
    pub partition: u32,
    /// The epoch under which the segment's rows of the partition were gathered.
    #[prost(uint64, tag = "3")]
    pub epoch: u64,
    /// The highest of their versions.
    #[prost(uint64, tag = "4")]
    pub newest: u64,
}

/// The answer to [`Release`].
#[derive(Clone, PartialEq, Message)]
pub struct Released {
    /// It is of no more use, and never will be.
    #[prost(bool, tag = "1")]
    pub is_released: bool,
}

/// Where in the object store a value is.
#[derive(Clone, PartialEq, Message)]
pub struct Place {
    /// The object, without the prefix.
    #[prost(string, tag = "1")]
    pub object: String,
    /// The value's first byte in it.
    #[prost(uint64, tag = "2")]
    pub offset: u64,
}
