//! The system calls of the sender, behind a safe face: batches of datagrams to many receivers, and exact sleeping.

use std::io;
use std::net::SocketAddrV4;
use std::os::fd::AsRawFd;

/// Datagrams of one call.
pub const BATCH: usize = 64;
/// Bytes of a header that differs from packet to packet.
pub const HEADER_BYTES: usize = 12;

/// Memory for `sendmmsg`: headers of their own, one payload that all datagrams share.
pub struct Wire {
    headers: Box<[[u8; HEADER_BYTES]; BATCH]>,
    names: Box<[libc::sockaddr_in; BATCH]>,
    parts: Box<[[libc::iovec; 2]; BATCH]>,
    messages: Box<[libc::mmsghdr; BATCH]>,
    payload: Box<[u8]>,
    length: usize,
}

/// What a [`Wire::flush`] took.
#[derive(Clone, Copy, Debug, Default)]
pub struct Flushed {
    /// Calls of the kernel.
    pub calls: u64,
    /// Datagrams that the kernel refused to send.
    pub refused: u64,
}

impl Wire {
    /// For datagrams with this payload after the header.
    pub fn new(payload: Box<[u8]>) -> Self {
        // SAFETY: all-zero bytes are valid for these plain C structs.
        let (name, part, message): (libc::sockaddr_in, libc::iovec, libc::mmsghdr) = unsafe { std::mem::zeroed() };
        Self {
            headers: Box::new([[0; HEADER_BYTES]; BATCH]),
            names: Box::new([name; BATCH]),
            parts: Box::new([[part; 2]; BATCH]),
            messages: Box::new([message; BATCH]),
            payload,
            length: 0,
        }
    }

    /// Adds a datagram. False when there is no more room: [`Wire::flush`] first.
    pub fn push(&mut self, header: [u8; HEADER_BYTES], to: SocketAddrV4) -> bool {
        let at = self.length;
        let (Some(place), Some(name)) = (self.headers.get_mut(at), self.names.get_mut(at)) else { return false };
        *place = header;
        name.sin_family = libc::AF_INET as _;
        name.sin_port = to.port().to_be();
        name.sin_addr.s_addr = u32::from_ne_bytes(to.ip().octets());
        self.length += 1;
        true
    }

    /// Sends all that was added, waiting for room as long as it takes.
    pub fn flush(&mut self, socket: &impl AsRawFd) -> Flushed {
        let length = std::mem::take(&mut self.length);
        let places = self.headers.iter_mut().zip(&mut *self.names).zip(&mut *self.parts).zip(&mut *self.messages).take(length);
        for (((header, name), parts), message) in places {
            *parts = [
                libc::iovec { iov_base: header.as_mut_ptr().cast(), iov_len: HEADER_BYTES },
                libc::iovec { iov_base: self.payload.as_mut_ptr().cast(), iov_len: self.payload.len() },
            ];
            message.msg_hdr.msg_name = (name as *mut libc::sockaddr_in).cast();
            message.msg_hdr.msg_namelen = size_of::<libc::sockaddr_in>() as _;
            message.msg_hdr.msg_iov = parts.as_mut_ptr();
            message.msg_hdr.msg_iovlen = 2;
        }
        let (mut sent, mut flushed) = (0, Flushed::default());
        while sent < length {
            let rest = self.messages.get_mut(sent..length).unwrap_or_default();
            // SAFETY: every header points at memory of this struct, valid for the lengths given; the kernel only reads it.
            let count = unsafe { libc::sendmmsg(socket.as_raw_fd(), rest.as_mut_ptr(), rest.len() as u32, libc::MSG_NOSIGNAL as _) };
            flushed.calls += 1;
            if let Ok(count) = usize::try_from(count) {
                sent += count;
                continue;
            }
            match io::Error::last_os_error().raw_os_error() {
                Some(libc::EINTR | libc::EAGAIN | libc::ENOBUFS) => {}
                // A receiver that cannot be reached must not keep the others waiting.
                _ => (sent, flushed.refused) = (sent + 1, flushed.refused + 1),
            }
        }
        flushed
    }
}

/// Lets the calling thread's sleeps end on time, where the kernel would otherwise add 50 us to share wake-ups.
pub fn sleep_exactly() {
    // SAFETY: prctl with these arguments takes no pointers.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1) };
}
