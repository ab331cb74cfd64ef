//! A connected socket as the layer below a byte stream.

use std::io::{Error, IoSlice};
use std::os::fd::OwnedFd;

use socket2::SockRef;

use crate::streams::{ByteSink, SinkError};

/// Makes the socket send what it is given at once; a flush is already a batch. Sockets that are not TCP have nothing to delay.
pub(super) fn prepare(socket: &OwnedFd) {
    let _ = SockRef::from(socket).set_tcp_nodelay(true);
}

impl ByteSink for OwnedFd {
    fn write(&mut self, first: &[u8], second: &[u8]) -> Result<usize, SinkError> {
        let socket = SockRef::from(&*self);
        let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        let written = if second.is_empty() {
            socket.send_with_flags(first, flags)
        } else {
            socket.send_vectored_with_flags(&[IoSlice::new(first), IoSlice::new(second)], flags)
        };
        written.map_err(sink_error)
    }
}

fn sink_error(error: Error) -> SinkError {
    match error.raw_os_error() {
        Some(libc::EAGAIN | libc::EINTR | libc::ENOBUFS | libc::ENOMEM) => SinkError::Full,
        _ => SinkError::Closed,
    }
}
