//! The source of a track: asks for the blocks of its samples, a few seconds ahead of their due times.

use std::sync::Arc;

use pacing::schedule::ticks_to_ns;
use stack::host::Host;

use super::plan::{Timeline, TrackPlan};
use crate::disks::Disk;
use crate::gdsl::{IoBatch, IssueModule, NextUpcall, ReadIssue};
use crate::media::{Sample, Title};

/// Blocks asked for in one upcall at most; what is left waits for the next turn.
const READS_PER_UPCALL: u32 = 8;
/// Samples looked at in one upcall at most.
const SAMPLES_PER_UPCALL: u32 = 128;
/// How soon to try again when no buffer is free.
const CHUNK_RETRY_NS: u64 = 2_000_000;

/// The source module of one track.
#[derive(Debug)]
pub struct TrackSource<F> {
    title: Arc<Title>,
    file: F,
    file_key: u64,
    read_ahead_ns: u64,
    timeline: Timeline,
    track: usize,
    next: u32,
    end: u32,
    /// Blocks of the next sample that lie before this file offset are in the link already.
    asked_to: u64,
    last_block: Option<u64>,
}

impl<F> TrackSource<F> {
    /// The source of the track at position `track` of `title`, read from `file`. Sources with equal `file_key` share blocks.
    pub fn new(title: Arc<Title>, track: usize, file: F, file_key: u64, read_ahead_ns: u64) -> Self {
        let timeline = Timeline::default();
        Self { title, file, file_key, read_ahead_ns, timeline, track, next: 0, end: 0, asked_to: 0, last_block: None }
    }

    /// Prepares for the range of `plan`. The pair's link must be empty.
    pub fn prepare(&mut self, plan: TrackPlan, start_dts_ns: i64) {
        self.timeline = Timeline { start_dts_ns, anchor_ns: None };
        (self.next, self.end) = (plan.first, plan.end);
        (self.asked_to, self.last_block) = (0, None);
    }

    /// Sets the time line's anchor (`None`: delivery stands still; what the window holds is still read).
    pub fn set_timeline(&mut self, timeline: Timeline) {
        self.timeline = timeline;
    }

    /// There is nothing to be read before time passes: all samples were asked for, or the next one lies beyond the window.
    pub fn is_at_rest(&self) -> bool {
        self.sample().is_none_or(|(_, dts_ns)| self.timeline.anchor_ns.is_none() && self.issue_at(0, dts_ns).is_none())
    }

    fn sample(&self) -> Option<(Sample, i64)> {
        if self.next >= self.end {
            return None;
        }
        let track = self.title.tracks.get(self.track)?;
        let sample = track.samples.get(self.next)?;
        Some((sample, ticks_to_ns(sample.dts, track.timescale)))
    }

    /// When the sample with this decode time is due; as if delivery began now when it stands still.
    fn needed_ns(&self, now_ns: u64, dts_ns: i64) -> u64 {
        let ahead_ns = u64::try_from(dts_ns.saturating_sub(self.timeline.start_dts_ns)).unwrap_or(0);
        self.timeline.due_ns(dts_ns).unwrap_or_else(|| now_ns.saturating_add(ahead_ns))
    }

    /// When the sample with this decode time may be read.
    fn issue_at(&self, now_ns: u64, dts_ns: i64) -> Option<u64> {
        match self.timeline.due_ns(dts_ns) {
            Some(due_ns) => Some(due_ns.saturating_sub(self.read_ahead_ns)),
            None if dts_ns.saturating_sub(self.timeline.start_dts_ns) <= self.read_ahead_ns as i64 => Some(now_ns),
            None => None,
        }
    }
}

impl<H: Host, D: Disk> IssueModule<H, D> for TrackSource<D::File> {
    fn upcall(&mut self, now_ns: u64, io: &mut IoBatch<'_, H, D>) -> NextUpcall {
        let block_bytes = io.block_bytes() as u64;
        if let Some(mark) = io.take_mark() {
            self.next = u32::try_from(mark).unwrap_or(u32::MAX);
            (self.asked_to, self.last_block) = (0, None);
        }
        let mut reads = 0;
        for _ in 0..SAMPLES_PER_UPCALL {
            let Some((sample, dts_ns)) = self.sample() else { return NextUpcall::Never };
            match self.issue_at(now_ns, dts_ns) {
                Some(at_ns) if at_ns > now_ns => return NextUpcall::At(at_ns),
                Some(_) => {}
                None => return NextUpcall::Never,
            }
            // An empty sample needs no block, and takes none.
            let end = if sample.size == 0 { 0 } else { sample.offset + u64::from(sample.size) };
            let mut block = (sample.offset / block_bytes * block_bytes).max(self.asked_to);
            while block < end {
                if self.last_block != Some(block) {
                    if reads == READS_PER_UPCALL {
                        return NextUpcall::At(now_ns);
                    }
                    match io.read(&self.file, self.file_key, block, self.needed_ns(now_ns, dts_ns)) {
                        ReadIssue::Issued => reads += 1,
                        ReadIssue::NoRoom => return NextUpcall::OnLink,
                        ReadIssue::NoChunk => return NextUpcall::At(now_ns + CHUNK_RETRY_NS),
                    }
                    self.last_block = Some(block);
                }
                block += block_bytes;
                self.asked_to = block;
            }
            self.asked_to = 0;
            self.next += 1;
        }
        NextUpcall::At(now_ns)
    }
}
