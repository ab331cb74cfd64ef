//! The port of an engine core: whichever driver the configuration names.

use std::net::SocketAddr;
use std::os::fd::RawFd;

use stack::exchange::{ExchangeCounters, ExchangePort};
use stack::port::{Port, PortCounters, PortRefusal};

use crate::ports::af_xdp::AfXdpPort;
use crate::ports::tap::TapPort;

/// A port of whichever kind was asked for.
pub enum AnyPort {
    /// A queue of an interface, past the kernel's network stack.
    AfXdp(AfXdpPort),
    /// A TAP device.
    Tap(TapPort),
    /// One of several queues of an interface.
    AfXdpShared(ExchangePort<AfXdpPort>),
    /// One of several queues of a TAP device.
    TapShared(ExchangePort<TapPort>),
}

/// Calls the same method of whichever port it is.
macro_rules! either {
    ($self:expr, $port:ident => $call:expr) => {
        match $self {
            AnyPort::AfXdp($port) => $call,
            AnyPort::Tap($port) => $call,
            AnyPort::AfXdpShared($port) => $call,
            AnyPort::TapShared($port) => $call,
        }
    };
}

impl AnyPort {
    fn af_xdp(&self) -> Option<&AfXdpPort> {
        match self {
            Self::AfXdp(port) => Some(port),
            Self::AfXdpShared(shared) => Some(shared.port()),
            Self::Tap(_) | Self::TapShared(_) => None,
        }
    }

    /// Frames that were steered to us, and those that went to the kernel.
    pub fn steered(&self) -> Option<(u64, u64)> {
        self.af_xdp().map(AfXdpPort::steered)
    }

    /// Frames for us that came by queues that no engine core serves; the first engine core tells of all.
    pub fn unserved(&self) -> Option<u64> {
        self.af_xdp().map(AfXdpPort::unserved)
    }

    /// What went between engine cores.
    pub fn exchanged(&self) -> ExchangeCounters {
        match self {
            Self::AfXdp(_) | Self::Tap(_) => ExchangeCounters::default(),
            Self::AfXdpShared(shared) => shared.exchanged(),
            Self::TapShared(shared) => shared.exchanged(),
        }
    }

    /// What it is and how it works, in words for the start-up message.
    pub fn describe(&self) -> String {
        match self {
            Self::AfXdp(port) => port.describe(),
            Self::Tap(port) => port.describe(),
            Self::AfXdpShared(shared) => shared.port().describe(),
            Self::TapShared(shared) => shared.port().describe(),
        }
    }
}

impl Port for AnyPort {
    fn mac(&self) -> [u8; 6] {
        either!(self, port => port.mac())
    }

    fn mtu_bytes(&self) -> usize {
        either!(self, port => port.mtu_bytes())
    }

    fn frame_bytes(&self) -> usize {
        either!(self, port => port.frame_bytes())
    }

    fn receive(&mut self, now_ns: u64, limit: usize, sink: &mut dyn FnMut(&[u8])) -> usize {
        either!(self, port => port.receive(now_ns, limit, sink))
    }

    fn frame(&mut self) -> Option<&mut [u8]> {
        either!(self, port => port.frame())
    }

    fn commit(&mut self, len: usize) {
        either!(self, port => port.commit(len));
    }

    fn flush(&mut self, now_ns: u64) -> usize {
        either!(self, port => port.flush(now_ns))
    }

    fn queued(&self) -> usize {
        either!(self, port => port.queued())
    }

    fn capacity(&self) -> usize {
        either!(self, port => port.capacity())
    }

    fn listen(&mut self, addr: SocketAddr) -> Result<(), PortRefusal> {
        either!(self, port => port.listen(addr))
    }

    fn wait(&mut self, timeout_ns: u64, wake: RawFd) {
        either!(self, port => port.wait(timeout_ns, wake));
    }

    fn counters(&self) -> PortCounters {
        either!(self, port => port.counters())
    }
}
