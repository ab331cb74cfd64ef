//! An interface as a port of raw frames (AF_PACKET), behind a safe face.
//!
//! Receiving is a ring that the kernel fills (packet_mmap, TPACKET_V2: version 3 hands over whole blocks, and up to a millisecond late);
//! each frame carries the time at which it came. Sending is `sendmmsg` past the queueing discipline, in batches.
//!
//! The kernel takes VLAN tags out of frames and tells them beside; they are put back in.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicU32, Ordering};

use libc::{c_int, c_void};
use serde::{Deserialize, Serialize};

/// Memory of a receive ring: at 1 Gbps the frames of some 50 ms.
const RING_BYTES: usize = 8 << 20;
const BLOCK_BYTES: usize = 64 << 10;
/// Where a frame begins behind its header: the header, aligned, with the address, and 16 bytes for a hardware header, aligned again.
const FRAME_ROOM_BYTES: usize = 128;
/// Frames that are sent with one call.
pub const SEND_BATCH: usize = 64;
/// Frames that were sent and that the other end's kernel has not taken yet.
const SEND_BUFFER_BYTES: c_int = 4 << 20;
/// Bytes of an Ethernet header up to where a VLAN tag goes, and of a tag.
const ADDRESSES_BYTES: usize = 12;
const VLAN_TAG_BYTES: usize = 4;
const ETHERTYPE_VLAN: u16 = 0x8100;

/// What a port counts. None of this was asked for: it is what the machine did to the link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PacketCounters {
    /// Frames that found the receive ring full.
    pub rx_ring_full: u64,
    /// Frames longer than the link's.
    pub rx_too_long: u64,
    /// Frames whose checksum the sender left to the hardware: its interface needs `ethtool -K IF tx off`.
    pub rx_unfinished_checksums: u64,
    /// Frames that the interface did not take.
    pub tx_failed: u64,
    /// System calls that sent.
    pub tx_calls: u64,
}

fn check(result: c_int) -> io::Result<c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn set<T>(fd: &OwnedFd, option: c_int, value: &T) -> io::Result<()> {
    set_at(fd, libc::SOL_PACKET, option, value)
}

fn set_at<T>(fd: &OwnedFd, level: c_int, option: c_int, value: &T) -> io::Result<()> {
    let size = size_of::<T>() as libc::socklen_t;
    // SAFETY: the value is valid for its size; all callers pass the plain C type that the option takes.
    check(unsafe { libc::setsockopt(fd.as_raw_fd(), level, option, std::ptr::from_ref(value).cast(), size) }).map(drop)
}

/// The memory that the kernel fills.
struct Ring {
    base: *mut u8,
    bytes: usize,
    frame_bytes: usize,
    frames: usize,
    next: usize,
}

// SAFETY: the mapping belongs to this value alone and is used through it only.
unsafe impl Send for Ring {}

impl Drop for Ring {
    fn drop(&mut self) {
        // SAFETY: this is the mapping that `new` made, and nothing borrows from it any more.
        unsafe { libc::munmap(self.base.cast(), self.bytes) };
    }
}

/// A frame in the ring.
struct Ringed<'a> {
    stamp_ns: u64,
    frame: &'a [u8],
    status: u32,
    /// Type and content of a tag that was taken out.
    vlan: Option<(u16, u16)>,
    cut: bool,
}

impl Ring {
    fn new(fd: &OwnedFd, mtu_bytes: usize) -> io::Result<Self> {
        let frame_bytes = (FRAME_ROOM_BYTES + 18 + mtu_bytes).next_power_of_two().min(BLOCK_BYTES);
        let request = libc::tpacket_req {
            tp_block_size: BLOCK_BYTES as u32,
            tp_block_nr: (RING_BYTES / BLOCK_BYTES) as u32,
            tp_frame_size: frame_bytes as u32,
            tp_frame_nr: (RING_BYTES / frame_bytes) as u32,
        };
        set(fd, libc::PACKET_VERSION, &(libc::tpacket_versions::TPACKET_V2 as c_int))?;
        set(fd, libc::PACKET_RX_RING, &request)?;
        let flags = libc::MAP_SHARED | libc::MAP_POPULATE;
        // SAFETY: a new mapping of the ring that was just made, at an address of the kernel's choice.
        let base = unsafe { libc::mmap(std::ptr::null_mut(), RING_BYTES, libc::PROT_READ | libc::PROT_WRITE, flags, fd.as_raw_fd(), 0) };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { base: base.cast(), bytes: RING_BYTES, frame_bytes, frames: RING_BYTES / frame_bytes, next: 0 })
    }

    fn slot(&self) -> *mut u8 {
        // SAFETY: `next` is below `frames`, and so many frames lie in the mapping. Frames fill blocks exactly, both being powers of two.
        unsafe { self.base.add(self.next * self.frame_bytes) }
    }

    fn status(&self) -> &AtomicU32 {
        // SAFETY: a frame begins with its status, aligned to 16 bytes; the kernel and we only access it whole.
        unsafe { AtomicU32::from_ptr(self.slot().cast()) }
    }

    /// The next frame that the kernel has filled.
    fn peek(&self) -> Option<Ringed<'_>> {
        let status = self.status().load(Ordering::Acquire);
        if status & libc::TP_STATUS_USER == 0 {
            return None;
        }
        // SAFETY: the kernel has handed this frame over, with its header; it writes to it no more until the status is given back. The header
        // is read field by field as plain old data.
        let header = unsafe { self.slot().cast::<libc::tpacket2_hdr>().read() };
        let (start, len) = (usize::from(header.tp_mac), header.tp_snaplen as usize);
        let len = if start + len <= self.frame_bytes { len } else { 0 };
        // SAFETY: within the frame, as was just checked, and ours until the status is given back, which takes `&mut self`.
        let frame = unsafe { std::slice::from_raw_parts(self.slot().add(start.min(self.frame_bytes)), len) };
        let stamp_ns = u64::from(header.tp_sec) * 1_000_000_000 + u64::from(header.tp_nsec);
        let vlan = (status & libc::TP_STATUS_VLAN_VALID != 0).then(|| {
            let kind = if status & libc::TP_STATUS_VLAN_TPID_VALID == 0 { ETHERTYPE_VLAN } else { header.tp_vlan_tpid };
            (kind, header.tp_vlan_tci)
        });
        Some(Ringed { stamp_ns, frame, status, vlan, cut: header.tp_len > header.tp_snaplen || len == 0 })
    }

    fn release(&mut self) {
        self.status().store(libc::TP_STATUS_KERNEL, Ordering::Release);
        self.next = (self.next + 1) % self.frames;
    }
}

/// Frames that wait to be sent with one call.
struct Batch {
    bytes: Box<[u8]>,
    frame_bytes: usize,
    parts: Box<[libc::iovec]>,
    messages: Box<[libc::mmsghdr]>,
    count: usize,
}

// SAFETY: the pointers lead into memory that the value itself owns.
unsafe impl Send for Batch {}

impl Batch {
    fn new(frame_bytes: usize) -> Self {
        let mut bytes = vec![0_u8; SEND_BATCH * frame_bytes].into_boxed_slice();
        let mut parts: Box<[libc::iovec]> =
            bytes.chunks_mut(frame_bytes).map(|frame| libc::iovec { iov_base: frame.as_mut_ptr().cast(), iov_len: 0 }).collect();
        let messages = parts
            .iter_mut()
            .map(|part| {
                // SAFETY: all-zero bytes are valid for this plain C struct.
                let mut message: libc::mmsghdr = unsafe { std::mem::zeroed() };
                message.msg_hdr.msg_iov = part;
                message.msg_hdr.msg_iovlen = 1;
                message
            })
            .collect();
        Self { bytes, frame_bytes, parts, messages, count: 0 }
    }

    fn push(&mut self, frame: &[u8]) -> bool {
        let at = self.count * self.frame_bytes;
        let Some(room) = self.bytes.get_mut(at..at + self.frame_bytes).and_then(|room| room.get_mut(..frame.len())) else { return false };
        room.copy_from_slice(frame);
        self.parts[self.count].iov_len = frame.len();
        self.count += 1;
        true
    }

    /// Sends those from `from` on; how many were taken.
    fn send(&mut self, fd: &OwnedFd, from: usize) -> io::Result<usize> {
        let messages = &mut self.messages[from..self.count];
        // SAFETY: each message points to one part, and that to as many bytes as it says, all owned by `self`.
        let sent = unsafe { libc::sendmmsg(fd.as_raw_fd(), messages.as_mut_ptr(), messages.len() as u32, libc::MSG_DONTWAIT) };
        check(sent).map(|sent| sent as usize)
    }
}

/// A port: one interface, all of its frames.
pub struct PacketPort {
    fd: OwnedFd,
    ring: Ring,
    batch: Batch,
    tagged: Box<[u8]>,
    counters: PacketCounters,
}

impl PacketPort {
    /// Opens an interface of the calling thread's network namespace; the port stays there when the thread goes elsewhere.
    ///
    /// # Errors
    /// There is none of that name, or this needs root.
    pub fn open(interface: &str, mtu_bytes: usize) -> io::Result<Self> {
        let name = std::ffi::CString::new(interface)?;
        // SAFETY: the name ends with a zero.
        let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
        if index == 0 {
            return Err(io::Error::last_os_error());
        }
        // Without a protocol nothing is received before the ring is ready.
        // SAFETY: no pointers are passed; the descriptor is owned by no one else.
        let fd = unsafe { OwnedFd::from_raw_fd(check(libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0))?) };
        set(&fd, libc::PACKET_IGNORE_OUTGOING, &1_i32)?;
        set(&fd, libc::PACKET_QDISC_BYPASS, &1_i32)?;
        // The default takes less than a batch of the longest frames.
        set_at(&fd, libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, &SEND_BUFFER_BYTES)?;
        let ring = Ring::new(&fd, mtu_bytes)?;
        let all = libc::packet_mreq { mr_ifindex: index as c_int, mr_type: libc::PACKET_MR_PROMISC as u16, mr_alen: 0, mr_address: [0; 8] };
        set(&fd, libc::PACKET_ADD_MEMBERSHIP, &all)?;
        // SAFETY: all-zero bytes are valid for this plain C struct.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
        address.sll_ifindex = index as c_int;
        // SAFETY: the address is valid for its size.
        check(unsafe { libc::bind(fd.as_raw_fd(), (&raw const address).cast(), size_of::<libc::sockaddr_ll>() as u32) })?;
        let frame_bytes = mtu_bytes + 18;
        Ok(Self {
            fd,
            ring,
            batch: Batch::new(frame_bytes),
            tagged: vec![0; frame_bytes].into_boxed_slice(),
            counters: PacketCounters::default(),
        })
    }

    /// Shows up to `limit` frames with the time at which each came (`CLOCK_REALTIME`, ns). Returns how many there were.
    pub fn receive(&mut self, limit: usize, sink: &mut dyn FnMut(u64, &[u8])) -> usize {
        let mut shown = 0;
        while shown < limit {
            let Some(ringed) = self.ring.peek() else { break };
            self.counters.rx_unfinished_checksums += u64::from(ringed.status & libc::TP_STATUS_CSUMNOTREADY != 0);
            match (ringed.cut, ringed.vlan) {
                (true, _) => self.counters.rx_too_long += 1,
                (false, None) => sink(ringed.stamp_ns, ringed.frame),
                (false, Some(tag)) => match with_tag(&mut self.tagged, ringed.frame, tag) {
                    Some(frame) => sink(ringed.stamp_ns, frame),
                    None => self.counters.rx_too_long += 1,
                },
            }
            self.ring.release();
            shown += 1;
        }
        shown
    }

    /// Queues a frame, and sends all that are queued when there are enough.
    pub fn send(&mut self, frame: &[u8]) {
        if !self.batch.push(frame) {
            self.counters.tx_failed += 1;
        }
        if self.batch.count == SEND_BATCH {
            self.flush();
        }
    }

    /// Sends what is queued. A frame that the interface does not take is lost and counted.
    pub fn flush(&mut self) {
        let mut sent = 0;
        while sent < self.batch.count {
            self.counters.tx_calls += 1;
            match self.batch.send(&self.fd, sent) {
                Ok(count) => sent += count.max(1),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => {
                    self.counters.tx_failed += 1;
                    sent += 1;
                }
            }
        }
        self.batch.count = 0;
    }

    /// Counters since start.
    pub fn counters(&mut self) -> PacketCounters {
        let mut stats = libc::tpacket_stats { tp_packets: 0, tp_drops: 0 };
        let mut size = size_of::<libc::tpacket_stats>() as libc::socklen_t;
        let fd = self.fd.as_raw_fd();
        // SAFETY: the counters are valid for their size. Reading them sets the kernel's back to zero.
        if unsafe { libc::getsockopt(fd, libc::SOL_PACKET, libc::PACKET_STATISTICS, (&raw mut stats).cast::<c_void>(), &mut size) } == 0 {
            self.counters.rx_ring_full += u64::from(stats.tp_drops);
        }
        self.counters
    }

    /// Takes note of a pending error, such as that the interface went down; it would otherwise end every wait at once.
    pub fn clear_error(&self) {
        // The error itself is of no use: sending shows it again.
        let _ = socket2::SockRef::from(&self.fd).take_error();
    }
}

impl AsRawFd for PacketPort {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

/// The frame with a VLAN tag behind its addresses; `None` when it gets too long.
fn with_tag<'a>(room: &'a mut [u8], frame: &[u8], (kind, content): (u16, u16)) -> Option<&'a [u8]> {
    let (addresses, rest) = frame.split_at_checked(ADDRESSES_BYTES)?;
    let room = room.get_mut(..frame.len() + VLAN_TAG_BYTES)?;
    room[..ADDRESSES_BYTES].copy_from_slice(addresses);
    room[ADDRESSES_BYTES..14].copy_from_slice(&kind.to_be_bytes());
    room[14..16].copy_from_slice(&content.to_be_bytes());
    room[16..].copy_from_slice(rest);
    Some(room)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_goes_behind_the_addresses() {
        let mut room = [0; 20];
        let frame: Vec<u8> = (0..16).collect();
        let tagged = with_tag(&mut room, &frame, (ETHERTYPE_VLAN, 0x2005)).unwrap();
        assert_eq!(tagged, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 0x81, 0, 0x20, 5, 12, 13, 14, 15]);
        assert!(with_tag(&mut room, &[0; 17], (0, 0)).is_none());
        assert!(with_tag(&mut room, &[0; 11], (0, 0)).is_none());
    }
}
