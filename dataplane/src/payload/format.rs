//! How a codec is announced: payload type, encoding name, clock rate and format parameters.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::codec_name::{codec_name, mpeg4_visual_profile_level};
use crate::media::{Codec, TrackKind};

/// What `a=rtpmap` and `a=fmtp` say of a track.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PayloadFormat {
    /// RTP payload type: the static one where there is one (RFC 3551), else 96 plus the track's position.
    pub payload_type: u8,
    /// Encoding name.
    pub encoding: &'static str,
    /// RTP clock rate, Hz; never 0.
    pub clock_rate: u32,
    /// Channels of `a=rtpmap`.
    pub channels: Option<u8>,
    /// Parameters of `a=fmtp` after the payload type; empty for none.
    pub fmtp: String,
    /// Codec for people ("H.264 High@4.0", "AAC-LC 2 ch").
    pub codec_name: String,
}

/// First dynamic payload type (RFC 3551 6).
const DYNAMIC: u8 = 96;
/// Number of dynamic payload types. They may recur: each media stream has its own ports or channels.
const DYNAMIC_COUNT: usize = 32;
/// Static payload types (RFC 3551 tables 4 and 5).
const PT_PCMU: u8 = 0;
const PT_PCMA: u8 = 8;
const PT_MPA: u8 = 14;
/// Clock of video, and of MPEG audio (RFC 3551 4.5.13).
const CLOCK_90K: u32 = 90_000;
/// RFC 7587 4.1: the clock of Opus is 48 kHz whatever the coded bandwidth.
const OPUS_CLOCK: u32 = 48_000;
/// RFC 7587 7: the rtpmap of Opus always says two channels.
const OPUS_CHANNELS: u8 = 2;

/// The format of a track; `position` is its place among the delivered tracks.
pub fn format_of(codec: &Codec, _kind: TrackKind, position: usize) -> PayloadFormat {
    let mut format = PayloadFormat {
        payload_type: DYNAMIC + (position % DYNAMIC_COUNT) as u8,
        encoding: "",
        clock_rate: CLOCK_90K,
        channels: None,
        fmtp: String::new(),
        codec_name: codec_name(codec),
    };
    match codec {
        Codec::H264 { sps, pps, .. } => {
            format.encoding = "H264";
            format.fmtp = h264_fmtp(sps, pps);
        }
        Codec::H265 { vps, sps, pps, .. } => {
            format.encoding = "H265";
            format.fmtp = join([("sprop-vps", sets(vps)), ("sprop-sps", sets(sps)), ("sprop-pps", sets(pps))]);
        }
        Codec::Av1 { config } => {
            format.encoding = "AV1";
            format.fmtp = av1_fmtp(config);
        }
        Codec::Mpeg4Visual { config } => {
            format.encoding = "MP4V-ES";
            let level = mpeg4_visual_profile_level(config).map(|level| level.to_string()).unwrap_or_default();
            format.fmtp = join([("profile-level-id", level), ("config", hex(config))]);
        }
        Codec::Aac { config, sample_rate, channels } => {
            format.encoding = "mpeg4-generic";
            format.clock_rate = (*sample_rate).max(1);
            format.channels = (*channels > 0).then_some(*channels);
            // RFC 3640 4.1: streamtype 5 is audio; profile-level-id 1 is what players expect where the level is not known.
            format.fmtp = join([
                ("streamtype", "5".into()),
                ("profile-level-id", "1".into()),
                ("mode", "AAC-hbr".into()),
                ("sizelength", "13".into()),
                ("indexlength", "3".into()),
                ("indexdeltalength", "3".into()),
                ("config", hex(config)),
            ]);
        }
        Codec::MpegAudio => {
            format.encoding = "MPA";
            format.payload_type = PT_MPA;
        }
        Codec::Opus { channels } => {
            format.encoding = "opus";
            format.clock_rate = OPUS_CLOCK;
            format.channels = Some(OPUS_CHANNELS);
            format.fmtp = join([("sprop-stereo", u8::from(*channels > 1).to_string())]);
        }
        Codec::Pcmu { sample_rate, channels } => g711(&mut format, "PCMU", PT_PCMU, *sample_rate, *channels),
        Codec::Pcma { sample_rate, channels } => g711(&mut format, "PCMA", PT_PCMA, *sample_rate, *channels),
    }
    format
}

/// RFC 3551 4.5.14: the static types are 8000 Hz, one channel.
fn g711(format: &mut PayloadFormat, encoding: &'static str, static_type: u8, sample_rate: u32, channels: u8) {
    format.encoding = encoding;
    format.clock_rate = sample_rate.max(1);
    format.channels = (channels > 1).then_some(channels);
    if sample_rate == 8000 && channels <= 1 {
        format.payload_type = static_type;
    }
}

/// RFC 6184 8.1. profile-level-id is the three bytes after the SPS's header.
fn h264_fmtp(sps: &[Vec<u8>], pps: &[Vec<u8>]) -> String {
    let profile_level_id = sps.first().and_then(|sps| sps.get(1..4)).map(hex).unwrap_or_default();
    join([
        ("packetization-mode", "1".into()),
        ("profile-level-id", profile_level_id),
        ("sprop-parameter-sets", sets(sps.iter().chain(pps))),
    ])
}

/// RTP payload format for AV1, 7.1: profile, level-idx and tier, as in the second and third byte of `av1C`.
fn av1_fmtp(config: &[u8]) -> String {
    let Some(&[second, third]) = config.get(1..3) else { return String::new() };
    join([("profile", (second >> 5).to_string()), ("level-idx", (second & 0x1f).to_string()), ("tier", (third >> 7).to_string())])
}

/// Joins the parameters that have a value.
fn join<const N: usize>(parameters: [(&str, String); N]) -> String {
    let mut out = String::new();
    for (name, value) in parameters.iter().filter(|(_, value)| !value.is_empty()) {
        let separator = if out.is_empty() { "" } else { ";" };
        let _ = write!(out, "{separator}{name}={value}");
    }
    out
}

/// Parameter sets in base64 with commas between.
fn sets<'a>(sets: impl IntoIterator<Item = &'a Vec<u8>>) -> String {
    let encoded: Vec<String> = sets.into_iter().filter(|set| !set.is_empty()).map(|set| BASE64.encode(set)).collect();
    encoded.join(",")
}

fn hex(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        let _ = write!(out, "{byte:02X}");
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn format(codec: Codec) -> PayloadFormat {
        format_of(&codec, TrackKind::Video, 1)
    }

    #[test]
    fn h264_is_announced_with_its_parameter_sets() {
        let sps = vec![0x67, 0x64, 0x00, 0x28, 0xac];
        let got = format(Codec::H264 { length_bytes: 4, sps: vec![sps], pps: vec![vec![0x68, 0xee, 0x3c, 0x80]] });
        assert_eq!(got.fmtp, "packetization-mode=1;profile-level-id=640028;sprop-parameter-sets=Z2QAKKw=,aO48gA==");
        assert_eq!((got.payload_type, got.encoding, got.clock_rate, got.channels), (97, "H264", 90_000, None));
        assert_eq!(got.codec_name, "H.264 High@4.0");
    }

    #[test]
    fn a_short_sps_leaves_the_profile_out() {
        let got = format(Codec::H264 { length_bytes: 4, sps: vec![vec![0x67, 0x64]], pps: vec![vec![]] });
        assert_eq!(got.fmtp, "packetization-mode=1;sprop-parameter-sets=Z2Q=");
        assert_eq!(got.codec_name, "H.264");
    }

    #[test]
    fn h265_is_announced_with_its_parameter_sets() {
        let got = format(Codec::H265 { length_bytes: 4, vps: vec![vec![0x40, 1]], sps: vec![vec![0x42, 1]], pps: vec![vec![0x44, 1]] });
        assert_eq!(got.fmtp, "sprop-vps=QAE=;sprop-sps=QgE=;sprop-pps=RAE=");
        assert_eq!((got.encoding, got.clock_rate), ("H265", 90_000));
    }

    #[test]
    fn aac_is_announced_as_hbr() {
        let got = format(Codec::Aac { config: vec![0x12, 0x10], sample_rate: 44_100, channels: 2 });
        assert_eq!(got.fmtp, "streamtype=5;profile-level-id=1;mode=AAC-hbr;sizelength=13;indexlength=3;indexdeltalength=3;config=1210");
        assert_eq!((got.encoding, got.clock_rate, got.channels), ("mpeg4-generic", 44_100, Some(2)));
        assert_eq!(got.codec_name, "AAC-LC 2 ch");
    }

    #[test]
    fn audio_with_static_types_uses_them() {
        let mpa = format(Codec::MpegAudio);
        assert_eq!((mpa.payload_type, mpa.encoding, mpa.clock_rate, mpa.fmtp.as_str()), (14, "MPA", 90_000, ""));
        let pcmu = format(Codec::Pcmu { sample_rate: 8000, channels: 1 });
        assert_eq!((pcmu.payload_type, pcmu.encoding, pcmu.clock_rate, pcmu.channels), (0, "PCMU", 8000, None));
        let pcma = format(Codec::Pcma { sample_rate: 8000, channels: 1 });
        assert_eq!((pcma.payload_type, pcma.encoding), (8, "PCMA"));
        let wide = format(Codec::Pcma { sample_rate: 16_000, channels: 2 });
        assert_eq!((wide.payload_type, wide.clock_rate, wide.channels), (97, 16_000, Some(2)));
    }

    #[test]
    fn opus_has_its_fixed_rtpmap() {
        let mono = format(Codec::Opus { channels: 1 });
        assert_eq!((mono.encoding, mono.clock_rate, mono.channels, mono.fmtp.as_str()), ("opus", 48_000, Some(2), "sprop-stereo=0"));
        assert_eq!(format(Codec::Opus { channels: 2 }).fmtp, "sprop-stereo=1");
    }

    #[test]
    fn mpeg4_visual_and_av1_are_announced_with_their_profile() {
        let config = vec![0, 0, 1, 0xb0, 0xf5, 0, 0, 1, 0xb5];
        assert_eq!(format(Codec::Mpeg4Visual { config }).fmtp, "profile-level-id=245;config=000001B0F5000001B5");
        assert_eq!(format(Codec::Av1 { config: vec![0x81, 0x08, 0x0c, 0] }).fmtp, "profile=0;level-idx=8;tier=0");
        assert_eq!(format(Codec::Av1 { config: vec![] }).fmtp, "");
    }

    #[test]
    fn payload_types_stay_dynamic_for_any_number_of_tracks() {
        for position in 0..1000 {
            let got = format_of(&Codec::Opus { channels: 2 }, TrackKind::Audio, position);
            assert!((96..=127).contains(&got.payload_type));
        }
    }

    proptest! {
        #[test]
        fn any_configuration_is_survived(bytes in proptest::collection::vec(any::<u8>(), 0..40), rate: u32, channels: u8) {
            let sets = vec![bytes.clone()];
            format(Codec::H264 { length_bytes: 4, sps: sets.clone(), pps: sets.clone() });
            format(Codec::H265 { length_bytes: 4, vps: sets.clone(), sps: sets.clone(), pps: sets.clone() });
            format(Codec::Av1 { config: bytes.clone() });
            format(Codec::Mpeg4Visual { config: bytes.clone() });
            let aac = format(Codec::Aac { config: bytes, sample_rate: rate, channels });
            prop_assert!(aac.clock_rate > 0 && aac.channels != Some(0));
            format(Codec::Opus { channels });
            format(Codec::Pcmu { sample_rate: rate, channels });
        }
    }
}
