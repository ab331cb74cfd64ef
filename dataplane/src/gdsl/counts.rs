//! Counts of values by size: a histogram whose error is below a hundredth, in one flat table.
//!
//! ```text
//! 0 1 2 .. 255 | 256 258 .. 510 | 512 516 .. 1020 | ...      a place for each value below 256, then 128 places for each power of two
//! ```
//!
//! Every packet of an engine core is counted twice, so finding the place is a shift and an addition.

/// Values below this have a place each.
const EXACT: u64 = 256;
/// Places of each power of two beyond.
const PER_OCTAVE: usize = 128;
/// Larger values count as this one: what is later than a minute is late enough.
pub(super) const VALUE_MAX: u64 = (1 << 26) - 1;
const PLACES: usize = place(VALUE_MAX) + 1;

const _: () = assert!(EXACT as usize == 2 * PER_OCTAVE && place(EXACT) == EXACT as usize && PLACES == 20 * PER_OCTAVE);

/// Where a value up to [`VALUE_MAX`] is counted.
#[inline]
const fn place(value: u64) -> usize {
    let shift = (value | (EXACT - 1)).ilog2() - (EXACT.ilog2() - 1);
    shift as usize * PER_OCTAVE + (value >> shift) as usize
}

/// The largest value that is counted at a place.
fn largest(place: usize) -> u64 {
    if place < EXACT as usize {
        return place as u64;
    }
    let shift = place / PER_OCTAVE - 1;
    (((place - shift * PER_OCTAVE) as u64 + 1) << shift) - 1
}

/// The counts. Recording never allocates.
#[derive(Clone, Debug)]
pub(super) struct Counts {
    counts: Box<[u32; PLACES]>,
    total: u64,
    /// The largest value that was recorded.
    top: u64,
}

impl Counts {
    /// Nothing was recorded.
    pub(super) fn new() -> Self {
        Self { counts: Box::new([0; PLACES]), total: 0, top: 0 }
    }

    /// Counts one value.
    #[inline]
    pub(super) fn record(&mut self, value: u64) {
        let value = value.min(VALUE_MAX);
        if let Some(count) = self.counts.get_mut(place(value)) {
            *count = count.saturating_add(1);
        }
        self.total += 1;
        self.top = self.top.max(value);
    }

    /// Adds the counts of `other`.
    pub(super) fn add(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(other.counts.iter()) {
            *count = count.saturating_add(*more);
        }
        self.total += other.total;
        self.top = self.top.max(other.top);
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        self.counts.fill(0);
        (self.total, self.top) = (0, 0);
    }

    /// Values recorded.
    pub(super) fn len(&self) -> u64 {
        self.total
    }

    /// The value that this share of all values, 0 to 1, is not above; 0 when there are none.
    pub(super) fn at(&self, share: f64) -> u64 {
        let wanted = ((self.total as f64 * share).ceil() as u64).clamp(1, self.total.max(1));
        let mut counted = 0;
        for (place, &count) in self.counts.iter().enumerate() {
            counted += u64::from(count);
            if counted >= wanted {
                return largest(place);
            }
        }
        self.max()
    }

    /// The largest value, as exactly as it is known; 0 when there are none.
    pub(super) fn max(&self) -> u64 {
        largest(place(self.top))
    }
}

#[cfg(test)]
mod tests {
    use hdrhistogram::Histogram;
    use proptest::prelude::*;

    use super::*;

    fn values() -> impl Strategy<Value = Vec<u64>> {
        prop::collection::vec(prop_oneof![4 => 0u64..1_000, 2 => 0u64..1 << 20, 1 => 0..=VALUE_MAX, 1 => any::<u64>()], 0..300)
    }

    #[test]
    fn every_place_ends_where_the_next_one_begins() {
        for at in 0..PLACES {
            assert_eq!(place(largest(at)), at);
            assert_eq!(place((largest(at) + 1).min(VALUE_MAX)), (at + 1).min(PLACES - 1));
        }
        assert_eq!(largest(PLACES - 1), VALUE_MAX);
    }

    proptest! {
        #[test]
        fn percentiles_are_those_of_an_hdr_histogram(ours in values(), theirs in values()) {
            let mut oracle = Histogram::<u32>::new_with_bounds(1, VALUE_MAX, 2).unwrap();
            let (mut counts, mut other) = (Counts::new(), Counts::new());
            for &value in &ours {
                counts.record(value);
            }
            for &value in &theirs {
                other.record(value);
            }
            counts.add(&other);
            for value in ours.into_iter().chain(theirs) {
                oracle.record(value.min(VALUE_MAX)).unwrap();
            }
            prop_assert_eq!(counts.len(), oracle.len());
            prop_assert_eq!(counts.max(), oracle.max());
            for share in [0.01, 0.5, 0.9, 0.99, 0.999, 1.0] {
                prop_assert_eq!(counts.at(share), oracle.value_at_quantile(share), "{} of {}", share, counts.len());
            }
            counts.clear();
            prop_assert_eq!((counts.len(), counts.max(), counts.at(0.5)), (0, 0, 0));
        }
    }
}
