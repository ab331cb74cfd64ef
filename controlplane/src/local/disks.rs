//! What is promised of each disk, over all engine cores, and the profiles that it is reckoned by.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dataplane::disks::probe::{ProbePlan, probe};
use pacing::disk::{DiskBudget, DiskProfile, Reads};
use serde::{Deserialize, Serialize};

use crate::engine::{DiskStatus, EngineError};

/// Of a brief measurement, what is believed, per mille: it may have met the disk at a good moment.
const BRIEF_BELIEVED_PERMILLE: u64 = 700;

/// The profiles that were measured, as they are kept in a file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownDisks {
    /// One for each disk.
    pub disks: Vec<KnownDisk>,
}

/// A disk that was measured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownDisk {
    /// Device number of the file system (`st_dev`).
    pub device: u64,
    /// How it was read.
    pub how: String,
    /// What was found.
    pub profile: DiskProfile,
}

impl KnownDisks {
    /// Reads the file; without one nothing is known. Profiles that cannot be true are left out.
    ///
    /// # Errors
    /// A sentence: the file is there and cannot be read, or is something else.
    pub fn read(path: &Path) -> Result<Self, String> {
        let text = match std::fs::read(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(format!("{}: {error}", path.display())),
        };
        let mut known: Self = serde_json::from_slice(&text).map_err(|error| format!("{}: {error}", path.display()))?;
        known.disks.retain(|disk| disk.profile.clone().checked().is_some());
        Ok(known)
    }

    /// Adds a disk, in place of what was known of it.
    pub fn put(&mut self, disk: KnownDisk) {
        self.disks.retain(|known| known.device != disk.device);
        self.disks.push(disk);
    }

    /// Writes the file, whole or not at all.
    ///
    /// # Errors
    /// A sentence.
    pub fn write(&self, path: &Path) -> Result<(), String> {
        let text = serde_json::to_string_pretty(self).map_err(|error| error.to_string())?;
        let part = path.with_extension("part");
        let write = || {
            path.parent().map_or(Ok(()), std::fs::create_dir_all)?;
            std::fs::write(&part, text + "\n")?;
            std::fs::rename(&part, path)
        };
        write().map_err(|error| format!("{}: {error}", path.display()))
    }
}

/// How disks are promised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskRules {
    /// Of each cycle, what may be promised to guaranteed sessions, per mille; 0: nobody is refused, and nothing is sure.
    pub share_permille: u64,
    /// File with the profiles that `tactus probe-disk` measured.
    pub profiles: Option<PathBuf>,
    /// Length of a cycle, nanoseconds.
    pub cycle_ns: u64,
    /// Bytes of a read.
    pub read_bytes: u32,
    /// Reads under way on one disk at most.
    pub depth_max: u16,
}

struct Ledger {
    budget: DiskBudget,
    source: &'static str,
    /// Whoever does not fit is refused: only by figures that were measured in earnest. A guess would turn viewers away for nothing.
    refuses: bool,
}

/// The promises of all disks.
pub(super) struct Disks {
    rules: DiskRules,
    known: KnownDisks,
    ledgers: Mutex<HashMap<u64, Ledger>>,
}

/// A session's share of a disk; given back when dropped.
pub(super) struct DiskShare {
    disks: Arc<Disks>,
    device: u64,
    reads: Reads,
}

impl Drop for DiskShare {
    fn drop(&mut self) {
        if let Some(ledger) = self.disks.ledgers().get_mut(&self.device) {
            ledger.budget.release(self.reads);
        }
    }
}

impl Disks {
    pub(super) fn new(rules: DiskRules) -> Result<Self, String> {
        let known = rules.profiles.as_deref().map_or_else(|| Ok(KnownDisks::default()), KnownDisks::read)?;
        Ok(Self { rules, known, ledgers: Mutex::default() })
    }

    /// Finds out what the disk of the file at `path` can do, if guarantees are to be given. Blocks for a moment.
    pub(super) fn meet(&self, path: &Path) {
        use std::os::unix::fs::MetadataExt as _;
        if let Some(metadata) = std::fs::metadata(path).ok().filter(|_| self.rules.share_permille > 0) {
            self.ledgers().entry(metadata.dev()).or_insert_with(|| self.open(metadata.dev(), path));
        }
    }

    /// Promises a session of a title in the file at `path`, on this device, `blocks` reads in any window of `window_ns`. Blocks for a
    /// moment when nothing is known of the device: it is measured.
    pub(super) fn reserve(
        self: &Arc<Self>,
        device: u64,
        path: &Path,
        blocks: u64,
        window_ns: u64,
    ) -> Result<Option<DiskShare>, EngineError> {
        if self.rules.share_permille == 0 {
            return Ok(None);
        }
        let reads = Reads::of(blocks, window_ns, self.rules.cycle_ns);
        let mut ledgers = self.ledgers();
        let ledger = ledgers.entry(device).or_insert_with(|| self.open(device, path));
        if !ledger.refuses {
            return Ok(None);
        }
        ledger.budget.reserve(reads).map_err(|refused| EngineError::Capacity(format!("{refused} (--disk-share)")))?;
        drop(ledgers);
        Ok(Some(DiskShare { disks: Arc::clone(self), device, reads }))
    }

    /// Corrects what is reckoned with by what an engine core observed.
    pub(super) fn observe(&self, device: u64, read_ns: u64) {
        if let Some(ledger) = self.ledgers().get_mut(&device).filter(|_| read_ns > 0) {
            ledger.budget.observe(read_ns);
        }
    }

    /// What is promised of each disk.
    pub(super) fn status(&self) -> Vec<DiskStatus> {
        let ledgers = self.ledgers();
        let status = |(&device, ledger): (&u64, &Ledger)| DiskStatus {
            device,
            profile: ledger.source.to_owned(),
            promised: ledger.budget.promised_permille() as f64 / 1000.0,
            share: self.rules.share_permille as f64 / 1000.0,
            read_us: ledger.budget.read_ns() / 1000,
        };
        let mut all: Vec<_> = ledgers.iter().map(status).collect();
        all.sort_unstable_by_key(|disk| disk.device);
        all
    }

    fn open(&self, device: u64, path: &Path) -> Ledger {
        let DiskRules { cycle_ns, read_bytes, depth_max, share_permille, .. } = self.rules;
        let (profile, source) = match self.known.disks.iter().find(|known| known.device == device) {
            Some(known) => (known.profile.clone(), "measured"),
            None => match probe(path, &ProbePlan::brief(read_bytes.min(64 << 10))) {
                Ok(probed) => (believed(probed.profile), "measured briefly"),
                Err(error) => {
                    tracing::debug!(device, "the disk could not be measured: {error}");
                    (DiskProfile::unknown(), "unknown")
                }
            },
        };
        let read_ns = profile.read_ns(read_bytes, profile.depth_for(read_bytes, cycle_ns / 4).min(depth_max));
        let refuses = source == "measured";
        tracing::info!(device, profile = source, read_us = read_ns / 1000, "disk");
        if !refuses {
            tracing::info!(device, "how much this disk can promise is not known, so nobody is refused for its sake: see tactus probe-disk");
        }
        Ledger { budget: DiskBudget::new(cycle_ns, share_permille, read_ns), source, refuses }
    }

    fn ledgers(&self) -> MutexGuard<'_, HashMap<u64, Ledger>> {
        self.ledgers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn believed(mut profile: DiskProfile) -> DiskProfile {
    for point in &mut profile.points {
        point.bytes_per_s = point.bytes_per_s / 1000 * BRIEF_BELIEVED_PERMILLE + point.bytes_per_s % 1000 * BRIEF_BELIEVED_PERMILLE / 1000;
    }
    profile.checked().unwrap_or_else(DiskProfile::unknown)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(share_permille: u64, profiles: Option<PathBuf>) -> DiskRules {
        DiskRules { share_permille, profiles, cycle_ns: 1_000_000_000, read_bytes: 64 << 10, depth_max: 32 }
    }

    #[test]
    fn what_was_measured_is_kept_and_counts() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kept/disks.json");
        assert_eq!(KnownDisks::read(&path), Ok(KnownDisks::default()));
        let mut known = KnownDisks::default();
        for device in [7, 8, 7] {
            known.put(KnownDisk { device, how: "somehow".into(), profile: DiskProfile::unknown() });
        }
        known.write(&path).unwrap();
        assert_eq!(KnownDisks::read(&path).as_ref(), Ok(&known));
        // 64 KiB take 13.09 ms of such a disk: 61 reads fit into 80 % of a second.
        let disks = Arc::new(Disks::new(rules(800, Some(path.clone()))).unwrap());
        let shares: Vec<_> = (0..100).map_while(|_| disks.reserve(7, Path::new("/none"), 3, 3_000_000_000).ok()).collect();
        assert_eq!(shares.len(), 61);
        let refused = disks.reserve(7, Path::new("/none"), 3, 3_000_000_000).err().unwrap();
        assert!(matches!(&refused, EngineError::Capacity(why) if why.contains("--disk-share")), "{refused}");
        assert_eq!((disks.status()[0].device, disks.status()[0].profile.as_str()), (7, "measured"));
        assert!(disks.reserve(8, Path::new("/none"), 3, 3_000_000_000).is_ok(), "another disk");
        drop(shares);
        assert_eq!(disks.status()[0].promised, 0.0);
        std::fs::write(&path, "[]").unwrap();
        assert!(Disks::new(rules(800, Some(path))).is_err());
    }

    #[test]
    fn only_a_disk_that_was_measured_refuses() {
        for share_permille in [500, 0] {
            let disks = Arc::new(Disks::new(rules(share_permille, None)).unwrap());
            assert!(matches!(disks.reserve(1, Path::new("/none"), 1 << 40, 1), Ok(None)));
        }
    }
}
