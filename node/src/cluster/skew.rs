//! How far this node's wall clock is from the master's. A node far off would expire keys that others still count on, so it
//! does not lead.

use std::time::Duration;

/// Of an answer that took longer, nobody knows when the master looked at its clock.
const LONGEST_ANSWER: u64 = 2_000;
/// A wall clock that moves by more than this against the clock of leases was set.
const JUMP: u64 = 1_000;

/// What is known of the node's wall clock. Times are in milliseconds: `wall` since the Unix epoch, `now` on the clock of
/// leases.
#[derive(Clone, Copy, Debug, Default)]
pub struct Skew {
    /// What the wall clock is ahead of the master's.
    offset: Option<i64>,
    /// What it was ahead of the clock of leases at that time.
    base: Option<i64>,
    is_off: bool,
}

impl Skew {
    /// What the wall clock is ahead of the master's (behind: negative); `None` while that is not known.
    pub fn offset_ms(&self) -> Option<i64> {
        self.offset
    }

    /// Takes the answer to a heartbeat: when it was sent and received here, and what the master's clock said in between.
    /// Returns whether the node's clock is further from the master's than `bound`; without a bound it is not judged.
    pub fn judge(&mut self, sent: u64, received: u64, now: u64, master: i64, bound: Option<Duration>) -> bool {
        if received.saturating_sub(sent) <= LONGEST_ANSWER {
            let offset = sent.midpoint(received).cast_signed().saturating_sub(master);
            let bound = bound.and_then(|bound| u64::try_from(bound.as_millis()).ok()).unwrap_or(u64::MAX);
            self.offset = Some(offset);
            self.base = Some(received.cast_signed().saturating_sub(now.cast_signed()));
            self.is_off = offset.unsigned_abs() > bound;
        }
        self.is_off
    }

    /// Whether the clock is off, or was set since the last answer: until the next one it counts as off.
    pub fn is_off(&self, wall: u64, now: u64) -> bool {
        let ahead = wall.cast_signed().saturating_sub(now.cast_signed());
        self.is_off || self.base.is_some_and(|base| ahead.abs_diff(base) > JUMP)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUND: Option<Duration> = Some(Duration::from_secs(5));

    #[test]
    fn a_clock_an_hour_ahead_is_off_and_one_within_the_bound_is_not() {
        let mut skew = Skew::default();
        assert!(!skew.judge(1_000_000, 1_000_010, 500, 999_000, BOUND));
        assert_eq!(skew.offset_ms(), Some(1_005));
        assert!(skew.judge(4_600_000, 4_600_010, 500, 1_000_000, BOUND));
        assert!(skew.judge(1_000_000, 1_000_010, 500, 4_600_000, BOUND));
        assert!(!skew.judge(1_000_000, 1_000_010, 500, 4_600_000, None), "the master does not judge");
    }

    #[test]
    fn an_answer_that_took_long_tells_nothing() {
        let mut skew = Skew::default();
        assert!(!skew.judge(1_000_000, 1_060_000, 500, 1_000_000, BOUND));
        assert_eq!(skew.offset_ms(), None);
    }

    #[test]
    fn a_clock_that_was_set_is_off_until_the_master_has_answered() {
        let mut skew = Skew::default();
        skew.judge(1_000_000, 1_000_000, 500, 1_000_000, BOUND);
        assert!(!skew.is_off(1_000_900, 1_400));
        assert!(skew.is_off(4_600_900, 1_400));
        skew.judge(1_001_000, 1_001_000, 1_500, 1_001_000, BOUND);
        assert!(!skew.is_off(1_001_000, 1_500));
    }
}
