//! Where RTP and RTCP over UDP come in.
//!
//! A server tells clients apart by their address and port. On this machine every client gets an address of its own out of 127.0.0.0/8, so
//! all clients *share* one socket pair per track, bound to all addresses, and one `recvmmsg` takes packets of hundreds of streams. The same is
//! done with any other network that belongs to this machine (`--from`). Otherwise each client has ports of its own.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4};

use socket2::{Domain, Protocol, Socket, Type};

use super::sys;

/// Tracks that have shared sockets; further ones are not taken.
pub const SHARED_TRACKS: usize = 4;
/// First address of the clients of a run on this machine.
const FIRST_ADDRESS: u32 = u32::from_be_bytes([127, 1, 0, 1]);
/// Clients with an address of their own.
pub const SHARED_CLIENTS_MAX: usize = (u32::from_be_bytes([127, 255, 0, 0]) - FIRST_ADDRESS) as usize;
/// A third of a second at 1 Gbps, as the kernel counts it (about twice the packets' bytes).
const SHARED_BUFFER_BYTES: usize = 96 << 20;
const OWN_BUFFER_BYTES: usize = 1 << 20;
const BIND_TRIES: usize = 200;

/// The addresses of clients, one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    first: u32,
}

impl Addresses {
    /// From this one on.
    pub fn from(first: Ipv4Addr) -> Self {
        Self { first: first.into() }
    }

    /// Those of loopback.
    pub fn loopback() -> Self {
        Self { first: FIRST_ADDRESS }
    }

    /// The address of client `n`.
    pub fn of(self, n: usize) -> Ipv4Addr {
        Ipv4Addr::from(self.first.wrapping_add(n as u32))
    }

    /// The client that has this address.
    pub fn owner(self, address: Ipv4Addr) -> Option<usize> {
        u32::from(address).checked_sub(self.first).map(|n| n as usize)
    }
}

/// An RTP socket on an even port, its RTCP socket on the next.
#[derive(Debug)]
pub struct Pair {
    /// RTP.
    pub rtp: Socket,
    /// RTCP.
    pub rtcp: Socket,
    /// RTP's port.
    pub port: u16,
}

impl Pair {
    /// A pair bound to all addresses; `shared` ones have large buffers and tell each datagram's destination.
    ///
    /// # Errors
    /// No free pair, or the kernel refuses.
    pub fn new(ipv6: bool, shared: bool) -> io::Result<Self> {
        let mut last = io::Error::from(io::ErrorKind::AddrInUse);
        for _ in 0..BIND_TRIES {
            let rtp = open(ipv6, shared)?;
            bind(&rtp, ipv6, 0)?;
            let port = rtp.local_addr()?.as_socket().map_or(0, |a| a.port());
            if port % 2 == 1 || port == 0 {
                continue;
            }
            let rtcp = open(ipv6, shared)?;
            match bind(&rtcp, ipv6, port + 1) {
                Ok(()) => return Ok(Self { rtp, rtcp, port }),
                Err(e) => last = e,
            }
        }
        Err(last)
    }

    /// Datagrams lost at this pair for want of buffer.
    pub fn drops(&self) -> u64 {
        sys::drops(&self.rtp) + sys::drops(&self.rtcp)
    }
}

fn open(ipv6: bool, shared: bool) -> io::Result<Socket> {
    let socket = Socket::new(if ipv6 { Domain::IPV6 } else { Domain::IPV4 }, Type::DGRAM.nonblocking(), Some(Protocol::UDP))?;
    sys::want_timestamps(&socket)?;
    sys::set_receive_buffer(&socket, if shared { SHARED_BUFFER_BYTES } else { OWN_BUFFER_BYTES })?;
    if shared {
        sys::want_destination(&socket)?;
    }
    Ok(socket)
}

fn bind(socket: &Socket, ipv6: bool, port: u16) -> io::Result<()> {
    let address: SocketAddr = if ipv6 { (Ipv6Addr::UNSPECIFIED, port).into() } else { (Ipv4Addr::UNSPECIFIED, port).into() };
    socket.bind(&address.into())
}

/// Begins a connection to `server`, from the own address `from` if there is one.
///
/// # Errors
/// As of `socket`, `bind`, `connect`.
pub fn connect(server: SocketAddr, from: Option<Ipv4Addr>) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(server), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    socket.set_tcp_nodelay(true)?;
    sys::want_timestamps(&socket)?;
    if let Some(from) = from {
        socket.bind(&SocketAddr::from(SocketAddrV4::new(from, 0)).into())?;
    }
    match socket.connect(&server.into()) {
        Err(e) if e.raw_os_error() != Some(libc::EINPROGRESS) && e.kind() != io::ErrorKind::WouldBlock => Err(e),
        _ => Ok(socket),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_clients_correspond() {
        let own = Addresses::loopback();
        for n in [0, 1, 300, 70_000, SHARED_CLIENTS_MAX - 1] {
            assert!(own.of(n).is_loopback());
            assert_eq!(own.owner(own.of(n)), Some(n));
        }
        assert_eq!(own.owner(Ipv4Addr::LOCALHOST), None);
        let other = Addresses::from(Ipv4Addr::new(10, 99, 0, 1));
        assert_eq!((other.of(256), other.owner(Ipv4Addr::new(10, 99, 1, 1))), (Ipv4Addr::new(10, 99, 1, 1), Some(256)));
    }

    #[test]
    fn a_datagram_keeps_its_destination_its_length_and_its_time() {
        let pair = Pair::new(false, true).unwrap();
        let sender = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let before = sys::realtime_ns();
        sender.send_to(&[7; 1000], (Addresses::loopback().of(259), pair.port)).unwrap();
        sys::send_from(&pair.rtcp, Addresses::loopback().of(5), SocketAddrV4::new(Addresses::loopback().of(6), pair.port + 1), &[1, 2, 3])
            .unwrap();
        let mut batch = sys::Batch::new();
        let mut epoll = sys::Epoll::new().unwrap();
        epoll.add(&pair.rtp, 1, false).unwrap();
        epoll.wait(5_000, &mut Vec::new()).unwrap();
        assert_eq!(batch.receive(&pair.rtp).unwrap(), 1);
        let datagram = batch.get(0).unwrap();
        assert_eq!(
            (datagram.length, datagram.head, datagram.to),
            (1000, [7; sys::HEAD_BYTES].as_slice(), Some(Addresses::loopback().of(259)))
        );
        let received = datagram.received_ns.unwrap();
        assert!(received >= before && received <= sys::realtime_ns(), "kernel receive time");
        epoll.add(&pair.rtcp, 2, false).unwrap();
        epoll.wait(5_000, &mut Vec::new()).unwrap();
        assert_eq!(batch.receive(&pair.rtcp).unwrap(), 1);
        assert_eq!((batch.get(0).unwrap().length, batch.get(0).unwrap().to), (3, Some(Addresses::loopback().of(6))));
        assert_eq!(batch.receive(&pair.rtcp).unwrap(), 0);
    }
}
