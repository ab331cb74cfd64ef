//! Huge pages, transparent huge pages, locked memory.

use dataplane::reserve::{PageSize, at_boot, command_now};

use super::machine::Machine;
use super::{Finding, Net, Purpose};
use crate::units::{GIB, MIB, about_bytes};

/// Frames of an AF_XDP queue: 3072 of 2 KiB, in whole huge pages.
const QUEUE_BYTES: u64 = 6 * MIB;

struct Reserved {
    huge: u64,
    gigantic: u64,
}

impl Reserved {
    fn of(machine: &Machine) -> Self {
        let pages = |size: PageSize| {
            let path = format!("/sys/kernel/mm/hugepages/{}/nr_hugepages", size.sysfs_name());
            machine.number(&path).and_then(|pages| u64::try_from(pages).ok()).unwrap_or(0)
        };
        Self { huge: pages(PageSize::Huge2M), gigantic: pages(PageSize::Huge1G) }
    }

    /// Every core finds its buffers in whole pages of one size.
    fn hold(&self, purpose: &Purpose) -> bool {
        let cores = purpose.engine.len() as u64;
        let gigantic_each = purpose.memory_bytes.div_ceil(GIB);
        // As `hugepages::Arena` decides: at most an eighth may be wasted.
        let fits_gigantic = gigantic_each * GIB - purpose.memory_bytes <= purpose.memory_bytes / 8;
        let in_gigantic = if fits_gigantic { (self.gigantic / gigantic_each.max(1)).min(cores) } else { 0 };
        let huge_needed = (cores - in_gigantic) * pages_of(purpose.memory_bytes) + queue_pages(purpose);
        self.huge >= huge_needed
    }
}

fn pages_of(bytes: u64) -> u64 {
    bytes.div_ceil(PageSize::Huge2M.bytes() as u64)
}

/// Pages of the ports' frames.
fn queue_pages(purpose: &Purpose) -> u64 {
    match purpose.net {
        Net::AfXdp(_) => purpose.engine.len() as u64 * pages_of(QUEUE_BYTES),
        Net::Kernel | Net::Tap(_) => 0,
    }
}

pub(super) fn examine(machine: &Machine, purpose: &Purpose, findings: &mut Vec<Finding>) {
    let reserved = Reserved::of(machine);
    let enough = reserved.hold(purpose);
    findings.push(hugepages(&reserved, enough, purpose));
    findings.push(transparent(machine, enough));
    findings.push(locked(machine, purpose));
}

fn hugepages(reserved: &Reserved, enough: bool, purpose: &Purpose) -> Finding {
    let needed = purpose.engine.len() as u64 * pages_of(purpose.memory_bytes) + queue_pages(purpose);
    let found = format!("{} pages of 2 MiB and {} of 1 GiB reserved; {needed} of 2 MiB are needed", reserved.huge, reserved.gigantic);
    if enough {
        return Finding::fine("huge-pages", found);
    }
    let pages = usize::try_from(needed).unwrap_or(usize::MAX);
    Finding::untuned(
        "huge-pages",
        found,
        "disk reads into small pages cost more, and every look into a buffer may miss the processor's TLB",
        vec![command_now(PageSize::Huge2M, pages), at_boot(PageSize::Huge2M, pages)],
    )
}

fn transparent(machine: &Machine, reserved: bool) -> Finding {
    const SUBJECT: &str = "transparent-huge-pages";
    let text = machine.text("/sys/kernel/mm/transparent_hugepage/enabled").unwrap_or_default();
    // The choice that is in force stands in brackets.
    let choice = text.split(['[', ']']).nth(1).unwrap_or("not in this kernel").to_owned();
    if reserved || matches!(choice.as_str(), "always" | "madvise") {
        return Finding::fine(SUBJECT, choice);
    }
    Finding::untuned(
        SUBJECT,
        choice,
        "without reserved pages, buffers lie on pages of 4 KiB",
        vec!["echo madvise > /sys/kernel/mm/transparent_hugepage/enabled".into()],
    )
}

fn locked(machine: &Machine, purpose: &Purpose) -> Finding {
    const SUBJECT: &str = "locked-memory";
    if machine.locks_without_limit() {
        return Finding::fine(SUBJECT, "without limit (CAP_IPC_LOCK)");
    }
    let Some(limit) = machine.limit("Max locked memory") else { return Finding::fine(SUBJECT, "without limit") };
    let port = if matches!(purpose.net, Net::AfXdp(_)) { QUEUE_BYTES } else { 0 };
    let needed = purpose.engine.len() as u64 * (purpose.memory_bytes + port);
    let found = format!("limit {}, {} needed", about_bytes(limit), about_bytes(needed));
    if limit >= needed {
        return Finding::fine(SUBJECT, found);
    }
    Finding::untuned(
        SUBJECT,
        found,
        "io_uring cannot register the buffers for the disk, and AF_XDP cannot register its frames",
        vec!["LimitMEMLOCK=infinity in the systemd unit, or `ulimit -l unlimited` in a root shell before starting".into()],
    )
}
