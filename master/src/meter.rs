//! How fast something goes, lately.

use std::time::Duration;

/// What lies further back counts for less than a third.
const MEMORY: Duration = Duration::from_secs(5);

/// A rate that fades: each second weighs less the longer it is ago.
#[derive(Debug)]
pub struct Meter {
    began: Duration,
    last: Duration,
    faded: f64,
}

impl Meter {
    /// A meter that has seen nothing.
    pub fn new(now: Duration) -> Self {
        Self { began: now, last: now, faded: 0.0 }
    }

    /// Counts an amount.
    #[expect(clippy::cast_precision_loss, reason = "a rate needs no more than 52 bits")]
    pub fn add(&mut self, amount: u64, now: Duration) {
        self.faded = self.faded * fade(now.saturating_sub(self.last)) + amount as f64;
        self.last = now.max(self.last);
    }

    /// The rate per second.
    pub fn rate(&self, now: Duration) -> f64 {
        // A meter that has just begun has not seen all that its memory holds.
        let seen = MEMORY.as_secs_f64() * (1.0 - fade(now.saturating_sub(self.began)));
        self.faded * fade(now.saturating_sub(self.last)) / seen.max(1.0)
    }
}

fn fade(elapsed: Duration) -> f64 {
    (-elapsed.as_secs_f64() / MEMORY.as_secs_f64()).exp()
}
