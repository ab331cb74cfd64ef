//! The `Host` seam: what delivery needs of a network.
//!
//! One engine core owns one host and calls it from one thread. A host owns a few local UDP ports (all sessions of the core share
//! them: flows are told apart by the remote address), a table of flows, and byte streams handed over by the control core.
//!
//! ```text
//! datagram(flow) -> &mut [u8]   the next free transmit frame; the caller writes the payload into it
//! commit(len)                   queues that frame
//! flush()                       hands all queued frames over, in order, in as few system calls as possible
//! ```
//!
//! A frame that could not be handed over stays queued and goes first in the next flush: backpressure, not loss.

use std::net::{IpAddr, SocketAddr};

use crate::exchange::ExchangeCounters;
use crate::iface::IfaceCounters;
use crate::port::PortCounters;
use crate::tcp::TcpCounters;

/// A UDP flow of one host: a local port and a remote address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FlowId(pub u32);

/// A byte stream of one host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamId(pub u32);

/// Where a flow goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowSpec {
    /// Index of the host's local UDP port that the flow sends from and receives at (see [`Host::local_ports`]).
    pub local_port: u8,
    /// Source address to send from; `None` leaves the choice to routing.
    pub local_addr: Option<IpAddr>,
    /// The peer.
    pub remote: SocketAddr,
}

/// A datagram that arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// Index of the local port it arrived at.
    pub local_port: u8,
    /// Who sent it. IPv4 senders appear as IPv4 addresses, never as mapped IPv6 ones.
    pub remote: SocketAddr,
}

/// Result of a flush.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flushed {
    /// Frames that left the queue, counted from its head in commit order (sent or failed for good).
    pub done: u32,
    /// Of these, how many failed for good (for instance: no route).
    pub failed: u32,
}

/// Why a host refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    /// The table of flows or of streams has no room; its size is set at start.
    #[error("the host's table of flows or streams is full")]
    TableFull,
    /// No such local port, flow or stream.
    #[error("no such port, flow or stream on this host")]
    Unknown,
    /// This host cannot listen there: it has no such address, or something else has the port.
    #[error("this host cannot listen at that address")]
    Listen,
    /// The interface or its driver does not let in what is sent there.
    #[error("the interface or its driver cannot let in what is sent to that address")]
    Device,
    /// The address family of the remote has no socket here (for instance: IPv6 is off).
    #[error("this host cannot reach that address family")]
    Family,
}

/// Why a byte stream did not take data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StreamError {
    /// Not enough room in the send queue now: nothing was taken, try again later.
    #[error("the stream's send queue is full")]
    Full,
    /// The peer closed or reset the stream, or it is unknown: nothing will ever be taken again.
    #[error("the stream is closed")]
    Closed,
}

/// Counters of a host since start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HostCounters {
    /// Datagrams handed over.
    pub tx_datagrams: u64,
    /// Payload bytes of these.
    pub tx_bytes: u64,
    /// Calls into the layer below that handed them over (system calls, ring kicks).
    pub tx_calls: u64,
    /// Datagrams that failed for good.
    pub tx_failed: u64,
    /// Flushes that ended early because the layer below was full.
    pub tx_backpressure: u64,
    /// Datagrams received.
    pub rx_datagrams: u64,
    /// Payload bytes of these.
    pub rx_bytes: u64,
    /// Datagrams that arrived and were dropped unread: longer than a receive buffer.
    pub rx_dropped: u64,
    /// Bytes written to byte streams.
    pub stream_tx_bytes: u64,
    /// Streams attached now.
    pub streams: u32,
    /// Flows open now.
    pub flows: u32,
}

/// Counters of our own stack, by layer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Layers {
    /// The port.
    pub port: PortCounters,
    /// Link and network layer.
    pub iface: IfaceCounters,
    /// TCP.
    pub tcp: TcpCounters,
    /// Frames that the driver steered to the port, and those that it left to the kernel; where there is such a driver.
    pub steered: Option<(u64, u64)>,
    /// Frames for us that came by queues of the interface that nobody serves; where there is such a driver.
    pub unserved: Option<u64>,
    /// What went between cores that share an interface.
    pub exchanged: ExchangeCounters,
}

/// What delivery needs of a network. All calls come from one engine core; none blocks, and none allocates after start
/// except `attach_stream`, `open_flow` and their counterparts (control operations).
pub trait Host {
    /// What the control core hands over as a byte stream (a connected TCP socket, a connection of our own stack).
    type Stream: Send + 'static;

    /// The bound local UDP ports, by index. Port 0 and port 1 are an even/odd pair.
    fn local_ports(&self) -> &[u16];

    /// Largest payload that a frame takes.
    fn max_datagram_bytes(&self) -> usize;

    /// Opens a flow.
    ///
    /// # Errors
    /// [`HostError::TableFull`], [`HostError::Unknown`] (local port), [`HostError::Family`].
    fn open_flow(&mut self, spec: FlowSpec) -> Result<FlowId, HostError>;

    /// Sends the flow to another remote address from now on. Frames committed before still go to the old one.
    ///
    /// # Errors
    /// [`HostError::Unknown`], [`HostError::Family`].
    fn redirect_flow(&mut self, flow: FlowId, remote: SocketAddr) -> Result<(), HostError>;

    /// Forgets a flow. Frames that are queued for it are still sent.
    fn close_flow(&mut self, flow: FlowId);

    /// A datagram for this flow comes soon: what the host keeps of it should be in the processor's cache by then.
    fn prefetch_flow(&self, _flow: FlowId) {}

    /// How often it is worth asking for datagrams while there is other work, nanoseconds: 0 where asking costs nothing, more where it is
    /// a system call.
    fn receive_every_ns(&self) -> u64 {
        500_000
    }

    /// The last [`wait`](Host::wait) ended because datagrams had arrived, and nobody has asked for them since.
    fn has_arrivals(&self) -> bool {
        false
    }

    /// The next free transmit frame, to be filled and committed; `None` when the queue is full (flush) or the flow unknown.
    fn datagram(&mut self, flow: FlowId) -> Option<&mut [u8]>;

    /// Queues the frame that the last `datagram` gave out, with `len` payload bytes. Without an open frame it does nothing.
    fn commit(&mut self, len: usize);

    /// Frames queued and not yet handed over.
    fn queued(&self) -> usize;

    /// Hands queued frames over, those of each local port in order.
    fn flush(&mut self, now_ns: u64) -> Flushed;

    /// Takes up to `limit` datagrams that have arrived and shows each to `sink`. Returns how many there were.
    fn receive(&mut self, now_ns: u64, limit: usize, sink: &mut dyn FnMut(Received, &[u8])) -> usize;

    /// Receives at `addr` as well, a multicast group included; what arrives there has the number of the answer as its
    /// [`Received::local_port`]. A control operation.
    ///
    /// # Errors
    /// [`HostError::TableFull`], [`HostError::Listen`], [`HostError::Family`], [`HostError::Device`]. Hosts that cannot do this answer
    /// [`HostError::Unknown`].
    fn listen(&mut self, addr: SocketAddr) -> Result<u8, HostError> {
        let _ = addr;
        Err(HostError::Unknown)
    }

    /// Takes over the sending side of a byte stream.
    ///
    /// # Errors
    /// [`HostError::TableFull`].
    fn attach_stream(&mut self, stream: Self::Stream) -> Result<StreamId, HostError>;

    /// Queues the parts, one after another, all or nothing. Written out at the next `flush_streams`. Parts that are together longer than
    /// the whole queue never fit.
    ///
    /// # Errors
    /// [`StreamError::Full`], [`StreamError::Closed`].
    fn stream_send(&mut self, stream: StreamId, parts: &[&[u8]]) -> Result<(), StreamError>;

    /// Bytes queued on the stream and not yet taken by the layer below. 0 for an unknown stream.
    fn stream_queued_bytes(&self, stream: StreamId) -> usize;

    /// Writes queued stream bytes out as far as the peers take them, in calls of 32 KiB at most.
    fn flush_streams(&mut self, now_ns: u64);

    /// Whether what is queued on the stream from now on is written out before what others have.
    fn prefer_stream(&mut self, _stream: StreamId, _preferred: bool) {}

    /// Writes out at most `limit` streams of those that are preferred, or of the others; true when there are more. A host whose turns are
    /// short whatever is queued writes all of them with the preferred ones.
    fn flush_streams_up_to(&mut self, now_ns: u64, preferred: bool, _limit: usize) -> bool {
        if preferred {
            self.flush_streams(now_ns);
        }
        false
    }

    /// Gives the stream up; what is queued is offered once more, the rest is dropped. Our handle of it is closed; the control core's
    /// own handle decides about the connection.
    fn detach_stream(&mut self, stream: StreamId);

    /// Sleeps until something arrives, `wake` becomes readable (an eventfd; −1 for none), or `timeout_ns` pass. Poll-mode hosts and
    /// simulated ones return at once. May return early; what arrives need not end a sleep that is no longer than
    /// [`receive_every_ns`](Host::receive_every_ns).
    fn wait(&mut self, timeout_ns: u64, wake: std::os::fd::RawFd);

    /// Counters since start.
    fn counters(&self) -> HostCounters;

    /// Counters of the layers of our own stack; `None` on kernel sockets.
    fn own_layers(&self) -> Option<Layers> {
        None
    }
}
