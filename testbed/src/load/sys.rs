//! The system calls under the load generator, each behind a safe face: epoll, batches of datagrams with kernel receive timestamps,
//! and what the process itself costs.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

/// Bytes of each datagram that are looked at; the rest is only counted.
pub const HEAD_BYTES: usize = 256;
/// Datagrams taken by one call.
pub const BATCH: usize = 256;
const CONTROL_BYTES: usize = 96;

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// An epoll instance.
#[derive(Debug)]
pub struct Epoll {
    fd: OwnedFd,
    events: Vec<libc::epoll_event>,
}

impl Epoll {
    /// A new instance.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn new() -> io::Result<Self> {
        // SAFETY: no pointers are passed; the descriptor is owned by no one else.
        let fd = unsafe { OwnedFd::from_raw_fd(check(libc::epoll_create1(libc::EPOLL_CLOEXEC))?) };
        Ok(Self { fd, events: vec![libc::epoll_event { events: 0, u64: 0 }; 1024] })
    }

    fn control(&self, operation: libc::c_int, fd: RawFd, token: u64, writable: bool) -> io::Result<()> {
        let interest = libc::EPOLLIN | libc::EPOLLRDHUP | if writable { libc::EPOLLOUT } else { 0 };
        let mut event = libc::epoll_event { events: interest as u32, u64: token };
        // SAFETY: `event` lives through the call.
        check(unsafe { libc::epoll_ctl(self.fd.as_raw_fd(), operation, fd, &mut event) }).map(drop)
    }

    /// Watches `fd` for input, and for room for output when `writable`.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn add(&self, fd: &impl AsRawFd, token: u64, writable: bool) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, fd.as_raw_fd(), token, writable)
    }

    /// Changes what `fd` is watched for.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn modify(&self, fd: &impl AsRawFd, token: u64, writable: bool) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_MOD, fd.as_raw_fd(), token, writable)
    }

    /// Waits up to `timeout_ms` and puts (token, writable) of what is ready into `ready`.
    ///
    /// # Errors
    /// The kernel refuses; an interruption is an empty answer.
    pub fn wait(&mut self, timeout_ms: u32, ready: &mut Vec<(u64, bool)>) -> io::Result<()> {
        ready.clear();
        let timeout = timeout_ms.min(i32::MAX as u32) as i32;
        // SAFETY: the events' memory is valid for the length passed.
        let count = unsafe { libc::epoll_wait(self.fd.as_raw_fd(), self.events.as_mut_ptr(), self.events.len() as i32, timeout) };
        match check(count) {
            Ok(count) => ready.extend(self.events.iter().take(count as usize).map(|e| (e.u64, e.events & libc::EPOLLOUT as u32 != 0))),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
        Ok(())
    }
}

/// One received datagram.
#[derive(Clone, Copy, Debug)]
pub struct Datagram<'a> {
    /// Its first bytes.
    pub head: &'a [u8],
    /// Its whole length.
    pub length: usize,
    /// Kernel receive time, `CLOCK_REALTIME`, ns.
    pub received_ns: Option<u64>,
    /// The local address that it was sent to, on a socket with [`want_destination`].
    pub to: Option<Ipv4Addr>,
}

/// Memory for `recvmmsg`.
pub struct Batch {
    heads: Box<[[u8; HEAD_BYTES]]>,
    controls: Box<[Control]>,
    messages: Vec<libc::mmsghdr>,
    parts: Box<[libc::iovec]>,
}

#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Control([u8; CONTROL_BYTES]);

impl Default for Batch {
    fn default() -> Self {
        Self::new()
    }
}

impl Batch {
    /// Room for [`BATCH`] datagrams.
    pub fn new() -> Self {
        // SAFETY: all-zero bytes are valid for these plain C structs.
        let (message, part): (libc::mmsghdr, libc::iovec) = unsafe { (std::mem::zeroed(), std::mem::zeroed()) };
        Self {
            heads: vec![[0; HEAD_BYTES]; BATCH].into(),
            controls: vec![Control([0; CONTROL_BYTES]); BATCH].into(),
            messages: vec![message; BATCH],
            parts: vec![part; BATCH].into(),
        }
    }

    /// Takes what waits at `socket`, at most [`BATCH`] datagrams, and returns how many.
    ///
    /// # Errors
    /// The kernel refuses; nothing waiting is 0.
    pub fn receive(&mut self, socket: &impl AsRawFd) -> io::Result<usize> {
        let places = self.messages.iter_mut().zip(&mut self.parts).zip(&mut self.heads).zip(&mut self.controls);
        for (((message, part), head), control) in places {
            *part = libc::iovec { iov_base: head.as_mut_ptr().cast(), iov_len: HEAD_BYTES };
            message.msg_hdr.msg_iov = part;
            message.msg_hdr.msg_iovlen = 1;
            message.msg_hdr.msg_control = control.0.as_mut_ptr().cast();
            message.msg_hdr.msg_controllen = CONTROL_BYTES as _;
        }
        // MSG_TRUNC: the length reported is the datagram's, though only its head is copied.
        let flags = libc::MSG_DONTWAIT | libc::MSG_TRUNC;
        // SAFETY: every header points at memory of this struct that is valid and writable for the lengths given.
        let count =
            unsafe { libc::recvmmsg(socket.as_raw_fd(), self.messages.as_mut_ptr(), BATCH as u32, flags as _, std::ptr::null_mut()) };
        match check(count) {
            Ok(count) => Ok(count as usize),
            // A peer's ICMP error on a connected socket is no end of the world.
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted | io::ErrorKind::ConnectionRefused) => {
                Ok(0)
            }
            Err(e) => Err(e),
        }
    }

    /// The datagram at `place` of the last call.
    pub fn get(&self, place: usize) -> Option<Datagram<'_>> {
        let message = self.messages.get(place)?;
        let length = message.msg_len as usize;
        let head = self.heads.get(place)?.get(..length.min(HEAD_BYTES))?;
        let (received_ns, to) = read_control(&message.msg_hdr);
        Some(Datagram { head, length, received_ns, to })
    }
}

/// Reads the kernel's timestamp and the destination from the control messages of a header that the kernel filled.
fn read_control(header: &libc::msghdr) -> (Option<u64>, Option<Ipv4Addr>) {
    let (mut received_ns, mut to) = (None, None);
    // SAFETY: the header was filled by the kernel and points at a control buffer that is alive.
    let mut next = unsafe { libc::CMSG_FIRSTHDR(header) };
    while !next.is_null() {
        // SAFETY: CMSG_FIRSTHDR and CMSG_NXTHDR return only whole headers inside the buffer.
        let control = unsafe { *next };
        // SAFETY: as above; the data follows its header.
        let data = unsafe { libc::CMSG_DATA(next) };
        match (control.cmsg_level, control.cmsg_type) {
            (libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS) => {
                // SAFETY: this kind carries a timespec; it may be unaligned.
                let t = unsafe { data.cast::<libc::timespec>().read_unaligned() };
                received_ns = Some(t.tv_sec as u64 * 1_000_000_000 + t.tv_nsec as u64);
            }
            (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                // SAFETY: this kind carries an in_pktinfo; it may be unaligned.
                let info = unsafe { data.cast::<libc::in_pktinfo>().read_unaligned() };
                to = Some(Ipv4Addr::from(info.ipi_addr.s_addr.to_ne_bytes()));
            }
            _ => {}
        }
        // SAFETY: `next` lies in the header's control buffer.
        next = unsafe { libc::CMSG_NXTHDR(header, next) };
    }
    (received_ns, to)
}

/// Reads from a stream socket, with the kernel's receive time of the last bytes where it tells.
///
/// # Errors
/// As of `recvmsg`.
pub fn read_stream(socket: &impl AsRawFd, buffer: &mut [u8]) -> io::Result<(usize, Option<u64>)> {
    let mut control = Control([0; CONTROL_BYTES]);
    let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: all-zero bytes are a valid msghdr.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_iov = &mut part;
    header.msg_iovlen = 1;
    header.msg_control = control.0.as_mut_ptr().cast();
    header.msg_controllen = CONTROL_BYTES as _;
    // SAFETY: the header points at memory that lives through the call.
    let count = unsafe { libc::recvmsg(socket.as_raw_fd(), &mut header, libc::MSG_DONTWAIT) };
    if count < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok((count as usize, read_control(&header).0))
}

/// Sends one datagram from the local address `from` of a socket that is bound to all addresses.
///
/// # Errors
/// As of `sendmsg`.
pub fn send_from(socket: &impl AsRawFd, from: Ipv4Addr, to: std::net::SocketAddrV4, packet: &[u8]) -> io::Result<()> {
    let mut part = libc::iovec { iov_base: packet.as_ptr().cast_mut().cast(), iov_len: packet.len() };
    let mut name = libc::sockaddr_in {
        sin_family: libc::AF_INET as _,
        sin_port: to.port().to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(to.ip().octets()) },
        sin_zero: [0; 8],
    };
    let mut control = Control([0; CONTROL_BYTES]);
    // SAFETY: all-zero bytes are valid for both structs.
    let (mut header, mut info): (libc::msghdr, libc::in_pktinfo) = unsafe { (std::mem::zeroed(), std::mem::zeroed()) };
    info.ipi_spec_dst.s_addr = u32::from_ne_bytes(from.octets());
    header.msg_name = (&raw mut name).cast();
    header.msg_namelen = size_of::<libc::sockaddr_in>() as _;
    header.msg_iov = &mut part;
    header.msg_iovlen = 1;
    header.msg_control = control.0.as_mut_ptr().cast();
    // SAFETY: plain arithmetic on a length.
    header.msg_controllen = unsafe { libc::CMSG_SPACE(size_of::<libc::in_pktinfo>() as u32) } as _;
    // SAFETY: the control buffer is aligned and has room for one in_pktinfo message.
    unsafe {
        let first = libc::CMSG_FIRSTHDR(&header);
        (*first).cmsg_level = libc::IPPROTO_IP;
        (*first).cmsg_type = libc::IP_PKTINFO;
        (*first).cmsg_len = libc::CMSG_LEN(size_of::<libc::in_pktinfo>() as u32) as _;
        libc::CMSG_DATA(first).cast::<libc::in_pktinfo>().write_unaligned(info);
    }
    // SAFETY: every pointer of the header refers to memory that lives through the call; the packet is only read.
    let sent = unsafe { libc::sendmsg(socket.as_raw_fd(), &header, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn set_option(socket: &impl AsRawFd, level: libc::c_int, name: libc::c_int, value: libc::c_int) -> io::Result<()> {
    // SAFETY: the value lives through the call and its length is given.
    check(unsafe {
        libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const value).cast(), size_of::<libc::c_int>() as libc::socklen_t)
    })
    .map(drop)
}

/// Asks for kernel receive timestamps.
///
/// # Errors
/// As of `setsockopt`.
pub fn want_timestamps(socket: &impl AsRawFd) -> io::Result<()> {
    set_option(socket, libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, 1)
}

/// Asks for the local address of each datagram.
///
/// # Errors
/// As of `setsockopt`.
pub fn want_destination(socket: &impl AsRawFd) -> io::Result<()> {
    set_option(socket, libc::IPPROTO_IP, libc::IP_PKTINFO, 1)
}

/// Asks for a receive buffer of `bytes`, beyond the system's limit where that is allowed. Returns what it became.
///
/// # Errors
/// As of `setsockopt`.
pub fn set_receive_buffer(socket: &socket2::Socket, bytes: usize) -> io::Result<usize> {
    let wanted = bytes.min(i32::MAX as usize / 2) as libc::c_int;
    if set_option(socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, wanted).is_err() {
        set_option(socket, libc::SOL_SOCKET, libc::SO_RCVBUF, wanted)?;
    }
    socket.recv_buffer_size()
}

/// Datagrams that the kernel dropped at this socket because its buffer was full.
pub fn drops(socket: &impl AsRawFd) -> u64 {
    // linux/sock_diag.h: SK_MEMINFO_DROPS is the ninth of SK_MEMINFO_VARS values.
    let mut values = [0u32; 9];
    let mut length = size_of_val(&values) as libc::socklen_t;
    // SAFETY: the buffer is valid for the length given.
    let result =
        unsafe { libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_MEMINFO, values.as_mut_ptr().cast(), &mut length) };
    if result == 0 { u64::from(values[8]) } else { 0 }
}

/// Raises the limit of open files to what is needed, as far as allowed; returns the limit.
pub fn raise_open_files(needed: u64) -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a valid place for the answer.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) } != 0 || limit.rlim_cur >= needed {
        return limit.rlim_cur;
    }
    for hard in [limit.rlim_max.max(needed), limit.rlim_max] {
        let wanted = libc::rlimit { rlim_cur: needed.min(hard), rlim_max: hard };
        // SAFETY: `wanted` is only read.
        if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &wanted) } == 0 {
            return wanted.rlim_cur;
        }
    }
    limit.rlim_cur
}

/// CPU time that the calling thread has used, ns.
pub fn thread_cpu_ns() -> u64 {
    clock_ns(libc::CLOCK_THREAD_CPUTIME_ID)
}

/// Monotonic time, ns.
pub fn monotonic_ns() -> u64 {
    clock_ns(libc::CLOCK_MONOTONIC)
}

/// Wall-clock time, ns: the clock of the kernel's receive timestamps.
pub fn realtime_ns() -> u64 {
    clock_ns(libc::CLOCK_REALTIME)
}

fn clock_ns(clock: libc::clockid_t) -> u64 {
    let mut t = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `t` is a valid place for the answer.
    unsafe { libc::clock_gettime(clock, &mut t) };
    t.tv_sec as u64 * 1_000_000_000 + t.tv_nsec as u64
}

/// Pins the calling thread to one core, for good. What it starts from then on begins there, too.
///
/// # Errors
/// There is no such core, or it is not allowed.
pub fn pin_to_cpu(cpu: usize) -> io::Result<()> {
    // SAFETY: an all-zero set is a valid set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    if cpu >= libc::CPU_SETSIZE as usize {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    // SAFETY: `cpu` is within the set.
    unsafe { libc::CPU_SET(cpu, &mut set) };
    set_affinity(&set)
}

fn affinity() -> io::Result<libc::cpu_set_t> {
    // SAFETY: an all-zero set is a valid set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: the set lives through the call and its size is given; 0 is the calling thread.
    check(unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &mut set) })?;
    Ok(set)
}

fn set_affinity(set: &libc::cpu_set_t) -> io::Result<()> {
    // SAFETY: the set lives through the call and its size is given; 0 is the calling thread.
    check(unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), set) }).map(drop)
}

/// While this lives, the thread that made it is pinned to a core; then it may run wherever it could before. A server that is started next
/// must not inherit the core of who loaded the last one.
#[derive(Debug)]
pub struct Pinned {
    before: libc::cpu_set_t,
    /// It is the thread's own to undo.
    _of_this_thread: std::marker::PhantomData<*const ()>,
}

impl Pinned {
    /// Pins the calling thread.
    ///
    /// # Errors
    /// There is no such core, or it is not allowed.
    pub fn to(cpu: usize) -> io::Result<Self> {
        let before = affinity()?;
        pin_to_cpu(cpu)?;
        Ok(Self { before, _of_this_thread: std::marker::PhantomData })
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        let _ = set_affinity(&self.before);
    }
}

/// While this lives, the thread that made it runs before ordinary ones, where that is permitted: a receiver that a busy sender on the same
/// machine keeps from running would lose packets of its own. Processes started meanwhile are ordinary.
#[derive(Debug)]
pub struct Preferred {
    granted: bool,
}

impl Preferred {
    /// Prefers the calling thread.
    pub fn new() -> Self {
        Self { granted: set_policy(libc::SCHED_RR | libc::SCHED_RESET_ON_FORK, 1) }
    }

    /// Whether it was permitted.
    pub fn granted(&self) -> bool {
        self.granted
    }
}

impl Default for Preferred {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Preferred {
    fn drop(&mut self) {
        if self.granted {
            set_policy(libc::SCHED_OTHER, 0);
        }
    }
}

fn set_policy(policy: libc::c_int, priority: libc::c_int) -> bool {
    let parameters = libc::sched_param { sched_priority: priority };
    // SAFETY: the parameters live through the call; 0 is the calling thread.
    unsafe { libc::sched_setscheduler(0, policy, &parameters) == 0 }
}

/// The smoothed round-trip time of a TCP connection, microseconds.
///
/// # Errors
/// It is none.
pub fn tcp_rtt_us(socket: &impl AsRawFd) -> io::Result<u32> {
    // SAFETY: all-zero bytes are a valid tcp_info.
    let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
    let mut bytes = size_of::<libc::tcp_info>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `bytes` bytes into `info`, which has that many.
    check(unsafe { libc::getsockopt(socket.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_INFO, (&raw mut info).cast(), &mut bytes) })?;
    Ok(info.tcpi_rtt)
}

/// Has the page cache forget a file whose pages are on the disk already.
///
/// # Errors
/// The kernel refuses.
pub fn forget_cached(file: &std::fs::File) -> io::Result<()> {
    // SAFETY: no pointers are passed; 0 and 0 are the whole file.
    match unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) } {
        0 => Ok(()),
        code => Err(io::Error::from_raw_os_error(code)),
    }
}

/// Makes a command's process end when the thread that started it does, however that happens.
pub fn end_with_parent(command: &mut std::process::Command) {
    use std::os::unix::process::CommandExt as _;
    // SAFETY: the closure makes one system call that is safe between fork and exec, and touches no memory.
    unsafe {
        command.pre_exec(|| check(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL)).map(drop));
    }
}

/// Nanoseconds in a tick of the kernel's CPU accounting.
pub fn tick_ns() -> u64 {
    // SAFETY: sysconf takes no pointers.
    let per_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    1_000_000_000 / u64::try_from(per_second).unwrap_or(100).max(1)
}

/// Bytes of a page of memory.
pub fn page_bytes() -> u64 {
    // SAFETY: sysconf takes no pointers.
    u64::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_was_pinned_runs_wherever_it_could_before() {
        let cpus = |set: &libc::cpu_set_t| {
            // SAFETY: each number is within the set.
            (0..libc::CPU_SETSIZE as usize).filter(|&cpu| unsafe { libc::CPU_ISSET(cpu, set) }).collect()
        };
        let before: Vec<usize> = cpus(&affinity().unwrap());
        for &cpu in &before {
            let pinned = Pinned::to(cpu).unwrap();
            let meanwhile: Vec<usize> = cpus(&affinity().unwrap());
            assert_eq!(meanwhile, [cpu]);
            drop(pinned);
            let after: Vec<usize> = cpus(&affinity().unwrap());
            assert_eq!(after, before);
        }
        assert!(Pinned::to(usize::MAX).is_err());
        let after: Vec<usize> = cpus(&affinity().unwrap());
        assert_eq!(after, before);
    }
}
