//! Where a datagram goes, encoded once per flow in the form that the system calls want: socket address and control messages.
//!
//! ```text
//! control   [ PKTINFO: source address            ] [ UDP_SEGMENT: bytes per datagram ]
//!           only when the flow names one             only for a burst, written at flush
//! ```
//!
//! One control message alone is at most 36 bytes long and then fits the buffer on the kernel's own stack; a longer block costs a kernel
//! allocation per message. So the length given is without final padding.

use std::mem::{offset_of, size_of};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

use crate::address::is_link_local;
use crate::host::FlowSpec;

const HEADER_BYTES: usize = size_of::<libc::cmsghdr>();
const NAME_BYTES: usize = size_of::<libc::sockaddr_in6>();
const CONTROL_BYTES: usize = 64;
const PACKET_INFO_4_BYTES: usize = size_of::<libc::in_pktinfo>();
const PACKET_INFO_6_BYTES: usize = size_of::<libc::in6_pktinfo>();

const _: () = {
    assert!(padded(HEADER_BYTES + PACKET_INFO_6_BYTES) + HEADER_BYTES + size_of::<u16>() <= CONTROL_BYTES);
    assert!(HEADER_BYTES == size_of::<usize>() + 8 && offset_of!(libc::cmsghdr, cmsg_len) == 0);
    assert!(offset_of!(libc::cmsghdr, cmsg_level) == size_of::<usize>());
    assert!(offset_of!(libc::in_pktinfo, ipi_spec_dst) == 4 && offset_of!(libc::in6_pktinfo, ipi6_ifindex) == 16);
    assert!(offset_of!(libc::sockaddr_in, sin_port) == 2 && offset_of!(libc::sockaddr_in, sin_addr) == 4);
    assert!(offset_of!(libc::sockaddr_in6, sin6_addr) == 8 && offset_of!(libc::sockaddr_in6, sin6_scope_id) == 24);
};

const fn padded(len: usize) -> usize {
    len.next_multiple_of(size_of::<usize>())
}

/// A socket address as the kernel writes and reads it.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(4))]
pub(super) struct Name(pub [u8; NAME_BYTES]);

impl Name {
    /// Room for any address.
    pub(super) const BYTES: usize = NAME_BYTES;
    /// No address.
    pub(super) const EMPTY: Self = Self([0; NAME_BYTES]);

    /// Encodes an address for a socket of the given family; IPv4 is mapped for an IPv6 socket. The second value is the length.
    fn encode(remote: SocketAddr, ipv6_socket: bool) -> (Self, u8) {
        let mut name = [0; NAME_BYTES];
        name[2..4].copy_from_slice(&remote.port().to_be_bytes());
        let (v6, scope) = match remote {
            SocketAddr::V4(v4) if !ipv6_socket => {
                name[..2].copy_from_slice(&(libc::AF_INET as u16).to_ne_bytes());
                name[4..8].copy_from_slice(&v4.ip().octets());
                return (Self(name), size_of::<libc::sockaddr_in>() as u8);
            }
            SocketAddr::V4(v4) => (v4.ip().to_ipv6_mapped(), 0),
            SocketAddr::V6(v6) => (*v6.ip(), v6.scope_id()),
        };
        name[..2].copy_from_slice(&(libc::AF_INET6 as u16).to_ne_bytes());
        name[8..24].copy_from_slice(&v6.octets());
        name[24..28].copy_from_slice(&scope.to_ne_bytes());
        (Self(name), NAME_BYTES as u8)
    }

    /// Reads an address that the kernel wrote, in normal form.
    pub(super) fn decode(&self) -> Option<SocketAddr> {
        let n = &self.0;
        let port = u16::from_be_bytes([n[2], n[3]]);
        match i32::from(u16::from_ne_bytes([n[0], n[1]])) {
            libc::AF_INET => Some(SocketAddr::from((Ipv4Addr::new(n[4], n[5], n[6], n[7]), port))),
            libc::AF_INET6 => {
                let octets: [u8; 16] = n[8..24].try_into().ok()?;
                let scope = u32::from_ne_bytes([n[24], n[25], n[26], n[27]]);
                let address = SocketAddrV6::new(Ipv6Addr::from(octets), port, 0, scope);
                Some(crate::address::normal(SocketAddr::V6(address)))
            }
            _ => None,
        }
    }
}

/// Destination and source of a flow's datagrams.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(8))]
pub(super) struct Envelope {
    control: [u8; CONTROL_BYTES],
    name: Name,
    name_len: u8,
    control_len: u8,
}

impl Envelope {
    /// Goes nowhere; fills unused places.
    pub(super) const EMPTY: Self = Self { control: [0; CONTROL_BYTES], name: Name::EMPTY, name_len: 0, control_len: 0 };

    /// Encodes a checked flow for a socket of the given family.
    pub(super) fn new(spec: &FlowSpec, ipv6_socket: bool) -> Self {
        let (name, name_len) = Name::encode(spec.remote, ipv6_socket);
        let mut envelope = Self { name, name_len, ..Self::EMPTY };
        match spec.local_addr {
            None => {}
            // IP_PKTINFO is heeded for a mapped destination on an IPv6 socket too.
            Some(IpAddr::V4(local)) => {
                let mut info = [0; PACKET_INFO_4_BYTES];
                info[4..8].copy_from_slice(&local.octets());
                envelope.control_len = envelope.put_control(0, libc::IPPROTO_IP, libc::IP_PKTINFO, &info);
            }
            Some(IpAddr::V6(local)) => {
                let mut info = [0; PACKET_INFO_6_BYTES];
                info[..16].copy_from_slice(&local.octets());
                if let (true, SocketAddr::V6(remote)) = (is_link_local(IpAddr::V6(local)), spec.remote) {
                    info[16..20].copy_from_slice(&remote.scope_id().to_ne_bytes());
                }
                envelope.control_len = envelope.put_control(0, libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &info);
            }
        }
        envelope
    }

    /// Writes the segment size of a burst behind the flow's own control message; returns the length of both.
    pub(super) fn put_segment(&mut self, segment_bytes: u16) -> u8 {
        let at = padded(usize::from(self.control_len));
        self.put_control(at, libc::SOL_UDP, libc::UDP_SEGMENT, &segment_bytes.to_ne_bytes())
    }

    /// The encoded destination.
    pub(super) fn name(&self) -> &[u8] {
        &self.name.0[..usize::from(self.name_len)]
    }

    /// The first `len` bytes of the control messages.
    pub(super) fn control(&self, len: u8) -> &[u8] {
        &self.control[..usize::from(len)]
    }

    /// Length of the flow's own control message: 0 when it names no source.
    pub(super) fn control_len(&self) -> u8 {
        self.control_len
    }

    fn put_control(&mut self, at: usize, level: i32, kind: i32, data: &[u8]) -> u8 {
        let len = HEADER_BYTES + data.len();
        let message = &mut self.control[at..at + len];
        message[..size_of::<usize>()].copy_from_slice(&len.to_ne_bytes());
        message[size_of::<usize>()..][..4].copy_from_slice(&level.to_ne_bytes());
        message[size_of::<usize>() + 4..][..4].copy_from_slice(&kind.to_ne_bytes());
        message[HEADER_BYTES..].copy_from_slice(data);
        (at + len) as u8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_survive_both_socket_families() {
        for text in ["1.2.3.4:65535", "[2001:db8::9]:1", "[fe80::1%7]:554"] {
            let address: SocketAddr = text.parse().unwrap();
            assert_eq!(Name::encode(address, true).0.decode(), Some(address));
        }
        let v4: SocketAddr = "1.2.3.4:554".parse().unwrap();
        let (name, len) = Name::encode(v4, false);
        assert_eq!((name.decode(), len), (Some(v4), 16));
        assert_eq!(Name::EMPTY.decode(), None);
    }

    #[test]
    fn one_control_message_fits_the_kernels_stack_buffer() {
        let spec = |local: &str, remote: &str| FlowSpec {
            local_port: 0,
            local_addr: Some(local.parse().unwrap()),
            remote: remote.parse().unwrap(),
        };
        let mut v6 = Envelope::new(&spec("fe80::2", "[fe80::1%7]:9"), true);
        assert_eq!(v6.control_len(), 36);
        assert_eq!(&v6.control(36)[32..36], &7_u32.to_ne_bytes());
        assert_eq!(v6.put_segment(1400), 58);
        assert_eq!(&v6.control(58)[56..], &1400_u16.to_ne_bytes());
        assert_eq!(Envelope::new(&spec("127.0.0.2", "127.0.0.1:9"), true).control_len(), 28);
        assert_eq!(Envelope::EMPTY.clone().put_segment(7), 18);
    }
}
