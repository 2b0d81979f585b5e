//! The contract: what travels between clients, masters and nodes, and the rules that all of them must agree on.
//!
//! | module | owns |
//! |---|---|
//! | [`name`] | the grammar of keys and buckets, and the partition function |
//! | [`version`] | versions, epochs, and the conditions that compare them |
//! | [`ttl`] | the ways to write a time to live |
//! | [`modes`] | durability, consistency, tiers |
//! | [`operation`] | one parsed request on a key, and its outcome |
//! | [`request`] | an operation as an HTTP request |
//! | [`routes`] | from a name to the nodes that may answer for it |
//! | [`backoff`] | the pauses between attempts |
//! | [`data`], [`batch`], [`cluster`] | the JSON documents of the data API, of its batches, and of the cluster API |
//! | [`events`] | what became visible of a key, and why |
//! | [`error`] | every error code, its status, and the problem document |
//! | [`peer`] | the protobuf messages between our own processes |
//! | [`trace`] | the trace that a request belongs to |
//!
//! Nothing here does I/O, reads a clock or knows a web framework. The partition function stands here and not beside
//! the ring, because a client computes it too.

pub mod backoff;
pub mod batch;
pub mod cluster;
pub mod data;
pub mod error;
pub mod events;
pub mod modes;
pub mod name;
pub mod operation;
pub mod peer;
pub mod request;
pub mod routes;
pub mod trace;
pub mod ttl;
pub mod version;

pub use error::{ApiError, ErrorCode};
pub use name::{Bucket, EntryName};
pub use operation::{Operation, Outcome};
pub use trace::{TraceContext, TraceId};
pub use version::Version;

/// Values up to this many bytes travel inside one frame between our processes; larger ones are streamed over HTTP.
pub const MAX_FRAMED_VALUE_BYTES: usize = 1 << 20;
