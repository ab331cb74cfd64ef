//! A title: the tracks of one file and their flat sample index.
//!
//! The index has edit lists applied already: times are those of the presentation, in the track's time scale, and may be negative for
//! samples that only prime a decoder.

use super::description::{LeftOutTrack, MediaDescription, TrackKind};
pub use super::index::SampleIndex;

/// One sample (access unit, audio frame, or a group of PCM samples of about 20 ms).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Byte offset in the file.
    pub offset: u64,
    /// Bytes.
    pub size: u32,
    /// Decode time in the track's time scale, after edits.
    pub dts: i64,
    /// Composition time minus decode time.
    pub cts_offset: i32,
    /// Decode time of the next sample minus this one's (for the last: its duration).
    pub duration: u32,
    /// A decoder can start here.
    pub sync: bool,
}

/// How a track is coded, with what its packetiser and its SDP need.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Codec {
    /// H.264 in length-prefixed NAL units.
    H264 {
        /// Bytes of a NAL length (1, 2 or 4).
        length_bytes: u8,
        /// Sequence parameter sets.
        sps: Vec<Vec<u8>>,
        /// Picture parameter sets.
        pps: Vec<Vec<u8>>,
    },
    /// H.265 in length-prefixed NAL units.
    H265 {
        /// Bytes of a NAL length (1, 2 or 4).
        length_bytes: u8,
        /// Video parameter sets.
        vps: Vec<Vec<u8>>,
        /// Sequence parameter sets.
        sps: Vec<Vec<u8>>,
        /// Picture parameter sets.
        pps: Vec<Vec<u8>>,
    },
    /// AV1 in low-overhead OBUs.
    Av1 {
        /// The `av1C` box's payload.
        config: Vec<u8>,
    },
    /// MPEG-4 part 2 visual.
    Mpeg4Visual {
        /// The decoder-specific information of `esds`.
        config: Vec<u8>,
    },
    /// AAC raw access units.
    Aac {
        /// AudioSpecificConfig.
        config: Vec<u8>,
        /// Sampling rate in Hz.
        sample_rate: u32,
        /// Channels.
        channels: u8,
    },
    /// MPEG-1/2 audio, layers I to III.
    MpegAudio,
    /// Opus.
    Opus {
        /// Channels.
        channels: u8,
    },
    /// G.711 mu-law.
    Pcmu {
        /// Sampling rate in Hz.
        sample_rate: u32,
        /// Channels.
        channels: u8,
    },
    /// G.711 A-law.
    Pcma {
        /// Sampling rate in Hz.
        sample_rate: u32,
        /// Channels.
        channels: u8,
    },
}

/// One deliverable track.
#[derive(Clone, Debug)]
pub struct Track {
    /// The container's track id.
    pub id: u32,
    /// Sight or sound.
    pub kind: TrackKind,
    /// How it is coded.
    pub codec: Codec,
    /// Units per second of sample times.
    pub timescale: u32,
    /// The samples in decode order.
    pub samples: SampleIndex,
}

/// What a media file is once read.
#[derive(Clone, Debug)]
pub struct Title {
    /// Deliverable tracks in file order.
    pub tracks: Vec<Track>,
    /// The others.
    pub left_out: Vec<LeftOutTrack>,
    /// Plain-data description; its tracks correspond to `tracks` by position.
    pub description: MediaDescription,
}

impl Track {
    /// Time in nanoseconds of a time in the track's time scale, rounded down.
    pub fn ns_of(&self, ticks: i64) -> i64 {
        scale(ticks, NS_PER_SECOND, self.timescale)
    }

    /// Time in the track's time scale of a time in nanoseconds, rounded down.
    pub fn ticks_of(&self, ns: i64) -> i64 {
        scale(ns, self.timescale, NS_PER_SECOND)
    }
}

const NS_PER_SECOND: u32 = 1_000_000_000;

/// `value * mul / div`, rounded down, kept within `i64`.
fn scale(value: i64, mul: u32, div: u32) -> i64 {
    let scaled = (i128::from(value) * i128::from(mul)).div_euclid(i128::from(div.max(1)));
    scaled.clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64
}
