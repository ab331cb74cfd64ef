//! Conversations with the server: through the connection logic in memory, and over real sockets.

mod clients;
mod record;
mod rules;
mod sockets;

use std::fs::OpenOptions;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use dataplane::engine::net::Handover;

use super::connection::{Closed, Connection, Wire};
use super::fake_engine::FakeEngine;
use super::service::Service;
use crate::config::ClassRules;

/// A wire that keeps what is sent.
#[derive(Debug, Default)]
struct MemoryWire {
    sent: Vec<u8>,
}

impl Wire for MemoryWire {
    async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.sent.extend_from_slice(bytes);
        Ok(())
    }

    async fn hand_over(&self) -> io::Result<Handover> {
        Ok(Handover::Socket(OpenOptions::new().write(true).open("/dev/null")?.into()))
    }
}

/// A client in memory.
struct Client {
    engine: Arc<FakeEngine>,
    service: Arc<Service<FakeEngine>>,
    connection: Connection<FakeEngine>,
    wire: MemoryWire,
    heard: usize,
    heard_attached: usize,
    /// Session id of the last answer that had one; `{S}` in requests.
    session: String,
}

impl Client {
    fn new() -> Self {
        Self::under(ClassRules::default())
    }

    /// A client of a server with these rules about classes.
    fn under(classes: ClassRules) -> Self {
        let engine = FakeEngine::with_titles();
        let service = Arc::new(Service::new(Arc::clone(&engine), Duration::from_secs(60)).with_classes(classes));
        Self::of(engine, service, "192.0.2.7:40000")
    }

    fn of(engine: Arc<FakeEngine>, service: Arc<Service<FakeEngine>>, peer: &str) -> Self {
        let connection = Connection::new(Arc::clone(&service), peer.parse().unwrap(), "192.0.2.1:8554".parse().unwrap());
        Self { engine, service, connection, wire: MemoryWire::default(), heard: 0, heard_attached: 0, session: String::new() }
    }

    /// Another connection to the same server.
    fn another(&self, peer: &str) -> Self {
        let mut other = Self::of(Arc::clone(&self.engine), Arc::clone(&self.service), peer);
        other.session = self.session.clone();
        other
    }

    /// Sends bytes in pieces of this size; the answers that came.
    async fn send_in(&mut self, bytes: &[u8], piece: usize) -> Result<String, Closed> {
        let mut result = Ok(());
        for piece in bytes.chunks(piece.max(1)) {
            self.connection.push(piece);
            if let Err(closed) = self.connection.process(&mut self.wire).await {
                result = Err(closed);
                break;
            }
        }
        let answers = self.answers();
        result.map(|()| answers)
    }

    fn answers(&mut self) -> String {
        let mut answers = self.wire.sent[self.heard..].to_vec();
        self.heard = self.wire.sent.len();
        if let Some(stream) = self.connection.stream {
            let state = self.engine.state();
            let written = &state.streams[&stream].written;
            answers.extend_from_slice(&written[self.heard_attached..]);
            self.heard_attached = written.len();
        }
        let answers = String::from_utf8(answers).unwrap();
        if let Some(at) = answers.find("\r\nSession: ") {
            self.session = answers[at + 11..].chars().take_while(char::is_ascii_alphanumeric).collect();
        }
        answers
    }

    /// Sends a request; the lines of it are joined with CRLF, `{S}` is the session. The answer.
    async fn say(&mut self, request: &str) -> String {
        self.say_in(request, usize::MAX).await
    }

    async fn say_in(&mut self, request: &str, piece: usize) -> String {
        let bytes = self.bytes(request);
        self.send_in(&bytes, piece).await.unwrap()
    }

    fn bytes(&self, request: &str) -> Vec<u8> {
        let lines = request.replace("{S}", &self.session);
        let lines: Vec<&str> = lines.trim().lines().map(str::trim).collect();
        (lines.join("\r\n") + "\r\n\r\n").into_bytes()
    }
}

/// Says that an answer has this status and contains these lines (or parts of lines).
#[track_caller]
fn expect(answer: &str, status: u16, parts: &[&str]) {
    assert!(answer.starts_with(&format!("RTSP/1.0 {status} ")), "expected {status}: {answer}");
    for part in parts {
        assert!(answer.contains(part), "{part:?} is missing in: {answer}");
    }
}
