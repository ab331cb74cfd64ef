//! The table of options.

use super::network::{gateways, own_addresses};
use super::value::{address, number, on_off, page_size, path, rtp_port, size, switch};
use super::{Config, ValueError};
use crate::units::{GIB, KIB, MIB};

/// An option of `tactus serve`: a key of the file and, with `--` before it, of the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "Config's fields of the same names say what they are")]
pub enum Key {
    Media,
    Rtsp,
    Http,
    Net,
    Ip,
    Gateway,
    EngineCores,
    Poll,
    RtpPort,
    MaxSessions,
    Memory,
    ReadAhead,
    Chunk,
    SessionTimeout,
    IndexCache,
    StallTimeout,
    Class,
    ClassPaths,
    ClassClients,
    ClassQuery,
    LagMax,
    LagAction,
    DiskShare,
    CpuShare,
    DiskProfile,
    Cache,
    Realtime,
    RecordPaths,
    RecordFrom,
    LiveLatency,
    LiveLost,
    LiveTimeout,
    LiveHold,
    LiveMemory,
    Source,
    ImportFrom,
    RecordingsTo,
    Log,
}

/// What TOML values an option takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A string.
    Text,
    /// An integer.
    Integer,
    /// A string with a unit, or an integer of bytes.
    Size,
    /// A string, one integer, or an array of integers.
    Cpus,
}

impl Kind {
    /// The kind for people.
    pub fn expected(self) -> &'static str {
        match self {
            Kind::Text => "a string",
            Kind::Integer => "an integer",
            Kind::Size => "a string with a unit, or a number of bytes",
            Kind::Cpus => "a string, or an array of CPU numbers",
        }
    }
}

impl Key {
    /// All options, in the order in which they are printed.
    pub const ALL: [Key; 38] = [
        Key::Media,
        Key::Rtsp,
        Key::Http,
        Key::Net,
        Key::Ip,
        Key::Gateway,
        Key::EngineCores,
        Key::Poll,
        Key::RtpPort,
        Key::MaxSessions,
        Key::Memory,
        Key::ReadAhead,
        Key::Chunk,
        Key::SessionTimeout,
        Key::IndexCache,
        Key::StallTimeout,
        Key::Class,
        Key::ClassPaths,
        Key::ClassClients,
        Key::ClassQuery,
        Key::LagMax,
        Key::LagAction,
        Key::DiskShare,
        Key::CpuShare,
        Key::DiskProfile,
        Key::Cache,
        Key::Realtime,
        Key::RecordPaths,
        Key::RecordFrom,
        Key::LiveLatency,
        Key::LiveLost,
        Key::LiveTimeout,
        Key::LiveHold,
        Key::LiveMemory,
        Key::Source,
        Key::ImportFrom,
        Key::RecordingsTo,
        Key::Log,
    ];

    /// Its name in the file; `--` before it on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Key::Media => "media",
            Key::Rtsp => "rtsp",
            Key::Http => "http",
            Key::Net => "net",
            Key::Ip => "ip",
            Key::Gateway => "gateway",
            Key::EngineCores => "engine-cores",
            Key::Poll => "poll",
            Key::RtpPort => "rtp-port",
            Key::MaxSessions => "max-sessions",
            Key::Memory => "memory",
            Key::ReadAhead => "read-ahead",
            Key::Chunk => "chunk",
            Key::SessionTimeout => "session-timeout",
            Key::IndexCache => "index-cache",
            Key::StallTimeout => "stall-timeout",
            Key::Class => "class",
            Key::ClassPaths => "class-paths",
            Key::ClassClients => "class-clients",
            Key::ClassQuery => "class-query",
            Key::LagMax => "lag-max",
            Key::LagAction => "lag-action",
            Key::DiskShare => "disk-share",
            Key::CpuShare => "cpu-share",
            Key::DiskProfile => "disk-profile",
            Key::Cache => "cache",
            Key::Realtime => "realtime",
            Key::RecordPaths => "record-paths",
            Key::RecordFrom => "record-from",
            Key::LiveLatency => "live-latency",
            Key::LiveLost => "live-lost",
            Key::LiveTimeout => "live-timeout",
            Key::LiveHold => "live-hold",
            Key::LiveMemory => "live-memory",
            Key::Source => "source",
            Key::ImportFrom => "import-from",
            Key::RecordingsTo => "recordings-to",
            Key::Log => "log",
        }
    }

    /// The option of this name.
    pub fn from_name(name: &str) -> Option<Key> {
        Key::ALL.into_iter().find(|key| key.name() == name)
    }

    /// What stands for the value in help texts.
    pub fn value_name(self) -> &'static str {
        match self {
            Key::Media => "DIR",
            Key::Rtsp | Key::Http => "ADDR",
            Key::Net => "HOW",
            Key::Ip => "ADDR/LEN",
            Key::Gateway => "ADDR",
            Key::EngineCores => "LIST",
            Key::Poll => "MODE",
            Key::RtpPort | Key::MaxSessions => "N",
            Key::Memory | Key::Chunk | Key::LiveMemory => "SIZE",
            Key::ReadAhead | Key::LagMax | Key::LiveLatency => "MS",
            Key::Class => "CLASS",
            Key::ClassPaths | Key::ClassClients => "RULES",
            Key::ClassQuery | Key::RecordFrom => "WHO",
            Key::RecordPaths | Key::RecordingsTo => "PATHS",
            Key::Source => "SOURCES",
            Key::LagAction | Key::LiveLost => "WHAT",
            Key::DiskShare | Key::CpuShare => "PERCENT",
            Key::DiskProfile => "FILE",
            Key::Cache | Key::Realtime => "SWITCH",
            Key::SessionTimeout | Key::StallTimeout | Key::LiveTimeout | Key::LiveHold => "S",
            Key::IndexCache | Key::ImportFrom => "DIR",
            Key::Log => "LEVEL",
        }
    }

    /// What it does, in one line.
    pub fn help(self) -> &'static str {
        match self {
            Key::Media => "Folder of the media files; a relative path starts at the working directory",
            Key::Rtsp => "Where RTSP listens",
            Key::Http => "Where the monitor's JSON is served, or \"off\"",
            Key::Net => "How packets reach the network: \"kernel\", the system's sockets; our own stack: \"af_xdp:IFACE\" or \"tap:NAME\"",
            Key::Ip => {
                "Addresses of our own stack, with commas between (\"192.0.2.10/24,2001:db8::10/64\"); none with the system's sockets"
            }
            Key::Gateway => "Routers of our own stack: one of each family at most, with a comma between",
            Key::EngineCores => "CPUs of the engine cores (\"0,2-3\"), or \"auto\": one core on the last CPU that this process may use",
            Key::Poll => "\"adaptive\": an idle engine core sleeps until the next deadline; \"busy\": it never sleeps",
            Key::RtpPort => "RTP port (even, RTCP is the next one) of the first engine core, further cores 2 up each; 0: any",
            Key::MaxSessions => "Sessions that may exist at once",
            Key::Memory => "Buffer memory of each engine core",
            Key::ReadAhead => "How far ahead media is read, milliseconds",
            Key::Chunk => "Size of one disk read, a multiple of 4 KiB",
            Key::SessionTimeout => "Seconds without a sign of life after which a session is ended",
            Key::IndexCache => "Folder that keeps media indexes between runs, \"off\", or \"auto\": in the user's cache folder",
            Key::StallTimeout => "Seconds after which a client that takes no bytes from its connection is cut",
            Key::Class => {
                "Class of sessions: \"guaranteed\" (always on time, refused when that cannot be) or \"best-effort\" (gets what is left)"
            }
            Key::ClassPaths => {
                "Classes by the beginning of the title's path: \"news/=guaranteed, trailers/=best-effort\"; the longest one counts"
            }
            Key::ClassClients => {
                "Classes by the client's network, which count before those by path: \"10.1.0.0/16=guaranteed, 10.0.0.0/8=best-effort\"; the smallest one counts"
            }
            Key::ClassQuery => "Who may choose with ?class= in the URL: \"off\", \"any\", or networks (\"10.0.0.0/8,::1\")",
            Key::LagMax => "How late a stream may get before it drops what is late, or ends, milliseconds",
            Key::LagAction => "What a stream does that is later than lag-max: \"skip\" to a sync sample that is not late, or \"end\"",
            Key::DiskShare => {
                "Of each disk's time, what may be promised to guaranteed sessions, percent; 0: none is refused, and nothing is sure"
            }
            Key::CpuShare => "Of each engine core's time, what may be promised to guaranteed sessions, percent",
            Key::DiskProfile => "File with what `tactus probe-disk` measured, \"off\", or \"auto\": disks.json beside the index cache",
            Key::Cache => "\"on\": buffers that nobody needs keep what is likely to be read again; \"off\": every session reads the disk",
            Key::Realtime => "\"on\": engine cores ask the kernel for real time (SCHED_FIFO) and locked memory; \"off\"",
            Key::RecordPaths => {
                "Beginnings of the paths that RTSP clients may send live streams to (ANNOUNCE, RECORD), with commas between (\"live/\"), or \"off\""
            }
            Key::RecordFrom => "Who may do so: \"any\", \"off\", or networks (\"10.0.0.0/8,::1\")",
            Key::LiveLatency => "How much later than it comes a live stream is sent on, milliseconds: what the sender's network may jitter",
            Key::LiveLost => "When the sender of a live stream is gone: \"end\" its viewers' sessions, or \"hold\" them until it is back",
            Key::LiveTimeout => "Seconds without a packet after which the sender of a live stream is gone",
            Key::LiveHold => "Seconds for which a live stream is held without a sender",
            Key::LiveMemory => "Buffers of one live stream: what is retained for viewers who join and for those who fall behind",
            Key::Source => {
                "MPEG transport streams that are received and can be played: PATH=udp://ADDRESS:PORT with commas between; multicast groups are joined, whatever --net is"
            }
            Key::ImportFrom => {
                "Folder whose files may be copied into the media folder with POST /api/v1/imports or `tactus import`, or \"off\""
            }
            Key::RecordingsTo => {
                "Beginnings of the paths in the media folder that live streams may be recorded to with POST /api/v1/recordings or `tactus record`, with commas between (\"recordings/\"), or \"off\""
            }
            Key::Log => "What is logged to stderr: \"error\", \"warn\", \"info\", \"debug\" or \"trace\"",
        }
    }

    /// What TOML values it takes.
    pub fn kind(self) -> Kind {
        match self {
            Key::Media
            | Key::Rtsp
            | Key::Http
            | Key::Net
            | Key::Ip
            | Key::Gateway
            | Key::Poll
            | Key::IndexCache
            | Key::Log
            | Key::Class => Kind::Text,
            Key::ClassPaths | Key::ClassClients | Key::ClassQuery => Kind::Text,
            Key::LagAction | Key::DiskProfile | Key::Cache | Key::Realtime | Key::ImportFrom => Kind::Text,
            Key::RecordPaths | Key::RecordFrom | Key::LiveLost | Key::Source | Key::RecordingsTo => Kind::Text,
            Key::LiveLatency | Key::LiveTimeout | Key::LiveHold => Kind::Integer,
            Key::LagMax | Key::DiskShare | Key::CpuShare => Kind::Integer,
            Key::RtpPort | Key::MaxSessions | Key::ReadAhead | Key::SessionTimeout | Key::StallTimeout => Kind::Integer,
            Key::Memory | Key::Chunk | Key::LiveMemory => Kind::Size,
            Key::EngineCores => Kind::Cpus,
        }
    }

    /// Reads `text` into this option's place of `config`.
    ///
    /// # Errors
    /// [`ValueError`] when the text is not a value of this option; `config` is unchanged then.
    pub fn set(self, config: &mut Config, text: &str) -> Result<(), ValueError> {
        match self {
            Key::Media => config.media = path(text)?,
            Key::Rtsp => config.rtsp = address(text, "")?,
            Key::Http => config.http = text.parse()?,
            Key::Net => config.net = text.parse()?,
            Key::Ip => config.ip = own_addresses(text)?,
            Key::Gateway => config.gateway = gateways(text)?,
            Key::EngineCores => config.engine_cores = text.parse()?,
            Key::Poll => config.poll = text.parse()?,
            Key::RtpPort => config.rtp_port = rtp_port(text)?,
            Key::MaxSessions => config.max_sessions = number(text, 1, 1_000_000, "")?,
            Key::Memory => config.memory = size(text, MIB, 1024 * GIB)?,
            Key::ReadAhead => config.read_ahead_ms = number(text, 100, 60_000, " milliseconds")?,
            Key::Chunk => config.chunk = page_size(text, 4 * KIB, 4 * MIB)?,
            Key::SessionTimeout => config.session_timeout_s = number(text, 5, 86_400, " seconds")?,
            Key::IndexCache => config.index_cache = text.parse()?,
            Key::StallTimeout => config.stall_timeout_s = number(text, 1, 3_600, " seconds")?,
            Key::Class => config.classes.default = super::class::class(text)?,
            Key::ClassPaths => config.classes.paths = text.parse()?,
            Key::ClassClients => config.classes.clients = text.parse()?,
            Key::ClassQuery => config.classes.query = text.parse()?,
            Key::LagMax => config.lag_max_ms = number(text, 100, 3_600_000, " milliseconds")?,
            Key::LagAction => config.lag_action = text.parse()?,
            Key::DiskShare => config.disk_share_percent = number(text, 0, 100, " percent")?,
            Key::CpuShare => config.cpu_share_percent = number(text, 1, 100, " percent")?,
            Key::DiskProfile => config.disk_profile = text.parse()?,
            Key::Cache => config.cache = switch(text)?,
            Key::Realtime => config.realtime = switch(text)?,
            Key::RecordPaths => config.live.record.paths = text.parse()?,
            Key::RecordFrom => config.live.record.from = text.parse()?,
            Key::LiveLatency => config.live.latency_ms = number(text, 0, 10_000, " milliseconds")?,
            Key::LiveLost => config.live.lost = text.parse()?,
            Key::LiveTimeout => config.live.timeout_s = number(text, 1, 3_600, " seconds")?,
            Key::LiveHold => config.live.hold_s = number(text, 1, 86_400, " seconds")?,
            Key::Source => config.live.sources = text.parse()?,
            Key::LiveMemory => config.live.memory = size(text, MIB, 64 * GIB)?,
            Key::ImportFrom => config.import_from = text.parse()?,
            Key::RecordingsTo => config.recordings_to = text.parse()?,
            Key::Log => config.log = text.parse()?,
        }
        Ok(())
    }

    /// This option's value in `config`, as the file would have it.
    pub fn get(self, config: &Config) -> toml::Value {
        let text = |value: &dyn std::fmt::Display| toml::Value::String(value.to_string());
        match self {
            Key::Media => text(&config.media.display()),
            Key::Rtsp => text(&config.rtsp),
            Key::Http => text(&config.http),
            Key::Net => text(&config.net),
            Key::Ip => text(&config.ip),
            Key::Gateway => text(&config.gateway),
            Key::EngineCores => text(&config.engine_cores),
            Key::Poll => text(&config.poll),
            Key::RtpPort => toml::Value::Integer(config.rtp_port.into()),
            Key::MaxSessions => toml::Value::Integer(config.max_sessions.into()),
            Key::Memory => text(&config.memory),
            Key::ReadAhead => toml::Value::Integer(config.read_ahead_ms.into()),
            Key::Chunk => text(&config.chunk),
            Key::SessionTimeout => toml::Value::Integer(config.session_timeout_s.into()),
            Key::IndexCache => text(&config.index_cache),
            Key::StallTimeout => toml::Value::Integer(config.stall_timeout_s.into()),
            Key::Class => text(&config.classes.default),
            Key::ClassPaths => text(&config.classes.paths),
            Key::ClassClients => text(&config.classes.clients),
            Key::ClassQuery => text(&config.classes.query),
            Key::LagMax => toml::Value::Integer(config.lag_max_ms.into()),
            Key::LagAction => text(&config.lag_action),
            Key::DiskShare => toml::Value::Integer(config.disk_share_percent.into()),
            Key::CpuShare => toml::Value::Integer(config.cpu_share_percent.into()),
            Key::DiskProfile => text(&config.disk_profile),
            Key::Cache => text(&on_off(config.cache)),
            Key::Realtime => text(&on_off(config.realtime)),
            Key::RecordPaths => text(&config.live.record.paths),
            Key::RecordFrom => text(&config.live.record.from),
            Key::LiveLatency => toml::Value::Integer(config.live.latency_ms.into()),
            Key::LiveLost => text(&config.live.lost),
            Key::LiveTimeout => toml::Value::Integer(config.live.timeout_s.into()),
            Key::LiveHold => toml::Value::Integer(config.live.hold_s.into()),
            Key::Source => text(&config.live.sources),
            Key::LiveMemory => text(&config.live.memory),
            Key::ImportFrom => text(&config.import_from),
            Key::RecordingsTo => text(&config.recordings_to),
            Key::Log => text(&config.log),
        }
    }
}
