//! What is written is read: by our own reader, and by the `mp4` crate where it can.

use std::io::Cursor;

use proptest::prelude::*;

use super::*;
use crate::media::read_title;

/// x264, High, 640 by 360.
const SPS: &[u8] =
    &[0x67, 0x64, 0, 0x1e, 0xac, 0xd9, 0x40, 0xa0, 0x2f, 0xf9, 0x70, 0x11, 0, 0, 3, 0, 1, 0, 0, 3, 0, 0x32, 0x0f, 0x16, 0x2d, 0x96];

fn h264() -> Codec {
    Codec::H264 { length_bytes: 4, sps: vec![SPS.to_vec()], pps: vec![vec![0x68, 0xeb, 0xec, 0xb2]] }
}

fn aac() -> Codec {
    Codec::Aac { config: vec![0x11, 0x90], sample_rate: 48_000, channels: 2 }
}

/// A file of these tracks, the bytes of whose samples lie between others.
fn file(tracks: &mut [MovieTrack]) -> Vec<u8> {
    let mut end = HEAD_BYTES;
    for sample in tracks.iter_mut().flat_map(|track| &mut track.samples) {
        sample.offset = end + 32;
        end = sample.offset + u64::from(sample.bytes);
    }
    let mut file = head(end);
    file.resize(end as usize, 7);
    file.extend_from_slice(&moov(tracks));
    file
}

/// A track of `count` samples, each `step` long.
fn track(codec: Codec, kind: TrackKind, timescale: u32, count: u64, step: u64) -> MovieTrack {
    let sample = |n: u64| {
        let sync = kind == TrackKind::Audio || n.is_multiple_of(25);
        // Every third is shown later, as with B-pictures.
        let pts_offset = if kind == TrackKind::Video { [2, 4, 0][n as usize % 3] * step as i32 } else { 0 };
        MovieSample { offset: 0, dts: n * step, bytes: 100 + n as u32, pts_offset, sync }
    };
    MovieTrack { kind, codec, timescale, start_ns: 0, last_duration: step as u32, samples: (0..count).map(sample).collect() }
}

#[test]
fn the_head_is_as_long_as_it_says_and_names_the_end_of_the_media() {
    let head = head(123_456);
    assert_eq!((head.len() as u64, &head[4..8], &head[36..40]), (HEAD_BYTES, &b"ftyp"[..], &b"free"[..]));
    let free = u32::from_be_bytes(head[32..36].try_into().unwrap());
    assert_eq!(32 + u64::from(free) + 16, HEAD_BYTES);
    assert_eq!(head[HEAD_BYTES as usize - 16..][..8], *b"\0\0\0\x01mdat");
    assert_eq!(u64::from_be_bytes(head[HEAD_BYTES as usize - 8..].try_into().unwrap()), 123_456 - HEAD_BYTES + 16);
}

#[test]
fn tracks_keep_their_times_to_each_other() {
    let mut tracks = [track(h264(), TrackKind::Video, 90_000, 50, 3600), track(aac(), TrackKind::Audio, 48_000, 100, 1024)];
    // The sound is decoded 30 ms after the first picture, which is shown 80 ms after it is decoded.
    (tracks[0].start_ns, tracks[1].start_ns) = (5_000_000_000, 5_030_000_000);
    let bytes = file(&mut tracks);
    let title = read_title(&mut Cursor::new(&bytes), bytes.len() as u64).unwrap();
    assert_eq!(title.tracks[0].codec, tracks[0].codec);
    assert_eq!(title.tracks[1].codec, tracks[1].codec);
    assert_eq!((title.description.tracks[0].width, title.description.tracks[0].height), (640, 360));
    let shown_ns = |track: usize, sample: u32| {
        let found = &title.tracks[track];
        let sample = found.samples.get(sample).unwrap();
        found.ns_of(sample.dts + i64::from(sample.cts_offset))
    };
    assert_eq!(shown_ns(1, 0), 0);
    assert_eq!(shown_ns(0, 0), 50_000_000);
    assert_eq!(shown_ns(0, 1), 50_000_000 + 120_000_000);
}

#[test]
fn the_mp4_crate_reads_it_too() {
    let mut tracks = [track(h264(), TrackKind::Video, 90_000, 50, 3600), track(aac(), TrackKind::Audio, 48_000, 100, 1024)];
    let bytes = file(&mut tracks);
    let mut reader = mp4::Mp4Reader::read_header(Cursor::new(&bytes), bytes.len() as u64).unwrap();
    for (id, track) in (1..).zip(&tracks) {
        assert_eq!(reader.sample_count(id).unwrap() as usize, track.samples.len());
        for (number, expected) in (1..).zip(&track.samples) {
            let sample = reader.read_sample(id, number).unwrap().unwrap();
            assert_eq!((sample.start_time, sample.rendering_offset, sample.is_sync), (expected.dts, expected.pts_offset, expected.sync));
            assert_eq!(sample.bytes.len() as u32, expected.bytes);
        }
    }
    let picture = &reader.tracks()[&1];
    assert_eq!((picture.width(), picture.height(), picture.timescale()), (640, 360, 90_000));
    assert_eq!(reader.tracks()[&2].sample_freq_index().unwrap().freq(), 48_000);
}

#[test]
fn g711_is_read_as_it_was_sent() {
    for codec in [Codec::Pcmu { sample_rate: 8000, channels: 1 }, Codec::Pcma { sample_rate: 8000, channels: 1 }] {
        let mut tracks = [track(codec.clone(), TrackKind::Audio, 8000, 50, 160)];
        tracks[0].samples.iter_mut().for_each(|sample| sample.bytes = 160);
        let bytes = file(&mut tracks);
        let title = read_title(&mut Cursor::new(&bytes), bytes.len() as u64).unwrap();
        assert_eq!((&title.tracks[0].codec, title.tracks[0].samples.len()), (&codec, 50));
        for (sample, found) in tracks[0].samples.iter().zip(title.tracks[0].samples.iter()) {
            assert_eq!((sample.offset, sample.bytes, sample.dts as i64), (found.offset, found.size, found.dts));
        }
    }
}

fn codecs() -> impl Strategy<Value = (Codec, TrackKind)> {
    let set = || prop::collection::vec(any::<u8>(), 4..40);
    let sets = move || prop::collection::vec(set(), 1..3);
    prop_oneof![
        (sets(), sets()).prop_map(|(sps, pps)| (Codec::H264 { length_bytes: 4, sps, pps }, TrackKind::Video)),
        (sets(), sets(), sets()).prop_map(|(vps, sps, pps)| (Codec::H265 { length_bytes: 4, vps, sps, pps }, TrackKind::Video)),
        set().prop_map(|config| (Codec::Mpeg4Visual { config }, TrackKind::Video)),
        set().prop_map(|rest| (Codec::Av1 { config: [vec![0x81], rest].concat() }, TrackKind::Video)),
        Just((aac(), TrackKind::Audio)),
        Just((Codec::MpegAudio, TrackKind::Audio)),
        (1u8..=2).prop_map(|channels| (Codec::Opus { channels }, TrackKind::Audio)),
    ]
}

proptest! {
    #[test]
    fn what_is_written_is_read(
        tracks in prop::collection::vec((codecs(), 1000u32..100_000, 0i64..3_000_000_000, prop::collection::vec((1u32..500, 1u64..5000, -2000i32..5000, any::<bool>()), 1..60)), 1..4),
    ) {
        let mut tracks: Vec<MovieTrack> = tracks
            .into_iter()
            .map(|((codec, kind), timescale, start_ns, samples)| {
                let mut dts = 0;
                let mut samples: Vec<MovieSample> = samples
                    .into_iter()
                    .map(|(bytes, span, pts_offset, sync)| {
                        let sample = MovieSample { offset: 0, dts, bytes, pts_offset, sync: sync || kind == TrackKind::Audio };
                        dts += span;
                        sample
                    })
                    .collect();
                samples[0].sync = true;
                // Nothing of a track is shown before its first sample, or the edit list would hide it.
                for sample in &mut samples {
                    sample.pts_offset = if kind == TrackKind::Audio { 0 } else { sample.pts_offset.max(0) };
                }
                samples[0].pts_offset = 0;
                MovieTrack { kind, codec, timescale, start_ns, last_duration: 1000, samples }
            })
            .collect();
        let bytes = file(&mut tracks);
        let title = read_title(&mut Cursor::new(&bytes), bytes.len() as u64).unwrap();
        prop_assert!(title.left_out.is_empty(), "{:?}", title.left_out);
        let zero_ns = tracks.iter().map(|track| track.start_ns).min().unwrap();
        for (track, found) in tracks.iter().zip(&title.tracks) {
            prop_assert_eq!((&track.codec, track.kind, track.timescale), (&found.codec, found.kind, found.timescale));
            prop_assert_eq!(track.samples.len(), found.samples.len() as usize);
            for (sample, got) in track.samples.iter().zip(found.samples.iter()) {
                prop_assert_eq!((sample.offset, sample.bytes, sample.sync, sample.pts_offset), (got.offset, got.size, got.sync, got.cts_offset));
                let expected_ns = track.start_ns - zero_ns + (sample.dts * 1_000_000_000 / u64::from(track.timescale)) as i64;
                let slack_ns = 1_000_000_000 / i64::from(track.timescale) + 12_000;
                prop_assert!((found.ns_of(got.dts) - expected_ns).abs() <= slack_ns, "{} ns, expected {}", found.ns_of(got.dts), expected_ns);
            }
        }
    }
}
