//! The metadata store: the only truth about nodes and partitions.
//!
//! A small key-value store with revisions and compare-and-swap, in the terms that etcd has too, so that several masters
//! can share one later. The owners of the keys know what their values mean: `nodes/<id>` the registry, `partitions/<n>`,
//! `cluster` and `replication` the controller, `rebalance` its limits. Values are JSON.

use async_trait::async_trait;
use serde::{Serialize, de::DeserializeOwned};
use tokio::sync::watch;

pub mod sqlite;

/// Counts the transactions of a store: it grows with every change of any key.
pub type Revision = u64;

/// A value, and the revision of the change that wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Versioned {
    /// JSON.
    pub value: Vec<u8>,
    /// The revision that its key has.
    pub revision: Revision,
}

/// A compare-and-swap of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The key.
    pub key: String,
    /// The revision that the key must have; `None` when it must not exist.
    pub expected: Option<Revision>,
    /// What to store; `None` deletes the key.
    pub value: Option<Vec<u8>>,
}

/// Why the store did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The key has another revision than was expected: somebody else changed it.
    #[error("{key} was changed by somebody else")]
    Conflict {
        /// The key.
        key: String,
    },
    /// A value is no JSON of the kind that belongs under its key.
    #[error("{key} in the metadata store cannot be read")]
    Unreadable {
        /// The key.
        key: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// The store cannot be opened.
    #[error("{path} cannot be opened (only one master at a time can have it)")]
    Closed {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The store itself failed; nothing is known of whether a change happened.
    #[error("the metadata store failed")]
    Failed(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// What the master needs of a metadata store. Every call has a deadline of its own.
#[async_trait]
pub trait MetadataStore: Send + Sync + 'static {
    /// The revision of the last change.
    async fn revision(&self) -> Result<Revision, StoreError>;

    /// The value of a key.
    async fn get(&self, key: &str) -> Result<Option<Versioned>, StoreError>;

    /// Every key that begins with `prefix`, in order, as of one moment.
    async fn list(&self, prefix: &str) -> Result<Vec<(String, Versioned)>, StoreError>;

    /// Makes all the changes or none of them, durably, and gives them one new revision.
    async fn cas_all(&self, changes: Vec<Change>) -> Result<Revision, StoreError>;

    /// [`MetadataStore::cas_all`] for one key.
    async fn cas(&self, key: &str, expected: Option<Revision>, value: Option<Vec<u8>>) -> Result<Revision, StoreError> {
        self.cas_all(vec![Change { key: key.to_owned(), expected, value }]).await
    }

    /// Tells of new revisions. It may miss some and never invents one.
    fn watch(&self) -> watch::Receiver<Revision>;
}

/// Reads a value.
///
/// # Errors
/// [`StoreError::Unreadable`] when it is not JSON of this type.
pub fn decode<T: DeserializeOwned>(key: &str, value: &[u8]) -> Result<T, StoreError> {
    serde_json::from_slice(value).map_err(|source| StoreError::Unreadable { key: key.to_owned(), source })
}

/// Writes a value.
///
/// # Errors
/// [`StoreError::Unreadable`] when the type has no JSON.
pub fn encode<T: Serialize>(key: &str, value: &T) -> Result<Vec<u8>, StoreError> {
    serde_json::to_vec(value).map_err(|source| StoreError::Unreadable { key: key.to_owned(), source })
}
