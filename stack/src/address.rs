//! Addresses in the one form that hosts use: IPv4 is IPv4, never mapped into IPv6.

use std::net::{IpAddr, SocketAddr, SocketAddrV6};

use crate::host::{FlowSpec, HostError};

/// A local UDP port pair has two members.
pub(crate) const LOCAL_PORTS: usize = 2;

/// The same endpoint without mapping and without flow label.
pub(crate) fn normal(address: SocketAddr) -> SocketAddr {
    let SocketAddr::V6(v6) = address else { return address };
    match v6.ip().to_ipv4_mapped() {
        Some(v4) => SocketAddr::from((v4, v6.port())),
        None => SocketAddr::V6(SocketAddrV6::new(*v6.ip(), v6.port(), 0, v6.scope_id())),
    }
}

/// Checks a flow and brings its addresses into normal form; an unspecified source address means none.
pub(crate) fn checked(spec: FlowSpec, ipv6: bool) -> Result<FlowSpec, HostError> {
    if usize::from(spec.local_port) >= LOCAL_PORTS {
        return Err(HostError::Unknown);
    }
    let remote = normal(spec.remote);
    let local_addr = spec.local_addr.map(|local| local.to_canonical()).filter(|local| !local.is_unspecified());
    if (remote.is_ipv6() && !ipv6) || local_addr.is_some_and(|local| local.is_ipv6() != remote.is_ipv6()) {
        return Err(HostError::Family);
    }
    Ok(FlowSpec { local_port: spec.local_port, local_addr, remote })
}

/// True for addresses that mean something on one link only, so that the link must be named.
pub(crate) fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(_) => false,
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(local_port: u8, local: &str, remote: &str) -> FlowSpec {
        FlowSpec { local_port, local_addr: local.parse().ok(), remote: remote.parse().unwrap() }
    }

    #[test]
    fn normal_form() {
        let cases = [
            ("1.2.3.4:5", "1.2.3.4:5"),
            ("[::ffff:1.2.3.4]:5", "1.2.3.4:5"),
            ("[2001:db8::1]:5", "[2001:db8::1]:5"),
            ("[fe80::1%3]:5", "[fe80::1%3]:5"),
        ];
        for (given, expected) in cases {
            assert_eq!(normal(given.parse().unwrap()), expected.parse::<SocketAddr>().unwrap(), "{given}");
        }
    }

    #[test]
    fn flows_are_checked() {
        let cases = [
            (spec(0, "", "1.2.3.4:5"), false, Ok(spec(0, "", "1.2.3.4:5"))),
            (spec(1, "9.9.9.9", "[::ffff:1.2.3.4]:5"), false, Ok(spec(1, "9.9.9.9", "1.2.3.4:5"))),
            (spec(1, "::ffff:9.9.9.9", "1.2.3.4:5"), true, Ok(spec(1, "9.9.9.9", "1.2.3.4:5"))),
            (spec(0, "::", "1.2.3.4:5"), true, Ok(spec(0, "", "1.2.3.4:5"))),
            (spec(2, "", "1.2.3.4:5"), true, Err(HostError::Unknown)),
            (spec(0, "", "[::1]:5"), false, Err(HostError::Family)),
            (spec(0, "1.2.3.4", "[::1]:5"), true, Err(HostError::Family)),
            (spec(0, "::1", "1.2.3.4:5"), true, Err(HostError::Family)),
            (spec(0, "::1", "[::1]:5"), true, Ok(spec(0, "::1", "[::1]:5"))),
        ];
        for (given, ipv6, expected) in cases {
            assert_eq!(checked(given, ipv6), expected, "{given:?}");
        }
    }
}
