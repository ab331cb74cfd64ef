//! Our own stack over real interfaces, with the kernel's at the other end: neighbours, echo, datagrams, connections.

use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use dataplane::ports::af_xdp;
use dataplane::ports::tap::{self, TapPort};
use stack::host::{FlowId, FlowSpec, Host};
use stack::host_port::{StackConfig, StackHost};
use stack::iface::IfaceConfig;
use stack::port::Port;
use stack::sockets::{Listener, SocketConfig, SocketControl, Stream, socket_pair};
use stack::tcp::TcpConfig;

use super::af_xdp::open_near;
use super::namespaces::{FAR, NEAR, Namespace, OUR_IP, Pair, root_or_skip, run};

pub const PATIENCE: Duration = Duration::from_secs(20);
const OUR_IP6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x77, 0, 0, 0, 0, 2);
const ECHO_PORT: u16 = 6970;
pub const TCP_PORT: u16 = 5540;
/// What an IPv6 packet has room for; a host with both kinds of addresses takes no more.
const DATAGRAM_BYTES_MAX: usize = 1452;
const TRANSFER_BYTES: usize = 3 << 20;

/// A host that sends back whatever comes, by UDP and by TCP.
pub struct Echo<P: Port> {
    pub host: StackHost<P>,
    control: SocketControl,
    listeners: [Listener; 2],
    flows: HashMap<SocketAddr, FlowId>,
    streams: Vec<(Stream, Vec<u8>, bool)>,
    start: Instant,
}

impl<P: Port> Echo<P> {
    fn new(port: P) -> Self {
        Self::with_ports(port, StackConfig::default().ports)
    }

    pub fn with_ports(port: P, ports: [u16; 2]) -> Self {
        let tcp = TcpConfig { connections_max: 64, pool_bytes: 16 << 20, ..TcpConfig::default() };
        let (engine, control) = socket_pair(SocketConfig::default(), tcp.connections_max, Box::new(|| ()), Box::new(|| ()));
        let addresses = vec!["10.77.0.2/24".parse().unwrap(), "2001:db8:77::2/64".parse().unwrap()];
        let iface = IfaceConfig { addresses, detect_duplicates: false, ..IfaceConfig::default() };
        let host = StackHost::new(StackConfig { iface, tcp, ports, ..StackConfig::default() }, port, Some(engine), 1, 0);
        let listeners = [Ipv4Addr::UNSPECIFIED.into(), IpAddr::from(Ipv6Addr::UNSPECIFIED)]
            .map(|any: IpAddr| control.listen((any, TCP_PORT).into(), 16).unwrap());
        Self { host, control, listeners, flows: HashMap::new(), streams: Vec::new(), start: Instant::now() }
    }

    pub fn turn(&mut self) {
        let now_ns = self.start.elapsed().as_nanos() as u64;
        let mut came = Vec::new();
        self.host.receive(now_ns, 64, &mut |received, bytes| came.push((received, bytes.to_vec())));
        for (received, bytes) in came {
            let spec = FlowSpec { local_port: received.local_port, local_addr: None, remote: received.remote };
            let flow = *self.flows.entry(received.remote).or_insert_with(|| self.host.open_flow(spec).unwrap());
            let frame = self.host.datagram(flow).expect("a frame");
            let len = bytes.len().min(frame.len());
            frame[..len].copy_from_slice(&bytes[..len]);
            self.host.commit(len);
        }
        self.host.flush(now_ns);
        self.host.flush_streams(now_ns);
        self.control.pump();
        self.connections();
    }

    fn connections(&mut self) {
        let context = &mut Context::from_waker(Waker::noop());
        for listener in &self.listeners {
            if let Poll::Ready(stream) = listener.poll_accept(context) {
                self.streams.push((stream.unwrap(), Vec::new(), false));
            }
        }
        let mut buffer = [0; 4096];
        for (stream, bytes, ended) in &mut self.streams {
            if !*ended
                && bytes.len() < 65_536
                && let Poll::Ready(count) = stream.poll_read(context, &mut buffer)
            {
                let count = count.unwrap_or(0);
                bytes.extend(&buffer[..count]);
                *ended = count == 0;
            }
            if let Poll::Ready(Ok(count)) = stream.poll_write(context, bytes) {
                bytes.drain(..count);
            }
        }
        self.streams.retain(|(_, bytes, ended)| !*ended || !bytes.is_empty());
    }

    /// Turns while `work` goes on in the namespace.
    fn serve(&mut self, namespace: &Namespace, work: impl FnOnce() + Send) {
        Self::serve_all(std::slice::from_mut(self), namespace, work);
    }

    /// The same with several, in turn.
    pub fn serve_all(all: &mut [Self], namespace: &Namespace, work: impl FnOnce() + Send) {
        let layers = |all: &[Self]| all.iter().map(|echo| format!("{:?}", echo.host.layers())).collect::<Vec<_>>();
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let worker = scope.spawn(|| {
                let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| namespace.enter(work)));
                done.store(true, Ordering::Release);
                result
            });
            let start = Instant::now();
            while !done.load(Ordering::Acquire) {
                assert!(start.elapsed() < 3 * PATIENCE, "{:?}", layers(all));
                for echo in all.iter_mut() {
                    echo.turn();
                    echo.host.wait(1_000_000, -1);
                }
            }
            if let Err(panic) = worker.join().unwrap() {
                println!("{:?}", layers(all));
                std::panic::resume_unwind(panic);
            }
        });
    }
}

fn datagrams(to: IpAddr) {
    let socket = UdpSocket::bind(if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.connect((to, ECHO_PORT)).unwrap();
    let mut buffer = [0; 2048];
    for len in [0, 1, 1000, DATAGRAM_BYTES_MAX] {
        let payload: Vec<u8> = (0..len).map(|at| at as u8).collect();
        socket.send(&payload).unwrap();
        let count = socket.recv(&mut buffer).unwrap();
        assert!(buffer[..count] == payload, "{to}: {count} of {len} bytes came back");
    }
    // Nobody listens there, and is told so by ICMP.
    socket.connect((to, 9)).unwrap();
    socket.send(b"x").unwrap();
    assert_eq!(socket.recv(&mut buffer).unwrap_err().kind(), ErrorKind::ConnectionRefused, "{to}");
}

fn connections(to: IpAddr) {
    let refused = TcpStream::connect_timeout(&(to, 9).into(), PATIENCE).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused, "{to}");
    let bytes: Vec<u8> = (0..TRANSFER_BYTES).map(|at| (at % 251) as u8).collect();
    let mut stream = TcpStream::connect_timeout(&(to, TCP_PORT).into(), PATIENCE).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    let mut writer = stream.try_clone().unwrap();
    let mut back = Vec::new();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            writer.write_all(&bytes).unwrap();
            writer.shutdown(Shutdown::Write).unwrap();
        });
        stream.read_to_end(&mut back).unwrap();
    });
    assert!(back == bytes, "{to}: {} of {} bytes came back", back.len(), bytes.len());
}

fn try_all<P: Port>(namespace: &Namespace, interface: &str, port: P) {
    namespace.ip(&format!("-6 addr add 2001:db8:77::3/64 dev {interface} nodad"));
    let mut echo = Echo::new(port);
    let (v4, v6) = (IpAddr::from(OUR_IP), IpAddr::from(OUR_IP6));
    echo.serve(namespace, || {
        datagrams(v4);
        datagrams(v6);
    });
    let name = namespace.name.clone();
    echo.serve(namespace, move || {
        for (to, bytes) in [("10.77.0.2", 1472), ("2001:db8:77::2", 1452)] {
            run(&format!("ip netns exec {name} ping -q -c 3 -i 0.05 -W 5 -s {bytes} {to}"));
        }
    });
    let neighbours = namespace.ip("neigh");
    for ours in ["10.77.0.2", "2001:db8:77::2"] {
        assert!(neighbours.lines().any(|line| line.starts_with(ours) && line.contains("lladdr")), "{neighbours}");
    }
    echo.serve(namespace, || connections(v4));
    echo.serve(namespace, || connections(v6));
    let (port, iface, tcp) = echo.host.layers();
    println!("{port:?}\n{iface:?}\n{tcp:?}");
    assert_eq!((iface.dropped_checksum, iface.dropped_malformed, tcp.rx_malformed), (0, 0, 0));
    assert_eq!((tcp.rx_bytes, tcp.tx_bytes), (2 * TRANSFER_BYTES as u64, 2 * TRANSFER_BYTES as u64));
    assert_eq!((iface.rx_icmp, iface.answers_dropped), (6, 0));
}

#[test]
fn over_tap() {
    if !root_or_skip("our own stack over TAP") {
        return;
    }
    let namespace = Namespace::new();
    let port = namespace.enter(|| TapPort::open(&tap::Options::new("tacown"))).unwrap();
    namespace.ip("link set tacown addrgenmode none");
    namespace.ip("addr add 10.77.0.3/24 dev tacown");
    try_all(&namespace, "tacown", port);
}

#[test]
fn over_af_xdp() {
    if !root_or_skip("our own stack over AF_XDP") {
        return;
    }
    let pair = Pair::new(1);
    let options = af_xdp::Options { addresses: vec![OUR_IP.into(), OUR_IP6.into()], ..af_xdp::Options::new(NEAR) };
    let mut opened = open_near(&pair, &options);
    try_all(&pair.far, FAR, opened.ports.remove(0));
}
