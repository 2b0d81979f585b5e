//! Leases: what a primary asks of its replicas, so that it alone may answer reads.

use prost::Message;

/// A primary asks for leases: promises that the receiver will not take its place for a while.
#[derive(Clone, PartialEq, Message)]
pub struct Renew {
    /// The primary.
    #[prost(string, tag = "1")]
    pub primary: String,
    /// Its session.
    #[prost(uint64, tag = "2")]
    pub primary_session: u64,
    /// The session of the receiver.
    #[prost(uint64, tag = "3")]
    pub session: u64,
    /// The partitions.
    #[prost(message, repeated, tag = "4")]
    pub leases: Vec<Lease>,
}

/// One partition of a [`Renew`].
#[derive(Clone, PartialEq, Message)]
pub struct Lease {
    /// The partition.
    #[prost(uint32, tag = "1")]
    pub partition: u32,
    /// The epoch of its entry.
    #[prost(uint64, tag = "2")]
    pub epoch: u64,
    /// See [`Append::stable`](super::Append::stable).
    #[prost(uint64, tag = "3")]
    pub stable: u64,
}

/// The leases that were given.
#[derive(Clone, PartialEq, Message)]
pub struct Granted {
    /// The partitions.
    #[prost(uint32, repeated, tag = "1")]
    pub partitions: Vec<u32>,
    /// The process is about to stop: it gives no lease and takes no write any more.
    #[prost(bool, tag = "2")]
    pub leaving: bool,
    /// The partitions of which the receiver has lost writes that it had acknowledged: it is in sync no more.
    #[prost(uint32, repeated, tag = "3")]
    pub failed: Vec<u32>,
}
