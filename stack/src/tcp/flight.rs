//! The scoreboard: which segments are in flight, when each was sent, and what the peer says of them (RFC 6675, RFC 8985 5).
//!
//! Each segment that was sent and not acknowledged has a record from one preallocated pool. A connection links its records twice: in the
//! order of their sequence numbers, and (those neither lost nor delivered) in the order in which they were last sent. A record also knows
//! where its bytes are, so that sending again needs no search.

use super::blocks::{Blocks, Cursor};
use super::seq::Seq;

const NONE: u32 = u32::MAX;

/// The peer has it (RFC 2018).
const SACKED: u8 = 1;
/// Believed lost, and to be sent again.
const LOST: u8 = 2;
/// Sent more than once.
const RESENT: u8 = 4;
/// Ends with a FIN.
const FIN: u8 = 8;

/// A segment in flight.
#[derive(Clone, Copy, Debug)]
pub(super) struct Record {
    pub start: Seq,
    pub end: Seq,
    /// When it was sent last.
    pub xmit_ns: u64,
    /// Its first byte.
    pub at: Cursor,
    next: u32,
    newer: u32,
    older: u32,
    flags: u8,
}

impl Record {
    pub fn resent(&self) -> bool {
        self.flags & RESENT != 0
    }

    pub fn fin(&self) -> bool {
        self.flags & FIN != 0
    }

    pub fn sacked(&self) -> bool {
        self.flags & SACKED != 0
    }

    /// Length in sequence space.
    pub fn len(&self) -> u32 {
        self.end.since(self.start)
    }

    pub fn payload_len(&self) -> usize {
        (self.len() - u32::from(self.fin())) as usize
    }
}

/// The records of all connections of one core.
#[derive(Debug)]
pub(super) struct Records {
    records: Box<[Record]>,
    first_free: u32,
    free: usize,
    /// Kept for connections that have nothing in flight, so that each of them can always send.
    reserve: usize,
}

impl Records {
    /// Records for `segments`, and one for each connection.
    pub fn new(segments: usize, connections: usize) -> Self {
        let count = segments + connections;
        let at = Cursor { block: NONE, offset: 0 };
        let record = |i: usize| {
            let next = if i + 1 < count { i as u32 + 1 } else { NONE };
            Record { start: Seq(0), end: Seq(0), xmit_ns: 0, at, next, newer: NONE, older: NONE, flags: 0 }
        };
        Self { records: (0..count).map(record).collect(), first_free: 0, free: count, reserve: connections }
    }

    pub fn get(&self, index: u32) -> Option<&Record> {
        self.records.get(index as usize)
    }

    fn get_mut(&mut self, index: u32) -> Option<&mut Record> {
        self.records.get_mut(index as usize)
    }

    fn take(&mut self) -> Option<u32> {
        let index = self.first_free;
        self.first_free = self.get(index)?.next;
        self.free -= 1;
        Some(index)
    }

    fn give_back(&mut self, index: u32) {
        let first_free = self.first_free;
        if let Some(record) = self.get_mut(index) {
            record.next = first_free;
            self.first_free = index;
            self.free += 1;
        }
    }

    pub fn free(&self) -> usize {
        self.free
    }

    /// Bytes of memory.
    pub fn memory_bytes(&self) -> usize {
        std::mem::size_of_val(&*self.records)
    }
}

/// The segments in flight of one connection.
#[derive(Debug)]
pub(super) struct Flight {
    head: u32,
    tail: u32,
    oldest: u32,
    newest: u32,
    /// No record before this one is marked lost; [`NONE`] means the first.
    lost_from: u32,
    count: u32,
    pub sacked_bytes: u32,
    pub sacked_count: u32,
    pub lost_bytes: u32,
}

impl Flight {
    pub const EMPTY: Self = Self {
        head: NONE,
        tail: NONE,
        oldest: NONE,
        newest: NONE,
        lost_from: NONE,
        count: 0,
        sacked_bytes: 0,
        sacked_count: 0,
        lost_bytes: 0,
    };

    pub fn is_empty(&self) -> bool {
        self.head == NONE
    }

    pub fn count(&self) -> u32 {
        self.count
    }

    /// True when a segment more can be recorded.
    pub fn has_room(&self, records: &Records) -> bool {
        records.free() > if self.is_empty() { 0 } else { records.reserve }
    }

    /// A segment was sent for the first time, behind all others. False when there is no record for it.
    pub fn push(&mut self, records: &mut Records, (start, end): (Seq, Seq), at: Cursor, fin: bool, now_ns: u64) -> bool {
        let Some(index) = records.take() else { return false };
        let flags = if fin { FIN } else { 0 };
        records.records[index as usize] = Record { start, end, xmit_ns: now_ns, at, next: NONE, newer: NONE, older: NONE, flags };
        match records.get_mut(self.tail) {
            Some(last) => last.next = index,
            None => self.head = index,
        }
        self.tail = index;
        self.count += 1;
        self.link_newest(records, index);
        true
    }

    fn link_newest(&mut self, records: &mut Records, index: u32) {
        let newest = self.newest;
        match records.get_mut(newest) {
            Some(before) => before.newer = index,
            None => self.oldest = index,
        }
        self.newest = index;
        if let Some(record) = records.get_mut(index) {
            (record.older, record.newer) = (newest, NONE);
        }
    }

    fn unlink_time(&mut self, records: &mut Records, index: u32) {
        let Some(&Record { older, newer, .. }) = records.get(index) else { return };
        match records.get_mut(older) {
            Some(before) => before.newer = newer,
            None => self.oldest = newer,
        }
        match records.get_mut(newer) {
            Some(after) => after.older = older,
            None => self.newest = older,
        }
    }

    pub fn last_index(&self) -> u32 {
        self.tail
    }

    pub fn first<'a>(&self, records: &'a Records) -> Option<&'a Record> {
        records.get(self.head)
    }

    pub fn first_index(&self) -> u32 {
        self.head
    }

    /// When the segment was sent that was sent last.
    pub fn newest_xmit_ns(&self, records: &Records) -> Option<u64> {
        records.get(self.newest).map(|record| record.xmit_ns)
    }

    /// The peer has everything before `ack`. Calls `delivered` for each segment of which that is news.
    pub fn acknowledge(&mut self, records: &mut Records, blocks: &Blocks, ack: Seq, mut delivered: impl FnMut(&Record)) {
        while let Some(&record) = records.get(self.head) {
            if ack.lt(record.end) {
                if record.start.lt(ack) {
                    self.trim_first(records, blocks, ack);
                }
                return;
            }
            let index = self.head;
            self.forget_marks(records, index);
            if !record.sacked() {
                delivered(&record);
            }
            self.head = record.next;
            if self.head == NONE {
                self.tail = NONE;
            }
            if self.lost_from == index {
                self.lost_from = NONE;
            }
            self.count -= 1;
            records.give_back(index);
        }
    }

    /// Takes the record out of the sums, and out of the order of time.
    fn forget_marks(&mut self, records: &mut Records, index: u32) {
        let Some(&record) = records.get(index) else { return };
        if record.flags & SACKED != 0 {
            self.sacked_bytes -= record.len();
            self.sacked_count -= 1;
        } else if record.flags & LOST != 0 {
            self.lost_bytes -= record.len();
        } else {
            self.unlink_time(records, index);
        }
    }

    /// The peer has a part of the first segment.
    fn trim_first(&mut self, records: &mut Records, blocks: &Blocks, ack: Seq) {
        let Some(record) = records.get_mut(self.head) else { return };
        let trimmed = ack.since(record.start);
        record.start = ack;
        record.at = blocks.advance(record.at, trimmed as usize);
        if record.flags & SACKED != 0 {
            self.sacked_bytes -= trimmed;
        } else if record.flags & LOST != 0 {
            self.lost_bytes -= trimmed;
        }
    }

    /// The peer has `blocks`. Calls `delivered` for each segment of which that is news.
    pub fn sack(&mut self, records: &mut Records, blocks: &[(Seq, Seq)], mut delivered: impl FnMut(&Record)) {
        let Some(last) = blocks.iter().map(|block| block.1).reduce(Seq::max) else { return };
        let mut at = self.head;
        while let Some(&record) = records.get(at) {
            if last.le(record.start) {
                break;
            }
            let covered = blocks.iter().any(|block| block.0.le(record.start) && record.end.le(block.1));
            if covered && !record.sacked() {
                self.forget_marks(records, at);
                self.sacked_bytes += record.len();
                self.sacked_count += 1;
                if let Some(record) = records.get_mut(at) {
                    record.flags = record.flags & !LOST | SACKED;
                }
                delivered(&record);
            }
            at = record.next;
        }
    }

    /// Goes through the segments that are neither delivered nor lost, in the order in which they were sent, and marks those lost of which
    /// `judge` says so. It answers `None` to end the walk. True when one was marked.
    pub fn mark_lost(&mut self, records: &mut Records, mut judge: impl FnMut(&Record) -> Option<bool>) -> bool {
        let (mut at, mut any) = (self.oldest, false);
        while let Some(&record) = records.get(at) {
            match judge(&record) {
                None => break,
                Some(true) => {
                    self.mark(records, at);
                    any = true;
                }
                Some(false) => {}
            }
            at = record.newer;
        }
        any
    }

    /// Marks the first segment lost, if it is neither lost nor delivered. True when it was marked.
    pub fn mark_first_lost(&mut self, records: &mut Records) -> bool {
        let markable = self.first(records).is_some_and(|record| record.flags & (SACKED | LOST) == 0);
        if markable {
            self.mark(records, self.head);
        }
        markable
    }

    fn mark(&mut self, records: &mut Records, index: u32) {
        self.unlink_time(records, index);
        let hint = records.get(self.lost_from).map(|record| record.start);
        let Some(record) = records.get_mut(index) else { return };
        record.flags |= LOST;
        let (start, len) = (record.start, record.len());
        if self.lost_bytes == 0 || hint.is_some_and(|hint| start.lt(hint)) {
            self.lost_from = index;
        }
        self.lost_bytes += len;
    }

    /// After a timeout everything that the peer does not have is lost. A first segment that it said it had, and does not acknowledge, was
    /// dropped by it after all (RFC 2018 8): then none of what it said counts.
    pub fn mark_all_lost(&mut self, records: &mut Records) {
        if self.first(records).is_some_and(Record::sacked) {
            let mut at = self.head;
            while let Some(record) = records.get_mut(at) {
                let (sacked, next) = (record.sacked(), record.next);
                if sacked {
                    record.flags &= !SACKED;
                    self.link_newest(records, at);
                }
                at = next;
            }
            (self.sacked_bytes, self.sacked_count) = (0, 0);
        }
        self.mark_lost(records, |_| Some(true));
        self.lost_from = NONE;
    }

    /// What was marked lost and not sent again is in flight after all.
    pub fn unmark_lost(&mut self, records: &mut Records) {
        let mut at = self.head;
        while let Some(record) = records.get_mut(at) {
            let (lost, next) = (record.flags & LOST != 0, record.next);
            if lost {
                record.flags &= !LOST;
                self.link_newest(records, at);
            }
            at = next;
        }
        (self.lost_bytes, self.lost_from) = (0, NONE);
    }

    /// The first segment that is marked lost.
    pub fn first_lost(&mut self, records: &Records) -> Option<u32> {
        if self.lost_bytes == 0 {
            return None;
        }
        let mut at = if self.lost_from == NONE { self.head } else { self.lost_from };
        while let Some(record) = records.get(at) {
            if record.flags & LOST != 0 {
                self.lost_from = at;
                return Some(at);
            }
            at = record.next;
        }
        None
    }

    /// A segment was sent again: it is in flight, and the one that was sent last.
    pub fn resent(&mut self, records: &mut Records, index: u32, now_ns: u64) {
        let Some(record) = records.get_mut(index) else { return };
        let lost = record.flags & LOST != 0;
        record.flags = record.flags & !LOST | RESENT;
        record.xmit_ns = now_ns;
        let (sacked, len) = (record.sacked(), record.len());
        if sacked {
            return;
        }
        if lost {
            self.lost_bytes -= len;
        } else {
            self.unlink_time(records, index);
        }
        self.link_newest(records, index);
    }

    /// Cuts a segment that has become too long for the path in two; the second part gets a record of its own. False when there is none.
    pub fn split(&mut self, records: &mut Records, blocks: &Blocks, index: u32, len: u32) -> bool {
        let Some(&whole) = records.get(index) else { return false };
        if len == 0 || whole.payload_len() <= len as usize || whole.sacked() {
            return false;
        }
        let Some(rest) = records.take() else { return false };
        let cut = whole.start + len;
        records.records[rest as usize] = Record { start: cut, at: blocks.advance(whole.at, len as usize), ..whole };
        let first = &mut records.records[index as usize];
        (first.end, first.next) = (cut, rest);
        first.flags &= !FIN;
        self.count += 1;
        if self.tail == index {
            self.tail = rest;
        }
        if whole.flags & LOST == 0 {
            // In the order of time right behind the first part.
            let newer = whole.newer;
            records.records[index as usize].newer = rest;
            records.records[rest as usize].older = index;
            match records.get_mut(newer) {
                Some(after) => after.older = rest,
                None => self.newest = rest,
            }
        }
        true
    }

    /// Gives all records back.
    pub fn clear(&mut self, records: &mut Records) {
        while let Some(record) = records.get(self.head) {
            let next = record.next;
            records.give_back(self.head);
            self.head = next;
        }
        *self = Self::EMPTY;
    }
}

#[cfg(test)]
mod tests;
