//! What the kernel offers: AF_XDP, XDP links, TUN/TAP, io_uring.

use super::machine::Machine;
use super::{Finding, Net, Purpose};

/// The first kernel with BPF links for XDP, which the steering program is held by.
const XDP_LINK: (u32, u32) = (5, 9);

pub(super) fn examine(machine: &Machine, purpose: &Purpose, findings: &mut Vec<Finding>) {
    findings.push(io_uring(machine));
    match purpose.net {
        Net::AfXdp(_) => findings.push(af_xdp(machine)),
        Net::Tap(_) => findings.push(tap(machine)),
        Net::Kernel => {}
    }
}

fn release(machine: &Machine) -> (String, Option<(u32, u32)>) {
    let text = machine.text("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = text.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
    let version = match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => Some((major, minor)),
        _ => None,
    };
    (text, version)
}

fn io_uring(machine: &Machine) -> Finding {
    const SUBJECT: &str = "io-uring";
    let lost = "disks are read by threads: a copy and two switches between threads for each read";
    let allow = || vec!["sysctl -w kernel.io_uring_disabled=0".into()];
    match machine.number("/proc/sys/kernel/io_uring_disabled") {
        Some(1) => Finding::untuned(SUBJECT, "for privileged processes and one group only", lost, allow()),
        Some(2) => Finding::untuned(SUBJECT, "disabled", lost, allow()),
        // Kernels before 6.6 have no such setting; what a container forbids shows when the server starts.
        _ => Finding::fine(SUBJECT, "allowed"),
    }
}

fn af_xdp(machine: &Machine) -> Finding {
    const SUBJECT: &str = "af-xdp";
    let (text, version) = release(machine);
    if version.is_some_and(|version| version < XDP_LINK) {
        let fix = vec!["a kernel of 5.9 or later".into()];
        return Finding::untuned(
            SUBJECT,
            format!("kernel {text}"),
            "there are no BPF links for XDP: the server cannot start this way",
            fix,
        );
    }
    let protocols = machine.text("/proc/net/protocols").unwrap_or_default();
    if protocols.lines().any(|line| line.split_whitespace().next() == Some("XDP")) {
        return Finding::fine(SUBJECT, format!("kernel {text}"));
    }
    let fix = vec!["a kernel with CONFIG_XDP_SOCKETS=y, as distributions ship it".into()];
    Finding::untuned(SUBJECT, format!("kernel {text} without AF_XDP sockets"), "the server cannot start this way", fix)
}

fn tap(machine: &Machine) -> Finding {
    const SUBJECT: &str = "tap";
    if machine.exists("/dev/net/tun") {
        return Finding::fine(SUBJECT, "/dev/net/tun is there");
    }
    let fix = vec!["modprobe tun; in a container, pass the device: --device /dev/net/tun".into()];
    Finding::untuned(SUBJECT, "there is no /dev/net/tun", "the server cannot start this way", fix)
}
