//! AV1 (RTP Payload Format for AV1, v1.0): each packet carries one OBU or a fragment of one, without its size field (W=1).
//!
//! ```text
//! sample:  |header has_size=1|size|payload|...      temporal delimiters are dropped
//! packet:  |Z Y W W N 0 0 0|header has_size=0|payload
//! ```

use super::{BadSample, PacketMeta, SampleBytes, Step};

/// Aggregation header: this packet begins with the continuation of an OBU.
pub(super) const Z: u8 = 0x80;
/// Aggregation header: the last OBU goes on in the next packet.
pub(super) const Y: u8 = 0x40;
/// Aggregation header: number of OBU elements, 0 when each has a length.
pub(super) const W_MASK: u8 = 0x30;
/// Position of W.
pub(super) const W_SHIFT: u32 = 4;
/// Aggregation header: first packet of a coded video sequence.
pub(super) const N: u8 = 0x08;

/// OBU header: a size field follows.
pub(super) const OBU_HAS_SIZE: u8 = 0x02;
/// OBU header: an extension byte follows.
pub(super) const OBU_HAS_EXTENSION: u8 = 0x04;
/// OBU type of temporal delimiters.
pub(super) const OBU_TEMPORAL_DELIMITER: u8 = 2;

/// Longest size field (AV1 4.10.5).
pub(super) const LEB128_BYTES_MAX: usize = 8;
/// So many temporal delimiters in a row are an error: bounds the work per packet.
pub(super) const DELIMITER_RUN: usize = 4;

/// The OBU type in an OBU header.
pub(super) fn obu_type(header: u8) -> u8 {
    header >> 3 & 0x0f
}

/// Reads a LEB128 number of at most 32 bits: (value, its bytes). `None`: it is cut off or too large.
pub(crate) fn read_leb128(bytes: &[u8]) -> Option<(usize, usize)> {
    let mut value = 0u64;
    for (i, &byte) in bytes.iter().take(LEB128_BYTES_MAX).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * i);
        if byte & 0x80 == 0 {
            return u32::try_from(value).ok().map(|value| (value as usize, i + 1));
        }
    }
    None
}

/// An OBU found ahead.
#[derive(Clone, Copy)]
struct Obu {
    /// Header as it is sent: without a size field.
    header: [u8; 2],
    header_bytes: usize,
    /// Bytes ahead at which its payload starts.
    payload_at: usize,
    payload: usize,
}

enum Look {
    Obu(Obu),
    End,
    NeedData,
}

/// AV1 temporal units.
#[derive(Debug)]
pub(super) struct Av1Packetiser {
    max: usize,
    size: usize,
    /// The next packet is the first of a coded video sequence.
    new_sequence: bool,
    /// Payload bytes left of an OBU that is being sent in fragments.
    left: usize,
}

impl Av1Packetiser {
    pub(super) fn new(max: usize) -> Self {
        Self { max, size: 0, new_sequence: false, left: 0 }
    }

    pub(super) fn begin(&mut self, size: u32, sync: bool) {
        self.size = size as usize;
        self.new_sequence = sync;
        self.left = 0;
    }

    pub(super) fn next(&mut self, sample: &mut impl SampleBytes, out: &mut [u8]) -> Result<Step, BadSample> {
        let (header, header_bytes, payload_at, payload) = if self.left > 0 {
            ([0; 2], 0, 0, self.left)
        } else {
            match self.obu_at(sample, 0)? {
                Look::Obu(obu) => (obu.header, obu.header_bytes, obu.payload_at, obu.payload),
                Look::NeedData => return Ok(Step::NeedData),
                Look::End => {
                    let delimiters = sample.remaining();
                    return Ok(if sample.skip(delimiters) { Step::SampleDone } else { Step::NeedData });
                }
            }
        };
        let front = 1 + header_bytes;
        let n = payload.min(self.max - front);
        if sample.resident() < payload_at + n {
            return Ok(Step::NeedData);
        }
        let ends = n == payload;
        let mut marker = false;
        if ends {
            match self.obu_at(sample, payload_at + n) {
                Ok(Look::NeedData) => return Ok(Step::NeedData),
                Ok(Look::Obu(_)) => {}
                // Behind an error nothing can be sent: the temporal unit ends here.
                Ok(Look::End) | Err(_) => marker = true,
            }
        }
        let sample_offset = self.size.saturating_sub(sample.remaining()) as u32;
        let continues = if header_bytes == 0 { Z } else { 0 };
        let goes_on = if ends { 0 } else { Y };
        let sequence = if self.new_sequence { N } else { 0 };
        out[0] = continues | goes_on | 1 << W_SHIFT | sequence;
        out[1..front].copy_from_slice(&header[..header_bytes]);
        sample.skip(payload_at);
        sample.take(&mut out[front..front + n]);
        self.new_sequence = false;
        self.left = payload - n;
        Ok(Step::Packet(PacketMeta { len: front + n, marker, sample_offset, timestamp_offset: 0 }))
    }

    /// The first OBU that is no temporal delimiter, `from` bytes ahead or later.
    fn obu_at(&self, sample: &impl SampleBytes, mut from: usize) -> Result<Look, BadSample> {
        let bad = |from: usize| BadSample { at: (self.size.saturating_sub(sample.remaining()) + from) as u32 };
        for _ in 0..=DELIMITER_RUN {
            let ahead = sample.remaining().saturating_sub(from);
            if ahead == 0 {
                return Ok(Look::End);
            }
            let mut bytes = [0u8; 2 + LEB128_BYTES_MAX];
            let seen = ahead.min(bytes.len());
            let bytes = &mut bytes[..seen];
            if !sample.peek(from, bytes) {
                return Ok(Look::NeedData);
            }
            let first = bytes[0];
            let header_bytes = if first & OBU_HAS_EXTENSION == 0 { 1 } else { 2 };
            let (payload, size_bytes) = if first & OBU_HAS_SIZE == 0 {
                (ahead.checked_sub(header_bytes).ok_or(bad(from))?, 0)
            } else {
                bytes.get(header_bytes..).and_then(read_leb128).ok_or(bad(from))?
            };
            let front = header_bytes + size_bytes;
            if front + payload > ahead {
                return Err(bad(from));
            }
            if obu_type(first) != OBU_TEMPORAL_DELIMITER {
                let header = [first & !OBU_HAS_SIZE, bytes.get(1).copied().unwrap_or(0)];
                return Ok(Look::Obu(Obu { header, header_bytes, payload_at: from + front, payload }));
            }
            if payload > 0 {
                return Err(bad(from));
            }
            from += front;
        }
        Err(bad(from))
    }
}
