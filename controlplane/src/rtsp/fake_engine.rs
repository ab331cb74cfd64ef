//! An engine that delivers nothing: for tests and fuzzing of what stands above the [`Engine`] seam.
//!
//! It keeps the seam's promises (states, errors, sync samples every two seconds), notes every call, and lets a test say what should go
//! wrong.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use dataplane::engine::net::Handover;
use dataplane::media::description::LIVE;
use dataplane::media::{MediaDescription, TrackDescription, TrackKind};

use crate::engine::{
    AnnouncedTrack, Class, Engine, EngineError, EngineStatus, LatenessSummary, MediaEntry, PlayFrom, SessionCreated, SessionId,
    SessionState, SessionStatus, Started, StreamToken, TrackReady, TrackStart, TrackTransport,
};

/// Distance of sync samples, nanoseconds.
pub const SYNC_NS: u64 = 2_000_000_000;

/// A video and an audio track of 60.5 seconds.
pub fn sample_media() -> MediaDescription {
    let video = TrackDescription {
        id: 1,
        kind: TrackKind::Video,
        codec: "H.264 High@3.1".into(),
        payload_type: 96,
        encoding: "H264".into(),
        clock_rate: 90_000,
        channels: None,
        fmtp: "packetization-mode=1".into(),
        duration_ns: 60_500_000_000,
        samples: 1512,
        sync_samples: 31,
        mean_bps: 1_000_000,
        peak_1s_bps: 1_500_000,
        packets_per_second: 134.0,
        width: 1280,
        height: 720,
    };
    let audio = TrackDescription {
        id: 2,
        kind: TrackKind::Audio,
        codec: "AAC-LC".into(),
        payload_type: 97,
        encoding: "mpeg4-generic".into(),
        clock_rate: 48_000,
        channels: Some(2),
        fmtp: String::new(),
        mean_bps: 128_000,
        peak_1s_bps: 128_000,
        packets_per_second: 47.0,
        width: 0,
        height: 0,
        ..video.clone()
    };
    MediaDescription {
        container: "MP4".into(),
        duration_ns: 60_500_000_000,
        size_bytes: 8_000_000,
        tracks: vec![video, audio],
        left_out: Vec::new(),
    }
}

/// A session of the fake.
#[derive(Clone, Debug)]
pub struct FakeSession {
    /// Path of its title.
    pub path: String,
    /// What the status says.
    pub state: SessionState,
    /// What the status says of RTCP.
    pub last_rtcp_age_ns: Option<u64>,
    /// Tracks in set-up order.
    pub tracks: Vec<(u32, TrackTransport)>,
    media: Arc<MediaDescription>,
    client: SocketAddr,
    /// Its class.
    pub class: Class,
    position_ns: u64,
}

/// An attached connection.
#[derive(Debug)]
pub struct FakeStream {
    /// Gone once it is detached.
    connection: Option<File>,
    /// All that was written through the engine.
    pub written: Vec<u8>,
    /// Frames that arrived.
    pub frames: Vec<(u8, Bytes)>,
}

/// What the fake holds.
#[derive(Debug, Default)]
pub struct FakeState {
    /// Titles, or why they cannot be played.
    pub titles: BTreeMap<String, Result<Arc<MediaDescription>, EngineError>>,
    /// Sessions.
    pub sessions: BTreeMap<SessionId, FakeSession>,
    /// Attached connections.
    pub streams: BTreeMap<StreamToken, FakeStream>,
    /// Calls in order, readable.
    pub calls: Vec<String>,
    /// Sessions that may exist at once.
    pub sessions_max: Option<usize>,
    /// Every call fails with 503.
    pub unavailable: bool,
    next: u64,
}

/// The fake. Its methods are done when they are called: the futures are ready at once.
#[derive(Debug, Default)]
pub struct FakeEngine {
    state: Mutex<FakeState>,
}

impl FakeEngine {
    /// An engine with `film.mp4` and `sub/my film.mp4` (video and audio), `song.mp4` (audio alone), `broken.mp4` (415) and `new.mp4` (503).
    pub fn with_titles() -> Arc<Self> {
        let film = Arc::new(sample_media());
        let mut song = sample_media();
        song.tracks.remove(0);
        let engine = Self::default();
        engine.state().titles = [
            ("film.mp4", Ok(Arc::clone(&film))),
            ("sub/my film.mp4", Ok(film)),
            ("song.mp4", Ok(Arc::new(song))),
            ("broken.mp4", Err(EngineError::Unsupported("moov box ends at byte 17".into()))),
            ("new.mp4", Err(EngineError::Unavailable("the title is being read".into()))),
        ]
        .into_iter()
        .map(|(path, media)| (path.to_owned(), media))
        .collect();
        Arc::new(engine)
    }

    /// What it holds.
    pub fn state(&self) -> MutexGuard<'_, FakeState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The calls since the last time this was asked.
    pub fn take_calls(&self) -> Vec<String> {
        std::mem::take(&mut self.state().calls)
    }

    fn session<T>(
        &self,
        call: String,
        id: SessionId,
        act: impl FnOnce(&mut FakeSession) -> Result<T, EngineError>,
    ) -> Result<T, EngineError> {
        let mut state = self.state();
        state.calls.push(call);
        if state.unavailable {
            return Err(EngineError::Unavailable("the engine does not answer".into()));
        }
        state.sessions.get_mut(&id).ok_or(EngineError::NoSession).and_then(act)
    }
}

impl FakeStream {
    /// True until it is detached.
    pub fn is_attached(&self) -> bool {
        self.connection.is_some()
    }
}

impl Engine for FakeEngine {
    async fn create_session(&self, path: &str, client: SocketAddr, class: Class) -> Result<SessionCreated, EngineError> {
        let media = self.describe(path).await?;
        let mut state = self.state();
        state.calls.push(format!("create {path}"));
        if state.sessions_max.is_some_and(|max| state.sessions.len() >= max) {
            return Err(EngineError::Capacity("all sessions are in use".into()));
        }
        state.next += 1;
        let session = SessionId(state.next);
        let entry = FakeSession {
            path: path.to_owned(),
            state: SessionState::Ready,
            last_rtcp_age_ns: None,
            tracks: Vec::new(),
            media: Arc::clone(&media),
            client,
            class,
            position_ns: 0,
        };
        state.sessions.insert(session, entry);
        Ok(SessionCreated { session, media })
    }

    async fn announce(
        &self,
        path: &str,
        client: SocketAddr,
        tracks: Vec<AnnouncedTrack>,
        _: Option<usize>,
    ) -> Result<SessionCreated, EngineError> {
        let mut media = MediaDescription { container: LIVE.into(), duration_ns: 0, size_bytes: 0, ..sample_media() };
        media.tracks.truncate(tracks.len());
        self.state().titles.insert(path.to_owned(), Ok(Arc::new(media)));
        self.create_session(path, client, Class::Guaranteed).await
    }

    async fn describe(&self, path: &str) -> Result<Arc<MediaDescription>, EngineError> {
        let state = self.state();
        if state.unavailable {
            return Err(EngineError::Unavailable("the engine does not answer".into()));
        }
        state.titles.get(path).cloned().unwrap_or_else(|| Err(EngineError::NotFound(format!("no title {path}"))))
    }

    async fn setup_session(&self, session: SessionId, track_id: u32, transport: TrackTransport) -> Result<TrackReady, EngineError> {
        self.session(format!("setup {} {track_id}", session.0), session, |s| {
            if s.media.tracks.iter().all(|track| track.id != track_id) {
                return Err(EngineError::NotFound(format!("no track {track_id}")));
            }
            s.tracks.retain(|(id, _)| *id != track_id);
            s.tracks.push((track_id, transport));
            let udp = matches!(transport, TrackTransport::Udp { .. });
            Ok(TrackReady { ssrc: 0x1000 + track_id, server_ports: udp.then_some((6970, 6971)) })
        })
    }

    async fn start_session(&self, session: SessionId, from: PlayFrom, to_ns: Option<u64>) -> Result<Started, EngineError> {
        self.session(format!("start {} {from:?} {to_ns:?}", session.0), session, |s| {
            if s.tracks.is_empty() {
                return Err(EngineError::State("no track is set up".into()));
            }
            let from_ns = match from {
                PlayFrom::Position => s.position_ns,
                PlayFrom::Npt(ns) => ns - ns % SYNC_NS,
            };
            let to_ns = to_ns.unwrap_or(s.media.duration_ns);
            if to_ns <= from_ns {
                return Err(EngineError::Range("it ends before the position".into()));
            }
            s.position_ns = from_ns;
            s.state = SessionState::Ready;
            let rtptime = |id: u32| {
                let clock_rate = s.media.tracks.iter().find(|track| track.id == id).map_or(0, |track| track.clock_rate);
                (u128::from(from_ns) * u128::from(clock_rate) / 1_000_000_000) as u32
            };
            let start = |(id, _): &(u32, TrackTransport)| TrackStart { track_id: *id, seq: 100, rtptime: rtptime(*id) };
            Ok(Started { from_ns, to_ns, tracks: s.tracks.iter().map(start).collect() })
        })
    }

    async fn run_session(&self, session: SessionId) -> Result<(), EngineError> {
        self.session(format!("run {}", session.0), session, |s| {
            s.state = SessionState::Playing;
            Ok(())
        })
    }

    async fn stop_session(&self, session: SessionId) -> Result<u64, EngineError> {
        self.session(format!("stop {}", session.0), session, |s| {
            s.state = SessionState::Paused;
            s.position_ns += SYNC_NS;
            Ok(s.position_ns)
        })
    }

    async fn destroy_session(&self, session: SessionId) {
        let mut state = self.state();
        state.calls.push(format!("destroy {}", session.0));
        state.sessions.remove(&session);
    }

    async fn session_status(&self, session: SessionId) -> Result<SessionStatus, EngineError> {
        self.session(format!("status {}", session.0), session, |s| {
            Ok(SessionStatus {
                session,
                state: s.state,
                path: s.path.clone(),
                client: s.client.to_string(),
                transport: "UDP".into(),
                class: s.class,
                core: 0,
                position_ns: s.position_ns,
                file_offset: 0,
                last_rtcp_age_ns: s.last_rtcp_age_ns,
                lateness: LatenessSummary::default(),
                tracks: Vec::new(),
                end_reason: None,
                ingest: None,
            })
        })
    }

    async fn sessions(&self) -> Vec<SessionStatus> {
        let ids: Vec<SessionId> = self.state().sessions.keys().copied().collect();
        let mut all = Vec::new();
        for id in ids {
            all.extend(self.session_status(id).await);
        }
        all
    }

    async fn engine_status(&self) -> EngineStatus {
        EngineStatus { net: "none".into(), ..EngineStatus::default() }
    }

    async fn media(&self) -> Vec<MediaEntry> {
        let entry = |(path, media): (&String, &Result<Arc<MediaDescription>, EngineError>)| MediaEntry {
            path: path.clone(),
            size_bytes: media.as_ref().map_or(0, |media| media.size_bytes),
            media: media.as_ref().ok().cloned(),
            error: media.as_ref().err().map(ToString::to_string),
        };
        self.state().titles.iter().map(entry).collect()
    }

    async fn attach_stream(&self, connection: Handover, _: SessionId) -> Result<StreamToken, EngineError> {
        let mut state = self.state();
        if state.unavailable {
            return Err(EngineError::Unavailable("the engine does not answer".into()));
        }
        let Handover::Socket(connection) = connection else { return Err(EngineError::Unavailable("no stack of its own".into())) };
        state.next += 1;
        let token = StreamToken(state.next);
        state.calls.push("attach".into());
        let stream = FakeStream { connection: Some(File::from(connection)), written: Vec::new(), frames: Vec::new() };
        state.streams.insert(token, stream);
        Ok(token)
    }

    fn stream_write(&self, stream: StreamToken, bytes: Bytes) {
        let mut state = self.state();
        if let Some(FakeStream { connection: Some(connection), written, .. }) = state.streams.get_mut(&stream) {
            written.extend_from_slice(&bytes);
            // Tests write little, so that the socket takes it.
            let _ = connection.write_all(&bytes);
        }
    }

    fn stream_input(&self, stream: StreamToken, channel: u8, payload: Bytes) {
        if let Some(stream) = self.state().streams.get_mut(&stream) {
            stream.frames.push((channel, payload));
        }
    }

    fn detach_stream(&self, stream: StreamToken) {
        let mut state = self.state();
        state.calls.push("detach".into());
        if let Some(stream) = state.streams.get_mut(&stream) {
            stream.connection = None;
        }
    }
}
