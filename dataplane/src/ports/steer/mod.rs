//! Steering: our own XDP program, which sends what is for our addresses to our sockets and leaves the rest to the kernel.
//!
//! ```text
//! frame ─► program ─► ours? ─ yes ─► XSKMAP[queue] ─► AF_XDP socket of that queue
//!                       └──── no ──► kernel: ssh on the same interface goes on
//! ```
//!
//! [`program`] is the program, hand-assembled by [`asm`]; [`bpf`] talks to the kernel. The program is attached by a BPF link, which lives
//! as long as this process: however it dies, the interface is the kernel's again. Addresses are in a map and may change while frames
//! flow; multicast groups that are ours are in the same map.
//!
//! A frame can go to the socket of its own queue only: the kernel drops what a program sends to the socket of another (`xsk_rcv_check` in
//! net/xdp/xsk.c compares the queue, in copy and in zero-copy mode). So what came by the wrong queue is handed over later, between cores
//! (`stack::exchange`).

mod asm;
mod bpf;
mod program;
#[cfg(test)]
mod tests;

use std::io;
use std::net::IpAddr;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use serde::Serialize;

use bpf::{LinkMode, Map, MapType, Program, Refusal};
use program::{Maps, Verdict};

/// Queues of an interface that are told apart; frames of others go to the kernel uncounted.
pub const QUEUES_MAX: u32 = 256;
/// Addresses that can be ours at once.
pub const ADDRESSES_MAX: u32 = 256;
/// Pause between two tries to attach.
const RETRY_PAUSE: Duration = Duration::from_millis(10);
/// Lines of the verifier's log that an error shows: the complaint is at the end.
const LOG_LINES: usize = 12;

/// Where in the kernel the program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XdpMode {
    /// In the driver, before the kernel makes a packet buffer.
    Native,
    /// After the driver, on packet buffers: works everywhere and costs most of the gain.
    Generic,
}

/// What the program did with frames since it was attached, of all queues or of one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SteeringCounters {
    /// Frames for our addresses that went to our sockets.
    pub to_us: u64,
    /// Frames for our addresses on queues that have no socket; the kernel got them. More than a few mean that the interface spreads over
    /// more queues than there are engine cores: `ethtool -L IFACE combined N`.
    pub unserved: u64,
    /// Frames for the kernel.
    pub to_kernel: u64,
    /// Frames too short for what they say they are; the kernel got them.
    pub malformed: u64,
}

/// Why steering could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum SteerError {
    /// Not allowed.
    #[error("loading an XDP program needs root, or CAP_BPF with CAP_NET_ADMIN ({0})")]
    Privilege(io::Error),
    /// A map was refused.
    #[error("the kernel refused the steering program's map of {what}: {source}; is this kernel built with BPF_SYSCALL and XDP_SOCKETS?")]
    Map {
        /// Which.
        what: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The program was refused.
    #[error(
        "the kernel's verifier refused the steering program ({source}); please report this with the kernel's version and these lines:\n{log}"
    )]
    Rejected {
        /// The kernel's answer.
        source: io::Error,
        /// The end of the verifier's log.
        log: String,
    },
    /// The interface has another program.
    #[error(
        "another XDP program is attached to {interface}: see `ip link show dev {interface}`; remove it with `ip link set dev {interface} xdp off`, or stop the process that holds it"
    )]
    Busy {
        /// The interface.
        interface: String,
    },
    /// The interface takes no program.
    #[error("cannot attach the steering program to {interface}: {source}")]
    Attach {
        /// The interface.
        interface: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A change of a map failed.
    #[error("cannot {what}: {source}")]
    Change {
        /// What was to be done.
        what: String,
        /// The kernel's answer.
        source: io::Error,
    },
}

/// A program that is loaded and not attached.
struct Loaded {
    program: Program,
    addresses: Map,
    counters: Map,
    sockets: Map,
}

impl Loaded {
    fn new(vlan: Option<u16>) -> Result<Self, SteerError> {
        let word = size_of::<u32>() as u32;
        let addresses = map(MapType::Hash, "addresses", program::KEY_BYTES, word, ADDRESSES_MAX)?;
        let counters = map(MapType::Array, "counters", word, size_of::<u64>() as u32, QUEUES_MAX * program::VERDICTS)?;
        let sockets = map(MapType::Xsk, "sockets", word, word, QUEUES_MAX)?;
        let maps = Maps { addresses: addresses.as_raw(), counters: counters.as_raw(), sockets: sockets.as_raw() };
        let instructions =
            program::assemble(vlan, maps).map_err(|error| SteerError::Rejected { source: io::Error::other(error), log: String::new() })?;
        let program = Program::load("tactus_steer", &instructions).map_err(refused)?;
        Ok(Self { program, addresses, counters, sockets })
    }

    fn counter(&self, queue: u32, verdict: Verdict) -> u64 {
        let mut value = [0; size_of::<u64>()];
        let index = queue * program::VERDICTS + verdict as u32;
        // An element of an array map is always there.
        match self.counters.get(&index.to_ne_bytes(), &mut value) {
            Ok(()) => u64::from_ne_bytes(value),
            Err(_) => 0,
        }
    }

    fn counters_of(&self, queue: u32) -> SteeringCounters {
        SteeringCounters {
            to_us: self.counter(queue, Verdict::ToUs),
            unserved: self.counter(queue, Verdict::Unserved),
            to_kernel: self.counter(queue, Verdict::ToKernel),
            malformed: self.counter(queue, Verdict::Malformed),
        }
    }

    fn add_address(&self, address: IpAddr) -> Result<(), SteerError> {
        let set = self.addresses.set(&key(address), &1u32.to_ne_bytes());
        set.map_err(|source| SteerError::Change { what: format!("steer {address} (at most {ADDRESSES_MAX} addresses)"), source })
    }
}

fn map(kind: MapType, what: &'static str, key_bytes: u32, value_bytes: u32, entries: u32) -> Result<Map, SteerError> {
    Map::new(kind, what, key_bytes, value_bytes, entries).map_err(|source| match source.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => SteerError::Privilege(source),
        _ => SteerError::Map { what, source },
    })
}

fn refused(Refusal { source, log }: Refusal) -> SteerError {
    // Without a word of the verifier a refusal is about privileges.
    if log.is_empty() && matches!(source.raw_os_error(), Some(libc::EPERM)) {
        return SteerError::Privilege(source);
    }
    let lines: Vec<&str> = log.lines().collect();
    SteerError::Rejected { source, log: lines[lines.len().saturating_sub(LOG_LINES)..].join("\n") }
}

/// An address as the program looks it up.
fn key(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

/// The program on an interface; detached on drop, and when the process dies.
pub struct Steering {
    loaded: Loaded,
    // Never read: its end is what detaches.
    _link: OwnedFd,
    mode: XdpMode,
    notes: Vec<String>,
}

impl Steering {
    /// Loads the program and attaches it to the interface with this index, in the driver if that can do it and `mode` does not ask for
    /// less. Frames of `vlan` are steered, or untagged ones. While another program is attached (that of a process that has just ended is,
    /// for a moment), it is tried again, up to `patience`.
    ///
    /// # Errors
    /// See [`SteerError`].
    pub fn attach(
        (interface, index): (&str, u32),
        vlan: Option<u16>,
        addresses: &[IpAddr],
        mode: Option<XdpMode>,
        patience: Duration,
    ) -> Result<Self, SteerError> {
        let loaded = Loaded::new(vlan)?;
        for address in addresses {
            loaded.add_address(*address)?;
        }
        let deadline = Instant::now() + patience;
        let mut notes = Vec::new();
        let attempts: &[XdpMode] = match mode {
            None => &[XdpMode::Native, XdpMode::Generic],
            Some(XdpMode::Native) => &[XdpMode::Native],
            Some(XdpMode::Generic) => &[XdpMode::Generic],
        };
        let mut last = io::Error::from_raw_os_error(libc::EOPNOTSUPP);
        for mode in attempts {
            match attach_patiently(&loaded.program, index, *mode, deadline) {
                Ok(link) => return Ok(Self { loaded, _link: link, mode: *mode, notes }),
                Err(error) if matches!(error.raw_os_error(), Some(libc::EBUSY | libc::EEXIST)) => {
                    return Err(SteerError::Busy { interface: interface.to_owned() });
                }
                Err(error) if matches!(error.raw_os_error(), Some(libc::EPERM)) => return Err(SteerError::Privilege(error)),
                Err(error) => {
                    if *mode == XdpMode::Native {
                        notes.push(format!(
                            "{interface} refused XDP in its driver ({error}), so frames take the slow generic way; drivers refuse for want of \
                             support, for an MTU above about 3500, or for offloads such as LRO (`dmesg` says which)"
                        ));
                    }
                    last = error;
                }
            }
        }
        Err(SteerError::Attach { interface: interface.to_owned(), source: last })
    }

    /// Where the program runs.
    pub fn mode(&self) -> XdpMode {
        self.mode
    }

    /// What the operator should know.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Frames of this queue that are ours go to this socket from now on.
    ///
    /// # Errors
    /// [`SteerError::Change`], for instance for a queue beyond [`QUEUES_MAX`].
    pub fn set_socket(&self, queue: u32, socket: BorrowedFd<'_>) -> Result<(), SteerError> {
        let set = bpf::set_socket(&self.loaded.sockets, queue, socket);
        set.map_err(|source| SteerError::Change { what: format!("steer queue {queue} to its socket"), source })
    }

    /// Frames of this queue go to the kernel from now on.
    pub fn clear_socket(&self, queue: u32) {
        // The socket's own end does the same: this only makes it happen now. A queue without a socket is no matter.
        let _ = self.loaded.sockets.remove(&queue.to_ne_bytes());
    }

    /// An address is ours from now on.
    ///
    /// # Errors
    /// [`SteerError::Change`], for instance when there are more than [`ADDRESSES_MAX`].
    pub fn add_address(&self, address: IpAddr) -> Result<(), SteerError> {
        self.loaded.add_address(address)
    }

    /// An address is not ours any more.
    ///
    /// # Errors
    /// [`SteerError::Change`] when it was not.
    pub fn remove_address(&self, address: IpAddr) -> Result<(), SteerError> {
        let removed = self.loaded.addresses.remove(&key(address));
        removed.map_err(|source| SteerError::Change { what: format!("stop steering {address}"), source })
    }

    /// Counters of one queue.
    pub fn counters_of(&self, queue: u32) -> SteeringCounters {
        self.loaded.counters_of(queue)
    }

    /// Frames for our addresses that came by a queue without a socket and went to the kernel, which does not want them.
    pub fn unserved(&self, queue: u32) -> u64 {
        self.loaded.counter(queue, Verdict::Unserved)
    }

    /// Counters of the first `queues` queues together.
    pub fn counters(&self, queues: u32) -> SteeringCounters {
        (0..queues.min(QUEUES_MAX)).map(|queue| self.counters_of(queue)).fold(SteeringCounters::default(), |sum, of| SteeringCounters {
            to_us: sum.to_us + of.to_us,
            unserved: sum.unserved + of.unserved,
            to_kernel: sum.to_kernel + of.to_kernel,
            malformed: sum.malformed + of.malformed,
        })
    }
}

impl std::fmt::Debug for Steering {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Steering({:?}, queue 0: {:?})", self.mode, self.counters_of(0))
    }
}

fn attach_patiently(program: &Program, index: u32, mode: XdpMode, deadline: Instant) -> io::Result<OwnedFd> {
    let mode = match mode {
        XdpMode::Native => LinkMode::Driver,
        XdpMode::Generic => LinkMode::Generic,
    };
    loop {
        match program.attach(index, mode) {
            Err(error) if matches!(error.raw_os_error(), Some(libc::EBUSY | libc::EEXIST)) && Instant::now() < deadline => {
                std::thread::sleep(RETRY_PAUSE);
            }
            attached => return attached,
        }
    }
}
