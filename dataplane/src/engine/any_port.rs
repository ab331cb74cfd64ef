//! The port of an engine core: whichever driver the configuration names.

use std::os::fd::RawFd;

use stack::port::{Port, PortCounters};

use crate::ports::af_xdp::AfXdpPort;
use crate::ports::tap::TapPort;

/// A port of whichever kind was asked for.
#[expect(clippy::large_enum_variant, reason = "an engine core has one, for as long as it runs")]
pub enum AnyPort {
    /// A queue of an interface, past the kernel's network stack.
    AfXdp(AfXdpPort),
    /// A TAP device.
    Tap(TapPort),
}

/// Calls the same method of whichever port it is.
macro_rules! either {
    ($self:expr, $port:ident => $call:expr) => {
        match $self {
            AnyPort::AfXdp($port) => $call,
            AnyPort::Tap($port) => $call,
        }
    };
}

impl AnyPort {
    /// Frames that were steered to us, and those that went to the kernel.
    pub fn steered(&self) -> Option<(u64, u64)> {
        match self {
            Self::AfXdp(port) => Some(port.steered()),
            Self::Tap(_) => None,
        }
    }

    /// What it is and how it works, in words for the start-up message.
    pub fn describe(&self) -> String {
        either!(self, port => port.describe())
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

    fn wait(&mut self, timeout_ns: u64, wake: RawFd) {
        either!(self, port => port.wait(timeout_ns, wake));
    }

    fn counters(&self) -> PortCounters {
        either!(self, port => port.counters())
    }
}
