//! NAL units of H.264 (RFC 6184) and H.265 (RFC 7798) from their packets.

use std::marker::PhantomData;

use super::super::nal::{Header, NalFormat, read_header};
use super::super::{h264, h265};
use super::{AccessUnit, BadPayload, Unit, split};
use crate::payload::h264::H264;
use crate::payload::h265::H265;

/// What a packet is.
pub(in crate::payload) enum Kind {
    Single,
    Aggregation,
    Fragment,
    Unsupported(u8),
}

/// The receiving side of [`NalFormat`].
pub(in crate::payload) trait NalReceive: NalFormat {
    /// What a packet with this payload header is.
    fn kind(header: Header) -> Kind;
    /// The header of the NAL unit that a fragmentation unit is part of, from its payload header and FU header.
    fn fragmented(header: Header, fu_header: u8) -> Header;
}

impl NalReceive for H264 {
    fn kind(header: Header) -> Kind {
        match h264::nal_type(header) {
            h264::STAP_A => Kind::Aggregation,
            h264::FU_A => Kind::Fragment,
            other if H264::is_reserved(header) => Kind::Unsupported(other),
            _ => Kind::Single,
        }
    }

    fn fragmented(header: Header, fu_header: u8) -> Header {
        (header & 0xe0) | Header::from(fu_header & 0x1f)
    }
}

impl NalReceive for H265 {
    fn kind(header: Header) -> Kind {
        match h265::nal_type(header) {
            h265::AP => Kind::Aggregation,
            h265::FU => Kind::Fragment,
            other if H265::is_reserved(header) => Kind::Unsupported(other),
            _ => Kind::Single,
        }
    }

    fn fragmented(header: Header, fu_header: u8) -> Header {
        h265::with_type(header, fu_header & 0x3f)
    }
}

/// FU header: first fragment.
const START: u8 = 0x80;
/// FU header: last fragment.
const END: u8 = 0x40;

#[derive(Debug)]
pub(super) struct NalDepacketiser<F> {
    length_bytes: usize,
    pub(super) unit: Unit,
    format: PhantomData<F>,
}

impl<F: NalReceive> NalDepacketiser<F> {
    pub(super) fn new(length_bytes: u8, unit: Unit) -> Self {
        Self { length_bytes: usize::from(length_bytes.clamp(1, 4)), unit, format: PhantomData }
    }

    pub(super) fn push(
        &mut self,
        payload: &[u8],
        marker: bool,
        timestamp: u32,
        sink: &mut impl FnMut(AccessUnit<'_>),
    ) -> Result<(), BadPayload> {
        self.unit.at(timestamp, sink);
        let result = self.read(payload);
        let result = self.unit.spoil(result);
        if marker {
            self.unit.end(sink);
        }
        result
    }

    fn read(&mut self, payload: &[u8]) -> Result<(), BadPayload> {
        let header = read_header::<F>(payload).ok_or(BadPayload::Truncated { at: payload.len() })?;
        let kind = F::kind(header);
        if !matches!(kind, Kind::Fragment) {
            self.unit.abandon_open();
        }
        match kind {
            Kind::Single => self.nal(payload),
            Kind::Aggregation => {
                let mut rest = &payload[F::HEADER_BYTES..];
                while !rest.is_empty() {
                    let size = split(&mut rest, 2, payload)?;
                    let nal = split(&mut rest, usize::from(u16::from_be_bytes([size[0], size[1]])), payload)?;
                    self.nal(nal)?;
                }
                Ok(())
            }
            Kind::Fragment => {
                let fu_header = *payload.get(F::HEADER_BYTES).ok_or(BadPayload::Truncated { at: payload.len() })?;
                self.fragment(F::fragmented(header, fu_header), fu_header, &payload[F::FU_BYTES..])
            }
            Kind::Unsupported(kind) => Err(BadPayload::Unsupported(kind)),
        }
    }

    fn nal(&mut self, nal: &[u8]) -> Result<(), BadPayload> {
        if nal.is_empty() {
            return Ok(());
        }
        self.unit.open = Some(self.unit.data.len());
        self.unit.append(&[0; 4][..self.length_bytes])?;
        self.unit.append(nal)?;
        self.close()
    }

    fn fragment(&mut self, header: Header, fu_header: u8, body: &[u8]) -> Result<(), BadPayload> {
        if fu_header & START != 0 {
            self.unit.abandon_open();
            self.unit.open = Some(self.unit.data.len());
            self.unit.append(&[0; 4][..self.length_bytes])?;
            self.unit.append(&header.to_be_bytes()[2 - F::HEADER_BYTES..])?;
        } else if self.unit.open.is_none() {
            return Err(BadPayload::NoBeginning);
        }
        self.unit.append(body)?;
        if fu_header & END != 0 { self.close() } else { Ok(()) }
    }

    /// The open NAL unit is complete: writes its length.
    fn close(&mut self) -> Result<(), BadPayload> {
        let Some(start) = self.unit.open else { return Ok(()) };
        let body = start + self.length_bytes;
        let len = (self.unit.data.len() - body) as u64;
        if len >> (8 * self.length_bytes) != 0 {
            self.unit.gap();
            return Err(BadPayload::TooLarge { max: (1 << (8 * self.length_bytes)) - 1 });
        }
        self.unit.data[start..body].copy_from_slice(&len.to_be_bytes()[8 - self.length_bytes..]);
        self.unit.open = None;
        Ok(())
    }
}
