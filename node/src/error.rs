//! What can go wrong inside a node, and the one mapping of it to error codes.

use cairn_api_spec::{ApiError, ErrorCode};

/// What can go wrong while a node works on a request.
#[derive(Clone, Debug, thiserror::Error)]
pub enum NodeError {
    /// The partition belongs to another node.
    #[error("partition {partition} is not served here; this node knows map epoch {epoch}")]
    NotOwner {
        /// The partition.
        partition: u32,
        /// The map epoch that this node knows.
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
    /// The node has not heard of a cluster yet.
    #[error("this node has not joined a cluster yet")]
    NotJoined,
    /// The value is over the limit.
    #[error("the value has {size} bytes, the limit is {limit}")]
    ValueTooLarge {
        /// Its length.
        size: usize,
        /// `max_value_bytes`.
        limit: usize,
    },
    /// The request asks for something that this node is not set up for.
    #[error("{0}")]
    Unsupported(&'static str),
    /// The idempotency key stands for a write of another name, or of another kind.
    #[error("this Idempotency-Key was used for another request")]
    KeyReused,
    /// Too many writes wait for the disk.
    #[error("too many writes wait for the disk")]
    Overloaded,
    /// The disk took no more; nothing was written.
    #[error("the disk is full")]
    StorageFull,
    /// The disk failed.
    #[error("the disk tier failed: {0}")]
    Disk(String),
    /// A stored value is not what was written.
    #[error("the stored value does not match its checksum")]
    Corrupt,
    /// The object store did not answer, or refused.
    #[error("the object store is not available: {0}")]
    ObjectStore(String),
    /// The object of an uploaded value is not in the object store.
    #[error("the object store has lost the value of version {0}")]
    ObjectLost(u64),
    /// The writer went away with the write.
    #[error("the node stopped while the write was on its way to the disk")]
    Unsettled,
    /// Another node became the primary, or not enough copies have the write yet.
    #[error("the write was not confirmed by the replicas; whether it is kept is not known")]
    Superseded,
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
    /// The write is on the disk, and whether it is in the object store is not known.
    #[error("the value is on the disk, and its upload was not confirmed in time")]
    UploadNotConfirmed,
    /// A partition could not be copied from its primary.
    #[error("a partition could not be copied: {0}")]
    Transfer(String),
    /// The node is stopping.
    #[error("the node is stopping")]
    ShuttingDown,
}

impl From<sqlx::Error> for NodeError {
    fn from(error: sqlx::Error) -> Self {
        const SQLITE_FULL: &str = "13";
        match &error {
            sqlx::Error::Database(database) if database.code().as_deref() == Some(SQLITE_FULL) => Self::StorageFull,
            _ => Self::Disk(error.to_string()),
        }
    }
}

impl From<NodeError> for ApiError {
    fn from(error: NodeError) -> Self {
        let code = match &error {
            NodeError::NotOwner { .. } => ErrorCode::NotOwner,
            NodeError::PartitionOffline { .. } | NodeError::NotJoined => ErrorCode::PartitionOffline,
            NodeError::ValueTooLarge { .. } => ErrorCode::ValueTooLarge,
            NodeError::Unsupported(_) | NodeError::KeyReused => ErrorCode::InvalidParameter,
            NodeError::Overloaded => ErrorCode::Overloaded,
            NodeError::StorageFull => ErrorCode::StorageFull,
            NodeError::ObjectStore(_) => ErrorCode::ObjectStoreUnavailable,
            NodeError::Disk(_) | NodeError::Corrupt | NodeError::ObjectLost(_) | NodeError::Transfer(_) => {
                ErrorCode::Internal
            }
            NodeError::BelowMinInSync { .. } => ErrorCode::BelowMinInSync,
            NodeError::UploadNotConfirmed | NodeError::Unsettled | NodeError::Superseded => ErrorCode::OutcomeUnknown,
            NodeError::ShuttingDown => ErrorCode::ShuttingDown,
        };
        ApiError::new(code, error.to_string())
    }
}
