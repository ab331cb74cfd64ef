//! G.711 (RFC 3551 4.5.14): octets of all channels in turn. A sample larger than a packet is split between sampling instants, and each
//! part has its own RTP time.

use super::fragments::{Next, next_piece};
use super::{BadSample, PacketMeta, SampleBytes, Step};

/// Mu-law and A-law.
#[derive(Debug)]
pub(super) struct PcmPacketiser {
    channels: usize,
    /// Largest payload that ends between two sampling instants.
    room: usize,
    size: usize,
}

impl PcmPacketiser {
    pub(super) fn new(channels: u8, max: usize) -> Self {
        let channels = usize::from(channels.max(1));
        // Not even one instant fits (more than 64 channels and a tiny packet): cut anywhere.
        let room = if channels > max { max } else { max / channels * channels };
        Self { channels, room, size: 0 }
    }

    pub(super) fn begin(&mut self, size: u32, _sync: bool) {
        self.size = size as usize;
    }

    pub(super) fn next(&mut self, sample: &mut impl SampleBytes, out: &mut [u8]) -> Result<Step, BadSample> {
        let piece = match next_piece(sample, self.size, self.room) {
            Next::Piece(piece) => piece,
            Next::Step(step) => return Ok(step),
        };
        sample.take(&mut out[..piece.len]);
        Ok(Step::Packet(PacketMeta {
            len: piece.len,
            marker: false,
            sample_offset: piece.offset as u32,
            timestamp_offset: (piece.offset / self.channels) as u32,
        }))
    }
}
