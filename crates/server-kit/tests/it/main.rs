//! The kit, driven as a server drives it: settings through `load`, HTTP through real sockets.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "this is how a test fails")]

mod body;
mod config;
mod edge;
mod harness;
mod healthcheck;
mod telemetry;
mod trace;
