//! A session as the control core keeps it for the local engine.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dataplane::disks::MediaFile;
use dataplane::engine::{Command, Reply, TrackSetup, Transport};

use super::channels::LiveChannel;
use super::core::{Core, Reservation};
use super::titles::Playable;
use crate::engine::{Class, EngineError, SessionId, SessionState, TrackTransport};

/// A session of the local engine.
pub(super) struct Session {
    pub(super) path: String,
    pub(super) client: SocketAddr,
    pub(super) class: Class,
    /// What it plays, or fills, when that is live.
    pub(super) channel: Option<Arc<LiveChannel>>,
    /// Its client sends.
    pub(super) records: bool,
    inner: Mutex<Inner>,
    /// Set-ups, starts and stops of one session are carried out one after the other.
    pub(super) turn: tokio::sync::Mutex<()>,
}

/// What changes in a session's life.
#[derive(Default)]
pub(super) struct Inner {
    /// Place on an engine core, from the first set-up on.
    pub(super) reservation: Option<Reservation>,
    pub(super) title: Option<Arc<Playable>>,
    /// Positions in the title of the tracks that are set up, in set-up order.
    pub(super) tracks: Vec<usize>,
    pub(super) transport: Option<TrackTransport>,
    pub(super) state: Life,
    pub(super) destroyed: bool,
}

/// Where a session is in its life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Life {
    #[default]
    Ready,
    /// Prepared or stopped: can be resumed.
    Prepared,
    Playing,
    Ended,
    Failed(&'static str),
}

impl Life {
    pub(super) fn state(self) -> SessionState {
        match self {
            Life::Ready => SessionState::Ready,
            Life::Prepared => SessionState::Paused,
            Life::Playing => SessionState::Playing,
            Life::Ended => SessionState::Ended,
            Life::Failed(_) => SessionState::Failed,
        }
    }
}

impl Session {
    pub(super) fn new(path: &str, client: SocketAddr, class: Class) -> Self {
        let path = path.to_owned();
        Self { path, client, class, channel: None, records: false, inner: Mutex::default(), turn: tokio::sync::Mutex::default() }
    }

    pub(super) fn live(path: &str, client: SocketAddr, class: Class, channel: Arc<LiveChannel>, records: bool) -> Self {
        Self { channel: Some(channel), records, ..Self::new(path, client, class) }
    }

    pub(super) fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A range was begun and has not ended.
    pub(super) fn is_begun(&self) -> bool {
        matches!(self.inner().state, Life::Prepared | Life::Playing)
    }

    /// The engine core that all of the session must be on, if that is decided.
    pub(super) fn home(&self) -> Option<Arc<Core>> {
        self.channel.as_ref().map(|channel| Arc::clone(&channel.core)).or_else(|| self.core())
    }

    /// The engine core that the session is on.
    pub(super) fn core(&self) -> Option<Arc<Core>> {
        self.inner().reservation.as_ref().map(|r| Arc::clone(&r.core))
    }
}

/// Adds the track at this position of the title or channel to the session, on its engine core.
pub(super) async fn add_track(
    id: SessionId,
    session: &Session,
    core: &Core,
    track: usize,
    setup: TrackSetup<MediaFile>,
) -> Result<(), EngineError> {
    let mut setup = Box::new(setup);
    let answer = {
        let mut inner = session.inner();
        // The first track brings what is reserved for all of them.
        if let Some(reservation) = inner.reservation.as_ref().filter(|_| inner.tracks.is_empty()) {
            setup.work = reservation.work;
        }
        // A session that is destroyed meanwhile must not come to life again: the engine core would make a new one.
        if inner.destroyed {
            return Err(EngineError::NoSession);
        }
        let answer = core.send(|reply| Command::SetupTrack { reply, session: id.0, setup })?;
        // Noted now: whoever waits for the answer may be gone when it comes.
        inner.tracks.push(track);
        answer
    };
    let answered = core.answer(answer).await;
    if answered.is_err() {
        session.inner().tracks.retain(|&other| other != track);
    }
    answered.map(drop)
}

/// How far the session's delivery is, as presentation time.
pub(super) async fn position(core: &Core, id: SessionId) -> Result<u64, EngineError> {
    match core.ask(|reply| Command::SessionStatus { reply, session: id.0, report: Box::default() }).await? {
        Reply::Session(report) => Ok(report.position_ns),
        _ => Err(EngineError::Unavailable("the engine core gave a wrong answer".into())),
    }
}

/// How a track goes to the client, for an engine core.
pub(super) fn to_core(transport: TrackTransport) -> Transport {
    match transport {
        TrackTransport::Udp { rtp, rtcp, local_addr } => {
            let local = (!local_addr.is_unspecified()).then_some(local_addr);
            Transport::Udp { rtp, rtcp, local }
        }
        TrackTransport::Interleaved { stream, rtp_channel, rtcp_channel } => {
            Transport::Stream { token: stream.0, rtp_channel, rtcp_channel }
        }
    }
}
