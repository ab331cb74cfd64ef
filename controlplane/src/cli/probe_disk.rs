//! `tactus probe-disk`: measures what a disk can do and keeps it for `tactus serve`.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use dataplane::disks::probe::{ProbePlan, Probed, probe};

use super::{Failure, print, printable};
use crate::config::Config;
use crate::local::{KnownDisk, KnownDisks};
use crate::units::about_bytes;

/// Files looked at for a large one.
const FILES_MAX: usize = 100_000;

/// Arguments of `tactus probe-disk`.
#[derive(Debug, clap::Args)]
pub(super) struct ProbeDiskArgs {
    /// A large file on the disk, or a folder with such files
    #[arg(value_name = "PATH")]
    path: PathBuf,
    /// Seconds that the measurement takes
    #[arg(long, value_name = "S", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=3600))]
    seconds: u32,
    /// Keep the profile in this file; without this, where `tactus serve` looks for it
    #[arg(long, value_name = "FILE")]
    write: Option<PathBuf>,
    /// Only measure, keep nothing
    #[arg(long)]
    dry_run: bool,
    /// Print JSON: the profile as it is kept
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub(super) fn run(args: &ProbeDiskArgs) -> Result<(), Failure> {
    let broke = |why: String| Failure::Runtime(why);
    let file = large_file(&args.path).ok_or_else(|| broke(format!("there is no file to read in {}", args.path.display())))?;
    let mut plan = ProbePlan::thorough(Duration::ZERO);
    let steps = u32::try_from(plan.sizes.len() * plan.depths.len()).unwrap_or(u32::MAX);
    plan.each = Duration::from_secs(args.seconds.into()) / steps.max(1);
    let probed = probe(&file, &plan).map_err(|error| broke(error.to_string()))?;
    let known = KnownDisk { device: probed.device, how: probed.how.clone(), profile: probed.profile.clone() };
    if args.json {
        let json = serde_json::to_string_pretty(&known).map_err(|error| broke(error.to_string()))?;
        print(&(json + "\n"));
    } else {
        print(&table(&file, &probed));
    }
    if args.dry_run {
        return Ok(());
    }
    let place = args.write.clone().or_else(|| Config::default().disk_profiles(|name| std::env::var(name).ok()));
    let place = place.ok_or_else(|| broke("there is no folder to keep the profile in: name a file with --write".into()))?;
    let mut all = KnownDisks::read(&place).map_err(broke)?;
    all.put(known);
    all.write(&place).map_err(broke)?;
    eprintln!("kept in {}", place.display());
    Ok(())
}

/// The file itself, or the largest in the folder and those below it.
fn large_file(path: &Path) -> Option<PathBuf> {
    if path.is_file() {
        return Some(path.to_owned());
    }
    let (mut folders, mut best, mut seen) = (vec![path.to_owned()], None, 0);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            seen += 1;
            let Some(metadata) = entry.metadata().ok().filter(|_| seen <= FILES_MAX) else { continue };
            if metadata.is_dir() {
                folders.push(entry.path());
            } else if metadata.is_file() && best.as_ref().is_none_or(|&(bytes, _)| metadata.len() > bytes) {
                best = Some((metadata.len(), entry.path()));
            }
        }
    }
    best.map(|(_, path)| path)
}

fn table(file: &Path, probed: &Probed) -> String {
    let mut out = format!("{}: device {}, read by {}\n", printable(&file.display().to_string()), probed.device, probed.how);
    if !probed.is_direct {
        out += "  reads go through the page cache: what was measured is memory, at least in part\n";
    }
    out += "  READ      DEPTH   MB/S     P50 MS   P99 MS\n";
    for point in &probed.profile.points {
        let ms = |ns: u64| ns as f64 / 1e6;
        let (size, rate) = (about_bytes(point.bytes.into()), point.bytes_per_s as f64 / 1e6);
        let (p50, p99) = (ms(point.latency_p50_ns), ms(point.latency_p99_ns));
        let _ = writeln!(out, "  {size:<9} {:>5} {rate:>7.1} {p50:>9.3} {p99:>9.3}", point.depth);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_file_is_found_and_what_was_measured_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("a")).unwrap();
        std::fs::write(folder.path().join("small"), [0; 10]).unwrap();
        std::fs::write(folder.path().join("a/large"), vec![0; 100 << 10]).unwrap();
        assert_eq!(large_file(folder.path()), Some(folder.path().join("a/large")));
        assert_eq!(large_file(&folder.path().join("none")), None);
        let kept = folder.path().join("kept.json");
        let args = ProbeDiskArgs { path: folder.path().to_owned(), seconds: 1, write: Some(kept.clone()), dry_run: false, json: false };
        run(&args).unwrap();
        let known = KnownDisks::read(&kept).unwrap();
        assert_eq!((known.disks.len(), known.disks[0].profile.points.len()), (1, 15));
    }
}
