//! AV1 temporal units from their packets (RTP Payload Format for AV1, v1.0): OBUs get their size fields back.

use super::super::av1::{
    LEB128_BYTES_MAX, OBU_HAS_EXTENSION, OBU_HAS_SIZE, OBU_TEMPORAL_DELIMITER, W_MASK, W_SHIFT, Y, Z, obu_type, read_leb128,
};
use super::{AccessUnit, BadPayload, Unit, split};

/// OBU as it arrives, header first and without size.
#[derive(Debug)]
pub(super) struct Av1Depacketiser {
    pub(super) unit: Unit,
}

impl Av1Depacketiser {
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
        let result = self.read(payload);
        let result = self.unit.spoil(result);
        if marker {
            self.unit.end(sink);
        }
        result
    }

    fn read(&mut self, payload: &[u8]) -> Result<(), BadPayload> {
        let mut rest = payload;
        let aggregation = split(&mut rest, 1, payload)?[0];
        let elements = (aggregation & W_MASK) >> W_SHIFT;
        let mut continues = aggregation & Z != 0;
        if !continues {
            self.unit.abandon_open();
        }
        let mut n = 0;
        while !rest.is_empty() {
            n += 1;
            // With W set the last element has no length; with W=0 each has one.
            let element = if elements != 0 && n == elements {
                std::mem::take(&mut rest)
            } else {
                let (len, bytes) = read_leb128(rest).ok_or(BadPayload::Truncated { at: payload.len() - rest.len() })?;
                split(&mut rest, bytes, payload)?;
                split(&mut rest, len, payload)?
            };
            if elements == 0 {
                n = 0;
            }
            let goes_on = rest.is_empty() && aggregation & Y != 0;
            self.element(element, std::mem::take(&mut continues), goes_on)?;
        }
        Ok(())
    }

    fn element(&mut self, element: &[u8], continues: bool, goes_on: bool) -> Result<(), BadPayload> {
        if !continues {
            self.unit.open = Some(self.unit.data.len());
        } else if self.unit.open.is_none() {
            return Err(BadPayload::NoBeginning);
        }
        self.unit.append(element)?;
        if goes_on { Ok(()) } else { self.close() }
    }

    /// The open OBU is complete: puts its size field in.
    fn close(&mut self) -> Result<(), BadPayload> {
        let Some(start) = self.unit.open else { return Ok(()) };
        let Some(&header) = self.unit.data.get(start) else {
            self.unit.open = None;
            return Ok(());
        };
        if obu_type(header) == OBU_TEMPORAL_DELIMITER {
            self.unit.data.truncate(start);
            self.unit.open = None;
            return Ok(());
        }
        let header_bytes = if header & OBU_HAS_EXTENSION == 0 { 1 } else { 2 };
        let body = start + header_bytes;
        let Some(len) = self.unit.data.len().checked_sub(body) else {
            self.unit.gap();
            return Err(BadPayload::Truncated { at: 0 });
        };
        if header & OBU_HAS_SIZE == 0 {
            let mut size = [0; LEB128_BYTES_MAX];
            let size = write_leb128(len, &mut size);
            self.unit.append(size)?;
            self.unit.data[body..].rotate_right(size.len());
            self.unit.data[start] |= OBU_HAS_SIZE;
        }
        self.unit.open = None;
        Ok(())
    }
}

fn write_leb128(mut value: usize, out: &mut [u8; LEB128_BYTES_MAX]) -> &[u8] {
    let mut len = 0;
    loop {
        let more = value > 0x7f;
        out[len] = (value & 0x7f) as u8 | u8::from(more) << 7;
        len += 1;
        value >>= 7;
        if !more || len == LEB128_BYTES_MAX {
            return &out[..len];
        }
    }
}
