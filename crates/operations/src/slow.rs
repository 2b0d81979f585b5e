//! The log of what takes long: when a line may be written, and how many were left out.

use std::{
    num::NonZeroU32,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};

/// The most lines in a second.
const LINES_PER_SECOND: NonZeroU32 = NonZeroU32::MIN.saturating_add(9);

/// See the module.
#[derive(Debug)]
pub struct SlowLog {
    /// [`Duration::MAX`] when nothing is slow.
    threshold: Duration,
    lines: DefaultDirectRateLimiter,
    left_out: AtomicU64,
}

impl SlowLog {
    /// What takes `threshold` or longer is slow; with 0, nothing is.
    pub fn new(threshold: Duration) -> Self {
        let threshold = if threshold.is_zero() { Duration::MAX } else { threshold };
        let lines = RateLimiter::direct(Quota::per_second(LINES_PER_SECOND));
        Self { threshold, lines, left_out: AtomicU64::new(0) }
    }

    /// Whether something that took so long is slow.
    pub(crate) fn is_slow(&self, took: Duration) -> bool {
        took >= self.threshold
    }

    /// Whether a line may be written now: then how many were left out since the last one.
    pub(crate) fn admit(&self) -> Option<u64> {
        if self.lines.check().is_ok() {
            return Some(self.left_out.swap(0, Ordering::Relaxed));
        }
        self.left_out.fetch_add(1, Ordering::Relaxed);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_slow_when_the_threshold_is_zero() {
        assert!(!SlowLog::new(Duration::ZERO).is_slow(Duration::from_secs(3600)));
        let log = SlowLog::new(Duration::from_millis(5));
        assert!(log.is_slow(Duration::from_millis(5)) && !log.is_slow(Duration::from_millis(4)));
    }

    #[test]
    fn a_flood_is_cut_off_and_counted() {
        let log = SlowLog::new(Duration::from_millis(1));
        let admitted = (0..1_000).filter(|_| log.admit().is_some()).count() as u64;
        assert!((10..1_000).contains(&admitted), "{admitted}");
        let mut left_out = None;
        while left_out.is_none() {
            std::thread::yield_now();
            left_out = log.admit();
        }
        // Those that were turned away while waiting are counted, too.
        assert!(left_out.unwrap() >= 1_000 - admitted);
    }
}
