//! Frames made and read by hand.

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol, IpAddress, IpProtocol, Ipv4Address, Ipv4Packet,
    Ipv4Repr, UdpPacket, UdpRepr,
};

pub const ETHER_BYTES: usize = 14;

fn ethernet(buffer: &mut [u8], source: [u8; 6], destination: [u8; 6], protocol: EthernetProtocol) {
    let mut frame = EthernetFrame::new_unchecked(buffer);
    frame.set_src_addr(EthernetAddress(source));
    frame.set_dst_addr(EthernetAddress(destination));
    frame.set_ethertype(protocol);
}

/// Ends of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    pub source: ([u8; 6], [u8; 4], u16),
    pub destination: ([u8; 6], [u8; 4], u16),
}

/// Writes a UDP datagram with its headers; answers the length of the frame.
pub fn udp(buffer: &mut [u8], ends: Ends, payload: &[u8]) -> usize {
    let ((source_mac, source, source_port), (mac, destination, port)) = (ends.source, ends.destination);
    let (source, destination) = (Ipv4Address::from(source), Ipv4Address::from(destination));
    ethernet(buffer, source_mac, mac, EthernetProtocol::Ipv4);
    let udp = UdpRepr { src_port: source_port, dst_port: port };
    let ip = Ipv4Repr {
        src_addr: source,
        dst_addr: destination,
        next_header: IpProtocol::Udp,
        payload_len: udp.header_len() + payload.len(),
        hop_limit: 64,
    };
    let checksums = ChecksumCapabilities::default();
    let len = ETHER_BYTES + ip.buffer_len() + ip.payload_len;
    ip.emit(&mut Ipv4Packet::new_unchecked(&mut buffer[ETHER_BYTES..len]), &checksums);
    let mut packet = UdpPacket::new_unchecked(&mut buffer[ETHER_BYTES + ip.buffer_len()..len]);
    let (from, to) = (IpAddress::Ipv4(source), IpAddress::Ipv4(destination));
    udp.emit(&mut packet, &from, &to, payload.len(), |bytes| bytes.copy_from_slice(payload), &checksums);
    len
}

/// Payload and source port of a UDP datagram whose checksums are right.
pub fn read_udp(frame: &[u8]) -> Option<(Vec<u8>, u16)> {
    let frame = EthernetFrame::new_checked(frame).ok()?;
    if frame.ethertype() != EthernetProtocol::Ipv4 {
        return None;
    }
    let ip = Ipv4Packet::new_checked(frame.payload()).ok()?;
    assert!(ip.verify_checksum());
    if ip.next_header() != IpProtocol::Udp {
        return None;
    }
    let udp = UdpPacket::new_checked(ip.payload()).ok()?;
    assert!(udp.verify_checksum(&IpAddress::Ipv4(ip.src_addr()), &IpAddress::Ipv4(ip.dst_addr())), "the kernel left a checksum unfinished");
    Some((udp.payload().to_vec(), udp.src_port()))
}

/// Writes the answer to an ARP request for `ours`; answers its length, or `None` when the frame is no such request.
pub fn arp_answer(request: &[u8], ours: [u8; 4], mac: [u8; 6], buffer: &mut [u8]) -> Option<usize> {
    let frame = EthernetFrame::new_checked(request).ok()?;
    if frame.ethertype() != EthernetProtocol::Arp {
        return None;
    }
    let ArpRepr::EthernetIpv4 {
        operation: ArpOperation::Request, source_hardware_addr, source_protocol_addr, target_protocol_addr, ..
    } = ArpRepr::parse(&ArpPacket::new_checked(frame.payload()).ok()?).ok()?
    else {
        return None;
    };
    assert_eq!(target_protocol_addr, Ipv4Address::from(ours), "only ARP for our address is steered to us");
    let reply = ArpRepr::EthernetIpv4 {
        operation: ArpOperation::Reply,
        source_hardware_addr: EthernetAddress(mac),
        source_protocol_addr: target_protocol_addr,
        target_hardware_addr: source_hardware_addr,
        target_protocol_addr: source_protocol_addr,
    };
    ethernet(buffer, mac, source_hardware_addr.0, EthernetProtocol::Arp);
    let len = ETHER_BYTES + reply.buffer_len();
    reply.emit(&mut ArpPacket::new_unchecked(&mut buffer[ETHER_BYTES..len]));
    Some(len)
}
