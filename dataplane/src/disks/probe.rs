//! Measures a disk: how fast it answers reads at random places of a file, by size and depth.

use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use hugepages::{Arena, ChunkPool};
use pacing::disk::{DiskProfile, ProfilePoint};

use super::{AnyDisk, Disk, DiskError, DiskOpenError, MediaFile, OpenError, READ_ALIGN_BYTES, ReadRequest};

/// A read that takes longer ends the measurement.
const PATIENCE: Duration = Duration::from_secs(20);
/// How often answers are looked for.
const PAUSE: Duration = Duration::from_micros(10);
/// Reads of a point that are kept for percentiles.
const READS_MAX: usize = 1 << 16;

/// What is measured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbePlan {
    /// Sizes of reads, bytes; multiples of [`READ_ALIGN_BYTES`].
    pub sizes: Vec<u32>,
    /// Depths.
    pub depths: Vec<u16>,
    /// Time spent on each size at each depth.
    pub each: Duration,
}

impl ProbePlan {
    /// A thorough measurement: 4 KiB to 1 MiB, depths 1 to 32.
    pub fn thorough(each: Duration) -> Self {
        Self { sizes: [4, 16, 64, 256, 1024].map(|kib| kib << 10).to_vec(), depths: vec![1, 4, 8, 16, 32], each }
    }

    /// A brief one, for reads of one size.
    pub fn brief(bytes: u32) -> Self {
        Self { sizes: vec![bytes], depths: vec![1, 8, 32], each: Duration::from_millis(60) }
    }
}

/// Why a disk could not be measured.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// The file.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The reader.
    #[error(transparent)]
    Disk(#[from] DiskOpenError),
    /// Memory.
    #[error("no memory for the measurement: {0}")]
    Memory(io::Error),
    /// A read.
    #[error(transparent)]
    Read(#[from] DiskError),
    /// The file is smaller than the reads.
    #[error("the file has {file} bytes, too few to measure reads of {read} bytes")]
    TooSmall {
        /// Its size.
        file: u64,
        /// The smallest read.
        read: u32,
    },
    /// No answer.
    #[error("a read was not answered in {} s", PATIENCE.as_secs())]
    NoAnswer,
}

/// What a measurement found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probed {
    /// Device number of the file system.
    pub device: u64,
    /// How it was read.
    pub how: String,
    /// Reads bypassed the page cache. Otherwise it was memory that was measured, at least in part.
    pub is_direct: bool,
    /// The profile.
    pub profile: DiskProfile,
}

/// Measures the disk that the file at `path` lies on; sizes larger than the file are left out. Blocks for about as long as the plan says.
///
/// # Errors
/// [`ProbeError`].
pub fn probe(path: &Path, plan: &ProbePlan) -> Result<Probed, ProbeError> {
    let file = MediaFile::open(path)?;
    let sizes: Vec<u32> = plan.sizes.iter().copied().filter(|&size| size > 0 && u64::from(size) <= file.size()).collect();
    let Some(&largest) = sizes.iter().max() else {
        return Err(ProbeError::TooSmall { file: file.size(), read: plan.sizes.iter().copied().min().unwrap_or(0) });
    };
    let depth_max = plan.depths.iter().copied().max().unwrap_or(1).max(1);
    let arena =
        Arena::new(largest as usize * (usize::from(depth_max) + 1)).map_err(|e| ProbeError::Memory(io::Error::other(e.to_string())))?;
    let pool = ChunkPool::new(arena, largest as usize);
    let (mut disk, how) = AnyDisk::open(&pool, depth_max, Some(path))?;
    let mut points = Vec::new();
    let mut random = 0x2545_f491_4f6c_dd1d;
    for &bytes in &sizes {
        for &depth in &plan.depths {
            points.push(measure(&mut disk, &pool, &file, (bytes, depth.max(1)), plan.each, &mut random)?);
        }
    }
    Ok(Probed { device: file.identity().device, how, is_direct: file.is_direct(), profile: DiskProfile { points } })
}

/// Keeps `depth` reads of `bytes` under way for a while.
fn measure(
    disk: &mut AnyDisk,
    pool: &ChunkPool,
    file: &MediaFile,
    (bytes, depth): (u32, u16),
    each: Duration,
    random: &mut u64,
) -> Result<ProfilePoint, ProbeError> {
    let places = (file.size() - u64::from(bytes)) / READ_ALIGN_BYTES + 1;
    let (mut batch, mut done) = (VecDeque::new(), Vec::with_capacity(usize::from(depth)));
    let mut asked: Vec<Option<Instant>> = vec![None; usize::from(depth)];
    let mut latencies_ns = Vec::new();
    let started = Instant::now();
    let mut last = started;
    loop {
        let go_on = started.elapsed() < each || latencies_ns.is_empty();
        for (tag, asked) in asked.iter_mut().enumerate().filter(|(_, asked)| asked.is_none()) {
            if let Some(chunk) = go_on.then(|| pool.take()).flatten() {
                // Xorshift (Marsaglia 2003): any places will do, as long as they are far apart.
                *random ^= *random << 13;
                *random ^= *random >> 7;
                *random ^= *random << 17;
                let offset = *random % places * READ_ALIGN_BYTES;
                batch.push_back(ReadRequest { tag: tag as u64, file: file.clone(), offset, len: bytes as usize, chunk });
                *asked = Some(Instant::now());
            }
        }
        if asked.iter().all(Option::is_none) {
            break;
        }
        disk.submit(0, &mut batch);
        disk.reap(0, &mut done);
        for read in done.drain(..) {
            read.result?;
            last = Instant::now();
            let asked_at = usize::try_from(read.tag).ok().and_then(|tag| asked.get_mut(tag)).and_then(Option::take);
            if let Some(asked_at) = asked_at.filter(|_| latencies_ns.len() < READS_MAX) {
                latencies_ns.push(u64::try_from((last - asked_at).as_nanos()).unwrap_or(u64::MAX));
            }
        }
        if last.elapsed() > PATIENCE {
            return Err(ProbeError::NoAnswer);
        }
        std::thread::sleep(PAUSE);
    }
    latencies_ns.sort_unstable();
    let at = |permille: usize| latencies_ns.get((latencies_ns.len() * permille / 1000).min(latencies_ns.len().saturating_sub(1))).copied();
    let elapsed_ns = (last - started).as_nanos().max(1);
    let bytes_per_s = (latencies_ns.len() as u128 * u128::from(bytes) * 1_000_000_000 / elapsed_ns) as u64;
    Ok(ProfilePoint { bytes, depth, bytes_per_s, latency_p50_ns: at(500).unwrap_or(0), latency_p99_ns: at(990).unwrap_or(0) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_measured_at_all_sizes_that_fit() {
        let temp = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(temp.path(), vec![7; 200 << 10]).unwrap();
        let plan = ProbePlan { each: Duration::from_millis(5), ..ProbePlan::thorough(Duration::ZERO) };
        let probed = probe(temp.path(), &plan).unwrap();
        let found: Vec<_> = probed.profile.points.iter().map(|p| (p.bytes >> 10, p.depth)).collect();
        let expected: Vec<_> = [4, 16, 64].into_iter().flat_map(|kib| plan.depths.iter().map(move |&depth| (kib, depth))).collect();
        assert_eq!(found, expected);
        assert!(probed.profile.clone().checked().is_some(), "{probed:?}");
        std::fs::write(temp.path(), b"x").unwrap();
        assert!(matches!(probe(temp.path(), &plan), Err(ProbeError::TooSmall { file: 1, read: 4096 })));
    }
}
