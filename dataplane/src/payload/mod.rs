//! Payload formats: from samples to RTP payloads, one packet at a time, without allocation.
//!
//! A packetiser is fed one sample after another. It reads the sample through [`SampleBytes`], which may hold only a part of it yet (the
//! rest is still on its way from the disk), and writes the next packet's payload into the frame. It never looks further into the sample
//! than the packet needs.

pub mod format;
pub mod packetiser;

pub use format::{PayloadFormat, format_of};
pub use packetiser::{BadSample, Packetiser};

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
    /// The bytes of the next packet are not resident yet; nothing was taken.
    NeedData,
    /// The sample is finished; feed the next one.
    SampleDone,
}

/// About one payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PacketMeta {
    /// Payload bytes written.
    pub len: usize,
    /// RTP marker bit.
    pub marker: bool,
    /// Where in the sample the payload's first byte came from: its share of the sample's time (even spreading).
    pub sample_offset: u32,
    /// To be added to the sample's RTP timestamp, RTP clock units.
    pub timestamp_offset: u32,
}
