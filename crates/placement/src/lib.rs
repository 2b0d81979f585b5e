//! Who should hold which partition, and the next legal step there.
//!
//! | module | owns |
//! |---|---|
//! | [`mod@desired`] | the consistent-hash ring's proposal: which nodes should hold each partition |
//! | [`step`] | the legal transitions of one partition's map entry |
//!
//! Pure: no I/O, no clock, no task. What is stored and who is alive come in as arguments, the next entry goes out as a
//! value, and only a compare-and-swap by the caller makes it true. So two masters that compute different proposals
//! still cannot disagree about the map.

pub mod desired;
pub mod step;

pub use desired::{Candidate, desired};
pub use step::{Holder, Reason, Step, next_step, promote};
