//! `tactus record`: has a running appliance record a live stream into its media folder, and watches.

use std::time::Duration;

use super::client::{Client, ClientError};
use super::follow::{Line, block_on, read};
use super::{Failure, print, printable};
use crate::transfer::{RecordingRequest, RecordingStatus, TransferState};
use crate::units::{about_bytes, duration};

/// How often the appliance is asked how far it is.
const LOOK_EVERY: Duration = Duration::from_millis(300);

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
    block_on(record(args))
}

async fn record(args: &RecordArgs) -> Result<(), Failure> {
    let failed = |error: ClientError| Failure::Runtime(error.to_string());
    let client = Client::new(&args.url).map_err(failed)?;
    let request = RecordingRequest { channel: args.channel.clone(), to: args.to.clone(), seconds: args.seconds, replace: args.replace };
    let body = serde_json::to_value(&request).map_err(|error| Failure::Runtime(error.to_string()))?;
    let mut status: RecordingStatus = read(client.ask("POST", "/api/v1/recordings", Some(&body)).map_err(failed)?)?;
    let path = format!("/api/v1/recordings/{}", status.id);
    let mut line = Line::new(args.json);
    while !status.state.is_over() {
        line.show(&progress(&status));
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => status = read(client.ask("GET", &path, None).map_err(failed)?)?,
            _ = tokio::signal::ctrl_c() => status = read(client.ask("DELETE", &path, None).map_err(failed)?)?,
        }
    }
    line.end();
    if args.json {
        print(&format!("{}\n", serde_json::to_string_pretty(&status).unwrap_or_default()));
    }
    match status.state {
        TransferState::Done => {
            if !args.json {
                print(&format!("{}\n", done(&status)));
            }
            Ok(())
        }
        TransferState::Cancelled => Err(Failure::Runtime("somebody discarded it; nothing is left of it".into())),
        _ => Err(Failure::Runtime(printable(&status.error.unwrap_or_else(|| "it failed".into())))),
    }
}

/// Seconds for people.
fn long(status: &RecordingStatus) -> String {
    duration((status.recorded_s.max(0.0) * 1e9) as u64)
}

fn progress(status: &RecordingStatus) -> String {
    let what = if status.state == TransferState::Finishing { ", finishing" } else { "" };
    format!("{}: {}, {}{what}", printable(&status.to), long(status), about_bytes(status.bytes))
}

fn done(status: &RecordingStatus) -> String {
    let tracks = if status.tracks.is_empty() { String::new() } else { format!(" of {}", printable(&status.tracks.join(", "))) };
    let why = status.ended.as_deref().map_or_else(String::new, |why| format!("; {}", printable(why)));
    format!("{}: {}{tracks}, {}{why}", printable(&status.to), long(status), about_bytes(status.bytes))
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
        assert_eq!(progress(&status), "b\u{fffd}.mp4: 1:23.2, 3.0 MiB");
        let end = RecordingStatus { state: TransferState::Done, ended: Some("somebody ended it".into()), ..status };
        assert_eq!(done(&end), "b\u{fffd}.mp4: 1:23.2 of H.264 High@3.0, AAC-LC, 3.0 MiB; somebody ended it");
    }
}
