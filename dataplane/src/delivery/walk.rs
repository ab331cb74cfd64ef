//! Which block of the link holds which byte: source and sender count blocks in the same way, so neither searches, and a file whose
//! samples overlap, repeat or lie backwards leads nobody astray.

/// Numbers the blocks that a track's samples touch, in the order in which its source asks for them: those of each sample in file order,
/// but the first one not again when it is the one that was asked for last. Empty samples touch none.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct BlockWalk {
    /// Number of the next block that will be asked for.
    next: u64,
    /// Place in the file, in blocks, of the one that was asked for last.
    last: Option<u64>,
}

impl BlockWalk {
    /// Goes on with a sample; the answer is the number of the block that its first byte lies in.
    pub(super) fn enter(&mut self, offset: u64, bytes: u32, block_bytes: u64) -> u64 {
        if bytes == 0 {
            return self.next;
        }
        let (first, last) = (offset / block_bytes, (offset + u64::from(bytes) - 1) / block_bytes);
        let number = if self.last == Some(first) { self.next - 1 } else { self.next };
        self.next = number + (last - first) + 1;
        self.last = Some(last);
        number
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_counted_as_they_are_asked_for() {
        let mut walk = BlockWalk::default();
        // (offset, bytes) and the number of the first block, for blocks of 10 bytes.
        let samples = [(3, 4, 0), (7, 10, 0), (15, 1, 1), (20, 0, 2), (12, 20, 1), (12, 8, 4), (40, 10, 5), (50, 1, 6), (49, 2, 7)];
        for (offset, bytes, number) in samples {
            assert_eq!(walk.enter(offset, bytes, 10), number, "sample at {offset}");
        }
    }
}
