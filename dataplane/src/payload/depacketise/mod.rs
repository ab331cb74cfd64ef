//! From RTP payloads back to access units in the file's form: the reverse of [`Packetiser`](super::Packetiser).
//!
//! A [`Depacketiser`] is given the payloads of one stream in sequence order, and the place of each gap. It shows an access unit when it is
//! complete: at the marker, at the first packet of another time, or at [`flush`](Depacketiser::flush). It understands more than our
//! own packetiser makes (several AAC access units in a packet, aggregated slices, AV1 with lengths), as other senders do.
//!
//! Payloads are hostile: a unit never grows beyond its bound, and nothing panics.

mod av1;
mod nal;
mod plain;

use self::av1::Av1Depacketiser;
use self::nal::NalDepacketiser;
use self::plain::{AacDepacketiser, MpegAudioDepacketiser, VisualDepacketiser};
use super::h264::H264;
use super::h265::H265;
use crate::media::Codec;

/// An access unit that is complete as far as it arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccessUnit<'a> {
    /// RTP timestamp.
    pub timestamp: u32,
    /// The bytes in the file's form (length-prefixed NAL units, OBUs with sizes, raw frames).
    pub data: &'a [u8],
    /// Nothing is known to be missing.
    pub intact: bool,
}

/// Why a payload was not understood. The access unit that it belongs to is shown without it and not as intact.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadPayload {
    /// It ends before its own lengths say.
    #[error("the payload is cut short at byte {at}")]
    Truncated {
        /// Byte offset in the payload.
        at: usize,
    },
    /// A packet type that the announced packetization mode does not have.
    #[error("packet type {0} is not part of the announced packetization mode")]
    Unsupported(u8),
    /// A fragment whose first part is not there.
    #[error("a fragment without its beginning")]
    NoBeginning,
    /// The access unit is larger than the bound set for this stream.
    #[error("the access unit is larger than {max} bytes")]
    TooLarge {
        /// The bound.
        max: usize,
    },
}

/// Turns RTP payloads of one stream into access units.
#[derive(Debug)]
pub struct Depacketiser {
    format: Format,
}

#[derive(Debug)]
enum Format {
    H264(NalDepacketiser<H264>),
    H265(NalDepacketiser<H265>),
    Av1(Av1Depacketiser),
    Visual(VisualDepacketiser),
    Aac(AacDepacketiser),
    MpegAudio(MpegAudioDepacketiser),
    /// One packet is one unit; true after a gap.
    Packet(bool),
}

impl Depacketiser {
    /// A depacketiser of access units of at most `max_unit_bytes`.
    pub fn new(codec: &Codec, max_unit_bytes: usize) -> Self {
        let unit = Unit::new(max_unit_bytes);
        let format = match codec {
            Codec::H264 { length_bytes, .. } => Format::H264(NalDepacketiser::new(*length_bytes, unit)),
            Codec::H265 { length_bytes, .. } => Format::H265(NalDepacketiser::new(*length_bytes, unit)),
            Codec::Av1 { .. } => Format::Av1(Av1Depacketiser::new(unit)),
            Codec::Mpeg4Visual { .. } => Format::Visual(VisualDepacketiser::new(unit)),
            Codec::Aac { config, .. } => Format::Aac(AacDepacketiser::new(config, unit)),
            Codec::MpegAudio => Format::MpegAudio(MpegAudioDepacketiser::new(unit)),
            Codec::Opus { .. } | Codec::Pcmu { .. } | Codec::Pcma { .. } => Format::Packet(false),
        };
        Self { format }
    }

    /// Takes all memory that it will ever need, for an engine core that may not allocate later.
    pub fn reserve(&mut self) {
        if let Some(unit) = self.unit() {
            unit.data.reserve_exact(unit.max);
        }
    }

    /// Takes the payload of the next packet and shows the access units that are complete now.
    ///
    /// # Errors
    /// [`BadPayload`]; the stream may go on with the next packet.
    pub fn push(&mut self, payload: &[u8], marker: bool, timestamp: u32, sink: &mut impl FnMut(AccessUnit<'_>)) -> Result<(), BadPayload> {
        match &mut self.format {
            Format::H264(f) => f.push(payload, marker, timestamp, sink),
            Format::H265(f) => f.push(payload, marker, timestamp, sink),
            Format::Av1(f) => f.push(payload, marker, timestamp, sink),
            Format::Visual(f) => f.push(payload, marker, timestamp, sink),
            Format::Aac(f) => f.push(payload, marker, timestamp, sink),
            Format::MpegAudio(f) => f.push(payload, timestamp, sink),
            Format::Packet(gap) => {
                if !payload.is_empty() {
                    sink(AccessUnit { timestamp, data: payload, intact: !std::mem::take(gap) });
                }
                Ok(())
            }
        }
    }

    /// Packets are missing here.
    pub fn gap(&mut self) {
        if let Format::Packet(gap) = &mut self.format {
            *gap = true;
        } else if let Some(unit) = self.unit() {
            unit.gap();
        }
    }

    /// The stream ends or is interrupted: shows what there is of the last access unit.
    pub fn flush(&mut self, sink: &mut impl FnMut(AccessUnit<'_>)) {
        if let Some(unit) = self.unit() {
            unit.show(sink);
        }
    }

    fn unit(&mut self) -> Option<&mut Unit> {
        Some(match &mut self.format {
            Format::H264(f) => &mut f.unit,
            Format::H265(f) => &mut f.unit,
            Format::Av1(f) => &mut f.unit,
            Format::Visual(f) => &mut f.unit,
            Format::Aac(f) => &mut f.unit,
            Format::MpegAudio(f) => &mut f.unit,
            Format::Packet(_) => return None,
        })
    }
}

/// An access unit under construction.
#[derive(Debug)]
struct Unit {
    data: Vec<u8>,
    max: usize,
    timestamp: u32,
    intact: bool,
    /// Where the part (NAL unit, OBU, frame) starts whose end has not arrived.
    open: Option<usize>,
}

impl Unit {
    fn new(max: usize) -> Self {
        Self { data: Vec::new(), max, timestamp: 0, intact: true, open: None }
    }

    /// A packet of this time follows: shows the unit of another time, if there is one.
    fn at(&mut self, timestamp: u32, sink: &mut impl FnMut(AccessUnit<'_>)) {
        if timestamp != self.timestamp {
            self.show(sink);
        }
        self.timestamp = timestamp;
    }

    /// Shows the unit and starts an empty one.
    fn show(&mut self, sink: &mut impl FnMut(AccessUnit<'_>)) {
        self.abandon_open();
        if !self.data.is_empty() {
            sink(AccessUnit { timestamp: self.timestamp, data: &self.data, intact: self.intact });
            self.intact = true;
        }
        self.data.clear();
    }

    /// The marker was seen: shows the unit; what was lost before does not concern the next one.
    fn end(&mut self, sink: &mut impl FnMut(AccessUnit<'_>)) {
        self.show(sink);
        self.intact = true;
    }

    fn gap(&mut self) {
        self.intact = false;
        self.abandon_open();
    }

    /// Takes back the part whose end will not arrive.
    fn abandon_open(&mut self) {
        if let Some(start) = self.open.take() {
            self.data.truncate(start);
            self.intact = false;
        }
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), BadPayload> {
        if bytes.len() > self.max.saturating_sub(self.data.len()) {
            self.gap();
            return Err(BadPayload::TooLarge { max: self.max });
        }
        self.data.extend_from_slice(bytes);
        Ok(())
    }

    /// Notes that something of this unit was lost, and passes the error on.
    fn spoil<T>(&mut self, result: Result<T, BadPayload>) -> Result<T, BadPayload> {
        if result.is_err() {
            self.intact = false;
        }
        result
    }
}

/// Splits `n` bytes off the front of `bytes`, which is the rest of `payload`.
fn split<'a>(bytes: &mut &'a [u8], n: usize, payload: &[u8]) -> Result<&'a [u8], BadPayload> {
    let (front, rest) = bytes.split_at_checked(n).ok_or(BadPayload::Truncated { at: payload.len() - bytes.len() })?;
    *bytes = rest;
    Ok(front)
}

#[cfg(test)]
mod tests;
