//! The interface of `--net af_xdp:IFACE`: its driver, its queues, its offloads.

use dataplane::ports::netdev::{Netdev, Offloads};
use dataplane::ports::xdp_features::{self, XdpFeatures};

use super::machine::Machine;
use super::{Finding, Net, Purpose};

/// Largest MTU that any chunk holds.
const MTU_MAX: u64 = 3822;

/// What the driver answers; not in files.
#[derive(Clone, Debug, Default)]
pub(super) struct Driver {
    pub(super) name: Option<String>,
    pub(super) offloads: Option<Offloads>,
    /// Receive queues, transmit queues, and whether they are set in pairs.
    pub(super) queues: Option<(u32, u32, bool)>,
    pub(super) xdp: Option<XdpFeatures>,
}

impl Driver {
    pub(super) fn ask(interface: &str) -> Self {
        let netdev = Netdev::find(interface).ok();
        Self {
            name: Netdev::driver(interface),
            offloads: Netdev::offloads(interface),
            queues: netdev.as_ref().map(|netdev| (netdev.queues, netdev.tx_queues, netdev.combined)),
            xdp: netdev.and_then(|netdev| xdp_features::ask(netdev.index).ok()),
        }
    }
}

pub(super) fn examine(machine: &Machine, driver: &Driver, purpose: &Purpose, findings: &mut Vec<Finding>) {
    let Net::AfXdp(interface) = &purpose.net else { return };
    if !machine.exists(&format!("/sys/class/net/{interface}")) {
        let fix = vec!["ip link".into()];
        findings.push(Finding::untuned("interface", format!("there is no {interface}"), "the server cannot start this way", fix));
        return;
    }
    findings.push(link(machine, interface));
    findings.push(xdp(driver));
    findings.push(queues(driver, purpose, interface));
    findings.push(offloads(driver, interface));
}

fn link(machine: &Machine, interface: &str) -> Finding {
    const SUBJECT: &str = "interface";
    let state = machine.text(&format!("/sys/class/net/{interface}/operstate")).unwrap_or_default();
    let mtu = machine.number(&format!("/sys/class/net/{interface}/mtu")).and_then(|mtu| u64::try_from(mtu).ok()).unwrap_or(0);
    let found = format!("{interface} is {state}, MTU {mtu}");
    // Virtual interfaces may call themselves unknown.
    if !matches!(state.as_str(), "up" | "unknown") {
        let fix = vec![format!("ip link set dev {interface} up")];
        return Finding::untuned(SUBJECT, found, "the server cannot start this way", fix);
    }
    if mtu > MTU_MAX {
        let fix = vec![format!("ip link set dev {interface} mtu 1500")];
        return Finding::untuned(SUBJECT, found, format!("AF_XDP carries at most {MTU_MAX}: the server cannot start this way"), fix);
    }
    Finding::fine(SUBJECT, found)
}

fn xdp(driver: &Driver) -> Finding {
    const SUBJECT: &str = "driver-xdp";
    let name = driver.name.as_deref().unwrap_or("the driver");
    match driver.xdp {
        None => Finding::fine(SUBJECT, format!("this kernel does not tell what {name} can do; the server finds out when it starts")),
        Some(XdpFeatures { zero_copy: true, .. }) => Finding::fine(SUBJECT, format!("{name}: native XDP and zero-copy")),
        Some(XdpFeatures { native: true, .. }) => Finding::fine(SUBJECT, format!("{name}: native XDP; the kernel copies each frame")),
        Some(_) => Finding::untuned(
            SUBJECT,
            format!("{name} has no native XDP"),
            "frames that arrive take the generic way: the kernel makes a packet of each before it is ours",
            vec!["a network card whose driver supports XDP_REDIRECT, such as those of ice, i40e, igc and mlx5_core".into()],
        ),
    }
}

fn queues(driver: &Driver, purpose: &Purpose, interface: &str) -> Finding {
    const SUBJECT: &str = "queues";
    let cores = purpose.engine.len();
    let pairs = driver.queues.is_none_or(|(.., combined)| combined);
    let fix =
        if pairs { format!("ethtool -L {interface} combined {cores}") } else { format!("ethtool -L {interface} rx {cores} tx {cores}") };
    match driver.queues {
        Some((receive, transmit, _)) if (receive.min(transmit) as usize) < cores => Finding::untuned(
            SUBJECT,
            format!("{receive} to receive and {transmit} to transmit for {cores} engine cores"),
            "the server cannot start this way: each engine core needs a queue",
            vec![fix],
        ),
        Some((receive, ..)) if receive as usize > cores => Finding::untuned(
            SUBJECT,
            format!("{receive} for {cores} engine cores"),
            "what arrives for us on a queue without an engine core is lost to us",
            vec![fix],
        ),
        Some((receive, ..)) => Finding::fine(SUBJECT, format!("{receive}, one for each engine core")),
        None => Finding::fine(SUBJECT, format!("{interface} does not tell")),
    }
}

fn offloads(driver: &Driver, interface: &str) -> Finding {
    const SUBJECT: &str = "offloads";
    match driver.offloads {
        Some(Offloads { lro: true, .. }) => Finding::untuned(
            SUBJECT,
            "large receive offload is on",
            "drivers refuse native XDP then",
            vec![format!("ethtool -K {interface} lro off")],
        ),
        Some(Offloads { rx_vlan: true, .. }) => {
            Finding::fine(SUBJECT, format!("VLAN tags are taken off on receiving; for a tagged network: ethtool -K {interface} rxvlan off"))
        }
        _ => Finding::fine(SUBJECT, "none in the way"),
    }
}
