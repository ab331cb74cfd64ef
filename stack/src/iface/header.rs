//! Link and IP headers, written and prebuilt.

use std::net::{IpAddr, Ipv6Addr};

use super::checksum::Sum;
use super::neighbour::Mac;

pub(crate) const ETHERTYPE_IPV4: u16 = 0x0800;
pub(crate) const ETHERTYPE_ARP: u16 = 0x0806;
pub(crate) const ETHERTYPE_IPV6: u16 = 0x86dd;
pub(crate) const ETHERTYPE_VLAN: u16 = 0x8100;

pub(crate) const PROTOCOL_ICMP: u8 = 1;
pub(crate) const PROTOCOL_IGMP: u8 = 2;
pub(crate) const PROTOCOL_TCP: u8 = 6;
pub(crate) const PROTOCOL_UDP: u8 = 17;
pub(crate) const PROTOCOL_ICMPV6: u8 = 58;

/// Longest link header: Ethernet with a VLAN tag.
pub(crate) const LINK_BYTES_MAX: usize = 18;
/// An IPv4 header without options.
pub(crate) const IPV4_BYTES: usize = 20;
/// An IPv6 header without extension headers.
pub(crate) const IPV6_BYTES: usize = 40;
/// A UDP header.
pub(crate) const UDP_BYTES: usize = 8;
/// Hop limit of what is sent (RFC 1700).
pub(crate) const HOP_LIMIT: u8 = 64;
/// Hop limit of neighbour discovery, which shows that no router was in between (RFC 4861 3.1).
pub(crate) const HOP_LIMIT_LINK: u8 = 255;

/// Copies `bytes` to `at`; does nothing if they do not fit.
pub(crate) fn put(to: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(place) = to.get_mut(at..).and_then(|rest| rest.get_mut(..bytes.len())) {
        place.copy_from_slice(bytes);
    }
}

/// What all link headers of an interface have in common.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Link {
    pub(crate) mac: Mac,
    pub(crate) vlan: Option<u16>,
}

impl Link {
    /// Bytes of a link header.
    pub(crate) fn header_bytes(self) -> usize {
        if self.vlan.is_some() { LINK_BYTES_MAX } else { LINK_BYTES_MAX - 4 }
    }

    /// Writes the link header; where the packet begins.
    pub(crate) fn write(self, frame: &mut [u8], to: Mac, ethertype: u16) -> usize {
        put(frame, 0, &to);
        put(frame, 6, &self.mac);
        let mut at = 12;
        if let Some(vlan) = self.vlan {
            put(frame, at, &ETHERTYPE_VLAN.to_be_bytes());
            put(frame, at + 2, &(vlan & 0xfff).to_be_bytes());
            at += 4;
        }
        put(frame, at, &ethertype.to_be_bytes());
        at + 2
    }
}

/// What an IP header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct IpHeader {
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    pub(crate) protocol: u8,
    pub(crate) hop_limit: u8,
    pub(crate) payload_bytes: usize,
}

impl IpHeader {
    /// Bytes of the header.
    pub(crate) fn bytes(&self) -> usize {
        if self.source.is_ipv4() { IPV4_BYTES } else { IPV6_BYTES }
    }

    /// The ethertype of the packet.
    pub(crate) fn ethertype(&self) -> u16 {
        if self.source.is_ipv4() { ETHERTYPE_IPV4 } else { ETHERTYPE_IPV6 }
    }

    /// Writes the header; its length. IPv4 packets are never to be cut and so need no identification (RFC 6864 4.1).
    pub(crate) fn write(&self, packet: &mut [u8]) -> usize {
        match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let mut header = [0_u8; IPV4_BYTES];
                header[0] = 0x45;
                header[2..4].copy_from_slice(&((IPV4_BYTES + self.payload_bytes) as u16).to_be_bytes());
                header[6] = 0x40;
                header[8] = self.hop_limit;
                header[9] = self.protocol;
                header[12..16].copy_from_slice(&source.octets());
                header[16..].copy_from_slice(&destination.octets());
                let checksum = Sum::default().bytes(&header).checksum();
                header[10..12].copy_from_slice(&checksum);
                put(packet, 0, &header);
                IPV4_BYTES
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let mut header = [0_u8; IPV6_BYTES];
                header[0] = 0x60;
                header[4..6].copy_from_slice(&(self.payload_bytes as u16).to_be_bytes());
                header[6] = self.protocol;
                header[7] = self.hop_limit;
                header[8..24].copy_from_slice(&source.octets());
                header[24..].copy_from_slice(&destination.octets());
                put(packet, 0, &header);
                IPV6_BYTES
            }
            _ => 0,
        }
    }
}

/// The sum over the pseudo header (RFC 768, RFC 9293 3.1, RFC 8200 8.1).
pub(crate) fn pseudo_sum(source: IpAddr, destination: IpAddr, protocol: u8, bytes: usize) -> Sum {
    let sum = match (source, destination) {
        (IpAddr::V4(a), IpAddr::V4(b)) => Sum::default().bytes(&a.octets()).bytes(&b.octets()),
        (IpAddr::V6(a), IpAddr::V6(b)) => Sum::default().bytes(&a.octets()).bytes(&b.octets()),
        _ => Sum::default(),
    };
    sum.word(u16::from(protocol)).word(bytes as u16)
}

/// The hardware address of an IPv6 multicast group (RFC 2464 7).
pub(crate) fn multicast_mac(group: Ipv6Addr) -> Mac {
    let [.., a, b, c, d] = group.octets();
    [0x33, 0x33, a, b, c, d]
}

/// The hardware address of a multicast group of either family (RFC 1112 6.4: 32 groups of IPv4 share one).
pub fn group_mac(group: IpAddr) -> Mac {
    match group {
        IpAddr::V4(v4) => {
            let [_, b, c, d] = v4.octets();
            [0x01, 0x00, 0x5e, b & 0x7f, c, d]
        }
        IpAddr::V6(v6) => multicast_mac(v6),
    }
}
