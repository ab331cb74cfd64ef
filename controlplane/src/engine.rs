//! The `Engine` seam: the messages of the connection protocol (SYSTEMS 1.1) as methods.
//!
//! The control server speaks RTSP with clients and these messages with an engine; an engine does the delivery by proxy. One
//! implementation drives the engine cores of this process; another will speak to an engine on another machine.
//!
//! | message | RTSP | the engine |
//! | --- | --- | --- |
//! | `create_session` | DESCRIBE | makes the session, says what the media is |
//! | `setup_session` | SETUP | creates the resources of one track's delivery |
//! | `start_session` | PLAY | prepares: file offsets and schedule to the range asked for |
//! | `run_session` | PLAY, after the 200 is on its way | starts delivery |
//! | `stop_session` | PAUSE | stops delivery, keeps the position |
//! | `destroy_session` | TEARDOWN | frees everything |
//! | `session_status`, `engine_status` | polled | monitor data |

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use dataplane::engine::net::Handover;
pub use dataplane::gdsl::Class;
use dataplane::media::{Codec, MediaDescription, TrackKind};
use serde::{Deserialize, Serialize};

use crate::transfer::{ImportRequest, ImportStatus, RecordingRequest, RecordingStatus, TransferError};

/// Names a session of an engine. Not the RTSP session id: that one is a secret between client and control server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SessionId(pub u64);

/// Names a client's byte stream whose sending side was handed to an engine (interleaved delivery).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct StreamToken(pub u64);

/// A track of what a client is going to send, as it announced it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnnouncedTrack {
    /// Sight or sound.
    pub kind: TrackKind,
    /// How it is coded.
    pub codec: Codec,
    /// RTP payload type.
    pub payload_type: u8,
    /// RTP clock rate, Hz.
    pub clock_rate: u32,
    /// Rate, bits per second; 0 where it was not announced.
    pub rate_bps: u64,
}

/// Why an engine refused, each with the RTSP status that tells the client.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum EngineError {
    /// No such title, track or file: 404.
    #[error("not found: {0}")]
    NotFound(String),
    /// The file is there but cannot be delivered (broken, truncated, nothing in it that we can send): 415.
    #[error("cannot deliver this media: {0}")]
    Unsupported(String),
    /// The session is unknown (it ended meanwhile): 454.
    #[error("no such session")]
    NoSession,
    /// Not in this state (for instance: play before any set-up): 455.
    #[error("not valid in this state: {0}")]
    State(String),
    /// The range asked for lies outside the title: 457.
    #[error("invalid range: {0}")]
    Range(String),
    /// The resources for one more stream are not there: 453.
    #[error("not enough capacity: {0}")]
    Capacity(String),
    /// The title is being read for the first time and is not ready, or the engine does not answer: 503.
    #[error("unavailable: {0}")]
    Unavailable(String),
}

/// Answer to `create_session`.
#[derive(Clone, Debug)]
pub struct SessionCreated {
    /// The session.
    pub session: SessionId,
    /// What the media is.
    pub media: Arc<MediaDescription>,
}

/// How one track is to be delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TrackTransport {
    /// RTP over UDP, unicast.
    Udp {
        /// Where RTP goes: the address of the RTSP connection and the client's port.
        rtp: SocketAddr,
        /// Where RTCP goes.
        rtcp: SocketAddr,
        /// The server address that the client connected to; RTP comes from there.
        local_addr: IpAddr,
    },
    /// RTP interleaved in the RTSP connection.
    Interleaved {
        /// The connection, attached before.
        stream: StreamToken,
        /// Channel of RTP.
        rtp_channel: u8,
        /// Channel of RTCP.
        rtcp_channel: u8,
    },
}

/// Answer to `setup_session`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrackReady {
    /// RTP synchronisation source of the track.
    pub ssrc: u32,
    /// Our RTP and RTCP ports (UDP delivery only).
    pub server_ports: Option<(u16, u16)>,
}

/// Where play starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PlayFrom {
    /// Where it stopped; the beginning if it never played. Also `npt=now-` on stored media.
    Position,
    /// At the last sync sample at or before this time (nanoseconds of normal play time).
    Npt(u64),
}

/// One track's entry of RTP-Info.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrackStart {
    /// Container's track id.
    pub track_id: u32,
    /// Sequence number of the first packet.
    pub seq: u16,
    /// RTP time that corresponds to the start of the range.
    pub rtptime: u32,
}

/// Answer to `start_session`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Started {
    /// Where play really starts (a sync sample), nanoseconds of normal play time.
    pub from_ns: u64,
    /// Where it ends, nanoseconds of normal play time.
    pub to_ns: u64,
    /// One entry for each track that was set up, in set-up order.
    pub tracks: Vec<TrackStart>,
}

/// What a session is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SessionState {
    /// Set up, nothing played yet.
    Ready,
    /// Being delivered.
    Playing,
    /// Its client sends, and we take it in.
    Recording,
    /// Stopped by the client.
    Paused,
    /// The range was delivered to its end.
    Ended,
    /// Given up by the engine (see `end_reason`).
    Failed,
}

/// Delivery state of one track.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TrackStatus {
    /// Container's track id.
    pub track_id: u32,
    /// RTP synchronisation source.
    pub ssrc: u32,
    /// RTP packets sent.
    pub packets: u64,
    /// RTP payload bytes sent.
    pub payload_bytes: u64,
    /// Times that the delivery dropped what lay before a later sync sample: it was too late, or the disk could not read it.
    pub skips: u64,
    /// Cumulative loss of the client's last receiver report.
    pub rr_lost: i64,
    /// Fraction lost of the client's last receiver report, 0 to 1.
    pub rr_fraction_lost: f64,
    /// Interarrival jitter of the client's last receiver report, microseconds.
    pub rr_jitter_us: u64,
    /// CNAME of the client's SDES, if it sent one.
    pub client_cname: Option<String>,
}

/// What came of a live stream that a client, or a configured source, sends to us.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IngestStatus {
    /// Viewers can start: a sync sample is retained.
    pub ready: bool,
    /// How long ago the last packet came, nanoseconds.
    pub last_packet_age_ns: u64,
    /// Packets received.
    pub packets: u64,
    /// Packets lost on the way to us.
    pub lost: u64,
    /// Packets that were late, doubled, or none of this stream.
    pub ignored: u64,
    /// Access units taken in.
    pub units: u64,
    /// Bytes of these.
    pub bytes: u64,
    /// Access units dropped because something of them was lost or not understood.
    pub broken_units: u64,
    /// Complete access units dropped because no decoder could have used them before the next sync sample.
    pub skipped_units: u64,
    /// Access units dropped because no buffer was free.
    pub overruns: u64,
}

/// Delivery state of a session.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SessionStatus {
    /// The session.
    pub session: SessionId,
    /// What it is doing.
    pub state: SessionState,
    /// Path of the title.
    pub path: String,
    /// Client's address.
    pub client: String,
    /// "UDP" or "TCP".
    pub transport: String,
    /// Guaranteed or best-effort.
    pub class: Class,
    /// Engine core that delivers it.
    pub core: u32,
    /// Normal play time reached, nanoseconds.
    pub position_ns: u64,
    /// File offset of the last byte handed to the packetiser.
    pub file_offset: u64,
    /// How long ago the client last showed by RTCP that it lives, nanoseconds; `None` when it never did.
    pub last_rtcp_age_ns: Option<u64>,
    /// Packet lateness.
    pub lateness: LatenessSummary,
    /// Tracks.
    pub tracks: Vec<TrackStatus>,
    /// Why the engine ended it.
    pub end_reason: Option<String>,
    /// What came, of a session whose client sends.
    pub ingest: Option<IngestStatus>,
}

/// Percentiles of packet lateness (send time minus due time).
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LatenessSummary {
    /// Packets counted.
    pub packets: u64,
    /// Mean, microseconds.
    pub mean_us: f64,
    /// Median, microseconds.
    pub p50_us: u64,
    /// 99th percentile, microseconds.
    pub p99_us: u64,
    /// 99.9th percentile, microseconds.
    pub p999_us: u64,
    /// Highest, microseconds.
    pub max_us: u64,
}

/// One engine core's monitor data.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CoreStatus {
    /// Index of the engine core, from 0.
    pub core: u32,
    /// CPU it is pinned to; `None` when pinning was refused.
    pub cpu: Option<u32>,
    /// Share of the last second that it worked (polling for nothing does not count), 0 to 1.
    pub busy: f64,
    /// Sessions it holds.
    pub sessions: u32,
    /// Of these, playing.
    pub playing: u32,
    /// Packets sent since start.
    pub packets: u64,
    /// Bytes of these on the network layer's face (RTP header and payload).
    pub bytes: u64,
    /// Payload rate of the last second, bits per second.
    pub rate_bps: u64,
    /// Our RTP and RTCP ports.
    pub ports: (u16, u16),
    /// Packet lateness since start.
    pub lateness: LatenessSummary,
    /// Upcalls that were due but carried over into the next turn, since start.
    pub carried_over: u64,
    /// How it reads the disk.
    pub disk: String,
    /// Disk reads since start.
    pub disk_reads: u64,
    /// Disk bytes since start.
    pub disk_bytes: u64,
    /// Disk errors since start.
    pub disk_errors: u64,
    /// Reads under way.
    pub disk_in_flight: u32,
    /// Of its time, what is promised to guaranteed sessions, 0 to 1.
    pub promised: f64,
    /// Processor time of a packet, as measured, nanoseconds.
    pub packet_ns: u64,
    /// Processor time of a disk read, as measured, nanoseconds.
    pub read_ns: u64,
    /// Of each period, what is reserved for guaranteed sessions now, 0 to 1.
    pub reserved: f64,
    /// Work that has no reservation, by kind.
    pub unreserved: Vec<UnreservedStatus>,
    /// Guaranteed reads that came after their data was due, since start.
    pub disk_late: u64,
    /// Reads that failed and were tried again, since start.
    pub disk_retries: u64,
    /// Buffer memory: chunks in all.
    pub chunks: u64,
    /// Buffer memory: chunks free.
    pub chunks_free: u64,
    /// Buffer memory: chunks promised to sessions.
    pub chunks_reserved: u64,
    /// Bytes of a chunk.
    pub chunk_bytes: u64,
    /// What pages the buffers lie on.
    pub memory: String,
    /// How it reaches the network.
    pub net: String,
    /// Our own stack; `None` with the operating system's sockets.
    pub own_stack: Option<OwnStackStatus>,
}

/// What one kind of work that has no reservation came to since start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnreservedStatus {
    /// Which: `commands`, `receive`, `sessions` (beginning and ending them), `best-effort`, `reads`, `streams`.
    pub kind: String,
    /// Time that it took, microseconds.
    pub busy_us: u64,
    /// Its longest slice, microseconds: what guaranteed work may have waited for at a stretch.
    pub longest_us: u64,
    /// Times that it was put off, because the time was reserved or its slice was over.
    pub put_off: u64,
}

/// What an engine core's own stack has counted since start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnStackStatus {
    /// Frames received.
    pub rx_frames: u64,
    /// Bytes of these.
    pub rx_bytes: u64,
    /// Frames that the driver dropped for want of room.
    pub rx_dropped: u64,
    /// Frames sent.
    pub tx_frames: u64,
    /// Bytes of these.
    pub tx_bytes: u64,
    /// Frames lost on the way to the device.
    pub tx_failed: u64,
    /// Times no transmit frame was free.
    pub tx_full: u64,
    /// Frames that the XDP program steered to us; `None` without one.
    pub steered_to_us: Option<u64>,
    /// Frames that it left to the kernel.
    pub left_to_kernel: Option<u64>,
    /// Frames for us that came by queues of the interface that no engine core has, and were lost to us: the first engine core tells of all.
    pub on_other_queues: Option<u64>,
    /// Frames that came by this engine core's queue and were handed over to the engine cores that they are for.
    pub handed_over: u64,
    /// Frames that other engine cores handed over to this one.
    pub taken_over: u64,
    /// Frames that found the ring to another engine core full.
    pub handover_dropped: u64,
    /// Frames that were not well formed.
    pub malformed: u64,
    /// Packets with a wrong checksum.
    pub bad_checksums: u64,
    /// IP fragments, which are refused.
    pub fragments_refused: u64,
    /// Neighbours known now.
    pub neighbours: u64,
    /// TCP handshakes completed.
    pub tcp_established: u64,
    /// TCP segments received.
    pub tcp_rx_segments: u64,
    /// TCP segments sent.
    pub tcp_tx_segments: u64,
    /// Of these, sent again.
    pub tcp_retransmits: u64,
    /// Retransmission timeouts.
    pub tcp_timeouts: u64,
    /// Times a connection waited for the interface queue.
    pub tcp_ifq_waits: u64,
    /// SYN cookies sent.
    pub tcp_cookies_sent: u64,
}

/// What is promised of a disk.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DiskStatus {
    /// Device number of the file system (`st_dev`).
    pub device: u64,
    /// Where its profile comes from: "measured", "measured briefly" or "unknown".
    pub profile: String,
    /// Of each cycle, what is promised to guaranteed sessions, 0 to 1.
    pub promised: f64,
    /// What may be promised, 0 to 1.
    pub share: f64,
    /// Device time that a read is reckoned with, microseconds.
    pub read_us: u64,
}

/// An engine's monitor data.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EngineStatus {
    /// One entry per engine core.
    pub cores: Vec<CoreStatus>,
    /// One entry per disk that guaranteed sessions read.
    pub disks: Vec<DiskStatus>,
    /// Sessions that may exist at once.
    pub sessions_max: u32,
    /// How it sends ("kernel sockets").
    pub net: String,
}

/// What the catalogue knows of one file of the media folder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MediaEntry {
    /// Path below the media folder, with `/` separators.
    pub path: String,
    /// File size in bytes.
    pub size_bytes: u64,
    /// What it is; `None` when it cannot be served.
    pub media: Option<Arc<MediaDescription>>,
    /// Why it cannot be served.
    pub error: Option<String>,
}

/// The control server's view of an engine. All methods may be called from any thread of the control core.
///
/// Dropping the returned future gives no guarantee about whether the engine acted; `destroy_session` may always be called.
pub trait Engine: Send + Sync + 'static {
    /// Opens the title at `path` (relative to the media folder, already percent-decoded; the engine refuses any path that leaves the
    /// folder) and makes a session of it, of this class, for the client at `client`.
    fn create_session(
        &self,
        path: &str,
        client: SocketAddr,
        class: Class,
    ) -> impl Future<Output = Result<SessionCreated, EngineError>> + Send;

    /// Makes a session of a client that is going to send these tracks to `path`, where others can play them. Each track is set up with
    /// [`Self::setup_session`], its id being its place, counted from 1; [`Self::run_session`] follows RECORD. `core` is the
    /// engine core that the client's connection came to, if that cannot be handed to any.
    fn announce(
        &self,
        path: &str,
        client: SocketAddr,
        tracks: Vec<AnnouncedTrack>,
        core: Option<usize>,
    ) -> impl Future<Output = Result<SessionCreated, EngineError>> + Send {
        let _ = (path, client, tracks, core);
        async { Err(EngineError::Unsupported("this engine takes no live streams".into())) }
    }

    /// What the title at `path` is, without making a session.
    fn describe(&self, path: &str) -> impl Future<Output = Result<Arc<MediaDescription>, EngineError>> + Send;

    /// Creates the resources to deliver one track.
    fn setup_session(
        &self,
        session: SessionId,
        track_id: u32,
        transport: TrackTransport,
    ) -> impl Future<Output = Result<TrackReady, EngineError>> + Send;

    /// Prepares delivery from `from` to `to_ns` (end of the title when `None`). Delivery that runs is stopped first.
    fn start_session(
        &self,
        session: SessionId,
        from: PlayFrom,
        to_ns: Option<u64>,
    ) -> impl Future<Output = Result<Started, EngineError>> + Send;

    /// Starts the delivery that was prepared.
    fn run_session(&self, session: SessionId) -> impl Future<Output = Result<(), EngineError>> + Send;

    /// Stops delivery; the answer is the position, nanoseconds of normal play time.
    fn stop_session(&self, session: SessionId) -> impl Future<Output = Result<u64, EngineError>> + Send;

    /// Sends BYE, frees every resource, forgets the session. Unknown sessions are fine.
    fn destroy_session(&self, session: SessionId) -> impl Future<Output = ()> + Send;

    /// Delivery state of one session.
    fn session_status(&self, session: SessionId) -> impl Future<Output = Result<SessionStatus, EngineError>> + Send;

    /// Delivery state of all sessions.
    fn sessions(&self) -> impl Future<Output = Vec<SessionStatus>> + Send;

    /// Monitor data.
    fn engine_status(&self) -> impl Future<Output = EngineStatus> + Send;

    /// The media folder's titles, by path.
    fn media(&self) -> impl Future<Output = Vec<MediaEntry>> + Send;

    /// Hands the sending side of a client's connection over: from now on only the engine writes to it, and RTSP responses go through
    /// `stream_write`, so that they never cut an interleaved packet in two. `connection` is a duplicate of the socket. `session` is what it is
    /// needed for first.
    fn attach_stream(&self, connection: Handover, session: SessionId) -> impl Future<Output = Result<StreamToken, EngineError>> + Send;

    /// Queues bytes on an attached connection. Order is kept. Never waits; what does not fit closes the stream.
    fn stream_write(&self, stream: StreamToken, bytes: Bytes);

    /// Passes on the payload of a `$` frame that arrived on an attached connection (RTCP of the client).
    fn stream_input(&self, stream: StreamToken, channel: u8, payload: Bytes);

    /// The connection is gone: sessions delivered through it end.
    fn detach_stream(&self, stream: StreamToken);

    /// Begins to copy a file into the media folder, best-effort.
    fn start_import(&self, _request: ImportRequest) -> impl Future<Output = Result<ImportStatus, TransferError>> + Send {
        async { Err(TransferError::Off("this engine imports nothing")) }
    }

    /// The imports that go on, and the last ones that are over, by number.
    fn imports(&self) -> impl Future<Output = Vec<ImportStatus>> + Send {
        async { Vec::new() }
    }

    /// Ends an import that goes on, and forgets one that is over. The answer is how it was in the end.
    fn cancel_import(&self, id: u64) -> impl Future<Output = Result<ImportStatus, TransferError>> + Send {
        async move { Err(TransferError::NotFound(format!("there is no import {id}"))) }
    }

    /// Begins to record a live stream into a file of the media folder, best-effort.
    fn start_recording(&self, _request: RecordingRequest) -> impl Future<Output = Result<RecordingStatus, TransferError>> + Send {
        async { Err(TransferError::Off("this engine records nothing")) }
    }

    /// The recordings that go on, and the last ones that are over, by number.
    fn recordings(&self) -> impl Future<Output = Vec<RecordingStatus>> + Send {
        async { Vec::new() }
    }

    /// Ends a recording that goes on, whose file is kept unless it is to `discard` it, and forgets one that is over. The answer is how it
    /// was in the end, or is when that takes long.
    fn end_recording(&self, id: u64, discard: bool) -> impl Future<Output = Result<RecordingStatus, TransferError>> + Send {
        let _ = discard;
        async move { Err(TransferError::NotFound(format!("there is no recording {id}"))) }
    }
}
