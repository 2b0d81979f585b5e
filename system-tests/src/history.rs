//! What clients did to keys, and what they were told.

use std::collections::BTreeMap;

/// A write that no client made: the origin of a value that is not one of ours.
pub const NOBODY: u64 = u64::MAX;

/// By how much a server's clock may differ from the history's, in microseconds: servers count milliseconds.
const CLOCK_STEP: u64 = 5_000;

/// One request about one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// Unique in the history. A value that is put carries it, so that a read names its write.
    pub id: u64,
    /// Who asked.
    pub client: u32,
    /// The key.
    pub key: String,
    /// What was asked.
    pub kind: Kind,
    /// How long the value of a put lives, in microseconds; `None`: until it is replaced or deleted.
    pub lives: Option<u64>,
    /// When it was sent, in microseconds of the one clock of the history.
    pub invoked: u64,
    /// When the answer had come, or was given up.
    pub returned: u64,
    /// What came of it.
    pub outcome: Outcome,
}

/// What was asked of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Its value.
    Get,
    /// To take the value that carries the operation's id.
    Put(Condition),
    /// To go.
    Delete(Condition),
}

/// Under which condition a write was to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// None.
    Always,
    /// The key exists with this version (`If-Match`).
    Version(u64),
    /// The key does not exist (`If-None-Match: *`).
    Absent,
}

/// What came of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The write happened, with this version.
    Written(u64),
    /// The key has the value that this write put, with this version.
    Read {
        /// The value's version.
        version: u64,
        /// The operation that put it, or [`NOBODY`].
        write: u64,
    },
    /// The key does not exist; the version of its deletion, or 0 when that is not known any more.
    Absent(u64),
    /// The condition does not hold; the version that the key has, or 0.
    ConditionFailed(u64),
    /// It surely did not happen, and says nothing about the key.
    Refused,
    /// It may have happened, or may still happen.
    Unknown,
}

impl Operation {
    /// Whether it changes the key when it happens.
    pub fn is_write(&self) -> bool {
        self.kind != Kind::Get
    }

    /// Whether it may have changed the key, although no answer says so.
    pub fn is_doubtful(&self) -> bool {
        self.is_write() && self.outcome == Outcome::Unknown
    }

    /// Whether `other`, which saw the key, can have found that the time of this put's value had come.
    pub fn may_have_expired_for(&self, other: &Self) -> bool {
        let seen = if other.is_doubtful() { u64::MAX } else { other.returned.saturating_add(CLOCK_STEP) };
        self.lives.is_some_and(|lives| self.invoked.saturating_add(lives) <= seen)
    }

    /// Whether `other` began when the time of this put's value had surely come.
    pub fn must_have_expired_for(&self, other: &Self) -> bool {
        // Without an answer it may have happened at any time.
        let latest = |lives| self.returned.saturating_add(lives).saturating_add(CLOCK_STEP);
        self.outcome != Outcome::Unknown && self.lives.is_some_and(|lives| latest(lives) < other.invoked)
    }

    /// Under which condition it was to happen.
    pub fn condition(&self) -> Condition {
        match self.kind {
            Kind::Get => Condition::Always,
            Kind::Put(condition) | Kind::Delete(condition) => condition,
        }
    }
}

/// The operations of each key.
pub fn by_key(history: &[Operation]) -> BTreeMap<&str, Vec<&Operation>> {
    let mut keys: BTreeMap<&str, Vec<&Operation>> = BTreeMap::new();
    for operation in history {
        keys.entry(&operation.key).or_default().push(operation);
    }
    keys
}
