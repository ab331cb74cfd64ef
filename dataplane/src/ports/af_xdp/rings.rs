//! The four rings of an AF_XDP socket and its frames (UMEM), behind a safe face.
//!
//! `xsk-rs` is unsafe where a frame could be in two places at once. Here each frame is in exactly one:
//!
//! ```text
//! transmit:  free ─ take ─► open ─ commit ─► committed ─ submit ─► TX ring, device ─► completion ring ─ reap ─► free
//! receive:   fill ring ─► device ─► RX ring ─ show ─► fill ring
//! ```
//!
//! Transmit frames are never received into and the other way round, so that neither direction can starve the other. Frames move as
//! descriptors of 32 bytes, in batches; nothing is allocated after the start.

use std::io;
use std::num::NonZeroU32;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use xsk_rs::config::{BindFlags, FrameSize, Interface, LibxdpFlags, QueueSize, SocketConfig, UmemConfig};
use xsk_rs::socket::XdpStatistics;
use xsk_rs::umem::frame::FrameDesc;
use xsk_rs::{CompQueue, FillQueue, RxQueue, Socket, TxQueue, Umem};

/// Frames taken from the receive ring at once.
const RX_BATCH: usize = 64;
/// What a kick makes the kernel send in copy mode (`TX_BATCH_SIZE` in net/xdp/xsk.c).
const KICK_FRAMES: usize = 32;
/// Ethernet frames are at least this long without their check sequence (IEEE 802.3 4A.4.2); not every driver pads in zero-copy mode.
const FRAME_BYTES_MIN: usize = 60;
/// Frames begin this far inside a chunk (`XDP_PACKET_HEADROOM`).
pub(super) const HEADROOM_BYTES: usize = 256;
const HUGE_PAGE_BYTES: usize = 2 << 20;

/// Sizes of an endpoint.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    /// Bytes of a chunk: 2048 or 4096.
    pub(super) chunk_bytes: usize,
    pub(super) rx_frames: u32,
    pub(super) tx_frames: u32,
}

/// Why the rings could not be set up.
#[derive(Debug)]
pub(super) enum RingsError {
    /// The memory for frames was refused.
    Umem(io::Error),
    /// The socket was refused, or not bound to the queue.
    Bind(io::Error),
}

/// An AF_XDP socket with its own memory.
pub(super) struct Rings {
    umem: Umem,
    tx: TxQueue,
    rx: RxQueue,
    fill: FillQueue,
    completed: CompQueue,
    received: Box<[FrameDesc]>,
    /// The first `free_count` are frames that nobody uses.
    free: Box<[FrameDesc]>,
    free_count: usize,
    open: Option<FrameDesc>,
    /// The first `committed_count` wait for the next flush.
    committed: Box<[FrameDesc]>,
    committed_count: usize,
    /// Submitted and not completed.
    under_way: usize,
    tx_ring_len: usize,
    frame_bytes: usize,
    umem_bytes: usize,
    huge: bool,
}

/// What became of submitted frames.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sent {
    pub(super) submitted: usize,
    pub(super) calls: usize,
    pub(super) completed: usize,
    /// The interface is gone: nothing will be completed any more.
    pub(super) lost: bool,
}

fn os_error(error: &dyn std::error::Error) -> io::Error {
    let code = error.source().and_then(|source| source.downcast_ref::<io::Error>()).and_then(io::Error::raw_os_error);
    code.map_or_else(|| io::Error::other(error.to_string()), io::Error::from_raw_os_error)
}

fn invalid(error: impl std::fmt::Display) -> RingsError {
    RingsError::Umem(io::Error::new(io::ErrorKind::InvalidInput, error.to_string()))
}

fn ring_size(frames: u32) -> Result<QueueSize, RingsError> {
    QueueSize::new(frames.max(1).next_power_of_two()).map_err(invalid)
}

impl Rings {
    /// Maps and registers frames and binds a socket to a queue, in zero-copy or in copy mode.
    pub(super) fn new(interface: &str, queue: u32, shape: Shape, zero_copy: bool) -> Result<Self, RingsError> {
        let (tx_ring, rx_ring) = (ring_size(shape.tx_frames)?, ring_size(shape.rx_frames)?);
        let chunk = FrameSize::new(shape.chunk_bytes as u32).map_err(invalid)?;
        let mut umem_config = UmemConfig::builder();
        umem_config.frame_size(chunk).fill_queue_size(rx_ring).comp_queue_size(tx_ring);
        let umem_config = umem_config.build().map_err(invalid)?;
        let (umem, frames, huge) = umem(umem_config, shape)?;

        let mode = if zero_copy { BindFlags::XDP_ZEROCOPY } else { BindFlags::XDP_COPY };
        let mut socket_config = SocketConfig::builder();
        socket_config.rx_queue_size(rx_ring).tx_queue_size(tx_ring).bind_flags(mode | BindFlags::XDP_USE_NEED_WAKEUP);
        socket_config.libxdp_flags(LibxdpFlags::XSK_LIBXDP_FLAGS_INHIBIT_PROG_LOAD);
        let interface: Interface = interface.parse().map_err(invalid)?;
        // SAFETY: the UMEM is used for this socket alone, and no program of the library is loaded.
        let (tx, rx, rest) =
            unsafe { Socket::new(socket_config.build(), &umem, &interface, queue) }.map_err(|error| RingsError::Bind(os_error(&error)))?;
        let (mut fill, completed) = rest.ok_or_else(|| RingsError::Bind(io::Error::other("no fill ring for a new UMEM")))?;

        let (tx_frames, rx_frames) = (shape.tx_frames as usize, shape.rx_frames as usize);
        let (free, others) = frames.split_at_checked(tx_frames).ok_or_else(|| invalid("too few frames"))?;
        let filling = others.get(..rx_frames).ok_or_else(|| invalid("too few frames"))?;
        // SAFETY: these frames are of this UMEM, and only the device has them from now on.
        unsafe { fill.produce(filling) };
        Ok(Self {
            frame_bytes: umem_config.mtu() as usize,
            umem,
            tx,
            rx,
            fill,
            completed,
            received: vec![FrameDesc::default(); RX_BATCH].into_boxed_slice(),
            free: free.into(),
            free_count: tx_frames,
            open: None,
            committed: vec![FrameDesc::default(); tx_frames].into_boxed_slice(),
            committed_count: 0,
            under_way: 0,
            tx_ring_len: tx_ring.get() as usize,
            umem_bytes: frames.len() * shape.chunk_bytes,
            huge,
        })
    }

    pub(super) fn frame_bytes(&self) -> usize {
        self.frame_bytes
    }

    /// Frames lie on huge pages.
    pub(super) fn huge(&self) -> bool {
        self.huge
    }

    pub(super) fn tx_frames(&self) -> usize {
        self.free.len()
    }

    /// Committed and not completed.
    pub(super) fn queued(&self) -> usize {
        self.committed_count + self.under_way
    }

    /// Submitted frames that the kernel has not looked at.
    pub(super) fn unsent(&mut self) -> usize {
        self.tx_ring_len.saturating_sub(self.tx.nb_free_exact() as usize)
    }

    /// The open transmit frame, or the next free one.
    pub(super) fn take(&mut self) -> Option<&mut [u8]> {
        let desc = match self.open.as_mut() {
            Some(desc) => desc,
            None => {
                let last = self.free_count.checked_sub(1)?;
                let desc = *self.free.get(last)?;
                self.free_count = last;
                self.open.insert(desc)
            }
        };
        // SAFETY: `desc` is a frame of this UMEM that was free and is now only in `open`: the device does not have it.
        let mut data = unsafe { self.umem.data_mut(desc) };
        data.cursor().set_pos(self.frame_bytes);
        let bytes = data.contents_mut();
        let (start, len) = (bytes.as_mut_ptr(), bytes.len());
        // SAFETY: the bytes lie in the mapping, which `self` keeps, and the borrow of `self` keeps others away from them. (The library
        // ties them to its own short-lived view.)
        Some(unsafe { std::slice::from_raw_parts_mut(start, len) })
    }

    /// Queues the open frame for the next submission; answers the length that it will have, 0 without an open frame.
    pub(super) fn commit(&mut self, len: usize) -> usize {
        let Some(mut desc) = self.open.take() else { return 0 };
        let len = len.min(self.frame_bytes);
        let padded = len.max(FRAME_BYTES_MIN);
        // SAFETY: as in `take`.
        let mut data = unsafe { self.umem.data_mut(&mut desc) };
        data.cursor().set_pos(padded);
        if let Some(padding) = data.contents_mut().get_mut(len..) {
            padding.fill(0);
        }
        if let Some(slot) = self.committed.get_mut(self.committed_count) {
            *slot = desc;
            self.committed_count += 1;
        }
        padded
    }

    /// Submits what is committed, makes the kernel send, and takes back what is sent.
    pub(super) fn send(&mut self) -> Sent {
        let mut sent = Sent::default();
        if let Some(committed @ [_, ..]) = self.committed.get(..self.committed_count) {
            // SAFETY: these frames are of this UMEM and were only in `committed`; they leave it below if the ring takes them.
            sent.submitted = unsafe { self.tx.produce(committed) };
            // The ring has room for all frames that there are, so it takes all or, being broken, none.
            self.committed_count -= sent.submitted;
            self.under_way += sent.submitted;
        }
        if self.under_way > 0 {
            self.kick(&mut sent);
            sent.completed = self.reap();
        }
        sent
    }

    /// In copy mode the kernel sends in the sender's system call, some 32 frames each; otherwise it is told when it asks for it.
    fn kick(&mut self, sent: &mut Sent) {
        let mut waiting = self.unsent();
        for _ in 0..waiting.div_ceil(KICK_FRAMES) {
            if waiting == 0 || !self.tx.needs_wakeup() {
                return;
            }
            sent.calls += 1;
            // A full device or an interface that is down for a moment are no errors here: the frames stay in the ring.
            if self.tx.wakeup().is_err() {
                sent.lost = true;
                return;
            }
            let left = self.unsent();
            if left >= waiting {
                return;
            }
            waiting = left;
        }
    }

    fn reap(&mut self) -> usize {
        let Some(room) = self.free.get_mut(self.free_count..) else { return 0 };
        // SAFETY: what the ring gives are frames of this UMEM, and the kernel has finished with them.
        let completed = unsafe { self.completed.consume(room) };
        self.free_count += completed;
        self.under_way = self.under_way.saturating_sub(completed);
        completed
    }

    /// Shows up to `limit` received frames and gives them back to the device at once.
    pub(super) fn show(&mut self, limit: usize, sink: &mut dyn FnMut(&[u8])) -> usize {
        let mut shown = 0;
        while shown < limit {
            let batch = self.received.len().min(limit - shown);
            let Some(room) = self.received.get_mut(..batch) else { break };
            // SAFETY: what the ring gives are frames of this UMEM, which the kernel has filled.
            let count = unsafe { self.rx.consume(room) };
            let Some(descs) = self.received.get(..count).filter(|_| count > 0) else { break };
            for desc in descs {
                if desc.addr().saturating_add(desc.lengths().data()) <= self.umem_bytes {
                    // SAFETY: the bytes are inside the mapping (checked above) and ours until the frame goes into the fill ring below.
                    sink(unsafe { self.umem.data(desc) }.contents());
                }
            }
            // SAFETY: nobody looks at these frames any more. The ring has room for all receive frames.
            unsafe { self.fill.produce(descs) };
            shown += count;
            if count < batch {
                break;
            }
        }
        if shown > 0 && self.fill.needs_wakeup() {
            // Only zero-copy drivers ask for it. If it fails, the next time will do.
            let _ = self.fill.wakeup(self.rx.fd_mut(), 0);
        }
        shown
    }

    pub(super) fn statistics(&self) -> XdpStatistics {
        self.rx.fd().xdp_statistics().unwrap_or_default()
    }

    pub(super) fn as_raw(&self) -> RawFd {
        self.rx.fd().as_raw_fd()
    }
}

impl AsFd for Rings {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the descriptor is open as long as the queues, which `self` keeps.
        unsafe { BorrowedFd::borrow_raw(self.as_raw()) }
    }
}

/// Maps and registers frames, on huge pages if there are enough, and touches them all (the library maps with MAP_POPULATE).
fn umem(config: UmemConfig, shape: Shape) -> Result<(Umem, Vec<FrameDesc>, bool), RingsError> {
    let frames = shape.rx_frames as usize + shape.tx_frames as usize;
    // Whole huge pages: a mapping of part of one could not be unmapped.
    let whole = (frames * shape.chunk_bytes).next_multiple_of(HUGE_PAGE_BYTES) / shape.chunk_bytes;
    let count = |frames: usize| u32::try_from(frames).ok().and_then(NonZeroU32::new).ok_or_else(|| invalid("no frames, or too many"));
    if let Ok((umem, frames)) = Umem::new(config, count(whole)?, true) {
        return Ok((umem, frames, true));
    }
    let (umem, frames) = Umem::new(config, count(frames)?, false).map_err(|error| RingsError::Umem(os_error(&error)))?;
    Ok((umem, frames, false))
}
