//! How packets reach the network, and what addresses we have when it is not through the operating system.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use super::{Config, Conflict, ValueError};

/// An interface's name has at most this many bytes (IFNAMSIZ less the final zero).
const NAME_BYTES_MAX: usize = 15;
/// Own addresses at most.
const ADDRESSES_MAX: usize = 8;

/// How packets reach the network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Net {
    /// The operating system's sockets: no privileges needed.
    Kernel,
    /// Our own stack over AF_XDP queues of this interface.
    AfXdp(String),
    /// Our own stack over a TAP device of this name.
    Tap(String),
}

impl Net {
    /// Our own stack carries everything.
    pub fn is_own_stack(&self) -> bool {
        *self != Net::Kernel
    }
}

impl FromStr for Net {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let choices = "\"kernel\" (the operating system's sockets), \"af_xdp:IFACE\" and \"tap:NAME\" (our own stack)";
        match text.split_once(':') {
            None if text == "kernel" => Ok(Net::Kernel),
            Some(("af_xdp", name)) => interface(name).map(Net::AfXdp),
            Some(("tap", name)) => interface(name).map(Net::Tap),
            _ => Err(ValueError::Choice { text: text.to_owned(), choices }),
        }
    }
}

impl fmt::Display for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Net::Kernel => f.write_str("kernel"),
            Net::AfXdp(name) => write!(f, "af_xdp:{name}"),
            Net::Tap(name) => write!(f, "tap:{name}"),
        }
    }
}

/// A name that the kernel takes for an interface.
fn interface(name: &str) -> Result<String, ValueError> {
    let fits = (1..=NAME_BYTES_MAX).contains(&name.len()) && name != "." && name != "..";
    if fits && name.bytes().all(|b| b.is_ascii_graphic() && b != b'/' && b != b':') {
        Ok(name.to_owned())
    } else {
        Err(ValueError::Interface(name.to_owned()))
    }
}

/// An own address and the length of its network's prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnAddress {
    /// The address.
    pub ip: IpAddr,
    /// Bits of the prefix.
    pub prefix: u8,
}

impl OwnAddress {
    /// Is `ip` on the same link?
    fn reaches(&self, ip: IpAddr) -> bool {
        let bits = |ip: IpAddr| match ip {
            IpAddr::V4(v4) => (u128::from(v4.to_bits()) << 96, 32),
            IpAddr::V6(v6) => (v6.to_bits(), 128),
        };
        let ((own, width), (other, other_width)) = (bits(self.ip), bits(ip));
        let differing = (own ^ other).leading_zeros();
        width == other_width && differing >= u32::from(self.prefix)
    }
}

impl FromStr for OwnAddress {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let wrong = || ValueError::OwnAddress(text.to_owned());
        let (ip, prefix) = text.split_once('/').ok_or_else(wrong)?;
        let ip: IpAddr = ip.parse().map_err(|_| wrong())?;
        let prefix: u8 = prefix.parse().map_err(|_| wrong())?;
        let width = if ip.is_ipv4() { 32 } else { 128 };
        if prefix == 0 || prefix > width || ip.is_multicast() || ip.is_unspecified() || ip.is_loopback() {
            return Err(wrong());
        }
        Ok(Self { ip, prefix })
    }
}

impl fmt::Display for OwnAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.ip, self.prefix)
    }
}

/// A list of values parted by commas; empty for none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct List<T>(pub Vec<T>);

impl<T> Default for List<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: fmt::Display> fmt::Display for List<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (nth, value) in self.0.iter().enumerate() {
            write!(f, "{}{value}", if nth == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

/// Own addresses.
pub(super) fn own_addresses(text: &str) -> Result<List<OwnAddress>, ValueError> {
    let list: Vec<OwnAddress> = parts(text).map(str::parse).collect::<Result<_, _>>()?;
    if list.len() > ADDRESSES_MAX {
        return Err(ValueError::TooMany { text: text.to_owned(), max: ADDRESSES_MAX });
    }
    Ok(List(list))
}

/// Gateways: one of each family.
pub(super) fn gateways(text: &str) -> Result<List<IpAddr>, ValueError> {
    let wrong = |part: &str| ValueError::Gateway(part.to_owned());
    let list: Vec<IpAddr> = parts(text).map(|part| part.parse().map_err(|_| wrong(part))).collect::<Result<_, _>>()?;
    let of = |v4: bool| list.iter().filter(|ip| ip.is_ipv4() == v4).count();
    if of(true) > 1 || of(false) > 1 {
        return Err(wrong(text));
    }
    Ok(List(list))
}

/// What stands between commas.
pub(super) fn parts(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|part| !part.is_empty())
}

/// Checks what the options of the network say together.
pub(super) fn check(config: &Config) -> Result<(), Conflict> {
    let Config { net, ip, gateway, rtsp, .. } = config;
    if !net.is_own_stack() {
        return if ip.0.is_empty() && gateway.0.is_empty() { Ok(()) } else { Err(Conflict::AddressesOfKernel) };
    }
    if ip.0.is_empty() {
        return Err(Conflict::NoAddress(net.clone()));
    }
    if let Some(&lost) = gateway.0.iter().find(|gateway| !ip.0.iter().any(|own| own.reaches(**gateway))) {
        return Err(Conflict::GatewayOffLink(lost));
    }
    if !listens_on_own(*rtsp, &ip.0) {
        return Err(Conflict::RtspElsewhere(*rtsp));
    }
    if config.rtp_port == 0 || rtsp.port() == 0 {
        return Err(Conflict::AnyPort);
    }
    Ok(())
}

fn listens_on_own(rtsp: SocketAddr, own: &[OwnAddress]) -> bool {
    rtsp.ip().is_unspecified() || own.iter().any(|own| own.ip == rtsp.ip())
}
