//! Fuzz target `movie`: parameter sets and times that senders choose, written as a movie, which our own reader must read as it was written.
//!
//! ```text
//! byte 0: codec, number of parameter sets | each: length, bytes | then, again and again:  bytes | time to the next | pts - dts (2) | sync
//! ```

use std::io::Cursor;

use dataplane::media::movie::{HEAD_BYTES, MovieSample, MovieTrack, head, moov, obstacle};
use dataplane::media::{Codec, MediaError, TrackKind, read_title};

/// Runs one input.
pub fn run(data: &[u8]) {
    let Some((&which, mut rest)) = data.split_first() else { return };
    let mut set = || {
        let (&len, after) = rest.split_first()?;
        let (set, after) = after.split_at(after.len().min(usize::from(len)));
        rest = after;
        Some(set.to_vec())
    };
    let mut sets = || (0..which >> 3 & 3).filter_map(|_| set()).collect::<Vec<_>>();
    let (codec, kind) = match which & 7 {
        0 | 1 => (Codec::H264 { length_bytes: 4, sps: sets(), pps: sets() }, TrackKind::Video),
        2 | 3 => (Codec::H265 { length_bytes: 4, vps: sets(), sps: sets(), pps: sets() }, TrackKind::Video),
        4 => (Codec::Mpeg4Visual { config: set().unwrap_or_default() }, TrackKind::Video),
        5 => (Codec::Aac { config: set().unwrap_or_default(), sample_rate: 48_000, channels: 2 }, TrackKind::Audio),
        6 => (Codec::MpegAudio, TrackKind::Audio),
        _ => (Codec::Opus { channels: 2 }, TrackKind::Audio),
    };
    if obstacle(&codec).is_some() {
        return;
    }
    let (mut samples, mut dts, mut offset) = (Vec::new(), 0, HEAD_BYTES);
    while let Some((&[bytes, span, high, low, flags], after)) = rest.split_first_chunk() {
        rest = after;
        let first = samples.is_empty();
        // Nothing is shown before the first sample: a player would leave that out.
        let pts_offset = if first { 0 } else { i32::from(i16::from_be_bytes([high, low])).max(0) };
        let bytes = u32::from(bytes).max(1);
        samples.push(MovieSample { offset, dts, bytes, pts_offset, sync: first || flags & 1 != 0 });
        dts += u64::from(span.max(1)) << (flags >> 4);
        offset += u64::from(bytes) + u64::from(flags >> 1 & 7);
    }
    if samples.is_empty() {
        return;
    }
    let track = MovieTrack { kind, codec, timescale: 90_000, start_ns: 7, last_duration: 3000, samples };
    let mut file = head(offset);
    file.resize(offset as usize, 0);
    file.extend_from_slice(&moov(std::slice::from_ref(&track)));
    let title = match read_title(&mut Cursor::new(&file), file.len() as u64) {
        Ok(title) => title,
        // The only track has its parameter sets nowhere, or its configuration is nonsense: that is said.
        Err(MediaError::Unsupported { .. }) => return,
        Err(error) => panic!("what was written does not read: {error}"),
    };
    let found = title.tracks.first().expect("the track");
    assert_eq!(found.samples.len() as usize, track.samples.len());
    for (sample, got) in track.samples.iter().zip(found.samples.iter()) {
        assert_eq!((sample.offset, sample.bytes, sample.pts_offset), (got.offset, got.size, got.cts_offset));
        assert_eq!(sample.dts as i64, got.dts);
    }
}
