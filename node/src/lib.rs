//! A node: it holds the keys of its partitions in memory, on disk and in an object store.
//!
//! | module | owns |
//! |---|---|
//! | [`config`] | every setting |
//! | [`store`] | what a node does with a key: reads through the tiers, ordered writes |
//! | [`partition`] | the state of each partition, and the order of its writes |
//! | [`claim`] | the idempotency keys of requests under way |
//! | [`entry`], [`memory`] | the memory tier |
//! | [`disk`] | the disk tier, and all SQL |
//! | [`mailbox`] | answers from the disk's writer to the threads that serve HTTP |
//! | [`object`], [`upload`] | the object tier, and the way down to it |
//! | [`sweep`] | expiry, the disk budget, statistics |
//! | [`replication`], [`follow`], [`peers`], [`clock`] | drives the protocol of `cairn_replication`: as a primary, as a replica, and between them |
//! | [`membership`], [`masters`] | registration, heartbeats, following the map |
//! | [`ownership`], [`transfer`] | from the map to what this node serves, restores, learns and drops |
//! | `app`, `routes`, `api` | HTTP, and its OpenAPI document |
//! | `link_service` | the peer listener |
//! | [`error`] | what can go wrong, and what a client is told |
//! | [`metrics`] | what Prometheus is told |
//!
//! A request crosses: adapter → [`store::Store::execute`] → tiers. No handler touches a tier; no tier knows HTTP.

mod api;
mod app;
pub mod claim;
pub mod clock;
pub mod config;
pub mod disk;
pub mod entry;
pub mod error;
pub mod follow;
mod link_service;
pub mod mailbox;
pub mod masters;
pub mod membership;
pub mod memory;
pub mod metrics;
pub mod object;
pub mod ownership;
pub mod partition;
pub mod peers;
pub mod replication;
mod routes;
mod run;
pub mod store;
pub mod sweep;
pub mod transfer;
pub mod upload;

pub use app::openapi;
pub use config::Config;
pub use run::{Listeners, RunError, run};
