//! The network of an engine core: kernel sockets or our own stack, and how connections are handed over to it.

use std::net::SocketAddr;
use std::os::fd::{OwnedFd, RawFd};

pub use stack::host::Layers;
use stack::host::{FlowId, FlowSpec, Flushed, Host, HostCounters, HostError, Received, StreamError, StreamId};
use stack::host_port::{StackHost, StackStream};
use stack::kernel::KernelHost;
pub use stack::sockets::{Aborter, Lent, Listener as OwnListener, SocketControl, Stream as OwnStream};
pub use stack::tcp::{TcpError, TcpOption};

pub use super::any_port::AnyPort;

/// A connection whose sending side an engine core is to have, as the control core hands it over.
#[derive(Debug)]
pub enum Handover {
    /// A duplicate of an operating system's socket.
    Socket(OwnedFd),
    /// A connection of the core's own stack, and what ends it.
    Connection(Lent, Aborter),
}

/// The same, as the engine core takes it.
#[derive(Debug)]
pub enum ByteStream {
    /// A duplicate of an operating system's socket.
    Socket(OwnedFd),
    /// A connection of the core's own stack.
    Connection(Lent),
}

impl From<Handover> for ByteStream {
    fn from(handover: Handover) -> Self {
        match handover {
            Handover::Socket(socket) => Self::Socket(socket),
            Handover::Connection(lent, _) => Self::Connection(lent),
        }
    }
}

/// The network of an engine core.
#[expect(clippy::large_enum_variant, reason = "an engine core has one, for as long as it runs")]
pub enum AnyHost {
    /// Kernel sockets.
    Kernel(KernelHost),
    /// Our own stack.
    Own(Box<StackHost<AnyPort>>),
}

impl AnyHost {
    /// What it is, in words for the start-up message and the JSON.
    pub fn describe(&self) -> String {
        match self {
            Self::Kernel(_) => "kernel sockets".to_owned(),
            Self::Own(host) => format!("own stack on {}", host.port().describe()),
        }
    }
}

/// Calls the same method of whichever host it is.
macro_rules! either {
    ($self:expr, $host:ident => $call:expr) => {
        match $self {
            AnyHost::Kernel($host) => $call,
            AnyHost::Own($host) => $call,
        }
    };
}

impl Host for AnyHost {
    type Stream = ByteStream;

    fn local_ports(&self) -> &[u16] {
        either!(self, host => host.local_ports())
    }

    fn max_datagram_bytes(&self) -> usize {
        either!(self, host => host.max_datagram_bytes())
    }

    fn open_flow(&mut self, spec: FlowSpec) -> Result<FlowId, HostError> {
        either!(self, host => host.open_flow(spec))
    }

    fn redirect_flow(&mut self, flow: FlowId, remote: SocketAddr) -> Result<(), HostError> {
        either!(self, host => host.redirect_flow(flow, remote))
    }

    fn close_flow(&mut self, flow: FlowId) {
        either!(self, host => host.close_flow(flow));
    }

    fn prefetch_flow(&self, flow: FlowId) {
        either!(self, host => host.prefetch_flow(flow));
    }

    fn receive_every_ns(&self) -> u64 {
        either!(self, host => host.receive_every_ns())
    }

    fn has_arrivals(&self) -> bool {
        either!(self, host => host.has_arrivals())
    }

    fn datagram(&mut self, flow: FlowId) -> Option<&mut [u8]> {
        either!(self, host => host.datagram(flow))
    }

    fn commit(&mut self, len: usize) {
        either!(self, host => host.commit(len));
    }

    fn queued(&self) -> usize {
        either!(self, host => host.queued())
    }

    fn flush(&mut self, now_ns: u64) -> Flushed {
        either!(self, host => host.flush(now_ns))
    }

    fn receive(&mut self, now_ns: u64, limit: usize, sink: &mut dyn FnMut(Received, &[u8])) -> usize {
        either!(self, host => host.receive(now_ns, limit, sink))
    }

    fn listen(&mut self, addr: SocketAddr) -> Result<u8, HostError> {
        either!(self, host => host.listen(addr))
    }

    fn attach_stream(&mut self, stream: ByteStream) -> Result<StreamId, HostError> {
        match (self, stream) {
            (Self::Kernel(host), ByteStream::Socket(socket)) => host.attach_stream(socket),
            (Self::Own(host), ByteStream::Connection(lent)) => host.attach_stream(StackStream::Lent(lent)),
            (Self::Kernel(_), ByteStream::Connection(_)) | (Self::Own(_), ByteStream::Socket(_)) => Err(HostError::Unknown),
        }
    }

    fn stream_send(&mut self, stream: StreamId, parts: &[&[u8]]) -> Result<(), StreamError> {
        either!(self, host => host.stream_send(stream, parts))
    }

    fn stream_queued_bytes(&self, stream: StreamId) -> usize {
        either!(self, host => host.stream_queued_bytes(stream))
    }

    fn flush_streams(&mut self, now_ns: u64) {
        either!(self, host => host.flush_streams(now_ns));
    }

    fn prefer_stream(&mut self, stream: StreamId, preferred: bool) {
        either!(self, host => host.prefer_stream(stream, preferred));
    }

    fn flush_streams_up_to(&mut self, now_ns: u64, preferred: bool, limit: usize) -> bool {
        either!(self, host => host.flush_streams_up_to(now_ns, preferred, limit))
    }

    fn detach_stream(&mut self, stream: StreamId) {
        either!(self, host => host.detach_stream(stream));
    }

    fn wait(&mut self, timeout_ns: u64, wake: RawFd) {
        either!(self, host => host.wait(timeout_ns, wake));
    }

    fn counters(&self) -> HostCounters {
        either!(self, host => host.counters())
    }

    fn own_layers(&self) -> Option<Layers> {
        match self {
            Self::Kernel(_) => None,
            Self::Own(host) => host.own_layers().map(|layers| {
                let port = host.port();
                Layers { steered: port.steered(), unserved: port.unserved(), exchanged: port.exchanged(), ..layers }
            }),
        }
    }
}
