//! A TAP device as a port: the fall-back for any Linux, one system call for each frame.
//!
//! ```text
//! our stack ─ write ─► TAP device ─► kernel: bridge it to a network card, or give it an address and route
//!           ◄─ read ──
//! ```
//!
//! The device is made if there is none of that name, and then goes with the process; one made by `ip tuntap add` stays. To the kernel
//! the device is its own end of a cable, with the device's hardware address; our stack is the other end and has another.
//!
//! The kernel finishes the checksums of what it sends here: no offload is asked for.

mod sys;

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::fd::{AsRawFd, RawFd};
use std::time::{Duration, Instant};

use hugepages::{Arena, ArenaError, Frame, FramePool};
use stack::port::{Port, PortCounters};

use super::netdev::{Netdev, NetdevError};
use super::sys::wait_or_wake;

/// An Ethernet header with a VLAN tag.
const LINK_HEADER_BYTES: usize = 18;
/// Frames begin at cache lines.
const FRAME_ALIGN: usize = 64;
/// Pause between two tries to attach.
const RETRY_PAUSE: Duration = Duration::from_millis(10);

/// What to open.
#[derive(Clone, Debug)]
pub struct Options {
    /// The device.
    pub name: String,
    /// Hardware address of our end; one derived from the device's when there is none.
    pub mac: Option<[u8; 6]>,
    /// MTU to set on the device; as it is when there is none.
    pub mtu_bytes: Option<usize>,
    /// Frames that can be queued for sending.
    pub tx_frames: usize,
    /// How long to try again while another process, which may be ending, is attached.
    pub patience: Duration,
}

impl Options {
    /// A device of this name, as it is, and 256 frames.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), mac: None, mtu_bytes: None, tx_frames: 256, patience: Duration::from_secs(2) }
    }
}

/// Why a TAP device could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum TapError {
    /// Attaching failed.
    #[error("cannot attach to the TAP device {name}: {source}; {advice}")]
    Attach {
        /// The device.
        name: String,
        /// The kernel's answer.
        source: io::Error,
        /// What to do.
        advice: &'static str,
    },
    /// The device itself.
    #[error(transparent)]
    Netdev(#[from] NetdevError),
    /// Both ends of the cable would have one address.
    #[error("{name} has the hardware address that was given to our end of it; give another")]
    SameMac {
        /// The device.
        name: String,
    },
    /// The memory.
    #[error(transparent)]
    Arena(#[from] ArenaError),
}

/// Our end of a TAP device.
#[derive(Debug)]
pub struct TapPort {
    file: File,
    name: String,
    mac: [u8; 6],
    mtu_bytes: usize,
    pool: FramePool,
    open: Option<Frame>,
    /// Committed frames with their lengths, oldest first; never longer than the pool.
    queue: VecDeque<(Frame, usize)>,
    capacity: usize,
    received: Box<[u8]>,
    made: bool,
    counters: PortCounters,
    lost: bool,
}

/// An address for the other end of the device's cable: the device's own, marked as local and with one bit changed.
fn other_end(device: [u8; 6]) -> [u8; 6] {
    let [first, b, c, d, e, last] = device;
    // IEEE 802 8.2: bit 1 of the first byte says local, bit 0 would say group.
    [first & !1 | 2, b, c, d, e, last ^ 1]
}

fn advice(error: &io::Error, several_queues: bool) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => {
            "it needs root or CAP_NET_ADMIN, or a device that was made for this user: ip tuntap add NAME mode tap user USER"
        }
        Some(libc::ENOENT | libc::ENODEV) => "there is no /dev/net/tun: `modprobe tun`, or pass the device into the container",
        Some(libc::EBUSY) => "another process is attached to it",
        Some(libc::EINVAL) if several_queues => {
            "the name must have 1 to 15 bytes and not belong to an interface of another kind; for several engine cores a device that was there \
             must have several queues: ip tuntap add NAME mode tap multi_queue"
        }
        Some(libc::EINVAL) => {
            "the name must have 1 to 15 bytes and not belong to an interface of another kind, or to a device of several queues"
        }
        _ => "see `dmesg`",
    }
}

fn attach_patiently(name: &str, several_queues: bool, patience: Duration) -> io::Result<File> {
    let deadline = Instant::now() + patience;
    loop {
        match sys::attach(name, several_queues) {
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) && Instant::now() < deadline => std::thread::sleep(RETRY_PAUSE),
            attached => return attached,
        }
    }
}

impl TapPort {
    /// Attaches to a TAP device, makes it first if there is none, and sets it up.
    ///
    /// # Errors
    /// [`TapError`].
    pub fn open(options: &Options) -> Result<Self, TapError> {
        let made = matches!(Netdev::find(&options.name), Err(NetdevError::Unknown { .. }));
        Self::attach(options, false, made)
    }

    /// The same with several queues, one for each engine core. The kernel gives a flow to the queue that it was last answered by.
    ///
    /// # Errors
    /// [`TapError`].
    pub fn open_queues(options: &Options, queues: usize) -> Result<Vec<Self>, TapError> {
        let made = matches!(Netdev::find(&options.name), Err(NetdevError::Unknown { .. }));
        (0..queues).map(|_| Self::attach(options, true, made)).collect()
    }

    fn attach(options: &Options, several_queues: bool, made: bool) -> Result<Self, TapError> {
        let name = options.name.clone();
        let file = attach_patiently(&name, several_queues, options.patience).map_err(|source| {
            let source = if source.kind() == ErrorKind::InvalidInput { io::Error::from_raw_os_error(libc::EINVAL) } else { source };
            TapError::Attach { name: name.clone(), advice: advice(&source, several_queues), source }
        })?;
        if let Some(mtu_bytes) = options.mtu_bytes {
            Netdev::set_mtu(&name, mtu_bytes)?;
        }
        let device = Netdev::find(&name)?;
        if !device.up {
            Netdev::set_up(&name)?;
        }
        let mac = options.mac.unwrap_or_else(|| other_end(device.mac));
        if mac == device.mac {
            return Err(TapError::SameMac { name });
        }
        let frame_bytes = (device.mtu_bytes + LINK_HEADER_BYTES).next_multiple_of(FRAME_ALIGN);
        let capacity = options.tx_frames.max(1);
        Ok(Self {
            file,
            name,
            mac,
            mtu_bytes: device.mtu_bytes,
            pool: FramePool::new(Arena::new(capacity * frame_bytes)?, frame_bytes),
            open: None,
            queue: VecDeque::with_capacity(capacity),
            capacity,
            received: vec![0; frame_bytes].into_boxed_slice(),
            made,
            counters: PortCounters::default(),
            lost: false,
        })
    }

    /// The device has been removed: nothing arrives and nothing can be sent any more.
    pub fn lost(&self) -> bool {
        self.lost
    }

    /// What it is and how it works, for the log and the status.
    pub fn describe(&self) -> String {
        let made = if self.made { "made by this process" } else { "that was there" };
        format!("TAP device {} {made}: one system call for each frame, frames on {}", self.name, self.pool.backing())
    }

    /// Writes the oldest frame; true when it is done with.
    fn write(&mut self) -> bool {
        let Some((frame, len)) = self.queue.front() else { return false };
        let bytes = self.pool.bytes(frame).get(..*len).unwrap_or_default();
        self.counters.tx_calls += 1;
        match self.file.write(bytes) {
            Ok(_) => {
                self.counters.tx_frames += 1;
                self.counters.tx_bytes += bytes.len() as u64;
                self.counters.tx_completed += 1;
                true
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => false,
            Err(error) => {
                self.lost |= is_gone(&error);
                // A device that is down takes the frame and drops it (EIO).
                self.counters.tx_failed += 1;
                true
            }
        }
    }
}

/// The device was removed behind our descriptor.
fn is_gone(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EBADFD)
}

impl Port for TapPort {
    fn mac(&self) -> [u8; 6] {
        self.mac
    }

    fn mtu_bytes(&self) -> usize {
        self.mtu_bytes
    }

    fn frame_bytes(&self) -> usize {
        self.pool.frame_bytes()
    }

    fn receive(&mut self, _now_ns: u64, limit: usize, sink: &mut dyn FnMut(&[u8])) -> usize {
        for shown in 0..limit {
            match self.file.read(&mut self.received) {
                Ok(len) => {
                    let frame = self.received.get(..len).unwrap_or(&self.received);
                    self.counters.rx_frames += 1;
                    self.counters.rx_bytes += frame.len() as u64;
                    sink(frame);
                }
                Err(error) => {
                    self.lost |= is_gone(&error);
                    return shown;
                }
            }
        }
        limit
    }

    fn frame(&mut self) -> Option<&mut [u8]> {
        if self.open.is_none() && !self.lost && self.queue.len() < self.capacity {
            self.open = self.pool.take();
        }
        match &self.open {
            Some(frame) if !self.lost => Some(self.pool.bytes_mut(frame)),
            _ => {
                self.counters.tx_full += 1;
                None
            }
        }
    }

    fn commit(&mut self, len: usize) {
        if let Some(frame) = self.open.take() {
            self.queue.push_back((frame, len.min(self.pool.frame_bytes())));
        }
    }

    fn flush(&mut self, _now_ns: u64) -> usize {
        let mut done = 0;
        while self.write() {
            if let Some((frame, _)) = self.queue.pop_front() {
                self.pool.give(frame);
                done += 1;
            }
        }
        done
    }

    fn queued(&self) -> usize {
        self.queue.len()
    }

    fn capacity(&self) -> usize {
        self.capacity
    }

    fn wait(&mut self, timeout_ns: u64, wake: RawFd) {
        let events = if self.queue.is_empty() { libc::POLLIN } else { libc::POLLIN | libc::POLLOUT };
        wait_or_wake(self.file.as_raw_fd(), events, timeout_ns, wake);
    }

    fn counters(&self) -> PortCounters {
        self.counters
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ends_of_the_cable_differ_and_ours_is_local_and_no_group() {
        for device in [[0x02, 0, 0, 0, 0, 1], [0x00, 0x1b, 0x21, 3, 4, 5], [0xfe; 6], [0; 6]] {
            let ours = other_end(device);
            assert_ne!(ours, device);
            assert_eq!(ours[0] & 3, 2, "{ours:x?}");
        }
    }
}
