//! Where a sender's samples come from: the index of a title, or the records of a tape.

use std::sync::Arc;

use pacing::schedule::{ns_to_rtp, rtp_timestamp, ticks_to_ns};
use stack::host::Host;

use super::super::bytes::LinkBytes;
use super::super::live::record::{HEADER_BYTES as RECORD_BYTES, Record, RecordHeader};
use super::super::plan::TrackPlan;
use super::super::walk::BlockWalk;
use super::Current;
use crate::disks::Disk;
use crate::gdsl::{IoBatch, TapeId, TapePlace};
use crate::media::{Sample, Title, TrackKind};
use crate::payload::SampleBytes;

/// Records that are looked at in one upcall and not sent.
const RECORDS_LEFT_OUT_MAX: u32 = 32;

/// What a sender is to send next.
pub(super) enum Next {
    /// This sample.
    Sample(Current),
    /// It is not there yet.
    NotYet,
    /// Records were left out; there may be more of them.
    Again,
    /// The tape does not retain what comes next.
    Lost,
    /// There is nothing more.
    End,
}

/// Where samples come from.
#[derive(Debug)]
pub(super) enum Feed {
    Title(TitleFeed),
    Tape(TapeFeed),
}

/// The samples of a range of a title's track.
#[derive(Debug)]
pub(super) struct TitleFeed {
    pub(super) title: Arc<Title>,
    pub(super) track: usize,
    pub(super) next: u32,
    pub(super) end: u32,
    pub(super) walk: BlockWalk,
    /// RTP time of presentation time 0 in this range, before wrapping.
    pub(super) rtp_zero: u32,
    pub(super) clock_rate: u32,
}

impl TitleFeed {
    pub(super) fn prepare(&mut self, plan: TrackPlan, rtp_zero: u32) {
        (self.next, self.end) = (plan.first, plan.end);
        (self.walk, self.rtp_zero) = (BlockWalk::default(), rtp_zero);
    }

    fn next(&mut self, block_bytes: u64) -> Next {
        if self.next >= self.end {
            return Next::End;
        }
        let Some(track) = self.title.tracks.get(self.track) else { return Next::End };
        let Some(sample) = track.samples.get(self.next) else { return Next::End };
        let dts_ns = ticks_to_ns(sample.dts, track.timescale);
        let next_dts_ns = ticks_to_ns(sample.dts.saturating_add(i64::from(sample.duration)), track.timescale);
        let pts = sample.dts.saturating_add(i64::from(sample.cts_offset));
        let rtp_ts = rtp_timestamp(self.rtp_zero, pts, track.timescale, self.clock_rate);
        self.next += 1;
        let span_ns = next_dts_ns.saturating_sub(dts_ns).max(0) as u64;
        let block = self.walk.enter(sample.offset, sample.size, block_bytes);
        Next::Sample(Current::new(sample, block, block_bytes, (dts_ns, span_ns, rtp_ts)))
    }
}

/// The records of a tape, from a mark on.
#[derive(Debug)]
pub(super) struct TapeFeed {
    pub(super) tape: TapeId,
    kind: TrackKind,
    clock_rate: u32,
    /// Where the next record lies; `None` before the start.
    at: Option<u64>,
    /// Number on the tape of the block that was first put on the link.
    first_block: u64,
    /// Records before the next sync sample are left out.
    needs_sync: bool,
    /// The session's start on the engine core's clock, and its RTP time.
    start: (u64, u32),
    /// RTP time of the sender's time 0; `None` before the first record, or the first one of another sender.
    rtp_zero: Option<u32>,
    /// RTP time and presentation time on the engine core's clock of the newest record.
    newest: Option<(u32, i64)>,
    /// When the newest record ends, on the engine core's clock.
    pub(super) end_ns: i64,
}

impl TapeFeed {
    pub(super) fn new(kind: TrackKind, clock_rate: u32) -> Self {
        Self {
            tape: TapeId::NONE,
            kind,
            clock_rate,
            at: None,
            first_block: 0,
            needs_sync: false,
            start: (0, 0),
            rtp_zero: None,
            newest: None,
            end_ns: 0,
        }
    }

    /// Nothing is sent before the next [`Self::start`]; the session's start will have this RTP time.
    pub(super) fn prepare(&mut self, rtp_start: u32) {
        (self.at, self.rtp_zero, self.newest, self.start) = (None, None, None, (0, rtp_start));
    }

    /// Begins with the record at `offset`, or the next sync sample; the session's start is `start_ns` on the engine core's clock.
    pub(super) fn start(&mut self, offset: u64, is_mark: bool, start_ns: u64, block_bytes: u64) {
        self.start.0 = start_ns;
        self.end_ns = start_ns as i64;
        self.jump(offset, is_mark, block_bytes);
    }

    fn jump(&mut self, offset: u64, is_mark: bool, block_bytes: u64) {
        (self.at, self.first_block) = (Some(offset), offset / block_bytes);
        self.needs_sync = !is_mark && self.kind == TrackKind::Video;
    }

    /// A place from which delivery can go on, beyond the record at `from`: the mark, or, when there is none, the end of the tape.
    pub(super) fn jump_ahead(&mut self, from: Option<u64>, place: TapePlace, block_bytes: u64) -> Option<u64> {
        let (offset, is_mark) = place.mark.map_or((place.end, false), |(offset, _)| (offset, true));
        if from.is_some_and(|from| offset <= from) {
            return None;
        }
        self.jump(offset, is_mark, block_bytes);
        Some(offset)
    }

    /// RTP time at `local_ns` of the engine core's clock, as this session counts it.
    pub(super) fn rtp_at(&self, local_ns: i64) -> u32 {
        let (rtp_ts, pts_ns) = self.newest.unwrap_or((self.start.1, self.start.0 as i64));
        rtp_ts.wrapping_add(ns_to_rtp(local_ns.saturating_sub(pts_ns), self.clock_rate))
    }

    fn next<H: Host, D: Disk>(&mut self, released: &mut u64, io: &mut IoBatch<'_, H, D>) -> Next {
        let block_bytes = io.block_bytes() as u64;
        for _ in 0..RECORDS_LEFT_OUT_MAX {
            let Some(at) = self.at else { return Next::NotYet };
            let block = (at / block_bytes).saturating_sub(self.first_block);
            while *released < block && io.pop() {
                *released += 1;
            }
            let in_link = usize::try_from(block.saturating_sub(*released)).unwrap_or(usize::MAX);
            let mut header = [0; RECORD_BYTES];
            if !LinkBytes::new(io.view(), in_link, at, RECORD_BYTES).peek(0, &mut header) {
                return self.missing(in_link, at, io);
            }
            let record = Record { header: RecordHeader::decode(&header), offset: at };
            self.at = Some(record.end());
            // Other tracks have no part in what was before the picture that the session begins with.
            let too_early = record.header.at_ns < self.start.0;
            if too_early || self.needs_sync && !record.header.sync {
                continue;
            }
            self.needs_sync = false;
            return Next::Sample(self.enter(&record, block_bytes));
        }
        Next::Again
    }

    fn enter(&mut self, record: &Record, block_bytes: u64) -> Current {
        let header = &record.header;
        let pts_ns = (header.at_ns as i64).saturating_add(ticks_to_ns(header.pts_offset.into(), self.clock_rate));
        let pts = header.pts() as u32;
        let zero = match self.rtp_zero.filter(|_| !header.discontinuity) {
            Some(zero) => zero,
            None => {
                let since_start = ns_to_rtp(pts_ns.saturating_sub(self.start.0 as i64), self.clock_rate);
                self.start.1.wrapping_add(since_start).wrapping_sub(pts)
            }
        };
        self.rtp_zero = Some(zero);
        let rtp_ts = zero.wrapping_add(pts);
        self.newest = Some((rtp_ts, pts_ns));
        let (dts_ns, span_ns) = (header.at_ns as i64, u64::from(header.span_ns));
        self.end_ns = dts_ns.saturating_add(span_ns as i64);
        let sample = Sample {
            offset: record.data_offset(),
            size: header.bytes,
            dts: header.dts,
            cts_offset: header.pts_offset,
            duration: 0,
            sync: header.sync,
        };
        let block = (sample.offset / block_bytes).saturating_sub(self.first_block);
        Current::new(sample, block, block_bytes, (dts_ns, span_ns, rtp_ts))
    }

    /// Why the bytes at `at`, which would lie in the block at place `in_link`, are not there.
    pub(super) fn missing<H: Host, D: Disk>(&self, in_link: usize, at: u64, io: &IoBatch<'_, H, D>) -> Next {
        let Some(place) = io.tape(self.tape) else { return Next::End };
        let block_bytes = io.block_bytes() as u64;
        let is_gone = io.block(in_link).is_none() && at / block_bytes * block_bytes < place.first;
        match is_gone {
            true => Next::Lost,
            false if place.ended && at >= place.end => Next::End,
            false => Next::NotYet,
        }
    }
}

impl Feed {
    /// The next sample. `released` counts the blocks that were taken out of the link since the feed was started.
    pub(super) fn next<H: Host, D: Disk>(&mut self, released: &mut u64, io: &mut IoBatch<'_, H, D>) -> Next {
        match self {
            Self::Title(feed) => feed.next(io.block_bytes() as u64),
            Self::Tape(feed) => feed.next(released, io),
        }
    }
}
