//! Two machines, each with a control side and an engine, over a simulated cable.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use proptest::prelude::*;

use super::*;
use crate::host::{Host, StreamError};
use crate::host_port::{StackConfig, StackHost, StackStream};
use crate::iface::IfaceConfig;
use crate::tcp::{Tcp, TcpConfig};
use crate::wire::{Probability, SimPort, SimPortConfig, Wire, WireConfig, WirePool, sim_ports};

const MS: u64 = 1_000_000;

/// Counts how often something was woken.
#[derive(Default)]
struct Count(AtomicU32);

impl Count {
    fn get(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

struct Side {
    host: StackHost<SimPort>,
    control: SocketControl,
    /// Wake-ups of the engine and of the control side.
    rung: [Arc<Count>; 2],
}

struct Net {
    sides: [Side; 2],
    now_ns: u64,
}

fn address(side: usize, port: u16) -> SocketAddr {
    ([10, 0, 0, 1 + side as u8], port).into()
}

impl Net {
    fn new(config: SocketConfig) -> Self {
        Self::over(config, WireConfig { delay_ns: MS, ..WireConfig::default() })
    }

    fn over(config: SocketConfig, wire: WireConfig) -> Self {
        let wire = |seed| Wire::new(wire, WirePool::default(), seed);
        let port = |last| SimPortConfig { mac: [2, 0, 0, 0, 0, last], ..SimPortConfig::default() };
        let (a, b, _) = sim_ports(port(1), port(2), wire(1), wire(2));
        let side = |nth: usize, port: SimPort| {
            let rung: [Arc<Count>; 2] = Default::default();
            let bell = |at: usize| {
                let count = Arc::clone(&rung[at]);
                Box::new(move || Arc::clone(&count).wake())
            };
            let tcp = TcpConfig {
                connections_max: 256,
                send_buffer_bytes: 16 << 10,
                recv_buffer_bytes: 16 << 10,
                buffer_bytes_max: 0,
                time_wait_ns: 10 * MS,
                pool_bytes: 8 << 20,
                ..TcpConfig::default()
            };
            let (engine, control) = socket_pair(config, tcp.connections_max, bell(0), bell(1));
            let iface = IfaceConfig { addresses: vec![format!("10.0.0.{}/24", nth + 1).parse().unwrap()], ..IfaceConfig::default() };
            let host = StackHost::new(StackConfig { iface, tcp, ..StackConfig::default() }, port, Some(engine), nth as u64, 0);
            Side { host, control, rung }
        };
        Self { sides: [side(0, a), side(1, b)], now_ns: 0 }
    }

    fn turn(&mut self) {
        for Side { host, control, .. } in &mut self.sides {
            host.receive(self.now_ns, 64, &mut |_, _| {});
            host.flush_streams(self.now_ns);
            control.pump();
        }
        self.now_ns += MS;
    }

    /// Turns until the poll is ready.
    fn wait<T>(&mut self, mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>) -> T {
        let woken = Arc::new(Count::default());
        let waker = Waker::from(Arc::clone(&woken));
        let mut result = poll(&mut Context::from_waker(&waker));
        for _ in 0..20_000 {
            if let Poll::Ready(value) = result {
                return value;
            }
            let before = woken.get();
            self.turn();
            // Whoever waits is called again only when it was woken: a lost wake-up would hang.
            if woken.get() > before {
                result = poll(&mut Context::from_waker(&waker));
            }
        }
        panic!("nobody woke the waiting side");
    }

    /// A connection: the end of side 1, which asked for it, and that of side 0.
    fn connected(&mut self, listener: &Listener) -> (Stream, Stream) {
        let client = self.sides[1].control.connect(None, address(0, 554)).unwrap();
        self.wait(|context| client.poll_connected(context)).unwrap();
        let server = self.wait(|context| listener.poll_accept(context)).unwrap();
        (client, server)
    }

    fn listener(&self) -> Listener {
        self.sides[0].control.listen(address(0, 554), 64).unwrap()
    }

    fn write_all(&mut self, stream: &Stream, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let count = self.wait(|context| stream.poll_write(context, bytes)).unwrap();
            bytes = &bytes[count..];
        }
    }

    fn read(&mut self, stream: &Stream, count: usize) -> Vec<u8> {
        let mut seen = Vec::new();
        let mut buffer = [0; 1000];
        while seen.len() < count {
            match self.wait(|context| stream.poll_read(context, &mut buffer)).unwrap() {
                0 => break,
                len => seen.extend(&buffer[..len]),
            }
        }
        seen
    }

    fn sockets_in_use(&self, side: usize) -> u32 {
        self.sides[side].control.in_use()
    }
}

fn no_wait<T>(poll: impl FnOnce(&mut Context<'_>) -> Poll<T>) -> Poll<T> {
    poll(&mut Context::from_waker(Waker::noop()))
}

#[test]
fn question_and_answer() {
    let mut net = Net::new(SocketConfig::default());
    let listener = net.listener();
    let (client, server) = net.connected(&listener);
    let (local, remote) = server.ends().unwrap();
    assert_eq!((local, remote.ip()), (address(0, 554), address(1, 0).ip()));
    assert_eq!(client.ends().unwrap(), (remote, local));
    net.write_all(&client, b"OPTIONS * RTSP/1.0\r\n\r\n");
    assert_eq!(net.read(&server, 22), b"OPTIONS * RTSP/1.0\r\n\r\n");
    net.write_all(&server, b"RTSP/1.0 200 OK\r\n\r\n");
    client.shutdown();
    assert_eq!(net.read(&client, 19), b"RTSP/1.0 200 OK\r\n\r\n");
    assert_eq!(net.read(&server, 1), b"", "the end");
    net.write_all(&server, b"still");
    drop(server);
    assert_eq!(net.read(&client, 100), b"still");
    assert_eq!(no_wait(|context| client.poll_write(context, b"x")), Poll::Ready(Err(TcpError::Closed)));
}

#[test]
fn much_in_both_directions_with_stop_and_go() {
    let mut net = Net::new(SocketConfig { ring_messages: 8, ..SocketConfig::default() });
    let listener = net.listener();
    let (client, server) = net.connected(&listener);
    let bytes: Vec<u8> = (0..300_000_u32).map(|at| (at % 251) as u8).collect();
    let (mut written, mut read) = ([0, 0], [Vec::<u8>::new(), Vec::new()]);
    let mut buffer = vec![0; 5000];
    for _ in 0..20_000 {
        for (at, stream) in [&client, &server].into_iter().enumerate() {
            if let Poll::Ready(count) = no_wait(|context| stream.poll_write(context, &bytes[written[at]..])) {
                written[at] += count.unwrap();
            }
            if let Poll::Ready(count) = no_wait(|context| stream.poll_read(context, &mut buffer)) {
                read[at].extend(&buffer[..count.unwrap()]);
            }
        }
        net.turn();
        if read.iter().all(|read| read.len() == bytes.len()) {
            break;
        }
    }
    assert!(read[0] == bytes && read[1] == bytes, "{written:?} {} {}", read[0].len(), read[1].len());
}

/// Neighbours are asked for again, segments are sent again, and messages between the cores are not lost.
#[test]
fn all_of_it_over_a_bad_link() {
    let some = Probability::new(0.05);
    let bad = WireConfig { delay_ns: 2 * MS, loss: some, reordering: some, duplication: some, corruption: some, ..WireConfig::default() };
    let mut net = Net::over(SocketConfig::default(), bad);
    let listener = net.listener();
    for nth in 0..5_u8 {
        let (client, server) = net.connected(&listener);
        let bytes: Vec<u8> = (0..40_000_u32).map(|at| (at % 251) as u8 ^ nth).collect();
        for (from, to) in [(&client, &server), (&server, &client)] {
            let (mut written, mut read) = (0, Vec::<u8>::new());
            let mut buffer = [0; 5000];
            for _ in 0..100_000 {
                if let Poll::Ready(count) = no_wait(|context| from.poll_write(context, &bytes[written..])) {
                    written += count.unwrap();
                }
                if let Poll::Ready(count) = no_wait(|context| to.poll_read(context, &mut buffer)) {
                    read.extend(&buffer[..count.unwrap()]);
                }
                if read.len() == bytes.len() {
                    break;
                }
                net.turn();
            }
            assert!(read == bytes, "{} of {} bytes", read.len(), bytes.len());
        }
    }
}

#[test]
fn a_reader_that_stops_stops_the_writer() {
    let config = SocketConfig::default();
    let mut net = Net::new(config);
    let listener = net.listener();
    let (client, server) = net.connected(&listener);
    let mut written = 0;
    let mut idle_turns = 0;
    while idle_turns < 200 {
        match no_wait(|context| client.poll_write(context, &[7; 3000])) {
            Poll::Ready(count) => (written, idle_turns) = (written + count.unwrap(), 0),
            Poll::Pending => idle_turns += 1,
        }
        net.turn();
    }
    // Both TCP buffers, and the chunks under way at both ends.
    assert!(written <= 2 * (16 << 10) + 2 * config.chunks * CHUNK_BYTES, "{written}");
    assert_eq!(net.read(&server, written).len(), written);
    net.write_all(&client, b"on we go");
    assert_eq!(net.read(&server, 8), b"on we go");
}

#[test]
fn refusals_and_errors_are_told() {
    let mut net = Net::new(SocketConfig::default());
    let refused = net.sides[1].control.connect(None, address(0, 80)).unwrap();
    assert_eq!(net.wait(|context| refused.poll_connected(context)), Err(TcpError::Refused));
    assert_eq!(no_wait(|context| refused.poll_write(context, b"x")), Poll::Ready(Err(TcpError::Refused)));
    let nowhere = net.sides[1].control.connect(None, "192.0.2.1:80".parse().unwrap()).unwrap();
    assert_eq!(net.wait(|context| nowhere.poll_connected(context)), Err(TcpError::Unreachable));
    let first = net.listener();
    let second = net.listener();
    assert_eq!(net.wait(|context| second.poll_accept(context)).err(), Some(TcpError::AddressInUse));
    let (client, server) = net.connected(&first);
    net.write_all(&server, b"unread");
    net.turn();
    for _ in 0..20 {
        net.turn();
    }
    drop(client);
    let error = net.wait(|context| server.poll_read(context, &mut [0; 8]));
    assert!(matches!(error, Ok(0) | Err(TcpError::Reset)), "{error:?}");
    drop((refused, nowhere, first, second, server));
    for _ in 0..100 {
        net.turn();
    }
    assert_eq!((net.sockets_in_use(0), net.sockets_in_use(1)), (0, 0), "all names are free again");
}

#[test]
fn names_come_back() {
    let mut net = Net::new(SocketConfig { sockets_max: 8, accepts_ahead: 3, ..SocketConfig::default() });
    let listener = net.listener();
    for nth in 0..100_u8 {
        let (client, server) = net.connected(&listener);
        net.write_all(&client, &[nth]);
        assert_eq!(net.read(&server, 1), [nth]);
        drop((client, server));
        for _ in 0..30 {
            net.turn();
        }
    }
    assert_eq!((net.sockets_in_use(0), net.sockets_in_use(1)), (4, 0));
    let all: Vec<Stream> = std::iter::from_fn(|| net.sides[1].control.connect(None, address(0, 554)).ok()).collect();
    assert_eq!(all.len(), 8);
    assert_eq!(net.sides[1].control.connect(None, address(0, 554)).err(), Some(TcpError::TooMany));
}

#[test]
fn more_connections_than_names_wait_their_turn() {
    let mut net = Net::new(SocketConfig { accepts_ahead: 2, ..SocketConfig::default() });
    let listener = net.listener();
    let clients: Vec<Stream> = (0..20).map(|_| net.sides[1].control.connect(None, address(0, 554)).unwrap()).collect();
    for client in &clients {
        net.wait(|context| client.poll_connected(context)).unwrap();
    }
    let servers: Vec<Stream> = (0..20).map(|_| net.wait(|context| listener.poll_accept(context)).unwrap()).collect();
    for (nth, server) in servers.iter().enumerate() {
        let client = clients.iter().find(|client| client.ends().unwrap().0 == server.ends().unwrap().1).unwrap();
        net.write_all(client, &[nth as u8; 10]);
        assert_eq!(net.read(server, 10), [nth as u8; 10]);
    }
}

#[test]
fn a_lent_connection_lives_until_both_let_go() {
    let mut net = Net::new(SocketConfig::default());
    let listener = net.listener();
    let (client, server) = net.connected(&listener);
    let lent = server.lend().unwrap();
    let host = &mut net.sides[0].host;
    let stream = host.attach_stream(StackStream::Lent(lent)).unwrap();
    host.stream_send(stream, &[b"$\0\0\x04", b"RTP!"]).unwrap();
    net.write_all(&server, b"RTSP");
    assert_eq!(net.read(&client, 12), b"$\0\0\x04RTP!RTSP");
    drop(server);
    net.turn();
    let host = &mut net.sides[0].host;
    host.stream_send(stream, &[b"more"]).unwrap();
    assert_eq!(net.read(&client, 4), b"more");
    let host = &mut net.sides[0].host;
    host.detach_stream(stream);
    assert_eq!(host.stream_send(stream, &[b"x"]), Err(StreamError::Closed));
    assert_eq!(net.read(&client, 1), b"", "closed when the last one let go");
    assert_eq!(net.sockets_in_use(0), 1 + SocketConfig::default().accepts_ahead as u32);

    let (client, server) = net.connected(&listener);
    let (used, unused) = (server.lend().unwrap(), server.lend().unwrap());
    drop(server);
    let host = &mut net.sides[0].host;
    let stream = host.attach_stream(StackStream::Lent(used)).unwrap();
    host.detach_stream(stream);
    net.turn();
    assert!(no_wait(|context| client.poll_read(context, &mut [0; 8])).is_pending(), "one loan is left");
    drop(unused);
    assert_eq!(net.read(&client, 1), b"");
}

#[test]
fn what_was_written_before_the_close_arrives() {
    let mut net = Net::new(SocketConfig::default());
    let listener = net.listener();
    let (client, server) = net.connected(&listener);
    let mut written = 0;
    while let Poll::Ready(count) = no_wait(|context| server.poll_write(context, &[9; 10_000])) {
        written += count.unwrap();
    }
    drop(server);
    assert!(written > 0);
    assert_eq!(net.read(&client, written + 1).len(), written);
}

#[test]
fn bells_ring_once_and_only_for_sleepers() {
    let mut net = Net::new(SocketConfig::default());
    let listener = net.listener();
    let (client, server) = net.connected(&listener);
    let rung = |net: &Net, which: usize| net.sides[0].rung[which].get();
    assert_eq!((rung(&net, 0), rung(&net, 1)), (0, 0), "nobody slept");
    for _ in 0..20 {
        net.turn();
    }
    assert!(net.sides[0].control.lie_down());
    net.write_all(&client, &[1; 3 * CHUNK_BYTES]);
    for _ in 0..10 {
        net.turn();
    }
    assert_eq!(rung(&net, 1), 1, "however much came");
    assert_eq!(net.read(&server, 3 * CHUNK_BYTES).len(), 3 * CHUNK_BYTES);
    // An engine asleep is woken by the first request.
    for _ in 0..5 {
        net.turn();
    }
    let (quick, host) = (1, &mut net.sides[0].host);
    host.wait(quick, -1);
    assert_eq!(rung(&net, 0), 0, "it was up again before anything came");
}

#[derive(Clone, Debug)]
enum Deed {
    Listen(u32, u16),
    Accept(u32, u32),
    Connect(u32, u16),
    Send(u32, usize),
    Receive(u32),
    Other(u32, u8),
    Turn,
}

fn deed() -> impl Strategy<Value = Deed> {
    let name = 0_u32..24;
    prop_oneof![
        (name.clone(), 1_u16..4).prop_map(|(name, port)| Deed::Listen(name, port)),
        (name.clone(), name.clone()).prop_map(|(listener, name)| Deed::Accept(listener, name)),
        (name.clone(), 1_u16..4).prop_map(|(name, port)| Deed::Connect(name, port)),
        (name.clone(), 0_usize..CHUNK_BYTES).prop_map(|(name, len)| Deed::Send(name, len)),
        name.clone().prop_map(Deed::Receive),
        (name, 0_u8..5).prop_map(|(name, which)| Deed::Other(name, which)),
        Just(Deed::Turn),
    ]
}

proptest! {
    /// Requests of any kind with any names, as a broken or hostile control side would make them over a network: the engine survives, never tells
    /// more than the ring holds, and lists nothing twice.
    #[test]
    fn any_requests(deeds in prop::collection::vec(deed(), 1..200)) {
        let config = SocketConfig { sockets_max: 16, ring_messages: 8, ..SocketConfig::default() };
        let (request_out, request_in) = crossbeam_channel::unbounded();
        let (event_out, event_in) = crossbeam_channel::bounded(config.ring_messages);
        let bell = || Arc::new(Bell::new(Box::new(|| ())));
        let mut engine = SocketEngine::new(config, 16, request_in, event_out, (bell(), bell()));
        let mut tcp = Tcp::new(TcpConfig { connections_max: 16, listeners_max: 4, pool_bytes: 1 << 20, segments_max: 256, ..TcpConfig::default() }, 1, 0);
        let source = |_: IpAddr| Some(address(0, 0).ip());
        let mut now_ns = 0;
        for deed in deeds {
            let name = |id: u32| SocketId(id + 16);
            let request = match deed {
                Deed::Listen(socket, port) => Request::Listen { socket: name(socket), local: address(0, port), backlog: 4 },
                Deed::Accept(listener, socket) => Request::Accept { listener: name(listener), socket: name(socket) },
                Deed::Connect(socket, port) => Request::Connect { socket: name(socket), local: None, remote: address(1, port) },
                Deed::Send(socket, len) => {
                    let mut chunk = Box::<Chunk>::default();
                    chunk.fill(&vec![1; len]);
                    Request::Send { socket: name(socket), chunk }
                }
                Deed::Receive(socket) => Request::Receive { socket: name(socket), chunk: Box::default() },
                Deed::Other(socket, 0) => Request::Shutdown { socket: name(socket) },
                Deed::Other(socket, 1) => Request::Lend { socket: name(socket) },
                Deed::Other(socket, 2) => Request::Return { socket: name(socket) },
                Deed::Other(socket, 3) => Request::SetOption { socket: name(socket), option: crate::tcp::TcpOption::NoDelay(true) },
                Deed::Other(socket, _) => Request::Close { socket: name(socket) },
                Deed::Turn => {
                    now_ns += 50 * MS;
                    engine.poll(now_ns, &mut tcp, &source);
                    while event_in.try_recv().is_ok() {}
                    continue;
                }
            };
            request_out.send(request).unwrap();
            prop_assert!(engine.lists() <= (16, 16), "{:?}", engine.lists());
        }
        for _ in 0..200 {
            engine.poll(now_ns, &mut tcp, &source);
            while event_in.try_recv().is_ok() {}
        }
        prop_assert!(request_out.is_empty(), "all were taken");
    }
}
