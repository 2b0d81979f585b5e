//! Cairn for Rust programs: a client that knows where every key lives.
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use cairn_client::Cache;
//!
//! # async fn run() -> Result<(), cairn_client::Error> {
//! let cache = Cache::connect("http://127.0.0.1:8080").await?;
//! cache.put("user:42", "Ada").ttl(Duration::from_secs(600)).content_type("text/plain").await?;
//! if let Some(value) = cache.get("user:42").await? {
//!     println!("{} bytes of {}, version {}", value.bytes.len(), value.content_type, value.version);
//! }
//! # Ok(()) }
//! ```
//!
//! [`Cache`] learns the partition map from the master, follows its changes, and sends each request straight to the
//! node that owns the key. The master serves what has no single owner (listings) and what cannot be reached directly.
//! The generated clients below it, one request per call, are in [`generated`].
//!
//! | module | owns |
//! |---|---|
//! | `cache` | [`Cache`]: routing of each request, and when it is repeated |
//! | `request` | the requests that have options |
//! | `router` | the partition map, and following it |
//! | `call` | one attempt at one server |
//! | `dots` | the keys `.` and `..`, which URL libraries resolve away |
//! | [`generated`] | what progenitor makes of the OpenAPI documents |
//!
//! # What is repeated
//!
//! A request is repeated, up to [`Builder::retries`] times within [`Builder::timeout`], only where that cannot change
//! what it means:
//!
//! * a read, after every failure that may pass;
//! * every write that surely had no effect: the connection could not be opened, or the server says so (`not_owner`,
//!   `no_nodes`, `partition_offline`, `overloaded`, `rate_limited`, `request_timeout`);
//! * a write under `If-Match: "version"` of which it is not known whether it happened: versions never come back, so it
//!   happens at most once. When the repetition meets another version, the first attempt may have been the cause, and
//!   the result is [`Error::OutcomeUnknown`].
//!
//! Every other write whose outcome is not known is not repeated: it ends as [`Error::OutcomeUnknown`], or as
//! [`Error::Refused`] where the server itself failed ([`Error::is_outcome_unknown`] covers both). `If-None-Match: *` is
//! among them: between two attempts the key could have been written and removed.
//!
//! After `not_owner` (421) the map is fetched anew and the new owner asked once; when that does not help, or the owner
//! cannot be reached, the master forwards.

mod cache;
mod call;
mod dots;
mod error;
pub mod generated;
mod request;
mod router;

pub use cache::{Builder, Cache, Value};
pub use cairn_api_spec::{
    Bucket, ErrorCode, Version,
    cluster::{Node, NodeState, NodeStats, Partition, Ring, Stats},
    data::{EntryMetadata, KeyList},
    error::Problem,
    operation::Durability,
    version::Condition,
};
pub use error::Error;
pub use request::{Delete, List, Put, Stored};
