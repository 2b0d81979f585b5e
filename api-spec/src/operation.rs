//! One parsed request on a key, and its outcome: what every adapter (HTTP, the link) turns into, and from.

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;

pub use crate::modes::{Consistency, Durability, Removal, Tier};

use crate::{
    data::Explanation,
    error::{ApiError, ErrorCode},
    name::EntryName,
    trace::TraceContext,
    version::{Condition, Version},
};

/// The longest idempotency key, in bytes.
pub const MAX_IDEMPOTENCY_KEY_BYTES: usize = 255;

/// What a client names a write with, so that the same write sent again is answered with the first outcome.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct IdempotencyKey(Arc<str>);

impl IdempotencyKey {
    /// Checks an idempotency key's spelling.
    ///
    /// # Errors
    /// `invalid_parameter` when it is not 1 to [`MAX_IDEMPOTENCY_KEY_BYTES`] visible ASCII characters.
    pub fn parse(text: &str) -> Result<Self, ApiError> {
        if (1..=MAX_IDEMPOTENCY_KEY_BYTES).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic()) {
            return Ok(Self(text.into()));
        }
        let detail =
            format!("an idempotency key is 1 to {MAX_IDEMPOTENCY_KEY_BYTES} visible ASCII characters, no space");
        Err(ApiError::new(ErrorCode::InvalidParameter, detail))
    }

    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for IdempotencyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One request on one key.
#[derive(Clone, Debug)]
pub struct Operation {
    /// The key and its bucket.
    pub name: EntryName,
    /// What must hold of the key.
    pub condition: Condition,
    /// What to do.
    pub action: Action,
    /// Who may answer, when it is a read.
    pub consistency: Consistency,
    /// What makes it safe to send again, when it is a write.
    pub idempotency_key: Option<IdempotencyKey>,
    /// The trace that it belongs to, if anybody asked for one.
    pub trace: Option<TraceContext>,
}

impl Operation {
    /// A strongly consistent operation without an idempotency key or a trace.
    pub fn new(name: EntryName, condition: Condition, action: Action) -> Self {
        Self { name, condition, action, consistency: Consistency::Strong, idempotency_key: None, trace: None }
    }

    /// Whether any in-sync replica may answer.
    pub fn is_eventual(&self) -> bool {
        self.consistency == Consistency::Eventual && !self.action.is_write()
    }
}

/// What to do with a key.
#[derive(Clone, Debug)]
pub enum Action {
    /// Read the value.
    Get,
    /// Read everything but the value.
    Head,
    /// Store a value.
    Put(Put),
    /// Remove the key.
    Delete {
        /// When to answer.
        durability: Option<Durability>,
    },
    /// Add to the integer that the value is, as decimal text.
    Increment {
        /// What to add; an absent key counts as 0.
        delta: i64,
        /// How long a counter lives that is created by this; `None` means the default of the node. One that is there
        /// keeps its expiry.
        ttl: Option<Duration>,
        /// When to answer.
        durability: Option<Durability>,
    },
    /// Tell where the key is and why, without its value.
    Explain,
}

impl Action {
    /// The action as it stands in metric labels.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Head => "head",
            Self::Put(_) => "put",
            Self::Delete { .. } => "delete",
            Self::Increment { .. } => "increment",
            Self::Explain => "explain",
        }
    }

    /// Whether the action changes anything.
    pub fn is_write(&self) -> bool {
        matches!(self, Self::Put(_) | Self::Delete { .. } | Self::Increment { .. })
    }

    /// When a write is to be answered, if it says so.
    pub fn durability(&self) -> Option<Durability> {
        match self {
            Self::Get | Self::Head | Self::Explain => None,
            Self::Put(put) => put.durability,
            Self::Delete { durability } | Self::Increment { durability, .. } => *durability,
        }
    }
}

/// A value to store.
#[derive(Clone, Debug)]
pub struct Put {
    /// The value.
    pub value: Bytes,
    /// Given back as `Content-Type`; empty means `application/octet-stream`.
    pub content_type: String,
    /// How long it lives; `None` means the default of the node.
    pub ttl: Option<Duration>,
    /// When to answer; `None` means the default, `disk`.
    pub durability: Option<Durability>,
}

/// What is known of a live key. Times are milliseconds since the Unix epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metadata {
    /// Its version.
    pub version: Version,
    /// When it was written.
    pub modified_at: u64,
    /// When it expires, if it does.
    pub expires_at: Option<u64>,
    /// The value's length in bytes.
    pub size: u64,
    /// Empty means `application/octet-stream`.
    pub content_type: String,
}

/// What became of an operation that did not fail.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// A read found the key.
    Found {
        /// What is known of it.
        metadata: Metadata,
        /// Which tier answered.
        tier: Tier,
        /// The value: empty for [`Action::Head`], `None` when it is too large for the way it would have to go.
        value: Option<Bytes>,
    },
    /// A read found no key; the version is that of its deletion, if it is remembered.
    Missing(Version),
    /// A read with [`Condition::Differs`] found the version that the client has.
    NotModified(Metadata, Tier),
    /// A write was stored.
    Stored {
        /// Whether the key was absent before.
        created: bool,
        /// What is known of it now.
        metadata: Metadata,
    },
    /// A delete removed the key.
    Deleted(Version),
    /// An increment was stored.
    Counted {
        /// The sum.
        value: i64,
        /// Whether the key was absent before.
        created: bool,
        /// What is known of the key now.
        metadata: Metadata,
    },
    /// Where the key is and why.
    Explained(Box<Explanation>),
    /// The condition does not hold; the version is the live one, or that of the deletion, or 0.
    ConditionFailed(Version),
}

/// A page of a bucket's keys, to be asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListQuery {
    /// The first name of the range, included.
    pub start: Bytes,
    /// The end of the range, not included; empty means no end.
    pub end: Bytes,
    /// The most names to return.
    pub limit: usize,
}

impl ListQuery {
    /// The bucket that the range lies in, as far as it is one.
    pub fn bucket(&self) -> &str {
        let name = self.start.split(|byte| *byte == 0).next().unwrap_or_default();
        std::str::from_utf8(name).unwrap_or_default()
    }
}

/// One name of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedName {
    /// The key and its bucket.
    pub name: EntryName,
    /// What is known of it. The content type is left out.
    pub metadata: Metadata,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idempotency_key_is_1_to_255_visible_ascii_characters() {
        for text in ["a", "8e03978e-40d5-43dd-bc93-6894a57f9324", "!~", &"k".repeat(255)] {
            assert_eq!(IdempotencyKey::parse(text).unwrap().as_str(), text);
        }
        for text in ["", "a b", "a\n", "ä", "\u{7f}", &"k".repeat(256)] {
            let error = IdempotencyKey::parse(text).unwrap_err();
            assert_eq!(error.code, ErrorCode::InvalidParameter, "{text:?}");
            assert!(error.detail.contains("1 to 255 visible ASCII"), "{}", error.detail);
        }
    }
}
