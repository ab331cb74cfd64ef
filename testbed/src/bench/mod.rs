//! `testbed bench`: what `make bench` runs. On loopback, peers in turns over the numbers of streams: set-up, cost per packet, bursts, lateness; then
//! one run at the limit of sessions, and a search for the most streams that one engine core holds. Beside each figure stands what the machine itself added.
//!
//! Peers take turns at each number of streams, so that a disturbance of the machine does not fall on one of them alone; with several rounds every
//! figure is the median.

mod cell;
mod floor;
mod hold;
mod place;
mod table;

use std::io;
use std::path::PathBuf;

use serde::Serialize;

use crate::clip::{ClipError, ClipSpec, make_clips};
use crate::load::LoadError;
use crate::machine::Machine;
use crate::net::NetError;
use crate::peers::{self, Peer, PeerError};

pub use cell::{Cell, CellSpec, Observed, measure, observe, trouble, video_over_udp};
pub use hold::{Held, Trial, What};
pub use place::Place;

/// Titles that clients are spread over: enough that a disk has to move, few enough to be made in seconds.
const TITLES: u32 = 8;
/// Stragglers and ramp come on top of the seconds measured.
const EXTRA_SECONDS: u32 = 40;
/// The slow clips of the run with the most sessions.
const SLOW_BPS: u64 = 64_000;

/// What the bench is asked to do.
#[derive(clap::Args, Clone, Debug, Serialize)]
pub struct Args {
    /// Numbers of streams
    #[arg(long, value_delimiter = ',', default_value = "1,100,500,1000")]
    pub streams: Vec<usize>,
    /// Seconds measured for each
    #[arg(long, default_value_t = 15)]
    pub seconds: u32,
    /// Servers to compare, by their files in the table of peers
    #[arg(long, value_delimiter = ',', default_value = "tactus,gst-rtsp-server")]
    pub peers: Vec<String>,
    /// Rounds; figures are medians
    #[arg(long, default_value_t = 1)]
    pub rounds: u32,
    /// Rate of the clips
    #[arg(long, default_value = "1.4M", value_parser = crate::clip::parse_rate)]
    pub rate: u64,
    /// Clients that begin per second
    #[arg(long, default_value_t = 200.0)]
    pub ramp: f64,
    /// Sessions of the acceptance run of `tactus` (0: none); a fiftieth more are asked for and must be refused
    #[arg(long, default_value_t = 5000)]
    pub accept: usize,
    /// Sessions of the run that sets up as fast as it can (0: none)
    #[arg(long, default_value_t = 300)]
    pub set_up: usize,
    /// Titles made for the search for the most streams that one engine core of `tactus` holds, all of different titles from disk (0: none).
    /// A title takes about 5 MB
    #[arg(long, default_value_t = 1000)]
    pub titles: usize,
    /// Where clips and results go
    #[arg(long, default_value = "out/bench")]
    pub out: PathBuf,
    /// Folder of the table of peers
    #[arg(long, hide_default_value = true, default_value_os_t = peers::default_folder())]
    pub peers_folder: PathBuf,
}

/// Why there are no figures.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// The clips.
    #[error(transparent)]
    Clip(#[from] ClipError),
    /// A peer.
    #[error(transparent)]
    Peer(#[from] PeerError),
    /// The load generator.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The network.
    #[error(transparent)]
    Net(#[from] NetError),
    /// A file.
    #[error("{0}: {1}")]
    File(PathBuf, io::Error),
    /// What would be measured is how two programs share a core.
    #[error("the server's engine core is on CPU {0}, where the load generator is")]
    SharedCore(usize),
}

/// Everything that was measured, as it goes into `bench.json`.
#[derive(Debug, Serialize)]
pub struct Results {
    settings: Args,
    machine: Machine,
    cells: Vec<Cell>,
    held: Vec<Held>,
}

/// Runs the bench and prints its table. False when a goal of the acceptance run was missed.
///
/// # Errors
/// There is nothing to measure with. A peer that fails under load is a result.
pub fn run(args: &Args) -> Result<bool, BenchError> {
    let peers: Vec<Peer> = args.peers.iter().map(|name| Peer::read(&args.peers_folder, name)).collect::<Result<_, _>>()?;
    let media = args.out.join("media");
    let spec = ClipSpec { rate_bps: args.rate, audio_bps: 0, seconds: args.seconds + EXTRA_SECONDS, ..ClipSpec::default() };
    make_clips(&spec, TITLES, &media)?;
    let mut cells = Vec::new();
    for round in 1..=args.rounds {
        for &streams in &args.streams {
            for peer in &peers {
                eprintln!("round {round} of {}: {} with {streams} streams", args.rounds, peer.name);
                let cell =
                    CellSpec { streams, round, seconds: f64::from(args.seconds), ramp: args.ramp, limit: streams + 16, kind: "steady" };
                cells.push(cell::measure_reported(peer, &media, &args.out, cell)?);
            }
        }
        if args.set_up > 0 {
            for peer in &peers {
                eprintln!("round {round} of {}: {} sets up {} sessions as fast as it can", args.rounds, peer.name, args.set_up);
                let cell = CellSpec { streams: args.set_up, round, seconds: 2.0, ramp: 1e6, limit: args.set_up + 16, kind: "set-up" };
                cells.push(cell::measure_reported(peer, &media, &args.out, cell)?);
            }
        }
    }
    if let Some(peer) = peers.iter().find(|p| p.name == "tactus").filter(|_| args.accept > 0) {
        let slow = args.out.join("slow");
        make_clips(&ClipSpec { rate_bps: SLOW_BPS, fps: 5, ..spec }, TITLES, &slow)?;
        eprintln!("{}: {} sessions accepted, the rest refused", peer.name, args.accept);
        let asked = args.accept + args.accept.div_ceil(50);
        let cell = CellSpec { streams: asked, round: 1, seconds: f64::from(args.seconds), ramp: 500.0, limit: args.accept, kind: "limit" };
        cells.push(cell::measure_reported(peer, &slow, &args.out, cell)?);
    }
    let held = match peers.iter().find(|p| p.name == "tactus") {
        Some(peer) if args.titles > 0 => hold::search(args, peer)?,
        _ => Vec::new(),
    };
    let results = Results { settings: args.clone(), machine: Machine::read(), cells, held };
    let path = args.out.join("bench.json");
    let json = serde_json::to_string_pretty(&results).map_err(|e| BenchError::File(path.clone(), e.into()))?;
    std::fs::write(&path, json).map_err(|e| BenchError::File(path.clone(), e))?;
    print!("{}", table::text(&results));
    println!("\nAll figures: {}", path.display());
    Ok(table::limit_kept(&results))
}
