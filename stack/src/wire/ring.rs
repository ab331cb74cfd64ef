//! A queue of frames in a ring of equal pieces of memory, allocated once.

use std::collections::VecDeque;

pub(super) struct FrameRing {
    bytes: Box<[u8]>,
    frame_bytes: usize,
    lens: VecDeque<usize>,
    capacity: usize,
    head: usize,
}

impl FrameRing {
    pub(super) fn new(capacity: usize, frame_bytes: usize) -> Self {
        let bytes = vec![0; capacity * frame_bytes].into_boxed_slice();
        Self { bytes, frame_bytes, lens: VecDeque::with_capacity(capacity), capacity, head: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.lens.len()
    }

    /// The next free frame, whole.
    pub(super) fn tail(&mut self) -> Option<&mut [u8]> {
        if self.lens.len() == self.capacity {
            return None;
        }
        let at = (self.head + self.lens.len()) % self.capacity * self.frame_bytes;
        self.bytes.get_mut(at..at + self.frame_bytes)
    }

    /// Keeps the first `len` bytes of the frame that `tail` gave.
    pub(super) fn keep(&mut self, len: usize) {
        if self.lens.len() < self.capacity {
            self.lens.push_back(len.min(self.frame_bytes));
        }
    }

    /// Copies a frame in; false when it is too long or the ring is full.
    pub(super) fn push(&mut self, frame: &[u8]) -> bool {
        let Some(room) = self.tail().and_then(|room| room.get_mut(..frame.len())) else { return false };
        room.copy_from_slice(frame);
        self.keep(frame.len());
        true
    }

    /// The frame `nth` behind the oldest.
    pub(super) fn nth(&self, nth: usize) -> Option<&[u8]> {
        let len = *self.lens.get(nth)?;
        let at = (self.head + nth) % self.capacity * self.frame_bytes;
        self.bytes.get(at..at + len)
    }

    /// Drops the oldest.
    pub(super) fn pop(&mut self) {
        if self.lens.pop_front().is_some() {
            self.head = (self.head + 1) % self.capacity;
        }
    }
}
