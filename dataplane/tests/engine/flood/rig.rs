//! An engine core on its own stack, at one end of a simulated cable; at the other end clients, and whoever floods.
//!
//! The core pays for what it does: time passes for each frame that it takes or sends, so that a flood takes its processor too.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crossbeam_channel::{Receiver, Sender, bounded};
use dataplane::disks::sim::{SimDisk, SimDiskConfig, SimFile};
use dataplane::engine::{Command, CoreConfig, EngineCore, Event, Reply};
use hugepages::{Arena, ChunkPool};
use pacing::{Clock, SimClock};
use smoltcp::wire::IpProtocol;
use stack::host_port::{StackConfig, StackHost, StackStream};
use stack::iface::{IfaceConfig, Route};
use stack::port::Port;
use stack::tcp::{ConnId, ListenerId, SegmentOut, SendOutcome, Tcp, TcpConfig};
use stack::wire::{SimPort, SimPortConfig, Wire, WireConfig, WirePool, sim_ports};

use super::frames::{Frames, OUR_V4, OURS, PEER, RTP, RTSP, arp, ipv4};
use crate::allocation;
use crate::stage::{CHUNK_BYTES, Film, SECOND, udp};

/// Of the cable, in both directions.
pub const LINE_BPS: u64 = 1_000_000_000;
/// Frames of the core's port, and how many of these only RTP may use.
pub const TX_FRAMES: usize = 2048;
pub const RESERVED_FRAMES: usize = 256;
/// Neighbours that are remembered: clients and gateway fit, and not many more.
pub const NEIGHBOURS_MAX: usize = 256;
/// Connections that wait to be accepted, handshakes under way counted.
pub const BACKLOG: usize = 64;
/// What sending a frame costs the core.
const TX_COST_NS: u64 = 200;
/// A turn in which nothing happens, and how exactly arrivals are seen at the far end.
const STEP_NS: u64 = 5_000;
/// Frames that the flooder has in its queue at least: more than the line carries in the longest turn.
const FLOOD_QUEUE: usize = 1000;
/// An honest client beside those that play.
const HONEST: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 200);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 254);

type Core = EngineCore<StackHost<SimPort>, SimDisk, SimClock>;

/// A datagram from the RTP port, at its client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrival {
    pub at_ns: u64,
    pub bytes: Vec<u8>,
}

pub struct Rig {
    clock: SimClock,
    pub core: Core,
    peer: SimPort,
    commands: Sender<Command<StackStream, SimFile>>,
    events: Receiver<Event<SimFile>>,
    listener: ListenerId,
    accepted: Vec<ConnId>,
    pub honest: Honest,
    /// By client, in order of arrival.
    pub arrivals: BTreeMap<SocketAddr, Vec<Arrival>>,
    rx_cost_ns: u64,
    /// The longest interface queue at the end of a turn.
    pub longest_queue: usize,
    /// Turns that allocated or freed memory.
    pub allocating_turns: usize,
}

/// A client that wants a connection, on a TCP of its own.
pub struct Honest {
    tcp: Tcp,
    conn: Option<ConnId>,
    knows_us: bool,
    has_asked: bool,
    asked_ns: u64,
    /// When it wanted to connect, and when it had its answer.
    pub wanted_ns: Option<u64>,
    pub answered_ns: Option<u64>,
}

pub const QUESTION: &[u8] = b"OPTIONS * RTSP/1.0\r\nCSeq: 1\r\n\r\n";

struct PeerOut<'a>(&'a mut SimPort);

impl SegmentOut for PeerOut<'_> {
    fn queued(&self) -> usize {
        0
    }

    fn segment(&mut self, _: IpAddr, _: IpAddr, len: usize, fill: &mut dyn FnMut(&mut [u8])) -> SendOutcome {
        let mut segment = vec![0; len];
        fill(&mut segment);
        if say(self.0, &ipv4(IpProtocol::Tcp, HONEST, 0, &segment)) { SendOutcome::Sent } else { SendOutcome::Full }
    }
}

fn say(port: &mut SimPort, bytes: &[u8]) -> bool {
    let Some(frame) = port.frame() else { return false };
    frame[..bytes.len()].copy_from_slice(bytes);
    port.commit(bytes.len());
    true
}

impl Rig {
    /// `rx_cost_ns`: what taking a frame costs the core.
    pub fn new(rx_cost_ns: u64) -> Self {
        let clock = SimClock::new(SECOND);
        let wire = |seed| Wire::new(WireConfig { rate_bps: LINE_BPS, ..WireConfig::default() }, WirePool::default(), seed);
        let ours = SimPortConfig { mac: OURS, tx_frames: TX_FRAMES, ..SimPortConfig::default() };
        let theirs = SimPortConfig { mac: PEER, tx_frames: 2048, rx_frames: 4096, ..SimPortConfig::default() };
        let (port, peer, _) = sim_ports(ours, theirs, wire(1), wire(2));
        let config = StackConfig {
            iface: IfaceConfig {
                addresses: vec!["10.0.0.1/16".parse().unwrap(), "fd00::1/64".parse().unwrap()],
                routes: vec![Route { to: "0.0.0.0/0".parse().unwrap(), via: Some(GATEWAY.into()) }],
                detect_duplicates: false,
                neighbours_max: NEIGHBOURS_MAX,
                ..IfaceConfig::default()
            },
            tcp: TcpConfig { connections_max: 256, pool_bytes: 1 << 20, ..TcpConfig::default() },
            ports: [RTP, RTP + 1],
            tx_frames: 64,
            reserved_frames: RESERVED_FRAMES,
            ..StackConfig::default()
        };
        let mut host = StackHost::new(config, port, None, 7, clock.now_ns());
        let listener = host.tcp_mut().listen(SocketAddr::new(OUR_V4.into(), RTSP), BACKLOG).unwrap();
        let chunks = 8192;
        let pool = ChunkPool::new(Arena::new(chunks * CHUNK_BYTES).expect("memory"), CHUNK_BYTES);
        let (commands, commands_rx) = bounded(4096);
        let (events_tx, events) = bounded(4096);
        let core_config =
            CoreConfig { sessions_max: 128, tracks_max: 256, streams_max: 16, tick_ns: 20_000, host_frames: 64, ..CoreConfig::default() };
        // So few reads at once that the simulated disk's table of them keeps its one node.
        let disk = SimDisk::new(SimDiskConfig { depth: 8, ..SimDiskConfig::default() });
        let core = EngineCore::new(core_config, clock.clone(), host, disk, pool, commands_rx, events_tx);
        let honest_config = TcpConfig { connections_max: 4, pool_bytes: 1 << 20, ..TcpConfig::default() };
        let honest = Honest {
            tcp: Tcp::new(honest_config, 3, clock.now_ns()),
            conn: None,
            knows_us: false,
            has_asked: false,
            asked_ns: 0,
            wanted_ns: None,
            answered_ns: None,
        };
        Self {
            clock,
            core,
            peer,
            commands,
            events,
            listener,
            accepted: Vec::new(),
            honest,
            arrivals: BTreeMap::new(),
            rx_cost_ns,
            longest_queue: 0,
            allocating_turns: 0,
        }
    }

    fn now(&self) -> u64 {
        self.clock.now_ns()
    }

    fn ask(&mut self, order: impl FnOnce(u64) -> Command<StackStream, SimFile>) -> Reply {
        self.commands.try_send(order(1)).expect("the command queue has room");
        for _ in 0..100 {
            self.step(None);
            for event in self.events.try_iter() {
                if let Event::Reply { reply, .. } = event {
                    return reply;
                }
            }
        }
        panic!("no answer");
    }

    /// Plays all tracks over UDP from the beginning; nothing of it is left to chance.
    pub fn play(&mut self, session: u64, film: &Film) {
        for track in 0..film.title.tracks.len() {
            let random = ((session * 16 + track as u64) as u32, session as u16, 0, session);
            let setup = film.setup_from(track, udp(session, track), random);
            assert!(matches!(self.ask(|reply| Command::SetupTrack { reply, session, setup }), Reply::Done));
        }
        let plan = film.plan(0);
        assert!(matches!(self.ask(|reply| Command::Start { reply, session, plan: Some(Box::new(plan)) }), Reply::Started { .. }));
        assert!(matches!(self.ask(|reply| Command::Run { reply, session }), Reply::Done));
    }

    /// From now on it is counted what turns do, and the honest client wants to connect.
    pub fn begin(&mut self) {
        (self.longest_queue, self.allocating_turns) = (0, 0);
        self.honest.wanted_ns = Some(self.now());
    }

    pub fn run_for(&mut self, ns: u64, mut flood: Option<&mut Frames>) {
        let end_ns = self.now() + ns;
        while self.now() < end_ns {
            self.step(flood.as_deref_mut());
        }
    }

    /// One turn of the core, and the time that it takes.
    fn step(&mut self, flood: Option<&mut Frames>) {
        let now_ns = self.now();
        self.client(now_ns);
        if let Some(frames) = flood {
            while self.peer.queued() < FLOOD_QUEUE {
                assert!(say(&mut self.peer, &frames.next()));
            }
        }
        self.peer.flush(now_ns);
        let before = self.core.host_mut().port().counters();
        let calls = allocation::calls();
        self.core.turn();
        self.allocating_turns += usize::from(allocation::calls() != calls);
        self.serve();
        let port = self.core.host_mut().port();
        let (after, queued) = (port.counters(), port.queued());
        let cost_ns = (after.rx_frames - before.rx_frames) * self.rx_cost_ns + (after.tx_frames - before.tx_frames) * TX_COST_NS;
        self.longest_queue = self.longest_queue.max(queued);
        let end_ns = now_ns + cost_ns.max(STEP_NS);
        while self.now() < end_ns {
            self.clock.advance_to(end_ns.min(self.now() + STEP_NS));
            self.hear();
        }
    }

    /// What arrives at the far end.
    fn hear(&mut self) {
        let now_ns = self.now();
        let Self { peer, arrivals, honest, .. } = self;
        let mut asked = Vec::new();
        peer.receive(now_ns, usize::MAX, &mut |frame| match (&frame[12..14], frame.get(23)) {
            (&[8, 6], _) if frame[21] == 1 => asked.push(Ipv4Addr::new(frame[38], frame[39], frame[40], frame[41])),
            (&[8, 6], _) => honest.knows_us |= frame[38..42] == HONEST.octets(),
            (&[8, 0], Some(17)) if frame[34..36] == RTP.to_be_bytes() => {
                let to = SocketAddr::from(([frame[30], frame[31], frame[32], frame[33]], u16::from_be_bytes([frame[36], frame[37]])));
                arrivals.entry(to).or_default().push(Arrival { at_ns: now_ns, bytes: frame[42..].to_vec() });
            }
            (&[8, 0], Some(6)) if frame[30..34] == HONEST.octets() => {
                let len = usize::from(u16::from_be_bytes([frame[16], frame[17]]));
                honest.tcp.ingress(now_ns, OUR_V4.into(), HONEST.into(), &frame[34..14 + len]);
            }
            _ => {}
        });
        // Only those who are there.
        for target in asked.into_iter().filter(|target| target.octets()[..3] == [10, 0, 0]) {
            say(peer, &arp(2, OURS, (PEER, target), (OURS, OUR_V4)));
        }
    }

    /// The honest client: asks for our hardware address once a second until it knows it, connects, asks, and waits for the answer.
    fn client(&mut self, now_ns: u64) {
        let Self { peer, honest, .. } = self;
        if honest.wanted_ns.is_none() || honest.answered_ns.is_some() {
            return;
        }
        if !honest.knows_us {
            if now_ns >= honest.asked_ns + SECOND {
                honest.asked_ns = now_ns;
                say(peer, &arp(1, [0xff; 6], (PEER, HONEST), ([0; 6], OUR_V4)));
            }
            return;
        }
        let conn = *honest.conn.get_or_insert_with(|| {
            honest.tcp.connect(now_ns, SocketAddr::new(HONEST.into(), 0), SocketAddr::new(OUR_V4.into(), RTSP)).unwrap()
        });
        if !honest.has_asked {
            honest.has_asked = honest.tcp.send(conn, &[QUESTION]).is_ok();
        }
        let mut answer = [0; 64];
        if let Ok(Some(len @ 1..)) = honest.tcp.recv(conn, &mut answer) {
            assert_eq!(&answer[..len], QUESTION, "it is told back what it said");
            honest.answered_ns = Some(now_ns);
        }
        honest.tcp.egress(now_ns, &mut PeerOut(peer));
    }

    /// The server: says back what it is told.
    fn serve(&mut self) {
        let tcp = self.core.host_mut().tcp_mut();
        self.accepted.extend(std::iter::from_fn(|| tcp.accept(self.listener)));
        for &conn in &self.accepted {
            let mut buf = [0; 64];
            if let Ok(Some(len @ 1..)) = tcp.recv(conn, &mut buf) {
                tcp.send(conn, &[&buf[..len]]).unwrap();
            }
        }
    }
}
