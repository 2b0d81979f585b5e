//! A cluster of real processes, seen from outside.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a failure here is a failed test")]

mod batch;
mod conditions;
mod crash;
mod events;
mod expiry;
mod faults;
mod import;
mod losses;
mod membership;
mod metrics;
mod object_store;
mod restores;
mod shutdown;
mod startup;
mod support;
mod traces;
mod values;
