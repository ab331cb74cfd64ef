//! Cost of our own work per RTP packet: payload copied into a frame of the port, headers and checksums made, over a port that sends
//! nowhere.
//!
//! `cargo run --release -p stack --example udp_bench [payload bytes] [flows] [cores that share the interface]`

use std::hint::black_box;
use std::net::SocketAddr;
use std::os::fd::RawFd;
use std::time::Instant;

use stack::exchange::{ExchangePort, Wake, exchange};
use stack::host::{FlowId, FlowSpec, Host};
use stack::host_port::{StackConfig, StackHost};
use stack::iface::{IfaceConfig, Owners, PortBlock};
use stack::port::{Port, PortCounters};

/// Short rounds, so that many are not disturbed by others on the machine.
const ROUNDS: usize = 501;
const PACKETS_PER_ROUND: usize = 12_800;
const BURST: usize = 32;
const FRAMES: usize = 1024;
const FRAME_BYTES: usize = 2048;
const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const PEER: [u8; 6] = [2, 0, 0, 0, 0, 2];

/// A port whose frames go nowhere and complete with the next flush. It answers one ARP request, so that there is a neighbour.
struct NullPort {
    frames: Vec<u8>,
    next: usize,
    queued: usize,
    counters: PortCounters,
    reply: Option<Vec<u8>>,
}

impl Port for NullPort {
    fn mac(&self) -> [u8; 6] {
        MAC
    }

    fn mtu_bytes(&self) -> usize {
        1500
    }

    fn frame_bytes(&self) -> usize {
        FRAME_BYTES
    }

    fn receive(&mut self, _now_ns: u64, _limit: usize, sink: &mut dyn FnMut(&[u8])) -> usize {
        self.reply.take().map_or(0, |reply| {
            sink(&reply);
            1
        })
    }

    fn frame(&mut self) -> Option<&mut [u8]> {
        if self.queued == FRAMES {
            return None;
        }
        let at = self.next * FRAME_BYTES;
        self.frames.get_mut(at..at + FRAME_BYTES)
    }

    fn commit(&mut self, len: usize) {
        self.next = (self.next + 1) % FRAMES;
        self.queued += 1;
        self.counters.tx_frames += 1;
        self.counters.tx_bytes += len as u64;
    }

    fn flush(&mut self, _now_ns: u64) -> usize {
        std::mem::take(&mut self.queued)
    }

    fn queued(&self) -> usize {
        self.queued
    }

    fn capacity(&self) -> usize {
        FRAMES
    }

    fn wait(&mut self, _timeout_ns: u64, _wake: RawFd) {}

    fn counters(&self) -> PortCounters {
        self.counters
    }
}

/// The gateway's ARP reply.
fn arp_reply() -> Vec<u8> {
    let mut frame = [&MAC[..], &PEER, &[8, 6, 0, 1, 8, 0, 6, 4, 0, 2], &PEER, &[10, 0, 0, 254], &MAC, &[10, 0, 0, 1]].concat();
    frame.resize(60, 0);
    frame
}

fn ns_per_packet<P: Port>(host: &mut StackHost<P>, flows: &[FlowId], payload: &[u8]) -> f64 {
    let start = Instant::now();
    let mut at = 0;
    for burst in 0..PACKETS_PER_ROUND / BURST {
        for _ in 0..BURST {
            let frame = host.datagram(flows[at]).expect("a frame");
            frame[..payload.len()].copy_from_slice(black_box(payload));
            host.commit(payload.len());
            at = if at + 1 == flows.len() { 0 } else { at + 1 };
        }
        host.flush(1_000_000 + burst as u64);
    }
    start.elapsed().as_nanos() as f64 / PACKETS_PER_ROUND as f64
}

fn main() {
    let mut numbers = std::env::args().skip(1).map(|text| text.parse().expect("a number"));
    let payload_bytes: usize = numbers.next().unwrap_or(1400);
    let flow_count: usize = numbers.next().unwrap_or(1000);
    let cores: usize = numbers.next().unwrap_or(1);
    if cores == 1 {
        measure(payload_bytes, flow_count, null_port(), |port| port);
    } else {
        // The first of them; its port stands behind an exchange.
        let owners = Owners::new(cores, vec![PortBlock { first: 6970, per_core: 2 }], 1);
        let ports = (0..cores).map(|_| (null_port(), Box::new(|| ()) as Wake)).collect();
        measure(payload_bytes, flow_count, exchange(ports, &owners, 512).remove(0), ExchangePort::port_mut);
    }
}

fn null_port() -> NullPort {
    NullPort { frames: vec![0; FRAMES * FRAME_BYTES], next: 0, queued: 0, counters: PortCounters::default(), reply: None }
}

fn measure<P: Port>(payload_bytes: usize, flow_count: usize, port: P, inner: fn(&mut P) -> &mut NullPort) {
    let route = stack::iface::Route { to: "0.0.0.0/0".parse().expect("a prefix"), via: Some([10, 0, 0, 254].into()) };
    let iface = IfaceConfig { addresses: vec!["10.0.0.1/24".parse().expect("an address")], routes: vec![route], ..IfaceConfig::default() };
    let config = StackConfig { iface, flows_max: flow_count as u32, ..StackConfig::default() };
    let mut host = StackHost::new(config, port, None, 1, 0);
    let flows: Vec<FlowId> = (0..flow_count)
        .map(|nth| {
            let remote = SocketAddr::from(([198, 51, 100, 1], 10_000 + (nth % 50_000) as u16));
            host.open_flow(FlowSpec { local_port: 0, local_addr: None, remote }).expect("a flow")
        })
        .collect();
    host.flush_streams(0);
    inner(host.port_mut()).reply = Some(arp_reply());
    host.receive(1, 64, &mut |_, _| {});
    let payload: Vec<u8> = (0..payload_bytes).map(|at| at as u8).collect();
    let mut rounds: Vec<f64> = (0..ROUNDS).map(|_| ns_per_packet(&mut host, &flows, &payload)).collect();
    rounds.sort_by(f64::total_cmp);
    let sent = host.port().counters();
    assert!(sent.tx_frames >= (ROUNDS * PACKETS_PER_ROUND) as u64, "everything went through the port");
    let (least, median) = (rounds[0], rounds[ROUNDS / 2]);
    println!(
        "{payload_bytes} bytes of payload, {flow_count} flows: {least:.1} ns per packet at best, {median:.1} in the median of {ROUNDS} rounds"
    );
}
