//! `testbed disk`: a disk that is slow on purpose, so that disk overload comes when an experiment wants it. No kernel module is needed:
//!
//! ```text
//! mnt (ext4, no journal) ─► loop device, direct I/O ─► export (a file, FUSE) ─► qemu-storage-daemon: throttle group ─► backing file
//!                                                                                     ▲ QMP: the rate changes while it works
//! ```
//!
//! Everything of a disk lies in one folder with its name (`/var/tmp/testbed-disks/NAME`), so that what a killed process left can be found
//! and taken down: [`clean`]. What is to be on it is best put there by [`SlowDisk::up_filled`], before the throttle: QEMU before 10.1 takes
//! the next request into the buffer of a write that is still under way, so a disk that is written and used at the same time loses data.
//!
//! A disk made by [`SlowDisk::up`] belongs to that process and goes with it; one made by `testbed disk up` stays
//! until `testbed disk down`. It needs root, for the mounts and the loop device.

mod cli;
pub mod probe;
pub mod qmp;
mod takedown;

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::load::sys;
use crate::player;
pub use cli::{Args, run};
use probe::Probe;
use qmp::Monitor;
pub use takedown::{Left, clean, left};

/// The daemon.
const DAEMON: &str = "qemu-storage-daemon";
/// It may take so long until it serves.
const READY_MAX: Duration = Duration::from_secs(10);
/// Any other program may take so long.
const STEP_MAX: Duration = Duration::from_secs(60);
/// A file system is not worth making below this.
const SIZE_MIN: u64 = 8 << 20;

/// Where disks are kept unless said otherwise.
pub fn default_folder() -> PathBuf {
    PathBuf::from("/var/tmp/testbed-disks")
}

/// How fast a disk may be; 0 is as fast as it can.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Bytes per second, reads and writes together.
    pub bytes_per_s: u64,
    /// Operations per second, reads and writes together.
    pub iops: u64,
}

/// What a disk is to be.
#[derive(Clone, Debug)]
pub struct Spec {
    /// Its name: letters, digits and dashes.
    pub name: String,
    /// Bytes; rounded up to a mebibyte. The backing file is sparse.
    pub size_bytes: u64,
    /// How fast it may be.
    pub limits: Limits,
    /// Where disks are kept. The file system there must support O_DIRECT.
    pub folder: PathBuf,
}

/// Why there is no such disk.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// Not root.
    #[error("a slow disk needs root (it mounts file systems): run this as root")]
    Root,
    /// A name that cannot be one of a folder, or a size too small.
    #[error("{0}")]
    Spec(String),
    /// It is there already.
    #[error("there is a disk {0} already: take it down first (testbed disk down {0})")]
    Exists(String),
    /// It is not there.
    #[error("there is no disk {0} in {1}")]
    Missing(String, PathBuf),
    /// A program that is needed is not installed.
    #[error("{0} is not installed: install {1}")]
    Program(&'static str, &'static str),
    /// A step did not work.
    #[error("{0}: {1}")]
    Step(String, io::Error),
}

/// What a disk's folder says about it.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct State {
    size_bytes: u64,
    limits: Limits,
    /// The process that it belongs to and that process's start time; `None` when it stays until taken down.
    owner: Option<(u32, u64)>,
    /// The daemon.
    daemon: Option<u32>,
    /// The loop device.
    device: Option<PathBuf>,
}

/// Puts things into a folder.
pub type Fill<'a> = dyn FnMut(&Path) -> io::Result<()> + 'a;

/// Places in a disk's folder.
#[derive(Clone, Debug)]
struct Places {
    root: PathBuf,
}

impl Places {
    fn new(folder: &Path, name: &str) -> Result<Self, DiskError> {
        let good = !name.is_empty() && name.len() <= 32 && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        if !good {
            return Err(DiskError::Spec(format!("'{name}' is no name for a disk: up to 32 letters, digits and dashes")));
        }
        // As the kernel's tables of mounts and loop devices name it.
        let folder = fs::canonicalize(folder).unwrap_or_else(|_| folder.to_owned());
        Ok(Self { root: folder.join(name) })
    }

    fn backing(&self) -> PathBuf {
        self.root.join("backing.raw")
    }

    fn export(&self) -> PathBuf {
        self.root.join("export")
    }

    fn mount(&self) -> PathBuf {
        self.root.join("mnt")
    }

    fn monitor(&self) -> PathBuf {
        self.root.join("qmp.sock")
    }

    fn log(&self) -> PathBuf {
        self.root.join("daemon.log")
    }

    fn state_file(&self) -> PathBuf {
        self.root.join("state.json")
    }

    fn write(&self, state: &State) -> Result<(), DiskError> {
        let path = self.state_file();
        let text = serde_json::to_string_pretty(state).map_err(io::Error::other);
        text.and_then(|text| fs::write(&path, text)).map_err(|e| DiskError::Step(path.display().to_string(), e))
    }

    fn read(&self) -> Option<State> {
        serde_json::from_str(&fs::read_to_string(self.state_file()).ok()?).ok()
    }
}

/// Runs a step's program; its output is in the error.
fn step(program: &str, arguments: &[&std::ffi::OsStr]) -> Result<String, DiskError> {
    let mut command = Command::new(program);
    command.args(arguments);
    let failed = |e| DiskError::Step(format!("{command:?}"), e);
    let done = player::run(Command::new(program).args(arguments), STEP_MAX).map_err(failed)?;
    if done.ok() { Ok(done.stdout_text()) } else { Err(failed(io::Error::other(format!("{}: {}", done.status, done.stderr.trim())))) }
}

/// When a process began, in ticks since the machine did; `None` when there is none of this id.
fn began(pid: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // proc(5): field 22; the name in parentheses is the second.
    text.rsplit_once(')')?.1.split_ascii_whitespace().nth(19)?.parse().ok()
}

fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}

fn check(spec: &Spec) -> Result<(), DiskError> {
    if spec.size_bytes < SIZE_MIN {
        return Err(DiskError::Spec(format!("a disk has at least {SIZE_MIN} bytes")));
    }
    if !is_root() {
        return Err(DiskError::Root);
    }
    for (program, package) in [(DAEMON, "qemu-utils or qemu-system-common"), ("mkfs.ext4", "e2fsprogs"), ("losetup", "mount")] {
        let anywhere = ["/usr/sbin", "/sbin"].iter().any(|folder| Path::new(folder).join(program).is_file());
        if !anywhere && !player::have(program) {
            return Err(DiskError::Program(program, package));
        }
    }
    Ok(())
}

/// A slow disk of this process. Dropping it takes it down; when the process is killed the daemon dies with it, and [`clean`] takes down
/// the rest. The daemon also ends with the thread that made the disk.
#[derive(Debug)]
pub struct SlowDisk {
    places: Places,
    state: State,
    daemon: Option<Child>,
}

impl SlowDisk {
    /// Makes the disk, with an empty file system.
    ///
    /// # Errors
    /// Not root, a program is missing, or a step fails; nothing is left then.
    pub fn up(spec: &Spec) -> Result<Self, DiskError> {
        Self::make(spec, Self::this_process(), None)
    }

    /// Makes the disk with what `fill` puts into the folder that it is given, at full speed. It can only be read then.
    ///
    /// # Errors
    /// As of [`SlowDisk::up`], or of `fill`.
    pub fn up_filled(spec: &Spec, fill: &mut Fill<'_>) -> Result<Self, DiskError> {
        Self::make(spec, Self::this_process(), Some(fill))
    }

    fn this_process() -> Option<(u32, u64)> {
        let own = std::process::id();
        began(own).map(|at| (own, at))
    }

    fn make(spec: &Spec, owner: Option<(u32, u64)>, fill: Option<&mut Fill<'_>>) -> Result<Self, DiskError> {
        check(spec)?;
        fs::create_dir_all(&spec.folder).map_err(|e| DiskError::Step(spec.folder.display().to_string(), e))?;
        let places = Places::new(&spec.folder, &spec.name)?;
        let failed = |e| DiskError::Step(places.root.display().to_string(), e);
        match fs::create_dir(&places.root) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => return Err(DiskError::Exists(spec.name.clone())),
            other => other.map_err(failed)?,
        }
        let size_bytes = spec.size_bytes.next_multiple_of(1 << 20);
        let state = State { size_bytes, limits: spec.limits, owner, daemon: None, device: None };
        // From here on a failure takes down what is there, through Drop.
        let mut disk = Self { places, state, daemon: None };
        disk.places.write(&disk.state)?;
        disk.make_file_system()?;
        let access = if fill.is_some() { "ro,noatime" } else { "noatime" };
        if let Some(fill) = fill {
            disk.fill(fill)?;
        }
        disk.start_daemon()?;
        disk.attach(access)?;
        Ok(disk)
    }

    /// Mounts the backing file itself, without the daemon.
    fn fill(&self, fill: &mut Fill<'_>) -> Result<(), DiskError> {
        let (backing, mount) = (self.places.backing(), self.places.mount());
        let failed = |e| DiskError::Step(mount.display().to_string(), e);
        fs::create_dir(&mount).map_err(failed)?;
        let options = ["-t", "ext4", "-o", "loop,noatime"].map(std::ffi::OsStr::new);
        step("mount", &[&options[..], &[backing.as_os_str(), mount.as_os_str()]].concat())?;
        let filled = fill(&mount).map_err(failed);
        step("umount", &[mount.as_os_str()])?;
        filled?;
        // The daemon reads past the page cache.
        File::open(&backing).and_then(|file| file.sync_all()).map_err(failed)
    }

    /// Straight on the backing file: making it through the throttle would take its time. Without a journal and with its tables written
    /// now, nothing but the experiment uses the disk.
    fn make_file_system(&self) -> Result<(), DiskError> {
        let backing = self.places.backing();
        let made = File::create(&backing).and_then(|file| file.set_len(self.state.size_bytes));
        made.map_err(|e| DiskError::Step(backing.display().to_string(), e))?;
        let options = ["-q", "-F", "-O", "^has_journal", "-E", "nodiscard,lazy_itable_init=0", "-T", "largefile"];
        let mut arguments: Vec<&std::ffi::OsStr> = options.iter().map(std::ffi::OsStr::new).collect();
        arguments.push(backing.as_os_str());
        step("mkfs.ext4", &arguments).map(drop)
    }

    fn start_daemon(&mut self) -> Result<(), DiskError> {
        let Places { root } = &self.places;
        let failed = |e| DiskError::Step(format!("{DAEMON} ({})", root.display()), e);
        File::create(self.places.export()).map_err(failed)?;
        let log = File::create(self.places.log()).map_err(failed)?;
        let objects = [
            ("--object", json!({"qom-type": "throttle-group", "id": "limits", "limits": qemu_limits(self.state.limits)})),
            // Past the page cache: what is throttled must not be answered from memory twice.
            (
                "--blockdev",
                json!({"driver": "file", "node-name": "file", "filename": self.places.backing(), "cache": {"direct": true},
                       "discard": "unmap"}),
            ),
            ("--blockdev", json!({"driver": "raw", "node-name": "raw", "file": "file"})),
            ("--blockdev", json!({"driver": "throttle", "node-name": "slow", "throttle-group": "limits", "file": "raw"})),
            (
                "--export",
                json!({"type": "fuse", "id": "export", "node-name": "slow", "mountpoint": self.places.export(), "writable": true}),
            ),
            ("--monitor", json!({"chardev": "qmp"})),
        ];
        let mut command = Command::new(DAEMON);
        for (option, value) in objects {
            if option == "--monitor" {
                // The one option that does not take JSON.
                command.arg("--chardev").arg(format!("socket,id=qmp,server=on,wait=off,path={}", self.places.monitor().display()));
            }
            command.arg(option).arg(value.to_string());
        }
        let log_too = log.try_clone().map_err(failed)?;
        // A group of its own: Ctrl-C in a terminal is for the experiment, which takes the disk down itself.
        command.stdin(Stdio::null()).stdout(log_too).stderr(log).process_group(0);
        if self.state.owner.is_some() {
            sys::end_with_parent(&mut command);
        }
        let child = command.spawn().map_err(failed)?;
        self.state.daemon = Some(child.id());
        self.daemon = Some(child);
        self.places.write(&self.state)?;
        self.wait_until_ready().map_err(|e| {
            let said = fs::read_to_string(self.places.log()).unwrap_or_default();
            DiskError::Step(DAEMON.to_owned(), io::Error::other(format!("{e}; it said: {}", said.trim())))
        })
    }

    fn wait_until_ready(&mut self) -> io::Result<()> {
        let deadline = Instant::now() + READY_MAX;
        loop {
            // The monitor is the last thing that the daemon opens.
            match Monitor::connect(&self.places.monitor()) {
                Ok(_) => return Ok(()),
                Err(e) if Instant::now() >= deadline => return Err(e),
                Err(_) => {}
            }
            if let Some(status) = self.daemon.as_mut().map(Child::try_wait).transpose()?.flatten() {
                return Err(io::Error::other(format!("it ended: {status}")));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn attach(&mut self, access: &str) -> Result<(), DiskError> {
        let (export, mount) = (self.places.export(), self.places.mount());
        let failed = |e| DiskError::Step(mount.display().to_string(), e);
        let options = ["--direct-io=on", "--find", "--show"].map(std::ffi::OsStr::new);
        let said = step("losetup", &[&options[..], &[export.as_os_str()]].concat())?;
        let device = PathBuf::from(said.trim());
        self.state.device = Some(device.clone());
        self.places.write(&self.state)?;
        fs::create_dir_all(&mount).map_err(failed)?;
        let options = ["-t", "ext4", "-o", access].map(std::ffi::OsStr::new);
        step("mount", &[&options[..], &[device.as_os_str(), mount.as_os_str()]].concat())?;
        if access.starts_with("ro") {
            return Ok(());
        }
        // Experiments may run without privileges.
        fs::set_permissions(&mount, fs::Permissions::from_mode(0o777)).map_err(failed)
    }

    /// Where its file system is mounted.
    pub fn path(&self) -> PathBuf {
        self.places.mount()
    }

    /// Has another `folder`, from a disk that is as fast as it is, appear in place of the disk's own folder `place`, as long as the disk is
    /// there.
    ///
    /// # Errors
    /// It cannot be mounted.
    pub fn lay_over(&self, folder: &Path, place: &str) -> Result<(), DiskError> {
        step("mount", &["--bind".as_ref(), folder.as_os_str(), self.path().join(place).as_os_str()]).map(drop)
    }

    /// How fast it may be.
    pub fn limits(&self) -> Limits {
        self.state.limits
    }

    /// Changes how fast it may be, at once.
    ///
    /// # Errors
    /// The daemon does not answer.
    pub fn set(&mut self, limits: Limits) -> Result<(), DiskError> {
        set(&self.places, &mut self.state, limits)
    }

    /// Measures how fast it is.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn probe(&self, duration: Duration) -> Result<Probe, DiskError> {
        measure(&self.state, duration)
    }

    /// Lets it stay after this process.
    fn keep(mut self) -> PathBuf {
        self.daemon = None;
        let path = self.path();
        std::mem::forget(self);
        path
    }
}

impl Drop for SlowDisk {
    fn drop(&mut self) {
        let taken = takedown::take_down(&self.places, self.state.daemon, self.daemon.as_mut());
        if let Err(error) = taken {
            eprintln!("testbed disk: {error}; `testbed disk clean` tries again");
        }
    }
}

fn qemu_limits(limits: Limits) -> serde_json::Value {
    json!({"bps-total": limits.bytes_per_s, "iops-total": limits.iops})
}

fn set(places: &Places, state: &mut State, limits: Limits) -> Result<(), DiskError> {
    let arguments = json!({"path": "/objects/limits", "property": "limits", "value": qemu_limits(limits)});
    let done = Monitor::connect(&places.monitor()).and_then(|mut monitor| monitor.execute("qom-set", &arguments));
    done.map_err(|e| DiskError::Step(format!("{DAEMON} ({})", places.root.display()), e))?;
    state.limits = limits;
    places.write(state)
}

fn measure(state: &State, duration: Duration) -> Result<Probe, DiskError> {
    let device = state.device.clone().unwrap_or_default();
    probe::probe(&device, state.size_bytes, duration).map_err(|e| DiskError::Step(format!("read {}", device.display()), e))
}
