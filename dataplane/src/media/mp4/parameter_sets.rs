//! Parameter sets that are only in the samples (`avc3`, `hev1`): taken from the first sync sample.

use std::io::{Read, Seek};

use super::boxes::Source;
use crate::media::error::MediaError;
use crate::media::{Codec, Track};

/// Bytes of the sample that are looked at: parameter sets come before the picture.
pub const LOOK_BYTES_MAX: u64 = 256 << 10;
/// Parameter sets of each kind.
const SETS_MAX: usize = 32;

/// Completes the codec of `track`. False when the sample has none.
pub fn fill_from_samples<F: Read + Seek>(track: &mut Track, source: &mut Source<'_, F>) -> Result<bool, MediaError> {
    let Some(sample) = track.samples.get(track.samples.sync_at_or_before(i64::MIN)) else { return Ok(false) };
    let len = u64::from(sample.size).min(LOOK_BYTES_MAX);
    let bytes = source.bytes(sample.offset, len, LOOK_BYTES_MAX, "the first sync sample")?;
    Ok(fill(&mut track.codec, &bytes))
}

/// Completes `codec` from the start of a sync sample. False when it has no parameter sets.
pub fn fill(codec: &mut Codec, bytes: &[u8]) -> bool {
    match codec {
        Codec::H264 { length_bytes, sps, pps } => {
            for nal in nal_units(bytes, *length_bytes) {
                // ITU-T H.264 table 7-1.
                match nal.first().map(|byte| byte & 0x1f) {
                    Some(7) => add(sps, nal),
                    Some(8) => add(pps, nal),
                    _ => {}
                }
            }
            !sps.is_empty() && !pps.is_empty()
        }
        Codec::H265 { length_bytes, vps, sps, pps } => {
            for nal in nal_units(bytes, *length_bytes) {
                // ITU-T H.265 table 7-1.
                match nal.first().map(|byte| byte >> 1 & 0x3f) {
                    Some(32) => add(vps, nal),
                    Some(33) => add(sps, nal),
                    Some(34) => add(pps, nal),
                    _ => {}
                }
            }
            !vps.is_empty() && !sps.is_empty() && !pps.is_empty()
        }
        _ => true,
    }
}

fn add(sets: &mut Vec<Vec<u8>>, nal: &[u8]) {
    if sets.len() < SETS_MAX && !sets.iter().any(|set| set == nal) {
        sets.push(nal.to_vec());
    }
}

/// The NAL units that are wholly within `bytes`.
fn nal_units(mut bytes: &[u8], length_bytes: u8) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (length, rest) = bytes.split_at_checked(usize::from(length_bytes))?;
        let length = length.iter().fold(0usize, |length, byte| length << 8 | usize::from(*byte));
        let (nal, rest) = rest.split_at_checked(length)?;
        bytes = rest;
        Some(nal)
    })
}
