//! Access units on a tape: a header of fixed size, then the bytes in the form that MP4 samples have.
//!
//! ```text
//! offset  0       8       16           20        24      28      32
//!         at_ns   dts     pts - dts    span_ns   bytes   flags   the access unit ...
//! ```
//!
//! All numbers are little-endian. `dts` and `pts` count in the track's RTP clock from wherever the sender began; `at_ns` is the
//! engine core's own time at which the access unit is decoded, with no delay added, the same line for all tracks of one channel.

/// Bytes before each access unit.
pub const HEADER_BYTES: usize = 32;

const SYNC: u32 = 1;
const BREAK: u32 = 2;

/// What is known of an access unit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecordHeader {
    /// Decode time on the engine core's clock, nanoseconds; never less than that of the record before.
    pub at_ns: u64,
    /// Decode time, units of the RTP clock; never less than that of the record before, unless this one is a `discontinuity`.
    pub dts: i64,
    /// Presentation time minus decode time, units of the RTP clock.
    pub pts_offset: i32,
    /// Time until the next record as far as it can be told, nanoseconds.
    pub span_ns: u32,
    /// Bytes of the access unit.
    pub bytes: u32,
    /// A decoder can start here.
    pub sync: bool,
    /// The times before are of another sender, or of another time line.
    pub discontinuity: bool,
}

impl RecordHeader {
    /// As it lies on the tape.
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut out = [0; HEADER_BYTES];
        let flags = if self.sync { SYNC } else { 0 } | if self.discontinuity { BREAK } else { 0 };
        out[0..8].copy_from_slice(&self.at_ns.to_le_bytes());
        out[8..16].copy_from_slice(&self.dts.to_le_bytes());
        out[16..20].copy_from_slice(&self.pts_offset.to_le_bytes());
        out[20..24].copy_from_slice(&self.span_ns.to_le_bytes());
        out[24..28].copy_from_slice(&self.bytes.to_le_bytes());
        out[28..32].copy_from_slice(&flags.to_le_bytes());
        out
    }

    /// From the tape.
    pub fn decode(header: &[u8; HEADER_BYTES]) -> Self {
        let word = |at: usize| header.get(at..).and_then(|rest| rest.first_chunk()).copied().unwrap_or_default();
        let long = |at: usize| header.get(at..).and_then(|rest| rest.first_chunk()).copied().unwrap_or_default();
        let flags = u32::from_le_bytes(word(28));
        Self {
            at_ns: u64::from_le_bytes(long(0)),
            dts: i64::from_le_bytes(long(8)),
            pts_offset: i32::from_le_bytes(word(16)),
            span_ns: u32::from_le_bytes(word(20)),
            bytes: u32::from_le_bytes(word(24)),
            sync: flags & SYNC != 0,
            discontinuity: flags & BREAK != 0,
        }
    }

    /// Presentation time, units of the RTP clock.
    pub fn pts(&self) -> i64 {
        self.dts.saturating_add(i64::from(self.pts_offset))
    }
}

/// A record and where it lies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// Its header.
    pub header: RecordHeader,
    /// Offset of the header on the tape.
    pub offset: u64,
}

impl Record {
    /// Offset of the access unit on the tape.
    pub fn data_offset(&self) -> u64 {
        self.offset + HEADER_BYTES as u64
    }

    /// Offset of the record after it.
    pub fn end(&self) -> u64 {
        self.data_offset() + u64::from(self.header.bytes)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_written_is_read(at_ns: u64, dts: i64, pts_offset: i32, span_ns: u32, bytes: u32, sync: bool, discontinuity: bool) {
            let header = RecordHeader { at_ns, dts, pts_offset, span_ns, bytes, sync, discontinuity };
            prop_assert_eq!(RecordHeader::decode(&header.encode()), header);
            let record = Record { header, offset: 7 };
            prop_assert_eq!(record.end() - record.data_offset(), u64::from(bytes));
        }
    }
}
