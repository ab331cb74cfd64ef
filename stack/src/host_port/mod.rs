//! The [`Host`] seam on our own stack over a [`Port`].
//!
//! ```text
//! datagram ─► a transmit frame of the port, behind the flow's prebuilt header ─► commit ─► flush ─┐
//! stream_send ─► send queue of a TCP connection ─► flush_streams ─► IFQ limit ────────────────────┼─► port
//! sockets (control core) ─► SocketEngine ─► the same send queues, in flush_streams ───────────────┤
//! ARP, NDP, ICMP ─► flush_streams ────────────────────────────────────────────────────────────────┘
//! port ─► receive ─► Interface ─► datagrams to local ports and joined groups: sink │ TCP │ errors, refusals
//! ```
//!
//! RTP goes first and has its own share: a payload is written once, into the port's frame, and everything that is not RTP leaves
//! [`StackConfig::reserved_frames`] alone. How long the interface queue gets before RTP stands in it is TCP's limit
//! ([`IfqLimit`](crate::tcp::IfqLimit)).
//!
//! A flow whose neighbour is still being looked up sends into a small parking place, in order; what does not fit there, or waits in vain,
//! is counted as failed. To the caller parked datagrams have been handed over, as they would be by the kernel.

mod listen;
mod parking;
mod share;

use std::net::{IpAddr, SocketAddr};
use std::os::fd::RawFd;

use self::listen::Listeners;
use self::parking::{Ends, Offered, Parking};
use self::share::{ANSWER_FRAMES, Segments, Share};
use crate::address;
use crate::host::{FlowId, FlowSpec, Flushed, Host, HostCounters, HostError, Layers, Received, StreamError, StreamId};
use crate::iface::{
    Asker, Bucket, IfaceConfig, IfaceCounters, Ingress, Interface, Path, PathError, PathErrorKind, PathFailure, UdpTemplate,
};
use crate::port::{Port, PortCounters};
use crate::slots::Slots;
use crate::sockets::{Lent, SocketEngine, SocketId};
use crate::tcp::{ConnId, IcmpError, Tcp, TcpConfig, TcpCounters};

/// Protocol number of TCP.
const TCP: u8 = 6;
/// IPv4 and UDP headers.
const HEADERS_V4_BYTES: usize = 28;
/// IPv6 and UDP headers.
const HEADERS_V6_BYTES: usize = 48;
/// ICMP errors about flows that are looked into; each costs a walk over the flows, and anybody can send them.
const PATH_ERRORS_PER_SECOND: u32 = 100;
/// Frames asked of the port at once.
const RX_BURST: usize = 32;

/// Settings of a [`StackHost`].
#[derive(Clone, Debug)]
pub struct StackConfig {
    /// Addresses, routes and the like.
    pub iface: IfaceConfig,
    /// TCP. Its MTU is that of the port.
    pub tcp: TcpConfig,
    /// Local UDP ports, an even one and the next.
    pub ports: [u16; 2],
    /// Flows that may be open at once.
    pub flows_max: u32,
    /// Streams that may be attached at once.
    pub streams_max: u32,
    /// Datagrams that may be committed between two flushes.
    pub tx_frames: usize,
    /// Frames of the port that only datagrams of flows may use.
    pub reserved_frames: usize,
    /// Largest payload of a datagram, bytes; lowered to what the link carries.
    pub max_datagram_bytes: usize,
    /// Datagrams that may wait for their neighbours.
    pub parked_max: u16,
    /// Frames taken from the port in one turn.
    pub rx_frames_per_turn: usize,
}

impl Default for StackConfig {
    fn default() -> Self {
        Self {
            iface: IfaceConfig::default(),
            tcp: TcpConfig::default(),
            ports: [6970, 6971],
            flows_max: 4096,
            streams_max: 1024,
            tx_frames: 256,
            reserved_frames: 256,
            max_datagram_bytes: 1472,
            parked_max: 128,
            rx_frames_per_turn: 256,
        }
    }
}

/// A connection whose sending side is handed to the host.
#[derive(Debug)]
pub enum StackStream {
    /// Lent by the control core.
    Lent(Lent),
    /// One that nobody else holds; detaching closes it.
    Own(ConnId),
}

struct Flow {
    spec: FlowSpec,
    way: Option<(Path, UdpTemplate)>,
    /// A router said that our packets are too big for its next link: from now on they may be cut.
    narrow: bool,
}

#[derive(Clone, Copy)]
struct Attached {
    conn: ConnId,
    socket: Option<SocketId>,
}

/// The frame that was given out last.
#[derive(Clone, Copy)]
enum Open {
    Nothing,
    /// A frame of the port, for this flow.
    Frame(u32),
    /// A place to wait.
    Parked(Ends),
    /// Goes nowhere.
    Lost,
}

/// The host.
pub struct StackHost<P: Port> {
    port: P,
    iface: Interface,
    tcp: Tcp,
    sockets: Option<SocketEngine>,
    flows: Slots<Flow>,
    parking: Parking,
    streams: Slots<Attached>,
    open: Open,
    /// Committed since the last flush, and how many of these failed.
    queued: usize,
    failed: u32,
    now_ns: u64,
    has_ipv4: bool,
    has_ipv6: bool,
    max_datagram_bytes: usize,
    ports: [u16; 2],
    listeners: Listeners,
    tx_frames: usize,
    reserved_frames: usize,
    rx_frames_per_turn: usize,
    path_errors: u64,
    path_error_rate: Bucket,
    identification: u16,
    counters: HostCounters,
}

impl<P: Port> StackHost<P> {
    /// A host on a port. `seed` must not be guessed from outside; `sockets` is the engine's half of a socket layer, if there is one.
    pub fn new(mut config: StackConfig, port: P, sockets: Option<SocketEngine>, seed: u64, now_ns: u64) -> Self {
        let has_ipv4 = config.iface.addresses.iter().any(|cidr| cidr.addr().is_ipv4());
        let has_ipv6 = config.iface.addresses.iter().any(|cidr| cidr.addr().is_ipv6());
        let headers_bytes = if has_ipv6 { HEADERS_V6_BYTES } else { HEADERS_V4_BYTES };
        let max_datagram_bytes = config.max_datagram_bytes.min(port.mtu_bytes().saturating_sub(headers_bytes));
        config.tcp.mtu_bytes = port.mtu_bytes();
        config.tcp.verify_checksums &= !config.iface.rx_checksums_done;
        config.iface.seed ^= seed;
        Self {
            iface: Interface::new(config.iface, port.mac(), port.mtu_bytes(), now_ns),
            tcp: Tcp::new(config.tcp, seed, now_ns),
            sockets,
            flows: Slots::new(config.flows_max),
            parking: Parking::new(config.parked_max, max_datagram_bytes),
            streams: Slots::new(config.streams_max),
            open: Open::Nothing,
            queued: 0,
            failed: 0,
            now_ns,
            has_ipv4,
            has_ipv6,
            max_datagram_bytes,
            ports: config.ports,
            listeners: Listeners::new(),
            tx_frames: config.tx_frames,
            // TCP and the rest get at least half.
            reserved_frames: config.reserved_frames.min(port.capacity() / 2),
            rx_frames_per_turn: config.rx_frames_per_turn.max(1),
            path_errors: 0,
            path_error_rate: Bucket::new(PATH_ERRORS_PER_SECOND, PATH_ERRORS_PER_SECOND / 10),
            identification: 0,
            counters: HostCounters::default(),
            port,
        }
    }

    /// The port.
    pub fn port(&self) -> &P {
        &self.port
    }

    /// The port, for what a test does to it.
    pub fn port_mut(&mut self) -> &mut P {
        &mut self.port
    }

    /// TCP, for users on the engine core.
    pub fn tcp_mut(&mut self) -> &mut Tcp {
        &mut self.tcp
    }

    /// Link and network layer.
    pub fn iface(&self) -> &Interface {
        &self.iface
    }

    /// Counters of all layers since start.
    pub fn layers(&self) -> (PortCounters, IfaceCounters, TcpCounters) {
        (self.port.counters(), self.iface.counters(), self.tcp.counters())
    }

    /// ICMP errors about datagrams of flows.
    pub fn path_errors(&self) -> u64 {
        self.path_errors
    }

    /// When something is to be done by itself: retransmission, probes, announcements.
    pub fn next_ns(&self) -> Option<u64> {
        [self.iface.next_ns(), self.tcp.next_ns()].into_iter().flatten().min()
    }

    fn checked(&self, spec: FlowSpec) -> Result<FlowSpec, HostError> {
        let spec = address::checked(spec, self.has_ipv6)?;
        if spec.remote.is_ipv4() && !self.has_ipv4 { Err(HostError::Family) } else { Ok(spec) }
    }

    /// Both ends of a flow; `None`: there is no route, or no usable address of ours.
    fn ends(&self, spec: FlowSpec) -> Option<Ends> {
        let source = match spec.local_addr {
            Some(local) => Some(local).filter(|local| self.iface.is_usable(*local)),
            None => self.iface.source(self.now_ns, spec.remote.ip()),
        };
        let port = *self.ports.get(usize::from(spec.local_port))?;
        Some(Ends { local: SocketAddr::new(source?, port), remote: spec.remote })
    }

    /// Looks the flow's way up, and what is to become of its next datagram.
    fn find_way(&mut self, id: u32, spec: FlowSpec) -> Open {
        let Some(ends) = self.ends(spec) else { return Open::Lost };
        let way = match self.iface.path(self.now_ns, ends.remote.ip(), Asker::Own) {
            Ok(path) => self.iface.udp_template(&path, ends.local, ends.remote).map(|template| (path, template)),
            Err(PathFailure::Unresolved) => return Open::Parked(ends),
            Err(PathFailure::NoRoute) => None,
        };
        let Some(flow) = self.flows.get_mut(id) else { return Open::Lost };
        flow.way = way;
        if way.is_none() {
            return Open::Lost;
        }
        // Those that waited go first.
        self.unpark();
        Open::Frame(id)
    }

    fn unpark(&mut self) {
        if self.parking.is_empty() {
            return;
        }
        let Self { parking, iface, port, now_ns, counters, .. } = self;
        parking.offer(*now_ns, &mut |ends, payload| {
            let path = match iface.path(*now_ns, ends.remote.ip(), Asker::Own) {
                Ok(path) => path,
                Err(PathFailure::Unresolved) => return Offered::Waits,
                Err(PathFailure::NoRoute) => return Offered::Failed,
            };
            let Some(template) = iface.udp_template(&path, ends.local, ends.remote) else { return Offered::Failed };
            let Some(frame) = port.frame() else { return Offered::Waits };
            let at = template.header_bytes();
            let Some(space) = frame.get_mut(at..at + payload.len()) else { return Offered::Failed };
            space.copy_from_slice(payload);
            let len = template.complete(frame, payload.len());
            port.commit(len);
            counters.tx_datagrams += 1;
            counters.tx_bytes += payload.len() as u64;
            Offered::Sent
        });
        counters.tx_failed += parking.take_failed();
    }

    /// Says what the network layer has to say, and nothing else.
    fn say_now(&mut self) {
        let Self { port, iface, now_ns, reserved_frames, .. } = self;
        iface.egress(*now_ns, &mut Share { port, reserve: *reserved_frames, answers_below: 0 });
        self.port.flush(self.now_ns);
    }

    /// What is not RTP: answers of the network layer, sockets, TCP.
    fn egress(&mut self) {
        let Self { port, iface, tcp, sockets, now_ns, reserved_frames, .. } = self;
        if let Some(sockets) = sockets {
            sockets.poll(*now_ns, tcp, &|to| iface.source(*now_ns, to));
        }
        let mut segments = Segments { share: Share { port, reserve: *reserved_frames, answers_below: 0 }, iface, now_ns: *now_ns };
        // Before TCP what must not be crowded out by it; after it what it has left room for, and neighbours that it wants. Answers keep to
        // TCP's limit too: whoever asks for many would otherwise keep the queue longer than that, and TCP waiting.
        segments.iface.egress(*now_ns, &mut segments.share);
        tcp.egress(*now_ns, &mut segments);
        segments.share.answers_below = tcp.ifq_limit().min(ANSWER_FRAMES);
        segments.iface.egress(*now_ns, &mut segments.share);
    }
}

/// What an ICMP error means to TCP.
fn tcp_error(kind: PathErrorKind) -> IcmpError {
    match kind {
        PathErrorKind::Unreachable => IcmpError::Unreachable,
        PathErrorKind::Refused => IcmpError::Refused,
        PathErrorKind::PacketTooBig { mtu_bytes } => IcmpError::PacketTooBig { mtu_bytes },
    }
}

/// The way of frames inwards, with what they need of a host.
struct Inward<'a> {
    iface: &'a mut Interface,
    tcp: &'a mut Tcp,
    counters: &'a mut HostCounters,
    flows: &'a mut Slots<Flow>,
    path_errors: &'a mut u64,
    path_error_rate: &'a mut Bucket,
    ports: [u16; 2],
    listeners: &'a Listeners,
    now_ns: u64,
    shown: usize,
}

impl Inward<'_> {
    fn frame(&mut self, frame: &[u8], sink: &mut dyn FnMut(Received, &[u8])) {
        match self.iface.ingress(self.now_ns, frame) {
            Ingress::Nothing => {}
            Ingress::Tcp { from, to, segment, via } => {
                if self.tcp.ingress_via(self.now_ns, Some(via), from, to, segment) {
                    self.iface.confirmed(self.now_ns, from, via);
                }
            }
            Ingress::Udp { from, to, payload, packet } => match self.local_port(to) {
                Some(local_port) => {
                    self.shown += 1;
                    self.counters.rx_datagrams += 1;
                    self.counters.rx_bytes += payload.len() as u64;
                    sink(Received { local_port: local_port as u8, remote: from }, payload);
                }
                None => self.iface.refuse_udp(self.now_ns, from.ip(), to.ip(), packet),
            },
            Ingress::Error(PathError { local, remote, protocol: TCP, header, kind }) => {
                self.tcp.icmp_error(self.now_ns, local, remote, header, tcp_error(kind));
            }
            Ingress::Error(error) => self.flow_error(error),
        }
    }

    /// Which of our ports a datagram is for. What is sent to a group is for nobody but who listens to it.
    fn local_port(&self, to: SocketAddr) -> Option<usize> {
        let own = self.ports.iter().position(|port| *port == to.port() && !to.ip().is_multicast());
        own.or_else(|| self.listeners.find(to).map(|nth| self.ports.len() + nth))
    }

    /// An error about a datagram of a flow. Where packets are too big they may be cut from now on, as the kernel does it; only IPv4 can.
    fn flow_error(&mut self, PathError { remote, header, kind, .. }: PathError<'_>) {
        *self.path_errors += 1;
        let Some(&[from_high, from_low, to_high, to_low]) = header.first_chunk::<4>() else { return };
        let (from, to) = (u16::from_be_bytes([from_high, from_low]), u16::from_be_bytes([to_high, to_low]));
        if !matches!(kind, PathErrorKind::PacketTooBig { .. }) || !remote.is_ipv4() || !self.path_error_rate.take(self.now_ns) {
            return;
        }
        let remote = SocketAddr::new(remote, to);
        for flow in self.flows.iter_mut() {
            let port = self.ports.get(usize::from(flow.spec.local_port));
            flow.narrow |= flow.spec.remote == remote && port == Some(&from);
        }
    }
}

impl<P: Port> Host for StackHost<P> {
    type Stream = StackStream;

    fn local_ports(&self) -> &[u16] {
        &self.ports
    }

    fn max_datagram_bytes(&self) -> usize {
        self.max_datagram_bytes
    }

    fn open_flow(&mut self, spec: FlowSpec) -> Result<FlowId, HostError> {
        let spec = self.checked(spec)?;
        let id = self.flows.insert(Flow { spec, way: None, narrow: false }).map_err(|_| HostError::TableFull)?;
        // Asks for the neighbour now, so that it is known when the first datagram is due.
        self.find_way(id, spec);
        Ok(FlowId(id))
    }

    fn redirect_flow(&mut self, flow: FlowId, remote: SocketAddr) -> Result<(), HostError> {
        let old = self.flows.get(flow.0).ok_or(HostError::Unknown)?.spec;
        let spec = self.checked(FlowSpec { remote, ..old })?;
        if let Some(entry) = self.flows.get_mut(flow.0) {
            *entry = Flow { spec, way: None, narrow: false };
        }
        self.open = Open::Nothing;
        self.find_way(flow.0, spec);
        Ok(())
    }

    fn close_flow(&mut self, flow: FlowId) {
        self.open = Open::Nothing;
        self.flows.remove(flow.0);
    }

    fn receive_every_ns(&self) -> u64 {
        0
    }

    fn datagram(&mut self, flow: FlowId) -> Option<&mut [u8]> {
        self.open = Open::Nothing;
        let entry = self.flows.get(flow.0)?;
        if self.queued >= self.tx_frames {
            return None;
        }
        let spec = entry.spec;
        self.open = match &entry.way {
            Some((path, _)) if self.iface.holds(self.now_ns, path) => Open::Frame(flow.0),
            _ => self.find_way(flow.0, spec),
        };
        let Open::Frame(_) = self.open else { return self.parking.space() };
        let at = self.flows.get(flow.0)?.way.as_ref()?.1.header_bytes();
        let payload = self.port.frame().and_then(|frame| frame.get_mut(at..at + self.max_datagram_bytes));
        if payload.is_none() {
            self.open = Open::Nothing;
            self.counters.tx_backpressure += 1;
        }
        payload
    }

    fn commit(&mut self, len: usize) {
        let len = len.min(self.max_datagram_bytes);
        match std::mem::replace(&mut self.open, Open::Nothing) {
            Open::Nothing => return,
            Open::Frame(id) => {
                let Some(flow) = self.flows.get(id) else { return };
                let (Some((_, template)), Some(frame)) = (&flow.way, self.port.frame()) else { return };
                let total = template.complete(frame, len);
                if flow.narrow {
                    self.identification = self.identification.wrapping_add(1);
                    template.allow_cutting(frame, self.identification);
                }
                self.port.commit(total);
                self.counters.tx_datagrams += 1;
                self.counters.tx_bytes += len as u64;
            }
            Open::Parked(ends) => self.parking.park(self.now_ns, ends, len),
            Open::Lost => {
                self.failed += 1;
                self.counters.tx_failed += 1;
            }
        }
        self.queued += 1;
    }

    fn queued(&self) -> usize {
        self.queued
    }

    fn flush(&mut self, now_ns: u64) -> Flushed {
        self.now_ns = self.now_ns.max(now_ns);
        self.open = Open::Nothing;
        self.unpark();
        self.counters.tx_calls += u64::from(self.queued > 0);
        self.port.flush(now_ns);
        Flushed { done: std::mem::take(&mut self.queued) as u32, failed: std::mem::take(&mut self.failed) }
    }

    fn receive(&mut self, now_ns: u64, limit: usize, sink: &mut dyn FnMut(Received, &[u8])) -> usize {
        self.now_ns = self.now_ns.max(now_ns);
        self.open = Open::Nothing;
        let Self { port, iface, tcp, flows, counters, path_errors, path_error_rate, ports, listeners, now_ns, rx_frames_per_turn, .. } =
            self;
        let (ports, now_ns) = (*ports, *now_ns);
        let mut inward = Inward { iface, tcp, flows, counters, path_errors, path_error_rate, ports, listeners, now_ns, shown: 0 };
        let mut frames_left = *rx_frames_per_turn;
        while frames_left > 0 && inward.shown < limit {
            // No frame holds more than one datagram.
            let burst = RX_BURST.min(frames_left).min(limit - inward.shown);
            let count = port.receive(now_ns, burst, &mut |frame| inward.frame(frame, sink));
            frames_left -= count.min(frames_left);
            if count < burst {
                break;
            }
        }
        inward.shown
    }

    fn listen(&mut self, addr: SocketAddr) -> Result<u8, HostError> {
        self.open = Open::Nothing;
        self.listen_at(addr)
    }

    fn attach_stream(&mut self, stream: StackStream) -> Result<StreamId, HostError> {
        let Self { iface, tcp, sockets, now_ns, .. } = self;
        let (conn, socket) = match stream {
            StackStream::Own(conn) => (Some(conn), None),
            StackStream::Lent(lent) => {
                let socket = lent.take();
                let source = |to: IpAddr| iface.source(*now_ns, to);
                (sockets.as_mut().and_then(|sockets| sockets.borrow(*now_ns, tcp, &source, socket)), Some(socket))
            }
        };
        let attached = conn.map(|conn| Attached { conn, socket });
        let result = match attached {
            Some(attached) => self.streams.insert(attached).map(StreamId).map_err(|_| HostError::TableFull),
            None => Err(HostError::Unknown),
        };
        if result.is_err() {
            self.give_up(conn, socket);
        }
        result
    }

    fn stream_send(&mut self, stream: StreamId, parts: &[&[u8]]) -> Result<(), StreamError> {
        let conn = self.streams.get(stream.0).ok_or(StreamError::Closed)?.conn;
        match self.tcp.send_all(conn, parts) {
            Ok(true) => {
                self.counters.stream_tx_bytes += parts.iter().map(|part| part.len() as u64).sum::<u64>();
                Ok(())
            }
            Ok(false) => Err(StreamError::Full),
            Err(_) => Err(StreamError::Closed),
        }
    }

    fn stream_queued_bytes(&self, stream: StreamId) -> usize {
        self.streams.get(stream.0).map_or(0, |attached| self.tcp.send_queued_bytes(attached.conn))
    }

    fn flush_streams(&mut self, now_ns: u64) {
        self.now_ns = self.now_ns.max(now_ns);
        self.open = Open::Nothing;
        let before = self.port.queued();
        self.unpark();
        self.egress();
        if self.port.queued() != 0 || before != 0 {
            self.port.flush(now_ns);
        }
    }

    fn detach_stream(&mut self, stream: StreamId) {
        if let Some(attached) = self.streams.remove(stream.0) {
            self.give_up(Some(attached.conn), attached.socket);
        }
    }

    fn wait(&mut self, timeout_ns: u64, wake: RawFd) {
        let may_sleep = self.sockets.as_ref().is_none_or(SocketEngine::lie_down);
        let timer_ns = self.next_ns().map_or(u64::MAX, |at_ns| at_ns.saturating_sub(self.now_ns));
        if may_sleep {
            self.port.wait(timeout_ns.min(timer_ns), wake);
        }
        if let Some(sockets) = &self.sockets {
            sockets.get_up();
        }
    }

    fn counters(&self) -> HostCounters {
        HostCounters { streams: self.streams.len(), flows: self.flows.len(), ..self.counters }
    }

    fn own_layers(&self) -> Option<Layers> {
        let (port, iface, tcp) = self.layers();
        Some(Layers { port, iface, tcp, ..Layers::default() })
    }
}

impl<P: Port> StackHost<P> {
    /// Lets go of a connection.
    fn give_up(&mut self, conn: Option<ConnId>, socket: Option<SocketId>) {
        match (socket, conn) {
            (Some(socket), _) => {
                if let Some(sockets) = &mut self.sockets {
                    sockets.give_back(socket);
                }
            }
            (None, Some(conn)) => self.tcp.close(conn),
            (None, None) => {}
        }
    }
}

#[cfg(test)]
mod tests;
