//! A sample's bytes where they lie: in the blocks of a link.

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
        if !self.pieces(0, n, |_| {}) {
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
