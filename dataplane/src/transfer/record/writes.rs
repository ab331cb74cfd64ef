//! A track's writes under way, and how far the file has no gap: writes may end in any order.

use crate::gdsl::WRITES_PER_PAIR_MAX;

/// A track's writes, by their numbers.
#[derive(Debug, Default)]
pub(super) struct Writes {
    pub(super) under_way: usize,
    /// Of the write of number `n`, at `n % WRITES_PER_PAIR_MAX`: its place in the file, its bytes, and whether it has ended well.
    slots: [(u64, u64, bool); WRITES_PER_PAIR_MAX],
    /// All writes below this number have ended well.
    pub(super) settled: u64,
    /// Bytes that they came to.
    pub(super) safe_bytes: u64,
    /// Bytes of all writes that have ended well.
    pub(super) written: u64,
}

impl Writes {
    fn slot(&mut self, number: u64) -> &mut (u64, u64, bool) {
        &mut self.slots[(number % WRITES_PER_PAIR_MAX as u64) as usize]
    }

    /// The write of this number is on its way.
    pub(super) fn begin(&mut self, number: u64, offset: u64, bytes: u64) {
        self.under_way += 1;
        *self.slot(number) = (offset, bytes, false);
    }

    /// The write of `bytes` at `offset` has ended well; `upto` is the number of the next one to be begun.
    pub(super) fn done(&mut self, offset: u64, bytes: u64, upto: u64) {
        self.written += bytes;
        for number in self.settled..upto {
            let slot = self.slot(number);
            slot.2 |= slot.0 == offset;
        }
        while self.settled < upto {
            let settled = self.settled;
            let &mut (_, bytes, true) = self.slot(settled) else { break };
            self.safe_bytes += bytes;
            self.settled += 1;
        }
    }
}
