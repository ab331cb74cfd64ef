//! The send queue and the receive queue of a connection: bytes in chains of blocks.

use super::blocks::{BLOCK_BYTES, Blocks, Chain, Cursor, NONE};
use super::reassembly::{RangeLists, Ranges};
use super::seq::Seq;

/// One part in this many of the pool is kept for received bytes, so that writers cannot stop every reader.
const RECEIVE_SHARE: usize = 8;
const NOWHERE: Cursor = Cursor { block: NONE, offset: 0 };

/// Bytes from the first unacknowledged one on.
#[derive(Debug)]
pub(super) struct SendQueue {
    chain: Chain,
    len: usize,
    /// Bytes that were sent at least once.
    sent: usize,
    /// Where the first byte is that was never sent.
    unsent: Cursor,
    end: Cursor,
}

impl SendQueue {
    pub const EMPTY: Self = Self { chain: Chain::EMPTY, len: 0, sent: 0, unsent: NOWHERE, end: NOWHERE };

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn unsent_len(&self) -> usize {
        self.len - self.sent
    }

    /// Bytes that [`SendQueue::push`] would take, with at most `limit` in the queue.
    pub fn room(&self, pool: &Blocks, limit: usize) -> usize {
        let free_blocks = pool.free().saturating_sub(pool.count() / RECEIVE_SHARE);
        let in_last_block = self.chain.capacity() - self.len;
        limit.saturating_sub(self.len).min(in_last_block + free_blocks * BLOCK_BYTES)
    }

    /// Adds as much of `bytes` as the pool has room for and returns how much that was.
    pub fn push(&mut self, pool: &mut Blocks, bytes: &[u8]) -> usize {
        self.chain.grow(pool, self.len + bytes.len(), pool.count() / RECEIVE_SHARE);
        let take = bytes.len().min(self.chain.capacity() - self.len);
        if take == 0 {
            return 0;
        }
        if self.end == NOWHERE {
            (self.unsent, self.end) = (self.chain.front(), self.chain.front());
        }
        self.end = pool.write(self.end, &bytes[..take]);
        self.len += take;
        take
    }

    /// Where the next `len` bytes start that were never sent; they now count as sent.
    pub fn send(&mut self, pool: &Blocks, len: usize) -> Cursor {
        let at = pool.normal(self.unsent);
        let len = len.min(self.unsent_len());
        self.unsent = pool.advance(at, len);
        self.sent += len;
        at
    }

    /// Where the bytes start that [`SendQueue::send`] would count as sent.
    pub fn unsent_at(&self, pool: &Blocks) -> Cursor {
        pool.normal(self.unsent)
    }

    /// Drops acknowledged bytes.
    pub fn acknowledge(&mut self, pool: &mut Blocks, bytes: usize) {
        let bytes = bytes.min(self.sent);
        if bytes == self.len {
            return self.clear(pool);
        }
        // The block that the cursor stands at the end of may go.
        self.unsent = pool.normal(self.unsent);
        self.end = pool.normal(self.end);
        self.chain.drop_front(pool, bytes);
        self.len -= bytes;
        self.sent -= bytes;
    }

    pub fn clear(&mut self, pool: &mut Blocks) {
        self.chain.clear(pool);
        *self = Self::EMPTY;
    }
}

/// Received bytes: those that the reader may have, and behind them those that arrived out of order.
#[derive(Debug)]
pub(super) struct RecvQueue {
    chain: Chain,
    readable: usize,
    /// Where the next byte in order goes; [`NOWHERE`] while the chain is empty.
    next: Cursor,
    ranges: Ranges,
}

impl RecvQueue {
    pub const EMPTY: Self = Self { chain: Chain::EMPTY, readable: 0, next: NOWHERE, ranges: Ranges::EMPTY };

    pub fn readable(&self) -> usize {
        self.readable
    }

    pub fn ranges(&self) -> &Ranges {
        &self.ranges
    }

    /// Bytes that can surely be stored beyond the readable ones.
    pub fn room(&self, pool: &Blocks) -> usize {
        self.chain.capacity() - self.readable + pool.free() * BLOCK_BYTES
    }

    /// Stores bytes that start `gap` after `next_seq`, the next one in order. Returns by how much the bytes in order have grown, or
    /// `None` when nothing could be kept.
    pub fn store(&mut self, pool: &mut Blocks, lists: &mut RangeLists, next_seq: Seq, gap: u32, bytes: &[u8]) -> Option<u32> {
        let offset = self.readable + gap as usize;
        self.chain.grow(pool, offset + bytes.len(), 0);
        let take = bytes.len().min(self.chain.capacity().saturating_sub(offset));
        let start = next_seq + gap;
        if take == 0 || (gap > 0 && !self.ranges.insert(lists, start, start + take as u32)) {
            self.trim(pool);
            return None;
        }
        if self.next == NOWHERE {
            self.next = self.chain.front();
        }
        let at = pool.advance(self.next, gap as usize);
        pool.write(at, &bytes[..take]);
        if gap > 0 {
            return Some(0);
        }
        let end = start + take as u32;
        let end = self.ranges.take_from(lists, end);
        let grown = end.since(next_seq);
        self.next = pool.advance(self.next, grown as usize);
        self.readable += grown as usize;
        Some(grown)
    }

    /// Takes bytes in order.
    pub fn read(&mut self, pool: &mut Blocks, out: &mut [u8]) -> usize {
        let len = out.len().min(self.readable);
        pool.read(self.chain.front(), &mut out[..len]);
        self.next = pool.normal(self.next);
        self.chain.drop_front(pool, len);
        self.readable -= len;
        self.trim(pool);
        len
    }

    /// An empty queue holds no block.
    fn trim(&mut self, pool: &mut Blocks) {
        if self.readable == 0 && self.ranges.is_empty() {
            self.chain.clear(pool);
        }
        if self.chain.is_empty() {
            self.next = NOWHERE;
        }
    }

    pub fn clear(&mut self, pool: &mut Blocks, lists: &mut RangeLists) {
        self.chain.clear(pool);
        self.ranges.clear(lists);
        *self = Self::EMPTY;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    proptest! {
        #[test]
        fn the_send_queue_is_a_queue(ops in prop::collection::vec((0..3u8, 1..9000usize), 1..100)) {
            let mut pool = Blocks::new(16 * BLOCK_BYTES);
            let (mut queue, mut model, mut sent, mut counter) = (SendQueue::EMPTY, VecDeque::new(), Vec::new(), 0u8);
            for (op, len) in ops {
                match op {
                    0 => {
                        let bytes: Vec<u8> = (0..len).map(|_| { counter = counter.wrapping_add(7); counter }).collect();
                        let room = queue.room(&pool, 40_000);
                        let taken = queue.push(&mut pool, &bytes[..len.min(room)]);
                        prop_assert_eq!(taken, len.min(room));
                        model.extend(&bytes[..taken]);
                    }
                    1 => {
                        let from = sent.iter().map(|(_, len)| len).sum::<usize>();
                        let len = len.min(1448).min(queue.unsent_len());
                        prop_assert_eq!(queue.unsent_len(), model.len() - from);
                        if len > 0 { sent.push((queue.send(&pool, len), len)); }
                    }
                    _ => {
                        let count = sent.len() * len / 9000;
                        let bytes: usize = sent.drain(..count).map(|(_, len)| len).sum();
                        queue.acknowledge(&mut pool, bytes);
                        model.drain(..bytes);
                    }
                }
                let mut from = 0;
                for (at, len) in &sent {
                    let mut read = vec![0; *len];
                    pool.read(*at, &mut read);
                    prop_assert!(read.iter().eq(model.range(from..from + len)));
                    from += len;
                }
                prop_assert_eq!(queue.len(), model.len());
            }
            queue.clear(&mut pool);
            prop_assert_eq!(pool.free(), pool.count());
        }

        #[test]
        fn the_receive_queue_puts_bytes_in_order(ops in prop::collection::vec((any::<bool>(), 0..12_000u32, 1..5000usize), 1..100)) {
            let byte = |seq: Seq| (seq.0 / 3) as u8 ^ (seq.0 >> 9) as u8;
            let mut pool = Blocks::new(8 * BLOCK_BYTES);
            let mut lists = RangeLists::new(1);
            let mut queue = RecvQueue::EMPTY;
            let (mut next, mut read_to) = (Seq(u32::MAX - 5000), Seq(u32::MAX - 5000));
            for (read, gap, len) in ops {
                if read {
                    let mut out = vec![0; len];
                    let taken = queue.read(&mut pool, &mut out);
                    prop_assert_eq!(taken, len.min(next.since(read_to) as usize));
                    prop_assert!(out[..taken].iter().enumerate().all(|(i, b)| *b == byte(read_to + i as u32)));
                    read_to = read_to + taken as u32;
                } else {
                    let gap = gap.saturating_sub(4000);
                    let bytes: Vec<u8> = (0..len as u32).map(|i| byte(next + gap + i)).collect();
                    next = next + queue.store(&mut pool, &mut lists, next, gap, &bytes).unwrap_or(0);
                }
                prop_assert_eq!(queue.readable(), next.since(read_to) as usize);
            }
            queue.clear(&mut pool, &mut lists);
            prop_assert_eq!(pool.free(), pool.count());
        }
    }
}
