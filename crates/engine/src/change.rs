//! What a write changes, as the disk, the replicas and later primaries keep it.

use std::{any::Any, sync::Arc};

use bytes::Bytes;
use cairn_api_spec::{
    ApiError, EntryName, ErrorCode, TraceContext, Version,
    operation::{Durability, IdempotencyKey, Metadata, Removal},
    peer,
};

use crate::entry::Entry;

/// The id of a node.
pub type NodeId = Arc<str>;

/// Room that something takes, given back with the last clone.
pub type Room = Arc<dyn Any + Send + Sync>;

/// What changes.
#[derive(Clone, Debug)]
pub enum Change {
    /// The key has this value.
    Put(Entry),
    /// The key is gone.
    Delete {
        /// Its name.
        name: Bytes,
        /// The version of the deletion.
        version: Version,
        /// When, in milliseconds since the Unix epoch.
        at: u64,
        /// Why. A deletion that a disk has kept does not tell.
        why: Removal,
    },
    /// The key stays as it is: a write under an idempotency key was refused, and that is remembered.
    Note {
        /// The name of the key.
        name: Bytes,
        /// The version of the note, which is no version of the key.
        version: Version,
        /// When, in milliseconds since the Unix epoch.
        at: u64,
        /// How the write was refused.
        refused: Refused,
        /// The write was a deletion.
        deletes: bool,
    },
}

/// How a write was refused that stays refused when it is sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Its condition did not hold; the key had this version.
    ConditionFailed(Version),
    /// The key to be removed was not there; its deletion had this version.
    Missing(Version),
}

impl Refused {
    /// How the first write with an idempotency key was refused, if it was.
    ///
    /// # Errors
    /// [`ErrorCode::Internal`] for a way that this release does not know.
    pub fn from_peer(refused: i32, version: u64) -> Result<Option<Self>, ApiError> {
        match peer::Refusal::try_from(refused) {
            Ok(peer::Refusal::None) => Ok(None),
            Ok(peer::Refusal::ConditionFailed) => Ok(Some(Self::ConditionFailed(Version(version)))),
            Ok(peer::Refusal::Missing) => Ok(Some(Self::Missing(Version(version)))),
            Err(_) => Err(ApiError::new(ErrorCode::Internal, "a peer sent a refusal that this release does not know")),
        }
    }

    /// The same as two numbers, as peers and the disk have it.
    pub fn to_peer(self) -> (i32, u64) {
        match self {
            Self::ConditionFailed(version) => (peer::Refusal::ConditionFailed.into(), version.0),
            Self::Missing(version) => (peer::Refusal::Missing.into(), version.0),
        }
    }
}

impl Change {
    /// The name of the key.
    pub fn name(&self) -> &[u8] {
        match self {
            Self::Put(entry) => entry.name(),
            Self::Delete { name, .. } | Self::Note { name, .. } => name,
        }
    }

    /// The version that the change gives.
    pub fn version(&self) -> Version {
        match self {
            Self::Put(entry) => entry.version(),
            Self::Delete { version, .. } | Self::Note { version, .. } => *version,
        }
    }

    /// Gives the version to a change that nobody shares yet.
    pub fn set_version(&mut self, to: Version) {
        match self {
            Self::Put(entry) => entry.set_version(to),
            Self::Delete { version, .. } | Self::Note { version, .. } => *version = to,
        }
    }

    /// When the change was made, in milliseconds since the Unix epoch.
    pub fn at(&self) -> u64 {
        match self {
            Self::Put(entry) => entry.modified_at(),
            Self::Delete { at, .. } | Self::Note { at, .. } => *at,
        }
    }

    /// Bytes of the value.
    pub fn value_len(&self) -> usize {
        match self {
            Self::Put(entry) => entry.value().len(),
            Self::Delete { .. } | Self::Note { .. } => 0,
        }
    }

    /// The row of the key after the change. That of a note says of the write that was refused whether it was a deletion.
    pub fn to_peer(&self) -> peer::Row {
        match self {
            Self::Put(entry) => {
                let metadata = entry.metadata();
                peer::Row {
                    name: Bytes::copy_from_slice(entry.name()),
                    version: metadata.version.0,
                    modified_at: metadata.modified_at,
                    expires_at: metadata.expires_at.unwrap_or(0),
                    size: metadata.size,
                    content_type: metadata.content_type,
                    value: Some(entry.value_bytes()),
                    ..peer::Row::default()
                }
            }
            Self::Delete { name, version, at, .. } | Self::Note { name, version, at, .. } => peer::Row {
                name: name.clone(),
                version: version.0,
                modified_at: *at,
                tombstone: !matches!(self, Self::Note { deletes: false, .. }),
                removal: match self {
                    Self::Delete { why, .. } => peer::Removal::from(*why).into(),
                    _ => peer::Removal::Delete.into(),
                },
                ..peer::Row::default()
            },
        }
    }

    /// The change that a peer sent; the value of a put must be there.
    ///
    /// # Errors
    /// [`ErrorCode::Internal`] when it cannot be read.
    pub fn from_peer(row: peer::Row, refused: Option<Refused>, deletes: bool) -> Result<Self, ApiError> {
        let unreadable =
            |what: &str| ApiError::new(ErrorCode::Internal, format!("a peer sent a write without a readable {what}"));
        let name = EntryName::from_bytes(row.name).map_err(|_| unreadable("name"))?;
        let (version, at) = (Version(row.version), row.modified_at);
        if let Some(refused) = refused {
            return Ok(Self::Note { name: name.as_bytes().clone(), version, at, refused, deletes });
        }
        if row.tombstone {
            let why = peer::Removal::try_from(row.removal).map_err(|_| unreadable("reason of a deletion"))?.into();
            return Ok(Self::Delete { name: name.as_bytes().clone(), version, at, why });
        }
        let metadata = Metadata {
            version,
            modified_at: at,
            expires_at: Some(row.expires_at).filter(|at| *at > 0),
            size: row.size,
            content_type: row.content_type,
        };
        Ok(Self::Put(Entry::new(&name, &metadata, &row.value.ok_or_else(|| unreadable("value"))?)))
    }
}

/// The idempotency key of a write.
#[derive(Clone, Debug)]
pub struct Idempotency {
    /// The key.
    pub key: IdempotencyKey,
    /// The name that is written was absent before.
    pub created: bool,
    /// The sum, if the write is an increment.
    pub counted: Option<i64>,
}

/// What is kept of a write until it is on every in-sync replica.
#[derive(Clone)]
pub struct Payload {
    /// What changes.
    pub change: Change,
    /// How durable every copy must be.
    pub durability: Durability,
    /// Room in the queue of the disk, on the way there; otherwise in what the partition keeps.
    pub room: Option<Room>,
    /// What the write can be known by when it is sent again.
    pub idempotency: Option<Idempotency>,
    /// The trace that it belongs to, for those that it is sent to.
    pub trace: Option<TraceContext>,
}
