//! H.265 (RFC 7798, without DONL): single NAL unit, aggregation (AP) and fragmentation unit (FU) packets.

use super::nal::{Header, NalFormat};

/// RFC 7798 4.4.2.
pub(super) const AP: u8 = 48;
/// RFC 7798 4.4.3.
pub(super) const FU: u8 = 49;
/// RFC 7798 4.4.4; the last type that the payload format uses. Those above it (vendors' metadata) travel as they are.
const PACI: u8 = 50;
const VPS: u8 = 32;
const SPS: u8 = 33;
const PPS: u8 = 34;
const DELIMITER: u8 = 35;

const F_BIT: Header = 0x8000;
const TYPE_MASK: Header = 0x7e00;
const LAYER_MASK: Header = 0x01f8;
const TID_MASK: Header = 0x0007;

/// H.265's NAL units.
#[derive(Debug)]
pub(super) struct H265;

/// The NAL unit type in a header.
pub(super) fn nal_type(header: Header) -> u8 {
    ((header & TYPE_MASK) >> 9) as u8
}

/// The header with another type.
pub(super) fn with_type(header: Header, kind: u8) -> Header {
    (header & !TYPE_MASK) | (Header::from(kind) << 9 & TYPE_MASK)
}

impl NalFormat for H265 {
    const HEADER_BYTES: usize = 2;
    const FU_BYTES: usize = 3;
    const ALL_SETS: u8 = 0b111;

    fn is_delimiter(header: Header) -> bool {
        nal_type(header) == DELIMITER
    }

    fn is_slice(header: Header) -> bool {
        nal_type(header) < VPS
    }

    fn is_reserved(header: Header) -> bool {
        (AP..=PACI).contains(&nal_type(header))
    }

    fn set_kind(header: Header) -> u8 {
        match nal_type(header) {
            VPS => 0b001,
            SPS => 0b010,
            PPS => 0b100,
            _ => 0,
        }
    }

    /// RFC 7798 4.4.2: F is set when any is; layer and temporal id are the lowest of all.
    fn aggregate(so_far: Option<Header>, next: Header) -> Header {
        let so_far = so_far.unwrap_or(next);
        let layer = (so_far & LAYER_MASK).min(next & LAYER_MASK);
        let tid = (so_far & TID_MASK).min(next & TID_MASK);
        with_type(((so_far | next) & F_BIT) | layer | tid, AP)
    }

    /// RFC 7798 4.4.3: payload header (the NAL unit's with type 49) and FU header (S, E, type).
    fn write_fu(header: Header, start: bool, end: bool, out: &mut [u8]) {
        out[..2].copy_from_slice(&with_type(header, FU).to_be_bytes());
        out[2] = u8::from(start) << 7 | u8::from(end) << 6 | nal_type(header);
    }
}
