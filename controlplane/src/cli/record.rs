//! `tactus record`: has a running appliance record a live stream into its media folder, and watches.

use super::follow::{Followed, block_on, follow};
use super::{Failure, printable};
use crate::transfer::{RecordingRequest, RecordingStatus, TransferState};
use crate::units::{about_bytes, duration};

#[derive(Debug, clap::Args)]
pub(super) struct RecordArgs {
    /// The live stream: the path at which it can be played ("live/cam1")
    channel: String,
    /// Where it goes, below the media folder; where, the appliance was started with --recordings-to for
    to: String,
    /// Record no more than this, seconds [default: until Ctrl-C, or the end of the stream]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    seconds: Option<u32>,
    /// The appliance's monitor
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8080")]
    url: String,
    /// Replace a file that is there already
    #[arg(long)]
    replace: bool,
    /// Print the recording's JSON when it is over, and no progress
    #[arg(long)]
    json: bool,
}

/// Runs the command.
///
/// # Errors
/// [`Failure::Runtime`].
pub(super) fn run(args: &RecordArgs) -> Result<(), Failure> {
    let wish = RecordingRequest { channel: args.channel.clone(), to: args.to.clone(), seconds: args.seconds, replace: args.replace };
    block_on(follow::<RecordingStatus>(&args.url, "/api/v1/recordings", &wish, args.json))
}

/// Seconds for people.
fn long(status: &RecordingStatus) -> String {
    duration((status.recorded_s.max(0.0) * 1e9) as u64)
}

impl Followed for RecordingStatus {
    const CANCELLED: &'static str = "somebody discarded it; nothing is left of it";

    fn standing(&self) -> (u64, TransferState, Option<&str>) {
        (self.id, self.state, self.error.as_deref())
    }

    fn progress(&self) -> String {
        let what = if self.state == TransferState::Finishing { ", finishing" } else { "" };
        format!("{}: {}, {}{what}", printable(&self.to), long(self), about_bytes(self.bytes))
    }

    fn done(&self) -> String {
        let tracks = if self.tracks.is_empty() { String::new() } else { format!(" of {}", printable(&self.tracks.join(", "))) };
        let why = self.ended.as_deref().map_or_else(String::new, |why| format!("; {}", printable(why)));
        format!("{}: {}{tracks}, {}{why}", printable(&self.to), long(self), about_bytes(self.bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_told_in_a_line() {
        let status = RecordingStatus {
            id: 1,
            channel: "live/a".into(),
            to: "b\u{7}.mp4".into(),
            state: TransferState::Running,
            bytes: 3 << 20,
            recorded_s: 83.25,
            samples: 6000,
            tracks: vec!["H.264 High@3.0".into(), "AAC-LC".into()],
            left_out: Vec::new(),
            seconds: None,
            started_at: String::new(),
            elapsed_s: 84.0,
            ended: None,
            error: None,
        };
        assert_eq!(status.progress(), "b\u{fffd}.mp4: 1:23.2, 3.0 MiB");
        let end = RecordingStatus { state: TransferState::Done, ended: Some("somebody ended it".into()), ..status };
        assert_eq!(end.done(), "b\u{fffd}.mp4: 1:23.2 of H.264 High@3.0, AAC-LC, 3.0 MiB; somebody ended it");
    }
}
