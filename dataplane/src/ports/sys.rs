//! Waiting for descriptors, behind a safe face.

use std::os::fd::RawFd;

/// Waits until one of `files` has one of its events, or the timeout passes, or a signal comes. Answers the events of each.
pub(super) fn wait_for<const N: usize>(files: [(RawFd, i16); N], timeout_ns: u64) -> [i16; N] {
    let mut polled = files.map(|(fd, events)| libc::pollfd { fd, events, revents: 0 });
    let timeout = libc::timespec {
        tv_sec: libc::time_t::try_from(timeout_ns / 1_000_000_000).unwrap_or(libc::time_t::MAX),
        tv_nsec: (timeout_ns % 1_000_000_000) as libc::c_long,
    };
    // SAFETY: `polled` is N entries on our stack and `timeout` a valid timespec; without a signal mask the last argument may be null. A
    // descriptor that is negative is ignored, one that is not open is reported.
    let ready = unsafe { libc::ppoll(polled.as_mut_ptr(), N as libc::nfds_t, &raw const timeout, std::ptr::null()) };
    if ready > 0 { polled.map(|entry| entry.revents) } else { [0; N] }
}

/// Reads an eventfd that is known to be readable, so that it is not any more.
pub(super) fn drain_event(fd: RawFd) {
    let mut count = [0_u8; 8];
    // SAFETY: the buffer is 8 bytes on our stack; a wrong descriptor makes the call fail, which changes nothing.
    let _ = unsafe { libc::read(fd, count.as_mut_ptr().cast(), count.len()) };
}

/// Waits for events of `fd` or for `wake` to become readable, which is then drained.
pub(super) fn wait_or_wake(fd: RawFd, events: i16, timeout_ns: u64, wake: RawFd) {
    if timeout_ns > 0 {
        let [_, woken] = wait_for([(fd, events), (wake, libc::POLLIN)], timeout_ns);
        if woken & libc::POLLIN != 0 {
            drain_event(wake);
        }
    }
}
