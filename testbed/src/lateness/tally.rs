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
    /// Rate conformance.
    pub rate: RateTally,
}

impl Default for Tally {
    fn default() -> Self {
        Self { frame: histogram_ns(), even: histogram_ns(), burst: histogram_ns(), rate: RateTally::default() }
    }
}

impl Tally {
    /// Counts a packet.
    pub fn record(&mut self, sample: &Sample) {
        if let Some(late) = sample.frame_ns {
            self.frame.saturating_record(late);
        }
        if let Some(late) = sample.even_ns {
            self.even.saturating_record(late);
        }
        self.burst.saturating_record(sample.burst_ns);
    }

    /// The per-packet measure that fits this sender better, and whether it is the evenly spread one.
    pub fn packet(&self) -> (&Histogram<u64>, bool) {
        let even = !self.even.is_empty() && self.even.mean() <= self.burst.mean();
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
