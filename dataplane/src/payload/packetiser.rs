//! The packetiser of a track: one of the payload formats behind one face.

use super::{SampleBytes, Step};
use crate::media::Codec;

/// Turns samples of one track into RTP payloads.
#[derive(Debug)]
pub struct Packetiser {}

/// A sample that its payload format cannot carry (for instance: NAL lengths that do not add up). The sample is to be skipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("sample does not parse as its codec at byte {at}")]
pub struct BadSample {
    /// Byte offset in the sample.
    pub at: u32,
}

impl Packetiser {
    /// A packetiser whose payloads are at most `max_payload_bytes` long (at least 64).
    pub fn new(_codec: &Codec, _max_payload_bytes: usize) -> Self {
        Self {}
    }

    /// Starts the next sample, of `size` bytes.
    pub fn begin(&mut self, _size: u32, _sync: bool) {}

    /// Writes the next payload to the front of `out`, which is at least as long as the largest payload.
    ///
    /// # Errors
    /// [`BadSample`]; nothing more of this sample can be sent.
    pub fn next(&mut self, _sample: &mut impl SampleBytes, _out: &mut [u8]) -> Result<Step, BadSample> {
        Ok(Step::SampleDone)
    }
}
