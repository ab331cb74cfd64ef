//! Payload memory: blocks from one preallocated pool, linked into chains that grow and shrink as connections need them. A connection
//! without queued bytes holds no block.

/// Bytes of a block.
pub(super) const BLOCK_BYTES: usize = 4096;
/// No block: the end of a chain.
pub(super) const NONE: u32 = u32::MAX;

/// All blocks of one core.
#[derive(Debug)]
pub(super) struct Blocks {
    data: Box<[u8]>,
    next: Box<[u32]>,
    first_free: u32,
    free: usize,
}

/// A place in a chain. With `offset == BLOCK_BYTES` it is the end of the last block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cursor {
    pub block: u32,
    pub offset: u32,
}

impl Blocks {
    pub fn new(bytes: usize) -> Self {
        let count = bytes.div_ceil(BLOCK_BYTES).clamp(1, NONE as usize - 1);
        let mut data = vec![0; count * BLOCK_BYTES].into_boxed_slice();
        // The first touch of a page is slow: here, not when a packet waits.
        data.chunks_mut(BLOCK_BYTES).for_each(|block| block[0] = std::hint::black_box(1));
        let next = (1..=count as u32).map(|next| if next == count as u32 { NONE } else { next }).collect();
        Self { data, next, first_free: 0, free: count }
    }

    pub fn free(&self) -> usize {
        self.free
    }

    pub fn count(&self) -> usize {
        self.next.len()
    }

    fn take(&mut self) -> Option<u32> {
        let block = self.first_free;
        let next = self.next.get_mut(block as usize)?;
        self.first_free = std::mem::replace(next, NONE);
        self.free -= 1;
        Some(block)
    }

    fn give_back(&mut self, block: u32) -> u32 {
        let Some(next) = self.next.get_mut(block as usize) else { return NONE };
        let after = std::mem::replace(next, self.first_free);
        self.first_free = block;
        self.free += 1;
        after
    }

    fn next(&self, block: u32) -> u32 {
        self.next.get(block as usize).copied().unwrap_or(NONE)
    }

    fn bytes(&self, block: u32) -> &[u8] {
        let start = block as usize * BLOCK_BYTES;
        self.data.get(start..start + BLOCK_BYTES).unwrap_or_default()
    }

    fn bytes_mut(&mut self, block: u32) -> &mut [u8] {
        let start = block as usize * BLOCK_BYTES;
        self.data.get_mut(start..start + BLOCK_BYTES).unwrap_or_default()
    }

    /// The same place, in the next block if it is the end of one that has a next.
    pub fn normal(&self, at: Cursor) -> Cursor {
        let next = self.next(at.block);
        if at.offset as usize == BLOCK_BYTES && next != NONE { Cursor { block: next, offset: 0 } } else { at }
    }

    /// The place `bytes` farther on, inside the chain.
    pub fn advance(&self, at: Cursor, bytes: usize) -> Cursor {
        let (mut block, mut offset) = (at.block, at.offset as usize + bytes);
        while offset > BLOCK_BYTES {
            offset -= BLOCK_BYTES;
            block = self.next(block);
        }
        self.normal(Cursor { block, offset: offset as u32 })
    }

    /// Copies out what starts at `at`; what the chain does not have stays as it is in `out`.
    pub fn read(&self, at: Cursor, out: &mut [u8]) {
        let (mut at, mut out) = (self.normal(at), out);
        while !out.is_empty() && at.block != NONE {
            let from = self.bytes(at.block).get(at.offset as usize..).unwrap_or_default();
            let len = from.len().min(out.len());
            let (now, later) = out.split_at_mut(len);
            now.copy_from_slice(&from[..len]);
            out = later;
            at = Cursor { block: self.next(at.block), offset: 0 };
        }
    }

    /// Copies into the chain from `at` on, which has room for all of `bytes`. Returns the place behind.
    pub fn write(&mut self, at: Cursor, bytes: &[u8]) -> Cursor {
        let (mut at, mut bytes) = (self.normal(at), bytes);
        while !bytes.is_empty() && at.block != NONE {
            let to = self.bytes_mut(at.block).get_mut(at.offset as usize..).unwrap_or_default();
            let len = to.len().min(bytes.len());
            to[..len].copy_from_slice(&bytes[..len]);
            bytes = &bytes[len..];
            at = self.normal(Cursor { block: at.block, offset: at.offset + len as u32 });
        }
        at
    }

    /// Bytes of memory.
    pub fn memory_bytes(&self) -> usize {
        self.data.len() + std::mem::size_of_val(&*self.next)
    }
}

/// Blocks in a row.
#[derive(Debug)]
pub(super) struct Chain {
    head: u32,
    tail: u32,
    /// Where the first byte is in the first block.
    start: u32,
    blocks: u32,
}

impl Chain {
    pub const EMPTY: Self = Self { head: NONE, tail: NONE, start: 0, blocks: 0 };

    pub fn is_empty(&self) -> bool {
        self.head == NONE
    }

    /// Bytes from the first one to the end of the last block.
    pub fn capacity(&self) -> usize {
        self.blocks as usize * BLOCK_BYTES - self.start as usize
    }

    /// Where the first byte is.
    pub fn front(&self) -> Cursor {
        Cursor { block: self.head, offset: self.start }
    }

    /// Adds blocks until there is room for `bytes`, leaving `reserve` blocks in the pool. False when that is not possible: what was added stays.
    pub fn grow(&mut self, pool: &mut Blocks, bytes: usize, reserve: usize) -> bool {
        while self.capacity() < bytes {
            if pool.free() <= reserve {
                return false;
            }
            let Some(block) = pool.take() else { return false };
            match pool.next.get_mut(self.tail as usize) {
                Some(next) => *next = block,
                None => self.head = block,
            }
            self.tail = block;
            self.blocks += 1;
        }
        true
    }

    /// Drops bytes in front, and the blocks that held them.
    pub fn drop_front(&mut self, pool: &mut Blocks, bytes: usize) {
        let mut start = self.start as usize + bytes;
        while start >= BLOCK_BYTES && self.head != NONE {
            start -= BLOCK_BYTES;
            self.head = pool.give_back(self.head);
            self.blocks -= 1;
        }
        self.start = start as u32;
        if self.blocks == 0 {
            *self = Self::EMPTY;
        }
    }

    /// Gives all blocks back.
    pub fn clear(&mut self, pool: &mut Blocks) {
        // `give_back` links the block to the free ones, so the end is counted, not looked for.
        for _ in 0..self.blocks {
            self.head = pool.give_back(self.head);
        }
        *self = Self::EMPTY;
    }
}
