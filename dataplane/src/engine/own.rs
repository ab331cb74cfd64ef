//! An engine core's own stack: the driver, the addresses, and the socket layer that the control core uses its TCP by.
//!
//! Several engine cores share the addresses: each has a queue of the interface, a stack and a pair of UDP ports of its own, and what comes by
//! another's queue is handed over to it ([`stack::exchange`]). A TCP connection belongs to the core that the owners' hash names, and an
//! interleaved session to the core of its connection.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use pacing::Clock;
use stack::exchange::{ExchangePort, Wake, exchange};
use stack::host_port::{StackConfig, StackHost};
use stack::iface::{Cidr, IfaceConfig, Owners, PortBlock, Route, link_local};
use stack::port::Port;
use stack::sockets::{SocketConfig, SocketControl, SocketEngine, socket_pair};
use stack::tcp::TcpConfig;

use super::any_port::AnyPort;
use super::eventfd::EventFd;
use crate::ports::{af_xdp, tap};

/// Connections beside those of sessions: clients that ask and leave, the monitor, those that close.
const CONNECTIONS_EXTRA: usize = 2048;
/// Bytes that all connections together may hold; a session over TCP holds little while its client keeps up.
const TCP_POOL_BYTES: usize = 64 << 20;
/// Bytes that one connection may hold in either direction.
const TCP_BUFFER_BYTES: usize = 256 << 10;
/// Frames of the port that only RTP may use.
const RESERVED_FRAMES: usize = 256;
/// UDP ports of an engine core: RTP and RTCP.
const PORTS_PER_CORE: u16 = 2;
/// Frames that may be under way from one engine core to another: 6 ms of the largest at 1 Gbps.
const RING_FRAMES: usize = 512;

/// Which driver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Driver {
    /// AF_XDP on this interface.
    AfXdp(String),
    /// A TAP device of this name.
    Tap(String),
}

/// Our own stack, as configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnNetConfig {
    /// Which driver.
    pub driver: Driver,
    /// Own addresses with the bits of their networks' prefixes.
    pub addresses: Vec<(IpAddr, u8)>,
    /// Routers, one of each family.
    pub gateways: Vec<IpAddr>,
}

/// An engine core's place at the interface, for [`open`].
pub struct Seat {
    port: AnyPort,
    /// Wakes the engine core.
    pub(super) wake: Arc<EventFd>,
    /// UDP ports of RTP and RTCP.
    ports: [u16; 2],
    /// TCP ports, first and last, for connections that are opened from here; `None`: any.
    outgoing: Option<(u16, u16)>,
    notes: Vec<String>,
}

/// What [`open`] gives: what the engine core's thread is to make its host of.
pub struct OwnNet {
    port: AnyPort,
    config: StackConfig,
    sockets: SocketEngine,
    seed: u64,
    /// Things that an operator should know.
    pub notes: Vec<String>,
}

impl OwnNet {
    /// The host, made on the engine core's thread.
    pub fn into_host(self, clock: &impl Clock) -> Box<StackHost<AnyPort>> {
        Box::new(StackHost::new(self.config, self.port, Some(self.sockets), self.seed, clock.now_ns()))
    }
}

/// Opens the driver, with a queue for each engine core; the first has `rtp_port` and the next one, each other the two ports above.
///
/// # Errors
/// A sentence that says what could not be had, and what to do about it.
pub fn seats(own: &OwnNetConfig, cores: usize, rtp_port: u16) -> Result<Vec<Seat>, String> {
    let ips: Vec<IpAddr> = own.addresses.iter().map(|(ip, _)| *ip).collect();
    let wakes = (0..cores).map(|_| EventFd::new().map(Arc::new)).collect::<Result<Vec<_>, _>>();
    let wakes = wakes.map_err(|e| format!("cannot make an eventfd: {e}"))?;
    let block = PortBlock { first: rtp_port, per_core: PORTS_PER_CORE };
    let owners = Owners::new(cores, vec![block], secret());
    let (ports, mut notes) = match &own.driver {
        Driver::AfXdp(interface) => {
            let (ports, notes) = open_queues(interface, cores, &ips)?;
            (shared(ports, &wakes, &owners, AnyPort::AfXdp, AnyPort::AfXdpShared), notes)
        }
        Driver::Tap(name) => {
            let options = tap::Options::new(name.clone());
            let ports =
                if cores > 1 { tap::TapPort::open_queues(&options, cores) } else { tap::TapPort::open(&options).map(|port| vec![port]) };
            let ports = shared(ports.map_err(|e| e.to_string())?, &wakes, &owners, AnyPort::Tap, AnyPort::TapShared);
            (ports, vec![format!("{name}: a TAP device costs a system call for each frame; af_xdp:IFACE is faster")])
        }
    };
    let seat = |(core, (port, wake)): (usize, (AnyPort, Arc<EventFd>))| {
        let first = u16::try_from(core).unwrap_or(u16::MAX).saturating_mul(PORTS_PER_CORE).saturating_add(rtp_port);
        let outgoing = (cores > 1).then(|| owners.outgoing_ports(core));
        Seat { port, wake, ports: [first, first.saturating_add(1)], outgoing, notes: std::mem::take(&mut notes) }
    };
    Ok(ports.into_iter().zip(wakes).enumerate().map(seat).collect())
}

/// The ports as engine cores have them: a single one as it is, several joined.
fn shared<P: Port>(
    ports: Vec<P>,
    wakes: &[Arc<EventFd>],
    owners: &Owners,
    alone: fn(P) -> AnyPort,
    joined: fn(ExchangePort<P>) -> AnyPort,
) -> Vec<AnyPort> {
    if ports.len() == 1 {
        return ports.into_iter().map(alone).collect();
    }
    let wake = |wake: &Arc<EventFd>| {
        let wake = Arc::clone(wake);
        Box::new(move || wake.notify()) as Wake
    };
    let ports = ports.into_iter().zip(wakes.iter().map(wake)).collect();
    exchange(ports, owners, RING_FRAMES).into_iter().map(joined).collect()
}

/// Makes an engine core's stack and both halves of its socket layer. `told` is called on the engine core when the control core should
/// [pump](SocketControl::pump).
///
/// # Errors
/// A sentence that says what is wrong with the addresses.
pub fn open(
    own: &OwnNetConfig,
    seat: Seat,
    sessions_max: u32,
    tx_frames: usize,
    told: Box<dyn Fn() + Send + Sync>,
) -> Result<(OwnNet, SocketControl), String> {
    let iface = iface_config(own)?;
    let Seat { port, wake, ports, outgoing, notes } = seat;
    let sessions = sessions_max as usize;
    let connections_max = sessions + CONNECTIONS_EXTRA;
    let tcp_defaults = TcpConfig::default();
    let tcp = TcpConfig {
        connections_max,
        send_buffer_bytes: TCP_BUFFER_BYTES,
        recv_buffer_bytes: TCP_BUFFER_BYTES,
        pool_bytes: TCP_POOL_BYTES,
        ephemeral_ports: outgoing.unwrap_or(tcp_defaults.ephemeral_ports),
        ..tcp_defaults
    };
    let sockets = SocketConfig { sockets_max: (connections_max + 64) as u32, ..SocketConfig::default() };
    let (engine, control) = socket_pair(sockets, connections_max, Box::new(move || wake.notify()), told);
    let config = StackConfig {
        iface,
        tcp,
        ports,
        // RTP and RTCP of two tracks a session.
        flows_max: 4 * sessions_max.max(4),
        streams_max: sessions_max,
        tx_frames,
        reserved_frames: RESERVED_FRAMES,
        ..StackConfig::default()
    };
    Ok((OwnNet { port, config, sockets: engine, seed: secret(), notes }, control))
}

/// A queue of the interface for each engine core.
fn open_queues(interface: &str, cores: usize, ips: &[IpAddr]) -> Result<(Vec<af_xdp::AfXdpPort>, Vec<String>), String> {
    let mut options = af_xdp::Options::new(interface);
    options.addresses = ips.to_vec();
    options.queues = u32::try_from(cores).unwrap_or(u32::MAX);
    let mut opened = af_xdp::open(&options).map_err(|e| e.to_string())?;
    let of_ipv6 = |ip: &IpAddr| if let IpAddr::V6(v6) = ip { Some(*v6) } else { None };
    let mut own: Vec<Ipv6Addr> = ips.iter().filter_map(of_ipv6).collect();
    if !own.is_empty() {
        let link_local = link_local(opened.netdev.mac);
        opened.steering.add_address(IpAddr::V6(link_local)).map_err(|e| e.to_string())?;
        own.push(link_local);
    }
    if let Some(first) = opened.ports.first_mut() {
        own.into_iter().try_for_each(|address| first.hear_neighbours(address)).map_err(|e| e.to_string())?;
    }
    Ok((opened.ports, opened.notes))
}

fn iface_config(own: &OwnNetConfig) -> Result<IfaceConfig, String> {
    let cidr = |ip: IpAddr, bits: u8| Cidr::new(ip, bits).map_err(|e| e.to_string());
    let addresses = own.addresses.iter().map(|&(ip, bits)| cidr(ip, bits)).collect::<Result<Vec<_>, _>>()?;
    let default_route = |&gateway: &IpAddr| {
        let all: IpAddr = if gateway.is_ipv4() { [0, 0, 0, 0].into() } else { [0u16; 8].into() };
        Ok::<Route, String>(Route { to: cidr(all, 0)?, via: Some(gateway) })
    };
    let routes = own.gateways.iter().map(default_route).collect::<Result<Vec<_>, _>>()?;
    Ok(IfaceConfig { addresses, routes, ..IfaceConfig::default() })
}

/// What nobody outside can guess: initial sequence numbers and hashes hang on it. The standard library seeds its hash maps from the
/// operating system.
fn secret() -> u64 {
    use std::hash::{BuildHasher as _, Hasher as _};
    std::collections::hash_map::RandomState::new().build_hasher().finish()
}
