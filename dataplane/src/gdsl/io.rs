//! What an I/O issue module sees of the world during an upcall.

use std::collections::VecDeque;

use hugepages::Slice;
use pacing::Clock;
use stack::host::{FlowId, Host, StreamError, StreamId};

use super::blocks::{Acquired, BlockKey, BlockState, Blocks};
use super::executor::GdslCounters;
use super::link::Link;
use super::stats::Lateness;
use super::tape::{TapeId, TapePlace, Tapes};
use super::writes::{WriteIssue, Writes, Written};
use super::{Class, PairId};
use crate::disks::{Cyclic, Disk, WriteRequest};

/// A packet without a due time (RTCP): sent with the batch, counted, but not measured.
const UNTIMED: u64 = u64::MAX;

/// Blocks beyond the one that a tape ends in that its readers may have in their links: with two of them, taking out the front, which
/// happens only once the tape has gone on to the next one, leaves one that is still to come.
const BLOCKS_AHEAD: u64 = 2;

/// Result of [`IoBatch::read`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadIssue {
    /// The block entered the link.
    Issued,
    /// The link is full; return `NextUpcall::OnLink`.
    NoRoom,
    /// No buffer is free at the moment; try again a little later.
    NoChunk,
}

/// Result of [`IoBatch::read_tape`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TapeIssue {
    /// The block entered the link.
    Issued,
    /// The link is full; return `NextUpcall::OnLink`.
    NoRoom,
    /// It lies too far beyond the end of the tape: return `NextUpcall::OnLink`. Blocks that are just to come are issued, so the link
    /// moves when the tape does.
    Later,
    /// It is not retained any more, or the tape is gone.
    Gone,
}

/// How a delivery came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All that was asked for was sent.
    Ended,
    /// It cannot go on.
    Failed(&'static str),
}

/// Packets handed to the host in this cycle, until the host has handed them on.
#[derive(Debug)]
pub(super) struct SendLog {
    /// Pair and due time of each frame queued in the host, in commit order.
    frames: VecDeque<(PairId, u64)>,
    /// Frames that the host can queue.
    frames_max: usize,
    /// Pair, due time and class of what was queued on byte streams and was not written out.
    streamed: Vec<(PairId, u64, Class)>,
    /// Pair and lateness of what was handed on in this cycle.
    pub(super) sent: Vec<(PairId, u64)>,
    /// Lateness of all packets of this core.
    pub(super) lateness: Lateness,
}

impl SendLog {
    pub(super) fn new(frames: usize, per_cycle: usize) -> Self {
        Self {
            frames: VecDeque::with_capacity(frames),
            frames_max: frames,
            streamed: Vec::with_capacity(per_cycle),
            sent: Vec::with_capacity(per_cycle),
            lateness: Lateness::new(),
        }
    }

    /// No more than `slack` further packets fit into this cycle's log.
    pub(super) fn nearly_full(&self, slack: usize) -> bool {
        self.sent.capacity().saturating_sub(self.sent.len() + self.frames.len() + self.streamed.len()) <= slack
    }

    /// A frame of no pair was queued.
    pub(super) fn note_untimed(&mut self) {
        self.frames.push_back((PairId { index: u32::MAX, generation: 0 }, UNTIMED));
    }

    /// The host may take another frame.
    pub(super) fn has_room(&self) -> bool {
        self.frames.len() < self.frames_max
    }

    fn stamp(&mut self, pair: PairId, due_ns: u64, at_ns: u64) {
        if due_ns == UNTIMED {
            return;
        }
        let lateness_ns = at_ns.saturating_sub(due_ns);
        self.lateness.record_ns(lateness_ns);
        if self.sent.len() < self.sent.capacity() {
            self.sent.push((pair, lateness_ns));
        }
    }

    pub(super) fn flush<H: Host>(&mut self, host: &mut H, clock: &dyn Clock, counters: &mut GdslCounters) {
        let flushed = host.flush(clock.now_ns());
        counters.tx_failed += u64::from(flushed.failed);
        let at_ns = clock.now_ns();
        for _ in 0..flushed.done {
            let Some((pair, due_ns)) = self.frames.pop_front() else { break };
            self.stamp(pair, due_ns, at_ns);
        }
    }

    /// Byte streams were written out, but for best-effort ones when `others_wait`.
    pub(super) fn stamp_streams(&mut self, at_ns: u64, others_wait: bool) {
        if self.streamed.is_empty() {
            return;
        }
        let mut streamed = std::mem::take(&mut self.streamed);
        streamed.retain(|&(pair, due_ns, class)| {
            let waits = others_wait && class == Class::BestEffort;
            if !waits {
                self.stamp(pair, due_ns, at_ns);
            }
            waits
        });
        self.streamed = streamed;
    }
}

/// The I/O of one turn, as far as one module may reach it.
pub struct IoBatch<'a, H: Host, D: Disk> {
    pub(super) pair: PairId,
    pub(super) host: &'a mut H,
    pub(super) clock: &'a dyn Clock,
    pub(super) blocks: &'a mut Blocks,
    pub(super) link: &'a mut Link,
    pub(super) tapes: &'a Tapes,
    pub(super) reads: &'a mut Cyclic<D::File>,
    pub(super) writes: &'a mut Writes,
    pub(super) class: Class,
    pub(super) now_ns: u64,
    pub(super) log: &'a mut SendLog,
    pub(super) counters: &'a mut GdslCounters,
    pub(super) outcomes: &'a mut Vec<(PairId, Outcome)>,
    pub(super) popped: bool,
    pub(super) restarted: bool,
}

impl<H: Host, D: Disk> IoBatch<'_, H, D> {
    /// Bytes of a block; block offsets are multiples of it.
    pub fn block_bytes(&self) -> usize {
        self.blocks.pool().chunk_bytes()
    }

    /// Wall-clock time at the monotonic time `at_ns`, for sender reports.
    pub fn unix_ns_at(&self, at_ns: u64) -> u64 {
        self.clock.unix_ns_at(at_ns)
    }

    /// Blocks that may still enter the link.
    pub fn room(&self) -> usize {
        self.link.room()
    }

    /// Puts the block at `offset` of `file`, which is needed by `needed_ns`, at the end of the link, reading it unless it is in memory
    /// already.
    pub fn read(&mut self, file: &D::File, file_key: u64, offset: u64, needed_ns: u64) -> ReadIssue {
        if self.link.room() == 0 {
            return ReadIssue::NoRoom;
        }
        let key = BlockKey { file: file_key, offset };
        self.blocks.reader_at(self.pair.index, key, self.now_ns);
        let len = self.blocks.pool().chunk_bytes();
        let block = match self.blocks.acquire(key, file, len) {
            Acquired::New(block, read) => {
                self.reads.queue::<D>(self.now_ns, read, self.class, needed_ns);
                self.counters.reads_issued += 1;
                block
            }
            Acquired::Shared(block) => {
                if matches!(self.blocks.state(block), BlockState::Reading) {
                    self.reads.hurry::<D>(self.now_ns, block.tag(), self.class, needed_ns);
                }
                self.counters.reads_shared += 1;
                block
            }
            Acquired::Kept(block) => {
                self.counters.reads_shared += 1;
                self.counters.cache_hits += 1;
                block
            }
            Acquired::NoChunk => {
                self.counters.chunk_shortages += 1;
                return ReadIssue::NoChunk;
            }
        };
        self.link.push(offset, block);
        ReadIssue::Issued
    }

    /// Where the tape is; `None` when it was taken away.
    pub fn tape(&self, id: TapeId) -> Option<TapePlace> {
        self.tapes.place(id)
    }

    /// Puts the block of the tape at `offset`, a multiple of the block size, at the end of the link.
    pub fn read_tape(&mut self, id: TapeId, offset: u64) -> TapeIssue {
        if self.link.room() == 0 {
            return TapeIssue::NoRoom;
        }
        let Some(key) = self.tapes.key_of(id, offset) else { return TapeIssue::Gone };
        let Some(place) = self.tapes.place(id) else { return TapeIssue::Gone };
        let block_bytes = self.blocks.pool().chunk_bytes() as u64;
        if offset < place.first {
            return TapeIssue::Gone;
        }
        if offset / block_bytes > place.end / block_bytes + BLOCKS_AHEAD {
            return TapeIssue::Later;
        }
        let Some(block) = self.blocks.acquire_of_tape(key) else { return TapeIssue::NoRoom };
        self.link.push(offset, block);
        TapeIssue::Issued
    }

    /// File offset and state of the block at place `i` of the link.
    pub fn block(&self, i: usize) -> Option<(u64, &BlockState)> {
        self.link.get(i).map(|(offset, block)| (offset, self.blocks.state(block)))
    }

    /// Takes the block at the front of the link out; false when there is none.
    pub fn pop(&mut self) -> bool {
        let Some((_, block)) = self.link.pop() else { return false };
        self.blocks.release(block);
        self.popped = true;
        true
    }

    /// Takes the block at the front of the link out as one that nobody will read again: the cache does not keep it. False when there is
    /// none.
    pub fn pop_for_good(&mut self) -> bool {
        let Some((_, block)) = self.link.pop() else { return false };
        self.blocks.release_for_good(block);
        self.popped = true;
        true
    }

    /// For a destination: writes `slice` to `offset` of `file`, as best-effort work whatever the pair's class. The write holds a share of
    /// the bytes: a block of the link may be taken out of it at once. Its end is told by [`Self::take_written`], and brings an upcall.
    pub fn write(&mut self, file: &D::File, offset: u64, slice: Slice) -> WriteIssue {
        let tag = match self.writes.begin(self.pair, offset, slice.len()) {
            Ok(tag) => tag,
            Err(issue) => return issue,
        };
        self.reads.queue_write::<D>(WriteRequest { tag, file: file.clone(), offset, slice });
        self.counters.writes_issued += 1;
        WriteIssue::Issued
    }

    /// For a destination: a write of its own that has ended, each once, in the order of their ends.
    pub fn take_written(&mut self) -> Option<Written> {
        self.writes.take_written(self.pair)
    }

    /// For a destination: how many of its writes have not ended.
    pub fn writes_under_way(&self) -> usize {
        self.writes.under_way(self.pair)
    }

    /// For a destination: empties the link and has the source go on from `mark`, whatever that means to the two of them. The source is
    /// upcalled in the next cycle at the latest, and asks for it with [`Self::take_mark`] before it reads anything.
    pub fn restart_from(&mut self, mark: u64) {
        while let Some((_, block)) = self.link.pop() {
            self.blocks.release(block);
        }
        self.link.mark = Some(mark);
        self.restarted = true;
    }

    /// For a source: where the destination wants it to go on, once after each [`Self::restart_from`].
    pub fn take_mark(&mut self) -> Option<u64> {
        self.link.mark.take()
    }

    /// A transmit frame for `flow` together with the blocks to fill it from; `None` when the layer below takes no more at the moment.
    pub fn frame(&mut self, flow: FlowId) -> Option<(&mut [u8], LinkView<'_>)> {
        if self.log.frames.len() >= self.log.frames_max {
            self.log.flush(self.host, self.clock, self.counters);
        }
        let view = LinkView { link: self.link, blocks: self.blocks };
        self.host.datagram(flow).map(|frame| (frame, view))
    }

    /// The blocks of the link, for a module that fills a buffer of its own.
    pub fn view(&self) -> LinkView<'_> {
        LinkView { link: self.link, blocks: self.blocks }
    }

    /// Queues the frame with `len` bytes that was due at `due_ns`.
    pub fn commit(&mut self, len: usize, due_ns: u64) {
        self.host.commit(len);
        self.log.frames.push_back((self.pair, due_ns));
        self.counters.packets += 1;
        self.counters.bytes += len as u64;
    }

    /// Queues the frame with `len` bytes that has no due time.
    pub fn commit_untimed(&mut self, len: usize) {
        self.host.commit(len);
        self.log.frames.push_back((self.pair, UNTIMED));
    }

    /// Queues `parts`, all or nothing, on a byte stream; `due_ns` is `None` for what has no due time.
    ///
    /// # Errors
    /// Those of [`Host::stream_send`].
    pub fn stream_send(&mut self, stream: StreamId, parts: &[&[u8]], due_ns: Option<u64>) -> Result<(), StreamError> {
        self.host.stream_send(stream, parts)?;
        if let Some(due_ns) = due_ns {
            self.counters.packets += 1;
            self.counters.bytes += parts.iter().map(|p| p.len() as u64).sum::<u64>();
            if self.log.streamed.len() < self.log.streamed.capacity() {
                self.log.streamed.push((self.pair, due_ns, self.class));
            }
        }
        Ok(())
    }

    /// Tells whoever drives the executor how this delivery ended.
    pub fn finish(&mut self, outcome: Outcome) {
        if self.outcomes.len() < self.outcomes.capacity() {
            self.outcomes.push((self.pair, outcome));
        }
    }
}

/// Read access to the blocks of a link.
#[derive(Clone, Copy)]
pub struct LinkView<'a> {
    pub(super) link: &'a Link,
    pub(super) blocks: &'a Blocks,
}

impl<'a> LinkView<'a> {
    /// File offset and state of the block at place `i` of the link.
    pub fn block(&self, i: usize) -> Option<(u64, &'a BlockState)> {
        self.link.get(i).map(|(offset, block)| (offset, self.blocks.state(block)))
    }
}
