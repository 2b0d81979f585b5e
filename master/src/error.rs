//! What can go wrong in the master, and the one match that makes an answer of it.

use std::time::Duration;

use cairn_api_spec::{ApiError, ErrorCode, cluster::PartitionChange};
use cairn_server_kit::http::HttpError;

use crate::metastore::StoreError;

/// Why a call on the cluster was refused or failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No node with this id and incarnation is registered.
    #[error("node {node_id:?} is not registered{}: register it with POST /nodes", if *.other_incarnation { " with this incarnation" } else { "" })]
    NodeNotFound {
        /// The id that was asked for.
        node_id: String,
        /// Whether the id is known, with other data.
        other_incarnation: bool,
    },
    /// The id belongs to a node that beats from another address.
    #[error(
        "node {node_id:?} is beating from {address}: take another id, or stop that node and wait until it counts as silent"
    )]
    NodeConflict {
        /// The id.
        node_id: String,
        /// Where the node with this id is.
        address: String,
    },
    /// The id belongs to a node that beats with other data, maybe from the same address.
    #[error(
        "node {node_id:?} beats from {address} with the data of another directory: one id belongs to one process with \
         one data directory, so give this one an id and an address of its own; if its directory was emptied, stop the \
         process that beats, and this one is taken {suspect_after:?} later"
    )]
    OtherData {
        /// The id.
        node_id: String,
        /// Where the node with this id is.
        address: String,
        /// How long that one must have been silent.
        suspect_after: Duration,
    },
    /// The data of a node have been used by a later process than the one that registers.
    #[error(
        "node {node_id:?} is known with these data at session {known}, and this is session {session}: \
         its data are a copy, or an older state; take another id and an empty data directory"
    )]
    OldSession {
        /// The id.
        node_id: String,
        /// The session that registers.
        session: u64,
        /// The session that is known.
        known: u64,
    },
    /// A registration that cannot be taken.
    #[error("{0}")]
    InvalidNode(String),
    /// A parameter that is out of its bounds.
    #[error("{0}")]
    InvalidParameter(String),
    /// The partition's entry is no longer what the primary saw, or never allowed what it asks for.
    #[error(
        "partition {partition} is at epoch {epoch}; {change:?} of {subject:?} is not for {node_id:?} to ask at epoch {asked}"
    )]
    NotNow {
        /// The partition.
        partition: u32,
        /// Its epoch.
        epoch: u64,
        /// What was asked for.
        change: PartitionChange,
        /// The node that it is about.
        subject: String,
        /// Who asked.
        node_id: String,
        /// The epoch that was asked for.
        asked: u64,
    },
    /// The partition's entry was changed as often as it can be.
    #[error("partition {partition} is at epoch {epoch}, the last one: its entry cannot change any more")]
    LastEpoch {
        /// The partition.
        partition: u32,
        /// Its epoch.
        epoch: u64,
    },
    /// The change was not made, and may be asked for again.
    #[error("the partition map could not be changed just now")]
    Busy,
    /// The cluster cannot serve every key.
    #[error("{0}")]
    NotReady(String),
    /// The metadata store did not do it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<Error> for ApiError {
    fn from(error: Error) -> Self {
        let code = match &error {
            Error::NodeNotFound { .. } => ErrorCode::NodeNotFound,
            Error::NodeConflict { .. } | Error::OtherData { .. } | Error::OldSession { .. } => ErrorCode::NodeConflict,
            Error::InvalidNode(_) => ErrorCode::InvalidBody,
            Error::InvalidParameter(_) => ErrorCode::InvalidParameter,
            Error::NotNow { .. } => ErrorCode::PreconditionFailed,
            Error::NotReady(_) => ErrorCode::NoNodes,
            Error::Busy | Error::Store(StoreError::Conflict { .. }) => ErrorCode::Overloaded,
            Error::LastEpoch { .. }
            | Error::Store(StoreError::Unreadable { .. } | StoreError::Closed { .. } | StoreError::Failed(_)) => {
                ErrorCode::Internal
            }
        };
        Self::new(code, error.to_string())
    }
}

impl From<Error> for HttpError {
    fn from(error: Error) -> Self {
        if let Error::Store(store) = &error {
            tracing::error!(error = store as &dyn std::error::Error, "a request failed at the metadata store");
        }
        Self(error.into())
    }
}
