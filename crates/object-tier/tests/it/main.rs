//! The formats against damage, and the rules against everything that can happen to a bucket.
//!
//! | module | what |
//! |---|---|
//! | `names`, `segments`, `checkpoints` | what is written is read again, and nothing else is |
//! | `decisions` | single rules |
//! | `model`, `state`, `bucket`, `restoring`, `promises` | a partition with two nodes and a bucket in which anything may be late |
//! | `exhaustive` | situations that are explored completely |
//! | `planted` | bugs, each of which must be found |
#![expect(clippy::unwrap_used, reason = "a failure here is a failed test")]

mod bucket;
mod checkpoints;
mod decisions;
mod exhaustive;
mod model;
mod names;
mod planted;
mod promises;
mod records;
mod restoring;
mod segments;
mod state;
