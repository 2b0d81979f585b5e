//! The ways to write a time to live.

use std::time::Duration;

use crate::error::{ApiError, ErrorCode};

/// The longest time to live: ten years.
pub const MAX_TTL: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// Reads `30` (seconds), `250ms`, `10s`, `10m`, `1h` or `7d`.
///
/// # Errors
/// `invalid_ttl` for zero, negative, fractional or unknown spellings, and for more than [`MAX_TTL`].
pub fn parse(text: &str) -> Result<Duration, ApiError> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let millis_per_unit = match unit {
        "ms" => 1,
        "" | "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(invalid(text)),
    };
    number
        .parse::<u64>()
        .ok()
        .and_then(|n| n.checked_mul(millis_per_unit))
        .map(Duration::from_millis)
        .filter(|ttl| !ttl.is_zero() && *ttl <= MAX_TTL)
        .ok_or_else(|| invalid(text))
}

/// Writes a time to live to the millisecond, as [`parse`] reads it.
pub fn format(ttl: Duration) -> String {
    format!("{}ms", ttl.as_millis())
}

/// Reads `max-age` out of a `Cache-Control` header; `None` when it has none.
///
/// # Errors
/// `invalid_ttl` when `max-age` is there but is not a positive number of seconds.
pub fn from_cache_control(header: &str) -> Result<Option<Duration>, ApiError> {
    header
        .split(',')
        .filter_map(|directive| directive.trim().split_once('='))
        .find(|(name, _)| name.trim().eq_ignore_ascii_case("max-age"))
        .map(|(_, seconds)| {
            let seconds = seconds.trim().trim_matches('"');
            if seconds.bytes().all(|b| b.is_ascii_digit()) { parse(seconds) } else { Err(invalid(seconds)) }
        })
        .transpose()
}

fn invalid(text: &str) -> ApiError {
    let shown: String = text.chars().take(32).collect();
    ApiError::new(
        ErrorCode::InvalidTtl,
        format!(
            "{shown:?} is no time to live: write whole seconds (30) or 250ms, 10s, 10m, 1h, 7d; above 0, at most ten years"
        ),
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_form_is_read() {
        for (text, millis) in
            [("30", 30_000), ("250ms", 250), ("10s", 10_000), ("10m", 600_000), ("1h", 3_600_000), ("7d", 604_800_000)]
        {
            assert_eq!(parse(text).unwrap(), Duration::from_millis(millis), "{text}");
        }
        assert_eq!(from_cache_control("public, Max-Age=60").unwrap(), Some(Duration::from_secs(60)));
        assert_eq!(from_cache_control("no-cache").unwrap(), None);
    }

    #[test]
    fn zero_negative_and_nonsense_are_refused() {
        for text in ["0", "-1", "0ms", "", "ms", "1.5", "1w", "999999999999999999999", "99999d", " 3"] {
            assert!(parse(text).is_err(), "{text:?}");
        }
        assert!(from_cache_control("max-age=0").is_err());
        assert!(from_cache_control("max-age=x").is_err());
    }

    proptest! {
        #[test]
        fn no_text_panics(text in any::<String>()) {
            let _ = parse(&text);
            let _ = from_cache_control(&text);
        }
    }
}
