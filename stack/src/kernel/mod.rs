//! The [`Host`] seam on kernel sockets: no privileges, every machine.
//!
//! ```text
//!              flow table                transmit ring             sendmmsg, one call per flush and port
//! datagram ─► [ envelope ] ──────────► [ frame frame frame ] ────► UDP socket, even port   (RTP)
//!                                                           └────► UDP socket, odd port    (RTCP)
//! stream_send ─► ring per stream ───────────────────────────────► TCP sockets, one send per stream and flush
//! ```
//!
//! Both UDP sockets are unconnected and serve IPv4 and IPv6 together. All memory is taken, and touched, by [`KernelHost::bind`].
//!
//! Traps: loopback never pushes back (its packets are freed at once), so watch backpressure on a real or emulated link. A queueing
//! discipline that drops (rather than a full socket buffer) is silent: keep `socket_buffer_bytes` below what the device's queue holds.

mod bind;
mod envelope;
mod listen;
#[allow(unsafe_code)]
mod mmsg;
#[allow(unsafe_code)]
mod sockopt;
mod tcp;
mod tx;

use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::time::Duration;

use socket2::Socket;

pub use self::bind::{BindError, KernelConfig};
pub use self::sockopt::set_timer_slack_min;

use self::envelope::Envelope;
use self::mmsg::{RecvArrays, SendArrays};
use self::tx::{Frames, Message, Route, TxQueue, Wire};
use crate::address::{self, LOCAL_PORTS};
use crate::host::{FlowId, FlowSpec, Flushed, Host, HostCounters, HostError, Received, StreamError, StreamId};
use crate::slots::Slots;
use crate::streams::Streams;

/// Datagrams of one `recvmmsg`.
const RX_BATCH: usize = 64;
/// What is longer is dropped: RTCP fits an Ethernet frame.
const RX_BUFFER_BYTES: usize = 2048;
/// Further ports at most.
const LISTENERS_MAX: usize = 16;
/// RTCP can wait this long; asking for it is two system calls.
const RECEIVE_EVERY_NS: u64 = 1_000_000;
/// Longest sleep while something waits for room in a socket.
const BLOCKED_WAIT_NS_MAX: u64 = 1_000_000;

struct Flow {
    spec: FlowSpec,
    route: Route,
}

struct Sockets {
    udp: [Socket; LOCAL_PORTS],
    arrays: SendArrays,
    /// The kernel may cut datagrams into IP fragments.
    fragments: bool,
}

impl Wire for Sockets {
    fn send(&mut self, port: usize, frames: &Frames, messages: &[Message]) -> Result<usize, i32> {
        let sent = self.arrays.send(self.udp[port].as_fd(), frames, messages);
        let single = messages.first().is_some_and(|message| message.count == 1);
        if sent != Err(libc::EMSGSIZE) || self.fragments || !single {
            return sent;
        }
        // A path narrower than the datagram: from now on the kernel may cut. See `bind::forbid_fragments` for why not from the start.
        self.fragments = true;
        for socket in &self.udp {
            // A refusal leaves things as they are: the datagram fails.
            let _ = sockopt::set_int(socket.as_fd(), libc::SOL_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_WANT);
        }
        self.arrays.send(self.udp[port].as_fd(), frames, messages)
    }
}

/// One engine core's sockets.
pub struct KernelHost {
    ports: [u16; LOCAL_PORTS],
    ipv6: bool,
    gso: bool,
    sockets: Sockets,
    /// Further ports, which only receive.
    listeners: Vec<Socket>,
    listen_buffer_bytes: usize,
    flows: Slots<Flow>,
    epoch: u64,
    tx: TxQueue,
    rx: RecvArrays,
    rx_first: usize,
    rx_ready: bool,
    streams: Streams<OwnedFd>,
    counters: HostCounters,
    streams_flushed_ns: u64,
}

impl KernelHost {
    /// Binds the port pair and takes all memory. The second value tells, a line each, what the kernel granted.
    ///
    /// # Errors
    /// [`BindError`]: a setting out of range, all ports of the range in use, or the kernel's refusal.
    pub fn bind(config: KernelConfig) -> Result<(Self, Vec<String>), BindError> {
        let bound = bind::bind(&config)?;
        let host = Self {
            ports: bound.ports,
            ipv6: bound.ipv6,
            gso: bound.gso,
            sockets: Sockets { udp: bound.sockets, arrays: SendArrays::new(config.tx_frames), fragments: false },
            listeners: Vec::with_capacity(LISTENERS_MAX),
            listen_buffer_bytes: config.socket_buffer_bytes,
            flows: Slots::new(config.flows_max),
            epoch: 0,
            tx: TxQueue::new(config.tx_frames, config.max_datagram_bytes),
            rx: RecvArrays::new(RX_BATCH, RX_BUFFER_BYTES),
            rx_first: 0,
            rx_ready: false,
            streams: Streams::new(config.streams_max, config.stream_queue_bytes),
            counters: HostCounters::default(),
            streams_flushed_ns: 0,
        };
        Ok((host, bound.notes))
    }

    fn route(&mut self, spec: &FlowSpec) -> Route {
        self.epoch += 1;
        Route { envelope: Envelope::new(spec, self.ipv6), epoch: self.epoch, port: spec.local_port, join: self.gso }
    }

    /// How long to sleep at most: shorter while a socket is full.
    fn wait_ns(&self, timeout_ns: u64) -> u64 {
        let mut wait_ns = timeout_ns;
        if self.tx.queued() > 0 {
            wait_ns = wait_ns.min(BLOCKED_WAIT_NS_MAX);
        }
        let next_try_ns = self.streams.next_try_ns();
        if next_try_ns != u64::MAX {
            // Time has passed since that flush, but the seam does not say how much: a later retry is harmless.
            wait_ns = wait_ns.min(next_try_ns.saturating_sub(self.streams_flushed_ns).max(BLOCKED_WAIT_NS_MAX));
        }
        wait_ns
    }
}

impl Host for KernelHost {
    type Stream = OwnedFd;

    fn local_ports(&self) -> &[u16] {
        &self.ports
    }

    fn max_datagram_bytes(&self) -> usize {
        self.tx.frame_bytes()
    }

    fn open_flow(&mut self, spec: FlowSpec) -> Result<FlowId, HostError> {
        let spec = address::checked(spec, self.ipv6)?;
        let route = self.route(&spec);
        self.flows.insert(Flow { spec, route }).map(FlowId).map_err(|_| HostError::TableFull)
    }

    fn redirect_flow(&mut self, flow: FlowId, remote: SocketAddr) -> Result<(), HostError> {
        let spec = self.flows.get(flow.0).ok_or(HostError::Unknown)?.spec;
        let spec = address::checked(FlowSpec { remote, ..spec }, self.ipv6)?;
        let route = self.route(&spec);
        *self.flows.get_mut(flow.0).ok_or(HostError::Unknown)? = Flow { spec, route };
        Ok(())
    }

    fn close_flow(&mut self, flow: FlowId) {
        self.flows.remove(flow.0);
    }

    fn prefetch_flow(&self, flow: FlowId) {
        self.flows.prefetch(flow.0);
    }

    fn receive_every_ns(&self) -> u64 {
        RECEIVE_EVERY_NS
    }

    fn has_arrivals(&self) -> bool {
        self.rx_ready
    }

    fn datagram(&mut self, flow: FlowId) -> Option<&mut [u8]> {
        let Some(found) = self.flows.get(flow.0) else {
            self.tx.cancel();
            return None;
        };
        self.tx.open(flow.0, &found.route)
    }

    fn commit(&mut self, len: usize) {
        self.tx.commit(len);
    }

    fn queued(&self) -> usize {
        self.tx.queued()
    }

    fn flush(&mut self, _now_ns: u64) -> Flushed {
        if self.tx.queued() == 0 {
            return Flushed::default();
        }
        let flushed = self.tx.flush(&mut self.sockets, &mut self.counters);
        if let Some((flow, epoch)) = self.tx.take_refused()
            && let Some(flow) = self.flows.get_mut(flow).filter(|flow| flow.route.epoch == epoch)
        {
            flow.route.join = false;
        }
        flushed
    }

    fn receive(&mut self, _now_ns: u64, limit: usize, sink: &mut dyn FnMut(Received, &[u8])) -> usize {
        let (mut taken, mut shown) = (0, 0);
        self.rx_ready = false;
        // Ports take turns at being first, so that a flood at one does not silence the other.
        let ports = LOCAL_PORTS + self.listeners.len();
        self.rx_first = (self.rx_first + 1) % ports;
        for nth in 0..ports {
            let port = (self.rx_first + nth) % ports;
            let Some(socket) = self.sockets.udp.get(port).or_else(|| self.listeners.get(port - LOCAL_PORTS)) else { continue };
            while taken < limit {
                let asked = (limit - taken).min(self.rx.len());
                // Errors here are an empty socket, or news of an earlier datagram; neither needs an answer.
                let Ok(count) = self.rx.receive(socket.as_fd(), asked) else { break };
                for at in 0..count {
                    let arrival = self.rx.arrival(at);
                    match arrival.remote {
                        Some(remote) if !arrival.truncated => {
                            shown += 1;
                            self.counters.rx_datagrams += 1;
                            self.counters.rx_bytes += arrival.bytes.len() as u64;
                            sink(Received { local_port: port as u8, remote }, arrival.bytes);
                        }
                        _ => self.counters.rx_dropped += 1,
                    }
                }
                taken += count;
                if count < asked {
                    break;
                }
            }
        }
        shown
    }

    fn listen(&mut self, addr: SocketAddr) -> Result<u8, HostError> {
        if self.listeners.len() == LISTENERS_MAX {
            return Err(HostError::TableFull);
        }
        let socket = listen::open(addr, self.listen_buffer_bytes).map_err(|_| HostError::Listen)?;
        self.listeners.push(socket);
        Ok((LOCAL_PORTS + self.listeners.len() - 1) as u8)
    }

    fn attach_stream(&mut self, stream: OwnedFd) -> Result<StreamId, HostError> {
        tcp::prepare(&stream);
        self.streams.attach(stream).ok_or(HostError::TableFull)
    }

    fn stream_send(&mut self, stream: StreamId, parts: &[&[u8]]) -> Result<(), StreamError> {
        self.streams.send(stream, parts)
    }

    fn stream_queued_bytes(&self, stream: StreamId) -> usize {
        self.streams.queued_bytes(stream)
    }

    fn flush_streams(&mut self, now_ns: u64) {
        self.streams_flushed_ns = now_ns;
        self.streams.flush(now_ns);
    }

    fn prefer_stream(&mut self, stream: StreamId, preferred: bool) {
        self.streams.prefer(stream, preferred);
    }

    fn flush_streams_up_to(&mut self, now_ns: u64, preferred: bool, limit: usize) -> bool {
        self.streams_flushed_ns = now_ns;
        self.streams.flush_up_to(now_ns, preferred, limit)
    }

    fn detach_stream(&mut self, stream: StreamId) {
        self.streams.detach(stream);
    }

    fn wait(&mut self, timeout_ns: u64, wake: RawFd) {
        if timeout_ns == 0 {
            return;
        }
        // The end of a sleep costs as much as sending ten packets. So none of the many short ones of a busy core ends for a datagram, which
        // will be asked for soon enough.
        let is_short = timeout_ns <= RECEIVE_EVERY_NS && self.tx.queued() == 0;
        if is_short {
            let [woken] = sockopt::wait_for([(wake, libc::POLLIN)], Duration::from_nanos(timeout_ns));
            if woken & libc::POLLIN != 0 {
                sockopt::drain_event(wake);
            }
            return;
        }
        let events = |port| if self.tx.pending(port) > 0 { libc::POLLIN | libc::POLLOUT } else { libc::POLLIN };
        let [rtp, rtcp] = &self.sockets.udp;
        // The kernel ignores what is negative.
        let mut files = [(-1, 0); 3 + LISTENERS_MAX];
        let own = [(wake, libc::POLLIN), (rtp.as_raw_fd(), events(0)), (rtcp.as_raw_fd(), events(1))];
        let listeners = self.listeners.iter().map(|socket| (socket.as_raw_fd(), libc::POLLIN));
        for (place, file) in files.iter_mut().zip(own.into_iter().chain(listeners)) {
            *place = file;
        }
        let [woken, ready @ ..] = sockopt::wait_for(files, Duration::from_nanos(self.wait_ns(timeout_ns)));
        self.rx_ready = ready.iter().any(|events| events & libc::POLLIN != 0);
        if woken & libc::POLLIN != 0 {
            sockopt::drain_event(wake);
        }
    }

    fn counters(&self) -> HostCounters {
        HostCounters { stream_tx_bytes: self.streams.tx_bytes(), streams: self.streams.len(), flows: self.flows.len(), ..self.counters }
    }
}

#[cfg(test)]
mod tests;
