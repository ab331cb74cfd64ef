//! Access units of MPEG-4 visual (RFC 6416), AAC (RFC 3640) and MPEG audio (RFC 2250) from their packets.

use super::super::aac::{AU_HEADER_BITS, AU_INDEX_BITS};
use super::super::fragments::MPEG_AUDIO_HEADER_BYTES;
use super::{AccessUnit, BadPayload, Unit, split};

#[derive(Debug)]
pub(super) struct VisualDepacketiser {
    pub(super) unit: Unit,
}

impl VisualDepacketiser {
    pub(super) fn new(unit: Unit) -> Self {
        Self { unit }
    }

    pub(super) fn push(
        &mut self,
        payload: &[u8],
        marker: bool,
        timestamp: u32,
        sink: &mut impl FnMut(AccessUnit<'_>),
    ) -> Result<(), BadPayload> {
        self.unit.at(timestamp, sink);
        let result = self.unit.append(payload);
        if marker {
            self.unit.end(sink);
        }
        result
    }
}

/// Payloads are whole frames, or fragments of one; only the next packet's time shows that a fragment was the last.
#[derive(Debug)]
pub(super) struct MpegAudioDepacketiser {
    pub(super) unit: Unit,
}

impl MpegAudioDepacketiser {
    pub(super) fn new(unit: Unit) -> Self {
        Self { unit }
    }

    pub(super) fn push(&mut self, payload: &[u8], timestamp: u32, sink: &mut impl FnMut(AccessUnit<'_>)) -> Result<(), BadPayload> {
        let result = self.read(payload, timestamp, sink);
        self.unit.spoil(result)
    }

    fn read(&mut self, payload: &[u8], timestamp: u32, sink: &mut impl FnMut(AccessUnit<'_>)) -> Result<(), BadPayload> {
        self.unit.at(timestamp, sink);
        let mut body = payload;
        let header = split(&mut body, MPEG_AUDIO_HEADER_BYTES, payload)?;
        let offset = usize::from(u16::from_be_bytes([header[2], header[3]]));
        if offset == 0 {
            self.unit.show(sink);
        } else if offset != self.unit.data.len() {
            return Err(BadPayload::NoBeginning);
        }
        self.unit.append(body)
    }
}

/// Sampling instants of an AAC access unit (ISO 14496-3 table 4.111).
const AU_INSTANTS: u32 = 1024;
/// The same with frameLengthFlag set.
const AU_INSTANTS_SHORT: u32 = 960;

#[derive(Debug)]
pub(super) struct AacDepacketiser {
    pub(super) unit: Unit,
    /// Size of the access unit that fragments are being collected of.
    expected: usize,
    instants: u32,
}

impl AacDepacketiser {
    pub(super) fn new(config: &[u8], unit: Unit) -> Self {
        Self { unit, expected: 0, instants: instants(config) }
    }

    /// RFC 3640 3.2.
    pub(super) fn push(
        &mut self,
        payload: &[u8],
        marker: bool,
        timestamp: u32,
        sink: &mut impl FnMut(AccessUnit<'_>),
    ) -> Result<(), BadPayload> {
        self.unit.at(timestamp, sink);
        let result = self.read(payload, timestamp, sink);
        let result = self.unit.spoil(result);
        if marker {
            self.unit.end(sink);
        }
        result
    }

    fn read(&mut self, payload: &[u8], timestamp: u32, sink: &mut impl FnMut(AccessUnit<'_>)) -> Result<(), BadPayload> {
        let mut rest = payload;
        let bits = split(&mut rest, 2, payload)?;
        let bits = u16::from_be_bytes([bits[0], bits[1]]);
        if bits == 0 || !bits.is_multiple_of(AU_HEADER_BITS) {
            return Err(BadPayload::Truncated { at: 0 });
        }
        let headers = split(&mut rest, usize::from(bits / 8), payload)?;
        if headers.len() == 2 {
            let size = size_of_au(headers)?;
            if size > rest.len() {
                return self.fragment(size, rest);
            }
        }
        for (n, header) in headers.chunks_exact(2).enumerate() {
            self.unit.at(timestamp.wrapping_add(self.instants.wrapping_mul(n as u32)), sink);
            let unit = split(&mut rest, size_of_au(header)?, payload)?;
            self.unit.abandon_open();
            self.unit.append(unit)?;
            self.unit.show(sink);
        }
        Ok(())
    }

    fn fragment(&mut self, size: usize, body: &[u8]) -> Result<(), BadPayload> {
        if self.unit.open.is_none() {
            if !self.unit.intact {
                return Err(BadPayload::NoBeginning);
            }
            self.unit.open = Some(self.unit.data.len());
            self.expected = size;
        }
        self.unit.append(body)?;
        if self.unit.data.len() > size || size != self.expected {
            self.unit.gap();
            return Err(BadPayload::Truncated { at: 0 });
        }
        if self.unit.data.len() == size {
            self.unit.open = None;
        }
        Ok(())
    }
}

/// Interleaved access units (an index other than 0) are not part of what is announced.
fn size_of_au(header: &[u8]) -> Result<usize, BadPayload> {
    let &[high, low] = header else { return Err(BadPayload::Truncated { at: 2 }) };
    let index = low & ((1 << AU_INDEX_BITS) - 1);
    if index != 0 {
        return Err(BadPayload::Unsupported(index));
    }
    Ok(usize::from(u16::from_be_bytes([high, low]) >> AU_INDEX_BITS))
}

/// frameLengthFlag follows 5 bits of object type, 4 of rate (15: 24 more) and 4 of channels (ISO 14496-3 1.6.2.1).
fn instants(config: &[u8]) -> u32 {
    let bit = |n: usize| config.get(n / 8).is_some_and(|byte| byte >> (7 - n % 8) & 1 == 1);
    let explicit_rate = (5..9).all(bit);
    if bit(if explicit_rate { 13 + 24 } else { 13 }) { AU_INSTANTS_SHORT } else { AU_INSTANTS }
}
