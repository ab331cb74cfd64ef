//! `LocalEngine`: the connection protocol's messages carried out by the engine cores of this process.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use dataplane::delivery::{StartPlan, TrackSpec};
use dataplane::disks::CyclicConfig;
use dataplane::engine::local::{DEVICE_DEPTH_MAX, LocalCoreConfig};
use dataplane::engine::net::{Handover, SocketControl};
use dataplane::engine::own;
use dataplane::engine::{Command, CoreFacts, Reply, TRACKS_MAX, TrackSetup};
use dataplane::gdsl::Outcome;
use dataplane::media::MediaDescription;
use dataplane::media::library::Library;
use pacing::cpu::Work;

use tokio::sync::Notify;

use super::channels::Channels;
use super::config::LocalConfig;
use super::core::{Core, Notice};
use super::disks::{DiskRules, Disks};
use super::imports::Imports;
use super::recordings::Recordings;
use super::session::{Inner, Life, Session, add_track, position, to_core};
use super::status::Monitor;
use super::titles::Titles;
use super::transfers::Board;
use crate::engine::{
    AnnouncedTrack, Class, Engine, EngineError, EngineStatus, MediaEntry, PlayFrom, SessionCreated, SessionId, SessionStatus, Started,
    StreamToken, TrackReady, TrackStart, TrackTransport,
};
use crate::net::{Ender, Net};
use crate::transfer::{ImportRequest, ImportStatus, RecordingRequest, RecordingStatus, TransferError};

/// What is read ahead is at most this much more than the configured time: the sample that is being sent, and one that is being read.
const WINDOW_SLACK_NS: u64 = 1_000_000_000;

/// A client's connection whose sending side an engine core has.
pub(super) struct Stream {
    pub(super) core: Arc<Core>,
    ender: Ender,
}

pub(super) type Streams = HashMap<StreamToken, Stream>;

/// A stream that an engine core takes over; the core lets go of it again if nobody is left to use it.
struct Attaching<'a> {
    core: &'a Arc<Core>,
    token: StreamToken,
    done: bool,
}

impl Drop for Attaching<'_> {
    fn drop(&mut self) {
        if !self.done {
            let token = self.token.0;
            self.core.insist(move |_| Command::DetachStream { token }, ());
        }
    }
}

/// The engine in this process.
pub struct LocalEngine {
    pub(super) cores: Vec<Arc<Core>>,
    pub(super) titles: Arc<Titles>,
    pub(super) sessions: Arc<Mutex<HashMap<SessionId, Arc<Session>>>>,
    pub(super) streams: Arc<Mutex<Streams>>,
    pub(super) channels: Arc<Channels>,
    /// Connections of the engine cores' own stacks, by core, and what is rung when they have something to tell. None on kernel sockets.
    sockets: Vec<SocketControl>,
    sockets_bell: Arc<Notify>,
    next_id: AtomicU64,
    monitor: Monitor,
    pub(super) disks: Arc<Disks>,
    imports: Imports,
    recordings: Recordings,
    transfers: Arc<Board>,
    pub(super) config: LocalConfig,
    pub(super) cname: String,
}

impl LocalEngine {
    /// Starts the engine cores. Blocks until they run (their memory is prefaulted).
    ///
    /// # Errors
    /// A sentence that says what could not be had.
    pub fn start(config: LocalConfig) -> Result<Arc<Self>, String> {
        let library = Library::open(config.media.clone(), config.index_cache.clone()).map_err(|e| e.to_string())?;
        let probe = library.list().first().map(|file| library.root().join(&file.path));
        let window_ns = config.read_ahead_ns.saturating_add(WINDOW_SLACK_NS);
        let disks = Arc::new(Disks::new(DiskRules {
            share_permille: config.disk_share_permille,
            profiles: config.disk_profiles.clone(),
            cycle_ns: CyclicConfig::for_read_ahead(config.read_ahead_ns, DEVICE_DEPTH_MAX).cycle_ns,
            read_bytes: u32::try_from(config.chunk_bytes).unwrap_or(u32::MAX),
            depth_max: DEVICE_DEPTH_MAX,
        })?);
        let titles = Arc::new(Titles::new(library, config.chunk_bytes as u64, window_ns));
        if let Some(path) = &probe {
            disks.meet(path);
        }
        let sessions: Arc<Mutex<HashMap<SessionId, Arc<Session>>>> = Arc::default();
        let streams: Arc<Mutex<Streams>> = Arc::default();
        let channels = Arc::new(Channels::new(config.live));
        let imports = Imports::new(config.import_from.as_deref())?;
        let recordings = Recordings::new(config.recordings_to.clone());
        recordings.recover(&titles.library).map_err(|e| format!("cannot start a thread: {e}"))?;
        let transfers: Arc<Board> = Arc::default();
        let share = config.sessions_max.div_ceil(config.cpus.len().max(1) as u32);
        let (mut cores, mut sockets) = (Vec::new(), Vec::new());
        let seats = config.own_net.as_ref().map(|own| own::seats(own, config.cpus.len(), config.rtp_port)).transpose()?;
        let mut seats = seats.unwrap_or_default().into_iter();
        let sockets_bell: Arc<Notify> = Arc::default();
        for (index, &cpu) in config.cpus.iter().enumerate() {
            let step = u16::try_from(2 * index).unwrap_or(u16::MAX);
            let rtp_port = if config.rtp_port == 0 { 0 } else { config.rtp_port.saturating_add(step) };
            let core_config = LocalCoreConfig {
                cpu,
                poll: config.poll,
                rtp_port,
                sessions_max: share,
                memory_bytes: config.memory_bytes,
                chunk_bytes: config.chunk_bytes,
                disk: CyclicConfig::for_read_ahead(config.read_ahead_ns, DEVICE_DEPTH_MAX),
                cache: config.cache,
                realtime: config.realtime,
                probe: probe.clone(),
                own_net: config.own_net.clone(),
            };
            let bell = Arc::clone(&sockets_bell);
            let (core, core_sockets) =
                Core::start(index, core_config, seats.next(), config.cpu_share_permille, Box::new(move || bell.notify_one()))?;
            sockets.extend(core_sockets);
            let core = Arc::new(core);
            let (reader, sessions, streams, channels) =
                (Arc::clone(&core), Arc::clone(&sessions), Arc::clone(&streams), Arc::clone(&channels));
            let board = Arc::clone(&transfers);
            std::thread::Builder::new()
                .name(format!("events-{index}"))
                .spawn(move || reader.read_events(|notice| take_notice(&sessions, &streams, &channels, &board, notice)))
                .map_err(|e| format!("cannot start a thread: {e}"))?;
            cores.push(core);
        }
        if cores.is_empty() {
            return Err("no engine core is configured (--engine-cores)".into());
        }
        let cname = format!("tactus-{:08x}", rand::random::<u32>());
        let next_id = AtomicU64::new(1);
        let monitor = Monitor::default();
        Ok(Arc::new(Self {
            cores,
            titles,
            sessions,
            streams,
            channels,
            sockets,
            sockets_bell,
            next_id,
            monitor,
            disks,
            imports,
            recordings,
            transfers,
            config,
            cname,
        }))
    }

    /// Where RTSP and the monitor can listen.
    pub fn net(&self) -> Net {
        match &self.config.own_net {
            Some(own) => Net::own(self.sockets.clone(), own.addresses.iter().map(|(ip, _)| *ip).collect()),
            None => Net::kernel(),
        }
    }

    /// Carries what the engine cores' own stacks tell to those who wait for it, for as long as the engine exists.
    pub async fn carry_sockets(self: Arc<Self>) {
        loop {
            self.sockets.iter().for_each(SocketControl::pump);
            // All of them lie down, whatever one says: each rings only from then on.
            let busy = self.sockets.iter().filter(|sockets| !sockets.lie_down()).count();
            if busy == 0 {
                self.sockets_bell.notified().await;
            } else {
                tokio::task::yield_now().await;
            }
        }
    }

    /// What the engine cores turned out to be.
    pub fn facts(&self) -> Vec<CoreFacts> {
        self.cores.iter().map(|core| core.facts().clone()).collect()
    }

    /// Polls the cores once a second, for as long as the engine exists.
    pub async fn poll_cores(self: Arc<Self>) {
        let mut every_second = tokio::time::interval(Duration::from_secs(1));
        every_second.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            every_second.tick().await;
            self.monitor.poll(&self.cores, &self.disks).await;
            self.channels.tidy();
        }
    }

    /// Ends all recordings, whose files are kept. Waits at most `patience`.
    pub async fn end_recordings(&self, patience: Duration) {
        self.recordings.end_all(patience).await;
    }

    /// BYE to every session, and the end of the engine cores. Waits at most `patience`.
    pub fn shut_down(&self, patience: Duration) {
        let deadline = Instant::now() + patience;
        for core in &self.cores {
            while core.tell(Command::Shutdown).is_err() && !core.is_finished() && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        while self.cores.iter().any(|core| !core.is_finished()) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn session(&self, id: SessionId) -> Result<Arc<Session>, EngineError> {
        lock(&self.sessions).get(&id).cloned().ok_or(EngineError::NoSession)
    }

    pub(super) fn new_id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    /// The least loaded engine core.
    pub(super) fn choose_core(&self) -> Option<Arc<Core>> {
        self.cores.iter().min_by_key(|core| core.sessions.load(Ordering::Relaxed)).cloned()
    }

    /// The engine core that can have a connection: of its own stack's, only the one that it came to; any other goes where the session is.
    fn core_of(&self, connection: &Handover, session: SessionId) -> Option<Arc<Core>> {
        match connection {
            Handover::Socket(_) => self.session(session).ok().and_then(|session| session.home()).or_else(|| self.choose_core()),
            Handover::Connection(lent, _) => {
                let index = self.sockets.iter().position(|sockets| sockets.has_lent(lent))?;
                self.cores.get(index).cloned()
            }
        }
    }

    async fn look_up(&self, path: &str) -> Result<Arc<MediaDescription>, EngineError> {
        if let Some(channel) = self.channels.look_up(path).await {
            return Ok(Arc::clone(&channel?.media));
        }
        let (titles, path) = (Arc::clone(&self.titles), path.to_owned());
        let open = blocking(move || titles.look_up(&path)).await?;
        Ok(Arc::clone(&open.description))
    }

    pub(super) async fn has_title(&self, path: &str) -> bool {
        let (titles, path) = (Arc::clone(&self.titles), path.to_owned());
        blocking(move || Ok(titles.exists(&path))).await.unwrap_or(true)
    }

    fn plan(&self, session: &Session, from: PlayFrom, to_ns: Option<u64>) -> Result<Option<Box<StartPlan>>, EngineError> {
        if session.channel.is_some() {
            return Self::live_plan(session);
        }
        let inner = session.inner();
        let Inner { title: Some(title), tracks, state, .. } = &*inner else {
            return Err(EngineError::State("no track is set up".into()));
        };
        let title = &title.open.title;
        let from_ns = match (from, *state) {
            (_, Life::Failed(why)) => return Err(EngineError::State(why.into())),
            (PlayFrom::Position, Life::Prepared | Life::Playing) => return Ok(None),
            (PlayFrom::Position, Life::Ready | Life::Ended) => 0,
            (PlayFrom::Npt(ns), _) => ns,
        };
        let duration_ns = title.description.duration_ns;
        if from_ns > duration_ns || to_ns.is_some_and(|to| to <= from_ns) {
            let seconds = |ns: u64| ns as f64 / 1e9;
            return Err(EngineError::Range(format!("{:.3} s is not within 0 to {:.3} s", seconds(from_ns), seconds(duration_ns))));
        }
        Ok(Some(Box::new(StartPlan::new(title, tracks, from_ns, to_ns))))
    }
}

impl Engine for LocalEngine {
    async fn create_session(&self, path: &str, client: SocketAddr, class: Class) -> Result<SessionCreated, EngineError> {
        let media = self.look_up(path).await?;
        let id = SessionId(self.new_id());
        let session = match self.channels.at(path) {
            Some(channel) if media.is_live() => Session::live(path, client, class, channel, false),
            _ => Session::new(path, client, class),
        };
        lock(&self.sessions).insert(id, Arc::new(session));
        Ok(SessionCreated { session: id, media })
    }

    async fn announce(
        &self,
        path: &str,
        client: SocketAddr,
        tracks: Vec<AnnouncedTrack>,
        core: Option<usize>,
    ) -> Result<SessionCreated, EngineError> {
        self.announce_session(path, client, tracks, core).await
    }

    async fn describe(&self, path: &str) -> Result<Arc<MediaDescription>, EngineError> {
        self.look_up(path).await
    }

    async fn setup_session(&self, id: SessionId, track_id: u32, transport: TrackTransport) -> Result<TrackReady, EngineError> {
        let session = self.session(id)?;
        let _turn = session.turn.lock().await;
        if let Some(channel) = &session.channel {
            return self.set_up_live(id, &session, channel, track_id, transport).await;
        }
        let core = self.admit(&session, transport).await?;
        let (title, track) = {
            let inner = session.inner();
            let title = inner.title.clone().ok_or(EngineError::NoSession)?;
            let track = title.open.title.tracks.iter().position(|t| t.id == track_id);
            let track = track.ok_or_else(|| EngineError::NotFound(format!("track {track_id} of {}", session.path)))?;
            if inner.tracks.contains(&track) {
                return Err(EngineError::State(format!("track {track_id} is set up already")));
            }
            if inner.tracks.len() >= TRACKS_MAX {
                return Err(EngineError::Capacity(format!("a session has at most {TRACKS_MAX} tracks")));
            }
            if !matches!(inner.state, Life::Ready) {
                return Err(EngineError::State("tracks cannot be added once play has begun".into()));
            }
            (title, track)
        };
        let ssrc = rand::random();
        let spec = TrackSpec {
            title: Arc::clone(&title.open.title),
            track,
            file: title.file.clone(),
            file_key: title.file_key,
            read_ahead_ns: self.config.read_ahead_ns,
            link_blocks: title.chunks,
            stall_ns: self.config.stall_ns,
            class: session.class,
            lag: self.config.lag,
            cname: self.cname.clone(),
            random: (ssrc, rand::random(), rand::random(), rand::random()),
        };
        let pair = spec.build().ok_or_else(|| EngineError::NotFound(format!("track {track_id}")))?;
        let setup = TrackSetup { track_id, transport: to_core(transport), pair, work: Work::default() };
        add_track(id, &session, &core, track, setup).await?;
        let server_ports = matches!(transport, TrackTransport::Udp { .. }).then(|| core.facts().ports);
        Ok(TrackReady { ssrc, server_ports })
    }

    async fn start_session(&self, id: SessionId, from: PlayFrom, to_ns: Option<u64>) -> Result<Started, EngineError> {
        let session = self.session(id)?;
        let _turn = session.turn.lock().await;
        let core = session.core().ok_or_else(|| EngineError::State("no track is set up".into()))?;
        let from = match (from, to_ns) {
            // A new end for a range that was begun: it is planned anew from where it stands.
            (PlayFrom::Position, Some(_)) if session.is_begun() => PlayFrom::Npt(position(&core, id).await?),
            _ => from,
        };
        let plan = self.plan(&session, from, to_ns)?;
        let resume = plan.is_none();
        let mut reply = core.ask(|reply| Command::Start { reply, session: id.0, plan }).await;
        if resume && matches!(reply, Err(EngineError::State(_))) {
            // It came to its end while it was asked to go on; the news of that is here by now.
            let plan = self.plan(&session, from, to_ns)?;
            reply = core.ask(|reply| Command::Start { reply, session: id.0, plan }).await;
        }
        let Reply::Started { from_ns, to_ns, tracks, count } = reply? else {
            return Err(EngineError::Unavailable("the engine core gave a wrong answer".into()));
        };
        session.inner().state = Life::Prepared;
        let tracks = tracks.iter().take(count).map(|t| TrackStart { track_id: t.track_id, seq: t.seq, rtptime: t.rtptime }).collect();
        Ok(Started { from_ns, to_ns, tracks })
    }

    async fn run_session(&self, id: SessionId) -> Result<(), EngineError> {
        let session = self.session(id)?;
        let _turn = session.turn.lock().await;
        if session.records {
            // Its packets are taken in since its tracks were set up.
            session.inner().state = Life::Playing;
            return Ok(());
        }
        let core = session.core().ok_or_else(|| EngineError::State("no track is set up".into()))?;
        // Before the command: the end of a short range may be told before its answer is read.
        let before = std::mem::replace(&mut session.inner().state, Life::Playing);
        let answer = core.ask(|reply| Command::Run { reply, session: id.0 }).await;
        if answer.is_err() {
            session.inner().state = before;
        }
        answer.map(|_| ())
    }

    async fn stop_session(&self, id: SessionId) -> Result<u64, EngineError> {
        let session = self.session(id)?;
        let _turn = session.turn.lock().await;
        let core = session.core().ok_or_else(|| EngineError::State("no track is set up".into()))?;
        let Reply::Stopped { position_ns } = core.ask(|reply| Command::Stop { reply, session: id.0 }).await? else {
            return Err(EngineError::Unavailable("the engine core gave a wrong answer".into()));
        };
        let mut inner = session.inner();
        if inner.state == Life::Playing {
            inner.state = Life::Prepared;
        }
        Ok(position_ns)
    }

    async fn destroy_session(&self, id: SessionId) {
        let Some(session) = lock(&self.sessions).remove(&id) else { return };
        if let (true, Some(channel)) = (session.records, &session.channel) {
            let key = channel.key;
            let over = matches!(session.inner().state, Life::Failed(_));
            session.inner().destroyed = true;
            if !over {
                channel.core.insist(move |reply| Command::LoseChannel { reply, channel: key }, ());
            }
            return;
        }
        // All that must happen happens before the first wait, so that it happens even when nobody stays to hear of it. Commands keep
        // their order: what is set up in the place that is given back finds it free.
        let sent = {
            let mut inner = session.inner();
            inner.destroyed = true;
            inner.reservation.take().map(|reservation| {
                let core = Arc::clone(&reservation.core);
                let order = move |reply| Command::Destroy { reply, session: id.0 };
                let answer = core.send(order);
                if answer.is_err() {
                    core.insist(order, reservation);
                }
                (core, answer)
            })
        };
        if let Some((core, Ok(answer))) = sent {
            let _ = core.answer(answer).await;
        }
    }

    async fn session_status(&self, id: SessionId) -> Result<SessionStatus, EngineError> {
        let session = self.session(id)?;
        super::status::session_status(id, &session).await
    }

    async fn sessions(&self) -> Vec<SessionStatus> {
        let mut all: Vec<_> = lock(&self.sessions).iter().map(|(&id, session)| (id, Arc::clone(session))).collect();
        all.sort_by_key(|&(id, _)| id);
        let mut answers = Vec::with_capacity(all.len());
        for (id, session) in all {
            answers.extend(super::status::session_status(id, &session).await.ok());
        }
        answers
    }

    async fn engine_status(&self) -> EngineStatus {
        let cores = self.monitor.latest(&self.cores, &self.disks).await;
        let net = self.cores.first().map(|core| core.facts().net.clone()).unwrap_or_default();
        EngineStatus { cores, disks: self.disks.status(), sessions_max: self.config.sessions_max, net }
    }

    async fn media(&self) -> Vec<MediaEntry> {
        let titles = Arc::clone(&self.titles);
        let files = tokio::task::spawn_blocking(move || titles.entries()).await.unwrap_or_default();
        let mut all = self.channels.entries();
        all.extend(files);
        all.sort_by(|one, other| one.path.cmp(&other.path));
        all
    }

    async fn attach_stream(&self, connection: Handover, session: SessionId) -> Result<StreamToken, EngineError> {
        let core = self.core_of(&connection, session).ok_or_else(|| EngineError::Unavailable("no engine core".into()))?;
        let token = StreamToken(self.new_id());
        let ender = Ender::of(&connection).map_err(|e| EngineError::Capacity(format!("no file descriptor left: {e}")))?;
        let mut attaching = Attaching { core: &core, token, done: false };
        core.ask(|reply| Command::AttachStream { reply, token: token.0, stream: connection.into() }).await?;
        attaching.done = true;
        drop(attaching);
        lock(&self.streams).insert(token, Stream { core, ender });
        Ok(token)
    }

    fn stream_write(&self, stream: StreamToken, bytes: Bytes) {
        self.tell_stream(stream, Command::StreamWrite { token: stream.0, bytes });
    }

    fn stream_input(&self, stream: StreamToken, channel: u8, payload: Bytes) {
        self.tell_stream(stream, Command::StreamInput { token: stream.0, channel, bytes: payload });
    }

    async fn start_import(&self, request: ImportRequest) -> Result<ImportStatus, TransferError> {
        let core = self.choose_core().ok_or_else(|| TransferError::Unavailable("no engine core".into()))?;
        self.imports.start(self.new_id(), request, Arc::clone(&self.titles), core, Arc::clone(&self.transfers)).await
    }

    async fn imports(&self) -> Vec<ImportStatus> {
        self.imports.list()
    }

    async fn cancel_import(&self, id: u64) -> Result<ImportStatus, TransferError> {
        self.imports.cancel(id).await
    }

    async fn start_recording(&self, request: RecordingRequest) -> Result<RecordingStatus, TransferError> {
        let (titles, board) = (Arc::clone(&self.titles), Arc::clone(&self.transfers));
        self.recordings.start(self.new_id(), request, titles, &self.channels, board).await
    }

    async fn recordings(&self) -> Vec<RecordingStatus> {
        self.recordings.list()
    }

    async fn end_recording(&self, id: u64, discard: bool) -> Result<RecordingStatus, TransferError> {
        self.recordings.end(id, discard).await
    }

    fn detach_stream(&self, stream: StreamToken) {
        if let Some(Stream { core, .. }) = lock(&self.streams).remove(&stream) {
            core.insist(move |_| Command::DetachStream { token: stream.0 }, ());
        }
    }
}

impl LocalEngine {
    fn tell_stream(&self, token: StreamToken, order: super::core::Order) {
        let streams = lock(&self.streams);
        if let Some(stream) = streams.get(&token)
            && stream.core.tell(order).is_err()
        {
            tracing::warn!(core = stream.core.index, "engine core overloaded: a client's connection is ended");
            stream.ender.end();
        }
    }
}

fn take_notice(
    sessions: &Mutex<HashMap<SessionId, Arc<Session>>>,
    streams: &Mutex<Streams>,
    channels: &Channels,
    board: &Board,
    notice: Notice,
) {
    match notice {
        Notice::Transfer { transfer, told } => board.tell(transfer, told),
        Notice::ChannelDescribed { channel, described } => channels.described(channel, &described),
        Notice::ChannelLost { channel, why } => LocalEngine::channel_lost(channels, sessions, channel, why),
        Notice::Finished { session, outcome } => {
            let Some(session) = lock(sessions).get(&SessionId(session)).cloned() else { return };
            let state = match outcome {
                Outcome::Ended => Life::Ended,
                Outcome::Failed(why) => Life::Failed(why),
            };
            if let Life::Failed(why) = state {
                tracing::warn!(path = %session.path, class = %session.class, client = %session.client, "session ended by the engine: {why}");
            }
            session.inner().state = state;
        }
        Notice::StreamClosed { token } => {
            if let Some(stream) = lock(streams).remove(&StreamToken(token)) {
                stream.ender.end();
            }
        }
    }
}

pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, EngineError> + Send + 'static) -> Result<T, EngineError> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|e| Err(EngineError::Unavailable(e.to_string())))
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
