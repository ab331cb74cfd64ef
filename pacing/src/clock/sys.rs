//! What the processor and the kernel say about time.

use crate::NS_PER_SEC;

/// `CLOCK_MONOTONIC` in nanoseconds.
pub(super) fn monotonic_ns() -> u64 {
    read(libc::CLOCK_MONOTONIC)
}

/// `CLOCK_REALTIME` in nanoseconds.
pub(super) fn unix_ns() -> u64 {
    read(libc::CLOCK_REALTIME)
}

fn read(clock: libc::clockid_t) -> u64 {
    let mut t = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `t` is a valid place for the answer. (With these two clocks the call cannot fail.)
    unsafe { libc::clock_gettime(clock, &mut t) };
    t.tv_sec as u64 * NS_PER_SEC + t.tv_nsec as u64
}

/// True when the time-stamp counter runs at one rate in all power states (Intel SDM volume 3, 19.17.1: CPUID.80000007H:EDX[8]), and
/// the kernel, which watches it, has not found it wanting.
#[cfg(target_arch = "x86_64")]
pub(super) fn counter_is_invariant() -> bool {
    use std::arch::x86_64::__cpuid;
    const POWER_MANAGEMENT: u32 = 0x8000_0007;
    let invariant = __cpuid(0x8000_0000).eax >= POWER_MANAGEMENT && __cpuid(POWER_MANAGEMENT).edx & (1 << 8) != 0;
    let listed = std::fs::read_to_string("/sys/devices/system/clocksource/clocksource0/available_clocksource");
    // In a container without /sys there is nothing to ask; drift is noticed anyway.
    invariant && listed.map_or(true, |names| names.split_whitespace().any(|name| name == "tsc"))
}

/// The time-stamp counter.
#[cfg(target_arch = "x86_64")]
#[inline]
pub(super) fn counter() -> u64 {
    // SAFETY: every x86_64 processor has the instruction, and it only reads.
    unsafe { std::arch::x86_64::_rdtsc() }
}

/// No counter is known here.
#[cfg(not(target_arch = "x86_64"))]
pub(super) fn counter_is_invariant() -> bool {
    false
}

/// Never asked, as no counter is known here.
#[cfg(not(target_arch = "x86_64"))]
pub(super) fn counter() -> u64 {
    0
}
