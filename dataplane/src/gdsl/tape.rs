//! Tapes: files in memory that are appended to at one end while any number of readers follow.
//!
//! ```text
//!   first               mark                      end
//!     │                  │                         │
//!     ▼                  ▼                         ▼
//!   [ block ][ block ][ block ][ block ][ block ][ blo....][ to come ][ to come ]
//!     └─ retained: the newest `blocks_max` ──────────┘        └─ readers may have them in their links
//! ```
//!
//! A tape is made of the same counted blocks as files are: a reader has shares of them in its link, sees the block that is being filled
//! grow, and waits for bytes as it waits for a disk. When the tape is full its oldest block is released, and goes when the last link has
//! let go of it. Appending costs as many steps as there are readers that wait at the end, and nothing for the others.
//!
//! The mark is the newest place at which a late reader may start. What a tape holds means nothing here.

use std::collections::VecDeque;

use hugepages::FillingChunk;
use stack::host::Host;

use super::blocks::{BlockId, BlockKey, Blocks};
use super::{Gdsl, IssueModule};
use crate::disks::Disk;

/// Blocks that one append may begin.
const BLOCKS_PER_APPEND_MAX: usize = 64;
/// Keys of tapes' blocks have this bit, those of files do not.
const TAPE_KEY: u64 = 1 << 63;

/// Names a tape of an executor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TapeId {
    index: u32,
    generation: u32,
}

impl TapeId {
    /// No tape of any executor.
    pub const NONE: Self = Self { index: u32::MAX, generation: 0 };
}

/// Where a tape is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TapePlace {
    /// Offset of the oldest byte that is retained, the start of a block.
    pub first: u64,
    /// Offset behind the newest byte.
    pub end: u64,
    /// Where a late reader may start, and the number that was given with it; `None` when no such place is retained.
    pub mark: Option<(u64, u64)>,
    /// Nothing will be appended any more.
    pub ended: bool,
}

/// Why nothing was appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Append {
    /// There is no such tape, or it has ended.
    #[error("no such tape, or it has ended")]
    NoTape,
    /// It is longer than the tape retains.
    #[error("longer than the tape retains")]
    TooLong,
    /// No buffer is free.
    #[error("no buffer is free")]
    NoChunk,
}

/// A tape; built off the engine core.
#[derive(Debug)]
pub struct Tape {
    key: u64,
    blocks: VecDeque<BlockId>,
    blocks_max: usize,
    /// The last of `blocks`, while it has room.
    filling: Option<FillingChunk>,
    place: TapePlace,
}

impl Tape {
    /// A tape that retains up to `blocks_max` blocks (at least 2).
    pub fn new(blocks_max: usize) -> Self {
        let blocks_max = blocks_max.max(2);
        Self { key: 0, blocks: VecDeque::with_capacity(blocks_max), blocks_max, filling: None, place: TapePlace::default() }
    }

    pub(super) fn append(
        &mut self,
        blocks: &mut Blocks,
        parts: &[&[u8]],
        mark: Option<u64>,
        waiters: &mut [Option<u32>; BLOCKS_PER_APPEND_MAX + 1],
    ) -> Result<u64, Append> {
        if self.place.ended {
            return Err(Append::NoTape);
        }
        let block_bytes = blocks.pool().chunk_bytes();
        let bytes = parts.iter().map(|part| part.len()).sum::<usize>();
        let room = self.filling.as_ref().map_or(0, |filling| block_bytes - filling.len());
        let needed = bytes.saturating_sub(room).div_ceil(block_bytes);
        // The block that is being filled stays: a record may begin in it.
        if needed >= self.blocks_max || needed > BLOCKS_PER_APPEND_MAX {
            return Err(Append::TooLong);
        }
        if blocks.chunks_free() < needed {
            return Err(Append::NoChunk);
        }
        let at = self.place.end;
        let mut waiters = waiters.iter_mut();
        for part in parts {
            let mut rest = *part;
            while !rest.is_empty() {
                if self.filling.is_none() {
                    self.begin_block(blocks).ok_or(Append::NoChunk)?;
                }
                let Some(filling) = self.filling.as_mut() else { return Err(Append::NoChunk) };
                let written = filling.append(rest);
                rest = rest.get(written..).unwrap_or(&[]);
                self.place.end += written as u64;
                if filling.len() == block_bytes {
                    let woken = self.show_filling(blocks, false);
                    if let Some(place) = waiters.next() {
                        *place = woken;
                    }
                    self.filling = None;
                }
            }
        }
        let woken = self.show_filling(blocks, true);
        if let Some(place) = waiters.next() {
            *place = woken;
        }
        if let Some(number) = mark {
            self.place.mark = Some((at, number));
        }
        Ok(at)
    }

    /// Has readers see all that the block being filled holds.
    fn show_filling(&self, blocks: &mut Blocks, grows: bool) -> Option<u32> {
        let (filling, &block) = (self.filling.as_ref()?, self.blocks.back()?);
        blocks.set_of_tape(block, filling.filled(), grows)
    }

    fn begin_block(&mut self, blocks: &mut Blocks) -> Option<()> {
        if self.blocks.len() >= self.blocks_max {
            self.release_oldest(blocks);
        }
        let chunk = blocks.take_chunk()?;
        let block = blocks.acquire_of_tape(BlockKey { file: self.key, offset: self.place.end })?;
        self.blocks.push_back(block);
        self.filling = Some(chunk.fill());
        Some(())
    }

    fn release_oldest(&mut self, blocks: &mut Blocks) {
        let Some(block) = self.blocks.pop_front() else { return };
        blocks.release(block);
        self.place.first += blocks.pool().chunk_bytes() as u64;
        self.place.mark = self.place.mark.filter(|&(at, _)| at >= self.place.first);
    }

    pub(super) fn end(&mut self, blocks: &mut Blocks) -> Option<u32> {
        self.place.ended = true;
        self.filling = None;
        blocks.close_of_tape(*self.blocks.back()?)
    }

    pub(super) fn clear(&mut self, blocks: &mut Blocks) {
        self.filling = None;
        while let Some(block) = self.blocks.pop_front() {
            blocks.release(block);
        }
        self.place = TapePlace::default();
    }
}

#[derive(Debug, Default)]
struct Slot {
    generation: u32,
    tape: Option<Box<Tape>>,
}

/// The tapes of an executor.
#[derive(Debug)]
pub(super) struct Tapes {
    slots: Vec<Slot>,
    next_key: u64,
}

impl Tapes {
    pub(super) fn new(max: u32) -> Self {
        Self { slots: (0..max).map(|_| Slot::default()).collect(), next_key: TAPE_KEY }
    }

    pub(super) fn add(&mut self, mut tape: Box<Tape>) -> Result<TapeId, Box<Tape>> {
        let Some(index) = self.slots.iter().position(|slot| slot.tape.is_none()) else { return Err(tape) };
        let Some(slot) = self.slots.get_mut(index) else { return Err(tape) };
        tape.key = self.next_key;
        self.next_key += 1;
        slot.tape = Some(tape);
        Ok(TapeId { index: index as u32, generation: slot.generation })
    }

    pub(super) fn remove(&mut self, id: TapeId) -> Option<Box<Tape>> {
        let slot = self.slots.get_mut(id.index as usize).filter(|slot| slot.generation == id.generation)?;
        slot.generation = slot.generation.wrapping_add(1);
        slot.tape.take()
    }

    /// Takes the tape out until it is put back.
    pub(super) fn take(&mut self, id: TapeId) -> Option<Box<Tape>> {
        self.slots.get_mut(id.index as usize).filter(|slot| slot.generation == id.generation)?.tape.take()
    }

    pub(super) fn put_back(&mut self, id: TapeId, tape: Box<Tape>) {
        if let Some(slot) = self.slots.get_mut(id.index as usize) {
            slot.tape = Some(tape);
        }
    }

    pub(super) fn get_mut(&mut self, id: TapeId) -> Option<&mut Tape> {
        self.slots.get_mut(id.index as usize).filter(|slot| slot.generation == id.generation)?.tape.as_deref_mut()
    }

    fn get(&self, id: TapeId) -> Option<&Tape> {
        self.slots.get(id.index as usize).filter(|slot| slot.generation == id.generation)?.tape.as_deref()
    }

    pub(super) fn place(&self, id: TapeId) -> Option<TapePlace> {
        self.get(id).map(|tape| tape.place)
    }

    pub(super) fn key_of(&self, id: TapeId, offset: u64) -> Option<BlockKey> {
        self.get(id).map(|tape| BlockKey { file: tape.key, offset })
    }
}

impl<H: Host, D: Disk, S: IssueModule<H, D>, T: IssueModule<H, D>> Gdsl<H, D, S, T> {
    /// Takes over a tape.
    ///
    /// # Errors
    /// Gives the tape back when the table is full ([`GdslConfig::tapes_max`]).
    pub fn add_tape(&mut self, tape: Box<Tape>) -> Result<TapeId, Box<Tape>> {
        self.tapes.add(tape)
    }

    /// Gives the tape back, empty; what its readers have in their links stays there. Readers find it gone.
    pub fn remove_tape(&mut self, id: TapeId) -> Option<Box<Tape>> {
        self.end_tape(id, 0);
        let mut tape = self.tapes.remove(id)?;
        tape.clear(&mut self.blocks);
        Some(tape)
    }

    /// Appends `parts`, one after another, all or nothing, and upcalls the readers that wait at the end. With a `mark` the place where
    /// they begin becomes the one where readers may start; its number means something to whoever appends and reads.
    ///
    /// # Errors
    /// [`Append`]: nothing was appended.
    pub fn append(&mut self, id: TapeId, parts: &[&[u8]], mark: Option<u64>, now_ns: u64) -> Result<u64, Append> {
        let mut tape = self.tapes.take(id).ok_or(Append::NoTape)?;
        let mut waiters = [None; BLOCKS_PER_APPEND_MAX + 1];
        let result = tape.append(&mut self.blocks, parts, mark, &mut waiters);
        self.tapes.put_back(id, tape);
        for waiter in waiters {
            self.wake_waiters(waiter, now_ns);
        }
        result
    }

    /// Late readers may not start at the mark any more.
    pub fn unmark(&mut self, id: TapeId) {
        if let Some(tape) = self.tapes.get_mut(id) {
            tape.place.mark = None;
        }
    }

    /// Nothing will be appended any more: upcalls the readers that wait at the end.
    pub fn end_tape(&mut self, id: TapeId, now_ns: u64) {
        let waiter = self.tapes.get_mut(id).and_then(|tape| tape.end(&mut self.blocks));
        self.wake_waiters(waiter, now_ns);
    }

    /// Where the tape is.
    pub fn tape(&self, id: TapeId) -> Option<TapePlace> {
        self.tapes.place(id)
    }
}
