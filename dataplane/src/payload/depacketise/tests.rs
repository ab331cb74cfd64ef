//! Payloads of other senders, losses, and hostile payloads.

use proptest::prelude::*;

use super::*;

fn h264() -> Codec {
    Codec::H264 { length_bytes: 4, sps: vec![], pps: vec![] }
}

fn aac() -> Codec {
    Codec::Aac { config: vec![0x12, 0x10], sample_rate: 44_100, channels: 2 }
}

/// A stream: packets of (payload, marker, timestamp), `None` for a gap. What it shows, as (timestamp, data, intact).
fn units(codec: &Codec, max: usize, packets: &[Option<(&[u8], bool, u32)>]) -> Vec<(u32, Vec<u8>, bool)> {
    let mut depacketiser = Depacketiser::new(codec, max);
    let mut units = Vec::new();
    let mut sink = |unit: AccessUnit<'_>| units.push((unit.timestamp, unit.data.to_vec(), unit.intact));
    for packet in packets {
        match packet {
            Some((payload, marker, timestamp)) => _ = depacketiser.push(payload, *marker, *timestamp, &mut sink),
            None => depacketiser.gap(),
        }
    }
    depacketiser.flush(&mut sink);
    units
}

#[test]
fn a_fragmented_nal_unit_with_a_hole_is_left_out() {
    let packets = [
        Some((&[0x41, 1][..], false, 5)),
        Some((&[0x7c, 0x85, 1, 2], false, 5)),
        None,
        Some((&[0x7c, 0x45, 3], true, 5)),
        Some((&[0x41, 9], true, 6)),
    ];
    let expected = [(5, vec![0, 0, 0, 2, 0x41, 1], false), (6, vec![0, 0, 0, 2, 0x41, 9], true)];
    assert_eq!(units(&h264(), 1000, &packets), expected);
}

#[test]
fn another_time_ends_a_unit_whose_marker_was_lost() {
    let packets = [Some((&[0x41, 1][..], false, 5)), Some((&[0x41, 2], true, 6))];
    let times: Vec<_> = units(&h264(), 1000, &packets).into_iter().map(|(timestamp, ..)| timestamp).collect();
    assert_eq!(times, [5, 6]);
}

#[test]
fn several_aac_units_of_one_packet_get_their_own_times() {
    let payload = [0, 32, 0, 2 << 3, 0, 1 << 3, 7, 8, 9];
    let expected = [(100, vec![7, 8], true), (1124, vec![9], true)];
    assert_eq!(units(&aac(), 1000, &[Some((&payload, true, 100))]), expected);
}

#[test]
fn aac_fragments_recover_after_a_loss() {
    let first = [0, 16, 0, 4 << 3, 1, 2];
    let second = [0, 16, 0, 4 << 3, 3, 4];
    let packets =
        [Some((&first[..], false, 0)), None, Some((&second, true, 1024)), Some((&first, false, 2048)), Some((&second, true, 2048))];
    assert_eq!(units(&aac(), 1000, &packets), [(2048, vec![1, 2, 3, 4], true)]);
}

#[test]
fn av1_elements_with_lengths_get_their_size_fields() {
    let av1 = Codec::Av1 { config: vec![] };
    // W=0: a temporal delimiter of 1 byte, a sequence header of 3, a frame of 2 that goes on.
    let packets = [Some((&[0x48, 1, 0x10, 3, 0x08, 5, 6, 2, 0x30, 7][..], false, 1)), Some((&[0x90, 8], true, 1))];
    assert_eq!(units(&av1, 1000, &packets), [(1, vec![0x0a, 2, 5, 6, 0x32, 2, 7, 8], true)]);
}

#[test]
fn a_unit_never_grows_beyond_its_bound() {
    let mut depacketiser = Depacketiser::new(&h264(), 100);
    let mut sink = |unit: AccessUnit<'_>| assert!(unit.data.len() <= 100 && !unit.intact);
    assert_eq!(depacketiser.push(&[0x7c, 0x85, 1], false, 0, &mut sink), Ok(()));
    assert_eq!(depacketiser.push(&[&[0x7c, 0x05][..], &[7; 88]].concat(), false, 0, &mut sink), Ok(()));
    assert_eq!(depacketiser.push(&[0x7c, 0x05, 1, 2, 3, 4, 5, 6, 7, 8], false, 0, &mut sink), Err(BadPayload::TooLarge { max: 100 }));
    depacketiser.flush(&mut sink);
}

#[test]
fn what_is_not_understood_says_why() {
    let mut sink = |_: AccessUnit<'_>| {};
    let mut h264 = Depacketiser::new(&h264(), 1000);
    assert_eq!(h264.push(&[], false, 0, &mut sink), Err(BadPayload::Truncated { at: 0 }));
    assert_eq!(h264.push(&[0x78, 0, 9, 1], false, 0, &mut sink), Err(BadPayload::Truncated { at: 3 }));
    assert_eq!(h264.push(&[0x7d, 1, 2, 3], false, 0, &mut sink), Err(BadPayload::Unsupported(29)));
    assert_eq!(h264.push(&[0x7c, 0x05, 3], false, 0, &mut sink), Err(BadPayload::NoBeginning));
    let mut aac = Depacketiser::new(&aac(), 1000);
    assert_eq!(aac.push(&[0, 16, 0, (1 << 3) | 1, 5], true, 0, &mut sink), Err(BadPayload::Unsupported(1)));
}

proptest! {
    #[test]
    fn hostile_payloads_are_survived(
        which in 0usize..7,
        packets in proptest::collection::vec(
            (proptest::collection::vec(prop_oneof![any::<u8>(), Just(0x7cu8), Just(0x62), Just(0), Just(16)], 0..60), any::<bool>(), 0u32..3, 0u8..10), 0..40),
    ) {
        let codecs = [
            h264(),
            Codec::H265 { length_bytes: 1, vps: vec![], sps: vec![], pps: vec![] },
            Codec::Av1 { config: vec![] },
            Codec::Mpeg4Visual { config: vec![] },
            aac(),
            Codec::MpegAudio,
            Codec::Opus { channels: 2 },
        ];
        let mut depacketiser = Depacketiser::new(&codecs[which], 300);
        let mut sink = |unit: AccessUnit<'_>| assert!(!unit.data.is_empty() && unit.data.len() <= 300);
        for (payload, marker, timestamp, gap) in &packets {
            if *gap == 0 {
                depacketiser.gap();
            }
            let _ = depacketiser.push(payload, *marker, *timestamp, &mut sink);
        }
        depacketiser.flush(&mut sink);
    }
}
