//! A stream's reports and what it hears, as traces in simulated time.

use proptest::prelude::*;

use super::*;

const SECOND: u64 = pacing::NS_PER_SEC;
/// The moment of RFC 3550's example, 6.4.1 figure 2.
const UNIX_NS: u64 = 816_003_205_125_000_000;
const MAP: TimeMap = TimeMap { unix_ns: UNIX_NS, rtp_timestamp: 1000, clock_rate: 90_000 };
const SSRC: u32 = 0x5555_0001;
const CLIENT: u32 = 0x7777_0002;

fn sender() -> RtpSender {
    RtpSender::new(SenderSetup { ssrc: SSRC, payload_type: 96, first_seq: 65_535, clock_rate: 90_000, seed: 1 })
}

/// Writes a report at `now_ns`, wall clock running along; returns the compound.
fn report(sender: &mut RtpSender, now_ns: u64) -> Vec<u8> {
    let mut out = [0; REPORT_BYTES_MAX];
    let len = sender.write_report(now_ns, UNIX_NS + now_ns, &MAP, b"tactus@host", &mut out).unwrap();
    out[..len].to_vec()
}

fn info(compound: &[u8]) -> Option<SenderInfo> {
    match Compound::new_checked(compound).unwrap().packets().next() {
        Some(Packet::SenderReport { ssrc: SSRC, info, .. }) => Some(info),
        _ => None,
    }
}

fn client(f: impl FnOnce(&mut Writer<'_>) -> Result<(), NoRoom>) -> Vec<u8> {
    let mut out = [0; 1024];
    let mut writer = Writer::new(&mut out);
    f(&mut writer).unwrap();
    let len = writer.len();
    out[..len].to_vec()
}

#[test]
fn the_first_report_is_due_with_the_first_packet_and_again_after_a_restart() {
    let mut sender = sender();
    assert_eq!(sender.next_report_ns(), None);
    sender.note_sent(7, 100);
    assert_eq!(sender.next_report_ns(), Some(7));
    let got = info(&report(&mut sender, 7)).unwrap();
    assert_eq!((got.packets, got.octets), (1, 100));
    let next = sender.next_report_ns().unwrap() - 7;
    assert!((REPORT_INTERVAL_NS / 2..REPORT_INTERVAL_NS * 3 / 2).contains(&next));
    sender.restart();
    sender.note_sent(900, 100);
    assert_eq!(sender.next_report_ns(), Some(900));
}

#[test]
fn intervals_are_spread_around_five_seconds() {
    let mut sender = sender();
    let intervals: Vec<u64> = (0..1000).map(|_| sender.interval_ns()).collect();
    assert!(intervals.iter().all(|ns| (REPORT_INTERVAL_NS / 2..REPORT_INTERVAL_NS * 3 / 2).contains(ns)));
    let mean = intervals.iter().sum::<u64>() / 1000;
    assert!(mean.abs_diff(REPORT_INTERVAL_NS) < SECOND / 4, "{mean}");
    let mut other = RtpSender::new(SenderSetup { seed: 2, ..self::sender().setup });
    assert_ne!(other.interval_ns(), intervals[0]);
}

#[test]
fn ntp_and_rtp_times_of_a_report_are_of_the_same_moment() {
    let mut sender = sender();
    sender.note_sent(0, 1);
    let got = info(&report(&mut sender, 2 * SECOND)).unwrap();
    assert_eq!(got.ntp.to_unix_ns(), UNIX_NS + 2 * SECOND);
    assert_eq!(got.rtp_timestamp, 1000 + 180_000);
    assert_eq!(MAP.rtp_at(UNIX_NS - SECOND), 1000u32.wrapping_sub(90_000));
    // Half a tick before is the tick before.
    assert_eq!(MAP.rtp_at(UNIX_NS - 1), 999);
}

#[test]
fn a_stream_that_is_silent_for_two_reports_writes_receiver_reports() {
    let mut sender = sender();
    sender.note_sent(0, 1);
    assert!(info(&report(&mut sender, 0)).is_some());
    assert!(info(&report(&mut sender, 5 * SECOND)).is_some());
    assert!(info(&report(&mut sender, 10 * SECOND)).is_none());
    sender.note_sent(11 * SECOND, 1);
    assert!(info(&report(&mut sender, 12 * SECOND)).is_some());
}

#[test]
fn goodbye_is_said_only_by_a_stream_that_was_heard() {
    let mut sender = sender();
    let mut out = [0; REPORT_BYTES_MAX];
    assert_eq!(sender.write_bye(0, UNIX_NS, &MAP, b"c", b"end", &mut out), Ok(0));
    sender.note_sent(0, 1);
    let len = sender.write_bye(0, UNIX_NS, &MAP, &[b'c'; 300], &[b'r'; 300], &mut out).unwrap();
    let packets: Vec<_> = Compound::new_checked(&out[..len]).unwrap().packets().collect();
    let [Packet::SenderReport { .. }, Packet::Description(_), Packet::Bye(bye)] = packets[..] else { panic!("{packets:?}") };
    assert!(bye.includes(SSRC) && bye.reason.len() == 255);
    assert_eq!(sender.next_report_ns(), None);
}

#[test]
fn sequence_numbers_wrap() {
    let mut sender = sender();
    assert_eq!(sender.header(false, 5)[2..4], [0xff, 0xff]);
    assert_eq!(sender.header(true, 5)[1..4], [0xe0, 0, 0]);
    assert_eq!(sender.next_seq(), 1);
}

#[test]
fn round_trip_time_of_the_example_of_the_rfc() {
    let mut sender = sender();
    sender.note_sent(0, 1);
    let sent = info(&report(&mut sender, 0)).unwrap();
    assert_eq!(sent.ntp.short(), 0xb705_2000);
    let block = ReportBlock {
        ssrc: SSRC,
        fraction_lost: 64,
        cumulative_lost: -3,
        jitter: 900,
        last_sr: 0xb705_2000,
        delay_since_last_sr: 0x0005_4000,
        ..ReportBlock::default()
    };
    let other = ReportBlock { ssrc: 1, fraction_lost: 9, ..block };
    let heard = sender.receive(11_375_000_000, &client(|w| w.receiver_report(CLIENT, &[other, block]))).unwrap();
    assert_eq!(heard, Heard { report: true, bye: false });
    let got = sender.reception().unwrap();
    assert_eq!((got.fraction_lost, got.cumulative_lost, got.jitter_us), (64, -3, 10_000));
    assert_eq!(got.round_trip_ns, Some(6_125_000_000));

    // A report that repeats a sender report of which nothing is known keeps the figure.
    let unknown = ReportBlock { last_sr: 5, ..block };
    sender.receive(12 * SECOND, &client(|w| w.receiver_report(CLIENT, &[unknown]))).unwrap();
    assert_eq!(sender.reception().unwrap().round_trip_ns, Some(6_125_000_000));
}

#[test]
fn the_receivers_name_and_goodbye_are_its_own() {
    let mut sender = sender();
    let heard =
        sender.receive(1, &client(|w| w.receiver_report(CLIENT, &[]).and_then(|()| w.cname(1, b"other")).and_then(|()| w.bye(1, b""))));
    assert_eq!(heard, Ok(Heard::default()));
    assert_eq!((sender.receiver_cname(), sender.receiver_left(), sender.heard_ns()), (None, false, Some(1)));

    let name = b"a\\b\x00\xff\xc3\xa9";
    let heard = sender
        .receive(2, &client(|w| w.receiver_report(CLIENT, &[]).and_then(|()| w.cname(CLIENT, name)).and_then(|()| w.bye(CLIENT, b""))));
    assert_eq!(heard, Ok(Heard { report: false, bye: true }));
    assert_eq!(sender.receiver_cname().as_deref(), Some("a\\\\b\\x00\\xffé"));
    assert!(sender.receiver_left());
}

#[test]
fn what_is_no_rtcp_changes_nothing() {
    let mut sender = sender();
    assert!(sender.receive(1, &[0x80, 96, 0, 0]).is_err());
    assert_eq!((sender.heard_ns(), sender.reception()), (None, None));
}

proptest! {
    #[test]
    fn any_report_is_survived(
        seed: u64, clock_rate: u32, now in any::<[u64; 3]>(), unix: u64, map in any::<(u64, u32)>(), fraction_lost: u8,
        words in any::<[u32; 4]>(), name: Vec<u8>,
    ) {
        let mut sender = RtpSender::new(SenderSetup { ssrc: SSRC, payload_type: 0, first_seq: 0, clock_rate, seed });
        sender.note_sent(now[0], 1);
        let map = TimeMap { unix_ns: map.0, rtp_timestamp: map.1, clock_rate };
        let mut out = [0; REPORT_BYTES_MAX];
        sender.write_report(now[1], unix, &map, &name, &mut out).unwrap();
        let [highest_seq, jitter, last_sr, delay_since_last_sr] = words;
        let block = ReportBlock { ssrc: SSRC, fraction_lost, cumulative_lost: 0, highest_seq, jitter, last_sr, delay_since_last_sr };
        sender.receive(now[2], &client(|w| w.receiver_report(CLIENT, &[block]).and_then(|()| w.cname(CLIENT, &name)))).unwrap();
        prop_assert!(sender.reception().is_some());
        prop_assert_eq!(sender.receiver_cname().is_some(), !name.is_empty());
    }

    #[test]
    fn printable_text_has_no_control_characters_and_loses_nothing(raw: Vec<u8>) {
        let text = printable(&raw);
        prop_assert!(!text.chars().any(char::is_control));
        let mut back = Vec::new();
        let mut bytes = text.bytes();
        while let Some(byte) = bytes.next() {
            match byte {
                b'\\' => match bytes.next() {
                    Some(b'x') => {
                        let digits = [bytes.next().unwrap(), bytes.next().unwrap()];
                        back.push(u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap());
                    }
                    other => back.push(other.unwrap()),
                },
                byte => back.push(byte),
            }
        }
        prop_assert_eq!(back, raw);
    }
}
