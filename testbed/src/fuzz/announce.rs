//! Fuzz target `announce`: the session description of an ANNOUNCE.

use controlplane::rtsp::announce;

/// Runs one input.
pub fn run(data: &[u8]) {
    if let Ok(tracks) = announce::parse(data) {
        assert!((1..=8).contains(&tracks.len()));
        for (place, announced) in tracks.iter().enumerate() {
            assert!(announced.track.clock_rate > 0 && announced.track.payload_type < 128);
            let path = format!("live/a/{}", announced.control.trim_matches('/'));
            let found = announce::track_at(&tracks, "live/a", &path, "");
            assert!(found.is_none_or(|found| found <= place || announced.control.trim_matches('/').is_empty()));
        }
    }
}
