//! A whole engine in simulated time, from a seed: clock, disk and network are simulated, everything between them is the real thing.
//!
//! ```text
//! viewers (random starts, seeks, pauses, ends) ─► commands ─► EngineCore ─► datagrams, interleaved frames ─► oracle of each viewer
//!                                                    SimDisk ◄──┘
//! ```
//!
//! Every packet is held against an oracle that knows the title: its payload, sequence number, RTP time, marker and due time. Equal
//! seeds give equal traces; [`Report::trace`] is a hash over all that was sent and when.

mod oracle;
mod titles;
mod viewer;

use std::collections::HashMap;
use std::hash::Hasher;
use std::net::SocketAddr;

use crossbeam_channel::{Receiver, Sender, bounded};
use dataplane::disks::sim::{SimDisk, SimDiskConfig, SimFile};
use dataplane::engine::{Command, CoreConfig, EngineCore, Event, Reply};
use hugepages::{Arena, ChunkPool};
use pacing::{Clock, SimClock};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use stack::host::{Host, Received};
use stack::sim::{SimConfig, SimHost, SimLink, SimStream};

pub use titles::SimTitle;
use viewer::{Manners, Viewer};

type Order = Command<SimStream, SimFile>;
type Core = EngineCore<SimHost, SimDisk, SimClock>;

const CHUNK_BYTES: usize = 64 << 10;
/// The engine core looks for datagrams at most this often (a real host wakes it).
const ARRIVAL_POLL_NS: u64 = 100_000;
/// Buffers: viewers who are close together share theirs, so a few need more for each than many (a thousand used 1,712 at most).
const CHUNKS: usize = 300;
const CHUNKS_PER_VIEWER: usize = 3;
const RTCP_PORT: u8 = 1;

/// What a run is like.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Seed of all chance.
    pub seed: u64,
    /// Viewers at once.
    pub viewers: usize,
    /// Simulated time.
    pub seconds: u64,
    /// Titles, shared by the viewers.
    pub titles: usize,
    /// The disk.
    pub disk: SimDiskConfig,
    /// The network; `None` for one without bounds.
    pub link: Option<SimLink>,
    /// Of a hundred viewers, how many take RTP interleaved in TCP.
    pub tcp_percent: u32,
    /// Viewers seek, pause and leave at any moment; otherwise they watch to the end first.
    pub restless: bool,
    /// How late a packet may leave, nanoseconds. `None`: any time will do, and only order and content are checked.
    pub patience_ns: Option<u64>,
    /// The disk cannot read everything: sessions may skip, or be given up by the engine.
    pub failures: bool,
}

impl Default for Scenario {
    /// Fifty viewers for half a minute, on a good disk and network, each packet at most 5 ms late: the disk's worst wait at the start of
    /// a range, the catch-up spacing behind it.
    fn default() -> Self {
        Self {
            seed: 1,
            viewers: 50,
            seconds: 30,
            titles: 24,
            disk: SimDiskConfig::default(),
            link: None,
            tcp_percent: 20,
            restless: true,
            patience_ns: Some(5_000_000),
            failures: false,
        }
    }
}

/// What a run came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// RTP packets checked.
    pub packets: u64,
    /// Sender reports checked.
    pub sender_reports: u64,
    /// BYEs seen.
    pub byes: u64,
    /// Sessions set up.
    pub sessions: u64,
    /// Seeks.
    pub seeks: u64,
    /// Pauses.
    pub pauses: u64,
    /// Sessions that were delivered to the end of their title.
    pub ended: u64,
    /// Sessions that the engine gave up.
    pub failed: u64,
    /// Places that deliveries left out because the disk could not read them.
    pub skips: u64,
    /// Clients behind a NAT that were followed to another address.
    pub followed: u64,
    /// Reports of viewers that no session took.
    pub rtcp_ignored: u64,
    /// Flushes that the network did not take as a whole.
    pub backpressure: u64,
    /// Most buffers in use at once.
    pub chunks_used_max: usize,
    /// Blocks of all titles.
    pub blocks: usize,
    /// Highest lateness, nanoseconds.
    pub lateness_max_ns: u64,
    /// Hash over every datagram, its time and its destination.
    pub trace: u64,
}

/// The engine and its viewers.
struct World {
    clock: SimClock,
    core: Core,
    commands: Sender<Order>,
    events: Receiver<Event<SimFile>>,
    titles: Vec<SimTitle>,
    viewers: Vec<Viewer>,
    /// Which viewer a UDP port of the clients belongs to.
    by_remote: HashMap<SocketAddr, usize>,
    by_session: HashMap<u64, usize>,
    /// The viewers that take RTP interleaved.
    interleaved: Vec<usize>,
    stream_bytes: u64,
    waiting: HashMap<u64, usize>,
    next_reply: u64,
    rng: StdRng,
    report: Report,
    trace: xxhash_rust::xxh3::Xxh3,
}

/// Runs a scenario.
///
/// # Errors
/// What was wrong with the first packet, answer or buffer count that was not as it should be, with the seed to run it again.
pub fn run(scenario: &Scenario) -> Result<Report, String> {
    let mut world = World::new(scenario)?;
    world.play(scenario.seconds * pacing::NS_PER_SEC).map_err(|e| format!("seed {}: {e}", scenario.seed))?;
    world.end().map_err(|e| format!("seed {}: {e}", scenario.seed))
}

impl World {
    fn new(scenario: &Scenario) -> Result<Self, String> {
        let clock = SimClock::new(1_000_000_000);
        let viewers = scenario.viewers as u32;
        let host_config = SimConfig { flows_max: 8 * viewers, streams_max: viewers, link: scenario.link, ..SimConfig::default() };
        let tx_frames = host_config.tx_frames;
        let chunks = CHUNKS + scenario.viewers * CHUNKS_PER_VIEWER;
        let arena = Arena::new(chunks * CHUNK_BYTES).map_err(|e| e.to_string())?;
        let pool = ChunkPool::with_at_most(arena, CHUNK_BYTES, chunks);
        let (commands, commands_rx) = bounded(4 * scenario.viewers + 16);
        let (events_tx, events) = bounded(64 * scenario.viewers + 64);
        let config = CoreConfig {
            sessions_max: viewers,
            tracks_max: 2 * viewers,
            streams_max: viewers,
            host_frames: tx_frames,
            // Half of the worlds have one: nothing else may change by it.
            cache: scenario.seed.is_multiple_of(2),
            ..CoreConfig::default()
        };
        let host = SimHost::new(host_config, scenario.seed);
        let disk = SimDisk::new(SimDiskConfig { seed: scenario.seed, ..scenario.disk.clone() });
        let core = EngineCore::new(config, clock.clone(), host, disk, pool, commands_rx, events_tx);
        let mut rng = StdRng::seed_from_u64(scenario.seed);
        let titles = (0..scenario.titles).map(|i| SimTitle::make(i as u64 + 1, &mut rng)).collect::<Vec<_>>();
        let blocks = titles.iter().map(|title| title.bytes.len().div_ceil(CHUNK_BYTES)).sum();
        let manners = Manners { restless: scenario.restless, patience_ns: scenario.patience_ns, failures: scenario.failures };
        let mut viewer = |i| {
            let tcp = rng.random_ratio(scenario.tcp_percent, 100);
            Viewer::new(i, tcp, manners, clock.now_ns() + rng.random_range(0..10_000_000_000))
        };
        let viewers: Vec<Viewer> = (0..scenario.viewers).map(&mut viewer).collect();
        let interleaved = viewers.iter().filter(|v| v.tcp).map(|v| v.index).collect();
        Ok(Self {
            clock,
            core,
            commands,
            events,
            titles,
            viewers,
            by_remote: HashMap::new(),
            by_session: HashMap::new(),
            interleaved,
            stream_bytes: 0,
            waiting: HashMap::new(),
            next_reply: 1,
            rng,
            report: Report { blocks, ..Report::default() },
            trace: xxhash_rust::xxh3::Xxh3::with_seed(0),
        })
    }

    fn play(&mut self, for_ns: u64) -> Result<(), String> {
        let end_ns = self.clock.now_ns() + for_ns;
        let mut agenda: std::collections::BTreeSet<(u64, usize)> = self.viewers.iter().map(|v| (v.next_action_ns, v.index)).collect();
        let mut core_next_ns = self.clock.now_ns();
        while self.clock.now_ns() < end_ns {
            let next_viewer_ns = agenda.first().map_or(end_ns, |&(at, _)| at);
            self.clock.advance_to(next_viewer_ns.min(core_next_ns).min(end_ns));
            let now_ns = self.clock.now_ns();
            while let Some(&(at, index)) = agenda.first() {
                if at > now_ns {
                    break;
                }
                agenda.pop_first();
                self.act(index)?;
                agenda.insert((self.viewers[index].next_action_ns.max(now_ns + 1), index));
            }
            core_next_ns = self.turn()?.unwrap_or(end_ns).max(now_ns + 1);
            if self.core.host_mut().next_arrival_ns().is_some() {
                core_next_ns = core_next_ns.min(now_ns + ARRIVAL_POLL_NS);
            }
        }
        Ok(())
    }

    /// One turn of the engine core, with everything that it said and sent.
    fn turn(&mut self) -> Result<Option<u64>, String> {
        let turn = self.core.turn();
        while let Ok(event) = self.events.try_recv() {
            self.hear(event)?;
        }
        self.check_sent()?;
        let used = self.core.pool().capacity() - self.core.chunks_free();
        self.report.chunks_used_max = self.report.chunks_used_max.max(used);
        let more = self.core.has_commands().then(|| self.clock.now_ns());
        Ok(more.or(turn.next_ns))
    }

    fn hear(&mut self, event: Event<SimFile>) -> Result<(), String> {
        match event {
            Event::Reply { id, reply } => {
                let Some(index) = self.waiting.remove(&id) else { return Err(format!("answer {id} to nobody")) };
                if let Reply::Refused(refusal) = &reply {
                    return Err(format!("viewer {index} was refused: {refusal}"));
                }
                self.viewers[index].hear(reply, self.clock.now_ns())
            }
            Event::Finished { session, outcome } => {
                let Some(&index) = self.by_session.get(&session) else { return Err(format!("end of unknown session {session}")) };
                self.viewers[index].finished(outcome, self.clock.now_ns(), &mut self.report)
            }
            Event::StreamClosed { token } => Err(format!("stream {token} was given up")),
            Event::TransferOver { transfer, .. } | Event::TransferGone { transfer } => {
                Err(format!("a transfer {transfer} that nobody began"))
            }
            Event::Discard(_) | Event::DiscardAll(_) | Event::DiscardSetup(_) | Event::DiscardPlan(_) | Event::Stopped => Ok(()),
            // There are no live channels in these worlds.
            other => Err(format!("{other:?}")),
        }
    }

    fn check_sent(&mut self) -> Result<(), String> {
        let Self { core, viewers, by_remote, report, trace, .. } = self;
        let mut wrong = None;
        core.host_mut().take_sent(|sent| {
            if wrong.is_some() {
                return;
            }
            trace.write_u64(sent.at_ns);
            trace.write_u16(sent.remote.port());
            trace.write(sent.bytes);
            let answer = match by_remote.get(&sent.remote) {
                Some(&index) => viewers[index].datagram(sent.remote, sent.local_port == RTCP_PORT, sent.at_ns, sent.bytes, report),
                None => Err(format!("a datagram to nobody, {}", sent.remote)),
            };
            wrong = answer.err();
        });
        if let Some(wrong) = wrong {
            return Err(format!("at {} ns: {wrong}", self.clock.now_ns()));
        }
        let stream_bytes = self.core.host_mut().counters().stream_tx_bytes;
        if stream_bytes == std::mem::replace(&mut self.stream_bytes, stream_bytes) {
            return Ok(());
        }
        let now_ns = self.clock.now_ns();
        for &index in &self.interleaved {
            let read = self.viewers[index].read_stream(now_ns, &mut self.report, &mut self.trace);
            read.map_err(|e| format!("at {now_ns} ns: {e}"))?;
        }
        Ok(())
    }

    fn act(&mut self, index: usize) -> Result<(), String> {
        let now_ns = self.clock.now_ns();
        let mut orders = Vec::new();
        let viewer = &mut self.viewers[index];
        viewer.act(now_ns, &self.titles, &mut self.rng, &mut self.report, &mut orders)?;
        for (local_port, remote, bytes) in viewer.send(now_ns, &mut self.rng) {
            self.core.host_mut().inject(now_ns, Received { local_port, remote }, &bytes);
        }
        for remote in viewer.remotes() {
            self.by_remote.insert(remote, index);
        }
        if let Some(session) = viewer.session() {
            self.by_session.insert(session, index);
        }
        for order in orders {
            let id = self.next_reply;
            self.next_reply += 1;
            if order.wants_answer() {
                self.waiting.insert(id, index);
            }
            self.commands.try_send(order.into_command(id)).map_err(|_| "the command queue is full".to_owned())?;
        }
        Ok(())
    }

    /// Asks the core for its counters.
    fn ask_core(&mut self) -> Result<(), String> {
        self.commands.try_send(Command::CoreStatus { reply: 0, report: Box::default() }).map_err(|_| "the command queue is full")?;
        self.core.turn();
        let Some(Event::Reply { reply: Reply::Core(status), .. }) = self.events.try_iter().last() else {
            return Err("the core does not tell its status".into());
        };
        (self.report.followed, self.report.rtcp_ignored) = (status.flows_followed, status.rtcp_ignored);
        self.report.backpressure = status.host.tx_backpressure;
        Ok(())
    }

    /// Ends every session and counts what came back.
    fn end(mut self) -> Result<Report, String> {
        for index in 0..self.viewers.len() {
            if let Some(session) = self.viewers[index].session() {
                let id = self.next_reply;
                self.next_reply += 1;
                self.waiting.insert(id, index);
                self.commands.try_send(Command::Destroy { reply: id, session }).map_err(|_| "the command queue is full".to_owned())?;
            }
        }
        // Reads that are under way end, and what is queued goes out.
        for _ in 0..10_000 {
            let next = self.turn()?;
            self.clock.advance_to(self.clock.now_ns() + 1_000_000);
            if next.is_none() && !self.core.has_commands() && self.waiting.is_empty() {
                break;
            }
        }
        self.ask_core()?;
        let (free, all) = (self.core.chunks_free(), self.core.pool().capacity());
        if free != all {
            return Err(format!("{} of {all} buffers did not come back", all - free));
        }
        let counters = self.core.host_mut().counters();
        if counters.flows != 0 {
            return Err(format!("{} flows are still open", counters.flows));
        }
        self.report.trace = self.trace.finish();
        Ok(self.report)
    }
}
