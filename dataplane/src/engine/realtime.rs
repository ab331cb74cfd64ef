//! Real time from the kernel for an engine core's thread, where it is granted: never required, always said.

use std::io;

/// Priority among real-time threads: above ordinary ones, below what watches over the machine.
const PRIORITY: libc::c_int = 50;
/// `sched(7)`: microseconds of each second (-1 for all) that real-time threads may run.
const THROTTLE: &str = "/proc/sys/kernel/sched_rt_runtime_us";

/// Asks for SCHED_FIFO for this thread and for memory that is not paged out; what came of it, for the operator. `spins` tells that the
/// thread never sleeps.
pub(super) fn ask(spins: bool) -> Vec<String> {
    let mut notes = Vec::new();
    match fifo() {
        Ok(()) => {
            notes.push(format!("runs in real time (SCHED_FIFO {PRIORITY})"));
            let throttle = std::fs::read_to_string(THROTTLE).unwrap_or_default();
            if spins && throttle.trim() != "-1" {
                notes.push(
                    "the kernel takes a spinning real-time thread off its CPU for a part of each second: set kernel.sched_rt_runtime_us=-1"
                        .into(),
                );
            }
        }
        Err(error) => {
            notes.push(format!("real time was refused ({error}): other threads may delay this core; grant CAP_SYS_NICE or RLIMIT_RTPRIO"))
        }
    }
    match lock_memory() {
        Ok(()) => notes.push("memory is locked".into()),
        Err(error) => {
            notes.push(format!("memory is not locked ({error}): pages may have to be read back; grant CAP_IPC_LOCK or RLIMIT_MEMLOCK"))
        }
    }
    notes
}

fn fifo() -> io::Result<()> {
    let parameters = libc::sched_param { sched_priority: PRIORITY };
    // SAFETY: `parameters` is valid for the length of the call; 0 names the calling thread.
    match unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &parameters) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn lock_memory() -> io::Result<()> {
    // SAFETY: the call touches no memory of ours but to make it resident.
    match unsafe { libc::mlockall(libc::MCL_CURRENT) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_the_kernel_says_is_told() {
        // On a thread of its own: it may be granted, and ends with it.
        let notes = std::thread::spawn(|| ask(true)).join().expect("no panic");
        assert!(notes.len() >= 2 && notes.iter().any(|note| note.contains("memory")), "{notes:?}");
    }
}
