//! Two hosts with their surroundings behind one face, so that a test can be run on both.
//!
//! On the kernel the peers are sockets on loopback and time is the machine's; a wait that takes longer than [`PATIENCE`] fails the test.

mod stack;

use std::collections::HashMap;
use std::io::{ErrorKind, Read};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use ::stack::host::{Host, Received};
use ::stack::kernel::{KernelConfig, KernelHost};
use ::stack::sim::{SimConfig, SimHost, SimPeer, SimStream, stream_pair};

pub use self::stack::StackRig;

const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    V4,
    V6,
}

impl Family {
    fn loopback(self, port: u16) -> SocketAddr {
        match self {
            Family::V4 => (Ipv4Addr::LOCALHOST, port).into(),
            Family::V6 => (Ipv6Addr::LOCALHOST, port).into(),
        }
    }
}

/// Sizes that tests vary.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    pub ipv6: bool,
    pub flows_max: u32,
    pub streams_max: u32,
    pub tx_frames: usize,
    pub max_datagram_bytes: usize,
    pub stream_queue_bytes: usize,
}

impl Default for Sizes {
    fn default() -> Self {
        Self { ipv6: true, flows_max: 8, streams_max: 32, tx_frames: 64, max_datagram_bytes: 1472, stream_queue_bytes: 256 << 10 }
    }
}

pub trait Rig {
    type H: Host;
    type Peer;

    /// A host with UDP peers numbered from 0.
    fn new(family: Family, udp_peers: usize, sizes: Sizes) -> Self;
    fn host(&mut self) -> &mut Self::H;
    fn now_ns(&self) -> u64;
    fn pass(&mut self, ns: u64);
    /// Address of a UDP peer.
    fn remote(&mut self, peer: usize) -> SocketAddr;
    /// The next `count` datagrams at a peer: port of the sender, and payload.
    fn arrived(&mut self, peer: usize, count: usize) -> Vec<(u16, Vec<u8>)>;
    /// Sends from a peer to a local port of the host.
    fn send_in(&mut self, peer: usize, local_port: u8, bytes: &[u8]);
    /// A connected byte stream.
    fn connect(&mut self) -> (<Self::H as Host>::Stream, Self::Peer);
    /// What the peer has read now.
    fn read(&mut self, peer: &mut Self::Peer) -> Vec<u8>;
    fn stop_reading(&mut self, peer: &mut Self::Peer);
    fn resume_reading(&mut self, peer: &mut Self::Peer);
    fn close(&mut self, peer: Self::Peer);
    /// The host's side was closed (waits for it).
    fn is_given_up(&mut self, peer: &mut Self::Peer) -> bool;

    fn flush_streams(&mut self) {
        let now_ns = self.now_ns();
        self.host().flush_streams(now_ns);
    }

    /// Flushes and reads until so many bytes have come.
    fn read_until(&mut self, peer: &mut Self::Peer, count: usize) -> Vec<u8> {
        let mut seen = Vec::new();
        let start = Instant::now();
        while seen.len() < count {
            assert!(start.elapsed() < PATIENCE, "{} of {count} bytes came", seen.len());
            self.flush_streams();
            seen.extend(self.read(peer));
            self.pass(100_000);
        }
        seen
    }

    /// Receives until so many datagrams have come: local port, sender, payload.
    fn receive(&mut self, count: usize) -> Vec<(u8, SocketAddr, Vec<u8>)> {
        let mut seen = Vec::new();
        let start = Instant::now();
        while seen.len() < count {
            assert!(start.elapsed() < PATIENCE, "{} of {count} datagrams came", seen.len());
            let now_ns = self.now_ns();
            self.host().wait(10_000_000, -1);
            self.host().receive(now_ns, 64, &mut |received, bytes| seen.push((received.local_port, received.remote, bytes.to_vec())));
        }
        seen
    }
}

/// Whether this machine has an IPv6 loopback (containers often have none).
pub fn has_ipv6() -> bool {
    UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).is_ok()
}

pub struct KernelRig {
    host: KernelHost,
    family: Family,
    peers: Vec<UdpSocket>,
    start: Instant,
}

pub struct KernelPeer {
    stream: TcpStream,
    reading: bool,
}

impl Rig for KernelRig {
    type H = KernelHost;
    type Peer = KernelPeer;

    fn new(family: Family, udp_peers: usize, sizes: Sizes) -> Self {
        let config = KernelConfig {
            port: 0,
            ipv6: sizes.ipv6,
            flows_max: sizes.flows_max,
            streams_max: sizes.streams_max,
            tx_frames: sizes.tx_frames,
            max_datagram_bytes: sizes.max_datagram_bytes,
            stream_queue_bytes: sizes.stream_queue_bytes,
            ..KernelConfig::default()
        };
        let (host, notes) = KernelHost::bind(config).unwrap();
        assert!(!notes.is_empty());
        let peers = (0..udp_peers).map(|_| UdpSocket::bind(family.loopback(0)).unwrap()).collect();
        Self { host, family, peers, start: Instant::now() }
    }

    fn host(&mut self) -> &mut KernelHost {
        &mut self.host
    }

    fn now_ns(&self) -> u64 {
        self.start.elapsed().as_nanos() as u64
    }

    fn pass(&mut self, ns: u64) {
        std::thread::sleep(Duration::from_nanos(ns));
    }

    fn remote(&mut self, peer: usize) -> SocketAddr {
        self.peers[peer].local_addr().unwrap()
    }

    fn arrived(&mut self, peer: usize, count: usize) -> Vec<(u16, Vec<u8>)> {
        let peer = &self.peers[peer];
        peer.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut buffer = [0; 2048];
        (0..count)
            .map(|nth| {
                let (len, from) = peer.recv_from(&mut buffer).unwrap_or_else(|error| panic!("{nth} of {count} came: {error}"));
                (from.port(), buffer[..len].to_vec())
            })
            .collect()
    }

    fn send_in(&mut self, peer: usize, local_port: u8, bytes: &[u8]) {
        let port = self.host.local_ports()[usize::from(local_port)];
        self.peers[peer].send_to(bytes, self.family.loopback(port)).unwrap();
    }

    fn connect(&mut self) -> (OwnedFd, KernelPeer) {
        let listener = TcpListener::bind(self.family.loopback(0)).unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (ours, _) = listener.accept().unwrap();
        stream.set_nonblocking(true).unwrap();
        (ours.into(), KernelPeer { stream, reading: true })
    }

    fn read(&mut self, peer: &mut KernelPeer) -> Vec<u8> {
        let mut seen = Vec::new();
        let mut buffer = [0; 65_536];
        while peer.reading {
            match peer.stream.read(&mut buffer) {
                Ok(0) => break,
                Ok(len) => seen.extend(&buffer[..len]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => panic!("{error}"),
            }
        }
        seen
    }

    fn stop_reading(&mut self, peer: &mut KernelPeer) {
        peer.reading = false;
    }

    fn resume_reading(&mut self, peer: &mut KernelPeer) {
        peer.reading = true;
    }

    fn close(&mut self, peer: KernelPeer) {
        drop(peer);
    }

    fn is_given_up(&mut self, peer: &mut KernelPeer) -> bool {
        peer.stream.set_nonblocking(false).unwrap();
        peer.stream.set_read_timeout(Some(PATIENCE)).unwrap();
        matches!(peer.stream.read(&mut [0; 8]), Ok(0))
    }
}

pub struct SimRig {
    host: SimHost,
    family: Family,
    now_ns: u64,
    arrived: HashMap<SocketAddr, Vec<(u16, Vec<u8>)>>,
}

impl SimRig {
    fn peer_address(&self, peer: usize) -> SocketAddr {
        self.family.loopback(40_000 + peer as u16)
    }
}

impl Rig for SimRig {
    type H = SimHost;
    type Peer = SimPeer;

    fn new(family: Family, _udp_peers: usize, sizes: Sizes) -> Self {
        let config = SimConfig {
            ipv6: sizes.ipv6,
            flows_max: sizes.flows_max,
            streams_max: sizes.streams_max,
            tx_frames: sizes.tx_frames,
            max_datagram_bytes: sizes.max_datagram_bytes,
            stream_queue_bytes: sizes.stream_queue_bytes,
            ..SimConfig::default()
        };
        Self { host: SimHost::new(config, 1), family, now_ns: 0, arrived: HashMap::new() }
    }

    fn host(&mut self) -> &mut SimHost {
        &mut self.host
    }

    fn now_ns(&self) -> u64 {
        self.now_ns
    }

    fn pass(&mut self, ns: u64) {
        self.now_ns += ns;
    }

    fn remote(&mut self, peer: usize) -> SocketAddr {
        self.peer_address(peer)
    }

    fn arrived(&mut self, peer: usize, count: usize) -> Vec<(u16, Vec<u8>)> {
        let ports = self.host.local_ports().to_vec();
        let arrived = &mut self.arrived;
        self.host.take_sent(|sent| {
            arrived.entry(sent.remote).or_default().push((ports[usize::from(sent.local_port)], sent.bytes.to_vec()));
        });
        let all = self.arrived.entry(self.family.loopback(40_000 + peer as u16)).or_default();
        assert!(all.len() >= count, "{} of {count} came", all.len());
        all.drain(..count).collect()
    }

    fn send_in(&mut self, peer: usize, local_port: u8, bytes: &[u8]) {
        let remote = self.peer_address(peer);
        self.host.inject(self.now_ns, Received { local_port, remote }, bytes);
    }

    fn connect(&mut self) -> (SimStream, SimPeer) {
        stream_pair(100_000)
    }

    fn read(&mut self, peer: &mut SimPeer) -> Vec<u8> {
        peer.take()
    }

    fn stop_reading(&mut self, peer: &mut SimPeer) {
        peer.stop_reading();
    }

    fn resume_reading(&mut self, peer: &mut SimPeer) {
        peer.resume_reading();
    }

    fn close(&mut self, peer: SimPeer) {
        peer.close();
    }

    fn is_given_up(&mut self, peer: &mut SimPeer) -> bool {
        peer.is_given_up()
    }
}
