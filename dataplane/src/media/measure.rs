//! Figures of a title: durations, rates, packets, and how much of the file a stretch of time touches.

use super::description::{LeftOutTrack, MediaDescription, TrackDescription};
use super::{Codec, Sample, SampleIndex, Title, Track};
use crate::payload;

/// RTP payload bytes that the expected number of packets is reckoned with.
pub const PAYLOAD_BYTES: u32 = 1400;

/// Visits of blocks that [`resident_blocks_max`](Title::resident_blocks_max) keeps apart: 96 MB of memory.
const VISITS_MAX: usize = 4_000_000;

/// What a track has besides its samples.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shape {
    /// Picture width in pixels.
    pub width: u32,
    /// Picture height in pixels.
    pub height: u32,
    /// Where its edits end, in the track's time scale.
    pub end: Option<i64>,
}

/// The figures of a track that take a walk through its samples to know.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Figures {
    /// Picture width in pixels.
    pub width: u32,
    /// Picture height in pixels.
    pub height: u32,
    /// Duration after edits, nanoseconds.
    pub duration_ns: u64,
    /// Mean rate, bits per second.
    pub mean_bps: u64,
    /// Highest rate in any one second, bits per second.
    pub peak_1s_bps: u64,
    /// RTP packets per second, mean.
    pub packets_per_second: f64,
}

/// Walks through a track's samples.
pub fn measure(track: &Track, shape: Shape) -> Figures {
    let rates = Rates::of(track);
    let shown_end = shape.end.map_or(rates.end, |end| end.min(rates.end));
    let sent_s = track.ns_of(rates.end.saturating_sub(rates.start)).max(1) as f64 / 1e9;
    Figures {
        width: shape.width,
        height: shape.height,
        duration_ns: u64::try_from(track.ns_of(shown_end)).unwrap_or(0),
        mean_bps: (rates.bytes as f64 * 8.0 / sent_s) as u64,
        peak_1s_bps: rates.peak_1s_bytes.saturating_mul(8),
        packets_per_second: rates.packets as f64 / sent_s,
    }
}

/// Describes a title.
pub fn describe(container: &str, size_bytes: u64, tracks: &[Track], figures: &[Figures], left_out: &[LeftOutTrack]) -> MediaDescription {
    let tracks: Vec<_> = tracks.iter().zip(figures).enumerate().map(|(i, (track, figures))| describe_track(track, *figures, i)).collect();
    MediaDescription {
        container: container.to_owned(),
        duration_ns: tracks.iter().map(|track| track.duration_ns).max().unwrap_or(0),
        size_bytes,
        tracks,
        left_out: left_out.to_vec(),
    }
}

fn describe_track(track: &Track, figures: Figures, position: usize) -> TrackDescription {
    let format = payload::format_of(&track.codec, track.kind, position);
    TrackDescription {
        id: track.id,
        kind: track.kind,
        codec: if format.codec_name.is_empty() { codec_label(&track.codec).to_owned() } else { format.codec_name },
        payload_type: format.payload_type,
        encoding: format.encoding.to_owned(),
        clock_rate: format.clock_rate,
        channels: format.channels,
        fmtp: format.fmtp,
        duration_ns: figures.duration_ns,
        samples: track.samples.len(),
        sync_samples: track.samples.sync_samples(),
        mean_bps: figures.mean_bps,
        peak_1s_bps: figures.peak_1s_bps,
        packets_per_second: figures.packets_per_second,
        width: figures.width,
        height: figures.height,
    }
}

/// The codec's plain name.
pub fn codec_label(codec: &Codec) -> &'static str {
    match codec {
        Codec::H264 { .. } => "H.264",
        Codec::H265 { .. } => "H.265",
        Codec::Av1 { .. } => "AV1",
        Codec::Mpeg4Visual { .. } => "MPEG-4 Visual",
        Codec::Aac { .. } => "AAC",
        Codec::MpegAudio => "MPEG audio",
        Codec::Opus { .. } => "Opus",
        Codec::Pcmu { .. } => "G.711 mu-law",
        Codec::Pcma { .. } => "G.711 A-law",
    }
}

/// Sums over a track's samples.
struct Rates {
    bytes: u64,
    packets: u64,
    peak_1s_bytes: u64,
    /// First composition time.
    start: i64,
    /// Last composition time and its sample's duration.
    end: i64,
}

impl Rates {
    fn of(track: &Track) -> Self {
        let mut rates = Self { bytes: 0, packets: 0, peak_1s_bytes: 0, start: i64::MAX, end: i64::MIN };
        let second = i64::from(track.timescale);
        let mut oldest = track.samples.iter().peekable();
        let mut window_bytes = 0u64;
        for sample in track.samples.iter() {
            let size = u64::from(sample.size);
            let pts = sample.dts.saturating_add(i64::from(sample.cts_offset));
            rates.bytes += size;
            rates.packets += u64::from(sample.size.div_ceil(PAYLOAD_BYTES));
            rates.start = rates.start.min(pts);
            rates.end = rates.end.max(pts.saturating_add(i64::from(sample.duration)));
            window_bytes += size;
            while let Some(old) = oldest.next_if(|old| old.dts <= sample.dts.saturating_sub(second)) {
                window_bytes -= u64::from(old.size);
            }
            rates.peak_1s_bytes = rates.peak_1s_bytes.max(window_bytes);
        }
        rates
    }
}

impl Title {
    /// The largest number of distinct blocks of the file (`block_bytes` long, aligned) that the samples of all tracks within any window of
    /// `window_ns` of decode time touch: the buffers that one session needs to hold that much. Exact, except for titles so scattered that it
    /// would take more than a bounded memory to know; those answer with the blocks of the whole file.
    ///
    /// Takes time in proportion to the number of samples: ask once and keep the answer.
    pub fn resident_blocks_max(&self, block_bytes: u64, window_ns: u64) -> u64 {
        let block_bytes = block_bytes.max(1);
        let mut visits = Vec::new();
        for track in &self.tracks {
            if !add_visits(track, block_bytes, &mut visits) {
                return self.description.size_bytes.div_ceil(block_bytes);
            }
        }
        // A block is held at the start of a window [t, t + window] when one of its visits meets the window: for t from `first - window` to `last`.
        let window_ns = i64::try_from(window_ns).unwrap_or(i64::MAX);
        for visit in &mut visits {
            visit.first_ns = visit.first_ns.saturating_sub(window_ns);
        }
        visits.sort_unstable_by_key(|visit| (visit.block, visit.first_ns));
        visits.dedup_by(|later, earlier| {
            let meets = later.block == earlier.block && later.first_ns <= earlier.last_ns;
            if meets {
                earlier.last_ns = earlier.last_ns.max(later.last_ns);
            }
            meets
        });
        let mut ends: Vec<i64> = visits.iter().map(|visit| visit.last_ns).collect();
        ends.sort_unstable();
        visits.sort_unstable_by_key(|visit| visit.first_ns);
        let mut ended = ends.into_iter().peekable();
        let (mut held, mut most) = (0u64, 0u64);
        for visit in visits {
            held += 1;
            while ended.next_if(|end| *end < visit.first_ns).is_some() {
                held -= 1;
            }
            most = most.max(held);
        }
        most
    }
}

/// A block of the file and when it is needed.
struct Visit {
    block: u64,
    first_ns: i64,
    last_ns: i64,
}

/// Adds the blocks that a track's samples touch, one visit for samples that follow each other in the same block. False when there are too many.
fn add_visits(track: &Track, block_bytes: u64, visits: &mut Vec<Visit>) -> bool {
    let mut last: Option<Visit> = None;
    for Sample { offset, size, dts, .. } in SampleIndex::iter(&track.samples) {
        let ns = track.ns_of(dts);
        let last_block = offset.saturating_add(u64::from(size.saturating_sub(1))) / block_bytes;
        for block in offset / block_bytes..=last_block {
            match &mut last {
                Some(last) if last.block == block => last.last_ns = ns,
                _ if visits.len() >= VISITS_MAX => return false,
                _ => visits.extend(last.replace(Visit { block, first_ns: ns, last_ns: ns })),
            }
        }
    }
    visits.extend(last);
    true
}

#[cfg(test)]
mod tests;
