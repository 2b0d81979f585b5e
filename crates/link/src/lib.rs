//! One multiplexed, framed, batched request/response transport between our own processes.
//!
//! A connection opens with an eight-byte preface. Then each frame is `length: u32 | id: u32 | protobuf message`,
//! big-endian; `length` counts what follows it, and an answer carries its request's id. Answers come in any order, so
//! a slow request holds up no other, and everything that is ready leaves in one write. That is why forwarding over
//! the link beats a reverse proxy, which pays two system calls and an HTTP parse for each request.
//!
//! Everything is bounded: frames, requests in flight, bytes waiting, the time to connect, to write and to answer. The
//! link knows neither keys nor nodes; it retries nothing, since only the caller knows what is safe to repeat.

mod client;
mod frame;
mod server;

pub use client::{CallError, Client};
pub use server::{Service, serve};

use std::time::Duration;

/// What one connection may hold.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The longest message, in bytes.
    pub max_message_bytes: usize,
    /// Requests that are sent and not yet answered.
    pub max_in_flight: usize,
    /// Encoded bytes that wait for the socket; above it, callers are refused and servers stop reading.
    pub max_outbox_bytes: usize,
    /// How long connecting, and one write, may take.
    pub io_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            // The longest value that a node may be set to take, and what stands around it.
            max_message_bytes: 65 << 20,
            max_in_flight: 4096,
            max_outbox_bytes: 32 << 20,
            io_timeout: Duration::from_secs(3),
        }
    }
}
