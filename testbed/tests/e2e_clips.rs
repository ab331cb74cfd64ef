//! Synthetic titles are real: ffmpeg decodes them without a word of complaint.

mod support;

use std::process::Command;
use std::time::Duration;

use testbed::clip::{ClipSpec, Shape, make_clips};
use testbed::player::{ffmpeg, run};

#[test]
fn ffmpeg_decodes_synthetic_titles_without_complaint() {
    if !support::have(&["ffmpeg"]) {
        return;
    }
    let base = ClipSpec { seconds: 9, ..ClipSpec::default() };
    let specs = [
        base,
        ClipSpec { rate_bps: 200_000, shape: Shape::Vbr, gop_seconds: 2, ..base },
        ClipSpec { rate_bps: 20_000_000, width: 1280, height: 720, fps: 50, ..base },
        ClipSpec { audio_bps: 0, seconds: 1, ..base },
    ];
    support::run_all(&specs, 2, |spec| {
        let folder = tempfile::tempdir().map_err(|e| e.to_string())?;
        let path = make_clips(spec, 2, folder.path()).map_err(|e| e.to_string())?.remove(1);
        let mut command = Command::new("ffmpeg");
        command.args(["-hide_banner", "-nostdin", "-v", "warning", "-err_detect", "explode", "-xerror", "-i"]).arg(&path);
        command.args(["-f", "null", "-"]);
        let outcome = run(&mut command, Duration::from_secs(120)).map_err(|e| e.to_string())?;
        if !outcome.ok() || !outcome.stderr.is_empty() {
            return Err(outcome.stderr);
        }
        let streams = ffmpeg::file_packets(&path, None)?;
        let frames = streams.first().map_or(0, |s| s.packets.len());
        if frames != (spec.seconds * spec.fps) as usize { Err(format!("{frames} frames")) } else { Ok(format!("{frames} frames")) }
    });
}
