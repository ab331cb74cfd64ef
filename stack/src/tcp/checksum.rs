//! The Internet checksum (RFC 1071) over a TCP segment and its pseudo header.

use std::net::IpAddr;

/// The sum of the 16-bit words of `bytes` in the machine's own byte order, not folded. The last odd byte is padded with zero.
fn sum(bytes: &[u8]) -> u64 {
    let (chunks, rest) = bytes.as_chunks::<4>();
    // Sums of 32-bit words fold to the same 16 bits (RFC 1071 2.C), and 64 bits do not overflow for 2^34 bytes.
    let mut sum: u64 = chunks.iter().map(|chunk| u64::from(u32::from_ne_bytes(*chunk))).sum();
    let mut last = [0; 4];
    last[..rest.len()].copy_from_slice(rest);
    sum += u64::from(u32::from_ne_bytes(last));
    sum
}

fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    sum as u16
}

fn pseudo_header(src: IpAddr, dst: IpAddr, len: usize) -> u64 {
    const PROTOCOL_TCP: u8 = 6;
    let addresses = match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => sum(&src.octets()) + sum(&dst.octets()),
        (src, dst) => sum(&v6(src)) + sum(&v6(dst)),
    };
    addresses + sum(&[0, PROTOCOL_TCP]) + sum(&(len as u32).to_be_bytes())
}

fn v6(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

/// The bytes of the checksum field for a segment in which that field is zero.
pub(super) fn compute(src: IpAddr, dst: IpAddr, segment: &[u8]) -> [u8; 2] {
    (!fold(pseudo_header(src, dst, segment.len()) + sum(segment))).to_ne_bytes()
}

/// True when the checksum of a received segment is right.
pub(super) fn verify(src: IpAddr, dst: IpAddr, segment: &[u8]) -> bool {
    fold(pseudo_header(src, dst, segment.len()) + sum(segment)) == 0xffff
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use smoltcp::wire::TcpPacket;

    proptest! {
        #[test]
        fn agrees_with_the_wire_crate(mut segment in prop::collection::vec(any::<u8>(), 20..200), v6: bool, src: [u8; 16], dst: [u8; 16]) {
            let address = |bytes: [u8; 16]| if v6 { IpAddr::from(bytes) } else { IpAddr::from([bytes[0], bytes[1], bytes[2], bytes[3]]) };
            let (src, dst) = (address(src), address(dst));
            segment[16..18].fill(0);
            let ours = compute(src, dst, &segment);
            segment[16..18].copy_from_slice(&ours);
            prop_assert!(verify(src, dst, &segment));
            let mut packet = TcpPacket::new_unchecked(segment.clone());
            prop_assert!(packet.verify_checksum(&src.into(), &dst.into()));
            packet.fill_checksum(&src.into(), &dst.into());
            prop_assert_eq!(&packet.into_inner()[16..18], &ours);
        }
    }
}
