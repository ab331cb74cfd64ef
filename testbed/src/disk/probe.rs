//! How fast a device really is: random reads past the page cache, several at a time, for a short while.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::lateness::histogram_ns;

/// Bytes of a read.
const READ_BYTES: usize = 256 << 10;
/// Reads at a time.
const DEPTH: usize = 8;
/// What O_DIRECT wants of addresses and offsets, on every device here.
const ALIGN: usize = 4096;

/// What a probe found.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Probe {
    /// Reads completed.
    pub reads: u64,
    /// Bytes per second.
    pub bytes_per_s: f64,
    /// Median time of a read, ms.
    pub p50_ms: f64,
    /// Its 99th percentile, ms.
    pub p99_ms: f64,
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { reads, bytes_per_s, p50_ms, p99_ms } = self;
        write!(
            f,
            "{reads} reads of {} KiB, {DEPTH} at a time: {:.1} MB/s, p50 {p50_ms:.1} ms, p99 {p99_ms:.1} ms",
            READ_BYTES >> 10,
            bytes_per_s / 1e6
        )
    }
}

/// Reads from `device`, of `size` bytes, for `duration`.
///
/// # Errors
/// It cannot be read so.
pub fn probe(device: &Path, size: u64, duration: Duration) -> io::Result<Probe> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_DIRECT).open(device)?;
    let start = Instant::now();
    let all: Vec<Histogram<u64>> = std::thread::scope(|scope| {
        let readers: Vec<_> = (0..DEPTH as u64)
            .map(|seed| {
                scope.spawn({
                    let file = &file;
                    move || read(file, size, seed, start + duration)
                })
            })
            .collect();
        readers.into_iter().map(|r| r.join().unwrap_or_else(|_| Err(io::Error::other("a reader failed")))).collect::<io::Result<_>>()
    })?;
    let elapsed_s = start.elapsed().as_secs_f64();
    let mut times = histogram_ns();
    for one in &all {
        times.add(one).map_err(io::Error::other)?;
    }
    let ms = |quantile| times.value_at_quantile(quantile) as f64 / 1e6;
    let bytes_per_s = times.len() as f64 * READ_BYTES as f64 / elapsed_s;
    Ok(Probe { reads: times.len(), bytes_per_s, p50_ms: ms(0.5), p99_ms: ms(0.99) })
}

fn read(file: &File, size: u64, seed: u64, end: Instant) -> io::Result<Histogram<u64>> {
    let mut memory = vec![0u8; READ_BYTES + ALIGN];
    let shift = memory.as_ptr().align_offset(ALIGN);
    let Some(buffer) = memory.get_mut(shift..shift + READ_BYTES) else { return Err(io::Error::other("no aligned memory")) };
    let places = (size / READ_BYTES as u64).max(1);
    let mut random = (seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut times = histogram_ns();
    while Instant::now() < end {
        random = random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        let before = Instant::now();
        file.read_exact_at(buffer, (random >> 20) % places * READ_BYTES as u64)?;
        times.saturating_record(before.elapsed().as_nanos() as u64);
    }
    Ok(times)
}
