//! The way of a frame inwards: link header, IP header, checksums, and what it is.

use std::net::{IpAddr, SocketAddr};

use smoltcp::wire::{EthernetFrame, Ipv4Packet, Ipv6Packet, UdpPacket};

use super::checksum::Sum;
use super::extension::{self, Stop};
use super::groups::{self, Version};
use super::header::{
    ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6, ETHERTYPE_VLAN, IPV4_BYTES, PROTOCOL_ICMP, PROTOCOL_ICMPV6, PROTOCOL_IGMP, PROTOCOL_TCP,
    PROTOCOL_UDP, UDP_BYTES, pseudo_sum,
};
use super::icmp::{Complaint, PathError};
use super::neighbour::Mac;
use super::{Interface, routes};

/// What a frame was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ingress<'a> {
    /// Nothing for the layers above.
    Nothing,
    /// A UDP datagram to one of our addresses, or to a group that was joined.
    Udp {
        /// Who sent it.
        from: SocketAddr,
        /// Where it was sent.
        to: SocketAddr,
        /// Payload.
        payload: &'a [u8],
        /// The IP packet, for [`Interface::refuse_udp`].
        packet: &'a [u8],
    },
    /// A TCP segment to one of our addresses; its checksum is not verified.
    Tcp {
        /// Who sent it.
        from: IpAddr,
        /// Where it was sent.
        to: IpAddr,
        /// TCP header and payload.
        segment: &'a [u8],
        /// Hardware address that the frame came from.
        via: Mac,
    },
    /// An ICMP error about a packet of ours.
    Error(PathError<'a>),
}

/// Why a frame goes no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dropped {
    NotOurs,
    Malformed,
    Checksum,
    Martian,
    Fragment,
    UnknownProtocol,
}

/// What the link header says.
#[derive(Clone, Copy, Debug)]
pub(super) struct LinkHeader {
    pub(super) from: Mac,
    /// To our hardware address, not to a group.
    pub(super) unicast: bool,
}

/// An IP packet, to one of our addresses or to a group that we are in, without its headers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Inner<'a> {
    pub(super) link: LinkHeader,
    pub(super) from: IpAddr,
    pub(super) to: IpAddr,
    pub(super) hop_limit: u8,
    /// The whole packet, without padding.
    pub(super) packet: &'a [u8],
    pub(super) payload: &'a [u8],
}

impl Interface {
    /// Takes a frame. Answers are noted and said by [`Interface::egress`].
    pub fn ingress<'a>(&mut self, now_ns: u64, frame: &'a [u8]) -> Ingress<'a> {
        self.counters.rx_frames += 1;
        let result = self.link(frame).and_then(|(link, ethertype, packet)| match ethertype {
            ETHERTYPE_ARP => self.arp(now_ns, link, packet).map(|()| Ingress::Nothing),
            ETHERTYPE_IPV4 => self.ipv4(now_ns, link, packet),
            ETHERTYPE_IPV6 => self.ipv6(now_ns, link, packet),
            _ => Err(Dropped::NotOurs),
        });
        result.unwrap_or_else(|drop| {
            let counters = &mut self.counters;
            *match drop {
                Dropped::NotOurs => &mut counters.dropped_not_ours,
                Dropped::Malformed => &mut counters.dropped_malformed,
                Dropped::Checksum => &mut counters.dropped_checksum,
                Dropped::Martian => &mut counters.dropped_martian,
                Dropped::Fragment => &mut counters.dropped_fragments,
                Dropped::UnknownProtocol => &mut counters.dropped_unknown_protocol,
            } += 1;
            Ingress::Nothing
        })
    }

    fn link<'a>(&self, frame: &'a [u8]) -> Result<(LinkHeader, u16, &'a [u8]), Dropped> {
        let frame = EthernetFrame::new_checked(frame).map_err(|_| Dropped::Malformed)?;
        let (to, from) = (frame.dst_addr(), frame.src_addr());
        if from.is_multicast() || from.is_broadcast() {
            return Err(Dropped::Martian);
        }
        let unicast = to.0 == self.speech.link.mac;
        if !unicast && !to.is_multicast() && !to.is_broadcast() {
            return Err(Dropped::NotOurs);
        }
        let mut ethertype = u16::from(frame.ethertype());
        let mut packet = frame.payload();
        let mut vlan = None;
        if ethertype == ETHERTYPE_VLAN {
            let (tag, rest) = packet.split_first_chunk::<4>().ok_or(Dropped::Malformed)?;
            vlan = Some(u16::from_be_bytes([tag[0], tag[1]]) & 0xfff);
            (ethertype, packet) = (u16::from_be_bytes([tag[2], tag[3]]), rest);
        }
        // IEEE 802.1Q 6.9: tag 0 has a priority and no VLAN.
        if vlan.filter(|vlan| *vlan != 0) != self.speech.link.vlan {
            return Err(Dropped::NotOurs);
        }
        Ok((LinkHeader { from: from.0, unicast }, ethertype, packet))
    }

    fn ipv4<'a>(&mut self, now_ns: u64, link: LinkHeader, bytes: &'a [u8]) -> Result<Ingress<'a>, Dropped> {
        let view = Ipv4Packet::new_checked(bytes).map_err(|_| Dropped::Malformed)?;
        let (header_bytes, total_bytes) = (usize::from(view.header_len()), usize::from(view.total_len()));
        if view.version() != 4 || header_bytes < IPV4_BYTES {
            return Err(Dropped::Malformed);
        }
        let packet = bytes.get(..total_bytes).ok_or(Dropped::Malformed)?;
        let (header, payload) = packet.split_at_checked(header_bytes).ok_or(Dropped::Malformed)?;
        if !self.rx_checksums_done && !Sum::default().bytes(header).is_right() {
            return Err(Dropped::Checksum);
        }
        let (from, to) = (IpAddr::V4(view.src_addr()), IpAddr::V4(view.dst_addr()));
        let protocol = u8::from(view.next_header());
        let group = to.is_multicast();
        let heard = match (group, protocol) {
            (true, PROTOCOL_IGMP) => view.dst_addr() == groups::ALL_SYSTEMS || self.groups.is_member(to),
            (true, PROTOCOL_UDP) => self.groups.is_member(to),
            (true, _) => false,
            // RFC 1122 3.3.6: a packet to one host does not come in a frame to many.
            (false, _) => link.unicast && self.addresses.is_usable(to),
        };
        if !heard {
            return Err(Dropped::NotOurs);
        }
        // Switches that ask in place of a router have no address (RFC 4541 2.1.1).
        if !(group && protocol == PROTOCOL_IGMP && view.src_addr().is_unspecified()) {
            self.check_source(from)?;
        }
        if view.more_frags() || view.frag_offset() != 0 {
            return Err(Dropped::Fragment);
        }
        let inner = Inner { link, from, to, hop_limit: view.hop_limit(), packet, payload };
        match protocol {
            PROTOCOL_UDP => self.udp(inner),
            PROTOCOL_IGMP => self.igmp(now_ns, &inner).map(|()| Ingress::Nothing),
            PROTOCOL_TCP => self.tcp(inner),
            PROTOCOL_ICMP => self.icmpv4(now_ns, inner),
            _ => {
                self.complain(now_ns, &inner, Complaint::Protocol { named_at: 9 });
                Err(Dropped::UnknownProtocol)
            }
        }
    }

    fn ipv6<'a>(&mut self, now_ns: u64, link: LinkHeader, bytes: &'a [u8]) -> Result<Ingress<'a>, Dropped> {
        let view = Ipv6Packet::new_checked(bytes).map_err(|_| Dropped::Malformed)?;
        if view.version() != 6 {
            return Err(Dropped::Malformed);
        }
        let packet = bytes.get(..view.total_len()).ok_or(Dropped::Malformed)?;
        let (from, to) = (view.src_addr(), view.dst_addr());
        let unicast = self.addresses.is_usable(IpAddr::V6(to));
        let joined = to.is_multicast() && self.groups.is_member(IpAddr::V6(to));
        let group = joined || to.is_multicast() && self.addresses.is_member(to);
        if !(unicast && link.unicast || group) {
            return Err(Dropped::NotOurs);
        }
        let (from, to) = (IpAddr::V6(from), IpAddr::V6(to));
        // Only neighbour discovery is heard from nobody, and from groups (RFC 4862 5.4.2).
        if !(group && from.is_unspecified()) {
            self.check_source(from)?;
        }
        let mut inner = Inner { link, from, to, hop_limit: view.hop_limit(), packet, payload: &[] };
        let upper = match extension::walk(packet) {
            Ok(upper) => upper,
            Err(Stop::Malformed) => return Err(Dropped::Malformed),
            Err(Stop::Fragment) => return Err(Dropped::Fragment),
            Err(Stop::Option) => return Err(Dropped::UnknownProtocol),
            Err(Stop::Problem { code, pointer }) => {
                self.complain(now_ns, &inner, Complaint::Header { code, pointer });
                return Err(Dropped::UnknownProtocol);
            }
        };
        inner.payload = packet.get(upper.at..).unwrap_or_default();
        match upper.protocol {
            PROTOCOL_ICMPV6 => self.icmpv6(now_ns, inner),
            PROTOCOL_UDP if joined => {
                // Who has no address asks for neighbours, and sends nothing else.
                self.check_source(from)?;
                self.udp(inner)
            }
            _ if group => Err(Dropped::NotOurs),
            PROTOCOL_UDP => self.udp(inner),
            PROTOCOL_TCP => self.tcp(inner),
            _ => {
                self.complain(now_ns, &inner, Complaint::Protocol { named_at: upper.named_at as u32 });
                Err(Dropped::UnknownProtocol)
            }
        }
    }

    fn check_source(&self, from: IpAddr) -> Result<(), Dropped> {
        let broadcast = |from| self.addresses.iter().any(|(cidr, _)| cidr.broadcast() == Some(from));
        let is_broadcast = matches!(from, IpAddr::V4(from) if broadcast(from));
        let is_own = self.addresses.state(from).is_some();
        if routes::is_unicast(from) && !is_own && !is_broadcast { Ok(()) } else { Err(Dropped::Martian) }
    }

    fn igmp(&mut self, now_ns: u64, inner: &Inner<'_>) -> Result<(), Dropped> {
        if !self.rx_checksums_done && !Sum::default().bytes(inner.payload).is_right() {
            return Err(Dropped::Checksum);
        }
        self.counters.rx_igmp += 1;
        let query = groups::igmp(inner.payload).filter(|query| {
            // RFC 3376 9.1: what may have come from afar is passed over.
            let alert = query.version == Version::First || groups::has_router_alert(inner.packet);
            alert && inner.hop_limit == 1 && (query.group.is_some() || inner.to == IpAddr::V4(groups::ALL_SYSTEMS))
        });
        if let Some(query) = query {
            self.groups.asked(now_ns, true, query);
        }
        Ok(())
    }

    fn udp<'a>(&mut self, inner: Inner<'a>) -> Result<Ingress<'a>, Dropped> {
        let view = UdpPacket::new_checked(inner.payload).map_err(|_| Dropped::Malformed)?;
        let datagram = inner.payload.get(..usize::from(view.len())).ok_or(Dropped::Malformed)?;
        let payload = datagram.get(UDP_BYTES..).ok_or(Dropped::Malformed)?;
        // RFC 768: zero is no checksum. RFC 8200 8.1: IPv6 must have one.
        let has_checksum = view.checksum() != 0;
        if !has_checksum && inner.to.is_ipv6() {
            return Err(Dropped::Checksum);
        }
        if has_checksum && !self.rx_checksums_done {
            let sum = pseudo_sum(inner.from, inner.to, PROTOCOL_UDP, datagram.len()).bytes(datagram);
            if !sum.is_right() {
                return Err(Dropped::Checksum);
            }
        }
        if view.dst_port() == 0 {
            return Err(Dropped::Malformed);
        }
        self.counters.rx_udp += 1;
        let (from, to) = (SocketAddr::new(inner.from, view.src_port()), SocketAddr::new(inner.to, view.dst_port()));
        Ok(Ingress::Udp { from, to, payload, packet: inner.packet })
    }

    fn tcp<'a>(&mut self, inner: Inner<'a>) -> Result<Ingress<'a>, Dropped> {
        self.counters.rx_tcp += 1;
        Ok(Ingress::Tcp { from: inner.from, to: inner.to, segment: inner.payload, via: inner.link.from })
    }
}
