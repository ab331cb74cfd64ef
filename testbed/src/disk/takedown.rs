//! Taking disks down, whole ones and what is left of them. Every step is for itself and may have been done before.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::{Duration, Instant};

use super::{DAEMON, DiskError, Limits, Places, began, step};
use crate::player::signal;

/// The daemon may take so long to end when asked to.
const END_MAX: Duration = Duration::from_secs(5);

/// A disk found in the folder.
#[derive(Clone, Debug)]
pub struct Left {
    /// Its name.
    pub name: String,
    /// Where it is mounted.
    pub mount: PathBuf,
    /// How fast it may be.
    pub limits: Limits,
    /// Bytes.
    pub size_bytes: u64,
    /// What is wrong with it, if something is: its daemon or its owner is gone.
    pub broken: Option<&'static str>,
    /// The process that it belongs to.
    pub owner: Option<u32>,
}

/// All disks in `folder`, whole or not.
pub fn left(folder: &Path) -> Vec<Left> {
    let entries = fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    let mut names: Vec<String> = entries.filter_map(|e| e.file_name().into_string().ok()).collect();
    names.sort();
    names.into_iter().filter_map(|name| look(folder, name)).collect()
}

fn look(folder: &Path, name: String) -> Option<Left> {
    let places = Places::new(folder, &name).ok()?;
    let mount = places.mount();
    let Some(state) = places.read() else {
        return Some(Left { name, mount, limits: Limits::default(), size_bytes: 0, broken: Some("unfinished"), owner: None });
    };
    let owner_gone = state.owner.is_some_and(|(pid, at)| began(pid) != Some(at));
    let daemon_gone = !state.daemon.is_some_and(|pid| is_daemon(pid, &places));
    let broken = if owner_gone {
        Some("its owner is gone")
    } else if state.daemon.is_none() && state.owner.is_some() {
        // Its owner is still making it.
        None
    } else if daemon_gone {
        Some("its daemon is gone")
    } else if !mounted(&mount) {
        Some("not mounted")
    } else {
        None
    };
    Some(Left { name, mount, limits: state.limits, size_bytes: state.size_bytes, broken, owner: state.owner.map(|(pid, _)| pid) })
}

/// Takes down what was left by processes that are gone (with `all`, every disk) and returns the names.
///
/// # Errors
/// Something cannot be taken down; the rest is.
pub fn clean(folder: &Path, all: bool) -> Result<Vec<String>, DiskError> {
    let mut taken = Vec::new();
    let mut failed = None;
    for disk in left(folder).into_iter().filter(|disk| all || disk.broken.is_some()) {
        let places = Places::new(folder, &disk.name)?;
        match take_down(&places, places.read().and_then(|s| s.daemon), None) {
            Ok(()) => taken.push(disk.name),
            Err(error) => failed = Some(error),
        }
    }
    failed.map_or(Ok(taken), Err)
}

/// Takes a disk down: mount, loop device, daemon, the daemon's mount, folder. `child` is the daemon when this process started it.
pub(super) fn take_down(places: &Places, daemon: Option<u32>, child: Option<&mut Child>) -> Result<(), DiskError> {
    let mount = places.mount();
    if mounted(&mount) && step("umount", &[mount.as_os_str()]).is_err() {
        // Somebody still uses it, or another folder lies over one of its own: it goes away for all others now, and for them when they end.
        step("umount", &["-l".as_ref(), mount.as_os_str()])?;
    }
    for device in loop_devices(&places.export()) {
        step("losetup", &["-d".as_ref(), device.as_os_str()])?;
    }
    end_daemon(places, daemon, child);
    let export = places.export();
    if mounted(&export) {
        step("umount", &["-l".as_ref(), export.as_os_str()])?;
    }
    match fs::remove_dir_all(&places.root) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(DiskError::Step(places.root.display().to_string(), e)),
        _ => Ok(()),
    }
}

/// True when `pid` is the daemon of this very disk, and not a later process with its number.
fn is_daemon(pid: u32, places: &Places) -> bool {
    let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let command = String::from_utf8_lossy(&command);
    command.contains(DAEMON) && command.contains(&*places.export().to_string_lossy())
}

fn end_daemon(places: &Places, daemon: Option<u32>, child: Option<&mut Child>) {
    let Some(pid) = daemon else { return };
    if is_daemon(pid, places) {
        signal::send(pid, libc::SIGTERM);
    }
    if let Some(child) = child {
        // Waits, and kills what does not end.
        let _ = crate::player::wait(child, END_MAX);
        return;
    }
    let deadline = Instant::now() + END_MAX;
    while is_daemon(pid, places) {
        if Instant::now() >= deadline {
            signal::send(pid, libc::SIGKILL);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// True when something is mounted at `path`.
fn mounted(path: &Path) -> bool {
    // proc_pid_mountinfo(5): the fifth field is the mount point. Names of disks and of their folder hold no spaces that would be escaped.
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    mounts.lines().any(|line| line.split(' ').nth(4).is_some_and(|point| Path::new(point) == path))
}

/// Loop devices on the file `backing`.
fn loop_devices(backing: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir("/sys/block").into_iter().flatten().filter_map(Result::ok);
    let devices = entries.filter(|entry| {
        let file = fs::read_to_string(entry.path().join("loop/backing_file")).unwrap_or_default();
        let file = file.trim_end();
        Path::new(file.strip_suffix(" (deleted)").unwrap_or(file)) == backing
    });
    devices.map(|entry| Path::new("/dev").join(entry.file_name())).collect()
}
