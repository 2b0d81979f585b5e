//! What a client has asked for, on its way from a master to a node, and the answers.

use bytes::Bytes;
use prost::Message;

/// One operation on one key.
#[derive(Clone, PartialEq, Message)]
pub struct Execute {
    /// The epoch of the partition that the sender knows; a node that knows a lower one refreshes its map.
    #[prost(uint64, tag = "1")]
    pub epoch: u64,
    /// See [`EntryName`](crate::EntryName).
    #[prost(bytes = "bytes", tag = "2")]
    pub name: Bytes,
    /// 0 get, 1 head, 2 put, 3 delete, 4 increment, 5 explain.
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
    /// What an increment adds.
    #[prost(sint64, tag = "13")]
    pub delta: i64,
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
    /// 0 found, 1 missing, 2 not modified, 3 stored over an old value, 4 created, 5 deleted, 6 condition failed,
    /// 7 counted on, 8 counted from nothing, 9 explained.
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
    /// The sum of an increment.
    #[prost(sint64, tag = "9")]
    pub counted: i64,
    /// The JSON of an [`Explanation`](crate::data::Explanation), which is made for people and passed on.
    #[prost(bytes = "bytes", tag = "10")]
    pub explanation: Bytes,
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
