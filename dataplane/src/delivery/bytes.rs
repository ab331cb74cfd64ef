//! A sample's bytes where they lie: in the blocks of a link.

use hugepages::Hint;

use crate::gdsl::{BlockState, LinkView};
use crate::payload::SampleBytes;

/// The rest of one sample.
pub(super) struct LinkBytes<'a> {
    view: LinkView<'a>,
    at: u64,
    remaining: usize,
    /// Place in the link of the block that holds the byte `at`.
    place: usize,
}

impl<'a> LinkBytes<'a> {
    /// The `remaining` bytes from file offset `at` on; the byte there lies in the block at `place` of the link.
    pub(super) fn new(view: LinkView<'a>, place: usize, at: u64, remaining: usize) -> Self {
        Self { view, at, remaining, place }
    }

    /// File offset of the next byte.
    pub(super) fn position(&self) -> u64 {
        self.at
    }

    /// Where in memory the next byte lies.
    pub(super) fn hint(&self) -> Hint {
        Hint::at(self.part(self.place, self.at))
    }

    /// The resident bytes from file offset `at` on that lie in the block at `place`; empty when there are none.
    fn part(&self, place: usize, at: u64) -> &'a [u8] {
        match self.view.block(place) {
            Some((offset, BlockState::Ready(slice))) => {
                let slice: &'a [u8] = slice;
                at.checked_sub(offset).and_then(|skip| slice.get(usize::try_from(skip).ok()?..)).unwrap_or(&[])
            }
            _ => &[],
        }
    }

    /// The `len` bytes that start `skip` bytes ahead, if they lie in the block with the next byte: nearly always.
    #[inline]
    fn here(&self, skip: usize, len: usize) -> Option<&'a [u8]> {
        let end = skip.checked_add(len).filter(|&end| end <= self.remaining)?;
        self.part(self.place, self.at).get(skip..end)
    }

    /// Calls `each` with the resident pieces of `len` bytes that start `skip` bytes ahead. False when they are not all resident.
    fn pieces(&self, skip: usize, len: usize, mut each: impl FnMut(&'a [u8])) -> bool {
        if skip.checked_add(len).is_none_or(|end| end > self.remaining) {
            return false;
        }
        let (mut at, end) = (self.at, self.at + (skip + len) as u64);
        let from = self.at + skip as u64;
        let mut place = self.place;
        while at < end {
            let part = self.part(place, at);
            if part.is_empty() {
                return false;
            }
            let part_end = at + part.len() as u64;
            if part_end > from {
                let first = from.saturating_sub(at) as usize;
                let last = part.len().min((end - at) as usize);
                if let Some(piece) = part.get(first..last) {
                    each(piece);
                }
            }
            at = part_end;
            place += 1;
        }
        true
    }
}

impl SampleBytes for LinkBytes<'_> {
    fn remaining(&self) -> usize {
        self.remaining
    }

    fn resident(&self) -> usize {
        let (mut at, mut place, mut resident) = (self.at, self.place, 0);
        while resident < self.remaining {
            let part = self.part(place, at);
            if part.is_empty() {
                break;
            }
            resident += part.len();
            at += part.len() as u64;
            place += 1;
        }
        resident.min(self.remaining)
    }

    fn peek(&self, skip: usize, dst: &mut [u8]) -> bool {
        if let Some(bytes) = self.here(skip, dst.len()) {
            dst.copy_from_slice(bytes);
            return true;
        }
        if !self.pieces(skip, dst.len(), |_| {}) {
            return false;
        }
        let mut filled = 0;
        self.pieces(skip, dst.len(), |piece| {
            if let Some(place) = dst.get_mut(filled..filled + piece.len()) {
                place.copy_from_slice(piece);
            }
            filled += piece.len();
        })
    }

    fn take(&mut self, dst: &mut [u8]) -> bool {
        self.peek(0, dst) && self.skip(dst.len())
    }

    fn skip(&mut self, n: usize) -> bool {
        if self.here(0, n).is_none() && !self.pieces(0, n, |_| {}) {
            return false;
        }
        let mut left = n;
        while left > 0 {
            let part = self.part(self.place, self.at).len();
            let step = part.min(left);
            self.at += step as u64;
            self.remaining -= step;
            left -= step;
            if step == part {
                self.place += 1;
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::disks::sim::{SimFile, pattern_byte};
    use crate::gdsl::ready::{End, ReadyLink};

    /// What a packetiser may do with the bytes of a sample.
    #[derive(Clone, Debug)]
    enum Op {
        Peek(usize, usize),
        Take(usize),
        Skip(usize),
    }

    fn op() -> impl Strategy<Value = Op> {
        let len = || prop_oneof![0usize..20, 0usize..3000];
        prop_oneof![(len(), len()).prop_map(|(skip, len)| Op::Peek(skip, len)), len().prop_map(Op::Take), len().prop_map(Op::Skip)]
    }

    proptest! {
        /// Against a plain slice: a sample anywhere in blocks of any size, of which the first ones have arrived.
        #[test]
        fn does_as_a_slice_does(
            block_bytes in prop_oneof![Just(64usize), Just(100), Just(513), Just(4096)],
            before in 0usize..3,
            offset in 0u64..10_000,
            bytes in 0usize..6000,
            here in 0usize..40,
            end in prop_oneof![Just(End::Reading), Just(End::Failed)],
            cut in 0u64..200,
            ops in prop::collection::vec(op(), 1..40),
        ) {
            let size = block_bytes as u64;
            let sample_end = offset + bytes as u64;
            // Of a file that was cut, the last bytes are missing although their block is here.
            let file = SimFile::pattern(9, sample_end.saturating_sub(cut.saturating_sub(100)));
            let first = offset / size;
            let count = (sample_end.max(offset + 1) - 1) / size - first + 1;
            let own = (0..count).map(|i| ((first + i) * size, if (i as usize) < here { End::Read } else { end }));
            let wanted: Vec<_> = (0..before).map(|i| ((first + count + 5 + i as u64) * size, End::Read)).chain(own).collect();
            let link = ReadyLink::new(&file, block_bytes, &wanted);
            let resident_end = ((first + here.min(count as usize) as u64) * size).min(sample_end).min(file.size()).max(offset);

            let whole: Vec<u8> = (offset..sample_end).map(|at| pattern_byte(9, at)).collect();
            let mut bytes_of = LinkBytes::new(link.view(), before, offset, bytes);
            let mut at = 0;
            for op in ops {
                let resident = (resident_end - offset) as usize - at;
                prop_assert_eq!(bytes_of.remaining(), bytes - at);
                prop_assert_eq!(bytes_of.resident(), resident);
                prop_assert_eq!(bytes_of.position(), offset + at as u64);
                match op {
                    Op::Peek(skip, len) => {
                        let mut dst = vec![0; len];
                        let is_here = skip + len <= resident;
                        prop_assert_eq!(bytes_of.peek(skip, &mut dst), is_here);
                        prop_assert!(!is_here || dst == whole[at + skip..at + skip + len]);
                    }
                    Op::Take(len) => {
                        let mut dst = vec![0; len];
                        let is_here = len <= resident;
                        prop_assert_eq!(bytes_of.take(&mut dst), is_here);
                        if is_here {
                            prop_assert!(dst == whole[at..at + len]);
                            at += len;
                        }
                    }
                    Op::Skip(len) => {
                        let is_here = len <= resident;
                        prop_assert_eq!(bytes_of.skip(len), is_here);
                        at += if is_here { len } else { 0 };
                    }
                }
            }
        }
    }
}
