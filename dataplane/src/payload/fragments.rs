//! Formats that cut a sample into pieces as they come: MPEG audio (RFC 2250), MPEG-4 visual (RFC 6416), and Opus (RFC 7587), which is
//! never cut.

use super::{BadSample, PacketMeta, SampleBytes, Step};

/// The next piece of a sample.
pub(super) struct Piece {
    /// Where it starts in the sample.
    pub(super) offset: usize,
    /// Its bytes.
    pub(super) len: usize,
    /// It is the last one.
    pub(super) last: bool,
}

pub(super) enum Next {
    Piece(Piece),
    Step(Step),
}

/// The next piece of at most `room` bytes of a sample of `size` bytes, if it is resident.
#[inline]
pub(super) fn next_piece(sample: &impl SampleBytes, size: usize, room: usize) -> Next {
    let remaining = sample.remaining();
    if remaining == 0 {
        return Next::Step(Step::SampleDone);
    }
    let len = remaining.min(room);
    if sample.resident() < len {
        return Next::Step(Step::NeedData);
    }
    Next::Piece(Piece { offset: size.saturating_sub(remaining), len, last: len == remaining })
}

/// MPEG-4 visual (RFC 6416 5): a VOP with the headers before it, cut where the packet is full.
#[derive(Debug)]
pub(super) struct PlainPacketiser {
    max: usize,
    size: usize,
}

impl PlainPacketiser {
    pub(super) fn new(max: usize) -> Self {
        Self { max, size: 0 }
    }

    pub(super) fn begin(&mut self, size: u32, _sync: bool) {
        self.size = size as usize;
    }

    pub(super) fn next(&mut self, sample: &mut impl SampleBytes, out: &mut [u8]) -> Result<Step, BadSample> {
        let piece = match next_piece(sample, self.size, self.max) {
            Next::Piece(piece) => piece,
            Next::Step(step) => return Ok(step),
        };
        sample.take(&mut out[..piece.len]);
        let sample_offset = piece.offset as u32;
        Ok(Step::Packet(PacketMeta { len: piece.len, marker: piece.last, sample_offset, timestamp_offset: 0 }))
    }
}

/// Bytes of the header of MPEG audio payloads (RFC 2250 3.5): 16 zero bits, then the fragment's offset in its frame.
pub(super) const MPEG_AUDIO_HEADER_BYTES: usize = 4;

/// MPEG-1/2 audio.
#[derive(Debug)]
pub(super) struct MpegAudioPacketiser {
    max: usize,
    size: usize,
}

impl MpegAudioPacketiser {
    pub(super) fn new(max: usize) -> Self {
        Self { max, size: 0 }
    }

    pub(super) fn begin(&mut self, size: u32, _sync: bool) {
        self.size = size as usize;
    }

    pub(super) fn next(&mut self, sample: &mut impl SampleBytes, out: &mut [u8]) -> Result<Step, BadSample> {
        // The offset of any fragment fits its 16 bits only if that of the last one does; no real frame has more than a few kilobytes.
        if self.size > usize::from(u16::MAX) {
            return Err(BadSample { at: 0 });
        }
        let piece = match next_piece(sample, self.size, self.max - MPEG_AUDIO_HEADER_BYTES) {
            Next::Piece(piece) => piece,
            Next::Step(step) => return Ok(step),
        };
        let (header, body) = out.split_at_mut(MPEG_AUDIO_HEADER_BYTES);
        header.copy_from_slice(&(piece.offset as u32).to_be_bytes());
        sample.take(&mut body[..piece.len]);
        let len = MPEG_AUDIO_HEADER_BYTES + piece.len;
        Ok(Step::Packet(PacketMeta { len, marker: false, sample_offset: piece.offset as u32, timestamp_offset: 0 }))
    }
}

/// Opus: one Opus packet in each RTP packet (RFC 7587 4.2).
#[derive(Debug)]
pub(super) struct OpusPacketiser {
    max: usize,
}

impl OpusPacketiser {
    pub(super) fn new(max: usize) -> Self {
        Self { max }
    }

    pub(super) fn begin(&mut self, _size: u32, _sync: bool) {}

    pub(super) fn next(&mut self, sample: &mut impl SampleBytes, out: &mut [u8]) -> Result<Step, BadSample> {
        let len = sample.remaining();
        if len > self.max {
            return Err(BadSample { at: 0 });
        }
        match next_piece(sample, len, len) {
            Next::Piece(_) => sample.take(&mut out[..len]),
            Next::Step(step) => return Ok(step),
        };
        Ok(Step::Packet(PacketMeta { len, marker: false, sample_offset: 0, timestamp_offset: 0 }))
    }
}
