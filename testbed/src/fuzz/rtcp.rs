//! Fuzz target `rtcp`: a stream's sender hears any datagram; what it reads of it, written again, reads the same. The same bytes are read as
//! an RTP packet and as interleaved frames.

use dataplane::rtp::rtcp::{COUNT_MAX, Compound, Packet, Writer};
use dataplane::rtp::sender::REPORT_BYTES_MAX;
use dataplane::rtp::{RtpPacket, RtpSender, SenderSetup, TimeMap, interleaved};

/// The sender's source, which inputs of the corpus report about.
const SSRC: u32 = 1;
const UNIX_NS: u64 = 1_577_836_800_000_000_000;

/// Runs one input.
pub fn run(data: &[u8]) {
    hear(data);
    rewrite(data);
    if let Ok(packet) = RtpPacket::new_checked(data) {
        assert!(packet.payload().len() <= data.len());
    }
    if let Some((channel, packet, bytes)) = interleaved::frame(data) {
        let prefix = interleaved::prefix(channel, packet.len()).expect("it had a length of 16 bits");
        assert_eq!([&prefix[..], packet].concat(), data[..bytes]);
    }
}

fn hear(data: &[u8]) {
    let mut sender = RtpSender::new(SenderSetup { ssrc: SSRC, payload_type: 96, first_seq: 0, clock_rate: 90_000, seed: 1 });
    let mut out = [0; REPORT_BYTES_MAX];
    let map = TimeMap { unix_ns: UNIX_NS, rtp_timestamp: 0, clock_rate: 90_000 };
    sender.note_sent(0, 1);
    sender.write_report(0, UNIX_NS, &map, b"tactus", &mut out).expect("there is room");
    match sender.receive(1, data) {
        Ok(heard) => {
            assert_eq!(heard.report, sender.reception().is_some());
            assert_eq!(heard.bye, sender.receiver_left());
            assert!(sender.receiver_cname().is_none_or(|name| !name.chars().any(char::is_control)));
        }
        Err(_) => assert_eq!((sender.heard_ns(), sender.reception()), (None, None)),
    }
    let len = sender.write_bye(2, UNIX_NS + 2, &map, data, data, &mut out).expect("there is room");
    let ours = Compound::new_checked(&out[..len]).expect("our own compound is valid");
    assert_eq!(ours.packets().count(), 3);
}

/// The first packet is a report, and we can write all that we read of reports.
fn rewrite(data: &[u8]) {
    let Ok(compound) = Compound::new_checked(data) else { return };
    let mut out = vec![0; data.len()];
    let mut writer = Writer::new(&mut out);
    let (info, blocks) = match compound.packets().next() {
        Some(Packet::SenderReport { ssrc, info, reports }) => {
            let blocks: Vec<_> = reports.collect();
            writer.sender_report(ssrc, &info, &blocks).expect("it is no longer than what was read");
            (Some(info), blocks)
        }
        Some(Packet::ReceiverReport { ssrc, reports }) => {
            let blocks: Vec<_> = reports.collect();
            writer.receiver_report(ssrc, &blocks).expect("it is no longer than what was read");
            (None, blocks)
        }
        other => panic!("a compound packet begins with a report, not {other:?}"),
    };
    assert!(blocks.len() <= COUNT_MAX);
    let len = writer.len();
    match Compound::new_checked(&out[..len]).expect("our own compound is valid").packets().next() {
        Some(Packet::SenderReport { info: read, reports, .. }) => {
            assert_eq!(Some(read), info);
            assert!(reports.eq(blocks));
        }
        Some(Packet::ReceiverReport { reports, .. }) => assert!(info.is_none() && reports.eq(blocks)),
        other => panic!("a report became {other:?}"),
    }
}
