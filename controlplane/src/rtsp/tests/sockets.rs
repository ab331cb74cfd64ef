//! The server over real sockets.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use super::expect;
use crate::engine::SessionState;
use crate::net::Net;
use crate::rtsp::fake_engine::FakeEngine;
use crate::rtsp::{RtspConfig, RtspCounters, RtspServer, SessionDirectory};

/// Long enough for a busy machine; reached only by a failure.
const PATIENCE: Duration = Duration::from_secs(20);

struct Running {
    addr: SocketAddr,
    engine: Arc<FakeEngine>,
    counters: Arc<RtspCounters>,
    directory: SessionDirectory,
    stop: oneshot::Sender<()>,
    done: JoinHandle<()>,
}

async fn start(config: RtspConfig) -> Running {
    let engine = FakeEngine::with_titles();
    let server = RtspServer::bind(config, Arc::clone(&engine), &Net::kernel()).await.unwrap();
    let (addr, counters, directory) = (server.local_addr(), server.counters(), server.directory());
    let (stop, stopped) = oneshot::channel::<()>();
    let done = tokio::spawn(server.run(async move {
        let _ = stopped.await;
    }));
    Running { addr, engine, counters, directory, stop, done }
}

fn local() -> RtspConfig {
    RtspConfig { addr: "127.0.0.1:0".parse().unwrap(), ..RtspConfig::default() }
}

async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = std::time::Instant::now() + PATIENCE;
    while !condition() {
        assert!(std::time::Instant::now() < deadline, "{what}");
        sleep(Duration::from_millis(2)).await;
    }
}

async fn ask(stream: &mut TcpStream, request: &str) -> String {
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    while !answer.windows(4).any(|w| w == b"\r\n\r\n") {
        let n = timeout(PATIENCE, stream.read(&mut buffer)).await.expect("an answer").unwrap();
        assert!(n > 0, "closed after {:?}", String::from_utf8_lossy(&answer));
        answer.extend_from_slice(&buffer[..n]);
    }
    String::from_utf8_lossy(&answer).into_owned()
}

/// All that comes until the server closes.
async fn rest(stream: &mut TcpStream) -> String {
    let mut all = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut all)).await.expect("the server closes").unwrap();
    String::from_utf8_lossy(&all).into_owned()
}

const SETUP_UDP: &str = "SETUP rtsp://h/film.mp4/trackID=1 RTSP/1.0\r\nCSeq: 1\r\nTransport: RTP/AVP;unicast;client_port=5000-5001\r\n\r\n";
const SETUP_TCP: &str = "SETUP rtsp://h/film.mp4/trackID=1 RTSP/1.0\r\nCSeq: 1\r\nTransport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n\r\n";

#[tokio::test]
async fn two_thousand_silent_connections_are_borne() {
    let running = start(local()).await;
    let mut silent = Vec::new();
    for _ in 0..2_000 {
        silent.push(TcpStream::connect(running.addr).await.unwrap());
    }
    let mut busy = TcpStream::connect(running.addr).await.unwrap();
    for _ in 0..50 {
        expect(&ask(&mut busy, "DESCRIBE rtsp://h/film.mp4 RTSP/1.0\r\nCSeq: 1\r\n\r\n").await, 200, &["Content-Length: "]);
    }
    until("all are accepted", || running.counters.snapshot().connections == 2_001).await;
    drop(silent);
    until("all are gone", || running.counters.snapshot().connections == 1).await;
    let _ = running.stop.send(());
    timeout(PATIENCE, running.done).await.unwrap().unwrap();
}

#[tokio::test]
async fn too_many_connections_are_told_so() {
    let running = start(RtspConfig { connections_max: 2, ..local() }).await;
    let mut first = TcpStream::connect(running.addr).await.unwrap();
    let _second = TcpStream::connect(running.addr).await.unwrap();
    let mut third = TcpStream::connect(running.addr).await.unwrap();
    expect(&rest(&mut third).await, 503, &["too many connections"]);
    expect(&ask(&mut first, "OPTIONS * RTSP/1.0\r\nCSeq: 1\r\n\r\n").await, 200, &[]);
    assert_eq!(running.counters.snapshot().connections_refused, 1);

    let running = start(RtspConfig { connections_per_ip_max: Some(1), ..local() }).await;
    let first = TcpStream::connect(running.addr).await.unwrap();
    let mut second = TcpStream::connect(running.addr).await.unwrap();
    expect(&rest(&mut second).await, 503, &[]);
    drop(first);
    until("its place is free", || running.counters.snapshot().connections == 0).await;
    let mut third = TcpStream::connect(running.addr).await.unwrap();
    expect(&ask(&mut third, "OPTIONS * RTSP/1.0\r\nCSeq: 1\r\n\r\n").await, 200, &[]);
}

#[tokio::test(start_paused = true)]
async fn silence_and_stalls_are_cut_off() {
    let running = start(local()).await;
    for (bytes, after_s) in [("", 30), ("OPTIONS * RT", 10), ("OPTIONS * RTSP/1.0\r\nCSeq: 1\r\n\r\n", 60), ("\r\n\r\n", 30)] {
        let mut stream = TcpStream::connect(running.addr).await.unwrap();
        let start = Instant::now();
        stream.write_all(bytes.as_bytes()).await.unwrap();
        let mut all = Vec::new();
        stream.read_to_end(&mut all).await.unwrap();
        assert_eq!(start.elapsed().as_secs(), after_s, "{bytes:?}");
    }
    // A session keeps its connection until the session's own timeout.
    let mut stream = TcpStream::connect(running.addr).await.unwrap();
    let start = Instant::now();
    stream.write_all(SETUP_UDP.as_bytes()).await.unwrap();
    let mut all = Vec::new();
    stream.read_to_end(&mut all).await.unwrap();
    assert!((60..=182).contains(&start.elapsed().as_secs()), "{:?}", start.elapsed());
    assert_eq!(running.counters.snapshot().sessions_expired, 1);
}

#[tokio::test]
async fn a_refused_body_is_answered_before_the_close() {
    let running = start(local()).await;
    let mut stream = TcpStream::connect(running.addr).await.unwrap();
    let mut request = b"SET_PARAMETER * RTSP/1.0\r\nCSeq: 5\r\nContent-Length: 1000000000\r\n\r\n".to_vec();
    request.resize(200_000, b'x');
    stream.write_all(&request).await.unwrap();
    expect(&rest(&mut stream).await, 413, &["CSeq: 5\r\n"]);
}

#[tokio::test]
async fn who_takes_no_answers_is_cut_off() {
    let running = start(RtspConfig { write_timeout: Duration::from_millis(50), ..local() }).await;
    let mut stream = TcpStream::connect(running.addr).await.unwrap();
    let flood = "DESCRIBE rtsp://h/film.mp4 RTSP/1.0\r\nCSeq: 1\r\n\r\n".repeat(1_000);
    let flooding = async { while stream.write_all(flood.as_bytes()).await.is_ok() {} };
    timeout(PATIENCE, flooding).await.expect("the server closes");
    until("it is gone", || running.counters.snapshot().connections == 0).await;
}

#[tokio::test]
async fn interleaved_answers_come_through_the_engine() {
    let running = start(local()).await;
    let mut stream = TcpStream::connect(running.addr).await.unwrap();
    expect(&ask(&mut stream, SETUP_TCP).await, 200, &["interleaved=0-1"]);
    expect(&ask(&mut stream, "OPTIONS * RTSP/1.0\r\nCSeq: 2\r\n\r\n").await, 200, &["CSeq: 2"]);
    stream.write_all(b"$\x01\x00\x02ab").await.unwrap();
    until("the frame arrives", || running.engine.state().streams.values().any(|s| s.frames == [(1, "ab".into())])).await;
    assert_eq!(running.directory.list().len(), 1);
    drop(stream);
    until("the session ends", || running.engine.state().sessions.is_empty()).await;
    assert!(running.engine.state().streams.values().all(|s| !s.is_attached()));
    assert!(running.directory.list().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_the_engine_gave_up_is_closed() {
    let running = start(local()).await;
    let mut stream = TcpStream::connect(running.addr).await.unwrap();
    let start = Instant::now();
    stream.write_all(SETUP_TCP.as_bytes()).await.unwrap();
    until("the session is made", || !running.engine.state().sessions.is_empty()).await;
    for session in running.engine.state().sessions.values_mut() {
        session.state = SessionState::Failed;
    }
    let mut all = Vec::new();
    stream.read_to_end(&mut all).await.unwrap();
    assert!((30..40).contains(&start.elapsed().as_secs()), "at the next poll: {:?}", start.elapsed());
    until("it is gone", || running.counters.snapshot().connections == 0).await;
    assert!(running.engine.state().streams.values().all(|s| !s.is_attached()));
}

#[tokio::test]
async fn a_stop_ends_sessions_and_connections() {
    let running = start(local()).await;
    let mut udp = TcpStream::connect(running.addr).await.unwrap();
    expect(&ask(&mut udp, SETUP_UDP).await, 200, &[]);
    let mut tcp = TcpStream::connect(running.addr).await.unwrap();
    expect(&ask(&mut tcp, SETUP_TCP).await, 200, &[]);
    let _ = running.stop.send(());
    timeout(PATIENCE, running.done).await.unwrap().unwrap();
    assert!(running.engine.state().sessions.is_empty());
    assert_eq!(rest(&mut udp).await, "");
    assert!(TcpStream::connect(running.addr).await.is_err(), "nobody listens");
}

#[tokio::test]
async fn ipv6_and_ipv4_share_a_socket() {
    let config = RtspConfig { addr: "[::]:0".parse().unwrap(), ..local() };
    // A machine may have no IPv6 at all.
    let Ok(server) = RtspServer::bind(config, FakeEngine::with_titles(), &Net::kernel()).await else { return };
    let (port, directory) = (server.local_addr().port(), server.directory());
    let _done = tokio::spawn(server.run(std::future::pending()));
    let mut v4 = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    expect(&ask(&mut v4, SETUP_UDP).await, 200, &[]);
    assert!(directory.list().iter().all(|info| info.client.is_ipv4()), "{:?}", directory.list());
}
