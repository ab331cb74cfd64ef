//! The best disk that this machine grants, found out by a real read, and said in words.

use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use hugepages::ChunkPool;

use super::{
    Disk, DiskCounters, MediaFile, OpenError, READ_ALIGN_BYTES, ReadDone, ReadRequest, ThreadDisk, UringDisk, WriteDone, WriteRequest,
};

/// Reader threads where io_uring cannot be used: one may wait for the device while the other copies.
const READER_THREADS: usize = 2;
/// A probe that takes longer counts as failed.
const PROBE_WAIT: Duration = Duration::from_secs(5);
/// Probed when there is no media file yet: this program is always there.
const OWN_PROGRAM: &str = "/proc/self/exe";

/// A disk of whichever kind works here.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "an engine core has one, for as long as it runs")]
pub enum AnyDisk {
    /// io_uring.
    Uring(UringDisk),
    /// Plain reader threads.
    Threads(ThreadDisk),
}

/// Why no disk could be made.
#[derive(Debug, thiserror::Error)]
pub enum DiskOpenError {
    /// Neither kind works.
    #[error("no way to read media: io_uring: {uring}; reader threads: {threads}; is the limit of threads (ulimit -u) reached?")]
    NoReader {
        /// Why not io_uring.
        uring: String,
        /// Why not threads.
        threads: io::Error,
    },
}

impl AnyDisk {
    /// A disk for chunks of `pool` with at most `depth` reads under way, and what it is, in words for the start-up message.
    ///
    /// io_uring is tried with a read of `media`, a file on the file system that will be read; without one (or if it cannot be opened) with
    /// a read of this program's own file, and then only whether io_uring works at all decides. Files whose file system refuses O_DIRECT
    /// are read through the page cache by the kernel's workers then. Call it on the thread that makes the engine, before that is pinned (see [`ThreadDisk`]). It blocks.
    ///
    /// # Errors
    /// [`DiskOpenError`] when the system grants neither io_uring nor threads.
    pub fn open(pool: &ChunkPool, depth: u16, media: Option<&Path>) -> Result<(Self, String), DiskOpenError> {
        let why_not = match try_uring(pool, depth, media) {
            Ok(disk) => {
                let note = disk.describe().to_owned();
                return Ok((Self::Uring(disk), note));
            }
            Err(why_not) => why_not,
        };
        match ThreadDisk::new(READER_THREADS, depth) {
            Ok(disk) => {
                let note = format!("{}, because {why_not}", disk.describe());
                Ok((Self::Threads(disk), note))
            }
            Err(threads) => Err(DiskOpenError::NoReader { uring: why_not.to_string(), threads }),
        }
    }
}

/// Why io_uring is not used.
#[derive(Debug, thiserror::Error)]
enum WhyNot {
    #[error("io_uring is forbidden here (kernel.io_uring_disabled, or a container's system call filter)")]
    Forbidden,
    #[error("this kernel has no io_uring")]
    Missing,
    #[error("io_uring does not open: {0}")]
    Setup(io::Error),
    #[error("{0}")]
    Open(#[from] OpenError),
    #[error("the file system of {0} refuses O_DIRECT")]
    NoDirect(String),
    #[error("a trial read of {0} through io_uring failed: {1}")]
    Read(String, String),
}

fn try_uring(pool: &ChunkPool, depth: u16, media: Option<&Path>) -> Result<UringDisk, WhyNot> {
    let mut disk = UringDisk::new(pool, depth).map_err(|e| match e.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => WhyNot::Forbidden,
        Some(libc::ENOSYS) => WhyNot::Missing,
        _ => WhyNot::Setup(e),
    })?;
    // A media file that cannot be opened says nothing about disks.
    let media = media.and_then(|path| Some((path, MediaFile::open(path).ok()?)));
    let is_media = media.is_some();
    let (path, file) = match media {
        Some(found) => found,
        None => (Path::new(OWN_PROGRAM), MediaFile::open(Path::new(OWN_PROGRAM))?),
    };
    let name = path.display().to_string();
    // Without a chunk there is nothing to try with; a pool that is in use has seen reads.
    if let Some(chunk) = pool.take() {
        let len = chunk.len().min(READ_ALIGN_BYTES as usize);
        let mut batch = VecDeque::from([ReadRequest { tag: 0, file: file.clone(), offset: 0, len, chunk }]);
        let done = read_one(&mut disk, &mut batch).ok_or_else(|| WhyNot::Read(name.clone(), "no answer".into()))?;
        let bytes = done.result.map_err(|e| WhyNot::Read(name.clone(), e.to_string()))?;
        let mut expected = vec![0; len];
        let known = file.read_at(&mut expected, 0).map_err(|e| WhyNot::Read(name.clone(), e.to_string()))?;
        if done.chunk.get(..bytes) != expected.get(..known) {
            return Err(WhyNot::Read(name, "wrong bytes".into()));
        }
    }
    if is_media && !file.is_direct() {
        return Err(WhyNot::NoDirect(name));
    }
    disk.forget_counters();
    Ok(disk)
}

/// Submits one read and waits for it, for a bounded time.
fn read_one(disk: &mut UringDisk, batch: &mut VecDeque<ReadRequest<MediaFile>>) -> Option<ReadDone> {
    let deadline = Instant::now() + PROBE_WAIT;
    let mut done = Vec::with_capacity(1);
    while Instant::now() < deadline {
        disk.submit(0, batch);
        disk.reap(0, &mut done);
        if let Some(done) = done.pop() {
            return Some(done);
        }
        std::thread::sleep(Duration::from_micros(50));
    }
    None
}

/// The same method of whichever disk it is.
macro_rules! of_either {
    ($self:expr, $disk:ident => $call:expr) => {
        match $self {
            AnyDisk::Uring($disk) => $call,
            AnyDisk::Threads($disk) => $call,
        }
    };
}

impl Disk for AnyDisk {
    type File = MediaFile;

    fn device_of(file: &MediaFile) -> u64 {
        file.identity().device
    }

    // Inodes that were made one after the other lie near each other on most file systems.
    fn place_of(file: &MediaFile) -> u64 {
        file.identity().inode
    }

    fn submit(&mut self, now_ns: u64, batch: &mut VecDeque<ReadRequest<MediaFile>>) {
        of_either!(self, disk => disk.submit(now_ns, batch));
    }

    fn reap(&mut self, now_ns: u64, done: &mut Vec<ReadDone>) {
        of_either!(self, disk => disk.reap(now_ns, done));
    }

    fn submit_writes(&mut self, now_ns: u64, batch: &mut VecDeque<WriteRequest<MediaFile>>) {
        of_either!(self, disk => disk.submit_writes(now_ns, batch));
    }

    fn reap_writes(&mut self, now_ns: u64, done: &mut Vec<WriteDone>) {
        of_either!(self, disk => disk.reap_writes(now_ns, done));
    }

    fn in_flight(&self) -> usize {
        of_either!(self, disk => disk.in_flight())
    }

    fn describe(&self) -> &str {
        of_either!(self, disk => disk.describe())
    }

    fn counters(&self) -> DiskCounters {
        of_either!(self, disk => disk.counters())
    }
}
