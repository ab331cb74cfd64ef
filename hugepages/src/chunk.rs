//! A pool of equal chunks in one arena.
//!
//! ```text
//! pool.take() ─► Chunk (one owner, writable) ─► freeze(len) ─► Slice (shared, read-only, counted) ─► back to the pool by itself
//! ```
//!
//! Taking and giving back is lock-free and may happen on different threads (a reader thread fills chunks for an engine core). A pool
//! lives as long as its last chunk.

use std::ops::{Deref, DerefMut, Range};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering, fence};

use crate::arena::{Arena, Backing};

const END_OF_LIST: u32 = u32::MAX;

struct Inner {
    arena: Arena,
    chunk_bytes: usize,
    /// Free list head: index of the first free chunk in the low half, a change count in the high half against the ABA problem.
    head: AtomicU64,
    /// For each chunk, the next free one after it while it is free.
    next: Box<[AtomicU32]>,
    /// For each chunk, how many slices share it.
    shares: Box<[AtomicU32]>,
    free: AtomicUsize,
}

impl Inner {
    fn pop(&self) -> Option<u32> {
        let mut head = self.head.load(Ordering::Acquire);
        loop {
            let index = head as u32;
            if index == END_OF_LIST {
                return None;
            }
            let next = self.next[index as usize].load(Ordering::Relaxed);
            let new = bump(head) | u64::from(next);
            match self.head.compare_exchange_weak(head, new, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => {
                    self.free.fetch_sub(1, Ordering::Relaxed);
                    return Some(index);
                }
                Err(now) => head = now,
            }
        }
    }

    fn push(&self, index: u32) {
        self.free.fetch_add(1, Ordering::Relaxed);
        let mut head = self.head.load(Ordering::Relaxed);
        loop {
            self.next[index as usize].store(head as u32, Ordering::Relaxed);
            let new = bump(head) | u64::from(index);
            match self.head.compare_exchange_weak(head, new, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return,
                Err(now) => head = now,
            }
        }
    }

    fn start_of(&self, index: u32) -> NonNull<u8> {
        // SAFETY: every index handed out is below the number of chunks, so the offset lies inside the arena.
        unsafe { self.arena.base().add(index as usize * self.chunk_bytes) }
    }
}

/// The next change count, with an empty low half.
fn bump(head: u64) -> u64 {
    (head & !u64::from(u32::MAX)).wrapping_add(1 << 32)
}

/// A pool of equal chunks. Clones are handles of the same pool.
#[derive(Clone)]
pub struct ChunkPool {
    inner: Arc<Inner>,
}

impl std::fmt::Debug for ChunkPool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ChunkPool({} of {} chunks of {} bytes free)", self.free(), self.capacity(), self.chunk_bytes())
    }
}

impl ChunkPool {
    /// Cuts `arena` into chunks of `chunk_bytes` (at least 1; what is left over at the end stays unused).
    pub fn new(arena: Arena, chunk_bytes: usize) -> Self {
        Self::with_at_most(arena, chunk_bytes, usize::MAX)
    }

    /// The same with at most `chunks` of them, for what must go the same way on every machine: an arena on huge pages is longer than asked
    /// for.
    pub fn with_at_most(arena: Arena, chunk_bytes: usize, chunks: usize) -> Self {
        let chunk_bytes = chunk_bytes.max(1);
        let count = u32::try_from((arena.len() / chunk_bytes).min(chunks)).unwrap_or(END_OF_LIST - 1).min(END_OF_LIST - 1);
        let next = (1..=count).map(|i| AtomicU32::new(if i == count { END_OF_LIST } else { i })).collect();
        let shares = (0..count).map(|_| AtomicU32::new(0)).collect();
        let first = if count == 0 { END_OF_LIST } else { 0 };
        Self {
            inner: Arc::new(Inner {
                arena,
                chunk_bytes,
                head: AtomicU64::new(u64::from(first)),
                next,
                shares,
                free: AtomicUsize::new(count as usize),
            }),
        }
    }

    /// Takes a free chunk; `None` when all are in use. Its content is whatever its last user left.
    pub fn take(&self) -> Option<Chunk> {
        let index = self.inner.pop()?;
        Some(Chunk { start: self.inner.start_of(index), index, pool: Arc::clone(&self.inner) })
    }

    /// Chunks free now.
    pub fn free(&self) -> usize {
        self.inner.free.load(Ordering::Relaxed)
    }

    /// Chunks in all.
    pub fn capacity(&self) -> usize {
        self.inner.next.len()
    }

    /// Bytes of a chunk.
    pub fn chunk_bytes(&self) -> usize {
        self.inner.chunk_bytes
    }

    /// What pages the pool lies on.
    pub fn backing(&self) -> Backing {
        self.inner.arena.backing()
    }

    /// Start and length of the memory that all chunks lie in, for registration with a device. Chunk `i` starts at `i * chunk_bytes`.
    pub fn region(&self) -> (NonNull<u8>, usize) {
        (self.inner.arena.base(), self.inner.arena.len())
    }
}

/// A chunk with one owner, who may write it.
pub struct Chunk {
    start: NonNull<u8>,
    index: u32,
    pool: Arc<Inner>,
}

// SAFETY: a chunk is the only way to its bytes, so moving it to another thread moves the bytes' only user.
unsafe impl Send for Chunk {}
// SAFETY: `&Chunk` only reads.
unsafe impl Sync for Chunk {}

impl Chunk {
    /// Position in the pool; the chunk's bytes start at `index * chunk_bytes` of the pool's region.
    pub fn index(&self) -> u32 {
        self.index
    }

    /// Ends writing: the first `len` bytes (at most the chunk's size) can be shared from now on.
    pub fn freeze(self, len: usize) -> Slice {
        let this = std::mem::ManuallyDrop::new(self);
        // SAFETY: `this` is never dropped, so its reference of the pool moves into the slice, exactly once.
        let pool = unsafe { std::ptr::read(&this.pool) };
        pool.shares[this.index as usize].store(1, Ordering::Relaxed);
        Slice { start: this.start, len: len.min(pool.chunk_bytes), index: this.index, pool }
    }

    /// To be filled bit by bit, from the front, while readers follow.
    pub fn fill(self) -> FillingChunk {
        FillingChunk { filled: self.freeze(0) }
    }
}

impl Deref for Chunk {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        // SAFETY: the chunk's bytes are mapped as long as the pool lives, initialised (the arena is zeroed), and only this value reaches them.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.pool.chunk_bytes) }
    }
}

impl DerefMut for Chunk {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`, and `&mut self` makes the borrow unique.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.pool.chunk_bytes) }
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        self.pool.push(self.index);
    }
}

impl std::fmt::Debug for Chunk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Chunk({})", self.index)
    }
}

/// A chunk that is filled from its front to its end while what is in it can be read.
pub struct FillingChunk {
    /// What was written; the one share that this value holds.
    filled: Slice,
}

impl FillingChunk {
    /// Bytes that were written.
    pub fn len(&self) -> usize {
        self.filled.len
    }

    /// True when nothing was written.
    pub fn is_empty(&self) -> bool {
        self.filled.len == 0
    }

    /// Writes as many of `bytes` as fit behind what is there; how many that is.
    pub fn append(&mut self, bytes: &[u8]) -> usize {
        let count = bytes.len().min(self.filled.pool.chunk_bytes - self.filled.len);
        // SAFETY: `len + count` is at most the chunk's size. No slice reaches beyond `len`: each was made by `filled` when `len` was at
        // most what it is now, or is a part of such a one; and this value, which nobody else has, is the only way to the bytes behind it.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.filled.start.as_ptr().add(self.filled.len), count) };
        self.filled.len += count;
        count
    }

    /// A share of what was written so far.
    pub fn filled(&self) -> Slice {
        self.filled.clone()
    }
}

impl std::fmt::Debug for FillingChunk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "FillingChunk(chunk {}, {} bytes)", self.filled.index, self.filled.len)
    }
}

/// A counted, read-only share of a chunk. The last one gives the chunk back.
pub struct Slice {
    start: NonNull<u8>,
    len: usize,
    index: u32,
    pool: Arc<Inner>,
}

// SAFETY: the bytes are read-only while slices exist, and the count is atomic.
unsafe impl Send for Slice {}
// SAFETY: as above.
unsafe impl Sync for Slice {}

impl Slice {
    /// A share of a part of this slice; `None` when the range does not lie inside.
    pub fn sub(&self, range: Range<usize>) -> Option<Slice> {
        if range.start > range.end || range.end > self.len {
            return None;
        }
        let mut share = self.clone();
        // SAFETY: `range.start <= len`, so the pointer stays inside the chunk or at its end.
        share.start = unsafe { share.start.add(range.start) };
        share.len = range.end - range.start;
        Some(share)
    }
}

impl Clone for Slice {
    fn clone(&self) -> Self {
        self.pool.shares[self.index as usize].fetch_add(1, Ordering::Relaxed);
        Self { start: self.start, len: self.len, index: self.index, pool: Arc::clone(&self.pool) }
    }
}

impl Deref for Slice {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        // SAFETY: the range lies inside the chunk, which nobody writes while a slice of it exists, and the pool keeps it mapped.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl Drop for Slice {
    fn drop(&mut self) {
        if self.pool.shares[self.index as usize].fetch_sub(1, Ordering::Release) == 1 {
            // The reads of all other sharers happened before their decrements; this orders them before the chunk's next use.
            fence(Ordering::Acquire);
            self.pool.push(self.index);
        }
    }
}

impl std::fmt::Debug for Slice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Slice(chunk {}, {} bytes)", self.index, self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pool(chunks: usize, chunk_bytes: usize) -> ChunkPool {
        let pool = ChunkPool::new(Arena::new(chunks * chunk_bytes).unwrap(), chunk_bytes);
        assert!(pool.capacity() >= chunks);
        pool
    }

    #[test]
    fn no_more_chunks_than_asked_for() {
        for chunks in [0, 1, 3] {
            let pool = ChunkPool::with_at_most(Arena::new(4 * 4096).unwrap(), 4096, chunks);
            assert_eq!((pool.capacity(), pool.free()), (chunks, chunks));
            let taken: Vec<Chunk> = std::iter::from_fn(|| pool.take()).collect();
            assert_eq!(taken.len(), chunks);
        }
    }

    #[test]
    fn slices_give_the_chunk_back_when_the_last_is_gone() {
        let pool = pool(2, 4096);
        let all = pool.capacity();
        let mut chunk = pool.take().unwrap();
        chunk[..3].copy_from_slice(b"abc");
        let slice = chunk.freeze(3);
        let tail = slice.sub(1..3).unwrap();
        assert_eq!((&*slice, &*tail), (&b"abc"[..], &b"bc"[..]));
        assert!(slice.sub(2..4).is_none());
        drop(slice);
        assert_eq!(pool.free(), all - 1);
        drop(tail);
        assert_eq!(pool.free(), all);
    }

    #[test]
    fn a_chunk_is_read_while_it_is_filled() {
        let pool = pool(1, 4096);
        let all = pool.capacity();
        let mut filling = pool.take().unwrap().fill();
        assert!(filling.is_empty() && filling.filled().is_empty());
        let mut shares = vec![filling.filled()];
        for n in 0..5000usize {
            let written = filling.append(&[n as u8, (n >> 8) as u8]);
            assert_eq!(written, if n < 2048 { 2 } else { 0 });
            shares.push(filling.filled());
        }
        assert_eq!(filling.len(), 4096);
        drop(filling);
        for (n, share) in shares.iter().enumerate() {
            assert_eq!(share.len(), (2 * n).min(4096));
            assert!(share.chunks(2).enumerate().all(|(i, pair)| pair == [i as u8, (i >> 8) as u8]));
        }
        assert_eq!(pool.free(), all - 1);
        drop(shares);
        assert_eq!(pool.free(), all);
    }

    #[test]
    fn a_chunk_outlives_its_pool_handle() {
        let pool = pool(1, 4096);
        let slice = pool.take().unwrap().freeze(10);
        drop(pool);
        assert_eq!(slice.len(), 10);
    }

    #[test]
    fn threads_take_and_give_back_without_losing_chunks() {
        let pool = pool(8, 4096);
        let all = pool.capacity();
        std::thread::scope(|scope| {
            for id in 0..4u8 {
                let pool = &pool;
                scope.spawn(move || {
                    for _ in 0..20_000 {
                        if let Some(mut chunk) = pool.take() {
                            chunk[0] = id;
                            let slice = chunk.freeze(1);
                            let other = slice.clone();
                            assert_eq!((slice[0], other[0]), (id, id));
                        }
                    }
                });
            }
        });
        assert_eq!(pool.free(), all);
        assert_eq!(std::iter::from_fn(|| pool.take()).collect::<Vec<_>>().len(), all);
    }

    proptest! {
        /// Random takes, freezes, shares and drops against a plain count of what is out.
        #[test]
        fn random_use_keeps_count(ops in proptest::collection::vec((0u8..4, any::<prop::sample::Index>()), 1..200)) {
            let pool = pool(16, 4096);
            let all = pool.capacity();
            let mut chunks: Vec<Chunk> = Vec::new();
            let mut slices: Vec<Slice> = Vec::new();
            for (op, at) in ops {
                match op {
                    0 => chunks.extend(pool.take()),
                    1 if !chunks.is_empty() => { let c = chunks.swap_remove(at.index(chunks.len())); slices.push(c.freeze(100)); }
                    2 if !slices.is_empty() => { let s = slices[at.index(slices.len())].clone(); slices.push(s); }
                    3 if !slices.is_empty() => { slices.swap_remove(at.index(slices.len())); }
                    _ => {}
                }
                let mut out: Vec<u32> = slices.iter().map(|s| s.index).chain(chunks.iter().map(Chunk::index)).collect();
                out.sort_unstable();
                out.dedup();
                prop_assert_eq!(pool.free(), all - out.len());
            }
        }
    }
}
