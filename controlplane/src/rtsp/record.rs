//! ANNOUNCE and RECORD (RFC 2326 10.3 and 10.11): a client sends, others play what it sends.

use std::sync::Arc;

use rtsp_types::{StatusCode, headers};

use super::announce;
use super::connection::{Connection, Outcome};
use super::methods::{Answer, check_aggregate, target_of, with_session};
use super::normalise::Request;
use super::reply::Reply;
use super::session::{Phase, Recording, Session};
use super::target::Target;
use crate::engine::{Class, Engine, Started};

impl<E: Engine> Connection<E> {
    /// Makes a session of what the client is going to send.
    pub(super) async fn announce(&mut self, request: &Request) -> Answer {
        if request.header(&headers::CONTENT_TYPE).is_some_and(|kind| !kind.trim().to_ascii_lowercase().starts_with("application/sdp")) {
            return Err(Reply::refusal(StatusCode::UnsupportedMediaType, "ANNOUNCE needs application/sdp"));
        }
        let target = target_of(request)?;
        let rules = &self.service.record;
        rules.check(&target.path, self.peer.ip()).map_err(|refused| Reply::refusal(StatusCode::Forbidden, refused))?;
        if self.named_session(request)?.is_some() {
            return Err(Reply::refusal(StatusCode::MethodNotValidInThisState, "a session announces once"));
        }
        let tracks = announce::parse(request.message.body()).map_err(|error| Reply::refusal(StatusCode::BadRequest, error))?;
        let announced = tracks.iter().map(|announced| announced.track.clone()).collect();
        let created = self.service.engine.announce(&target.path, self.peer, announced, self.core).await?;
        let recording = Recording { tracks };
        let session = self.keep_session(created, target.path, Class::Guaranteed, request, Some(recording));
        self.announced = Some(Arc::clone(&session));
        Ok(with_session(Reply::ok(), Some(&session)))
    }

    /// The session of a SETUP without one: that of the ANNOUNCE before it on this connection.
    pub(super) fn announced_session(&self, target: &Target) -> Option<Arc<Session>> {
        let session = self.announced.as_ref().filter(|session| !session.has_ended())?;
        (target.path == session.path || target.path.starts_with(&format!("{}/", session.path))).then(|| Arc::clone(session))
    }

    /// Takes what is sent from now on.
    pub(super) async fn record(&mut self, request: &Request) -> Answer<Outcome> {
        let session = match self.named_session(request)? {
            Some(session) => session,
            None => self.announced.clone().ok_or_else(|| Reply::refusal(StatusCode::SessionNotFound, "the Session header is missing"))?,
        };
        if session.recording.is_none() {
            return Err(Reply::refusal(StatusCode::MethodNotValidInThisState, "this session plays; ANNOUNCE begins one that records"));
        }
        let mut state = session.state.lock().await;
        check_aggregate(request, &session, &state)?;
        if state.tracks.is_empty() {
            return Err(Reply::refusal(StatusCode::MethodNotValidInThisState, "set up the tracks first"));
        }
        state.phase = Phase::Playing(Started { from_ns: 0, to_ns: 0, tracks: Vec::new() });
        drop(state);
        let reply = with_session(Reply::ok(), Some(&session));
        Ok(Outcome { reply, run: Some(session) })
    }
}
