//! Reads through io_uring: O_DIRECT into registered buffers, one system call per batch, none to collect completions.
//!
//! ```text
//! submit: batch ─► entries in the ring ─► one io_uring_enter          reap: completion ring ─► done, or the rest of a short read again
//! ```
//!
//! Measured beforehand, and the reason for the defaults: depth 32 beats 128, a kernel polling thread (SQPOLL) hurts on few cores, and
//! completion polling (IOPOLL) opens on common file systems and then fails. So none of them is used.

mod ring;

use std::collections::VecDeque;
use std::io;

use hugepages::ChunkPool;

use super::{Disk, DiskCounters, DiskError, MediaFile, ReadDone, ReadRequest};
use ring::{Read, Ring};

/// Reads in flight, unless the configuration says otherwise.
pub const DEFAULT_DEPTH: u16 = 32;
/// The kernel takes at most 1 GiB as one registered buffer (io_uring_register(2), EFAULT).
const FIXED_BUFFER_BYTES_MAX: usize = 1 << 30;
/// How often a piece that the kernel gives back undone is tried again (EINTR, EAGAIN; ECANCELED when the thread that submitted it ended).
const RETRIES_MAX: u8 = 100;

/// A disk read through io_uring.
pub struct UringDisk {
    ring: Ring,
    /// Requests that were refused before they reached the kernel.
    refused: VecDeque<ReadDone>,
    description: String,
    counters: DiskCounters,
}

impl UringDisk {
    /// A disk for chunks of `pool` with at most `depth` reads in flight. Chunks of other pools may be read into, too, a little slower.
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
        Ok(Self { ring, refused: VecDeque::with_capacity(depth.into()), description, counters: DiskCounters::default() })
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
        while self.ring.has_room() && self.refused.len() < self.refused.capacity() {
            let Some(request) = batch.pop_front() else { break };
            self.counters.reads += 1;
            let wanted = request.len.min(request.chunk.len());
            let read = Read { wanted, filled: 0, direct: false, retries: 0, request };
            // An offset of -1 would mean the file's current position to the kernel.
            let started = if i64::try_from(read.request.offset).is_ok() { self.ring.start(read) } else { Err(read) };
            if let Err(read) = started {
                let done = self.done(read, Some(libc::EINVAL));
                self.refused.push_back(done);
            }
        }
        if self.ring.needs_enter() {
            self.ring.enter();
        }
    }

    fn reap(&mut self, _now_ns: u64, done: &mut Vec<ReadDone>) {
        while done.len() < done.capacity() {
            if let Some(refused) = self.refused.pop_front() {
                done.push(refused);
                continue;
            }
            let Some((read, result)) = self.ring.complete() else { break };
            done.extend(self.finish(read, result));
        }
        if self.ring.needs_enter() {
            self.ring.enter();
        }
    }

    fn in_flight(&self) -> usize {
        self.ring.len() + self.refused.len()
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
