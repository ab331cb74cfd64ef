//! `testbed figures`: runs experiments and writes one self-contained page with plots, and the raw data beside it.
//!
//! ```text
//! experiment (streams, lateness, priority, ...) ── rows ─► store (JSON, CSV, after each row) ── data ─► plot (SVG) ─► html (one page), and files
//!       └─ servers: one measurement by `bench`, lines for all                            └─ scale
//! ```
//!
//! An experiment that fails leaves what it measured, and the others run on; `--resume` takes rows from the last run that was made with the
//! same settings, on the same machine and source. The page shows every experiment whose data is there, each with what it was measured on.

mod cpu_load;
pub mod experiment;
pub mod html;
pub mod ifq;
mod lateness;
pub mod plot;
pub mod priority;
pub mod scale;
pub mod servers;
pub mod store;
mod streams;

use std::io;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use controlplane::units::rfc3339_utc;

use crate::bench::BenchError;
use crate::clip::ClipError;
use crate::disk::DiskError;
use crate::machine::Machine;
use crate::net::{self, NetError};
use crate::noise::{self, Noise};
use crate::peers::{self, Peer, PeerError};
use experiment::{Context, Data, Experiment};

/// How much is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effort {
    /// Half a minute for each experiment: is all in order?
    Quick,
    /// Minutes.
    Standard,
    /// Hours.
    Full,
}

/// What is asked.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// Only this experiment (may be given several times)
    #[arg(long)]
    pub only: Vec<String>,
    /// Few and short measurements: half a minute for each experiment
    #[arg(long, conflicts_with = "full")]
    pub quick: bool,
    /// Many and long measurements: hours, most of them for the seven minutes of each point of `lateness`
    #[arg(long)]
    pub full: bool,
    /// Where the report and the data go
    #[arg(long, default_value = "out/figures")]
    pub out: PathBuf,
    /// Name the experiments
    #[arg(long)]
    pub list: bool,
    /// Keep what the last run measured with the same settings, and measure the rest
    #[arg(long)]
    pub resume: bool,
    /// Measure nothing: draw the page anew from the data that is there
    #[arg(long, conflicts_with_all = ["resume", "only"])]
    pub redraw: bool,
    /// Servers to compare, by their files in the table of peers
    #[arg(long, value_delimiter = ',', default_value = "tactus,gst-rtsp-server")]
    pub peers: Vec<String>,
    /// Seconds of each measurement [default: 8; 2 with --quick, 20 with --full]
    #[arg(long)]
    pub seconds: Option<f64>,
    /// Rate of the titles
    #[arg(long, default_value = "1.4M", value_parser = crate::clip::parse_rate)]
    pub rate: u64,
    /// Numbers of streams of the experiments `streams` and `lateness`, in place of their own
    #[arg(long, value_delimiter = ',')]
    pub streams: Vec<usize>,
    /// Shares of the cores, percent, of the experiment `cpu-load`, in place of its own
    #[arg(long, value_delimiter = ',', value_parser = clap::value_parser!(u8).range(0..=100))]
    pub loads: Vec<u8>,
    /// Streams of the experiment `cpu-load` [default: 100; 25 with --quick]
    #[arg(long = "load-streams")]
    pub load_streams: Option<usize>,
    /// Numbers of guaranteed streams of the experiment `priority`, in place of its own
    #[arg(long, value_delimiter = ',')]
    pub guaranteed: Vec<usize>,
    /// A measurement during which other programs used more of a core than this, percent, is marked as disturbed (and `--resume` repeats it)
    #[arg(long, default_value_t = 30.0)]
    pub disturbance: f64,
    /// Seconds to wait before each measurement for other programs to use less than that [default: 30; 0 with --quick]
    #[arg(long)]
    pub wait: Option<f64>,
    /// Folder of the table of peers
    #[arg(long, hide_default_value = true, default_value_os_t = peers::default_folder())]
    pub peers_folder: PathBuf,
}

impl Args {
    /// How much is measured.
    pub fn effort(&self) -> Effort {
        match (self.quick, self.full) {
            (true, _) => Effort::Quick,
            (_, true) => Effort::Full,
            _ => Effort::Standard,
        }
    }

    /// Seconds of each measurement.
    pub fn seconds(&self) -> f64 {
        let default = match self.effort() {
            Effort::Quick => 2.0,
            Effort::Standard => 8.0,
            Effort::Full => 20.0,
        };
        self.seconds.filter(|s| s.is_finite()).map_or(default, |s| s.clamp(0.5, 3600.0))
    }

    /// How long to wait for a quiet machine.
    pub fn wait(&self) -> Duration {
        let seconds = self.wait.filter(|s| s.is_finite()).unwrap_or(if self.quick { 0.0 } else { 30.0 });
        Duration::from_secs_f64(seconds.clamp(0.0, 3600.0))
    }

    /// Streams of the experiment `cpu-load`.
    pub fn load_streams(&self) -> usize {
        self.load_streams.unwrap_or(if self.quick { 25 } else { 100 })
    }
}

/// Why there is no report, or an experiment is not complete.
#[derive(Debug, thiserror::Error)]
pub enum FiguresError {
    /// No experiment of this name.
    #[error("there is no experiment {0}; there are: {1}")]
    Unknown(String, String),
    /// A peer.
    #[error(transparent)]
    Peer(#[from] PeerError),
    /// A measurement.
    #[error(transparent)]
    Bench(#[from] BenchError),
    /// The titles.
    #[error(transparent)]
    Clip(#[from] ClipError),
    /// The network.
    #[error(transparent)]
    Net(#[from] NetError),
    /// The slow disk.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The machine's own noise.
    #[error("noise probe: {0}")]
    Noise(io::Error),
    /// The server does not import.
    #[error("import: {0}")]
    Import(String),
    /// A file or a program.
    #[error("{0}: {1}")]
    File(PathBuf, io::Error),
}

/// Runs `testbed figures`. False when an experiment is not complete.
///
/// # Errors
/// Nothing could be measured or written at all.
pub fn run(args: &Args) -> Result<bool, FiguresError> {
    let all = experiment::all();
    if args.list {
        all.iter().for_each(|e| println!("{:<12} {}", e.name(), e.about()));
        return Ok(true);
    }
    if let Some(unknown) = args.only.iter().find(|name| !all.iter().any(|e| e.name() == *name)) {
        let names: Vec<&str> = all.iter().map(|e| e.name()).collect();
        return Err(FiguresError::Unknown(unknown.clone(), names.join(", ")));
    }
    std::fs::create_dir_all(&args.out).map_err(|e| FiguresError::File(args.out.clone(), e))?;
    let mut parts: Vec<Part> = all.iter().map(|e| (&**e, store::load(&args.out, e.name()))).collect();
    if !args.redraw {
        measure_all(args, &mut parts)?;
    }
    write_report(args, &parts)?;
    println!("{}", args.out.join("index.html").display());
    let failed: Vec<&str> = parts.iter().filter(|(_, d)| d.as_ref().is_some_and(|d| d.failure.is_some())).map(|(e, _)| e.name()).collect();
    if !failed.is_empty() {
        println!("not complete: {}; --resume measures the rest", failed.join(", "));
    }
    Ok(failed.is_empty())
}

/// An experiment with its data, where there is some.
type Part<'a> = (&'a dyn Experiment, Option<Data>);

fn measure_all(args: &Args, parts: &mut [Part<'_>]) -> Result<(), FiguresError> {
    let peers: Vec<Peer> = args.peers.iter().map(|name| Peer::read(&args.peers_folder, name)).collect::<Result<_, _>>()?;
    let machine = Machine::read();
    let noise = machine_noise(&machine, args)?;
    for place in 0..parts.len() {
        let Some((experiment, data)) = parts.get_mut(place) else { break };
        if args.only.is_empty() || args.only.iter().any(|name| name == experiment.name()) {
            if experiment.needs_root() && !net::is_root() {
                eprintln!("SKIPPED (needs root): {}", experiment.name());
                continue;
            }
            eprintln!("{}: {}", experiment.name(), experiment.about());
            *data = Some(measure(*experiment, args, &peers, &noise, &machine));
            // After each, so that a run that is ended has its report too.
            write_report(args, parts)?;
        }
    }
    Ok(())
}

fn machine_noise(machine: &Machine, args: &Args) -> Result<Vec<Noise>, FiguresError> {
    let seconds = if args.quick { 0.5 } else { 3.0 };
    eprintln!("noise: {} cores, {seconds} s each", machine.cores);
    (0..machine.cores).map(|cpu| noise::probe(Some(cpu), seconds).map_err(FiguresError::Noise)).collect()
}

/// Runs one experiment; what stops it is part of its data.
fn measure(experiment: &dyn Experiment, args: &Args, peers: &[Peer], noise: &[Noise], machine: &Machine) -> Data {
    let settings = experiment.settings(args);
    let earlier = store::load(&args.out, experiment.name()).filter(|e| args.resume && e.settings == settings && e.machine == *machine);
    // What went wrong or was disturbed is measured again.
    let earlier = earlier
        .map(|e| e.rows.into_iter().filter(|row| row.trouble.is_none() && row.disturbed_percent.is_none()).collect())
        .unwrap_or_default();
    let data = Data {
        experiment: experiment.name().to_owned(),
        settings,
        machine: machine.clone(),
        noise: noise.to_vec(),
        began: rfc3339_utc(SystemTime::now()),
        rows: Vec::new(),
        failure: Some("it was ended".to_owned()),
    };
    let mut context = Context { args, peers, earlier, data };
    let done = experiment.run(&mut context);
    context.data.failure = done.err().map(|error| error.to_string());
    if let Some(failure) = &context.data.failure {
        eprintln!("  {}: {failure}", experiment.name());
    }
    if let Err(error) = store::save(&args.out, &context.data) {
        context.data.failure.get_or_insert(error.to_string());
    }
    context.data
}

fn write_report(args: &Args, parts: &[Part<'_>]) -> Result<(), FiguresError> {
    let parts: Vec<(&dyn Experiment, &Data)> = parts.iter().filter_map(|(e, data)| Some((*e, data.as_ref()?))).collect();
    // The newest data says where the page comes from; each part says it again for itself.
    let (machine, noise) = match parts.iter().max_by_key(|(_, data)| &data.began) {
        Some((_, newest)) => (newest.machine.clone(), newest.noise.clone()),
        None => (Machine::read(), Vec::new()),
    };
    for plot in parts.iter().flat_map(|(experiment, data)| experiment.plots(data)) {
        let path = args.out.join(format!("{}.svg", plot.id));
        std::fs::write(&path, plot.file(html::STYLE)).map_err(|e| FiguresError::File(path, e))?;
    }
    let report = html::Report { machine: &machine, made: rfc3339_utc(SystemTime::now()), noise: &noise, parts };
    let path = args.out.join("index.html");
    std::fs::write(&path, report.html()).map_err(|e| FiguresError::File(path, e))
}
