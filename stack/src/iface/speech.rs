//! The frames that an interface says of itself: ARP (RFC 826, RFC 5227), neighbour discovery (RFC 4861 4), reports of groups (RFC 3376,
//! RFC 3810).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use smoltcp::wire::{ArpOperation, ArpPacket, ArpRepr, EthernetAddress};

use super::address::{ALL_NODES, Step, solicited_node};
use super::answers::Answer;
use super::checksum::Sum;
use super::groups::{Change, REPORT_BYTES_MAX, Report, Version};
use super::header::{
    ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6, HOP_LIMIT_LINK, IpHeader, Link, PROTOCOL_ICMPV6, PROTOCOL_IGMP, group_mac,
    multicast_mac, pseudo_sum, put,
};
use super::neighbour::{Mac, Solicit};

const ARP_BYTES: usize = 28;
const BROADCAST: Mac = [0xff; 6];

/// Where frames are written.
pub trait FrameOut {
    /// The next free transmit frame, or none.
    fn frame(&mut self) -> Option<&mut [u8]>;
    /// Queues it with `len` bytes.
    fn commit(&mut self, len: usize);
    /// So much is queued that what others ask for had better wait.
    fn is_crowded(&self) -> bool {
        false
    }
}

/// Writes and counts frames.
pub(crate) struct Speech {
    pub(crate) link: Link,
    pub(crate) tx_frames: u64,
}

impl Speech {
    /// Writes one frame; false when none is free.
    pub(crate) fn frame(&mut self, out: &mut dyn FrameOut, write: impl FnOnce(&mut [u8], Link) -> usize) -> bool {
        let Some(frame) = out.frame() else { return false };
        let len = write(frame, self.link);
        out.commit(len);
        self.tx_frames += 1;
        true
    }

    /// An IP packet that is ready but for its link header.
    pub(crate) fn packet(&mut self, out: &mut dyn FrameOut, to: Mac, packet: &[u8]) -> bool {
        let is_ipv4 = packet.first().is_some_and(|first| first >> 4 == 4);
        self.frame(out, |frame, link| {
            let at = link.write(frame, to, if is_ipv4 { ETHERTYPE_IPV4 } else { ETHERTYPE_IPV6 });
            put(frame, at, packet);
            at + packet.len()
        })
    }

    /// An answer.
    pub(crate) fn answer(&mut self, out: &mut dyn FrameOut, answer: Answer) -> bool {
        match answer {
            Answer::Arp { to: (mac, ip), own } => self.arp(out, mac, ArpOperation::Reply, own, (mac, ip)),
            Answer::Advert { to: (mac, ip), own } => self.advert(out, mac, ip, own, true),
            Answer::Announce(own) => self.announce(out, own),
        }
    }

    /// A step of an own address.
    pub(crate) fn step(&mut self, out: &mut dyn FrameOut, step: Step, link_local: Option<Ipv6Addr>) -> bool {
        match step {
            Step::Announce(own) => self.announce(out, own),
            Step::Probe(own) => {
                let group = solicited_node(own);
                // RFC 4862 5.4.2: from nobody, without a link-layer address.
                let mut body = [0; 24];
                body[0] = 135;
                body[8..].copy_from_slice(&own.octets());
                self.icmpv6(out, multicast_mac(group), Ipv6Addr::UNSPECIFIED, group, &body)
            }
            Step::Report(group) => {
                let own = link_local.unwrap_or(Ipv6Addr::UNSPECIFIED);
                self.report(out, own.into(), Report { version: Version::Third, records: &[(Change::Joins, group.into())] })
            }
        }
    }

    /// Asks for a neighbour, in the name of one of our addresses.
    pub(crate) fn solicit(&mut self, out: &mut dyn FrameOut, solicit: Solicit, own: IpAddr) -> bool {
        match (solicit.target, own) {
            (IpAddr::V4(target), IpAddr::V4(own)) => {
                self.arp(out, solicit.at.unwrap_or(BROADCAST), ArpOperation::Request, own, (solicit.at.unwrap_or_default(), target))
            }
            (IpAddr::V6(target), IpAddr::V6(own)) => {
                let group = solicited_node(target);
                let (mac, to) = solicit.at.map_or((multicast_mac(group), group), |mac| (mac, target));
                let mut body = [0; 32];
                body[0] = 135;
                body[8..24].copy_from_slice(&target.octets());
                body[24..26].copy_from_slice(&[1, 1]);
                body[26..].copy_from_slice(&self.link.mac);
                self.icmpv6(out, mac, own, to, &body)
            }
            _ => true,
        }
    }

    fn announce(&mut self, out: &mut dyn FrameOut, own: IpAddr) -> bool {
        match own {
            // RFC 5227 1.1: an ARP announcement is a request for one's own address.
            IpAddr::V4(own) => self.arp(out, BROADCAST, ArpOperation::Request, own, ([0; 6], own)),
            IpAddr::V6(own) => self.advert(out, multicast_mac(ALL_NODES), ALL_NODES, own, false),
        }
    }

    fn arp(&mut self, out: &mut dyn FrameOut, to: Mac, operation: ArpOperation, own: Ipv4Addr, target: (Mac, Ipv4Addr)) -> bool {
        self.frame(out, |frame, link| {
            let at = link.write(frame, to, ETHERTYPE_ARP);
            let repr = ArpRepr::EthernetIpv4 {
                operation,
                source_hardware_addr: EthernetAddress(link.mac),
                source_protocol_addr: own,
                target_hardware_addr: EthernetAddress(target.0),
                target_protocol_addr: target.1,
            };
            let mut body = [0; ARP_BYTES];
            repr.emit(&mut ArpPacket::new_unchecked(&mut body));
            put(frame, at, &body);
            at + ARP_BYTES
        })
    }

    fn advert(&mut self, out: &mut dyn FrameOut, mac: Mac, to: Ipv6Addr, own: Ipv6Addr, solicited: bool) -> bool {
        let mut body = [0; 32];
        body[0] = 136;
        body[4] = if solicited { 0x60 } else { 0x20 };
        body[8..24].copy_from_slice(&own.octets());
        body[24..26].copy_from_slice(&[2, 1]);
        body[26..].copy_from_slice(&self.link.mac);
        self.icmpv6(out, mac, own, to, &body)
    }

    fn icmpv6(&mut self, out: &mut dyn FrameOut, mac: Mac, source: Ipv6Addr, destination: Ipv6Addr, body: &[u8]) -> bool {
        self.frame(out, |frame, link| {
            let at = link.write(frame, mac, ETHERTYPE_IPV6);
            let (source, destination) = (IpAddr::V6(source), IpAddr::V6(destination));
            let header = IpHeader { source, destination, protocol: PROTOCOL_ICMPV6, hop_limit: HOP_LIMIT_LINK, payload_bytes: body.len() };
            let at = at + header.write(frame.get_mut(at..).unwrap_or_default());
            put(frame, at, body);
            let checksum = pseudo_sum(source, destination, PROTOCOL_ICMPV6, body.len()).bytes(body).checksum();
            put(frame, at + 2, &checksum);
            at + body.len()
        })
    }

    /// Tells routers about groups, as `own` of that family, with a hop limit of 1 and behind a router alert (RFC 3376 4, RFC 3810 5).
    pub(crate) fn report(&mut self, out: &mut dyn FrameOut, own: IpAddr, report: Report<'_>) -> bool {
        let Some(to) = report.destination() else { return true };
        let mut body = [0; REPORT_BYTES_MAX];
        let len = report.write(&mut body);
        let body = body.get_mut(..len).unwrap_or_default();
        let sum = if to.is_ipv4() { Sum::default() } else { pseudo_sum(own, to, PROTOCOL_ICMPV6, len) };
        let checksum = sum.bytes(body).checksum();
        put(body, 2, &checksum);
        self.frame(out, |frame, link| {
            let at = link.write(frame, group_mac(to), if to.is_ipv4() { ETHERTYPE_IPV4 } else { ETHERTYPE_IPV6 });
            let at = at + header_with_alert(frame.get_mut(at..).unwrap_or_default(), own, to, len);
            put(frame, at, body);
            at + len
        })
    }
}

/// Writes the IP header of a report, with its router alert (RFC 2113, RFC 2711); its length.
fn header_with_alert(packet: &mut [u8], own: IpAddr, to: IpAddr, payload_bytes: usize) -> usize {
    const ALERT_V4: [u8; 4] = [0x94, 4, 0, 0];
    const ALERT_V6: [u8; 8] = [PROTOCOL_ICMPV6, 0, 5, 2, 0, 0, 1, 0];
    let (protocol, alert): (u8, &[u8]) = if to.is_ipv4() { (PROTOCOL_IGMP, &ALERT_V4) } else { (0, &ALERT_V6) };
    let header = IpHeader { source: own, destination: to, protocol, hop_limit: 1, payload_bytes: payload_bytes + alert.len() };
    let at = header.write(packet);
    put(packet, at, alert);
    let bytes = at + alert.len();
    if to.is_ipv4() {
        // A header of six words, and RFC 3376 4: precedence of internetwork control.
        put(packet, 0, &[0x46, 0xc0]);
        put(packet, 10, &[0, 0]);
        let checksum = Sum::default().bytes(packet.get(..bytes).unwrap_or_default()).checksum();
        put(packet, 10, &checksum);
    }
    bytes
}
