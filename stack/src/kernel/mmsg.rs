//! `sendmmsg` and `recvmmsg` behind safe faces: the arrays that the kernel reads and writes are made once and only patched per call.
//!
//! Every pointer is written in the call that uses it and points into memory borrowed for that call.

use std::io;
use std::mem::{size_of, zeroed};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

use super::envelope::Name;
use super::tx::{Frames, Message};

/// Calls that a signal interrupted are repeated this often.
const INTERRUPTS_MAX: usize = 8;

fn last_error() -> i32 {
    io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO)
}

/// Repeats a call that returns a count or -1.
fn uninterrupted(mut call: impl FnMut() -> libc::c_int) -> Result<usize, i32> {
    for _ in 0..INTERRUPTS_MAX {
        if let Ok(count) = usize::try_from(call()) {
            return Ok(count);
        }
        let error = last_error();
        if error != libc::EINTR {
            return Err(error);
        }
    }
    Err(libc::EAGAIN)
}

fn headers(count: usize) -> Box<[libc::mmsghdr]> {
    // SAFETY: an mmsghdr is integers and pointers; all zero (null pointers, zero lengths) is a valid value.
    (0..count).map(|_| unsafe { zeroed() }).collect()
}

fn iovecs(count: usize) -> Box<[libc::iovec]> {
    (0..count).map(|_| libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 }).collect()
}

/// Arrays for sending.
pub(super) struct SendArrays {
    headers: Box<[libc::mmsghdr]>,
    iovecs: Box<[libc::iovec]>,
}

// SAFETY: the raw pointers inside are used only within one call of `send`, which writes them first.
unsafe impl Send for SendArrays {}

impl SendArrays {
    /// Arrays for as many frames.
    pub(super) fn new(frames: usize) -> Self {
        Self { headers: headers(frames), iovecs: iovecs(frames) }
    }

    /// Offers messages to a socket in one call; answers how many it took, or the error of the first.
    pub(super) fn send(&mut self, socket: BorrowedFd<'_>, frames: &Frames, messages: &[Message]) -> Result<usize, i32> {
        let count = messages.len().min(self.headers.len());
        for (header, message) in self.headers.iter_mut().zip(messages) {
            let range = usize::from(message.first)..usize::from(message.first) + usize::from(message.count);
            for frame in range.clone() {
                let payload = frames.payload(frame);
                self.iovecs[frame] = libc::iovec { iov_base: payload.as_ptr().cast_mut().cast(), iov_len: payload.len() };
            }
            let envelope = frames.envelope(range.start);
            let (name, control) = (envelope.name(), envelope.control(message.control_len));
            let header = &mut header.msg_hdr;
            header.msg_name = name.as_ptr().cast_mut().cast();
            header.msg_namelen = name.len() as libc::socklen_t;
            let parts = &mut self.iovecs[range];
            header.msg_iov = parts.as_mut_ptr();
            header.msg_iovlen = parts.len();
            header.msg_control = control.as_ptr().cast_mut().cast();
            header.msg_controllen = control.len();
        }
        let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        // SAFETY: the first `count` headers were written above; all they point to lies in `frames` and `self.iovecs`, which are borrowed
        // until the call returns. The kernel only reads what they point to, and writes `msg_len` of the headers.
        uninterrupted(|| unsafe { libc::sendmmsg(socket.as_raw_fd(), self.headers.as_mut_ptr(), count as libc::c_uint, flags) })
    }
}

/// A datagram of the last [`RecvArrays::receive`].
pub(super) struct Arrival<'a> {
    /// Who sent it; `None` when the kernel gave no address that we know.
    pub remote: Option<SocketAddr>,
    /// Its payload, or the start of it.
    pub bytes: &'a [u8],
    /// It was longer than the buffer.
    pub truncated: bool,
}

/// Arrays and buffers for receiving.
pub(super) struct RecvArrays {
    headers: Box<[libc::mmsghdr]>,
    iovecs: Box<[libc::iovec]>,
    names: Box<[Name]>,
    bytes: Box<[u8]>,
    buffer_bytes: usize,
}

// SAFETY: as for `SendArrays`: pointers are written by the call that uses them.
unsafe impl Send for RecvArrays {}

impl RecvArrays {
    /// `count` buffers of `buffer_bytes` each.
    pub(super) fn new(count: usize, buffer_bytes: usize) -> Self {
        Self {
            headers: headers(count),
            iovecs: iovecs(count),
            names: vec![Name::EMPTY; count].into_boxed_slice(),
            // Not zero, so that every page is touched here.
            bytes: vec![0xA5; count * buffer_bytes].into_boxed_slice(),
            buffer_bytes,
        }
    }

    /// Buffers in all.
    pub(super) fn len(&self) -> usize {
        self.headers.len()
    }

    /// Takes up to `limit` datagrams; they are read with [`RecvArrays::arrival`].
    pub(super) fn receive(&mut self, socket: BorrowedFd<'_>, limit: usize) -> Result<usize, i32> {
        let count = limit.min(self.headers.len());
        let buffers = self.bytes.chunks_exact_mut(self.buffer_bytes.max(1));
        let places = self.headers.iter_mut().zip(&mut self.iovecs).zip(self.names.iter_mut().zip(buffers));
        for ((header, iovec), (name, buffer)) in places.take(count) {
            *iovec = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
            header.msg_len = 0;
            header.msg_hdr.msg_name = name.0.as_mut_ptr().cast();
            header.msg_hdr.msg_namelen = Name::BYTES as libc::socklen_t;
            header.msg_hdr.msg_iov = iovec;
            header.msg_hdr.msg_iovlen = 1;
            header.msg_hdr.msg_flags = 0;
        }
        let flags = libc::MSG_DONTWAIT;
        // SAFETY: the first `count` headers point to distinct buffers, names and iovecs of this value, borrowed mutably until the call
        // returns, with their true lengths; `msg_control` is null. Without a timeout the last argument may be null.
        uninterrupted(|| unsafe {
            libc::recvmmsg(socket.as_raw_fd(), self.headers.as_mut_ptr(), count as libc::c_uint, flags, ptr::null_mut())
        })
    }

    /// The datagram at `index` of the last call.
    pub(super) fn arrival(&self, index: usize) -> Arrival<'_> {
        let header = &self.headers[index];
        let len = (header.msg_len as usize).min(self.buffer_bytes);
        let at = index * self.buffer_bytes;
        let known = header.msg_hdr.msg_namelen as usize >= size_of::<libc::sockaddr_in>();
        Arrival {
            remote: if known { self.names[index].decode() } else { None },
            bytes: &self.bytes[at..at + len],
            truncated: header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0,
        }
    }
}
