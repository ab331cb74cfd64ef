//! What a request URL names: a title of the media folder, and perhaps one of its tracks.
//!
//! `rtsp://host/sub/film.mp4/trackID=2?token=x` is the title `sub/film.mp4`, track 2, query `token=x` (kept, not used). Empty segments and a
//! trailing slash do not matter. Nothing that could leave the media folder gets past here: `..` is refused after decoding.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

/// The last URL segment that names a track: `trackID=` and the container's track id.
pub const TRACK_PREFIX: &str = "trackID=";

/// What a request URL names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// URL of the title as the client wrote it: without user, query, track and trailing slash.
    pub title_url: String,
    /// Path of the title below the media folder, decoded. Empty for the root.
    pub path: String,
    /// Container's track id, when the URL names a track.
    pub track_id: Option<u32>,
    /// Query without `?`.
    pub query: Option<String>,
}

impl Target {
    /// Reads an absolute, escaped URL; `None` when it can name nothing in the media folder.
    pub fn parse(url: &str) -> Option<Self> {
        let (scheme, rest) = url.split_once("://")?;
        let authority_end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, rest) = rest.split_at_checked(authority_end)?;
        let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
        let (path, mut query) = rest.split_once('?').map_or((rest, None), |(path, query)| (path, Some(query)));

        let mut segments: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
        let mut track_id = segments.last().and_then(|segment| track_of(segment));
        if track_id.is_some() {
            segments.pop();
        } else if let Some((before, last)) = query.and_then(|query| query.trim_end_matches('/').rsplit_once('/'))
            && let Some(id) = track_of(last)
        {
            // A player that joined title URL and control attribute as text.
            (query, track_id) = (Some(before), Some(id));
        }

        let mut title_url = format!("{scheme}://{host}");
        let mut path = String::new();
        for segment in segments {
            title_url.push('/');
            title_url.push_str(segment);
            let name = decode(segment);
            if name == "." {
                continue;
            }
            if name == ".." || name.contains(|c: char| c == '/' || c.is_control()) {
                return None;
            }
            if !path.is_empty() {
                path.push('/');
            }
            path.push_str(&name);
        }
        Some(Self { title_url, path, track_id, query: query.map(str::to_owned) })
    }
}

/// The id in `trackID=7`, however it is cased or escaped.
fn track_of(segment: &str) -> Option<u32> {
    let segment = decode(segment);
    let (name, id) = segment.split_at_checked(TRACK_PREFIX.len())?;
    let valid = name.eq_ignore_ascii_case(TRACK_PREFIX) && !id.is_empty() && id.bytes().all(|b| b.is_ascii_digit());
    valid.then(|| id.parse().ok()).flatten()
}

/// Percent-decodes; what is not UTF-8 is taken for Latin-1.
fn decode(segment: &str) -> Cow<'_, str> {
    let bytes: Cow<[u8]> = percent_decode_str(segment).into();
    match bytes {
        Cow::Borrowed(_) => Cow::Borrowed(segment),
        Cow::Owned(bytes) => Cow::Owned(String::from_utf8(bytes).unwrap_or_else(|e| e.into_bytes().into_iter().map(char::from).collect())),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn titles_and_tracks_are_found() {
        for (url, title_url, path, track_id, query) in [
            ("rtsp://h/a.mp4", "rtsp://h/a.mp4", "a.mp4", None, None),
            ("rtsp://h:554/s/a.mp4/", "rtsp://h:554/s/a.mp4", "s/a.mp4", None, None),
            ("rtsp://h//s//a.mp4//trackID=2/", "rtsp://h/s/a.mp4", "s/a.mp4", Some(2), None),
            ("rtsp://u:p@h/a.mp4/trackid%3d12?t=1", "rtsp://h/a.mp4", "a.mp4", Some(12), Some("t=1")),
            ("rtsp://h/a.mp4?t=1/trackID=3", "rtsp://h/a.mp4", "a.mp4", Some(3), Some("t=1")),
            ("rtsp://h/a.mp4?x=y/z", "rtsp://h/a.mp4", "a.mp4", None, Some("x=y/z")),
            ("rtsp://h?x", "rtsp://h", "", None, Some("x")),
            ("rtsp://h/", "rtsp://h", "", None, None),
            ("rtsp://h/my%20film%231.mp4", "rtsp://h/my%20film%231.mp4", "my film#1.mp4", None, None),
            ("rtsp://h/caf%C3%A9", "rtsp://h/caf%C3%A9", "café", None, None),
            ("rtsp://h/caf%E9", "rtsp://h/caf%E9", "café", None, None),
            ("rtsp://h/./a..b/...", "rtsp://h/./a..b/...", "a..b/...", None, None),
            ("rtsp://h/trackID=1", "rtsp://h", "", Some(1), None),
            ("rtsp://h/a/trackID=99999999999", "rtsp://h/a/trackID=99999999999", "a/trackID=99999999999", None, None),
            ("rtsp://h/a/trackID=", "rtsp://h/a/trackID=", "a/trackID=", None, None),
        ] {
            let expected = Target { title_url: title_url.into(), path: path.into(), track_id, query: query.map(str::to_owned) };
            assert_eq!(Target::parse(url), Some(expected), "{url}");
        }
    }

    #[test]
    fn nothing_leaves_the_folder() {
        for url in [
            "rtsp://h/../etc/passwd",
            "rtsp://h/a/..",
            "rtsp://h/%2e%2e/x",
            "rtsp://h/.%2E/x",
            "rtsp://h/..%2f..%2fetc",
            "rtsp://h/a%2f..%2f..%2fx",
            "rtsp://h/a%00.mp4",
            "rtsp://h/a%0d%0aX:1",
            "a.mp4",
        ] {
            assert_eq!(Target::parse(url), None, "{url}");
        }
    }

    proptest! {
        #[test]
        fn a_path_never_climbs(url in "rtsp://h(/(\\.|%2e|%2E|%2f|%2F|%5c|a|trackID=|\\?|/){0,8}){0,5}") {
            if let Some(target) = Target::parse(&url) {
                prop_assert!(target.path.split('/').all(|segment| segment != ".."));
                prop_assert!(!target.path.starts_with('/'));
                prop_assert!(target.path.is_empty() || target.path.split('/').all(|segment| !segment.is_empty()));
            }
        }
    }
}
