//! What each stream got while all played, for runs in which streams are not all alike (`--per-stream`).

use serde::Serialize;

use super::totals::Judge;
use crate::lateness::{Sample, Sink};

/// Of a second's own bytes, what a stream must get, per mille; with less it starves in that second.
const STARVED_BELOW_PERMILLE: u64 = 950;

/// One stream's share of the steady part. *Own* is what the media's own time line has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct StreamRate {
    /// The client, counted from 0 in the order of beginning.
    pub client: usize,
    /// Seconds of the media's time line that were judged.
    pub seconds: u64,
    /// Bytes that the media has in them.
    pub own_bytes: u64,
    /// Bytes that arrived in them.
    pub delivered_bytes: u64,
    /// The worst of these seconds: delivered of own, per mille.
    pub least_permille: u64,
    /// Seconds in which less than 95 % arrived.
    pub starved_seconds: u64,
    /// Bytes that arrived in the steady part, whatever the media has.
    pub steady_bytes: u64,
}

impl StreamRate {
    /// Counts a second of the steady part.
    fn second(&mut self, own_bytes: u64, delivered_bytes: u64) {
        let Some(permille) = delivered_bytes.saturating_mul(1000).checked_div(own_bytes) else { return };
        self.least_permille = if self.seconds == 0 { permille } else { self.least_permille.min(permille) };
        self.starved_seconds += u64::from(permille < STARVED_BELOW_PERMILLE);
        self.seconds += 1;
        self.own_bytes += own_bytes;
        self.delivered_bytes += delivered_bytes;
    }

    /// Delivered of own bytes over all seconds; `None` when there was none.
    pub fn share(&self) -> Option<f64> {
        (self.own_bytes > 0).then(|| self.delivered_bytes as f64 / self.own_bytes as f64)
    }
}

/// Has a meter's findings counted for all streams and for this one.
pub struct Both<'a> {
    /// Those of all.
    pub judge: &'a mut Judge,
    /// This one's.
    pub rate: &'a mut StreamRate,
}

impl Sink for Both<'_> {
    fn sample(&mut self, sample: Sample) {
        self.judge.sample(sample);
    }

    fn second(&mut self, start_ns: u64, own_bytes: u64, delivered_bytes: u64) {
        self.judge.second(start_ns, own_bytes, delivered_bytes);
        if self.judge.is_steady_second(start_ns) {
            self.rate.second(own_bytes, delivered_bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::totals::Totals;

    #[test]
    fn only_whole_seconds_of_the_steady_part_count() {
        let mut totals = Totals::default();
        totals.judge.steady_ns = (10_000_000_000, 15_000_000_000);
        let mut rate = StreamRate::default();
        let mut both = Both { judge: &mut totals.judge, rate: &mut rate };
        for (second, delivered) in [(9, 0), (10, 1000), (11, 949), (12, 0), (13, 2051), (14, 7)] {
            both.second(second * 1_000_000_000, 1000, delivered);
        }
        // A second in which the media has nothing is none.
        both.second(13_500_000_000, 0, 0);
        assert_eq!((rate.seconds, rate.starved_seconds, rate.least_permille), (4, 2, 0));
        assert_eq!((rate.own_bytes, rate.delivered_bytes, rate.share()), (4000, 4000, Some(1.0)));
        assert_eq!(StreamRate::default().share(), None);
    }
}
