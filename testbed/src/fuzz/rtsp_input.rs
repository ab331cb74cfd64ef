//! Fuzz target `rtsp_input`: bytes of a client, through framing, normalising, parsing and the methods, with an engine that delivers
//! nothing.
//!
//! The first byte says into how large pieces the rest is cut. Whatever comes: nothing panics, answers are well formed, the same bytes cut
//! differently give the same items, and no session is lost between control server and engine.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use controlplane::rtsp::connection::{Connection, Wire};
use controlplane::rtsp::fake_engine::FakeEngine;
use controlplane::rtsp::framing::{BODY_BYTES_MAX, Framer, FramingError, HEAD_BYTES_MAX, Item};
use controlplane::rtsp::service::Service;
use dataplane::engine::net::Handover;

struct Sink(Vec<u8>);

impl Wire for Sink {
    async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }

    async fn hand_over(&self) -> io::Result<Handover> {
        Ok(Handover::Socket(std::fs::OpenOptions::new().write(true).open("/dev/null")?.into()))
    }
}

/// Runs one input.
pub fn run(data: &[u8]) {
    let Some((piece, bytes)) = data.split_first() else { return };
    let piece = usize::from(*piece).max(1);
    let items = items(bytes, piece);
    assert_eq!(items, self::items(bytes, usize::MAX), "cuts made a difference");

    let engine = FakeEngine::with_titles();
    let service = Arc::new(Service::new(Arc::clone(&engine), Duration::from_secs(60)));
    let mut connection = Connection::new(Arc::clone(&service), ([192, 0, 2, 7], 40_000).into(), ([192, 0, 2, 1], 8554).into());
    let mut wire = Sink(Vec::new());
    for piece in bytes.chunks(piece) {
        connection.push(piece);
        if now(connection.process(&mut wire)).is_err() {
            break;
        }
    }
    let mut answers = wire.0;
    answers.extend(engine.state().streams.values().flat_map(|stream| stream.written.iter().copied()));
    let well_formed = answers.is_empty() || (answers.starts_with(b"RTSP/1.0 ") && answers.ends_with(b"\r\n"));
    assert!(well_formed, "{}", String::from_utf8_lossy(&answers));
    assert_eq!(service.sessions.all().len(), engine.state().sessions.len());
    now(connection.close());
    for session in service.sessions.all() {
        now(service.end(&session, "end of input"));
    }
    assert!(engine.state().sessions.is_empty());
}

fn items(bytes: &[u8], piece: usize) -> Vec<Result<Item, FramingError>> {
    let mut framer = Framer::default();
    let mut items = Vec::new();
    for piece in bytes.chunks(piece) {
        framer.push(piece);
        items.extend(std::iter::from_fn(|| framer.next_item()));
    }
    for item in &items {
        if let Ok(Item::Request(request)) = item {
            assert!(request.head.len() <= HEAD_BYTES_MAX && request.body.len() <= BODY_BYTES_MAX);
        }
    }
    items
}

/// The result of a future that never waits.
fn now<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("a future waited although the engine answers at once"),
    }
}
