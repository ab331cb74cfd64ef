//! MPEG transport streams over UDP (ISO 13818-1): the first program's pictures and up to three streams of sound.
//!
//! ```text
//! datagram ─► packets ─► PAT ─► PMT: which PID is what
//!                  └──► PES of each PID ─► access units, frames ─► records
//! ```
//!
//! Tracks have fixed places: 0 for the pictures, 1 to 3 for sound in the order of the program map. How they are coded is learnt from the
//! stream, and told once ([`TsIngest::take_described`]) when all are known, or [`PATIENCE_NS`] after the first one.

pub mod packet;
pub mod pes;
pub mod psi;
#[cfg(test)]
mod tests;
pub mod units;

use pacing::schedule::{rescale_nearest, ticks_to_ns};

use self::packet::{Continuity, Counter, NULL_PID, PACKET_BYTES, TsPacket};
use self::pes::PesBuffer;
use self::psi::{SectionBuffer, Stream, first_program, streams};
use self::units::{Sets, adts_frame, mpeg_audio_frame, with_lengths};
use super::sync::SyncRule;
use super::times::{Line, Unwrapped};
use super::track::{TrackCounters, UNIT_BYTES_MAX, UnitTrack};
use super::{Described, Records};
use crate::media::{Codec, TrackKind};
use crate::rtp::RtpPacket;

/// Kinds of the tracks, by place.
pub const TRACKS: [TrackKind; 4] = [TrackKind::Video, TrackKind::Audio, TrackKind::Audio, TrackKind::Audio];
/// How long to wait for a stream that the program map names and nothing comes of, nanoseconds.
pub const PATIENCE_NS: u64 = 3_000_000_000;
/// Longest PES packet of sound: its length field has 16 bits.
const SOUND_BYTES_MAX: usize = 66_000;
/// Clock of PES times, Hz.
const CLOCK: u32 = 90_000;
/// RTP payload type of transport streams (RFC 3551 table 5).
const PT_MP2T: u8 = 33;
/// Sound whose time is off by less than one in so many seconds goes on evenly.
const EVEN: i64 = 20;

/// How an elementary stream is coded, as far as its `stream_type` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    H264,
    H265,
    Adts,
    MpegAudio,
}

impl Kind {
    /// ISO 13818-1 table 2-34.
    fn of(stream_type: u8) -> Option<Self> {
        match stream_type {
            0x03 | 0x04 => Some(Self::MpegAudio),
            0x0f => Some(Self::Adts),
            0x1b => Some(Self::H264),
            0x24 => Some(Self::H265),
            _ => None,
        }
    }

    fn is(self, kind: TrackKind) -> bool {
        matches!(self, Self::H264 | Self::H265) == (kind == TrackKind::Video)
    }
}

#[derive(Debug)]
struct TsTrack {
    kind: Option<Kind>,
    pid: u16,
    counter: Counter,
    pes: PesBuffer,
    sets: Sets,
    codec: Option<Codec>,
    unit: Option<UnitTrack>,
    /// Time of the next frame of sound, if it goes on evenly.
    next_ticks: Option<i64>,
    packets: u64,
    lost: u64,
}

impl TsTrack {
    fn new(kind: TrackKind) -> Self {
        let max = if kind == TrackKind::Video { UNIT_BYTES_MAX } else { SOUND_BYTES_MAX };
        let (pes, sets) = (PesBuffer::new(max), Sets::default());
        let counter = Counter::default();
        Self { kind: None, pid: NULL_PID, counter, pes, sets, codec: None, unit: None, next_ticks: None, packets: 0, lost: 0 }
    }

    fn assign(&mut self, stream: Option<(Kind, u16)>) {
        let (kind, pid) = stream.map_or((None, NULL_PID), |(kind, pid)| (Some(kind), pid));
        if self.pid == pid && self.kind == kind {
            return;
        }
        if self.kind != kind {
            (self.sets, self.codec) = (Sets::default(), None);
        }
        (self.kind, self.pid, self.counter, self.next_ticks) = (kind, pid, Counter::default(), None);
        self.pes.lost();
        if let Some(unit) = &mut self.unit {
            unit.restart();
        }
    }
}

/// A transport stream.
#[derive(Debug)]
pub struct TsIngest {
    pat: SectionBuffer,
    pat_counter: Counter,
    pmt: SectionBuffer,
    pmt_counter: Counter,
    pmt_pid: Option<u16>,
    tracks: Vec<TsTrack>,
    /// An access unit with lengths before its NAL units.
    scratch: Vec<u8>,
    times: Unwrapped<33>,
    line: Line,
    /// When the first codec became known.
    known_ns: Option<u64>,
    described: bool,
    news: Option<Box<Described>>,
    ignored: u64,
}

impl Default for TsIngest {
    fn default() -> Self {
        Self::new()
    }
}

impl TsIngest {
    /// An ingest to which nothing has come. All memory is taken here, but for what parameter sets need.
    pub fn new() -> Self {
        Self {
            pat: SectionBuffer::default(),
            pat_counter: Counter::default(),
            pmt: SectionBuffer::default(),
            pmt_counter: Counter::default(),
            pmt_pid: None,
            tracks: TRACKS.into_iter().map(TsTrack::new).collect(),
            scratch: Vec::with_capacity(UNIT_BYTES_MAX),
            times: Unwrapped::default(),
            line: Line::default(),
            known_ns: None,
            described: false,
            news: None,
            ignored: 0,
        }
    }

    /// What became of a track's packets.
    pub fn counters(&self, index: usize) -> TrackCounters {
        let Some(track) = self.tracks.get(index) else { return TrackCounters::default() };
        let counters = track.unit.as_ref().map(|unit| unit.counters).unwrap_or_default();
        let ignored_packets = if index == 0 { self.ignored } else { 0 };
        TrackCounters { packets: track.packets, lost_packets: track.lost, ignored_packets, ..counters }
    }

    /// A record of the track found no room.
    pub fn overrun(&mut self, index: usize) {
        if let Some(unit) = self.tracks.get_mut(index).and_then(|track| track.unit.as_mut()) {
            unit.counters.overruns += 1;
            unit.broken();
        }
    }

    /// How the tracks are coded is known.
    pub fn is_described(&self) -> bool {
        self.described
    }

    /// How the tracks are coded, once, when it has become known.
    pub fn take_described(&mut self) -> Option<Box<Described>> {
        self.news.take()
    }

    /// Takes a datagram: transport packets one after another, bare or in RTP. False when there is none in it.
    pub fn datagram(&mut self, now_ns: u64, datagram: &[u8], records: &mut dyn Records) -> bool {
        let stream = match RtpPacket::new_checked(datagram) {
            Ok(packet) if packet.payload_type() == PT_MP2T => packet.payload(),
            _ => datagram,
        };
        let mut any = false;
        for packet in stream.chunks_exact(PACKET_BYTES) {
            match TsPacket::parse(packet) {
                Some(packet) => {
                    any = true;
                    self.packet(now_ns, &packet, records);
                }
                None => self.ignored += 1,
            }
        }
        if !any {
            self.ignored += 1;
        }
        self.describe(now_ns);
        any
    }

    fn packet(&mut self, now_ns: u64, packet: &TsPacket<'_>, records: &mut dyn Records) {
        if packet.payload.is_empty() || packet.pid == NULL_PID {
            return;
        }
        if packet.pid == 0 {
            let Self { pat, pat_counter, pmt_pid, .. } = self;
            table(pat, pat_counter, packet, &mut |section| {
                if let Some(pid) = first_program(section) {
                    *pmt_pid = Some(pid);
                }
            });
        } else if self.pmt_pid == Some(packet.pid) {
            let Self { pmt, pmt_counter, tracks, .. } = self;
            table(pmt, pmt_counter, packet, &mut |section| {
                if let Some((found, count)) = streams(section) {
                    assign(tracks, found.get(..count).unwrap_or(&[]));
                }
            });
        } else if let Some(index) = self.tracks.iter().position(|track| track.pid == packet.pid) {
            self.elementary(now_ns, index, packet, records);
        }
    }

    fn elementary(&mut self, now_ns: u64, index: usize, packet: &TsPacket<'_>, records: &mut dyn Records) {
        let Some(track) = self.tracks.get_mut(index) else { return };
        track.packets += 1;
        match track.counter.next(packet) {
            Continuity::Again => return,
            Continuity::Lost(count) => {
                track.lost += u64::from(count);
                track.pes.lost();
            }
            Continuity::Whole => {}
        }
        if packet.starts {
            self.complete(now_ns, index, records);
            if let Some(track) = self.tracks.get_mut(index) {
                track.pes.begin(packet.payload);
            }
        } else {
            track.pes.append(packet.payload);
        }
        if self.tracks.get(index).is_some_and(|track| track.pes.is_full()) {
            self.complete(now_ns, index, records);
        }
    }

    /// Takes the PES packet that ends here.
    fn complete(&mut self, now_ns: u64, index: usize, records: &mut dyn Records) {
        let Self { tracks, scratch, times, line, .. } = self;
        let Some(TsTrack { kind, pes, sets, codec, unit, next_ticks, .. }) = tracks.get_mut(index) else { return };
        let Some((header, data, whole)) = pes.complete() else { return };
        let (Some(kind), true, Some(pts)) = (*kind, whole, header.pts) else {
            if let Some(unit) = unit {
                unit.broken();
            }
            *next_ticks = None;
            return;
        };
        let pts = times.next(pts);
        match kind {
            Kind::H264 | Kind::H265 => {
                let h265 = kind == Kind::H265;
                if codec.is_none() {
                    sets.learn(data, h265);
                    *codec = sets.codec(h265);
                }
                let Some(codec) = codec else { return };
                let unit = unit.get_or_insert_with(|| UnitTrack::new(SyncRule::of(codec), CLOCK));
                if !with_lengths(data, scratch, UNIT_BYTES_MAX) {
                    unit.broken();
                    return;
                }
                let dts = header.dts.map_or(pts, |dts| times.near(dts)).min(pts);
                if let Some(header) = unit.header(scratch, pts, Some(dts), |dts| line.local_ns(ticks_to_ns(dts, CLOCK), now_ns)) {
                    records.record(index, &header, scratch);
                }
            }
            Kind::Adts | Kind::MpegAudio => {
                let (mut rest, mut offset) = (data, 0);
                loop {
                    let next = if kind == Kind::Adts { adts_frame(rest) } else { mpeg_audio_frame(rest) };
                    let Some((frame, bytes)) = next else { break };
                    rest = rest.get(bytes..).unwrap_or(&[]);
                    let found = || match kind {
                        Kind::Adts => Codec::Aac { config: frame.config.to_vec(), sample_rate: frame.rate, channels: frame.channels },
                        _ => Codec::MpegAudio,
                    };
                    codec.get_or_insert_with(found);
                    let rate = if kind == Kind::Adts { frame.rate } else { CLOCK };
                    let unit = unit.get_or_insert_with(|| UnitTrack::new(SyncRule::Always, rate));
                    let rate = unit.clock_rate();
                    let told = rescale_nearest(pts, CLOCK, rate).saturating_add(rescale_nearest(offset, frame.rate, rate));
                    let even = next_ticks.filter(|next| kind == Kind::Adts && (next - told).saturating_abs() < i64::from(rate) / EVEN);
                    let ticks = even.unwrap_or(told);
                    *next_ticks = Some(ticks.saturating_add(i64::from(frame.instants)));
                    offset += i64::from(frame.instants);
                    let local_ns = |dts| line.local_ns(ticks_to_ns(dts, rate), now_ns);
                    if let Some(header) = unit.header(frame.data, ticks, Some(ticks), local_ns) {
                        records.record(index, &header, frame.data);
                    }
                }
                if !rest.is_empty()
                    && let Some(unit) = unit
                {
                    unit.broken();
                }
            }
        }
    }

    fn describe(&mut self, now_ns: u64) {
        if self.described {
            return;
        }
        let mut named = self.tracks.iter().filter(|track| track.kind.is_some());
        if self.tracks.iter().any(|track| track.codec.is_some()) {
            let since_ns = *self.known_ns.get_or_insert(now_ns);
            if named.all(|track| track.codec.is_some()) || now_ns.saturating_sub(since_ns) >= PATIENCE_NS {
                self.described = true;
                self.news = Some(Box::new(Described { tracks: self.tracks.iter().map(|track| track.codec.clone()).collect() }));
            }
        }
    }
}

/// Takes a packet of a table.
fn table(buffer: &mut SectionBuffer, counter: &mut Counter, packet: &TsPacket<'_>, each: &mut dyn FnMut(&[u8])) {
    match counter.next(packet) {
        Continuity::Again => return,
        Continuity::Lost(_) => buffer.lost(),
        Continuity::Whole => {}
    }
    buffer.push(packet.starts, packet.payload, each);
}

/// Gives tracks the streams of a program map: the first of pictures, and those of sound in their order.
fn assign(tracks: &mut [TsTrack], found: &[Stream]) {
    let known = |kind: TrackKind| {
        let of_kind = found.iter().filter_map(|stream| Some((Kind::of(stream.kind)?, stream.pid)));
        of_kind.filter(move |(coded, _)| coded.is(kind))
    };
    let (mut pictures, mut sound) = (known(TrackKind::Video), known(TrackKind::Audio));
    for (track, kind) in tracks.iter_mut().zip(TRACKS) {
        track.assign(if kind == TrackKind::Video { pictures.next() } else { sound.next() });
    }
}
