//! The `testbed` command: measures RTSP servers from the outside.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use testbed::load::report::{Report, percentile_file};
use testbed::load::{Phase, Snapshot, require};
use testbed::{bench, burn, clip, disk, figures, load, net, noise, peers, send};

/// Measures RTSP servers from the outside: load with thousands of clients, punctuality at the receiver, what this machine itself adds.
///
/// Exit code: 0 when all is well, 1 when a requirement was not met, 2 when the measurement could not be made.
#[derive(Parser)]
#[command(
    version,
    after_help = "\
Examples:
  testbed load --url rtsp://127.0.0.1:8554/clip.mp4 --clients 1000 --ramp 100/s --duration 30
  testbed load --url 'rtsp://127.0.0.1:8554/{n}.mp4' --titles 50 --clients 500 --require 'late_p99_ms<5,loss=0'
  testbed clip out/titles --rate 1.4M --seconds 60 --count 50
  testbed send --listen 127.0.0.1:8600 --lose 1/1000 --late 5ms/100
  testbed disk up slow --size 4G --rate 100M
  testbed figures --quick
  testbed probe-noise --cpu 1 --seconds 5
  testbed net up testbed/topologies/gigabit.toml
  testbed bench --streams 1,100,500 --seconds 10"
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Play from an RTSP server with many clients and report what they saw
    Load(LoadArguments),
    /// Measure how long this machine keeps a spinning thread from running
    ProbeNoise {
        /// Pin to this core
        #[arg(long)]
        cpu: Option<usize>,
        /// How long
        #[arg(long, default_value_t = 5.0)]
        seconds: f64,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Make titles to serve
    Clip(clip::Args),
    /// Serve streams of known pacing, with known faults: what `testbed load` must then find
    Send(send::Options),
    /// Disks that are slow on purpose (needs root)
    Disk(disk::Args),
    /// Run experiments and write a report with plots (what `make figures` runs)
    Figures(figures::Args),
    /// Name the servers of the table of peers, and what they need
    Peers {
        /// Folder of the table
        #[arg(long, hide_default_value = true, default_value_os_t = peers::default_folder())]
        folder: PathBuf,
    },
    /// Use a share of every core until ended
    Burn(burn::Args),
    /// Topologies in network namespaces, with emulated links
    #[command(subcommand)]
    Net(net::cli::Args),
    /// Compare servers on loopback: cost per packet, bursts, lateness, set-up (what `make bench` runs)
    Bench(bench::Args),
}

#[derive(clap::Args)]
struct LoadArguments {
    #[command(flatten)]
    options: load::Options,
    /// Write the report as JSON (`-`: to the standard output, in place of the table)
    #[arg(long)]
    json: Option<PathBuf>,
    /// Write the lateness percentiles of packets, for HdrHistogram's plotting tools
    #[arg(long)]
    hdr: Option<PathBuf>,
    /// Conditions on metrics, parted by commas: `late_p99_ms<5,loss=0`. The names are those of `metrics` in the JSON
    #[arg(long, value_parser = parse_require)]
    require: Option<Requirements>,
}

#[derive(Clone)]
struct Requirements(Vec<require::Condition>);

fn parse_require(text: &str) -> Result<Requirements, String> {
    require::parse(text).map(Requirements)
}

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Load(arguments) => run_load(&arguments),
        Command::Clip(arguments) => clip::run(&arguments).map(|()| true).map_err(|e| e.to_string()),
        Command::Send(arguments) => send::run(&arguments).map(|()| true).map_err(|e| e.to_string()),
        Command::Disk(arguments) => disk::run(&arguments).map(|()| true).map_err(|e| e.to_string()),
        Command::Figures(arguments) => figures::run(&arguments).map_err(|e| e.to_string()),
        Command::Peers { folder } => peers::table(&folder).map(|table| print!("{table}")).map(|()| true).map_err(|e| e.to_string()),
        Command::Burn(arguments) => burn::run(arguments).map(|()| true).map_err(|e| e.to_string()),
        Command::Net(arguments) => net::cli::run(arguments).map_err(|e| e.to_string()),
        Command::Bench(arguments) => bench::run(&arguments).map_err(|e| e.to_string()),
        Command::ProbeNoise { cpu, seconds, json } => probe_noise(cpu, seconds, json),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(message) => {
            eprintln!("testbed: {message}");
            ExitCode::from(2)
        }
    }
}

fn probe_noise(cpu: Option<usize>, seconds: f64, json: bool) -> Result<bool, String> {
    let found = noise::probe(cpu, seconds).map_err(|e| format!("probe: {e}"))?;
    if json {
        println!("{}", serde_json::to_string_pretty(&found).map_err(|e| e.to_string())?);
    } else {
        print!("{}", found.table());
    }
    Ok(true)
}

fn write(path: &std::path::Path, text: &str) -> Result<(), String> {
    std::fs::write(path, text).map_err(|e| format!("{}: {e}", path.display()))
}

fn run_load(arguments: &LoadArguments) -> Result<bool, String> {
    let options = &arguments.options;
    let noise = match options.noise {
        0.0 => None,
        seconds => Some(noise::probe(options.cpu, seconds).map_err(|e| format!("noise probe: {e}"))?),
    };
    let mut progress = Progress::new(options.quiet);
    let outcomes = load::run(options, &mut |snapshot| progress.show(snapshot)).map_err(|e| e.to_string())?;
    let report = Report::new(options, &outcomes, noise);
    let json = serde_json::to_string_pretty(&report).map_err(|e| e.to_string())?;
    match &arguments.json {
        Some(path) if path.as_os_str() == "-" => println!("{json}"),
        Some(path) => {
            write(path, &json)?;
            print!("{}", report.table());
        }
        None => print!("{}", report.table()),
    }
    if let Some(path) = &arguments.hdr {
        write(path, &percentile_file(outcomes.totals.judge.steady.packet().0))?;
    }
    let mut held = true;
    for condition in arguments.require.iter().flat_map(|r| &r.0) {
        if let Err(message) = condition.check(&report.metrics) {
            eprintln!("not met: {message}");
            held = false;
        }
    }
    Ok(held)
}

/// One line per second on the standard error.
struct Progress {
    quiet: bool,
    last: Option<Snapshot>,
}

impl Progress {
    fn new(quiet: bool) -> Self {
        Self { quiet, last: None }
    }

    fn show(&mut self, now: &Snapshot) -> bool {
        let before_ns = self.last.map_or(0, |l| l.elapsed_ns);
        let elapsed_ns = now.elapsed_ns - before_ns;
        if self.quiet || elapsed_ns < 1_000_000_000 {
            return true;
        }
        let seconds = elapsed_ns as f64 / 1e9;
        let since = |f: fn(&Snapshot) -> u64| (f(now) - self.last.as_ref().map_or(0, f)) as f64 / seconds;
        eprintln!(
            "{:7.1} s  {:6}  {} playing of {} asked, {} refused, {} failed; {:.0} packets/s, {:.1} Mbps; generator {:.0} % of a core",
            now.elapsed_ns as f64 / 1e9,
            match now.phase {
                Phase::Ramp => "ramp",
                Phase::Steady => "steady",
                Phase::Stop => "stop",
            },
            now.playing,
            now.asked,
            now.refused,
            now.failed,
            since(|s| s.packets),
            since(|s| s.bytes) * 8.0 / 1e6,
            since(|s| s.cpu_ns) / 1e7,
        );
        self.last = Some(*now);
        true
    }
}
