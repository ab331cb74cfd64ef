//! The media side of one client: its streams and its times. The RTSP side is [`super::client`], the sockets are the runner's.

use super::client::{Event, Granted, Method};
use super::flow::Flow;
use super::rtcp;
use super::totals::Totals;
use crate::lateness::Meter;

/// Between receiver reports. RFC 3550 6.2 asks for five seconds on average.
pub const REPORT_NS: u64 = 5_000_000_000;

/// What every stream's meter is made with.
#[derive(Clone, Copy, Debug)]
pub struct MeterSettings {
    /// Allowed drift of the line.
    pub drift_ppm: f64,
    /// Arrivals that do not form the line.
    pub settle_ns: u64,
    /// Records per block.
    pub block: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Awaited {
    Nothing,
    First,
    AfterSeek,
}

/// Packets held at most while PLAY is unanswered.
const HELD_MAX: usize = 4096;

/// A packet that came while PLAY was unanswered: only the answer tells which run of the stream it belongs to.
#[derive(Clone, Copy, Debug)]
struct HeldPacket {
    place: usize,
    arrival_ns: u64,
    head: [u8; 12],
    length: usize,
}

/// What a client's events mean to the runner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing to do.
    Nothing,
    /// The session plays.
    Playing,
    /// The server said no.
    Refused,
    /// The session is torn down.
    Left,
}

/// One session's streams.
#[derive(Debug)]
pub struct Session {
    settings: MeterSettings,
    flows: Vec<Flow>,
    granted: Vec<Granted>,
    sources_before: Vec<Option<u32>>,
    awaited: Awaited,
    play_unanswered: bool,
    held: Vec<HeldPacket>,
    begun_ns: u64,
    play_sent_ns: u64,
    position_s: f64,
    /// Accepted by the server.
    pub accepted: bool,
    /// When the title ends, as far as is known.
    pub end_ns: u64,
    /// The next receiver report.
    pub report_ns: u64,
    /// How long the media lasts.
    pub duration_s: Option<f64>,
    /// Packets of any stream.
    pub heard: bool,
}

impl Session {
    /// A session that begins to connect at `now_ns`. `before` is the session before on the same addresses.
    pub fn new(settings: MeterSettings, now_ns: u64, before: Option<&Self>) -> Self {
        let sources_before = before.map(|b| b.flows.iter().map(Flow::ssrc).collect()).unwrap_or_default();
        Self {
            settings,
            flows: Vec::new(),
            granted: Vec::new(),
            sources_before,
            awaited: Awaited::Nothing,
            play_unanswered: true,
            held: Vec::new(),
            begun_ns: now_ns,
            play_sent_ns: 0,
            position_s: 0.0,
            accepted: false,
            end_ns: u64::MAX,
            report_ns: u64::MAX,
            duration_s: None,
            heard: false,
        }
    }

    /// Streams set up, with what the server said about each.
    pub fn streams(&mut self) -> impl Iterator<Item = (&mut Flow, Granted)> {
        self.flows.iter_mut().zip(self.granted.iter().copied())
    }

    /// Notes that a PLAY was sent that goes to `position_s`.
    pub fn seeking(&mut self, position_s: f64) {
        self.position_s = position_s;
        self.play_unanswered = true;
    }

    /// Takes an event of the client that was caused by bytes which arrived at `arrival_ns`.
    pub fn on_event(&mut self, event: &Event<'_>, now_ns: u64, arrival_ns: u64, totals: &mut Totals) -> Outcome {
        match *event {
            Event::Answered { method, elapsed_ns, status } => {
                totals.record_answer(method, elapsed_ns);
                if method == Method::Play && !(200..300).contains(&status) {
                    self.release_held(totals);
                }
            }
            Event::TrackReady { clock_hz, granted } => {
                let MeterSettings { drift_ppm, settle_ns, block } = self.settings;
                let before = self.sources_before.get(self.flows.len()).copied().flatten();
                self.flows.push(Flow::new(clock_hz, before, Meter::new(clock_hz, drift_ppm, settle_ns, block)));
                self.granted.push(granted);
            }
            Event::Playing { seek, sent_ns, rtp_info, duration_s } => {
                self.on_playing(seek, sent_ns, duration_s, totals);
                for (flow, info) in self.flows.iter_mut().zip(rtp_info) {
                    flow.await_run(info.seq);
                }
                self.report_ns = now_ns + REPORT_NS;
                totals.before_answer += self.held.iter().filter(|h| !seek && h.arrival_ns < arrival_ns).count() as u64;
                self.release_held(totals);
                return if seek { Outcome::Nothing } else { Outcome::Playing };
            }
            Event::Refused(method, status) => {
                *totals.refused.entry((method, status)).or_default() += 1;
                return Outcome::Refused;
            }
            Event::Left => return Outcome::Left,
            Event::Frame(channel, payload) => self.on_frame(channel, payload, arrival_ns, totals),
        }
        Outcome::Nothing
    }

    fn on_playing(&mut self, seek: bool, sent_ns: u64, duration_s: Option<f64>, totals: &mut Totals) {
        self.play_sent_ns = sent_ns;
        self.duration_s = duration_s;
        self.awaited = if seek { Awaited::AfterSeek } else { Awaited::First };
        if !seek {
            self.accepted = true;
            totals.accepted += 1;
            totals.streams += self.flows.len() as u64;
        }
        let left_s = duration_s.map(|d| (d - self.position_s).max(0.0));
        self.end_ns = left_s.map_or(u64::MAX, |s| sent_ns.saturating_add((s * 1e9) as u64));
    }

    fn on_frame(&mut self, channel: u8, payload: &[u8], arrival_ns: u64, totals: &mut Totals) {
        let place = self.granted.iter().enumerate().position(|(order, g)| g.channel.unwrap_or(2 * order as u8) == channel & !1);
        match place {
            Some(place) if channel & 1 == 0 => self.on_rtp(place, arrival_ns, payload, payload.len(), totals),
            Some(place) => self.on_rtcp(place, arrival_ns, payload, totals),
            None => totals.strays += 1,
        }
    }

    fn release_held(&mut self, totals: &mut Totals) {
        self.play_unanswered = false;
        for packet in std::mem::take(&mut self.held) {
            self.on_rtp(packet.place, packet.arrival_ns, &packet.head, packet.length, totals);
        }
    }

    /// Takes an RTP packet of stream `place`.
    pub fn on_rtp(&mut self, place: usize, arrival_ns: u64, head: &[u8], length: usize, totals: &mut Totals) {
        if self.play_unanswered
            && self.held.len() < HELD_MAX
            && let Some(&head) = head.first_chunk()
        {
            return self.held.push(HeldPacket { place, arrival_ns, head, length });
        }
        let Some(flow) = self.flows.get_mut(place) else {
            totals.strays += 1;
            return;
        };
        if !flow.on_rtp(arrival_ns, head, length, totals) {
            return;
        }
        self.heard = true;
        let since_play_ns = arrival_ns.saturating_sub(self.play_sent_ns);
        match std::mem::replace(&mut self.awaited, Awaited::Nothing) {
            Awaited::First => {
                totals.play_to_packet_ns.saturating_record(since_play_ns);
                totals.connect_to_packet_ns.saturating_record(arrival_ns.saturating_sub(self.begun_ns));
            }
            Awaited::AfterSeek => totals.seek_to_packet_ns.saturating_record(since_play_ns),
            Awaited::Nothing => {}
        }
    }

    /// Takes an RTCP packet of stream `place`.
    pub fn on_rtcp(&mut self, place: usize, arrival_ns: u64, packet: &[u8], totals: &mut Totals) {
        let Some(flow) = self.flows.get_mut(place) else {
            totals.strays += 1;
            return;
        };
        totals.rtcp += 1;
        let heard = rtcp::parse(packet);
        if let Some(ntp) = heard.sender_report_ntp {
            flow.on_sender_report(ntp, arrival_ns);
        }
        flow.bye |= heard.bye;
    }

    /// True when every stream said goodbye, or the title's time is over.
    pub fn is_finished(&self, now_ns: u64) -> bool {
        (!self.flows.is_empty() && self.flows.iter().all(|f| f.bye)) || now_ns >= self.end_ns
    }

    /// Counts streams that have been without packets for `starve_ns`, each once.
    pub fn note_starving(&mut self, now_ns: u64, starve_ns: u64, totals: &mut Totals) {
        if !self.accepted || self.is_finished(now_ns.saturating_add(starve_ns)) {
            return;
        }
        for flow in self.flows.iter_mut().filter(|f| !f.starved && !f.bye) {
            if now_ns.saturating_sub(flow.last_arrival_ns().max(self.play_sent_ns)) > starve_ns {
                flow.starved = true;
                totals.starved += 1;
            }
        }
    }

    /// Ends the session of this client: everything that it held is counted.
    pub fn finish(&mut self, client: usize, now_ns: u64, totals: &mut Totals) {
        for flow in &mut self.flows {
            let waited = now_ns.saturating_sub(self.play_sent_ns) > 1_000_000_000;
            totals.silent += u64::from(self.accepted && waited && flow.last_arrival_ns() == 0);
            flow.finish(self.accepted.then_some(client), totals);
        }
        self.accepted = false;
    }
}
