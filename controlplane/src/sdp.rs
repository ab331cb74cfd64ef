//! Session descriptions (SDP, RFC 8866) of titles, as RTSP clients want them (RFC 2326 appendix C).
//!
//! Ports are 0 (the client chooses them in SETUP), each track has `a=control:trackID=N` with the container's track id, `*` is the
//! aggregate.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use dataplane::media::{MediaDescription, TrackDescription, TrackKind};
use sdp_types::{Attribute, Bandwidth, BandwidthType, Connection, Media, MediaType, Origin, Session, Time, TransportProto};

use crate::rtsp::range::seconds;
use crate::rtsp::reply::SERVER;
use crate::rtsp::target::TRACK_PREFIX;

/// IPv4, UDP and RTP header, counted in `b=AS` (RFC 3550 section 6.2).
const PACKET_OVERHEAD_BYTES: f64 = 40.0;

/// The session description of the title at `path`, for a client that reached the server at `local`.
pub fn describe(path: &str, media: &MediaDescription, local: IpAddr) -> String {
    // Same title, same o= line: players and proxies compare it.
    let mut hasher = DefaultHasher::new();
    (path, media.size_bytes, media.duration_ns).hash(&mut hasher);
    let mut session = Session::new(Origin::with_ip_addr(hasher.finish() >> 1, 1, local), title_of(path));
    let any: IpAddr = if local.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    session.set_connection(Connection::from_ip_addr(any));
    session.add_time(Time::new(0, 0));
    session.add_attribute(Attribute::with_value("tool", SERVER));
    session.add_attribute(Attribute::with_value("control", "*"));
    let range = if media.is_live() { "npt=now-".to_owned() } else { format!("npt=0-{}", seconds(media.duration_ns)) };
    session.add_attribute(Attribute::with_value("range", range));
    session.medias = media.tracks.iter().map(track).collect();
    session.to_string()
}

fn track(track: &TrackDescription) -> Media {
    let kind = match track.kind {
        TrackKind::Video => MediaType::Video,
        TrackKind::Audio => MediaType::Audio,
    };
    let pt = track.payload_type;
    let mut media = Media::new(kind, 0, TransportProto::RtpAvp, pt);
    // Of what is live it may be unknown.
    if track.mean_bps > 0 || track.peak_1s_bps > 0 {
        media.add_bandwidth(Bandwidth::new(BandwidthType::As, bandwidth_kbps(track)));
    }
    let channels = track.channels.map_or_else(String::new, |channels| format!("/{channels}"));
    media.add_attribute(Attribute::with_value("rtpmap", format!("{pt} {}/{}{channels}", track.encoding, track.clock_rate)));
    if !track.fmtp.is_empty() {
        media.add_attribute(Attribute::with_value("fmtp", format!("{pt} {}", track.fmtp)));
    }
    if track.width > 0 && track.height > 0 {
        media.add_attribute(Attribute::with_value("framesize", format!("{pt} {}-{}", track.width, track.height)));
    }
    media.add_attribute(Attribute::with_value("control", format!("{TRACK_PREFIX}{}", track.id)));
    media
}

/// The most that the track needs on the wire in any second, kbit/s rounded up.
fn bandwidth_kbps(track: &TrackDescription) -> u64 {
    let overhead_bps = (track.packets_per_second.max(0.0) * PACKET_OVERHEAD_BYTES * 8.0) as u64;
    track.peak_1s_bps.max(track.mean_bps).saturating_add(overhead_bps).div_ceil(1000)
}

/// A name for people: the file's name without its extension.
fn title_of(path: &str) -> &str {
    let name = path.rsplit('/').next().unwrap_or(path);
    let stem = name.rsplit_once('.').map_or(name, |(stem, _)| stem);
    // RFC 8866 section 5.3: s= must not be empty.
    if stem.trim().is_empty() { "-" } else { stem }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rtsp::fake_engine::sample_media;

    #[test]
    fn a_title_reads_as_players_expect() {
        let text = describe("films/my film.mp4", &sample_media(), "192.0.2.1".parse().unwrap());
        let origin = text.lines().nth(1).unwrap();
        assert!(origin.starts_with("o=- ") && origin.ends_with(" 1 IN IP4 192.0.2.1"), "{origin}");
        let expected = format!(
            "v=0\r\n{origin}\r\ns=my film\r\nc=IN IP4 0.0.0.0\r\nt=0 0\r\na=tool:{SERVER}\r\na=control:*\r\na=range:npt=0-60.500\r\n\
             m=video 0 RTP/AVP 96\r\nb=AS:1543\r\na=rtpmap:96 H264/90000\r\na=fmtp:96 packetization-mode=1\r\na=framesize:96 1280-720\r\n\
             a=control:trackID=1\r\nm=audio 0 RTP/AVP 97\r\nb=AS:144\r\na=rtpmap:97 mpeg4-generic/48000/2\r\na=control:trackID=2\r\n"
        );
        assert_eq!(text, expected);
        assert_eq!(describe("films/my film.mp4", &sample_media(), "192.0.2.1".parse().unwrap()), text);
        Session::parse(text.as_bytes()).unwrap();
    }

    #[test]
    fn ipv6_clients_get_ipv6() {
        let text = describe("a.mp4", &sample_media(), "2001:db8::1".parse().unwrap());
        assert!(text.contains("c=IN IP6 ::\r\n") && text.contains("IN IP6 2001:db8::1\r\n"), "{text}");
    }

    #[test]
    fn a_file_name_cannot_add_lines() {
        let text = describe("a\r\na=control:evil.mp4", &sample_media(), "::1".parse().unwrap());
        assert_eq!(text.matches("\r\na=control:").count(), 3, "{text}");
        for (path, name) in [(".mp4", "-"), ("", "-"), ("x/y.tar.gz", "y.tar"), ("plain", "plain")] {
            assert_eq!(title_of(path), name);
        }
    }
}
