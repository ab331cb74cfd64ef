//! The JSON of the monitor, field by field. The fields are stable: they may be added to, never renamed, removed or given another
//! unit; a test holds them to `api_shape.txt`.
//!
//! Units end names: `_us` microseconds, `_ns` nanoseconds, `_s` seconds, `_bps` bits per second, `_bytes` bytes. Counters count from the
//! start of the process. What the engine and the RTSP server report is described where they define it: [`CoreStatus`],
//! [`SessionStatus`], [`MediaEntry`], [`ImportStatus`], [`RecordingStatus`], [`RtspCountersSnapshot`].

use serde::Serialize;

use crate::engine::{CoreStatus, DiskStatus, MediaEntry, SessionStatus};
use crate::rtsp::RtspCountersSnapshot;
use crate::transfer::{ImportStatus, RecordingStatus};

/// `GET /api/v1/status`.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    /// What is running.
    pub version: Version,
    /// When the process started, RFC 3339 in UTC.
    pub started_at: String,
    /// How long it has been running, seconds.
    pub uptime_s: f64,
    /// How it sends ("kernel sockets").
    pub net: String,
    /// Sessions that may exist at once.
    pub sessions_max: u32,
    /// Sums over the engine cores.
    pub totals: Totals,
    /// One entry per engine core: busy fraction, streams, rates, lateness percentiles, disk, memory.
    pub cores: Vec<CoreStatus>,
    /// One entry per disk that guaranteed sessions read: what is promised of its time.
    pub disks: Vec<DiskStatus>,
    /// The RTSP server's counters.
    pub rtsp: RtspCountersSnapshot,
}

/// What is running.
#[derive(Clone, Debug, Serialize)]
pub struct Version {
    /// Version of the package.
    pub tactus: String,
    /// `git describe` of the sources, when the build was told.
    pub build: Option<String>,
}

/// Sums over the engine cores.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Totals {
    /// Sessions that exist.
    pub sessions: u64,
    /// Of these, playing.
    pub playing: u64,
    /// RTP and RTCP packets sent.
    pub packets: u64,
    /// Bytes of these packets, headers of RTP included.
    pub bytes: u64,
    /// Payload rate of the last second, bits per second.
    pub rate_bps: u64,
    /// Highest lateness of any packet, microseconds.
    pub lateness_max_us: u64,
    /// Upcalls that were carried over into a later turn.
    pub carried_over: u64,
    /// Disk reads.
    pub disk_reads: u64,
    /// Bytes read from disks.
    pub disk_bytes: u64,
    /// Disk reads that failed.
    pub disk_errors: u64,
}

impl Totals {
    /// The sums; they saturate.
    pub fn of(cores: &[CoreStatus]) -> Self {
        cores.iter().fold(Self::default(), |sum, core| Self {
            sessions: sum.sessions.saturating_add(core.sessions.into()),
            playing: sum.playing.saturating_add(core.playing.into()),
            packets: sum.packets.saturating_add(core.packets),
            bytes: sum.bytes.saturating_add(core.bytes),
            rate_bps: sum.rate_bps.saturating_add(core.rate_bps),
            lateness_max_us: sum.lateness_max_us.max(core.lateness.max_us),
            carried_over: sum.carried_over.saturating_add(core.carried_over),
            disk_reads: sum.disk_reads.saturating_add(core.disk_reads),
            disk_bytes: sum.disk_bytes.saturating_add(core.disk_bytes),
            disk_errors: sum.disk_errors.saturating_add(core.disk_errors),
        })
    }
}

/// `GET /api/v1/sessions`.
#[derive(Clone, Debug, Serialize)]
pub struct SessionList {
    /// Number of sessions.
    pub count: usize,
    /// The sessions.
    pub sessions: Vec<SessionStatus>,
}

/// `GET /api/v1/media`.
#[derive(Clone, Debug, Serialize)]
pub struct MediaList {
    /// Number of files.
    pub count: usize,
    /// Of these, those that can be served.
    pub servable: usize,
    /// The files, by path.
    pub media: Vec<MediaEntry>,
}

impl MediaList {
    /// The list of these files.
    pub fn new(media: Vec<MediaEntry>) -> Self {
        Self { count: media.len(), servable: media.iter().filter(|entry| entry.media.is_some()).count(), media }
    }
}

/// `GET /api/v1/imports`.
#[derive(Clone, Debug, Serialize)]
pub struct ImportList {
    /// Number of imports.
    pub count: usize,
    /// The imports that go on, and the last ones that are over, by number.
    pub imports: Vec<ImportStatus>,
}

/// `GET /api/v1/recordings`.
#[derive(Clone, Debug, Serialize)]
pub struct RecordingList {
    /// Number of recordings.
    pub count: usize,
    /// The recordings that go on, and the last ones that are over, by number.
    pub recordings: Vec<RecordingStatus>,
}

/// Body of every answer that is not a 200 or 201.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// The HTTP status.
    pub status: u16,
    /// What is wrong, for people.
    pub error: String,
}

impl Failure {
    /// A failure with this HTTP status.
    pub fn new(status: u16, error: impl Into<String>) -> Self {
        Self { status, error: error.into() }
    }
}
