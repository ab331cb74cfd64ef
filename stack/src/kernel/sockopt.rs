//! The other system calls that the standard library and `socket2` do not offer, behind safe faces.

use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::time::Duration;

/// Sets an integer option of a socket.
pub(super) fn set_int(socket: BorrowedFd<'_>, level: i32, option: i32, value: i32) -> io::Result<()> {
    let len = size_of::<i32>() as libc::socklen_t;
    // SAFETY: the value is an i32 on our stack and `len` its size; the kernel copies it before the call returns.
    let result = unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const value).cast(), len) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Waits until one of `files` has one of its events. Answers which do; all zero after the timeout, a signal or an error.
pub(super) fn wait_for<const N: usize>(files: [(RawFd, i16); N], timeout: Duration) -> [i16; N] {
    let mut polled = files.map(|(fd, events)| libc::pollfd { fd, events, revents: 0 });
    let seconds = libc::time_t::try_from(timeout.as_secs()).unwrap_or(libc::time_t::MAX);
    let timeout = libc::timespec { tv_sec: seconds, tv_nsec: libc::c_long::from(timeout.subsec_nanos().cast_signed()) };
    // SAFETY: `polled` is N entries on our stack, `timeout` a valid timespec, and no signal mask is given; a descriptor that is negative
    // or not open is ignored or reported by the kernel, never touched.
    let ready = unsafe { libc::ppoll(polled.as_mut_ptr(), N as libc::nfds_t, &raw const timeout, std::ptr::null()) };
    if ready > 0 { polled.map(|entry| entry.revents) } else { [0; N] }
}

/// Reads an eventfd that is known to be readable, so that it is not any more.
pub(super) fn drain_event(fd: RawFd) {
    let mut count = [0_u8; 8];
    // SAFETY: the buffer is 8 bytes on our stack; a wrong descriptor makes the call fail, which changes nothing.
    let _ = unsafe { libc::read(fd, count.as_mut_ptr().cast(), count.len()) };
}

/// Lets timers of the calling thread fire on time instead of up to 50 us late (prctl(2), PR_SET_TIMERSLACK). For engine threads, once.
///
/// # Errors
/// The kernel's refusal; sleeping is then less exact, nothing else.
pub fn set_timer_slack_min() -> io::Result<()> {
    // SAFETY: this prctl takes one integer and changes a setting of the calling thread only.
    let result = unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1_u64) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
