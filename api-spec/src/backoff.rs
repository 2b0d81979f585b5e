//! The pauses between attempts.

use std::time::Duration;

/// Pauses that double from the first to the longest.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    next: Duration,
}

impl Backoff {
    /// Pauses from `first` to `longest`.
    pub const fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, next: first }
    }

    /// The next pause, shortened to as little as a half so that those who failed together do not come back together.
    /// `random` is evenly distributed over 0 to 1.
    pub fn pause(&mut self, random: f64) -> Duration {
        let pause = self.next;
        self.next = pause.saturating_mul(2).min(self.longest);
        pause.mul_f64(random.clamp(0.0, 1.0) / 2.0 + 0.5)
    }

    /// Begins with the first pause again.
    pub const fn reset(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn pauses_double_up_to_the_longest_and_begin_again_after_a_success() {
        let mut backoff = Backoff::new(200 * MS, 1_000 * MS);
        let pauses = [(); 5].map(|()| backoff.pause(1.0).as_millis());
        assert_eq!(pauses, [200, 400, 800, 1_000, 1_000]);
        backoff.reset();
        assert_eq!(backoff.pause(1.0), 200 * MS);
    }

    #[test]
    fn a_pause_is_shortened_to_a_half_at_most() {
        for (random, expected) in [(0.0, 100), (0.5, 150), (1.0, 200), (f64::INFINITY, 200)] {
            assert_eq!(Backoff::new(200 * MS, 1_000 * MS).pause(random), expected * MS, "{random}");
        }
    }
}
