//! RTSP sessions: what the control server knows of one beside what the engine does.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use dataplane::media::MediaDescription;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::announce::Announced;
use crate::engine::{Class, SessionCreated, SessionId, Started, StreamToken, TrackTransport};

/// A track that a client set up.
#[derive(Clone, Debug)]
pub struct SetUpTrack {
    /// Container's track id.
    pub id: u32,
    /// URL of its SETUP as the client wrote it: RTP-Info repeats it, and players compare.
    pub url: String,
    /// How it is delivered.
    pub transport: TrackTransport,
    /// The client asked to tear this track alone down.
    pub torn_down: bool,
}

/// Where a session is in RFC 2326 appendix B's state machine.
#[derive(Clone, Debug, Default)]
pub enum Phase {
    /// Set up, never played.
    #[default]
    Ready,
    /// Playing; the answer to the last PLAY.
    Playing(Started),
    /// Paused.
    Paused,
}

/// What requests change. Locked for the whole of a request, so that requests on several connections take turns.
#[derive(Debug, Default)]
pub struct SessionState {
    /// Tracks in set-up order.
    pub tracks: Vec<SetUpTrack>,
    /// Where it is.
    pub phase: Phase,
}

impl SessionState {
    /// True when a track is delivered through this connection.
    pub fn uses(&self, stream: StreamToken) -> bool {
        self.tracks.iter().any(|track| matches!(track.transport, TrackTransport::Interleaved { stream: s, .. } if s == stream))
    }
}

/// What a client that records has announced.
#[derive(Clone, Debug)]
pub struct Recording {
    /// Its tracks, in order; their ids are their places, counted from 1.
    pub tracks: Vec<Announced>,
}

/// One session.
#[derive(Debug)]
pub struct Session {
    /// The secret that names it towards its client.
    pub id: String,
    /// The name that monitors may see.
    pub public_id: String,
    /// The engine's name of it.
    pub engine_id: SessionId,
    /// Path of the title.
    pub path: String,
    /// Guaranteed or best-effort.
    pub class: Class,
    /// What the title is.
    pub media: Arc<MediaDescription>,
    /// What its client announced, if it is going to send.
    pub recording: Option<Recording>,
    /// The connection that made it.
    pub client: SocketAddr,
    /// `User-Agent` of its SETUP.
    pub user_agent: String,
    /// When it was made, seconds since 1970.
    pub started_unix: u64,
    /// State.
    pub state: tokio::sync::Mutex<SessionState>,
    made: Instant,
    last_seen_ms: AtomicU64,
    last_polled_ms: AtomicU64,
    hangups: Mutex<Vec<Arc<Notify>>>,
    ended: AtomicBool,
}

impl Session {
    /// A session that the engine just made.
    pub fn new(
        number: u64,
        created: SessionCreated,
        path: String,
        class: Class,
        client: SocketAddr,
        user_agent: String,
        recording: Option<Recording>,
    ) -> Arc<Self> {
        Arc::new(Self {
            // 128 bits of the thread's cryptographic generator (RFC 2326 section 3.4: at least eight octets, chosen randomly).
            id: format!("{:032x}", rand::random::<u128>()),
            public_id: format!("s{number}"),
            engine_id: created.session,
            path,
            class,
            media: created.media,
            recording,
            client,
            user_agent,
            started_unix: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs()),
            state: tokio::sync::Mutex::default(),
            made: Instant::now(),
            last_seen_ms: AtomicU64::new(0),
            last_polled_ms: AtomicU64::new(0),
            hangups: Mutex::default(),
            ended: AtomicBool::new(false),
        })
    }

    /// A request for `path` may be meant for this session: for one that records, that of a track is below its own.
    pub fn is_named_by(&self, path: &str) -> bool {
        let below = || path.strip_prefix(self.path.as_str()).is_some_and(|rest| rest.starts_with('/'));
        path == self.path || self.recording.is_some() && below()
    }

    /// The client was heard of now.
    pub fn touch(&self) {
        self.heard_ago(Duration::ZERO);
    }

    /// The client was heard of this long ago.
    pub fn heard_ago(&self, age: Duration) {
        self.last_seen_ms.fetch_max(self.age_ms().saturating_sub(millis(age)), Relaxed);
    }

    /// How long nothing was heard of the client.
    pub fn silence(&self) -> Duration {
        Duration::from_millis(self.age_ms().saturating_sub(self.last_seen_ms.load(Relaxed)))
    }

    /// True once per `interval`: the engine should be asked how it is.
    pub fn poll_due(&self, interval: Duration) -> bool {
        let now = self.age_ms();
        let due = now.saturating_sub(self.last_polled_ms.load(Relaxed)) >= millis(interval);
        if due {
            self.last_polled_ms.store(now, Relaxed);
        }
        due
    }

    /// A track of it is delivered in an RTSP connection.
    pub fn is_interleaved(&self) -> bool {
        !self.hangups().is_empty()
    }

    /// A track of it is delivered in the RTSP connection that hangs up when this is notified.
    pub fn deliver_through(&self, hangup: &Arc<Notify>) {
        let mut hangups = self.hangups();
        if !hangups.iter().any(|known| Arc::ptr_eq(known, hangup)) {
            hangups.push(Arc::clone(hangup));
        }
    }

    /// Has the connections closed that it is delivered through.
    pub fn hang_up(&self) {
        for hangup in self.hangups().drain(..) {
            hangup.notify_one();
        }
    }

    fn hangups(&self) -> MutexGuard<'_, Vec<Arc<Notify>>> {
        self.hangups.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// True once it was ended.
    pub fn has_ended(&self) -> bool {
        self.ended.load(Relaxed)
    }

    fn age_ms(&self) -> u64 {
        millis(self.made.elapsed())
    }
}

fn millis(d: Duration) -> u64 {
    u64::try_from(d.as_millis()).unwrap_or(u64::MAX)
}

/// All sessions by their secret id.
#[derive(Debug, Default)]
pub struct SessionTable {
    by_id: Mutex<HashMap<String, Arc<Session>>>,
    numbers: AtomicU64,
}

impl SessionTable {
    /// A number for the next session.
    pub fn next_number(&self) -> u64 {
        self.numbers.fetch_add(1, Relaxed) + 1
    }

    /// Adds a session.
    pub fn insert(&self, session: Arc<Session>) {
        self.lock().insert(session.id.clone(), session);
    }

    /// The session of this id, for a client at this address: a session belongs to the host that made it.
    pub fn find(&self, id: &str, client: IpAddr) -> Option<Arc<Session>> {
        self.lock().get(id).filter(|session| session.client.ip() == client).cloned()
    }

    /// Takes a session out and marks it ended; false when it was ended before.
    pub fn remove(&self, session: &Session) -> bool {
        self.lock().remove(&session.id);
        !session.ended.swap(true, Relaxed)
    }

    /// All sessions, in no order.
    pub fn all(&self) -> Vec<Arc<Session>> {
        self.lock().values().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Arc<Session>>> {
        self.by_id.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
