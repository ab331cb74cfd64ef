//! `testbed net`: topologies in network namespaces, from a small file, made and removed completely.
//!
//! ```text
//!  tnet-NAME.server                tnet-NAME.wire                   tnet-NAME.client
//!  ┌──────────────┐   veth   ┌─────────────────────────┐   veth   ┌──────────────┐
//!  │         eth0 ├──────────┤ w0a ─► keeper ─► w0b    ├──────────┤ eth0         │
//!  └──────────────┘          │      stack::wire        │          └──────────────┘
//!                            └─────────────────────────┘
//! ```
//!
//! - [`topology`]: the file. [`impairments`], [`units`]: what wires do to frames.
//! - [`build`], [`remove`]: making and removing; [`state`]: what exists and who owns it, as the system itself tells.
//! - [`keeper`]: the process that runs the wires ([`driver`], [`packet`]) and answers while they run ([`control`], [`stats`]).
//! - [`Net`]: a topology for as long as a value lives, for tests and other commands.
//!
//! Everything lives inside namespaces whose names begin with `tnet-`; nothing is added to the machine's own network. Needs root, `ip` and
//! `ethtool`.

pub mod build;
pub mod cli;
pub mod control;
pub mod driver;
pub mod guard;
pub mod impairments;
mod ip;
pub mod keeper;
pub mod packet;
pub mod remove;
pub mod state;
pub mod stats;
mod sys;
pub mod topology;
pub mod units;

use std::io;
use std::path::PathBuf;

pub use self::control::Direction;
pub use self::driver::Waiting;
pub use self::guard::Net;
pub use self::impairments::Impairments;
pub use self::keeper::WireOptions;
pub use self::stats::NetStats;
pub use self::sys::is_root;
pub use self::topology::{Topology, TopologyError};

/// Why something with a topology did not work, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// A mistake in a file.
    #[error(transparent)]
    Topology(#[from] TopologyError),
    /// Not permitted.
    #[error("network namespaces need root: run this as root, or with sudo")]
    NeedsRoot,
    /// The name is taken.
    #[error("{name} is up already: testbed net down {name}, or give the new one another name (--name)")]
    Exists {
        /// Name of the topology.
        name: String,
    },
    /// Nothing of that name.
    #[error("there is no topology {name:?}; {}", list(.known))]
    Unknown {
        /// The name.
        name: String,
        /// Those that exist.
        known: Vec<String>,
    },
    /// No such host.
    #[error("{topology} has no host {host:?}; {}", list(.known))]
    UnknownHost {
        /// Name of the topology.
        topology: String,
        /// The name.
        host: String,
        /// Those that exist.
        known: Vec<String>,
    },
    /// Another process is making it.
    #[error("{name} is just being made by process {pid}: try again, or end that process")]
    BeingMade {
        /// Name of the topology.
        name: String,
        /// That process.
        pid: u32,
    },
    /// A program is not installed.
    #[error("{program} is missing: apt-get install {package}")]
    Missing {
        /// The program.
        program: String,
        /// Its Debian package.
        package: &'static str,
    },
    /// A program could not be run.
    #[error("{command}: {source}")]
    Run {
        /// What was to be run.
        command: String,
        /// Why not.
        source: io::Error,
    },
    /// A program failed.
    #[error("{command}: {complaint}")]
    Failed {
        /// What was run.
        command: String,
        /// What it said.
        complaint: String,
    },
    /// A file.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
    /// The keeper said no.
    #[error("{name}: {problem}")]
    Refused {
        /// Name of the topology.
        name: String,
        /// What it said.
        problem: String,
    },
    /// The keeper says nothing.
    #[error("{name} does not answer ({source}); testbed net list tells whether it is up")]
    NoAnswer {
        /// Name of the topology.
        name: String,
        /// What went wrong.
        source: io::Error,
    },
}

fn list(names: &[String]) -> String {
    if names.is_empty() { "there is none at all".to_owned() } else { format!("there is {}", names.join(", ")) }
}
