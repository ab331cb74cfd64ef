//! ICMP (RFC 792, RFC 1122 3.2.2) and ICMPv6 (RFC 4443): echo answered, errors sent within a rate, errors received handed on.
//!
//! No error is ever sent about an error, a fragment, a packet to a group, or a packet from an address that is not one host's: those are
//! dropped before anybody could complain (RFC 1122 3.2.2, RFC 4443 2.4 (e)).

use std::net::IpAddr;

use super::Interface;
use super::checksum::Sum;
use super::groups;
use super::header::{
    HOP_LIMIT, IPV4_BYTES, IPV6_BYTES, IpHeader, PROTOCOL_ICMP, PROTOCOL_ICMPV6, PROTOCOL_TCP, PROTOCOL_UDP, pseudo_sum, put,
};
use super::ingress::{Dropped, Ingress, Inner};
use super::ndp;

/// Header of an ICMP message.
const HEADER_BYTES: usize = 8;
/// RFC 1812 4.3.2.3: an ICMP error is at most this long, IP header counted.
const ERROR_BYTES_MAX_V4: usize = 576;
/// RFC 4443 2.4 (c): at most the smallest MTU.
const ERROR_BYTES_MAX_V6: usize = 1280;
/// An MTU said to be smaller is not believed (the bound of Linux, `min_pmtu`).
const MTU_MIN_V4: usize = 552;
/// RFC 8201 4: nor is one that no IPv6 link may have.
const MTU_MIN_V6: usize = 1280;
/// Listener query (RFC 3810 5.1).
pub(super) const LISTENER_QUERY: u8 = 130;

/// What an error says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathErrorKind {
    /// Host or network unreachable, time exceeded: may pass.
    Unreachable,
    /// Port or protocol unreachable, administratively prohibited.
    Refused,
    /// The packet was too big for a link on its way.
    PacketTooBig {
        /// Bytes of the largest IP packet that gets through.
        mtu_bytes: usize,
    },
}

/// An ICMP error about a packet of ours. Anybody can send one: believe it only for what it says of something really sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathError<'a> {
    /// Our address.
    pub local: IpAddr,
    /// Where the packet went.
    pub remote: IpAddr,
    /// Its transport protocol: 6 (TCP) or 17 (UDP).
    pub protocol: u8,
    /// The beginning of its transport header, at least 8 bytes.
    pub header: &'a [u8],
    /// What is said.
    pub kind: PathErrorKind,
}

/// What is wrong with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Complaint {
    /// Nobody listens at its port.
    Port,
    /// Its transport protocol is not spoken here; its number stands at this byte.
    Protocol { named_at: u32 },
    /// ICMPv6 parameter problem.
    Header { code: u8, pointer: u32 },
}

impl Interface {
    /// Tells the sender of a UDP datagram (given the `packet` of [`Ingress::Udp`]) that nobody listens at its port, unless it was sent to a
    /// group.
    pub fn refuse_udp(&mut self, now_ns: u64, from: IpAddr, to: IpAddr, packet: &[u8]) {
        if !to.is_multicast() {
            self.complain_about(now_ns, from, to, packet, Complaint::Port);
        }
    }

    pub(super) fn complain(&mut self, now_ns: u64, inner: &Inner<'_>, complaint: Complaint) {
        if !inner.to.is_multicast() {
            self.complain_about(now_ns, inner.from, inner.to, inner.packet, complaint);
        }
    }

    fn complain_about(&mut self, now_ns: u64, from: IpAddr, to: IpAddr, packet: &[u8], complaint: Complaint) {
        let mut message = [0; HEADER_BYTES];
        let (kind, code, pointer) = match (complaint, from.is_ipv4()) {
            (Complaint::Port, true) => (3, 3, 0),
            (Complaint::Protocol { .. }, true) => (3, 2, 0),
            (Complaint::Header { .. }, true) => return,
            (Complaint::Port, false) => (1, 4, 0),
            (Complaint::Protocol { named_at }, false) => (4, 1, named_at),
            (Complaint::Header { code, pointer }, false) => (4, code, pointer),
        };
        (message[0], message[1]) = (kind, code);
        put(&mut message, 4, &pointer.to_be_bytes());
        let max = if from.is_ipv4() { ERROR_BYTES_MAX_V4 - IPV4_BYTES } else { ERROR_BYTES_MAX_V6 - IPV6_BYTES } - HEADER_BYTES;
        let quote = packet.get(..packet.len().min(max)).unwrap_or_default();
        let said = self.errors.take(now_ns) && self.send_icmp(now_ns, to, from, message, quote);
        self.note(said);
    }

    /// Notes an ICMP message of ours; its checksum is made here.
    fn send_icmp(&mut self, now_ns: u64, from: IpAddr, to: IpAddr, mut message: [u8; HEADER_BYTES], data: &[u8]) -> bool {
        let payload_bytes = HEADER_BYTES + data.len();
        let protocol = if from.is_ipv4() { PROTOCOL_ICMP } else { PROTOCOL_ICMPV6 };
        (message[2], message[3]) = (0, 0);
        let sum = if from.is_ipv4() { Sum::default() } else { pseudo_sum(from, to, protocol, payload_bytes) };
        let checksum = sum.bytes(&message).bytes(data).checksum();
        put(&mut message, 2, &checksum);
        let header = IpHeader { source: from, destination: to, protocol, hop_limit: HOP_LIMIT, payload_bytes };
        self.answers.send(now_ns, to, |packet| {
            let at = header.bytes();
            if at + payload_bytes > packet.len() {
                return None;
            }
            header.write(packet);
            put(packet, at, &message);
            put(packet, at + HEADER_BYTES, data);
            Some(at + payload_bytes)
        })
    }

    pub(super) fn icmpv4<'a>(&mut self, now_ns: u64, inner: Inner<'a>) -> Result<Ingress<'a>, Dropped> {
        let (message, data) = inner.payload.split_first_chunk::<HEADER_BYTES>().ok_or(Dropped::Malformed)?;
        if !self.rx_checksums_done && !Sum::default().bytes(inner.payload).is_right() {
            return Err(Dropped::Checksum);
        }
        self.counters.rx_icmp += 1;
        let kind = match (message[0], message[1]) {
            (8, 0) => {
                self.echo(now_ns, &inner, [0, 0], message, data);
                return Ok(Ingress::Nothing);
            }
            // RFC 1191 4: the next hop's MTU, or zero from routers that do not know that RFC.
            (3, 4) => PathErrorKind::PacketTooBig { mtu_bytes: usize::from(u16::from_be_bytes([message[6], message[7]])).max(MTU_MIN_V4) },
            (3, 2 | 3 | 9 | 10 | 13) => PathErrorKind::Refused,
            (3, _) | (11, 0) => PathErrorKind::Unreachable,
            _ => return Ok(Ingress::Nothing),
        };
        Ok(self.quoted_v4(data, kind).map_or(Ingress::Nothing, Ingress::Error))
    }

    pub(super) fn icmpv6<'a>(&mut self, now_ns: u64, inner: Inner<'a>) -> Result<Ingress<'a>, Dropped> {
        let (message, data) = inner.payload.split_first_chunk::<HEADER_BYTES>().ok_or(Dropped::Malformed)?;
        if !self.rx_checksums_done {
            let sum = pseudo_sum(inner.from, inner.to, PROTOCOL_ICMPV6, inner.payload.len()).bytes(inner.payload);
            if !sum.is_right() {
                return Err(Dropped::Checksum);
            }
        }
        match message[0] {
            LISTENER_QUERY..=137 | 143 => return self.link_message(now_ns, &inner, message[0]).map(|()| Ingress::Nothing),
            _ if inner.to.is_multicast() => return Err(Dropped::NotOurs),
            _ => {}
        }
        self.counters.rx_icmp += 1;
        let kind = match (message[0], message[1]) {
            (128, 0) => {
                self.echo(now_ns, &inner, [129, 0], message, data);
                return Ok(Ingress::Nothing);
            }
            (2, _) => {
                let mtu = u32::from_be_bytes([message[4], message[5], message[6], message[7]]);
                PathErrorKind::PacketTooBig { mtu_bytes: (mtu as usize).max(MTU_MIN_V6) }
            }
            (1, 1 | 4 | 5 | 6) | (4, 1) => PathErrorKind::Refused,
            (1, _) | (3, 0) => PathErrorKind::Unreachable,
            _ => return Ok(Ingress::Nothing),
        };
        Ok(self.quoted_v6(data, kind).map_or(Ingress::Nothing, Ingress::Error))
    }

    fn link_message(&mut self, now_ns: u64, inner: &Inner<'_>, kind: u8) -> Result<(), Dropped> {
        if kind == LISTENER_QUERY {
            // RFC 3810 6.2: from a neighbour, and no further.
            let from_link = inner.hop_limit == 1 && matches!(inner.from, IpAddr::V6(from) if from.is_unicast_link_local());
            self.counters.rx_ndp += 1;
            if let Some(query) = groups::mld(inner.payload).filter(|_| from_link && groups::has_router_alert(inner.packet)) {
                self.groups.asked(now_ns, false, query);
            }
            return Ok(());
        }
        if matches!(kind, ndp::ROUTER_ADVERT | ndp::SOLICIT | ndp::ADVERT) && !ndp::is_valid(inner) {
            return Err(Dropped::Malformed);
        }
        match kind {
            ndp::SOLICIT => self.solicited(now_ns, inner),
            ndp::ADVERT => self.advertised(now_ns, inner),
            ndp::ROUTER_ADVERT => self.router_advertised(now_ns, inner),
            _ => {
                self.counters.rx_ndp += 1;
                Ok(())
            }
        }
    }

    fn echo(&mut self, now_ns: u64, inner: &Inner<'_>, kind: [u8; 2], request: &[u8; HEADER_BYTES], data: &[u8]) {
        let mut message = *request;
        put(&mut message, 0, &kind);
        let said = self.echoes.take(now_ns) && self.send_icmp(now_ns, inner.to, inner.from, message, data);
        self.note(said);
    }

    /// The packet of ours that an error quotes.
    fn quoted_v4<'a>(&self, quote: &'a [u8], kind: PathErrorKind) -> Option<PathError<'a>> {
        let first = *quote.first()?;
        let (header_bytes, protocol) = (usize::from(first & 15) * 4, *quote.get(9)?);
        let address = |at: usize| quote.get(at..at + 4)?.first_chunk::<4>().map(|octets| IpAddr::from(*octets));
        if first >> 4 != 4 || header_bytes < IPV4_BYTES {
            return None;
        }
        self.quoted(address(12)?, address(16)?, protocol, quote.get(header_bytes..)?, kind)
    }

    fn quoted_v6<'a>(&self, quote: &'a [u8], kind: PathErrorKind) -> Option<PathError<'a>> {
        let address = |at: usize| quote.get(at..at + 16)?.first_chunk::<16>().map(|octets| IpAddr::from(*octets));
        // What we send has no extension headers.
        if *quote.first()? >> 4 != 6 {
            return None;
        }
        self.quoted(address(8)?, address(24)?, *quote.get(6)?, quote.get(IPV6_BYTES..)?, kind)
    }

    fn quoted<'a>(&self, local: IpAddr, remote: IpAddr, protocol: u8, header: &'a [u8], kind: PathErrorKind) -> Option<PathError<'a>> {
        let ours = self.addresses.is_usable(local) && header.len() >= 8 && matches!(protocol, PROTOCOL_TCP | PROTOCOL_UDP);
        ours.then_some(PathError { local, remote, protocol, header, kind })
    }
}
