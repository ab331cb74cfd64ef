//! Fuzz target `interface`: frames of any content come in at any time; whatever an interface says about them, another interface
//! understands. And where several cores share an interface, the owner that a frame was handed to before anybody looked closer is the one that
//! its ports belong to.
//!
//! ```text
//! 0x00 n        n x 37 ms pass
//! 0x01 n frame  a frame of n bytes
//! 0x02 n frame  the same, its checksums made right first, so that it gets further in
//! 0x03 n        the neighbour 10.0.0.n is wanted
//! 0x04 n        the group 239.0.0.n is joined, or ff15::n with n odd; 0x05 n: it is left
//! ```

use smoltcp::wire::{EthernetFrame, EthernetProtocol, Icmpv4Packet, Icmpv6Packet, IpProtocol, Ipv4Packet, Ipv6Packet, UdpPacket};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};

use stack::iface::{Asker, FrameOut, IfaceConfig, Ingress, Interface, Owner, Owners, PortBlock};

const OURS: [u8; 6] = [2, 0, 0, 0, 0, 1];
const THEIRS: [u8; 6] = [2, 0, 0, 0, 0, 2];
const MTU_BYTES: usize = 1500;
const FRAME_BYTES: usize = MTU_BYTES + 18;
const NEIGHBOURS_MAX: usize = 16;
/// Cores that share the interface, and their UDP ports: 6970 to 6975.
const CORES: usize = 3;
const UDP: PortBlock = PortBlock { first: 6970, per_core: 2 };
/// Frames that may be said in answer to one thing that happens: the queues of answers, and what own addresses,
/// neighbours and groups ask.
const SAID_MAX: usize = 300;

/// Frames that were said.
#[derive(Default)]
struct Out {
    frame: Vec<u8>,
    said: Vec<Vec<u8>>,
}

impl FrameOut for Out {
    fn frame(&mut self) -> Option<&mut [u8]> {
        self.frame.resize(FRAME_BYTES, 0xee);
        Some(&mut self.frame)
    }

    fn commit(&mut self, len: usize) {
        assert!((42..=FRAME_BYTES).contains(&len), "a frame of {len} bytes");
        self.said.push(self.frame[..len].to_vec());
    }
}

fn interface(last: u8, mac: [u8; 6]) -> Interface {
    let addresses = [format!("10.0.0.{last}/24"), format!("2001:db8::{last}/64")];
    let addresses = addresses.iter().map(|text| text.parse().expect("an address")).collect();
    let config = IfaceConfig { addresses, accept_routers: true, neighbours_max: NEIGHBOURS_MAX, ..IfaceConfig::default() };
    Interface::new(config, mac, MTU_BYTES, 0)
}

/// The group that a number stands for.
fn group(n: usize) -> IpAddr {
    if n.is_multiple_of(2) { [239, 0, 0, n as u8].into() } else { Ipv6Addr::new(0xff15, 0, 0, 0, 0, 0, 0, n as u16).into() }
}

/// Runs one input.
pub fn run(data: &[u8]) {
    let (mut ours, mut theirs) = (interface(1, OURS), interface(2, THEIRS));
    let (mut now_ns, mut frames, mut rest) = (0, 0, data);
    // How many listen to each group.
    let mut groups: BTreeMap<IpAddr, u32> = BTreeMap::new();
    while let [kind, n, tail @ ..] = rest {
        let n = usize::from(*n);
        rest = tail;
        match kind % 6 {
            0 => now_ns += n as u64 * 37_000_000,
            3 => {
                // Known, being looked up, or without a route (our own address, a broadcast): each is an answer.
                let _ = ours.path(now_ns, [10, 0, 0, n as u8].into(), Asker::Foreign);
            }
            4 => {
                if ours.join(now_ns, group(n)) {
                    *groups.entry(group(n)).or_default() += 1;
                    // So that they listen to what we say in older versions, which goes to the group itself.
                    theirs.join(now_ns, group(n));
                }
            }
            5 => {
                ours.leave(now_ns, group(n));
                groups.entry(group(n)).and_modify(|users| *users = users.saturating_sub(1));
            }
            kind => {
                let (frame, tail) = rest.split_at(n.min(rest.len()));
                rest = tail;
                let mut frame = frame.to_vec();
                if kind == 2 {
                    make_right(&mut frame);
                }
                frames += 1;
                hear(&mut ours, now_ns, &frame, &groups);
            }
        }
        let mut out = Out::default();
        ours.egress(now_ns, &mut out);
        assert!(out.said.len() <= SAID_MAX, "{} frames at once", out.said.len());
        for frame in &out.said {
            theirs.ingress(now_ns, frame);
        }
    }
    let (counters, heard) = (ours.counters(), theirs.counters());
    assert_eq!(counters.rx_frames, frames);
    assert!(counters.neighbours <= NEIGHBOURS_MAX as u64);
    assert_eq!((heard.dropped_malformed, heard.dropped_checksum, heard.dropped_fragments), (0, 0, 0), "we speak clearly");
}

/// Whom our UDP port belongs to.
fn of_datagram(port: u16) -> Owner {
    port.checked_sub(UDP.first).map(|nth| usize::from(nth / UDP.per_core)).filter(|core| *core < CORES).map_or(Owner::Here, Owner::Core)
}

fn ports(header: &[u8]) -> Option<(u16, u16)> {
    let [a, b, c, d] = *header.first_chunk()?;
    Some((u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])))
}

/// The look from outside agrees with what the interface found out.
fn check_owner(frame: &[u8], found: &Ingress<'_>) {
    let owners = Owners::new(CORES, vec![UDP], 1);
    let of_connection = |remote: IpAddr, theirs, ours| Owner::Core(owners.of_connection(remote, theirs, ours));
    let expected = match found {
        Ingress::Udp { to, .. } => of_datagram(to.port()),
        Ingress::Tcp { from, segment, .. } => match ports(segment) {
            Some((theirs, ours)) => of_connection(*from, theirs, ours),
            None => return,
        },
        Ingress::Error(error) => match (error.protocol, ports(error.header)) {
            (6, Some((ours, theirs))) => of_connection(error.remote, theirs, ours),
            (_, Some((ours, _))) => of_datagram(ours),
            (_, None) => return,
        },
        Ingress::Nothing => {
            assert!(!matches!(owners.of(frame), Owner::Core(CORES..)), "an owner that does not exist");
            return;
        }
    };
    assert_eq!(owners.of(frame), expected, "{found:?}");
}

fn hear(ours: &mut Interface, now_ns: u64, frame: &[u8], groups: &BTreeMap<IpAddr, u32>) {
    let found = ours.ingress(now_ns, frame);
    check_owner(frame, &found);
    match found {
        Ingress::Udp { from, to, payload, packet } => {
            assert!(payload.len() + 28 <= packet.len() && packet.len() <= frame.len());
            let joined = groups.get(&to.ip()).is_some_and(|users| *users > 0);
            assert!((ours.is_usable(to.ip()) || joined) && from.ip() != to.ip());
            ours.refuse_udp(now_ns, from.ip(), to.ip(), packet);
        }
        Ingress::Tcp { to, .. } => assert!(ours.is_usable(to)),
        Ingress::Error(error) => assert!(ours.is_usable(error.local) && error.header.len() >= 8),
        Ingress::Nothing => {}
    }
}

/// Makes the checksums of a frame right, as far as it has any.
fn make_right(frame: &mut [u8]) {
    let Ok(mut frame) = EthernetFrame::new_checked(frame) else { return };
    match frame.ethertype() {
        EthernetProtocol::Ipv4 => {
            let Ok(mut packet) = Ipv4Packet::new_checked(frame.payload_mut()) else { return };
            if packet.header_len() < 20 {
                return;
            }
            packet.fill_checksum();
            let (from, to, protocol) = (packet.src_addr(), packet.dst_addr(), packet.next_header());
            let payload = packet.payload_mut();
            match protocol {
                IpProtocol::Icmp if payload.len() >= 8 => Icmpv4Packet::new_unchecked(payload).fill_checksum(),
                IpProtocol::Igmp if payload.len() >= 8 => Icmpv4Packet::new_unchecked(payload).fill_checksum(),
                IpProtocol::Udp => {
                    if let Ok(mut datagram) = UdpPacket::new_checked(payload) {
                        datagram.fill_checksum(&from.into(), &to.into());
                    }
                }
                _ => {}
            }
        }
        EthernetProtocol::Ipv6 => {
            let Ok(mut packet) = Ipv6Packet::new_checked(frame.payload_mut()) else { return };
            let (from, to, protocol) = (packet.src_addr(), packet.dst_addr(), packet.next_header());
            let mut payload = packet.payload_mut();
            let mut is_icmp = protocol == IpProtocol::Icmpv6;
            // MLD stands behind eight bytes of hop-by-hop options.
            if protocol == IpProtocol::HopByHop && payload.first_chunk() == Some(&[58, 0]) {
                (is_icmp, payload) = (true, payload.get_mut(8..).unwrap_or_default());
            }
            if is_icmp && payload.len() >= 8 {
                Icmpv6Packet::new_unchecked(payload).fill_checksum(&from, &to);
            }
        }
        _ => {}
    }
}
