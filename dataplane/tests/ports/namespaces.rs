//! Two network namespaces with a veth pair between them, removed on drop, also after a panic.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// True as root. Otherwise says loudly that the test is skipped, which continuous integration does not take for an answer.
pub fn root_or_skip(test: &str) -> bool {
    let root = std::fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0);
    if !root {
        println!("SKIPPED (needs root): {test}");
        assert!(std::env::var("CI").as_deref() != Ok("true"), "{test} needs root and must not be skipped here");
    }
    root
}

/// Runs a command of iproute2 or ethtool that must succeed; answers what it printed.
pub fn run(command: &str) -> String {
    let mut words = command.split_whitespace();
    let output = Command::new(words.next().unwrap()).args(words).output().unwrap_or_else(|e| panic!("{command}: {e}"));
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A namespace; its name carries the process's number.
pub struct Namespace {
    pub name: String,
}

impl Namespace {
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("tacport-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        run(&format!("ip netns add {name}"));
        let namespace = Self { name };
        namespace.ip("link set lo up");
        namespace
    }

    /// `ip` in the namespace.
    pub fn ip(&self, arguments: &str) -> String {
        run(&format!("ip -n {} {arguments}", self.name))
    }

    /// A command in the namespace.
    pub fn exec(&self, command: &str) -> String {
        run(&format!("ip netns exec {} {command}", self.name))
    }

    /// Runs `work` on a thread in the namespace. Sockets that it makes stay in there.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let file = File::open(format!("/run/netns/{}", self.name)).unwrap();
        std::thread::scope(|scope| {
            let thread = scope.spawn(move || {
                // SAFETY: changes the network namespace of this thread only; `file` is open.
                let result = unsafe { libc::setns(file.as_raw_fd(), libc::CLONE_NEWNET) };
                assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
                work()
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.name]).status();
    }
}

/// Where our stack would be, with the kernel on the same interface.
pub const OUR_IP: [u8; 4] = [10, 77, 0, 2];
/// The kernel's own address on our interface.
pub const KERNEL_IP: &str = "10.77.0.1";
/// The kernel at the other end.
pub const PEER_IP: [u8; 4] = [10, 77, 0, 3];
/// Our interface.
pub const NEAR: &str = "near";
/// The other end.
pub const FAR: &str = "far";

/// `near` in one namespace, `far` in another; both with kernel addresses, and checksums that the kernel finishes.
pub struct Pair {
    pub near: Namespace,
    pub far: Namespace,
}

impl Pair {
    /// A pair with so many queues at each end.
    pub fn new(queues: u32) -> Self {
        let pair = Self { near: Namespace::new(), far: Namespace::new() };
        let count = format!("numrxqueues {queues} numtxqueues {queues}");
        pair.near.ip(&format!("link add {NEAR} {count} type veth peer name {FAR} {count} netns {}", pair.far.name));
        for (namespace, interface, address) in [(&pair.near, NEAR, KERNEL_IP), (&pair.far, FAR, "10.77.0.3")] {
            namespace.exec(&format!("ethtool -K {interface} tx off"));
            // No link-local address, so no chatter of IPv6 among the frames that are counted.
            namespace.ip(&format!("link set {interface} addrgenmode none"));
            namespace.ip(&format!("addr add {address}/24 dev {interface}"));
            namespace.ip(&format!("link set {interface} up"));
        }
        pair
    }
}
