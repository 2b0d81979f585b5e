//! A node: it holds the keys of its partitions in memory, on disk and in an object store.
//!
//! | room | owns | looks into |
//! |---|---|---|
//! | `doors` | the ways in: HTTP, the link | `cluster`, `driver` |
//! | [`cluster`] | masters, peers, membership, what this node is to each partition | `driver`, `tiers` |
//! | [`driver`] | the engines of `cairn_engine`: clocks, locks, queues, wake-ups | `tiers` |
//! | [`tiers`] | memory, disk, object store: all SQL, all S3 | nothing |
//! | [`config`], [`error`], [`metrics`], [`mailbox`], [`clock`] | what all of them need | |
//!
//! A request crosses: door → [`driver::Driver::execute`] → the partition's engine, which decides → tiers. No door touches
//! a tier; no tier knows HTTP; `run` puts it all together.

pub mod clock;
pub mod cluster;
pub mod config;
mod doors;
pub mod driver;
pub mod error;
pub mod mailbox;
pub mod metrics;
mod run;
pub mod tiers;

pub use config::Config;
pub use doors::http::openapi;
pub use run::{Listeners, RunError, run};
