//! Payload formats: from samples to RTP payloads, one packet at a time, without allocation.
//!
//! ```text
//! file ─► SampleBytes ─► Packetiser ─► payload + PacketMeta ─► (network) ─► Depacketiser ─► access units as in the file
//! ```
//!
//! A [`Packetiser`] is fed one sample after another. It reads the sample through [`SampleBytes`], which may hold only a part of it yet
//! (the rest is still on its way from the disk), and writes the next packet's payload into the frame. It never looks further into the
//! sample than the largest payload plus [`LOOKAHEAD_BYTES`]. A [`Depacketiser`] is its reverse. [`format_of`] says how a codec is
//! announced in SDP.

mod aac;
pub mod announced;
mod av1;
pub mod codec_name;
pub mod depacketise;
pub mod format;
mod fragments;
mod h264;
mod h265;
mod nal;
pub mod packetiser;
mod pcm;
pub mod slice_bytes;
#[doc(hidden)]
pub mod verify;

pub(crate) use av1::read_leb128;
pub use depacketise::{AccessUnit, BadPayload, Depacketiser};
pub use format::{PayloadFormat, format_of};
pub use packetiser::{BadSample, Packetiser};
pub use slice_bytes::SliceBytes;

/// How far beyond the largest payload a packetiser may look into a sample: whoever implements [`SampleBytes`] must be able to make the
/// largest payload plus this many bytes resident at once (or the whole rest of the sample), else delivery would wait for ever.
pub const LOOKAHEAD_BYTES: usize = 160;

/// The bytes of one sample, as far as they are resident.
pub trait SampleBytes {
    /// Bytes of the sample not yet taken, resident or not.
    fn remaining(&self) -> usize;
    /// Of these, how many are resident without a gap.
    fn resident(&self) -> usize;
    /// Copies `dst.len()` bytes that start `skip` bytes ahead, without taking them. False when they are not all resident.
    fn peek(&self, skip: usize, dst: &mut [u8]) -> bool;
    /// Takes `dst.len()` bytes. False (and nothing taken) when they are not all resident.
    fn take(&mut self, dst: &mut [u8]) -> bool;
    /// Takes `n` bytes without copying them. False (and nothing taken) when they are not all resident.
    fn skip(&mut self, n: usize) -> bool;
}

/// What a packetiser did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A payload was written.
    Packet(PacketMeta),
    /// The bytes of the next packet are not resident yet; nothing was taken (except padding that is not sent).
    NeedData,
    /// The sample is finished and all its bytes were taken; feed the next one.
    SampleDone,
}

/// About one payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PacketMeta {
    /// Payload bytes written.
    pub len: usize,
    /// RTP marker bit: the last packet of an access unit of video or AAC. Other audio has no silence suppression and never sets it
    /// (RFC 3551 4.1).
    pub marker: bool,
    /// Where in the sample the payload's share begins (a NAL unit's begins at its length field): its share of the sample's time (even
    /// spreading). The first packet's is 0; it never decreases. Parameter sets that were put in have that of the packet that follows.
    pub sample_offset: u32,
    /// Added to the RTP timestamp of the sample, in units of the RTP clock: packets of a split sample of PCM have times of their own.
    pub timestamp_offset: u32,
}
