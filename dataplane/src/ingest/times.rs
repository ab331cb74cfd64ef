//! Times of what arrives: decode times where a sender tells only presentation times, and senders' clocks against ours.

/// Pictures that a codec may hold back to reorder them (H.264 A.3.1 and H.265 A.4.2 allow 16 frames).
const DEPTH_MAX: usize = 16;
/// A sender's clock that seems to run behind ours is followed at this many parts per million at most.
const FOLLOW_PPM: u128 = 500;
/// When something arrives earlier than ever, the line moves by at most this many parts per million of the time that passes: what was
/// put on the line before was to last until then.
const CATCH_UP_PPM: u128 = 31_250;
/// A time that is further than this from where the line has it belongs to another time line, nanoseconds.
const JUMP_NS: i64 = 2_000_000_000;

/// Decode times from presentation times that come in decode order.
///
/// With a decoder that holds back `d` pictures the decode time of a picture is the presentation time of the one that comes `d` places
/// before it in presentation order. `d` is learnt: it is the most pictures that were ever seen to come before one that is shown earlier.
#[derive(Clone, Copy, Debug, Default)]
pub struct DecodeTimes {
    /// The latest presentation times, the latest first.
    latest: [i64; DEPTH_MAX + 1],
    count: usize,
    depth: usize,
    last: Option<i64>,
}

impl DecodeTimes {
    /// The decode time of the next picture, which is shown at `pts`: not less than the one before.
    pub fn next(&mut self, pts: i64) -> i64 {
        let known = self.latest.get(..self.count).unwrap_or(&[]);
        let place = known.iter().filter(|&&later| later > pts).count();
        self.depth = self.depth.max(place.min(DEPTH_MAX));
        if place <= DEPTH_MAX {
            self.count = (self.count + 1).min(DEPTH_MAX + 1);
            if let Some(tail) = self.latest.get_mut(place..self.count) {
                tail.rotate_right(1);
                if let Some(first) = tail.first_mut() {
                    *first = pts;
                }
            }
        }
        let dts = self.latest.get(self.depth.min(self.count.saturating_sub(1))).copied().unwrap_or(pts);
        let dts = self.last.map_or(dts, |last| dts.max(last));
        self.last = Some(dts);
        dts
    }

    /// Another time line begins. What was learnt of the depth stays.
    pub fn restart(&mut self) {
        *self = Self { depth: self.depth, ..Self::default() };
    }
}

/// A sender's clock as a line on ours: the earliest arrivals decide, because a network only ever delays.
#[derive(Clone, Copy, Debug, Default)]
pub struct Line {
    /// Our time minus the sender's, nanoseconds, and when that was last looked at.
    offset: Option<(i64, u64)>,
}

impl Line {
    /// Our time for the sender's time `sender_ns`, of which something arrived at `now_ns`.
    pub fn local_ns(&mut self, sender_ns: i64, now_ns: u64) -> u64 {
        let seen = (now_ns as i64).saturating_sub(sender_ns);
        let offset = match self.offset {
            Some((offset, _)) if seen.saturating_sub(offset).saturating_abs() > JUMP_NS => seen,
            Some((offset, since_ns)) => {
                let elapsed_ns = u128::from(now_ns.saturating_sub(since_ns));
                let step = |ppm| i64::try_from(elapsed_ns * ppm / 1_000_000).unwrap_or(i64::MAX);
                if seen < offset {
                    offset.saturating_sub(step(CATCH_UP_PPM)).max(seen)
                } else {
                    offset.saturating_add(step(FOLLOW_PPM)).min(seen)
                }
            }
            None => seen,
        };
        self.offset = Some((offset, now_ns));
        u64::try_from(sender_ns.saturating_add(offset)).unwrap_or(0)
    }
}

/// 64 bits of a counter of which a sender tells the low `BITS`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unwrapped<const BITS: u32> {
    last: Option<i64>,
}

impl<const BITS: u32> Unwrapped<BITS> {
    /// The value next to the last one that has these low bits.
    pub fn next(&mut self, low: u64) -> i64 {
        let value = self.near(low);
        self.last = Some(value);
        value
    }

    /// The same, without making it the last one.
    pub fn near(&self, low: u64) -> i64 {
        let shift = 64 - BITS;
        let low = (low << shift >> shift) as i64;
        match self.last {
            Some(last) => {
                let ahead = ((low as u64).wrapping_sub(last as u64) << shift) as i64 >> shift;
                last.wrapping_add(ahead)
            }
            None => low,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_group_with_b_pictures_decodes_evenly() {
        let mut times = DecodeTimes::default();
        let mut decoded = Vec::new();
        for group in 0..5 {
            decoded.extend([4, 2, 1, 3].map(|pts| times.next(group * 4 + pts) - group * 4));
        }
        assert_eq!(decoded[..4], [4, 4, 4, 4], "until the depth is known");
        assert_eq!(decoded[8..12], [-1, 0, 1, 2]);
        assert_eq!(decoded[12..16], decoded[16..20]);
    }

    proptest! {
        /// Pictures at an even rate, shuffled within groups: once the depth is known decode times are even and none is after its
        /// presentation time.
        #[test]
        fn decode_times_never_fall_and_settle(order in Just(vec![1i64, 2, 3, 4, 5]).prop_shuffle(), step in 1i64..10_000) {
            let mut times = DecodeTimes::default();
            let mut last = i64::MIN;
            for group in 0..20i64 {
                for &place in &order {
                    let pts = (group * 5 + place) * step;
                    let dts = times.next(pts);
                    prop_assert!(dts >= last);
                    if group > 4 {
                        prop_assert!(dts <= pts && dts - last == step);
                    }
                    last = dts;
                }
            }
        }

        #[test]
        fn any_times_are_survived(times in prop::collection::vec(any::<i64>(), 0..60), sender in prop::collection::vec((any::<i64>(), any::<u64>()), 0..60)) {
            let (mut decode, mut last, mut line) = (DecodeTimes::default(), i64::MIN, Line::default());
            for pts in times {
                let dts = decode.next(pts);
                prop_assert!(dts >= last);
                last = dts;
            }
            for (sender_ns, now_ns) in sender {
                line.local_ns(sender_ns, now_ns);
            }
        }

        /// With any delays of the network and a clock that is wrong by less than what is followed, times come out evenly.
        #[test]
        fn a_line_follows_the_earliest(delays in prop::collection::vec(0u64..40_000_000, 20..200), ppm in -300i64..300, start in 0i64..1_000_000_000_000) {
            let mut line = Line::default();
            let mut last = None;
            for (n, delay) in delays.iter().enumerate() {
                let sent_ns = n as i64 * 20_000_000;
                let sender_ns = start + sent_ns + sent_ns * ppm / 1_000_000;
                let now_ns = 5_000_000_000 + sent_ns as u64 + delay;
                let at_ns = line.local_ns(sender_ns, now_ns);
                prop_assert!(at_ns <= now_ns + 41_000_000, "nothing is put later than it came, but for what the first one was delayed");
                prop_assert!(at_ns + 41_000_000 >= now_ns, "nor earlier than the longest delay before it");
                prop_assert!(last.is_none_or(|last_ns| (18_000_000..22_000_000).contains(&(at_ns - last_ns))), "it is even");
                last = Some(at_ns);
            }
        }

        #[test]
        fn counters_go_on_over_their_end(start: u32, steps in prop::collection::vec(-(1i64 << 30)..(1 << 30), 0..50)) {
            let mut unwrapped = Unwrapped::<32>::default();
            let mut value = i64::from(start);
            prop_assert_eq!(unwrapped.next(start.into()), value);
            for step in steps {
                value += step;
                prop_assert_eq!(unwrapped.next(u64::from(value as u32)), value);
            }
        }
    }
}
