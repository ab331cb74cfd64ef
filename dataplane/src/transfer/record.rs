//! Recording: the pair of modules that writes a track of a live channel to a file, block by block as its tape fills.
//!
//! ```text
//! tape ─► TapeSource ─► link ─► RecordSink ─┬─► blocks, as they are, into the file's next free extents
//!                                           └─► Notes: what each extent and each record is ─► control core (take)
//! ```
//!
//! No byte is copied in memory: the chunk that packets were put together in is the one that is written, record headers and all. All tracks
//! of a channel go into one file. Each takes an extent of it at a time, so a track lies in it in long pieces, and nothing needs to be known of
//! the others. What an MP4 file needs to know of the samples, the sink reads off the records in passing and notes; the control core
//! collects the notes ([`super::take`]) and writes the rest of the file.

mod spec;
mod walk;
mod writes;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_channel::{Sender, TrySendError};
use stack::host::Host;

use self::walk::{Walk, Walked, Wanted};
use self::writes::Writes;
use super::import::why_not_written;
use crate::disks::Disk;
use crate::gdsl::{BlockState, IoBatch, IssueModule, NextUpcall, Outcome, TapeId, WRITES_PER_PAIR_MAX, WriteIssue};

pub use spec::{Layout, Note, RecordSpec};

/// Blocks that a recorder has in its link: the one that is walked, two that are still to come, and one between.
const LINK_BLOCKS: usize = 4;
/// Buffers that the recording of a track needs at most beside those of the tape.
pub const RECORD_CHUNKS: usize = LINK_BLOCKS + WRITES_PER_PAIR_MAX;
/// Blocks of an extent. A sample that lies in two extents that are no neighbours is copied once more in the end.
pub const EXTENT_BLOCKS: u64 = 16;
/// Blocks written in one upcall at most; what is left waits for the next turn.
const BLOCKS_PER_UPCALL: usize = 4;
/// How soon to try again when too much is written, or notes have piled up.
const RETRY_NS: u64 = 2_000_000;

/// Why a recording ends that cannot keep up.
pub const TOO_SLOW: &str = "the disk is too slow for the stream: what was to be written next is not retained any more";
const STREAM_GONE: &str = "the buffers of the stream are gone";

/// Writes the blocks of a tape to a file, and notes what the records are.
#[derive(Debug)]
pub struct RecordSink<F> {
    file: F,
    layout: Arc<Layout>,
    notes: Sender<Note>,
    /// How many of the track's bytes are in the file without a gap.
    safe: Arc<AtomicU64>,
    is_video: bool,
    duration_ns: Option<u64>,
    tape: TapeId,
    walk: Walk,
    /// Offset on the tape of the block to be written next, and its number among those that are.
    block: u64,
    number: u64,
    /// Where the extent lies that it goes into.
    extent: u64,
    /// Somebody wants the end, and the offset of the tape at which that is.
    stopping: bool,
    stop_at: Option<u64>,
    /// How it ends once all writes have ended.
    ending: Option<Outcome>,
    over: bool,
    writes: Writes,
}

/// What comes after a step.
enum Step {
    Wrote,
    Wait(NextUpcall),
    End(Outcome),
}

impl<F> RecordSink<F> {
    /// A sink into `file` that is yet to be started. It notes what it writes, and how many of the track's bytes are safe.
    fn new(file: F, layout: Arc<Layout>, (notes, safe): (Sender<Note>, Arc<AtomicU64>), is_video: bool, duration_ns: Option<u64>) -> Self {
        Self {
            file,
            layout,
            notes,
            safe,
            is_video,
            duration_ns,
            tape: TapeId::NONE,
            walk: Walk::default(),
            block: 0,
            number: 0,
            extent: 0,
            stopping: false,
            stop_at: None,
            ending: None,
            over: false,
            writes: Writes::default(),
        }
    }

    /// Sight or sound.
    pub fn is_video(&self) -> bool {
        self.is_video
    }

    /// Begins with the record at `offset` of the tape; records that end before `start_ns` on the engine core's clock are left out.
    pub fn start(&mut self, tape: TapeId, offset: u64, start_ns: u64, block_bytes: u64) {
        self.tape = tape;
        self.block = offset / block_bytes.max(1) * block_bytes;
        let until_ns = self.duration_ns.map_or(u64::MAX, |duration_ns| start_ns.saturating_add(duration_ns));
        self.walk = Walk::new(offset, self.block, Wanted { from_ns: start_ns, until_ns, from_sync: self.is_video });
    }

    /// What is on the tape by now is recorded, and nothing more, once the peer is woken.
    pub fn end(&mut self) {
        self.stopping = true;
    }

    /// Bytes that are in the file.
    pub fn written(&self) -> u64 {
        self.writes.written
    }

    /// Where the next block goes; `None` when that cannot be noted now.
    fn place(&mut self, block_bytes: u64) -> Option<u64> {
        let nth = self.number % EXTENT_BLOCKS;
        if nth == 0 && self.notes.is_full() {
            return None;
        }
        // Only this engine core takes extents: the next one will lie where it would now.
        Some(if nth == 0 { self.layout.end() } else { self.extent + nth * block_bytes })
    }

    fn step<H: Host, D: Disk<File = F>>(&mut self, now_ns: u64, io: &mut IoBatch<'_, H, D>) -> Step {
        let block_bytes = io.block_bytes() as u64;
        let place = io.tape(self.tape);
        let is_end = |at: u64| place.is_none_or(|place| place.ended && place.end <= at);
        if self.stop_at.is_some_and(|stop_at| self.block >= stop_at) {
            return Step::End(Outcome::Ended);
        }
        let slice = match io.block(0) {
            Some((_, BlockState::Ready(slice))) => slice.clone(),
            Some((_, BlockState::Failed(_))) => return Step::End(Outcome::Failed(STREAM_GONE)),
            _ if is_end(self.block) => return Step::End(Outcome::Ended),
            None if place.is_some_and(|place| place.first > self.block) => return Step::End(Outcome::Failed(TOO_SLOW)),
            Some((_, BlockState::Reading)) | None => return Step::Wait(NextUpcall::OnLink),
        };
        let notes = &self.notes;
        // When nobody is left who collects the notes, they matter to nobody.
        let note = |header, at| !matches!(notes.try_send(Note::Record(header, at)), Err(TrySendError::Full(_)));
        match self.walk.over(&slice, self.block, note) {
            Walked::All => {}
            Walked::Full => return Step::Wait(NextUpcall::At(now_ns + RETRY_NS)),
            Walked::Until(at) => self.stop_at = Some(self.stop_at.map_or(at, |stop_at| stop_at.min(at))),
        }
        let available = self.block + slice.len() as u64;
        let end = self.stop_at.map_or(available, |stop_at| stop_at.min(available));
        // Of a tape that was taken away there is what the link holds.
        let more_held = place.is_none() && matches!(io.block(1), Some((_, BlockState::Ready(_))));
        let is_last = self.stop_at == Some(end) || is_end(available) && !more_held;
        if (slice.len() as u64) < block_bytes && !is_last {
            return Step::Wait(NextUpcall::OnLink);
        }
        let bytes = end.saturating_sub(self.block);
        let part = usize::try_from(bytes).ok().and_then(|bytes| slice.sub(0..bytes)).filter(|part| !part.is_empty());
        let Some(part) = part else { return Step::End(Outcome::Ended) };
        if self.number >= self.writes.settled + WRITES_PER_PAIR_MAX as u64 {
            // One that ends brings the next upcall.
            return Step::Wait(NextUpcall::Never);
        }
        let Some(offset) = self.place(block_bytes) else { return Step::Wait(NextUpcall::At(now_ns + RETRY_NS)) };
        match io.write(&self.file, offset, part) {
            WriteIssue::Issued => {}
            WriteIssue::NoRoom => return Step::Wait(NextUpcall::Never),
            WriteIssue::Busy => return Step::Wait(NextUpcall::At(now_ns + RETRY_NS)),
        }
        if self.number.is_multiple_of(EXTENT_BLOCKS) {
            self.extent = self.layout.take(block_bytes * EXTENT_BLOCKS);
            let _ = self.notes.try_send(Note::Extent(self.extent));
        }
        self.writes.begin(self.number, offset, bytes);
        io.pop_for_good();
        (self.number, self.block) = (self.number + 1, self.block + block_bytes);
        if is_last { Step::End(Outcome::Ended) } else { Step::Wrote }
    }
}

impl<H: Host, D: Disk> IssueModule<H, D> for RecordSink<D::File> {
    fn upcall(&mut self, now_ns: u64, io: &mut IoBatch<'_, H, D>) -> NextUpcall {
        while let Some(write) = io.take_written() {
            self.writes.under_way = self.writes.under_way.saturating_sub(1);
            match write.result {
                Ok(()) => {
                    self.writes.done(write.offset, write.bytes as u64, self.number);
                    self.safe.store(self.writes.safe_bytes, Ordering::Release);
                }
                Err(error) if !matches!(self.ending, Some(Outcome::Failed(_))) => {
                    self.ending = Some(Outcome::Failed(why_not_written(error)));
                }
                Err(_) => {}
            }
        }
        if self.over {
            return NextUpcall::Never;
        }
        if self.stopping && self.stop_at.is_none() {
            self.stop_at = Some(io.tape(self.tape).map_or(self.block, |place| place.end));
        }
        for _ in 0..BLOCKS_PER_UPCALL {
            if self.ending.is_some() {
                break;
            }
            match self.step(now_ns, io) {
                Step::Wrote => {}
                Step::Wait(next) => return next,
                Step::End(outcome) => self.ending = Some(outcome),
            }
        }
        match self.ending {
            None => return NextUpcall::At(now_ns),
            // Each write that ends brings an upcall.
            Some(_) if self.writes.under_way > 0 => {}
            Some(outcome) => {
                self.over = true;
                io.finish(outcome);
            }
        }
        NextUpcall::Never
    }
}
