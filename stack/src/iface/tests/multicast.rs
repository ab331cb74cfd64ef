//! Groups on the wire: what is told to routers, what these ask, and what comes by a group.

use super::*;

const S: u64 = 1000 * MS;
pub(super) const GROUPS: [IpAddr; 2] = [IpAddr::V4(GROUP_V4), IpAddr::V6(GROUP_V6)];
const GROUP_V4: Ipv4Addr = Ipv4Addr::new(239, 129, 2, 3);
const GROUP_V6: Ipv6Addr = Ipv6Addr::new(0xff15, 0, 0, 0, 0, 0, 9, 9);
const ALL_SYSTEMS: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 1);

fn checksum(bytes: &mut [u8]) {
    let mut sum: u32 = bytes.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]))).sum();
    sum = (sum & 0xffff) + (sum >> 16);
    bytes[2..4].copy_from_slice(&(!((sum & 0xffff) + (sum >> 16)) as u16).to_be_bytes());
}

/// What may differ from a right query.
#[derive(Clone, Copy)]
struct Quirks {
    alert: bool,
    hop_limit: u8,
    from_v4: Ipv4Addr,
    from_v6: Ipv6Addr,
    to_v4: Option<Ipv4Addr>,
}

fn right() -> Quirks {
    Quirks { alert: true, hop_limit: 1, from_v4: Ipv4Addr::new(192, 0, 2, 254), from_v6: link_local(PEER), to_v4: None }
}

/// An IGMP query that allows a second, about a group or all; `tail` is what version 3 adds.
fn igmp_query_with(group: Option<Ipv4Addr>, tail: &[u8], quirks: Quirks) -> Vec<u8> {
    let mut message = vec![0x11, 10, 0, 0];
    message.extend(group.unwrap_or(Ipv4Addr::UNSPECIFIED).octets());
    message.extend(tail);
    checksum(&mut message);
    let to = quirks.to_v4.or(group).unwrap_or(ALL_SYSTEMS);
    let options: &[u8] = if quirks.alert { &[0x94, 4, 0, 0] } else { &[1, 1, 1, 1] };
    let mut packet = ipv4(quirks.from_v4, to, 2, &[options, &message].concat());
    (packet[0], packet[8]) = (0x46, quirks.hop_limit);
    Ipv4Packet::new_unchecked(&mut packet).fill_checksum();
    ethernet(group_mac(to.into()), PEER, EthernetProtocol::Ipv4, &packet)
}

pub(super) fn igmp_query(group: Option<Ipv4Addr>, tail: &[u8]) -> Vec<u8> {
    igmp_query_with(group, tail, right())
}

/// The same of MLD.
fn mld_query_with(group: Option<Ipv6Addr>, tail: &[u8], quirks: Quirks) -> Vec<u8> {
    let to = group.unwrap_or(address::ALL_NODES);
    let mut message = vec![130, 0, 0, 0, 3, 0xe8, 0, 0];
    message.extend(group.unwrap_or(Ipv6Addr::UNSPECIFIED).octets());
    message.extend(tail);
    Icmpv6Packet::new_unchecked(&mut message).fill_checksum(&quirks.from_v6, &to);
    let options: &[u8] = if quirks.alert { &[58, 0, 5, 2, 0, 0, 1, 0] } else { &[58, 0, 1, 4, 0, 0, 0, 0] };
    let packet = ipv6(quirks.from_v6, to, 0, quirks.hop_limit, &[options, &message].concat());
    ethernet(group_mac(to.into()), PEER, EthernetProtocol::Ipv6, &packet)
}

pub(super) fn mld_query(group: Option<Ipv6Addr>, tail: &[u8]) -> Vec<u8> {
    mld_query_with(group, tail, right())
}

/// Ethernet and IP destination, and the IGMP message of a frame that is as RFC 3376 4 wants it; its checksum, which is right, is blanked.
fn read_igmp(frame: &[u8]) -> (Mac, Ipv4Addr, Vec<u8>) {
    let frame = EthernetFrame::new_checked(frame).unwrap();
    assert_eq!((frame.ethertype(), frame.src_addr().0), (EthernetProtocol::Ipv4, OURS));
    let packet = Ipv4Packet::new_checked(frame.payload()).unwrap();
    assert!(packet.verify_checksum() && packet.src_addr() == OUR_V4);
    assert_eq!((packet.header_len(), packet.hop_limit(), packet.next_header()), (24, 1, IpProtocol::Igmp));
    assert_eq!((frame.payload()[1], &frame.payload()[20..24]), (0xc0, &[0x94, 4, 0, 0][..]), "precedence, router alert");
    let mut message = packet.payload().to_vec();
    let sum = [message[2], message[3]];
    message[2..4].fill(0);
    checksum(&mut message);
    assert_eq!(message[2..4], sum);
    message[2..4].fill(0);
    (frame.dst_addr().0, packet.dst_addr(), message)
}

/// The same of MLD.
fn read_mld(frame: &[u8]) -> (Mac, Ipv6Addr, Vec<u8>) {
    let (mac, from, to, hop_limit, mut message) = read_icmpv6(frame);
    assert_eq!((from, hop_limit, frame[20]), (link_local(OURS), 1, 0));
    message[2..4].fill(0);
    (mac, to, message)
}

/// IGMP and MLD among what was said.
fn split(said: &[(u64, Vec<u8>)]) -> (Vec<&[u8]>, Vec<&[u8]>) {
    said.iter().map(|(_, frame)| &frame[..]).partition(|frame| frame[12..14] == [8, 0])
}

/// An interface that has joined both groups, and what it said.
fn joined() -> (Trace, Vec<(u64, Vec<u8>)>) {
    let mut trace = Trace::settled(config());
    for group in GROUPS {
        assert!(trace.iface.join(trace.now_ns, group));
    }
    let said = trace.pass(10 * S);
    (trace, said)
}

#[test]
fn joining_and_leaving_on_the_wire() {
    let (mut trace, said) = joined();
    let (igmp, mld) = split(&said);
    assert_eq!((igmp.len(), mld.len()), (2, 2));
    for frame in igmp {
        let message = vec![0x22, 0, 0, 0, 0, 0, 0, 1, 4, 0, 0, 0, 239, 129, 2, 3];
        assert_eq!(read_igmp(frame), ([1, 0, 0x5e, 0, 0, 22], Ipv4Addr::new(224, 0, 0, 22), message));
    }
    for frame in mld {
        let message = [&[143, 0, 0, 0, 0, 0, 0, 1, 4, 0, 0, 0][..], &GROUP_V6.octets()].concat();
        assert_eq!(read_mld(frame), ([0x33, 0x33, 0, 0, 0, 0x16], "ff02::16".parse().unwrap(), message));
    }
    // What routers of older versions understand goes to the group itself, or to all routers.
    trace.iface.ingress(trace.now_ns, &igmp_query(None, &[]));
    trace.iface.ingress(trace.now_ns, &mld_query(Some(GROUP_V6), &[]));
    let said = trace.pass(S);
    let (igmp, mld) = split(&said);
    assert_eq!((igmp.len(), mld.len()), (1, 1));
    assert_eq!(read_igmp(igmp[0]), ([1, 0, 0x5e, 1, 2, 3], GROUP_V4, vec![0x16, 0, 0, 0, 239, 129, 2, 3]));
    let message = |kind| [&[kind, 0, 0, 0, 0, 0, 0, 0][..], &GROUP_V6.octets()].concat();
    assert_eq!(read_mld(mld[0]), ([0x33, 0x33, 0, 9, 0, 9], GROUP_V6, message(131)));
    for group in GROUPS {
        trace.iface.leave(trace.now_ns, group);
    }
    let said = trace.say();
    let routers = Ipv4Addr::new(224, 0, 0, 2);
    assert_eq!(read_igmp(&said[0].1), ([1, 0, 0x5e, 0, 0, 2], routers, vec![0x17, 0, 0, 0, 239, 129, 2, 3]));
    assert_eq!(read_mld(&said[1].1), ([0x33, 0x33, 0, 0, 0, 2], "ff02::2".parse().unwrap(), message(132)));
}

#[test]
fn queries_from_the_link_are_answered_and_others_are_not() {
    let third = [2, 125, 0, 0];
    let afar = Quirks { hop_limit: 2, ..right() };
    let silent = Quirks { alert: false, ..right() };
    let nobody = Quirks { from_v4: Ipv4Addr::UNSPECIFIED, from_v6: Ipv6Addr::UNSPECIFIED, ..right() };
    let damaged = |mut frame: Vec<u8>| {
        let last = frame.len() - 1;
        frame[last] ^= 1;
        frame
    };
    for (what, frame, answered) in [
        ("all groups", igmp_query(None, &third), true),
        ("our group", igmp_query(Some(GROUP_V4), &third), true),
        ("our group, from some sources", igmp_query(Some(GROUP_V4), &[2, 125, 0, 1, 10, 0, 0, 1]), true),
        ("a switch without an address", igmp_query_with(None, &third, nobody), true),
        ("version 2", igmp_query(None, &[]), true),
        ("another group", igmp_query(Some(Ipv4Addr::new(239, 1, 1, 1)), &third), false),
        ("from afar", igmp_query_with(None, &third, afar), false),
        ("without a router alert", igmp_query_with(None, &third, silent), false),
        ("about all, sent to one group", igmp_query_with(None, &third, Quirks { to_v4: Some(GROUP_V4), ..right() }), false),
        ("damaged", damaged(igmp_query(None, &third)), false),
        ("MLD", mld_query(None, &third), true),
        ("MLD, our group", mld_query(Some(GROUP_V6), &third), true),
        ("MLD, a group of our address", mld_query(Some(address::solicited_node(OUR_V6)), &third), true),
        ("MLD of version 1", mld_query(None, &[]), true),
        ("MLD, another group", mld_query(Some("ff15::1".parse().unwrap()), &third), false),
        ("MLD, not from the link", mld_query_with(None, &third, Quirks { from_v6: PEER_V6, ..right() }), false),
        ("MLD from nobody", mld_query_with(None, &third, nobody), false),
        ("MLD from afar", mld_query_with(None, &third, afar), false),
        ("MLD without a router alert", mld_query_with(None, &third, silent), false),
        ("MLD, damaged", damaged(mld_query(None, &third)), false),
    ] {
        let (mut trace, _) = joined();
        trace.iface.ingress(trace.now_ns, &frame);
        let until_ms = (trace.now_ns + S) / MS;
        let said = trace.pass(10 * S);
        assert_eq!(!said.is_empty(), answered, "{what}");
        assert!(said.iter().all(|(at_ms, _)| *at_ms <= until_ms), "{what}: within a second");
    }
    // All groups of IPv6 in one report: the one that was joined, and those of both addresses.
    let (mut trace, _) = joined();
    trace.iface.ingress(trace.now_ns, &mld_query(None, &third));
    let (_, _, report) = read_mld(&trace.pass(10 * S)[0].1);
    assert_eq!((&report[..8], report.len()), (&[143, 0, 0, 0, 0, 0, 0, 3][..], 8 + 3 * 20));
}

#[test]
fn datagrams_come_by_joined_groups_only_and_nothing_is_answered() {
    let (mut trace, _) = joined();
    // These have the same hardware addresses.
    let others = [IpAddr::from([239, 1, 2, 3]), "ff15::1:9:9".parse().unwrap()];
    for (group, other) in GROUPS.into_iter().zip(others) {
        let [ours, theirs] = [group, other].map(|to| {
            let mut frame = udp_frame((to, 9500).into(), b"stream");
            frame[..6].copy_from_slice(&group_mac(to));
            frame
        });
        assert_eq!(ours[..6], theirs[..6]);
        let Ingress::Udp { from, to, payload, packet } = trace.iface.ingress(trace.now_ns, &ours) else { panic!("no datagram to {group}") };
        assert_eq!((to, payload), (SocketAddr::from((group, 9500)), &b"stream"[..]));
        trace.iface.refuse_udp(trace.now_ns, from.ip(), to.ip(), packet);
        assert!(trace.say().is_empty(), "no error about what came by a group");
        let before = trace.iface.counters().dropped_not_ours;
        assert_eq!(trace.iface.ingress(trace.now_ns, &theirs), Ingress::Nothing, "{other}");
        assert_eq!(trace.iface.counters().dropped_not_ours, before + 1, "{other}");
        trace.iface.leave(trace.now_ns, group);
        assert_eq!(trace.iface.ingress(trace.now_ns, &ours), Ingress::Nothing, "left");
        assert!(trace.iface.join(trace.now_ns, group));
        trace.pass(10 * S);
    }
    let frame4 = |packet: Vec<u8>| ethernet(group_mac(GROUPS[0]), PEER, EthernetProtocol::Ipv4, &packet);
    let frame6 = |packet: Vec<u8>| ethernet(group_mac(GROUPS[1]), PEER, EthernetProtocol::Ipv6, &packet);
    let datagram4 = |from: Ipv4Addr| ipv4(from, GROUP_V4, 17, &udp((from, 5).into(), (GROUP_V4, 9500).into(), b"x"));
    let datagram6 = |from: Ipv6Addr| ipv6(from, GROUP_V6, 17, 9, &udp((from, 5).into(), (GROUP_V6, 9500).into(), b"x"));
    let mut fragment = datagram4(PEER_V4);
    fragment[6] = 0x20;
    Ipv4Packet::new_unchecked(&mut fragment).fill_checksum();
    for (what, frame) in [
        ("echo", frame4(ipv4(PEER_V4, GROUP_V4, 1, &[8, 0, 0xf7, 0xff, 0, 0, 0, 0]))),
        ("TCP", frame4(ipv4(PEER_V4, GROUP_V4, 6, &[0; 20]))),
        ("an unknown protocol", frame4(ipv4(PEER_V4, GROUP_V4, 47, &[0; 20]))),
        ("a fragment", frame4(fragment)),
        ("from nobody", frame4(datagram4(Ipv4Addr::UNSPECIFIED))),
        ("from ourselves", frame4(datagram4(OUR_V4))),
        ("echo, IPv6", icmpv6(group_mac(GROUPS[1]), PEER_V6, GROUP_V6, 9, &[128, 0, 0, 0, 0, 0, 0, 0])),
        ("an unknown protocol, IPv6", frame6(ipv6(PEER_V6, GROUP_V6, 47, 9, &[0; 20]))),
        ("an option to report, IPv6", frame6(ipv6(PEER_V6, GROUP_V6, 60, 9, &[17, 0, 0x81, 4, 0, 0, 0, 0]))),
        ("from nobody, IPv6", frame6(datagram6(Ipv6Addr::UNSPECIFIED))),
    ] {
        assert_eq!(trace.iface.ingress(trace.now_ns, &frame), Ingress::Nothing, "{what}");
        assert!(trace.pass(S).is_empty(), "{what}: nothing is said about it");
    }
}
