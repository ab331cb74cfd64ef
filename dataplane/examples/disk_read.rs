//! How fast each kind of disk reads a file from its start to its end, and what that costs, to be held against fio.
//!
//! `cargo run -p dataplane --release --example disk_read -- FILE [CHUNK_KIB [DEPTH]]`
//!
//! The same by fio: `fio --name=r --filename=FILE --rw=read --bs=256k --direct=1 --ioengine=io_uring --iodepth=32 --fixedbufs`

use std::collections::VecDeque;
use std::error::Error;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::{Duration, Instant};

use dataplane::disks::{Disk, MediaFile, ReadRequest, ThreadDisk, UringDisk};
use hugepages::{Arena, ChunkPool};

/// An engine core has other work between two looks at its disk.
const PAUSE: Duration = Duration::from_micros(200);

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().ok_or("usage: disk_read FILE [CHUNK_KIB [DEPTH]]")?;
    let chunk_bytes = arguments.next().map_or(Ok(256), |kib| kib.parse::<usize>())? << 10;
    let depth = arguments.next().map_or(Ok(32), |depth| depth.parse::<u16>())?;
    let pool = ChunkPool::new(Arena::new(usize::from(depth) * 2 * chunk_bytes)?, chunk_bytes);
    for _ in 0..2 {
        measure(UringDisk::new(&pool, depth)?, &pool, Path::new(&path))?;
        measure(ThreadDisk::new(2, depth)?, &pool, Path::new(&path))?;
    }
    Ok(())
}

fn measure<D: Disk<File = MediaFile>>(mut disk: D, pool: &ChunkPool, path: &Path) -> Result<(), Box<dyn Error>> {
    forget_cached(path)?;
    let file = MediaFile::open(path)?;
    let (mut batch, mut done) = (VecDeque::new(), Vec::with_capacity(256));
    let (mut offset, mut bytes) = (0, 0);
    let (mut submitting, mut longest) = (Duration::ZERO, Duration::ZERO);
    let (started, cpu_started) = (Instant::now(), cpu_seconds());
    while bytes < file.size() {
        while offset < file.size()
            && let Some(chunk) = pool.take()
        {
            let len = chunk.len();
            batch.push_back(ReadRequest { tag: offset, file: file.clone(), offset, len, chunk });
            offset += len as u64;
        }
        let submit_started = Instant::now();
        disk.submit(0, &mut batch);
        let took = submit_started.elapsed();
        submitting += took;
        longest = longest.max(took);
        disk.reap(0, &mut done);
        if done.is_empty() {
            std::thread::sleep(PAUSE);
        }
        for finished in done.drain(..) {
            bytes += finished.result? as u64;
        }
    }
    let (seconds, cpu, gigabytes) = (started.elapsed().as_secs_f64(), cpu_seconds() - cpu_started, bytes as f64 / 1e9);
    println!("{}, {file:?}", disk.describe());
    println!(
        "    {:.0} MB/s, {:.4} CPU s/GB, submitting {:.1} us per read, longest submit {} us",
        gigabytes * 1e3 / seconds,
        cpu / gigabytes,
        submitting.as_secs_f64() * 1e6 / disk.counters().reads as f64,
        longest.as_micros(),
    );
    Ok(())
}

/// Takes the file's pages out of the page cache, so that the device is measured.
fn forget_cached(path: &Path) -> std::io::Result<()> {
    let file = std::fs::File::open(path)?;
    file.sync_all()?;
    // SAFETY: the descriptor is open for the length of the call, which touches no memory of this process.
    match unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) } {
        0 => Ok(()),
        error => Err(std::io::Error::from_raw_os_error(error)),
    }
}

/// Processor time of all threads of this process, kernel workers included.
fn cpu_seconds() -> f64 {
    // SAFETY: all-zero bytes are a valid `rusage`.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: `usage` is a valid place for the answer.
    unsafe { libc::getrusage(libc::RUSAGE_SELF, &mut usage) };
    let seconds = |t: libc::timeval| t.tv_sec as f64 + t.tv_usec as f64 / 1e6;
    seconds(usage.ru_utime) + seconds(usage.ru_stime)
}
