//! The arithmetic of a disk's time: what a read costs by the disk's measured profile, how deep its queue may be, and how much of each
//! cycle is promised to whom.
//!
//! ```text
//! DiskProfile (measured: rate and latency by size and depth) ─► read_ns, depth ─► DiskBudget: reads a cycle ─► admitted, or OverCommitted
//!                                    observed time per read ──────────────────────────────▲
//! ```
//!
//! Time is divided into cycles. What a guaranteed stream plays in one cycle is read in the one before (double buffering), so a stream's
//! read-ahead is two cycles, and it is on time as long as the reads that all guaranteed streams need in a cycle take no longer than the
//! share of the cycle that may be promised. The rest of the cycle is for best-effort reads and for what goes wrong.

mod budget;
mod depth;

use serde::{Deserialize, Serialize};

use crate::NS_PER_SEC;

pub use budget::{DiskBudget, OverCommitted, Reads};
pub use depth::DepthControl;

/// Of the best rate, what a smaller depth must reach to be preferred, per mille.
const GOOD_RATE_PERMILLE: u64 = 950;

/// What a disk did with reads of one size at one depth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProfilePoint {
    /// Bytes of a read.
    pub bytes: u32,
    /// Reads under way.
    pub depth: u16,
    /// Bytes read per second, all of them together.
    pub bytes_per_s: u64,
    /// Median time to answer, nanoseconds.
    pub latency_p50_ns: u64,
    /// 99th percentile of the time to answer, nanoseconds.
    pub latency_p99_ns: u64,
}

impl ProfilePoint {
    /// Device time that one read takes, nanoseconds.
    fn read_ns(&self) -> u64 {
        (u128::from(self.bytes) * u128::from(NS_PER_SEC)).div_ceil(u128::from(self.bytes_per_s.max(1))) as u64
    }
}

/// A disk, as it was measured with reads at random places.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskProfile {
    /// What was measured, in any order.
    pub points: Vec<ProfilePoint>,
}

impl DiskProfile {
    /// A disk of which nothing is known: an old spinning one, 12 ms and 60 MB/s, no faster with a deeper queue.
    pub fn unknown() -> Self {
        let point = |kib: u32| {
            let bytes = kib << 10;
            let read_ns = 12_000_000 + u64::from(bytes) * NS_PER_SEC / 60_000_000;
            let bytes_per_s = u64::from(bytes) * NS_PER_SEC / read_ns;
            ProfilePoint { bytes, depth: 1, bytes_per_s, latency_p50_ns: read_ns, latency_p99_ns: 3 * read_ns }
        };
        Self { points: [4, 64, 256, 1024, 4096].map(point).to_vec() }
    }

    /// A profile from outside (a file): `None` when it says nothing, or nothing that can be true.
    pub fn checked(self) -> Option<Self> {
        let sane = |p: &ProfilePoint| {
            p.bytes > 0 && p.depth > 0 && (1_000..=1 << 40).contains(&p.bytes_per_s) && p.latency_p50_ns <= p.latency_p99_ns
        };
        (!self.points.is_empty() && self.points.iter().all(sane)).then_some(self)
    }

    /// The depths at which something was measured, ascending.
    fn depths(&self) -> Vec<u16> {
        let mut depths: Vec<u16> = self.points.iter().map(|point| point.depth).collect();
        depths.sort_unstable();
        depths.dedup();
        depths
    }

    /// Device time that a read of `bytes` takes while `depth` are kept under way, nanoseconds: interpolated between the sizes that were
    /// measured at that depth (the next lower one, if there is one). A read smaller than any takes as long as the smallest.
    pub fn read_ns(&self, bytes: u32, depth: u16) -> u64 {
        let depths = self.depths();
        let Some(&first) = depths.first() else { return Self::unknown().read_ns(bytes, depth) };
        let measured = depths.iter().copied().rfind(|&d| d <= depth).unwrap_or(first);
        let mut points: Vec<&ProfilePoint> = self.points.iter().filter(|point| point.depth == measured).collect();
        points.sort_unstable_by_key(|point| point.bytes);
        let above = points.partition_point(|point| point.bytes < bytes);
        match (above.checked_sub(1).and_then(|i| points.get(i)), points.get(above)) {
            (Some(low), Some(high)) => {
                let (from, to) = (low.read_ns(), high.read_ns().max(low.read_ns()));
                let part = u128::from(to - from) * u128::from(bytes - low.bytes) / u128::from(high.bytes - low.bytes);
                from + part as u64
            }
            (None, Some(only)) => only.read_ns(),
            (Some(largest), None) => (u128::from(largest.read_ns()) * u128::from(bytes) / u128::from(largest.bytes.max(1))) as u64,
            (None, None) => u64::MAX,
        }
    }

    /// The depth to keep for reads of `bytes`: the smallest at which the disk is nearly as fast as at its best, among those at which it
    /// answers within `latency_max_ns` in 99 of 100 cases.
    pub fn depth_for(&self, bytes: u32, latency_max_ns: u64) -> u16 {
        let size = self.points.iter().map(|point| point.bytes).min_by_key(|size| size.abs_diff(bytes));
        let mut points: Vec<&ProfilePoint> =
            self.points.iter().filter(|p| Some(p.bytes) == size && p.latency_p99_ns <= latency_max_ns).collect();
        points.sort_unstable_by_key(|point| point.depth);
        let best = points.iter().map(|point| point.bytes_per_s).max().unwrap_or(0);
        let is_good = |point: &&&ProfilePoint| u128::from(point.bytes_per_s) * 1000 >= u128::from(best) * u128::from(GOOD_RATE_PERMILLE);
        points.iter().find(is_good).map_or(1, |point| point.depth)
    }
}

#[cfg(test)]
mod tests;
