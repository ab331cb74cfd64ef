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

    /// All bytes of the sample lie in the block that entered the link last.
    fn is_in_last_block(&self, sample: &Sample, block_bytes: u64) -> bool {
        let end = sample.offset.saturating_add(sample.size.into());
        self.asked_to == 0 && self.last_block.is_some_and(|last| last <= sample.offset && end <= last.saturating_add(block_bytes))
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
            // What lies in the block that was asked for last needs no look at its time: one upcall for a block, not one for each sample.
            if self.is_in_last_block(&sample, block_bytes) {
                self.next += 1;
                continue;
            }
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

#[cfg(test)]
mod tests {
    use hugepages::{Arena, ChunkPool};
    use pacing::{Clock, SimClock};
    use stack::sim::{SimConfig, SimHost};

    use super::*;
    use crate::disks::sim::{SimDisk, SimDiskConfig, SimFile};
    use crate::gdsl::{Class, End, Gdsl, GdslConfig, Lateness, Link, Pair};
    use crate::media::index::IndexBuilder;
    use crate::media::{Codec, MediaDescription, Track, TrackKind};

    const MS: u64 = 1_000_000;
    const BLOCK_BYTES: u64 = 4096;
    const SAMPLE_BYTES: u64 = 1000;
    const SAMPLES: u64 = 100;
    const SAMPLE_NS: u64 = 40 * MS;
    const READ_AHEAD_NS: u64 = 1000 * MS;

    /// Takes nothing.
    struct Nobody;

    impl IssueModule<SimHost, SimDisk> for Nobody {
        fn upcall(&mut self, _now_ns: u64, _io: &mut IoBatch<'_, SimHost, SimDisk>) -> NextUpcall {
            NextUpcall::Never
        }
    }

    fn title() -> Title {
        let mut index = IndexBuilder::default();
        for nth in 0..SAMPLES {
            index.push(nth * SAMPLE_BYTES, SAMPLE_BYTES as u32, nth as i64, 0, true).unwrap();
        }
        let track = Track { id: 1, kind: TrackKind::Video, codec: Codec::MpegAudio, timescale: 25, samples: index.finish(1) };
        let description =
            MediaDescription { container: String::new(), duration_ns: 0, size_bytes: 0, tracks: Vec::new(), left_out: Vec::new() };
        Title { tracks: vec![track], left_out: Vec::new(), description }
    }

    #[test]
    fn a_block_is_asked_for_with_its_first_sample_and_costs_one_upcall() {
        let pool = ChunkPool::new(Arena::new(64 * BLOCK_BYTES as usize).unwrap(), BLOCK_BYTES as usize);
        let (host, disk) = (SimHost::new(SimConfig::default(), 1), SimDisk::new(SimDiskConfig::default()));
        let mut gdsl = Gdsl::new(GdslConfig { pairs_max: 2, ..GdslConfig::default() }, host, disk, pool, 0);
        let file = SimFile::pattern(1, SAMPLES * SAMPLE_BYTES);
        let mut source = TrackSource::new(Arc::new(title()), 0, file, 1, READ_AHEAD_NS);
        source.prepare(TrackPlan { track: 0, first: 0, end: SAMPLES as u32 }, 0);
        source.set_timeline(Timeline { start_dts_ns: 0, anchor_ns: Some(0) });
        let pair = Pair { source, destination: Nobody, link: Link::new(64), class: Class::Guaranteed, lateness: Lateness::new() };
        let id = gdsl.add(Box::new(pair)).ok().expect("room for a pair");
        gdsl.wake(id, End::Source, 0);
        let clock = SimClock::new(0);
        let samples_by = |at_ns: u64| (at_ns / SAMPLE_NS + 1).min(SAMPLES);
        let mut at_ns = 0;
        while at_ns < SAMPLES * SAMPLE_NS {
            clock.advance_to(at_ns);
            // What is due at once waits for the next turn.
            for _ in 0..4 {
                gdsl.cycle(&clock);
            }
            // A tick of the wheel later at most.
            let blocks_by = |at_ns: u64| (samples_by(at_ns) * SAMPLE_BYTES).div_ceil(BLOCK_BYTES);
            let issued = gdsl.counters().reads_issued;
            let earliest = blocks_by((clock.now_ns() + READ_AHEAD_NS).saturating_sub(MS));
            assert!((earliest..=blocks_by(clock.now_ns() + READ_AHEAD_NS)).contains(&issued), "{issued} blocks at {at_ns}");
            at_ns += MS;
        }
        let blocks = (SAMPLES * SAMPLE_BYTES).div_ceil(BLOCK_BYTES);
        assert_eq!(gdsl.counters().reads_issued, blocks);
        assert!(gdsl.counters().upcalls <= blocks + 1, "{} upcalls for {blocks} blocks", gdsl.counters().upcalls);
    }
}
