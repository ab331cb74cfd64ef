//! Byte-exact packets, packets written and read back, hostile bytes.

use proptest::prelude::*;

use super::*;

fn written(f: impl FnOnce(&mut Writer<'_>) -> Result<(), NoRoom>) -> Vec<u8> {
    let mut out = [0xee; 1024];
    let mut writer = Writer::new(&mut out);
    f(&mut writer).unwrap();
    let len = writer.len();
    out[..len].to_vec()
}

fn block() -> ReportBlock {
    ReportBlock {
        ssrc: 0x0a0b_0c0d,
        fraction_lost: 0x40,
        cumulative_lost: -2,
        highest_seq: 0x0001_0002,
        jitter: 3,
        last_sr: 4,
        delay_since_last_sr: 5,
    }
}

#[test]
fn sender_report_with_cname_has_the_bytes_of_the_rfc() {
    let info = SenderInfo { ntp: NtpTime(0x0102_0304_0506_0708), rtp_timestamp: 9, packets: 10, octets: 11 };
    let got = written(|w| {
        w.sender_report(0x1122_3344, &info, &[])?;
        w.cname(0x1122_3344, b"ab")
    });
    let report = [0x80, 200, 0, 6, 0x11, 0x22, 0x33, 0x44, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 9, 0, 0, 0, 10, 0, 0, 0, 11];
    let description = [0x81, 202, 0, 3, 0x11, 0x22, 0x33, 0x44, 1, 2, b'a', b'b', 0, 0, 0, 0];
    assert_eq!(got, [&report[..], &description].concat());
}

#[test]
fn receiver_report_and_bye_have_the_bytes_of_the_rfc() {
    let got = written(|w| {
        w.receiver_report(1, &[block()])?;
        w.bye(1, b"end")
    });
    let report =
        [0x81, 201, 0, 7, 0, 0, 0, 1, 0x0a, 0x0b, 0x0c, 0x0d, 0x40, 0xff, 0xff, 0xfe, 0, 1, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4, 0, 0, 0, 5];
    assert_eq!(got, [&report[..], &[0x81, 203, 0, 2, 0, 0, 0, 1, 3, b'e', b'n', b'd']].concat());
}

#[test]
fn what_does_not_fit_is_not_begun() {
    let mut out = [0; 20];
    let mut writer = Writer::new(&mut out);
    writer.receiver_report(1, &[]).unwrap();
    assert_eq!(writer.cname(1, b"abcdefgh"), Err(NoRoom { needed: 20, free: 12 }));
    assert_eq!(writer.len(), 8);
}

#[test]
fn padding_only_ends_the_last_packet() {
    let empty_rr = [0x80, 201, 0, 1, 0, 0, 0, 1];
    let padded_bye = [0xa1, 203, 0, 2, 0, 0, 0, 1, 0, 0, 0, 4];
    let datagram = [&empty_rr[..], &padded_bye].concat();
    let Some(Packet::Bye(bye)) = Compound::new_checked(&datagram).unwrap().packets().nth(1) else { panic!("no BYE") };
    assert!(bye.includes(1) && bye.reason.is_empty());

    let padded_first = [&[0xa0, 201, 0, 2, 0, 0, 0, 1, 0, 0, 0, 4][..], &padded_bye].concat();
    assert_eq!(Compound::new_checked(&padded_first).err(), Some(BadRtcp::Padding { at: 0 }));
    for padding in [0, 3, 12] {
        let mut datagram = datagram.clone();
        *datagram.last_mut().unwrap() = padding;
        assert_eq!(Compound::new_checked(&datagram).err(), Some(BadRtcp::Padding { at: 8 }));
    }
    // Padding may not eat what the packet needs.
    let mut datagram = datagram.clone();
    *datagram.last_mut().unwrap() = 8;
    assert_eq!(Compound::new_checked(&datagram).err(), Some(BadRtcp::Truncated { at: 8 }));
}

#[test]
fn what_the_standard_forbids_is_refused() {
    let check = |bytes: &[u8]| Compound::new_checked(bytes).err();
    assert_eq!(check(&[]), Some(BadRtcp::Truncated { at: 0 }));
    assert_eq!(check(&[0x81, 203, 0, 1, 0, 0, 0, 1]), Some(BadRtcp::First(203)));
    assert_eq!(check(&[0x41, 201, 0, 1, 0, 0, 0, 1]), Some(BadRtcp::Version { at: 0 }));
    assert_eq!(check(&[0x80, 201, 0, 2, 0, 0, 0, 1]), Some(BadRtcp::Truncated { at: 0 }));
    assert_eq!(check(&[0x81, 201, 0, 1, 0, 0, 0, 1]), Some(BadRtcp::Truncated { at: 0 }));
    assert_eq!(check(&[0x80, 200, 0, 1, 0, 0, 0, 1]), Some(BadRtcp::Truncated { at: 0 }));
    assert_eq!(check(&[0x80, 201, 0, 1, 0, 0, 0, 1, 9]), Some(BadRtcp::Truncated { at: 8 }));
    // An SDES item longer than its packet, and a chunk without its end.
    assert_eq!(check(&[0x80, 201, 0, 1, 0, 0, 0, 1, 0x81, 202, 0, 2, 0, 0, 0, 1, 1, 3, b'a', b'b']), Some(BadRtcp::Truncated { at: 8 }));
    assert_eq!(check(&[0x80, 201, 0, 1, 0, 0, 0, 1, 0x81, 202, 0, 2, 0, 0, 0, 1, 1, 2, b'a', b'b']), Some(BadRtcp::Truncated { at: 8 }));
}

#[test]
fn unknown_packets_and_sdes_of_many_chunks_are_walked_over() {
    let datagram = [
        &[0x80, 201, 0, 1, 0, 0, 0, 1][..],
        &[0x80, 204, 0, 2, 0, 0, 0, 1, b'n', b'a', b'm', b'e'],
        &[0x82, 202, 0, 6],
        &[0, 0, 0, 7, 2, 3, b'B', b'o', b'b', 1, 1, b'x', 0, 0, 0, 0],
        &[0, 0, 0, 8, 0, 0, 0, 0],
    ]
    .concat();
    let compound = Compound::new_checked(&datagram).unwrap();
    let packets: Vec<_> = compound.packets().collect();
    assert!(matches!(packets[..], [Packet::ReceiverReport { ssrc: 1, .. }, Packet::Other(204), Packet::Description(_)]));
    let Packet::Description(items) = packets[2] else { unreachable!() };
    let expected = [SdesItem { ssrc: 7, kind: 2, value: b"Bob" }, SdesItem { ssrc: 7, kind: 1, value: b"x" }];
    assert_eq!(items.collect::<Vec<_>>(), expected);
}

fn any_block() -> impl Strategy<Value = ReportBlock> {
    (any::<(u32, u8)>(), -(1i32 << 23)..(1 << 23), any::<(u32, u32, u32, u32)>()).prop_map(
        |((ssrc, fraction_lost), cumulative_lost, (highest_seq, jitter, last_sr, delay_since_last_sr))| ReportBlock {
            ssrc,
            fraction_lost,
            cumulative_lost,
            highest_seq,
            jitter,
            last_sr,
            delay_since_last_sr,
        },
    )
}

proptest! {
    #[test]
    fn what_is_written_is_read(
        ssrc: u32, ntp: u64, rtp_timestamp: u32, packets: u32, octets: u32, sender: bool,
        blocks in proptest::collection::vec(any_block(), 0..32),
        cname in proptest::collection::vec(any::<u8>(), 0..256), reason in proptest::collection::vec(any::<u8>(), 0..256),
    ) {
        let info = SenderInfo { ntp: NtpTime(ntp), rtp_timestamp, packets, octets };
        let mut out = [0xee; 2048];
        let mut writer = Writer::new(&mut out);
        if sender { writer.sender_report(ssrc, &info, &blocks).unwrap() } else { writer.receiver_report(ssrc, &blocks).unwrap() }
        writer.cname(ssrc, &cname).unwrap();
        writer.bye(ssrc, &reason).unwrap();
        let len = writer.len();
        let compound = Compound::new_checked(&out[..len]).unwrap();
        let read: Vec<_> = compound.packets().collect();
        let expected = &blocks[..blocks.len().min(COUNT_MAX)];
        prop_assert_eq!(read.len(), 3);
        match read[0] {
            Packet::SenderReport { ssrc: from, info: got, reports } if sender => {
                prop_assert_eq!((from, got), (ssrc, info));
                prop_assert_eq!(reports.collect::<Vec<_>>(), expected);
            }
            Packet::ReceiverReport { ssrc: from, reports } if !sender => {
                prop_assert_eq!(from, ssrc);
                prop_assert_eq!(reports.collect::<Vec<_>>(), expected);
            }
            other => prop_assert!(false, "{:?}", other),
        }
        let Packet::Description(items) = read[1] else { panic!("no SDES") };
        prop_assert_eq!(items.collect::<Vec<_>>(), [SdesItem { ssrc, kind: SDES_CNAME, value: &cname }]);
        let Packet::Bye(bye) = read[2] else { panic!("no BYE") };
        prop_assert!(bye.includes(ssrc));
        prop_assert_eq!(bye.reason, &reason[..]);
    }

    #[test]
    fn any_bytes_are_survived(mut bytes in proptest::collection::vec(prop_oneof![any::<u8>(), 0u8..8, 200u8..205, Just(0x81)], 0..200)) {
        if let Some(front) = bytes.first_chunk_mut::<2>() {
            *front = [0x80 | front[0] & 0x3f, 200 + (front[1] & 1)];
        }
        if let Ok(compound) = Compound::new_checked(&bytes) {
            for packet in compound.packets() {
                match packet {
                    Packet::SenderReport { reports, .. } | Packet::ReceiverReport { reports, .. } => prop_assert!(reports.count() <= COUNT_MAX),
                    Packet::Description(items) => prop_assert!(items.count() <= bytes.len()),
                    Packet::Bye(bye) => _ = bye.includes(0),
                    Packet::Other(_) => {}
                }
            }
        }
    }
}
