//! The path of the experiment `ifq`, in simulated time: nothing of the machine is in its figures, and equal runs give equal ones.
//!
//! ```text
//! host 0: TCP ─► IFQ limit ─► interface queue, 1000 frames ─► 1 Gbps ─► 1 ms ─► host 1: TCP, readers
//!                                                           ◄─ 1 ms ◄─ 1 Gbps ◄─ requests, acknowledgments
//! ```
//!
//! Both ends are whole hosts of our stack. Each has a turn every [`TURN_NS`], as a core has that does other work between its turns.

use std::net::{IpAddr, SocketAddr};

use stack::host::Host as _;
use stack::host_port::{StackConfig, StackHost};
use stack::iface::IfaceConfig;
use stack::tcp::{ConnId, Events, IfqLimit, ListenerId, TcpConfig};
use stack::wire::{SimCable, SimPort, SimPortConfig, Wire, WireConfig, WirePool, sim_ports};

const MS: u64 = 1_000_000;
/// Rate of the path.
pub const RATE_BPS: u64 = 1_000_000_000;
/// Round-trip time of the empty path, without the time that frames take on the line and wait for a turn.
pub const RTT_NS: u64 = 2 * MS;
/// Frames that the interface queue holds.
pub const QUEUE_FRAMES: usize = 1000;
/// Time on the line of a full frame: 1500 bytes, 14 of header, 24 of check sequence, preamble and gap.
pub const FRAME_NS: u64 = 1538 * 8 * 1_000_000_000 / RATE_BPS;
/// Time between turns of a host.
pub const TURN_NS: u64 = 50_000;
/// What one line of the results sums up.
pub const WINDOW_NS: u64 = 100 * MS;
/// Start-up: connections are opened and find their rate. Fairness is counted from here on, and short transfers begin.
pub const START_NS: u64 = 2 * WINDOW_NS;
/// Time between looks at the round-trip times.
const SAMPLE_NS: u64 = 10 * MS;
/// Connections opened in a millisecond at most.
const OPENED_PER_MS: usize = 10;
/// Windows of connections are never what limits a few of them: the path with a full interface queue holds 1.8 MB.
const BUFFERS_BYTES: usize = 12 << 20;
const BUFFER_BYTES_MIN: usize = 32 << 10;
const LONG_PORT: u16 = 80;
const SHORT_PORT: u16 = 81;
const SEED: u64 = 1;

/// What runs on the path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setup {
    /// Limit of the interface queue at the sender.
    pub limit: IfqLimit,
    /// Connections that carry bulk data.
    pub connections: usize,
    /// What each of them carries; without it they never end.
    pub bulk_bytes: Option<u64>,
    /// Size of short transfers, one beginning in each window after start-up; 0 for none.
    pub short_bytes: u64,
    /// How long receivers may hold an acknowledgment back. A connection that has an odd number of segments under way waits that long for the
    /// last one, which then is part of its round-trip time and no doing of any queue.
    pub delayed_ack_ns: u64,
    /// How long it goes on, unless all bulk data has arrived before.
    pub until_ns: u64,
}

/// What one window of time has seen.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Window {
    /// Its end.
    pub end_ns: u64,
    /// Median of the bulk connections' smoothed round-trip times.
    pub srtt_median_ns: u64,
    /// The longest of them.
    pub srtt_max_ns: u64,
    /// Most frames in the interface queue.
    pub queue_frames_max: usize,
    /// How long the line takes for these: what a frame behind them waits, the pseudo delay.
    pub queue_ns_max: u64,
    /// Part of the time in which the line was sending.
    pub busy: f64,
    /// Jain's index of what bulk connections delivered; where all of them had something to send, after start-up.
    pub fairness: Option<f64>,
    /// From the SYN to the last byte, of the short transfer that ended in this window.
    pub short_ns: Option<u64>,
    /// The limit at the end of the window; `None` without one.
    pub limit_frames: Option<usize>,
}

/// What a run has shown.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    /// Whole windows.
    pub windows: Vec<Window>,
    /// When the last byte of each bulk connection arrived, for those that ended.
    pub ended_ns: Vec<u64>,
    /// Segments sent again; the path loses none.
    pub retransmits: u64,
}

/// (sum of x)^2 / (n * sum of x^2): 1 when all are equal, 1/n when one has everything.
pub fn jain(shares: impl Iterator<Item = u64>) -> f64 {
    let (count, sum, squares) = shares.fold((0.0, 0.0, 0.0), |(n, sum, squares), x| {
        let x = x as f64;
        (n + 1.0, sum + x, squares + x * x)
    });
    if squares > 0.0 { sum * sum / (count * squares) } else { 0.0 }
}

/// A sending connection.
#[derive(Clone, Copy)]
struct Sender {
    id: ConnId,
    left: u64,
    long: bool,
}

/// A receiving connection that carries bulk data.
#[derive(Clone, Copy)]
struct Receiver {
    id: ConnId,
    got: u64,
    got_before: u64,
    ended_ns: Option<u64>,
}

/// A short transfer under way.
#[derive(Clone, Copy)]
struct Short {
    id: ConnId,
    began_ns: u64,
}

struct World {
    setup: Setup,
    now_ns: u64,
    hosts: [StackHost<SimPort>; 2],
    cable: SimCable,
    /// For bulk data, and for short transfers.
    listeners: [ListenerId; 2],
    /// By the connection's place.
    senders: Vec<Option<Sender>>,
    receivers: Vec<Receiver>,
    /// Which receiver is at a connection's place.
    receiver_at: Vec<Option<usize>>,
    short: Option<Short>,
    short_ns: Option<u64>,
    srtts_ns: Vec<u64>,
    queue_frames_max: usize,
    busy_before_ns: u64,
    buffer: Vec<u8>,
}

fn ip(node: usize) -> IpAddr {
    IpAddr::from([10, 0, 0, 1 + node as u8])
}

fn host(node: usize, setup: &Setup, port: SimPort) -> StackHost<SimPort> {
    let connections_max = setup.connections + 64;
    let buffer_bytes = (BUFFERS_BYTES / setup.connections.max(1)).max(BUFFER_BYTES_MIN);
    let tcp = TcpConfig {
        connections_max,
        send_buffer_bytes: buffer_bytes,
        recv_buffer_bytes: buffer_bytes,
        buffer_bytes_max: 0,
        pool_bytes: 2 * buffer_bytes * connections_max.min(2 * setup.connections),
        ifq_limit: if node == 0 { setup.limit } else { IfqLimit::Off },
        delayed_ack_ns: setup.delayed_ack_ns,
        // Names of short transfers are free again soon.
        time_wait_ns: WINDOW_NS,
        ..TcpConfig::default()
    };
    let address = if node == 0 { "10.0.0.1/24" } else { "10.0.0.2/24" };
    let iface = IfaceConfig { addresses: address.parse().into_iter().collect(), detect_duplicates: false, ..IfaceConfig::default() };
    let config = StackConfig { iface, tcp, reserved_frames: 0, ..StackConfig::default() };
    StackHost::new(config, port, None, SEED + node as u64, 0)
}

impl World {
    fn new(setup: Setup) -> Option<Self> {
        let wire =
            |seed| Wire::new(WireConfig { rate_bps: RATE_BPS, delay_ns: RTT_NS / 2, ..WireConfig::default() }, WirePool::default(), seed);
        let port =
            |last| SimPortConfig { mac: [2, 0, 0, 0, 0, last], tx_frames: QUEUE_FRAMES, rx_frames: 4096, ..SimPortConfig::default() };
        let (a, b, cable) = sim_ports(port(1), port(2), wire(SEED), wire(SEED + 1));
        let mut hosts = [host(0, &setup, a), host(1, &setup, b)];
        let [sending, _] = &mut hosts;
        let mut listen = |port| sending.tcp_mut().listen(SocketAddr::new(ip(0), port), setup.connections + 16).ok();
        let listeners = [listen(LONG_PORT)?, listen(SHORT_PORT)?];
        Some(Self {
            now_ns: 0,
            hosts,
            cable,
            listeners,
            senders: vec![None; setup.connections + 64],
            receivers: Vec::with_capacity(setup.connections),
            receiver_at: vec![None; setup.connections + 64],
            short: None,
            short_ns: None,
            srtts_ns: Vec::new(),
            queue_frames_max: 0,
            busy_before_ns: 0,
            buffer: vec![0; 64 << 10],
            setup,
        })
    }

    /// Asks host 0 for data.
    fn connect(&mut self, port: u16) -> Option<ConnId> {
        self.hosts[1].tcp_mut().connect(self.now_ns, SocketAddr::new(ip(1), 0), SocketAddr::new(ip(0), port)).ok()
    }

    fn open(&mut self) {
        if self.now_ns.is_multiple_of(MS) {
            for _ in 0..OPENED_PER_MS.min(self.setup.connections - self.receivers.len()) {
                let Some(id) = self.connect(LONG_PORT) else { return };
                self.receiver_at[id.index()] = Some(self.receivers.len());
                self.receivers.push(Receiver { id, got: 0, got_before: 0, ended_ns: None });
            }
        }
        let begins = self.setup.short_bytes > 0 && self.now_ns >= START_NS && self.now_ns.is_multiple_of(WINDOW_NS);
        if begins && self.short.is_none() {
            let began_ns = self.now_ns;
            self.short = self.connect(SHORT_PORT).map(|id| Short { id, began_ns });
        }
    }

    /// The application of host 0: what was asked, as fast as it is taken.
    fn write(&mut self) {
        for (listener, long) in self.listeners.into_iter().zip([true, false]) {
            while let Some(id) = self.hosts[0].tcp_mut().accept(listener) {
                let left = if long { self.setup.bulk_bytes.unwrap_or(u64::MAX) } else { self.setup.short_bytes };
                self.senders[id.index()] = Some(Sender { id, left, long });
            }
        }
        let tcp = self.hosts[0].tcp_mut();
        while let Some((id, events)) = tcp.next_event() {
            let Some(sender) = self.senders[id.index()].as_mut().filter(|sender| sender.id == id && events.any(Events::WRITABLE)) else {
                continue;
            };
            loop {
                let len = self.buffer.len().min(usize::try_from(sender.left).unwrap_or(usize::MAX));
                let taken = tcp.send(id, &[&self.buffer[..len]]).unwrap_or(0);
                sender.left -= taken as u64;
                if taken < len || sender.left == 0 {
                    break;
                }
            }
            if sender.left == 0 {
                tcp.close(id);
                self.senders[id.index()] = None;
            }
        }
    }

    /// The application of host 1: takes everything at once.
    fn read(&mut self) {
        let tcp = self.hosts[1].tcp_mut();
        while let Some((id, events)) = tcp.next_event() {
            if !events.any(Events::READABLE | Events::PEER_CLOSED) {
                continue;
            }
            let mut got = 0;
            let ended = loop {
                match tcp.recv(id, &mut self.buffer) {
                    Ok(Some(0)) => break true,
                    Ok(Some(len)) => got += len as u64,
                    Ok(None) | Err(_) => break false,
                }
            };
            if let Some(receiver) = self.receiver_at[id.index()].and_then(|at| self.receivers.get_mut(at)).filter(|r| r.id == id) {
                receiver.got += got;
                receiver.ended_ns = receiver.ended_ns.or(ended.then_some(self.now_ns));
            }
            if ended {
                if let Some(short) = self.short.take_if(|short| short.id == id) {
                    self.short_ns = Some(self.now_ns - short.began_ns);
                }
                tcp.close(id);
            }
        }
    }

    fn turn(&mut self) {
        self.now_ns += TURN_NS;
        let now_ns = self.now_ns;
        for host in &mut self.hosts {
            host.receive(now_ns, usize::MAX, &mut |_, _| {});
            host.flush(now_ns);
        }
        self.open();
        self.write();
        self.read();
        for host in &mut self.hosts {
            host.flush_streams(now_ns);
        }
        self.queue_frames_max = self.queue_frames_max.max(stack::port::Port::queued(self.hosts[0].port()));
        if now_ns.is_multiple_of(SAMPLE_NS) {
            let tcp = self.hosts[0].tcp_mut();
            let long = self.senders.iter().flatten().filter(|sender| sender.long);
            self.srtts_ns.extend(long.filter_map(|sender| tcp.info(sender.id)).map(|info| info.srtt_ns).filter(|ns| *ns > 0));
        }
    }

    fn done(&self) -> bool {
        self.receivers.len() == self.setup.connections && self.receivers.iter().all(|receiver| receiver.ended_ns.is_some())
    }

    fn window(&mut self) -> Window {
        self.srtts_ns.sort_unstable();
        let busy_ns = self.cable.counters(0).busy_ns;
        let all_sent = self.receivers.len() == self.setup.connections && self.receivers.iter().all(|receiver| receiver.ended_ns.is_none());
        let shares = self.receivers.iter().map(|receiver| receiver.got - receiver.got_before);
        let limit = self.hosts[0].tcp_mut().ifq_limit();
        let queue_frames_max = std::mem::take(&mut self.queue_frames_max);
        let window = Window {
            end_ns: self.now_ns,
            srtt_median_ns: self.srtts_ns.get(self.srtts_ns.len() / 2).copied().unwrap_or(0),
            srtt_max_ns: self.srtts_ns.last().copied().unwrap_or(0),
            queue_frames_max,
            queue_ns_max: queue_frames_max as u64 * FRAME_NS,
            busy: (busy_ns - self.busy_before_ns) as f64 / WINDOW_NS as f64,
            fairness: (all_sent && self.now_ns > START_NS).then(|| jain(shares)),
            short_ns: self.short_ns.take(),
            limit_frames: (limit < usize::MAX).then_some(limit),
        };
        self.busy_before_ns = busy_ns;
        self.srtts_ns.clear();
        self.receivers.iter_mut().for_each(|receiver| receiver.got_before = receiver.got);
        window
    }
}

/// Runs it. `None` when the hosts refuse the listeners, which they have room for.
pub fn run(setup: Setup) -> Option<Outcome> {
    let mut world = World::new(setup)?;
    let mut outcome = Outcome::default();
    while world.now_ns < setup.until_ns && !world.done() {
        world.turn();
        if world.now_ns.is_multiple_of(WINDOW_NS) {
            outcome.windows.push(world.window());
        }
    }
    outcome.ended_ns = world.receivers.iter().filter_map(|receiver| receiver.ended_ns).collect();
    outcome.retransmits = world.hosts[0].layers().2.tx_retransmits;
    Some(outcome)
}
