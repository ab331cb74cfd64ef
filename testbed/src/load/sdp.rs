//! What a receiver needs of a session description (RFC 4566): the tracks, their control addresses and RTP clocks, and how long it lasts.

/// Tracks beyond this many are left alone.
const TRACKS_MAX: usize = 16;

/// A media section.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Track {
    /// `video`, `audio`, ...
    pub kind: String,
    /// The `a=control` value as written.
    pub control: Option<String>,
    /// RTP clock rate, Hz.
    pub clock_hz: u32,
    /// The encoding's name, such as `H264`.
    pub encoding: String,
}

/// A session description.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Description {
    /// The session's own `a=control`.
    pub control: Option<String>,
    /// The tracks in their order.
    pub tracks: Vec<Track>,
    /// RFC 2326 C.1.5: how long the media lasts, in seconds.
    pub duration_s: Option<f64>,
}

/// RFC 3551 table 4 and 5: clock rates of static payload types.
fn static_clock_hz(payload_type: u32) -> u32 {
    match payload_type {
        6 => 16_000,
        10 | 11 => 44_100,
        16 => 11_025,
        17 => 22_050,
        0..=5 | 7..=9 | 12 | 13 | 15 | 18 => 8_000,
        _ => 90_000,
    }
}

/// Reads a description; what it does not know, it skips.
pub fn parse(text: &str) -> Description {
    let mut description = Description::default();
    for line in text.lines().map(str::trim_end) {
        if let Some(media) = line.strip_prefix("m=") {
            if description.tracks.len() == TRACKS_MAX {
                break;
            }
            let mut words = media.split_ascii_whitespace();
            let kind = words.next().unwrap_or_default().to_owned();
            let payload_type = words.nth(2).and_then(|w| w.parse().ok()).unwrap_or(96);
            description.tracks.push(Track { kind, clock_hz: static_clock_hz(payload_type), ..Track::default() });
        } else if let Some(control) = line.strip_prefix("a=control:") {
            match description.tracks.last_mut() {
                Some(track) => track.control = Some(control.trim().to_owned()),
                None => description.control = Some(control.trim().to_owned()),
            }
        } else if let Some(map) = line.strip_prefix("a=rtpmap:") {
            let Some(track) = description.tracks.last_mut() else { continue };
            let mut parts = map.split_once(' ').map_or("", |(_, m)| m).trim().split('/');
            track.encoding = parts.next().unwrap_or_default().to_owned();
            if let Some(clock_hz) = parts.next().and_then(|c| c.parse().ok()).filter(|&c: &u32| c > 0) {
                track.clock_hz = clock_hz;
            }
        } else if let Some(range) = line.strip_prefix("a=range:npt=") {
            let end = range.split_once('-').and_then(|(_, end)| end.trim().parse::<f64>().ok()).filter(|s| s.is_finite() && *s > 0.0);
            description.duration_s = description.duration_s.or(end);
        }
    }
    description
}

/// RFC 2326 C.1.1: the address that a control value stands for.
pub fn resolve(base: &str, control: Option<&str>) -> String {
    match control {
        None | Some("" | "*") => base.to_owned(),
        Some(absolute) if absolute.contains("://") => absolute.to_owned(),
        Some(relative) if base.ends_with('/') => format!("{base}{relative}"),
        Some(relative) => format!("{base}/{relative}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tracks_clocks_and_length_are_found() {
        let text = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=x\r\na=control:*\r\na=range:npt=0-60.040\r\nm=video 0 RTP/AVP 96\r\n\
                    a=rtpmap:96 H264/90000\r\na=control:stream=0\r\nm=audio 0 RTP/AVP 97\r\na=rtpmap:97 mpeg4-generic/48000/2\r\n\
                    a=control:rtsp://h/x/stream=1\r\nm=audio 0 RTP/AVP 0\r\n";
        let found = parse(text);
        assert_eq!(found.duration_s, Some(60.04));
        let clocks: Vec<u32> = found.tracks.iter().map(|t| t.clock_hz).collect();
        assert_eq!(clocks, [90_000, 48_000, 8_000]);
        assert_eq!(found.tracks[0].encoding, "H264");
        assert_eq!(resolve("rtsp://h/x/", found.control.as_deref()), "rtsp://h/x/");
        assert_eq!(resolve("rtsp://h/x/", found.tracks[0].control.as_deref()), "rtsp://h/x/stream=0");
        assert_eq!(resolve("rtsp://h/x", found.tracks[0].control.as_deref()), "rtsp://h/x/stream=0");
        assert_eq!(resolve("rtsp://h/x", found.tracks[1].control.as_deref()), "rtsp://h/x/stream=1");
    }

    #[test]
    fn any_text_is_survived() {
        use proptest::prelude::*;
        proptest!(|(text in "([vmabc]=[a-z0-9:/ =.-]{0,40}\r?\n){0,20}")| {
            let found = parse(&text);
            prop_assert!(found.tracks.len() <= TRACKS_MAX);
        });
    }
}
