//! A title: the tracks of one file and their flat sample index.
//!
//! The index has edit lists applied already: times are those of the presentation, in the track's time scale, and may be negative for
//! samples that only prime a decoder.

use super::description::{LeftOutTrack, MediaDescription, TrackKind};

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

/// The flat index of a track's samples: about 16 bytes per sample.
#[derive(Clone, Debug, Default)]
pub struct SampleIndex {}

impl SampleIndex {
    /// Number of samples.
    pub fn len(&self) -> u32 {
        0
    }

    /// True when there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The sample at `i`, `None` past the end. Constant time.
    pub fn get(&self, _i: u32) -> Option<Sample> {
        None
    }

    /// Index of the last sync sample whose composition time is at or before `time` (track time scale); the first sync sample when there
    /// is none before; 0 when the track has none at all. Logarithmic time.
    pub fn sync_at_or_before(&self, _time: i64) -> u32 {
        0
    }

    /// Index of the first sample whose decode time is at or after `time`; `len()` when there is none. Logarithmic time.
    pub fn first_at_or_after(&self, _time: i64) -> u32 {
        0
    }
}
