//! The images, run as an operator runs them: each test has a Docker network of its own with a master, nodes and, where it
//! needs one, an object store. Only what the published ports answer is looked at.
//!
//! `make test-integration` gets and builds the images, and runs this.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a failure here is a failed test")]

mod faults;
mod image;
mod keys;
mod recovery;
mod support;
mod tiers;
