//! What an RTSP client records: RTP and RTCP of up to eight tracks.

use pacing::schedule::ticks_to_ns;

use super::Records;
use super::reorder::{Popped, Pushed, Reorder};
use super::sync::SyncRule;
use super::times::{Line, Unwrapped};
use super::track::{TrackCounters, UNIT_BYTES_MAX, UnitTrack};
use super::ts::units::mpeg_audio_frame;
use crate::delivery::live::RecordHeader;
use crate::media::{Codec, TrackKind};
use crate::payload::Depacketiser;
use crate::rtp::RtpPacket;
use crate::rtp::ntp::{NtpTime, ns_to_short};
use crate::rtp::rtcp::{Compound, Packet, ReportBlock, Writer};

/// How often we report to the sender, nanoseconds.
const REPORT_EVERY_NS: u64 = 5_000_000_000;
/// Longest report that we write, bytes.
pub const REPORT_BYTES_MAX: usize = 320;

/// What the session description says of a track.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RtpTrackSpec {
    /// How it is coded.
    pub codec: Codec,
    /// RTP payload type.
    pub payload_type: u8,
    /// RTP clock rate, Hz.
    pub clock_rate: u32,
}

/// RFC 3550 A.3 and A.8: what a receiver reports.
#[derive(Clone, Copy, Debug, Default)]
struct Reception {
    base_seq: u16,
    highest: Unwrapped<16>,
    highest_seq: i64,
    received: u64,
    /// Expected and received at the last report.
    reported: (i64, u64),
    transit: Option<i64>,
    jitter: u32,
    /// Middle bits of the last sender report's time, and when it came.
    last_sr: Option<(u32, u64)>,
}

impl Reception {
    fn packet(&mut self, seq: u16, timestamp: u32, clock_rate: u32, now_ns: u64) {
        if self.received == 0 {
            self.base_seq = seq;
            self.highest_seq = self.highest.next(seq.into());
        }
        self.received += 1;
        let near = self.highest.near(seq.into());
        if near > self.highest_seq {
            self.highest_seq = self.highest.next(seq.into());
        }
        let arrived = pacing::schedule::ns_to_rtp(now_ns as i64, clock_rate);
        let transit = i64::from(arrived.wrapping_sub(timestamp));
        let differs = self.transit.map_or(0, |last| (transit as u32).wrapping_sub(last as u32) as i32);
        self.transit = Some(transit);
        let differs = differs.unsigned_abs();
        // In 1/16 units, as RFC 3550 A.8 has it.
        self.jitter = self.jitter.saturating_add(differs).saturating_sub((self.jitter.saturating_add(8)) >> 4);
    }

    fn block(&mut self, ssrc: u32, now_ns: u64) -> ReportBlock {
        let expected = self.highest_seq - i64::from(self.base_seq) + 1;
        let lost = expected - self.received as i64;
        let (expected_before, received_before) = self.reported;
        self.reported = (expected, self.received);
        let (expected_since, received_since) = (expected - expected_before, (self.received - received_before) as i64);
        let lost_since = (expected_since - received_since).max(0);
        let fraction_lost = if expected_since > 0 { (lost_since * 256 / expected_since).min(255) as u8 } else { 0 };
        let (last_sr, delay) = self.last_sr.map_or((0, 0), |(sr, at_ns)| (sr, ns_to_short(now_ns.saturating_sub(at_ns))));
        ReportBlock {
            ssrc,
            fraction_lost,
            cumulative_lost: i32::try_from(lost).unwrap_or(i32::MAX),
            highest_seq: self.highest_seq as u32,
            jitter: self.jitter >> 4,
            last_sr,
            delay_since_last_sr: delay,
        }
    }
}

/// A track's RTP times on a line of time: that of the sender's reports, or, before there is one, that of the first packet's arrival.
#[derive(Clone, Copy, Debug, Default)]
struct TrackClock {
    unwrapped: Unwrapped<32>,
    /// An RTP time, unwrapped, and the sender's time that belongs to it, nanoseconds.
    arrival: Option<(i64, i64)>,
    report: Option<(i64, i64)>,
}

#[derive(Debug)]
struct RtpTrack {
    payload_type: u8,
    reorder: Reorder,
    depacketiser: Depacketiser,
    unit: UnitTrack,
    clock: TrackClock,
    ssrc: Option<u32>,
    reception: Reception,
    said_bye: bool,
    /// A marker ends its access units; without it is MPEG audio only.
    has_marker: bool,
}

/// The tracks of one RTSP client that records.
#[derive(Debug)]
pub struct RtpIngest {
    tracks: Vec<RtpTrack>,
    /// Senders' clocks on ours: by arrival, and by their reports.
    lines: [Line; 2],
    our_ssrc: u32,
    cname: Box<[u8]>,
    next_report_ns: Option<u64>,
}

/// A track's parts of which the access units that it completes make use.
struct Parts<'a> {
    unit: &'a mut UnitTrack,
    clock: &'a mut TrackClock,
    lines: &'a mut [Line; 2],
    now_ns: u64,
    /// What comes in one piece may be several frames of MPEG audio.
    is_frames: bool,
}

impl Parts<'_> {
    fn unit(&mut self, timestamp: u32, data: &[u8], intact: bool, track: usize, records: &mut dyn Records) {
        if !intact {
            self.unit.broken();
            return;
        }
        let (mut rest, mut instants, mut first) = (data, 0u64, None);
        // RFC 2250 3.5: the timestamp is that of the first frame in a packet.
        while self.is_frames
            && let Some((frame, bytes)) = mpeg_audio_frame(rest)
        {
            let ticks = instants * u64::from(self.unit.clock_rate()) / u64::from(frame.rate.max(1));
            let header = self.record(timestamp.wrapping_add(ticks as u32), frame.data, first, track, records);
            first = first.or(header);
            rest = rest.get(bytes..).unwrap_or(&[]);
            instants += u64::from(frame.instants);
        }
        // Of a frame whose length is not in its header there is one in a packet.
        if !rest.is_empty() && instants == 0 {
            self.record(timestamp, rest, None, track, records);
        } else if !rest.is_empty() {
            self.unit.broken();
        }
    }

    /// One access unit. Only what comes first in a packet tells how long it was on its way: the line of time is that one's.
    fn record(
        &mut self,
        timestamp: u32,
        data: &[u8],
        first: Option<RecordHeader>,
        track: usize,
        records: &mut dyn Records,
    ) -> Option<RecordHeader> {
        let (rate, now_ns) = (self.unit.clock_rate(), self.now_ns);
        let pts = self.clock.unwrapped.next(timestamp.into());
        let (clock, lines) = (&mut self.clock, &mut self.lines);
        let local_ns = |dts: i64| {
            if let Some(first) = first {
                return first.at_ns.saturating_add_signed(ticks_to_ns(dts.saturating_sub(first.dts), rate));
            }
            let (line, (ticks, sender_ns)) = match clock.report {
                Some(report) => (&mut lines[1], report),
                None => (&mut lines[0], *clock.arrival.get_or_insert((dts, now_ns as i64))),
            };
            line.local_ns(sender_ns.saturating_add(ticks_to_ns(dts.saturating_sub(ticks), rate)), now_ns)
        };
        let header = self.unit.header(data, pts, None, local_ns)?;
        records.record(track, &header, data);
        Some(header)
    }
}

impl RtpIngest {
    /// An ingest of these tracks. All memory is taken here.
    pub fn new(tracks: &[RtpTrackSpec], our_ssrc: u32, cname: &str) -> Self {
        let track = |spec: &RtpTrackSpec| {
            let rule = SyncRule::of(&spec.codec);
            let mut depacketiser = Depacketiser::new(&spec.codec, UNIT_BYTES_MAX);
            depacketiser.reserve();
            RtpTrack {
                payload_type: spec.payload_type,
                reorder: Reorder::new(),
                depacketiser,
                unit: UnitTrack::new(rule, spec.clock_rate),
                clock: TrackClock::default(),
                ssrc: None,
                reception: Reception::default(),
                said_bye: false,
                has_marker: !matches!(spec.codec, Codec::MpegAudio),
            }
        };
        let tracks = tracks.iter().map(track).collect();
        Self { tracks, lines: [Line::default(); 2], our_ssrc, cname: cname.as_bytes().into(), next_report_ns: None }
    }

    /// Tracks.
    pub fn len(&self) -> usize {
        self.tracks.len()
    }

    /// True when there are none.
    pub fn is_empty(&self) -> bool {
        self.tracks.is_empty()
    }

    /// Sight or sound; `None` when there is no such track.
    pub fn kind(&self, track: usize) -> Option<TrackKind> {
        self.tracks.get(track).map(|track| track.unit.kind())
    }

    /// What became of a track's packets.
    pub fn counters(&self, track: usize) -> TrackCounters {
        self.tracks.get(track).map(|track| track.unit.counters).unwrap_or_default()
    }

    /// A record of the track found no room.
    pub fn overrun(&mut self, track: usize) {
        if let Some(track) = self.tracks.get_mut(track) {
            track.unit.counters.overruns += 1;
            track.unit.broken();
        }
    }

    /// Takes an RTP packet of the track at this position. False when it was none of it.
    pub fn rtp(&mut self, now_ns: u64, index: usize, datagram: &[u8], records: &mut dyn Records) -> bool {
        let Some(track) = self.tracks.get_mut(index) else { return false };
        let Ok(packet) = RtpPacket::new_checked(datagram) else {
            track.unit.counters.ignored_packets += 1;
            return false;
        };
        if packet.payload_type() != track.payload_type || *track.ssrc.get_or_insert(packet.ssrc()) != packet.ssrc() {
            track.unit.counters.ignored_packets += 1;
            return false;
        }
        track.unit.counters.packets += 1;
        track.reception.packet(packet.seq(), packet.timestamp(), track.unit.clock_rate(), now_ns);
        self.next_report_ns.get_or_insert(now_ns.saturating_add(REPORT_EVERY_NS));
        let lines = &mut self.lines;
        let mut pushed = track.reorder.push(now_ns, packet.seq(), datagram);
        if pushed == Pushed::Full {
            track.drain(now_ns, index, lines, records);
            pushed = track.reorder.push(now_ns, packet.seq(), datagram);
        }
        match pushed {
            Pushed::Next => track.packet(now_ns, &packet, index, lines, records),
            Pushed::Jumps(missing) => {
                track.gap(missing);
                track.packet(now_ns, &packet, index, lines, records);
            }
            Pushed::Waits => {}
            Pushed::Full | Pushed::Dropped => track.unit.counters.ignored_packets += 1,
        }
        track.drain(now_ns, index, lines, records);
        true
    }

    /// Takes an RTCP packet of the track at this position. False when it does not parse.
    pub fn rtcp(&mut self, now_ns: u64, index: usize, datagram: &[u8]) -> bool {
        let (Some(track), Ok(compound)) = (self.tracks.get_mut(index), Compound::new_checked(datagram)) else { return false };
        for packet in compound.packets() {
            match packet {
                Packet::SenderReport { ssrc, info, .. } if track.ssrc.is_none_or(|known| known == ssrc) => {
                    track.reception.last_sr = Some((info.ntp.short(), now_ns));
                    track.clock.report(info.rtp_timestamp, info.ntp);
                }
                Packet::Bye(bye) if track.ssrc.is_some_and(|ssrc| bye.includes(ssrc)) => track.said_bye = true,
                _ => {}
            }
        }
        true
    }

    /// All tracks that sent anything have said goodbye.
    pub fn is_over(&self) -> bool {
        let mut heard = self.tracks.iter().filter(|track| track.ssrc.is_some()).peekable();
        heard.peek().is_some() && heard.all(|track| track.said_bye)
    }

    /// Gives up what has waited for too long. Call at [`Self::next_ns`].
    pub fn tick(&mut self, now_ns: u64, records: &mut dyn Records) {
        for (index, track) in self.tracks.iter_mut().enumerate() {
            track.drain(now_ns, index, &mut self.lines, records);
        }
    }

    /// The end: the last access units, of codecs where nothing but the next packet would show that they are complete. Of others, one
    /// whose marker has not come is not.
    pub fn flush(&mut self, now_ns: u64, records: &mut dyn Records) {
        for (index, track) in self.tracks.iter_mut().enumerate().filter(|(_, track)| !track.has_marker) {
            let RtpTrack { depacketiser, unit, clock, has_marker, .. } = track;
            let mut parts = Parts { unit, clock, lines: &mut self.lines, now_ns, is_frames: !*has_marker };
            depacketiser.flush(&mut |au| parts.unit(au.timestamp, au.data, au.intact, index, records));
        }
    }

    /// When [`Self::tick`] or [`Self::report`] is worth a call though nothing came.
    pub fn next_ns(&self) -> Option<u64> {
        self.tracks.iter().filter_map(|track| track.reorder.next_ns()).chain(self.next_report_ns).min()
    }

    /// Whether a receiver report is due for each track.
    pub fn reports_due(&mut self, now_ns: u64) -> bool {
        let due = self.next_report_ns.is_some_and(|at_ns| at_ns <= now_ns);
        if due {
            self.next_report_ns = Some(now_ns.saturating_add(REPORT_EVERY_NS));
        }
        due
    }

    /// Writes a receiver report about the track; its length, 0 when there is nothing to report.
    pub fn report(&mut self, now_ns: u64, index: usize, out: &mut [u8]) -> usize {
        let Some(track) = self.tracks.get_mut(index) else { return 0 };
        let Some(ssrc) = track.ssrc else { return 0 };
        let block = track.reception.block(ssrc, now_ns);
        let mut writer = Writer::new(out);
        let written = writer.receiver_report(self.our_ssrc, &[block]).and_then(|()| writer.cname(self.our_ssrc, &self.cname));
        if written.is_ok() { writer.len() } else { 0 }
    }
}

impl TrackClock {
    fn report(&mut self, rtp: u32, ntp: NtpTime) {
        self.report = Some((self.unwrapped.near(rtp.into()), ntp.to_unix_ns() as i64));
    }
}

impl RtpTrack {
    fn packet(&mut self, now_ns: u64, packet: &RtpPacket<'_>, index: usize, lines: &mut [Line; 2], records: &mut dyn Records) {
        let Self { depacketiser, unit, clock, has_marker, .. } = self;
        if clock.arrival.is_none() && clock.report.is_none() {
            clock.unwrapped.next(packet.timestamp().into());
        }
        let mut parts = Parts { unit, clock, lines, now_ns, is_frames: !*has_marker };
        let mut sink = |au: crate::payload::AccessUnit<'_>| parts.unit(au.timestamp, au.data, au.intact, index, records);
        // What is not understood spoils its access unit, which is counted when it is shown.
        let _ = depacketiser.push(packet.payload(), packet.marker(), packet.timestamp(), &mut sink);
    }

    fn gap(&mut self, count: u16) {
        self.unit.counters.lost_packets += u64::from(count);
        self.depacketiser.gap();
    }

    fn drain(&mut self, now_ns: u64, index: usize, lines: &mut [Line; 2], records: &mut dyn Records) {
        let Self { reorder, depacketiser, unit, clock, has_marker, .. } = self;
        while let Some(popped) = reorder.pop(now_ns) {
            match popped {
                Popped::Gap(count) => {
                    unit.counters.lost_packets += u64::from(count);
                    depacketiser.gap();
                }
                Popped::Packet(datagram) => {
                    let Ok(packet) = RtpPacket::new_checked(datagram) else { continue };
                    let mut parts = Parts { unit, clock, lines, now_ns, is_frames: !*has_marker };
                    let mut sink = |au: crate::payload::AccessUnit<'_>| parts.unit(au.timestamp, au.data, au.intact, index, records);
                    let _ = depacketiser.push(packet.payload(), packet.marker(), packet.timestamp(), &mut sink);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rtp::header::HeaderTemplate;

    #[test]
    fn each_frame_of_mpeg_audio_is_a_record_of_its_own() {
        let spec = RtpTrackSpec { codec: Codec::MpegAudio, payload_type: 14, clock_rate: 90_000 };
        let mut ingest = RtpIngest::new(&[spec], 1, "test");
        // Layer III, 32 kbit/s, 48 kHz: 96 bytes, 24 ms.
        let frame = |fill: u8| [&[0xff, 0xfb, 0x14, 0][..], &[fill; 92]].concat();
        let mut got: Vec<(RecordHeader, Vec<u8>)> = Vec::new();
        let template = HeaderTemplate::new(14, 7);
        for packet in 0..4u16 {
            let payload = [vec![0; 4], frame(3 * packet as u8), frame(3 * packet as u8 + 1), frame(3 * packet as u8 + 2)].concat();
            let header = template.packet(false, packet, 1000 + 6480 * u32::from(packet));
            let mut sink = |_: usize, header: &RecordHeader, data: &[u8]| got.push((*header, data.to_vec()));
            let now_ns = 1_000_000_000 + 72_000_000 * u64::from(packet);
            assert!(ingest.rtp(now_ns, 0, &[&header[..], &payload].concat(), &mut sink));
            ingest.flush(now_ns, &mut sink);
        }
        assert_eq!(got.len(), 12);
        for (n, (header, data)) in got.iter().enumerate() {
            assert!(*data == frame(n as u8), "frame {n}");
            assert_eq!((header.dts, header.at_ns), (1000 + 2160 * n as i64, 1_000_000_000 + 24_000_000 * n as u64), "frame {n}");
        }
    }
}
