//! Our index against `ffprobe -show_packets`: times, sizes, places, sync samples.

use std::path::Path;

use dataplane::media::Track;

use crate::clips::{AUDIO, Packet, Stream, VIDEO, ffmpeg, ffprobe, have_ffmpeg};
use crate::read;

fn ours(track: &Track) -> Vec<Packet> {
    track
        .samples
        .iter()
        .map(|s| Packet { pts: s.dts + i64::from(s.cts_offset), dts: s.dts, size: s.size, pos: s.offset, sync: s.sync })
        .collect()
}

/// Compares every stream of the file; the number of tracks that we deliver must be `delivered`.
fn compare(file: &Path, delivered: usize) {
    let title = read(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    assert_eq!(title.tracks.len(), delivered, "{}: {:?}", file.display(), title.left_out);
    assert_eq!(title.description.tracks.len(), delivered);
    let streams = ffprobe(file);
    for track in &title.tracks {
        let stream = streams.iter().find(|stream| stream.id == track.id).expect("ffprobe knows the track");
        assert_eq!(track.timescale, stream.timescale);
        compare_track(file, track, stream);
    }
}

fn compare_track(file: &Path, track: &Track, stream: &Stream) {
    let ours = ours(track);
    for (i, (our, their)) in ours.iter().zip(&stream.packets).enumerate() {
        assert_eq!(our, their, "{} track {} sample {i}", file.display(), track.id);
    }
    assert_eq!(ours.len(), stream.packets.len(), "{} track {}", file.display(), track.id);
}

/// As [`compare`], where ffprobe is known to bend the time line of a whole track by up to one sample.
fn compare_bent(file: &Path, delivered: usize) {
    let title = read(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    assert_eq!(title.tracks.len(), delivered, "{}: {:?}", file.display(), title.left_out);
    for (track, mut stream) in title.tracks.iter().zip(ffprobe(file)) {
        let first = track.samples.get(0).expect("a sample");
        let bend = stream.packets[0].dts - first.dts;
        assert!(bend.unsigned_abs() <= u64::from(first.duration), "{} track {}: {bend}", file.display(), track.id);
        for packet in &mut stream.packets {
            packet.dts -= bend;
            packet.pts -= bend;
        }
        compare_track(file, track, &stream);
    }
}

/// PCM is cut into groups in our own way: the bytes must be the same in the same order, and every byte at the same time.
fn compare_pcm(track: &Track, stream: &Stream, frame_bytes: u64) {
    let frames = |packets: &[Packet]| {
        let mut frames = Vec::new();
        for packet in packets {
            for frame in 0..u64::from(packet.size) / frame_bytes {
                frames.push((packet.pos + frame * frame_bytes, packet.pts + frame as i64));
            }
        }
        frames
    };
    let ours = ours(track);
    assert_eq!(frames(&ours), frames(&stream.packets));
    let most = ours.iter().map(|packet| u64::from(packet.size) / frame_bytes).max().expect("samples");
    assert_eq!(most, u64::from(track.timescale) / 50, "groups of 20 ms");
}

macro_rules! clips {
    ($($name:ident: $delivered:expr, $args:expr;)*) => {$(
        #[test]
        fn $name() {
            if !have_ffmpeg() {
                return;
            }
            let folder = tempfile::tempdir().expect("a folder");
            compare(&ffmpeg(folder.path(), &$args.replace("{v}", VIDEO).replace("{a}", AUDIO)), $delivered);
        }
    )*};
}

clips! {
    h264_with_b_frames_and_aac: 2, "{v} {a} -c:v libx264 -bf 3 -g 25 -c:a aac out.mp4";
    moov_first: 2, "{v} {a} -c:v libx264 -bf 2 -g 25 -c:a aac -movflags faststart out.mp4";
    negative_composition_offsets: 2, "{v} {a} -c:v libx264 -bf 2 -g 25 -c:a aac -movflags negative_cts_offsets out.mp4";
    no_edit_list: 2, "{v} {a} -c:v libx264 -bf 2 -g 25 -c:a aac -use_editlist 0 out.mp4";
    h265_and_opus: 2, "{v} {a} -c:v libx265 -tag:v hvc1 -x265-params log-level=none:keyint=25 -c:a libopus out.mp4";
    h265_hev1: 1, "{v} -c:v libx265 -tag:v hev1 -x265-params log-level=none out.mp4";
    h264_and_mp3: 2, "{v} {a} -c:v libx264 -c:a libmp3lame out.mp4";
    mpeg4_visual: 1, "{v} -c:v mpeg4 -bf 2 -g 25 out.mp4";
    quicktime_h264_and_aac: 2, "{v} {a} -c:v libx264 -bf 2 -g 25 -c:a aac out.mov";
    quicktime_mp3: 2, "{v} {a} -c:v libx264 -c:a libmp3lame out.mov";
    sound_description_of_version_2: 1, "{a} -c:a aac -ar 96000 out.mov";
    surround: 1, "{a} -c:a aac -ac 6 out.m4a";
    third_generation: 2, "{v} {a} -c:v mpeg4 -c:a aac out.3gp";
    long_group_open_gop: 1, "{v} -c:v libx264 -bf 4 -g 20 -x264-params open-gop=1:b-pyramid=normal out.mp4";
    audio_alone: 1, "{a} -c:a aac -ar 44100 out.m4a";
    five_tracks: 5, "{v} {a} -map 0 -map 0 -map 1 -map 1 -map 1 -c:v libx264 -bf 2 -c:a aac out.mp4";
    a_subtitle_is_left_out: 1, "{v} -f srt -i data:text/plain;base64,MQowMDowMDowMCwwMDAgLS0+IDAwOjAwOjAxLDAwMApoaQo= -c:v libx264 -c:s mov_text out.mp4";
    fragmented: 2, "{v} {a} -c:v libx264 -bf 2 -g 25 -c:a aac -movflags frag_keyframe+empty_moov+default_base_moof out.mp4";
    fragmented_without_b_frames: 2, "{v} {a} -c:v libx264 -bf 0 -g 25 -c:a aac -movflags frag_keyframe+empty_moov out.mp4";
    fragmented_after_a_plain_start: 2, "{v} {a} -c:v libx264 -bf 2 -g 25 -c:a aac -movflags frag_keyframe out.mp4";
    fragmented_separate_moof: 2, "{v} {a} -c:v libx264 -bf 2 -g 25 -c:a aac -movflags frag_keyframe+separate_moof+delay_moov out.mp4";
    dash: 2, "{v} {a} -c:v libx264 -bf 2 -g 25 -c:a aac -movflags frag_keyframe+dash out.mp4";
    fragmented_mov: 2, "{v} {a} -c:v libx264 -bf 2 -g 25 -c:a aac -movflags frag_keyframe out.mov";
    time_scale_of_ten_megahertz: 1, "{v} -c:v libx264 -bf 2 -video_track_timescale 10000000 out.mp4";
}

#[test]
fn cmaf() {
    if !have_ffmpeg() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    // Negative composition offsets in fragments: ffprobe adds its shift of decode times to the composition times too.
    let args = format!("{VIDEO} {AUDIO} -c:v libx264 -bf 2 -g 25 -c:a aac -movflags frag_keyframe+cmaf out.mp4");
    let file = ffmpeg(folder.path(), &args);
    compare_bent(&file, 2);
    let title = read(&file).expect("it reads");
    let first_shown = title.tracks[0].samples.iter().map(|s| s.dts + i64::from(s.cts_offset)).min();
    assert_eq!(first_shown, Some(0), "the file says that the first picture is shown at 0");
}

#[test]
fn edit_lists() {
    if !have_ffmpeg() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    ffmpeg(folder, &format!("{VIDEO} {AUDIO} -c:v libx264 -bf 2 -g 25 -c:a aac whole.mp4"));
    // This edit starts between two pictures: ffprobe moves the later one to time 0, we leave both where they are, in time with the sound.
    compare_bent(&ffmpeg(folder, "-ss 1.3 -i whole.mp4 -c copy cut.mp4"), 2);
    compare(&ffmpeg(folder, "-i whole.mp4 -itsoffset 0.5 -i whole.mp4 -map 0:v -map 1:a -c copy late_audio.mp4"), 2);
    compare(&ffmpeg(folder, "-itsoffset 0.7 -i whole.mp4 -i whole.mp4 -map 0:v -map 1:a -c copy late_video.mp4"), 2);
    compare(&ffmpeg(folder, "-i whole.mp4 -t 1.5 -c copy short.mp4"), 2);
}

#[test]
fn g711_in_quicktime() {
    if !have_ffmpeg() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    for (encoder, channels) in [("pcm_mulaw", 1), ("pcm_alaw", 2)] {
        let file = ffmpeg(folder.path(), &format!("{VIDEO} {AUDIO} -c:v libx264 -c:a {encoder} -ar 8000 -ac {channels} out.mov"));
        let title = read(&file).expect("it reads");
        let streams = ffprobe(&file);
        compare_track(&file, &title.tracks[0], &streams[0]);
        compare_pcm(&title.tracks[1], &streams[1], channels);
    }
}

#[test]
fn what_is_not_delivered_is_said() {
    if !have_ffmpeg() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let file = ffmpeg(folder.path(), &format!("{VIDEO} {AUDIO} -c:v libx264 -c:a pcm_s16le out.mov"));
    let title = read(&file).expect("it reads");
    assert_eq!(title.tracks.len(), 1);
    assert_eq!(title.left_out.len(), 1);
    assert_eq!(title.left_out[0].format, "sowt");
    assert!(title.left_out[0].reason.contains("uncompressed"), "{:?}", title.left_out);
    assert_eq!(title.description.left_out, title.left_out);
    let file = ffmpeg(folder.path(), &format!("{AUDIO} -c:a ac3 out.mp4"));
    let error = read(&file).expect_err("nothing to deliver");
    assert!(error.to_string().contains("Dolby"), "{error}");
}
