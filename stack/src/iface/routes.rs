//! Where packets go and from which address: on-link prefixes, a handful of routes, the longest prefix decides.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::address::{AddressState, Addresses};
use super::config::{ROUTES_MAX, Route};

/// Routes of the settings, and the default router that was advertised.
pub(crate) struct Routes {
    fixed: Vec<Route>,
    advertised: Option<(Ipv6Addr, u64)>,
}

impl Routes {
    pub(crate) fn new(mut fixed: Vec<Route>) -> Self {
        fixed.truncate(ROUTES_MAX);
        Self { fixed, advertised: None }
    }

    /// A router advertised itself until a time; a time in the past takes that back.
    pub(crate) fn advertised(&mut self, now_ns: u64, router: Ipv6Addr, until_ns: u64) {
        match self.advertised {
            Some((current, current_until_ns)) if current != router && now_ns < current_until_ns => {}
            _ => self.advertised = (until_ns > now_ns).then_some((router, until_ns)),
        }
    }

    /// The neighbour that a packet to `to` is handed to; `None`: it cannot be sent.
    pub(crate) fn next_hop(&self, now_ns: u64, addresses: &Addresses, to: IpAddr) -> Option<IpAddr> {
        if !is_unicast(to) || addresses.state(to).is_some() {
            return None;
        }
        let mut best: Option<(u8, IpAddr)> = None;
        let mut consider = |len: u8, hop: IpAddr| {
            if best.is_none_or(|(longest, _)| len > longest) {
                best = Some((len, hop));
            }
        };
        for (cidr, _) in addresses.iter().filter(|(cidr, _)| cidr.contains(to)) {
            if cidr.broadcast().is_some_and(|broadcast| to == IpAddr::V4(broadcast)) {
                return None;
            }
            consider(cidr.len(), to);
        }
        for route in self.fixed.iter().filter(|route| route.to.contains(to)) {
            consider(route.to.len(), route.via.unwrap_or(to));
        }
        if let (Some((router, until_ns)), IpAddr::V6(_)) = (self.advertised, to)
            && now_ns < until_ns
        {
            consider(0, IpAddr::V6(router));
        }
        best.map(|(_, hop)| hop)
    }
}

/// The address names one host (RFC 1122 3.2.1.3, RFC 4291 2.4). Loopback is nothing that a link carries.
pub(crate) fn is_unicast(addr: IpAddr) -> bool {
    match addr {
        IpAddr::V4(v4) => {
            !(v4.is_unspecified() || v4.is_loopback() || v4.is_multicast() || v4.to_bits() >> 28 == 15 || v4.octets()[0] == 0)
        }
        IpAddr::V6(v6) => !(v6.is_unspecified() || v6.is_loopback() || v6.is_multicast() || v6.to_ipv4_mapped().is_some()),
    }
}

/// The source address for packets to `to` by way of `hop`: one that shares the longest prefix of ours with the next hop, of the same
/// scope (RFC 6724 rules 2 and 8, as far as a few static addresses need them).
pub(crate) fn source(addresses: &Addresses, to: IpAddr, hop: IpAddr) -> Option<IpAddr> {
    let link_local = |addr: IpAddr| matches!(addr, IpAddr::V6(v6) if v6.is_unicast_link_local());
    let mut best: Option<(u32, IpAddr)> = None;
    for (cidr, state) in addresses.iter() {
        let addr = cidr.addr();
        if state != AddressState::Preferred || addr.is_ipv4() != to.is_ipv4() {
            continue;
        }
        let scope = u32::from(link_local(addr) == link_local(to)) << 9;
        let near = u32::from(cidr.contains(hop)) << 8;
        let score = scope | near | common_bits(addr, to);
        if best.is_none_or(|(highest, _)| score > highest) {
            best = Some((score, addr));
        }
    }
    best.map(|(_, addr)| addr)
}

fn common_bits(a: IpAddr, b: IpAddr) -> u32 {
    match (a, b) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (Ipv4Addr::to_bits(a) ^ b.to_bits()).leading_zeros(),
        (IpAddr::V6(a), IpAddr::V6(b)) => (Ipv6Addr::to_bits(a) ^ b.to_bits()).leading_zeros(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::iface::cidr::Cidr;

    fn addresses(texts: &[&str]) -> Addresses {
        let cidrs: Vec<Cidr> = texts.iter().map(|text| text.parse().unwrap()).collect();
        Addresses::new(0, &cidrs, false, 0)
    }

    #[test]
    fn the_longest_prefix_decides() {
        let own = addresses(&["192.0.2.1/24", "10.0.0.1/8", "2001:db8::1/64", "fe80::1/64"]);
        let route = |to: &str, via: &str| Route { to: to.parse().unwrap(), via: via.parse().ok() };
        let mut routes = Routes::new(vec![
            route("0.0.0.0/0", "192.0.2.254"),
            route("10.9.0.0/16", "10.0.0.9"),
            route("198.51.100.0/24", ""),
            route("2001:db8:f::/48", "2001:db8::f"),
        ]);
        let hop = |routes: &Routes, to: &str| routes.next_hop(5, &own, to.parse().unwrap()).map(|hop| hop.to_string()).unwrap_or_default();
        for (to, expected) in [
            ("192.0.2.7", "192.0.2.7"),
            ("192.0.2.1", ""),
            ("192.0.2.255", ""),
            ("255.255.255.255", ""),
            ("224.0.0.1", ""),
            ("127.0.0.1", ""),
            ("0.0.0.0", ""),
            ("10.1.2.3", "10.1.2.3"),
            ("10.9.2.3", "10.0.0.9"),
            ("8.8.8.8", "192.0.2.254"),
            ("198.51.100.4", "198.51.100.4"),
            ("2001:db8::7", "2001:db8::7"),
            ("2001:db8:f::7", "2001:db8::f"),
            ("fe80::7", "fe80::7"),
            ("2001:db9::1", ""),
            ("ff02::1", ""),
        ] {
            assert_eq!(hop(&routes, to), expected, "{to}");
        }
        routes.advertised(5, "fe80::ff".parse().unwrap(), 6);
        assert_eq!(hop(&routes, "2001:db9::1"), "fe80::ff");
        routes.advertised(5, "fe80::ee".parse().unwrap(), 9);
        assert_eq!(hop(&routes, "2001:db9::1"), "fe80::ff", "a second router waits for the first to go");
        routes.advertised(5, "fe80::ff".parse().unwrap(), 0);
        assert_eq!(hop(&routes, "2001:db9::1"), "");
    }

    #[test]
    fn sources() {
        let own = addresses(&["192.0.2.1/24", "10.0.0.1/8", "2001:db8::1/64", "fe80::1/64"]);
        for (to, hop, expected) in [
            ("192.0.2.7", "192.0.2.7", "192.0.2.1"),
            ("10.3.2.7", "10.3.2.7", "10.0.0.1"),
            ("8.8.8.8", "10.0.0.3", "10.0.0.1"),
            ("2001:db8::9", "2001:db8::9", "2001:db8::1"),
            ("2a00::9", "fe80::ff", "2001:db8::1"),
            ("fe80::9", "fe80::9", "fe80::1"),
        ] {
            assert_eq!(source(&own, to.parse().unwrap(), hop.parse().unwrap()).unwrap().to_string(), expected, "{to}");
        }
        assert_eq!(source(&addresses(&["10.0.0.1/8"]), "::2".parse().unwrap(), "::2".parse().unwrap()), None);
    }
}
