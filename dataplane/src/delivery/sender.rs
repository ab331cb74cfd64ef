//! The destination of a track: packetises its samples and sends every packet at its due time, with RTCP beside it.

mod feed;
mod lag;
mod packet;

use std::sync::Arc;

use hugepages::{Hint, prefetch_at};
use pacing::schedule::{self, ns_to_rtp};
use stack::host::{FlowId, Host, StreamError, StreamId};

use super::plan::{Timeline, TrackPlan};
use super::walk::BlockWalk;
use crate::disks::Disk;
use crate::gdsl::{IoBatch, IssueModule, NextUpcall, Outcome, TapeId};
use crate::media::{Codec, Sample, Title, TrackKind};
use crate::payload::Packetiser;
use crate::rtp::sender::REPORT_BYTES_MAX;
use crate::rtp::{HEADER_BYTES, RtpSender, SenderSetup, TimeMap, interleaved};
use feed::{Feed, Next, TapeFeed, TitleFeed};
pub use lag::{LagAction, LagPolicy};
use packet::{Blocked, Missing, Place, packetise};

/// Packets of one stream that may leave back to back.
const BURST_PACKETS: u32 = 2;
/// More of a stream that is so fast that an engine core's turns are farther apart than its packets: those of this time, within the limit.
const BURST_NS: u64 = 1_000_000;
const BURST_PACKETS_MAX: u32 = 24;
/// Gap after such a burst when the stream is behind: the time that half of it is due for, within these bounds. So a stream catches up at
/// twice its own pace, and what a stall held back does not leave at once.
const CATCH_UP_GAP_NS: std::ops::RangeInclusive<u64> = 250_000..=4_000_000;
/// How long after the end of the last sample a datagram stream ends with a BYE. Players read RTCP before RTP: one that was kept from running
/// for a moment would see the BYE first and leave the last packets unread.
const GOODBYE_DELAY_NS: u64 = 200_000_000;
/// Packets of one upcall on a byte stream, where pacing in a burst is TCP's business.
const STREAM_BURST_PACKETS: u32 = 16;
/// Samples finished in one upcall at most; a file may have any number that bring no packet.
const SAMPLES_PER_UPCALL: u32 = 64;
/// Cache lines of the next packet's payload that are asked for ahead of time; the processor itself fetches the lines after them.
const HINT_LINES: usize = 6;
/// How soon to look again when the layer below takes nothing.
const BLOCKED_RETRY_NS: u64 = 1_000_000;
/// How long to wait at the end of a tape before looking whether it goes on.
const TAPE_PATIENCE_NS: u64 = 100_000_000;

/// Where a track's packets go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outlet {
    /// RTP and RTCP over UDP.
    Udp {
        /// RTP.
        rtp: FlowId,
        /// RTCP.
        rtcp: FlowId,
    },
    /// Interleaved in a byte stream (RFC 2326 10.12).
    Stream {
        /// The stream.
        stream: StreamId,
        /// Channel of RTP.
        rtp_channel: u8,
        /// Channel of RTCP.
        rtcp_channel: u8,
    },
}

/// What a [`TrackSender`] is made of.
#[derive(Clone, Copy, Debug)]
pub struct TrackSenderConfig {
    /// RTP synchronisation source.
    pub ssrc: u32,
    /// First sequence number.
    pub seq: u16,
    /// RTP time of the start of the first range.
    pub rtp_base: u32,
    /// RTP payload type.
    pub payload_type: u8,
    /// RTP clock rate in Hz.
    pub clock_rate: u32,
    /// Largest RTP packet, header included.
    pub packet_bytes_max: usize,
    /// A byte stream that takes nothing for this long ends the delivery.
    pub stall_ns: u64,
    /// What happens when the delivery falls behind.
    pub lag: LagPolicy,
    /// Seed of the RTCP intervals.
    pub seed: u64,
}

/// Delivery state of a track.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TrackSenderStatus {
    /// RTP packets sent.
    pub packets: u64,
    /// RTP payload bytes sent.
    pub payload_bytes: u64,
    /// File offset of the next byte to be packetised.
    pub file_offset: u64,
    /// Samples that did not parse as their codec and were skipped.
    pub bad_samples: u64,
    /// Times that the delivery dropped to a later sync sample: it had fallen behind, or the disk could not read what was due.
    pub skips: u64,
}

#[derive(Clone, Copy, Debug)]
struct Current {
    sample: Sample,
    /// Bytes of the sample that were packetised.
    taken: u32,
    /// Number of the block with the next byte (see [`BlockWalk`]), and where in the file that block ends.
    block: u64,
    block_end: u64,
    dts_ns: i64,
    span_ns: u64,
    rtp_ts: u32,
}

impl Current {
    /// The beginning of a sample whose first byte lies in the block of this number; `times` are decode time, time until the next sample,
    /// and RTP time.
    fn new(sample: Sample, block: u64, block_bytes: u64, times: (i64, u64, u32)) -> Self {
        let block_end = (sample.offset / block_bytes + 1) * block_bytes;
        let (dts_ns, span_ns, rtp_ts) = times;
        Self { sample, taken: 0, block, block_end, dts_ns, span_ns, rtp_ts }
    }

    /// File offset of the next byte.
    fn at(&self) -> u64 {
        self.sample.offset + u64::from(self.taken)
    }

    /// `taken` bytes of the sample were packetised by now.
    fn advance(&mut self, taken: u32, block_bytes: u64) {
        self.taken = taken;
        if self.at() >= self.block_end {
            let blocks = (self.at() - self.block_end) / block_bytes + 1;
            self.block += blocks;
            self.block_end += blocks * block_bytes;
        }
    }
}

/// A packet that the byte stream did not take; it waits in the sender's `scratch`.
#[derive(Clone, Copy, Debug)]
struct HeldBack {
    bytes: usize,
    /// Bytes of its sample that went before it: its due time.
    taken_before: u32,
}

/// The destination module of one track.
#[derive(Debug)]
pub struct TrackSender {
    feed: Feed,
    config: TrackSenderConfig,
    packetiser: Packetiser,
    outlet: Option<Outlet>,
    timeline: Timeline,
    current: Option<Current>,
    /// Blocks that were taken out of the link in this range.
    released: u64,
    /// RTP time of presentation time 0 in this range, before wrapping.
    rtp_zero: u32,
    highest_rtp_ts: Option<u32>,
    rtp: RtpSender,
    cname: Box<[u8]>,
    held_back: Option<HeldBack>,
    blocked_since_ns: Option<u64>,
    /// Skips since the last packet.
    skips_in_a_row: u32,
    scratch: Box<[u8]>,
    /// Where in memory the byte after the last packet lay: the next one begins there, or not far from it.
    hint: Hint,
    status: TrackSenderStatus,
    over: bool,
}

impl TrackSender {
    /// A sender of the track at position `track` of `title`; its outlet is set by the engine core.
    pub fn new(title: Arc<Title>, track: usize, config: TrackSenderConfig, cname: &str) -> Option<Self> {
        let packetiser = Packetiser::new(&title.tracks.get(track)?.codec, config.packet_bytes_max - HEADER_BYTES);
        let feed = TitleFeed {
            title,
            track,
            next: 0,
            end: 0,
            walk: BlockWalk::default(),
            rtp_zero: config.rtp_base,
            clock_rate: config.clock_rate,
        };
        Some(Self::of(Feed::Title(feed), packetiser, config, cname))
    }

    /// A sender of records of this codec; its tape and its outlet are set by the engine core.
    pub fn live(codec: &Codec, kind: TrackKind, config: TrackSenderConfig, cname: &str) -> Self {
        let packetiser = Packetiser::new(codec, config.packet_bytes_max - HEADER_BYTES);
        Self::of(Feed::Tape(TapeFeed::new(kind, config.clock_rate)), packetiser, config, cname)
    }

    fn of(feed: Feed, packetiser: Packetiser, config: TrackSenderConfig, cname: &str) -> Self {
        let setup = SenderSetup {
            ssrc: config.ssrc,
            payload_type: config.payload_type,
            first_seq: config.seq,
            clock_rate: config.clock_rate,
            seed: config.seed,
        };
        Self {
            feed,
            packetiser,
            outlet: None,
            timeline: Timeline::default(),
            current: None,
            released: 0,
            rtp_zero: config.rtp_base,
            highest_rtp_ts: None,
            rtp: RtpSender::new(setup),
            cname: cname.as_bytes().into(),
            held_back: None,
            blocked_since_ns: None,
            skips_in_a_row: 0,
            scratch: vec![0; config.packet_bytes_max].into_boxed_slice(),
            hint: Hint::default(),
            status: TrackSenderStatus::default(),
            over: false,
            config,
        }
    }

    /// Sets where packets go.
    pub fn set_outlet(&mut self, outlet: Outlet) {
        self.outlet = Some(outlet);
    }

    /// Where packets go.
    pub fn outlet(&self) -> Option<Outlet> {
        self.outlet
    }

    /// RTP synchronisation source.
    pub fn ssrc(&self) -> u32 {
        self.config.ssrc
    }

    /// The RTP stream: what the client reported.
    pub fn rtp(&self) -> &RtpSender {
        &self.rtp
    }

    /// The RTP stream, to feed with what the client sent.
    pub fn rtp_mut(&mut self) -> &mut RtpSender {
        &mut self.rtp
    }

    /// Delivery state.
    pub fn status(&self) -> TrackSenderStatus {
        self.status
    }

    /// RTP time of the presentation time `pts_ns`.
    pub fn rtp_time_of(&self, pts_ns: u64) -> u32 {
        self.rtp_zero.wrapping_add(ns_to_rtp(pts_ns as i64, self.config.clock_rate))
    }

    /// The range is delivered.
    pub fn is_over(&self) -> bool {
        self.over
    }

    /// Prepares for the range of `plan`, which starts at presentation time `from_ns`; of a live delivery, for a start from where the tape
    /// is then ([`Self::start_live`]). The pair's link must be empty.
    ///
    /// Sequence numbers and RTP time go on over the jump (RFC 2326 appendix B): the new range starts `gap_ns` after the highest RTP
    /// time sent so far.
    pub fn prepare(&mut self, plan: TrackPlan, start_dts_ns: i64, from_ns: u64, gap_ns: u64) {
        let rate = self.config.clock_rate;
        let start = match self.highest_rtp_ts {
            Some(ts) => ts.wrapping_add(ns_to_rtp(gap_ns as i64, rate)),
            None => self.config.rtp_base,
        };
        self.rtp_zero = start.wrapping_sub(ns_to_rtp(from_ns as i64, rate));
        self.timeline = Timeline { start_dts_ns, anchor_ns: None };
        match &mut self.feed {
            Feed::Title(feed) => feed.prepare(plan, self.rtp_zero),
            Feed::Tape(feed) => feed.prepare(start),
        }
        self.released = 0;
        if self.held_back.take().is_some() {
            self.rtp.take_back();
        }
        (self.current, self.over) = (None, false);
        self.rtp.restart();
        (self.blocked_since_ns, self.skips_in_a_row) = (None, 0);
    }

    /// The tape that a live sender's records are on.
    pub fn set_tape(&mut self, tape: TapeId) {
        if let Feed::Tape(feed) = &mut self.feed {
            feed.tape = tape;
        }
    }

    /// Where a live delivery that was prepared begins: at the record at `offset` if that is a mark, else at the next record from there on
    /// that a decoder can start with. What was decoded at `start_ns` on the engine core's clock is the start of the range.
    pub fn start_live(&mut self, offset: u64, is_mark: bool, start_ns: u64, block_bytes: u64) {
        if let Feed::Tape(feed) = &mut self.feed {
            feed.start(offset, is_mark, start_ns, block_bytes);
        }
    }

    /// Sets the time line's anchor; `None` stops delivery where it is.
    pub fn set_timeline(&mut self, timeline: Timeline) {
        self.timeline = timeline;
        self.blocked_since_ns = None;
    }

    /// Writes a last report with BYE.
    pub fn send_bye<H: Host, D: Disk>(&mut self, now_ns: u64, io: &mut IoBatch<'_, H, D>) {
        let (unix_ns, map) = self.time_map(now_ns, io);
        let mut packet = [0; REPORT_BYTES_MAX];
        let len = self.rtp.write_bye(now_ns, unix_ns, &map, &self.cname, b"", &mut packet).unwrap_or(0);
        self.send_rtcp(packet.get(..len).unwrap_or(&[]), io);
    }

    fn time_map<H: Host, D: Disk>(&self, now_ns: u64, io: &IoBatch<'_, H, D>) -> (u64, TimeMap) {
        let (unix_ns, clock_rate) = (io.unix_ns_at(now_ns), self.config.clock_rate);
        let media_ns = self.timeline.dts_at(now_ns);
        let rtp_timestamp = match &self.feed {
            Feed::Title(_) => self.rtp_zero.wrapping_add(ns_to_rtp(media_ns, clock_rate)),
            Feed::Tape(feed) => feed.rtp_at(media_ns),
        };
        (unix_ns, TimeMap { unix_ns, rtp_timestamp, clock_rate })
    }

    /// RTCP is sent when the layer below takes it at once, and otherwise not: the next report says the same.
    fn send_rtcp<H: Host, D: Disk>(&mut self, packet: &[u8], io: &mut IoBatch<'_, H, D>) {
        if packet.is_empty() {
            return;
        }
        match self.outlet {
            Some(Outlet::Udp { rtcp, .. }) => {
                let Some((frame, _)) = io.frame(rtcp) else { return };
                let Some(place) = frame.get_mut(..packet.len()) else { return };
                place.copy_from_slice(packet);
                io.commit_untimed(packet.len());
            }
            Some(Outlet::Stream { stream, rtcp_channel, .. }) => {
                if let Some(prefix) = interleaved::prefix(rtcp_channel, packet.len()) {
                    let _ = io.stream_send(stream, &[&prefix, packet], None);
                }
            }
            None => {}
        }
    }

    fn report_if_due<H: Host, D: Disk>(&mut self, now_ns: u64, io: &mut IoBatch<'_, H, D>) {
        if self.rtp.next_report_ns().is_none_or(|at_ns| at_ns > now_ns) {
            return;
        }
        let (unix_ns, map) = self.time_map(now_ns, io);
        let mut packet = [0; REPORT_BYTES_MAX];
        let len = self.rtp.write_report(now_ns, unix_ns, &map, &self.cname, &mut packet).unwrap_or(0);
        self.send_rtcp(packet.get(..len).unwrap_or(&[]), io);
    }

    /// Makes sure that there is a current sample.
    fn current<H: Host, D: Disk>(&mut self, io: &mut IoBatch<'_, H, D>) -> Next {
        if let Some(current) = self.current {
            return Next::Sample(current);
        }
        let next = self.feed.next(&mut self.released, io);
        if let Next::Sample(current) = &next {
            self.packetiser.begin(current.sample.size, current.sample.sync);
            self.current = Some(*current);
        }
        next
    }

    /// When the next packet of the current sample is due.
    fn due_ns(&self, current: &Current) -> Option<u64> {
        let Timeline { start_dts_ns, anchor_ns } = self.timeline;
        let taken = self.held_back.map_or(current.taken, |held| held.taken_before);
        Some(schedule::due_ns(anchor_ns?, current.dts_ns, start_dts_ns, current.span_ns, taken, current.sample.size))
    }

    /// How many packets may leave back to back, `least` in any case, and how long a stream that is behind waits after them.
    fn burst(&self, current: &Current, least: u32) -> (u32, u64) {
        let packets = u64::from(current.sample.size) / self.config.packet_bytes_max.max(1) as u64 + 1;
        let packet_ns = (current.span_ns / packets).max(1);
        let burst = BURST_NS.div_ceil(packet_ns).clamp(least.into(), BURST_PACKETS_MAX.into());
        let gap_ns = packet_ns.saturating_mul(burst / 2).clamp(*CATCH_UP_GAP_NS.start(), *CATCH_UP_GAP_NS.end());
        (burst as u32, gap_ns)
    }

    /// Drops the blocks before the one with the current sample's next byte.
    fn release_blocks<H: Host, D: Disk>(&mut self, current: &Current, io: &mut IoBatch<'_, H, D>) {
        while self.released < current.block && io.pop() {
            self.released += 1;
        }
    }

    /// Where to find the current sample's next byte.
    fn place(&self, current: &Current, block_bytes: u64) -> Place {
        let in_link = usize::try_from(current.block.saturating_sub(self.released)).unwrap_or(usize::MAX);
        Place { in_link, block_bytes }
    }

    /// Packetises and sends one packet. `Ok(true)`: sent; `Ok(false)`: the sample is finished.
    fn send_one<H: Host, D: Disk>(&mut self, now_ns: u64, due_ns: u64, io: &mut IoBatch<'_, H, D>) -> Result<bool, Blocked> {
        let Some(mut current) = self.current else { return Ok(false) };
        let place = self.place(&current, io.block_bytes() as u64);
        match self.outlet {
            Some(Outlet::Udp { rtp, .. }) => {
                let Some((frame, view)) = io.frame(rtp) else { return Err(Blocked::Host) };
                let made = packetise(&mut self.packetiser, &mut self.rtp, &mut current, &mut self.hint, place, view, frame)?;
                self.current = Some(current);
                let Some(len) = made else { return Ok(false) };
                io.commit(len, due_ns);
                self.count(now_ns, len, current.rtp_ts);
            }
            Some(Outlet::Stream { stream, rtp_channel, .. }) => {
                let len = match self.held_back {
                    Some(held) => held.bytes,
                    None => {
                        let taken_before = current.taken;
                        let made = packetise(
                            &mut self.packetiser,
                            &mut self.rtp,
                            &mut current,
                            &mut self.hint,
                            place,
                            io.view(),
                            &mut self.scratch,
                        )?;
                        self.current = Some(current);
                        let Some(len) = made else { return Ok(false) };
                        self.held_back = Some(HeldBack { bytes: len, taken_before });
                        len
                    }
                };
                let packet = self.scratch.get(..len).unwrap_or(&[]);
                let prefix = interleaved::prefix(rtp_channel, len).ok_or(Blocked::Failed("a packet is too long for its frame"))?;
                io.stream_send(stream, &[&prefix, packet], Some(due_ns)).map_err(|e| match e {
                    StreamError::Full => Blocked::Stream,
                    StreamError::Closed => Blocked::Failed("the client closed the connection"),
                })?;
                self.held_back = None;
                self.blocked_since_ns = None;
                self.count(now_ns, len, current.rtp_ts);
            }
            None => return Err(Blocked::Failed("the track has no outlet")),
        }
        Ok(true)
    }

    fn count(&mut self, now_ns: u64, packet_bytes: usize, rtp_ts: u32) {
        let payload_bytes = packet_bytes.saturating_sub(HEADER_BYTES);
        self.status.packets += 1;
        self.skips_in_a_row = 0;
        self.status.payload_bytes += payload_bytes as u64;
        self.rtp.note_sent(now_ns, payload_bytes);
        if self.highest_rtp_ts.is_none_or(|highest| (rtp_ts.wrapping_sub(highest) as i32) > 0) {
            self.highest_rtp_ts = Some(rtp_ts);
        }
    }

    /// The end is due when the last sample has been on show for its time.
    fn end<H: Host, D: Disk>(&mut self, now_ns: u64, io: &mut IoBatch<'_, H, D>) -> NextUpcall {
        let delay_ns = if matches!(self.outlet, Some(Outlet::Udp { .. })) { GOODBYE_DELAY_NS } else { 0 };
        match self.timeline.due_ns(self.end_dts_ns()).map(|at_ns| at_ns.saturating_add(delay_ns)) {
            Some(at_ns) if at_ns > now_ns => NextUpcall::At(at_ns),
            _ => {
                self.over = true;
                io.finish(Outcome::Ended);
                NextUpcall::Never
            }
        }
    }

    fn fail<H: Host, D: Disk>(&mut self, why: &'static str, io: &mut IoBatch<'_, H, D>) -> NextUpcall {
        self.over = true;
        io.finish(Outcome::Failed(why));
        NextUpcall::Never
    }

    /// What to do about a packet that could not be sent now.
    fn blocked<H: Host, D: Disk>(&mut self, why: Blocked, now_ns: u64, io: &mut IoBatch<'_, H, D>) -> NextUpcall {
        match why {
            Blocked::Host => NextUpcall::At(now_ns + CATCH_UP_GAP_NS.start()),
            Blocked::Data if matches!(self.feed, Feed::Tape(_)) => self.wait_for_tape(now_ns, io),
            Blocked::Data => match self.missing(io) {
                Missing::OnItsWay => self.wait_for_data(now_ns, io),
                Missing::Nothing => self.blocked(Blocked::BadSample, now_ns, io),
                Missing::Unreadable(offset) => self.conceal(offset, now_ns, io),
                Missing::ForGood(why) => self.fail(why, io),
            },
            Blocked::Stream => {
                let since_ns = *self.blocked_since_ns.get_or_insert(now_ns);
                if now_ns.saturating_sub(since_ns) >= self.config.stall_ns {
                    return self.fail("the client stopped reading", io);
                }
                NextUpcall::At(now_ns + BLOCKED_RETRY_NS)
            }
            Blocked::BadSample => {
                self.status.bad_samples += 1;
                self.current = None;
                NextUpcall::At(now_ns)
            }
            Blocked::Failed(why) => self.fail(why, io),
        }
    }
}

impl<H: Host, D: Disk> IssueModule<H, D> for TrackSender {
    fn prefetch(&self, host: &H) {
        if let Some(Outlet::Udp { rtp, .. }) = self.outlet {
            host.prefetch_flow(rtp);
        }
        prefetch_at(self.hint, HINT_LINES);
    }

    fn upcall(&mut self, now_ns: u64, io: &mut IoBatch<'_, H, D>) -> NextUpcall {
        if self.over || self.timeline.anchor_ns.is_none() {
            return NextUpcall::Never;
        }
        self.report_if_due(now_ns, io);
        let burst_least = if matches!(self.outlet, Some(Outlet::Stream { .. })) { STREAM_BURST_PACKETS } else { BURST_PACKETS };
        let (mut sent, mut finished) = (0, 0);
        loop {
            let current = match self.current(io) {
                Next::Sample(current) => current,
                Next::NotYet => return NextUpcall::OnLinkOrAt(now_ns + TAPE_PATIENCE_NS),
                Next::Again => return NextUpcall::At(now_ns),
                Next::Lost => return self.catch_up_with_tape(now_ns, io),
                Next::End => return self.end(now_ns, io),
            };
            if current.taken >= current.sample.size && self.held_back.is_none() {
                self.current = None;
                finished += 1;
                if finished == SAMPLES_PER_UPCALL {
                    return NextUpcall::At(now_ns);
                }
                continue;
            }
            let due_ns = self.due_ns(&current).unwrap_or(now_ns);
            if due_ns > now_ns {
                return NextUpcall::At(due_ns);
            }
            if self.is_too_late(now_ns, due_ns) && current.taken == 0 && self.held_back.is_none() && self.may_drop_behind(&current, io) {
                return self.drop_behind(now_ns, io);
            }
            if sent >= burst_least {
                let (burst, gap_ns) = self.burst(&current, burst_least);
                if sent >= burst {
                    return NextUpcall::At(now_ns + gap_ns);
                }
            }
            self.release_blocks(&current, io);
            match self.send_one(now_ns, due_ns, io) {
                Ok(true) => {
                    sent += 1;
                    if sent == 1 {
                        self.report_if_due(now_ns, io);
                    }
                }
                // What was left of it brings no packet.
                Ok(false) => self.current = self.current.map(|current| Current { taken: current.sample.size, ..current }),
                Err(why) => return self.blocked(why, now_ns, io),
            }
            if let Some(current) = &self.current {
                self.status.file_offset = current.at();
            }
        }
    }
}
