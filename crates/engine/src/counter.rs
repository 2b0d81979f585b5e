//! Counters: what an increment makes of the value that is there, which is a decimal integer as text.

use std::fmt;

use cairn_api_spec::{EntryName, Version, operation::Metadata};

use crate::entry::Entry;

/// The length of `i64::MIN` as text.
const MAX_DIGITS: usize = 20;

/// Why an increment has no sum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotAnInteger {
    /// The value is no decimal integer of 64 bits with its sign.
    Value,
    /// The sum does not fit.
    Sum {
        /// What the counter is.
        counter: i64,
        /// What was to be added.
        delta: i64,
    },
}

impl fmt::Display for NotAnInteger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (low, high) = (i64::MIN, i64::MAX);
        match self {
            Self::Value => write!(f, "the value is not a decimal integer from {low} to {high}"),
            Self::Sum { counter, delta } => {
                write!(f, "{counter} and {delta} add up to no integer from {low} to {high}")
            }
        }
    }
}

/// The sum of a counter's value, 0 when there is none, and `delta`. The new value is its decimal text.
///
/// # Errors
/// When the value is no integer, or the sum is out of range.
pub fn increment(value: Option<&[u8]>, delta: i64) -> Result<i64, NotAnInteger> {
    let counter: i64 = match value {
        None => 0,
        // No text of an integer is longer, and the caller holds a lock.
        Some(bytes) if bytes.len() > MAX_DIGITS => return Err(NotAnInteger::Value),
        Some(bytes) => {
            let text = std::str::from_utf8(bytes).map_err(|_| NotAnInteger::Value)?;
            text.parse().map_err(|_| NotAnInteger::Value)?
        }
    };
    counter.checked_add(delta).ok_or(NotAnInteger::Sum { counter, delta })
}

/// The entry of a counter, but for its version. Times are milliseconds since the Unix epoch.
pub fn counter(name: &EntryName, value: i64, modified_at: u64, expires_at: Option<u64>) -> Entry {
    let text = value.to_string();
    let metadata = Metadata {
        version: Version::NONE,
        modified_at,
        expires_at,
        size: text.len() as u64,
        content_type: "text/plain".to_owned(),
    };
    Entry::new(name, &metadata, text.as_bytes())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn increments_add_up_in_any_order(deltas in prop::collection::vec(-1_000_i64..1_000, 0..50)) {
            let add = |text: Option<String>, delta: &i64| {
                increment(text.as_deref().map(str::as_bytes), *delta).map(|sum| Some(sum.to_string()))
            };
            let expected = Ok((!deltas.is_empty()).then(|| deltas.iter().sum::<i64>().to_string()));
            prop_assert_eq!(deltas.iter().try_fold(None, add), expected.clone());
            prop_assert_eq!(deltas.iter().rev().try_fold(None, add), expected);
        }

        #[test]
        fn a_sum_fits_or_is_refused(counter in any::<i64>(), delta in any::<i64>()) {
            let expected = i64::try_from(i128::from(counter) + i128::from(delta));
            let sum = increment(Some(counter.to_string().as_bytes()), delta);
            prop_assert_eq!(sum, expected.map_err(|_| NotAnInteger::Sum { counter, delta }));
        }

        #[test]
        fn no_value_panics(value in any::<Vec<u8>>(), delta in any::<i64>()) {
            let _ = increment(Some(&value), delta);
        }
    }

    #[test]
    fn only_a_bare_decimal_integer_counts() {
        for value in ["", " 1", "1\n", "1.0", "0x10", "one", "9223372036854775808", "\u{661}"] {
            assert_eq!(increment(Some(value.as_bytes()), 1), Err(NotAnInteger::Value), "{value:?}");
        }
        assert_eq!(increment(Some(&[0xff]), 1), Err(NotAnInteger::Value));
        assert_eq!(increment(Some(b"-9223372036854775808"), 1), Ok(i64::MIN + 1));
        assert_eq!(increment(None, -3), Ok(-3));
    }
}
