//! What exists, as the system itself tells: names of namespaces, and a folder for each topology that says who owns it.
//!
//! ```text
//! /run/netns/tnet-NAME.HOST        a host's namespace; `ip netns` shows it
//! /run/tactus-net/NAME/owner       "maker|keeper PID START": the process without which the topology is dead
//!                     /topology.toml, control, log
//! ```
//!
//! START is the process's start time, so that a process id that was given out again is not mistaken. The folder appears whole, by a
//! rename, before the first namespace, and goes after the last: whatever is left by a crash is found by either.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::topology::{Topology, WIRE_HOST, is_name};

/// Where namespaces have their names.
const NAMESPACES: &str = "/run/netns";
const FOLDERS: &str = "/run/tactus-net";
const PREFIX: &str = "tnet-";

/// Who holds a topology.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It is being made.
    Maker,
    /// It is up.
    Keeper,
}

/// The process that holds a topology.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Its role.
    pub role: Role,
    /// Its process id.
    pub pid: u32,
    /// When it was started, in ticks since boot.
    pub start: u64,
}

impl Owner {
    /// The calling process.
    pub fn this(role: Role) -> io::Result<Self> {
        let pid = std::process::id();
        let start = start_of(pid).ok_or_else(|| io::Error::other("/proc does not tell of this process"))?;
        Ok(Self { role, pid, start })
    }

    /// It still runs.
    pub fn is_alive(&self) -> bool {
        start_of(self.pid) == Some(self.start)
    }

    fn parse(text: &str) -> Option<Self> {
        let mut words = text.split_whitespace();
        let role = match words.next()? {
            "maker" => Role::Maker,
            "keeper" => Role::Keeper,
            _ => return None,
        };
        Some(Self { role, pid: words.next()?.parse().ok()?, start: words.next()?.parse().ok()? })
    }

    fn text(&self) -> String {
        let role = match self.role {
            Role::Maker => "maker",
            Role::Keeper => "keeper",
        };
        format!("{role} {} {}\n", self.pid, self.start)
    }
}

/// When a process was started, in ticks since boot: field 22 of /proc/PID/stat (proc(5)). `None`: there is none, or it has ended and only
/// waits for its parent to ask.
fn start_of(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the program's name in parentheses, which may contain anything.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    fields.nth(18)?.parse().ok().filter(|_| state != "Z" && state != "X")
}

/// Name of the namespace of a host.
pub fn namespace_name(topology: &str, host: &str) -> String {
    format!("{PREFIX}{topology}.{host}")
}

/// Where the namespace of a host has its name.
pub fn namespace_path(topology: &str, host: &str) -> PathBuf {
    Path::new(NAMESPACES).join(namespace_name(topology, host))
}

/// The folder of a topology.
pub fn folder(topology: &str) -> PathBuf {
    Path::new(FOLDERS).join(topology)
}

/// The socket that the keeper answers on.
pub fn control_path(topology: &str) -> PathBuf {
    folder(topology).join("control")
}

/// Takes the name of a topology: makes its folder, with this process as its maker.
///
/// # Errors
/// `AlreadyExists`: the name is taken.
pub fn claim(topology: &Topology) -> io::Result<()> {
    let draft = Path::new(FOLDERS).join(format!(".{}.{}", std::process::id(), topology.name()));
    fs::create_dir_all(&draft)?;
    fs::write(draft.join("owner"), Owner::this(Role::Maker)?.text())?;
    fs::write(draft.join("topology.toml"), topology.text())?;
    // A folder that has something in it is not replaced.
    fs::rename(&draft, folder(topology.name())).map_err(|e| {
        let _ = fs::remove_dir_all(&draft);
        match e.raw_os_error() {
            Some(libc::ENOTEMPTY | libc::EEXIST) => io::Error::from(io::ErrorKind::AlreadyExists),
            _ => e,
        }
    })
}

/// Makes this process the keeper of a topology.
///
/// # Errors
/// The folder is gone.
pub fn take_over(topology: &str) -> io::Result<()> {
    let draft = folder(topology).join("owner.new");
    fs::write(&draft, Owner::this(Role::Keeper)?.text())?;
    fs::rename(&draft, folder(topology).join("owner"))
}

/// Who holds a topology, dead or alive; `None` when nobody is known.
pub fn owner(topology: &str) -> Option<Owner> {
    fs::read_to_string(folder(topology).join("owner")).ok().and_then(|text| Owner::parse(&text))
}

fn entries(folder: &str) -> Vec<String> {
    let Ok(read) = fs::read_dir(folder) else { return Vec::new() };
    read.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect()
}

/// Namespaces of topologies: (topology, host).
fn namespaces() -> Vec<(String, String)> {
    let split = |name: String| {
        let (topology, host) = name.strip_prefix(PREFIX)?.split_once('.')?;
        (is_name(topology) && is_name(host)).then(|| (topology.to_owned(), host.to_owned()))
    };
    entries(NAMESPACES).into_iter().filter_map(split).collect()
}

/// Names of all topologies of which anything exists.
pub fn topologies() -> BTreeSet<String> {
    let folders = entries(FOLDERS).into_iter().filter(|name| is_name(name));
    folders.chain(namespaces().into_iter().map(|(topology, _)| topology)).collect()
}

/// The hosts of a topology whose namespaces exist, that of the wires included.
pub fn hosts(topology: &str) -> Vec<String> {
    let mut hosts: Vec<String> = namespaces().into_iter().filter(|(one, _)| one == topology).map(|(_, host)| host).collect();
    hosts.sort();
    hosts
}

/// Hosts that people know of.
pub fn visible_hosts(topology: &str) -> Vec<String> {
    hosts(topology).into_iter().filter(|host| host != WIRE_HOST).collect()
}

/// Removes drafts of folders whose makers are gone.
pub fn remove_drafts() {
    for name in entries(FOLDERS) {
        let pid = name.strip_prefix('.').and_then(|rest| rest.split_once('.')?.0.parse().ok());
        if pid.is_some_and(|pid| start_of(pid).is_none()) {
            let _ = fs::remove_dir_all(Path::new(FOLDERS).join(name));
        }
    }
    // Only when it is empty.
    let _ = fs::remove_dir(FOLDERS);
}

/// The processes whose main thread is in a namespace.
pub fn processes(namespace: &Path) -> Vec<u32> {
    let Ok(wanted) = fs::metadata(namespace).map(|file| (file.dev(), file.ino())) else { return Vec::new() };
    let is_inside = |pid: &u32| fs::metadata(format!("/proc/{pid}/ns/net")).is_ok_and(|file| (file.dev(), file.ino()) == wanted);
    entries("/proc").into_iter().filter_map(|name| name.parse().ok()).filter(is_inside).filter(|pid| *pid != std::process::id()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_alive_and_its_successor_is_not_mistaken() {
        let this = Owner::this(Role::Keeper).unwrap();
        assert!(this.is_alive());
        assert_eq!(Owner::parse(&this.text()), Some(this));
        assert!(!Owner { start: this.start + 1, ..this }.is_alive());
        assert!(!Owner { pid: u32::MAX, ..this }.is_alive());
        for text in ["", "keeper", "keeper x 1", "king 1 1"] {
            assert_eq!(Owner::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_process_that_has_ended_is_not_alive_before_it_is_reaped() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = child.id();
        while start_of(pid).is_some() {
            std::thread::yield_now();
        }
        assert!(child.wait().unwrap().success());
    }
}
