//! Our own stack over a simulated port; at the other end of the cable a peer made of the same parts, but without a host.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use stack::host::{FlowSpec, Host};
use stack::host_port::{StackConfig, StackHost, StackStream};
use stack::iface::{Asker, FrameOut, IfaceConfig, Ingress, Interface, NeighbourState};
use stack::port::Port;
use stack::tcp::{ConnId, ListenerId, SegmentOut, SendOutcome, Tcp, TcpConfig};
use stack::wire::{SimPort, SimPortConfig, Wire, WireConfig, WirePool, sim_ports};

use super::{Family, Rig, Sizes};

const MS: u64 = 1_000_000;
const HOST_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const PEER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
const RTSP_PORT: u16 = 554;
const UDP_PORT: u16 = 40_000;

fn addr(family: Family, last: u8) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::new(10, 0, 0, last).into(),
        Family::V6 => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, u16::from(last)).into(),
    }
}

fn iface_config(last: u8, ipv6: bool) -> IfaceConfig {
    let mut addresses = vec![format!("10.0.0.{last}/24").parse().unwrap()];
    if ipv6 {
        addresses.push(format!("2001:db8::{last}/64").parse().unwrap());
    }
    IfaceConfig { addresses, detect_duplicates: false, ..IfaceConfig::default() }
}

/// The other end: datagrams of any port, and connections.
struct Peer {
    port: SimPort,
    iface: Interface,
    tcp: Tcp,
    datagrams: Vec<(SocketAddr, u16, Vec<u8>)>,
}

struct Out<'a>(&'a mut SimPort);

impl FrameOut for Out<'_> {
    fn frame(&mut self) -> Option<&mut [u8]> {
        self.0.frame()
    }

    fn commit(&mut self, len: usize) {
        self.0.commit(len);
    }
}

struct Segments<'a> {
    port: &'a mut SimPort,
    iface: &'a mut Interface,
    now_ns: u64,
}

impl SegmentOut for Segments<'_> {
    fn queued(&self) -> usize {
        self.port.queued()
    }

    fn segment(&mut self, local: IpAddr, remote: IpAddr, len: usize, fill: &mut dyn FnMut(&mut [u8])) -> SendOutcome {
        let Ok(path) = self.iface.path(self.now_ns, remote, Asker::Own) else { return SendOutcome::Unresolved };
        let Some(frame) = self.port.frame() else { return SendOutcome::Full };
        let at = self.iface.ip_frame(frame, &path, local, remote, 6, len).unwrap();
        fill(&mut frame[at..at + len]);
        self.port.commit(at + len);
        SendOutcome::Sent
    }
}

impl Peer {
    fn turn(&mut self, now_ns: u64) {
        let Self { port, iface, tcp, datagrams } = self;
        port.receive(now_ns, 1024, &mut |frame| match iface.ingress(now_ns, frame) {
            Ingress::Udp { from, to, payload, .. } => datagrams.push((to, from.port(), payload.to_vec())),
            Ingress::Tcp { from, to, segment, .. } => tcp.ingress(now_ns, from, to, segment),
            Ingress::Nothing | Ingress::Error(_) => {}
        });
        iface.egress(now_ns, &mut Out(port));
        tcp.egress(now_ns, &mut Segments { port, iface, now_ns });
        port.flush(now_ns);
    }

    fn send(&mut self, now_ns: u64, from: SocketAddr, to: SocketAddr, payload: &[u8]) {
        let path = self.iface.path(now_ns, to.ip(), Asker::Own).unwrap();
        let template = self.iface.udp_template(&path, from, to).unwrap();
        let frame = self.port.frame().expect("a frame for the peer");
        let at = template.header_bytes();
        frame[at..at + payload.len()].copy_from_slice(payload);
        let len = template.complete(frame, payload.len());
        self.port.commit(len);
        self.port.flush(now_ns);
    }
}

pub struct StackRig {
    host: StackHost<SimPort>,
    peer: Peer,
    listener: Option<ListenerId>,
    family: Family,
    now_ns: u64,
    arrived: HashMap<SocketAddr, Vec<(u16, Vec<u8>)>>,
    /// Datagrams were sent to the host that the test itself will receive.
    datagrams_wait: bool,
}

pub struct StackPeer {
    conn: ConnId,
    reading: bool,
    over: bool,
}

impl StackRig {
    /// Both sides, until nothing more happens at this time.
    fn pump(&mut self) {
        for _ in 0..6 {
            self.host.flush_streams(self.now_ns);
            self.peer.turn(self.now_ns);
            if !self.datagrams_wait {
                self.host.receive(self.now_ns, 64, &mut |received, _| panic!("{received:?} came while no test looked"));
            }
        }
        self.host.flush_streams(self.now_ns);
    }

    /// Makes both sides neighbours.
    fn meet(&mut self, host: IpAddr) {
        let remote = self.remote(0);
        let flow = self.host.open_flow(FlowSpec { local_port: 0, local_addr: None, remote }).unwrap();
        for _ in 0..100 {
            let met = self.peer.iface.path(self.now_ns, host, Asker::Own);
            if met.is_ok() && self.host.iface().neighbour(self.now_ns, remote.ip()).is_some_and(|state| state != NeighbourState::Incomplete)
            {
                return self.host.close_flow(flow);
            }
            self.pass(10 * MS);
        }
        panic!("they do not answer each other");
    }
}

impl Rig for StackRig {
    type H = StackHost<SimPort>;
    type Peer = StackPeer;

    fn new(family: Family, _udp_peers: usize, sizes: Sizes) -> Self {
        let wire = |seed| Wire::new(WireConfig::default(), WirePool::default(), seed);
        let port = |mac| SimPortConfig { mac, ..SimPortConfig::default() };
        let (host_port, peer_port, _) = sim_ports(port(HOST_MAC), port(PEER_MAC), wire(1), wire(2));
        let config = StackConfig {
            iface: iface_config(1, sizes.ipv6),
            tcp: TcpConfig { send_buffer_bytes: sizes.stream_queue_bytes, buffer_bytes_max: 0, ..TcpConfig::default() },
            flows_max: sizes.flows_max,
            streams_max: sizes.streams_max,
            tx_frames: sizes.tx_frames,
            max_datagram_bytes: sizes.max_datagram_bytes,
            reserved_frames: 64,
            ..StackConfig::default()
        };
        let mut host = StackHost::new(config, host_port, None, 3, 0);
        let listener = host.tcp_mut().listen(SocketAddr::new(addr(family, 1), RTSP_PORT), 64).ok();
        let tcp = TcpConfig { recv_buffer_bytes: 100_000, buffer_bytes_max: 0, ..TcpConfig::default() };
        let peer = Peer {
            iface: Interface::new(iface_config(2, true), PEER_MAC, peer_port.mtu_bytes(), 0),
            tcp: Tcp::new(tcp, 4, 0),
            port: peer_port,
            datagrams: Vec::new(),
        };
        let mut rig = Self { host, peer, listener, family, now_ns: 0, arrived: HashMap::new(), datagrams_wait: false };
        if family == Family::V4 || sizes.ipv6 {
            rig.meet(addr(family, 1));
        }
        rig
    }

    fn host(&mut self) -> &mut StackHost<SimPort> {
        &mut self.host
    }

    fn now_ns(&self) -> u64 {
        self.now_ns
    }

    fn pass(&mut self, ns: u64) {
        self.now_ns += ns;
        self.pump();
    }

    fn remote(&mut self, peer: usize) -> SocketAddr {
        SocketAddr::new(addr(self.family, 2), UDP_PORT + peer as u16)
    }

    fn arrived(&mut self, peer: usize, count: usize) -> Vec<(u16, Vec<u8>)> {
        self.peer.turn(self.now_ns);
        for (to, from_port, payload) in self.peer.datagrams.drain(..) {
            self.arrived.entry(to).or_default().push((from_port, payload));
        }
        let address = self.remote(peer);
        let all = self.arrived.entry(address).or_default();
        assert!(all.len() >= count, "{} of {count} came", all.len());
        all.drain(..count).collect()
    }

    fn send_in(&mut self, peer: usize, local_port: u8, bytes: &[u8]) {
        let to = SocketAddr::new(addr(self.family, 1), self.host.local_ports()[usize::from(local_port)]);
        let from = self.remote(peer);
        self.datagrams_wait = true;
        self.peer.send(self.now_ns, from, to, bytes);
    }

    fn connect(&mut self) -> (StackStream, StackPeer) {
        let (local, remote) = (SocketAddr::new(addr(self.family, 2), 0), SocketAddr::new(addr(self.family, 1), RTSP_PORT));
        let conn = self.peer.tcp.connect(self.now_ns, local, remote).unwrap();
        for _ in 0..100 {
            self.pass(MS);
            if let Some(accepted) = self.host.tcp_mut().accept(self.listener.unwrap()) {
                return (StackStream::Own(accepted), StackPeer { conn, reading: true, over: false });
            }
        }
        panic!("no connection");
    }

    fn read(&mut self, peer: &mut StackPeer) -> Vec<u8> {
        let (mut seen, mut buffer) = (Vec::new(), [0; 65_536]);
        // Long enough for a delayed acknowledgment to come back.
        for _ in 0..60 {
            self.pass(MS);
            while peer.reading && !peer.over {
                match self.peer.tcp.recv(peer.conn, &mut buffer) {
                    Ok(Some(0)) | Err(_) => peer.over = true,
                    Ok(Some(len)) => seen.extend(&buffer[..len]),
                    Ok(None) => break,
                }
            }
        }
        seen
    }

    fn stop_reading(&mut self, peer: &mut StackPeer) {
        peer.reading = false;
    }

    fn resume_reading(&mut self, peer: &mut StackPeer) {
        peer.reading = true;
    }

    fn close(&mut self, peer: StackPeer) {
        self.peer.tcp.close(peer.conn);
        self.pump();
    }

    fn is_given_up(&mut self, peer: &mut StackPeer) -> bool {
        self.read(peer);
        peer.over
    }
}
