//! The slow disk of the experiment: titles that nobody else has on it, and a large file, measured by `tactus probe-disk`.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::super::FiguresError;
use super::Plan;
use crate::clip::{ClipSpec, make_clips};
use crate::disk::{self, Limits, SlowDisk, Spec};
use crate::load::sys;
use crate::player;

/// The file with the best-effort stream's title.
pub const GREEDY: &str = "greedy.mp4";
const MEDIA: &str = "media";
/// A large file that is no title, beside the folder of titles.
pub const LARGE: &str = "large";
/// `tactus probe-disk` may take so long: its largest reads wait for each other on a slow disk.
const PROBE_MAX: Duration = Duration::from_secs(120);
/// A folder of titles that is on another disk.
pub const ELSEWHERE: &str = "elsewhere";
/// Bytes of one write when the large file is made.
const PIECE_BYTES: usize = 256 << 10;
/// Of the disk, what is not titles: tables of the file system.
const SPARE_BYTES: u64 = 256 << 20;

/// The disk with what is on it. Dropping it takes all of it down.
#[derive(Debug)]
pub struct Stage {
    disk: SlowDisk,
    /// What `tactus probe-disk` found.
    pub profile: PathBuf,
    /// The server has indexed the titles.
    pub indexed: bool,
}

pub(super) fn file_error(path: &Path) -> impl Fn(io::Error) -> FiguresError + '_ {
    |error| FiguresError::File(path.to_owned(), error)
}

impl Stage {
    /// Makes the disk with its titles and has it measured. `out` keeps the profile.
    ///
    /// # Errors
    /// Not root, or what failed.
    pub fn new(plan: &Plan, out: &Path) -> Result<Self, FiguresError> {
        let folder = disk::default_folder();
        disk::clean(&folder, false)?;
        let titles_bytes = plan.title_bytes() * plan.titles() as u64 + plan.greedy_bytes();
        let spec = Spec {
            name: format!("priority-{}", std::process::id()),
            size_bytes: titles_bytes + titles_bytes / 10 + plan.beside_bytes + SPARE_BYTES,
            limits: Limits { bytes_per_s: plan.disk_bytes_per_s, iops: 0 },
            folder,
        };
        eprintln!("  a disk of {} MB/s with {} titles", plan.disk_bytes_per_s as f64 / 1e6, plan.titles() + 1);
        let disk = SlowDisk::up_filled(&spec, &mut |folder| fill(plan, folder))?;
        let elsewhere = out.join(ELSEWHERE);
        fs::create_dir_all(&elsewhere).map_err(file_error(&elsewhere))?;
        disk.lay_over(&elsewhere, &format!("{MEDIA}/{ELSEWHERE}"))?;
        let stage = Self { disk, profile: out.join("priority-disk.json"), indexed: false };
        stage.probe(plan.probe_seconds)?;
        stage.forget()?;
        Ok(stage)
    }

    /// The folder of titles.
    pub fn media(&self) -> PathBuf {
        self.disk.path().join(MEDIA)
    }

    /// The folder with all of it.
    pub fn root(&self) -> PathBuf {
        self.disk.path()
    }

    /// By the program that an operator would type.
    fn probe(&self, seconds: u32) -> Result<(), FiguresError> {
        let program = crate::serve::binary_beside();
        let mut command = Command::new(&program);
        command.arg("probe-disk").arg(self.media().join(GREEDY)).args(["--seconds", &seconds.to_string(), "--write"]).arg(&self.profile);
        let failed = file_error(&program);
        let done = player::run(&mut command, PROBE_MAX).map_err(&failed)?;
        if done.ok() { Ok(()) } else { Err(failed(io::Error::other(format!("probe-disk: {}", done.stderr.trim())))) }
    }

    /// Has the page cache forget what is on the disk, so that a server that reads through it begins with nothing.
    ///
    /// # Errors
    /// A file cannot be opened.
    pub fn forget(&self) -> Result<(), FiguresError> {
        let media = self.media();
        let files = fs::read_dir(&media).map_err(file_error(&media))?.filter_map(Result::ok).map(|entry| entry.path());
        for path in files.filter(|path| path.is_file()).chain([self.root().join(LARGE)]) {
            File::open(&path).and_then(|file| sys::forget_cached(&file)).map_err(file_error(&path))?;
        }
        Ok(())
    }
}

fn fill(plan: &Plan, folder: &Path) -> io::Result<()> {
    let spec = |rate_bps| ClipSpec { rate_bps, audio_bps: 0, seconds: plan.title_seconds(), ..ClipSpec::default() };
    let media = folder.join(MEDIA);
    fs::create_dir_all(media.join(ELSEWHERE))?;
    let make = |rate_bps, count| make_clips(&spec(rate_bps), count, &media).map_err(io::Error::other);
    // Made first, since it has the name of a title of the others.
    for path in make(plan.greedy_bps, 1)? {
        fs::rename(&path, media.join(GREEDY))?;
    }
    make(plan.title_bps, plan.titles() as u32)?;
    let piece = vec![0x5au8; PIECE_BYTES];
    let mut file = File::create(folder.join(LARGE))?;
    (0..plan.beside_bytes / PIECE_BYTES as u64).try_for_each(|_| file.write_all(&piece))
}
