//! Versions, epochs, and the conditions on them.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use utoipa::ToSchema;

const SEQUENCE_BITS: u32 = 40;

/// What a partition's primary gives to each write: it only grows for a key, also across deletes, restarts and
/// changes of the primary. 0 means that the key was never written.
///
/// The lower 40 bits count writes, the 23 above them begin as the partition's epoch, so that a new primary's first
/// version is above all that its predecessors gave; the highest bit is 0. 2⁴⁰ writes in one epoch would carry into the
/// epoch's bits, which is harmless: [`Version::next`] never goes down.
///
/// In JSON it is a string of decimal digits, since many readers of JSON round integers above 2⁵³. An integer is read,
/// too: earlier releases wrote one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, ToSchema)]
#[schema(value_type = String, pattern = "^[0-9]+$", example = "1099511627777")]
pub struct Version(pub u64);

impl Version {
    /// The version of a key that was never written, or whose deletion is forgotten.
    pub const NONE: Self = Self(0);

    /// The highest epoch whose versions are positive as signed 64-bit integers, as databases keep them.
    pub const MAX_EPOCH: u64 = (1 << (63 - SEQUENCE_BITS)) - 1;

    /// The highest version.
    pub const MAX: Self = Self(i64::MAX as u64);

    /// The version that follows `self` in a partition at `epoch`. `None` when `epoch` is above [`Version::MAX_EPOCH`], or
    /// the version would be above [`Version::MAX`].
    #[must_use]
    pub fn next(self, epoch: u64) -> Option<Self> {
        let first = (epoch <= Self::MAX_EPOCH).then_some(epoch << SEQUENCE_BITS)?;
        self.0.max(first).checked_add(1).map(Self).filter(|next| *next <= Self::MAX)
    }

    fn parse(digits: &str) -> Option<Self> {
        let is_decimal = digits.bytes().all(|byte| byte.is_ascii_digit());
        digits.parse().ok().filter(|_| is_decimal).map(Self)
    }

    /// Reads `"17"` as it stands in `ETag`, `If-Match` and `If-None-Match`.
    ///
    /// # Errors
    /// [`VersionError::Malformed`] when it is not a quoted decimal integer.
    pub fn parse_etag(text: &str) -> Result<Self, VersionError> {
        let digits = text.trim().strip_prefix('"').and_then(|t| t.strip_suffix('"'));
        digits.and_then(Self::parse).ok_or(VersionError::Malformed)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for Version {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Version {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Decimal;

        impl de::Visitor<'_> for Decimal {
            type Value = Version;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a version, which is a string of decimal digits")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Version, E> {
                Version::parse(text).ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Version, E> {
                Ok(Version(number))
            }
        }

        deserializer.deserialize_any(Decimal)
    }
}

/// Why text is no version, or no condition on one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VersionError {
    /// It is not a version, or more than one.
    #[error("a version is a decimal integer in double quotes, as ETag gives it")]
    Malformed,
    /// Both headers were sent.
    #[error("send If-Match or If-None-Match, not both")]
    BothHeaders,
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
    /// For both headers at once, several versions, weak or malformed ones.
    pub fn parse(if_match: Option<&str>, if_none_match: Option<&str>) -> Result<Self, VersionError> {
        match (if_match.map(str::trim), if_none_match.map(str::trim)) {
            (None, None) => Ok(Self::None),
            (Some("*"), None) => Ok(Self::Exists),
            (None, Some("*")) => Ok(Self::Absent),
            (Some(version), None) => Version::parse_etag(version).map(Self::Matches),
            (None, Some(version)) => Version::parse_etag(version).map(Self::Differs),
            (Some(_), Some(_)) => Err(VersionError::BothHeaders),
        }
    }

    /// The two headers that say it, `If-Match` and `If-None-Match`.
    pub fn headers(self) -> (Option<String>, Option<String>) {
        let etag = |version: Version| Some(format!("\"{version}\""));
        match self {
            Self::None => (None, None),
            Self::Exists => (Some("*".to_owned()), None),
            Self::Matches(version) => (etag(version), None),
            Self::Absent => (None, Some("*".to_owned())),
            Self::Differs(version) => (None, etag(version)),
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
            prop_assert!(Version(last).next(epoch) > Some(Version(last)));
            prop_assert!(Version::NONE.next(epoch + 1) > Some(Version((epoch << 40) + steps)));
        }

        #[test]
        fn a_version_is_a_decimal_string_in_json_and_is_read_as_a_number_too(version in any::<u64>()) {
            let json = serde_json::to_string(&Version(version)).unwrap();
            prop_assert_eq!(&json, &format!("\"{version}\""));
            for text in [json, version.to_string()] {
                prop_assert_eq!(serde_json::from_str::<Version>(&text).unwrap(), Version(version));
            }
        }

        #[test]
        fn no_version_is_negative_as_a_signed_integer(last in 0..=i64::MAX as u64, epoch in any::<u64>()) {
            if let Some(next) = Version(last).next(epoch) {
                prop_assert!(next > Version(last) && next <= Version::MAX);
            }
        }

        #[test]
        fn no_header_panics(a in any::<Option<String>>(), b in any::<Option<String>>()) {
            let _ = Condition::parse(a.as_deref(), b.as_deref());
        }
    }

    #[test]
    fn what_would_be_above_the_bounds_is_no_version() {
        let highest = Version::NONE.next(Version::MAX_EPOCH);
        assert_eq!(highest, Some(Version((Version::MAX_EPOCH << 40) + 1)));
        assert_eq!(Version::NONE.next(Version::MAX_EPOCH + 1), None);
        assert_eq!(Version::NONE.next(1 << 24), None, "its bits would be shifted out");
        assert_eq!(Version::MAX.next(1), None);
        assert_eq!(Version(u64::MAX).next(1), None);
    }

    #[test]
    fn what_is_no_string_of_digits_is_no_version() {
        for json in [r#""""#, r#""+1""#, r#"" 1""#, r#""1.0""#, r#""18446744073709551616""#, "-1", "1.5", "null"] {
            assert!(serde_json::from_str::<Version>(json).is_err(), "{json}");
        }
        assert!(Version::parse_etag("\"+1\"").is_err());
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
