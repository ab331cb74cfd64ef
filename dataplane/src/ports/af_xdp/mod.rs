//! AF_XDP: a queue of an interface as a port, past the kernel's network stack.
//!
//! ```text
//! open(options) ─► one AfXdpPort for each queue (an engine core owns one; they share nothing but the steering program)
//!                  Steering: which addresses are ours, counters
//! ```
//!
//! What is tried, in this order, and told by [`AfXdpPort::describe`] and [`Opened::notes`]: the program in the driver, then generic;
//! zero-copy, then copy mode; huge pages, then small ones. The socket is that of `xsk-rs`, whose own program is not loaded: it takes *all*
//! frames of a queue. Ours is in [`steer`](super::steer).
//!
//! Multicast. A port that listens to a group has the group's frames steered to it, and those of no other. A packet socket holds the group's
//! hardware address in the card's filter and gets copies of what routers ask; the kernel gets these questions too.
//!
//! Traps. A queue that was just closed answers EBUSY for a moment, as does an interface whose last program is being detached: both are
//! tried again for [`Options::patience`]. In copy mode the kernel sends within our system call, about 32 frames each. The completion of a
//! frame wakes nobody.

mod port;
mod rings;

pub use port::AfXdpPort;

use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use stack::port::PortCounters;

use super::netdev::{Netdev, NetdevError};
use super::packet::GroupSocket;
use super::steer::{QUEUES_MAX, SteerError, Steering, XdpMode};
use rings::{HEADROOM_BYTES, Rings, RingsError, Shape};

/// An Ethernet header with a VLAN tag.
const LINK_HEADER_BYTES: usize = 18;
const CHUNK_BYTES: [usize; 2] = [2048, 4096];
/// Pause between two tries to bind.
const RETRY_PAUSE: Duration = Duration::from_millis(10);

/// How much of the kernel to go past.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// The fastest that works.
    #[default]
    Auto,
    /// Zero-copy or nothing.
    ZeroCopy,
    /// Native XDP, frames copied by the kernel.
    Copy,
    /// Generic XDP, frames copied by the kernel: for comparison, and for drivers with broken XDP.
    Generic,
}

/// What to open.
#[derive(Clone, Debug)]
pub struct Options {
    /// The interface.
    pub interface: String,
    /// The first queue.
    pub first_queue: u32,
    /// How many queues; one port each.
    pub queues: u32,
    /// What is ours. More can be added later, see [`Opened::steering`].
    pub addresses: Vec<IpAddr>,
    /// Ours is what carries this VLAN's tag; without one, what carries none.
    pub vlan: Option<u16>,
    /// How much of the kernel to go past.
    pub mode: Mode,
    /// Frames that the kernel may fill before they are looked at, for each queue.
    pub rx_frames: u32,
    /// Frames that can be queued for sending, for each queue.
    pub tx_frames: u32,
    /// How long to try again while the interface is busy.
    pub patience: Duration,
}

impl Options {
    /// One queue of an interface, 2048 receive and 1024 transmit frames, no address yet.
    pub fn new(interface: impl Into<String>) -> Self {
        Self {
            interface: interface.into(),
            first_queue: 0,
            queues: 1,
            addresses: Vec::new(),
            vlan: None,
            mode: Mode::Auto,
            rx_frames: 2048,
            tx_frames: 1024,
            patience: Duration::from_secs(2),
        }
    }
}

/// Why an interface could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum AfXdpError {
    /// The interface itself.
    #[error(transparent)]
    Netdev(#[from] NetdevError),
    /// It is down.
    #[error("{interface} is down; `ip link set dev {interface} up`")]
    Down {
        /// The interface.
        interface: String,
    },
    /// Its packets do not fit a frame.
    #[error("{interface} has an MTU of {mtu_bytes}, AF_XDP carries at most {max}; `ip link set dev {interface} mtu 1500`")]
    Mtu {
        /// The interface.
        interface: String,
        /// Its MTU.
        mtu_bytes: usize,
        /// What would fit.
        max: usize,
    },
    /// It has fewer queues.
    #[error(
        "{interface} has {have} queues of each kind, and each engine core needs one: queues {first} to {last} were asked for; `{command}`, or fewer engine cores"
    )]
    Queues {
        /// The interface.
        interface: String,
        /// Queues in use that are of both kinds, receive and transmit.
        have: u32,
        /// The first asked for.
        first: u32,
        /// The last asked for.
        last: u32,
        /// What gives it as many.
        command: String,
    },
    /// The steering program.
    #[error(transparent)]
    Steer(#[from] SteerError),
    /// The memory.
    #[error(
        "cannot register {bytes} bytes of frames for {interface}: {source}; as root, or with a larger RLIMIT_MEMLOCK (`ulimit -l`, LimitMEMLOCK=)?"
    )]
    Umem {
        /// The interface.
        interface: String,
        /// Bytes asked for.
        bytes: usize,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The socket beside it.
    #[error("cannot listen to multicast on {interface}: {source}; it needs CAP_NET_RAW, and an interface that has multicast")]
    Groups {
        /// The interface.
        interface: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// Another socket has the queue.
    #[error("queue {queue} of {interface} belongs to another AF_XDP socket; is another instance running?")]
    Busy {
        /// The interface.
        interface: String,
        /// The queue.
        queue: u32,
    },
    /// The socket was refused.
    #[error("cannot bind an AF_XDP socket to queue {queue} of {interface}: {source}")]
    Bind {
        /// The interface.
        interface: String,
        /// The queue.
        queue: u32,
        /// The kernel's answer.
        source: io::Error,
    },
}

/// An interface that is open.
pub struct Opened {
    /// A port for each queue, in order.
    pub ports: Vec<AfXdpPort>,
    /// Which addresses are ours. The program stays attached until this and all ports are dropped.
    pub steering: Arc<Steering>,
    /// The interface, as it was found.
    pub netdev: Netdev,
    /// What the operator should know: fall-backs, queues that nobody serves.
    pub notes: Vec<String>,
}

/// Opens queues of an interface.
///
/// # Errors
/// [`AfXdpError`]; nothing stays attached or bound then.
pub fn open(options: &Options) -> Result<Opened, AfXdpError> {
    let netdev = Netdev::find(&options.interface)?;
    let shape = shape(&netdev, options)?;
    let deadline = Instant::now() + options.patience;
    let wanted = match options.mode {
        Mode::Auto => None,
        Mode::ZeroCopy | Mode::Copy => Some(XdpMode::Native),
        Mode::Generic => Some(XdpMode::Generic),
    };
    let attached = Steering::attach((&netdev.name, netdev.index), options.vlan, &options.addresses, wanted, options.patience)?;
    let steering = Arc::new(attached);
    let mut notes = steering.notes().to_vec();
    if netdev.queues > options.queues {
        notes.push(format!(
            "{0} spreads what arrives over {1} queues, and {2} are served, one for each engine core: frames for us on the others are lost to us; `{3}`",
            netdev.name,
            netdev.queues,
            options.queues,
            netdev.command_for_queues(options.queues)
        ));
    }
    let mut ports = Vec::with_capacity(options.queues as usize);
    for queue in options.first_queue..options.first_queue + options.queues {
        let (rings, zero_copy) = bind(&netdev, queue, shape, options.mode, steering.mode(), deadline, &mut notes)?;
        steering.set_socket(queue, rings.as_fd())?;
        let groups = GroupSocket::open(netdev.index, options.vlan);
        let groups = groups.map_err(|source| AfXdpError::Groups { interface: netdev.name.clone(), source })?;
        ports.push(AfXdpPort {
            rings,
            steering: Arc::clone(&steering),
            interface: netdev.name.clone(),
            queue,
            mac: netdev.mac,
            mtu_bytes: netdev.mtu_bytes,
            zero_copy,
            counters: PortCounters::default(),
            lost: false,
            unserved: [0..0, 0..0],
            groups,
            next_queries_ns: 0,
        });
    }
    if let Some(port) = ports.first_mut() {
        let last = options.first_queue + options.queues;
        port.unserved = [0..options.first_queue, last..netdev.queues.min(QUEUES_MAX)];
    }
    Ok(Opened { ports, steering, netdev, notes })
}

fn shape(netdev: &Netdev, options: &Options) -> Result<Shape, AfXdpError> {
    let interface = || netdev.name.clone();
    if !netdev.up {
        return Err(AfXdpError::Down { interface: interface() });
    }
    let last = options.first_queue.saturating_add(options.queues.saturating_sub(1));
    // A frame leaves by the transmit queue of the same number.
    let have = netdev.queues.min(netdev.tx_queues).min(QUEUES_MAX);
    if options.queues == 0 || last >= have {
        let command = netdev.command_for_queues(last.saturating_add(1));
        return Err(AfXdpError::Queues { interface: interface(), have, first: options.first_queue, last, command });
    }
    let needed = HEADROOM_BYTES + LINK_HEADER_BYTES + netdev.mtu_bytes;
    let chunk = CHUNK_BYTES.into_iter().find(|chunk| *chunk >= needed);
    let chunk_bytes = chunk.ok_or_else(|| AfXdpError::Mtu {
        interface: interface(),
        mtu_bytes: netdev.mtu_bytes,
        max: CHUNK_BYTES[1] - HEADROOM_BYTES - LINK_HEADER_BYTES,
    })?;
    Ok(Shape { chunk_bytes, rx_frames: options.rx_frames.max(1), tx_frames: options.tx_frames.max(1) })
}

/// Binds a socket to a queue. Each try makes a new socket and new memory: a socket that failed to bind cannot be used again.
fn bind(
    netdev: &Netdev,
    queue: u32,
    shape: Shape,
    mode: Mode,
    attached: XdpMode,
    deadline: Instant,
    notes: &mut Vec<String>,
) -> Result<(Rings, bool), AfXdpError> {
    let mut zero_copy = mode == Mode::ZeroCopy || (mode == Mode::Auto && attached == XdpMode::Native);
    loop {
        let source = match Rings::new(&netdev.name, queue, shape, zero_copy) {
            Ok(rings) => return Ok((rings, zero_copy)),
            Err(RingsError::Umem(source)) => {
                let bytes = (shape.rx_frames as usize + shape.tx_frames as usize) * shape.chunk_bytes;
                return Err(AfXdpError::Umem { interface: netdev.name.clone(), bytes, source });
            }
            Err(RingsError::Bind(source)) => source,
        };
        if source.raw_os_error() == Some(libc::EBUSY) {
            if Instant::now() >= deadline {
                return Err(AfXdpError::Busy { interface: netdev.name.clone(), queue });
            }
            std::thread::sleep(RETRY_PAUSE);
        } else if zero_copy && mode == Mode::Auto {
            notes.push(format!("{} queue {queue} offers no zero-copy ({source}): the kernel copies each frame", netdev.name));
            zero_copy = false;
        } else {
            return Err(AfXdpError::Bind { interface: netdev.name.clone(), queue, source });
        }
    }
}
