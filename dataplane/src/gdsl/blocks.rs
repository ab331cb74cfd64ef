//! The blocks that are in memory or on their way there.
//!
//! A block is an aligned piece of a file, as long as a chunk. Links hold counted shares of blocks: two tracks of one title that need the
//! same block share one read and one chunk, and so do two viewers who are close together (unless sharing is switched off). A block whose
//! last share is given back frees its chunk at once (or is kept by the [cache](super::cache)), or, while its read is under way, when the
//! read completes.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use hugepages::{Chunk, ChunkPool, Slice};

use super::cache::Cache;
use crate::disks::{DiskError, ReadDone, ReadRequest};

/// What a block is a piece of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BlockKey {
    /// Identity of the file as it was opened; equal numbers share blocks.
    pub file: u64,
    /// Byte offset in the file, a multiple of the block size.
    pub offset: u64,
}

/// Names a block while somebody holds a share of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockId(u32);

impl BlockId {
    /// Tag of the read that brings the block.
    pub(super) fn tag(self) -> u64 {
        self.0.into()
    }
}

/// How far a block is.
#[derive(Debug)]
pub enum BlockState {
    /// Its read is under way.
    Reading,
    /// Its bytes are here.
    Ready(Slice),
    /// Its read failed.
    Failed(DiskError),
}

/// Tracks of one session ask for a block that they share within this time.
const AGAIN_NS: u64 = 5_000_000_000;

#[derive(Debug)]
struct Entry {
    key: BlockKey,
    shares: u32,
    state: BlockState,
    /// A destination waits for it: first pair in a list through the pairs' own `next_waiter`.
    waiters: Option<u32>,
    in_use: bool,
    /// When it was first asked for, and whether it was again, later than the tracks of one session would.
    first_ns: u64,
    again: bool,
    /// It is a block of a tape: no disk brings it, and the cache does not keep it.
    of_tape: bool,
    /// Of a tape: bytes may still be added to it.
    grows: bool,
}

impl Entry {
    fn new(key: BlockKey, first_ns: u64) -> Self {
        let state = BlockState::Reading;
        Self { key, shares: 1, state, waiters: None, in_use: true, first_ns, again: false, of_tape: false, grows: false }
    }
}

/// A hasher for keys that are numbers already.
#[derive(Default)]
pub(crate) struct Mix(u64);

impl Hasher for Mix {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for &b in bytes {
            self.write_u64(u64::from(b));
        }
    }
    fn write_u64(&mut self, n: u64) {
        let x = (self.0.rotate_left(23) ^ n).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        self.0 = x ^ (x >> 29);
    }
}

/// The table of blocks of one engine core.
#[derive(Debug)]
pub(super) struct Blocks {
    pool: ChunkPool,
    entries: Vec<Entry>,
    free: Vec<u32>,
    by_key: HashMap<BlockKey, u32, BuildHasherDefault<Mix>>,
    /// The last share of a block was given back while its read was under way.
    abandoned: bool,
    cache: Cache,
    now_ns: u64,
}

/// A number for each file.
pub(super) type FileMap = HashMap<u64, u32, BuildHasherDefault<Mix>>;

/// Result of [`Blocks::acquire`].
pub(super) enum Acquired<F> {
    /// A share of a block that is here or on its way already.
    Shared(BlockId),
    /// A share of a new block, and the read that brings it.
    New(BlockId, ReadRequest<F>),
    /// A share of a block that nobody held any more.
    Kept(BlockId),
    /// No chunk is free.
    NoChunk,
}

impl Blocks {
    pub(super) fn new(pool: ChunkPool, readers: usize) -> Self {
        let count = pool.capacity();
        let empty = || Entry { shares: 0, in_use: false, ..Entry::new(BlockKey { file: 0, offset: 0 }, 0) };
        // Failed blocks keep an entry without a chunk until their shares are given back, hence twice the number of chunks.
        let entries: Vec<Entry> = (0..2 * count).map(|_| empty()).collect();
        let free = (0..entries.len() as u32).rev().collect();
        let cache = Cache::new(entries.len(), readers, pool.chunk_bytes());
        let by_key = HashMap::with_capacity_and_hasher(4 * count, BuildHasherDefault::default());
        Self { pool, entries, free, by_key, abandoned: false, cache, now_ns: 0 }
    }

    pub(super) fn pool(&self) -> &ChunkPool {
        &self.pool
    }

    pub(super) fn acquire<F: Clone>(&mut self, key: BlockKey, file: &F, len: usize) -> Acquired<F> {
        if let Some(&index) = self.by_key.get(&key)
            && let Some(entry) = self.entries.get_mut(index as usize)
        {
            entry.shares += 1;
            entry.again |= self.now_ns.saturating_sub(entry.first_ns) > AGAIN_NS;
            if entry.shares == 1 && matches!(entry.state, BlockState::Ready(_)) {
                self.cache.take(index);
                return Acquired::Kept(BlockId(index));
            }
            return Acquired::Shared(BlockId(index));
        }
        if self.free.is_empty() || self.pool.free() == 0 {
            self.make_room();
        }
        let Some(&index) = self.free.last() else { return Acquired::NoChunk };
        let Some(entry) = self.entries.get_mut(index as usize) else { return Acquired::NoChunk };
        let Some(chunk) = self.pool.take() else { return Acquired::NoChunk };
        self.free.pop();
        *entry = Entry::new(key, self.now_ns);
        self.by_key.insert(key, index);
        let read = ReadRequest { tag: u64::from(index), file: file.clone(), offset: key.offset, len, chunk };
        Acquired::New(BlockId(index), read)
    }

    pub(super) fn state(&self, id: BlockId) -> &BlockState {
        match self.entries.get(id.0 as usize) {
            Some(entry) => &entry.state,
            None => &BlockState::Reading,
        }
    }

    /// Somebody has a share of the block that this read brings.
    pub(super) fn is_wanted(&self, tag: u64) -> bool {
        usize::try_from(tag).ok().and_then(|index| self.entries.get(index)).is_some_and(|entry| entry.in_use && entry.shares > 0)
    }

    /// Blocks that may be in the table: tags of reads are below this.
    pub(super) fn tags_max(&self) -> usize {
        self.entries.len()
    }

    /// The pair asks for this block now.
    pub(super) fn reader_at(&mut self, pair: u32, key: BlockKey, now_ns: u64) {
        self.now_ns = now_ns;
        self.cache.reader_at(pair, key.file, key.offset);
    }

    /// The pair asks for no more.
    pub(super) fn reader_left(&mut self, pair: u32) {
        self.cache.reader_left(pair);
    }

    /// Chunks that are free, or kept by nobody but the cache.
    pub(super) fn chunks_free(&self) -> usize {
        self.pool.free() + self.cache.len()
    }

    /// Has the least useful kept block give its chunk back.
    fn make_room(&mut self) {
        if let Some(index) = self.cache.victim(self.now_ns) {
            self.cache.take(index);
            self.forget(index);
        }
    }

    /// A share of the block of a tape: of one that is retained, or of one that is still to come.
    pub(super) fn acquire_of_tape(&mut self, key: BlockKey) -> Option<BlockId> {
        if let Some(&index) = self.by_key.get(&key)
            && let Some(entry) = self.entries.get_mut(index as usize)
        {
            entry.shares += 1;
            return Some(BlockId(index));
        }
        if self.free.is_empty() {
            self.make_room();
        }
        let index = self.free.pop()?;
        if let Some(entry) = self.entries.get_mut(index as usize) {
            *entry = Entry { of_tape: true, ..Entry::new(key, self.now_ns) };
        }
        self.by_key.insert(key, index);
        Some(BlockId(index))
    }

    /// A free chunk that is not for a read.
    pub(super) fn take_chunk(&mut self) -> Option<Chunk> {
        if self.pool.free() == 0 {
            self.make_room();
        }
        self.pool.take()
    }

    /// The block of a tape holds `bytes` now, and may get more if it `grows`. The answer is the first pair that waits for it.
    pub(super) fn set_of_tape(&mut self, id: BlockId, bytes: Slice, grows: bool) -> Option<u32> {
        let entry = self.entries.get_mut(id.0 as usize)?;
        (entry.state, entry.grows) = (BlockState::Ready(bytes), grows);
        entry.waiters.take()
    }

    /// Nothing is added to the block of a tape any more. The answer is the first pair that waits for it.
    pub(super) fn close_of_tape(&mut self, id: BlockId) -> Option<u32> {
        let entry = self.entries.get_mut(id.0 as usize)?;
        entry.grows = false;
        entry.waiters.take()
    }

    /// The block is not here, or not all of it.
    pub(super) fn is_awaited(&self, id: BlockId) -> bool {
        self.entries.get(id.0 as usize).is_none_or(|entry| entry.grows || matches!(entry.state, BlockState::Reading))
    }

    /// Gives one share back.
    pub(super) fn release(&mut self, id: BlockId) {
        let Some(entry) = self.entries.get_mut(id.0 as usize) else { return };
        entry.shares = entry.shares.saturating_sub(1);
        if entry.shares == 0 {
            match entry.state {
                _ if entry.of_tape => self.forget(id.0),
                BlockState::Reading => self.abandoned = true,
                BlockState::Ready(_) if self.cache.is_on() => {
                    let (BlockKey { file, offset }, again) = (entry.key, entry.again);
                    self.cache.keep(id.0, file, offset, again, self.now_ns);
                }
                _ => self.forget(id.0),
            }
        }
    }

    /// Gives one share back; the cache does not keep the block.
    pub(super) fn release_for_good(&mut self, id: BlockId) {
        match self.entries.get_mut(id.0 as usize) {
            Some(entry) if entry.shares == 1 && !matches!(entry.state, BlockState::Reading) => {
                entry.shares = 0;
                self.forget(id.0);
            }
            _ => self.release(id),
        }
    }

    /// Whether reads may have become useless since this was last asked.
    pub(super) fn take_abandoned(&mut self) -> bool {
        std::mem::take(&mut self.abandoned)
    }

    /// Forgets the block of a read that the disk was not given yet, if nobody has a share of it; true when the read is to be dropped.
    pub(super) fn drop_unwanted(&mut self, tag: u64) -> bool {
        let Ok(index) = u32::try_from(tag) else { return false };
        let unwanted = self.entries.get(index as usize).is_some_and(|e| e.in_use && e.shares == 0);
        if unwanted {
            self.forget(index);
        }
        unwanted
    }

    /// Takes a finished read in. The answer is the first pair that waits for the block.
    pub(super) fn complete(&mut self, done: ReadDone) -> Option<u32> {
        let index = u32::try_from(done.tag).ok()?;
        let entry = self.entries.get_mut(index as usize).filter(|e| e.in_use)?;
        match done.result {
            Ok(bytes) => entry.state = BlockState::Ready(done.chunk.freeze(bytes)),
            Err(error) => {
                entry.state = BlockState::Failed(error);
                // Whoever asks from now on gets a fresh try.
                self.by_key.remove(&entry.key);
            }
        }
        let waiters = entry.waiters.take();
        if entry.shares == 0 {
            self.forget(index);
        }
        waiters
    }

    pub(super) fn first_waiter(&self, id: BlockId) -> Option<u32> {
        self.entries.get(id.0 as usize)?.waiters
    }

    pub(super) fn set_first_waiter(&mut self, id: BlockId, pair: Option<u32>) {
        if let Some(entry) = self.entries.get_mut(id.0 as usize) {
            entry.waiters = pair;
        }
    }

    /// Puts `pair` at the head of the block's list of waiters; the answer is the one that was there.
    pub(super) fn wait(&mut self, id: BlockId, pair: u32) -> Option<u32> {
        self.entries.get_mut(id.0 as usize)?.waiters.replace(pair)
    }

    fn forget(&mut self, index: u32) {
        let Some(entry) = self.entries.get_mut(index as usize) else { return };
        if self.by_key.get(&entry.key) == Some(&index) {
            self.by_key.remove(&entry.key);
        }
        entry.state = BlockState::Reading;
        entry.in_use = false;
        entry.waiters = None;
        self.free.push(index);
    }
}
