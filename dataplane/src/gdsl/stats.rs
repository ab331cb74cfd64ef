//! Lateness: send time minus due time, in an HDR histogram of microseconds.

use hdrhistogram::Histogram;

/// Highest lateness that is told apart: one minute.
const LATENESS_US_MAX: u64 = 60_000_000;

/// A lateness histogram. Recording never allocates.
#[derive(Clone, Debug)]
pub struct Lateness {
    us: Histogram<u32>,
    sum_ns: u64,
}

impl Default for Lateness {
    fn default() -> Self {
        Self::new()
    }
}

impl Lateness {
    /// An empty histogram: 1 us to one minute, two significant digits.
    pub fn new() -> Self {
        let mut us = Histogram::new_with_bounds(1, LATENESS_US_MAX, 2).unwrap_or_else(|_| Histogram::new_from(&fallback()));
        us.auto(false);
        Self { us, sum_ns: 0 }
    }

    /// Counts one packet.
    pub fn record_ns(&mut self, lateness_ns: u64) {
        self.us.saturating_record((lateness_ns / 1_000).min(LATENESS_US_MAX));
        self.sum_ns = self.sum_ns.saturating_add(lateness_ns);
    }

    /// Adds the counts of `other`.
    pub fn add(&mut self, other: &Lateness) {
        // Both have the same bounds, so nothing can be out of range.
        let _ = self.us.add(&other.us);
        self.sum_ns = self.sum_ns.saturating_add(other.sum_ns);
    }

    /// Forgets all counts.
    pub fn reset(&mut self) {
        self.us.reset();
        self.sum_ns = 0;
    }

    /// What dashboards show of it.
    pub fn snapshot(&self) -> LatenessSnapshot {
        let packets = self.us.len();
        LatenessSnapshot {
            packets,
            mean_us: if packets == 0 { 0.0 } else { self.sum_ns as f64 / packets as f64 / 1_000.0 },
            p50_us: self.us.value_at_quantile(0.5),
            p99_us: self.us.value_at_quantile(0.99),
            p999_us: self.us.value_at_quantile(0.999),
            max_us: self.us.max(),
        }
    }
}

fn fallback() -> Histogram<u32> {
    Histogram::new(2).unwrap_or_else(|_| unreachable!("two significant digits are allowed"))
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
