//! The node among others: masters, peers, and what this node is to each partition.
//!
//! | module | owns |
//! |---|---|
//! | [`masters`] | the calls to the masters |
//! | [`membership`] | registration, heartbeats, following the map |
//! | [`ownership`] | from the map to what this node serves, restores, learns and drops |
//! | [`peers`] | the links to other nodes |
//! | [`protocol`] | what the protocol asks of peers and of the master |
//! | [`collect`] | removing from the bucket what no partition needs |
//! | [`skew`] | how far the wall clock is from the master's |
//! | [`follow`] | what this node answers to primaries |
//! | [`transfer`] | copies of partitions |
//! | [`transfers`] | how far they are, and how fast they may be |

pub mod collect;
pub mod follow;
pub mod masters;
pub mod membership;
pub mod ownership;
pub mod peers;
pub mod protocol;
pub mod skew;
pub mod transfer;
pub mod transfers;
