//! The `Port` seam: a driver's face.
//!
//! One engine core owns one port (a queue of a network interface) and calls it from one thread. A port moves Ethernet frames and knows
//! nothing of what is in them.
//!
//! ```text
//! receive(limit, sink)      shows each frame that has arrived; the frame's buffer goes back when the sink returns
//! frame() -> &mut [u8]      the next free transmit frame, at least `frame_bytes()` long
//! commit(len)               queues it
//! flush()                   hands what is queued to the device and takes back what the device has finished with
//! ```
//!
//! The *interface queue* of IFQ limiting (SYSTEMS: SAPS) is [`Port::queued`]: frames committed and not yet reported as sent. State
//! machines never answer a frame from within `sink`; they note what is to be said and say it in their egress pass, so that a port is
//! never borrowed twice.
//!
//! Decorators, which stand between a port and its user: [`trace`] writes what passes to a pcap file, [`fault`] drops, corrupts and refuses
//! from a seed.

pub mod fault;
pub mod trace;

use std::net::SocketAddr;

/// Counters of a port since start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortCounters {
    /// Frames received and shown.
    pub rx_frames: u64,
    /// Bytes of these.
    pub rx_bytes: u64,
    /// Frames that the device or the kernel dropped before they could be shown, as far as it tells.
    pub rx_dropped: u64,
    /// Frames that the device has taken.
    pub tx_frames: u64,
    /// Bytes of these.
    pub tx_bytes: u64,
    /// Frames that the device reported as sent.
    pub tx_completed: u64,
    /// Frames that were lost on the way to the device (a bad descriptor, an interface that went down).
    pub tx_failed: u64,
    /// Calls into the layer below that handed frames over (system calls, doorbells).
    pub tx_calls: u64,
    /// Times a frame was asked for and none was free.
    pub tx_full: u64,
}

/// Why a port does not let in what is sent to an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PortRefusal {
    /// Another core that shares the interface has the UDP port, or there are too many.
    #[error("another core that shares the interface has the UDP port, or there are too many")]
    Taken,
    /// The interface or its driver refused.
    #[error("the interface or its driver cannot let it in")]
    Device,
}

/// A queue of a network interface, owned by one engine core. No call blocks (but [`Port::wait`]), allocates or panics.
pub trait Port {
    /// The hardware address that frames are sent from.
    fn mac(&self) -> [u8; 6];

    /// Bytes of the largest IP packet that the link carries (without Ethernet header and checksum).
    fn mtu_bytes(&self) -> usize;

    /// Bytes of a transmit frame: at least 18 + [`Port::mtu_bytes`], room for an Ethernet header with a VLAN tag.
    fn frame_bytes(&self) -> usize;

    /// Shows up to `limit` frames that have arrived, in order of arrival, without the frame check sequence. Returns how many there were.
    fn receive(&mut self, now_ns: u64, limit: usize, sink: &mut dyn FnMut(&[u8])) -> usize;

    /// The next free transmit frame; its content is whatever its last user left. `None` when all are in use. Asking again before a
    /// commit gives the same frame.
    fn frame(&mut self) -> Option<&mut [u8]>;

    /// Queues the frame that the last `frame` gave out, with `len` bytes of it. Without an open frame it does nothing. The driver pads
    /// short frames if its device needs that.
    fn commit(&mut self, len: usize);

    /// Hands committed frames to the device, in order, and takes back those that it has finished with. Returns how many frames were
    /// completed since the last flush.
    fn flush(&mut self, now_ns: u64) -> usize;

    /// Length of the interface queue: frames committed and not yet completed.
    fn queued(&self) -> usize;

    /// Frames that can be queued at once.
    fn capacity(&self) -> usize;

    /// Lets in UDP to `addr` as well, for as long as the port is there: a multicast group, or a port at any address of ours. Routers are told
    /// of a group by the port's user; what these ask (IGMP and MLD queries) is shown from then on. Ports that show everything have nothing
    /// to do. A control operation.
    ///
    /// # Errors
    /// [`PortRefusal`].
    fn listen(&mut self, addr: SocketAddr) -> Result<(), PortRefusal> {
        let _ = addr;
        Ok(())
    }

    /// Sleeps until a frame arrives, a frame is completed, `wake` becomes readable (an eventfd; −1 for none), or `timeout_ns` pass. May
    /// return early. Ports that are only polled, and simulated ones, return at once.
    fn wait(&mut self, timeout_ns: u64, wake: std::os::fd::RawFd);

    /// Counters since start.
    fn counters(&self) -> PortCounters;
}

impl<P: Port + ?Sized> Port for Box<P> {
    fn mac(&self) -> [u8; 6] {
        (**self).mac()
    }

    fn mtu_bytes(&self) -> usize {
        (**self).mtu_bytes()
    }

    fn frame_bytes(&self) -> usize {
        (**self).frame_bytes()
    }

    fn receive(&mut self, now_ns: u64, limit: usize, sink: &mut dyn FnMut(&[u8])) -> usize {
        (**self).receive(now_ns, limit, sink)
    }

    fn frame(&mut self) -> Option<&mut [u8]> {
        (**self).frame()
    }

    fn commit(&mut self, len: usize) {
        (**self).commit(len);
    }

    fn flush(&mut self, now_ns: u64) -> usize {
        (**self).flush(now_ns)
    }

    fn queued(&self) -> usize {
        (**self).queued()
    }

    fn capacity(&self) -> usize {
        (**self).capacity()
    }

    fn listen(&mut self, addr: SocketAddr) -> Result<(), PortRefusal> {
        (**self).listen(addr)
    }

    fn wait(&mut self, timeout_ns: u64, wake: std::os::fd::RawFd) {
        (**self).wait(timeout_ns, wake);
    }

    fn counters(&self) -> PortCounters {
        (**self).counters()
    }
}

#[cfg(test)]
mod fake;
