//! The session description of an ANNOUNCE: which tracks a client is going to send.
//!
//! Descriptions are hostile: what is read is bounded, and a track that cannot be taken is an error that names it and says why.

use dataplane::media::TrackKind;
use dataplane::payload::announced::{codec_of, static_type};
use dataplane::payload::format_of;
use sdp_types::{Media, Session};

use crate::engine::AnnouncedTrack;

/// Tracks of one stream at most.
const TRACKS_MAX: usize = 8;
/// Longest description, bytes.
const SDP_BYTES_MAX: usize = 64 << 10;

/// A track and what SETUP will call it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announced {
    /// `a=control`, as the client wrote it.
    pub control: String,
    /// The track.
    pub track: AnnouncedTrack,
}

/// Why a description is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadAnnounce {
    /// It is no session description.
    #[error("the body is no session description: {0}")]
    Sdp(String),
    /// It has no tracks, or too many.
    #[error("the description has {0} tracks; 1 to 8 can be taken")]
    Count(usize),
    /// One of its tracks cannot be taken.
    #[error("track {position}: {why}")]
    Track {
        /// Its place, counted from 1.
        position: usize,
        /// Why.
        why: String,
    },
}

/// The tracks of a session description.
///
/// # Errors
/// [`BadAnnounce`].
pub fn parse(body: &[u8]) -> Result<Vec<Announced>, BadAnnounce> {
    if body.len() > SDP_BYTES_MAX {
        return Err(BadAnnounce::Sdp(format!("longer than {SDP_BYTES_MAX} bytes")));
    }
    let session = Session::parse(body).map_err(|error| BadAnnounce::Sdp(error.to_string()))?;
    if session.medias.is_empty() || session.medias.len() > TRACKS_MAX {
        return Err(BadAnnounce::Count(session.medias.len()));
    }
    let track = |(index, media)| track(media).map_err(|why| BadAnnounce::Track { position: index + 1, why });
    session.medias.iter().enumerate().map(track).collect()
}

fn track(media: &Media) -> Result<Announced, String> {
    let kind = match media.media.as_str() {
        "video" => TrackKind::Video,
        "audio" => TrackKind::Audio,
        other => return Err(format!("{:?} is neither video nor audio", other.chars().take(32).collect::<String>())),
    };
    if !media.proto.eq_ignore_ascii_case("RTP/AVP") {
        return Err("only RTP/AVP can be taken".into());
    }
    let payload_type = media.fmt.split_ascii_whitespace().next().and_then(|fmt| fmt.parse::<u8>().ok()).filter(|&pt| pt < 128);
    let payload_type = payload_type.ok_or("m= names no payload type")?;
    let of_type = |name| {
        let values = media.get_attribute_values(name);
        values.into_iter().flatten().find_map(|value| {
            let (pt, rest) = value.split_once(' ')?;
            (pt.trim().parse() == Ok(payload_type)).then(|| rest.trim())
        })
    };
    let (encoding, clock_rate, channels) = match of_type("rtpmap") {
        Some(map) => {
            let mut parts = map.split('/');
            let encoding = parts.next().unwrap_or_default();
            let clock_rate = parts.next().and_then(|rate| rate.parse().ok()).filter(|&rate: &u32| rate > 0);
            (encoding, clock_rate.ok_or("a=rtpmap has no clock rate")?, parts.next().and_then(|channels| channels.parse().ok()))
        }
        None => {
            let (encoding, rate) = static_type(payload_type).ok_or_else(|| format!("payload type {payload_type} has no a=rtpmap"))?;
            (encoding, rate, None)
        }
    };
    let codec = codec_of(encoding, clock_rate, channels, of_type("fmtp").unwrap_or_default()).map_err(|error| error.to_string())?;
    let expected = format_of(&codec, kind, 0).clock_rate;
    if expected != clock_rate {
        return Err(format!("{encoding} with a clock of {clock_rate} Hz; {expected} Hz is its rate"));
    }
    let kilobits = media.bandwidths.iter().find(|bandwidth| bandwidth.bwtype == "AS").map_or(0, |bandwidth| bandwidth.bandwidth);
    let control = media.get_first_attribute_value("control").flatten().unwrap_or_default().to_owned();
    let rate_bps = kilobits.min(10_000_000) * 1000;
    Ok(Announced { control, track: AnnouncedTrack { kind, codec, payload_type, clock_rate, rate_bps } })
}

/// The place of the track that the URL of a SETUP names: the control attributes are URLs of their own, or go behind the URL of ANNOUNCE.
pub fn track_at(tracks: &[Announced], path: &str, target_path: &str, url: &str) -> Option<usize> {
    let rest = target_path.strip_prefix(path).map(|rest| rest.trim_matches('/'));
    let named = tracks.iter().position(|announced| {
        let control = announced.control.trim_matches('/');
        !control.is_empty() && (announced.control == url || rest == Some(control))
    });
    named.or_else(|| (tracks.len() == 1 && rest == Some("")).then_some(0))
}

#[cfg(test)]
mod tests {
    use dataplane::media::Codec;
    use proptest::prelude::*;

    use super::*;

    /// What ffmpeg 5 announces.
    const FFMPEG: &str = "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=No Name\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\na=tool:libavformat\r\n\
        m=video 0 RTP/AVP 96\r\nb=AS:1400\r\na=rtpmap:96 H264/90000\r\n\
        a=fmtp:96 packetization-mode=1; sprop-parameter-sets=Z2QAHqzZQKAv+XARAAADAAEAAAMAMg8WLZY=,aOvjyyLA; profile-level-id=64001E\r\n\
        a=control:streamid=0\r\nm=audio 0 RTP/AVP 97\r\nb=AS:128\r\na=rtpmap:97 MPEG4-GENERIC/48000/2\r\n\
        a=fmtp:97 profile-level-id=1;mode=AAC-hbr;sizelength=13;indexlength=3;indexdeltalength=3; config=119056E500\r\na=control:streamid=1\r\n";

    #[test]
    fn what_ffmpeg_announces_is_understood() {
        let tracks = parse(FFMPEG.as_bytes()).unwrap();
        let [video, audio] = tracks.as_slice() else { panic!("{tracks:?}") };
        assert!(matches!(&video.track.codec, Codec::H264 { sps, pps, .. } if sps.len() == 1 && pps.len() == 1));
        assert_eq!((video.track.payload_type, video.track.clock_rate, video.track.rate_bps), (96, 90_000, 1_400_000));
        assert!(matches!(&audio.track.codec, Codec::Aac { sample_rate: 48_000, channels: 2, .. }));
        let at = |path: &str| track_at(&tracks, "live/cam1", path, "rtsp://h/x");
        assert_eq!((at("live/cam1/streamid=0"), at("live/cam1/streamid=1"), at("live/cam1/streamid=2")), (Some(0), Some(1), None));
        assert_eq!((at("live/cam1"), at("other/streamid=0")), (None, None));
        assert_eq!(track_at(&tracks[..1], "live/cam1", "live/cam1", ""), Some(0));
    }

    #[test]
    fn what_cannot_be_taken_says_why() {
        for (from, to, why) in [
            ("H264/90000", "VP8/90000", "track 1: encoding \"VP8\" is not supported"),
            ("H264/90000", "H264/8000", "track 1: H264 with a clock of 8000 Hz; 90000 Hz is its rate"),
            ("m=audio", "m=text", "track 2: \"text\" is neither video nor audio"),
            ("a=rtpmap:97 MPEG4-GENERIC/48000/2", "a=x", "track 2: payload type 97 has no a=rtpmap"),
            ("RTP/AVP 96", "RTP/SAVP 96", "track 1: only RTP/AVP can be taken"),
        ] {
            assert_eq!(parse(FFMPEG.replace(from, to).as_bytes()).unwrap_err().to_string(), why);
        }
        assert_eq!(parse(FFMPEG.split("m=").next().unwrap().as_bytes()), Err(BadAnnounce::Count(0)));
        assert!(matches!(parse(b"\xff"), Err(BadAnnounce::Sdp(_))));
    }

    proptest! {
        #[test]
        fn any_description_is_survived(cut in 0usize..900, at in 0usize..900, with in "(m=|a=|\\r\\n|/|[0-9]{1,12}|:|\\PC){0,6}") {
            let mut text = FFMPEG.to_owned();
            let at = at.min(text.len());
            let end = (at + cut % 40).min(text.len());
            text.replace_range(at..end, &with);
            let _ = parse(text.as_bytes());
        }
    }
}
