//! What a link counts.

/// Counters of one direction of a link since start. Every frame that came in is in exactly one of `dropped_queue`, `dropped_pool`,
/// `dropped_too_long`, `lost`, or gone out once (twice, for those in `duplicated`), or is still under way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WireCounters {
    /// Frames offered.
    pub in_frames: u64,
    /// Bytes of these.
    pub in_bytes: u64,
    /// Frames that arrived at the other end, copies counted.
    pub out_frames: u64,
    /// Bytes of these.
    pub out_bytes: u64,
    /// Frames that found the queue full.
    pub dropped_queue: u64,
    /// Frames that found no free frame in the pool: it was made too small for the link's delay. Not an effect that was asked for.
    pub dropped_pool: u64,
    /// Frames longer than the pool's frames. Not an effect that was asked for.
    pub dropped_too_long: u64,
    /// Frames lost on the line.
    pub lost: u64,
    /// Of these, lost in the bad state of bursts.
    pub lost_in_bursts: u64,
    /// Frames that arrived a second time.
    pub duplicated: u64,
    /// Frames of which a bit was flipped.
    pub corrupted: u64,
    /// Frames held back so that others could overtake them.
    pub held_back: u64,
    /// Frames that arrived after one that was sent later (type-P-reordered, RFC 4737 3.3; second copies are not counted).
    pub reordered: u64,
    /// Most frames that waited at once.
    pub queue_frames_max: u64,
    /// Most bytes that waited at once.
    pub queue_bytes_max: u64,
    /// Longest wait in the queue.
    pub queue_delay_ns_max: u64,
    /// Time that the line was busy sending.
    pub busy_ns: u64,
}

/// Bits of a value below its highest that tell its bucket: 16 buckets for each power of two.
const PRECISION_BITS: u32 = 4;
const OCTAVES: usize = 64 - PRECISION_BITS as usize + 1;
const BUCKETS: usize = OCTAVES << PRECISION_BITS;

/// Times, counted in buckets that are at most 1/16 of their value wide. Fixed memory, nothing allocated by recording.
#[derive(Clone, Debug)]
pub struct DelayHistogram {
    buckets: Box<[u64]>,
    count: u64,
    max_ns: u64,
}

impl Default for DelayHistogram {
    fn default() -> Self {
        Self { buckets: vec![0; BUCKETS].into_boxed_slice(), count: 0, max_ns: 0 }
    }
}

fn bucket_of(ns: u64) -> usize {
    let octave = (u64::BITS - ns.leading_zeros()).saturating_sub(PRECISION_BITS + 1);
    // The highest bit is implied from the second octave on.
    ((octave as usize) << PRECISION_BITS) + (ns >> octave) as usize
}

/// The largest value that is counted in a bucket.
fn upper_bound(bucket: usize) -> u64 {
    let octave = (bucket >> PRECISION_BITS).saturating_sub(1);
    let step = (bucket - (octave << PRECISION_BITS)) as u128;
    u64::try_from(((step + 1) << octave) - 1).unwrap_or(u64::MAX)
}

impl DelayHistogram {
    pub(super) fn record(&mut self, ns: u64) {
        if let Some(count) = self.buckets.get_mut(bucket_of(ns)) {
            *count += 1;
        }
        self.count += 1;
        self.max_ns = self.max_ns.max(ns);
    }

    /// Times recorded.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The longest.
    pub fn max_ns(&self) -> u64 {
        self.max_ns
    }

    /// The time that `fraction` of all do not exceed, at most 1/16 too long; 0 when nothing was recorded.
    pub fn quantile_ns(&self, fraction: f64) -> u64 {
        let wanted = (self.count as f64 * fraction).ceil() as u64;
        let mut seen = 0;
        for (bucket, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= wanted && seen > 0 {
                return upper_bound(bucket).min(self.max_ns);
            }
        }
        self.max_ns
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_bucket_is_a_sixteenth_wide(ns: u64, shift in 0_u32..64) {
            let ns = ns >> shift;
            let bucket = bucket_of(ns);
            prop_assert!(bucket < BUCKETS);
            let bound = upper_bound(bucket);
            prop_assert!(bound >= ns && bound - ns <= ns / 16, "{} {}", ns, bound);
            prop_assert!(bucket == 0 || upper_bound(bucket - 1) < ns);
        }

        #[test]
        fn quantiles_are_those_of_the_sorted_list(mut values in prop::collection::vec(0_u64..1 << 40, 1..200), fraction in 0.0..1.0_f64) {
            let mut histogram = DelayHistogram::default();
            for value in &values {
                histogram.record(*value);
            }
            values.sort_unstable();
            let rank = ((values.len() as f64 * fraction).ceil() as usize).max(1);
            let exact = values[rank - 1];
            let got = histogram.quantile_ns(fraction);
            prop_assert!(got >= exact && got - exact <= exact / 16, "{} {}", got, exact);
            prop_assert_eq!(histogram.max_ns(), values[values.len() - 1]);
        }
    }

    #[test]
    fn an_empty_histogram_has_no_times() {
        let histogram = DelayHistogram::default();
        assert_eq!((histogram.count(), histogram.max_ns(), histogram.quantile_ns(0.5)), (0, 0, 0));
    }
}
