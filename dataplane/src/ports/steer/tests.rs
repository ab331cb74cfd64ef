//! The program in the kernel, run on crafted frames (BPF_PROG_TEST_RUN).

use std::net::{IpAddr, Ipv6Addr};

use super::*;
use crate::ports::testing::root_or_skip;

const OURS4: &str = "10.1.2.3";
const OURS6: &str = "fd00::1:2:3";
const OURS_LINK: &str = "fe80::ff:fe00:77";
const OTHER4: [u8; 4] = [10, 1, 2, 4];
const OTHER6: &str = "fd00::1:2:4";

fn octets4(address: &str) -> [u8; 4] {
    address.parse::<std::net::Ipv4Addr>().unwrap().octets()
}

fn octets6(address: &str) -> [u8; 16] {
    address.parse::<Ipv6Addr>().unwrap().octets()
}

fn ether(ether_type: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
    frame.extend(ether_type.to_be_bytes());
    frame.extend(payload);
    frame
}

fn tagged(tpid: u16, tag: u16, untagged: &[u8]) -> Vec<u8> {
    let mut frame = untagged[..12].to_vec();
    frame.extend(tpid.to_be_bytes());
    frame.extend(tag.to_be_bytes());
    frame.extend(&untagged[12..]);
    frame
}

fn ipv4(destination: [u8; 4]) -> Vec<u8> {
    let mut packet = vec![0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 17, 0, 0, 10, 1, 2, 9];
    packet.extend(destination);
    packet.extend([0; 20]);
    ether(0x0800, &packet)
}

fn arp(operation: u16, target: [u8; 4]) -> Vec<u8> {
    let mut packet = vec![0, 1, 8, 0, 6, 4];
    packet.extend(operation.to_be_bytes());
    packet.extend([2, 0, 0, 0, 0, 2, 10, 1, 2, 9, 0, 0, 0, 0, 0, 0]);
    packet.extend(target);
    ether(0x0806, &packet)
}

fn ipv6(next_header: u8, destination: [u8; 16], payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0, 0, payload.len() as u8, next_header, 255];
    packet.extend(octets6("fe80::9"));
    packet.extend(destination);
    packet.extend(payload);
    ether(0x86dd, &packet)
}

fn ndp(kind: u8, destination: &str, target: &str) -> Vec<u8> {
    let mut message = vec![kind, 0, 0, 0, 0, 0, 0, 0];
    message.extend(octets6(target));
    message.extend([1, 1, 2, 0, 0, 0, 0, 2]);
    ipv6(58, octets6(destination), &message)
}

fn loaded(vlan: Option<u16>) -> Loaded {
    let loaded = Loaded::new(vlan).unwrap();
    for address in [OURS4, OURS6, OURS_LINK] {
        loaded.add_address(address.parse().unwrap()).unwrap();
    }
    loaded
}

/// What the program counts for a frame. There is no socket in the map, so ours are unserved; every verdict is to pass then.
fn verdict(loaded: &Loaded, frame: &[u8]) -> Verdict {
    let all = [Verdict::ToUs, Verdict::Unserved, Verdict::ToKernel, Verdict::Malformed];
    let before = all.map(|verdict| loaded.counter(0, verdict));
    assert_eq!(loaded.program.run(frame).unwrap(), program::XDP_PASS as u32);
    let after = all.map(|verdict| loaded.counter(0, verdict));
    let counted: Vec<_> = (0..4).filter(|i| after[*i] != before[*i]).collect();
    assert_eq!(counted.len(), 1, "exactly one counter moves");
    assert_eq!(after[counted[0]], before[counted[0]] + 1);
    all[counted[0]]
}

#[test]
fn ours_and_only_ours_is_steered() {
    if !root_or_skip("steering") {
        return;
    }
    let loaded = loaded(None);
    let ours = octets4(OURS4);
    let mut other_hardware = arp(1, ours);
    other_hardware[15] = 6;
    for (what, frame, expected) in [
        ("IPv4 to us", ipv4(ours), Verdict::Unserved),
        ("IPv4 to another", ipv4(OTHER4), Verdict::ToKernel),
        ("IPv4 broadcast", ipv4([255; 4]), Verdict::ToKernel),
        ("IPv4 multicast", ipv4([224, 0, 0, 1]), Verdict::ToKernel),
        ("ARP request for us", arp(1, ours), Verdict::Unserved),
        ("ARP reply to us", arp(2, ours), Verdict::Unserved),
        ("ARP request for another", arp(1, OTHER4), Verdict::ToKernel),
        ("ARP of another hardware", other_hardware, Verdict::ToKernel),
        ("IPv6 to us", ipv6(17, octets6(OURS6), &[0; 8]), Verdict::Unserved),
        ("IPv6 to our link-local", ipv6(17, octets6(OURS_LINK), &[0; 8]), Verdict::Unserved),
        ("IPv6 without payload", ipv6(59, octets6(OURS6), &[]), Verdict::Unserved),
        ("IPv6 to another", ipv6(17, octets6(OTHER6), &[0; 8]), Verdict::ToKernel),
        ("IPv6 all nodes", ipv6(17, octets6("ff02::1"), &[0; 24]), Verdict::ToKernel),
        ("solicitation of us", ndp(135, "ff02::1:ff02:3", OURS6), Verdict::Unserved),
        ("solicitation of another in our group", ndp(135, "ff02::1:ff02:3", "fd00::9:0:2:3"), Verdict::ToKernel),
        ("solicitation of us, unicast", ndp(135, OURS6, OURS6), Verdict::Unserved),
        ("solicitation of our link-local", ndp(135, "ff02::1:ff00:77", OURS_LINK), Verdict::Unserved),
        ("advertisement to us", ndp(136, OURS6, "fe80::9"), Verdict::Unserved),
        ("somebody else claims our address", ndp(136, "ff02::1", OURS6), Verdict::Unserved),
        ("advertisement to all", ndp(136, "ff02::1", "fe80::9"), Verdict::ToKernel),
        ("router advertisement", ndp(134, "ff02::1", OURS6), Verdict::ToKernel),
        ("short ICMPv6 to a group", ipv6(58, octets6("ff02::2"), &[133, 0, 0, 0, 0, 0, 0, 0]), Verdict::ToKernel),
        ("LLDP", ether(0x88cc, &[0; 46]), Verdict::ToKernel),
        ("a VLAN", tagged(0x8100, 5, &ipv4(ours)), Verdict::ToKernel),
        ("IPv4 that says it is IPv6", ether(0x0800, &ipv6(17, octets6(OURS6), &[])[14..]), Verdict::Malformed),
        ("IPv6 that says it is IPv4", ether(0x86dd, &[0x45; 60]), Verdict::Malformed),
    ] {
        assert_eq!(verdict(&loaded, &frame), expected, "{what}");
    }
}

const GROUP4: [u8; 4] = [239, 1, 2, 3];
const GROUP6: &str = "ff15::99";

#[test]
fn streams_to_a_joined_group_are_steered_and_talk_about_it_is_not() {
    if !root_or_skip("steering") {
        return;
    }
    let loaded = loaded(None);
    let of_protocol = |protocol: u8, destination: [u8; 4]| {
        let mut frame = ipv4(destination);
        frame[23] = protocol;
        frame
    };
    let group6 = octets6(GROUP6);
    // A query of MLD, as the kernel wants to hear it: behind a router alert.
    let mld = ipv6(0, group6, &[58, 0, 5, 2, 0, 0, 1, 0, 130, 0, 0, 0, 0, 0, 0, 0]);
    let others = [
        ("IGMP to the group", of_protocol(2, GROUP4)),
        ("a query to all", of_protocol(2, [224, 0, 0, 1])),
        ("another protocol to the group", of_protocol(1, GROUP4)),
        ("another group", ipv4([239, 1, 2, 4])),
        ("one of the same hardware address", ipv4([239, 129, 2, 3])),
        ("MLD to the group", mld),
        ("ICMPv6 to the group", ipv6(58, group6, &[128; 24])),
        ("TCP to the group", ipv6(6, group6, &[0; 24])),
        ("another group of IPv6", ipv6(17, octets6("ff15::9a"), &[0; 8])),
    ];
    let streams = [ipv4(GROUP4), ipv6(17, group6, &[0; 8])];
    for frame in &streams {
        assert_eq!(verdict(&loaded, frame), Verdict::ToKernel, "before it was joined");
    }
    for group in [IpAddr::from(GROUP4), GROUP6.parse().unwrap()] {
        loaded.add_address(group).unwrap();
    }
    for frame in &streams {
        assert_eq!(verdict(&loaded, frame), Verdict::Unserved);
    }
    for (what, frame) in others {
        assert_eq!(verdict(&loaded, &frame), Verdict::ToKernel, "{what}");
    }
}

#[test]
fn frames_cut_short_are_never_ours_and_never_read_beyond() {
    if !root_or_skip("steering") {
        return;
    }
    let loaded = loaded(None);
    for group in [IpAddr::from(GROUP4), GROUP6.parse().unwrap()] {
        loaded.add_address(group).unwrap();
    }
    for (frame, needed) in [
        (ipv4(octets4(OURS4)), 14 + 20),
        (arp(1, octets4(OURS4)), 14 + 28),
        (ipv6(17, octets6(OURS6), &[]), 14 + 40),
        (ndp(135, "ff02::1:ff02:3", OURS6), 14 + 40 + 24),
        (ipv4(GROUP4), 14 + 20),
        (ipv6(17, octets6(GROUP6), &[0; 8]), 14 + 40),
    ] {
        // The kernel runs a program on no less than an Ethernet header.
        for len in 14..=frame.len() {
            let got = verdict(&loaded, &frame[..len]);
            assert_eq!(got == Verdict::Unserved, len >= needed, "{len} bytes of {frame:?}: {got:?}");
        }
    }
}

#[test]
fn a_vlan_is_steered_alone() {
    if !root_or_skip("steering") {
        return;
    }
    let loaded = loaded(Some(77));
    let ours = octets4(OURS4);
    for (what, frame, expected) in [
        ("untagged", ipv4(ours), Verdict::ToKernel),
        ("our VLAN", tagged(0x8100, 77, &ipv4(ours)), Verdict::Unserved),
        ("our VLAN with a priority", tagged(0x8100, 0xe000 | 77, &arp(1, ours)), Verdict::Unserved),
        ("IPv6 in our VLAN", tagged(0x8100, 77, &ndp(135, "ff02::1:ff02:3", OURS6)), Verdict::Unserved),
        ("another VLAN", tagged(0x8100, 78, &ipv4(ours)), Verdict::ToKernel),
        ("a provider's tag", tagged(0x88a8, 77, &ipv4(ours)), Verdict::ToKernel),
        ("another address", tagged(0x8100, 77, &ipv4(OTHER4)), Verdict::ToKernel),
        ("cut after the tag", tagged(0x8100, 77, &ipv4(ours))[..18].to_vec(), Verdict::Malformed),
        ("cut in the tag", tagged(0x8100, 77, &ipv4(ours))[..16].to_vec(), Verdict::Malformed),
    ] {
        assert_eq!(verdict(&loaded, &frame), expected, "{what}");
    }
}

#[test]
fn addresses_come_and_go() {
    if !root_or_skip("steering") {
        return;
    }
    let loaded = Loaded::new(None).unwrap();
    let ours: IpAddr = OURS4.parse().unwrap();
    assert_eq!(verdict(&loaded, &ipv4(octets4(OURS4))), Verdict::ToKernel);
    loaded.add_address(ours).unwrap();
    assert_eq!(verdict(&loaded, &ipv4(octets4(OURS4))), Verdict::Unserved);
    loaded.addresses.remove(&key(ours)).unwrap();
    assert_eq!(verdict(&loaded, &ipv4(octets4(OURS4))), Verdict::ToKernel);
    for i in 0..ADDRESSES_MAX {
        loaded.add_address(IpAddr::from([10, 9, (i >> 8) as u8, i as u8])).unwrap();
    }
    let error = loaded.add_address(ours).unwrap_err().to_string();
    assert!(error.contains(OURS4) && error.contains("at most 256"), "{error}");
}

#[test]
fn what_the_verifier_says_reaches_the_operator() {
    if !root_or_skip("steering") {
        return;
    }
    let mut broken = asm::Assembler::default();
    // Reads the frame without having compared with its end.
    broken.load(asm::Size::Word, asm::Reg::R2, asm::Reg::R1, 0).load(asm::Size::Byte, asm::Reg::R0, asm::Reg::R2, 0).exit();
    let error = refused(Program::load("broken", &broken.finish().unwrap()).unwrap_err());
    let text = error.to_string();
    assert!(matches!(error, SteerError::Rejected { .. }) && text.contains("invalid access to packet"), "{text}");
}
