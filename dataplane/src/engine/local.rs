//! Engine cores of this machine: kernel sockets or our own stack, and the best way to read files that the machine allows.

use std::path::PathBuf;
use std::sync::Arc;

use hugepages::{Arena, ChunkPool};
use pacing::TscClock;
use stack::kernel::{KernelConfig, KernelHost};

use super::core::CoreConfig;
use super::eventfd::EventFd;
use super::net::{AnyHost, ByteStream, SocketControl};
use super::own::{self, OwnNetConfig, Seat};
use super::thread::{CoreHandle, Parts, Poll, ThreadConfig, spawn};
use crate::disks::{AnyDisk, CyclicConfig, MediaFile};

/// Reads that one core keeps under way on all devices together; one device gets at most [`DEVICE_DEPTH_MAX`] of them.
const DISK_DEPTH: u16 = 128;
/// Reads under way on one device at most; deeper queues were measured slower.
pub const DEVICE_DEPTH_MAX: u16 = 32;
/// Frames of one transmit batch.
const TX_FRAMES: usize = 64;
/// Live channels of one core.
pub const CHANNELS_MAX: u32 = 64;
/// Resolution of the deadline wheel.
const TICK_NS: u64 = 20_000;

/// The handle of an engine core of this machine.
pub type LocalCore = CoreHandle<ByteStream, MediaFile>;

/// How an engine core is set up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalCoreConfig {
    /// CPU to pin to.
    pub cpu: Option<usize>,
    /// Whether an idle core spins.
    pub poll: Poll,
    /// Even UDP port for RTP; RTCP gets the next one. 0 takes any free pair.
    pub rtp_port: u16,
    /// Sessions at once.
    pub sessions_max: u32,
    /// Buffer memory, bytes.
    pub memory_bytes: usize,
    /// Bytes of a buffer, a multiple of 4096.
    pub chunk_bytes: usize,
    /// How disks are scheduled.
    pub disk: CyclicConfig,
    /// Whether buffers that nobody needs keep what is likely to be read again.
    pub cache: bool,
    /// Whether the core asks the kernel for real time.
    pub realtime: bool,
    /// A file on the file system that will be read, to find out how it can be read best.
    pub probe: Option<PathBuf>,
    /// Our own stack in place of kernel sockets; it needs a [`Seat`].
    pub own_net: Option<OwnNetConfig>,
}

/// Called on an engine core when the control core should see to the sockets of the core's own stack.
pub type Told = Box<dyn Fn() + Send + Sync>;

/// Starts engine core `index`. With a stack of its own it takes its `seat` at the interface, and the control core's half of its sockets
/// comes with it.
///
/// # Errors
/// A sentence that says what could not be had.
pub fn start(index: usize, config: LocalCoreConfig, seat: Option<Seat>, told: Told) -> Result<(LocalCore, Option<SocketControl>), String> {
    let wake = match &seat {
        Some(seat) => Arc::clone(&seat.wake),
        None => Arc::new(EventFd::new().map_err(|e| format!("cannot make an eventfd: {e}"))?),
    };
    let (own, sockets) = match (&config.own_net, seat) {
        (Some(own), Some(seat)) => {
            let (own, sockets) = own::open(own, seat, config.sessions_max, TX_FRAMES, told)?;
            (Some(own), Some(sockets))
        }
        (Some(_), None) => return Err(format!("engine core {index} has no queue of the interface")),
        (None, _) => (None, None),
    };
    // Two tracks a session on average; more tracks mean fewer sessions.
    let tracks_max = config.sessions_max.saturating_mul(2).max(8);
    let core = CoreConfig {
        sessions_max: config.sessions_max,
        tracks_max,
        streams_max: config.sessions_max,
        tick_ns: TICK_NS,
        host_frames: TX_FRAMES,
        disk: config.disk,
        cache: config.cache,
        channels_max: CHANNELS_MAX,
    };
    let commands_max = 2 * config.sessions_max as usize + 256;
    let thread = ThreadConfig { cpu: config.cpu, poll: config.poll, realtime: config.realtime, core, commands_max };
    let kernel = KernelConfig {
        port: config.rtp_port,
        flows_max: 2 * tracks_max,
        streams_max: config.sessions_max,
        tx_frames: TX_FRAMES,
        ..KernelConfig::default()
    };
    let core = spawn(index, thread, wake, TscClock::new(), move |clock| {
        let (host, mut notes) = match own {
            Some(mut own) => {
                let notes = std::mem::take(&mut own.notes);
                (AnyHost::Own(own.into_host(clock)), notes)
            }
            None => KernelHost::bind(kernel).map(|(host, notes)| (AnyHost::Kernel(host), notes)).map_err(|e| e.to_string())?,
        };
        let arena = Arena::new(config.memory_bytes).map_err(|e| e.to_string())?;
        let pool = ChunkPool::new(arena, config.chunk_bytes);
        let (disk, note) = AnyDisk::open(&pool, DISK_DEPTH, config.probe.as_deref()).map_err(|e| e.to_string())?;
        notes.push(format!("media is read by {note}"));
        let net = host.describe();
        Ok(Parts { host, disk, pool, net, notes })
    })?;
    Ok((core, sockets))
}
