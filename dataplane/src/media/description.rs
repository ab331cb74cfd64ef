//! What a title is, as plain data: the answer to `CreateSession` (SYSTEMS: connection protocol), and the source of SDP and JSON.

use serde::{Deserialize, Serialize};

/// Sight or sound.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TrackKind {
    /// `m=video`
    Video,
    /// `m=audio`
    Audio,
}

/// One deliverable track.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrackDescription {
    /// The container's track id.
    pub id: u32,
    /// Sight or sound.
    pub kind: TrackKind,
    /// Codec for people and JSON: "H.264 High@4.0", "AAC-LC".
    pub codec: String,
    /// RTP payload type.
    pub payload_type: u8,
    /// Encoding name of `a=rtpmap` ("H264", "mpeg4-generic").
    pub encoding: String,
    /// RTP clock rate in Hz.
    pub clock_rate: u32,
    /// Channels of `a=rtpmap`, for audio that names them.
    pub channels: Option<u8>,
    /// Parameters of `a=fmtp` after the payload type; empty for none.
    pub fmtp: String,
    /// Duration of the track after edits, nanoseconds.
    pub duration_ns: u64,
    /// Number of samples in the index.
    pub samples: u32,
    /// Number of sync samples.
    pub sync_samples: u32,
    /// Mean payload rate, bits per second.
    pub mean_bps: u64,
    /// Highest payload rate in any one second, bits per second.
    pub peak_1s_bps: u64,
    /// Expected RTP packets per second, mean.
    pub packets_per_second: f64,
    /// Picture width in pixels (0 for audio).
    pub width: u32,
    /// Picture height in pixels (0 for audio).
    pub height: u32,
}

/// A track that cannot be delivered, and why.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LeftOutTrack {
    /// The container's track id.
    pub id: u32,
    /// Its sample entry or handler ("mp4s", "text").
    pub format: String,
    /// Why it is left out.
    pub reason: String,
}

/// [`MediaDescription::container`] of what is live.
pub const LIVE: &str = "live";

/// What a title is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MediaDescription {
    /// Container for people: "MP4", "fragmented MP4", "QuickTime".
    pub container: String,
    /// Duration of the longest delivered track, nanoseconds.
    pub duration_ns: u64,
    /// File size in bytes.
    pub size_bytes: u64,
    /// Tracks that are delivered, in file order.
    pub tracks: Vec<TrackDescription>,
    /// Tracks that are not.
    pub left_out: Vec<LeftOutTrack>,
}

impl MediaDescription {
    /// It is no file: it has no end that is known, and is played from now on.
    pub fn is_live(&self) -> bool {
        self.container == LIVE
    }
}
