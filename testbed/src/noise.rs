//! `testbed probe-noise`: what this machine itself adds. A pinned thread spins and reads the clock; whenever two readings lie apart, something
//! else had the core: an interrupt, another process, the hypervisor. No punctuality measured here can be better than this.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::load::sys;

/// Shorter gaps are the loop itself.
const GAP_MIN_NS: u64 = 2_000;

/// Gaps that are kept one by one.
const KEPT_MAX: usize = 1 << 17;

/// Upper bounds of the classes that gaps are counted in, microseconds; the last class has no bound.
pub const CLASSES_US: [u64; 9] = [10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000];

/// The gaps of a spinning thread.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Noise {
    /// The core, when one was asked for.
    pub cpu: Option<usize>,
    /// How long was measured, seconds.
    pub seconds: f64,
    /// Gaps in each class of [`CLASSES_US`] (the first from 2 us), and beyond the last.
    pub counts: Vec<u64>,
    /// Gaps above 10 us per second.
    pub above_10_us_per_s: f64,
    /// Gaps above 50 us per second.
    pub above_50_us_per_s: f64,
    /// Gaps above 1 ms per second.
    pub above_1_ms_per_s: f64,
    /// The longest gap, microseconds.
    pub max_us: f64,
    /// Share of the time that was taken away, percent.
    pub stolen_percent: f64,
    /// What a packet that is due at a random moment would have waited, on average, microseconds.
    #[serde(default)]
    pub wait_mean_us: f64,
    /// And one in a thousand of them, at least.
    #[serde(default)]
    pub wait_p999_us: f64,
}

/// Counts gaps among clock readings.
#[derive(Debug)]
struct Gaps {
    counts: Vec<u64>,
    max_ns: u64,
    sum_ns: u64,
    /// The first [`KEPT_MAX`] gaps.
    kept_ns: Vec<u64>,
}

impl Gaps {
    fn new() -> Self {
        Self { counts: vec![0; CLASSES_US.len() + 1], max_ns: 0, sum_ns: 0, kept_ns: Vec::with_capacity(KEPT_MAX) }
    }

    fn add(&mut self, gap_ns: u64) {
        if gap_ns < GAP_MIN_NS {
            return;
        }
        let class = CLASSES_US.iter().position(|&bound_us| gap_ns <= bound_us * 1000).unwrap_or(CLASSES_US.len());
        if let Some(count) = self.counts.get_mut(class) {
            *count += 1;
        }
        self.max_ns = self.max_ns.max(gap_ns);
        self.sum_ns += gap_ns;
        if self.kept_ns.len() < KEPT_MAX {
            self.kept_ns.push(gap_ns);
        }
    }

    /// The mean wait of who comes at a random moment of `elapsed_ns`: whoever comes in a gap waits for its end.
    fn wait_mean_ns(&self, elapsed_ns: u64) -> f64 {
        let sum: f64 = self.kept_ns.iter().map(|&gap| gap as f64 * gap as f64 / 2.0).sum();
        sum / elapsed_ns.max(1) as f64
    }

    /// What `share` of those who come at a random moment wait for at least.
    fn wait_ns(&self, elapsed_ns: u64, share: f64) -> u64 {
        let beyond = |wait_ns: u64| self.kept_ns.iter().map(|&gap| gap.saturating_sub(wait_ns)).sum::<u64>() as f64;
        let (mut low, mut high) = (0, self.max_ns);
        while low < high {
            let middle = low + (high - low) / 2;
            if beyond(middle) > share * elapsed_ns as f64 { low = middle + 1 } else { high = middle }
        }
        low
    }

    fn above(&self, bound_us: u64) -> u64 {
        let bounds = std::iter::once(0).chain(CLASSES_US);
        self.counts.iter().zip(bounds).filter(|(_, lower)| *lower >= bound_us).map(|(count, _)| count).sum()
    }
}

/// Spins for `seconds`, on core `cpu` when one is named.
///
/// # Errors
/// The core does not exist or is not allowed.
pub fn probe(cpu: Option<usize>, seconds: f64) -> std::io::Result<Noise> {
    // A thread of its own: the caller's affinity stays as it is.
    let worker = std::thread::spawn(move || {
        if let Some(cpu) = cpu {
            sys::pin_to_cpu(cpu)?;
        }
        let start = sys::monotonic_ns();
        let end = start + (seconds.clamp(0.001, 3600.0) * 1e9) as u64;
        let (mut gaps, mut last) = (Gaps::new(), start);
        while last < end {
            let now = sys::monotonic_ns();
            gaps.add(now.saturating_sub(last));
            last = now;
        }
        let measured = (last - start) as f64 / 1e9;
        Ok(Noise {
            cpu,
            seconds: measured,
            above_10_us_per_s: gaps.above(10) as f64 / measured,
            above_50_us_per_s: gaps.above(50) as f64 / measured,
            above_1_ms_per_s: gaps.above(1_000) as f64 / measured,
            max_us: gaps.max_ns as f64 / 1e3,
            stolen_percent: gaps.sum_ns as f64 / measured / 1e7,
            wait_mean_us: gaps.wait_mean_ns(last - start) / 1e3,
            wait_p999_us: gaps.wait_ns(last - start, 0.001) as f64 / 1e3,
            counts: gaps.counts,
        })
    });
    worker.join().unwrap_or_else(|_| Err(std::io::Error::other("the probing thread failed")))
}

impl fmt::Display for Noise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seconds, above_10_us_per_s, above_50_us_per_s, above_1_ms_per_s, max_us, stolen_percent, .. } = self;
        write!(
            f,
            "a spinning thread saw per second {above_10_us_per_s:.0} gaps above 10 us, {above_50_us_per_s:.1} above 50 us, {above_1_ms_per_s:.1} above 1 ms; \
             longest {max_us:.0} us; {stolen_percent:.2} % taken away (in {seconds:.1} s)"
        )
    }
}

impl Noise {
    /// The classes as a table.
    pub fn table(&self) -> String {
        let mut lower = 2;
        let mut text = format!("{self}\n{:>16} {:>10}\n", "gap, us", "count");
        for (place, count) in self.counts.iter().enumerate() {
            let class = match CLASSES_US.get(place) {
                Some(upper) => format!("{}-{upper}", std::mem::replace(&mut lower, *upper)),
                None => format!("above {lower}"),
            };
            text.push_str(&format!("{class:>16} {count:>10}\n"));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_fall_into_their_classes() {
        let mut gaps = Gaps::new();
        for gap_us in [1, 5, 10, 11, 51, 60, 1_001, 9_000] {
            gaps.add(gap_us * 1000);
        }
        assert_eq!([gaps.above(10), gaps.above(50), gaps.above(1_000), gaps.above(5_000)], [5, 4, 2, 1]);
        assert_eq!(gaps.max_ns, 9_000_000);
    }

    #[test]
    fn who_comes_in_a_gap_waits_for_its_end() {
        let mut gaps = Gaps::new();
        // Ten gaps of 1 ms in a second: one in a hundred comes in one of them, and waits for half of it on average.
        (0..10).for_each(|_| gaps.add(1_000_000));
        assert_eq!(gaps.wait_mean_ns(1_000_000_000), 5_000.0);
        // One in a thousand comes in the first tenth of a gap.
        assert_eq!(gaps.wait_ns(1_000_000_000, 0.001), 900_000);
        assert_eq!(gaps.wait_ns(1_000_000_000, 0.5), 0);
    }

    #[test]
    fn a_probe_ends_and_adds_up() {
        let noise = probe(None, 0.02).unwrap();
        assert!(noise.seconds >= 0.02);
        assert_eq!(noise.counts.len(), CLASSES_US.len() + 1);
        assert!(probe(Some(100_000), 0.01).is_err());
    }
}
