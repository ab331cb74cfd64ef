//! Two and three cores of one machine behind a simulated interface that sprays frames over their queues, and another machine.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};

use super::*;
use crate::host::{FlowId, FlowSpec, Host, HostError};
use crate::host_port::{StackConfig, StackHost};
use crate::iface::{IfaceConfig, PortBlock};
use crate::tcp::{ConnId, ListenerId, TcpConfig, TcpError};
use crate::wire::{Probability, SimPort, SimPortConfig, SimQueue, Wire, WireConfig, WirePool, sim_ports, sim_queues};

const MS: u64 = 1_000_000;
const RTP: u16 = 6970;
const RTSP: u16 = 554;
const PEER_PORT: u16 = 7000;

type Core = StackHost<ExchangePort<SimQueue>>;

fn address(last: u8, port: u16, ipv6: bool) -> SocketAddr {
    if ipv6 { format!("[2001:db8::{last}]:{port}").parse().unwrap() } else { ([10, 0, 0, last], port).into() }
}

fn config(last: u8, ports: [u16; 2], ephemeral_ports: (u16, u16)) -> StackConfig {
    let addresses = [format!("10.0.0.{last}/24"), format!("2001:db8::{last}/64")];
    let iface = IfaceConfig { addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(), ..IfaceConfig::default() };
    let tcp = TcpConfig {
        connections_max: 64,
        send_buffer_bytes: 32 << 10,
        recv_buffer_bytes: 32 << 10,
        pool_bytes: 4 << 20,
        ephemeral_ports,
        ..TcpConfig::default()
    };
    StackConfig { iface, tcp, ports, ..StackConfig::default() }
}

struct World {
    cores: Vec<Core>,
    peer: StackHost<SimPort>,
    owners: Owners,
    now_ns: u64,
    /// Datagrams that came, by core, as the peer's port and the first byte.
    heard: Vec<Vec<(u16, u8)>>,
    heard_by_peer: Vec<(u16, u8)>,
}

impl World {
    fn new(cores: usize, wire: WireConfig, ring_frames: usize, seed: u64) -> Self {
        let wire = |seed| Wire::new(wire, WirePool::default(), seed);
        let near = SimPortConfig { mac: [2, 0, 0, 0, 0, 1], tx_frames: 1024, ..SimPortConfig::default() };
        let far = SimPortConfig { mac: [2, 0, 0, 0, 0, 2], tx_frames: 1024, ..SimPortConfig::default() };
        let (near, far, _) = sim_ports(near, far, wire(seed), wire(seed ^ 1));
        let owners = Owners::new(cores, vec![PortBlock { first: RTP, per_core: 2 }], seed);
        let queues = sim_queues(near, cores, 512, seed).into_iter().map(|queue| (queue, Box::new(|| ()) as Wake)).collect();
        let core = |(nth, port): (usize, ExchangePort<SimQueue>)| {
            let first = RTP + 2 * nth as u16;
            let config = config(1, [first, first + 1], owners.outgoing_ports(nth));
            StackHost::new(config, port, None, seed ^ nth as u64, 0)
        };
        let cores: Vec<Core> = exchange(queues, &owners, ring_frames).into_iter().enumerate().map(core).collect();
        let peer = StackHost::new(config(2, [PEER_PORT, PEER_PORT + 1], (32_768, 60_999)), far, None, !seed, 0);
        let heard = vec![Vec::new(); cores.len()];
        let mut world = Self { cores, peer, owners, now_ns: 0, heard, heard_by_peer: Vec::new() };
        // Until addresses have been tried and may be used.
        for _ in 0..40 {
            world.turn(100 * MS);
        }
        world
    }

    fn turn(&mut self, ns: u64) {
        self.now_ns += ns;
        for (core, heard) in self.cores.iter_mut().zip(&mut self.heard) {
            core.receive(self.now_ns, 64, &mut |from, bytes| heard.push((from.remote.port(), bytes[0])));
            core.flush(self.now_ns);
            core.flush_streams(self.now_ns);
        }
        let heard = &mut self.heard_by_peer;
        self.peer.receive(self.now_ns, 64, &mut |from, bytes| heard.push((from.remote.port(), bytes[0])));
        self.peer.flush(self.now_ns);
        self.peer.flush_streams(self.now_ns);
    }

    fn exchanged(&self) -> ExchangeCounters {
        let all = self.cores.iter().map(|core| core.port().exchanged());
        all.fold(ExchangeCounters::default(), |sum, of| ExchangeCounters {
            handed_over: sum.handed_over + of.handed_over,
            dropped: sum.dropped + of.dropped,
            taken_over: sum.taken_over + of.taken_over,
        })
    }
}

/// A datagram from the peer's address to a group, in a frame.
fn to_group(from_port: u16, port: u16, byte: u8) -> Vec<u8> {
    let mut header = vec![0x45, 0, 0, 29, 0, 0, 0, 0, 1, 17, 0, 0, 10, 0, 0, 2, 239, 1, 2, 3];
    let mut sum: u32 = header.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    sum = (sum & 0xffff) + (sum >> 16);
    header[10..12].copy_from_slice(&(!(sum as u16)).to_be_bytes());
    let udp = [&from_port.to_be_bytes()[..], &port.to_be_bytes(), &[0, 9, 0, 0, byte]].concat();
    [&[1, 0, 0x5e, 1, 2, 3, 2, 0, 0, 0, 0, 2, 8, 0][..], &header, &udp].concat()
}

#[test]
fn what_a_core_listens_to_comes_by_any_queue() {
    let mut world = World::new(3, WireConfig::default(), 128, 11);
    let group: SocketAddr = "239.1.2.3:9500".parse().unwrap();
    assert_eq!(world.cores[1].listen(group), Ok(2));
    assert_eq!(world.cores[2].listen(group), Err(HostError::Listen), "another core has the port");
    assert_eq!(world.cores[2].listen(([239, 1, 2, 3], RTP).into()), Err(HostError::Listen), "it is the first core's");
    world.turn(MS);
    let joined = world.exchanged();
    for nth in 0..100 {
        let frame = to_group(10_000 + nth, 9500, nth as u8);
        let peer = world.peer.port_mut();
        peer.frame().unwrap()[..frame.len()].copy_from_slice(&frame);
        peer.commit(frame.len());
        world.turn(MS);
    }
    world.turn(MS);
    let mut heard = world.heard[1].clone();
    heard.sort_unstable();
    assert_eq!(heard, (0..100).map(|nth| (10_000 + nth, nth as u8)).collect::<Vec<_>>());
    assert!(world.heard[0].is_empty() && world.heard[2].is_empty());
    assert!(world.exchanged().handed_over - joined.handed_over > 20, "it came by all queues");
}

/// Either side of a connection, with what it is to send and what it has seen.
struct End {
    /// The core, or the peer.
    core: Option<usize>,
    conn: ConnId,
    written: usize,
    read: Vec<u8>,
}

impl End {
    fn new(core: Option<usize>, conn: ConnId) -> Self {
        Self { core, conn, written: 0, read: Vec::new() }
    }

    fn go_on(&mut self, world: &mut World, bytes: &[u8]) {
        let tcp = match self.core {
            Some(core) => world.cores[core].tcp_mut(),
            None => world.peer.tcp_mut(),
        };
        match tcp.send(self.conn, &[&bytes[self.written..]]) {
            Ok(count) => self.written += count,
            Err(TcpError::NotConnected) => {}
            Err(error) => panic!("{error}"),
        }
        let mut buffer = [0; 4096];
        while let Ok(Some(count @ 1..)) = tcp.recv(self.conn, &mut buffer) {
            self.read.extend(&buffer[..count]);
        }
    }
}

/// Connections both ways, to and from every core, over IPv4 and IPv6; every byte arrives.
fn connections(cores: usize, wire: WireConfig, seed: u64) -> World {
    let mut world = World::new(cores, wire, 128, seed);
    let bytes: Vec<u8> = (0..60_000_u32).map(|at| (at % 251) as u8).collect();
    let any = address(1, RTSP, false);
    let any6 = address(1, RTSP, true);
    let listeners: Vec<(usize, ListenerId)> = (0..cores)
        .flat_map(|core| [(core, any), (core, any6)])
        .map(|(core, at)| (core, world.cores[core].tcp_mut().listen(at, 32).unwrap()))
        .collect();
    let listening: Vec<ListenerId> = [false, true].map(|ipv6| world.peer.tcp_mut().listen(address(2, RTSP, ipv6), 32).unwrap()).to_vec();
    let mut ends = Vec::new();
    for nth in 0..4 * cores {
        let ipv6 = nth % 2 == 1;
        let now_ns = world.now_ns;
        let conn = world.peer.tcp_mut().connect(now_ns, address(2, 0, ipv6), address(1, RTSP, ipv6)).unwrap();
        ends.push(End::new(None, conn));
        let core = nth % cores;
        let conn = world.cores[core].tcp_mut().connect(now_ns, address(1, 0, ipv6), address(2, RTSP, ipv6)).unwrap();
        ends.push(End::new(Some(core), conn));
    }
    let expected = 2 * ends.len();
    for _ in 0..60_000 {
        world.turn(MS);
        for &(core, listener) in &listeners {
            while let Some(conn) = world.cores[core].tcp_mut().accept(listener) {
                ends.push(End::new(Some(core), conn));
            }
        }
        for &listener in &listening {
            while let Some(conn) = world.peer.tcp_mut().accept(listener) {
                ends.push(End::new(None, conn));
            }
        }
        for end in &mut ends {
            end.go_on(&mut world, &bytes);
        }
        if ends.len() == expected && ends.iter().all(|end| end.read.len() >= bytes.len()) {
            break;
        }
    }
    assert_eq!(ends.len(), expected, "every connection has two ends");
    assert!(ends.iter().all(|end| end.read == bytes), "{:?}", ends.iter().map(|end| end.read.len()).collect::<Vec<_>>());
    for end in &ends {
        let Some(core) = end.core else { continue };
        let info = world.cores[core].tcp_mut().info(end.conn).unwrap();
        assert_eq!(world.owners.of_connection(info.remote.ip(), info.remote.port(), info.local.port()), core);
    }
    world
}

#[test]
fn every_byte_arrives_whichever_queue_it_comes_by() {
    for (cores, seed) in [(2, 1), (3, 2), (2, 3)] {
        let world = connections(cores, WireConfig { delay_ns: MS, ..WireConfig::default() }, seed);
        let sum = world.exchanged();
        assert!(sum.handed_over > 200 && sum.dropped == 0, "{sum:?}");
        assert_eq!(sum.taken_over, sum.handed_over);
        let shown: u64 = world.cores.iter().map(|core| core.layers().1.rx_frames).sum();
        let came: u64 = world.cores.iter().map(|core| core.layers().0.rx_frames).sum();
        // What is for every core is shown once by each; everything else is shown once.
        let everybodys: u64 = world.cores.iter().map(|core| core.layers().1.rx_arp + core.layers().1.rx_ndp).sum();
        assert!(shown >= came && shown <= came + everybodys, "{came} came, {shown} were shown, {everybodys} about neighbours");
        let broken = |core: &Core| core.layers().1.dropped_malformed + core.layers().1.dropped_checksum + core.layers().1.dropped_martian;
        assert_eq!(world.cores.iter().map(broken).sum::<u64>(), 0);
    }
}

#[test]
fn every_byte_arrives_over_a_bad_wire() {
    let some = Probability::new(0.02);
    let bad = WireConfig { delay_ns: 2 * MS, loss: some, reordering: some, duplication: some, ..WireConfig::default() };
    connections(3, bad, 4);
}

#[test]
fn datagrams_reach_the_core_of_their_port_and_answers_the_core_that_asked() {
    let mut world = World::new(3, WireConfig { delay_ns: MS, ..WireConfig::default() }, 128, 5);
    let open = |host: &mut dyn FnMut(FlowSpec) -> FlowId, local_port, remote| host(FlowSpec { local_port, local_addr: None, remote });
    let mut flows = Vec::new();
    for core in 0..3_u16 {
        for half in 0..2 {
            let to = address(1, RTP + 2 * core + u16::from(half), core == 1);
            let out = open(&mut |spec| world.peer.open_flow(spec).unwrap(), half, to);
            let to = address(2, PEER_PORT + u16::from(half), core == 1);
            let back = open(&mut |spec| world.cores[usize::from(core)].open_flow(spec).unwrap(), half, to);
            flows.push((usize::from(core), out, back));
        }
    }
    // Every core asks for its neighbour, and hears the answer whichever queue it comes by.
    for _ in 0..10 {
        world.turn(MS);
    }
    for nth in 0..100 {
        for &(core, out, back) in &flows {
            world.peer.datagram(out).unwrap()[0] = nth;
            world.peer.commit(100);
            world.cores[core].datagram(back).unwrap()[0] = nth;
            world.cores[core].commit(100);
        }
        world.turn(MS);
    }
    for _ in 0..10 {
        world.turn(MS);
    }
    for (core, heard) in world.heard.iter().enumerate() {
        for half in 0..2 {
            let of_port: Vec<u8> = heard.iter().filter(|(port, _)| *port == PEER_PORT + half).map(|(_, nth)| *nth).collect();
            let mut sorted = of_port.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, (0..100).collect::<Vec<u8>>(), "core {core}");
        }
        let parked = world.cores[core].counters().tx_failed;
        assert_eq!(parked, 0, "core {core} knows its neighbour");
        assert_eq!(world.heard_by_peer.iter().filter(|(port, _)| (port - RTP) / 2 == core as u16).count(), 200);
    }
    assert!(world.cores.iter().all(|core| core.path_errors() == 0 && core.layers().1.conflicts == 0));
    let sum = world.exchanged();
    assert_eq!((sum.dropped, sum.taken_over), (0, sum.handed_over));
}

/// A frame of a datagram from the peer to a port of ours.
fn datagram(port: u16) -> Vec<u8> {
    let mut header = [0x45, 0, 0, 29, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 2, 10, 0, 0, 1];
    let mut sum: u32 = header.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    sum = (sum & 0xffff) + (sum >> 16);
    header[10..12].copy_from_slice(&(!(sum as u16)).to_be_bytes());
    let [high, low] = port.to_be_bytes();
    [&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0][..], &header, &[0x1b, 0x58, high, low, 0, 9, 0, 0, 1]].concat()
}

/// Ports without a wire: what is given to them is what came.
#[derive(Default)]
struct Fed {
    frames: std::collections::VecDeque<Vec<u8>>,
    waits: u32,
}

impl Port for Fed {
    fn mac(&self) -> [u8; 6] {
        [2, 0, 0, 0, 0, 1]
    }

    fn mtu_bytes(&self) -> usize {
        1500
    }

    fn frame_bytes(&self) -> usize {
        1518
    }

    fn receive(&mut self, _now_ns: u64, limit: usize, sink: &mut dyn FnMut(&[u8])) -> usize {
        let count = limit.min(self.frames.len());
        self.frames.drain(..count).for_each(|frame| sink(&frame));
        count
    }

    fn frame(&mut self) -> Option<&mut [u8]> {
        None
    }

    fn commit(&mut self, _len: usize) {}

    fn flush(&mut self, _now_ns: u64) -> usize {
        0
    }

    fn queued(&self) -> usize {
        0
    }

    fn capacity(&self) -> usize {
        1
    }

    fn wait(&mut self, _timeout_ns: u64, _wake: RawFd) {
        self.waits += 1;
    }

    fn counters(&self) -> PortCounters {
        PortCounters::default()
    }
}

fn fed(cores: usize, ring_frames: usize) -> (Vec<ExchangePort<Fed>>, Arc<AtomicU32>) {
    let owners = Owners::new(cores, vec![PortBlock { first: RTP, per_core: 2 }], 1);
    let woken = Arc::new(AtomicU32::new(0));
    let ports = (0..cores).map(|_| {
        let count = Arc::clone(&woken);
        let wake: Wake = Box::new(move || {
            count.fetch_add(1, Ordering::Relaxed);
        });
        (Fed::default(), wake)
    });
    (exchange(ports.collect(), &owners, ring_frames), woken)
}

fn shown(port: &mut ExchangePort<Fed>, limit: usize) -> (usize, Vec<Vec<u8>>) {
    let mut frames = Vec::new();
    let count = port.receive(0, limit, &mut |frame| frames.push(frame.to_vec()));
    (count, frames)
}

/// The queue of core 0 is flooded with what is for core 1: core 1 has half of each burst for its own queue, and core 0 goes on with its own.
#[test]
fn a_flood_at_one_core_takes_no_more_than_its_share_of_the_other() {
    let (mut cores, _) = fed(2, 64);
    let (own, foreign) = (datagram(RTP + 2), datagram(RTP + 3));
    let [first, second] = &mut cores[..] else { unreachable!() };
    let (mut of_own, mut of_ring) = (0, 0);
    for _ in 0..100 {
        first.port_mut().frames.extend(vec![foreign.clone(); 500]);
        while !first.port().frames.is_empty() {
            let (count, frames) = shown(first, 32);
            assert!(count <= 32 && frames.is_empty(), "work is bounded although nothing is shown");
        }
        second.port_mut().frames.extend(vec![own.clone(); 100]);
        let (count, frames) = shown(second, 32);
        assert_eq!((count, frames.len()), (32, 32));
        of_own += frames.iter().filter(|frame| **frame == own).count();
        of_ring += frames.iter().filter(|frame| **frame == foreign).count();
    }
    assert_eq!((of_own, of_ring), (1600, 1600));
    let counters = first.exchanged();
    assert_eq!(counters.handed_over + counters.dropped, 50_000);
    assert_eq!(counters.handed_over, second.exchanged().taken_over + 64 - 16, "the rest is in the ring, or was dropped");
    // One frame at a time, they take turns.
    let turns: Vec<bool> = (0..10).map(|_| shown(second, 1).1[0] == own).collect();
    assert_eq!(turns.iter().filter(|own| **own).count(), 5);
}

#[test]
fn what_is_for_everybody_fills_half_of_a_ring() {
    let (mut cores, _) = fed(3, 8);
    let reply = [&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 6, 0, 1, 8, 0, 6, 4, 0, 2][..], &[9; 20]].concat();
    let frames = &mut cores[0].port_mut().frames;
    frames.extend(vec![reply.clone(); 100]);
    frames.extend(vec![datagram(RTP + 2); 100]);
    assert_eq!(shown(&mut cores[0], 1000), (200, vec![reply.clone(); 100]), "and here it is shown");
    let seen = shown(&mut cores[1], 1000).1;
    assert_eq!(seen, [vec![reply.clone(); 4], vec![datagram(RTP + 2); 4]].concat());
    assert_eq!(shown(&mut cores[2], 1000).1, vec![reply; 4]);
    assert_eq!(cores[0].exchanged(), ExchangeCounters { handed_over: 12, dropped: 96 * 2 + 96, taken_over: 0 });
}

#[test]
fn a_core_that_sleeps_is_woken_once_and_none_sleeps_before_a_full_ring() {
    let (mut cores, woken) = fed(2, 8);
    cores[1].bell.lie_down();
    cores[0].port_mut().frames.extend(vec![datagram(RTP + 2); 5]);
    shown(&mut cores[0], 32);
    cores[0].port_mut().frames.extend(vec![datagram(RTP + 2); 2]);
    shown(&mut cores[0], 32);
    assert_eq!(woken.load(Ordering::Relaxed), 1);
    cores[1].wait(1, -1);
    assert_eq!(cores[1].port().waits, 0, "there is something to read");
    assert_eq!(shown(&mut cores[1], 32).0, 7);
    cores[1].wait(1, -1);
    assert_eq!(cores[1].port().waits, 1);
    cores[0].port_mut().frames.push_back(datagram(RTP + 2));
    shown(&mut cores[0], 32);
    assert_eq!(woken.load(Ordering::Relaxed), 1, "it is up");
}
