//! One partition's replica as a state machine: primary and in-sync set, with the configuration in a compare-and-swap
//! store (the model of `PacificA`, Lin et al. 2008).
//!
//! | module | owns |
//! |---|---|
//! | [`entry`] | the map entry as replicas see it, and the changes that a primary may ask for |
//! | `interface` | what goes in and comes out: rules, roles, effects, messages, refusals |
//! | `replica` | the state |
//! | `configure` | what a new entry means |
//! | `primary` | writes, acknowledgements, leases: what a primary does |
//! | `disk` | what the answers of this copy's disk mean |
//! | `upkeep` | what a primary does as time passes |
//! | `learner` | how it brings a learner up to date |
//! | `follower` | what a replica or learner answers to a primary |
//! | `takeover` | how a replica becomes the primary |
//!
//! Pure: time (milliseconds of a clock that also counts sleep), messages and answers of the disk come in as arguments,
//! [`Effect`]s go out as values. The caller keeps the rows; a write is anything that can be cloned, and writes of the
//! same version are the same write. Rows are registers: the newest version wins wherever they arrive, in any order and
//! any number of times, so there is no log and nothing here resends for the sake of order.
//!
//! | word | means |
//! |---|---|
//! | entry | who holds the partition, as the metadata store has it; never a value of a key |
//! | member | one process of a node, as an entry names it |
//! | holder | a process that the newest entry names, in sync or learning |
//! | committed | a write that may be seen and answered |
//! | stable | a write that is known to be on every in-sync copy and learner |
//! | lost | a write that a copy has acknowledged, and that its disk does not have |
//!
//! What holds, and is checked by the model in `tests`:
//!
//! - An acknowledged write is on every in-sync replica, and every later primary has it before it serves.
//! - Only one primary can answer reads at a time: it needs an unexpired lease of every in-sync peer, and a peer takes
//!   over only after the lease that it gave has run out, or the former primary has confirmed that it is none any more.
//! - A process that was restarted counts for nothing until an entry names its session.
//! - A copy that has lost a write serves only as the last one, and then says so.

mod configure;
mod disk;
pub mod entry;
mod follower;
mod interface;
mod learner;
mod primary;
mod replica;
mod takeover;
mod upkeep;

pub use entry::{Change, Entry, Member};
pub use interface::{Collected, Effect, Header, NotServing, Refusal, Role, Settings, Write};
pub use replica::Replica;
