//! What every way into a server needs, whatever it speaks: the operations that a server must be able to execute, and
//! how they are measured.
//!
//! | module | owns |
//! |---|---|
//! | `api` | [`DataApi`]: what a server must be able to do |
//! | [`feed`] | what became visible, for those who subscribe to it |
//! | [`metrics`] | how long operations take, and how they end |
//! | `slow` | the log of operations that take long |
//!
//! No web framework stands here: HTTP (`cairn-data-api`) and the link are adapters over this.

mod api;
pub mod feed;
pub mod metrics;
mod slow;

pub use api::{DataApi, Reply, ValueStream};
pub use feed::Feed;
pub use metrics::DataMetrics;
pub use slow::SlowLog;
