//! AAC (RFC 3640, mode AAC-hbr): one access unit in each packet, or fragments of one.
//!
//! ```text
//! |AU-headers-length 16 bits = 16|AU-size 13 bits|AU-Index 3 bits = 0|access unit or fragment|
//! ```

use super::fragments::{Next, next_piece};
use super::{BadSample, PacketMeta, SampleBytes, Step};

/// Bytes before the access unit.
const HEADER_BYTES: usize = 4;
/// Bits of one AU header; what AU-headers-length says.
pub(super) const AU_HEADER_BITS: u16 = 16;
/// RFC 3640 3.3.6: sizelength=13.
pub(super) const AU_SIZE_MAX: usize = (1 << 13) - 1;
/// RFC 3640 3.3.6: indexlength=3.
pub(super) const AU_INDEX_BITS: u32 = 3;

/// AAC access units.
#[derive(Debug)]
pub(super) struct AacPacketiser {
    max: usize,
    size: usize,
}

impl AacPacketiser {
    pub(super) fn new(max: usize) -> Self {
        Self { max, size: 0 }
    }

    pub(super) fn begin(&mut self, size: u32, _sync: bool) {
        self.size = size as usize;
    }

    pub(super) fn next(&mut self, sample: &mut impl SampleBytes, out: &mut [u8]) -> Result<Step, BadSample> {
        if self.size > AU_SIZE_MAX {
            return Err(BadSample { at: 0 });
        }
        let piece = match next_piece(sample, self.size, self.max - HEADER_BYTES) {
            Next::Piece(piece) => piece,
            Next::Step(step) => return Ok(step),
        };
        // RFC 3640 3.2.3.1: in a fragment too, AU-size is that of the whole access unit, and M marks the last fragment.
        let au_header = (self.size as u16) << AU_INDEX_BITS;
        out[..2].copy_from_slice(&AU_HEADER_BITS.to_be_bytes());
        out[2..HEADER_BYTES].copy_from_slice(&au_header.to_be_bytes());
        let len = HEADER_BYTES + piece.len;
        sample.take(&mut out[HEADER_BYTES..len]);
        Ok(Step::Packet(PacketMeta { len, marker: piece.last, sample_offset: piece.offset as u32, timestamp_offset: 0 }))
    }
}
