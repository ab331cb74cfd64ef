//! What all connections share: the engine, the sessions, the counters; and the end of sessions whose clients have gone.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use super::counters::RtspCounters;
use super::session::{Session, SessionTable};
use crate::config::{ClassRules, RecordRules};
use crate::engine::{Engine, EngineError, SessionId, SessionState};

/// How often the engine is asked for the state of a session (SYSTEMS 1.1).
const POLL_INTERVAL: Duration = Duration::from_secs(30);

/// One RTSP session, for the monitor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RtspSessionInfo {
    /// Public name. Not the `Session` header's value, which is a secret.
    pub id: String,
    /// The client's end of the connection that made the session.
    pub client: SocketAddr,
    /// Path of the title.
    pub path: String,
    /// When it was made, seconds since 1970.
    pub started_unix: u64,
    /// `User-Agent` of the client, empty when it sent none.
    pub user_agent: String,
    /// The engine's name of it.
    pub engine_session: SessionId,
}

/// Lists the RTSP sessions.
#[derive(Clone, Debug)]
pub struct SessionDirectory(pub(super) Arc<SessionTable>);

impl SessionDirectory {
    /// All sessions, oldest first.
    pub fn list(&self) -> Vec<RtspSessionInfo> {
        let mut sessions = self.0.all();
        sessions.sort_unstable_by_key(|session| session.engine_id);
        let info = |session: &Arc<Session>| RtspSessionInfo {
            id: session.public_id.clone(),
            client: session.client,
            path: session.path.clone(),
            started_unix: session.started_unix,
            user_agent: session.user_agent.clone(),
            engine_session: session.engine_id,
        };
        sessions.iter().map(info).collect()
    }
}

/// Why a session is ended without its client's asking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    /// Nothing was heard of its client.
    Silent,
    /// The engine gave up delivering it.
    Failed,
    /// The engine lost it.
    Unknown,
}

/// What all connections share.
#[derive(Debug)]
pub struct Service<E> {
    /// The engine.
    pub engine: Arc<E>,
    /// The sessions.
    pub sessions: Arc<SessionTable>,
    /// The counters.
    pub counters: Arc<RtspCounters>,
    /// How long a client may be silent.
    pub session_timeout: Duration,
    /// Which sessions are guaranteed.
    pub classes: ClassRules,
    /// Who may record where.
    pub record: RecordRules,
}

impl<E: Engine> Service<E> {
    /// A service without sessions.
    pub fn new(engine: Arc<E>, session_timeout: Duration) -> Self {
        Self {
            engine,
            sessions: Arc::default(),
            counters: Arc::default(),
            session_timeout,
            classes: ClassRules::default(),
            record: RecordRules::default(),
        }
    }

    /// The same with other rules about recording.
    pub fn with_record(self, record: RecordRules) -> Self {
        Self { record, ..self }
    }

    /// The same with other rules about classes.
    pub fn with_classes(self, classes: ClassRules) -> Self {
        Self { classes, ..self }
    }

    /// Registers a session that the engine made.
    pub fn add(&self, session: Arc<Session>) {
        let Session { public_id, client, path, class, user_agent, .. } = &*session;
        tracing::info!(session = public_id, %client, path, %class, agent = user_agent, "session made");
        self.counters.sessions.fetch_add(1, Relaxed);
        self.counters.sessions_total.fetch_add(1, Relaxed);
        self.sessions.insert(session);
    }

    /// Ends a session, if it has not ended already.
    pub async fn end(&self, session: &Session, why: &str) {
        if self.sessions.remove(session) {
            tracing::info!(session = session.public_id, path = session.path, why, "session ended");
            self.counters.sessions.fetch_sub(1, Relaxed);
            self.engine.destroy_session(session.engine_id).await;
        }
    }

    /// Ends a session whose delivery is broken, and the connections that it was delivered through: a client that waits there for media or
    /// for answers would wait for ever.
    pub async fn cut(&self, session: &Session, why: &str) {
        self.end(session, why).await;
        session.hang_up();
    }

    /// Ends every session, all at once.
    pub async fn end_all(self: &Arc<Self>, why: &'static str) {
        let mut ends = JoinSet::new();
        for session in self.sessions.all() {
            let service = Arc::clone(self);
            ends.spawn(async move { service.end(&session, why).await });
        }
        while ends.join_next().await.is_some() {}
    }

    /// Ends the sessions whose clients were silent for too long, and those that the engine gave up. Call every few seconds.
    pub async fn reap(&self) {
        for session in self.sessions.all() {
            let overdue = session.silence() >= self.session_timeout;
            if (overdue || session.poll_due(POLL_INTERVAL))
                && let Some(why) = self.why_end(&session, overdue).await
            {
                self.counters.sessions_expired.fetch_add(1, Relaxed);
                match why {
                    Why::Silent => self.end(&session, "its client is silent").await,
                    Why::Failed => self.cut(&session, "the engine gave it up").await,
                    Why::Unknown => self.cut(&session, "the engine does not know it").await,
                }
            }
        }
    }

    async fn why_end(&self, session: &Session, overdue: bool) -> Option<Why> {
        let status = match self.engine.session_status(session.engine_id).await {
            Ok(status) => status,
            Err(EngineError::NoSession) => return Some(Why::Unknown),
            // An engine that does not answer says nothing of the client.
            Err(_) => return None,
        };
        match status.state {
            SessionState::Failed => return Some(Why::Failed),
            SessionState::Ended => {}
            // Receiver reports show that the client lives, and so does a connection that takes what is played into it: an engine gives a
            // connection up when nothing goes out. After the end of the title only requests count.
            _ if overdue => {
                if let Some(age_ns) = status.last_rtcp_age_ns {
                    session.heard_ago(Duration::from_nanos(age_ns));
                }
                if session.is_interleaved() && status.state == SessionState::Playing {
                    session.touch();
                }
                // Who sends lives; an engine gives up one that does not.
                if status.state == SessionState::Recording {
                    session.touch();
                }
            }
            _ => {}
        }
        (overdue && session.silence() >= self.session_timeout).then_some(Why::Silent)
    }
}
