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

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_channel::{Sender, TrySendError, bounded};
use stack::host::Host;

use super::import::why_not_written;
use super::take::Take;
use crate::delivery::live::record::HEADER_BYTES;
use crate::delivery::live::{RecordHeader, TapeSource};
use crate::delivery::{LiveSource, Source};
use crate::disks::Disk;
use crate::gdsl::{
    BlockState, Class, IoBatch, IssueModule, Lateness, Link, NextUpcall, Outcome, Pair, TapeId, WRITES_PER_PAIR_MAX, WriteIssue,
};
use crate::media::movie::HEAD_BYTES;
use crate::media::{Codec, TrackKind};

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
/// Notes that the control core has not collected; then the sink waits.
const NOTES_MAX: usize = 4096;

/// Why a recording ends that cannot keep up.
pub const TOO_SLOW: &str = "the disk is too slow for the stream: what was to be written next is not retained any more";
const STREAM_GONE: &str = "the buffers of the stream are gone";

/// What a sink has noted in passing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Note {
    /// The track's next extent lies at this offset of the file.
    Extent(u64),
    /// A record, and the place of its access unit: bytes of the track that lie in its extents before it.
    Record(RecordHeader, u64),
}

/// The file that all tracks of a recording go into: where its next free extent is.
#[derive(Debug)]
pub struct Layout(AtomicU64);

impl Default for Layout {
    fn default() -> Self {
        Self(AtomicU64::new(HEAD_BYTES))
    }
}

impl Layout {
    /// Where the extents that were taken so far end.
    pub fn end(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn take(&self, bytes: u64) -> u64 {
        self.0.fetch_add(bytes, Ordering::Relaxed)
    }
}

/// What is recorded of a channel's track, and where it goes.
#[derive(Debug)]
pub struct RecordSpec<F> {
    /// The channel, by the number that it was opened with.
    pub channel: u64,
    /// Position of the track in it.
    pub track: usize,
    /// Sight or sound.
    pub kind: TrackKind,
    /// How it is coded.
    pub codec: Codec,
    /// Units per second of its records' times.
    pub clock_rate: u32,
    /// The file, to be written.
    pub file: F,
    /// Where in it.
    pub layout: Arc<Layout>,
    /// Bytes of a block of the engine core.
    pub block_bytes: u64,
    /// How much is recorded at most, nanoseconds; `None`: until it is ended.
    pub duration_ns: Option<u64>,
}

impl<F> RecordSpec<F> {
    /// The pair of modules, best-effort, and what takes its notes.
    pub fn build(self) -> (Pair<Source<F>, RecordSink<F>>, Take) {
        let (notes, noted) = bounded(NOTES_MAX);
        let safe = Arc::new(AtomicU64::new(0));
        let take = Take::new(self.kind, self.codec, self.clock_rate, self.block_bytes * EXTENT_BLOCKS, noted, Arc::clone(&safe));
        let destination = RecordSink {
            file: self.file,
            layout: self.layout,
            notes,
            safe,
            is_video: self.kind == TrackKind::Video,
            duration_ns: self.duration_ns,
            tape: TapeId::NONE,
            start_ns: 0,
            walk: Walk::default(),
            block: 0,
            number: 0,
            extent: 0,
            stopping: false,
            stop_at: None,
            ending: None,
            over: false,
            writes: Writes::default(),
        };
        let source = Source::Live(LiveSource { channel: self.channel, track: self.track, tape: TapeSource::new(TapeId::NONE) });
        let pair = Pair { source, destination, link: Link::new(LINK_BLOCKS), class: Class::BestEffort, lateness: Lateness::new() };
        (pair, take)
    }
}

/// Where in the records a sink is.
#[derive(Debug, Default)]
struct Walk {
    /// Offset on the tape of the next byte to be looked at, and of the first byte that is written.
    at: u64,
    base: u64,
    header: [u8; HEADER_BYTES],
    /// Bytes of the header that were seen.
    have: usize,
    /// Bytes of the access unit that were not.
    body: u64,
    /// The first record was taken.
    begun: bool,
}

/// What came of a walk.
enum Walked {
    All,
    /// The notes are full.
    Full,
    /// The record at this offset of the tape, and all after it, are not wanted.
    Until(u64),
}

/// A track's writes, by their numbers.
#[derive(Debug, Default)]
struct Writes {
    under_way: usize,
    /// Of the write of number `n`, at `n % WRITES_PER_PAIR_MAX`: its place in the file, its bytes, and whether it has ended well.
    slots: [(u64, u64, bool); WRITES_PER_PAIR_MAX],
    /// All writes below this number have ended well.
    settled: u64,
    safe_bytes: u64,
    written: u64,
}

impl Writes {
    fn slot(&mut self, number: u64) -> &mut (u64, u64, bool) {
        &mut self.slots[(number % WRITES_PER_PAIR_MAX as u64) as usize]
    }

    fn begin(&mut self, number: u64, offset: u64, bytes: u64) {
        self.under_way += 1;
        *self.slot(number) = (offset, bytes, false);
    }

    fn done(&mut self, offset: u64, bytes: u64, upto: u64) {
        self.written += bytes;
        for number in self.settled..upto {
            let slot = self.slot(number);
            slot.2 |= slot.0 == offset;
        }
        while self.settled < upto {
            let settled = self.settled;
            let &mut (_, bytes, true) = self.slot(settled) else { break };
            self.safe_bytes += bytes;
            self.settled += 1;
        }
    }
}

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
    start_ns: u64,
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
    /// Sight or sound.
    pub fn is_video(&self) -> bool {
        self.is_video
    }

    /// Begins with the record at `offset` of the tape; records that end before `start_ns` on the engine core's clock are left out.
    pub fn start(&mut self, tape: TapeId, offset: u64, start_ns: u64, block_bytes: u64) {
        (self.tape, self.start_ns) = (tape, start_ns);
        self.block = offset / block_bytes.max(1) * block_bytes;
        self.walk = Walk { at: offset, base: self.block, ..Walk::default() };
    }

    /// What is on the tape by now is recorded, and nothing more, once the peer is woken.
    pub fn end(&mut self) {
        self.stopping = true;
    }

    /// Bytes that are in the file.
    pub fn written(&self) -> u64 {
        self.writes.written
    }

    /// Takes note of the records in `bytes`, which lie at `offset` of the tape.
    fn walk(&mut self, bytes: &[u8], offset: u64) -> Walked {
        let walk = &mut self.walk;
        let end_ns = self.duration_ns.map_or(u64::MAX, |duration_ns| self.start_ns.saturating_add(duration_ns));
        loop {
            if walk.have == HEADER_BYTES {
                let header = RecordHeader::decode(&walk.header);
                if header.at_ns >= end_ns {
                    return Walked::Until(walk.at - HEADER_BYTES as u64);
                }
                let begins = header.at_ns.saturating_add(header.span_ns.into()) > self.start_ns && (header.sync || !self.is_video);
                if walk.begun || begins {
                    match self.notes.try_send(Note::Record(header, walk.at - walk.base)) {
                        Err(TrySendError::Full(_)) => return Walked::Full,
                        // Nobody is left to whom it matters.
                        Ok(()) | Err(TrySendError::Disconnected(_)) => walk.begun = true,
                    }
                }
                (walk.have, walk.body) = (0, header.bytes.into());
            }
            let rest = usize::try_from(walk.at - offset).ok().and_then(|at| bytes.get(at..)).unwrap_or(&[]);
            if rest.is_empty() {
                return Walked::All;
            }
            if walk.body > 0 {
                let seen = walk.body.min(rest.len() as u64);
                (walk.at, walk.body) = (walk.at + seen, walk.body - seen);
                continue;
            }
            let seen = rest.len().min(HEADER_BYTES - walk.have);
            if let (Some(to), Some(from)) = (walk.header.get_mut(walk.have..walk.have + seen), rest.get(..seen)) {
                to.copy_from_slice(from);
            }
            (walk.at, walk.have) = (walk.at + seen as u64, walk.have + seen);
        }
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
        match self.walk(&slice, self.block) {
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
