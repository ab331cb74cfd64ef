//! Settings and counters of an [`Interface`](super::Interface).

use std::net::IpAddr;

use super::cidr::Cidr;
use super::neighbour::Mac;

/// Where packets to a prefix go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// Destinations.
    pub to: Cidr,
    /// The router, which must be on-link; `None`: the destinations themselves are on-link.
    pub via: Option<IpAddr>,
}

/// Settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IfaceConfig {
    /// Own addresses. Their prefixes are on-link. With an IPv6 address and none of the link-local kind, one is made from the hardware
    /// address (RFC 4291 appendix A).
    pub addresses: Vec<Cidr>,
    /// Routes beside those; the longest prefix decides. At most [`ROUTES_MAX`] are kept. A default route is `0.0.0.0/0` or `::/0`.
    pub routes: Vec<Route>,
    /// VLAN that everything is tagged with (IEEE 802.1Q), 1 to 4094; `None`: no tag.
    pub vlan: Option<u16>,
    /// Try IPv6 addresses before they are used (RFC 4862 5.4); takes up to two seconds. Off, they can be used at once.
    pub detect_duplicates: bool,
    /// Take a default router from router advertisements (RFC 4861 6.3.4). Prefixes in them are never used.
    pub accept_routers: bool,
    /// Neighbours that are remembered.
    pub neighbours_max: usize,
    /// The port has checked all checksums of what it shows.
    pub rx_checksums_done: bool,
    /// ICMP errors sent per second (RFC 4443 2.4 (f)), with as many at once as a tenth of that.
    pub errors_per_second: u32,
    /// Echo requests answered per second, with as many at once as a tenth of that.
    pub echoes_per_second: u32,
    /// Of random delays, and of the secret of the neighbour table's hash: not to be guessed from outside.
    pub seed: u64,
}

/// Routes beside those to own prefixes.
pub const ROUTES_MAX: usize = 16;
/// Own addresses, link-local ones counted.
pub const ADDRESSES_MAX: usize = 16;

impl Default for IfaceConfig {
    fn default() -> Self {
        Self {
            addresses: Vec::new(),
            routes: Vec::new(),
            vlan: None,
            detect_duplicates: true,
            accept_routers: false,
            neighbours_max: 4096,
            rx_checksums_done: false,
            errors_per_second: 100,
            echoes_per_second: 1000,
            seed: 0,
        }
    }
}

impl IfaceConfig {
    /// Own addresses as they will be: those of the settings, and a link-local one if IPv6 is used and none was given.
    pub(super) fn own_addresses(&self, mac: Mac) -> Vec<Cidr> {
        let mut all = self.addresses.clone();
        let is_link_local = |cidr: &Cidr| matches!(cidr.addr(), IpAddr::V6(addr) if addr.is_unicast_link_local());
        if all.iter().any(|cidr| cidr.addr().is_ipv6()) && !all.iter().any(is_link_local) {
            all.extend(Cidr::new(IpAddr::V6(link_local(mac)), 64));
        }
        all.truncate(ADDRESSES_MAX);
        all
    }
}

/// The link-local address made from a hardware address (RFC 4291 appendix A, RFC 2464 5).
pub fn link_local(mac: Mac) -> std::net::Ipv6Addr {
    let [a, b, c, d, e, f] = mac;
    let half = u64::from_be_bytes([a ^ 2, b, c, 0xff, 0xfe, d, e, f]);
    std::net::Ipv6Addr::from_bits((0xfe80 << 112) | u128::from(half))
}

/// Counters since start. Every frame that came in is in exactly one of `rx_arp`, `rx_ndp`, `rx_icmp`, `rx_igmp`, `rx_udp`, `rx_tcp`
/// or a `dropped_…`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IfaceCounters {
    /// Frames that came in.
    pub rx_frames: u64,
    /// ARP packets heard.
    pub rx_arp: u64,
    /// NDP messages heard (and other ICMPv6 messages about the link, which are passed over).
    pub rx_ndp: u64,
    /// Other ICMP messages heard.
    pub rx_icmp: u64,
    /// IGMP messages heard.
    pub rx_igmp: u64,
    /// UDP datagrams handed on.
    pub rx_udp: u64,
    /// TCP segments handed on.
    pub rx_tcp: u64,
    /// For another hardware address, VLAN, IP address or protocol.
    pub dropped_not_ours: u64,
    /// Malformed: lengths, versions, headers that do not fit.
    pub dropped_malformed: u64,
    /// Wrong checksum.
    pub dropped_checksum: u64,
    /// Source address that nobody can have (multicast, broadcast, our own, unspecified).
    pub dropped_martian: u64,
    /// Fragments: they are not put together.
    pub dropped_fragments: u64,
    /// Transport protocols and extension headers that are not spoken here.
    pub dropped_unknown_protocol: u64,
    /// Frames said in answer (ARP, NDP, ICMP), and solicitations.
    pub tx_frames: u64,
    /// Answers that were left unsaid: queue full or rate limit.
    pub answers_dropped: u64,
    /// Others that claim one of our addresses.
    pub conflicts: u64,
    /// Neighbours known now.
    pub neighbours: u64,
    /// Neighbours evicted to make room.
    pub neighbours_evicted: u64,
    /// Neighbours for which there was no room.
    pub neighbours_refused: u64,
    /// Neighbours that did not answer.
    pub neighbours_failed: u64,
}
