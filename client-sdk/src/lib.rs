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
//! | `cache` | [`Cache`]: how it is set up, and what can be asked of it |
//! | `request`, `batch` | the requests that have options; many operations at once |
//! | `events` | what becomes visible, for as long as somebody listens |
//! | `connection` | sends an operation until it is answered or the time is over |
//! | `retry` | where an operation goes, and when it is sent again |
//! | `router` | the partition map, and following it |
//! | `call` | one attempt at one server |
//! | `dots` | the keys `.` and `..`, which URL libraries resolve away |
//! | [`generated`] | what progenitor makes of the OpenAPI documents |
//!
//! # What is repeated
//!
//! Every operation on a key is repeated until [`Builder::timeout`] is over, when the failure may pass: the connection
//! could not be opened or broke, nothing came in time, the node does not own the key (421), or the server, or something
//! before it, says 408, 429, 502, 503 or 504. So neither a node that is stopped nor one that is killed shows as an error,
//! as long as another copy takes over within that time.
//!
//! It is safe, because every write carries an `Idempotency-Key`, a random one or [`Put::idempotency_key`]: the servers
//! keep it with the data for ten minutes, do the write once, and answer it the second time as they answered the first.
//!
//! The owner that the map names is asked first, then a master, which waits for a failover, then the owner again, and so
//! on. A server that cannot be reached is left at once; otherwise the pauses double, have jitter, and are as long as
//! `Retry-After` asks. After 421 the map is fetched anew before the next attempt, after a broken connection beside it.
//! While no master can be reached, a client that has the map goes on straight to the nodes.
//!
//! [`Error::OutcomeUnknown`] means that the time was over before the servers could say whether the write was done. To
//! find out, send it again under the same [`Put::idempotency_key`].
//!
//! # Reads that may be stale
//!
//! [`Get::eventual`] asks any in-sync replica: the reads of a hot key are spread over all copies.
//!
//! ```no_run
//! # async fn run(cache: cairn_client::Cache) -> Result<(), cairn_client::Error> {
//! let flags = cache.get("feature-flags").eventual().await?;
//! # Ok(()) }
//! ```

mod batch;
mod cache;
mod call;
mod connection;
mod dots;
mod error;
mod events;
pub mod generated;
mod request;
mod retry;
mod router;

pub use batch::{BatchOperation, BatchReply};
pub use cache::{Builder, Cache};
pub use cairn_api_spec::{
    Bucket, ErrorCode, Version,
    cluster::{ChangeRebalance, Move, Node, NodeState, NodeStats, Partition, Rebalance, Ring, Stats},
    data::{Asked, EntryMetadata, Explanation, KeyList, KeyState},
    error::Problem,
    events::EventKind,
    operation::{Durability, Tier},
    version::Condition,
};
pub use error::Error;
pub use events::{Event, Events};
pub use request::{Counted, Delete, Get, Increment, List, Put, Stored, Value};
