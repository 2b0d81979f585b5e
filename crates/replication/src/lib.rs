//! One partition's replica as a state machine: primary and in-sync set, with the configuration in a compare-and-swap
//! store (the model of `PacificA`, Lin et al. 2008).
//!
//! | module | owns |
//! |---|---|
//! | [`entry`] | the map entry as replicas see it, and the changes that a primary may ask for |
//! | [`replica`] | the state, and how a new entry changes it |
//! | `primary` | writes, acknowledgements, leases: what a primary does |
//! | `learner` | how it brings a learner up to date |
//! | `follower` | what a replica or learner answers to a primary |
//! | `takeover` | how a replica becomes the primary |
//!
//! Pure: time (milliseconds of a clock that also counts sleep), messages and answers of the disk come in as arguments,
//! [`Effect`]s go out as values. The caller keeps the rows; a write is anything that can be cloned, and writes of the
//! same version are the same write. Rows are registers: the newest version wins wherever they arrive, in any order and
//! any number of times, so there is no log and nothing here resends for the sake of order.
//!
//! What holds, and is checked by the model in `tests`:
//!
//! - An acknowledged write is on every in-sync replica, and every later primary has it before it serves.
//! - Only one primary can answer reads at a time: it needs an unexpired lease of every in-sync peer, and a peer takes
//!   over only after the lease that it gave has run out, or the former primary has confirmed that it is none any more.
//! - A process that was restarted counts for nothing until an entry names its session.

pub mod entry;
mod follower;
mod learner;
mod primary;
pub mod replica;
mod takeover;

pub use entry::{Change, Entry, Member};
pub use replica::{Collected, Effect, Header, NotServing, Refusal, Replica, Role, Settings, Write};
