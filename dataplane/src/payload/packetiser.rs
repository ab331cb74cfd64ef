//! The packetiser of a track: one of the payload formats behind one face.

use super::aac::AacPacketiser;
use super::av1::Av1Packetiser;
use super::fragments::{MpegAudioPacketiser, OpusPacketiser, PlainPacketiser};
use super::h264::H264;
use super::h265::H265;
use super::nal::NalPacketiser;
use super::pcm::PcmPacketiser;
use super::{SampleBytes, Step};
use crate::media::Codec;

/// Smallest bound on payloads; a smaller one is raised to this.
pub const MIN_PAYLOAD_BYTES: usize = 64;
/// Largest bound on payloads: with its RTP header the packet still fits a UDP datagram (RFC 768) and an interleaved frame (RFC 2326 10.12).
pub const MAX_PAYLOAD_BYTES: usize = 65_000;

/// Turns samples of one track into RTP payloads.
#[derive(Debug)]
pub struct Packetiser {
    format: Format,
    max_payload_bytes: usize,
}

#[derive(Debug)]
enum Format {
    H264(NalPacketiser<H264>),
    H265(NalPacketiser<H265>),
    Av1(Av1Packetiser),
    Mpeg4Visual(PlainPacketiser),
    Aac(AacPacketiser),
    MpegAudio(MpegAudioPacketiser),
    Opus(OpusPacketiser),
    Pcm(PcmPacketiser),
}

/// A sample that its payload format cannot carry (for instance: NAL lengths that do not add up). The sample is to be skipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("sample does not parse as its codec at byte {at}")]
pub struct BadSample {
    /// Byte offset in the sample.
    pub at: u32,
}

/// Runs `$body` with `$f` bound to the format's packetiser.
macro_rules! each_format {
    ($format:expr, $f:ident => $body:expr) => {
        match $format {
            Format::H264($f) => $body,
            Format::H265($f) => $body,
            Format::Av1($f) => $body,
            Format::Mpeg4Visual($f) => $body,
            Format::Aac($f) => $body,
            Format::MpegAudio($f) => $body,
            Format::Opus($f) => $body,
            Format::Pcm($f) => $body,
        }
    };
}

impl Packetiser {
    /// A packetiser whose payloads are at most `max_payload_bytes` long, which is brought into [`MIN_PAYLOAD_BYTES`] to
    /// [`MAX_PAYLOAD_BYTES`].
    pub fn new(codec: &Codec, max_payload_bytes: usize) -> Self {
        let max = max_payload_bytes.clamp(MIN_PAYLOAD_BYTES, MAX_PAYLOAD_BYTES);
        let format = match codec {
            Codec::H264 { length_bytes, sps, pps } => Format::H264(NalPacketiser::new(*length_bytes, sps.iter().chain(pps), max)),
            Codec::H265 { length_bytes, vps, sps, pps } => {
                Format::H265(NalPacketiser::new(*length_bytes, vps.iter().chain(sps).chain(pps), max))
            }
            Codec::Av1 { .. } => Format::Av1(Av1Packetiser::new(max)),
            Codec::Mpeg4Visual { .. } => Format::Mpeg4Visual(PlainPacketiser::new(max)),
            Codec::Aac { .. } => Format::Aac(AacPacketiser::new(max)),
            Codec::MpegAudio => Format::MpegAudio(MpegAudioPacketiser::new(max)),
            Codec::Opus { .. } => Format::Opus(OpusPacketiser::new(max)),
            Codec::Pcmu { channels, .. } | Codec::Pcma { channels, .. } => Format::Pcm(PcmPacketiser::new(*channels, max)),
        };
        Self { format, max_payload_bytes: max }
    }

    /// The largest payload that [`next`](Self::next) writes.
    pub fn max_payload_bytes(&self) -> usize {
        self.max_payload_bytes
    }

    /// Starts the next sample, of `size` bytes. What was left of the one before is forgotten.
    pub fn begin(&mut self, size: u32, sync: bool) {
        each_format!(&mut self.format, f => f.begin(size, sync));
    }

    /// Writes the next payload to the front of `out`, which is at least as long as the largest payload.
    ///
    /// # Errors
    /// [`BadSample`]; nothing more of this sample can be sent, and what is left of its bytes is the caller's to skip. `out` that is too
    /// short is answered in the same way.
    #[inline]
    pub fn next(&mut self, sample: &mut impl SampleBytes, out: &mut [u8]) -> Result<Step, BadSample> {
        let Some(out) = out.get_mut(..self.max_payload_bytes) else {
            debug_assert!(false, "frame shorter than the largest payload");
            return Err(BadSample { at: 0 });
        };
        each_format!(&mut self.format, f => f.next(sample, out))
    }
}

#[cfg(test)]
mod tests;
