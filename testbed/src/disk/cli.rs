//! The `testbed disk` command.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand};

use super::{DiskError, Limits, Places, SlowDisk, Spec, State, clean, left, measure, set, takedown};

/// How long a disk is probed once it is up.
const PROBE: Duration = Duration::from_millis(1500);

/// `testbed disk`.
#[derive(Parser, Debug)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
    /// Where disks are kept; its file system must support O_DIRECT
    #[arg(long, global = true, default_value_os_t = super::default_folder())]
    folder: PathBuf,
}

#[derive(Subcommand, Debug)]
enum Action {
    /// Make a disk and mount it
    Up {
        /// Letters, digits, dashes
        name: String,
        /// Its size; the space is only used as it fills
        #[arg(long, default_value = "4G", value_parser = parse_bytes)]
        size: u64,
        /// Bytes per second, reads and writes together (0: as fast as it can)
        #[arg(long, default_value = "100M", value_parser = parse_bytes)]
        rate: u64,
        /// Operations per second (0: any)
        #[arg(long, default_value_t = 0)]
        iops: u64,
    },
    /// Change how fast a disk is, while it is used
    Set {
        /// Which disk
        name: String,
        /// Bytes per second (0: as fast as it can)
        #[arg(long, value_parser = parse_bytes)]
        rate: Option<u64>,
        /// Operations per second (0: any)
        #[arg(long)]
        iops: Option<u64>,
    },
    /// Measure how fast a disk is
    Probe {
        /// Which disk
        name: String,
        /// How long
        #[arg(long, default_value_t = 3.0)]
        seconds: f64,
    },
    /// Unmount a disk and remove it with all that is on it
    Down {
        /// Which disk
        name: String,
    },
    /// Name all disks
    List,
    /// Take down what killed processes left
    Clean {
        /// Take down every disk, also those in use
        #[arg(long)]
        all: bool,
    },
}

/// Reads an amount of bytes: `100M`, `4G` (thousands) or `64MiB`, `4GiB`.
///
/// # Errors
/// It is none; the message says how one is written.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let units = [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("k", 1_000), ("K", 1_000), ("M", 1_000_000), ("G", 1_000_000_000)];
    let (number, factor) = units.into_iter().find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, factor))).unwrap_or((text, 1u64));
    match number.trim().parse::<f64>() {
        Ok(value) if value.is_finite() && (0.0..=1e15).contains(&(value * factor as f64)) => Ok((value * factor as f64).round() as u64),
        _ => Err(format!("'{text}' is no amount of bytes: write for instance 100M, 4G or 64MiB")),
    }
}

fn limits_text(limits: Limits) -> String {
    let rate = if limits.bytes_per_s == 0 { "any rate".to_owned() } else { format!("{:.1} MB/s", limits.bytes_per_s as f64 / 1e6) };
    if limits.iops == 0 { rate } else { format!("{rate}, {} operations/s", limits.iops) }
}

/// Runs `testbed disk`.
///
/// # Errors
/// It cannot be done; the message says why.
pub fn run(args: &Args) -> Result<(), DiskError> {
    let known = |name: &str| -> Result<(Places, State), DiskError> {
        let places = Places::new(&args.folder, name)?;
        let state = places.read().ok_or_else(|| DiskError::Missing(name.to_owned(), args.folder.clone()))?;
        Ok((places, state))
    };
    match &args.action {
        Action::Up { name, size, rate, iops } => {
            let limits = Limits { bytes_per_s: *rate, iops: *iops };
            let spec = Spec { name: name.clone(), size_bytes: *size, limits, folder: args.folder.clone() };
            let disk = SlowDisk::make(&spec, None, None)?;
            println!("asked for: {}", limits_text(limits));
            println!("measured:  {}", disk.probe(PROBE)?);
            println!("mounted:   {}", disk.keep().display());
        }
        Action::Set { name, rate, iops } => {
            let (places, mut state) = known(name)?;
            let limits = Limits { bytes_per_s: rate.unwrap_or(state.limits.bytes_per_s), iops: iops.unwrap_or(state.limits.iops) };
            set(&places, &mut state, limits)?;
            println!("asked for: {}", limits_text(limits));
            println!("measured:  {}", measure(&state, PROBE)?);
        }
        Action::Probe { name, seconds } => {
            let (_, state) = known(name)?;
            println!("{}", measure(&state, Duration::from_secs_f64(seconds.clamp(0.1, 3600.0)))?);
        }
        Action::Down { name } => {
            let (places, state) = known(name)?;
            takedown::take_down(&places, state.daemon, None)?;
        }
        Action::List => {
            for disk in left(&args.folder) {
                let owner = disk.owner.map_or("stays".to_owned(), |pid| format!("of process {pid}"));
                let (size, state) = (disk.size_bytes >> 20, disk.broken.unwrap_or("works"));
                println!("{:<16} {size:>8} MiB  {}  {owner}  {state}  {}", disk.name, limits_text(disk.limits), disk.mount.display());
            }
        }
        Action::Clean { all } => {
            for name in clean(&args.folder, *all)? {
                println!("taken down: {name}");
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_of_bytes_are_read() {
        for (text, bytes) in [("100M", 100_000_000), ("4G", 4_000_000_000), ("64MiB", 64 << 20), ("1.5k", 1_500), ("7", 7), ("0", 0)] {
            assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
        }
        for text in ["", "M", "-1M", "1T", "infG", "1e300"] {
            assert!(parse_bytes(text).is_err(), "{text}");
        }
    }

    #[test]
    fn names_stay_in_the_folder() {
        let folder = std::path::Path::new("/x");
        for name in ["", "..", "a/b", "a b", &"a".repeat(33)] {
            assert!(Places::new(folder, name).is_err(), "{name}");
        }
        assert!(Places::new(folder, "disk-1").is_ok());
    }
}
