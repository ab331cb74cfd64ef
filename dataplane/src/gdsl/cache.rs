//! The chunk cache: blocks that nobody holds stay in chunks that nobody needs, until somebody does.
//!
//! It takes no memory from anyone: when a chunk is wanted and none is free, the least useful kept block gives its chunk back on the
//! spot. What is useful: a block that a reader of the same file will come to soon (interval caching: Dan and Sitaram 1996), the sooner the
//! better; then one that was read again before; then the others, which is all that a viewer alone, or a scan, ever leaves behind.

/// Readers of a file that are looked at for one that follows.
const READERS_MAX: usize = 64;
/// A block is played for at most about this long, nanoseconds: what was expected to be read again and was not, after twice the time, is not.
const BLOCK_NS_MAX: u64 = 2_000_000_000;
/// Blocks of no reader that follows, not read again so far; and those that were.
const ONCE: usize = 0;
const AGAIN: usize = 1;
/// First of the lists of blocks that a reader will come to, by the logarithm of the distance in blocks.
const NEAR: usize = 2;
const LISTS: usize = NEAR + 33;

/// A kept block's place in its list.
#[derive(Clone, Copy, Debug, Default)]
struct Kept {
    list: u8,
    before: Option<u32>,
    after: Option<u32>,
    expires_ns: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct List {
    oldest: Option<u32>,
    newest: Option<u32>,
}

/// Who reads where.
#[derive(Clone, Copy, Debug, Default)]
struct Reader {
    file: Option<u64>,
    offset: u64,
    before: Option<u32>,
    after: Option<u32>,
}

/// Which blocks are kept, and in which order they go.
#[derive(Debug)]
pub(super) struct Cache {
    kept: Vec<Kept>,
    lists: [List; LISTS],
    readers: Vec<Reader>,
    /// First reader of each file.
    files: super::blocks::FileMap,
    block_bytes: u64,
    count: usize,
}

impl Cache {
    /// A cache for a table of `entries` blocks and `readers` readers; without readers it keeps nothing.
    pub(super) fn new(entries: usize, readers: usize, block_bytes: usize) -> Self {
        Self {
            kept: vec![Kept::default(); if readers == 0 { 0 } else { entries }],
            lists: [List::default(); LISTS],
            readers: vec![Reader::default(); readers],
            files: super::blocks::FileMap::with_capacity_and_hasher(2 * readers, Default::default()),
            block_bytes: block_bytes.max(1) as u64,
            count: 0,
        }
    }

    pub(super) fn is_on(&self) -> bool {
        !self.readers.is_empty()
    }

    /// Blocks that are kept.
    pub(super) fn len(&self) -> usize {
        self.count
    }

    /// The reader asks for the block at this place.
    pub(super) fn reader_at(&mut self, reader: u32, file: u64, offset: u64) {
        let Some(known) = self.readers.get_mut(reader as usize) else { return };
        known.offset = offset;
        if known.file == Some(file) {
            return;
        }
        self.reader_left(reader);
        let first = self.files.insert(file, reader);
        if let Some(known) = self.readers.get_mut(reader as usize) {
            *known = Reader { file: Some(file), offset, before: None, after: first };
        }
        if let Some(first) = first.and_then(|first| self.readers.get_mut(first as usize)) {
            first.before = Some(reader);
        }
    }

    /// The reader reads nothing any more.
    pub(super) fn reader_left(&mut self, reader: u32) {
        let Some(Reader { file: Some(file), before, after, .. }) = self.readers.get_mut(reader as usize).map(std::mem::take) else {
            return;
        };
        if let Some(after) = after.and_then(|after| self.readers.get_mut(after as usize)) {
            after.before = before;
        }
        match (before.and_then(|before| self.readers.get_mut(before as usize)), after) {
            (Some(before), _) => before.after = after,
            (None, Some(after)) => drop(self.files.insert(file, after)),
            (None, None) => drop(self.files.remove(&file)),
        }
    }

    /// Blocks from the nearest reader that will come to this place, to it.
    fn distance(&self, file: u64, offset: u64) -> Option<u64> {
        let (mut at, mut nearest) = (self.files.get(&file).copied(), None);
        for _ in 0..READERS_MAX {
            let Some(reader) = at.and_then(|at| self.readers.get(at as usize)) else { break };
            if let Some(ahead) = offset.checked_sub(reader.offset).filter(|&ahead| ahead > 0) {
                let blocks = ahead.div_ceil(self.block_bytes);
                nearest = Some(nearest.map_or(blocks, |nearest: u64| nearest.min(blocks)));
            }
            at = reader.after;
        }
        nearest
    }

    /// Keeps the block in place `index` of the table, which nobody holds any more; `again` tells that it was read more than once.
    pub(super) fn keep(&mut self, index: u32, file: u64, offset: u64, again: bool, now_ns: u64) {
        let distance = self.distance(file, offset);
        let list = match distance {
            Some(blocks) => NEAR + (blocks.ilog2() as usize).min(LISTS - NEAR - 1),
            None if again => AGAIN,
            None => ONCE,
        };
        let patience_ns = distance.map_or(u64::MAX, |blocks| blocks.saturating_mul(2 * BLOCK_NS_MAX));
        let Some(List { newest, .. }) = self.lists.get(list).copied() else { return };
        let Some(kept) = self.kept.get_mut(index as usize) else { return };
        *kept = Kept { list: list as u8, before: newest, after: None, expires_ns: now_ns.saturating_add(patience_ns) };
        match newest.and_then(|newest| self.kept.get_mut(newest as usize)) {
            Some(newest) => newest.after = Some(index),
            None => self.lists[list].oldest = Some(index),
        }
        self.lists[list].newest = Some(index);
        self.count += 1;
    }

    /// The block is kept no longer: somebody reads it, or its chunk is needed.
    pub(super) fn take(&mut self, index: u32) {
        let Some(Kept { list, before, after, .. }) = self.kept.get_mut(index as usize).map(std::mem::take) else { return };
        let Some(ends) = self.lists.get_mut(usize::from(list)) else { return };
        match before.and_then(|before| self.kept.get_mut(before as usize)) {
            Some(before) => before.after = after,
            None => ends.oldest = after,
        }
        match after.and_then(|after| self.kept.get_mut(after as usize)) {
            Some(after) => after.before = before,
            None => ends.newest = before,
        }
        self.count -= 1;
    }

    /// The block whose chunk is missed least.
    pub(super) fn victim(&self, now_ns: u64) -> Option<u32> {
        let oldest = |list: &List| list.oldest;
        let (useless, near) = self.lists.split_at(NEAR);
        let first = useless.first().and_then(oldest);
        // The reader that was to come has left, or jumped.
        let is_expired = |&index: &u32| self.kept.get(index as usize).is_some_and(|kept| kept.expires_ns <= now_ns);
        let expired = || near.iter().filter_map(oldest).find(is_expired);
        first.or_else(expired).or_else(|| useless.get(AGAIN).and_then(oldest)).or_else(|| near.iter().rev().find_map(oldest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCK: u64 = 4096;

    fn victims(cache: &mut Cache, now_ns: u64) -> Vec<u32> {
        let mut order = Vec::new();
        while let Some(index) = cache.victim(now_ns) {
            cache.take(index);
            order.push(index);
        }
        assert_eq!(cache.len(), 0);
        order
    }

    #[test]
    fn what_is_read_again_soonest_goes_last() {
        let mut cache = Cache::new(16, 4, BLOCK as usize);
        cache.reader_at(0, 7, 100 * BLOCK);
        cache.reader_at(1, 7, 40 * BLOCK);
        cache.reader_at(2, 8, 90 * BLOCK);
        // (place in the table, file, block, read more than once)
        for (index, file, block, again) in [
            (0, 7, 99, false),
            (1, 8, 89, false),
            (2, 7, 41, false),
            (3, 8, 5, true),
            (4, 9, 0, false),
            (5, 7, 57, true),
            (6, 8, 91, false),
        ] {
            cache.keep(index, file, block * BLOCK, again, 0);
        }
        assert_eq!(cache.len(), 7);
        // Blocks 89 and 0 were read once and nobody follows; block 5 was read again; of the others, the farther ahead, the sooner.
        assert_eq!(victims(&mut cache, 0), [1, 4, 3, 0, 5, 2, 6]);
    }

    #[test]
    fn readers_that_leave_or_go_elsewhere_are_not_waited_for() {
        let mut cache = Cache::new(16, 3, BLOCK as usize);
        for reader in 0..3 {
            cache.reader_at(reader, 7, u64::from(reader) * BLOCK);
        }
        cache.keep(0, 7, 3 * BLOCK, false, 0);
        for (leaves, list) in [(1, NEAR), (2, NEAR + 1), (0, ONCE)] {
            if leaves == 0 {
                cache.reader_at(0, 8, 0);
            } else {
                cache.reader_left(leaves);
            }
            cache.take(0);
            cache.keep(0, 7, 3 * BLOCK, false, 0);
            assert_eq!(usize::from(cache.kept[0].list), list, "without {leaves}");
        }
        assert_eq!(cache.files.len(), 1);
        // One that was expected and has not come by then goes before what is always read again.
        cache.keep(1, 8, 2 * BLOCK, false, 0);
        cache.keep(2, 9, 0, true, 0);
        assert_eq!(victims(&mut cache, 8 * BLOCK_NS_MAX), [0, 1, 2]);
    }

    #[test]
    fn a_cache_that_is_off_keeps_nothing() {
        let mut cache = Cache::new(16, 0, BLOCK as usize);
        cache.reader_at(0, 7, 0);
        assert!(!cache.is_on() && cache.victim(0).is_none());
    }
}
