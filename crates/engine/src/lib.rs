//! Everything that decides about the keys of one partition on one node.
//!
//! | module | owns |
//! |---|---|
//! | [`verb`] | what each verb makes of a key's current state |
//! | [`engine`] | one partition: requests from their arrival to their answer, on top of `cairn_replication` |
//! | [`request`] | a request, and where it stands on its way |
//! | `claims` | which request or write holds which idempotency key |
//! | `kept` | how many bytes of values are kept until every copy has them |
//! | [`reads`] | reads of the lower tiers that are under way, and which of them are out of date |
//! | [`counter`] | what an increment makes of a value |
//! | [`change`], [`entry`] | what a write changes, and a live key with its value |
//! | [`error`] | why a request has no outcome |
//!
//! Pure: requests, messages of peers, answers of the tiers and the time come in as arguments, and [`Effect`]s go out as
//! values. The caller owns clocks, locks, queues and wake-ups. The memory tier is an argument too ([`Near`]), because a
//! decision must see what the one before it has left there.
//!
//! What holds:
//!
//! - Deciding a write, numbering it and queueing it for the disk are one call, so a condition can never pass twice.
//! - A read sees committed state only, under a lease that held after the state was read.
//! - Every request is answered, and no later than the deadline of the stage that it is in.

pub mod change;
mod claims;
pub mod counter;
pub mod engine;
pub mod entry;
pub mod error;
mod kept;
pub mod reads;
pub mod request;
pub mod verb;

pub use change::{Change, Idempotency, NodeId, Payload, Refused, Room};
pub use counter::NotAnInteger;
pub use engine::{Effect, Engine, Moment, Near, Newest, Replicated, Step};
pub use entry::{Entry, checksum};
pub use error::{Error, TierError};
pub use reads::{Head, Loaded, ReadId};
pub use request::{JobId, Request};
pub use verb::Verb;
