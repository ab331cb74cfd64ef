//! When the records of a track are decoded and shown, on a line of time of the track's own, and where that line starts among the others.

use pacing::schedule::ticks_to_ns;

use crate::delivery::live::RecordHeader;

/// Places of a track's line of time that are kept to tell where it starts.
const PLACES_MAX: usize = 2048;

/// The times of a track.
#[derive(Debug, Default)]
pub struct Times {
    /// The sender's time and the track's of where the present stretch of time began; `None` before the first record.
    stretch: Option<(i64, u64)>,
    last: u64,
    first_at_ns: u64,
    newest_at_ns: u64,
    /// Time until the next record as the last one told it, nanoseconds.
    pub last_span_ns: u32,
    /// The engine core's time minus the track's, now and then: every `each`th record's.
    places: Vec<i64>,
    each: usize,
    seen: usize,
}

impl Times {
    /// When a record is decoded, in the track's time, and how much later it is shown. No two are decoded at once: some players, and our own
    /// reader, take of such the last one.
    pub fn next(&mut self, header: &RecordHeader, clock_rate: u32) -> (u64, i32) {
        let at_ns = header.at_ns;
        let (from, to) = match self.stretch {
            Some(stretch) if !header.discontinuity => stretch,
            Some(_) => {
                let since_ns = u128::from(at_ns.saturating_sub(self.first_at_ns));
                let ticks = u64::try_from(since_ns * u128::from(clock_rate) / 1_000_000_000).unwrap_or(u64::MAX);
                (header.dts, ticks.max(self.last.saturating_add(1)))
            }
            None => {
                (self.first_at_ns, self.each) = (at_ns, 1);
                (header.dts, 0)
            }
        };
        let is_first = self.stretch.replace((from, to)).is_none();
        let told = to.saturating_add_signed(header.dts.saturating_sub(from));
        let time = if is_first { told } else { told.max(self.last.saturating_add(1)) };
        let later = i64::try_from(time - told).unwrap_or(i64::MAX);
        let pts_offset = i64::from(header.pts_offset).saturating_sub(later);
        (self.last, self.newest_at_ns, self.last_span_ns) = (time, at_ns, header.span_ns);
        if self.seen.is_multiple_of(self.each) {
            let ns = ticks_to_ns(i64::try_from(time).unwrap_or(i64::MAX), clock_rate);
            self.places.push(i64::try_from(at_ns).unwrap_or(i64::MAX).saturating_sub(ns));
        }
        self.seen += 1;
        if self.places.len() >= PLACES_MAX {
            let mut keep = false;
            self.places.retain(|_| {
                keep = !keep;
                keep
            });
            self.each *= 2;
        }
        (time, i32::try_from(pts_offset).unwrap_or(i32::MIN))
    }

    /// The engine core's time of the track's time 0, nanoseconds.
    pub fn start_ns(&mut self) -> i64 {
        let middle = self.places.len() / 2;
        if self.places.is_empty() { 0 } else { *self.places.select_nth_unstable(middle).1 }
    }

    /// From the first record to the newest, nanoseconds.
    pub fn duration_ns(&self) -> u64 {
        self.newest_at_ns.saturating_sub(self.first_at_ns)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn header(at_ms: u64, dts: i64, pts_offset: i32, discontinuity: bool) -> RecordHeader {
        RecordHeader { at_ns: at_ms * 1_000_000, dts, pts_offset, span_ns: 40_000_000, bytes: 1, sync: true, discontinuity }
    }

    #[test]
    fn times_are_the_senders_and_after_a_break_the_engines() {
        let mut times = Times::default();
        // The second and third come at the decode time of the first, as long as it is not known how pictures are reordered.
        let told = [(0, 500, 0), (0, 500, 7200), (0, 500, 3600), (40, 4100, 7200), (80, 7700, 0)];
        let got: Vec<_> = told.iter().map(|&(at_ms, dts, pts)| times.next(&header(at_ms, dts, pts, false), 90_000)).collect();
        assert_eq!(got, [(0, 0), (1, 7199), (2, 3598), (3600, 7200), (7200, 0)]);
        // Another sender, ten seconds later.
        assert_eq!(times.next(&header(10_080, 77, 0, true), 90_000), (907_200, 0));
        assert_eq!(times.next(&header(10_120, 77 + 3600, 0, false), 90_000), (910_800, 0));
        assert_eq!(times.start_ns(), 0);
    }

    proptest! {
        #[test]
        fn any_times_go_on(records in prop::collection::vec((any::<u32>(), any::<i64>(), any::<i32>(), any::<bool>()), 1..100), rate in 1u32..100_000) {
            let (mut times, mut last) = (Times::default(), None);
            for (at_ms, dts, pts, discontinuity) in records {
                let (time, _) = times.next(&header(at_ms.into(), dts, pts, discontinuity), rate);
                prop_assert!(last.is_none_or(|last| time > last || last == u64::MAX));
                last = Some(time);
            }
            times.start_ns();
        }

        /// However late single packets come, a track starts where most of its records say.
        #[test]
        fn a_late_packet_moves_nothing(late in prop::collection::vec(0u64..400, 40), count in 200usize..9000) {
            let mut times = Times::default();
            for n in 0..count as u64 {
                let at_ms = 5000 + 20 * n + late.get(n as usize).copied().unwrap_or(0);
                times.next(&header(at_ms, 960 * n as i64, 0, false), 48_000);
            }
            prop_assert_eq!(times.start_ns(), 5_000_000_000);
        }
    }
}
