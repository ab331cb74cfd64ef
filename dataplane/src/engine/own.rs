//! An engine core's own stack: the driver, the addresses, and the socket layer that the control core uses its TCP by.
//!
//! One engine core: RTSP and RTCP of a session may arrive on any queue of a card with several, and only one core has the session.

use std::net::IpAddr;
use std::sync::Arc;

use pacing::Clock;
use stack::host_port::{StackConfig, StackHost};
use stack::iface::{Cidr, IfaceConfig, Route, link_local};
use stack::port::Port as _;
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

/// Opens the driver and makes both halves of the socket layer. `wake` wakes the engine core; `told` is called on the engine core when the
/// control core should [pump](SocketControl::pump).
///
/// # Errors
/// A sentence that says what could not be had, and what to do about it.
pub fn open(
    own: &OwnNetConfig,
    rtp_port: u16,
    sessions_max: u32,
    tx_frames: usize,
    wake: Arc<EventFd>,
    told: Box<dyn Fn() + Send + Sync>,
) -> Result<(OwnNet, SocketControl), String> {
    let iface = iface_config(own)?;
    let ips: Vec<IpAddr> = own.addresses.iter().map(|(ip, _)| *ip).collect();
    let (port, notes) = open_port(&own.driver, &ips)?;
    let sessions = sessions_max as usize;
    let connections_max = sessions + CONNECTIONS_EXTRA;
    let tcp = TcpConfig {
        connections_max,
        send_buffer_bytes: TCP_BUFFER_BYTES,
        recv_buffer_bytes: TCP_BUFFER_BYTES,
        pool_bytes: TCP_POOL_BYTES,
        ..TcpConfig::default()
    };
    let sockets = SocketConfig { sockets_max: (connections_max + 64) as u32, ..SocketConfig::default() };
    let (engine, control) = socket_pair(sockets, connections_max, Box::new(move || wake.notify()), told);
    let config = StackConfig {
        iface,
        tcp,
        ports: [rtp_port, rtp_port.saturating_add(1)],
        // RTP and RTCP of two tracks a session.
        flows_max: 4 * sessions_max.max(4),
        streams_max: sessions_max,
        tx_frames,
        reserved_frames: RESERVED_FRAMES,
        ..StackConfig::default()
    };
    Ok((OwnNet { port, config, sockets: engine, seed: secret(), notes }, control))
}

fn open_port(driver: &Driver, ips: &[IpAddr]) -> Result<(AnyPort, Vec<String>), String> {
    match driver {
        Driver::AfXdp(interface) => {
            let mut options = af_xdp::Options::new(interface.clone());
            options.addresses = ips.to_vec();
            let mut opened = af_xdp::open(&options).map_err(|e| e.to_string())?;
            let port = opened.ports.pop().ok_or("the interface has no queue")?;
            if ips.iter().any(IpAddr::is_ipv6) {
                opened.steering.add_address(IpAddr::V6(link_local(port.mac()))).map_err(|e| e.to_string())?;
            }
            Ok((AnyPort::AfXdp(port), opened.notes))
        }
        Driver::Tap(name) => {
            let port = tap::TapPort::open(&tap::Options::new(name.clone())).map_err(|e| e.to_string())?;
            Ok((AnyPort::Tap(port), vec![format!("{name}: a TAP device costs a system call for each frame; af_xdp:IFACE is faster")]))
        }
    }
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
