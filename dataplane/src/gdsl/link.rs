//! The link: a bounded queue of blocks between a source and a destination.
//!
//! A link holds counted shares of blocks, never bytes. A block enters when its read is issued, so the order of the link is the order in
//! which the source asked, whatever order the disk answers in; the destination sees the front only when it has arrived.

use std::collections::VecDeque;

use super::blocks::BlockId;

/// A bounded queue of blocks.
#[derive(Debug)]
pub struct Link {
    slots: VecDeque<(u64, BlockId)>,
    capacity: usize,
    /// The source waits for room.
    pub(super) source_waits: bool,
    /// Where the destination wants the source to go on, in the modules' own terms; the source has not been told yet.
    pub(super) mark: Option<u64>,
    /// Blocks that ever entered.
    pub(super) entered: u64,
}

impl Link {
    /// A link for up to `capacity` blocks (at least 2: one being sent, one being read).
    pub fn new(capacity: usize) -> Self {
        let capacity = capacity.max(2);
        Self { slots: VecDeque::with_capacity(capacity), capacity, source_waits: false, mark: None, entered: 0 }
    }

    /// Blocks that may still enter.
    pub fn room(&self) -> usize {
        self.capacity - self.slots.len()
    }

    /// Blocks in the link.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// True when there are none.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// File offset and block at place `i` from the front.
    pub fn get(&self, i: usize) -> Option<(u64, BlockId)> {
        self.slots.get(i).copied()
    }

    /// Asks for the memory of the front.
    pub(super) fn prefetch(&self) {
        if let Some(front) = self.slots.front() {
            hugepages::prefetch(front);
        }
    }

    pub(super) fn push(&mut self, offset: u64, block: BlockId) {
        debug_assert!(self.room() > 0, "the executor checks for room");
        self.slots.push_back((offset, block));
        self.entered += 1;
    }

    pub(super) fn pop(&mut self) -> Option<(u64, BlockId)> {
        self.slots.pop_front()
    }
}
