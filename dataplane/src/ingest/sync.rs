//! Can a decoder start with this access unit?

use crate::media::{Codec, TrackKind};

/// Where a decoder can start, by codec.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncRule {
    /// Anywhere: sound.
    Always,
    /// At an IDR picture, or at a recovery point that is exact at once; NAL lengths of this many bytes.
    H264(u8),
    /// At an intra random access point.
    H265(u8),
    /// Where a sequence header comes.
    Av1,
    /// At an I picture.
    Mpeg4Visual,
}

/// NAL units of one access unit that are looked at.
const NALS_MAX: usize = 64;
/// OBUs of one temporal unit that are looked at.
const OBUS_MAX: usize = 16;

impl SyncRule {
    /// The rule of a codec.
    pub fn of(codec: &Codec) -> Self {
        match codec {
            Codec::H264 { length_bytes, .. } => Self::H264(*length_bytes),
            Codec::H265 { length_bytes, .. } => Self::H265(*length_bytes),
            Codec::Av1 { .. } => Self::Av1,
            Codec::Mpeg4Visual { .. } => Self::Mpeg4Visual,
            Codec::Aac { .. } | Codec::MpegAudio | Codec::Opus { .. } | Codec::Pcmu { .. } | Codec::Pcma { .. } => Self::Always,
        }
    }

    /// Sight or sound.
    pub fn kind(self) -> TrackKind {
        if self == Self::Always { TrackKind::Audio } else { TrackKind::Video }
    }

    /// Whether a decoder can start with this access unit.
    pub fn is_sync(self, unit: &[u8]) -> bool {
        match self {
            Self::Always => true,
            // ITU-T H.264 table 7-1: 5 is a slice of an IDR picture, 6 is SEI.
            Self::H264(length_bytes) => nal_units(unit, length_bytes).take(NALS_MAX).any(|nal| match nal.first().map(|byte| byte & 0x1f) {
                Some(5) => true,
                Some(6) => is_exact_recovery_point(nal),
                _ => false,
            }),
            // ITU-T H.265 table 7-1: 16 to 23 are intra random access points.
            Self::H265(length_bytes) => nal_units(unit, length_bytes)
                .take(NALS_MAX)
                .any(|nal| nal.first().is_some_and(|byte| (16..=23).contains(&(byte >> 1 & 0x3f)))),
            Self::Av1 => has_sequence_header(unit),
            Self::Mpeg4Visual => is_intra_vop(unit),
        }
    }
}

/// The NAL units of an access unit, as far as their lengths add up.
pub fn nal_units(mut unit: &[u8], length_bytes: u8) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (length, rest) = unit.split_at_checked(usize::from(length_bytes))?;
        let length = length.iter().fold(0usize, |length, byte| length << 8 | usize::from(*byte));
        let (nal, rest) = rest.split_at_checked(length)?;
        unit = rest;
        Some(nal)
    })
}

/// An SEI NAL unit whose first message is a recovery point (ITU-T H.264 D.1.8, payload type 6) with recovery_frame_cnt 0: its ue(v) is the
/// single bit 1.
fn is_exact_recovery_point(nal: &[u8]) -> bool {
    matches!(nal, [_, 6, size, first, ..] if *size > 0 && first & 0x80 != 0)
}

/// AV1 5.3.2 and 6.2.2: OBU type 1.
fn has_sequence_header(mut unit: &[u8]) -> bool {
    for _ in 0..OBUS_MAX {
        let Some((&first, rest)) = unit.split_first() else { return false };
        if first >> 3 & 0xf == 1 {
            return true;
        }
        let rest = if first & 4 == 0 { rest } else { rest.get(1..).unwrap_or(&[]) };
        if first & 2 == 0 {
            return false;
        }
        let Some((size, size_bytes)) = crate::payload::read_leb128(rest) else { return false };
        let Some(after) = size_bytes.checked_add(size).and_then(|skip| rest.get(skip..)) else { return false };
        unit = after;
    }
    false
}

/// ISO 14496-2 6.2.5: vop_start_code B6, then two bits of coding type, 0 for I.
fn is_intra_vop(unit: &[u8]) -> bool {
    unit.windows(5)
        .find(|window| window.starts_with(&[0, 0, 1, 0xb6]))
        .is_some_and(|window| window.last().is_some_and(|byte| byte >> 6 == 0))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn unit(nals: &[&[u8]]) -> Vec<u8> {
        nals.iter().flat_map(|nal| [&(nal.len() as u32).to_be_bytes()[..], nal].concat()).collect()
    }

    #[test]
    fn decoders_start_where_their_codec_says() {
        let h264 = SyncRule::H264(4);
        assert!(h264.is_sync(&unit(&[&[0x67, 1], &[0x68, 2], &[0x65, 3]])));
        assert!(!h264.is_sync(&unit(&[&[0x67, 1], &[0x68, 2], &[0x41, 3]])));
        assert!(h264.is_sync(&unit(&[&[6, 6, 1, 0xc4, 0x80], &[0x41, 3]])));
        assert!(!h264.is_sync(&unit(&[&[6, 6, 1, 0x44, 0x80], &[6, 5, 1, 0xff], &[0x41, 3]])));
        let h265 = SyncRule::H265(4);
        assert!(h265.is_sync(&unit(&[&[0x40, 1], &[0x26, 1, 2]])) && !h265.is_sync(&unit(&[&[2, 1, 2]])));
        assert!(SyncRule::Av1.is_sync(&[0x12, 0, 0x0a, 1, 5]) && !SyncRule::Av1.is_sync(&[0x12, 0, 0x32, 1, 5]));
        assert!(SyncRule::Mpeg4Visual.is_sync(&[0, 0, 1, 0xb0, 1, 0, 0, 1, 0xb6, 0x10]));
        assert!(!SyncRule::Mpeg4Visual.is_sync(&[0, 0, 1, 0xb6, 0x50]));
        assert!(SyncRule::Always.is_sync(&[]));
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(prop_oneof![any::<u8>(), Just(0), Just(1), Just(6)], 0..80)) {
            for rule in [SyncRule::H264(4), SyncRule::H264(1), SyncRule::H265(2), SyncRule::Av1, SyncRule::Mpeg4Visual] {
                rule.is_sync(&bytes);
            }
        }
    }
}
