//! An engine for tests of the control core: it has every kind of thing to report, delivers nothing, and counts what it is asked.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use dataplane::engine::net::Handover;
use dataplane::media::{LeftOutTrack, MediaDescription, TrackDescription, TrackKind};

use crate::engine::*;
use crate::transfer::{ImportRequest, ImportStatus, RecordingRequest, RecordingStatus, TransferError, TransferState};

/// The engine.
#[derive(Debug, Default)]
pub(crate) struct FakeEngine {
    /// Monitor queries that it was asked.
    pub(crate) queries: AtomicU64,
    /// It never answers monitor queries.
    pub(crate) hangs: bool,
}

impl FakeEngine {
    async fn count_query(&self) {
        self.queries.fetch_add(1, Ordering::Relaxed);
        if self.hangs {
            std::future::pending::<()>().await;
        }
        tokio::task::yield_now().await;
    }
}

/// A description in which nothing is absent.
pub(crate) fn description() -> MediaDescription {
    MediaDescription {
        container: "MP4".into(),
        duration_ns: 60_000_000_000,
        size_bytes: 12_345_678,
        tracks: vec![
            TrackDescription {
                id: 1,
                kind: TrackKind::Video,
                codec: "H.264 High@4.0".into(),
                payload_type: 96,
                encoding: "H264".into(),
                clock_rate: 90_000,
                channels: None,
                fmtp: "packetization-mode=1;profile-level-id=640028".into(),
                duration_ns: 60_000_000_000,
                samples: 1500,
                sync_samples: 30,
                mean_bps: 1_400_000,
                peak_1s_bps: 2_200_000,
                packets_per_second: 150.5,
                width: 1280,
                height: 720,
            },
            TrackDescription {
                id: 2,
                kind: TrackKind::Audio,
                codec: "AAC-LC".into(),
                payload_type: 97,
                encoding: "mpeg4-generic".into(),
                clock_rate: 48_000,
                channels: Some(2),
                fmtp: "mode=AAC-hbr".into(),
                duration_ns: 60_000_000_000,
                samples: 2812,
                sync_samples: 2812,
                mean_bps: 128_000,
                peak_1s_bps: 129_000,
                packets_per_second: 46.9,
                width: 0,
                height: 0,
            },
        ],
        left_out: vec![LeftOutTrack { id: 3, format: "tx3g".into(), reason: "subtitles have no payload format here".into() }],
    }
}

fn session() -> SessionStatus {
    SessionStatus {
        session: SessionId(7),
        state: SessionState::Playing,
        path: "a.mp4".into(),
        client: "192.0.2.1:4000".into(),
        transport: "UDP".into(),
        class: Class::BestEffort,
        core: 0,
        position_ns: 1,
        file_offset: 2,
        last_rtcp_age_ns: Some(3),
        lateness: LatenessSummary { packets: 1, mean_us: 1.5, p50_us: 1, p99_us: 2, p999_us: 3, max_us: 4 },
        tracks: vec![TrackStatus { client_cname: Some("c".into()), ..TrackStatus::default() }],
        end_reason: Some("stalled".into()),
        ingest: Some(IngestStatus::default()),
    }
}

impl Engine for FakeEngine {
    async fn create_session(&self, path: &str, _client: SocketAddr, _class: Class) -> Result<SessionCreated, EngineError> {
        Ok(SessionCreated { session: SessionId(7), media: self.describe(path).await? })
    }

    async fn describe(&self, _path: &str) -> Result<Arc<MediaDescription>, EngineError> {
        Ok(Arc::new(description()))
    }

    async fn setup_session(&self, _: SessionId, _: u32, _: TrackTransport) -> Result<TrackReady, EngineError> {
        Err(EngineError::NoSession)
    }

    async fn start_session(&self, _: SessionId, _: PlayFrom, _: Option<u64>) -> Result<Started, EngineError> {
        Err(EngineError::NoSession)
    }

    async fn run_session(&self, _: SessionId) -> Result<(), EngineError> {
        Err(EngineError::NoSession)
    }

    async fn stop_session(&self, _: SessionId) -> Result<u64, EngineError> {
        Err(EngineError::NoSession)
    }

    async fn destroy_session(&self, _: SessionId) {}

    async fn session_status(&self, _: SessionId) -> Result<SessionStatus, EngineError> {
        Ok(session())
    }

    async fn sessions(&self) -> Vec<SessionStatus> {
        self.count_query().await;
        vec![session()]
    }

    async fn engine_status(&self) -> EngineStatus {
        self.count_query().await;
        let core = |core| CoreStatus {
            core,
            cpu: Some(core),
            sessions: 3,
            playing: 2,
            packets: 100,
            bytes: u64::MAX / 2 + 1,
            ports: (6970, 6971),
            lateness: LatenessSummary { max_us: 40 + u64::from(core), ..LatenessSummary::default() },
            disk: "io_uring".into(),
            memory: "4 KiB pages".into(),
            unreserved: vec![UnreservedStatus { kind: "commands".into(), ..UnreservedStatus::default() }],
            // One with and one without a stack of its own, so that the shape has both.
            own_stack: (core == 1).then(|| OwnStackStatus {
                left_to_kernel: Some(7),
                on_other_queues: Some(0),
                ..OwnStackStatus::default()
            }),
            ..CoreStatus::default()
        };
        let disk = DiskStatus { device: 1, profile: "measured".into(), promised: 0.25, share: 0.8, read_us: 150 };
        EngineStatus { cores: vec![core(0), core(1)], disks: vec![disk], sessions_max: 5000, net: "kernel sockets".into() }
    }

    async fn media(&self) -> Vec<MediaEntry> {
        self.count_query().await;
        vec![
            MediaEntry { path: "a.mp4".into(), size_bytes: 1, media: Some(Arc::new(description())), error: None },
            MediaEntry { path: "b.mp4".into(), size_bytes: 2, media: None, error: Some("truncated".into()) },
        ]
    }

    async fn attach_stream(&self, _: Handover, _: SessionId) -> Result<StreamToken, EngineError> {
        Ok(StreamToken(1))
    }

    fn stream_write(&self, _: StreamToken, _: Bytes) {}

    fn stream_input(&self, _: StreamToken, _: u8, _: Bytes) {}

    fn detach_stream(&self, _: StreamToken) {}

    async fn start_import(&self, request: ImportRequest) -> Result<ImportStatus, TransferError> {
        if request.to == "there.mp4" {
            return Err(TransferError::Conflict("it is there".into()));
        }
        Ok(import(9, request))
    }

    async fn imports(&self) -> Vec<ImportStatus> {
        let request = || ImportRequest { from: "a.mp4".into(), to: "b.mp4".into(), rate_bps: Some(1_000_000), replace: false };
        vec![
            import(7, ImportRequest { rate_bps: None, ..request() }),
            ImportStatus { state: TransferState::Failed, error: Some("the disk is full".into()), ..import(8, request()) },
        ]
    }

    async fn start_recording(&self, request: RecordingRequest) -> Result<RecordingStatus, TransferError> {
        if request.channel == "live/none" {
            return Err(TransferError::NotFound("nothing is live at 'live/none'".into()));
        }
        Ok(recording(9, request))
    }

    async fn recordings(&self) -> Vec<RecordingStatus> {
        let request = |seconds| RecordingRequest { channel: "live/a".into(), to: "r/a.mp4".into(), seconds, replace: false };
        let ended = Some("somebody ended it".to_owned());
        vec![
            recording(7, request(None)),
            RecordingStatus { state: TransferState::Done, ended, ..recording(8, request(Some(60))) },
            RecordingStatus { error: Some("nothing was recorded".into()), ..recording(9, request(None)) },
        ]
    }

    async fn end_recording(&self, id: u64, discard: bool) -> Result<RecordingStatus, TransferError> {
        let mut recordings = self.recordings().await.into_iter();
        let recording = recordings.find(|recording| recording.id == id);
        let recording = recording.ok_or_else(|| TransferError::NotFound(format!("there is no recording {id}")))?;
        let state = if discard { TransferState::Cancelled } else { TransferState::Done };
        Ok(RecordingStatus { state, ..recording })
    }
}

fn recording(id: u64, request: RecordingRequest) -> RecordingStatus {
    RecordingStatus {
        id,
        channel: request.channel,
        to: request.to,
        state: TransferState::Running,
        bytes: 1,
        recorded_s: 1.5,
        samples: 2,
        tracks: vec!["H.264".into()],
        left_out: vec!["AV1: why".into()],
        seconds: request.seconds,
        started_at: "2026-01-01T00:00:00Z".into(),
        elapsed_s: 1.5,
        ended: None,
        error: None,
    }
}

fn import(id: u64, request: ImportRequest) -> ImportStatus {
    ImportStatus {
        id,
        from: request.from,
        to: request.to,
        state: TransferState::Running,
        bytes: 1,
        bytes_total: 2,
        rate_bps: request.rate_bps,
        started_at: "2026-01-01T00:00:00Z".into(),
        elapsed_s: 1.5,
        error: None,
    }
}
