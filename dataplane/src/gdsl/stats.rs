//! Lateness: send time minus due time, counted by size in microseconds.

use super::counts::{Counts, VALUE_MAX};

/// Values that wait to be counted together.
const PENDING: usize = 13;

/// Lateness of packets, in counts by size. Recording never allocates.
///
/// The counts of thousands of streams do not fit the processor's caches, so a value waits beside its owner, in one cache line, until there
/// are enough of them for one visit to the counts.
#[derive(Clone, Debug)]
#[repr(C, align(64))]
pub struct Lateness {
    pending_us: [u32; PENDING],
    pending: u32,
    sum_ns: u64,
    us: Counts,
}

const _: () = assert!(std::mem::offset_of!(Lateness, us) == 64);

impl Default for Lateness {
    fn default() -> Self {
        Self::new()
    }
}

impl Lateness {
    /// No packets: told apart are 0 us to one minute, to a hundredth.
    pub fn new() -> Self {
        Self { pending_us: [0; PENDING], pending: 0, sum_ns: 0, us: Counts::new() }
    }

    /// Counts one packet.
    #[inline]
    pub fn record_ns(&mut self, lateness_ns: u64) {
        self.sum_ns = self.sum_ns.saturating_add(lateness_ns);
        if let Some(place) = self.pending_us.get_mut(self.pending as usize) {
            *place = (lateness_ns / 1_000).min(VALUE_MAX) as u32;
            self.pending += 1;
        }
        if self.pending as usize == PENDING {
            self.settle();
        }
    }

    /// Asks for the memory that the next value goes to.
    pub(super) fn prefetch(&self) {
        hugepages::prefetch(&self.pending_us);
    }

    /// Counts what waits.
    fn settle(&mut self) {
        for us in self.pending_us.iter().take(self.pending as usize) {
            self.us.record(u64::from(*us));
        }
        self.pending = 0;
    }

    /// Adds the counts of `other`.
    pub fn add(&mut self, other: &Lateness) {
        self.us.add(&other.us);
        for us in other.pending_us.iter().take(other.pending as usize) {
            self.us.record(u64::from(*us));
        }
        self.sum_ns = self.sum_ns.saturating_add(other.sum_ns);
    }

    /// Forgets all counts.
    pub fn reset(&mut self) {
        self.us.clear();
        (self.sum_ns, self.pending) = (0, 0);
    }

    /// What dashboards show of it.
    pub fn snapshot(&self) -> LatenessSnapshot {
        if self.pending > 0 {
            let mut settled = self.clone();
            settled.settle();
            return settled.snapshot();
        }
        let packets = self.us.len();
        LatenessSnapshot {
            packets,
            mean_us: if packets == 0 { 0.0 } else { self.sum_ns as f64 / packets as f64 / 1_000.0 },
            p50_us: self.us.at(0.5),
            p99_us: self.us.at(0.99),
            p999_us: self.us.at(0.999),
            max_us: self.us.max(),
        }
    }
}

/// Percentiles of a [`Lateness`] histogram.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LatenessSnapshot {
    /// Packets counted.
    pub packets: u64,
    /// Mean, microseconds.
    pub mean_us: f64,
    /// Median, microseconds.
    pub p50_us: u64,
    /// 99th percentile, microseconds.
    pub p99_us: u64,
    /// 99.9th percentile, microseconds.
    pub p999_us: u64,
    /// Highest, microseconds.
    pub max_us: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_wait_are_counted_whoever_asks() {
        for count in 0..3 * PENDING as u64 {
            let (mut one, mut other) = (Lateness::new(), Lateness::new());
            for nth in 1..=count {
                one.record_ns(nth * 10_000);
                other.record_ns(nth * 1_000_000);
            }
            // Two significant digits: a value is told apart from those at least a hundredth away.
            let about = |us: u64, expected: u64| us >= expected && us <= expected + expected / 100 + 1;
            assert!(one.snapshot().packets == count && about(one.snapshot().max_us, count * 10));
            other.add(&one);
            let both = other.snapshot();
            assert_eq!(both.packets, 2 * count);
            assert!(about(both.max_us, count * 1_000));
            assert!((both.mean_us * 2.0 * count as f64 - (count * (count + 1) / 2 * 1_010) as f64).abs() < 0.1 || count == 0);
            other.reset();
            assert_eq!(other.snapshot().packets, 0);
        }
    }
}
