//! Further UDP ports of a host that only receive: live sources, unicast and multicast.

use std::net::SocketAddr;

use super::StackHost;
use crate::host::HostError;
use crate::port::{Port, PortRefusal};

/// Further ports at most.
const LISTENERS_MAX: usize = 16;

/// Where a host listens beside its own ports.
#[derive(Debug)]
pub(super) struct Listeners(Vec<SocketAddr>);

impl Listeners {
    pub(super) fn new() -> Self {
        Self(Vec::with_capacity(LISTENERS_MAX))
    }

    /// Which of them a datagram to `to` is for.
    pub(super) fn find(&self, to: SocketAddr) -> Option<usize> {
        let hears = |at: &SocketAddr| *at == to || at.port() == to.port() && is_any_of_family(*at, to) && !to.ip().is_multicast();
        self.0.iter().position(hears)
    }

    /// Datagrams to `addr` may be for one that is there already.
    fn collides(&self, addr: SocketAddr) -> bool {
        let shares = |at: &SocketAddr| {
            let both = at.ip().is_multicast() == addr.ip().is_multicast();
            *at == addr || both && at.port() == addr.port() && (is_any_of_family(*at, addr) || is_any_of_family(addr, *at))
        };
        self.0.iter().any(shares)
    }
}

/// `any` stands for all addresses of the family of `addr`.
fn is_any_of_family(any: SocketAddr, addr: SocketAddr) -> bool {
    any.ip().is_unspecified() && any.is_ipv4() == addr.is_ipv4()
}

impl<P: Port> StackHost<P> {
    /// See [`Host::listen`](crate::host::Host::listen).
    pub(super) fn listen_at(&mut self, addr: SocketAddr) -> Result<u8, HostError> {
        let ip = addr.ip();
        let is_ours = if addr.is_ipv4() { self.has_ipv4 } else { self.has_ipv6 };
        if !is_ours {
            return Err(HostError::Family);
        }
        let group = ip.is_multicast();
        // One that is still being tried will be ours, or nothing will come.
        let known = group || ip.is_unspecified() || self.iface.addresses().any(|(own, _)| own.addr() == ip);
        let taken = !group && self.ports.contains(&addr.port()) || self.listeners.collides(addr);
        if !known || taken || addr.port() == 0 {
            return Err(HostError::Listen);
        }
        if self.listeners.0.len() == LISTENERS_MAX || group && !self.iface.join(self.now_ns, ip) {
            return Err(HostError::TableFull);
        }
        if let Err(refusal) = self.port.listen(addr) {
            self.iface.leave(self.now_ns, ip);
            return Err(match refusal {
                PortRefusal::Taken => HostError::Listen,
                PortRefusal::Device => HostError::Device,
            });
        }
        self.listeners.0.push(addr);
        Ok((self.ports.len() + self.listeners.0.len() - 1) as u8)
    }
}

/// A host that goes leaves its groups, so that nobody sends to it any longer than need be.
impl<P: Port> Drop for StackHost<P> {
    fn drop(&mut self) {
        let groups = self.listeners.0.iter().map(SocketAddr::ip).filter(std::net::IpAddr::is_multicast);
        let mut left = false;
        for group in groups {
            self.iface.leave(self.now_ns, group);
            left = true;
        }
        if left {
            self.say_now();
        }
    }
}
