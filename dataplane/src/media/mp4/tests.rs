//! The reader against files made by hand: what the format allows, what muxers do, and what an enemy would do.

use std::io::Cursor;

use super::*;
use crate::media::test_file::{MEDIA_AT, TestTrack, be, boxed, file, full, plain_file, sound};
use crate::media::{Codec, Sample, read_title};

fn read(bytes: &[u8]) -> Result<Title, MediaError> {
    read_title(&mut Cursor::new(bytes), bytes.len() as u64)
}

fn error(bytes: &[u8]) -> MediaError {
    match read(bytes) {
        Ok(title) => panic!("it should not read: {:?}", title.description),
        Err(error) => error,
    }
}

/// Tables of a track whose samples have these sizes, in one chunk, 40 units each.
fn tables(sizes: &[u32]) -> Vec<u8> {
    let n = sizes.len() as u32;
    let stsz = full(b"stsz", &[&[0, n], sizes].concat());
    [full(b"stts", &[1, n, 40]), full(b"stsc", &[1, 1, n, 1]), stsz, full(b"stco", &[1, MEDIA_AT])].concat()
}

fn times(title: &Title, track: usize) -> Vec<(i64, i64)> {
    title.tracks[track].samples.iter().map(|s| (s.dts, s.dts + i64::from(s.cts_offset))).collect()
}

#[test]
fn a_plain_file() {
    let title = read(&plain_file(25)).expect("it reads");
    let track = &title.tracks[0];
    let expected = Sample { offset: u64::from(MEDIA_AT) + 1000, size: 100, dts: 400, cts_offset: 0, duration: 40, sync: true };
    assert_eq!(track.samples.get(10), Some(expected));
    assert_eq!(track.samples.get(24).map(|s| s.duration), Some(40));
    assert_eq!(track.codec, Codec::H264 { length_bytes: 4, sps: vec![vec![0x67, 66, 0, 30]], pps: vec![vec![0x68, 0xce]] });
    let description = &title.description;
    assert_eq!((description.container.as_str(), description.duration_ns), ("MP4", 1_000_000_000));
    assert_eq!((description.tracks[0].width, description.tracks[0].height), (64, 48));
    assert_eq!((description.tracks[0].samples, description.tracks[0].sync_samples), (25, 3));
    assert_eq!(description.tracks[0].mean_bps, 20_000);
}

#[test]
fn not_a_media_file() {
    for bytes in [&b"this is no film, but it is long enough"[..], b"", b"abc", &[0; 100], &[0xff; 100], b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"] {
        assert!(matches!(error(bytes), MediaError::NotMedia { .. }), "{}", error(bytes));
    }
}

#[test]
fn no_moov_yet() {
    let growing = [boxed(b"ftyp", &[b"isom"]), vec![0, 0, 0, 0], b"mdat".to_vec(), vec![1; 500]].concat();
    assert!(matches!(error(&growing), MediaError::NoMoov { .. }));
    assert!(error(&growing).to_string().contains("runs to the end"), "{}", error(&growing));
    let whole = plain_file(10);
    for len in [30, 200, 1020] {
        let error = error(&whole[..len]);
        assert!(matches!(error, MediaError::NoMoov { .. }), "{len}: {error}");
    }
    let cut_in_moov = error(&whole[..1100]);
    assert!(matches!(cut_in_moov, MediaError::Truncated { first_missing: 1100, .. }), "{cut_in_moov}");
}

#[test]
fn a_segment_without_its_start() {
    let segment = [boxed(b"styp", &[b"msdh"]), boxed(b"moof", &[&full(b"mfhd", &[1])]), boxed(b"mdat", &[&[0; 9]])].concat();
    assert!(error(&segment).to_string().contains("initialisation segment"), "{}", error(&segment));
}

#[test]
fn samples_past_the_end_name_the_first_missing_byte() {
    // `moov` first, so that cutting the file only loses media.
    let mut tables = tables(&[100; 20]);
    let offset = file(&[TestTrack::video(tables.clone())], &[]).len() as u32;
    let at = tables.len() - 4;
    tables[at..].copy_from_slice(&offset.to_be_bytes());
    let head = file(&[TestTrack::video(tables)], &[]);
    let whole = [head.clone(), boxed(b"mdat", &[&[1; 1992]])].concat();
    assert_eq!(read(&whole).expect("it reads").tracks[0].samples.len(), 20);
    let cut = &whole[..head.len() + 1999];
    match error(cut) {
        MediaError::Truncated { needed_end, first_missing, what } => {
            assert_eq!((needed_end, first_missing), (whole.len() as u64, cut.len() as u64));
            assert!(what.contains("sample 20 of track 1"), "{what}");
        }
        other => panic!("{other}"),
    }
}

#[test]
fn sizes_of_64_bits_and_to_the_end() {
    let plain = plain_file(10);
    let (head, moov) = plain.split_at(28 + 1000);
    let long = [&be(&[1])[..], b"free", &24u64.to_be_bytes(), &[9; 8]].concat();
    let again = [head, &long, moov].concat();
    assert_eq!(read(&again).expect("it reads").tracks[0].samples.len(), 10);
    let mut last = [head, &long, moov].concat();
    let at = head.len() + long.len();
    last[at..at + 4].copy_from_slice(&[0; 4]);
    assert_eq!(read(&last).expect("a moov to the end").tracks[0].samples.len(), 10);
    for tail in [&[0u8; 3][..], &[0; 100], b"\0\0\0\x02junk", &[0xff; 20]] {
        let tailed = [&plain[..], tail].concat();
        assert_eq!(read(&tailed).expect("junk at the end").tracks[0].samples.len(), 10);
    }
}

#[test]
fn many_chunks_and_long_offsets() {
    // Chunks of 3, 3, 1, 1 samples.
    let co64: Vec<u32> = [0u32, 300, 600, 700].iter().flat_map(|at| [0, MEDIA_AT + at]).collect();
    let tables = [
        full(b"stts", &[2, 3, 10, 5, 20]),
        full(b"ctts", &[2, 1, 5, 7, 0]),
        full(b"stsc", &[2, 1, 3, 1, 3, 1, 1]),
        full(b"stsz", &[100, 8]),
        full(b"co64", &[&[4], &co64[..]].concat()),
    ];
    let title = read(&file(&[TestTrack::video(tables.concat())], &[0; 800])).expect("it reads");
    let samples: Vec<_> = title.tracks[0].samples.iter().collect();
    assert_eq!(samples.iter().map(|s| s.offset - u64::from(MEDIA_AT)).collect::<Vec<_>>(), [0, 100, 200, 300, 400, 500, 600, 700]);
    assert_eq!(samples.iter().map(|s| s.dts).collect::<Vec<_>>(), [0, 10, 20, 30, 50, 70, 90, 110]);
    assert_eq!(samples[0].cts_offset, 5);
    assert_eq!(samples[7].duration, 20);
    assert!(samples.iter().all(|s| s.sync), "no stss, all sync");
}

#[test]
fn small_sizes() {
    for (bits, packed, sizes) in [(4, vec![0x12, 0x34, 0x50], [1, 2, 3, 4, 5]), (8, vec![9, 8, 7, 6, 5], [9, 8, 7, 6, 5])] {
        let stz2 = boxed(b"stz2", &[&be(&[0, bits, 5]), &packed]);
        let tables = [full(b"stts", &[1, 5, 40]), full(b"stsc", &[1, 1, 5, 1]), stz2, full(b"stco", &[1, MEDIA_AT])].concat();
        let title = read(&file(&[TestTrack::video(tables)], &[0; 50])).expect("it reads");
        assert_eq!(title.tracks[0].samples.iter().map(|s| s.size).collect::<Vec<_>>(), sizes);
    }
}

#[test]
fn samples_without_bytes_take_time_only() {
    let title = read(&file(&[TestTrack::video(tables(&[10, 0, 10, 0]))], &[0; 20])).expect("it reads");
    assert_eq!(times(&title, 0), [(0, 0), (80, 80)]);
    assert_eq!(title.tracks[0].samples.get(0).map(|s| s.duration), Some(80));
}

fn with_edits(samples: u32, syncs: &[u32], edits: &[(u32, i32)]) -> Result<Title, MediaError> {
    let rows: Vec<u32> = edits.iter().flat_map(|(duration, media_time)| [*duration, *media_time as u32, 0x10000]).collect();
    let elst = full(b"elst", &[&[edits.len() as u32], &rows[..]].concat());
    let stss = full(b"stss", &[&[syncs.len() as u32], syncs].concat());
    let mut track = TestTrack::video([tables(&vec![10; samples as usize]), stss].concat());
    track.extra = boxed(b"edts", &[&elst]);
    read(&file(&[track], &vec![0; samples as usize * 10]))
}

fn places(title: &Title) -> Vec<(u64, i64)> {
    title.tracks[0].samples.iter().map(|s| ((s.offset - u64::from(MEDIA_AT)) / 10, s.dts)).collect()
}

#[test]
fn an_empty_edit_delays() {
    let title = with_edits(3, &[1], &[(500, -1), (120, 0)]).expect("it reads");
    assert_eq!(places(&title), [(0, 500), (1, 540), (2, 580)]);
    assert_eq!(title.description.duration_ns, 620_000_000);
}

#[test]
fn an_edit_keeps_what_primes_the_decoder_and_drops_the_rest() {
    // Shows 280 to 400 of 20 samples with sync samples 1, 5 and 13: starts with sample 5 (at 160), ends before 400.
    let title = with_edits(20, &[1, 5, 13], &[(120, 280)]).expect("it reads");
    assert_eq!(places(&title), [(4, -120), (5, -80), (6, -40), (7, 0), (8, 40), (9, 80)]);
    assert_eq!(title.description.duration_ns, 120_000_000);
}

#[test]
fn several_edits_follow_each_other() {
    let title = with_edits(10, &[1, 6], &[(80, 0), (80, 80), (40, -1), (80, 240)]).expect("it reads");
    // The first two edits are one. The last shows samples 6 and 7 from 200 on; sample 5 (sync) is sent right before them.
    assert_eq!(places(&title), [(0, 0), (1, 40), (2, 80), (3, 120), (5, 160), (6, 200), (7, 240)]);
}

#[test]
fn decode_times_of_a_later_edit_do_not_go_back() {
    let title = with_edits(10, &[1], &[(120, 0), (80, 200)]).expect("it reads");
    let samples: Vec<_> = title.tracks[0].samples.iter().map(|s| (s.dts, s.dts + i64::from(s.cts_offset))).collect();
    // Samples 0 to 4 only prime for sample 5, which is due at 120; their composition times are past by then.
    let primers = [(80, -80), (80, -40), (80, 0), (80, 40), (80, 80)];
    assert_eq!(samples, [&[(0, 0), (40, 40), (80, 80)], &primers[..], &[(120, 120), (160, 160)]].concat());
}

#[test]
fn edits_that_show_nothing_leave_the_track_out() {
    let error = with_edits(3, &[1], &[(500, -1)]).expect_err("nothing to show");
    assert!(error.to_string().contains("edit list shows none"), "{error}");
    let error = with_edits(3, &[1], &[(500, 120)]).expect_err("past the end");
    assert!(error.to_string().contains("edit list shows none"), "{error}");
    assert_eq!(places(&with_edits(3, &[1], &[(500, 119)]).expect("its last unit"))[2], (2, -39));
}

#[test]
fn edits_that_multiply_are_bounded() {
    let edits: Vec<_> = (0..5000).map(|i| (400, if i % 2 == 0 { 0 } else { 40 })).collect();
    let error = with_edits(10, &[1], &edits).expect_err("50,000 samples out of 10");
    assert!(matches!(error, MediaError::Limit { .. }), "{error}");
}

#[test]
fn counts_are_checked_before_anything_is_allocated() {
    let huge = u32::MAX;
    for kind in [b"stts", b"ctts", b"stss", b"stsc", b"stco", b"co64"] {
        let title = file(&[TestTrack::video([full(kind, &[huge, 1, 1]), tables(&[10; 3])].concat())], &[0; 30]);
        assert!(matches!(error(&title), MediaError::Broken { .. }), "{}", error(&title));
    }
    let stsz = file(&[TestTrack::video(full(b"stsz", &[0, huge]))], &[]);
    assert!(matches!(error(&stsz), MediaError::Broken { .. }), "{}", error(&stsz));
    let stz2 = file(&[TestTrack::video(full(b"stz2", &[4, huge, 0]))], &[]);
    assert!(matches!(error(&stz2), MediaError::Broken { .. }), "{}", error(&stz2));
    // Four thousand million samples of one byte, all in one chunk; then in chunks that overlap.
    let one = [full(b"stts", &[1, huge, 1]), full(b"stsc", &[1, 1, huge, 1]), full(b"stsz", &[1, huge]), full(b"stco", &[1, MEDIA_AT])];
    let error_one = error(&file(&[TestTrack::video(one.concat())], &[0; 10_000]));
    assert!(matches!(error_one, MediaError::Limit { .. } | MediaError::Truncated { .. }), "{error_one}");
    let chunks = vec![MEDIA_AT; 10_000];
    let stco = full(b"stco", &[&[10_000], &chunks[..]].concat());
    let many = [full(b"stts", &[1, huge, 1]), full(b"stsc", &[1, 1, 20, 1]), full(b"stsz", &[100, huge]), stco];
    let error_many = error(&file(&[TestTrack::video(many.concat())], &[0; 2000]));
    assert!(matches!(error_many, MediaError::Broken { .. }), "{error_many}");
    assert!(error_many.to_string().contains("overlap"), "{error_many}");
}

#[test]
fn a_sample_of_64_megabytes_is_too_large() {
    let bytes = file(&[TestTrack::video(tables(&[64 << 20]))], &vec![0; 64 << 20]);
    let error = error(&bytes);
    assert!(matches!(error, MediaError::Index { track: 1, sample: 1, .. }), "{error}");
}

#[test]
fn descriptors_without_end() {
    // An ES descriptor in an ES descriptor in ...
    for (levels, reason) in [(1500, "no decoder configuration"), (100_000, "at most")] {
        let esds = boxed(b"esds", &[&[0; 4], &[3, 0xff, 0xff, 0xff, 0x7f, 0, 0, 0].repeat(levels)]);
        let error = error(&file(&[audio(sound(b"mp4a", 2, 48_000, &esds), 48_000, tables(&[10]))], &[0; 10]));
        assert!(error.to_string().contains(reason), "{error}");
    }
}

fn audio(entry: Vec<u8>, timescale: u32, tables: Vec<u8>) -> TestTrack {
    TestTrack { id: 2, handler: *b"soun", timescale, entry, tables, extra: Vec::new() }
}

#[test]
fn pcm_is_grouped_by_20_ms() {
    // Chunks of 400 and 100 frames that follow each other, then one of 50 elsewhere; two channels.
    let stco = full(b"stco", &[3, MEDIA_AT, MEDIA_AT + 800, MEDIA_AT + 2000]);
    let stsc = full(b"stsc", &[3, 1, 400, 1, 2, 100, 1, 3, 50, 1]);
    let tables = [full(b"stts", &[1, 550, 1]), stsc, full(b"stsz", &[1, 550]), stco].concat();
    let title = read(&file(&[audio(sound(b"ulaw", 2, 8000, &[]), 8000, tables)], &[0; 2100])).expect("it reads");
    assert_eq!(title.tracks[0].codec, Codec::Pcmu { sample_rate: 8000, channels: 2 });
    let samples: Vec<_> = title.tracks[0].samples.iter().map(|s| (s.offset - u64::from(MEDIA_AT), s.size, s.dts, s.duration)).collect();
    assert_eq!(samples, [(0, 320, 0, 160), (320, 320, 160, 160), (640, 320, 320, 160), (960, 40, 480, 20), (2000, 100, 500, 50)]);
}

#[test]
fn large_pcm_samples_are_cut() {
    let tables =
        [full(b"stts", &[1, 2, 1000]), full(b"stsc", &[1, 1, 2, 1]), full(b"stsz", &[0, 2, 1000, 1000]), full(b"stco", &[1, MEDIA_AT])];
    let title = read(&file(&[audio(sound(b"alaw", 1, 8000, &[]), 8000, tables.concat())], &[0; 2000])).expect("it reads");
    let samples: Vec<_> = title.tracks[0].samples.iter().map(|s| (s.size, s.dts)).collect();
    assert_eq!(samples.len(), 13);
    assert!(samples[..12].iter().enumerate().all(|(i, s)| *s == (160, i as i64 * 160)));
    assert_eq!(samples[12], (80, 1920));
}

#[test]
fn what_is_left_out_has_a_reason() {
    let ok = TestTrack::video(tables(&[10]));
    let mut others = Vec::new();
    for (handler, entry, reason) in [
        (*b"vide", boxed(b"encv", &[&[0; 78]]), "encrypted"),
        (*b"soun", sound(b"enca", 2, 48_000, &[]), "encrypted"),
        (*b"text", boxed(b"text", &[&[0; 8]]), "text"),
        (*b"tmcd", boxed(b"tmcd", &[&[0; 8]]), "time code"),
        (*b"hint", boxed(b"rtp ", &[&[0; 8]]), "hint"),
        (*b"vide", boxed(b"vp09", &[&[0; 78]]), "VP9"),
        (*b"soun", sound(b"twos", 2, 48_000, &[]), "uncompressed"),
        (*b"vide", boxed(b"avc1", &[&[0; 78]]), "no avcC"),
        (*b"vide", boxed(b"????", &[&[0; 78]]), "'????'"),
    ] {
        let id = others.len() as u32 + 10;
        let track = TestTrack { id, handler, timescale: 1000, entry, tables: tables(&[10]), extra: Vec::new() };
        others.push((track, reason));
    }
    let (tracks, reasons): (Vec<_>, Vec<_>) = others.into_iter().unzip();
    let title = read(&file(&[vec![ok], tracks].into_iter().flatten().collect::<Vec<_>>(), &[0; 10])).expect("it reads");
    assert_eq!((title.tracks.len(), title.left_out.len()), (1, reasons.len()));
    for (left_out, reason) in title.left_out.iter().zip(reasons) {
        assert!(left_out.reason.contains(reason), "{left_out:?}");
    }
}

#[test]
fn chapters_are_left_out() {
    let mut film = TestTrack::video(tables(&[10]));
    film.extra = boxed(b"tref", &[&boxed(b"chap", &[&be(&[7])])]);
    let mut pictures = TestTrack::video(tables(&[10]));
    pictures.id = 7;
    let title = read(&file(&[film, pictures], &[0; 10])).expect("it reads");
    assert_eq!(title.tracks.iter().map(|track| track.id).collect::<Vec<_>>(), [1]);
    assert!(title.left_out[0].id == 7 && title.left_out[0].reason.contains("chapter"));
}

#[test]
fn parameter_sets_in_the_samples() {
    let config = [1, 66, 0, 30, 0xff, 0xe0, 0];
    let fields = [&[0; 24][..], &[0, 64, 0, 48], &[0; 50]].concat();
    let media = [&[0, 0, 0, 3][..], &[0x67, 1, 2], &[0, 0, 0, 2], &[0x68, 3], &[0, 0, 0, 9], &[0x65; 9]].concat();
    let mut track = TestTrack::video(tables(&[media.len() as u32]));
    track.entry = boxed(b"avc3", &[&fields, &boxed(b"avcC", &[&config])]);
    let bytes = file(&[track], &media);
    let title = read(&bytes).expect("it reads");
    assert_eq!(title.tracks[0].codec, Codec::H264 { length_bytes: 4, sps: vec![vec![0x67, 1, 2]], pps: vec![vec![0x68, 3]] });
    let mut without = bytes;
    without[MEDIA_AT as usize + 4] = 0x61;
    assert!(error(&without).to_string().contains("parameter sets"), "{}", error(&without));
}

#[test]
fn two_sample_entries() {
    let first = crate::media::test_file::avc1();
    let mut second = first.clone();
    for (same, delivered) in [(true, true), (false, false)] {
        if !same {
            let at = second.len() - 1;
            second[at] ^= 1;
        }
        let mut track = TestTrack::video(Vec::new());
        track.entry = [first.clone(), second.clone()].concat();
        let stsc = full(b"stsc", &[2, 1, 1, 1, 2, 1, 2]);
        track.tables = [full(b"stts", &[1, 2, 40]), stsc, full(b"stsz", &[10, 2]), full(b"stco", &[2, MEDIA_AT, MEDIA_AT + 10])].concat();
        let title = read(&file(&[track], &[0; 20]));
        assert_eq!(title.is_ok(), delivered);
        assert!(delivered || title.expect_err("left out").to_string().contains("changes on the way"));
    }
}

/// A fragmented file: a movie without samples, then these fragments, each with ten bytes of media after it.
fn fragmented(edits: &[u8], fragments: &[Vec<u8>]) -> Vec<u8> {
    let mut track = TestTrack::video(Vec::new());
    track.extra = edits.to_vec();
    let mvex = boxed(b"mvex", &[&full(b"trex", &[1, 1, 40, 10, 0x0101_0000])]);
    let moov = boxed(b"moov", &[&full(b"mvhd", &[0, 0, 1000, 0]), &track.trak(), &mvex]);
    let mut bytes = [boxed(b"ftyp", &[b"isom", &[0; 4]]), moov].concat();
    for fragment in fragments {
        bytes.extend(boxed(b"moof", &[&full(b"mfhd", &[1]), fragment]));
        bytes.extend(boxed(b"mdat", &[&[0; 60]]));
    }
    bytes
}

fn flagged(kind: &[u8; 4], version_flags: u32, words: &[u32]) -> Vec<u8> {
    boxed(kind, &[&be(&[version_flags]), &be(words)])
}

#[test]
fn fragments_and_their_defaults() {
    // A run of two by the defaults, its first a sync sample; a run of two with everything written out; no tfdt at all.
    let first = boxed(
        b"traf",
        &[
            &flagged(b"tfhd", 0x02_0000, &[1]),
            &flagged(b"trun", 0x005, &[2, 16 + 8 + 8 + 16 + 24 + 8, 0]),
            &flagged(b"trun", 0xf00, &[2, 20, 5, 0, 1, 30, 6, 0x1_0000, 2]),
        ],
    );
    let second = boxed(b"traf", &[&flagged(b"tfhd", 0x02_0000, &[1]), &flagged(b"tfdt", 0, &[1000]), &flagged(b"trun", 1, &[1, 100])]);
    let title = read(&fragmented(&[], &[first, second])).expect("it reads");
    assert_eq!(title.description.container, "fragmented MP4");
    let samples: Vec<_> = title.tracks[0].samples.iter().map(|s| (s.size, s.dts, s.cts_offset, s.duration, s.sync)).collect();
    assert_eq!(
        samples,
        [(10, 0, 0, 40, true), (10, 40, 0, 40, false), (5, 80, 1, 20, true), (6, 100, 2, 900, false), (10, 1000, 0, 40, false)]
    );
    let offsets: Vec<_> = title.tracks[0].samples.iter().map(|s| s.offset).collect();
    assert_eq!([offsets[1] - offsets[0], offsets[2] - offsets[1], offsets[3] - offsets[2]], [10, 10, 5], "runs follow each other");
}

#[test]
fn fragments_whose_time_starts_anew_go_on() {
    let fragment = |time| {
        let trun = flagged(b"trun", 1, &[2, 100]);
        boxed(b"traf", &[&flagged(b"tfhd", 0x02_0000, &[1]), &flagged(b"tfdt", 0, &[time]), &trun])
    };
    let title = read(&fragmented(&[], &[fragment(0), fragment(80), fragment(0), fragment(80), fragment(319)])).expect("it reads");
    let dts: Vec<_> = title.tracks[0].samples.iter().map(|s| s.dts).collect();
    assert_eq!(dts, [0, 40, 80, 120, 160, 200, 240, 280, 319, 359]);
}

#[test]
fn a_live_recording_starts_at_zero() {
    let fragment =
        |time| boxed(b"traf", &[&flagged(b"tfhd", 0x02_0000, &[1]), &flagged(b"tfdt", 0, &[time]), &flagged(b"trun", 1, &[2, 100])]);
    let title = read(&fragmented(&[], &[fragment(3_000_000), fragment(3_000_080)])).expect("it reads");
    assert_eq!(times(&title, 0), [(0, 0), (40, 40), (80, 80), (120, 120)]);
    assert_eq!(title.description.duration_ns, 160_000_000);
}

#[test]
fn an_open_edit_of_a_fragmented_file() {
    let elst = full(b"elst", &[1, 0, 40, 0x1_0000]);
    let traf = boxed(b"traf", &[&flagged(b"tfhd", 0x02_0000, &[1]), &flagged(b"trun", 0x005, &[3, 100, 0])]);
    let title = read(&fragmented(&boxed(b"edts", &[&elst]), &[traf])).expect("it reads");
    assert_eq!(times(&title, 0), [(-40, -40), (0, 0), (40, 40)]);
}

#[test]
fn runs_without_bytes_cost_nothing() {
    let huge = u32::MAX;
    for size in [0, 1] {
        let tfhd = flagged(b"tfhd", 0x02_0010, &[1, size]);
        let truns: Vec<u8> = (0..1000).flat_map(|_| flagged(b"trun", 1, &[huge, 100])).collect();
        let traf = boxed(b"traf", &[&tfhd, &truns]);
        let error = error(&fragmented(&[], &[traf]));
        assert!(matches!(error, MediaError::Unsupported { .. } | MediaError::Limit { .. }), "{error}");
    }
}

#[test]
fn every_cut_of_a_file_is_an_error_or_whole() {
    let whole = plain_file(12);
    for len in 0..whole.len() {
        assert!(read(&whole[..len]).is_err(), "cut to {len} bytes");
    }
}
