//! The clock of the driver. What decides takes the time as an argument; the controller and the routes read it here.

use std::time::{Duration, Instant};

/// Counts from the start of the master.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    began: Instant,
}

impl Clock {
    /// A clock at zero.
    pub fn start() -> Self {
        Self { began: Instant::now() }
    }

    /// The time since the start.
    pub fn now(self) -> Duration {
        self.began.elapsed()
    }
}
