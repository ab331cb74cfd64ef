//! Byte-exact packets, and random samples through [`verify::roundtrip`].

use proptest::prelude::*;

use super::*;
use crate::payload::verify::{self, Sent};

const SPS: [u8; 4] = [0x67, 0x64, 0x00, 0x28];
const PPS: [u8; 2] = [0x68, 0xee];

fn h264() -> Codec {
    Codec::H264 { length_bytes: 4, sps: vec![SPS.to_vec()], pps: vec![PPS.to_vec()] }
}

fn h265() -> Codec {
    Codec::H265 { length_bytes: 4, vps: vec![vec![0x40, 1, 9]], sps: vec![vec![0x42, 1, 8]], pps: vec![vec![0x44, 1, 7]] }
}

fn aac() -> Codec {
    Codec::Aac { config: vec![0x12, 0x10], sample_rate: 44_100, channels: 2 }
}

/// A sample of NAL units with 4-byte lengths.
fn sample(nals: &[&[u8]]) -> Vec<u8> {
    nals.iter().flat_map(|nal| (nal.len() as u32).to_be_bytes().into_iter().chain(nal.iter().copied())).collect()
}

/// A NAL unit: header, then bytes that count up.
fn nal(header: &[u8], len: usize) -> Vec<u8> {
    header.iter().copied().chain((0..).map(|n: usize| n as u8)).take(len).collect()
}

fn send(codec: &Codec, max: usize, sample: &[u8], sync: bool) -> Sent {
    verify::roundtrip(codec, max, sample, sync, &[])
}

/// (payload, marker, sample_offset) of each packet.
fn packets(codec: &Codec, max: usize, sample: &[u8], sync: bool) -> Vec<(Vec<u8>, bool, u32)> {
    let sent = send(codec, max, sample, sync);
    assert_eq!(sent.error, None);
    sent.packets.into_iter().map(|(meta, payload)| (payload, meta.marker, meta.sample_offset)).collect()
}

#[test]
fn h264_small_slices_are_single_nal_units() {
    let got = packets(&h264(), 64, &sample(&[&[0x41, 1, 2], &[0x41, 3]]), false);
    assert_eq!(got, [(vec![0x41, 1, 2], false, 0), (vec![0x41, 3], true, 7)]);
}

#[test]
fn h264_parameter_sets_precede_a_sync_sample_in_one_stap_a() {
    let got = packets(&h264(), 64, &sample(&[&[0x65, 1]]), true);
    // STAP-A of NRI 3, size 4, SPS, size 2, PPS.
    let stap = vec![0x78, 0, 4, 0x67, 0x64, 0x00, 0x28, 0, 2, 0x68, 0xee];
    assert_eq!(got, [(stap, false, 0), (vec![0x65, 1], true, 0)]);
}

#[test]
fn h264_what_precedes_the_slices_goes_in_the_same_stap_a_in_the_order_of_the_standard() {
    let got = packets(&h264(), 64, &sample(&[&[0x09, 0x10], &[0x06, 5, 1], &[0x65, 1]]), true);
    let stap = [&[0x78, 0, 2, 0x09, 0x10, 0, 4][..], &SPS, &[0, 2], &PPS, &[0, 3, 0x06, 5, 1]].concat();
    assert_eq!(got, [(stap, false, 0), (vec![0x65, 1], true, 13)]);
}

#[test]
fn h264_parameter_sets_in_band_are_not_doubled() {
    let got = packets(&h264(), 64, &sample(&[&[0x67, 9, 9, 9], &[0x68, 8], &[0x65, 1]]), true);
    assert_eq!(got[0].0, [0x78, 0, 4, 0x67, 9, 9, 9, 0, 2, 0x68, 8]);
    assert_eq!(got.len(), 2);
    // An SPS alone is not enough: the sample entry's sets come before it, and the one in band has the last word.
    let got = packets(&h264(), 64, &sample(&[&[0x67, 9], &[0x65, 1]]), true);
    assert_eq!(got[0].0, [&[0x78, 0, 4][..], &SPS, &[0, 2], &PPS, &[0, 2, 0x67, 9]].concat());
}

#[test]
fn h264_parameter_sets_too_large_for_a_packet_are_left_to_the_sdp() {
    let codec = Codec::H264 { length_bytes: 4, sps: vec![nal(&[0x67], 70)], pps: vec![PPS.to_vec()] };
    assert_eq!(packets(&codec, 64, &sample(&[&[0x65, 1]]), true).len(), 1);
}

#[test]
fn h264_a_delimiter_goes_alone_when_the_sets_fill_the_packet() {
    let codec = Codec::H264 { length_bytes: 4, sps: vec![nal(&[0x67], 55)], pps: vec![PPS.to_vec()] };
    let got = packets(&codec, 64, &sample(&[&[0x09, 0x10], &[0x65, 1]]), true);
    let lens: Vec<usize> = got.iter().map(|(payload, ..)| payload.len()).collect();
    assert_eq!(lens, [2, 1 + 2 + 55 + 2 + 2, 2]);
}

#[test]
fn h264_large_slices_become_fu_a() {
    let slice = nal(&[0x65], 150);
    let got = packets(&h264(), 64, &sample(&[&slice]), false);
    // 149 bytes behind the header in fragments of 62, 62, 25; indicator: NRI 3, type 28; header: S, none, E and type 5.
    assert_eq!(got.len(), 3);
    assert_eq!(got[0].0, [&[0x7c, 0x85], &slice[1..63]].concat());
    assert_eq!(got[1].0, [&[0x7c, 0x05], &slice[63..125]].concat());
    assert_eq!(got[2].0, [&[0x7c, 0x45], &slice[125..150]].concat());
    assert_eq!(got.iter().map(|p| (p.1, p.2)).collect::<Vec<_>>(), [(false, 0), (false, 67), (true, 129)]);
}

#[test]
fn h264_fragmentation_starts_where_a_single_nal_unit_ends() {
    let lens = |len| -> Vec<usize> {
        packets(&h264(), 64, &sample(&[&nal(&[0x65], len)]), false).iter().map(|(payload, ..)| payload.len()).collect()
    };
    assert_eq!(lens(64), [64]);
    assert_eq!(lens(65), [64, 4]);
    assert_eq!(lens(125), [64, 64]);
    assert_eq!(lens(126), [64, 64, 3]);
}

#[test]
fn h264_types_of_the_payload_format_itself_travel_in_fragments() {
    let got = packets(&h264(), 64, &sample(&[&[0x7c, 1, 2, 3]]), false);
    assert_eq!(got, [(vec![0x7c, 0x9c, 1, 2], false, 0), (vec![0x7c, 0x5c, 3], true, 7)]);
    assert_eq!(send(&h264(), 64, &sample(&[&[0x41], &[0x7c, 1]]), false).error, Some(BadSample { at: 5 }));
}

#[test]
fn empty_nal_units_are_skipped_and_a_long_row_is_padding() {
    let got = packets(&h264(), 64, &sample(&[&[], &[0x41, 1], &[], &[0x41, 2], &[], &[]]), false);
    assert_eq!(got, [(vec![0x41, 1], false, 0), (vec![0x41, 2], true, 10)]);
    let mut padded = sample(&[&[0x41, 1]]);
    padded.resize(10_000, 0);
    assert_eq!(packets(&h264(), 64, &padded, false), [(vec![0x41, 1], true, 0)]);
    // Padding that arrives in parts is padding still, whatever its last part looks like.
    padded.extend([9; 3]);
    assert_eq!(verify::roundtrip(&h264(), 64, &padded, false, &[7]).error, None);
    assert_eq!(packets(&h264(), 64, &[0; 5000], true), []);
    assert_eq!(packets(&h264(), 64, &[], true), []);
}

#[test]
fn nal_lengths_that_do_not_add_up_are_bad() {
    for (tail, at) in [(&[0, 0, 0, 9, 1][..], 6), (&[0, 0], 6), (&[0xff; 9], 6)] {
        let broken = [&sample(&[&[0x41, 1]]), tail].concat();
        let sent = send(&h264(), 64, &broken, false);
        assert_eq!(sent.error, Some(BadSample { at }));
        let (meta, _) = &sent.packets[0];
        assert!(meta.marker, "what was sent is a whole access unit to the receiver");
    }
}

#[test]
fn h265_parameter_sets_precede_a_sync_sample_in_one_ap() {
    let got = packets(&h265(), 64, &sample(&[&[0x26, 1, 5]]), true);
    let ap = vec![0x60, 1, 0, 3, 0x40, 1, 9, 0, 3, 0x42, 1, 8, 0, 3, 0x44, 1, 7];
    assert_eq!(got, [(ap, false, 0), (vec![0x26, 1, 5], true, 0)]);
}

#[test]
fn h265_an_ap_has_the_lowest_layer_and_temporal_id() {
    // Prefix SEI in layer 0 with TID 3 and in layer 5 with TID 2.
    let got = packets(&h265(), 64, &sample(&[&[0x4e, 0x03, 1], &[0x4e, 0x2a, 2], &[0x02, 0x01]]), false);
    assert_eq!(got[0].0, [0x60, 0x02, 0, 3, 0x4e, 0x03, 1, 0, 3, 0x4e, 0x2a, 2]);
}

#[test]
fn h265_large_slices_become_fu() {
    let slice = nal(&[0x26, 0x01], 130);
    let got = packets(&h265(), 64, &sample(&[&slice]), false);
    // 128 bytes behind the header in fragments of 61, 61, 6; type 49; FU header: S, none, E and type 19.
    assert_eq!(got[0].0, [&[0x62, 0x01, 0x93], &slice[2..63]].concat());
    assert_eq!(got[1].0, [&[0x62, 0x01, 0x13], &slice[63..124]].concat());
    assert_eq!(got[2].0, [&[0x62, 0x01, 0x53], &slice[124..130]].concat());
    assert_eq!(got.iter().map(|p| (p.1, p.2)).collect::<Vec<_>>(), [(false, 0), (false, 67), (true, 128)]);
}

#[test]
fn h265_a_lone_parameter_set_is_a_single_nal_unit() {
    let codec = Codec::H265 { length_bytes: 4, vps: vec![], sps: vec![vec![0x42, 1, 8]], pps: vec![] };
    let got = packets(&codec, 64, &sample(&[&[0x26, 1, 5]]), true);
    assert_eq!(got, [(vec![0x42, 1, 8], false, 0), (vec![0x26, 1, 5], true, 0)]);
}

#[test]
fn aac_access_units_have_an_au_header() {
    // AU-headers-length 16, AU-size 3, AU-Index 0.
    assert_eq!(packets(&aac(), 64, &[7, 8, 9], true), [(vec![0, 16, 0, 3 << 3, 7, 8, 9], true, 0)]);
}

#[test]
fn aac_fragments_carry_the_size_of_the_whole() {
    let unit = nal(&[], 100);
    let got = packets(&aac(), 64, &unit, true);
    let header = [0, 16, (100u16 << 3 >> 8) as u8, (100u16 << 3) as u8];
    assert_eq!(got, [([&header, &unit[..60]].concat(), false, 0), ([&header, &unit[60..]].concat(), true, 60)]);
    assert_eq!(send(&aac(), 1400, &[0; 8192], true).error, Some(BadSample { at: 0 }));
    assert_eq!(send(&aac(), 1400, &[0; 8191], true).error, None);
}

#[test]
fn mpeg_audio_fragments_carry_their_offset() {
    let frame = nal(&[0xff, 0xfb], 100);
    let got = packets(&Codec::MpegAudio, 64, &frame, true);
    assert_eq!(got, [([&[0, 0, 0, 0], &frame[..60]].concat(), false, 0), ([&[0, 0, 0, 60], &frame[60..]].concat(), false, 60)]);
}

#[test]
fn opus_is_never_cut() {
    let codec = Codec::Opus { channels: 2 };
    assert_eq!(packets(&codec, 64, &[1, 2], true), [(vec![1, 2], false, 0)]);
    assert_eq!(send(&codec, 64, &[0; 65], true).error, Some(BadSample { at: 0 }));
}

#[test]
fn pcm_is_split_between_instants_with_times_of_their_own() {
    let codec = Codec::Pcma { sample_rate: 8000, channels: 3 };
    let sent = send(&codec, 64, &[1; 150], true);
    let got: Vec<_> = sent.packets.iter().map(|(meta, _)| (meta.len, meta.sample_offset, meta.timestamp_offset)).collect();
    assert_eq!(got, [(63, 0, 0), (63, 63, 21), (24, 126, 42)]);
}

#[test]
fn mpeg4_visual_is_cut_where_the_packet_is_full() {
    let codec = Codec::Mpeg4Visual { config: vec![] };
    let got = packets(&codec, 64, &[9; 100], true);
    assert_eq!(got, [(vec![9; 64], false, 0), (vec![9; 36], true, 64)]);
}

#[test]
fn av1_obus_travel_without_size_and_delimiters() {
    let codec = Codec::Av1 { config: vec![] };
    // Temporal delimiter, sequence header of 2 bytes, frame of 70 bytes.
    let frame = nal(&[], 70);
    let unit = [&[0x12, 0, 0x0a, 2, 5, 6, 0x32, 70][..], &frame].concat();
    let got = packets(&codec, 64, &unit, true);
    assert_eq!(got[0], (vec![0x18, 0x08, 5, 6], false, 0));
    assert_eq!(got[1], ([&[0x50, 0x30], &frame[..62]].concat(), false, 6));
    assert_eq!(got[2], ([&[0x90], &frame[62..]].concat(), true, 70));
}

#[test]
fn a_bound_that_is_no_use_is_brought_into_range() {
    for (asked, got) in [(0, 64), (1400, 1400), (usize::MAX, 65_000)] {
        assert_eq!(Packetiser::new(&aac(), asked).max_payload_bytes(), got);
    }
}

/// Lengths from tiny to many packets.
fn length() -> impl Strategy<Value = usize> {
    prop_oneof![1usize..6, 1usize..200, 50usize..70, 1usize..20_000]
}

/// NAL units with plausible and odd types.
fn h26x_sample(length_bytes: u8, header_bytes: usize) -> impl Strategy<Value = Vec<u8>> {
    let nal = (prop_oneof![1 => Just(0usize), 12 => length()], any::<[u8; 2]>(), any::<u8>()).prop_map(move |(len, header, fill)| {
        let len = if len == 0 { 0 } else { len.max(header_bytes).min((1usize << (8 * length_bytes.min(3))) - 1) };
        let body: Vec<u8> = header[..header_bytes].iter().copied().chain((0..).map(|n: usize| n as u8 ^ fill)).take(len).collect();
        [&(len as u32).to_be_bytes()[4 - usize::from(length_bytes)..], &body].concat()
    });
    proptest::collection::vec(nal, 0..12).prop_map(|nals| nals.concat())
}

fn growth() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(any::<u8>(), 0..8)
}

fn max_payload() -> impl Strategy<Value = usize> {
    prop_oneof![Just(64usize), 64usize..300, Just(1400usize), Just(9000)]
}

fn any_codec() -> impl Strategy<Value = Codec> {
    let set = || proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..3);
    let pick = proptest::sample::select(vec![1u8, 2, 4]);
    prop_oneof![
        (pick.clone(), set(), set()).prop_map(|(length_bytes, sps, pps)| Codec::H264 { length_bytes, sps, pps }),
        (pick, set(), set(), set()).prop_map(|(length_bytes, vps, sps, pps)| Codec::H265 { length_bytes, vps, sps, pps }),
        Just(Codec::Av1 { config: vec![] }),
        Just(Codec::Mpeg4Visual { config: vec![] }),
        Just(aac()),
        Just(Codec::MpegAudio),
        (1u8..4).prop_map(|channels| Codec::Opus { channels }),
        (1u8..9).prop_map(|channels| Codec::Pcmu { sample_rate: 8000, channels }),
        any::<u8>().prop_map(|channels| Codec::Pcma { sample_rate: 8000, channels }),
    ]
}

/// Elements of an AV1 temporal unit.
fn av1_sample() -> impl Strategy<Value = Vec<u8>> {
    let obu = (any::<u8>(), any::<u8>(), length()).prop_map(|(header, extension, len)| {
        let header = header | av1_has_size();
        let len = if header >> 3 & 15 == 2 { 0 } else { len };
        let mut out = vec![header];
        if header & 4 != 0 {
            out.push(extension);
        }
        out.extend([len as u8 | 0x80, (len >> 7) as u8 | 0x80, (len >> 14) as u8 & 0x7f]);
        out.extend((0..len).map(|n| n as u8));
        out
    });
    proptest::collection::vec(obu, 0..8).prop_map(|obus| obus.concat())
}

fn av1_has_size() -> u8 {
    super::super::av1::OBU_HAS_SIZE
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(debug_assertions) { 512 } else { 20_000 }))]

    #[test]
    fn h264_comes_back(
        (length_bytes, sample) in proptest::sample::select(vec![1u8, 2, 4]).prop_flat_map(|n| (Just(n), h26x_sample(n, 1))),
        max in max_payload(), sync: bool, growth in growth(),
    ) {
        let codec = Codec::H264 { length_bytes, sps: vec![SPS.to_vec()], pps: vec![PPS.to_vec()] };
        verify::roundtrip(&codec, max, &sample, sync, &growth);
    }

    #[test]
    fn h265_comes_back(
        (length_bytes, sample) in proptest::sample::select(vec![1u8, 2, 4]).prop_flat_map(|n| (Just(n), h26x_sample(n, 2))),
        max in max_payload(), sync: bool, growth in growth(),
    ) {
        let Codec::H265 { vps, sps, pps, .. } = h265() else { unreachable!() };
        verify::roundtrip(&Codec::H265 { length_bytes, vps, sps, pps }, max, &sample, sync, &growth);
    }

    #[test]
    fn av1_comes_back(sample in av1_sample(), max in max_payload(), sync: bool, growth in growth()) {
        verify::roundtrip(&Codec::Av1 { config: vec![] }, max, &sample, sync, &growth);
    }

    #[test]
    fn anything_comes_back_or_is_bad(
        codec in any_codec(), sample in proptest::collection::vec(prop_oneof![3 => 0u8..8, 1 => any::<u8>()], 0..4000),
        max in max_payload(), sync: bool, growth in growth(),
    ) {
        verify::roundtrip(&codec, max, &sample, sync, &growth);
    }
}
