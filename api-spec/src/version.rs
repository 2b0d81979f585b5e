//! Versions, epochs, and the conditions on them.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::error::{ApiError, ErrorCode};

const SEQUENCE_BITS: u32 = 40;

/// What a partition's primary gives to each write: it only grows for a key, also across deletes, restarts and
/// changes of the primary. 0 means that the key was never written.
///
/// The upper 24 bits begin as the partition's epoch, the lower 40 count writes, so that a new primary's first
/// version is above all that its predecessors gave. 2⁴⁰ writes in one epoch would carry into the epoch's bits, which
/// is harmless: [`Version::next`] never goes down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[schema(value_type = u64, example = 1_099_511_627_777_u64)]
pub struct Version(pub u64);

impl Version {
    /// The version of a key that was never written, or whose deletion is forgotten.
    pub const NONE: Self = Self(0);

    /// The version that follows `self` in a partition at `epoch`.
    #[must_use]
    pub fn next(self, epoch: u64) -> Self {
        Self(self.0.max(epoch << SEQUENCE_BITS) + 1)
    }

    /// Reads `"17"` as it stands in `ETag`, `If-Match` and `If-None-Match`.
    ///
    /// # Errors
    /// `invalid_parameter` when it is not a quoted decimal integer.
    pub fn parse_etag(text: &str) -> Result<Self, ApiError> {
        text.trim()
            .strip_prefix('"')
            .and_then(|t| t.strip_suffix('"'))
            .and_then(|t| t.parse().ok())
            .map(Self)
            .ok_or_else(|| {
                ApiError::new(
                    ErrorCode::InvalidParameter,
                    "a version is a decimal integer in double quotes, as ETag gives it",
                )
            })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What must hold of a key's committed state for a write (or, for a read, for the body to be sent).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Condition {
    /// Nothing is asked.
    #[default]
    None,
    /// `If-Match: *`: the key exists.
    Exists,
    /// `If-Match: "v"`: the key exists with this version.
    Matches(Version),
    /// `If-None-Match: *`: the key does not exist.
    Absent,
    /// `If-None-Match: "v"`: the key does not have this version.
    Differs(Version),
}

impl Condition {
    /// Reads the two headers; both at once are refused.
    ///
    /// # Errors
    /// `invalid_parameter` for both headers at once, several versions, weak or malformed ones.
    pub fn parse(if_match: Option<&str>, if_none_match: Option<&str>) -> Result<Self, ApiError> {
        match (if_match.map(str::trim), if_none_match.map(str::trim)) {
            (None, None) => Ok(Self::None),
            (Some("*"), None) => Ok(Self::Exists),
            (None, Some("*")) => Ok(Self::Absent),
            (Some(version), None) => Version::parse_etag(version).map(Self::Matches),
            (None, Some(version)) => Version::parse_etag(version).map(Self::Differs),
            (Some(_), Some(_)) => {
                Err(ApiError::new(ErrorCode::InvalidParameter, "send If-Match or If-None-Match, not both"))
            }
        }
    }

    /// Whether the condition holds for a key that has `live` (its version, when it exists).
    pub fn holds(self, live: Option<Version>) -> bool {
        match self {
            Self::None => true,
            Self::Exists => live.is_some(),
            Self::Matches(version) => live == Some(version),
            Self::Absent => live.is_none(),
            Self::Differs(version) => live != Some(version),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn versions_only_grow_and_a_later_epoch_is_above_an_earlier_one(last in 0u64..(1 << 50), epoch in 0u64..8192, steps in 1u64..1000) {
            prop_assert!(Version(last).next(epoch) > Version(last));
            prop_assert!(Version::NONE.next(epoch + 1) > Version((epoch << 40) + steps));
        }

        #[test]
        fn no_header_panics(a in any::<Option<String>>(), b in any::<Option<String>>()) {
            let _ = Condition::parse(a.as_deref(), b.as_deref());
        }
    }

    #[test]
    fn conditions_compare_with_the_live_version() {
        let v = Version(7);
        assert!(Condition::Absent.holds(None) && !Condition::Absent.holds(Some(v)));
        assert!(Condition::Exists.holds(Some(v)) && !Condition::Exists.holds(None));
        assert!(Condition::Matches(v).holds(Some(v)) && !Condition::Matches(v).holds(None));
        assert!(Condition::Differs(v).holds(None) && !Condition::Differs(v).holds(Some(v)));
        assert_eq!(Condition::parse(Some("\"7\""), None).unwrap(), Condition::Matches(v));
        assert!(Condition::parse(Some("7"), None).is_err());
        assert!(Condition::parse(Some("*"), Some("*")).is_err());
    }
}
