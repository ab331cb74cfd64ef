//! A topology that is up for as long as a value lives.

use std::path::PathBuf;
use std::process::{Child, Command};
use std::sync::atomic::{AtomicU32, Ordering};

use super::NetError;
use super::build;
use super::control::{self, Direction};
use super::impairments::Impairments;
use super::keeper::{self, WireOptions};
use super::remove::remove;
use super::state::{self, namespace_path};
use super::stats::NetStats;
use super::sys;
use super::topology::Topology;

/// Characters of a topology's name that are kept in that of a value.
const NAME_KEPT: usize = 32;

/// Makes the topology, with a keeper that is tied to this process or on its own. Nothing is left when it fails.
pub(super) fn bring_up(topology: &Topology, options: WireOptions, tied: bool) -> Result<Child, NetError> {
    if !sys::is_root() {
        return Err(NetError::NeedsRoot);
    }
    let name = topology.name();
    if !state::hosts(name).is_empty() && state::owner(name).is_none_or(|owner| !owner.is_alive()) {
        // What a crash has left.
        remove(name)?;
    }
    state::claim(topology).map_err(|source| match source.kind() {
        std::io::ErrorKind::AlreadyExists => NetError::Exists { name: name.to_owned() },
        _ => NetError::File { path: state::folder(name), source },
    })?;
    build::build(topology).and_then(|()| keeper::start(name, options, tied)).inspect_err(|_| {
        // The first error is the one to tell.
        let _ = remove(name);
    })
}

/// Runs a program in a host's namespace, not yet started. It sees the machine's own files and processes, and the host's network.
pub(super) fn command_in(topology: &str, host: &str, program: &str) -> Result<Command, NetError> {
    let known = state::visible_hosts(topology);
    if !known.iter().any(|one| one == host) {
        return Err(NetError::UnknownHost { topology: topology.to_owned(), host: host.to_owned(), known });
    }
    let mut command = Command::new(program);
    sys::run_in_namespace(&mut command, build::open_namespace(topology, host)?);
    Ok(command)
}

/// A topology that is up. Dropping it removes it, with all processes in its namespaces; so does the end of this process, even by SIGKILL.
#[derive(Debug)]
pub struct Net {
    name: String,
    keeper: Child,
}

impl Topology {
    /// Brings the topology up under a name of its own, so that several can be up at once.
    ///
    /// # Errors
    /// Not root, or what failed; nothing is left then.
    pub fn up(&self) -> Result<Net, NetError> {
        self.up_with(WireOptions::default())
    }

    /// The same with a say in how the wires run.
    ///
    /// # Errors
    /// Not root, or what failed; nothing is left then.
    pub fn up_with(&self, options: WireOptions) -> Result<Net, NetError> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let base: String = self.name().chars().take(NAME_KEPT).collect();
        let name = format!("{base}-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let topology = self.clone().named(&name).map_err(|problem| NetError::Refused { name: name.clone(), problem })?;
        let keeper = bring_up(&topology, options, true)?;
        Ok(Net { name, keeper })
    }
}

impl Net {
    /// Its name, as `testbed net list` shows it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The keeper's process id.
    pub fn keeper_pid(&self) -> u32 {
        self.keeper.id()
    }

    /// A program to be run in a host's namespace.
    ///
    /// # Errors
    /// There is no such host.
    pub fn command(&self, host: &str, program: &str) -> Result<Command, NetError> {
        command_in(&self.name, host, program)
    }

    /// Runs something on a thread in a host's namespace: sockets that it opens stay there wherever they are used.
    ///
    /// # Errors
    /// There is no such host.
    pub fn in_namespace<T: Send>(&self, host: &str, work: impl FnOnce() -> T + Send) -> Result<T, NetError> {
        build::in_namespace(&self.name, host, work)
    }

    /// The file that stands for a host's namespace.
    pub fn namespace_path(&self, host: &str) -> PathBuf {
        namespace_path(&self.name, host)
    }

    /// The figures of the wires.
    ///
    /// # Errors
    /// The keeper does not answer.
    pub fn stats(&self) -> Result<NetStats, NetError> {
        control::stats(&self.name)
    }

    /// Changes settings of a wire, written as on the command line: `["loss=1%", "delay=2ms"]`.
    ///
    /// # Errors
    /// No such link or setting, or the keeper does not answer.
    pub fn set(&self, link: &str, direction: Direction, settings: &[&str]) -> Result<(), NetError> {
        let settings = Impairments::from_pairs(settings.iter().copied());
        let settings = settings.map_err(|problem| NetError::Refused { name: self.name.clone(), problem })?;
        control::set(&self.name, link, direction, settings)
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        if let Err(error) = remove(&self.name) {
            eprintln!("{} is not removed, testbed net clean may: {error}", self.name);
        }
        let _ = self.keeper.wait();
    }
}
