//! A viewer: a random life of set-ups, plays, seeks, pauses and ends, and the oracles of its tracks.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use dataplane::delivery::{LagPolicy, StartPlan, TrackSpec};
use dataplane::disks::sim::SimFile;
use dataplane::engine::{Command, Reply, StartedTrack, TrackSetup, Transport};
use dataplane::gdsl::{Class, Outcome};
use dataplane::rtp::interleaved;
use pacing::cpu::Work;
use rand::Rng;
use rand::rngs::StdRng;
use stack::sim::{SimPeer, SimStream, stream_pair};

use super::oracle::{Anchor, TrackOracle};
use super::{Order, RTCP_PORT, Report, SimTitle};

/// After its move behind a NAT a client still gets packets at its old address for this long: the core looks for datagrams every 500 us.
const MOVE_NS: u64 = 1_000_000;
/// Ports from one address behind the NAT to the next, and how often one life moves at most.
const MOVE_PORTS: u16 = 15_000;
const MOVES_MAX: u16 = 3;
const SECOND_NS: u64 = 1_000_000_000;
const READ_AHEAD_NS: u64 = 2 * SECOND_NS;
const LINK_BLOCKS: usize = 16;
const RTP_PORT: u8 = 0;
const SENDER_REPORT: u8 = 200;
const RECEIVER_REPORT: u8 = 201;
const GOODBYE: u8 = 203;

/// A command without its reply number.
pub(super) enum Wish {
    Attach { token: u64, stream: SimStream },
    Detach { token: u64 },
    Setup { session: u64, setup: Box<TrackSetup<SimFile>> },
    Start { session: u64, plan: Option<Box<StartPlan>> },
    Run { session: u64 },
    Stop { session: u64 },
    Destroy { session: u64 },
}

impl Wish {
    pub(super) fn wants_answer(&self) -> bool {
        !matches!(self, Wish::Detach { .. })
    }

    pub(super) fn into_command(self, reply: u64) -> Order {
        match self {
            Wish::Attach { token, stream } => Command::AttachStream { reply, token, stream },
            Wish::Detach { token } => Command::DetachStream { token },
            Wish::Setup { session, setup } => Command::SetupTrack { reply, session, setup },
            Wish::Start { session, plan } => Command::Start { reply, session, plan },
            Wish::Run { session } => Command::Run { reply, session },
            Wish::Stop { session } => Command::Stop { reply, session },
            Wish::Destroy { session } => Command::Destroy { reply, session },
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mood {
    Away,
    Watching,
    Paused,
    AtTheEnd,
}

/// What the viewer awaits from `Start`.
enum Prepared {
    Range,
    Resume,
}

/// What viewers do and what they put up with; see [`super::Scenario`].
#[derive(Clone, Copy)]
pub(super) struct Manners {
    pub(super) restless: bool,
    pub(super) patience_ns: Option<u64>,
    pub(super) failures: bool,
}

pub(super) struct Viewer {
    pub(super) index: usize,
    pub(super) next_action_ns: u64,
    pub(super) tcp: bool,
    manners: Manners,
    mood: Mood,
    lives: u64,
    title: usize,
    oracles: Vec<TrackOracle>,
    /// RTP and RTCP addresses of each track (UDP).
    ports: Vec<(SocketAddr, SocketAddr)>,
    peer: Option<SimPeer>,
    inbox: Vec<u8>,
    awaited: Option<Prepared>,
    /// Where it was before its last move, and until when that counts.
    old_ports: Vec<(SocketAddr, SocketAddr)>,
    moved_ns: u64,
    moves: u16,
    /// The engine gave its session up at this time.
    failed_ns: Option<u64>,
    /// Time line of the session, from its first packets after each start.
    anchor: Option<Anchor>,
}

impl Viewer {
    pub(super) fn new(index: usize, tcp: bool, manners: Manners, next_action_ns: u64) -> Self {
        Self {
            index,
            next_action_ns,
            tcp,
            manners,
            mood: Mood::Away,
            lives: 0,
            title: 0,
            oracles: Vec::new(),
            ports: Vec::new(),
            peer: None,
            inbox: Vec::new(),
            awaited: None,
            old_ports: Vec::new(),
            moved_ns: 0,
            moves: 0,
            failed_ns: None,
            anchor: None,
        }
    }

    /// The session's name at the engine; another one in each life.
    pub(super) fn session(&self) -> Option<u64> {
        (self.mood != Mood::Away).then_some(self.index as u64 + self.lives * 1_000_000)
    }

    pub(super) fn remotes(&self) -> impl Iterator<Item = SocketAddr> + use<'_> {
        self.ports.iter().flat_map(|&(rtp, rtcp)| [rtp, rtcp])
    }

    /// Ends the life; the answer is the session to destroy.
    pub(super) fn leave(&mut self) -> Option<u64> {
        let session = self.session();
        self.mood = Mood::Away;
        session
    }

    /// Does the next thing, and says in `next_action_ns` when the one after it is due.
    ///
    /// # Errors
    /// It got less than it should have by now.
    pub(super) fn act(
        &mut self,
        now_ns: u64,
        titles: &[SimTitle],
        rng: &mut StdRng,
        report: &mut Report,
        wishes: &mut Vec<Wish>,
    ) -> Result<(), String> {
        self.next_action_ns = now_ns + rng.random_range(SECOND_NS / 2..15 * SECOND_NS);
        // What was still on its way to the network when the end was told has left it since.
        if self.mood == Mood::AtTheEnd && !self.manners.failures && !self.oracles.iter_mut().all(TrackOracle::is_complete) {
            return Err(format!("viewer {}: ended before all packets were sent", self.index));
        }
        match (self.mood, rng.random_range(0..10)) {
            (Mood::Away, _) => self.arrive(titles, rng, report, wishes),
            (Mood::Watching, _) if !self.manners.restless => {}
            (Mood::Paused, _) => self.resume(wishes),
            (_, 0 | 1) => self.depart(wishes),
            (Mood::Watching, 2..=4) => self.pause(report, wishes),
            (_, 5 | 6) => self.seek(titles, rng, report, wishes),
            _ => {}
        }
        Ok(())
    }

    /// The datagrams that it sends now, with the port that they go to: receiver reports, and sometimes from new ports.
    pub(super) fn send(&mut self, now_ns: u64, rng: &mut StdRng) -> Vec<(u8, SocketAddr, Vec<u8>)> {
        let mut datagrams = Vec::new();
        // The engine knows a session a turn after its set-up; whoever was watching before this action is known.
        if self.tcp || self.mood != Mood::Watching || self.awaited.is_some() || self.anchor.is_none() {
            return datagrams;
        }
        if self.manners.restless && self.moves < MOVES_MAX && rng.random_ratio(1, 10) {
            (self.moves, self.moved_ns) = (self.moves + 1, now_ns);
            self.old_ports = self.ports.clone();
            for (rtp, rtcp) in &mut self.ports {
                rtp.set_port(rtp.port() + MOVE_PORTS);
                rtcp.set_port(rtcp.port() + MOVE_PORTS);
                datagrams.push((RTP_PORT, *rtp, vec![0; 12]));
            }
        }
        for (oracle, &(_, rtcp)) in self.oracles.iter().zip(&self.ports) {
            datagrams.push((RTCP_PORT, rtcp, oracle.receiver_report()));
        }
        datagrams
    }

    fn arrive(&mut self, titles: &[SimTitle], rng: &mut StdRng, report: &mut Report, wishes: &mut Vec<Wish>) {
        self.lives += 1;
        self.mood = Mood::Watching;
        self.title = rng.random_range(0..titles.len());
        report.sessions += 1;
        let title = &titles[self.title];
        let session = self.index as u64 + self.lives * 1_000_000;
        let address = Ipv4Addr::new(10, 1, (self.index >> 8) as u8, self.index as u8);
        self.ports.clear();
        self.old_ports.clear();
        self.oracles.clear();
        self.moves = 0;
        if self.tcp {
            let (stream, peer) = stream_pair(1 << 20);
            self.peer = Some(peer);
            self.inbox.clear();
            wishes.push(Wish::Attach { token: session, stream });
        }
        for track in 0..title.title.tracks.len() {
            let ssrc = rng.random();
            let port = 5000 + 4 * (self.lives % 1000) as u16 + 2 * track as u16;
            let (rtp, rtcp) = (SocketAddr::from((address, port)), SocketAddr::from((address, port + 1)));
            let spec = TrackSpec {
                title: Arc::clone(&title.title),
                track,
                file: title.file.clone(),
                file_key: title.file.id(),
                read_ahead_ns: READ_AHEAD_NS,
                link_blocks: LINK_BLOCKS,
                stall_ns: 10 * SECOND_NS,
                class: Class::Guaranteed,
                lag: LagPolicy::default(),
                cname: "simulated".into(),
                random: (ssrc, rng.random(), rng.random(), rng.random()),
            };
            let pair = spec.build().expect("the track exists");
            let channel = 2 * track as u8;
            let transport = if self.tcp {
                Transport::Stream { token: session, rtp_channel: channel, rtcp_channel: channel + 1 }
            } else {
                self.ports.push((rtp, rtcp));
                Transport::Udp { rtp, rtcp, local: None }
            };
            self.oracles.push(TrackOracle::new(Arc::clone(&title.title), Arc::clone(&title.bytes), track, ssrc));
            let setup = TrackSetup { track_id: title.title.tracks[track].id, transport, pair, work: Work::default() };
            wishes.push(Wish::Setup { session, setup: Box::new(setup) });
        }
        let from_ns = if rng.random_bool(0.5) { 0 } else { rng.random_range(0..title.title.description.duration_ns) };
        self.play_from(title, from_ns, wishes);
    }

    fn play_from(&mut self, title: &SimTitle, from_ns: u64, wishes: &mut Vec<Wish>) {
        let Some(session) = self.session() else { return };
        let tracks: Vec<usize> = (0..self.oracles.len()).collect();
        let plan = StartPlan::new(&title.title, &tracks, from_ns, None);
        for (oracle, &part) in self.oracles.iter_mut().zip(&plan.tracks) {
            oracle.begin(&plan, part);
        }
        self.awaited = Some(Prepared::Range);
        self.failed_ns = None;
        wishes.push(Wish::Start { session, plan: Some(Box::new(plan)) });
        wishes.push(Wish::Run { session });
    }

    fn seek(&mut self, titles: &[SimTitle], rng: &mut StdRng, report: &mut Report, wishes: &mut Vec<Wish>) {
        let title = &titles[self.title];
        report.seeks += 1;
        self.mood = Mood::Watching;
        self.play_from(title, rng.random_range(0..title.title.description.duration_ns), wishes);
    }

    fn pause(&mut self, report: &mut Report, wishes: &mut Vec<Wish>) {
        let Some(session) = self.session() else { return };
        report.pauses += 1;
        self.mood = Mood::Paused;
        wishes.push(Wish::Stop { session });
    }

    fn resume(&mut self, wishes: &mut Vec<Wish>) {
        let Some(session) = self.session() else { return };
        self.mood = Mood::Watching;
        self.awaited = Some(Prepared::Resume);
        wishes.push(Wish::Start { session, plan: None });
        wishes.push(Wish::Run { session });
    }

    fn depart(&mut self, wishes: &mut Vec<Wish>) {
        let Some(session) = self.leave() else { return };
        wishes.push(Wish::Destroy { session });
        if self.tcp {
            wishes.push(Wish::Detach { token: session });
        }
    }

    /// Takes an answer of the engine.
    pub(super) fn hear(&mut self, reply: Reply, _now_ns: u64) -> Result<(), String> {
        let Reply::Started { from_ns, tracks, count, .. } = reply else { return Ok(()) };
        let Some(awaited) = self.awaited.take() else { return Err("started without being told to".into()) };
        if count != self.oracles.len() {
            return Err(format!("{count} tracks started, {} are set up", self.oracles.len()));
        }
        let resumed_at_ns = matches!(awaited, Prepared::Resume).then_some(from_ns);
        self.anchor = None;
        for (oracle, &StartedTrack { seq, rtptime, .. }) in self.oracles.iter_mut().zip(&tracks) {
            oracle.started(seq, rtptime, resumed_at_ns)?;
        }
        Ok(())
    }

    /// The engine says that the session came to an end.
    pub(super) fn finished(&mut self, outcome: Outcome, now_ns: u64, report: &mut Report) -> Result<(), String> {
        if self.mood == Mood::Watching {
            self.mood = Mood::AtTheEnd;
        }
        match outcome {
            Outcome::Ended => {
                report.ended += 1;
                Ok(())
            }
            Outcome::Failed(_) if self.manners.failures => {
                report.failed += 1;
                self.failed_ns = Some(now_ns);
                Ok(())
            }
            Outcome::Failed(why) => Err(format!("viewer {}: {why}", self.index)),
        }
    }

    /// Checks a datagram.
    pub(super) fn datagram(&mut self, remote: SocketAddr, rtcp: bool, at_ns: u64, bytes: &[u8], report: &mut Report) -> Result<(), String> {
        let is_it = |&(a, b): &(SocketAddr, SocketAddr)| if rtcp { b == remote } else { a == remote };
        let old_track = || self.old_ports.iter().position(is_it).filter(|_| at_ns <= self.moved_ns + MOVE_NS);
        let track = self.ports.iter().position(is_it).or_else(old_track);
        let track = track.ok_or_else(|| format!("viewer {}: a datagram to {remote}, where it is no more", self.index))?;
        self.packet(track, rtcp, at_ns, bytes, report)
    }

    /// Checks the interleaved frames that have arrived.
    pub(super) fn read_stream(&mut self, at_ns: u64, report: &mut Report, trace: &mut impl std::hash::Hasher) -> Result<(), String> {
        let Some(peer) = &self.peer else { return Ok(()) };
        let known = self.inbox.len();
        if peer.take_into(&mut self.inbox) == 0 {
            return Ok(());
        }
        let mut inbox = std::mem::take(&mut self.inbox);
        trace.write_u64(at_ns);
        trace.write(&inbox[known..]);
        let mut done = 0;
        while let Some((channel, payload, used)) = interleaved::frame(&inbox[done..]) {
            self.packet(usize::from(channel / 2), channel % 2 == 1, at_ns, payload, report)?;
            done += used;
        }
        inbox.drain(..done);
        self.inbox = inbox;
        Ok(())
    }

    fn packet(&mut self, track: usize, rtcp: bool, at_ns: u64, bytes: &[u8], report: &mut Report) -> Result<(), String> {
        let index = self.index;
        let oracle = self.oracles.get_mut(track).ok_or("a packet of a track that is not set up")?;
        if !rtcp {
            if self.mood == Mood::Paused || self.mood == Mood::Away {
                return Err(format!("viewer {index}: a packet while {:?}", self.mood));
            }
            if self.failed_ns.is_some_and(|failed_ns| at_ns > failed_ns) {
                return Err(format!("viewer {index}: a packet after its session was given up"));
            }
            report.packets += 1;
            let checked = oracle.packet(at_ns, bytes, &mut self.anchor, self.manners.patience_ns, self.manners.failures);
            report.skips += std::mem::take(&mut oracle.skips);
            let lateness_ns = checked.map_err(|e| format!("viewer {index}: {e}"))?;
            report.lateness_max_ns = report.lateness_max_ns.max(lateness_ns);
            return Ok(());
        }
        match bytes.get(1) {
            Some(&SENDER_REPORT) => self.sender_report(track, at_ns, bytes, report),
            // Nothing was sent for two intervals: then a receiver report leads the BYE (RFC 3550 6.4).
            Some(&RECEIVER_REPORT) if has_goodbye(bytes) => {
                report.byes += 1;
                Ok(())
            }
            other => Err(format!("viewer {index}: RTCP begins with packet type {other:?}")),
        }
    }

    fn sender_report(&mut self, track: usize, at_ns: u64, bytes: &[u8], report: &mut Report) -> Result<(), String> {
        let oracle = &self.oracles[track];
        let field = |at: usize| bytes.get(at..at + 4).map(|b| u32::from_be_bytes([b[0], b[1], b[2], b[3]])).ok_or("a short sender report");
        report.sender_reports += 1;
        if has_goodbye(bytes) {
            report.byes += 1;
            return Ok(());
        }
        let Some(anchor) = &self.anchor else { return Ok(()) };
        let (rtp_time, expected) = (field(16)?, oracle.rtp_time_at(at_ns, anchor));
        // 1 ms of a 90 kHz clock, beside what is not known of the anchor.
        let slack = 90 + self.manners.patience_ns.map_or(u32::MAX / 4, |ns| (ns * 90 / 1_000_000) as u32);
        if rtp_time.wrapping_sub(expected).wrapping_add(slack) > 2 * slack {
            return Err(format!("viewer {}: sender report maps to RTP time {rtp_time}, {expected} was expected", self.index));
        }
        if u64::from(field(20)?) != oracle.packets {
            return Err(format!("viewer {}: sender report counts {} packets, {} were sent", self.index, field(20)?, oracle.packets));
        }
        Ok(())
    }
}

fn has_goodbye(mut compound: &[u8]) -> bool {
    while let [_, kind, high, low, ..] = *compound {
        if kind == GOODBYE {
            return true;
        }
        let len = 4 * (usize::from(u16::from_be_bytes([high, low])) + 1);
        compound = compound.get(len..).unwrap_or(&[]);
    }
    false
}
