//! Our TCP against the Linux kernel's, over AF_XDP through a wire with loss and delay: every byte arrives, in both directions.
//!
//! ```text
//! server: kernel's TCP, or ours on the same interface ══ wire (rate, delay, loss) ══ client: kernel's TCP
//! ```
//!
//! How fast it was is printed beside what the kernel does against itself on the same wire in the same run, medians of both. It decides nothing:
//! a machine with other work is slower, and where frames are lost by chance, some runs lose more. The kernel's TCP works in the time of whoever
//! runs; ours runs in a thread that waits for its turn, so that is measured too. What our TCP makes of the path without a machine is in the
//! table of `stack/tests/tcp/gigabit.rs`.

mod support;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use dataplane::ports::af_xdp::{self, AfXdpPort};
use stack::host::Host as _;
use stack::host_port::{StackConfig, StackHost};
use stack::iface::IfaceConfig;
use stack::tcp::{Algorithm, ConnId, ListenerId, TcpConfig};
use testbed::net::{Net, Topology, is_root};

const PATIENCE: Duration = Duration::from_secs(60);
/// The server's kernel.
const KERNEL: Ipv4Addr = Ipv4Addr::new(10, 77, 9, 1);
/// Our stack, on the server's interface.
const OURS: Ipv4Addr = Ipv4Addr::new(10, 77, 9, 3);
/// What a thread had of the processors.
#[derive(Clone, Copy, Debug, Default)]
struct Turns {
    ran: Duration,
    waited: Duration,
}

impl Turns {
    /// Of this thread, since it began (`schedstat` of proc_pid(5): run, waited, in ns).
    fn now() -> Self {
        let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
        let mut numbers = text.split_whitespace().map(|number| Duration::from_nanos(number.parse().unwrap_or(0)));
        Self { ran: numbers.next().unwrap_or_default(), waited: numbers.next().unwrap_or_default() }
    }

    fn since(self, before: Self) -> Self {
        Self { ran: self.ran - before.ran, waited: self.waited - before.waited }
    }
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

/// Of a full frame of 1538 bytes on the line, payload with timestamps.
const PAYLOAD_SHARE: f64 = 1448.0 / 1538.0;

/// From the server to the client, or back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Down,
    Up,
}

impl Way {
    const BOTH: [Self; 2] = [Self::Down, Self::Up];

    fn port(self) -> u16 {
        if self == Self::Down { 5001 } else { 5002 }
    }
}

/// A stream of bytes that has no period in common with segments: what is next, written or checked.
struct Pattern {
    at: usize,
    end: usize,
    bytes: Vec<u8>,
}

impl Pattern {
    fn new(len: usize) -> Self {
        Self { at: 0, end: len, bytes: (0..251 * 600).map(|at| (at % 251) as u8).collect() }
    }

    /// What follows, 64 KiB at most; nothing at the end.
    fn next(&self) -> &[u8] {
        let start = self.at % 251;
        &self.bytes[start..start + (self.end - self.at).min(65_536)]
    }

    fn check(&mut self, got: &[u8]) {
        for part in got.chunks(65_536) {
            assert!(self.next().starts_with(part), "not what was sent, from byte {} on, or too much", self.at);
            self.at += part.len();
        }
    }

    fn check_end(&self) {
        assert_eq!(self.at, self.end, "the stream ends where it should");
    }
}

fn send_all(mut stream: &TcpStream, len: usize) {
    let mut pattern = Pattern::new(len);
    while pattern.at < len {
        pattern.at += stream.write(pattern.next()).unwrap();
    }
    stream.shutdown(Shutdown::Write).unwrap();
}

fn receive_all(mut stream: &TcpStream, len: usize) {
    let (mut pattern, mut buffer) = (Pattern::new(len), vec![0; 65_536]);
    loop {
        match stream.read(&mut buffer).unwrap() {
            0 => break pattern.check_end(),
            count => pattern.check(&buffer[..count]),
        }
    }
}

fn with_patience(stream: &TcpStream) {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
}

/// One transfer as the client sees it: until the server's end of the stream, which comes when it has everything.
fn client(server: Ipv4Addr, way: Way, len: usize) -> Duration {
    let began = Instant::now();
    let stream = TcpStream::connect_timeout(&SocketAddr::from((server, way.port())), PATIENCE).unwrap();
    with_patience(&stream);
    match way {
        Way::Down => receive_all(&stream, len),
        Way::Up => {
            send_all(&stream, len);
            receive_all(&stream, 0);
        }
    }
    began.elapsed()
}

/// The kernel at both ends.
fn kernel_to_kernel(net: &Net, way: Way, len: usize) -> Duration {
    let listener = net.in_namespace("server", || TcpListener::bind((KERNEL, way.port()))).unwrap().unwrap();
    let server = std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        with_patience(&stream);
        match way {
            Way::Down => send_all(&stream, len),
            Way::Up => receive_all(&stream, len),
        }
    });
    let took = net.in_namespace("client", || client(KERNEL, way, len)).unwrap();
    server.join().unwrap();
    took
}

/// Our end: sends to who comes to one port, and takes what comes to the other.
struct Server {
    host: StackHost<AfXdpPort>,
    listeners: [(Way, ListenerId); 2],
    conns: Vec<(Way, ConnId, Pattern)>,
    len: usize,
    start: Instant,
    turns: Turns,
}

impl Server {
    fn new(port: AfXdpPort, congestion: Algorithm, len: usize) -> Self {
        let tcp = TcpConfig { connections_max: 64, pool_bytes: 16 << 20, congestion, ..TcpConfig::default() };
        let addresses = vec![format!("{OURS}/24").parse().unwrap()];
        let iface = IfaceConfig { addresses, detect_duplicates: false, ..IfaceConfig::default() };
        let mut host = StackHost::new(StackConfig { iface, tcp, ..StackConfig::default() }, port, None, 1, 0);
        let listeners = Way::BOTH.map(|way| (way, host.tcp_mut().listen((OURS, way.port()).into(), 16).unwrap()));
        Self { host, listeners, conns: Vec::new(), len, start: Instant::now(), turns: Turns::default() }
    }

    fn turn(&mut self) {
        let now_ns = self.start.elapsed().as_nanos() as u64;
        self.host.receive(now_ns, 64, &mut |_, _| {});
        self.host.flush(now_ns);
        let tcp = self.host.tcp_mut();
        for (way, listener) in self.listeners {
            while let Some(id) = tcp.accept(listener) {
                self.conns.push((way, id, Pattern::new(self.len)));
            }
        }
        let mut buffer = [0; 16_384];
        self.conns.retain_mut(|(way, id, pattern)| {
            let done = match way {
                Way::Down => {
                    pattern.at += tcp.send(*id, &[pattern.next()]).unwrap();
                    pattern.at == pattern.end
                }
                Way::Up => loop {
                    match tcp.recv(*id, &mut buffer).unwrap() {
                        Some(0) => break true,
                        Some(count) => pattern.check(&buffer[..count]),
                        None => break false,
                    }
                },
            };
            if done {
                pattern.check_end();
                tcp.close(*id);
            }
            !done
        });
        while tcp.next_event().is_some() {}
        self.host.flush_streams(now_ns);
    }

    /// The transfer of a client, with ours as the server.
    fn serve(&mut self, net: &Net, way: Way, len: usize) -> Duration {
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let worker = scope.spawn(|| {
                let work = std::panic::AssertUnwindSafe(|| net.in_namespace("client", || client(OURS, way, len)).unwrap());
                let result = std::panic::catch_unwind(work);
                done.store(true, Ordering::Release);
                result
            });
            let (began, before) = (Instant::now(), Turns::now());
            while !done.load(Ordering::Acquire) {
                self.turn();
                assert!(began.elapsed() < 2 * PATIENCE, "{:?}", self.host.layers());
                self.host.wait(200_000, -1);
            }
            let turns = Turns::now().since(before);
            self.turns = Turns { ran: self.turns.ran + turns.ran, waited: self.turns.waited + turns.waited };
            worker.join().unwrap().unwrap_or_else(|panic| {
                println!("{:?}", self.host.layers());
                std::panic::resume_unwind(panic)
            })
        })
    }
}

/// Has the kernels use what ours does, since another algorithm takes losses otherwise: CUBIC, or Reno where the kernel has no CUBIC.
fn like_ours(net: &Net) -> (&'static str, Algorithm) {
    let set = |host, name| net.in_namespace(host, || std::fs::write("/proc/sys/net/ipv4/tcp_congestion_control", name)).unwrap();
    let (name, algorithm) = if set("server", "cubic").is_ok() { ("cubic", Algorithm::Cubic) } else { ("reno", Algorithm::NewReno) };
    for host in ["server", "client"] {
        set(host, name).unwrap();
    }
    (name, algorithm)
}

/// Transfers in both directions over a wire, ours and the kernel's by turns.
fn compare(name: &str, wire: &str, rate_mbps: f64, len: usize, rounds: usize) {
    let test = format!("our TCP against the kernel's, {name}");
    if !is_root() {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "{test} needs root and must not be skipped here");
        println!("SKIPPED (needs root): {test}");
        return;
    }
    if !support::have(&["ip", "ethtool"]) {
        return;
    }
    let ends = format!(
        "[{{ host = \"server\", addresses = [\"{KERNEL}/24\"], interface = \"eth0\" }}, {{ host = \"client\", addresses = [\"10.77.9.2/24\"] }}]"
    );
    let text = format!("[hosts.server]\n[hosts.client]\n[[links]]\nname = \"path\"\nends = {ends}\nwire = {{ {wire} }}\n");
    let net = Topology::parse(&text, Path::new(&format!("{name}.toml"))).unwrap().up().unwrap();
    let options = af_xdp::Options { addresses: vec![OURS.into()], ..af_xdp::Options::new("eth0") };
    let mut opened = net.in_namespace("server", || af_xdp::open(&options)).unwrap().unwrap();
    let (algorithm, congestion) = like_ours(&net);
    let mut server = Server::new(opened.ports.remove(0), congestion, len);
    let mbps = |took: Duration| len as f64 * 8.0 / took.as_secs_f64() / 1e6;
    for way in Way::BOTH {
        let (mut ours, mut kernels) = (Vec::new(), Vec::new());
        server.turns = Turns::default();
        for _ in 0..rounds {
            kernels.push(kernel_to_kernel(&net, way, len));
            ours.push(server.serve(&net, way, len));
        }
        let in_all: Duration = ours.iter().sum();
        let (ours, kernels) = (mbps(median(ours)), mbps(median(kernels)));
        let pair = if way == Way::Down { "ours to kernel" } else { "kernel to ours" };
        println!(
            "{name}, {wire}: {pair} {ours:.1} Mbps, kernel to kernel {kernels:.1} Mbps ({algorithm}), ratio {:.2}; the wire carries {:.0} Mbps",
            ours / kernels,
            rate_mbps * PAYLOAD_SHARE
        );
        println!("    of {in_all:.1?} our thread ran {:.1?} and waited {:.1?} for a processor", server.turns.ran, server.turns.waited);
        assert!(ours <= rate_mbps * PAYLOAD_SHARE * 1.02, "faster than the wire: {ours}");
    }
    let (port, iface, tcp) = server.host.layers();
    println!("{tcp:?}\n{port:?}");
    assert_eq!((iface.dropped_checksum, iface.dropped_malformed, tcp.rx_malformed), (0, 0, 0));
    assert_eq!((tcp.rx_bytes, tcp.tx_bytes), ((rounds * len) as u64, (rounds * len) as u64), "each byte counted once");
    let stats = net.stats().unwrap();
    let lost = [&stats.links[0].forward, &stats.links[0].backward].map(|direction| direction.wire.lost);
    println!("lost by the wire: {lost:?}");
    assert_eq!(lost.iter().all(|lost| *lost > 0), wire.contains("loss"), "{lost:?}");
}

#[test]
fn through_a_wire_that_loses_one_in_a_hundred() {
    compare("lossy", "rate = \"50 Mbps\", delay = \"10 ms\", queue = \"256 KiB\", loss = \"1%\"", 50.0, 1 << 20, 3);
}

#[test]
fn through_a_clean_wire_of_a_gigabit() {
    compare("clean", "rate = \"1 Gbps\", delay = \"1 ms\", queue_frames = 1000", 1000.0, 32 << 20, 3);
}
