//! The engine under a seeded simulation of whole clusters, and alone.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a failure here is a failed test")]

mod ahead;
mod alone;
mod feed;
mod given_up;
mod kept;
mod planted;
mod requests;
mod simulator;
