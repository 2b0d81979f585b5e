//! Who should hold which partition, and the next legal step there.
//!
//! | module | owns |
//! |---|---|
//! | [`mod@desired`] | the consistent-hash ring's proposal: which nodes should hold each partition |
//! | [`step`] | the legal transitions of one partition's map entry, as the master takes them |
//! | [`mod@change`] | those that its primary asks for |
//! | [`copies`] | which copies come forward, and which are stuck |
//! | [`reason`] | the names of all of them |
//!
//! Pure: no I/O, no clock, no task. What is stored and who is alive come in as arguments, the next entry goes out as a
//! value, and only a compare-and-swap by the caller makes it true. So two masters that compute different proposals
//! still cannot disagree about the map.

pub mod change;
pub mod copies;
pub mod desired;
pub mod reason;
pub mod step;

pub use change::{change, is_done};
pub use copies::{Copies, Expected, Headway, Seen};
pub use desired::{Candidate, desired};
pub use reason::Reason;
pub use step::{Holder, LAST_EPOCH, Standing, Step, View, next_step};
