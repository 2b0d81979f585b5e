//! The master through its public surface: HTTP, and `run`.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a failure here is a failed test")]

mod clocks;
mod cluster;
mod epochs;
mod failover;
mod healthcheck;
mod http;
mod membership;
mod metastore;
mod plan;
mod rebalance;
mod registry;
mod support;
