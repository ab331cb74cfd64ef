//! What GStreamer's `rtspsrc` receives.
//!
//! Links to pads that are still to come have no caps between (`s. ! video/x-raw ! queue`): where two pads come at the same moment, each in its
//! thread, `gst-launch-1.0` 1.22 tries every such link for both. One attempt that is about to fail occupies the far end, the one that fits
//! finds it taken, and the pad stays without a link for good (`gst_element_link_pads_filtered`): the player waits for ever for what has
//! come. What stands behind the name takes one kind of media only, and there is nothing to try.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::{Outcome, run};

/// True when it failed, but only at saying goodbye. At the end it asks for PAUSE and, without waiting for the answer, for TEARDOWN; the second
/// takes back the first, and when that is just being written, 1.22 calls it "Received end-of-file" and an error (`writev_bytes` in its
/// `gstrtspconnection.c` takes every write that wrote nothing, also one that was called off, for the end of the connection).
pub fn only_its_goodbye_failed(outcome: &Outcome) -> bool {
    let goodbyes = ["gst_rtspsrc_pause ()", "gst_rtspsrc_close ()"];
    !outcome.timed_out && outcome.stderr.contains("(Received end-of-file)") && goodbyes.iter().any(|part| outcome.stderr.contains(part))
}

/// Receives the video (H.264 or H.265, as Annex B) and, where there is a file for it, the audio (AAC as ADTS) of `url`.
///
/// # Errors
/// When `gst-launch-1.0` cannot be started.
pub fn receive(url: &str, protocols: &str, h265: bool, video: &Path, audio: Option<&Path>, limit: Duration) -> std::io::Result<Outcome> {
    let (depay, parse, caps) =
        if h265 { ("rtph265depay", "h265parse", "video/x-h265") } else { ("rtph264depay", "h264parse", "video/x-h264") };
    let mut command = Command::new("gst-launch-1.0");
    command.args(["-q", "rtspsrc", "name=s", &format!("location={url}"), &format!("protocols={protocols}"), "latency=500"]);
    command.args(["s.", "!", depay, "!", "queue", "!", parse, "!"]);
    command.args([&format!("{caps},stream-format=byte-stream,alignment=au"), "!", "filesink", "sync=false"]);
    command.arg(format!("location={}", video.display()));
    if let Some(audio) = audio {
        command.args(["s.", "!", "rtpmp4gdepay", "!", "queue", "!", "aacparse", "!"]);
        command.args(["audio/mpeg,stream-format=adts", "!", "filesink", "sync=false"]);
        command.arg(format!("location={}", audio.display()));
    }
    run(&mut command, limit)
}

/// Plays `url` into sinks that decode and keep time but show nothing.
///
/// # Errors
/// When `gst-launch-1.0` cannot be started.
pub fn decode(url: &str, protocols: &str, limit: Duration) -> std::io::Result<Outcome> {
    let mut command = Command::new("gst-launch-1.0");
    command.args(["-q", "uridecodebin", "name=d", &format!("uri={url}"), "source::latency=300"]);
    command.arg(format!("source::protocols={protocols}"));
    command.args(["d.", "!", "videoconvert", "!", "queue", "!", "fakesink", "sync=true"]);
    command.args(["d.", "!", "audioconvert", "!", "queue", "!", "fakesink", "sync=true"]);
    run(&mut command, limit)
}
