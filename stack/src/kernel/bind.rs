//! Start of the kernel host: settings, the even/odd pair of UDP sockets, and what the kernel granted.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsFd;

use socket2::{Domain, Protocol, Socket, Type};

use super::sockopt;
use crate::address::LOCAL_PORTS;
use crate::slots::SLOTS_MAX;

/// Settings of a [`KernelHost`](super::KernelHost). All memory follows from them and is taken by `bind`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelConfig {
    /// Even UDP port wanted for RTP; RTCP gets the next. 0 takes any even/odd pair that is free.
    pub port: u16,
    /// How many pairs to try upwards from `port` (`port`, `port` + 2, ...), at least 1.
    pub port_pairs: u16,
    /// IPv6 as well as IPv4, when the machine has it.
    pub ipv6: bool,
    /// Flows that may be open at once.
    pub flows_max: u32,
    /// Byte streams that may be attached at once. Each takes 16 KiB of memory, and up to its whole queue once its peer fell behind.
    pub streams_max: u32,
    /// Frames of the transmit queue, 1 to 1,024: the largest batch of one flush.
    pub tx_frames: usize,
    /// Largest payload of a datagram in bytes, at most 65,487. 1,472 fills an Ethernet frame over IPv4.
    pub max_datagram_bytes: usize,
    /// Send queue of each byte stream, bytes.
    pub stream_queue_bytes: usize,
    /// Send and receive buffer asked for each UDP socket, bytes.
    pub socket_buffer_bytes: usize,
    /// Join equal datagrams to one client into one system call's message (UDP GSO), when the kernel can.
    pub gso: bool,
}

impl Default for KernelConfig {
    fn default() -> Self {
        Self {
            port: 6970,
            port_pairs: 1,
            ipv6: true,
            flows_max: 4096,
            streams_max: 1024,
            tx_frames: 64,
            max_datagram_bytes: 1472,
            stream_queue_bytes: 256 << 10,
            socket_buffer_bytes: 4 << 20,
            gso: true,
        }
    }
}

/// Why a kernel host could not start.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// A setting is out of its range.
    #[error("{setting} = {value} is not possible: {range}")]
    Setting {
        /// Which.
        setting: &'static str,
        /// What it was.
        value: u64,
        /// What it may be.
        range: &'static str,
    },
    /// Every pair of the range is in use.
    #[error("UDP ports {first} to {last} are in use; choose another port or a longer range")]
    PortsTaken {
        /// First port tried.
        first: u16,
        /// Last port tried.
        last: u16,
    },
    /// The send queues of the byte streams are larger than this machine's memory.
    #[error("no memory for streams_max = {streams_max} send queues of {stream_queue_bytes} bytes; choose fewer or smaller ones")]
    Memory {
        /// As configured.
        streams_max: u32,
        /// As configured.
        stream_queue_bytes: usize,
    },
    /// A socket could not be made or bound.
    #[error("cannot {what}: {source}")]
    Socket {
        /// What was tried.
        what: String,
        /// The kernel's answer.
        source: io::Error,
    },
}

impl BindError {
    fn socket(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Socket { what, source }
    }
}

/// Tries for any free pair: each costs two sockets.
const ANY_PAIR_TRIES: u32 = 64;

/// The bound sockets.
pub(super) struct Bound {
    pub sockets: [Socket; LOCAL_PORTS],
    pub ports: [u16; LOCAL_PORTS],
    /// They are IPv6 sockets that serve IPv4 too.
    pub ipv6: bool,
    pub gso: bool,
    /// One line each, for the start-up message.
    pub notes: Vec<String>,
}

fn check(config: &KernelConfig) -> Result<(), BindError> {
    let settings = [
        ("port", u64::from(config.port), config.port.is_multiple_of(2), "an even port, or 0 for any"),
        ("port_pairs", u64::from(config.port_pairs), config.port_pairs >= 1, "at least 1"),
        ("flows_max", u64::from(config.flows_max), config.flows_max <= SLOTS_MAX, "at most 4194304"),
        ("streams_max", u64::from(config.streams_max), config.streams_max <= 1 << 16, "at most 65536"),
        ("tx_frames", config.tx_frames as u64, (1..=1024).contains(&config.tx_frames), "1 to 1024"),
        (
            "max_datagram_bytes",
            config.max_datagram_bytes as u64,
            (1..=65_487).contains(&config.max_datagram_bytes),
            "1 to 65487 (what IP carries)",
        ),
        ("stream_queue_bytes", config.stream_queue_bytes as u64, config.stream_queue_bytes <= 1 << 30, "at most 1073741824"),
    ];
    for (setting, value, fine, range) in settings {
        if !fine {
            return Err(BindError::Setting { setting, value, range });
        }
    }
    // Asked for in one piece and given back untouched: the kernel refuses what could never be there.
    let KernelConfig { streams_max, stream_queue_bytes, .. } = *config;
    let queues_bytes = stream_queue_bytes.saturating_mul(streams_max as usize);
    let mut probe: Vec<u8> = Vec::new();
    let granted = probe.try_reserve_exact(queues_bytes);
    // An allocation that nobody looks at may be optimised away, and the refusal with it.
    std::hint::black_box(&probe);
    granted.map_err(|_| BindError::Memory { streams_max, stream_queue_bytes })
}

/// Binds a pair and prepares both sockets.
pub(super) fn bind(config: &KernelConfig) -> Result<Bound, BindError> {
    check(config)?;
    let mut notes = Vec::new();
    let ipv6 = config.ipv6 && {
        let works = open(true).and_then(|socket| socket.bind(&any(true, 0).into()));
        if let Err(error) = &works {
            notes.push(format!("IPv6 does not work on this machine ({error}): IPv4 only"));
        }
        works.is_ok()
    };
    let sockets = if config.port == 0 { any_pair(ipv6)? } else { pair_in_range(config, ipv6)? };
    let mut ports = [0; LOCAL_PORTS];
    for (port, socket) in ports.iter_mut().zip(&sockets) {
        *port = local_port(socket)?;
    }
    let families = if ipv6 { "IPv4 and IPv6" } else { "IPv4" };
    notes.push(format!("UDP ports {} and {} on all {families} addresses", ports[0], ports[1]));
    size_buffers(&sockets, config.socket_buffer_bytes, &mut notes);
    forbid_fragments(&sockets);
    let gso = config.gso && sockets.iter().all(segments);
    notes.push(match (config.gso, gso) {
        (true, true) => "bursts to one client are joined (UDP GSO)".to_owned(),
        (true, false) => "this kernel has no UDP GSO: every datagram is sent singly".to_owned(),
        (false, _) => "UDP GSO is switched off".to_owned(),
    });
    Ok(Bound { sockets, ports, ipv6, gso, notes })
}

fn any(ipv6: bool, port: u16) -> SocketAddr {
    if ipv6 { SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)) } else { SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)) }
}

fn open(ipv6: bool) -> io::Result<Socket> {
    let socket = Socket::new(if ipv6 { Domain::IPV6 } else { Domain::IPV4 }, Type::DGRAM, Some(Protocol::UDP))?;
    if ipv6 {
        socket.set_only_v6(false)?;
    }
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn bound(ipv6: bool, port: u16) -> io::Result<Socket> {
    let socket = open(ipv6)?;
    socket.bind(&any(ipv6, port).into())?;
    Ok(socket)
}

fn local_port(socket: &Socket) -> Result<u16, BindError> {
    let address = socket.local_addr().map_err(BindError::socket("read the port of a UDP socket"))?;
    Ok(address.as_socket().map_or(0, |address| address.port()))
}

fn pair_in_range(config: &KernelConfig, ipv6: bool) -> Result<[Socket; LOCAL_PORTS], BindError> {
    let first = config.port;
    let mut last = first;
    for even in (first..u16::MAX).step_by(2).take(usize::from(config.port_pairs)) {
        last = even + 1;
        match bound(ipv6, even).and_then(|rtp| Ok([rtp, bound(ipv6, last)?])) {
            Ok(pair) => return Ok(pair),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
            Err(error) => return Err(BindError::socket(format!("bind UDP ports {even} and {last}"))(error)),
        }
    }
    Err(BindError::PortsTaken { first, last })
}

fn any_pair(ipv6: bool) -> Result<[Socket; LOCAL_PORTS], BindError> {
    for _ in 0..ANY_PAIR_TRIES {
        let one = bound(ipv6, 0).map_err(BindError::socket("bind any UDP port"))?;
        let port = local_port(&one)?;
        match bound(ipv6, port ^ 1) {
            Ok(other) if port.is_multiple_of(2) => return Ok([one, other]),
            Ok(other) => return Ok([other, one]),
            Err(_) => {}
        }
    }
    Err(BindError::PortsTaken { first: 1024, last: u16::MAX })
}

fn size_buffers(sockets: &[Socket], bytes: usize, notes: &mut Vec<String>) {
    let wanted = i32::try_from(bytes).unwrap_or(i32::MAX / 2);
    let sides = [
        ("send", libc::SO_SNDBUFFORCE, libc::SO_SNDBUF, "net.core.wmem_max"),
        ("receive", libc::SO_RCVBUFFORCE, libc::SO_RCVBUF, "net.core.rmem_max"),
    ];
    for (side, force, plain, limit) in sides {
        for socket in sockets {
            if sockopt::set_int(socket.as_fd(), libc::SOL_SOCKET, force, wanted).is_err() {
                // The kernel cuts this one to its limit; what it granted is read below.
                let _ = sockopt::set_int(socket.as_fd(), libc::SOL_SOCKET, plain, wanted);
            }
        }
        let granted = sockets.iter().map(|socket| if side == "send" { socket.send_buffer_size() } else { socket.recv_buffer_size() });
        // The kernel doubles what it is asked for, to pay for its own bookkeeping.
        let granted = granted.map(|size| size.unwrap_or(0) / 2).min().unwrap_or(0);
        notes.push(if granted >= bytes {
            format!("UDP {side} buffers of {} KiB", granted >> 10)
        } else {
            format!("UDP {side} buffers of {} KiB where {} KiB were wanted; raise {limit}", granted >> 10, bytes >> 10)
        });
    }
}

/// Datagrams are sent whole or not at all until one meets a narrower path. The gain: while fragments are possible, the kernel draws an IP
/// identification for each datagram from a table that all cores share, which was measured at 8 % of the whole cost of sending.
fn forbid_fragments(sockets: &[Socket]) {
    for socket in sockets {
        // Where it is refused, sending costs a little more.
        let _ = sockopt::set_int(socket.as_fd(), libc::SOL_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_DO);
    }
}

/// The kernel knows UDP_SEGMENT (Linux 4.18); 0 leaves single sends as they are.
fn segments(socket: &Socket) -> bool {
    sockopt::set_int(socket.as_fd(), libc::SOL_UDP, libc::UDP_SEGMENT, 0).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_out_of_range_are_named() {
        let base = KernelConfig { port: 0, ..KernelConfig::default() };
        let cases = [
            (KernelConfig { port: 6971, ..base }, "port"),
            (KernelConfig { port_pairs: 0, ..base }, "port_pairs"),
            (KernelConfig { flows_max: u32::MAX, ..base }, "flows_max"),
            (KernelConfig { streams_max: 1 << 17, ..base }, "streams_max"),
            (KernelConfig { tx_frames: 0, ..base }, "tx_frames"),
            (KernelConfig { tx_frames: 1025, ..base }, "tx_frames"),
            (KernelConfig { max_datagram_bytes: 0, ..base }, "max_datagram_bytes"),
            (KernelConfig { max_datagram_bytes: 1 << 16, ..base }, "max_datagram_bytes"),
            (KernelConfig { stream_queue_bytes: 2 << 30, ..base }, "stream_queue_bytes"),
        ];
        for (config, name) in cases {
            let Err(BindError::Setting { setting, .. }) = bind(&config) else { panic!("{name} was taken") };
            assert_eq!(setting, name);
        }
    }

    #[test]
    fn more_memory_than_there_is_is_an_error() {
        let config = KernelConfig { port: 0, streams_max: 1 << 16, stream_queue_bytes: 1 << 30, ..KernelConfig::default() };
        assert!(matches!(bind(&config), Err(BindError::Memory { streams_max: 65_536, .. })));
    }

    #[test]
    fn takes_the_next_free_pair_of_the_range_and_says_when_there_is_none() {
        let first = bind(&KernelConfig { port: 0, ..KernelConfig::default() }).unwrap();
        assert!(first.ports[0].is_multiple_of(2) && first.ports[1] == first.ports[0] + 1);
        let taken = KernelConfig { port: first.ports[0], ..KernelConfig::default() };
        assert!(matches!(bind(&taken), Err(BindError::PortsTaken { first: even, last }) if even == first.ports[0] && last == even + 1));
        let second = bind(&KernelConfig { port_pairs: 200, ..taken }).unwrap();
        assert!(second.ports[0] > first.ports[0] && second.ports[0].is_multiple_of(2));
    }

    #[test]
    fn the_last_pair_is_the_end_of_the_range() {
        let config = KernelConfig { port: 65_534, port_pairs: 9, ..KernelConfig::default() };
        let held = bound(false, 65_534);
        match bind(&config) {
            Err(BindError::PortsTaken { first, last }) => assert_eq!((first, last), (65_534, 65_535)),
            Ok(_) => panic!("bound a port that {held:?} holds"),
            Err(other) => panic!("{other}"),
        }
    }

    #[test]
    fn says_what_the_kernel_granted() {
        let bound = bind(&KernelConfig { port: 0, socket_buffer_bytes: 1 << 30, ..KernelConfig::default() }).unwrap();
        assert_eq!(bound.notes.iter().filter(|note| note.contains("buffers of")).count(), 2, "{:?}", bound.notes);
        assert!(bound.notes.iter().any(|note| note.contains(&bound.ports[0].to_string())));
    }
}
