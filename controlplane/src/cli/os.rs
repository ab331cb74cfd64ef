//! What the command asks of the operating system that the standard library does not offer: CPU affinity, the number of open files,
//! interface addresses.

use std::io;
use std::net::Ipv4Addr;

/// CPUs that the calling thread may run on, ascending.
///
/// # Errors
/// The kernel's answer; for instance when the machine has more CPUs than the mask has room for.
pub(super) fn allowed_cpus() -> io::Result<Vec<u32>> {
    // SAFETY: `cpu_set_t` is an array of integers, for which all zeros is a value (the empty set).
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes at most the size that it is told, which is that of `set`.
    if unsafe { libc::sched_getaffinity(0, size_of_val(&set), &mut set) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let in_set = |cpu: &u32| {
        // SAFETY: `cpu` is below CPU_SETSIZE, the number of bits in the set.
        unsafe { libc::CPU_ISSET(*cpu as usize, &set) }
    };
    Ok((0..libc::CPU_SETSIZE as u32).filter(in_set).collect())
}

/// Keeps the calling thread, and the threads that it will start, on these CPUs.
///
/// # Errors
/// The kernel's answer; `InvalidInput` for a CPU that no mask can name.
pub(super) fn stay_on(cpus: &[u32]) -> io::Result<()> {
    // SAFETY: as above, all zeros is the empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    for &cpu in cpus {
        if cpu >= libc::CPU_SETSIZE as u32 {
            return Err(io::Error::from(io::ErrorKind::InvalidInput));
        }
        // SAFETY: the line above has checked that the bit is in the set.
        unsafe { libc::CPU_SET(cpu as usize, &mut set) };
    }
    // SAFETY: the kernel reads the size that it is told, which is that of `set`.
    match unsafe { libc::sched_setaffinity(0, size_of_val(&set), &set) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Lets this process open as many files as it is allowed to at most; the answer is how many. The usual limit of 1024 is far below the
/// connections that a server holds.
///
/// # Errors
/// The kernel's answer.
pub(super) fn raise_open_files() -> io::Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the kernel writes one `rlimit`, for which `limit` is.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) } != 0 {
        return Err(io::Error::last_os_error());
    }
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: the kernel reads one `rlimit`.
    match unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) } {
        0 => Ok(limit.rlim_cur),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The first IPv4 address of this machine that others could reach it at: of an interface that is up and not the loopback.
pub(super) fn first_ipv4() -> Option<Ipv4Addr> {
    let mut list: *mut libc::ifaddrs = std::ptr::null_mut();
    // SAFETY: on success the call stores a list in `list`, which is freed below; on failure it stores nothing.
    if unsafe { libc::getifaddrs(&mut list) } != 0 {
        return None;
    }
    let mut found = None;
    let mut next = list;
    // SAFETY: `next` is null or an entry of the list, which lives until `freeifaddrs`.
    while let Some(entry) = unsafe { next.as_ref() } {
        next = entry.ifa_next;
        let up = entry.ifa_flags & libc::IFF_UP as u32 != 0 && entry.ifa_flags & libc::IFF_LOOPBACK as u32 == 0;
        if up && found.is_none() {
            found = ipv4_of(entry);
        }
    }
    // SAFETY: `list` came from `getifaddrs` and is freed once; no reference into it is left.
    unsafe { libc::freeifaddrs(list) };
    found
}

fn ipv4_of(entry: &libc::ifaddrs) -> Option<Ipv4Addr> {
    // SAFETY: `ifa_addr` is null or points to a socket address, which begins with its family.
    let family = unsafe { entry.ifa_addr.as_ref() }?.sa_family;
    if i32::from(family) != libc::AF_INET {
        return None;
    }
    // SAFETY: a socket address of family AF_INET is a `sockaddr_in`; the list's allocation may be less aligned than that type.
    let address = unsafe { entry.ifa_addr.cast::<libc::sockaddr_in>().read_unaligned() };
    Some(Ipv4Addr::from(u32::from_be(address.sin_addr.s_addr)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_stays_where_it_is_told() {
        std::thread::spawn(|| {
            let allowed = allowed_cpus().unwrap();
            assert!(!allowed.is_empty());
            stay_on(&allowed[..1]).unwrap();
            assert_eq!(allowed_cpus().unwrap(), &allowed[..1]);
            assert!(stay_on(&[libc::CPU_SETSIZE as u32]).is_err());
            assert!(stay_on(&[]).is_err());
        })
        .join()
        .unwrap();
    }

    #[test]
    fn more_files_can_be_opened_than_before_or_as_many() {
        let first = raise_open_files().unwrap();
        assert!(first > 0);
        assert_eq!(raise_open_files().unwrap(), first);
    }

    #[test]
    fn an_own_address_is_not_the_loopback() {
        if let Some(address) = first_ipv4() {
            assert!(!address.is_loopback() && !address.is_unspecified(), "{address}");
        }
    }
}
