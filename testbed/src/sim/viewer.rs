//! A viewer: a random life of set-ups, plays, seeks, pauses and ends, and the oracles of its tracks.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use dataplane::delivery::{StartPlan, TrackSpec};
use dataplane::disks::sim::SimFile;
use dataplane::engine::{Command, Reply, StartedTrack, TrackSetup, Transport};
use dataplane::gdsl::Outcome;
use dataplane::rtp::interleaved;
use rand::Rng;
use rand::rngs::StdRng;
use stack::sim::{SimPeer, SimStream, stream_pair};

use super::oracle::TrackOracle;
use super::{Order, Report, SimTitle};

/// A packet may leave this late: the disk's worst wait at the start of a range, the catch-up spacing behind it.
const PATIENCE_NS: u64 = 2_000_000;
const SECOND_NS: u64 = 1_000_000_000;
const READ_AHEAD_NS: u64 = 2 * SECOND_NS;
const LINK_BLOCKS: usize = 16;
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

pub(super) struct Viewer {
    pub(super) index: usize,
    pub(super) next_action_ns: u64,
    tcp: bool,
    mood: Mood,
    lives: u64,
    title: usize,
    oracles: Vec<TrackOracle>,
    /// RTP and RTCP addresses of each track (UDP).
    ports: Vec<(SocketAddr, SocketAddr)>,
    peer: Option<SimPeer>,
    inbox: Vec<u8>,
    awaited: Option<Prepared>,
    /// Time line of the session, from its first packet after each start.
    anchor_ns: Option<i64>,
}

impl Viewer {
    pub(super) fn new(index: usize, tcp: bool, next_action_ns: u64) -> Self {
        Self {
            index,
            next_action_ns,
            tcp,
            mood: Mood::Away,
            lives: 0,
            title: 0,
            oracles: Vec::new(),
            ports: Vec::new(),
            peer: None,
            inbox: Vec::new(),
            awaited: None,
            anchor_ns: None,
        }
    }

    pub(super) fn is_tcp(&self) -> bool {
        self.tcp && self.peer.is_some()
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
    pub(super) fn act(&mut self, now_ns: u64, titles: &[SimTitle], rng: &mut StdRng, report: &mut Report, wishes: &mut Vec<Wish>) {
        self.next_action_ns = now_ns + rng.random_range(SECOND_NS / 2..15 * SECOND_NS);
        match (self.mood, rng.random_range(0..10)) {
            (Mood::Away, _) => self.arrive(titles, rng, report, wishes),
            (Mood::Paused, _) => self.resume(wishes),
            (_, 0 | 1) => self.depart(wishes),
            (Mood::Watching, 2..=4) => self.pause(report, wishes),
            (_, 5 | 6) => self.seek(titles, rng, report, wishes),
            _ => {}
        }
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
        self.oracles.clear();
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
            let setup = TrackSetup { track_id: title.title.tracks[track].id, transport, pair };
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
        self.anchor_ns = None;
        for (oracle, &StartedTrack { seq, rtptime, .. }) in self.oracles.iter_mut().zip(&tracks) {
            oracle.started(seq, rtptime, resumed_at_ns)?;
        }
        Ok(())
    }

    /// The engine says that the session came to an end.
    pub(super) fn finished(&mut self, outcome: Outcome, report: &mut Report) -> Result<(), String> {
        match outcome {
            Outcome::Ended => {
                report.ended += 1;
                if self.mood != Mood::Away && !self.oracles.iter_mut().all(TrackOracle::is_complete) {
                    return Err(format!("viewer {}: ended before all packets were sent", self.index));
                }
                if self.mood == Mood::Watching {
                    self.mood = Mood::AtTheEnd;
                }
                Ok(())
            }
            Outcome::Failed(why) => Err(format!("viewer {}: {why}", self.index)),
        }
    }

    /// Checks a datagram.
    pub(super) fn datagram(
        &mut self,
        _titles: &[SimTitle],
        remote: SocketAddr,
        rtcp: bool,
        at_ns: u64,
        bytes: &[u8],
        report: &mut Report,
    ) -> Result<(), String> {
        let track = self.ports.iter().position(|&(a, b)| if rtcp { b == remote } else { a == remote });
        let track = track.ok_or("a datagram to a port of another life")?;
        self.packet(track, rtcp, at_ns, bytes, report)
    }

    /// Checks the interleaved frames that have arrived.
    pub(super) fn read_stream(
        &mut self,
        _titles: &[SimTitle],
        at_ns: u64,
        report: &mut Report,
        trace: &mut impl std::hash::Hasher,
    ) -> Result<(), String> {
        let Some(peer) = &self.peer else { return Ok(()) };
        let arrived = peer.take();
        if arrived.is_empty() {
            return Ok(());
        }
        trace.write_u64(at_ns);
        trace.write(&arrived);
        self.inbox.extend_from_slice(&arrived);
        let inbox = std::mem::take(&mut self.inbox);
        let mut rest = &inbox[..];
        while let Some((channel, payload, used)) = interleaved::frame(rest) {
            self.packet(usize::from(channel / 2), channel % 2 == 1, at_ns, payload, report)?;
            rest = &rest[used..];
        }
        self.inbox = rest.to_vec();
        Ok(())
    }

    fn packet(&mut self, track: usize, rtcp: bool, at_ns: u64, bytes: &[u8], report: &mut Report) -> Result<(), String> {
        let index = self.index;
        let oracle = self.oracles.get_mut(track).ok_or("a packet of a track that is not set up")?;
        if !rtcp {
            if self.mood == Mood::Paused || self.mood == Mood::Away {
                return Err(format!("viewer {index}: a packet while {:?}", self.mood));
            }
            report.packets += 1;
            let lateness_ns = oracle.packet(at_ns, bytes, &mut self.anchor_ns, PATIENCE_NS).map_err(|e| format!("viewer {index}: {e}"))?;
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
        let Some(anchor_ns) = self.anchor_ns else { return Ok(()) };
        let (rtp_time, expected) = (field(16)?, oracle.rtp_time_at(at_ns, anchor_ns));
        // 1 ms of a 90 kHz clock.
        if rtp_time.wrapping_sub(expected).wrapping_add(90) > 180 {
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
