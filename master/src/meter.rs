//! How fast something goes, lately.

use std::time::{Duration, Instant};

/// What lies further back counts for less than a third.
const MEMORY: Duration = Duration::from_secs(5);

/// A rate that fades: each second weighs less the longer it is ago.
#[derive(Debug)]
pub(crate) struct Meter {
    began: Instant,
    last: Instant,
    faded: f64,
}

impl Default for Meter {
    fn default() -> Self {
        let now = Instant::now();
        Self { began: now, last: now, faded: 0.0 }
    }
}

impl Meter {
    #[expect(clippy::cast_precision_loss, reason = "a rate needs no more than 52 bits")]
    pub(crate) fn add(&mut self, amount: u64) {
        let now = Instant::now();
        self.faded = self.faded * fade(now - self.last) + amount as f64;
        self.last = now;
    }

    /// Per second.
    pub(crate) fn rate(&self) -> f64 {
        // A meter that has just begun has not seen all that its memory holds.
        let seen = MEMORY.as_secs_f64() * (1.0 - fade(self.began.elapsed()));
        self.faded * fade(self.last.elapsed()) / seen.max(1.0)
    }
}

fn fade(elapsed: Duration) -> f64 {
    (-elapsed.as_secs_f64() / MEMORY.as_secs_f64()).exp()
}
