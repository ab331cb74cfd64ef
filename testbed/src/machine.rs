//! The machine that was measured on, and what was measured: what every report says beside its figures.

use std::process::Command;

use serde::{Deserialize, Serialize};

/// The machine and the state of the source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// Processors.
    pub cores: usize,
    /// Release of the kernel.
    pub kernel: String,
    /// What the processor calls itself.
    pub processor: String,
    /// Memory, MiB.
    pub memory_mib: u64,
    /// `git describe` of the source folder, where there is one.
    pub commit: String,
}

impl Machine {
    /// Reads what the system says.
    pub fn read() -> Self {
        let file = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let (cpuinfo, meminfo) = (file("/proc/cpuinfo"), file("/proc/meminfo"));
        let value = |text: &str, key: &str| -> Option<String> {
            let line = text.lines().find_map(|l| l.strip_prefix(key))?;
            Some(line.trim_start_matches([' ', '\t', ':']).to_owned())
        };
        let memory = value(&meminfo, "MemTotal").and_then(|text| text.split(' ').next()?.parse::<u64>().ok());
        Self {
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            kernel: file("/proc/sys/kernel/osrelease").trim().to_owned(),
            processor: value(&cpuinfo, "model name").unwrap_or_default(),
            memory_mib: memory.unwrap_or(0) >> 10,
            commit: commit(),
        }
    }
}

fn commit() -> String {
    let source = env!("CARGO_MANIFEST_DIR");
    let described = Command::new("git").args(["-C", source, "describe", "--always", "--dirty", "--tags"]).output();
    let said = described.ok().filter(|o| o.status.success()).map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned());
    said.filter(|s| !s.is_empty()).unwrap_or_else(|| "unknown".to_owned())
}
