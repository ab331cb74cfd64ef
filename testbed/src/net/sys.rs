//! The system calls under `testbed net` that std has no face for: network namespaces, exact waiting, signals to processes by id.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::time::Duration;

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Whether this process may do everything.
pub fn is_root() -> bool {
    // SAFETY: the call has no arguments and cannot fail.
    unsafe { libc::geteuid() == 0 }
}

/// Moves the calling thread into a network namespace.
///
/// # Errors
/// It is none, or this needs root.
pub fn enter_namespace(namespace: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: no pointers are passed.
    check(unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) }).map(drop)
}

/// Makes a command run in a network namespace.
pub fn run_in_namespace(command: &mut Command, namespace: File) {
    // SAFETY: between fork and exec the closure makes one system call that is safe there, with a descriptor that it owns.
    unsafe {
        command.pre_exec(move || check(libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET)).map(drop));
    }
}

/// Makes a command run apart from the terminal and its signals, as daemons do.
pub fn run_apart(command: &mut Command) {
    // SAFETY: between fork and exec the closure makes one system call that is safe there.
    unsafe {
        command.pre_exec(|| check(libc::setsid()).map(drop));
    }
}

/// Sends a signal to a process; 0 asks only whether it exists.
///
/// # Errors
/// There is no such process, or it may not be signalled.
pub fn kill(pid: u32, signal: libc::c_int) -> io::Result<()> {
    let pid = libc::pid_t::try_from(pid).ok().filter(|pid| *pid > 0).ok_or(io::ErrorKind::InvalidInput)?;
    // SAFETY: no pointers are passed.
    check(unsafe { libc::kill(pid, signal) }).map(drop)
}

/// Makes the calling thread's timeouts exact: the kernel otherwise adds up to 50 us to spare wake-ups.
pub fn exact_timeouts() {
    // SAFETY: no pointers are passed. A refusal leaves the default.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1) };
}

/// Lets the calling thread run before ordinary ones, as far as niceness does; unlike a real-time policy it may spin without being held up.
pub fn prefer_thread() {
    // SAFETY: no pointers are passed; 0 is the calling thread. A refusal leaves it ordinary.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, -20) };
}

/// Descriptors to wait for.
pub struct Waiter(Vec<libc::pollfd>);

impl Waiter {
    /// Waits for input of these, by number: they must be open for as long as this is used.
    pub fn new(fds: impl IntoIterator<Item = i32>) -> Self {
        Self(fds.into_iter().map(|fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 }).collect())
    }

    /// Waits until one can be read or has an error, or for `timeout` (without end: `None`). An interruption ends it early.
    pub fn wait(&mut self, timeout: Option<Duration>) {
        let timeout = timeout.map(|t| libc::timespec {
            tv_sec: libc::time_t::try_from(t.as_secs()).unwrap_or(libc::time_t::MAX),
            tv_nsec: libc::c_long::from(t.subsec_nanos() as i32),
        });
        let timeout = timeout.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
        // SAFETY: the descriptors' and the timeout's memory is valid through the call, no signal mask is passed. What is not told by the
        // result shows in what the caller tries next.
        unsafe { libc::ppoll(self.0.as_mut_ptr(), self.0.len() as libc::nfds_t, timeout, std::ptr::null()) };
    }

    /// Whether the descriptor at this place can be read.
    pub fn has_input(&self, place: usize) -> bool {
        self.0.get(place).is_some_and(|one| one.revents & libc::POLLIN != 0)
    }

    /// Whether the descriptor at this place had an error.
    pub fn has_error(&self, place: usize) -> bool {
        self.0.get(place).is_some_and(|one| one.revents & (libc::POLLERR | libc::POLLNVAL) != 0)
    }
}
