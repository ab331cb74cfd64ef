//! Removes topologies: processes, namespaces (and with them interfaces), sockets, files. Everything may already be half gone.

use std::time::{Duration, Instant};

use super::NetError;
use super::ip::ip;
use super::state::{self, Role, namespace_name, namespace_path};
use super::sys;

/// For how long processes may end by themselves.
const GRACE: Duration = Duration::from_secs(1);
/// For how long killed ones may take.
const KILLED: Duration = Duration::from_secs(5);

/// Removes a topology, whoever holds it, but one that another process is just making.
///
/// # Errors
/// There is nothing of that name; it is being made; a namespace cannot be removed.
pub fn remove(topology: &str) -> Result<(), NetError> {
    if !state::topologies().contains(topology) {
        return Err(NetError::Unknown { name: topology.to_owned(), known: state::topologies().into_iter().collect() });
    }
    match state::owner(topology).filter(state::Owner::is_alive) {
        Some(owner) if owner.pid == std::process::id() => {}
        Some(owner) if owner.role == Role::Maker => return Err(NetError::BeingMade { name: topology.to_owned(), pid: owner.pid }),
        Some(owner) => {
            // It has nothing to tidy up that is not done here.
            let _ = sys::kill(owner.pid, libc::SIGKILL);
            wait_until(KILLED, || !owner.is_alive());
        }
        None => {}
    }
    let hosts = state::hosts(topology);
    end_processes(topology, &hosts);
    for host in &hosts {
        let deleted = ip(&["netns", "delete", &namespace_name(topology, host)]);
        // Another process may be removing the same, such as its keeper.
        if namespace_path(topology, host).exists() {
            deleted?;
        }
    }
    let folder = state::folder(topology);
    match std::fs::remove_dir_all(&folder) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        done => done.map_err(|source| NetError::File { path: folder, source }),
    }
}

/// Removes all topologies whose owners are dead; with `all`, those that are up too. Returns what was removed and what could not be.
pub fn clean(all: bool) -> (Vec<String>, Vec<NetError>) {
    let (mut removed, mut failed) = (Vec::new(), Vec::new());
    for topology in state::topologies() {
        let is_alive = state::owner(&topology).is_some_and(|owner| owner.is_alive());
        if is_alive && !all {
            continue;
        }
        match remove(&topology) {
            Ok(()) => removed.push(topology),
            Err(error) => failed.push(error),
        }
    }
    state::remove_drafts();
    (removed, failed)
}

/// Ends all processes in the namespaces: asks them, and kills those that stay.
fn end_processes(topology: &str, hosts: &[String]) {
    let inside = || -> Vec<u32> { hosts.iter().flat_map(|host| state::processes(&namespace_path(topology, host))).collect() };
    for (signal, patience) in [(libc::SIGTERM, GRACE), (libc::SIGKILL, KILLED)] {
        for pid in inside() {
            // One that has just ended by itself is no concern.
            let _ = sys::kill(pid, signal);
        }
        if wait_until(patience, || inside().is_empty()) {
            return;
        }
    }
}

fn wait_until(patience: Duration, mut done: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + patience;
    loop {
        if done() {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}
