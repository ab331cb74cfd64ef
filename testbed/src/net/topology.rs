//! The topology file: hosts, the links between them, and what wires do to frames.
//!
//! ```toml
//! name = "dsl"                          # otherwise the name of the file
//!
//! [hosts.server]
//! [hosts.client]
//! routes = [{ to = "default", via = "10.0.0.1" }]
//! [hosts.router]
//! forward = true                        # forwards IP packets
//!
//! [[links]]
//! name = "line"
//! ends = [
//!     { host = "server", addresses = ["10.0.0.1/24", "fd00::1/64"] },
//!     { host = "client", addresses = ["10.0.0.2/24", "fd00::2/64"], interface = "dsl0" },
//! ]
//! mtu = 1500
//! wire = { rate = "50 Mbps", delay = "10 ms", queue = "256 KiB" }    # both directions; without it the ends are joined directly
//! forward = { loss = "1%" }             # from the first end to the second, over what `wire` says
//! backward = { rate = "10 Mbps" }       # and back
//! ```
//!
//! A key that is not known and a value that cannot be are errors that name the line.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer};
use stack::wire::{WireConfig, WirePool};
use toml::Spanned;

use super::impairments::Impairments;

/// Longest file that is read, bytes.
pub const FILE_BYTES_MAX: usize = 256 << 10;
/// Longest name of a topology or a host.
const NAME_BYTES_MAX: usize = 64;
/// Longest name of an interface (IFNAMSIZ of Linux, without its end).
const INTERFACE_BYTES_MAX: usize = 15;
/// The host name that stands for the namespace of the wires.
pub const WIRE_HOST: &str = "wire";
/// Hosts and links of a topology.
const PARTS_MAX: usize = 200;
/// Frames on a wire, at most; 2 KiB of memory each, touched when used.
const WIRE_FRAMES_MAX: u64 = 1 << 16;

/// A mistake in a topology.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}:{column}: {problem}", file = .file.display())]
pub struct TopologyError {
    /// The file.
    pub file: PathBuf,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// What is wrong.
    pub problem: String,
}

/// A topology.
#[derive(Clone, Debug)]
pub struct Topology {
    name: String,
    hosts: BTreeMap<String, Host>,
    links: Vec<Link>,
    text: String,
}

/// A host: a network namespace.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Host {
    /// It forwards IP packets.
    pub forward: bool,
    /// Its routes beside those of its addresses.
    pub routes: Vec<Route>,
}

/// A route.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// Where to: a network, or "default".
    pub to: Destination,
    /// The next hop.
    pub via: IpAddr,
}

/// A link.
#[derive(Clone, Debug)]
pub struct Link {
    /// Name, unique in the topology.
    pub name: String,
    /// Its ends.
    pub ends: [End; 2],
    /// Bytes of the largest IP packet.
    pub mtu_bytes: u32,
    /// Leave checksums and segmentation to the receiving end, as veths do by default. Only without a wire, and not for receivers other than
    /// the kernel's.
    pub offload: bool,
    /// Settings from the first end to the second and back. `None`: joined directly.
    pub wire: Option<[WireConfig; 2]>,
    /// Seed of chance.
    pub seed: u64,
}

/// An end of a link.
#[derive(Clone, Debug)]
pub struct End {
    /// The host.
    pub host: String,
    /// Name of the interface there.
    pub interface: String,
    /// Its addresses.
    pub addresses: Vec<Network>,
}

/// An address with the length of its network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    /// Address.
    pub address: IpAddr,
    /// Bits of the network.
    pub bits: u8,
}

/// Where a route leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destination {
    /// Anywhere.
    Default,
    /// To a network.
    Network(Network),
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::Network(network) => network.fmt(f),
        }
    }
}

impl std::str::FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not an address with the length of its network; write 10.0.0.1/24 or fd00::1/64");
        let (address, bits) = text.split_once('/').ok_or_else(wrong)?;
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits: u8 = bits.parse().ok().filter(|bits| *bits <= most).ok_or_else(wrong)?;
        Ok(Self { address, bits })
    }
}

impl<'de> Deserialize<'de> for Network {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl<'de> Deserialize<'de> for Destination {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match String::deserialize(deserializer)?.as_str() {
            "default" => Ok(Self::Default),
            text => text.parse().map(Self::Network).map_err(serde::de::Error::custom),
        }
    }
}

/// The file as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    name: Option<Spanned<String>>,
    hosts: BTreeMap<Spanned<String>, Host>,
    #[serde(default)]
    links: Vec<FileLink>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileLink {
    name: Spanned<String>,
    ends: Spanned<Vec<FileEnd>>,
    #[serde(default = "mtu_default")]
    mtu: Spanned<u32>,
    #[serde(default)]
    offload: Option<Spanned<bool>>,
    wire: Option<Impairments>,
    forward: Option<Spanned<Impairments>>,
    backward: Option<Spanned<Impairments>>,
    #[serde(default)]
    seed: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileEnd {
    host: Spanned<String>,
    interface: Option<Spanned<String>>,
    #[serde(default)]
    addresses: Vec<Network>,
}

fn mtu_default() -> Spanned<u32> {
    Spanned::new(0..0, 1500)
}

/// A problem and where in the text it is.
struct Fault {
    span: Range<usize>,
    problem: String,
}

fn fault<T>(at: &Spanned<T>, problem: impl Into<String>) -> Fault {
    Fault { span: at.span(), problem: problem.into() }
}

/// Whether a name may be that of a topology or a host: it becomes part of the name of a namespace.
pub fn is_name(name: &str) -> bool {
    let ok = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
    !name.is_empty() && name.len() <= NAME_BYTES_MAX && name.chars().all(ok) && !name.starts_with(['-', '_'])
}

const NAME_RULE: &str = "a name has at most 64 lower-case letters, digits, '-' and '_', and begins with a letter or a digit";

fn is_interface(name: &str) -> bool {
    let ok = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_' || c == '.';
    !name.is_empty()
        && name.len() <= INTERFACE_BYTES_MAX
        && name.chars().all(ok)
        && !matches!(name, "." | ".." | "lo")
        && !name.starts_with('-')
}

impl Topology {
    /// Reads a file. Its name without `.toml` is that of the topology unless the file says another.
    ///
    /// # Errors
    /// The file cannot be read, or the first mistake in it.
    pub fn read(path: &Path) -> Result<Self, TopologyError> {
        use std::io::Read as _;
        let mut bytes = Vec::new();
        let read = std::fs::File::open(path).and_then(|file| file.take(FILE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes));
        let wrong = |problem| TopologyError { file: path.to_owned(), line: 1, column: 1, problem };
        read.map_err(|e| wrong(e.to_string()))?;
        let text = String::from_utf8(bytes).map_err(|_| wrong("not UTF-8 text".to_owned()))?;
        Self::parse(&text, path)
    }

    /// Reads a text; errors call it `topology.toml`, and that is where its name comes from unless it says one.
    ///
    /// # Errors
    /// The first mistake.
    pub fn from_toml(text: &str) -> Result<Self, TopologyError> {
        Self::parse(text, Path::new("topology.toml"))
    }

    /// Reads a text; `path` is what errors call it.
    ///
    /// # Errors
    /// The first mistake.
    pub fn parse(text: &str, path: &Path) -> Result<Self, TopologyError> {
        let named = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        let checked = if text.len() > FILE_BYTES_MAX {
            Err(Fault { span: 0..0, problem: format!("longer than {FILE_BYTES_MAX} bytes; is it a topology?") })
        } else {
            toml::from_str::<File>(text)
                .map_err(|e| Fault { span: e.span().unwrap_or(0..0), problem: e.message().to_owned() })
                .and_then(|file| check(file, named, text))
        };
        checked.map_err(|Fault { span, problem }| {
            let before = text.get(..span.start).unwrap_or_default();
            let line = 1 + before.matches('\n').count();
            let column = 1 + before.rsplit('\n').next().unwrap_or_default().chars().count();
            TopologyError { file: path.to_owned(), line, column, problem }
        })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The same topology under another name.
    ///
    /// # Errors
    /// It is no name.
    pub fn named(mut self, name: &str) -> Result<Self, String> {
        if !is_name(name) {
            return Err(format!("{name:?}: {NAME_RULE}"));
        }
        name.clone_into(&mut self.name);
        Ok(self)
    }

    /// Its hosts by name.
    pub fn hosts(&self) -> &BTreeMap<String, Host> {
        &self.hosts
    }

    /// Its links.
    pub fn links(&self) -> &[Link] {
        &self.links
    }

    /// Whether any link has a wire.
    pub fn has_wires(&self) -> bool {
        self.links.iter().any(|link| link.wire.is_some())
    }

    /// The text that it was read from.
    pub fn text(&self) -> &str {
        &self.text
    }
}

impl Link {
    /// Memory for one direction: what can wait and be on its way at once, were all frames of the shortest kind, within bounds.
    pub fn pool(&self, config: &WireConfig) -> WirePool {
        let rate_bps = if config.rate_bps == 0 { 1_000_000_000 } else { config.rate_bps };
        let longest_ns = config.delay_ns.saturating_add(config.jitter.amount_ns.saturating_mul(3)).saturating_add(config.hold_back_ns);
        let flying = u128::from(rate_bps) * u128::from(longest_ns) / (84 * 8 * 1_000_000_000);
        let frames = u64::try_from(flying).unwrap_or(u64::MAX).saturating_add(config.queue_frames as u64);
        let frames = frames.clamp(4096, WIRE_FRAMES_MAX);
        WirePool { frames: frames as u32, frame_bytes: self.mtu_bytes as usize + 18 }
    }
}

fn check(file: File, named: String, text: &str) -> Result<Topology, Fault> {
    let name = match &file.name {
        Some(name) if is_name(name.get_ref()) => name.get_ref().clone(),
        Some(name) => return Err(fault(name, NAME_RULE)),
        None if is_name(&named) => named,
        None => {
            return Err(Fault {
                span: 0..0,
                problem: format!("the file's name {named:?} is no name: {NAME_RULE}; or give it one: name = \"...\""),
            });
        }
    };
    for host in file.hosts.keys() {
        if !is_name(host.get_ref()) || host.get_ref() == WIRE_HOST {
            return Err(fault(host, format!("{NAME_RULE}, and {WIRE_HOST:?} is taken")));
        }
    }
    if file.hosts.is_empty() || file.hosts.len() > PARTS_MAX || file.links.len() > PARTS_MAX {
        return Err(Fault { span: 0..0, problem: format!("a topology has 1 to {PARTS_MAX} hosts and up to {PARTS_MAX} links") });
    }
    let hosts: BTreeMap<String, Host> = file.hosts.into_iter().map(|(name, host)| (name.into_inner(), host)).collect();
    let mut links: Vec<Link> = Vec::new();
    for link in file.links {
        if !is_name(link.name.get_ref()) {
            return Err(fault(&link.name, NAME_RULE));
        }
        if links.iter().any(|other| other.name == *link.name.get_ref()) {
            return Err(fault(&link.name, format!("there are two links {:?}", link.name.get_ref())));
        }
        let link = check_link(link, &hosts, &links)?;
        links.push(link);
    }
    Ok(Topology { name, hosts, links, text: text.to_owned() })
}

fn check_link(link: FileLink, hosts: &BTreeMap<String, Host>, others: &[Link]) -> Result<Link, Fault> {
    let mtu_bytes = *link.mtu.get_ref();
    if !(576..=9000).contains(&mtu_bytes) {
        return Err(fault(&link.mtu, "mtu: from 576 to 9000 bytes"));
    }
    let two_ends = fault(&link.ends, "a link has two ends");
    let mut taken: Vec<(String, String)> =
        others.iter().flat_map(|other| &other.ends).map(|end| (end.host.clone(), end.interface.clone())).collect();
    let mut ends = Vec::new();
    for end in link.ends.into_inner() {
        let end = check_end(end, hosts, &taken)?;
        taken.push((end.host.clone(), end.interface.clone()));
        ends.push(end);
    }
    let ends = <[End; 2]>::try_from(ends).map_err(|_| two_ends)?;
    let mut wire = link.wire.map(|settings| {
        let mut config = WireConfig::default();
        settings.apply(&mut config);
        [config; 2]
    });
    for (direction, settings) in [(0, &link.forward), (1, &link.backward)] {
        let Some(settings) = settings else { continue };
        let Some(config) = wire.as_mut().and_then(|both| both.get_mut(direction)) else {
            return Err(fault(settings, "settings of a direction need a wire: wire = {}"));
        };
        settings.get_ref().apply(config);
    }
    if let Some(offload) = &link.offload
        && *offload.get_ref()
        && wire.is_some()
    {
        return Err(fault(offload, "a wire needs finished frames: offload is for links without one"));
    }
    let offload = link.offload.is_some_and(Spanned::into_inner);
    Ok(Link { name: link.name.into_inner(), ends, mtu_bytes, offload, wire, seed: link.seed })
}

fn check_end(end: FileEnd, hosts: &BTreeMap<String, Host>, taken: &[(String, String)]) -> Result<End, Fault> {
    let host = end.host.get_ref();
    if !hosts.contains_key(host) {
        let known: Vec<&str> = hosts.keys().map(String::as_str).collect();
        return Err(fault(&end.host, format!("there is no host {host:?}; the hosts are {}", known.join(", "))));
    }
    let is_free = |name: &str| !taken.iter().any(|(at, interface)| at == host && interface == name);
    let interface = match &end.interface {
        Some(name) if !is_interface(name.get_ref()) => {
            return Err(fault(name, "an interface's name has at most 15 letters, digits, '-', '_' and '.'"));
        }
        Some(name) if !is_free(name.get_ref()) => return Err(fault(name, format!("{host} has two interfaces {:?}", name.get_ref()))),
        Some(name) => name.get_ref().clone(),
        None => (0..).map(|n| format!("eth{n}")).find(|name| is_free(name)).unwrap_or_default(),
    };
    Ok(End { host: host.clone(), interface, addresses: end.addresses })
}

#[cfg(test)]
mod tests;
