//! Slow disks: that they are slow, that they are disks, and that nothing stays of them, whoever is killed. Needs root.

use std::io::{BufRead as _, BufReader, Read as _, Seek as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use testbed::disk::{DiskError, Limits, SlowDisk, Spec, clean, left};

/// Where the process started by a test keeps its disk.
const OWNER_FOLDER: &str = "TESTBED_DISK_OWNER_FOLDER";

/// True when the test can run. In CI a skip is a failure.
fn can_run() -> bool {
    let root = std::fs::metadata("/proc/self").unwrap().uid() == 0;
    let able = root && Path::new("/dev/fuse").exists() && testbed::player::have("qemu-storage-daemon");
    if !able {
        assert!(std::env::var("CI").is_err(), "CI must run everything");
        eprintln!("SKIPPED (needs root): slow disks also need /dev/fuse and qemu-storage-daemon");
    }
    able
}

fn spec(folder: &Path, bytes_per_s: u64) -> Spec {
    Spec { name: "d".into(), size_bytes: 64 << 20, limits: Limits { bytes_per_s, iops: 0 }, folder: folder.to_owned() }
}

/// A folder on a real disk: what is in memory (tmpfs) has no O_DIRECT.
fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

/// Mounts and loop devices that name the folder.
fn traces(folder: &Path) -> Vec<String> {
    let folder = folder.to_str().unwrap();
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let mut found: Vec<String> = mounts.lines().filter(|line| line.contains(folder)).map(str::to_owned).collect();
    for entry in std::fs::read_dir("/sys/block").unwrap() {
        let backing = std::fs::read_to_string(entry.unwrap().path().join("loop/backing_file")).unwrap_or_default();
        found.extend(backing.contains(folder).then_some(backing));
    }
    for entry in std::fs::read_dir("/proc").unwrap() {
        let command = std::fs::read(entry.unwrap().path().join("cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        found.extend((command.contains(folder) && command.starts_with("qemu-storage-daemon")).then_some(command));
    }
    found
}

#[test]
fn a_slow_disk_is_a_disk_as_slow_as_it_is_told() {
    if !can_run() {
        return;
    }
    let folder = folder();
    let mut disk = SlowDisk::up(&spec(folder.path(), 40_000_000)).unwrap();
    assert!(matches!(SlowDisk::up(&spec(folder.path(), 0)), Err(DiskError::Exists(_))));
    // A file system that takes O_DIRECT.
    let path = disk.path().join("file");
    std::fs::write(&path, [7u8; 65_536]).unwrap();
    let mut file = std::fs::OpenOptions::new().read(true).custom_flags(libc::O_DIRECT).open(&path).unwrap();
    let mut memory = vec![0u8; 16_384];
    let shift = memory.as_ptr().align_offset(4_096);
    file.seek(std::io::SeekFrom::Start(8_192)).unwrap();
    file.read_exact(&mut memory[shift..shift + 4_096]).unwrap();
    assert!(memory[shift..shift + 4_096].iter().all(|&b| b == 7));
    drop(file);
    // Whatever else the machine does can only make it slower. The throttle lets a tenth of a second through at once.
    let probe = disk.probe(Duration::from_secs(1)).unwrap();
    assert!(probe.reads > 10 && probe.bytes_per_s < 40e6 * 1.25, "{probe}");
    disk.set(Limits { bytes_per_s: 10_000_000, iops: 0 }).unwrap();
    let slower = disk.probe(Duration::from_secs(2)).unwrap();
    assert!(slower.reads > 5 && slower.bytes_per_s < 10e6 * 1.5, "{slower}");
    disk.set(Limits { bytes_per_s: 0, iops: 50 }).unwrap();
    let few = disk.probe(Duration::from_secs(1)).unwrap();
    assert!(few.reads < 80, "{few}");
    disk.set(Limits::default()).unwrap();
    let found = left(folder.path());
    assert_eq!((found.len(), found[0].broken, found[0].owner), (1, None, Some(std::process::id())));
    assert!(clean(folder.path(), false).unwrap().is_empty(), "a disk in use is left alone");
    drop(disk);
    assert_eq!((traces(folder.path()), left(folder.path()).len()), (Vec::new(), 0));
}

#[test]
fn a_disk_is_filled_before_it_is_slow() {
    if !can_run() {
        return;
    }
    let folder = folder();
    let bytes = |n: u8| -> Vec<u8> { (0..3_000_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8 ^ n).collect() };
    let disk = SlowDisk::up_filled(&spec(folder.path(), 10_000_000), &mut |inside| {
        let found = left(folder.path());
        assert_eq!((found.len(), found[0].broken), (1, None), "a disk that is being made is left alone");
        std::fs::create_dir(inside.join("sub"))?;
        (0..8).try_for_each(|n| std::fs::write(inside.join(format!("sub/{n}")), bytes(n)))
    })
    .unwrap();
    for n in 0..8 {
        assert!(std::fs::read(disk.path().join(format!("sub/{n}"))).unwrap() == bytes(n), "file {n}");
    }
    assert!(std::fs::write(disk.path().join("more"), [0]).is_err(), "it can only be read");
    drop(disk);
    let full = SlowDisk::up_filled(&spec(folder.path(), 0), &mut |_| Err(std::io::Error::other("no such titles")));
    assert!(full.unwrap_err().to_string().contains("no such titles"));
    assert_eq!((traces(folder.path()), left(folder.path()).len()), (Vec::new(), 0));
}

#[test]
fn a_disk_whose_daemon_was_killed_is_cleaned() {
    if !can_run() {
        return;
    }
    let folder = folder();
    let binary = env!("CARGO_BIN_EXE_testbed");
    let testbed = |arguments: &[&str]| {
        let done = Command::new(binary).arg("disk").args(arguments).arg("--folder").arg(folder.path()).output().unwrap();
        (done.status.success(), String::from_utf8_lossy(&done.stdout).into_owned())
    };
    let (up, said) = testbed(&["up", "d", "--size", "64M", "--rate", "50M"]);
    assert!(up && said.contains("mounted:"), "{said}");
    // It stays after the command that made it, and somebody uses it.
    let state = std::fs::read_to_string(folder.path().join("d/state.json")).unwrap();
    let state: serde_json::Value = serde_json::from_str(&state).unwrap();
    let mut used = std::fs::File::create(folder.path().join("d/mnt/used")).unwrap();
    assert!(testbed(&["list"]).1.contains("works"));
    assert!(testbed(&["set", "d", "--rate", "20M"]).0);
    testbed::player::signal::send(state["daemon"].as_u64().unwrap() as u32, libc::SIGKILL);
    while testbed(&["list"]).1.contains("works") {
        std::thread::sleep(Duration::from_millis(20));
    }
    let (cleaned, said) = testbed(&["clean"]);
    assert!(cleaned && said.contains("taken down: d"), "{said}");
    // May fail or not: the disk is gone.
    let _ = used.write_all(b"x");
    drop(used);
    assert_eq!(testbed(&["list"]).1, "");
    assert!(!testbed(&["down", "d"]).0);
    // The loop device goes with its last user.
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while !traces(folder.path()).is_empty() && std::time::Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(traces(folder.path()), Vec::<String>::new());
}

#[test]
#[ignore = "the body of a process that another test starts and kills"]
fn owner() {
    let Some(folder) = std::env::var_os(OWNER_FOLDER) else { return };
    let disk = SlowDisk::up(&spec(Path::new(&folder), 0)).unwrap();
    println!("up at {}", disk.path().display());
    std::thread::sleep(Duration::from_secs(120));
}

#[test]
fn what_a_killed_owner_left_is_cleaned() {
    if !can_run() {
        return;
    }
    let folder = folder();
    let mut owner = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "owner", "--ignored", "--nocapture"])
        .env(OWNER_FOLDER, folder.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let said = BufReader::new(owner.stdout.take().unwrap()).lines().map_while(Result::ok).find(|line| line.contains("up at"));
    assert!(said.is_some(), "the owner has its disk");
    owner.kill().unwrap();
    owner.wait().unwrap();
    let broken: Vec<_> = left(folder.path()).into_iter().filter_map(|disk| disk.broken).collect();
    assert_eq!(broken, ["its owner is gone"]);
    assert_eq!(clean(folder.path(), false).unwrap(), ["d"]);
    assert_eq!((traces(folder.path()), left(folder.path()).len()), (Vec::new(), 0));
}
