//! Signals to processes that we started.

use std::process::Child;

/// Asks a child to stop (SIGTERM). Does nothing when it was already waited for.
pub fn terminate(child: &mut Child) {
    if let (Ok(None), Ok(pid)) = (child.try_wait(), i32::try_from(child.id())) {
        // SAFETY: plain system call; the child was not yet reaped, so the id is still its own.
        unsafe { libc::kill(pid, libc::SIGTERM) };
    }
}
