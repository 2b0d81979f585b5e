//! The data API over the wire: a real server, raw requests, and a map for a domain.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "this is how a test fails")]

mod batch;
mod counter;
mod document;
mod events;
mod explain;
mod listing;
mod memory;
mod parameters;
mod post;
mod reads;
mod server;
mod streams;
mod writes;
