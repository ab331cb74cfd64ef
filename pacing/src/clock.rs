//! The `Clock` seam: who tells the time. Only a polling loop reads a clock; everything below it takes the time as an argument.

mod sys;
mod tsc;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

pub use tsc::TscClock;

/// A source of monotonic nanoseconds and of their relation to wall-clock time.
pub trait Clock {
    /// Monotonic time in nanoseconds; never goes back. On real clocks the epoch is that of `CLOCK_MONOTONIC`.
    fn now_ns(&self) -> u64;

    /// Wall-clock time (nanoseconds since 1970 UTC) at the monotonic time `at_ns`; RTCP sender reports need it.
    fn unix_ns_at(&self, at_ns: u64) -> u64;
}

/// A clock that a test moves by hand. Clones share the time.
#[derive(Clone, Debug, Default)]
pub struct SimClock {
    now_ns: Arc<AtomicU64>,
}

/// Wall-clock time at which simulated time starts: 2020-01-01 00:00:00 UTC.
pub const SIM_EPOCH_UNIX_NS: u64 = 1_577_836_800_000_000_000;

impl SimClock {
    /// A clock that shows `start_ns`.
    pub fn new(start_ns: u64) -> Self {
        Self { now_ns: Arc::new(AtomicU64::new(start_ns)) }
    }

    /// Moves the clock to `to_ns`; a time in the past is ignored.
    pub fn advance_to(&self, to_ns: u64) {
        self.now_ns.fetch_max(to_ns, Ordering::Relaxed);
    }
}

impl Clock for SimClock {
    fn now_ns(&self) -> u64 {
        self.now_ns.load(Ordering::Relaxed)
    }

    fn unix_ns_at(&self, at_ns: u64) -> u64 {
        SIM_EPOCH_UNIX_NS + at_ns
    }
}
