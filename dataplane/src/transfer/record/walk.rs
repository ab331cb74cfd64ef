//! Walks over the records of a tape as they lie in its blocks: headers may begin in one block and end in the next.

use crate::delivery::live::RecordHeader;
use crate::delivery::live::record::HEADER_BYTES;

/// Which records are taken.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Wanted {
    /// What ends before this is left out, nanoseconds on the engine core's clock.
    pub(super) from_ns: u64,
    /// What begins then or later ends the walk.
    pub(super) until_ns: u64,
    /// The first record taken is one that a decoder can start with.
    pub(super) from_sync: bool,
}

/// Where in the records a sink is.
#[derive(Debug, Default)]
pub(super) struct Walk {
    /// Offset on the tape of the next byte to be looked at, and of the first byte that is written.
    at: u64,
    base: u64,
    header: [u8; HEADER_BYTES],
    /// Bytes of the header that were seen.
    have: usize,
    /// Bytes of the access unit that were not.
    body: u64,
    /// The first record was taken.
    begun: bool,
    wanted: Wanted,
}

/// What came of a walk.
pub(super) enum Walked {
    /// All of the bytes were looked at.
    All,
    /// A record was not taken; the walk goes on with it.
    Full,
    /// The record at this offset of the tape, and all after it, are not wanted.
    Until(u64),
}

impl Walk {
    /// A walk that begins with the record at `offset` of the tape; the first byte written is the one at `base`.
    pub(super) fn new(offset: u64, base: u64, wanted: Wanted) -> Self {
        Self { at: offset, base, wanted, ..Self::default() }
    }

    /// Goes on with `bytes`, which lie at `offset` of the tape. `take` is given each record that is wanted, with the place of its access
    /// unit in what is written, and says whether there was room for it.
    pub(super) fn over(&mut self, bytes: &[u8], offset: u64, mut take: impl FnMut(RecordHeader, u64) -> bool) -> Walked {
        loop {
            if self.have == HEADER_BYTES {
                let header = RecordHeader::decode(&self.header);
                if header.at_ns >= self.wanted.until_ns {
                    return Walked::Until(self.at - HEADER_BYTES as u64);
                }
                let begins = header.at_ns.saturating_add(header.span_ns.into()) > self.wanted.from_ns;
                if self.begun || begins && (header.sync || !self.wanted.from_sync) {
                    if !take(header, self.at - self.base) {
                        return Walked::Full;
                    }
                    self.begun = true;
                }
                (self.have, self.body) = (0, header.bytes.into());
            }
            let rest = self.at.checked_sub(offset).and_then(|at| bytes.get(usize::try_from(at).ok()?..)).unwrap_or(&[]);
            if rest.is_empty() {
                return Walked::All;
            }
            if self.body > 0 {
                let seen = self.body.min(rest.len() as u64);
                (self.at, self.body) = (self.at + seen, self.body - seen);
                continue;
            }
            let seen = rest.len().min(HEADER_BYTES - self.have);
            if let (Some(to), Some(from)) = (self.header.get_mut(self.have..self.have + seen), rest.get(..seen)) {
                to.copy_from_slice(from);
            }
            (self.at, self.have) = (self.at + seen as u64, self.have + seen);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// However the tape is cut into blocks, and however often there is no room: each wanted record comes once, in its place.
        #[test]
        fn records_are_found_wherever_the_blocks_end(
            units in prop::collection::vec((0u32..200, any::<bool>()), 1..30),
            block_bytes in 1usize..300,
            (from, until, from_sync) in (0u64..15, 10u64..40, any::<bool>()),
            refusals in prop::collection::vec(any::<bool>(), 0..40),
        ) {
            let (mut tape, mut expected, mut begun, mut ends_at) = (Vec::new(), Vec::new(), false, None);
            for (n, &(bytes, sync)) in units.iter().enumerate() {
                let header = RecordHeader { at_ns: 10 * n as u64, span_ns: 10, bytes, sync, ..RecordHeader::default() };
                if header.at_ns >= 10 * until && ends_at.is_none() {
                    ends_at = Some(tape.len() as u64);
                }
                begun |= n as u64 >= from && (sync || !from_sync);
                tape.extend(header.encode());
                if begun && ends_at.is_none() {
                    expected.push((header, tape.len() as u64));
                }
                tape.extend(std::iter::repeat_n(0xAA, bytes as usize));
            }
            let mut walk = Walk::new(0, 0, Wanted { from_ns: 10 * from, until_ns: 10 * until, from_sync });
            let (mut found, mut ended, mut refusals) = (Vec::new(), None, refusals.into_iter());
            for (n, block) in tape.chunks(block_bytes).enumerate() {
                loop {
                    let take = |header, at| {
                        let has_room = !refusals.next().unwrap_or(false);
                        if has_room {
                            found.push((header, at));
                        }
                        has_room
                    };
                    match walk.over(block, (n * block_bytes) as u64, take) {
                        Walked::All => break,
                        Walked::Full => {}
                        Walked::Until(at) => {
                            ended = Some(at);
                            break;
                        }
                    }
                }
                if ended.is_some() {
                    break;
                }
            }
            prop_assert_eq!(found, expected);
            prop_assert_eq!(ended, ends_at);
        }
    }
}
