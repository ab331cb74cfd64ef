//! What the local engine is told at start.

use std::net::SocketAddr;
use std::path::PathBuf;

use dataplane::delivery::LagPolicy;
use dataplane::engine::Poll;
use dataplane::engine::own::OwnNetConfig;

use super::channels::LiveRules;
use crate::config::RecordPaths;

/// How the local engine is set up.
#[derive(Clone, Debug)]
pub struct LocalConfig {
    /// The media folder.
    pub media: PathBuf,
    /// Where indexes are kept between starts; `None` for nowhere.
    pub index_cache: Option<PathBuf>,
    /// One engine core for each entry, pinned to that CPU if it names one.
    pub cpus: Vec<Option<usize>>,
    /// Whether an idle core spins.
    pub poll: Poll,
    /// Even UDP port of the first core's RTP; the next core takes the port two higher. 0 takes any.
    pub rtp_port: u16,
    /// Sessions at once on all cores together.
    pub sessions_max: u32,
    /// Buffer memory of each core, bytes.
    pub memory_bytes: usize,
    /// Bytes of one buffer, a multiple of 4096.
    pub chunk_bytes: usize,
    /// How far ahead of its due time media is read, nanoseconds.
    pub read_ahead_ns: u64,
    /// A TCP client that reads nothing for this long loses its session, nanoseconds.
    pub stall_ns: u64,
    /// Our own stack in place of kernel sockets.
    pub own_net: Option<OwnNetConfig>,
    /// What happens to a delivery that falls behind.
    pub lag: LagPolicy,
    /// Of each disk's time, what may be promised to guaranteed sessions, per mille; 0: nobody is refused.
    pub disk_share_permille: u64,
    /// File with the disks' profiles.
    pub disk_profiles: Option<PathBuf>,
    /// Of each core's time, what may be promised to guaranteed sessions, per mille.
    pub cpu_share_permille: u64,
    /// Buffers that nobody needs keep what is likely to be read again.
    pub cache: bool,
    /// Whether engine cores ask the kernel for real time.
    pub realtime: bool,
    /// Folder that files may be imported from; `None`: nothing is imported.
    pub import_from: Option<PathBuf>,
    /// Beginnings of the paths in the media folder that live streams may be recorded to.
    pub recordings_to: RecordPaths,
    /// How live channels are kept.
    pub live: LiveRules,
    /// Transport streams that are received.
    pub sources: Vec<LiveSourceAt>,
}

/// A transport stream that is received and can be played.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LiveSourceAt {
    /// Where it can be played.
    pub path: String,
    /// Where it arrives: an address of ours, or a multicast group.
    pub addr: SocketAddr,
}
