//! The host over a simulated port; the other end of the cable is written and read by hand.

mod listen;
mod strangers;

use super::*;
use crate::iface::Route;
use crate::wire::{SimPort, SimPortConfig, Wire, WireConfig, WirePool, sim_ports};

const MS: u64 = 1_000_000;
const OURS: [u8; 6] = [2, 0, 0, 0, 0, 1];
const PEER: [u8; 6] = [2, 0, 0, 0, 0, 2];

struct Rig {
    host: StackHost<SimPort>,
    peer: SimPort,
    now_ns: u64,
}

impl Rig {
    fn new(config: StackConfig, wire: WireConfig, tx_frames: usize) -> Self {
        let make = |config, seed| Wire::new(config, WirePool::default(), seed);
        let ours = SimPortConfig { mac: OURS, tx_frames, ..SimPortConfig::default() };
        let theirs = SimPortConfig { mac: PEER, tx_frames: 1024, rx_frames: 4096, ..SimPortConfig::default() };
        let (port, peer, _) = sim_ports(ours, theirs, make(wire, 1), make(WireConfig::default(), 2));
        let iface = IfaceConfig {
            addresses: vec!["10.0.0.1/24".parse().unwrap()],
            routes: vec![Route { to: "192.0.2.0/24".parse().unwrap(), via: Some([10, 0, 0, 9].into()) }],
            ..IfaceConfig::default()
        };
        let mut rig = Self { host: StackHost::new(StackConfig { iface, ..config }, port, None, 1, 0), peer, now_ns: 0 };
        rig.pass(5_000 * MS);
        rig.seen();
        rig
    }

    fn pass(&mut self, ns: u64) {
        self.now_ns += ns;
        self.host.receive(self.now_ns, 64, &mut |_, _| {});
        self.host.flush_streams(self.now_ns);
    }

    /// Frames that arrived at the other end.
    fn seen(&mut self) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        self.peer.receive(self.now_ns, 4096, &mut |frame| frames.push(frame.to_vec()));
        frames
    }

    /// First payload bytes of the datagrams that arrived at the other end.
    fn datagrams(&mut self) -> Vec<u8> {
        self.seen().into_iter().filter(|frame| frame[12..14] == [8, 0] && frame[23] == 17).map(|frame| frame[42]).collect()
    }

    fn say(&mut self, frame: &[u8]) {
        self.peer.frame().unwrap()[..frame.len()].copy_from_slice(frame);
        self.peer.commit(frame.len());
        self.peer.flush(self.now_ns);
    }

    fn arp(&mut self, operation: u8, from: [u8; 4]) {
        let frame = [&OURS[..], &PEER, &[8, 6, 0, 1, 8, 0, 6, 4, 0, operation], &PEER, &from, &OURS, &[10, 0, 0, 1]].concat();
        self.say(&frame);
    }

    fn flow(&mut self, remote: &str) -> FlowId {
        self.host.open_flow(FlowSpec { local_port: 0, local_addr: None, remote: remote.parse().unwrap() }).unwrap()
    }

    fn put(&mut self, flow: FlowId, byte: u8) -> bool {
        let Some(frame) = self.host.datagram(flow) else { return false };
        frame[0] = byte;
        self.host.commit(100);
        true
    }

    fn flush(&mut self) -> Flushed {
        self.host.flush(self.now_ns)
    }
}

fn request_for(target: [u8; 4]) -> Vec<u8> {
    [&[0xff; 6][..], &OURS, &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1], &OURS, &[10, 0, 0, 1, 0, 0, 0, 0, 0, 0], &target].concat()
}

/// An IPv4 packet to us in a frame.
fn packet(protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut header = [0x45, 0, 0, 0, 0, 0, 0, 0, 64, protocol, 0, 0, 10, 0, 0, 2, 10, 0, 0, 1];
    header[2..4].copy_from_slice(&(20 + payload.len() as u16).to_be_bytes());
    let mut sum: u32 = header.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    sum = (sum & 0xffff) + (sum >> 16);
    header[10..12].copy_from_slice(&(!(sum as u16)).to_be_bytes());
    [&OURS[..], &PEER, &[8, 0], &header, payload].concat()
}

#[test]
fn datagrams_wait_for_their_neighbour_in_order() {
    let mut rig = Rig::new(StackConfig::default(), WireConfig::default(), 256);
    let flow = rig.flow("10.0.0.2:5004");
    rig.pass(0);
    assert_eq!(rig.seen(), [request_for([10, 0, 0, 2])], "asked for as soon as the flow is open");
    for byte in 0..20 {
        assert!(rig.put(flow, byte));
    }
    assert_eq!(rig.flush(), Flushed { done: 20, failed: 0 });
    rig.pass(MS);
    assert!(rig.seen().is_empty());
    assert_eq!(rig.host.counters().tx_failed, 4, "no more than 16 wait for one");
    rig.arp(2, [10, 0, 0, 2]);
    rig.host.receive(rig.now_ns, 64, &mut |_, _| {});
    assert!(rig.put(flow, 20));
    rig.flush();
    assert_eq!(rig.datagrams(), (4..=20).collect::<Vec<u8>>(), "the oldest made way");
    let counters = rig.host.counters();
    assert_eq!((counters.tx_datagrams, counters.tx_failed), (17, 4));
}

#[test]
fn a_dead_neighbour_costs_only_its_own_datagrams() {
    let mut rig = Rig::new(StackConfig::default(), WireConfig::default(), 256);
    rig.arp(1, [10, 0, 0, 2]);
    rig.pass(0);
    let (alive, dead) = (rig.flow("10.0.0.2:5004"), rig.flow("10.0.0.3:5004"));
    rig.pass(0);
    rig.seen();
    let mut sent = Vec::new();
    for nth in 0..100 {
        assert!(rig.put(dead, 200) && rig.put(alive, nth));
        assert_eq!(rig.flush(), Flushed { done: 2, failed: 0 });
        sent.extend(rig.datagrams());
        rig.pass(50 * MS);
    }
    assert_eq!(sent, (0..100).collect::<Vec<u8>>());
    rig.host.close_flow(dead);
    rig.pass(5_000 * MS);
    rig.pass(0);
    assert_eq!(rig.host.counters().tx_failed, 100);
}

#[test]
fn without_a_route_datagrams_fail_at_once() {
    let mut rig = Rig::new(StackConfig::default(), WireConfig::default(), 256);
    let flow = rig.flow("8.8.8.8:5004");
    assert!(rig.put(flow, 1) && rig.put(flow, 2));
    assert_eq!(rig.flush(), Flushed { done: 2, failed: 2 });
    assert_eq!(rig.host.counters().tx_failed, 2);
    assert!(rig.seen().is_empty());
}

#[test]
fn beyond_the_link_the_gateway_is_the_neighbour() {
    let mut rig = Rig::new(StackConfig::default(), WireConfig::default(), 256);
    let flow = rig.flow("192.0.2.7:5004");
    rig.pass(0);
    assert_eq!(rig.seen(), [request_for([10, 0, 0, 9])]);
    rig.arp(2, [10, 0, 0, 9]);
    rig.pass(0);
    rig.put(flow, 7);
    rig.flush();
    let frame = rig.seen().remove(0);
    assert_eq!((&frame[..6], &frame[30..34]), (&PEER[..], &[192, 0, 2, 7][..]));
}

#[test]
fn datagrams_to_other_ports_are_refused() {
    let mut rig = Rig::new(StackConfig::default(), WireConfig::default(), 256);
    rig.arp(1, [10, 0, 0, 2]);
    rig.pass(0);
    rig.seen();
    for (port, refused) in [(6970_u16, 0), (6972, 1), (6971, 0), (1, 1)] {
        let [high, low] = port.to_be_bytes();
        rig.say(&packet(17, &[0x13, 0x8c, high, low, 0, 9, 0, 0, 5]));
        rig.pass(MS);
        let errors = rig.seen();
        assert_eq!(errors.len(), refused, "{port}");
        assert!(errors.iter().all(|frame| frame[34..36] == [3, 3]));
    }
    assert_eq!(rig.host.counters().rx_datagrams, 2);
}

/// RFC 1191: the kernel-socket host does the same, and for the same reason.
#[test]
fn on_a_narrow_path_datagrams_may_be_cut() {
    let mut rig = Rig::new(StackConfig::default(), WireConfig::default(), 256);
    rig.arp(1, [10, 0, 0, 2]);
    rig.pass(0);
    let (narrow, wide) = (rig.flow("10.0.0.2:5004"), rig.flow("10.0.0.2:5005"));
    rig.seen();
    let headers = |rig: &mut Rig| {
        for flow in [narrow, wide, narrow] {
            rig.put(flow, 1);
        }
        rig.flush();
        let frames: Vec<Vec<u8>> = rig.seen();
        let right = |header: &[u8]| {
            let sum: u32 = header.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
            (sum & 0xffff) + (sum >> 16) == 0xffff
        };
        assert!(frames.iter().all(|frame| right(&frame[14..34])));
        frames.iter().map(|frame| [frame[18], frame[19], frame[20]]).collect::<Vec<_>>()
    };
    assert_eq!(headers(&mut rig), [[0, 0, 0x40]; 3], "no identification, not to be cut");
    let mut error = vec![3, 4, 0, 0, 0, 0, 5, 0, 0x45, 0, 0, 128, 0, 0, 0x40, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
    error.extend([0x1b, 0x3a, 0x13, 0x8c, 0, 108, 0, 0]);
    let mut sum: u32 = error.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    sum = (sum & 0xffff) + (sum >> 16);
    error[2..4].copy_from_slice(&(!(sum as u16)).to_be_bytes());
    rig.say(&packet(1, &error));
    rig.pass(MS);
    assert_eq!(rig.host.path_errors(), 1);
    assert_eq!(headers(&mut rig), [[0, 1, 0], [0, 0, 0x40], [0, 2, 0]]);
}

/// The line takes a frame per millisecond; others would fill the queue if they could.
#[test]
fn what_is_not_rtp_leaves_a_reserve_of_frames() {
    let slow = WireConfig { rate_bps: 12_000_000, ..WireConfig::default() };
    let mut rig = Rig::new(StackConfig { reserved_frames: 8, ..StackConfig::default() }, slow, 16);
    rig.arp(1, [10, 0, 0, 2]);
    rig.pass(MS);
    let flow = rig.flow("10.0.0.2:5004");
    let mut echo = vec![8, 0, 0, 0, 0, 0, 0, 0];
    echo.resize(1400, 0);
    echo[2..4].copy_from_slice(&(!0x0800_u16).to_be_bytes());
    for _ in 0..200 {
        for _ in 0..32 {
            rig.say(&packet(1, &echo));
        }
        rig.pass(MS / 10);
        assert!(rig.host.port().queued() <= 8);
    }
    assert_eq!(rig.host.port().queued(), 8, "they would take more");
    for byte in 0..8 {
        assert!(rig.put(flow, byte), "RTP has frames all the same");
    }
    assert_eq!(rig.flush().done, 8);
    assert!(!rig.put(flow, 9), "backpressure, not loss");
    assert_eq!(rig.host.queued(), 0);
    rig.pass(40 * MS);
    assert_eq!(rig.datagrams(), (0..8).collect::<Vec<u8>>());
}

#[test]
fn a_flood_of_garbage_delays_nobody() {
    let mut rig = Rig::new(StackConfig::default(), WireConfig::default(), 256);
    rig.arp(1, [10, 0, 0, 2]);
    rig.pass(0);
    let flow = rig.flow("10.0.0.2:5004");
    rig.seen();
    let mut random = 7_u64;
    for turn in 0..300_u64 {
        for _ in 0..200 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let [a, b, c, ..] = random.to_be_bytes();
            // Requests from made-up neighbours, fragments, protocols that nobody speaks.
            let frame = match a % 3 {
                0 => [
                    &[0xff; 6][..],
                    &[2, 1, a, b, c, 1, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1, 2, 1, a, b, c, 1, 10, 0, 0, b, 0, 0, 0, 0, 0, 0, 10, 0, 0, 1],
                ]
                .concat(),
                1 => packet(b, &[c; 60]),
                _ => [&OURS[..], &PEER, &[0x86, 0xdd], &[a; 80]].concat(),
            };
            rig.say(&frame);
        }
        rig.pass(MS);
        assert!(rig.put(flow, turn as u8));
        assert_eq!(rig.flush(), Flushed { done: 1, failed: 0 });
        assert_eq!(rig.datagrams(), [turn as u8], "sent in the turn that it was due in");
    }
    let (_, iface, _) = rig.host.layers();
    assert!(iface.rx_frames >= 60_000 && iface.neighbours <= 256, "{iface:?}");
    assert!(iface.tx_frames < 60_000 / 3, "answers are bounded: {iface:?}");
}
