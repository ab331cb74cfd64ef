//! CPU time and memory of processes and of the whole machine, from `/proc`.

use std::fs;
use std::io;

use crate::load::sys::{page_bytes, tick_ns};

/// A process's use so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProcessUse {
    /// CPU time of all its threads, user and system, ns.
    pub cpu_ns: u64,
    /// Memory resident, bytes.
    pub resident_bytes: u64,
    /// Threads.
    pub threads: u64,
}

/// What process `pid` has used so far. The sum of run times in `schedstat` is exact where the kernel has it; `stat` counts ticks.
///
/// # Errors
/// There is no such process.
pub fn process(pid: u32) -> io::Result<ProcessUse> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let mut found = parse_stat(&text).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?;
    if let Some(exact_ns) = threads_ns(pid) {
        // Threads that ended are in `stat` only.
        found.cpu_ns = found.cpu_ns.max(exact_ns);
    }
    Ok(found)
}

/// proc(5): the fields after the name in parentheses, which may itself have spaces and parentheses.
fn parse_stat(text: &str) -> Option<ProcessUse> {
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    Some(ProcessUse { cpu_ns: (field(14)? + field(15)?) * tick_ns(), resident_bytes: field(24)? * page_bytes(), threads: field(20)? })
}

fn threads_ns(pid: u32) -> Option<u64> {
    let mut sum = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task")).ok()? {
        // A thread may end while we look.
        let Ok(text) = fs::read_to_string(task.ok()?.path().join("schedstat")) else { continue };
        sum += text.split_ascii_whitespace().next()?.parse::<u64>().ok()?;
    }
    Some(sum)
}

/// CPU time of the whole machine so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MachineUse {
    /// All cores together, busy, ns.
    pub busy_ns: u64,
    /// Taken by the hypervisor, ns.
    pub stolen_ns: u64,
}

/// What the machine has used so far.
///
/// # Errors
/// `/proc/stat` cannot be read.
pub fn machine() -> io::Result<MachineUse> {
    parse_machine(&fs::read_to_string("/proc/stat")?).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
}

fn parse_machine(text: &str) -> Option<MachineUse> {
    let line = text.lines().find(|l| l.starts_with("cpu "))?;
    let values: Vec<u64> = line.split_ascii_whitespace().skip(1).map_while(|w| w.parse().ok()).collect();
    // user nice system idle iowait irq softirq steal
    let value = |place: usize| values.get(place).copied().unwrap_or(0);
    let busy: u64 = [0, 1, 2, 5, 6].into_iter().map(value).sum();
    Some(MachineUse { busy_ns: busy * tick_ns(), stolen_ns: value(7) * tick_ns() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_behind_an_odd_name() {
        let text = "7 (a) b (c) S 1 7 7 0 -1 0 0 0 0 0 250 150 0 0 20 0 9 0 100 4096 33 0\n";
        let found = parse_stat(text).unwrap();
        assert_eq!((found.cpu_ns, found.threads), (400 * tick_ns(), 9));
        assert_eq!(found.resident_bytes, 33 * page_bytes());
        assert!(parse_stat("nonsense").is_none());
    }

    #[test]
    fn this_process_and_machine_have_used_something() {
        let own = process(std::process::id()).unwrap();
        assert!(own.threads >= 1 && own.resident_bytes > 0);
        assert!(machine().unwrap().busy_ns > 0);
        assert!(process(u32::MAX).is_err());
    }

    #[test]
    fn the_machine_line_is_summed_without_idle() {
        let found = parse_machine("cpu  1 2 3 1000 2000 4 5 6 0 0\ncpu0 9\n").unwrap();
        assert_eq!((found.busy_ns, found.stolen_ns), (15 * tick_ns(), 6 * tick_ns()));
    }
}
