//! Due times of packets: the decode process of a title, shifted in time.
//!
//! ```text
//! sample i (dts)                         sample i+1 (dts)
//!   │ packet 0   packet 1   packet 2       │
//!   ├──────────┬──────────┬────────────────┤      each packet at its first byte's share of the sample's time
//!   anchor + (dts - start) ...
//! ```
//!
//! All conversions start from the absolute tick count, never from a sum of rounded steps, so errors stay below one unit however long
//! the title is. Nothing here overflows or panics: what cannot be represented saturates.

use crate::NS_PER_SEC;

/// `units` of 1/`from` seconds in whole units of 1/`to` seconds, rounded down. Exact for every input whose result fits, saturating
/// otherwise; a `from` of 0 counts as 1.
pub fn rescale_floor(units: i64, from: u32, to: u32) -> i64 {
    rescale(units, from, u64::from(to), 0)
}

/// As [`rescale_floor`], rounded to the nearest (halves up). Going to a clock at least as fast and back gives the same number.
pub fn rescale_nearest(units: i64, from: u32, to: u32) -> i64 {
    rescale(units, from, u64::from(to), u64::from(from.max(1)) / 2)
}

/// Ticks of a track's time scale in nanoseconds, rounded down.
pub fn ticks_to_ns(ticks: i64, timescale: u32) -> i64 {
    rescale(ticks, timescale, NS_PER_SEC, 0)
}

/// Nanoseconds in ticks of a track's time scale, rounded down.
pub fn ns_to_ticks(ns: i64, timescale: u32) -> i64 {
    rescale(ns, NS_PER_SEC as u32, u64::from(timescale), 0)
}

/// Nanoseconds in units of an RTP clock, rounded to the nearest, modulo 2^32: what a sender report's RTP timestamp is made of.
pub fn ns_to_rtp(ns: i64, clock_rate: u32) -> u32 {
    let half_unit = NS_PER_SEC as i128 / 2;
    (i128::from(ns) * i128::from(clock_rate) + half_unit).div_euclid(i128::from(NS_PER_SEC)) as u32
}

/// RTP timestamp (RFC 3550 5.1) of the time `ticks` on a track of `timescale`, for a stream whose timestamp is `base` at tick 0:
/// rounded to the nearest unit of the RTP clock, modulo 2^32.
pub fn rtp_timestamp(base: u32, ticks: i64, timescale: u32, clock_rate: u32) -> u32 {
    base.wrapping_add(rescale_nearest(ticks, timescale, clock_rate) as u32)
}

/// When a packet is due.
///
/// - `anchor_ns`: the clock's time at which the range's start is due;
/// - `sample_dts_ns`, `start_dts_ns`: decode times (on the title's time line) of the packet's sample and of the range's start;
/// - `duration_ns`: from the sample's decode time to the next sample's;
/// - `byte_offset`, `sample_bytes`: the packet's first byte within its sample, and the sample's size.
///
/// The result is never before the anchor, does not fall while `byte_offset` grows, and lies before the next sample's decode time (for
/// durations above 0).
pub fn due_ns(anchor_ns: u64, sample_dts_ns: i64, start_dts_ns: i64, duration_ns: u64, byte_offset: u32, sample_bytes: u32) -> u64 {
    let into_sample_ns = share(duration_ns, byte_offset, sample_bytes);
    let since_start_ns = i128::from(sample_dts_ns) - i128::from(start_dts_ns) + i128::from(into_sample_ns);
    let since_start_ns = u64::try_from(since_start_ns.max(0)).unwrap_or(u64::MAX);
    anchor_ns.saturating_add(since_start_ns)
}

/// The part of `duration_ns` that has passed when byte `offset` of `bytes` is due.
fn share(duration_ns: u64, offset: u32, bytes: u32) -> u64 {
    let bytes = bytes.max(1);
    let offset = u64::from(offset.min(bytes - 1));
    match duration_ns.checked_mul(offset) {
        Some(product) => product / u64::from(bytes),
        // Samples of more than some seconds and megabytes.
        None => (u128::from(duration_ns) * u128::from(offset) / u128::from(bytes)) as u64,
    }
}

/// `units * to / from`, with `add` added before the division; `add < from`.
fn rescale(units: i64, from: u32, to: u64, add: u64) -> i64 {
    let from = i64::from(from.max(1));
    let (seconds, rest) = (units.div_euclid(from), units.rem_euclid(from) as u64);
    // `rest` is below 2^32 and `to` at most 2^32, so this stays below 2^64.
    let part = (rest * to + add) / from as u64;
    i64::try_from(i128::from(seconds) * i128::from(to) + i128::from(part)).unwrap_or(if seconds < 0 { i64::MIN } else { i64::MAX })
}

#[cfg(test)]
mod tests;
