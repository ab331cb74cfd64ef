//! `tactus import`: has a running appliance copy a file into its media folder, and watches.

use std::path::{Path, PathBuf};

use super::follow::{Followed, block_on, follow};
use super::{Failure, printable};
use crate::transfer::{ImportRequest, ImportStatus, TransferState};
use crate::units::about_bytes;

#[derive(Debug, clap::Args)]
pub(super) struct ImportArgs {
    /// The file; it must lie below the folder that the appliance was started with as --import-from. A path that is not found here is taken
    /// to begin at that folder
    file: PathBuf,
    /// Where it goes, below the media folder [default: the file's name]
    #[arg(long, value_name = "PATH")]
    to: Option<String>,
    /// The appliance's monitor
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8080")]
    url: String,
    /// Copy no faster than this, megabits per second
    #[arg(long, value_name = "MBPS", value_parser = clap::value_parser!(u32).range(1..))]
    rate: Option<u32>,
    /// Replace a file that is there already
    #[arg(long)]
    replace: bool,
    /// Print the import's JSON when it is over, and no progress
    #[arg(long)]
    json: bool,
}

/// Runs the command.
///
/// # Errors
/// [`Failure::Runtime`].
pub(super) fn run(args: &ImportArgs) -> Result<(), Failure> {
    block_on(follow::<ImportStatus>(&args.url, "/api/v1/imports", &request_of(args)?, args.json))
}

fn request_of(args: &ImportArgs) -> Result<ImportRequest, Failure> {
    let wrong = |why: &str| Failure::Runtime(format!("{}: {why}", args.file.display()));
    let text = |path: &Path| path.to_str().map(str::to_owned).ok_or_else(|| wrong("its name is not UTF-8"));
    let from = text(&args.file.canonicalize().unwrap_or_else(|_| args.file.clone()))?;
    let to = match &args.to {
        Some(to) => to.clone(),
        None => text(Path::new(args.file.file_name().ok_or_else(|| wrong("it has no name; give one with --to"))?))?,
    };
    Ok(ImportRequest { from, to, rate_bps: args.rate.map(|mbps| u64::from(mbps) * 1_000_000), replace: args.replace })
}

/// Bytes per second so far.
fn speed(status: &ImportStatus) -> f64 {
    if status.elapsed_s > 0.0 { status.bytes as f64 / status.elapsed_s } else { 0.0 }
}

impl Followed for ImportStatus {
    const CANCELLED: &'static str = "cancelled; nothing is left of it";

    fn standing(&self) -> (u64, TransferState, Option<&str>) {
        (self.id, self.state, self.error.as_deref())
    }

    fn progress(&self) -> String {
        let percent = (self.bytes as f64 * 100.0 / self.bytes_total.max(1) as f64).min(100.0);
        let what = if self.state == TransferState::Finishing { ", finishing" } else { "" };
        let (to, total) = (printable(&self.to), about_bytes(self.bytes_total));
        format!("{to}: {percent:.0} % of {total}, {}/s{what}", about_bytes(speed(self) as u64))
    }

    fn done(&self) -> String {
        let (to, total) = (printable(&self.to), about_bytes(self.bytes_total));
        format!("{to}: {total} imported in {:.1} s, {}/s", self.elapsed_s, about_bytes(speed(self) as u64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_told_in_a_line() {
        let status = ImportStatus {
            id: 1,
            from: "a.mp4".into(),
            to: "b\u{7}.mp4".into(),
            state: TransferState::Running,
            bytes: 512 << 20,
            bytes_total: 2 << 30,
            rate_bps: None,
            started_at: String::new(),
            elapsed_s: 4.0,
            error: None,
        };
        assert_eq!(status.progress(), "b\u{fffd}.mp4: 25 % of 2.00 GiB, 128.0 MiB/s");
        let end = ImportStatus { bytes: 2 << 30, state: TransferState::Done, ..status };
        assert_eq!(end.done(), "b\u{fffd}.mp4: 2.00 GiB imported in 4.0 s, 512.0 MiB/s");
        let empty = ImportStatus { bytes: 0, bytes_total: 0, elapsed_s: 0.0, state: TransferState::Finishing, ..end };
        assert!(empty.progress().starts_with("b\u{fffd}.mp4: 0 % of "));
    }
}
