//! Holds a packetiser and its depacketiser to their promises on one sample: what property tests and the fuzz target share. It panics
//! when a promise is broken. Not part of the engine.

use super::h264::H264;
use super::h265::H265;
use super::nal::{Header, NalFormat, PADDING_RUN, read_header};
use super::{BadSample, Depacketiser, LOOKAHEAD_BYTES, PacketMeta, Packetiser, SampleBytes, SliceBytes, Step, av1};
use crate::media::Codec;

/// What became of a sample.
#[derive(Debug)]
pub struct Sent {
    /// Payloads.
    pub packets: Vec<(PacketMeta, Vec<u8>)>,
    /// Why it ended early.
    pub error: Option<BadSample>,
}

/// Packetises `sample`; whenever data is needed, as many bytes arrive as `growth` says next (plus one; all when it is empty).
pub fn packetise(packetiser: &mut Packetiser, sample: &[u8], sync: bool, growth: &[u8]) -> Sent {
    let max = packetiser.max_payload_bytes();
    let mut bytes = SliceBytes::with_resident(sample, if growth.is_empty() { sample.len() } else { 0 });
    let mut growth = growth.iter().cycle();
    let mut out = vec![0u8; max];
    let mut sent = Sent { packets: Vec::new(), error: None };
    let mut padding = false;
    packetiser.begin(sample.len() as u32, sync);
    loop {
        let before = bytes.remaining();
        match packetiser.next(&mut bytes, &mut out) {
            Ok(Step::Packet(meta)) => {
                assert!(meta.len > 0 && meta.len <= max, "payload of {} bytes with a bound of {max}", meta.len);
                assert!(!padding, "a packet after padding was taken");
                let at = sent.packets.last().map_or(0, |(last, _)| last.sample_offset);
                assert!(meta.sample_offset >= at, "sample_offset goes back from {at} to {}", meta.sample_offset);
                assert!((meta.sample_offset as usize) < sample.len());
                sent.packets.push((meta, out[..meta.len].to_vec()));
                assert!(sent.packets.len() <= 2 * sample.len() + 1, "more packets than bytes");
            }
            Ok(Step::NeedData) => {
                let enough = bytes.remaining().min(max + LOOKAHEAD_BYTES);
                assert!(bytes.resident() < enough, "{} bytes are resident and not enough", bytes.resident());
                padding |= bytes.remaining() != before;
                bytes.arrive(usize::from(*growth.next().unwrap_or(&255)) + 1);
            }
            Ok(Step::SampleDone) => {
                assert_eq!(bytes.remaining(), 0, "done before the sample's end");
                return sent;
            }
            Err(error) => {
                assert!(error.at as usize <= sample.len());
                sent.error = Some(error);
                return sent;
            }
        }
    }
}

/// Packetises and depacketises `sample` and compares. Returns what was sent.
pub fn roundtrip(codec: &Codec, max_payload_bytes: usize, sample: &[u8], sync: bool, growth: &[u8]) -> Sent {
    let mut packetiser = Packetiser::new(codec, max_payload_bytes);
    let sent = packetise(&mut packetiser, sample, sync, growth);
    let at_once = packetise(&mut packetiser, sample, sync, &[]);
    assert_eq!((&sent.packets, sent.error), (&at_once.packets, at_once.error), "packets depend on when the bytes arrived");

    let has_marker =
        matches!(codec, Codec::H264 { .. } | Codec::H265 { .. } | Codec::Av1 { .. } | Codec::Aac { .. } | Codec::Mpeg4Visual { .. });
    let markers = sent.packets.iter().filter(|(meta, _)| meta.marker).count();
    assert!(markers <= 1);
    if let (true, Some((last, _))) = (has_marker, sent.packets.last()) {
        assert!(last.marker || sent.error.is_some(), "no marker on the last packet");
    }

    const TIMESTAMP: u32 = 0xffff_ff00;
    let mut depacketiser = Depacketiser::new(codec, 2 * sample.len() + max_payload_bytes + 65_536);
    let (mut received, mut units, mut bytes_before) = (Vec::new(), 0, 0);
    let mut sink = |unit: super::AccessUnit<'_>| {
        assert!(unit.intact, "nothing was lost");
        received.extend_from_slice(unit.data);
        units += 1;
    };
    for (meta, payload) in &sent.packets {
        if let Codec::Pcmu { channels, .. } | Codec::Pcma { channels, .. } = codec {
            assert_eq!(meta.timestamp_offset, bytes_before / u32::from((*channels).max(1)));
            bytes_before += meta.len as u32;
        } else {
            assert_eq!(meta.timestamp_offset, 0);
        }
        depacketiser
            .push(payload, meta.marker, TIMESTAMP.wrapping_add(meta.timestamp_offset), &mut sink)
            // INVARIANT: this is the check itself; it runs in tests and fuzzing only.
            .expect("our own packets are understood");
    }
    if sent.error.is_none() || !has_marker {
        depacketiser.flush(&mut sink);
    }
    match codec {
        Codec::H264 { length_bytes, sps, pps } => {
            let sets: Vec<&[u8]> = sps.iter().chain(pps).map(Vec::as_slice).collect();
            compare_nals::<H264>(*length_bytes, &sets, packetiser.max_payload_bytes(), sample, sync, &received, sent.error);
        }
        Codec::H265 { length_bytes, vps, sps, pps } => {
            let sets: Vec<&[u8]> = vps.iter().chain(sps).chain(pps).map(Vec::as_slice).collect();
            compare_nals::<H265>(*length_bytes, &sets, packetiser.max_payload_bytes(), sample, sync, &received, sent.error);
        }
        Codec::Av1 { .. } => {
            let (expected, got) = (obus(sample), obus(&received));
            assert!(got.1, "what was received does not parse");
            assert_eq!(expected.1, sent.error.is_none());
            assert!(expected.0.starts_with(&got.0));
            assert!(sent.error.is_some() || expected.0 == got.0);
        }
        _ if sent.error.is_none() => {
            assert_eq!(received, sample);
            assert!(matches!(codec, Codec::Pcmu { .. } | Codec::Pcma { .. }) || units == usize::from(!sample.is_empty()));
        }
        _ => assert!(received.is_empty()),
    }
    sent
}

/// The sample's NAL units, and whether it parses to its end.
fn nals<F: NalFormat>(length_bytes: u8, mut sample: &[u8]) -> (Vec<&[u8]>, bool) {
    let mut nals = Vec::new();
    let mut empty = 0;
    while !sample.is_empty() {
        let Some((length, rest)) = sample.split_at_checked(usize::from(length_bytes)) else { return (nals, false) };
        let len = length.iter().fold(0usize, |len, &b| len << 8 | usize::from(b));
        let Some((nal, rest)) = rest.split_at_checked(len) else { return (nals, false) };
        sample = rest;
        if nal.is_empty() {
            empty += 1;
            if empty > PADDING_RUN {
                return (nals, true);
            }
            continue;
        }
        empty = 0;
        let Some(header) = read_header::<F>(nal) else { return (nals, false) };
        if F::is_reserved(header) && nal.len() < F::HEADER_BYTES + 2 {
            return (nals, false);
        }
        nals.push(nal);
    }
    (nals, true)
}

fn compare_nals<F: NalFormat>(
    length_bytes: u8,
    sets: &[&[u8]],
    max: usize,
    sample: &[u8],
    sync: bool,
    received: &[u8],
    error: Option<BadSample>,
) {
    let header = |nal: &[u8]| -> Header { read_header::<F>(nal).unwrap_or(0) };
    let sets: Vec<&[u8]> = sets.iter().copied().filter(|set| read_header::<F>(set).is_some_and(|header| !F::is_reserved(header))).collect();
    let fit = !sets.is_empty() && F::HEADER_BYTES + sets.iter().map(|set| set.len() + 2).sum::<usize>() <= max;
    let (expected, parses) = nals::<F>(length_bytes, sample);
    let (mut got, received_parses) = nals::<F>(length_bytes, received);
    assert!(received_parses, "what was received does not parse");
    assert_eq!(parses, error.is_none(), "{error:?}");

    let place = expected.iter().take_while(|nal| F::is_delimiter(header(nal))).count();
    let put_in = got.get(place..).is_some_and(|got| got.starts_with(&sets)) && !expected.starts_with(&got);
    if put_in {
        assert!(sync && fit, "parameter sets where none were due");
        got.drain(place..place + sets.len());
    }
    if parses {
        assert!(expected == got, "{} NAL units became {}", expected.len(), got.len());
        let in_band = expected.iter().any(|nal| F::set_kind(header(nal)) != 0);
        let due = sync && fit && !in_band && place < expected.len();
        assert_eq!(put_in || (in_band && sync), due || (in_band && sync), "parameter sets are missing");
    } else {
        assert!(expected.starts_with(&got));
    }
}

/// An OBU: header without size flag, payload.
type Obu<'a> = (Vec<u8>, &'a [u8]);

/// The OBUs of a temporal unit, delimiters left out, and whether it parses to its end.
fn obus(mut sample: &[u8]) -> (Vec<Obu<'_>>, bool) {
    let mut obus = Vec::new();
    let mut delimiters = 0;
    while let Some(&first) = sample.first() {
        let header_bytes = if first & av1::OBU_HAS_EXTENSION == 0 { 1 } else { 2 };
        let Some((header, rest)) = sample.split_at_checked(header_bytes) else { return (obus, false) };
        let (len, size_bytes) = if first & av1::OBU_HAS_SIZE == 0 {
            (rest.len(), 0)
        } else {
            let Some(size) = av1::read_leb128(rest) else { return (obus, false) };
            size
        };
        let Some((payload, rest)) = rest[size_bytes..].split_at_checked(len) else { return (obus, false) };
        sample = rest;
        if av1::obu_type(first) == av1::OBU_TEMPORAL_DELIMITER {
            delimiters += 1;
            if !payload.is_empty() || (delimiters > av1::DELIMITER_RUN) {
                return (obus, false);
            }
            continue;
        }
        delimiters = 0;
        let mut header = header.to_vec();
        header[0] &= !av1::OBU_HAS_SIZE;
        obus.push((header, payload));
    }
    (obus, true)
}
