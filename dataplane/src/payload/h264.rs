//! H.264 (RFC 6184, packetization-mode 1): single NAL unit, STAP-A and FU-A packets.

use super::nal::{Header, NalFormat};

/// RFC 6184 5.2, table 1.
pub(super) const STAP_A: u8 = 24;
/// RFC 6184 5.2, table 1.
pub(super) const FU_A: u8 = 28;
/// Types from here on belong to the payload format (24 to 29) or are undefined (30, 31).
const FIRST_RESERVED: u8 = 24;
const SPS: u8 = 7;
const PPS: u8 = 8;
const DELIMITER: u8 = 9;
/// Types 1 to 5 are slices of the primary picture; 20 and 21 of further layers and views.
const SLICES: std::ops::RangeInclusive<u8> = 1..=5;
const LAYER_SLICES: std::ops::RangeInclusive<u8> = 19..=21;

const TYPE_MASK: u8 = 0x1f;
const F_BIT: u8 = 0x80;
const NRI_MASK: u8 = 0x60;

/// H.264's NAL units.
#[derive(Debug)]
pub(super) struct H264;

/// The NAL unit type in a header.
pub(super) fn nal_type(header: Header) -> u8 {
    header as u8 & TYPE_MASK
}

impl NalFormat for H264 {
    const HEADER_BYTES: usize = 1;
    const FU_BYTES: usize = 2;
    const ALL_SETS: u8 = 0b11;

    fn is_delimiter(header: Header) -> bool {
        nal_type(header) == DELIMITER
    }

    fn is_slice(header: Header) -> bool {
        let kind = nal_type(header);
        SLICES.contains(&kind) || LAYER_SLICES.contains(&kind)
    }

    fn is_reserved(header: Header) -> bool {
        nal_type(header) >= FIRST_RESERVED
    }

    fn set_kind(header: Header) -> u8 {
        match nal_type(header) {
            SPS => 0b01,
            PPS => 0b10,
            _ => 0,
        }
    }

    /// RFC 6184 5.7: F is set when any is, NRI is the highest of all.
    fn aggregate(so_far: Option<Header>, next: Header) -> Header {
        let (so_far, next) = (so_far.unwrap_or(0) as u8, next as u8);
        Header::from(((so_far | next) & F_BIT) | (so_far & NRI_MASK).max(next & NRI_MASK) | STAP_A)
    }

    /// RFC 6184 5.8: FU indicator (F and NRI of the NAL unit) and FU header (S, E, R, type).
    fn write_fu(header: Header, start: bool, end: bool, out: &mut [u8]) {
        let header = header as u8;
        out[0] = (header & !TYPE_MASK) | FU_A;
        out[1] = u8::from(start) << 7 | u8::from(end) << 6 | (header & TYPE_MASK);
    }
}
