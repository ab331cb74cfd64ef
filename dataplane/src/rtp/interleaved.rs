//! RTP and RTCP in the RTSP connection (RFC 2326 10.12): `$`, channel, length, packet.

/// Bytes before each packet.
pub const PREFIX_BYTES: usize = 4;
/// First byte of each frame.
pub const MAGIC: u8 = b'$';

/// The bytes before a packet of `len` bytes. `None`: it is too long for its 16-bit length.
#[inline]
pub fn prefix(channel: u8, len: usize) -> Option<[u8; PREFIX_BYTES]> {
    let [high, low] = u16::try_from(len).ok()?.to_be_bytes();
    Some([MAGIC, channel, high, low])
}

/// The frame at the front of `bytes`, as (channel, packet, bytes of the whole frame).
///
/// `None`: it is not complete yet, or `bytes` do not start with [`MAGIC`] (a message follows instead).
pub fn frame(bytes: &[u8]) -> Option<(u8, &[u8], usize)> {
    let (&[magic, channel, high, low], rest) = bytes.split_first_chunk::<PREFIX_BYTES>()?;
    let len = usize::from(u16::from_be_bytes([high, low]));
    if magic != MAGIC {
        return None;
    }
    rest.get(..len).map(|packet| (channel, packet, PREFIX_BYTES + len))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_read_back_only_when_complete() {
        let bytes = [&prefix(3, 5).unwrap()[..], b"abcde$"].concat();
        assert_eq!(&bytes[..4], b"$\x03\x00\x05");
        assert_eq!(frame(&bytes), Some((3, &b"abcde"[..], 9)));
        for short in 0..9 {
            assert_eq!(frame(&bytes[..short]), None);
        }
        assert_eq!(frame(b"RTSP/1.0 200 OK"), None);
    }

    #[test]
    fn a_packet_too_long_for_its_length_is_refused() {
        assert_eq!(prefix(0, 65_535), Some([b'$', 0, 0xff, 0xff]));
        assert_eq!(prefix(0, 65_536), None);
    }
}
