//! Which bytes beyond the next one in order have arrived: a bounded, sorted list of ranges, and the SACK blocks that tell of them.

use super::seq::Seq;
use super::wire::{SACK_BLOCKS, SackBlocks};

/// Ranges of one connection. What would need one more is dropped; the peer sends it again.
const RANGES_MAX: usize = 32;

/// Sorted ranges that neither overlap nor touch.
#[derive(Debug)]
pub(super) struct Ranges {
    ranges: [(Seq, Seq); RANGES_MAX],
    len: usize,
    /// Starts of what arrived last, latest first (RFC 2018 4).
    recent: [Seq; SACK_BLOCKS],
}

impl Ranges {
    pub const EMPTY: Self = Self { ranges: [(Seq(0), Seq(0)); RANGES_MAX], len: 0, recent: [Seq(0); SACK_BLOCKS] };

    fn as_slice(&self) -> &[(Seq, Seq)] {
        &self.ranges[..self.len]
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds a range. False when there are too many.
    pub fn insert(&mut self, start: Seq, end: Seq) -> bool {
        let first = self.as_slice().partition_point(|range| range.1.lt(start));
        let behind = self.as_slice().partition_point(|range| range.0.le(end));
        let merged = match self.as_slice().get(first..behind) {
            Some([only]) => (only.0.min(start), only.1.max(end)),
            Some([low, .., high]) => (low.0.min(start), high.1.max(end)),
            _ if self.len == RANGES_MAX => return false,
            _ => {
                self.ranges.copy_within(first..self.len, first + 1);
                self.len += 1;
                (start, end)
            }
        };
        self.ranges[first] = merged;
        if behind > first + 1 {
            self.ranges.copy_within(behind..self.len, first + 1);
            self.len -= behind - first - 1;
        }
        self.recent.copy_within(..SACK_BLOCKS - 1, 1);
        self.recent[0] = start;
        true
    }

    /// The bytes in order reach up to `next`: drops what is covered, and returns up to where they reach with what had arrived before.
    pub fn take_from(&mut self, next: Seq) -> Seq {
        let covered = self.as_slice().partition_point(|range| range.0.le(next));
        let reach = self.as_slice().get(covered.wrapping_sub(1)).map_or(next, |range| range.1.max(next));
        self.ranges.copy_within(covered..self.len, 0);
        self.len -= covered;
        reach
    }

    /// True when all of `start..end` has arrived.
    pub fn covers(&self, start: Seq, end: Seq) -> Option<(Seq, Seq)> {
        self.as_slice().iter().find(|range| range.0.le(start) && end.le(range.1)).copied()
    }

    /// Adds blocks to tell the peer: the one with what arrived last first, each once.
    pub fn report(&self, blocks: &mut SackBlocks) {
        for recent in self.recent {
            let range = self.as_slice().iter().find(|range| range.0.le(recent) && recent.lt(range.1));
            if let Some((start, end)) = range.filter(|range| !blocks.as_slice().contains(range)) {
                blocks.push(*start, *end);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn like_a_set_of_bytes(ops in prop::collection::vec((1..200u32, 1..20u32), 1..60), base: u32) {
            let base = Seq(base);
            let (mut ranges, mut set, mut next) = (Ranges::EMPTY, vec![false; 300], 0u32);
            for (at, len) in ops {
                if at % 10 == 0 {
                    (next..next + len).for_each(|i| set[i as usize] = true);
                    let reach = ranges.take_from(base + next + len);
                    next = (next + len..).find(|i| !set[*i as usize]).unwrap();
                    prop_assert_eq!(reach, base + next);
                    if next > 250 { break }
                } else if at > next {
                    let kept = ranges.insert(base + at, base + at + len);
                    if kept { (at..at + len).for_each(|i| set[i as usize] = true); }
                    let mut blocks = SackBlocks::default();
                    ranges.report(&mut blocks);
                    let (start, end) = blocks.as_slice()[0];
                    prop_assert!(!kept || (start.le(base + at) && (base + at + len).le(end)), "the latest first");
                }
                for window in ranges.as_slice().windows(2) {
                    prop_assert!(window[0].1.lt(window[1].0));
                }
                let known: u32 = ranges.as_slice().iter().map(|range| range.1.since(range.0)).sum();
                prop_assert_eq!(known as usize, set[next as usize..].iter().filter(|b| **b).count());
                prop_assert!(ranges.as_slice().iter().all(|r| (r.0.since(base)..r.1.since(base)).all(|i| set[i as usize])));
            }
        }
    }
}
