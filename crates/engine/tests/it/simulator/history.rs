//! What clients asked and were told.

use cairn_api_spec::{
    Bucket, EntryName, Outcome, Version,
    operation::{Durability, IdempotencyKey},
    version::Condition,
};
use cairn_engine::Error;

/// What is asked of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ask {
    Get,
    Head,
    Put {
        ttl: Option<u64>,
    },
    Delete,
    /// Expiry.
    Remove(Version),
}

#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) key: u16,
    pub(crate) ask: Ask,
    pub(crate) condition: Condition,
    pub(crate) durability: Durability,
    pub(crate) epoch: u64,
    pub(crate) eventual: bool,
    /// The number of the first call of the same write: the value of a put, and the idempotency key.
    pub(crate) first: usize,
    pub(crate) has_key: bool,
}

impl Call {
    pub(crate) fn name(&self) -> EntryName {
        name(self.key)
    }

    pub(crate) fn is_write(&self) -> bool {
        !matches!(self.ask, Ask::Get | Ask::Head)
    }

    pub(crate) fn idempotency_key(&self) -> Option<IdempotencyKey> {
        self.has_key.then(|| IdempotencyKey::parse(&format!("write-{}", self.first)).expect("visible characters"))
    }
}

pub(crate) fn name(key: u16) -> EntryName {
    EntryName::new(&Bucket::default(), &format!("key-{key}")).expect("a short name")
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    /// The version, the write that the value names, and when it expires. A head has no value.
    Found {
        version: Version,
        writer: Option<usize>,
        expires: Option<u64>,
    },
    Missing(Version),
    NotModified(Version),
    Stored {
        created: bool,
        version: Version,
        expires: Option<u64>,
    },
    Deleted(Version),
    ConditionFailed(Version),
    /// Nothing has happened.
    Refused(Error),
    /// Nobody knows what has happened.
    Unknown,
}

impl Reply {
    pub(crate) fn version(&self) -> Option<Version> {
        match self {
            Self::Found { version, .. }
            | Self::Missing(version)
            | Self::NotModified(version)
            | Self::Stored { version, .. }
            | Self::Deleted(version)
            | Self::ConditionFailed(version) => Some(*version),
            Self::Refused(_) | Self::Unknown => None,
        }
    }
}

impl From<Result<Outcome, Error>> for Reply {
    fn from(result: Result<Outcome, Error>) -> Self {
        match result {
            Ok(Outcome::Found { metadata, value, .. }) => Self::Found {
                version: metadata.version,
                writer: value.and_then(|value| std::str::from_utf8(&value).ok()?.parse().ok()),
                expires: metadata.expires_at,
            },
            Ok(Outcome::Missing(version)) => Self::Missing(version),
            Ok(Outcome::NotModified(metadata, _)) => Self::NotModified(metadata.version),
            Ok(Outcome::Stored { created, metadata }) => {
                Self::Stored { created, version: metadata.version, expires: metadata.expires_at }
            }
            Ok(Outcome::Deleted(version)) => Self::Deleted(version),
            Ok(Outcome::ConditionFailed(version)) => Self::ConditionFailed(version),
            Ok(outcome @ (Outcome::Counted { .. } | Outcome::Explained(_))) => panic!("nobody asked: {outcome:?}"),
            Err(Error::Superseded | Error::UploadNotConfirmed) => Self::Unknown,
            Err(error) => Self::Refused(error),
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Operation {
    pub(crate) client: Option<usize>,
    pub(crate) call: Call,
    pub(crate) called_at: u64,
    /// When and what was answered; without an answer nobody knows what has happened.
    pub(crate) answer: Option<(u64, Reply)>,
}
