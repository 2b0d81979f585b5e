//! What can go wrong inside a node, and the one mapping of it to error codes.

use cairn_api_spec::{ApiError, ErrorCode};
use cairn_engine::TierError;

/// What can go wrong while a node works on a request.
#[derive(Clone, Debug, thiserror::Error)]
pub enum NodeError {
    /// The engine has no outcome for it.
    #[error(transparent)]
    Engine(cairn_engine::Error),
    /// A tier could not do its part.
    #[error(transparent)]
    Tier(TierError),
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
    /// A partition could not be copied from its primary.
    #[error("a partition could not be copied: {0}")]
    Transfer(String),
}

impl From<TierError> for NodeError {
    fn from(error: TierError) -> Self {
        Self::Tier(error)
    }
}

impl From<cairn_engine::Error> for NodeError {
    fn from(error: cairn_engine::Error) -> Self {
        match error {
            cairn_engine::Error::Tier(error) => Self::Tier(error),
            error => Self::Engine(error),
        }
    }
}

impl From<sqlx::Error> for NodeError {
    fn from(error: sqlx::Error) -> Self {
        const SQLITE_FULL: &str = "13";
        match &error {
            sqlx::Error::Database(database) if database.code().as_deref() == Some(SQLITE_FULL) => {
                Self::Tier(TierError::Full)
            }
            // Other reads have all connections, which says nothing about the disk.
            sqlx::Error::PoolTimedOut => Self::Tier(TierError::Overloaded),
            _ => Self::Tier(TierError::Disk(error.to_string())),
        }
    }
}

impl From<NodeError> for TierError {
    fn from(error: NodeError) -> Self {
        match error {
            NodeError::Tier(error) => error,
            error => Self::Disk(error.to_string()),
        }
    }
}

impl From<NodeError> for ApiError {
    fn from(error: NodeError) -> Self {
        let code = match &error {
            NodeError::Engine(cairn_engine::Error::NotAnInteger { version, .. }) => {
                return ApiError::new(ErrorCode::NotAnInteger, error.to_string()).with_version(*version);
            }
            NodeError::Engine(error) => engine_code(error),
            NodeError::Tier(error) => tier_code(error),
            NodeError::NotJoined => ErrorCode::PartitionOffline,
            NodeError::ValueTooLarge { .. } => ErrorCode::ValueTooLarge,
            NodeError::Unsupported(_) => ErrorCode::InvalidParameter,
            NodeError::Transfer(_) => ErrorCode::Internal,
        };
        ApiError::new(code, error.to_string())
    }
}

fn engine_code(error: &cairn_engine::Error) -> ErrorCode {
    use cairn_engine::Error;
    match error {
        Error::NotOwner { .. } => ErrorCode::NotOwner,
        Error::PartitionOffline { .. } => ErrorCode::PartitionOffline,
        Error::BelowMinInSync { .. } => ErrorCode::BelowMinInSync,
        Error::KeyReused => ErrorCode::InvalidParameter,
        Error::NotAnInteger { .. } => ErrorCode::NotAnInteger,
        Error::Superseded | Error::UploadNotConfirmed => ErrorCode::OutcomeUnknown,
        Error::Overloaded(_) => ErrorCode::Overloaded,
        Error::Tier(error) => tier_code(error),
    }
}

fn tier_code(error: &TierError) -> ErrorCode {
    match error {
        TierError::Overloaded => ErrorCode::Overloaded,
        TierError::Full => ErrorCode::StorageFull,
        TierError::DiskHangs => ErrorCode::PartitionOffline,
        TierError::Disk(_) | TierError::Corrupt | TierError::ObjectLost(_) => ErrorCode::Internal,
        TierError::ObjectStore(_) => ErrorCode::ObjectStoreUnavailable,
        TierError::ShuttingDown => ErrorCode::ShuttingDown,
    }
}
