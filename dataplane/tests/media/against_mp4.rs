//! Clips written by the `mp4` crate, and our index against what that crate reads.

use std::io::Cursor;

use dataplane::media::read_title;
use mp4::{AacConfig, AvcConfig, Bytes, HevcConfig, Mp4Config, Mp4Reader, Mp4Sample, Mp4Writer, TrackConfig};

/// Writes a clip of a video and an audio track, with times and sizes that vary.
pub fn clip(samples: u32, hevc: bool) -> Vec<u8> {
    let config = Mp4Config {
        major_brand: "isom".parse().expect("a brand"),
        minor_version: 512,
        compatible_brands: vec!["isom".parse().expect("a brand"), "mp41".parse().expect("a brand")],
        timescale: 1000,
    };
    let mut writer = Mp4Writer::write_start(Cursor::new(Vec::new()), &config).expect("it starts");
    let avc = AvcConfig { width: 320, height: 240, seq_param_set: vec![0x67, 66, 0, 30, 1], pic_param_set: vec![0x68, 1] };
    let video = if hevc { TrackConfig::from(HevcConfig { width: 320, height: 240 }) } else { TrackConfig::from(avc) };
    writer.add_track(&video).expect("a video track");
    writer.add_track(&TrackConfig::from(AacConfig::default())).expect("an audio track");
    let (mut video_time, mut audio_time) = (0, 0);
    for i in 0..samples {
        let video = Mp4Sample {
            start_time: video_time,
            duration: 33 + i % 3,
            rendering_offset: [0, 66, -33][i as usize % 3].max(if i % 12 == 0 { 0 } else { -33 }),
            is_sync: i % 12 == 0,
            bytes: Bytes::from(vec![i as u8; 1 + (i as usize * 37) % 900]),
        };
        video_time += u64::from(video.duration);
        writer.write_sample(1, &video).expect("a picture");
        let bytes = Bytes::from(vec![i as u8; 50 + i as usize % 7]);
        let audio = Mp4Sample { start_time: audio_time, duration: 1024, rendering_offset: 0, is_sync: true, bytes };
        audio_time += 1024;
        writer.write_sample(2, &audio).expect("an audio frame");
    }
    writer.write_end().expect("it ends");
    writer.into_writer().into_inner()
}

#[test]
fn the_same_samples() {
    for samples in [1, 2, 30, 500] {
        let bytes = clip(samples, false);
        let title = read_title(&mut Cursor::new(&bytes), bytes.len() as u64).expect("it reads");
        let mut reader = Mp4Reader::read_header(Cursor::new(&bytes), bytes.len() as u64).expect("it reads");
        assert_eq!(title.tracks.len(), 2);
        for track in &title.tracks {
            let count = reader.sample_count(track.id).expect("a track");
            assert_eq!(track.samples.len(), count);
            assert_eq!(count, samples);
            // We move decode times down so that no sample is composed before it is decoded.
            let mut lead = None;
            for i in 0..count {
                let ours = track.samples.get(i).expect("a sample");
                let theirs = reader.read_sample(track.id, i + 1).expect("it reads").expect("a sample");
                let lead = *lead.get_or_insert(theirs.start_time as i64 - ours.dts);
                assert_eq!(ours.dts + lead, theirs.start_time as i64);
                assert_eq!(i64::from(ours.cts_offset), i64::from(theirs.rendering_offset) + lead);
                assert_eq!(ours.sync, theirs.is_sync || track.id == 2);
                assert_eq!(ours.duration, theirs.duration, "sample {i} of track {}", track.id);
                let at = ours.offset as usize;
                assert_eq!(bytes.get(at..at + ours.size as usize), Some(&theirs.bytes[..]));
            }
        }
    }
}

#[test]
fn an_h265_configuration_that_is_none_is_left_out() {
    // The crate writes an `hvcC` of one byte.
    let bytes = clip(20, true);
    let title = read_title(&mut Cursor::new(&bytes), bytes.len() as u64).expect("the sound is good");
    assert_eq!((title.tracks.len(), title.left_out.len()), (1, 1));
    assert!(title.left_out[0].reason.contains("hvcC"), "{:?}", title.left_out);
}
