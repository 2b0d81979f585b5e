//! The clock of leases: it goes on while the machine sleeps or the process is stopped.

use rustix::time::{ClockId, clock_gettime};

/// Milliseconds since the machine was started.
pub fn now() -> u64 {
    let time = clock_gettime(ClockId::Boottime);
    let (seconds, nanos) = (time.tv_sec.cast_unsigned(), time.tv_nsec.cast_unsigned());
    seconds * 1_000 + nanos / 1_000_000
}
