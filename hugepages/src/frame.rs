//! A pool of equal frames for one core.
//!
//! Where [`chunk`](crate::chunk) counts and is shared, this is for buffers that never leave their core: taking and giving back is a move
//! on a stack. A [`Frame`] is a ticket that cannot be copied; the bytes are reached through the pool.

use crate::arena::{Arena, Backing};

/// A frame that was taken from a pool. Dropping it instead of giving it back loses it for the pool.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a frame that is not given back is lost to its pool"]
pub struct Frame(u32);

/// A pool of equal frames in one arena.
#[derive(Debug)]
pub struct FramePool {
    arena: Arena,
    frame_bytes: usize,
    free: Vec<u32>,
    capacity: usize,
}

impl FramePool {
    /// Cuts `arena` into frames of `frame_bytes` (at least 1; what is left over at the end stays unused).
    pub fn new(arena: Arena, frame_bytes: usize) -> Self {
        let frame_bytes = frame_bytes.max(1);
        let count = u32::try_from(arena.len() / frame_bytes).unwrap_or(u32::MAX);
        // The lowest addresses are used first, and the last one given back is the next one taken: it is still in the cache.
        Self { arena, frame_bytes, free: (0..count).rev().collect(), capacity: count as usize }
    }

    /// Takes a free frame; `None` when all are in use. Its content is whatever its last user left.
    pub fn take(&mut self) -> Option<Frame> {
        self.free.pop().map(Frame)
    }

    /// Gives a frame back. Frames of another pool, or more than there are, are ignored.
    pub fn give(&mut self, frame: Frame) {
        if self.free.len() < self.capacity && (frame.0 as usize) < self.capacity {
            self.free.push(frame.0);
        }
    }

    /// Where a frame begins in the arena, for registration with a device.
    pub fn offset(&self, frame: &Frame) -> usize {
        frame.0 as usize * self.frame_bytes
    }

    /// The bytes of a frame; none for a frame of another, larger pool.
    pub fn bytes(&self, frame: &Frame) -> &[u8] {
        if frame.0 as usize >= self.capacity {
            return &[];
        }
        // SAFETY: the frame lies inside the arena, whose zeroed memory is initialised. The pool owns the arena and lends its bytes only
        // by its own borrows, so nobody writes them now.
        unsafe { std::slice::from_raw_parts(self.arena.base().as_ptr().add(self.offset(frame)), self.frame_bytes) }
    }

    /// The bytes of a frame, for writing.
    pub fn bytes_mut(&mut self, frame: &Frame) -> &mut [u8] {
        if frame.0 as usize >= self.capacity {
            return &mut [];
        }
        // SAFETY: as in `bytes`; the exclusive borrow of the pool makes this the only reference into the arena.
        unsafe { std::slice::from_raw_parts_mut(self.arena.base().as_ptr().add(self.offset(frame)), self.frame_bytes) }
    }

    /// Frames free now.
    pub fn free(&self) -> usize {
        self.free.len()
    }

    /// Frames in all.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Bytes of a frame.
    pub fn frame_bytes(&self) -> usize {
        self.frame_bytes
    }

    /// What pages the pool lies on.
    pub fn backing(&self) -> Backing {
        self.arena.backing()
    }

    /// The memory, for bus addresses.
    pub fn arena(&self) -> &Arena {
        &self.arena
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn frames_do_not_overlap_and_come_back() {
        let mut pool = FramePool::new(Arena::new(4096).unwrap(), 1000);
        let capacity = pool.capacity();
        let frames: Vec<Frame> = std::iter::from_fn(|| pool.take()).collect();
        assert_eq!((frames.len(), pool.free()), (capacity, 0));
        for (i, frame) in frames.iter().enumerate() {
            pool.bytes_mut(frame).fill(i as u8);
        }
        for (i, frame) in frames.iter().enumerate() {
            assert_eq!(pool.offset(frame), i * 1000);
            assert!(pool.bytes(frame).iter().all(|byte| *byte == i as u8));
        }
        frames.into_iter().for_each(|frame| pool.give(frame));
        assert_eq!(pool.free(), capacity);
    }

    #[test]
    fn a_frame_of_another_pool_reaches_nothing() {
        let mut large = FramePool::new(Arena::new(4096).unwrap(), 10);
        let mut small = FramePool::new(Arena::new(4096).unwrap(), 4096);
        let foreign = (0..=small.capacity()).map(|_| large.take().unwrap()).last().unwrap();
        assert!(small.bytes(&foreign).is_empty() && small.bytes_mut(&foreign).is_empty());
        let own = small.take().unwrap();
        small.give(foreign);
        assert_eq!(small.free(), small.capacity() - 1);
        small.give(own);
    }

    proptest! {
        /// Random takes and gives against a plain count: what is out is out once.
        #[test]
        fn random_use_keeps_count(ops in proptest::collection::vec(any::<(bool, prop::sample::Index)>(), 1..200)) {
            let mut pool = FramePool::new(Arena::new(4096).unwrap(), 512);
            let mut out: Vec<Frame> = Vec::new();
            for (take, at) in ops {
                if take {
                    out.extend(pool.take());
                } else if !out.is_empty() {
                    pool.give(out.swap_remove(at.index(out.len())));
                }
                let mut offsets: Vec<usize> = out.iter().map(|frame| pool.offset(frame)).collect();
                offsets.sort_unstable();
                offsets.dedup();
                prop_assert_eq!(offsets.len(), out.len());
                prop_assert_eq!(pool.free() + out.len(), pool.capacity());
            }
        }
    }
}
