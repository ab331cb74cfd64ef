//! The port itself: counting, waiting, describing.

use std::net::{Ipv6Addr, SocketAddr};
use std::ops::Range;
use std::os::fd::RawFd;
use std::sync::Arc;

use stack::iface::{group_mac, solicited_node};
use stack::port::{Port, PortCounters, PortRefusal};

use super::AfXdpError;
use super::rings::Rings;
use crate::ports::packet::GroupSocket;
use crate::ports::steer::{Steering, XdpMode};
use crate::ports::sys;

/// Longest sleep while frames are under way: their completion wakes nobody.
const COMPLETION_WAIT_NS_MAX: u64 = 50_000;
/// How often queries of multicast routers are looked for, a system call: these allow a second to answer, or more.
const QUERIES_EVERY_NS: u64 = 100_000_000;
/// Queries taken at once; more of them say nothing new.
const QUERIES_MAX: usize = 8;

/// A queue of an interface, through an AF_XDP socket.
pub struct AfXdpPort {
    pub(super) rings: Rings,
    pub(super) steering: Arc<Steering>,
    pub(super) interface: String,
    pub(super) queue: u32,
    pub(super) mac: [u8; 6],
    pub(super) mtu_bytes: usize,
    pub(super) zero_copy: bool,
    pub(super) counters: PortCounters,
    /// The interface is gone; frames under way when it went never complete.
    pub(super) lost: bool,
    /// Queues without a socket that this port speaks for; the first of an interface has them.
    pub(super) unserved: [Range<u32>; 2],
    pub(super) groups: GroupSocket,
    pub(super) next_queries_ns: u64,
}

impl AfXdpPort {
    /// The queue.
    pub fn queue(&self) -> u32 {
        self.queue
    }

    /// Frames of this queue that were steered to us, and those that went to the kernel. Asks the kernel.
    pub fn steered(&self) -> (u64, u64) {
        let counters = self.steering.counters_of(self.queue);
        (counters.to_us, counters.to_kernel)
    }

    /// Frames for our addresses that came by queues of the interface that nobody serves; the first port of an interface tells, the others
    /// say 0. Asks the kernel.
    pub fn unserved(&self) -> u64 {
        self.unserved.iter().cloned().flatten().map(|queue| self.steering.unserved(queue)).sum()
    }

    /// Solicitations for this address of ours get past the card's filter from now on.
    ///
    /// # Errors
    /// [`AfXdpError::Groups`].
    pub fn hear_neighbours(&mut self, address: Ipv6Addr) -> Result<(), AfXdpError> {
        let joined = self.groups.join(group_mac(solicited_node(address).into()));
        joined.map_err(|source| AfXdpError::Groups { interface: self.interface.clone(), source })
    }

    /// Shows what multicast routers have asked, now and then.
    fn show_queries(&mut self, now_ns: u64, limit: usize, sink: &mut dyn FnMut(&[u8])) -> usize {
        if now_ns < self.next_queries_ns || !self.groups.is_bound() {
            return 0;
        }
        self.next_queries_ns = now_ns.saturating_add(QUERIES_EVERY_NS);
        for shown in 0..limit.min(QUERIES_MAX) {
            let Some(frame) = self.groups.next() else { return shown };
            self.counters.rx_frames += 1;
            self.counters.rx_bytes += frame.len() as u64;
            sink(frame);
        }
        limit.min(QUERIES_MAX)
    }

    /// The driver reads and writes our frames itself.
    pub fn zero_copy(&self) -> bool {
        self.zero_copy
    }

    /// The interface has disappeared: nothing arrives and nothing can be sent any more. Open it again when it is back.
    pub fn lost(&self) -> bool {
        self.lost
    }

    /// What it is and how it works, for the log and the status.
    pub fn describe(&self) -> String {
        format!(
            "AF_XDP on {} queue {}: {} XDP, {}, frames of {} bytes on {}",
            self.interface,
            self.queue,
            match self.steering.mode() {
                XdpMode::Native => "native",
                XdpMode::Generic => "generic",
            },
            if self.zero_copy { "zero-copy" } else { "copy mode" },
            self.rings.frame_bytes(),
            if self.rings.huge() { "2 MiB huge pages" } else { "4 KiB pages" },
        )
    }
}

impl Port for AfXdpPort {
    fn mac(&self) -> [u8; 6] {
        self.mac
    }

    fn mtu_bytes(&self) -> usize {
        self.mtu_bytes
    }

    fn frame_bytes(&self) -> usize {
        self.rings.frame_bytes()
    }

    fn receive(&mut self, now_ns: u64, limit: usize, sink: &mut dyn FnMut(&[u8])) -> usize {
        let queries = self.show_queries(now_ns, limit, sink);
        let counters = &mut self.counters;
        queries
            + self.rings.show(limit - queries, &mut |frame| {
                counters.rx_frames += 1;
                counters.rx_bytes += frame.len() as u64;
                sink(frame);
            })
    }

    fn frame(&mut self) -> Option<&mut [u8]> {
        let frame = if self.lost { None } else { self.rings.take() };
        self.counters.tx_full += u64::from(frame.is_none());
        frame
    }

    fn commit(&mut self, len: usize) {
        self.counters.tx_bytes += self.rings.commit(len) as u64;
    }

    fn flush(&mut self, _now_ns: u64) -> usize {
        let sent = self.rings.send();
        self.counters.tx_frames += sent.submitted as u64;
        self.counters.tx_calls += sent.calls as u64;
        self.counters.tx_completed += sent.completed as u64;
        if sent.lost && !self.lost {
            self.lost = true;
            self.counters.tx_failed += self.rings.queued() as u64;
        }
        sent.completed
    }

    fn queued(&self) -> usize {
        if self.lost { 0 } else { self.rings.queued() }
    }

    fn capacity(&self) -> usize {
        self.rings.tx_frames()
    }

    fn listen(&mut self, addr: SocketAddr) -> Result<(), PortRefusal> {
        let group = addr.ip();
        // What is sent to our addresses comes anyway.
        if !group.is_multicast() {
            return Ok(());
        }
        self.groups.join(group_mac(group)).map_err(|_| PortRefusal::Device)?;
        self.steering.add_address(group).map_err(|_| PortRefusal::Device)
    }

    fn wait(&mut self, timeout_ns: u64, wake: RawFd) {
        let timeout_ns = if self.groups.is_bound() { timeout_ns.min(QUERIES_EVERY_NS) } else { timeout_ns };
        let timeout_ns = if self.queued() > 0 { timeout_ns.min(COMPLETION_WAIT_NS_MAX) } else { timeout_ns };
        sys::wait_or_wake(self.rings.as_raw(), libc::POLLIN, timeout_ns, wake);
    }

    /// Asks the kernel for what it dropped: a system call, so for reports and not for every turn.
    fn counters(&self) -> PortCounters {
        let kernel = self.rings.statistics();
        PortCounters {
            rx_dropped: kernel.rx_dropped() + kernel.rx_ring_full(),
            tx_failed: self.counters.tx_failed + kernel.tx_invalid_descs(),
            ..self.counters
        }
    }
}

impl Drop for AfXdpPort {
    fn drop(&mut self) {
        self.steering.clear_socket(self.queue);
    }
}
