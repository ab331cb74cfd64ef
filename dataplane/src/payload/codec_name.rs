//! Codec names for people, from the profile and level bytes of the sample entry. The bytes are a file's and may be anything.

use crate::media::Codec;

/// The codec for people: "H.264 High@4.0", "AAC-LC 2 ch".
pub fn codec_name(codec: &Codec) -> String {
    match codec {
        Codec::H264 { sps, .. } => with_profile("H.264", sps.first().and_then(|sps| h264_profile(sps))),
        Codec::H265 { sps, .. } => with_profile("H.265", sps.first().and_then(|sps| h265_profile(sps))),
        Codec::Av1 { config } => with_profile("AV1", av1_profile(config)),
        Codec::Mpeg4Visual { config } => with_profile("MPEG-4 Visual", mpeg4_visual_profile_level(config).and_then(visual_profile)),
        Codec::Aac { config, channels, .. } => format!("{} {channels} ch", aac_name(config)),
        Codec::MpegAudio => "MPEG audio".into(),
        Codec::Opus { channels } => format!("Opus {channels} ch"),
        Codec::Pcmu { sample_rate, channels } => format!("G.711 mu-law {sample_rate} Hz {channels} ch"),
        Codec::Pcma { sample_rate, channels } => format!("G.711 A-law {sample_rate} Hz {channels} ch"),
    }
}

fn with_profile(name: &str, profile: Option<String>) -> String {
    profile.map_or_else(|| name.to_string(), |profile| format!("{name} {profile}"))
}

/// H.264 annex A: profile_idc, constraint flags and level_idc follow the SPS's header.
fn h264_profile(sps: &[u8]) -> Option<String> {
    /// constraint_set1_flag and constraint_set3_flag.
    const SET1: u8 = 0x40;
    const SET3: u8 = 0x10;
    let &[profile, constraints, level] = sps.get(1..4)? else { return None };
    let name = match profile {
        66 if constraints & SET1 != 0 => "Constrained Baseline",
        66 => "Baseline",
        77 => "Main",
        88 => "Extended",
        100 => "High",
        110 => "High 10",
        122 => "High 4:2:2",
        244 => "High 4:4:4",
        44 => "CAVLC 4:4:4",
        _ => return Some(format!("profile {profile}@{}", tenths(level))),
    };
    let is_1b = level == 9 || (level == 11 && constraints & SET3 != 0 && matches!(profile, 66 | 77 | 88));
    Some(if is_1b { format!("{name}@1b") } else { format!("{name}@{}", tenths(level)) })
}

fn tenths(level: u8) -> String {
    format!("{}.{}", level / 10, level % 10)
}

/// H.265 7.3.3: profile_tier_level follows the header (2 bytes) and one more byte; level_idc is 30 times the level.
fn h265_profile(sps: &[u8]) -> Option<String> {
    const PROFILE_AT: usize = 3;
    const LEVEL_AT: usize = PROFILE_AT + 11;
    let rbsp = without_emulation_prevention::<{ LEVEL_AT + 1 }>(sps)?;
    let (profile, level) = (rbsp[PROFILE_AT], rbsp[LEVEL_AT]);
    let tier = if profile & 0x20 != 0 { " (high tier)" } else { "" };
    let name = match profile & 0x1f {
        1 => "Main",
        2 => "Main 10",
        3 => "Main Still Picture",
        4 => "Range Extensions",
        5 => "High Throughput",
        other => return Some(format!("profile {other}@{}{tier}", tenths(level / 3))),
    };
    Some(format!("{name}@{}{tier}", tenths(level / 3)))
}

/// The first `N` bytes of a NAL unit without the 3 in each 0 0 3 (H.265 7.4.2). `None`: it is shorter.
fn without_emulation_prevention<const N: usize>(nal: &[u8]) -> Option<[u8; N]> {
    let mut out = [0; N];
    let (mut len, mut zeros) = (0, 0);
    for &byte in nal {
        if zeros >= 2 && byte == 3 {
            zeros = 0;
            continue;
        }
        zeros = if byte == 0 { zeros + 1 } else { 0 };
        *out.get_mut(len)? = byte;
        len += 1;
        if len == N {
            return Some(out);
        }
    }
    None
}

/// AV1-ISOBMFF 2.3.3 and AV1 annex A.3: level index 8 is 4.0, four indices to a level.
fn av1_profile(config: &[u8]) -> Option<String> {
    let byte = *config.get(1)?;
    let name = match byte >> 5 {
        0 => "Main",
        1 => "High",
        2 => "Professional",
        _ => return None,
    };
    let level = byte & 0x1f;
    Some(if level < 24 { format!("{name}@{}.{}", 2 + level / 4, level % 4) } else { name.to_string() })
}

/// The profile_and_level_indication of a visual object sequence header (ISO 14496-2 6.2.2).
pub(super) fn mpeg4_visual_profile_level(config: &[u8]) -> Option<u8> {
    config.windows(5).find(|window| window.starts_with(&[0, 0, 1, 0xb0])).map(|window| window[4])
}

/// ISO 14496-2 table G.1.
fn visual_profile(indication: u8) -> Option<String> {
    match indication {
        1..=3 => Some(format!("Simple@L{indication}")),
        4..=6 => Some(format!("Simple@L{}", ["4a", "5", "6"][usize::from(indication - 4)])),
        8 => Some("Simple@L0".into()),
        9 => Some("Simple@L0b".into()),
        0xf0..=0xf5 => Some(format!("Advanced Simple@L{}", indication & 0xf)),
        0xf7 => Some("Advanced Simple@L3b".into()),
        _ => None,
    }
}

/// ISO 14496-3 table 1.17: the audio object type is 5 bits, or 31 and 6 more.
fn aac_name(config: &[u8]) -> String {
    const ESCAPE: u8 = 31;
    let first = config.first().map_or(0, |byte| byte >> 3);
    let object_type = match (first, config.get(..2)) {
        (ESCAPE, Some(&[first, second])) => 32 + ((first & 7) << 3 | second >> 5),
        _ => first,
    };
    match object_type {
        1 => "AAC Main".into(),
        2 => "AAC-LC".into(),
        3 => "AAC-SSR".into(),
        4 => "AAC-LTP".into(),
        5 => "HE-AAC".into(),
        23 => "AAC-LD".into(),
        29 => "HE-AACv2".into(),
        39 => "AAC-ELD".into(),
        42 => "xHE-AAC".into(),
        0 => "AAC".into(),
        other => format!("AAC (object type {other})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn h264(sps: &[u8]) -> String {
        codec_name(&Codec::H264 { length_bytes: 4, sps: vec![sps.to_vec()], pps: vec![] })
    }

    #[test]
    fn h264_profiles_and_levels() {
        assert_eq!(h264(&[0x67, 66, 0xc0, 30]), "H.264 Constrained Baseline@3.0");
        assert_eq!(h264(&[0x67, 66, 0x00, 31]), "H.264 Baseline@3.1");
        assert_eq!(h264(&[0x67, 77, 0x10, 11]), "H.264 Main@1b");
        assert_eq!(h264(&[0x67, 110, 0, 52]), "H.264 High 10@5.2");
        assert_eq!(h264(&[0x67, 7, 0, 52]), "H.264 profile 7@5.2");
        assert_eq!(h264(&[]), "H.264");
    }

    #[test]
    fn h265_level_is_found_behind_emulation_prevention() {
        let sps = [0x42, 1, 1, 2, 0x20, 0, 0, 3, 0, 0x90, 0, 0, 3, 0, 0, 3, 0, 0x7b, 0xa0];
        let name = |sps: &[u8]| codec_name(&Codec::H265 { length_bytes: 4, vps: vec![], sps: vec![sps.to_vec()], pps: vec![] });
        assert_eq!(name(&sps), "H.265 Main 10@4.1");
        for short in 0..16 {
            assert_eq!(name(&sps[..short]), "H.265");
        }
    }

    #[test]
    fn others() {
        let aac = |config: &[u8]| codec_name(&Codec::Aac { config: config.to_vec(), sample_rate: 48_000, channels: 2 });
        assert_eq!(aac(&[0x11, 0x90]), "AAC-LC 2 ch");
        assert_eq!(aac(&[0xf9, 0x40]), "xHE-AAC 2 ch");
        assert_eq!(aac(&[0xff]), "AAC (object type 31) 2 ch");
        assert_eq!(aac(&[]), "AAC 2 ch");
        assert_eq!(codec_name(&Codec::Av1 { config: vec![0x81, 0x08, 0, 0] }), "AV1 Main@4.0");
        assert_eq!(codec_name(&Codec::Mpeg4Visual { config: vec![0, 0, 1, 0xb0, 0xf5] }), "MPEG-4 Visual Advanced Simple@L5");
        assert_eq!(codec_name(&Codec::Mpeg4Visual { config: vec![0, 0, 1, 0xb0] }), "MPEG-4 Visual");
    }
}
