//! Further UDP ports of a kernel host that only receive: live sources, unicast and multicast.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use socket2::{Domain, Protocol, Socket, Type};

/// A socket bound to `addr`. A multicast address is joined, on the interface that routing chooses.
pub(super) fn open(addr: SocketAddr, buffer_bytes: usize) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    if addr.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    let group = addr.ip().is_multicast();
    if group {
        // Others on this machine may receive the same group.
        socket.set_reuse_address(true)?;
    }
    // What the kernel grants decides how long we may look away; less is not fatal.
    let _ = socket.set_recv_buffer_size(buffer_bytes);
    // Bound to the group itself, the socket gets nothing that was sent to the port at another address.
    socket.bind(&addr.into())?;
    match addr.ip() {
        IpAddr::V4(ip) if group => socket.join_multicast_v4(&ip, &Ipv4Addr::UNSPECIFIED)?,
        IpAddr::V6(ip) if group => socket.join_multicast_v6(&ip, 0)?,
        _ => {}
    }
    Ok(socket)
}
