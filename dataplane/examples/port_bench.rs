//! Packets per second that one core sends over a veth pair: AF_XDP beside `sendmmsg`, in turns, in one run.
//!
//! ```text
//! cargo run --release -p dataplane --example port_bench -- [ROUNDS [PAYLOAD_BYTES]]      (root; makes two namespaces and removes them)
//! ```
//!
//! Four loops take turns. `sendmmsg` sends batches from one connected UDP socket. `AF_XDP` commits frames whose content stays as it is,
//! so it shows the port alone; `AF_XDP, payload copied` writes headers and payload into each frame, which is what a server does; `our stack
//! over AF_XDP` is the whole host of an engine core, one flow, as fast as it can. All datagrams have the same length and go to an address
//! behind the far end, which forwards nothing and drops all of them at the same place. What is counted is what the kernel has taken (`sendmmsg`) or completed (AF_XDP).
//! Read the ratios: on a shared machine the absolute figures are those of the moment, and the medians are printed with their spread.

use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use dataplane::ports::af_xdp::{Options, open};
use stack::host::{FlowSpec, Host};
use stack::host_port::{StackConfig, StackHost};
use stack::iface::{IfaceConfig, NeighbourState, Route};
use stack::port::Port;

const INSIDE: &str = "TACTUS_PORT_BENCH_INSIDE";
const ROUND: Duration = Duration::from_millis(500);
const BATCH: usize = 32;
/// Hardware address of the far end.
const FAR: [u8; 6] = [2, 0, 0, 0, 0xff, 0xfe];
const HEADERS_BYTES: usize = 14 + 20 + 8;

fn ip(arguments: &str) {
    let status = Command::new("ip").args(arguments.split_whitespace()).status().expect("iproute2 is installed");
    assert!(status.success(), "ip {arguments}");
}

/// The namespaces of a run.
struct Stage(String);

impl Stage {
    fn new() -> Self {
        let stage = Self(format!("tacbench-{}", std::process::id()));
        let near = &stage.0;
        ip(&format!("netns add {near}"));
        ip(&format!("netns add {near}f"));
        ip(&format!("-n {near} link add near type veth peer name far netns {near}f"));
        ip(&format!("-n {near} addr add 10.77.0.1/24 dev near"));
        ip(&format!("-n {near} link set near up"));
        let far = FAR.map(|byte| format!("{byte:02x}")).join(":");
        ip(&format!("-n {near}f link set far address {far} up"));
        ip(&format!("-n {near}f addr add 10.77.0.2/24 dev far"));
        ip(&format!("-n {near} neigh replace 10.77.0.2 lladdr {far} dev near nud permanent"));
        ip(&format!("-n {near} route add default via 10.77.0.2"));
        stage
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        for name in [self.0.clone(), format!("{}f", self.0)] {
            let _ = Command::new("ip").args(["netns", "del", &name]).status();
        }
    }
}

fn main() -> ExitCode {
    if std::env::var_os(INSIDE).is_some() {
        measure();
        return ExitCode::SUCCESS;
    }
    let stage = Stage::new();
    let own = std::env::current_exe().expect("a program has a path");
    let status = Command::new("ip").args(["netns", "exec", &stage.0]).arg(own).args(std::env::args_os().skip(1)).env(INSIDE, "1").status();
    if status.is_ok_and(|status| status.success()) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn measure() {
    let numbers: Vec<usize> = std::env::args().skip(1).map(|text| text.parse().expect("a number")).collect();
    let rounds = numbers.first().copied().unwrap_or(9);
    let payload_bytes = numbers.get(1).copied().unwrap_or(1400);
    if let Some(cpu) = core_affinity::get_core_ids().and_then(|cpus| cpus.last().copied()) {
        core_affinity::set_for_current(cpu);
    }
    let payload = vec![0x5a; payload_bytes];
    let loops: [(&str, Loop); 4] = [
        ("sendmmsg", with_sendmmsg),
        ("AF_XDP", |payload| with_af_xdp(payload, false)),
        ("AF_XDP, payload copied", |payload| with_af_xdp(payload, true)),
        ("our stack over AF_XDP", with_our_stack),
    ];
    let mut rates = loops.map(|_| Vec::new());
    for _ in 0..rounds {
        for ((_, run), rates) in loops.iter().zip(&mut rates) {
            rates.push(run(&payload));
        }
    }
    println!("{payload_bytes} bytes of payload, {rounds} rounds of {} ms each:", ROUND.as_millis());
    let mut base = None;
    for ((name, _), mut rates) in loops.iter().zip(rates) {
        rates.sort_by(f64::total_cmp);
        let (low, median, high) = (rates[0], rates[rates.len() / 2], rates[rates.len() - 1]);
        let base = *base.get_or_insert(median);
        println!("{name:24} {median:9.0} packets/s (from {low:.0} to {high:.0}), {:.2} times sendmmsg", median / base);
    }
}

type Loop = fn(&[u8]) -> f64;

fn with_af_xdp(payload: &[u8], copied: bool) -> f64 {
    let mut opened = open(&Options::new("near")).expect("AF_XDP on a veth");
    let port = &mut opened.ports[0];
    let len = HEADERS_BYTES + payload.len();
    let datagram = frame(port.mac(), payload);
    // Every frame of the port gets its content once.
    while let Some(frame) = port.frame() {
        frame[..len].copy_from_slice(&datagram);
        port.commit(len);
    }
    while port.queued() > 0 {
        port.flush(0);
    }
    let start = Instant::now();
    let mut completed = 0;
    while start.elapsed() < ROUND {
        for _ in 0..BATCH {
            let Some(frame) = port.frame() else { break };
            if copied {
                frame[..HEADERS_BYTES].copy_from_slice(&datagram[..HEADERS_BYTES]);
                frame[HEADERS_BYTES..len].copy_from_slice(payload);
            }
            port.commit(len);
        }
        completed += port.flush(0);
    }
    completed as f64 / start.elapsed().as_secs_f64()
}

fn with_our_stack(payload: &[u8]) -> f64 {
    let mut options = Options::new("near");
    options.addresses = vec![[10, 77, 0, 1].into()];
    let mut opened = open(&options).expect("AF_XDP on a veth");
    let port = opened.ports.pop().expect("a queue");
    let route = Route { to: "0.0.0.0/0".parse().expect("a prefix"), via: Some([10, 77, 0, 2].into()) };
    let iface = IfaceConfig { addresses: vec!["10.77.0.1/24".parse().expect("an address")], routes: vec![route], ..IfaceConfig::default() };
    let mut host = StackHost::new(StackConfig { iface, ..StackConfig::default() }, port, None, 1, 0);
    let remote = SocketAddr::from(([198, 51, 100, 3], 4001));
    let flow = host.open_flow(FlowSpec { local_port: 0, local_addr: None, remote }).expect("a flow");
    let start = Instant::now();
    let now_ns = || start.elapsed().as_nanos() as u64;
    while !matches!(host.iface().neighbour(now_ns(), [10, 77, 0, 2].into()), Some(NeighbourState::Reachable)) {
        assert!(start.elapsed() < Duration::from_secs(5), "the far end does not answer");
        host.receive(now_ns(), BATCH, &mut |_, _| {});
        host.flush_streams(now_ns());
    }
    let (begin, before) = (Instant::now(), host.port().counters().tx_completed);
    while begin.elapsed() < ROUND {
        for _ in 0..BATCH {
            let Some(space) = host.datagram(flow) else { break };
            space[..payload.len()].copy_from_slice(payload);
            host.commit(payload.len());
        }
        let now_ns = now_ns();
        host.flush(now_ns);
        host.receive(now_ns, BATCH, &mut |_, _| {});
        host.flush_streams(now_ns);
    }
    (host.port().counters().tx_completed - before) as f64 / begin.elapsed().as_secs_f64()
}

/// A UDP datagram without a checksum (RFC 768 allows it), from 10.77.0.1 to 198.51.100.3.
fn frame(source: [u8; 6], payload: &[u8]) -> Vec<u8> {
    let udp_bytes = (8 + payload.len()) as u16;
    let mut ip = vec![0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 17, 0, 0, 10, 77, 0, 1, 198, 51, 100, 3];
    ip[2..4].copy_from_slice(&(20 + udp_bytes).to_be_bytes());
    let sum: u32 = ip.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    ip[10..12].copy_from_slice(&(!((sum & 0xffff) + (sum >> 16)) as u16).to_be_bytes());
    let mut frame = [&FAR[..], &source, &[8, 0], &ip, &[0x0f, 0xa0, 0x0f, 0xa1]].concat();
    frame.extend(udp_bytes.to_be_bytes());
    frame.extend([0, 0]);
    frame.extend(payload);
    frame
}

fn with_sendmmsg(payload: &[u8]) -> f64 {
    let socket = UdpSocket::bind("10.77.0.1:4000").expect("an address of the namespace");
    socket.connect("198.51.100.3:4001").expect("a route");
    let mut part = libc::iovec { iov_base: payload.as_ptr().cast_mut().cast(), iov_len: payload.len() };
    // SAFETY: an mmsghdr is integers and pointers; all zero (null pointers, zero lengths) is a valid value.
    let mut messages: [libc::mmsghdr; BATCH] = unsafe { std::mem::zeroed() };
    for message in &mut messages {
        message.msg_hdr.msg_iov = &raw mut part;
        message.msg_hdr.msg_iovlen = 1;
    }
    let start = Instant::now();
    let mut sent = 0;
    while start.elapsed() < ROUND {
        // SAFETY: each message has one part, which points to `payload`; all live until the call returns, and the kernel only reads the parts.
        let taken = unsafe { libc::sendmmsg(socket.as_raw_fd(), messages.as_mut_ptr(), BATCH as libc::c_uint, 0) };
        sent += usize::try_from(taken).expect("a datagram that fits");
    }
    sent as f64 / start.elapsed().as_secs_f64()
}
