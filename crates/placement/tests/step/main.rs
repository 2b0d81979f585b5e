//! What the transitions of a partition's entry promise.
#![expect(clippy::unwrap_used, reason = "a failure here is a failed test")]

mod asked;
mod support;
mod table;
mod world;
