//! Which bytes beyond the next one in order have arrived: a bounded, sorted list of ranges, and the SACK blocks that tell of them.
//!
//! A connection takes a list from a pool when its first gap appears and gives it back when the last one is filled: few have gaps at a time.

use super::seq::Seq;
use super::wire::{SACK_BLOCKS, SackBlocks};

/// Ranges of one connection. What would need one more is dropped; the peer sends it again.
const RANGES_MAX: usize = 256;
/// One connection in this many can have gaps at a time, and at least [`LISTS_MIN`].
const CONNECTIONS_PER_LIST: usize = 8;
const LISTS_MIN: usize = 16;
const NONE: u32 = u32::MAX;

/// Lists of ranges of all connections of one core.
#[derive(Debug)]
pub(super) struct RangeLists {
    lists: Box<[[(Seq, Seq); RANGES_MAX]]>,
    free: Vec<u32>,
}

impl RangeLists {
    pub fn new(connections: usize) -> Self {
        let count = (connections / CONNECTIONS_PER_LIST).max(LISTS_MIN);
        Self { lists: vec![[(Seq(0), Seq(0)); RANGES_MAX]; count].into(), free: (0..count as u32).collect() }
    }

    /// Bytes of memory.
    pub fn memory_bytes(&self) -> usize {
        std::mem::size_of_val(&*self.lists)
    }
}

/// Sorted ranges that neither overlap nor touch.
#[derive(Debug)]
pub(super) struct Ranges {
    list: u32,
    len: u32,
    /// Starts of what arrived last, latest first (RFC 2018 4).
    recent: [Seq; SACK_BLOCKS],
}

impl Ranges {
    pub const EMPTY: Self = Self { list: NONE, len: 0, recent: [Seq(0); SACK_BLOCKS] };

    fn slice<'a>(&self, lists: &'a RangeLists) -> &'a [(Seq, Seq)] {
        lists.lists.get(self.list as usize).and_then(|list| list.get(..self.len as usize)).unwrap_or_default()
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds a range. False when there are too many.
    pub fn insert(&mut self, lists: &mut RangeLists, start: Seq, end: Seq) -> bool {
        if self.list == NONE {
            let Some(list) = lists.free.pop() else { return false };
            self.list = list;
        }
        let len = self.len as usize;
        let Some(list) = lists.lists.get_mut(self.list as usize) else { return false };
        let first = list[..len].partition_point(|range| range.1.lt(start));
        let behind = list[..len].partition_point(|range| range.0.le(end));
        let merged = match &list[first..behind] {
            [only] => (only.0.min(start), only.1.max(end)),
            [low, .., high] => (low.0.min(start), high.1.max(end)),
            [] if len == RANGES_MAX => return false,
            [] => {
                list.copy_within(first..len, first + 1);
                self.len += 1;
                (start, end)
            }
        };
        list[first] = merged;
        if behind > first + 1 {
            list.copy_within(behind..len, first + 1);
            self.len -= (behind - first - 1) as u32;
        }
        self.recent.copy_within(..SACK_BLOCKS - 1, 1);
        self.recent[0] = start;
        true
    }

    /// The bytes in order reach up to `next`: drops what is covered, and returns up to where they reach with what had arrived before.
    pub fn take_from(&mut self, lists: &mut RangeLists, next: Seq) -> Seq {
        let len = self.len as usize;
        let Some(list) = lists.lists.get_mut(self.list as usize) else { return next };
        let covered = list[..len].partition_point(|range| range.0.le(next));
        let reach = list[..covered].last().map_or(next, |range| range.1.max(next));
        list.copy_within(covered..len, 0);
        self.len -= covered as u32;
        if self.len == 0 {
            self.clear(lists);
        }
        reach
    }

    /// True when all of `start..end` has arrived.
    pub fn cover(&self, lists: &RangeLists, start: Seq, end: Seq) -> bool {
        self.slice(lists).iter().any(|range| range.0.le(start) && end.le(range.1))
    }

    /// Adds blocks to tell the peer: the one with what arrived last first, each once. A FIN that has arrived belongs to the range that it ends.
    pub fn report(&self, lists: &RangeLists, fin: Option<Seq>, blocks: &mut SackBlocks) {
        for recent in self.recent {
            let Some(&(start, end)) = self.slice(lists).iter().find(|range| range.0.le(recent) && recent.lt(range.1)) else { continue };
            let end = if fin == Some(end) { end + 1 } else { end };
            if !blocks.as_slice().contains(&(start, end)) {
                blocks.push(start, end);
            }
        }
    }

    /// Forgets everything and gives the list back.
    pub fn clear(&mut self, lists: &mut RangeLists) {
        if self.list != NONE {
            lists.free.push(self.list);
        }
        *self = Self::EMPTY;
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
            let mut lists = RangeLists::new(1);
            let (mut ranges, mut set, mut next) = (Ranges::EMPTY, vec![false; 300], 0u32);
            for (at, len) in ops {
                if at % 10 == 0 {
                    (next..next + len).for_each(|i| set[i as usize] = true);
                    let reach = ranges.take_from(&mut lists, base + next + len);
                    next = (next + len..).find(|i| !set[*i as usize]).unwrap();
                    prop_assert_eq!(reach, base + next);
                    if next > 250 { break }
                } else if at > next {
                    let kept = ranges.insert(&mut lists, base + at, base + at + len);
                    if kept { (at..at + len).for_each(|i| set[i as usize] = true); }
                    let mut blocks = SackBlocks::default();
                    ranges.report(&lists, None, &mut blocks);
                    let (start, end) = blocks.as_slice()[0];
                    prop_assert!(!kept || (start.le(base + at) && (base + at + len).le(end)), "the latest first");
                }
                for window in ranges.slice(&lists).windows(2) {
                    prop_assert!(window[0].1.lt(window[1].0));
                }
                let known: u32 = ranges.slice(&lists).iter().map(|range| range.1.since(range.0)).sum();
                prop_assert_eq!(known as usize, set[next as usize..].iter().filter(|b| **b).count());
                prop_assert!(ranges.slice(&lists).iter().all(|r| (r.0.since(base)..r.1.since(base)).all(|i| set[i as usize])));
            }
            ranges.clear(&mut lists);
            prop_assert_eq!(lists.free.len(), LISTS_MIN);
        }
    }
}
