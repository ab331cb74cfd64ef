//! The prebuilt header of a UDP flow: Ethernet, IP and UDP in one piece, patched per packet.
//!
//! ```text
//! frame: | link 14/18 | IP 20/40 | UDP 8 | payload ...                  |
//!        |<──────── copied from here ───>| written by the caller before |
//!                   length, checksum  length, checksum
//! ```
//!
//! The sums over what does not change are taken once, so that a packet costs one copy of the header and one pass over its payload.

use std::net::{IpAddr, SocketAddr};

use super::Interface;
use super::checksum::Sum;
use super::header::{HOP_LIMIT, IPV4_BYTES, IPV6_BYTES, IpHeader, LINK_BYTES_MAX, PROTOCOL_UDP, UDP_BYTES, pseudo_sum, put};
use super::neighbour::{Handle, Mac};

const HEADER_BYTES_MAX: usize = LINK_BYTES_MAX + IPV6_BYTES + UDP_BYTES;

/// How packets to an address leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Path {
    pub(super) mac: Mac,
    pub(super) handle: Handle,
}

/// The header of a flow.
#[derive(Clone, Copy, Debug)]
pub struct UdpTemplate {
    bytes: [u8; HEADER_BYTES_MAX],
    ip_at: u8,
    len: u8,
    ipv4: bool,
    /// Over the IPv4 header without its length.
    ip_sum: Sum,
    /// Over pseudo header and ports, without the lengths.
    udp_sum: Sum,
}

impl UdpTemplate {
    /// Bytes of the whole header: where the payload begins in a frame.
    pub fn header_bytes(&self) -> usize {
        usize::from(self.len)
    }

    /// Completes a frame whose payload of `payload_bytes` is already in its place; bytes of the whole frame. A frame that is too short is
    /// left as it is, and 0 answered.
    #[inline]
    pub fn complete(&self, frame: &mut [u8], payload_bytes: usize) -> usize {
        let (len, ip_at) = (usize::from(self.len), usize::from(self.ip_at));
        let total = len + payload_bytes;
        let Some(frame) = frame.get_mut(..total).filter(|_| total - ip_at <= usize::from(u16::MAX)) else { return 0 };
        let Some((header, payload)) = frame.split_at_mut_checked(len) else { return 0 };
        // A copy of known length is a few moves, one of unknown length a call.
        match len {
            42 => self.copy::<42>(header),
            62 => self.copy::<62>(header),
            46 => self.copy::<46>(header),
            _ => self.copy::<66>(header),
        }
        let udp_bytes = (UDP_BYTES + payload_bytes) as u16;
        if self.ipv4 {
            let ip_bytes = (total - ip_at) as u16;
            put(header, ip_at + 2, &ip_bytes.to_be_bytes());
            put(header, ip_at + 10, &self.ip_sum.word(ip_bytes).checksum());
        } else {
            put(header, ip_at + 4, &udp_bytes.to_be_bytes());
        }
        put(header, len - 4, &udp_bytes.to_be_bytes());
        // Once in the pseudo header, once in the header.
        let checksum = self.udp_sum.word(udp_bytes).word(udp_bytes).bytes(payload).udp_checksum();
        put(header, len - 2, &checksum);
        total
    }
}

impl UdpTemplate {
    /// Lets routers cut a frame that was just completed: no "don't fragment", and so an identification (RFC 6864 4.2). IPv6 packets are
    /// left as they are, no router cuts those.
    pub fn allow_cutting(&self, frame: &mut [u8], identification: u16) {
        let at = usize::from(self.ip_at);
        let Some(header) = frame.get_mut(at..at + IPV4_BYTES).filter(|_| self.ipv4) else { return };
        put(header, 4, &identification.to_be_bytes());
        put(header, 6, &[0; 2]);
        put(header, 10, &[0; 2]);
        let checksum = Sum::default().bytes(header).checksum();
        put(header, 10, &checksum);
    }

    fn copy<const BYTES: usize>(&self, header: &mut [u8]) {
        if let (Some(to), Some(from)) = (header.first_chunk_mut::<BYTES>(), self.bytes.first_chunk::<BYTES>()) {
            *to = *from;
        }
    }
}

impl Interface {
    /// The header of a flow; `None` when the families differ.
    pub fn udp_template(&self, path: &Path, from: SocketAddr, to: SocketAddr) -> Option<UdpTemplate> {
        if from.is_ipv4() != to.is_ipv4() {
            return None;
        }
        let mut bytes = [0; HEADER_BYTES_MAX];
        let (source, destination) = (from.ip(), to.ip());
        let header = IpHeader { source, destination, protocol: PROTOCOL_UDP, hop_limit: HOP_LIMIT, payload_bytes: 0 };
        let ip_at = self.speech.link.write(&mut bytes, path.mac, header.ethertype());
        let udp_at = ip_at + header.write(bytes.get_mut(ip_at..)?);
        put(&mut bytes, ip_at + 2, if source.is_ipv4() { &[0; 2] } else { &[] });
        put(&mut bytes, ip_at + 10, if source.is_ipv4() { &[0; 2] } else { &[] });
        put(&mut bytes, udp_at, &from.port().to_be_bytes());
        put(&mut bytes, udp_at + 2, &to.port().to_be_bytes());
        let is_v4 = matches!(source, IpAddr::V4(_));
        Some(UdpTemplate {
            ip_at: ip_at as u8,
            len: (udp_at + UDP_BYTES) as u8,
            ipv4: is_v4,
            ip_sum: if is_v4 { Sum::default().bytes(bytes.get(ip_at..udp_at)?) } else { Sum::default() },
            udp_sum: pseudo_sum(source, destination, PROTOCOL_UDP, 0).word(from.port()).word(to.port()),
            bytes,
        })
    }
}
