//! What a track's packets must be, worked out from the title alone.

use std::sync::Arc;

use dataplane::delivery::{PACKET_BYTES_MAX, StartPlan, TrackPlan};
use dataplane::media::Title;
use dataplane::payload::{Packetiser, SliceBytes, Step};
use dataplane::rtp::header::{HEADER_BYTES, RtpPacket};
use dataplane::rtp::rtcp::{ReportBlock, Writer};
use pacing::schedule::ticks_to_ns;

/// The wheel's resolution: what is not known of the anchor once it has settled.
const TICK_NS: u64 = 20_000;
/// So long after the first packet of a range its anchor is still moved by packets that were less late.
const SETTLING_NS: u64 = 200_000_000;

/// The time line of a session, inferred from the packets that were sent: nobody is told when delivery began, and the first packets may be
/// late themselves.
pub(super) struct Anchor {
    /// Time at which the range's start was due, as far as is known.
    ns: i64,
    settled_ns: u64,
}

/// What one packet must be.
struct Expected {
    payload_len: usize,
    marker: bool,
    pts_ticks: i64,
    timestamp_offset: u32,
    /// Due time after the anchor of the range.
    due_after_ns: i64,
}

/// The oracle of one track of one session.
pub(super) struct TrackOracle {
    title: Arc<Title>,
    bytes: Arc<[u8]>,
    track: usize,
    ssrc: u32,
    payload_type: u8,
    clock_rate: u32,
    packetiser: Packetiser,
    payload: Vec<u8>,
    next: u32,
    end: u32,
    taken: usize,
    begun: bool,
    seq: Option<u16>,
    rtptime: u32,
    from_ns: u64,
    start_dts_ns: i64,
    pub(super) packets: u64,
    /// Places that were left out because the disk could not read them.
    pub(super) skips: u64,
}

impl TrackOracle {
    pub(super) fn new(title: Arc<Title>, bytes: Arc<[u8]>, track: usize, ssrc: u32) -> Self {
        let described = &title.description.tracks[track];
        let (payload_type, clock_rate) = (described.payload_type, described.clock_rate);
        let packetiser = Packetiser::new(&title.tracks[track].codec, PACKET_BYTES_MAX - HEADER_BYTES);
        Self {
            title,
            bytes,
            track,
            ssrc,
            payload_type,
            clock_rate,
            packetiser,
            payload: vec![0; PACKET_BYTES_MAX],
            next: 0,
            end: 0,
            taken: 0,
            begun: false,
            seq: None,
            rtptime: 0,
            from_ns: 0,
            start_dts_ns: 0,
            packets: 0,
            skips: 0,
        }
    }

    /// A new range begins.
    pub(super) fn begin(&mut self, plan: &StartPlan, part: TrackPlan) {
        (self.next, self.end, self.taken, self.begun) = (part.first, part.end, 0, false);
        (self.from_ns, self.start_dts_ns) = (plan.from_ns, plan.start_dts_ns);
    }

    /// The engine said where the range starts.
    pub(super) fn started(&mut self, seq: u16, rtptime: u32, resumed_at_ns: Option<u64>) -> Result<(), String> {
        if let Some(expected) = self.seq
            && seq != expected
        {
            return Err(format!("RTP-Info says seq {seq}, the packets go on with {expected}"));
        }
        self.seq = Some(seq);
        match resumed_at_ns {
            None => self.rtptime = rtptime,
            Some(position_ns) => {
                let expected = self.rtptime.wrapping_add(self.to_clock(position_ns as i64 - self.from_ns as i64));
                if rtptime.wrapping_sub(expected).wrapping_add(2) > 4 {
                    return Err(format!("RTP-Info says rtptime {rtptime} after a pause, {expected} is the same time line"));
                }
            }
        }
        Ok(())
    }

    /// All packets of the range were seen. Only to be asked when no more is to come.
    pub(super) fn is_complete(&mut self) -> bool {
        self.expect().is_none()
    }

    fn to_clock(&self, ns: i64) -> u32 {
        (i128::from(ns) * i128::from(self.clock_rate)).div_euclid(1_000_000_000) as u32
    }

    /// Makes the next packet that must come.
    fn expect(&mut self) -> Option<Expected> {
        while self.next < self.end {
            let track = &self.title.tracks[self.track];
            let sample = track.samples.get(self.next)?;
            if !self.begun {
                self.packetiser.begin(sample.size, sample.sync);
                (self.begun, self.taken) = (true, 0);
            }
            let from = sample.offset as usize + self.taken;
            let mut rest = SliceBytes::new(&self.bytes[from..sample.offset as usize + sample.size as usize]);
            let before = self.taken;
            let step = self.packetiser.next(&mut rest, &mut self.payload).ok()?;
            self.taken = sample.size as usize - dataplane::payload::SampleBytes::remaining(&rest);
            match step {
                Step::Packet(meta) => {
                    let dts_ns = ticks_to_ns(sample.dts, track.timescale);
                    let span_ns = ticks_to_ns(sample.dts + i64::from(sample.duration), track.timescale) - dts_ns;
                    let into_ns = span_ns as i128 * before as i128 / i128::from(sample.size.max(1));
                    return Some(Expected {
                        payload_len: meta.len,
                        marker: meta.marker,
                        pts_ticks: sample.dts + i64::from(sample.cts_offset),
                        timestamp_offset: meta.timestamp_offset,
                        due_after_ns: dts_ns - self.start_dts_ns + into_ns as i64,
                    });
                }
                Step::NeedData => return None,
                Step::SampleDone => {
                    self.next += 1;
                    self.begun = false;
                }
            }
        }
        None
    }

    /// Checks a packet that was sent at `at_ns`. The anchor of the session's time line is set by the first ones. The answer is its lateness.
    pub(super) fn packet(
        &mut self,
        at_ns: u64,
        bytes: &[u8],
        anchor: &mut Option<Anchor>,
        patience_ns: Option<u64>,
        may_skip: bool,
    ) -> Result<u64, String> {
        let packet = RtpPacket::new_checked(bytes).map_err(|e| e.to_string())?;
        if may_skip {
            self.follow_skip(packet.timestamp());
        }
        let sample = self.next;
        let Some(expected) = self.expect() else { return Err("a packet beyond the end of the range".into()) };
        let what = |wrong: String| format!("track {} sample {sample}: {wrong}", self.track + 1);
        let seq = self.seq.ok_or("a packet before the range was prepared")?;
        if packet.seq() != seq || packet.ssrc() != self.ssrc || packet.payload_type() != self.payload_type {
            return Err(what(format!("header {:?}, seq {seq} of SSRC {} was due", packet, self.ssrc)));
        }
        self.seq = Some(seq.wrapping_add(1));
        self.packets += 1;
        if packet.payload() != &self.payload[..expected.payload_len] || packet.marker() != expected.marker {
            return Err(what(format!("payload of {} bytes is not the title's {}", packet.payload().len(), expected.payload_len)));
        }
        let pts_ns = ticks_to_ns(expected.pts_ticks, self.title.tracks[self.track].timescale);
        let timestamp = self.rtptime.wrapping_add(self.to_clock(pts_ns - self.from_ns as i64)).wrapping_add(expected.timestamp_offset);
        if packet.timestamp().wrapping_sub(timestamp).wrapping_add(2) > 4 {
            return Err(what(format!("RTP time {}, {timestamp} was expected", packet.timestamp())));
        }
        let shows_ns = at_ns as i64 - expected.due_after_ns.max(0);
        let anchor = anchor.get_or_insert(Anchor { ns: shows_ns, settled_ns: at_ns + SETTLING_NS });
        if at_ns < anchor.settled_ns || patience_ns.is_none() {
            anchor.ns = anchor.ns.min(shows_ns);
        }
        let lateness_ns = shows_ns - anchor.ns;
        if patience_ns.is_some_and(|patience_ns| lateness_ns < -(TICK_NS as i64) || lateness_ns > patience_ns as i64) {
            return Err(what(format!("sent {lateness_ns} ns after it was due")));
        }
        Ok(lateness_ns.max(0) as u64)
    }

    /// The disk cannot read everything: when the packet does not belong to the sample that is due, but begins a later one that a decoder can
    /// start with, that one is due.
    fn follow_skip(&mut self, timestamp: u32) {
        let is_of = |oracle: &Self, i: u32| {
            let track = &oracle.title.tracks[oracle.track];
            let sample = track.samples.get(i)?;
            let pts_ns = ticks_to_ns(sample.dts + i64::from(sample.cts_offset), track.timescale);
            let expected = oracle.rtptime.wrapping_add(oracle.to_clock(pts_ns - oracle.from_ns as i64));
            Some(timestamp.wrapping_sub(expected).wrapping_add(2) <= 4)
        };
        let is_due = self.begun && is_of(self, self.next) == Some(true);
        let starts = (self.next..self.end).find(|&i| is_of(self, i) == Some(true));
        if let Some(starts) = starts.filter(|&i| !is_due && i != self.next) {
            let sync = self.title.tracks[self.track].samples.get(starts).is_some_and(|sample| sample.sync);
            // A sample without packets is passed by without a skip; anything else must be a place to start from.
            if sync {
                (self.next, self.begun) = (starts, false);
                self.skips += 1;
            }
        }
    }

    /// A receiver report on this stream.
    pub(super) fn receiver_report(&self) -> Vec<u8> {
        let mut packet = vec![0; 128];
        let mut writer = Writer::new(&mut packet);
        let highest_seq = self.seq.map_or(0, |seq| seq.wrapping_sub(1).into());
        let (ssrc, jitter) = (self.ssrc, 9);
        let block = ReportBlock { ssrc, fraction_lost: 0, cumulative_lost: 0, highest_seq, jitter, last_sr: 0, delay_since_last_sr: 0 };
        let written = writer.receiver_report(!ssrc, &[block]).and_then(|()| writer.cname(!ssrc, b"viewer"));
        debug_assert!(written.is_ok(), "a report of one block fits");
        let len = writer.len();
        packet.truncate(len);
        packet
    }

    /// RTP time that belongs to `at_ns`, for sender reports.
    pub(super) fn rtp_time_at(&self, at_ns: u64, anchor: &Anchor) -> u32 {
        let dts_ns = at_ns as i64 - anchor.ns + self.start_dts_ns;
        self.rtptime.wrapping_add(self.to_clock(dts_ns - self.from_ns as i64))
    }
}
