//! A ring of reads and writes in flight. All that is unsafe about io_uring lives here, behind one rule: from its start to its completion
//! a read is owned by the ring, with its chunk and its open file, so the kernel never writes to memory that anyone else can reach. A write
//! is owned with a share of its slice, so nobody can change what the kernel reads.

use std::io;
use std::time::{Duration, Instant};

use hugepages::ChunkPool;
use io_uring::{IoUring, opcode, squeue, types};

use super::super::{MediaFile, READ_ALIGN_BYTES, ReadRequest, WriteRequest};

/// The kernel takes at most this many registered buffers (IORING_MAX_REG_BUFFERS).
const FIXED_BUFFERS_MAX: usize = 1 << 14;
/// With so many bytes queued, [`Ring::enter`] is due. The kernel holds back what comes in one call until it has seen all of it (it plugs
/// the queue from three entries on), and meanwhile the device has nothing to do: at 256 KiB and 32 reads under way one call for each
/// read brings 1.2 times the bytes of one call for all. Small reads are still handed over several at a time.
const HAND_OVER_BYTES: usize = 256 << 10;
/// How long a ring that is dropped waits for what is in flight.
const DROP_WAIT: Duration = Duration::from_secs(3);

/// A read on its way, possibly in several pieces.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) request: ReadRequest<MediaFile>,
    /// Bytes that are there already; the next piece goes behind them.
    pub(super) filled: usize,
    /// Bytes wanted in all; at most the chunk's size.
    pub(super) wanted: usize,
    /// The piece on its way bypasses the page cache.
    pub(super) direct: bool,
    /// Pieces that the kernel gave back undone.
    pub(super) retries: u8,
}

impl Read {
    /// Where in the file the next piece starts.
    pub(super) fn position(&self) -> u64 {
        self.request.offset.saturating_add(self.filled as u64)
    }

    /// True when nothing about the next piece forbids O_DIRECT.
    pub(super) fn is_aligned(&self) -> bool {
        let align = READ_ALIGN_BYTES as usize;
        self.position().is_multiple_of(READ_ALIGN_BYTES)
            && self.filled.is_multiple_of(align)
            && self.wanted.is_multiple_of(align)
            && self.request.chunk.as_ptr().addr().is_multiple_of(align)
    }
}

/// A write on its way, possibly in several pieces.
#[derive(Debug)]
pub(super) struct Write {
    pub(super) request: WriteRequest<MediaFile>,
    /// Bytes that are written already.
    pub(super) written: usize,
    /// The piece on its way bypasses the page cache.
    pub(super) direct: bool,
    /// Pieces that the kernel gave back undone.
    pub(super) retries: u8,
}

impl Write {
    /// Where in the file the next piece starts.
    fn position(&self) -> u64 {
        self.request.offset.saturating_add(self.written as u64)
    }

    /// The next piece, and whether nothing about it forbids O_DIRECT: whole pages first, then what is left of the last one.
    fn piece(&self) -> (&[u8], bool) {
        let align = READ_ALIGN_BYTES as usize;
        let rest = self.request.slice.get(self.written..).unwrap_or(&[]);
        let whole = rest.len() - rest.len() % align;
        let is_aligned = self.position().is_multiple_of(READ_ALIGN_BYTES) && rest.as_ptr().addr().is_multiple_of(align) && whole > 0;
        if is_aligned { (rest.get(..whole).unwrap_or(rest), true) } else { (rest, false) }
    }
}

/// What the kernel works on.
#[derive(Debug)]
pub(super) enum Operation {
    Read(Read),
    Write(Write),
}

/// The chunk pool's memory as registered buffers, cut at chunk boundaries.
#[derive(Debug)]
struct FixedBuffers {
    chunks_per_buffer: usize,
    /// Keeps the registered addresses from being given to other memory.
    pool: ChunkPool,
}

impl FixedBuffers {
    /// The buffer that these bytes, all of one chunk, lie in; `None` for memory of another pool.
    fn buffer_of(&self, bytes: &[u8]) -> Option<u16> {
        let offset = bytes.as_ptr().addr().checked_sub(self.pool.region().0.addr().get())?;
        let chunk = offset / self.pool.chunk_bytes();
        let is_inside = chunk < self.pool.capacity() && offset % self.pool.chunk_bytes() + bytes.len() <= self.pool.chunk_bytes();
        is_inside.then(|| u16::try_from(chunk / self.chunks_per_buffer).ok()).flatten()
    }
}

/// A ring for at most `depth` reads and writes.
pub(super) struct Ring {
    io: IoUring,
    /// What the kernel works on; its `user_data` is its place here.
    in_flight: Box<[Option<Operation>]>,
    free: Vec<u16>,
    /// Bytes of what waits for [`Self::enter`].
    queued_bytes: usize,
    fixed: Option<FixedBuffers>,
    drop_wait: Duration,
}

impl Ring {
    /// Opens a ring.
    ///
    /// # Errors
    /// The kernel's: EPERM (forbidden), ENOSYS (not there), ENOMEM (RLIMIT_MEMLOCK).
    pub(super) fn new(depth: u16) -> io::Result<Self> {
        let depth = depth.clamp(1, 4096);
        // Kernels before 5.18 do not know the flag with which one bad entry does not hold up the others behind it.
        let io = IoUring::builder().setup_submit_all().build(depth.into()).or_else(|_| IoUring::builder().build(depth.into()))?;
        Ok(Self {
            io,
            in_flight: (0..depth).map(|_| None).collect(),
            free: (0..depth).rev().collect(),
            queued_bytes: 0,
            fixed: None,
            drop_wait: DROP_WAIT,
        })
    }

    /// Registers the memory of `pool`, in buffers of at most `buffer_bytes_max`, so that the kernel need not look up its pages at each
    /// read.
    ///
    /// # Errors
    /// The kernel's: ENOMEM when RLIMIT_MEMLOCK is too low. The ring works without.
    pub(super) fn register(&mut self, pool: &ChunkPool, buffer_bytes_max: usize) -> io::Result<()> {
        let chunks_per_buffer = buffer_bytes_max / pool.chunk_bytes();
        let (base, _) = pool.region();
        if chunks_per_buffer == 0 || pool.capacity().div_ceil(chunks_per_buffer) > FIXED_BUFFERS_MAX {
            return Err(io::Error::from_raw_os_error(libc::EFBIG));
        }
        let buffers: Vec<libc::iovec> = (0..pool.capacity())
            .step_by(chunks_per_buffer)
            .map(|first| {
                let chunks = chunks_per_buffer.min(pool.capacity() - first);
                let start = base.as_ptr().wrapping_add(first * pool.chunk_bytes());
                libc::iovec { iov_base: start.cast(), iov_len: chunks * pool.chunk_bytes() }
            })
            .collect();
        // SAFETY: the buffers lie in the pool's region, which `self.fixed` keeps mapped longer than the ring lives (it is declared after
        // `io`, so dropped after it). The kernel writes to a part of them only while a read of that part is in flight.
        unsafe { self.io.submitter().register_buffers(&buffers) }?;
        self.fixed = Some(FixedBuffers { chunks_per_buffer, pool: pool.clone() });
        Ok(())
    }

    /// Room for more.
    pub(super) fn has_room(&self) -> bool {
        !self.free.is_empty()
    }

    /// What is in flight, or waits for [`Self::enter`].
    pub(super) fn len(&self) -> usize {
        self.in_flight.len() - self.free.len()
    }

    /// True when the memory is registered.
    pub(super) fn is_fixed(&self) -> bool {
        self.fixed.is_some()
    }

    /// True when something waits for [`Self::enter`].
    pub(super) fn needs_enter(&mut self) -> bool {
        !self.io.submission().is_empty()
    }

    /// True when enough waits for [`Self::enter`] that the device should get it before more is queued.
    pub(super) fn is_enter_due(&self) -> bool {
        self.queued_bytes >= HAND_OVER_BYTES
    }

    /// Queues the next piece of `read`. When there is no room it comes back.
    pub(super) fn start(&mut self, mut read: Read) -> Result<(), Read> {
        let Some(&slot) = self.free.last() else { return Err(read) };
        let file = &read.request.file;
        let (fd, flags) = match file.direct_fd() {
            Some(fd) if read.is_aligned() => (fd, squeue::Flags::empty()),
            // Through the page cache there is a copy to make: by a kernel worker, not by this core.
            _ => (file.buffered_fd(), squeue::Flags::ASYNC),
        };
        read.direct = flags.is_empty();
        let offset = read.position();
        let wanted = read.wanted.min(read.request.chunk.len());
        let Some(rest) = read.request.chunk.get_mut(read.filled..wanted) else { return Err(read) };
        let rest_bytes = rest.len();
        let buffer = self.fixed.as_ref().and_then(|fixed| fixed.buffer_of(rest));
        let len = u32::try_from(rest.len()).unwrap_or(u32::MAX);
        let fd = types::Fd(fd);
        let entry = match buffer {
            Some(buffer) => opcode::ReadFixed::new(fd, rest.as_mut_ptr(), len, buffer).offset(offset).build(),
            None => opcode::Read::new(fd, rest.as_mut_ptr(), len).offset(offset).build(),
        };
        let entry = entry.flags(flags).user_data(slot.into());
        // SAFETY: the entry's memory is `rest` of the chunk, and its descriptor is the file's; both are owned by `read`, which stays in
        // `in_flight` untouched until the kernel has completed the entry (and is leaked if that does not come, see `drop`).
        if unsafe { self.io.submission().push(&entry) }.is_err() {
            return Err(read);
        }
        self.queued_bytes = self.queued_bytes.saturating_add(rest_bytes);
        self.free.pop();
        self.in_flight[usize::from(slot)] = Some(Operation::Read(read));
        Ok(())
    }

    /// Queues the next piece of `write`. When there is no room it comes back.
    pub(super) fn start_write(&mut self, mut write: Write) -> Result<(), Write> {
        let Some(&slot) = self.free.last() else { return Err(write) };
        let (piece, is_aligned) = write.piece();
        let file = &write.request.file;
        let (fd, flags) = match file.direct_fd() {
            Some(fd) if is_aligned => (fd, squeue::Flags::empty()),
            // The copy into the page cache is made by a kernel worker, not by this core.
            _ => (file.buffered_fd(), squeue::Flags::ASYNC),
        };
        let len = u32::try_from(piece.len()).unwrap_or(u32::MAX);
        let fd = types::Fd(fd);
        let entry = match self.fixed.as_ref().and_then(|fixed| fixed.buffer_of(piece)) {
            Some(buffer) => opcode::WriteFixed::new(fd, piece.as_ptr(), len, buffer).offset(write.position()).build(),
            None => opcode::Write::new(fd, piece.as_ptr(), len).offset(write.position()).build(),
        };
        let entry = entry.flags(flags).user_data(slot.into());
        // SAFETY: the entry's memory is a part of the slice, which nobody writes while a share of it exists, and its descriptor is the
        // file's; both are owned by `write`, which stays in `in_flight` until the kernel has completed the entry (see `drop`).
        if unsafe { self.io.submission().push(&entry) }.is_err() {
            return Err(write);
        }
        self.queued_bytes = self.queued_bytes.saturating_add(piece.len());
        write.direct = flags.is_empty();
        self.free.pop();
        self.in_flight[usize::from(slot)] = Some(Operation::Write(write));
        Ok(())
    }

    /// Hands all that is queued to the kernel in one call. When the kernel is short of something they stay queued, for the next call.
    pub(super) fn enter(&mut self) {
        self.queued_bytes = 0;
        for _ in 0..8 {
            match self.io.submit() {
                Err(e) if e.raw_os_error() == Some(libc::EINTR) => {}
                _ => return,
            }
        }
    }

    /// Takes out one completed piece, with what the kernel says: bytes, or a negative error number. No system call.
    pub(super) fn complete(&mut self) -> Option<(Operation, i32)> {
        loop {
            let entry = self.io.completion().next()?;
            let slot = u16::try_from(entry.user_data()).ok()?;
            // Each entry completes once, so the slot is occupied.
            if let Some(operation) = self.in_flight.get_mut(usize::from(slot)).and_then(Option::take) {
                self.free.push(slot);
                return Some((operation, entry.result()));
            }
        }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        let deadline = Instant::now() + self.drop_wait;
        self.enter();
        while self.len() > 0 {
            if self.complete().is_some() {
                continue;
            }
            if Instant::now() >= deadline {
                break;
            }
            std::thread::sleep(Duration::from_micros(200));
            if self.needs_enter() {
                self.enter();
            }
        }
        for operation in &mut self.in_flight {
            // A device that hangs may write to memory, or read from it, at any later time. Its chunks (and with them the arena) are never
            // given back: memory lost once is better than memory that changes under its next user.
            std::mem::forget(operation.take());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hugepages::Arena;

    #[test]
    fn every_chunk_belongs_to_the_registered_buffer_that_it_lies_in() {
        let pool = ChunkPool::new(Arena::new(22 * 8192).unwrap(), 8192);
        let other = ChunkPool::new(Arena::new(22 * 8192).unwrap(), 8192);
        let Ok(mut ring) = Ring::new(4) else {
            eprintln!("skipped: io_uring is forbidden here");
            return;
        };
        assert!(ring.register(&pool, 8191).is_err(), "a chunk does not fit into a buffer");
        // Three chunks in each buffer, with less in the last.
        ring.register(&pool, 3 * 8192 + 100).unwrap();
        let fixed = ring.fixed.as_ref().unwrap();
        while let Some(chunk) = pool.take() {
            let expected = Some((chunk.index() / 3) as u16);
            for part in [&chunk[..], &chunk[8191..], &chunk[..0], &chunk[100..4196]] {
                assert_eq!(fixed.buffer_of(part), expected);
            }
            std::mem::forget(chunk);
        }
        assert_eq!(fixed.buffer_of(&other.take().unwrap()), None);
        assert_eq!(fixed.buffer_of(b"elsewhere"), None);
    }
    #[test]
    fn memory_of_a_read_that_never_ends_is_not_given_back() {
        let pool = ChunkPool::new(Arena::new(2 * 8192).unwrap(), 8192);
        let Ok(mut ring) = Ring::new(2) else { return };
        ring.drop_wait = Duration::from_millis(50);
        // Nobody writes to the pipe as long as `writer` lives.
        let (reader, writer) = io::pipe().unwrap();
        let file = MediaFile::of_pipe(std::os::fd::OwnedFd::from(reader).into());
        let request = ReadRequest { tag: 0, file, offset: 0, len: 8192, chunk: pool.take().unwrap() };
        ring.start(Read { request, filled: 0, wanted: 8192, direct: false, retries: 0 }).unwrap();
        ring.enter();
        drop(ring);
        drop(writer);
        assert_eq!(pool.free(), pool.capacity() - 1);
    }
}
