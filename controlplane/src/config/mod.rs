//! The appliance's configuration: defaults, the TOML file, the command line; each overrides the one before.
//!
//! ```text
//! defaults ─► file::parse(tactus.toml) ─► command line ─► Config::assemble ─► checked Config ─► Config::to_toml ─┐
//!                     ▲                                                                                        │
//!                     └────────────────── what is printed can be read ◄────────────────────────────────────────┘
//! ```
//!
//! [`Key`] is the one table of options: the file's keys, the command line's options, their help, their parsers and how they print
//! all come from it.

mod class;
pub mod file;
mod key;
mod live;
mod network;
mod value;

#[cfg(test)]
mod tests;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

pub use class::{ClassClients, ClassPaths, ClassQuery, ClassRefused, ClassRules};
pub use file::{FileError, FileProblem};
pub use key::{Key, Kind};
pub use live::{LiveConfig, LiveLost, RecordPaths, RecordRefused, RecordRules, Source, Sources};
pub use network::{List, Net, OwnAddress};
pub use value::{EngineCores, Folder, HttpListen, IndexCache, LagAction, LogLevel, Poll, ValueError};

use crate::units::{ByteSize, MIB};

/// One option given a value, in the text form that the command line takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// The option.
    pub key: Key,
    /// Its value; known to parse.
    pub text: String,
}

/// The effective configuration of `tactus serve`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Folder of the media files.
    pub media: PathBuf,
    /// Where RTSP listens.
    pub rtsp: std::net::SocketAddr,
    /// Where the monitor's JSON is served.
    pub http: HttpListen,
    /// How packets reach the network.
    pub net: Net,
    /// Addresses of our own stack.
    pub ip: List<OwnAddress>,
    /// Routers of our own stack.
    pub gateway: List<std::net::IpAddr>,
    /// CPUs of the engine cores.
    pub engine_cores: EngineCores,
    /// What an engine core does when nothing is due.
    pub poll: Poll,
    /// RTP port of the first engine core (even; RTCP is the next one; further cores follow in steps of 2); 0 lets the system choose.
    pub rtp_port: u16,
    /// Sessions that may exist at once.
    pub max_sessions: u32,
    /// Buffer memory of each engine core.
    pub memory: ByteSize,
    /// How far ahead of its due time media is read, milliseconds.
    pub read_ahead_ms: u32,
    /// Size of one disk read, a multiple of 4 KiB.
    pub chunk: ByteSize,
    /// A session that shows no sign of life for this long is ended, seconds.
    pub session_timeout_s: u32,
    /// Where media indexes are kept between runs.
    pub index_cache: IndexCache,
    /// A client that takes no bytes from its connection for this long is cut, seconds.
    pub stall_timeout_s: u32,
    /// Which sessions are guaranteed.
    pub classes: ClassRules,
    /// A stream that is later than this drops what is late, or ends, milliseconds.
    pub lag_max_ms: u32,
    /// Which of the two.
    pub lag_action: LagAction,
    /// Of each disk's time, what may be promised to guaranteed sessions, percent; 0: none is refused.
    pub disk_share_percent: u32,
    /// Of each engine core's time, what may be promised to guaranteed sessions, percent.
    pub cpu_share_percent: u32,
    /// Where the disks' profiles are kept; "auto" is `disks.json` beside the index cache.
    pub disk_profile: IndexCache,
    /// Buffers that nobody needs keep what is likely to be read again.
    pub cache: bool,
    /// Engine cores ask the kernel for real time.
    pub realtime: bool,
    /// Live channels.
    pub live: LiveConfig,
    /// Folder whose files may be copied into the media folder.
    pub import_from: Folder,
    /// Where live streams may be recorded to in the media folder.
    pub recordings_to: RecordPaths,
    /// What is logged.
    pub log: LogLevel,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            media: PathBuf::from("./media"),
            rtsp: (std::net::Ipv4Addr::UNSPECIFIED, 8554).into(),
            http: HttpListen::On((std::net::Ipv4Addr::LOCALHOST, 8080).into()),
            net: Net::Kernel,
            ip: List::default(),
            gateway: List::default(),
            engine_cores: EngineCores::Auto,
            poll: Poll::Adaptive,
            rtp_port: 6970,
            max_sessions: 5000,
            memory: ByteSize(256 * MIB),
            read_ahead_ms: 2000,
            chunk: ByteSize(64 << 10),
            session_timeout_s: 60,
            index_cache: IndexCache::Auto,
            stall_timeout_s: 10,
            classes: ClassRules::default(),
            lag_max_ms: 5000,
            lag_action: LagAction::Skip,
            disk_share_percent: 80,
            cpu_share_percent: 80,
            disk_profile: IndexCache::Auto,
            cache: true,
            realtime: false,
            live: LiveConfig::default(),
            import_from: Folder::Off,
            recordings_to: RecordPaths::default(),
            log: LogLevel::Info,
        }
    }
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{path}: cannot read the configuration: {source}", path = .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The operating system's answer.
        source: std::io::Error,
    },
    /// The file has mistakes in it; all of them, in the order of the file.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    File(Vec<FileError>),
    /// A value that does not parse.
    #[error("{key}: {problem}", key = .key.name())]
    Value {
        /// The option.
        key: Key,
        /// What is wrong.
        problem: ValueError,
    },
    /// Values that are fine by themselves but not together.
    #[error(transparent)]
    Conflict(#[from] Conflict),
}

/// Values that are fine by themselves but not together.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Conflict {
    /// The pool would hold too few chunks to keep even one stream going.
    #[error("memory = {memory} holds only {chunks} chunks of {chunk}; at least {CHUNKS_MIN} are needed: raise memory or lower chunk")]
    Memory {
        /// Buffer memory per core.
        memory: ByteSize,
        /// Chunk size.
        chunk: ByteSize,
        /// Chunks that fit.
        chunks: u64,
    },
    /// The last core's ports lie past 65535.
    #[error("rtp-port = {rtp_port} leaves no room for {cores} engine cores (2 ports each, up to 65535): choose a lower port")]
    Ports {
        /// First port.
        rtp_port: u16,
        /// Engine cores.
        cores: usize,
    },
    /// Two listeners on one address.
    #[error("rtsp and http are both {0}: choose another port for one of them, or http = \"off\"")]
    SameAddress(std::net::SocketAddr),
    /// The system's sockets have the system's addresses.
    #[error("ip and gateway are for our own stack; with net = \"kernel\" the operating system has the addresses: leave them out")]
    AddressesOfKernel,
    /// Our own stack without an address.
    #[error("net = \"{0}\" needs addresses of its own: set ip, as in \"192.0.2.10/24\"; none that the operating system has")]
    NoAddress(Net),
    /// A router that cannot be reached.
    #[error("gateway {0} is in none of the networks of ip: it cannot be reached")]
    GatewayOffLink(std::net::IpAddr),
    /// Listening on somebody else's address.
    #[error("rtsp = {0} is none of the addresses of ip: choose one of them, or 0.0.0.0 for all")]
    RtspElsewhere(std::net::SocketAddr),
    /// Steering needs to know the ports.
    #[error("port 0 (any) is for the system's sockets: give rtsp and rtp-port numbers")]
    AnyPort,
}

/// Fewest chunks that an engine core works with.
pub const CHUNKS_MIN: u64 = 16;

impl Config {
    /// The configuration that results from a file's settings and the command line's, checked as a whole.
    ///
    /// # Errors
    /// [`ConfigError::Value`] or [`ConfigError::Conflict`].
    pub fn assemble(file: &[Setting], command_line: &[Setting]) -> Result<Self, ConfigError> {
        let mut config = Self::default();
        for Setting { key, text } in file.iter().chain(command_line) {
            key.set(&mut config, text).map_err(|problem| ConfigError::Value { key: *key, problem })?;
        }
        config.check()?;
        Ok(config)
    }

    /// The file with the disks' profiles, with `env` to look up environment variables; `None` for nowhere.
    pub fn disk_profiles(&self, env: impl Fn(&str) -> Option<String>) -> Option<PathBuf> {
        match &self.disk_profile {
            IndexCache::Auto => IndexCache::Auto.resolve(env).map(|folder| folder.join("disks.json")),
            IndexCache::Off => None,
            IndexCache::Dir(file) => Some(file.clone()),
        }
    }

    /// Reads a configuration from the bytes of a file; `name` is what errors call it.
    ///
    /// # Errors
    /// Any [`ConfigError`] but `Read`.
    pub fn from_toml(bytes: &[u8], name: &Path) -> Result<Self, ConfigError> {
        Self::assemble(&file::parse(bytes, name)?, &[])
    }

    /// The configuration as TOML, each key with a comment that explains it; [`Config::from_toml`] reads it back.
    pub fn to_toml(&self) -> String {
        let mut out = String::new();
        for key in Key::ALL {
            let value = key.get(self);
            let _ = writeln!(out, "# {}\n{} = {value}\n", key.help(), key.name());
        }
        out.truncate(out.trim_end().len() + 1);
        out
    }

    /// Checks what no single option can check.
    fn check(&self) -> Result<(), Conflict> {
        let chunks = self.memory.0 / self.chunk.0.max(1);
        if chunks < CHUNKS_MIN {
            return Err(Conflict::Memory { memory: self.memory, chunk: self.chunk, chunks });
        }
        let cores = self.engine_cores.count();
        if self.rtp_port != 0 && usize::from(self.rtp_port) + 2 * cores > 65_536 {
            return Err(Conflict::Ports { rtp_port: self.rtp_port, cores });
        }
        network::check(self)?;
        match self.http {
            HttpListen::On(http) if http == self.rtsp && http.port() != 0 => Err(Conflict::SameAddress(http)),
            _ => Ok(()),
        }
    }
}
