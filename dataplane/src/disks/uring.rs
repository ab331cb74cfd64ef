//! Reads and writes through io_uring: O_DIRECT into and from registered buffers, one system call per 256 KiB of a batch, none to collect
//! completions.
//!
//! ```text
//! submit: batch ─► entries in the ring ─► io_uring_enter          reap: completion ring ─► done, or the rest of a short read again
//! ```
//!
//! Measured beforehand, and the reason for the defaults: depth 32 beats 128, a kernel polling thread (SQPOLL) hurts on few cores, and
//! completion polling (IOPOLL) opens on common file systems and then fails. So none of them is used.
//!
//! Reads and writes share the ring, of which writes get at most half. Whole pages are written past the page cache; what a file has behind
//! its last whole page goes through it, exactly as long as it is, so nothing needs to be padded and cut off again.

mod ring;

use std::collections::VecDeque;
use std::io;

use hugepages::ChunkPool;

use super::{Disk, DiskCounters, DiskError, MediaFile, ReadDone, ReadRequest, WriteDone, WriteRequest};
use ring::{Operation, Read, Ring, Write};

/// Reads in flight, unless the configuration says otherwise.
pub const DEFAULT_DEPTH: u16 = 32;
/// The kernel takes at most 1 GiB as one registered buffer (io_uring_register(2), EFAULT).
const FIXED_BUFFER_BYTES_MAX: usize = 1 << 30;
/// How often a piece that the kernel gives back undone is tried again (EINTR, EAGAIN; ECANCELED when the thread that submitted it ended).
const RETRIES_MAX: u8 = 100;

/// A disk read and written through io_uring.
pub struct UringDisk {
    ring: Ring,
    depth: usize,
    /// Reads that came to their end and were not reaped: refused before they reached the kernel, or seen while writes were reaped.
    read: VecDeque<ReadDone>,
    /// The same of writes.
    written: VecDeque<WriteDone>,
    /// Writes in the ring.
    writing: usize,
    description: String,
    counters: DiskCounters,
}

impl UringDisk {
    /// A disk for chunks of `pool` with at most `depth` reads and writes in flight. Chunks of other pools may be read into, too, a little slower.
    ///
    /// # Errors
    /// The kernel's: EPERM where io_uring is forbidden (`kernel.io_uring_disabled`, a container's system call filter), ENOSYS where
    /// there is none, ENOMEM where RLIMIT_MEMLOCK is too low.
    pub fn new(pool: &ChunkPool, depth: u16) -> io::Result<Self> {
        let mut ring = Ring::new(depth)?;
        let buffers = match ring.register(pool, FIXED_BUFFER_BYTES_MAX) {
            Ok(()) => format!("fixed buffers on {}", pool.backing()),
            Err(e) => format!("buffers on {} not registered ({e}; raise RLIMIT_MEMLOCK)", pool.backing()),
        };
        let description = format!("io_uring, O_DIRECT for files that take it, depth {depth}, {buffers}");
        let depth = usize::from(depth.max(1));
        Ok(Self {
            ring,
            depth,
            read: VecDeque::with_capacity(depth),
            written: VecDeque::with_capacity(depth),
            writing: 0,
            description,
            counters: DiskCounters::default(),
        })
    }

    /// True when the pool's memory is registered with the kernel.
    pub fn has_fixed_buffers(&self) -> bool {
        self.ring.is_fixed()
    }

    /// Starts counting anew, after a trial read.
    pub(super) fn forget_counters(&mut self) {
        self.counters = DiskCounters::default();
    }

    /// What becomes of a piece that the kernel has completed: the read's end, or `None` when another piece is on its way.
    fn finish(&mut self, mut read: Read, result: i32) -> Option<ReadDone> {
        let result = match usize::try_from(result) {
            Ok(bytes) => {
                read.filled += bytes;
                let at_end = bytes == 0 || read.position() >= read.request.file.size();
                if read.filled >= read.wanted || at_end {
                    return Some(self.done(read, None));
                }
                read.retries = 0;
                return self.again(read);
            }
            Err(_) => -result,
        };
        match result {
            libc::EINTR | libc::EAGAIN | libc::ECANCELED if read.retries < RETRIES_MAX => {
                read.retries += 1;
                self.again(read)
            }
            // O_DIRECT refused although all is aligned: the file system took the flag and cannot do it.
            libc::EINVAL if read.direct => {
                read.request.file.refuse_direct();
                self.again(read)
            }
            error => Some(self.done(read, Some(error))),
        }
    }

    /// Sends the next piece of a read on its way.
    fn again(&mut self, read: Read) -> Option<ReadDone> {
        // Its own place has just become free, so there is room.
        self.ring.start(read).err().map(|read| self.done(read, Some(libc::EBUSY)))
    }

    /// What becomes of a piece of a write that the kernel has completed: the write's end, or `None` when another piece is on its way.
    fn finish_write(&mut self, mut write: Write, result: i32) -> Option<WriteDone> {
        let error = match usize::try_from(result) {
            Ok(bytes) => {
                write.written += bytes;
                if write.written >= write.request.slice.len() {
                    return Some(self.written(write, None));
                }
                write.retries = if bytes == 0 { write.retries + 1 } else { 0 };
                if write.retries > RETRIES_MAX {
                    return Some(self.written(write, Some(libc::EIO)));
                }
                return self.write_again(write);
            }
            Err(_) => -result,
        };
        match error {
            libc::EINTR | libc::EAGAIN | libc::ECANCELED if write.retries < RETRIES_MAX => {
                write.retries += 1;
                self.write_again(write)
            }
            libc::EINVAL if write.direct => {
                write.request.file.refuse_direct();
                self.write_again(write)
            }
            error => Some(self.written(write, Some(error))),
        }
    }

    fn write_again(&mut self, write: Write) -> Option<WriteDone> {
        self.ring.start_write(write).err().map(|write| self.written(write, Some(libc::EBUSY)))
    }

    fn written(&mut self, write: Write, error: Option<i32>) -> WriteDone {
        let result = error.map_or(Ok(()), |number| Err(DiskError::Os(number)));
        self.writing -= 1;
        self.counters.count_write(write.request.slice.len(), result);
        WriteDone { tag: write.request.tag, slice: write.request.slice, result }
    }

    /// Takes in what the kernel has completed, while there is room for its end.
    fn collect(&mut self) {
        while self.read.len() < self.depth && self.written.len() < self.depth {
            let Some((operation, result)) = self.ring.complete() else { break };
            match operation {
                Operation::Read(read) => {
                    let done = self.finish(read, result);
                    self.read.extend(done);
                }
                Operation::Write(write) => {
                    let done = self.finish_write(write, result);
                    self.written.extend(done);
                }
            }
        }
        if self.ring.needs_enter() {
            self.ring.enter();
        }
    }

    /// Room for another operation, whose end has room as well.
    fn has_room(&self) -> bool {
        self.ring.has_room() && self.in_flight() < self.depth
    }

    fn done(&mut self, read: Read, error: Option<i32>) -> ReadDone {
        let result = error.map_or(Ok(read.filled), |number| Err(DiskError::Os(number)));
        self.counters.count(result);
        ReadDone { tag: read.request.tag, chunk: read.request.chunk, result }
    }
}

impl Disk for UringDisk {
    type File = MediaFile;

    fn device_of(file: &MediaFile) -> u64 {
        file.identity().device
    }

    // Inodes that were made one after the other lie near each other on most file systems.
    fn place_of(file: &MediaFile) -> u64 {
        file.identity().inode
    }

    fn submit(&mut self, _now_ns: u64, batch: &mut VecDeque<ReadRequest<MediaFile>>) {
        while self.has_room() {
            let Some(request) = batch.pop_front() else { break };
            self.counters.reads += 1;
            let wanted = request.len.min(request.chunk.len());
            let read = Read { wanted, filled: 0, direct: false, retries: 0, request };
            // An offset of -1 would mean the file's current position to the kernel.
            let started = if i64::try_from(read.request.offset).is_ok() { self.ring.start(read) } else { Err(read) };
            if let Err(read) = started {
                let done = self.done(read, Some(libc::EINVAL));
                self.read.push_back(done);
            }
            if self.ring.is_enter_due() {
                self.ring.enter();
            }
        }
        if self.ring.needs_enter() {
            self.ring.enter();
        }
    }

    fn reap(&mut self, _now_ns: u64, done: &mut Vec<ReadDone>) {
        self.collect();
        let room = done.capacity() - done.len();
        done.extend(self.read.drain(..room.min(self.read.len())));
    }

    fn submit_writes(&mut self, _now_ns: u64, batch: &mut VecDeque<WriteRequest<MediaFile>>) {
        let writes_max = (self.depth / 2).max(1);
        while self.writing + self.written.len() < writes_max && self.has_room() {
            let Some(request) = batch.pop_front() else { break };
            self.counters.writes += 1;
            self.writing += 1;
            let write = Write { request, written: 0, direct: false, retries: 0 };
            let end = write.request.offset.checked_add(write.request.slice.len() as u64).and_then(|end| i64::try_from(end).ok());
            let started = if end.is_some() { self.ring.start_write(write) } else { Err(write) };
            if let Err(write) = started {
                let done = self.written(write, Some(libc::EINVAL));
                self.written.push_back(done);
            }
            if self.ring.is_enter_due() {
                self.ring.enter();
            }
        }
        if self.ring.needs_enter() {
            self.ring.enter();
        }
    }

    fn reap_writes(&mut self, _now_ns: u64, done: &mut Vec<WriteDone>) {
        self.collect();
        let room = done.capacity() - done.len();
        done.extend(self.written.drain(..room.min(self.written.len())));
    }

    fn in_flight(&self) -> usize {
        self.ring.len() + self.read.len() + self.written.len()
    }

    fn describe(&self) -> &str {
        &self.description
    }

    fn counters(&self) -> DiskCounters {
        DiskCounters { in_flight: self.in_flight() as u32, ..self.counters }
    }
}

impl std::fmt::Debug for UringDisk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "UringDisk({}, {:?})", self.description, self.counters())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hugepages::Arena;
    use std::time::{Duration, Instant};

    const BYTES: usize = 16 << 10;

    /// A read of the whole of a file of `BYTES`, and where the kernel has got to with it is for the test to say.
    fn whole_file(disk: &UringDisk, pool: &ChunkPool) -> (Read, Vec<u8>, tempfile::NamedTempFile) {
        assert_eq!(disk.in_flight(), 0);
        let temp = tempfile::NamedTempFile::new().unwrap();
        let content: Vec<u8> = (0..BYTES).map(|i| (i * 7 / 3) as u8).collect();
        std::fs::write(temp.path(), &content).unwrap();
        let file = MediaFile::open(temp.path()).unwrap();
        let request = ReadRequest { tag: 1, file, offset: 0, len: BYTES, chunk: pool.take().unwrap() };
        (Read { request, filled: 0, wanted: BYTES, direct: true, retries: 0 }, content, temp)
    }

    fn wait(disk: &mut UringDisk) -> ReadDone {
        let mut done = Vec::with_capacity(1);
        let deadline = Instant::now() + Duration::from_secs(60);
        while done.is_empty() {
            assert!(Instant::now() < deadline);
            disk.reap(0, &mut done);
        }
        done.remove(0)
    }

    #[test]
    fn a_short_read_is_continued_and_a_refused_one_goes_through_the_page_cache() {
        let pool = ChunkPool::new(Arena::new(2 * BYTES).unwrap(), BYTES);
        let Ok(mut disk) = UringDisk::new(&pool, 2) else {
            eprintln!("skipped: io_uring is forbidden here");
            return;
        };
        // Pieces that end on a page, within a page, nowhere.
        for short in [4096, 5000, 1] {
            let (mut read, content, _temp) = whole_file(&disk, &pool);
            read.request.chunk[..short].copy_from_slice(&content[..short]);
            assert!(disk.finish(read, short as i32).is_none(), "ended early");
            let done = wait(&mut disk);
            assert_eq!(done.result, Ok(BYTES));
            assert!(done.chunk[..BYTES] == content, "short by {short}");
        }
        for (number, keeps_direct) in [(libc::EAGAIN, true), (libc::EINTR, true), (libc::EINVAL, false)] {
            let (read, content, _temp) = whole_file(&disk, &pool);
            let file = read.request.file.clone();
            let was_direct = file.is_direct();
            assert!(disk.finish(read, -number).is_none(), "gave up after error {number}");
            let done = wait(&mut disk);
            assert!(done.result == Ok(BYTES) && done.chunk[..BYTES] == content);
            assert_eq!(file.is_direct(), was_direct && keeps_direct);
        }
    }

    #[test]
    fn errors_end_a_read() {
        let pool = ChunkPool::new(Arena::new(2 * BYTES).unwrap(), BYTES);
        let Ok(mut disk) = UringDisk::new(&pool, 2) else { return };
        for (number, direct, retries) in [(libc::EIO, true, 0), (libc::EINVAL, false, 0), (libc::EAGAIN, true, RETRIES_MAX)] {
            let (mut read, _, _temp) = whole_file(&disk, &pool);
            (read.direct, read.retries) = (direct, retries);
            let done = disk.finish(read, -number).expect("the end");
            assert_eq!(done.result, Err(DiskError::Os(number)));
        }
        assert_eq!((disk.counters().errors, pool.free()), (3, pool.capacity()));
    }
}
