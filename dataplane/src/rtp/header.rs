//! The RTP header (RFC 3550 5.1).

/// Bytes of the fixed header, which is all that we send.
pub const HEADER_BYTES: usize = 12;

/// Places in the header.
mod field {
    use std::ops::Range;
    pub const FIRST: usize = 0;
    pub const MARKER_AND_TYPE: usize = 1;
    pub const SEQ: Range<usize> = 2..4;
    pub const TIMESTAMP: Range<usize> = 4..8;
    pub const SSRC: Range<usize> = 8..12;
}

const VERSION: u8 = 2;
const MARKER: u8 = 0x80;
const PADDING: u8 = 0x20;
const EXTENSION: u8 = 0x10;
const CSRC_COUNT_MASK: u8 = 0x0f;
/// Bytes of the head of a header extension.
const EXTENSION_HEAD_BYTES: usize = 4;

/// A stream's header, of which each packet patches marker, sequence number and timestamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeaderTemplate([u8; HEADER_BYTES]);

impl HeaderTemplate {
    /// The header of a stream. Only the low 7 bits of `payload_type` count.
    pub fn new(payload_type: u8, ssrc: u32) -> Self {
        let mut header = [0; HEADER_BYTES];
        header[field::FIRST] = VERSION << 6;
        header[field::MARKER_AND_TYPE] = payload_type & !MARKER;
        header[field::SSRC].copy_from_slice(&ssrc.to_be_bytes());
        Self(header)
    }

    /// The header of one packet.
    #[inline]
    pub fn packet(&self, marker: bool, seq: u16, timestamp: u32) -> [u8; HEADER_BYTES] {
        let mut header = self.0;
        header[field::MARKER_AND_TYPE] |= if marker { MARKER } else { 0 };
        header[field::SEQ].copy_from_slice(&seq.to_be_bytes());
        header[field::TIMESTAMP].copy_from_slice(&timestamp.to_be_bytes());
        header
    }
}

/// Why a datagram is no RTP packet (RFC 3550 A.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotRtp {
    /// Its header, sources or extension do not fit in it.
    #[error("shorter than its RTP header")]
    Truncated,
    /// Not RTP version 2.
    #[error("RTP version {0}, not 2")]
    Version(u8),
    /// The padding count is 0 or more than there is.
    #[error("padding of {0} bytes does not fit")]
    Padding(u8),
}

/// An RTP packet in a buffer.
#[derive(Clone, Copy, Debug)]
pub struct RtpPacket<'a> {
    header: &'a [u8; HEADER_BYTES],
    payload: &'a [u8],
}

impl<'a> RtpPacket<'a> {
    /// Checks the lengths and finds the payload.
    ///
    /// # Errors
    /// [`NotRtp`].
    pub fn new_checked(datagram: &'a [u8]) -> Result<Self, NotRtp> {
        let (header, mut rest) = datagram.split_first_chunk::<HEADER_BYTES>().ok_or(NotRtp::Truncated)?;
        let first = header[field::FIRST];
        if first >> 6 != VERSION {
            return Err(NotRtp::Version(first >> 6));
        }
        let sources = usize::from(first & CSRC_COUNT_MASK) * 4;
        rest = rest.get(sources..).ok_or(NotRtp::Truncated)?;
        if first & EXTENSION != 0 {
            let head = rest.first_chunk::<EXTENSION_HEAD_BYTES>().ok_or(NotRtp::Truncated)?;
            let words = usize::from(u16::from_be_bytes([head[2], head[3]]));
            rest = rest.get(EXTENSION_HEAD_BYTES + words * 4..).ok_or(NotRtp::Truncated)?;
        }
        if first & PADDING != 0 {
            let padding = *rest.last().ok_or(NotRtp::Truncated)?;
            let payload = rest.len().checked_sub(usize::from(padding)).filter(|_| padding > 0).ok_or(NotRtp::Padding(padding))?;
            rest = &rest[..payload];
        }
        Ok(Self { header, payload: rest })
    }

    /// Marker bit.
    pub fn marker(&self) -> bool {
        self.header[field::MARKER_AND_TYPE] & MARKER != 0
    }

    /// Payload type.
    pub fn payload_type(&self) -> u8 {
        self.header[field::MARKER_AND_TYPE] & !MARKER
    }

    /// Sequence number.
    pub fn seq(&self) -> u16 {
        u16::from_be_bytes([self.header[2], self.header[3]])
    }

    /// Timestamp.
    pub fn timestamp(&self) -> u32 {
        self.word(field::TIMESTAMP.start)
    }

    /// Synchronisation source.
    pub fn ssrc(&self) -> u32 {
        self.word(field::SSRC.start)
    }

    /// The payload, without padding.
    pub fn payload(&self) -> &'a [u8] {
        self.payload
    }

    fn word(&self, at: usize) -> u32 {
        let h = self.header;
        u32::from_be_bytes([h[at], h[at + 1], h[at + 2], h[at + 3]])
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_header_has_the_bytes_of_the_rfc() {
        let template = HeaderTemplate::new(96, 0x1122_3344);
        let expected = [0x80, 0xe0, 0xab, 0xcd, 0x01, 0x02, 0x03, 0x04, 0x11, 0x22, 0x33, 0x44];
        assert_eq!(template.packet(true, 0xabcd, 0x0102_0304), expected);
        assert_eq!(template.packet(false, 0, 0)[1], 96);
    }

    #[test]
    fn sources_extension_and_padding_are_not_payload() {
        let mut packet = HeaderTemplate::new(8, 7).packet(false, 1, 2).to_vec();
        packet[0] |= 0x31;
        packet.extend([9; 4]);
        packet.extend([0xbe, 0xde, 0, 1, 1, 2, 3, 4]);
        packet.extend([5, 6, 0, 2]);
        assert_eq!(RtpPacket::new_checked(&packet).unwrap().payload(), [5, 6]);
        for short in 0..24 {
            assert_eq!(RtpPacket::new_checked(&packet[..short]).err(), Some(NotRtp::Truncated));
        }
        packet.extend([200]);
        assert_eq!(RtpPacket::new_checked(&packet).err(), Some(NotRtp::Padding(200)));
        packet[0] = 0x40;
        assert_eq!(RtpPacket::new_checked(&packet).err(), Some(NotRtp::Version(1)));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(marker: bool, payload_type in 0u8..128, seq: u16, timestamp: u32, ssrc: u32, payload: Vec<u8>) {
            let header = HeaderTemplate::new(payload_type, ssrc).packet(marker, seq, timestamp);
            let bytes = [&header[..], &payload].concat();
            let packet = RtpPacket::new_checked(&bytes).unwrap();
            prop_assert_eq!((packet.marker(), packet.payload_type(), packet.seq()), (marker, payload_type, seq));
            prop_assert_eq!((packet.timestamp(), packet.ssrc(), packet.payload()), (timestamp, ssrc, &payload[..]));
        }

        #[test]
        fn any_datagram_is_survived(mut bytes: Vec<u8>) {
            if let Some(first) = bytes.first_mut() {
                *first = (*first & 0x3f) | 0x80;
            }
            if let Ok(packet) = RtpPacket::new_checked(&bytes) {
                prop_assert!(packet.payload().len() <= bytes.len() - HEADER_BYTES);
            }
        }
    }
}
