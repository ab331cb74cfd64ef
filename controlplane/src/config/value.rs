//! Types of option values and their text forms.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::units::{ByteSize, CpuList, UnitError};

/// Why a value was refused. Messages name the value and what would be right; the caller names the option and the place.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ValueError {
    /// A size or a list of CPUs.
    #[error(transparent)]
    Unit(#[from] UnitError),
    /// Not a whole number in the range.
    #[error("{text:?} is not a whole number from {min} to {max}{unit}")]
    Number {
        /// What was given.
        text: String,
        /// Lowest value allowed.
        min: u32,
        /// Highest value allowed.
        max: u32,
        /// " seconds", or nothing.
        unit: &'static str,
    },
    /// A size outside its range.
    #[error("{size} is outside {min} to {max}")]
    SizeRange {
        /// What was given.
        size: ByteSize,
        /// Lowest value allowed.
        min: ByteSize,
        /// Highest value allowed.
        max: ByteSize,
    },
    /// Disk reads are whole pages.
    #[error("{0} is not a multiple of 4 KiB")]
    NotWholePages(ByteSize),
    /// RTP ports are even, RTCP takes the odd one above (RFC 3550 11).
    #[error("{0} is odd: RTP takes an even port and RTCP the one above it")]
    OddPort(u32),
    /// Not an address.
    #[error("{text:?} is not an address; write IP:PORT as in \"0.0.0.0:8554\" or \"[::]:8554\"{or}")]
    Address {
        /// What was given.
        text: String,
        /// `, or "off"` where that is allowed.
        or: &'static str,
    },
    /// Not one of the words.
    #[error("{text:?} does not exist; there is {choices}")]
    Choice {
        /// What was given.
        text: String,
        /// The words.
        choices: &'static str,
    },
    /// Not the name of an interface.
    #[error("{0:?} is not the name of a network interface: 1 to 15 printable characters without '/' and ':'")]
    Interface(String),
    /// Not an own address.
    #[error("{0:?} is not an address of ours; write ADDRESS/PREFIX as in \"192.0.2.10/24\" or \"2001:db8::10/64\"")]
    OwnAddress(String),
    /// Not one gateway for each family.
    #[error("{0:?} is not a gateway; write an address, or one IPv4 and one IPv6 address with a comma between")]
    Gateway(String),
    /// A list that is too long.
    #[error("{text:?} has more than {max} entries")]
    TooMany {
        /// What was given.
        text: String,
        /// Entries allowed.
        max: usize,
    },
    /// Not a rule that gives paths a class.
    #[error("{0:?} is not a rule; write PREFIX=CLASS, several with commas between them: \"news/=guaranteed, trailers/=best-effort\"")]
    ClassRule(String),
    /// Not a rule that gives networks a class.
    #[error(
        "{0:?} is not a rule; write NETWORK=CLASS, several with commas between them: \"10.1.0.0/16=guaranteed, 10.0.0.0/8=best-effort\""
    )]
    ClassClient(String),
    /// Not a network.
    #[error("{0:?} is not a network; write \"off\", \"any\", or addresses with the bits that count: \"10.0.0.0/8,::1\"")]
    Network(String),
    /// Not the beginning of a path.
    #[error("{0:?} is not the beginning of a path; write \"off\", or several with commas between: \"live/,studio/\"")]
    RecordPath(String),
    /// Not a live source.
    #[error("{0:?} is not a live source; write PATH=udp://ADDRESS:PORT, several with commas between: \"live/news=udp://239.1.1.1:5000\"")]
    Source(String),
    /// Not a usable path.
    #[error("{0:?} is not a path: it is empty or contains a NUL byte")]
    Path(String),
}

/// What an engine core does when nothing is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Poll {
    /// Polls on: most punctual, one CPU always busy.
    Busy,
    /// Sleeps until the next deadline.
    Adaptive,
}

impl FromStr for Poll {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        match text {
            "busy" => Ok(Poll::Busy),
            "adaptive" => Ok(Poll::Adaptive),
            _ => Err(ValueError::Choice { text: text.to_owned(), choices: "\"busy\" and \"adaptive\"" }),
        }
    }
}

impl fmt::Display for Poll {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Poll::Busy => "busy",
            Poll::Adaptive => "adaptive",
        })
    }
}

/// CPUs of the engine cores.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EngineCores {
    /// One engine core, on the last CPU that the process may run on.
    Auto,
    /// One engine core on each.
    List(CpuList),
}

impl EngineCores {
    /// Number of engine cores.
    pub fn count(&self) -> usize {
        match self {
            EngineCores::Auto => 1,
            EngineCores::List(list) => list.as_slice().len(),
        }
    }
}

impl FromStr for EngineCores {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        match text {
            "auto" => Ok(EngineCores::Auto),
            list => Ok(EngineCores::List(list.parse()?)),
        }
    }
}

impl fmt::Display for EngineCores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EngineCores::Auto => f.write_str("auto"),
            EngineCores::List(list) => list.fmt(f),
        }
    }
}

/// Where the monitor listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HttpListen {
    /// Nowhere.
    Off,
    /// Here.
    On(SocketAddr),
}

impl FromStr for HttpListen {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        match text {
            "off" => Ok(HttpListen::Off),
            _ => address(text, ", or \"off\"").map(HttpListen::On),
        }
    }
}

impl fmt::Display for HttpListen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HttpListen::Off => f.write_str("off"),
            HttpListen::On(address) => address.fmt(f),
        }
    }
}

/// Where media indexes are kept between runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IndexCache {
    /// `$CACHE_DIRECTORY`, `$XDG_CACHE_HOME/tactus` or `$HOME/.cache/tactus`; nowhere when none of these is set.
    Auto,
    /// Nowhere: every start reads every file's index anew.
    Off,
    /// In this folder.
    Dir(PathBuf),
}

impl IndexCache {
    /// The folder, with `env` to look up environment variables; `None` for nowhere.
    pub fn resolve(&self, env: impl Fn(&str) -> Option<String>) -> Option<PathBuf> {
        let set = |name| env(name).filter(|value| value.starts_with('/'));
        match self {
            IndexCache::Off => None,
            IndexCache::Dir(dir) => Some(dir.clone()),
            IndexCache::Auto => set("CACHE_DIRECTORY")
                .map(PathBuf::from)
                .or_else(|| set("XDG_CACHE_HOME").map(|dir| PathBuf::from(dir).join("tactus")))
                .or_else(|| set("HOME").map(|dir| PathBuf::from(dir).join(".cache/tactus"))),
        }
    }
}

impl FromStr for IndexCache {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        match text {
            "auto" => Ok(IndexCache::Auto),
            "off" => Ok(IndexCache::Off),
            dir => path(dir).map(IndexCache::Dir),
        }
    }
}

impl fmt::Display for IndexCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            IndexCache::Auto => f.write_str("auto"),
            IndexCache::Off => f.write_str("off"),
            IndexCache::Dir(dir) => dir.display().fmt(f),
        }
    }
}

/// A folder for something that may be left off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Folder {
    /// It is off.
    Off,
    /// This folder.
    Dir(PathBuf),
}

impl Folder {
    /// The folder.
    pub fn dir(&self) -> Option<&Path> {
        match self {
            Folder::Off => None,
            Folder::Dir(dir) => Some(dir),
        }
    }
}

impl FromStr for Folder {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        match text {
            "off" => Ok(Folder::Off),
            dir => path(dir).map(Folder::Dir),
        }
    }
}

impl fmt::Display for Folder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Folder::Off => f.write_str("off"),
            Folder::Dir(dir) => dir.display().fmt(f),
        }
    }
}

/// What is logged: this level and the graver ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    /// What failed.
    Error,
    /// What needs a look.
    Warn,
    /// What an operator wants to know.
    Info,
    /// What a developer wants to know.
    Debug,
    /// Everything.
    Trace,
}

impl FromStr for LogLevel {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        match text {
            "error" => Ok(LogLevel::Error),
            "warn" => Ok(LogLevel::Warn),
            "info" => Ok(LogLevel::Info),
            "debug" => Ok(LogLevel::Debug),
            "trace" => Ok(LogLevel::Trace),
            _ => Err(ValueError::Choice { text: text.to_owned(), choices: "\"error\", \"warn\", \"info\", \"debug\" and \"trace\"" }),
        }
    }
}

impl fmt::Display for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            LogLevel::Error => "error",
            LogLevel::Warn => "warn",
            LogLevel::Info => "info",
            LogLevel::Debug => "debug",
            LogLevel::Trace => "trace",
        })
    }
}

/// What becomes of a stream that is further behind than it may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LagAction {
    /// It goes on with the first sync sample that is not late.
    Skip,
    /// It ends.
    End,
}

impl FromStr for LagAction {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        match text {
            "skip" => Ok(LagAction::Skip),
            "end" => Ok(LagAction::End),
            _ => Err(ValueError::Choice { text: text.to_owned(), choices: "\"skip\" and \"end\"" }),
        }
    }
}

impl fmt::Display for LagAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            LagAction::Skip => "skip",
            LagAction::End => "end",
        })
    }
}

/// "on" or "off".
pub(super) fn switch(text: &str) -> Result<bool, ValueError> {
    match text {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err(ValueError::Choice { text: text.to_owned(), choices: "\"on\" and \"off\"" }),
    }
}

/// The reverse of [`switch`].
pub(super) fn on_off(on: bool) -> &'static str {
    if on { "on" } else { "off" }
}

/// A path that the system calls will take.
pub(super) fn path(text: &str) -> Result<PathBuf, ValueError> {
    match text {
        "" => Err(ValueError::Path(text.to_owned())),
        _ if text.contains('\0') => Err(ValueError::Path(text.to_owned())),
        _ => Ok(PathBuf::from(text)),
    }
}

/// IP:PORT; `or` names what else the option takes.
pub(super) fn address(text: &str, or: &'static str) -> Result<SocketAddr, ValueError> {
    text.parse().map_err(|_| ValueError::Address { text: text.to_owned(), or })
}

/// A whole number from `min` to `max`.
pub(super) fn number(text: &str, min: u32, max: u32, unit: &'static str) -> Result<u32, ValueError> {
    let digits_only = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    match text.parse() {
        Ok(n) if digits_only && (min..=max).contains(&n) => Ok(n),
        _ => Err(ValueError::Number { text: text.to_owned(), min, max, unit }),
    }
}

/// A size from `min` to `max` bytes.
pub(super) fn size(text: &str, min: u64, max: u64) -> Result<ByteSize, ValueError> {
    let size: ByteSize = text.parse()?;
    let (min, max) = (ByteSize(min), ByteSize(max));
    if (min..=max).contains(&size) { Ok(size) } else { Err(ValueError::SizeRange { size, min, max }) }
}

/// A size in whole pages.
pub(super) fn page_size(text: &str, min: u64, max: u64) -> Result<ByteSize, ValueError> {
    let size = size(text, min, max)?;
    if size.0.is_multiple_of(4096) { Ok(size) } else { Err(ValueError::NotWholePages(size)) }
}

/// An RTP port: even, or 0 for any.
pub(super) fn rtp_port(text: &str) -> Result<u16, ValueError> {
    let port = number(text, 0, 65_534, "")?;
    match u16::try_from(port) {
        Ok(even) if port.is_multiple_of(2) => Ok(even),
        _ => Err(ValueError::OddPort(port)),
    }
}
