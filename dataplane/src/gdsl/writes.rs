//! What destinations write to files: who wrote what, and what became of it.
//!
//! ```text
//! upcall: io.write(file, offset, slice) ─► cyclic scheduler, best-effort ─► disk ─► upcall: io.take_written()
//! ```
//!
//! A write holds a share of the slice, so nothing is copied, and the block may leave the link as soon as its write is issued. A pair has at
//! most [`WRITES_PER_PAIR_MAX`] writes that it has not taken note of; each one that ends upcalls the destination.

use stack::host::Host;

use super::{End, Gdsl, IssueModule, PairId};
use crate::disks::{Disk, DiskError, WriteDone};

/// Writes of one pair that are under way, or ended and were not taken note of.
pub const WRITES_PER_PAIR_MAX: usize = 8;

/// Result of [`super::IoBatch::write`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteIssue {
    /// It is on its way.
    Issued,
    /// The pair has as many as it may; return `NextUpcall::Never`: one that ends brings the next upcall.
    NoRoom,
    /// All pairs together have as many as they may; try again a little later.
    Busy,
}

/// A write that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// Where in the file.
    pub offset: u64,
    /// Bytes.
    pub bytes: usize,
    /// All of them were written, or why not.
    pub result: Result<(), DiskError>,
}

/// A write.
#[derive(Clone, Copy, Debug)]
struct Slot {
    pair: Option<PairId>,
    written: Written,
    /// The pair's write that ended after this one.
    after: Option<u32>,
}

const EMPTY: Slot = Slot { pair: None, written: Written { offset: 0, bytes: 0, result: Ok(()) }, after: None };

/// What a pair has written.
#[derive(Clone, Copy, Debug, Default)]
struct OfPair {
    under_way: u16,
    ended: u16,
    /// The list of those that ended.
    first: Option<u32>,
    last: Option<u32>,
}

/// The table of writes of one engine core.
#[derive(Debug)]
pub(super) struct Writes {
    slots: Vec<Slot>,
    free: Vec<u32>,
    pairs: Vec<OfPair>,
    /// A pair went that had writes under way.
    abandoned: bool,
    /// Answers of the disk, on their way through.
    pub(super) done: Vec<WriteDone>,
}

impl Writes {
    /// A table for `pairs` pairs and `writes_max` writes at once.
    pub(super) fn new(pairs: usize, writes_max: usize) -> Self {
        Self {
            slots: vec![EMPTY; writes_max],
            free: (0..writes_max as u32).rev().collect(),
            pairs: vec![OfPair::default(); pairs],
            abandoned: false,
            done: Vec::with_capacity(writes_max.min(64)),
        }
    }

    /// A tag for a write of the pair, or why there is none.
    pub(super) fn begin(&mut self, pair: PairId, offset: u64, bytes: usize) -> Result<u64, WriteIssue> {
        let of_pair = self.pairs.get_mut(pair.place()).ok_or(WriteIssue::Busy)?;
        if usize::from(of_pair.under_way + of_pair.ended) >= WRITES_PER_PAIR_MAX {
            return Err(WriteIssue::NoRoom);
        }
        let tag = self.free.pop().ok_or(WriteIssue::Busy)?;
        let written = Written { offset, bytes, result: Ok(()) };
        *self.slots.get_mut(tag as usize).ok_or(WriteIssue::Busy)? = Slot { pair: Some(pair), written, after: None };
        of_pair.under_way += 1;
        Ok(tag.into())
    }

    /// Writes of the pair that have not ended.
    pub(super) fn under_way(&self, pair: PairId) -> usize {
        self.pairs.get(pair.place()).map_or(0, |of_pair| of_pair.under_way.into())
    }

    /// The pair that made this write is still there.
    pub(super) fn is_wanted(&self, tag: u64) -> bool {
        self.slots.get(tag as usize).is_some_and(|slot| slot.pair.is_some())
    }

    /// Takes in the end of a write; the pair to be upcalled.
    pub(super) fn complete(&mut self, done: &WriteDone) -> Option<PairId> {
        let tag = u32::try_from(done.tag).ok()?;
        let slot = self.slots.get_mut(tag as usize)?;
        let Some(pair) = slot.pair else {
            self.free.push(tag);
            return None;
        };
        slot.written.result = done.result;
        let of_pair = self.pairs.get_mut(pair.place())?;
        of_pair.under_way = of_pair.under_way.saturating_sub(1);
        of_pair.ended += 1;
        match of_pair.last.replace(tag).and_then(|last| self.slots.get_mut(last as usize)) {
            Some(last) => last.after = Some(tag),
            None => of_pair.first = Some(tag),
        }
        Some(pair)
    }

    /// The pair's write that ended first of those that it was not told of.
    pub(super) fn take_written(&mut self, pair: PairId) -> Option<Written> {
        let of_pair = self.pairs.get_mut(pair.place())?;
        let tag = of_pair.first?;
        let slot = std::mem::replace(self.slots.get_mut(tag as usize)?, EMPTY);
        of_pair.first = slot.after;
        if slot.after.is_none() {
            of_pair.last = None;
        }
        of_pair.ended = of_pair.ended.saturating_sub(1);
        self.free.push(tag);
        Some(slot.written)
    }

    /// The pair goes: nobody wants to know of its writes any more.
    pub(super) fn forget(&mut self, pair: PairId) {
        while self.take_written(pair).is_some() {}
        let Some(of_pair) = self.pairs.get_mut(pair.place()) else { return };
        if std::mem::take(of_pair).under_way == 0 {
            return;
        }
        self.abandoned = true;
        for slot in self.slots.iter_mut().filter(|slot| slot.pair == Some(pair)) {
            slot.pair = None;
        }
    }

    /// Whether writes may have become useless since this was last asked.
    pub(super) fn take_abandoned(&mut self) -> bool {
        std::mem::take(&mut self.abandoned)
    }

    /// Forgets a write that the disk was not given yet, if nobody wants it; true when it is to be dropped.
    pub(super) fn drop_unwanted(&mut self, tag: u64) -> bool {
        let unwanted = !self.is_wanted(tag);
        if unwanted && let Ok(tag) = u32::try_from(tag) {
            self.free.push(tag);
        }
        unwanted
    }
}

impl<H: Host, D: Disk, S: IssueModule<H, D>, T: IssueModule<H, D>> Gdsl<H, D, S, T> {
    /// Takes in what the disk has written, and upcalls whose it is; how many writes that is.
    pub(super) fn reap_writes(&mut self, now_ns: u64) -> u64 {
        if self.disk.in_flight() == 0 {
            return 0;
        }
        let mut done = std::mem::take(&mut self.writes.done);
        self.disk.reap_writes(now_ns, &mut done);
        let answers = done.len() as u64;
        for write in done.drain(..) {
            let wanted = self.writes.is_wanted(write.tag);
            let Some(write) = self.reads.finish_write::<D>(now_ns, write, wanted) else { continue };
            if let Some(pair) = self.writes.complete(&write) {
                self.wake(pair, End::Destination, now_ns);
            }
        }
        self.writes.done = done;
        answers
    }
}
