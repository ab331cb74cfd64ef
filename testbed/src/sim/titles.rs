//! Titles that exist only in simulation: real sample structure, bytes from a seed.

use std::sync::Arc;

use dataplane::disks::sim::SimFile;
use dataplane::media::index::IndexBuilder;
use dataplane::media::{Codec, MediaDescription, Title, Track, TrackDescription, TrackKind};
use dataplane::payload::format_of;
use pacing::schedule::ticks_to_ns;
use rand::Rng;
use rand::rngs::StdRng;

const VIDEO_TIMESCALE: u32 = 12_800;
const VIDEO_TICKS: i64 = 512;
const AUDIO_RATE: u32 = 48_000;
const AUDIO_TICKS: i64 = 1024;

/// A title with its bytes.
pub struct SimTitle {
    /// Its file on the simulated disk.
    pub file: SimFile,
    /// The same bytes, for the oracle.
    pub bytes: Arc<[u8]>,
    /// The title.
    pub title: Arc<Title>,
}

impl SimTitle {
    /// A title of 20 to 90 s: H.264 at 25 frames/s with B-frames on every second title, 100 kbps to 3 Mbps, interleaved with AAC.
    pub fn make(id: u64, rng: &mut StdRng) -> Self {
        let seconds = rng.random_range(20..90);
        let frame_bytes = [500, 1_500, 6_000, 15_000][rng.random_range(0..4)];
        let b_frames = id.is_multiple_of(2);
        let (mut video, mut audio) = (IndexBuilder::default(), IndexBuilder::default());
        let mut bytes = vec![0; 48];
        let mut audio_next = 0i64;
        for frame in 0..seconds * 25i64 {
            let sync = frame % 50 == 0;
            let size = rng.random_range(frame_bytes / 2..frame_bytes * 3 / 2) * if sync { 4 } else { 1 };
            // Composition as of I B P B P: every other frame is shown one frame later than it is decoded.
            let cts_offset = if b_frames { VIDEO_TICKS * if frame % 2 == 0 { 2 } else { 1 } } else { 0 };
            push(&mut video, bytes.len(), size, frame * VIDEO_TICKS, cts_offset, sync);
            nal(&mut bytes, size, if sync { 0x65 } else { 0x41 }, rng);
            while audio_next * i64::from(VIDEO_TIMESCALE) < (frame + 1) * VIDEO_TICKS * i64::from(AUDIO_RATE) {
                let size = rng.random_range(100..400);
                push(&mut audio, bytes.len(), size, audio_next, 0, true);
                bytes.extend((0..size).map(|_| rng.random::<u8>()));
                audio_next += AUDIO_TICKS;
            }
        }
        let sps = vec![vec![0x67, 0x42, 0xc0, 0x1e, 0xd9, 0x00]];
        let pps = vec![vec![0x68, 0xcb, 0x83, 0xcb, 0x20]];
        let tracks = vec![
            Track {
                id: 1,
                kind: TrackKind::Video,
                codec: Codec::H264 { length_bytes: 4, sps, pps },
                timescale: VIDEO_TIMESCALE,
                samples: video.finish(VIDEO_TICKS as u32),
            },
            Track {
                id: 2,
                kind: TrackKind::Audio,
                codec: Codec::Aac { config: vec![0x11, 0x90], sample_rate: AUDIO_RATE, channels: 2 },
                timescale: AUDIO_RATE,
                samples: audio.finish(AUDIO_TICKS as u32),
            },
        ];
        let description = describe(&tracks, bytes.len() as u64);
        let bytes: Arc<[u8]> = bytes.into();
        let title = Title { tracks, left_out: Vec::new(), description };
        Self { file: SimFile::bytes(id, Arc::clone(&bytes)), bytes, title: Arc::new(title) }
    }
}

fn push(index: &mut IndexBuilder, offset: usize, size: usize, dts: i64, cts_offset: i64, sync: bool) {
    index.push(offset as u64, size as u32, dts, cts_offset, sync).expect("a simulated sample fits the index");
}

/// One sample of one NAL unit with its length in front.
fn nal(bytes: &mut Vec<u8>, size: usize, first: u8, rng: &mut StdRng) {
    bytes.extend((size as u32 - 4).to_be_bytes());
    bytes.push(first);
    let seed: u64 = rng.random();
    bytes.extend((0..size as u64 - 5).map(|i| (seed.wrapping_mul(i | 1) >> 32) as u8));
}

fn describe(tracks: &[Track], size_bytes: u64) -> MediaDescription {
    let described = tracks.iter().enumerate().map(|(position, track)| {
        let format = format_of(&track.codec, track.kind, position);
        let last = track.samples.get(track.samples.len() - 1).expect("a title has samples");
        TrackDescription {
            id: track.id,
            kind: track.kind,
            codec: format.codec_name,
            payload_type: format.payload_type,
            encoding: format.encoding.to_owned(),
            clock_rate: format.clock_rate,
            channels: format.channels,
            fmtp: format.fmtp,
            duration_ns: ticks_to_ns(last.dts + i64::from(last.duration), track.timescale) as u64,
            samples: track.samples.len(),
            sync_samples: 0,
            mean_bps: 0,
            peak_1s_bps: 0,
            packets_per_second: 0.0,
            width: 0,
            height: 0,
        }
    });
    let tracks: Vec<_> = described.collect();
    let duration_ns = tracks.iter().map(|t| t.duration_ns).max().unwrap_or(0);
    MediaDescription { container: "simulated".into(), duration_ns, size_bytes, tracks, left_out: Vec::new() }
}
