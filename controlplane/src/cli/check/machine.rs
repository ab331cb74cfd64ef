//! A machine as its files tell, below a root folder: `/` here, any folder in tests.

use std::path::{Path, PathBuf};

use crate::units::CpuList;

/// The capability to lock memory without a limit (linux/capability.h).
const CAP_IPC_LOCK: u32 = 14;

/// Files of a machine.
#[derive(Debug)]
pub(super) struct Machine {
    root: PathBuf,
}

impl Machine {
    pub(super) fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    fn path(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    /// A file's text without white space at its ends; `None` when there is no such file.
    pub(super) fn text(&self, path: &str) -> Option<String> {
        std::fs::read_to_string(self.path(path)).ok().map(|text| text.trim().to_owned())
    }

    /// A file that holds one number.
    pub(super) fn number(&self, path: &str) -> Option<i64> {
        self.text(path)?.parse().ok()
    }

    /// A file that holds a list of CPUs; none when there is no such file, or it is empty.
    pub(super) fn cpus(&self, path: &str) -> Vec<u32> {
        self.text(path).and_then(|text| text.parse::<CpuList>().ok()).map_or_else(Vec::new, |list| list.as_slice().to_vec())
    }

    /// CPUs that are there.
    pub(super) fn online(&self) -> Vec<u32> {
        self.cpus("/sys/devices/system/cpu/online")
    }

    pub(super) fn exists(&self, path: &str) -> bool {
        self.path(path).exists()
    }

    /// Names in a folder, sorted.
    pub(super) fn names(&self, path: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.path(path)).into_iter().flatten().flatten();
        let mut names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.sort();
        names
    }

    /// The hard limit of this process for what `/proc/self/limits` calls `name`; `None` for no limit.
    pub(super) fn limit(&self, name: &str) -> Option<u64> {
        let limits = self.text("/proc/self/limits")?;
        let line = limits.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().nth(1)?.parse().ok()
    }

    /// This process may lock any amount of memory.
    pub(super) fn locks_without_limit(&self) -> bool {
        let status = self.text("/proc/self/status").unwrap_or_default();
        let mask = status.lines().find_map(|line| line.strip_prefix("CapEff:")).and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
        mask.is_some_and(|mask| mask & 1 << CAP_IPC_LOCK != 0)
    }

    /// A process of this name is running.
    pub(super) fn runs(&self, name: &str) -> bool {
        let processes = self.names("/proc").into_iter().filter(|entry| entry.bytes().all(|byte| byte.is_ascii_digit()));
        processes.into_iter().any(|process| self.text(&format!("/proc/{process}/comm")).as_deref() == Some(name))
    }
}
