//! Limits of kernel sockets and open files.

use super::machine::Machine;
use super::{Finding, Net, Purpose};
use crate::units::{ByteSize, MIB};

/// What an engine core asks for, for each of its UDP sockets.
const SOCKET_BUFFER_BYTES: u64 = 4 * MIB;
/// Files of a session: its RTSP connection and its title.
const FILES_PER_SESSION: u64 = 2;
/// Files of everything else.
const FILES_BESIDE: u64 = 256;

pub(super) fn examine(machine: &Machine, purpose: &Purpose, findings: &mut Vec<Finding>) {
    if purpose.net == Net::Kernel {
        findings.push(buffer(machine, "send-buffers", "wmem_max", "a burst that is due at once is cut off: packets wait or are lost"));
        findings.push(buffer(machine, "receive-buffers", "rmem_max", "reports of many clients at once are lost"));
    }
    findings.push(open_files(machine, purpose));
}

fn buffer(machine: &Machine, subject: &'static str, name: &str, lost: &str) -> Finding {
    let limit = machine.number(&format!("/proc/sys/net/core/{name}")).and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or(0);
    let found = format!("at most {} ({name}), {} wanted", ByteSize(limit), ByteSize(SOCKET_BUFFER_BYTES));
    if limit >= SOCKET_BUFFER_BYTES {
        return Finding::fine(subject, found);
    }
    let setting = format!("net.core.{name}={SOCKET_BUFFER_BYTES}");
    Finding::untuned(
        subject,
        found,
        lost,
        vec![format!("sysctl -w {setting}"), format!("echo {setting} >> /etc/sysctl.d/60-tactus-sockets.conf")],
    )
}

fn open_files(machine: &Machine, purpose: &Purpose) -> Finding {
    const SUBJECT: &str = "open-files";
    let needed = u64::from(purpose.max_sessions) * FILES_PER_SESSION + FILES_BESIDE;
    let Some(limit) = machine.limit("Max open files") else { return Finding::fine(SUBJECT, "without limit") };
    let found = format!("at most {limit}, {needed} for {} sessions", purpose.max_sessions);
    if limit >= needed {
        return Finding::fine(SUBJECT, found);
    }
    Finding::untuned(
        SUBJECT,
        found,
        "connections beyond the limit are not accepted",
        vec![format!("LimitNOFILE={needed} in the systemd unit, or `ulimit -n {needed}` before starting")],
    )
}
