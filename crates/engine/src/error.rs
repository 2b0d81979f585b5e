//! Why a request has no outcome.

use cairn_api_spec::Version;

use crate::counter::NotAnInteger;

/// Why a request has no outcome.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The partition belongs to another node.
    #[error("partition {partition} is not served here; this node knows its entry at epoch {epoch}")]
    NotOwner {
        /// The partition.
        partition: u32,
        /// The epoch of the entry that this node knows.
        epoch: u64,
    },
    /// The partition is this node's, and it cannot serve it at the moment.
    #[error("partition {partition} is not ready: {why}")]
    PartitionOffline {
        /// The partition.
        partition: u32,
        /// What it waits for.
        why: &'static str,
    },
    /// Too few copies are in sync.
    #[error("{in_sync} copies of partition {partition} are in sync, min_in_sync asks for {required}")]
    BelowMinInSync {
        /// The partition.
        partition: u32,
        /// How many are.
        in_sync: usize,
        /// How many must be.
        required: usize,
    },
    /// The idempotency key stands for a write of another name, or of another kind.
    #[error("this Idempotency-Key was used for another request")]
    KeyReused,
    /// An increment has no sum; nothing was written.
    #[error("{why}")]
    NotAnInteger {
        /// Why.
        why: NotAnInteger,
        /// The version of the value.
        version: Version,
    },
    /// Another node became the primary, or not enough copies have the write yet.
    #[error("the write was not confirmed by the replicas; whether it is kept is not known")]
    Superseded,
    /// The write is on the disk, and whether it is in the object store is not known.
    #[error("the value is on the disk, and its upload was not confirmed in time")]
    UploadNotConfirmed,
    /// Too many requests wait.
    #[error("too many requests wait for partition {0}")]
    Overloaded(u32),
    /// A tier could not do its part.
    #[error(transparent)]
    Tier(#[from] TierError),
}

/// Why a tier could not do its part.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TierError {
    /// Too much waits for the disk.
    #[error("too much waits for the disk")]
    Overloaded,
    /// The disk took no more; nothing was written.
    #[error("the disk is full")]
    Full,
    /// The disk failed.
    #[error("the disk tier failed: {0}")]
    Disk(String),
    /// The disk did not answer in time.
    #[error("the disk did not answer in time")]
    DiskHangs,
    /// A stored value is not what was written.
    #[error("the stored value does not match its checksum")]
    Corrupt,
    /// The object store did not answer, or refused.
    #[error("the object store is not available: {0}")]
    ObjectStore(String),
    /// The object of an uploaded value is not in the object store.
    #[error("the object store has lost the value of version {0}")]
    ObjectLost(u64),
    /// The node is stopping.
    #[error("the node is stopping")]
    ShuttingDown,
}
