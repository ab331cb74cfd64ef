//! Traces: a frame goes in, frames come out, at a time. Frames are built and read with smoltcp's wire types, which share no code with
//! ours.

mod multicast;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use proptest::prelude::*;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol, EthernetRepr, Icmpv4Message, Icmpv4Packet,
    Icmpv6Message, Icmpv6Packet, IpProtocol, Ipv4Packet, Ipv4Repr, Ipv6Packet, Ipv6Repr, UdpPacket, UdpRepr,
};

use super::*;

const MS: u64 = 1_000_000;
const OURS: Mac = [2, 0, 0, 0, 7, 1];
const PEER: Mac = [2, 0, 0, 0, 0, 2];
const BROADCAST: Mac = [0xff; 6];
const OUR_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const PEER_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
const OUR_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
const PEER_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2);

/// Frames that the interface said.
#[derive(Default)]
struct Out {
    frame: Vec<u8>,
    said: Vec<Vec<u8>>,
    room: Option<usize>,
}

impl FrameOut for Out {
    fn frame(&mut self) -> Option<&mut [u8]> {
        self.frame.resize(1518, 0xee);
        (self.room != Some(0)).then_some(&mut self.frame[..])
    }

    fn commit(&mut self, len: usize) {
        self.said.push(self.frame[..len].to_vec());
        self.room = self.room.map(|room| room - 1);
    }
}

struct Trace {
    iface: Interface,
    now_ns: u64,
}

fn config() -> IfaceConfig {
    IfaceConfig {
        addresses: vec!["192.0.2.1/24".parse().unwrap(), "2001:db8::1/64".parse().unwrap()],
        routes: vec![Route { to: "0.0.0.0/0".parse().unwrap(), via: Some(Ipv4Addr::new(192, 0, 2, 254).into()) }],
        detect_duplicates: false,
        ..IfaceConfig::default()
    }
}

impl Trace {
    /// An interface that has said all that it says at its start.
    fn settled(config: IfaceConfig) -> Self {
        let mut trace = Self { iface: Interface::new(config, OURS, 1500, 0), now_ns: 0 };
        trace.pass(10_000 * MS);
        trace
    }

    /// Lets time pass; what was said meanwhile, with the time in ms.
    fn pass(&mut self, ns: u64) -> Vec<(u64, Vec<u8>)> {
        let until_ns = self.now_ns + ns;
        let mut said = self.say();
        while let Some(at_ns) = self.iface.next_ns().filter(|at_ns| *at_ns <= until_ns) {
            self.now_ns = self.now_ns.max(at_ns);
            said.extend(self.say());
        }
        self.now_ns = until_ns;
        said.extend(self.say());
        said
    }

    fn say(&mut self) -> Vec<(u64, Vec<u8>)> {
        let mut out = Out::default();
        self.iface.egress(self.now_ns, &mut out);
        out.said.into_iter().map(|frame| (self.now_ns / MS, frame)).collect()
    }

    /// A frame goes in; what is said at once.
    fn hear(&mut self, frame: &[u8]) -> Vec<Vec<u8>> {
        self.iface.ingress(self.now_ns, frame);
        self.say().into_iter().map(|(_, frame)| frame).collect()
    }
}

fn ethernet(to: Mac, from: Mac, ethertype: EthernetProtocol, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 14 + payload.len()];
    let repr = EthernetRepr { src_addr: EthernetAddress(from), dst_addr: EthernetAddress(to), ethertype };
    repr.emit(&mut EthernetFrame::new_unchecked(&mut bytes));
    bytes[14..].copy_from_slice(payload);
    bytes
}

fn arp(to: Mac, operation: ArpOperation, from: (Mac, Ipv4Addr), target: (Mac, Ipv4Addr)) -> Vec<u8> {
    let repr = ArpRepr::EthernetIpv4 {
        operation,
        source_hardware_addr: EthernetAddress(from.0),
        source_protocol_addr: from.1,
        target_hardware_addr: EthernetAddress(target.0),
        target_protocol_addr: target.1,
    };
    let mut body = vec![0; repr.buffer_len()];
    repr.emit(&mut ArpPacket::new_unchecked(&mut body));
    ethernet(to, from.0, EthernetProtocol::Arp, &body)
}

fn read_arp(frame: &[u8]) -> (Mac, ArpOperation, (Mac, Ipv4Addr), (Mac, Ipv4Addr)) {
    let frame = EthernetFrame::new_checked(frame).unwrap();
    assert_eq!(frame.ethertype(), EthernetProtocol::Arp);
    let ArpRepr::EthernetIpv4 { operation, source_hardware_addr, source_protocol_addr, target_hardware_addr, target_protocol_addr } =
        ArpRepr::parse(&ArpPacket::new_checked(frame.payload()).unwrap()).unwrap()
    else {
        panic!("not ARP of IPv4")
    };
    (frame.dst_addr().0, operation, (source_hardware_addr.0, source_protocol_addr), (target_hardware_addr.0, target_protocol_addr))
}

fn ipv4(from: Ipv4Addr, to: Ipv4Addr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let repr = Ipv4Repr { src_addr: from, dst_addr: to, next_header: IpProtocol::from(protocol), payload_len: payload.len(), hop_limit: 9 };
    let mut packet = vec![0; 20 + payload.len()];
    repr.emit(&mut Ipv4Packet::new_unchecked(&mut packet), &ChecksumCapabilities::default());
    packet[20..].copy_from_slice(payload);
    packet
}

fn ipv6(from: Ipv6Addr, to: Ipv6Addr, protocol: u8, hop_limit: u8, payload: &[u8]) -> Vec<u8> {
    let repr = Ipv6Repr { src_addr: from, dst_addr: to, next_header: IpProtocol::from(protocol), payload_len: payload.len(), hop_limit };
    let mut packet = vec![0; 40 + payload.len()];
    repr.emit(&mut Ipv6Packet::new_unchecked(&mut packet));
    packet[40..].copy_from_slice(payload);
    packet
}

fn udp(from: SocketAddr, to: SocketAddr, payload: &[u8]) -> Vec<u8> {
    let repr = UdpRepr { src_port: from.port(), dst_port: to.port() };
    let mut bytes = vec![0; 8 + payload.len()];
    let (mut packet, caps) = (UdpPacket::new_unchecked(&mut bytes), ChecksumCapabilities::default());
    repr.emit(&mut packet, &from.ip().into(), &to.ip().into(), payload.len(), |buffer| buffer.copy_from_slice(payload), &caps);
    bytes
}

/// A UDP datagram from the peer in a frame to us.
fn udp_frame(to: SocketAddr, payload: &[u8]) -> Vec<u8> {
    match to.ip() {
        IpAddr::V4(v4) => {
            let from = SocketAddr::from((PEER_V4, 5004));
            ethernet(OURS, PEER, EthernetProtocol::Ipv4, &ipv4(PEER_V4, v4, 17, &udp(from, to, payload)))
        }
        IpAddr::V6(v6) => {
            let from = SocketAddr::from((PEER_V6, 5004));
            ethernet(OURS, PEER, EthernetProtocol::Ipv6, &ipv6(PEER_V6, v6, 17, 9, &udp(from, to, payload)))
        }
    }
}

fn icmpv6(to_mac: Mac, from: Ipv6Addr, to: Ipv6Addr, hop_limit: u8, message: &[u8]) -> Vec<u8> {
    let mut bytes = message.to_vec();
    Icmpv6Packet::new_unchecked(&mut bytes).fill_checksum(&from, &to);
    ethernet(to_mac, PEER, EthernetProtocol::Ipv6, &ipv6(from, to, 58, hop_limit, &bytes))
}

fn icmpv4(message: &[u8]) -> Vec<u8> {
    let mut bytes = message.to_vec();
    Icmpv4Packet::new_unchecked(&mut bytes).fill_checksum();
    ethernet(OURS, PEER, EthernetProtocol::Ipv4, &ipv4(PEER_V4, OUR_V4, 1, &bytes))
}

/// Solicitation (135) or advertisement (136) with one option.
fn ndp(kind: u8, flags: u8, target: Ipv6Addr, option: Option<(u8, Mac)>) -> Vec<u8> {
    let mut message = vec![kind, 0, 0, 0, flags, 0, 0, 0];
    message.extend(target.octets());
    if let Some((kind, mac)) = option {
        message.extend([kind, 1]);
        message.extend(mac);
    }
    message
}

fn solicit(from: Ipv6Addr, target: Ipv6Addr, option: Option<(u8, Mac)>) -> Vec<u8> {
    let group = address::solicited_node(target);
    icmpv6(header::multicast_mac(group), from, group, 255, &ndp(135, 0, target, option))
}

/// Ethernet destination, IPv6 source and destination, hop limit, and the ICMPv6 message of a frame; its checksum is right.
fn read_icmpv6(frame: &[u8]) -> (Mac, Ipv6Addr, Ipv6Addr, u8, Vec<u8>) {
    let frame = EthernetFrame::new_checked(frame).unwrap();
    assert_eq!((frame.ethertype(), frame.src_addr().0), (EthernetProtocol::Ipv6, OURS));
    let packet = Ipv6Packet::new_checked(frame.payload()).unwrap();
    let mut payload = packet.payload();
    if packet.next_header() == IpProtocol::HopByHop {
        assert_eq!(payload[..8], [58, 0, 5, 2, 0, 0, 1, 0], "router alert");
        payload = &payload[8..];
    }
    let message = Icmpv6Packet::new_unchecked(payload);
    assert!(message.verify_checksum(&packet.src_addr(), &packet.dst_addr()));
    (frame.dst_addr().0, packet.src_addr(), packet.dst_addr(), packet.hop_limit(), payload.to_vec())
}

fn read_icmpv4(frame: &[u8]) -> (Ipv4Addr, Icmpv4Message, u8, Vec<u8>) {
    let frame = EthernetFrame::new_checked(frame).unwrap();
    assert_eq!((frame.ethertype(), frame.dst_addr().0), (EthernetProtocol::Ipv4, PEER));
    let packet = Ipv4Packet::new_checked(frame.payload()).unwrap();
    assert!(packet.verify_checksum() && packet.src_addr() == OUR_V4 && packet.dont_frag());
    let message = Icmpv4Packet::new_checked(packet.payload()).unwrap();
    assert!(message.verify_checksum());
    (packet.dst_addr(), message.msg_type(), message.msg_code(), packet.payload()[8..].to_vec())
}

fn arp_request() -> Vec<u8> {
    arp(BROADCAST, ArpOperation::Request, (PEER, PEER_V4), ([0; 6], OUR_V4))
}

#[test]
fn start_says_who_we_are() {
    let mut trace = Trace { iface: Interface::new(IfaceConfig { detect_duplicates: true, ..config() }, OURS, 1500, 0), now_ns: 0 };
    let said = trace.pass(10_000 * MS);
    let arps: Vec<_> = said.iter().filter(|(_, frame)| frame[12..14] == [8, 6]).map(|(at_ms, frame)| (*at_ms, read_arp(frame))).collect();
    let announcement = (BROADCAST, ArpOperation::Request, (OURS, OUR_V4), ([0; 6], OUR_V4));
    assert_eq!(arps, [(0, announcement), (2000, announcement)]);
    for own in [OUR_V6, link_local(OURS)] {
        let group = address::solicited_node(own);
        let probes: Vec<u64> = said
            .iter()
            .filter(|(_, frame)| frame[12..14] == [0x86, 0xdd])
            .filter(|(_, frame)| {
                let (mac, from, to, hop_limit, message) = read_icmpv6(frame);
                mac == header::multicast_mac(group)
                    && from.is_unspecified()
                    && to == group
                    && hop_limit == 255
                    && message == {
                        let mut expected = ndp(135, 0, own, None);
                        expected[2..4].copy_from_slice(&message[2..4]);
                        expected
                    }
            })
            .map(|(at_ms, _)| *at_ms)
            .collect();
        assert!(probes.len() == 1 && probes[0] < 1000, "{probes:?}");
        let adverts: Vec<u64> = said
            .iter()
            .filter(|(_, frame)| frame.len() == 86 && frame[54] == 136 && frame[62..78] == own.octets())
            .map(|(at_ms, _)| *at_ms)
            .collect();
        assert_eq!(adverts, [probes[0] + 1000, probes[0] + 3000], "used a second after the probe");
        let reports = said.iter().filter(|(_, frame)| frame.len() == 90 && frame[62] == 143 && frame[74..90] == group.octets()).count();
        assert_eq!(reports, 2);
    }
}

#[test]
fn an_address_that_somebody_has_is_not_used() {
    for advertised in [true, false] {
        let mut trace = Trace { iface: Interface::new(IfaceConfig { detect_duplicates: true, ..config() }, OURS, 1500, 0), now_ns: 0 };
        trace.pass(500 * MS);
        assert!(!trace.iface.is_usable(OUR_V6.into()));
        trace.hear(&if advertised {
            icmpv6([0x33, 0x33, 0, 0, 0, 1], PEER_V6, address::ALL_NODES, 255, &ndp(136, 0x20, OUR_V6, Some((2, PEER))))
        } else {
            solicit(Ipv6Addr::UNSPECIFIED, OUR_V6, None)
        });
        trace.pass(5_000 * MS);
        assert!(!trace.iface.is_usable(OUR_V6.into()));
        assert!(trace.iface.addresses().any(|(cidr, state)| cidr.addr() == OUR_V6 && state == AddressState::Duplicate));
        assert!(trace.iface.is_usable(link_local(OURS).into()) && trace.iface.is_usable(OUR_V4.into()));
        assert_eq!(trace.iface.counters().conflicts, 1);
        assert!(trace.hear(&solicit(PEER_V6, OUR_V6, Some((1, PEER)))).is_empty(), "it is the other one's to answer");
    }
}

#[test]
fn our_own_probe_coming_back_is_no_duplicate() {
    let mut trace = Trace { iface: Interface::new(IfaceConfig { detect_duplicates: true, ..config() }, OURS, 1500, 0), now_ns: 0 };
    for (_, frame) in trace.pass(1_000 * MS) {
        trace.iface.ingress(trace.now_ns, &frame);
    }
    trace.pass(3_000 * MS);
    assert!(trace.iface.is_usable(OUR_V6.into()));
    assert_eq!(trace.iface.counters().conflicts, 0);
}

#[test]
fn arp_requests_for_us_are_answered_and_the_asker_is_known() {
    let mut trace = Trace::settled(config());
    let said = trace.hear(&arp_request());
    assert_eq!(
        said.iter().map(|frame| read_arp(frame)).collect::<Vec<_>>(),
        [(PEER, ArpOperation::Reply, (OURS, OUR_V4), (PEER, PEER_V4))]
    );
    assert_eq!(trace.iface.neighbour(trace.now_ns, PEER_V4.into()), Some(NeighbourState::Stale));
    let path = trace.iface.path(trace.now_ns, PEER_V4.into(), Asker::Own).unwrap();
    assert!(trace.iface.holds(trace.now_ns, &path));
    // A probe (RFC 5227) comes from nobody and is answered; nobody becomes a neighbour.
    let said = trace.hear(&arp(BROADCAST, ArpOperation::Request, (PEER, Ipv4Addr::UNSPECIFIED), ([0; 6], OUR_V4)));
    assert_eq!(read_arp(&said[0]), (PEER, ArpOperation::Reply, (OURS, OUR_V4), (PEER, Ipv4Addr::UNSPECIFIED)));
    assert_eq!(trace.iface.counters().neighbours, 1);
}

#[test]
fn arp_for_others_and_from_afar_is_not_answered() {
    let mut trace = Trace::settled(config());
    for frame in [
        arp(BROADCAST, ArpOperation::Request, (PEER, PEER_V4), ([0; 6], Ipv4Addr::new(192, 0, 2, 9))),
        arp(BROADCAST, ArpOperation::Request, (PEER, Ipv4Addr::new(8, 8, 8, 8)), ([0; 6], OUR_V4)),
        arp(OURS, ArpOperation::Reply, (PEER, PEER_V4), (OURS, OUR_V4)),
        arp(BROADCAST, ArpOperation::Request, (PEER, PEER_V4), ([0; 6], PEER_V4)),
        arp(BROADCAST, ArpOperation::Request, ([3, 0, 0, 0, 0, 2], PEER_V4), ([0; 6], OUR_V4)),
    ] {
        assert!(trace.hear(&frame).is_empty());
    }
    assert_eq!(trace.iface.counters().neighbours, 0, "nobody becomes a neighbour who did not ask for us");
}

#[test]
fn a_neighbour_is_asked_for_and_found() {
    let mut trace = Trace::settled(config());
    assert_eq!(trace.iface.path(trace.now_ns, PEER_V4.into(), Asker::Own), Err(PathFailure::Unresolved));
    let said = trace.say();
    assert_eq!(read_arp(&said[0].1), (BROADCAST, ArpOperation::Request, (OURS, OUR_V4), ([0; 6], PEER_V4)));
    trace.hear(&arp(OURS, ArpOperation::Reply, (PEER, PEER_V4), (OURS, OUR_V4)));
    assert_eq!(trace.iface.neighbour(trace.now_ns, PEER_V4.into()), Some(NeighbourState::Reachable));
    assert!(trace.iface.path(trace.now_ns, PEER_V4.into(), Asker::Own).is_ok());
    // Beyond the gateway the gateway is asked for, beyond everything nobody.
    assert_eq!(trace.iface.path(trace.now_ns, Ipv4Addr::new(8, 8, 8, 8).into(), Asker::Own), Err(PathFailure::Unresolved));
    assert_eq!(read_arp(&trace.say()[0].1).3.1, Ipv4Addr::new(192, 0, 2, 254));
    assert_eq!(trace.iface.path(trace.now_ns, "2a00::1".parse().unwrap(), Asker::Own), Err(PathFailure::NoRoute));
    assert_eq!(trace.iface.path(trace.now_ns, OUR_V4.into(), Asker::Own), Err(PathFailure::NoRoute));

    assert_eq!(trace.iface.path(trace.now_ns, PEER_V6.into(), Asker::Own), Err(PathFailure::Unresolved));
    let (mac, from, to, hop_limit, message) = read_icmpv6(&trace.say()[0].1);
    let group = address::solicited_node(PEER_V6);
    assert_eq!((mac, from, to, hop_limit), (header::multicast_mac(group), OUR_V6, group, 255));
    assert_eq!(message[4..], ndp(135, 0, PEER_V6, Some((1, OURS)))[4..]);
    trace.hear(&icmpv6(OURS, PEER_V6, OUR_V6, 255, &ndp(136, 0x60, PEER_V6, Some((2, PEER)))));
    assert_eq!(trace.iface.neighbour(trace.now_ns, PEER_V6.into()), Some(NeighbourState::Reachable));
}

#[test]
fn solicitations_for_us_are_answered() {
    let mut trace = Trace::settled(config());
    let said = trace.hear(&solicit(PEER_V6, OUR_V6, Some((1, PEER))));
    let (mac, from, to, hop_limit, message) = read_icmpv6(&said[0]);
    assert_eq!((said.len(), mac, from, to, hop_limit), (1, PEER, OUR_V6, PEER_V6, 255));
    assert_eq!(message[4..], ndp(136, 0x60, OUR_V6, Some((2, OURS)))[4..]);
    assert_eq!(trace.iface.neighbour(trace.now_ns, PEER_V6.into()), Some(NeighbourState::Stale));
    // Somebody tries whether our address is free (RFC 4861 7.2.4: all nodes are told).
    let (mac, _, to, _, message) = read_icmpv6(&trace.hear(&solicit(Ipv6Addr::UNSPECIFIED, OUR_V6, None))[0]);
    assert_eq!((mac, to, message[4]), ([0x33, 0x33, 0, 0, 0, 1], address::ALL_NODES, 0x20));
    let invalid = [
        icmpv6([0x33, 0x33, 0xff, 0, 0, 1], PEER_V6, address::solicited_node(OUR_V6), 64, &ndp(135, 0, OUR_V6, None)),
        icmpv6(OURS, PEER_V6, OUR_V6, 255, &ndp(135, 0, "ff02::1".parse().unwrap(), None)),
        icmpv6(OURS, PEER_V6, OUR_V6, 255, &ndp(135, 0, OUR_V6, None)[..20]),
        icmpv6(OURS, PEER_V6, OUR_V6, 255, &[&ndp(135, 0, OUR_V6, None)[..], &[1, 0, 0, 0, 0, 0, 0, 0]].concat()),
        icmpv6(OURS, PEER_V6, OUR_V6, 255, &[&[135, 1], &ndp(135, 0, OUR_V6, None)[2..]].concat()),
        solicit(Ipv6Addr::UNSPECIFIED, OUR_V6, Some((1, PEER))),
    ];
    for (nth, frame) in invalid.iter().enumerate() {
        assert!(trace.hear(frame).is_empty(), "{nth}");
    }
    assert_eq!(trace.iface.counters().dropped_malformed, invalid.len() as u64);
    assert!(trace.hear(&solicit(PEER_V6, "2001:db8::100:1".parse().unwrap(), Some((1, PEER)))).is_empty(), "not ours");
}

#[test]
fn a_conflict_is_defended_now_and_then() {
    let mut trace = Trace::settled(config());
    let claim = arp(BROADCAST, ArpOperation::Request, (PEER, OUR_V4), ([0; 6], OUR_V4));
    assert_eq!(trace.hear(&claim).len(), 1);
    for _ in 0..5 {
        assert!(trace.hear(&claim).is_empty(), "RFC 5227 2.4: once in ten seconds");
    }
    trace.pass(10_000 * MS);
    assert_eq!(read_arp(&trace.hear(&claim)[0]).2, (OURS, OUR_V4));
    assert_eq!(trace.iface.counters().conflicts, 7);
}

#[test]
fn echo() {
    let mut trace = Trace::settled(config());
    trace.hear(&arp_request());
    let mut request = vec![8, 0, 0, 0, 1, 2, 3, 4];
    request.extend((0..1472).map(|byte| byte as u8));
    let said = trace.hear(&icmpv4(&request));
    let (to, kind, _, data) = read_icmpv4(&said[0]);
    assert_eq!((to, kind, &data[..]), (PEER_V4, Icmpv4Message::EchoReply, &request[8..]));
    assert_eq!(said[0][38..42], request[4..8]);

    trace.hear(&solicit(PEER_V6, OUR_V6, Some((1, PEER))));
    let said = trace.hear(&icmpv6(OURS, PEER_V6, OUR_V6, 9, &[128, 0, 0, 0, 1, 2, 3, 4, 5]));
    let (mac, from, to, _, message) = read_icmpv6(&said[0]);
    assert_eq!((mac, from, to), (PEER, OUR_V6, PEER_V6));
    assert_eq!((message[0], &message[4..]), (129, &[1, 2, 3, 4, 5][..]));
    let all_nodes = icmpv6([0x33, 0x33, 0, 0, 0, 1], PEER_V6, address::ALL_NODES, 9, &[128, 0, 0, 0, 1, 2, 3, 4]);
    assert!(trace.hear(&all_nodes).is_empty());
}

#[test]
fn echo_waits_for_the_neighbour_and_not_for_ever() {
    let mut trace = Trace::settled(config());
    let said = trace.hear(&icmpv4(&[8, 0, 0, 0, 1, 2, 3, 4]));
    assert!(said.is_empty() && trace.iface.is_waiting());
    let said = trace.say();
    assert_eq!(read_arp(&said[0].1).3.1, PEER_V4);
    let said = trace.hear(&arp(OURS, ArpOperation::Reply, (PEER, PEER_V4), (OURS, OUR_V4)));
    assert_eq!(read_icmpv4(&said[0]).1, Icmpv4Message::EchoReply);
    let mut trace = Trace::settled(config());
    trace.hear(&icmpv4(&[8, 0, 0, 0, 1, 2, 3, 4]));
    trace.pass(4_000 * MS);
    assert!(!trace.iface.is_waiting());
}

#[test]
fn echo_has_a_rate() {
    let mut trace = Trace::settled(IfaceConfig { echoes_per_second: 100, ..config() });
    trace.hear(&arp_request());
    let request = icmpv4(&[8, 0, 0, 0, 1, 2, 3, 4]);
    assert_eq!((0..100).map(|_| trace.hear(&request).len()).sum::<usize>(), 10);
    trace.pass(1_000 * MS);
    assert_eq!(trace.hear(&request).len(), 1);
    assert_eq!(trace.iface.counters().answers_dropped, 90);
}

#[test]
fn datagrams_are_handed_on() {
    let mut trace = Trace::settled(config());
    for to in [SocketAddr::from((OUR_V4, 6970)), SocketAddr::from((OUR_V6, 6971))] {
        for len in [0, 1, 7, 1400] {
            let bytes: Vec<u8> = (0..len).map(|at| at as u8 ^ 0x5a).collect();
            let mut frame = udp_frame(to, &bytes);
            frame.resize(frame.len().max(60), 0xaa);
            let Ingress::Udp { to: shown, payload, from, .. } = trace.iface.ingress(trace.now_ns, &frame) else { panic!("no datagram") };
            assert_eq!((shown, payload, from.port()), (to, &bytes[..], 5004));
        }
        let good = udp_frame(to, b"payload");
        for at in 14..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            let taken = trace.iface.ingress(trace.now_ns, &bad);
            // The class, flow label, hop limit and, for IPv6, extension header numbers are not under a checksum.
            let uncovered = to.is_ipv6() && (14..22).contains(&at);
            assert!(uncovered || matches!(taken, Ingress::Nothing), "{to} byte {at}");
        }
    }
    let mut without = udp_frame((OUR_V4, 6970).into(), b"x");
    without[40..42].fill(0);
    assert!(matches!(trace.iface.ingress(0, &without), Ingress::Udp { .. }), "RFC 768: no checksum");
    let mut without = udp_frame((OUR_V6, 6970).into(), b"x");
    without[60..62].fill(0);
    assert_eq!(trace.iface.ingress(0, &without), Ingress::Nothing, "RFC 8200 8.1");
}

#[test]
fn what_is_dropped_and_why() {
    let mut trace = Trace::settled(config());
    let good = udp_frame((OUR_V4, 6970).into(), b"x");
    let ip = |packet: Vec<u8>| ethernet(OURS, PEER, EthernetProtocol::Ipv4, &packet);
    let datagram = |from: Ipv4Addr, to: Ipv4Addr| ipv4(from, to, 17, &udp((from, 5).into(), (to, 6970).into(), b"x"));
    let refill = |mut packet: Vec<u8>| {
        Ipv4Packet::new_unchecked(&mut packet).fill_checksum();
        packet
    };
    let fragment = |offset: u8, more: u8| {
        let mut packet = datagram(PEER_V4, OUR_V4);
        (packet[6], packet[7]) = (more << 5, offset);
        refill(packet)
    };
    let mut foreign_mac = good.clone();
    foreign_mac[5] = 9;
    let mut to_all = good.clone();
    to_all[..6].fill(0xff);
    let mut from_group = good.clone();
    from_group[6] |= 1;
    type Count = fn(&IfaceCounters) -> u64;
    let not_ours: Count = |c| c.dropped_not_ours;
    let martian: Count = |c| c.dropped_martian;
    let malformed: Count = |c| c.dropped_malformed;
    let fragments: Count = |c| c.dropped_fragments;
    let cases: [(&str, Vec<u8>, Count); 15] = [
        ("other hardware address", foreign_mac, not_ours),
        ("one host's packet to all", to_all, not_ours),
        ("from a group", from_group, martian),
        ("short", good[..13].to_vec(), malformed),
        ("cut in the IP header", good[..30].to_vec(), malformed),
        ("cut in the payload", good[..good.len() - 1].to_vec(), malformed),
        ("other IP address", ip(datagram(PEER_V4, Ipv4Addr::new(192, 0, 2, 9))), not_ours),
        ("broadcast", ip(datagram(PEER_V4, Ipv4Addr::new(192, 0, 2, 255))), not_ours),
        ("from us", ip(datagram(OUR_V4, OUR_V4)), martian),
        ("from a network's broadcast", ip(datagram(Ipv4Addr::new(192, 0, 2, 255), OUR_V4)), martian),
        ("from loopback", ip(datagram(Ipv4Addr::LOCALHOST, OUR_V4)), martian),
        ("from multicast", ip(datagram(Ipv4Addr::new(224, 0, 0, 1), OUR_V4)), martian),
        ("first fragment", ip(fragment(0, 1)), fragments),
        ("last fragment", ip(fragment(4, 0)), fragments),
        ("another ethertype", ethernet(OURS, PEER, EthernetProtocol::Unknown(0x88cc), &[0; 50]), not_ours),
    ];
    for (name, frame, count) in cases {
        let before = count(&trace.iface.counters());
        assert_eq!(trace.iface.ingress(trace.now_ns, &frame), Ingress::Nothing, "{name}");
        assert_eq!(count(&trace.iface.counters()), before + 1, "{name}");
        assert!(trace.say().is_empty(), "{name}: nothing is said about it");
    }
}

#[test]
fn errors_are_sent_about_what_may_be_complained_about() {
    let mut trace = Trace::settled(IfaceConfig { errors_per_second: 1_000, ..config() });
    trace.hear(&arp_request());
    trace.hear(&solicit(PEER_V6, OUR_V6, Some((1, PEER))));
    let refuse = |trace: &mut Trace, frame: &[u8]| {
        let Ingress::Udp { from, to, packet, .. } = trace.iface.ingress(trace.now_ns, frame) else { panic!("no datagram") };
        trace.iface.refuse_udp(trace.now_ns, from.ip(), to.ip(), packet);
        trace.say().remove(0).1
    };
    let frame = udp_frame((OUR_V4, 9).into(), &[7; 1400]);
    let (to, kind, code, quote) = read_icmpv4(&refuse(&mut trace, &frame));
    assert_eq!((to, kind, code), (PEER_V4, Icmpv4Message::DstUnreachable, 3));
    assert_eq!(quote, frame[14..14 + 548], "as much as fits into 576 bytes");
    let frame = udp_frame((OUR_V6, 9).into(), &[7; 1400]);
    let (_, from, to, _, message) = read_icmpv6(&refuse(&mut trace, &frame));
    assert_eq!((from, to, &message[..2], &message[8..]), (OUR_V6, PEER_V6, &[1, 4][..], &frame[14..14 + 1232]));

    let (_, kind, code, _) =
        read_icmpv4(&trace.hear(&ethernet(OURS, PEER, EthernetProtocol::Ipv4, &ipv4(PEER_V4, OUR_V4, 47, &[0; 40])))[0]);
    assert_eq!((kind, code), (Icmpv4Message::DstUnreachable, 2));
    let unknown = ethernet(OURS, PEER, EthernetProtocol::Ipv6, &ipv6(PEER_V6, OUR_V6, 47, 9, &[0; 40]));
    let message = read_icmpv6(&trace.hear(&unknown)[0]).4;
    assert_eq!((&message[..2], &message[4..8]), (&[4, 1][..], &[0, 0, 0, 6][..]), "parameter problem, at the next header field");
    assert_eq!(Icmpv6Message::from(message[0]), Icmpv6Message::ParamProblem);
}

#[test]
fn no_error_about_errors_groups_and_fragments() {
    let mut trace = Trace::settled(config());
    trace.hear(&arp_request());
    trace.hear(&solicit(PEER_V6, OUR_V6, Some((1, PEER))));
    let unknown_to = |to: Ipv6Addr, mac| ethernet(mac, PEER, EthernetProtocol::Ipv6, &ipv6(PEER_V6, to, 47, 9, &[0; 40]));
    let mut fragment = ipv4(PEER_V4, OUR_V4, 47, &[0; 40]);
    fragment[6] = 0x20;
    Ipv4Packet::new_unchecked(&mut fragment).fill_checksum();
    let mut error = vec![3, 3, 0, 0, 0, 0, 0, 0];
    error.extend(ipv4(OUR_V4, PEER_V4, 47, &[0; 8]));
    for (name, frame) in [
        ("to all nodes", unknown_to(address::ALL_NODES, [0x33, 0x33, 0, 0, 0, 1])),
        ("to our solicited-node group", unknown_to(address::solicited_node(OUR_V6), [0x33, 0x33, 0xff, 0, 0, 1])),
        ("a fragment", ethernet(OURS, PEER, EthernetProtocol::Ipv4, &fragment)),
        ("an error", icmpv4(&error)),
        ("an unknown ICMPv6 error", icmpv6(OURS, PEER_V6, OUR_V6, 9, &[100; 60])),
        ("an unknown ICMPv6 message", icmpv6(OURS, PEER_V6, OUR_V6, 9, &[200; 60])),
        ("in a frame to all", ethernet(BROADCAST, PEER, EthernetProtocol::Ipv4, &ipv4(PEER_V4, OUR_V4, 47, &[0; 40]))),
    ] {
        assert!(trace.hear(&frame).is_empty(), "{name}");
    }
}

#[test]
fn errors_have_a_rate() {
    let mut trace = Trace::settled(IfaceConfig { errors_per_second: 50, ..config() });
    trace.hear(&arp_request());
    let frame = ethernet(OURS, PEER, EthernetProtocol::Ipv4, &ipv4(PEER_V4, OUR_V4, 47, &[0; 40]));
    assert_eq!((0..1000).map(|_| trace.hear(&frame).len()).sum::<usize>(), 5);
    trace.pass(100 * MS);
    assert_eq!((0..1000).map(|_| trace.hear(&frame).len()).sum::<usize>(), 5);
}

#[test]
fn errors_about_our_packets_are_handed_on() {
    let mut trace = Trace::settled(config());
    let quote = |protocol| ipv4(OUR_V4, PEER_V4, protocol, &[0x1b, 0x3a, 0, 80, 1, 2, 3, 4]);
    let error = |kind, code, word: u32, quote: &[u8]| [&[kind, code, 0, 0][..], &word.to_be_bytes(), quote].concat();
    let cases = [
        (3, 4, 1400, PathErrorKind::PacketTooBig { mtu_bytes: 1400 }),
        (3, 4, 68, PathErrorKind::PacketTooBig { mtu_bytes: 552 }),
        (3, 4, 0, PathErrorKind::PacketTooBig { mtu_bytes: 552 }),
        (3, 3, 0, PathErrorKind::Refused),
        (3, 1, 0, PathErrorKind::Unreachable),
        (11, 0, 0, PathErrorKind::Unreachable),
    ];
    for (kind, code, word, expected) in cases {
        for protocol in [6, 17] {
            let frame = icmpv4(&error(kind, code, word, &quote(protocol)));
            let Ingress::Error(path) = trace.iface.ingress(trace.now_ns, &frame) else { panic!("{kind} {code} was not handed on") };
            assert_eq!((path.local, path.remote, path.protocol, path.kind), (OUR_V4.into(), PEER_V4.into(), protocol, expected));
            assert_eq!(path.header[..4], [0x1b, 0x3a, 0, 80]);
        }
    }
    let quote6 = ipv6(OUR_V6, PEER_V6, 6, 9, &[0, 1, 0, 80, 1, 2, 3, 4]);
    let frame = icmpv6(OURS, PEER_V6, OUR_V6, 9, &error(2, 0, 1300, &quote6));
    let Ingress::Error(path) = trace.iface.ingress(trace.now_ns, &frame) else { panic!("not handed on") };
    assert_eq!((path.remote, path.kind), (PEER_V6.into(), PathErrorKind::PacketTooBig { mtu_bytes: 1300 }));
    for (name, frame) in [
        ("about somebody else's packet", icmpv4(&error(3, 3, 0, &ipv4(PEER_V4, OUR_V4, 6, &[0; 8])))),
        ("cut short", icmpv4(&error(3, 3, 0, &quote(6)[..27]))),
        ("a redirect", icmpv4(&error(5, 0, 0, &quote(6)))),
        ("source quench", icmpv4(&error(4, 0, 0, &quote(6)))),
    ] {
        assert_eq!(trace.iface.ingress(trace.now_ns, &frame), Ingress::Nothing, "{name}");
    }
}

#[test]
fn routers_are_believed_only_if_the_settings_say_so() {
    let router = link_local(PEER);
    let advert = |seconds: u16| {
        let mut message = vec![134, 0, 0, 0, 64, 0, 0, 0];
        message[6..8].copy_from_slice(&seconds.to_be_bytes());
        message.extend([0; 8]);
        message.extend([1, 1]);
        message.extend(PEER);
        icmpv6([0x33, 0x33, 0, 0, 0, 1], router, address::ALL_NODES, 255, &message)
    };
    let far: IpAddr = "2a00::1".parse().unwrap();
    for accept_routers in [false, true] {
        let mut trace = Trace::settled(IfaceConfig { accept_routers, ..config() });
        trace.hear(&advert(30));
        assert_eq!(trace.iface.path(trace.now_ns, far, Asker::Own).is_ok(), accept_routers);
        assert_eq!(trace.iface.source(trace.now_ns, far), accept_routers.then_some(OUR_V6.into()));
        trace.pass(30_000 * MS);
        assert_eq!(trace.iface.path(trace.now_ns, far, Asker::Own), Err(PathFailure::NoRoute));
    }
    let mut trace = Trace::settled(IfaceConfig { accept_routers: true, ..config() });
    trace.hear(&advert(30));
    trace.hear(&advert(0));
    assert_eq!(trace.iface.path(trace.now_ns, far, Asker::Own), Err(PathFailure::NoRoute));
}

#[test]
fn a_vlan_is_one_interface() {
    let mut trace = Trace::settled(IfaceConfig { vlan: Some(7), ..config() });
    let tagged = |vlan: u16| {
        let mut frame = arp_request();
        frame.splice(12..12, [0x81, 0, (vlan >> 8) as u8, vlan as u8]);
        frame
    };
    assert!(trace.hear(&arp_request()).is_empty());
    assert!(trace.hear(&tagged(8)).is_empty());
    let mut said = trace.hear(&tagged(0x2000 | 7)).remove(0);
    assert_eq!(said[12..16], [0x81, 0, 0, 7]);
    said.drain(12..16);
    assert_eq!(read_arp(&said), (PEER, ArpOperation::Reply, (OURS, OUR_V4), (PEER, PEER_V4)));
    let mut untagged = Trace::settled(config());
    assert!(untagged.hear(&tagged(7)).is_empty());
    assert_eq!(untagged.hear(&tagged(0x6000)).len(), 1, "a priority tag names no VLAN");
}

#[test]
fn what_has_no_frame_waits() {
    let mut trace = Trace::settled(config());
    trace.hear(&arp_request());
    trace.iface.ingress(trace.now_ns, &arp_request());
    trace.iface.ingress(trace.now_ns, &icmpv4(&[8, 0, 0, 0, 1, 2, 3, 4]));
    let mut out = Out { room: Some(0), ..Out::default() };
    trace.iface.egress(trace.now_ns, &mut out);
    assert!(out.said.is_empty() && trace.iface.is_waiting());
    out.room = Some(1);
    trace.iface.egress(trace.now_ns, &mut out);
    assert!(out.said.len() == 1 && trace.iface.is_waiting());
    out.room = None;
    trace.iface.egress(trace.now_ns, &mut out);
    assert!(out.said.len() == 2 && !trace.iface.is_waiting());
}

proptest! {
    /// A frame of ours is what smoltcp reads out of it.
    #[test]
    fn templates_make_datagrams(payload in prop::collection::vec(any::<u8>(), 0..1453), ports: (u16, u16), v6: bool, tagged: bool) {
        let mut trace = Trace::settled(IfaceConfig { vlan: tagged.then_some(100), ..config() });
        let (own, peer) = if v6 { (IpAddr::from(OUR_V6), IpAddr::from(PEER_V6)) } else { (OUR_V4.into(), PEER_V4.into()) };
        trace.iface.neighbours.heard(trace.now_ns, peer, PEER);
        let path = trace.iface.path(trace.now_ns, peer, Asker::Own).unwrap();
        let template = trace.iface.udp_template(&path, (own, ports.0).into(), (peer, ports.1).into()).unwrap();
        let mut frame = vec![0xee; 1518];
        let at = template.header_bytes();
        frame[at..at + payload.len()].copy_from_slice(&payload);
        let len = template.complete(&mut frame, payload.len());
        prop_assert_eq!(len, at + payload.len());
        frame.truncate(len);
        if tagged {
            prop_assert_eq!(&frame[12..16], &[0x81, 0, 0, 100]);
            frame.drain(12..16);
        }
        let frame = EthernetFrame::new_checked(&frame[..]).unwrap();
        prop_assert_eq!((frame.dst_addr().0, frame.src_addr().0), (PEER, OURS));
        let datagram = if v6 {
            let packet = Ipv6Packet::new_checked(frame.payload()).unwrap();
            prop_assert_eq!((packet.src_addr(), packet.dst_addr(), packet.hop_limit()), (OUR_V6, PEER_V6, 64));
            packet.payload()
        } else {
            let packet = Ipv4Packet::new_checked(frame.payload()).unwrap();
            prop_assert!(packet.verify_checksum() && packet.dont_frag() && packet.ident() == 0);
            prop_assert_eq!((packet.src_addr(), packet.dst_addr(), packet.hop_limit()), (OUR_V4, PEER_V4, 64));
            packet.payload()
        };
        let datagram = UdpPacket::new_checked(datagram).unwrap();
        prop_assert!(datagram.verify_checksum(&own.into(), &peer.into()) && datagram.checksum() != 0);
        prop_assert_eq!((datagram.src_port(), datagram.dst_port(), datagram.payload()), (ports.0, ports.1, &payload[..]));
    }

    /// A frame too short for its payload is refused.
    #[test]
    fn templates_do_not_write_beyond_the_frame(len in 0_usize..200, payload_bytes in 0_usize..70_000) {
        let mut trace = Trace::settled(config());
        trace.iface.neighbours.heard(trace.now_ns, PEER_V4.into(), PEER);
        let path = trace.iface.path(trace.now_ns, PEER_V4.into(), Asker::Own).unwrap();
        let template = trace.iface.udp_template(&path, (OUR_V4, 1).into(), (PEER_V4, 2).into()).unwrap();
        let done = template.complete(&mut vec![0; len], payload_bytes);
        prop_assert_eq!(done, if 42 + payload_bytes <= len { 42 + payload_bytes } else { 0 });
    }

    /// Whatever comes in: nothing panics, everything is counted once, what is remembered and said stays bounded.
    #[test]
    fn any_frames(seed: u64, frames in prop::collection::vec((0_usize..12, prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6), 0_u64..2000), 1..60)) {
        let mut trace = Trace::settled(IfaceConfig { seed, accept_routers: true, neighbours_max: 8, ..config() });
        for group in multicast::GROUPS {
            prop_assert!(trace.iface.join(trace.now_ns, group));
        }
        let start = trace.iface.counters();
        let models = [
            arp_request(),
            solicit(PEER_V6, OUR_V6, Some((1, PEER))),
            icmpv6(OURS, PEER_V6, OUR_V6, 255, &ndp(136, 0x60, PEER_V6, Some((2, PEER)))),
            icmpv4(&[8, 0, 0, 0, 1, 2, 3, 4]),
            udp_frame((OUR_V4, 6970).into(), b"payload"),
            udp_frame((OUR_V6, 6970).into(), b"payload"),
            icmpv4(&[&[3, 4, 0, 0, 0, 0, 5, 0][..], &ipv4(OUR_V4, PEER_V4, 17, &[0; 8])].concat()),
            ethernet(OURS, PEER, EthernetProtocol::Ipv6, &ipv6(PEER_V6, OUR_V6, 0, 9, &[17, 0, 1, 4, 0, 0, 0, 0])),
            multicast::igmp_query(None, &[2, 125, 0, 0]),
            multicast::mld_query(None, &[2, 125, 0, 0]),
            udp_frame((multicast::GROUPS[0], 9500).into(), b"payload"),
            Vec::new(),
        ];
        let empty = models.len() - 1;
        let count = frames.len() as u64;
        for (model, changes, ms) in frames {
            let mut frame = models[model].clone();
            for (at, value) in changes {
                if model == empty {
                    frame.push(value);
                } else {
                    let at = at.index(frame.len());
                    frame[at] = value;
                }
            }
            trace.iface.ingress(trace.now_ns, &frame);
            prop_assert!(trace.pass(ms * MS).len() < 300);
        }
        let end = trace.iface.counters();
        let seen = |c: &IfaceCounters| {
            c.rx_arp + c.rx_ndp + c.rx_icmp + c.rx_igmp + c.rx_udp + c.rx_tcp + c.dropped_not_ours + c.dropped_malformed + c.dropped_checksum
                + c.dropped_martian + c.dropped_fragments + c.dropped_unknown_protocol
        };
        prop_assert_eq!(end.rx_frames - start.rx_frames, count);
        prop_assert_eq!(seen(&end) - seen(&start), count);
        prop_assert!(end.neighbours <= 8);
    }
}
