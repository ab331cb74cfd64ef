//! The two queues of a device: one in order, one in turn.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Where a read stands: first the earlier batches, within a batch by place on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    /// When its batch is needed.
    pub(super) needed_ns: u64,
    /// Number that grows with the file's place on the disk.
    pub(super) file: u64,
    /// Offset in the file.
    pub(super) offset: u64,
}

/// Reads by their place.
#[derive(Debug)]
pub(super) struct Sorted(BinaryHeap<Reverse<(Place, u64)>>);

impl Sorted {
    pub(super) fn with_capacity(reads: usize) -> Self {
        Self(BinaryHeap::with_capacity(reads))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn push(&mut self, place: Place, tag: u64) {
        self.0.push(Reverse((place, tag)));
    }

    pub(super) fn pop(&mut self) -> Option<u64> {
        self.0.pop().map(|Reverse((_, tag))| tag)
    }

    pub(super) fn retain(&mut self, mut keep: impl FnMut(u64) -> bool) {
        self.0.retain(|Reverse((_, tag))| keep(*tag));
    }
}

/// A read's neighbours in the queue that it is in.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct FifoLink {
    before: Option<u32>,
    after: Option<u32>,
}

/// Reads in the order in which they came, linked through a table that all queues share.
#[derive(Debug, Default)]
pub(super) struct Fifo {
    first: Option<u32>,
    last: Option<u32>,
}

impl Fifo {
    pub(super) fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    pub(super) fn push(&mut self, links: &mut [FifoLink], tag: u64) {
        let Some((tag, link)) = u32::try_from(tag).ok().and_then(|tag| Some((tag, links.get_mut(tag as usize)?))) else { return };
        *link = FifoLink { before: self.last, after: None };
        match self.last.replace(tag).and_then(|last| links.get_mut(last as usize)) {
            Some(last) => last.after = Some(tag),
            None => self.first = Some(tag),
        }
    }

    pub(super) fn pop(&mut self, links: &mut [FifoLink]) -> Option<u64> {
        let tag = u64::from(self.first?);
        self.remove(links, tag);
        Some(tag)
    }

    /// Takes a read out that is in this queue.
    pub(super) fn remove(&mut self, links: &mut [FifoLink], tag: u64) {
        let Some(FifoLink { before, after }) = links.get_mut(tag as usize).map(std::mem::take) else { return };
        match before.and_then(|before| links.get_mut(before as usize)) {
            Some(before) => before.after = after,
            None => self.first = after,
        }
        match after.and_then(|after| links.get_mut(after as usize)) {
            Some(after) => after.before = before,
            None => self.last = before,
        }
    }

    pub(super) fn retain(&mut self, links: &mut [FifoLink], mut keep: impl FnMut(u64) -> bool) {
        let mut at = self.first;
        while let Some(tag) = at {
            at = links.get(tag as usize).and_then(|link| link.after);
            if !keep(tag.into()) {
                self.remove(links, tag.into());
            }
        }
    }
}
