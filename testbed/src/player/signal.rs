//! Signals: to processes that we started, and those that ask this one to stop.

use std::process::Child;
use std::sync::atomic::{AtomicBool, Ordering};

/// Asks a child to stop (SIGTERM). Does nothing when it was already waited for.
pub fn terminate(child: &mut Child) {
    if let (Ok(None), Ok(pid)) = (child.try_wait(), i32::try_from(child.id())) {
        // SAFETY: plain system call; the child was not yet reaped, so the id is still its own.
        unsafe { libc::kill(pid, libc::SIGTERM) };
    }
}

/// Sends a signal to a process that is not our child. The caller makes sure that the number is still that of the process meant.
pub fn send(pid: u32, signal: libc::c_int) {
    if let Ok(pid) = i32::try_from(pid) {
        // SAFETY: plain system call, no memory involved.
        unsafe { libc::kill(pid, signal) };
    }
}

/// Set by SIGTERM and SIGINT once [`stop_flag`] was called.
static STOP: AtomicBool = AtomicBool::new(false);

extern "C" fn note_stop(_signal: libc::c_int) {
    STOP.store(true, Ordering::Relaxed);
}

/// From now on SIGTERM and SIGINT set the flag returned, in place of ending this process. The second one ends it.
pub fn stop_flag() -> &'static AtomicBool {
    for signal in [libc::SIGTERM, libc::SIGINT] {
        // SAFETY: all-zero bytes are a valid sigaction with an empty mask.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = note_stop as *const () as usize;
        action.sa_flags = libc::SA_RESTART | libc::SA_RESETHAND;
        // SAFETY: the handler only stores to an atomic, which is safe at any point of the program; the action lives through the call.
        unsafe { libc::sigaction(signal, &action, std::ptr::null_mut()) };
    }
    &STOP
}
