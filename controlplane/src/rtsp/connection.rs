//! One client connection, above the socket: bytes in, answers out.
//!
//! The socket is behind [`Wire`], so that tests and fuzzing drive the same code without one. Answers are collected and written when the
//! bytes at hand are dealt with (pipelined requests get one write). Once a SETUP chose interleaved delivery, the sending side belongs to the
//! engine: everything collected is written first, then the engine is given the sending side of the connection, and from then on answers go through
//! [`Engine::stream_write`].

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use bytes::Bytes;
use dataplane::engine::net::Handover;
use rtsp_types::StatusCode;
use tokio::sync::Notify;

use super::framing::{Framer, Item, RawRequest};
use super::normalise;
use super::reply::Reply;
use super::service::Service;
use super::session::Session;
use crate::engine::{Engine, StreamToken};

/// Answers collected before they are written.
const OUT_BYTES_MAX: usize = 64 * 1024;

/// The sending side of a client's connection.
pub trait Wire: Send {
    /// Writes all bytes, or fails when the client does not take them in time.
    fn send(&mut self, bytes: &[u8]) -> impl Future<Output = io::Result<()>> + Send;

    /// The sending side, for the engine, once all that was sent here is on its way.
    fn hand_over(&self) -> impl Future<Output = io::Result<Handover>> + Send;
}

/// The connection is to be closed.
#[derive(Debug, thiserror::Error)]
pub enum Closed {
    /// The client broke the protocol; the answer that says so was written.
    #[error("protocol error")]
    Protocol,
    /// Writing failed.
    #[error("writing to the client: {0}")]
    Wire(#[from] io::Error),
}

/// An answer, and what is to be done once it is on its way.
pub(super) struct Outcome {
    pub reply: Reply,
    /// Starts this session's delivery after the answer.
    pub run: Option<Arc<Session>>,
}

impl From<Reply> for Outcome {
    fn from(reply: Reply) -> Self {
        Self { reply, run: None }
    }
}

/// Channels of a track delivered through this connection.
#[derive(Debug)]
pub(super) struct Channels {
    pub session: Arc<Session>,
    pub track_id: u32,
    pub pair: (u8, u8),
}

/// One client connection.
#[derive(Debug)]
pub struct Connection<E: Engine> {
    pub(super) service: Arc<Service<E>>,
    pub(super) peer: SocketAddr,
    pub(super) local: SocketAddr,
    /// What relative request URLs are relative to: `Content-Base` of the last DESCRIBE, with its slash.
    pub(super) base: String,
    /// The title of the last DESCRIBE and its URL's query: players set tracks up by URLs below `Content-Base`, which has none.
    pub(super) described: Option<(String, Option<String>)>,
    /// The engine core that it came to, if our own stack has it.
    pub(super) core: Option<usize>,
    /// The session of the last ANNOUNCE: some clients do not name it in the requests that follow.
    pub(super) announced: Option<Arc<Session>>,
    /// Set once the engine has the sending side.
    pub(super) stream: Option<StreamToken>,
    /// Sessions that any request on this connection keeps alive.
    pub(super) sessions: Vec<Arc<Session>>,
    pub(super) channels: Vec<Channels>,
    /// Notified when the engine gave up a session that is delivered through this connection.
    pub(super) hangup: Arc<Notify>,
    framer: Framer,
    out: Vec<u8>,
}

/// What [`Connection::process`] found in the bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// A request or frame was completed.
    pub completed: bool,
    /// Part of another one has arrived.
    pub mid_item: bool,
}

impl<E: Engine> Connection<E> {
    /// A connection between these ends.
    pub fn new(service: Arc<Service<E>>, peer: SocketAddr, local: SocketAddr) -> Self {
        Self {
            service,
            peer,
            local,
            base: format!("rtsp://{local}/"),
            described: None,
            core: None,
            announced: None,
            stream: None,
            sessions: Vec::new(),
            channels: Vec::new(),
            hangup: Arc::default(),
            framer: Framer::default(),
            out: Vec::new(),
        }
    }

    /// True while a session belongs to this connection.
    pub fn has_session(&mut self) -> bool {
        self.sessions.retain(|session| !session.has_ended());
        self.channels.retain(|channels| !channels.session.has_ended());
        !self.sessions.is_empty()
    }

    /// Takes bytes that arrived; [`Self::process`] deals with them.
    pub fn push(&mut self, bytes: &[u8]) {
        self.framer.push(bytes);
    }

    /// Deals with the bytes that were pushed.
    pub async fn process(&mut self, wire: &mut impl Wire) -> Result<Progress, Closed> {
        let mut completed = false;
        while let Some(item) = self.framer.next_item() {
            match item {
                Ok(Item::Request(raw)) => {
                    completed = true;
                    self.request(&raw, wire).await?;
                }
                Ok(Item::Frame { channel, payload }) => {
                    completed |= self.stream.is_some();
                    self.frame(channel, payload);
                }
                Err(error) => {
                    self.answer(Reply::refusal(error.status(), &error), error.cseq(), wire).await?;
                    self.flush(wire).await?;
                    return Err(Closed::Protocol);
                }
            }
        }
        self.flush(wire).await?;
        Ok(Progress { completed, mid_item: self.framer.is_mid_item() })
    }

    /// The connection has gone: ends the sessions that were delivered through it. Those delivered by UDP go on until their timeout.
    pub async fn close(&mut self) {
        let Some(stream) = self.stream.take() else { return };
        for session in std::mem::take(&mut self.sessions) {
            if session.state.lock().await.uses(stream) {
                self.service.end(&session, "its connection was closed").await;
            }
        }
        self.channels.clear();
        self.service.engine.detach_stream(stream);
    }

    fn frame(&mut self, channel: u8, payload: Bytes) {
        self.service.counters.frames.fetch_add(1, Relaxed);
        // Frames before an interleaved SETUP belong to nothing.
        if let Some(stream) = self.stream {
            self.touch_sessions();
            self.service.engine.stream_input(stream, channel, payload);
        }
    }

    async fn request(&mut self, raw: &RawRequest, wire: &mut impl Wire) -> Result<(), Closed> {
        self.service.counters.requests.fetch_add(1, Relaxed);
        self.touch_sessions();
        let request = match normalise::parse(raw, &self.base) {
            Ok(request) => request,
            Err(rejected) => {
                self.answer(Reply::refusal(rejected.status, rejected.reason), rejected.cseq.as_deref(), wire).await?;
                if rejected.close {
                    self.flush(wire).await?;
                    return Err(Closed::Protocol);
                }
                return Ok(());
            }
        };
        let outcome = match &request.cseq {
            // RFC 2326 section 12.17: CSeq must be present in every request.
            None => Reply::refusal(StatusCode::BadRequest, "CSeq is missing or not a number").into(),
            Some(_) => self.dispatch(&request, wire).await?,
        };
        self.answer(outcome.reply, request.cseq.as_deref(), wire).await?;
        if let Some(session) = outcome.run {
            self.flush(wire).await?;
            if let Err(error) = self.service.engine.run_session(session.engine_id).await {
                tracing::warn!(session = session.public_id, %error, "delivery did not start");
                self.service.cut(&session, "its delivery did not start").await;
            }
        }
        Ok(())
    }

    async fn answer(&mut self, reply: Reply, cseq: Option<&str>, wire: &mut impl Wire) -> Result<(), Closed> {
        self.service.counters.response(reply.code());
        let bytes = reply.encode(cseq);
        match self.stream {
            Some(stream) => self.service.engine.stream_write(stream, bytes),
            None => {
                self.out.extend_from_slice(&bytes);
                if self.out.len() >= OUT_BYTES_MAX {
                    self.flush(wire).await?;
                }
            }
        }
        Ok(())
    }

    /// Writes what was collected. After that nothing is held, not even the buffer.
    pub(super) async fn flush(&mut self, wire: &mut impl Wire) -> Result<(), Closed> {
        if !self.out.is_empty() {
            wire.send(&std::mem::take(&mut self.out)).await?;
        }
        Ok(())
    }

    fn touch_sessions(&self) {
        for session in &self.sessions {
            session.touch();
        }
    }
}
