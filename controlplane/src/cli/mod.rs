//! The `tactus` command: what people and service managers type.
//!
//! Exit codes: 0 fine, 1 it failed, 2 the command line or the configuration is wrong.

mod check;
mod client;
mod follow;
mod import;
mod options;
mod os;
pub mod plan;
mod probe;
mod probe_disk;
mod record;
pub mod serve;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::LazyLock;

use clap::{Parser, Subcommand};

use crate::config::{Config, ConfigError, Key, file};
use crate::http::api::Version;
use options::Overrides;
use plan::{Plan, PlanError};

const ABOUT: &str = "Serves video over RTSP/RTP, on the beat";
const EXAMPLES: &str = "\
Examples:
  tactus                                  serve ./media
  tactus serve --media /srv/films         serve another folder
  tactus serve --check -c tactus.toml     is this configuration right, and what does it amount to?
  tactus probe film.mp4                   what is in a file, and can it be served?
  tactus check                            is this machine tuned, and what to type if not?
  tactus import /srv/inbox/film.mp4       copy a file into the media folder of a running server
  tactus record live/cam1 recordings/1.mp4 record a live stream into the media folder of a running server

Exit codes: 0 fine, 1 it failed, 2 the command line or the configuration is wrong.";
const SERVE_HELP: &str = "\
Every option is also a key of the configuration file, without the dashes; the command line overrides the file.
`tactus serve --check > tactus.toml` writes a file to start from.

Examples:
  tactus serve --media /srv/films --rtsp 0.0.0.0:554
  tactus serve --engine-cores 2-3 --poll busy --memory \"1 GiB\"
  ffplay rtsp://localhost:8554/film.mp4
  curl -s http://localhost:8080/api/v1/status | jq .totals

SIGTERM or SIGINT: every session gets its BYE and the command ends with 0 within 3 seconds; a second signal ends it at once.
Exit codes: 0 stopped by a signal, 1 it failed, 2 the command line or the configuration is wrong.";
const PROBE_HELP: &str = "\
Exit codes: 0 all files can be served, 1 at least one cannot, 2 the command line is wrong.";

const CHECK_HELP: &str = "\
Examples:
  tactus check
  tactus check --net af_xdp:eth1 --engine-cores 2-3 --memory \"1 GiB\"
  tactus check --json | jq -r '.findings[] | select(.status == \"untuned\") | .fix[]'

Exit codes: 0 everything is tuned, 1 something is not, 2 the command line is wrong.";

const PROBE_DISK_HELP: &str = "\
Run it while nothing else reads the disk. Before it has run, tactus serve refuses nobody for the disk's sake.

Exit codes: 0 measured, 1 it failed, 2 the command line is wrong.";

const IMPORT_HELP: &str = "\
The file is copied by an engine core of the running server, beside all that it plays, with what guaranteed streams leave of the disk.
It appears under its name when it is whole. Ctrl-C cancels, and nothing is left behind.

Examples:
  tactus serve --media /srv/films --import-from /srv/inbox
  tactus import /srv/inbox/film.mp4
  tactus import /srv/inbox/film.mp4 --to series/1/film.mp4 --rate 200

Exit codes: 0 the file is there, 1 it failed or was cancelled, 2 the command line is wrong.";

const RECORD_HELP: &str = "\
The stream is recorded by the engine core of the running server that keeps it, beside all that it plays, from the newest key frame on.
Ctrl-C ends the recording; so do the end of the stream and a disk that is full or too slow. What was recorded by then is a file that can be
played; it appears under its name when it is whole.

Examples:
  tactus serve --record-paths live/ --recordings-to recordings/
  tactus record live/cam1 recordings/cam1.mp4
  tactus record live/cam1 recordings/cam1.mp4 --seconds 3600 --replace

Exit codes: 0 the file is there, 1 it failed or was discarded, 2 the command line is wrong.";

/// Version for people, with `git describe` when the build was told.
static VERSION: LazyLock<String> = LazyLock::new(|| match version() {
    Version { tactus, build: Some(build) } => format!("{tactus} ({build})"),
    Version { tactus, build: None } => tactus,
});

#[derive(Debug, Parser)]
#[command(name = "tactus", version = VERSION.as_str(), about = ABOUT, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Option<Verb>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Serve a folder of media files (what `tactus` alone does)
    #[command(after_help = SERVE_HELP)]
    Serve(ServeArgs),
    /// Tell what is in media files: tracks, codecs, rates, SDP
    #[command(after_help = PROBE_HELP)]
    Probe(probe::ProbeArgs),
    /// Tell whether this machine is tuned, what is lost if not, and what to type
    #[command(after_help = CHECK_HELP)]
    Check(check::CheckArgs),
    /// Measure what a disk can do, for the guarantees that tactus serve gives
    #[command(after_help = PROBE_DISK_HELP)]
    ProbeDisk(probe_disk::ProbeDiskArgs),
    /// Copy a file into the media folder of a running server
    #[command(after_help = IMPORT_HELP)]
    Import(import::ImportArgs),
    /// Record a live stream into the media folder of a running server
    #[command(after_help = RECORD_HELP)]
    Record(record::RecordArgs),
}

#[derive(Debug, Default, clap::Args)]
struct ServeArgs {
    /// Configuration file
    #[arg(short = 'c', long = "config", value_name = "FILE.toml")]
    config: Option<PathBuf>,
    /// Only check the configuration against this machine and print it, all keys, as TOML
    #[arg(long, visible_alias = "print-config")]
    check: bool,
    #[command(flatten)]
    overrides: Overrides,
}

/// Why the command ends with an exit code other than 0.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The configuration does not fit this machine.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// It could not start, or it broke.
    #[error("{0}")]
    Runtime(String),
}

impl Failure {
    fn exit_code(&self) -> ExitCode {
        match self {
            Failure::Runtime(_) => ExitCode::from(1),
            Failure::Config(_) => ExitCode::from(2),
            Failure::Plan(error) => ExitCode::from(if error.is_configuration() { 2 } else { 1 }),
        }
    }
}

/// Runs the command of this process.
pub fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        None => serve(ServeArgs::default()),
        Some(Verb::Serve(args)) => serve(args),
        Some(Verb::Probe(args)) => return probe::run(&args),
        Some(Verb::Check(args)) => return check::run(&args),
        Some(Verb::ProbeDisk(args)) => probe_disk::run(&args),
        Some(Verb::Import(args)) => import::run(&args),
        Some(Verb::Record(args)) => record::run(&args),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            match &failure {
                // These lines begin with their place in the file, which editors and terminals can follow.
                Failure::Config(mistakes @ ConfigError::File(_)) => eprintln!("{mistakes}"),
                other => eprintln!("tactus: {other}"),
            }
            failure.exit_code()
        }
    }
}

fn serve(args: ServeArgs) -> Result<(), Failure> {
    let from_file = args.config.as_deref().map(file::read).transpose()?.unwrap_or_default();
    let config = Config::assemble(&from_file, &args.overrides.0)?;
    let media_given = from_file.iter().chain(&args.overrides.0).any(|setting| setting.key == Key::Media);
    if args.check {
        let printed = config.to_toml();
        print(&printed);
        Plan::new(config, media_given)?;
        return Ok(());
    }
    crate::logging::start(config.log);
    serve::run(Plan::new(config, media_given)?)
}

/// Writes to standard output; whoever reads it may have gone, which is no reason to fail.
fn print(text: &str) {
    use std::io::Write as _;
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// What is running, for the monitor.
fn version() -> Version {
    Version { tactus: env!("CARGO_PKG_VERSION").to_owned(), build: option_env!("TACTUS_BUILD").map(str::to_owned) }
}

/// Text from a file or its name, without what would move a terminal's cursor.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}
