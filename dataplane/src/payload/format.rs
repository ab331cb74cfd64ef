//! How a codec is announced: payload type, encoding name, clock rate and format parameters.

use crate::media::{Codec, TrackKind};

/// What `a=rtpmap` and `a=fmtp` say of a track.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PayloadFormat {
    /// RTP payload type: the static one where there is one (RFC 3551), else 96 plus the track's position.
    pub payload_type: u8,
    /// Encoding name.
    pub encoding: &'static str,
    /// RTP clock rate, Hz.
    pub clock_rate: u32,
    /// Channels of `a=rtpmap`.
    pub channels: Option<u8>,
    /// Parameters of `a=fmtp` after the payload type; empty for none.
    pub fmtp: String,
    /// Codec for people ("H.264 High@4.0", "AAC-LC 2 ch").
    pub codec_name: String,
}

/// The format of a track; `position` is its place among the delivered tracks.
pub fn format_of(_codec: &Codec, _kind: TrackKind, _position: usize) -> PayloadFormat {
    PayloadFormat { payload_type: 96, encoding: "", clock_rate: 90_000, channels: None, fmtp: String::new(), codec_name: String::new() }
}
