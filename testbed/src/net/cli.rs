//! The `testbed net` command.

use std::os::unix::process::CommandExt as _;
use std::path::Path;

use clap::Subcommand;

use super::control::{self, Direction};
use super::guard;
use super::impairments::Impairments;
use super::keeper::{self, WireOptions};
use super::remove;
use super::state::{self, Role};
use super::topology::Topology;
use super::{NetError, is_root};

/// What `testbed net` does.
#[derive(Subcommand)]
pub enum Args {
    /// Make a topology: hosts as network namespaces, joined by links
    Up {
        /// The topology file (see testbed/topologies/)
        file: std::path::PathBuf,
        /// Another name than that of the file
        #[arg(long)]
        name: Option<String>,
        /// How the wires run
        #[command(flatten)]
        wires: WireOptions,
    },
    /// Remove a topology, with all processes in its namespaces
    Down {
        /// Its name, or its file
        topology: String,
    },
    /// Show all topologies
    List,
    /// Run a program on a host
    Exec {
        /// Name of the topology
        topology: String,
        /// The host
        host: String,
        /// The program and its arguments
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
    /// Change what a wire does, while it runs
    #[command(after_help = "\
Settings: rate=50Mbps overhead=24B queue=64KiB queue_frames=1000 delay=2ms jitter=1ms jitter_kind=uniform|normal loss=1%
  burst_enter=0.1% burst_leave=10% burst_loss=100% reorder=1% reorder_by=1ms duplicate=1% corrupt=1%")]
    Set {
        /// Name of the topology
        topology: String,
        /// Name of the link
        link: String,
        /// Settings, as in loss=1% delay=2ms
        #[arg(required = true)]
        settings: Vec<String>,
        /// Which way
        #[arg(long, value_enum, default_value_t)]
        direction: Direction,
    },
    /// Show what the wires have done, as JSON
    Stats {
        /// Name of the topology
        topology: String,
    },
    /// Remove what topologies have left whose owners are dead
    Clean {
        /// Those that are up, too
        #[arg(long)]
        all: bool,
    },
    /// The process that holds a topology; started by `up`
    #[command(hide = true)]
    Keep {
        /// Name of the topology
        topology: String,
        /// How the wires run
        #[command(flatten)]
        wires: WireOptions,
    },
}

/// Does it. False: done, but not all of it.
///
/// # Errors
/// What went wrong and what to do.
pub fn run(args: Args) -> Result<bool, NetError> {
    let changes = !matches!(args, Args::List | Args::Stats { .. });
    if changes && !is_root() {
        return Err(NetError::NeedsRoot);
    }
    match args {
        Args::Up { file, name, wires } => up(&file, name.as_deref(), wires)?,
        Args::Down { topology } => {
            let name = if Path::new(&topology).is_file() { Topology::read(Path::new(&topology))?.name().to_owned() } else { topology };
            remove::remove(&name)?;
            println!("{name} is down");
        }
        Args::List => show_all(),
        Args::Exec { topology, host, command } => {
            let (program, arguments) = command.split_first().map_or(("", &[][..]), |(first, rest)| (first.as_str(), rest));
            let source = known(&topology).and_then(|()| guard::command_in(&topology, &host, program))?.args(arguments).exec();
            return Err(NetError::Run { command: program.to_owned(), source });
        }
        Args::Set { topology, link, settings, direction } => {
            known(&topology)?;
            let settings = Impairments::from_pairs(settings.iter().map(String::as_str));
            let settings = settings.map_err(|problem| NetError::Refused { name: link.clone(), problem })?;
            control::set(&topology, &link, direction, settings)?;
        }
        Args::Stats { topology } => {
            known(&topology)?;
            let stats = control::stats(&topology)?;
            let text = serde_json::to_string_pretty(&stats).map_err(|e| NetError::Refused { name: topology, problem: e.to_string() })?;
            println!("{text}");
        }
        Args::Clean { all } => return Ok(clean(all)),
        Args::Keep { topology, wires } => keeper::keep(&topology, wires)?,
    }
    Ok(true)
}

fn known(topology: &str) -> Result<(), NetError> {
    let known = state::topologies();
    if known.contains(topology) {
        return Ok(());
    }
    Err(NetError::Unknown { name: topology.to_owned(), known: known.into_iter().collect() })
}

fn up(file: &Path, name: Option<&str>, wires: WireOptions) -> Result<(), NetError> {
    let mut topology = Topology::read(file)?;
    if let Some(name) = name {
        topology = topology.named(name).map_err(|problem| NetError::Refused { name: name.to_owned(), problem })?;
    }
    // It lives on by itself; the process is reaped by whoever adopts it.
    guard::bring_up(&topology, wires, false)?;
    let name = topology.name();
    println!("{name} is up");
    for host in topology.hosts().keys() {
        let interfaces = topology.links().iter().flat_map(|link| &link.ends).filter(|end| end.host == *host).map(|end| {
            let addresses: Vec<String> = end.addresses.iter().map(ToString::to_string).collect();
            format!("{} {}", end.interface, addresses.join(" "))
        });
        println!("  {host:12} {}", interfaces.collect::<Vec<_>>().join(", "));
    }
    println!("testbed net exec {name} HOST -- COMMAND...    testbed net down {name}");
    Ok(())
}

fn show_all() {
    for name in state::topologies() {
        let owner = match state::owner(&name) {
            Some(owner) if owner.is_alive() && owner.role == Role::Keeper => format!("up, process {}", owner.pid),
            Some(owner) if owner.is_alive() => format!("being made by process {}", owner.pid),
            _ => "dead: testbed net clean".to_owned(),
        };
        println!("{name:24} {owner:28} {}", state::visible_hosts(&name).join(" "));
    }
}

fn clean(all: bool) -> bool {
    let (removed, failed) = remove::clean(all);
    for name in &removed {
        println!("removed {name}");
    }
    for error in &failed {
        eprintln!("testbed: {error}");
    }
    if removed.is_empty() && failed.is_empty() {
        println!("nothing to remove");
    }
    failed.is_empty()
}
