//! An engine core on a stage: commands in, what it tells and sends collected, time moved by hand.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, bounded};
use dataplane::delivery::{LagPolicy, StartPlan, TrackSpec};
use dataplane::disks::sim::{SimDisk, SimDiskConfig, SimFile};
use dataplane::engine::{Command, CoreConfig, CoreReport, EngineCore, Event, Reply, SessionReport, TrackSetup, TransferReport, Transport};
use dataplane::gdsl::{Class, Outcome};
use dataplane::media::index::IndexBuilder;
use dataplane::media::{Codec, MediaDescription, Title, Track, TrackDescription, TrackKind};
use dataplane::payload::format_of;
use dataplane::rtp::header::RtpPacket;
use hugepages::{Arena, ChunkPool};
use pacing::cpu::Work;
use pacing::{Clock, SimClock};
use stack::host::{Host, Received};
use stack::sim::{SimConfig, SimHost, SimStream};

pub const MS: u64 = 1_000_000;
pub const SECOND: u64 = 1_000_000_000;
pub const CHUNK_BYTES: usize = 4096;
pub const RTP: u8 = 0;
pub const RTCP: u8 = 1;

pub type Order = Command<SimStream, SimFile>;
pub type Core = EngineCore<SimHost, SimDisk, SimClock>;

/// A packet that left.
#[derive(Clone, Debug)]
pub struct Sent {
    pub at_ns: u64,
    pub local_port: u8,
    pub remote: SocketAddr,
    pub bytes: Vec<u8>,
}

/// A sample of a test title: file offset, bytes, decode time in milliseconds.
pub type Span = (u64, u32, i64);

pub struct Config {
    pub core: CoreConfig,
    pub host: SimConfig,
    pub disk: SimDiskConfig,
    pub chunks: usize,
    pub events: usize,
}

impl Default for Config {
    fn default() -> Self {
        let core = CoreConfig { sessions_max: 16, tracks_max: 32, streams_max: 16, host_frames: 64, ..CoreConfig::default() };
        Self { core, host: SimConfig::default(), disk: SimDiskConfig::default(), chunks: 256, events: 4096 }
    }
}

pub struct Stage {
    pub clock: SimClock,
    pub core: Core,
    pub commands: Sender<Order>,
    pub events: Receiver<Event<SimFile>>,
    next_reply: u64,
    pub replies: HashMap<u64, Reply>,
    pub sent: Vec<Sent>,
    pub finished: Vec<(u64, Outcome)>,
    pub closed: Vec<u64>,
    pub lost: Vec<(u64, &'static str)>,
    /// Transfers that came to their end, and those that are gone.
    pub over: Vec<(u64, TransferReport)>,
    pub gone: Vec<u64>,
    pub stopped: bool,
    /// Time passes in steps of at least this, but for the disk's answers.
    pub quantum_ns: u64,
}

impl Stage {
    pub fn new(config: Config) -> Self {
        let clock = SimClock::new(SECOND);
        let pool = ChunkPool::with_at_most(Arena::new(config.chunks * CHUNK_BYTES).expect("memory"), CHUNK_BYTES, config.chunks);
        let (commands, commands_rx) = bounded(4096);
        let (events_tx, events) = bounded(config.events);
        let host = SimHost::new(config.host, 1);
        let core = EngineCore::new(config.core, clock.clone(), host, SimDisk::new(config.disk), pool, commands_rx, events_tx);
        Self {
            clock,
            core,
            commands,
            events,
            next_reply: 1,
            replies: HashMap::new(),
            sent: Vec::new(),
            finished: Vec::new(),
            closed: Vec::new(),
            lost: Vec::new(),
            over: Vec::new(),
            gone: Vec::new(),
            stopped: false,
            quantum_ns: 0,
        }
    }

    pub fn now(&self) -> u64 {
        self.clock.now_ns()
    }

    /// Queues a command; its reply number.
    pub fn post(&mut self, order: impl FnOnce(u64) -> Order) -> u64 {
        let id = self.next_reply;
        self.next_reply += 1;
        self.commands.try_send(order(id)).expect("the command queue has room");
        id
    }

    /// Carries a command out at the present time.
    pub fn ask(&mut self, order: impl FnOnce(u64) -> Order) -> Reply {
        let id = self.post(order);
        self.turn();
        self.replies.remove(&id).expect("an answer")
    }

    /// One turn; when the next one is needed.
    pub fn turn(&mut self) -> Option<u64> {
        let turn = self.core.turn();
        self.listen();
        let sent = &mut self.sent;
        self.core.host_mut().take_sent(|s| {
            sent.push(Sent { at_ns: s.at_ns, local_port: s.local_port, remote: s.remote, bytes: s.bytes.to_vec() });
        });
        turn.next_ns
    }

    pub fn listen(&mut self) {
        for event in self.events.try_iter() {
            match event {
                Event::Reply { id, reply } => assert!(self.replies.insert(id, reply).is_none(), "answered twice"),
                Event::Finished { session, outcome } => self.finished.push((session, outcome)),
                Event::StreamClosed { token } => self.closed.push(token),
                Event::TransferOver { transfer, report } => self.over.push((transfer, report)),
                Event::TransferGone { transfer } => self.gone.push(transfer),
                Event::Stopped => self.stopped = true,
                Event::ChannelLost { channel, why } => self.lost.push((channel, why)),
                Event::ChannelDescribed { .. } => {}
                Event::Discard(_) | Event::DiscardAll(_) | Event::DiscardSetup(_) | Event::DiscardPlan(_) => {}
                Event::DiscardChannel(_) | Event::DiscardIngest(_) | Event::DiscardReport(_) => {}
            }
        }
    }

    /// Lets time pass.
    pub fn run_for(&mut self, ns: u64) {
        let end_ns = self.now() + ns;
        while self.now() < end_ns {
            let next_ns = self.turn().unwrap_or(u64::MAX);
            // A core that polls sees an answer when it is there.
            let next_ns = next_ns.max(self.now() + self.quantum_ns).min(self.core.disk().next_completion_ns().unwrap_or(u64::MAX));
            // Datagrams and stalled streams have no say in when the next turn is.
            let step_ns = next_ns.clamp(self.now() + 1_000, self.now() + MS / 2);
            self.clock.advance_to(step_ns.min(end_ns));
        }
        self.turn();
    }

    pub fn set_up(&mut self, session: u64, film: &Film, track: usize, transport: Transport) -> Reply {
        let setup = film.setup(track, transport);
        self.ask(|reply| Command::SetupTrack { reply, session, setup })
    }

    pub fn start(&mut self, session: u64, plan: Option<StartPlan>) -> Reply {
        self.ask(|reply| Command::Start { reply, session, plan: plan.map(Box::new) })
    }

    pub fn run(&mut self, session: u64) -> Reply {
        self.ask(|reply| Command::Run { reply, session })
    }

    pub fn stop(&mut self, session: u64) -> Reply {
        self.ask(|reply| Command::Stop { reply, session })
    }

    /// Sets all tracks up over UDP and plays from the beginning.
    pub fn play(&mut self, session: u64, film: &Film) {
        for track in 0..film.title.tracks.len() {
            assert!(matches!(self.set_up(session, film, track, udp(session, track)), Reply::Done));
        }
        let plan = film.plan(0);
        assert!(matches!(self.start(session, Some(plan)), Reply::Started { .. }));
        assert!(matches!(self.run(session), Reply::Done));
    }

    pub fn import(&mut self, transfer: u64, from: &SimFile, to: &SimFile, bytes: u64) {
        let pairs = vec![Box::new(dataplane::transfer::import(from.clone(), from.id(), to.clone(), bytes, None).into())];
        assert!(matches!(self.ask(|reply| Command::StartTransfer { reply, transfer, pairs }), Reply::Done));
    }

    pub fn stop_transfer(&mut self, transfer: u64) {
        assert!(matches!(self.ask(|reply| Command::StopTransfer { reply, transfer }), Reply::Done));
    }

    pub fn destroy(&mut self, session: u64) {
        assert!(matches!(self.ask(|reply| Command::Destroy { reply, session }), Reply::Done));
    }

    pub fn status(&mut self, session: u64) -> SessionReport {
        match self.ask(|reply| Command::SessionStatus { reply, session, report: Box::default() }) {
            Reply::Session(report) => *report,
            other => panic!("{other:?}"),
        }
    }

    /// As [`Self::status`], behind all other commands and however long it takes.
    pub fn status_later(&mut self, session: u64) -> SessionReport {
        let id = self.post(|reply| Command::SessionStatus { reply, session, report: Box::default() });
        for _ in 0..100_000 {
            self.turn();
            self.clock.advance_to(self.now() + 1_000);
            if let Some(Reply::Session(report)) = self.replies.remove(&id) {
                return *report;
            }
        }
        panic!("no answer");
    }

    pub fn core_status(&mut self) -> CoreReport {
        match self.ask(|reply| Command::CoreStatus { reply, report: Box::default() }) {
            Reply::Core(report) => *report,
            other => panic!("{other:?}"),
        }
    }

    pub fn inject(&mut self, local_port: u8, remote: SocketAddr, bytes: &[u8]) {
        let now_ns = self.now();
        self.core.host_mut().inject(now_ns, Received { local_port, remote }, bytes);
    }

    /// The RTP packets sent to this address.
    pub fn rtp_to(&self, remote: SocketAddr) -> Vec<&Sent> {
        self.sent.iter().filter(|s| s.remote == remote && s.local_port == RTP).collect()
    }

    /// RTP payloads sent to this address, one after another; checks that sequence numbers have no gap.
    pub fn payload_to(&self, remote: SocketAddr) -> Vec<u8> {
        join(self.rtp_to(remote).iter().map(|s| &s.bytes[..]))
    }

    /// After everything was destroyed: nothing is left of it.
    pub fn assert_empty(&mut self) {
        self.run_for(100 * MS);
        assert_eq!(self.core.chunks_free(), self.core.pool().capacity(), "buffers came back");
        let host = self.core.host_mut().counters();
        assert_eq!(host.flows, 0, "flows were closed");
        let status = self.core_status();
        assert_eq!((status.sessions, status.playing), (0, 0));
    }
}

/// Joins RTP payloads; sequence numbers must have no gap.
pub fn join<'a>(packets: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
    let (mut all, mut last) = (Vec::new(), None::<u16>);
    for bytes in packets {
        let packet = RtpPacket::new_checked(bytes).expect("RTP");
        if let Some(last) = last {
            assert_eq!(packet.seq(), last.wrapping_add(1), "a gap in the sequence numbers");
        }
        last = Some(packet.seq());
        all.extend_from_slice(packet.payload());
    }
    all
}

/// Address of a client: its RTP port for a track; RTCP is one higher.
pub fn client(session: u64, track: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, session as u8], 5000 + 2 * track as u16))
}

pub fn rtcp_of(rtp: SocketAddr) -> SocketAddr {
    SocketAddr::new(rtp.ip(), rtp.port() + 1)
}

pub fn udp(session: u64, track: usize) -> Transport {
    let rtp = client(session, track);
    Transport::Udp { rtp, rtcp: rtcp_of(rtp), local: None }
}

/// A title and its file.
pub struct Film {
    pub title: Arc<Title>,
    pub file: SimFile,
    pub stall_ns: u64,
    pub read_ahead_ns: u64,
    pub link_blocks: usize,
    pub class: Class,
    pub lag: LagPolicy,
    /// What each track has reserved.
    pub work: Work,
}

impl Film {
    /// A film of one track for each row: `('v' or 'a', samples, milliseconds that each lasts)`. Every tenth video sample is a sync sample.
    pub fn new(id: u64, tracks: &[(char, &[Span], u32)]) -> Self {
        let tracks: Vec<Track> =
            tracks.iter().enumerate().map(|(i, &(kind, samples, ms))| track(i as u32 + 1, kind, samples, ms)).collect();
        let bytes =
            tracks.iter().flat_map(|t| t.samples.iter().map(|s| s.offset + u64::from(s.size)).collect::<Vec<_>>()).max().unwrap_or(0);
        let description = describe(&tracks, bytes);
        let title = Arc::new(Title { tracks, left_out: Vec::new(), description });
        let file = SimFile::pattern(id, bytes);
        Self {
            title,
            file,
            stall_ns: SECOND,
            read_ahead_ns: 500 * MS,
            link_blocks: 64,
            class: Class::Guaranteed,
            lag: LagPolicy::default(),
            work: Work::default(),
        }
    }

    /// Pictures of `bytes` every 40 ms for `seconds`, and between them a frame of sound of 200 bytes every 20 ms.
    pub fn plain(id: u64, seconds: i64, bytes: u32) -> Self {
        let (mut video, mut audio, mut at) = (Vec::new(), Vec::new(), 0);
        for frame in 0..seconds * 25 {
            video.push((at, bytes, 40 * frame));
            at += u64::from(bytes);
            for half in 0..2 {
                audio.push((at, 200, 40 * frame + 20 * half));
                at += 200;
            }
        }
        Self::new(id, &[('v', &video, 40), ('a', &audio, 20)])
    }

    pub fn plan(&self, from_ns: u64) -> StartPlan {
        let tracks: Vec<usize> = (0..self.title.tracks.len()).collect();
        StartPlan::new(&self.title, &tracks, from_ns, None)
    }

    pub fn setup(&self, track: usize, transport: Transport) -> Box<TrackSetup<SimFile>> {
        self.setup_with(track, transport, rand::random())
    }

    pub fn setup_with(&self, track: usize, transport: Transport, ssrc: u32) -> Box<TrackSetup<SimFile>> {
        self.setup_from(track, transport, (ssrc, rand::random(), rand::random(), rand::random()))
    }

    /// With these as the random numbers of its RTP.
    pub fn setup_from(&self, track: usize, transport: Transport, random: (u32, u16, u32, u64)) -> Box<TrackSetup<SimFile>> {
        let spec = TrackSpec {
            title: Arc::clone(&self.title),
            track,
            file: self.file.clone(),
            file_key: self.file.id(),
            read_ahead_ns: self.read_ahead_ns,
            link_blocks: self.link_blocks,
            stall_ns: self.stall_ns,
            class: self.class,
            lag: self.lag,
            cname: "stage".into(),
            random,
        };
        let pair = spec.build().expect("the track exists");
        Box::new(TrackSetup { track_id: self.title.tracks[track].id, transport, pair, work: self.work })
    }

    /// The bytes of a track's samples, in their order.
    pub fn bytes(&self, track: usize) -> Vec<u8> {
        self.bytes_up_to(track, usize::MAX)
    }

    /// The first `len` of them, or all.
    pub fn bytes_up_to(&self, track: usize, len: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        for sample in self.title.tracks[track].samples.iter() {
            if bytes.len() >= len {
                break;
            }
            let from = bytes.len();
            bytes.resize(from + sample.size as usize, 0);
            self.file.fill(sample.offset, &mut bytes[from..]);
        }
        bytes.truncate(len);
        bytes
    }
}

fn track(id: u32, kind: char, samples: &[Span], ms: u32) -> Track {
    let mut index = IndexBuilder::default();
    for (i, &(offset, bytes, dts_ms)) in samples.iter().enumerate() {
        index.push(offset, bytes, dts_ms, 0, kind == 'a' || i % 10 == 0).expect("fits the index");
    }
    let (kind, codec) = match kind {
        'v' => (TrackKind::Video, Codec::Mpeg4Visual { config: vec![0, 0, 1, 0xb0, 1] }),
        _ => (TrackKind::Audio, Codec::Opus { channels: 2 }),
    };
    Track { id, kind, codec, timescale: 1000, samples: index.finish(ms) }
}

fn describe(tracks: &[Track], size_bytes: u64) -> MediaDescription {
    let described = tracks.iter().enumerate().map(|(position, track)| {
        let format = format_of(&track.codec, track.kind, position);
        let end = track.samples.iter().last().map_or(0, |s| s.dts + i64::from(s.duration));
        TrackDescription {
            id: track.id,
            kind: track.kind,
            codec: format.codec_name,
            payload_type: format.payload_type,
            encoding: format.encoding.to_owned(),
            clock_rate: format.clock_rate,
            channels: format.channels,
            fmtp: format.fmtp,
            duration_ns: end as u64 * MS,
            samples: track.samples.len(),
            sync_samples: track.samples.sync_samples(),
            mean_bps: 0,
            peak_1s_bps: 0,
            packets_per_second: 0.0,
            width: 0,
            height: 0,
        }
    });
    let tracks: Vec<_> = described.collect();
    let duration_ns = tracks.iter().map(|t| t.duration_ns).max().unwrap_or(0);
    MediaDescription { container: "simulated".into(), duration_ns, size_bytes, tracks, left_out: Vec::new() }
}
