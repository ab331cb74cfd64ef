//! Frames of a flood, from a seed.

use smoltcp::wire::IpProtocol;
use std::net::{Ipv4Addr, Ipv6Addr};

pub const OURS: [u8; 6] = [2, 0, 0, 0, 0, 1];
pub const PEER: [u8; 6] = [2, 0, 0, 0, 0, 2];
pub const OUR_V4: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
pub const OUR_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1);
/// Of the listener.
pub const RTSP: u16 = 554;
/// Of the engine's datagrams; RTCP's is the next one.
pub const RTP: u16 = 6970;
/// Ethernet's shortest frame, without its checksum.
const FRAME_BYTES_MIN: usize = 60;

/// What a frame of the flood is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Random bytes to our hardware address, most of which pretend to be IP.
    Garbage,
    /// A SYN to the listener from an address that never answers, one in eight on our own network.
    Syn,
    /// A segment of no connection to the listener or to nobody.
    Segment,
    /// Some fragment of a datagram.
    FragmentV4,
    /// The same over IPv6.
    FragmentV6,
    /// A request for us from a neighbour that does not exist.
    Arp,
    /// A solicitation for us from a neighbour that does not exist.
    Solicit,
    /// An echo request.
    Echo,
    /// A datagram to a port that nobody has.
    ClosedPort,
    /// Garbage to our RTCP port.
    Rtcp,
}

pub const ALL: [Kind; 10] = [
    Kind::Garbage,
    Kind::Syn,
    Kind::Segment,
    Kind::FragmentV4,
    Kind::FragmentV6,
    Kind::Arp,
    Kind::Solicit,
    Kind::Echo,
    Kind::ClosedPort,
    Kind::Rtcp,
];

/// A source of frames of some kinds, in equal parts.
pub struct Frames {
    random: u64,
    kinds: Vec<Kind>,
}

impl Frames {
    pub fn new(seed: u64, kinds: &[Kind]) -> Self {
        Self { random: seed, kinds: kinds.to_vec() }
    }

    fn random(&mut self) -> [u8; 8] {
        // Steele, Lea and Flood's SplitMix64.
        self.random = self.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.random;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ mixed >> 31).to_be_bytes()
    }

    /// The next frame.
    pub fn next(&mut self) -> Vec<u8> {
        let [which, a, b, c, d, e, f, g] = self.random();
        let kind = self.kinds[usize::from(which) % self.kinds.len()];
        // Neither a client nor the gateway nor us.
        let near = Ipv4Addr::new(10, 0, b | 1, c);
        let far = if a % 8 == 0 { near } else { Ipv4Addr::new(a % 200 + 11, b, c, d) };
        let mut frame = match kind {
            Kind::Garbage => {
                let ethertype = [[8, 0], [0x86, 0xdd], [8, 6], [a, b]][usize::from(c) % 4];
                let mut bytes: Vec<u8> = (0..6 + d % 20).flat_map(|_| self.random()).collect();
                // Half get past the first look.
                if e % 2 == 0 {
                    bytes[..6].copy_from_slice(&[if c % 4 == 0 { 0x45 } else { 0x60 }, 0, 0, f, 0, 0]);
                }
                ethernet(ethertype, &bytes)
            }
            Kind::Syn => ipv4(IpProtocol::Tcp, far, 0, &segment(far, [e, f], RTSP, [g, a, b, c], 2, &[2, 4, 5, 0xb4])),
            Kind::Segment => {
                let to = if g % 2 == 0 { RTSP } else { u16::from_be_bytes([c, d]) };
                ipv4(IpProtocol::Tcp, far, 0, &segment(far, [e, f], to, [g, a, b, c], [16, 17, 24, 4][usize::from(d) % 4], &[]))
            }
            Kind::FragmentV4 => {
                let at = u16::from_be_bytes([e & 0x1f, f]) | 0x2000;
                ipv4(IpProtocol::Udp, far, at, &datagram([e, f], RTP, &[g; 40]))
            }
            Kind::FragmentV6 => {
                let mut payload = vec![17, 0, e, f | 1, a, b, c, d];
                payload.extend(datagram([e, f], RTP, &[g; 32]));
                ipv6(44, neighbour_v6(a, b), OUR_V6, OURS, 64, &payload)
            }
            Kind::Arp => {
                let from = [2, 9, a, b, c, d];
                arp(1, [0xff; 6], (from, near), ([0; 6], OUR_V4))
            }
            Kind::Solicit => {
                let from = neighbour_v6(a, b);
                let mut message = vec![135, 0, 0, 0, 0, 0, 0, 0];
                message.extend(OUR_V6.octets());
                message.extend([1, 1, 2, 9, a, b, c, d]);
                let sum = checksum(&[&from.octets(), &OUR_V6.octets(), &[0, message.len() as u8, 0, 58], &message]);
                message[2..4].copy_from_slice(&sum);
                ipv6(58, from, OUR_V6, OURS, 255, &message)
            }
            Kind::Echo => {
                let mut message = [&[8, 0, 0, 0, e, f, 0, 1][..], &[g; 24]].concat();
                let sum = checksum(&[&message]);
                message[2..4].copy_from_slice(&sum);
                ipv4(IpProtocol::Icmp, far, 0, &message)
            }
            Kind::ClosedPort => ipv4(IpProtocol::Udp, far, 0, &datagram([e, f], 7000 + u16::from(g), &[a; 20])),
            Kind::Rtcp => {
                ipv4(IpProtocol::Udp, far, 0, &datagram([e, f], RTP + 1, &[0x80 | (g & 0x1f), 200 + a % 5, 0, b % 12, c, d, e, f]))
            }
        };
        frame.resize(frame.len().max(FRAME_BYTES_MIN), 0);
        frame
    }
}

fn neighbour_v6(a: u8, b: u8) -> Ipv6Addr {
    Ipv6Addr::new(0xfd00, 0, 0, 0, 9, 9, a.into(), b.into())
}

/// RFC 1071, over parts of which all but the last have an even length.
pub fn checksum(parts: &[&[u8]]) -> [u8; 2] {
    let words = parts.iter().flat_map(|part| part.chunks(2));
    let mut sum: u32 = words.map(|pair| u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |low| u32::from(*low))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!(sum as u16)).to_be_bytes()
}

fn ethernet(ethertype: [u8; 2], packet: &[u8]) -> Vec<u8> {
    [&OURS[..], &PEER, &ethertype, packet].concat()
}

/// A packet to us; `fragment`: flags and offset.
pub fn ipv4(protocol: IpProtocol, from: Ipv4Addr, fragment: u16, payload: &[u8]) -> Vec<u8> {
    let mut header = [0x45, 0, 0, 0, 0, 7, 0, 0, 64, protocol.into(), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    header[2..4].copy_from_slice(&(20 + payload.len() as u16).to_be_bytes());
    header[6..8].copy_from_slice(&fragment.to_be_bytes());
    header[12..16].copy_from_slice(&from.octets());
    header[16..].copy_from_slice(&OUR_V4.octets());
    let sum = checksum(&[&header]);
    header[10..12].copy_from_slice(&sum);
    ethernet([8, 0], &[&header[..], payload].concat())
}

fn ipv6(next: u8, from: Ipv6Addr, to: Ipv6Addr, mac: [u8; 6], hops: u8, payload: &[u8]) -> Vec<u8> {
    let [high, low] = (payload.len() as u16).to_be_bytes();
    [&mac[..], &PEER, &[0x86, 0xdd, 0x60, 0, 0, 0, high, low, next, hops], &from.octets(), &to.octets(), payload].concat()
}

/// UDP without a checksum.
fn datagram(from: [u8; 2], to: u16, payload: &[u8]) -> Vec<u8> {
    let [high, low] = (8 + payload.len() as u16).to_be_bytes();
    [&from[..], &to.to_be_bytes(), &[high, low, 0, 0], payload].concat()
}

fn segment(from: Ipv4Addr, from_port: [u8; 2], to: u16, seq: [u8; 4], flags: u8, options: &[u8]) -> Vec<u8> {
    let offset = (20 + options.len() as u8) << 2;
    let mut segment = [&from_port[..], &to.to_be_bytes(), &seq, &[1, 2, 3, 4, offset, flags, 0xff, 0xff, 0, 0, 0, 0], options].concat();
    let sum = checksum(&[&from.octets(), &OUR_V4.octets(), &[0, 6, 0, segment.len() as u8], &segment]);
    segment[16..18].copy_from_slice(&sum);
    segment
}

/// An ARP packet for Ethernet.
pub fn arp(operation: u8, to: [u8; 6], sender: ([u8; 6], Ipv4Addr), target: ([u8; 6], Ipv4Addr)) -> Vec<u8> {
    let (sender_ip, target_ip) = (sender.1.octets(), target.1.octets());
    let fixed = [8, 6, 0, 1, 8, 0, 6, 4, 0, operation];
    [&to[..], &sender.0, &fixed, &sender.0, &sender_ip, &target.0, &target_ip].concat()
}
