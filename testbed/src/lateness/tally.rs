//! Sums over many streams: lateness histograms and how well each second kept the media's own rate.

use hdrhistogram::Histogram;

use super::meter::Sample;

/// Highest lateness told apart: ten minutes.
const HIGHEST_NS: u64 = 600 * 1_000_000_000;

/// An empty histogram of nanoseconds, exact to three digits up to ten minutes.
pub fn histogram_ns() -> Histogram<u64> {
    // INVARIANT: the bounds are constants within what the library takes.
    Histogram::new_with_bounds(1, HIGHEST_NS, 3).expect("constant bounds are valid")
}

/// Lateness of all packets of all streams.
#[derive(Clone, Debug)]
pub struct Tally {
    /// First packets of frames against their timestamps, ns.
    pub frame: Histogram<u64>,
    /// Packets against the evenly spread frame, ns.
    pub even: Histogram<u64>,
    /// Packets against their timestamps, ns.
    pub burst: Histogram<u64>,
    /// The farthest that a packet came before its place in the evenly spread frame, ns.
    pub even_early_max_ns: u64,
    /// Sums of the distances from `even` and from `burst`, early or late, of packets that have both.
    distance_ns: (u128, u128),
    /// Rate conformance.
    pub rate: RateTally,
}

impl Default for Tally {
    fn default() -> Self {
        Self {
            frame: histogram_ns(),
            even: histogram_ns(),
            burst: histogram_ns(),
            even_early_max_ns: 0,
            distance_ns: (0, 0),
            rate: RateTally::default(),
        }
    }
}

impl Tally {
    /// Counts a packet.
    pub fn record(&mut self, sample: &Sample) {
        let late = |ns: i64| u64::try_from(ns).unwrap_or(0);
        if let Some(ns) = sample.frame_ns {
            self.frame.saturating_record(late(ns));
        }
        if let Some(ns) = sample.even_ns {
            self.even.saturating_record(late(ns));
            self.even_early_max_ns = self.even_early_max_ns.max(late(ns.saturating_neg()));
            self.distance_ns.0 += u128::from(ns.unsigned_abs());
            self.distance_ns.1 += u128::from(sample.burst_ns.unsigned_abs());
        }
        self.burst.saturating_record(late(sample.burst_ns));
    }

    /// The per-packet measure from which this sender's packets lie less far away, and whether it is the evenly spread one.
    pub fn packet(&self) -> (&Histogram<u64>, bool) {
        let even = !self.even.is_empty() && self.distance_ns.0 <= self.distance_ns.1;
        (if even { &self.even } else { &self.burst }, even)
    }
}

/// How the seconds of all streams kept the media's own rate: delivered bytes over own bytes, in percent.
#[derive(Clone, Debug)]
pub struct RateTally {
    percent: Histogram<u64>,
    within: u64,
}

impl Default for RateTally {
    fn default() -> Self {
        // INVARIANT: the bounds are constants within what the library takes.
        Self { percent: Histogram::new_with_bounds(1, 100_000, 3).expect("constant bounds are valid"), within: 0 }
    }
}

impl RateTally {
    /// Counts one second of one stream. A second in which the media has nothing is not counted.
    pub fn record(&mut self, own_bytes: u64, delivered_bytes: u64) {
        let Some(percent) = (delivered_bytes.saturating_mul(100).saturating_add(own_bytes / 2)).checked_div(own_bytes) else { return };
        self.percent.saturating_record(percent);
        self.within += u64::from((95..=105).contains(&percent));
    }

    /// Seconds counted.
    pub fn seconds(&self) -> u64 {
        self.percent.len()
    }

    /// Share of the seconds within 5 % of the media's own rate, 0 to 1; 1 when there are none.
    pub fn conforming(&self) -> f64 {
        if self.percent.is_empty() { 1.0 } else { self.within as f64 / self.percent.len() as f64 }
    }

    /// Least, first percentile, median and greatest rate, in percent of the media's own.
    pub fn spread(&self) -> [u64; 4] {
        [self.percent.min(), self.percent.value_at_quantile(0.01), self.percent.value_at_quantile(0.5), self.percent.max()]
    }
}
