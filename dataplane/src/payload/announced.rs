//! The codec of a track from how it is announced in SDP: the reverse of [`format_of`](super::format_of).

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use crate::media::Codec;

/// Some senders leave the padding out.
const BASE64: GeneralPurpose =
    GeneralPurpose::new(&alphabet::STANDARD, GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent));
/// Parameter sets of one kind, and bytes of one or of a configuration.
const SETS_MAX: usize = 32;
const SET_BYTES_MAX: usize = 4096;
/// Bytes of a NAL length on our tapes.
const LENGTH_BYTES: u8 = 4;

/// Why a track cannot be taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotTaken {
    /// The encoding is none of ours.
    #[error("encoding {0:?} is not supported")]
    Encoding(String),
    /// A parameter of `a=fmtp` is missing or says something that we cannot do.
    #[error("{encoding} needs {what} in its a=fmtp line")]
    Parameter {
        /// The encoding.
        encoding: &'static str,
        /// What is wanted.
        what: &'static str,
    },
}

/// The codec of a track with this encoding name, clock rate, channels and parameters of `a=fmtp` (what follows the payload type).
///
/// # Errors
/// [`NotTaken`].
pub fn codec_of(encoding: &str, clock_rate: u32, channels: Option<u8>, fmtp: &str) -> Result<Codec, NotTaken> {
    let parameter = |name: &str| {
        let pairs = fmtp.split(';').filter_map(|pair| pair.trim().split_once('='));
        pairs.clone().find(|(known, _)| known.trim().eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    };
    match encoding.to_ascii_uppercase().as_str() {
        "H264" => {
            // RFC 6184 6.2: mode 2 interleaves.
            if parameter("packetization-mode").is_some_and(|mode| mode == "2") {
                return Err(NotTaken::Parameter { encoding: "H264", what: "packetization-mode=0 or 1" });
            }
            let sets = sets(parameter("sprop-parameter-sets"));
            let of_type = |kind: u8| sets.iter().filter(|set| set.first().is_some_and(|byte| byte & 0x1f == kind)).cloned().collect();
            Ok(Codec::H264 { length_bytes: LENGTH_BYTES, sps: of_type(7), pps: of_type(8) })
        }
        "H265" => {
            // RFC 7798 7.1: with DON values in the payloads, which this sender announces by a number above 0.
            if parameter("sprop-max-don-diff").is_some_and(|value| value != "0") {
                return Err(NotTaken::Parameter { encoding: "H265", what: "sprop-max-don-diff=0" });
            }
            let (vps, sps, pps) = (sets(parameter("sprop-vps")), sets(parameter("sprop-sps")), sets(parameter("sprop-pps")));
            Ok(Codec::H265 { length_bytes: LENGTH_BYTES, vps, sps, pps })
        }
        "AV1" => Ok(Codec::Av1 { config: Vec::new() }),
        "MP4V-ES" => Ok(Codec::Mpeg4Visual { config: parameter("config").and_then(hex).unwrap_or_default() }),
        "MPEG4-GENERIC" => {
            let is_hbr = parameter("mode").is_some_and(|mode| mode.eq_ignore_ascii_case("AAC-hbr"));
            let sizes = [("sizelength", "13"), ("indexlength", "3"), ("indexdeltalength", "3")];
            if !is_hbr || sizes.iter().any(|&(name, value)| parameter(name).is_some_and(|given| given != value)) {
                return Err(NotTaken::Parameter { encoding: "mpeg4-generic", what: "mode=AAC-hbr with its usual lengths (13, 3, 3)" });
            }
            let config = parameter("config").and_then(hex).filter(|config| config.len() >= 2);
            let config = config.ok_or(NotTaken::Parameter { encoding: "mpeg4-generic", what: "config= with the AudioSpecificConfig" })?;
            Ok(Codec::Aac { config, sample_rate: clock_rate, channels: channels.unwrap_or(1) })
        }
        "MPA" => Ok(Codec::MpegAudio),
        "OPUS" => {
            let stereo = parameter("sprop-stereo").is_none_or(|value| value != "0");
            Ok(Codec::Opus { channels: if stereo { 2 } else { 1 } })
        }
        "PCMU" => Ok(Codec::Pcmu { sample_rate: clock_rate, channels: channels.unwrap_or(1) }),
        "PCMA" => Ok(Codec::Pcma { sample_rate: clock_rate, channels: channels.unwrap_or(1) }),
        _ => Err(NotTaken::Encoding(encoding.chars().take(32).collect())),
    }
}

/// Encoding and clock rate of a static payload type (RFC 3551 tables 4 and 5), for those that we have.
pub fn static_type(payload_type: u8) -> Option<(&'static str, u32)> {
    match payload_type {
        0 => Some(("PCMU", 8000)),
        8 => Some(("PCMA", 8000)),
        14 => Some(("MPA", 90_000)),
        _ => None,
    }
}

fn sets(list: Option<&str>) -> Vec<Vec<u8>> {
    let decoded = list.unwrap_or("").split(',').map(str::trim).filter(|set| set.len() <= 2 * SET_BYTES_MAX);
    decoded.filter_map(|set| BASE64.decode(set).ok()).filter(|set| !set.is_empty()).take(SETS_MAX).collect()
}

fn hex(text: &str) -> Option<Vec<u8>> {
    if text.len() > 2 * SET_BYTES_MAX || !text.len().is_multiple_of(2) {
        return None;
    }
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    text.as_bytes().chunks_exact(2).map(|pair| Some(digit(*pair.first()?)? << 4 | digit(*pair.get(1)?)?)).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::media::TrackKind;
    use crate::payload::format_of;

    #[test]
    fn what_is_announced_is_read_back() {
        let h264 = Codec::H264 { length_bytes: 4, sps: vec![vec![0x67, 0x64, 0, 40, 1]], pps: vec![vec![0x68, 1, 2], vec![0x68, 3]] };
        let h265 = Codec::H265 { length_bytes: 4, vps: vec![vec![0x40, 1]], sps: vec![vec![0x42, 1, 7]], pps: vec![vec![0x44, 1]] };
        let codecs = [
            (h264, TrackKind::Video),
            (h265, TrackKind::Video),
            (Codec::Mpeg4Visual { config: vec![0, 0, 1, 0xb0, 3] }, TrackKind::Video),
            (Codec::Aac { config: vec![0x12, 0x10], sample_rate: 44_100, channels: 2 }, TrackKind::Audio),
            (Codec::MpegAudio, TrackKind::Audio),
            (Codec::Opus { channels: 2 }, TrackKind::Audio),
            (Codec::Opus { channels: 1 }, TrackKind::Audio),
            (Codec::Pcmu { sample_rate: 8000, channels: 1 }, TrackKind::Audio),
            (Codec::Pcma { sample_rate: 16_000, channels: 2 }, TrackKind::Audio),
        ];
        for (codec, kind) in codecs {
            let format = format_of(&codec, kind, 0);
            assert_eq!(codec_of(format.encoding, format.clock_rate, format.channels, &format.fmtp), Ok(codec));
        }
        assert_eq!(codec_of("VP8", 90_000, None, ""), Err(NotTaken::Encoding("VP8".into())));
        for (encoding, fmtp) in
            [("H264", "packetization-mode=2"), ("mpeg4-generic", "mode=AAC-lbr"), ("MPEG4-GENERIC", "mode=AAC-hbr;config=1")]
        {
            assert!(matches!(codec_of(encoding, 1, None, fmtp), Err(NotTaken::Parameter { .. })), "{encoding}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_survived(encoding in "(h264|H265|MPEG4-GENERIC|opus|\\PC{0,8})", fmtp in "(;|=|mode|AAC-hbr|config|sprop-vps|[0-9A-Fa-f+/]{0,8}|\\PC){0,30}", rate: u32, channels: Option<u8>) {
            let _ = codec_of(&encoding, rate, channels, &fmtp);
        }
    }
}
