//! The little RTCP (RFC 3550 6) that a measuring receiver speaks: reads sender reports and BYE, writes receiver reports.

/// What one compound packet said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Heard {
    /// Middle 32 bits of the NTP time of a sender report.
    pub sender_report_ntp: Option<u32>,
    /// The sender ends the stream.
    pub bye: bool,
}

const SENDER_REPORT: u8 = 200;
const RECEIVER_REPORT: u8 = 201;
const SOURCE_DESCRIPTION: u8 = 202;
const BYE: u8 = 203;

/// Reads a compound packet as far as it is whole.
pub fn parse(mut packet: &[u8]) -> Heard {
    let mut heard = Heard::default();
    while let Some((&[flags, kind, high, low], body)) = packet.split_first_chunk::<4>() {
        if flags >> 6 != 2 {
            break;
        }
        let length = 4 * usize::from(u16::from_be_bytes([high, low]));
        let here = body.get(..length).unwrap_or(body);
        match kind {
            // RFC 3550 6.4.1: SSRC, NTP seconds, NTP fraction.
            SENDER_REPORT => {
                if let Some(&[a, b, c, d]) = here.get(6..10).and_then(|s| s.first_chunk::<4>()) {
                    heard.sender_report_ntp = Some(u32::from_be_bytes([a, b, c, d]));
                }
            }
            BYE => heard.bye = true,
            _ => {}
        }
        packet = body.get(length..).unwrap_or_default();
    }
    heard
}

/// The contents of a report block (RFC 3550 6.4.1).
#[derive(Clone, Copy, Debug, Default)]
pub struct Block {
    /// Whose packets these are about.
    pub ssrc: u32,
    /// Fraction lost since the last report, of 256.
    pub fraction_lost: u8,
    /// Packets lost in all.
    pub lost: u32,
    /// Extended highest sequence number.
    pub highest_seq: u32,
    /// Interarrival jitter in timestamp units.
    pub jitter: u32,
    /// Middle of the NTP time of the last sender report.
    pub last_sr: u32,
    /// Since then, in units of 1/65536 s.
    pub delay_since_last_sr: u32,
}

/// Length of what [`write_report`] writes.
pub const REPORT_BYTES: usize = 32 + 20;

/// RFC 3550 6.1: a receiver report and the source description that must go with it.
pub fn write_report(own_ssrc: u32, block: &Block) -> [u8; REPORT_BYTES] {
    let mut packet = [0u8; REPORT_BYTES];
    let lost = block.lost.min(0x7f_ffff).to_be_bytes();
    let fields: [[u8; 4]; 8] = [
        [0x81, RECEIVER_REPORT, 0, 7],
        own_ssrc.to_be_bytes(),
        block.ssrc.to_be_bytes(),
        [block.fraction_lost, lost[1], lost[2], lost[3]],
        block.highest_seq.to_be_bytes(),
        block.jitter.to_be_bytes(),
        block.last_sr.to_be_bytes(),
        block.delay_since_last_sr.to_be_bytes(),
    ];
    let (report, description) = packet.split_at_mut(32);
    for (place, field) in report.chunks_exact_mut(4).zip(fields) {
        place.copy_from_slice(&field);
    }
    // CNAME (item 1) "testbed", an end mark and padding.
    let ssrc = own_ssrc.to_be_bytes();
    let text =
        [0x81, SOURCE_DESCRIPTION, 0, 4, ssrc[0], ssrc[1], ssrc[2], ssrc[3], 1, 7, b't', b'e', b's', b't', b'b', b'e', b'd', 0, 0, 0];
    description.copy_from_slice(&text);
    packet
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sender_report_and_bye_are_read() {
        let mut packet = vec![0x80, SENDER_REPORT, 0, 6];
        packet.extend_from_slice(&[0, 0, 0, 1, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88]);
        packet.extend_from_slice(&[0; 12]);
        packet.extend_from_slice(&[0x81, BYE, 0, 1, 0, 0, 0, 1]);
        assert_eq!(parse(&packet), Heard { sender_report_ntp: Some(0x3344_5566), bye: true });
        for cut in 0..packet.len() {
            parse(&packet[..cut]);
        }
    }

    #[test]
    fn a_report_is_a_whole_compound_packet() {
        let packet = write_report(7, &Block { ssrc: 9, lost: 3, ..Block::default() });
        assert_eq!(packet[1], RECEIVER_REPORT);
        assert_eq!(packet.len(), 4 * (1 + usize::from(packet[3])) + 4 * (1 + usize::from(packet[35])));
        assert_eq!(packet[33], SOURCE_DESCRIPTION);
        assert_eq!(packet[12..16], [0, 0, 0, 3]);
    }
}
