//! Makes the namespaces of a topology, joins them, and gives them addresses and routes.

use std::fs::File;

use super::NetError;
use super::ip::{finish_frames, ip, ip_batch};
use super::state::{namespace_name, namespace_path};
use super::sys;
use super::topology::{Link, Topology, WIRE_HOST};

/// Name of the interface of the wires' namespace that joins an end (0 or 1) of a link.
pub fn wire_interface(link: usize, end: usize) -> String {
    format!("w{link}{}", if end == 0 { 'a' } else { 'b' })
}

/// Makes everything but the wires themselves. What was made before a failure stays, for the caller to remove.
pub fn build(topology: &Topology) -> Result<(), NetError> {
    let name = topology.name();
    let wire_host = topology.has_wires().then_some(WIRE_HOST);
    for host in topology.hosts().keys().map(String::as_str).chain(wire_host) {
        ip(&["netns", "add", &namespace_name(name, host)])?;
    }
    for (host, settings) in topology.hosts() {
        // Addresses are ours: none of them waits to be found unused.
        let mut sysctls = vec![("ipv6/conf/all/accept_dad", "0"), ("ipv6/conf/default/accept_dad", "0")];
        if settings.forward {
            sysctls.extend([("ipv4/ip_forward", "1"), ("ipv6/conf/all/forwarding", "1")]);
        }
        write_sysctls(name, host, sysctls)?;
    }
    if topology.has_wires() {
        // The kernel itself has nothing to say on the wires.
        write_sysctls(name, WIRE_HOST, vec![("ipv6/conf/all/disable_ipv6", "1"), ("ipv6/conf/default/disable_ipv6", "1")])?;
    }
    for (index, link) in topology.links().iter().enumerate() {
        join(name, index, link)?;
    }
    for host in topology.hosts().keys() {
        configure(topology, host)?;
    }
    Ok(())
}

fn write_sysctls(topology: &str, host: &str, settings: Vec<(&'static str, &'static str)>) -> Result<(), NetError> {
    in_namespace(topology, host, || {
        for (key, value) in settings {
            let path = format!("/proc/sys/net/{key}");
            match std::fs::write(&path, value) {
                // A kernel without IPv6.
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                done => done.map_err(|source| NetError::File { path: path.into(), source })?,
            }
        }
        Ok(())
    })?
}

/// The veth pairs of a link: one between its ends, or one from each end to its wire.
fn join(topology: &str, index: usize, link: &Link) -> Result<(), NetError> {
    let ends = &link.ends;
    let mtu = link.mtu_bytes.to_string();
    let pair = |[from, from_at]: [&str; 2], [to, to_at]: [&str; 2]| {
        let (from_at, to_at) = (namespace_name(topology, from_at), namespace_name(topology, to_at));
        ip(&["-n", &from_at, "link", "add", "name", from, "mtu", &mtu, "type", "veth", "peer", "name", to, "mtu", &mtu, "netns", &to_at])
    };
    let finish = |host: &str, interface: &str| finish_frames(open_namespace(topology, host)?, interface);
    if link.wire.is_none() {
        let [a, b] = ends;
        pair([&a.interface, &a.host], [&b.interface, &b.host])?;
        return if link.offload { Ok(()) } else { ends.iter().try_for_each(|end| finish(&end.host, &end.interface)) };
    }
    for (place, end) in ends.iter().enumerate() {
        let inner = wire_interface(index, place);
        pair([&end.interface, &end.host], [&inner, WIRE_HOST])?;
        finish(&end.host, &end.interface)?;
        finish(WIRE_HOST, &inner)?;
        ip(&["-n", &namespace_name(topology, WIRE_HOST), "link", "set", "dev", &inner, "up"])?;
    }
    Ok(())
}

fn configure(topology: &Topology, host: &str) -> Result<(), NetError> {
    let mut lines = vec!["link set dev lo up".to_owned()];
    for end in topology.links().iter().flat_map(|link| &link.ends).filter(|end| end.host == host) {
        for address in &end.addresses {
            let family = if address.address.is_ipv4() { "" } else { " nodad" };
            lines.push(format!("address add {address} dev {}{family}", end.interface));
        }
        lines.push(format!("link set dev {} up", end.interface));
    }
    let routes = topology.hosts().get(host).map(|host| host.routes.as_slice()).unwrap_or_default();
    lines.extend(routes.iter().map(|route| format!("route add {} via {}", route.to, route.via)));
    ip_batch(&namespace_name(topology.name(), host), &lines)
}

/// A host's namespace, to be entered.
pub fn open_namespace(topology: &str, host: &str) -> Result<File, NetError> {
    let path = namespace_path(topology, host);
    File::open(&path).map_err(|source| NetError::File { path, source })
}

/// Runs something on a thread in a host's namespace.
pub fn in_namespace<T: Send>(topology: &str, host: &str, work: impl FnOnce() -> T + Send) -> Result<T, NetError> {
    let namespace = open_namespace(topology, host)?;
    let done = std::thread::scope(|scope| {
        let worker = scope.spawn(move || sys::enter_namespace(std::os::fd::AsFd::as_fd(&namespace)).map(|()| work()));
        worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    });
    done.map_err(|source| NetError::Run { command: format!("setns {}", namespace_name(topology, host)), source })
}
