//! The monitor from outside: over TCP, against an engine that counts what it is asked.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::fake::FakeEngine;
use super::server::{Limits, serve};
use super::*;
use crate::rtsp::RtspCountersSnapshot;

const LONG: Duration = Duration::from_secs(3600);
const PATIENT: Ages = Ages { status: LONG, sessions: LONG, media: LONG, patience: LONG };

struct Running {
    address: SocketAddr,
    engine: Arc<FakeEngine>,
    _stop: watch::Sender<bool>,
}

async fn start(engine: FakeEngine, ages: Ages, limits: Limits) -> Running {
    let engine = Arc::new(engine);
    let version = Version { tactus: "0.1.0".into(), build: Some("abc".into()) };
    let monitor = Monitor::new(Arc::clone(&engine), Arc::default(), version, ages);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = watch::channel(false);
    tokio::spawn(serve(crate::net::Listener::Kernel(listener), monitor.router(), limits, stopped));
    Running { address, engine, _stop: stop }
}

/// Sends `request` and reads until the server closes.
async fn exchange(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // A reset instead of a close still leaves what was read.
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8(answer).unwrap()
}

async fn request(address: SocketAddr, method: &str, path: &str) -> (u16, String, String) {
    let answer = exchange(address, &format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")).await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no head in {answer:?}"));
    (head[9..12].parse().unwrap(), head.to_ascii_lowercase(), body.to_owned())
}

#[tokio::test]
async fn pages_answer_as_documented() {
    let server = start(FakeEngine::default(), PATIENT, Limits::default()).await;
    for (method, path, status, kind, within) in [
        ("GET", "/", 200, "text/plain", "/api/v1/status"),
        ("GET", "/healthz", 200, "text/plain", "ok\n"),
        ("GET", "/api/v1/status", 200, "application/json", "\"sessions_max\":5000"),
        ("GET", "/api/v1/status?x=1", 200, "application/json", "\"uptime_s\":"),
        ("GET", "/api/v1/sessions", 200, "application/json", "\"count\":1,"),
        ("GET", "/api/v1/media", 200, "application/json", "\"count\":2,\"servable\":1,"),
        ("HEAD", "/api/v1/media", 200, "application/json", ""),
        ("GET", "/api/v1/nothing", 404, "application/json", "\"status\":404"),
        ("GET", "/api/v1/status/", 404, "application/json", "there is no /api/v1/status/"),
        ("POST", "/api/v1/status", 405, "application/json", "POST is not allowed"),
        ("GET", "/api/v1/imports", 200, "application/json", "\"count\":2,\"imports\":[{\"id\":7,"),
        ("GET", "/api/v1/imports/8", 200, "application/json", "\"state\":\"failed\""),
        ("GET", "/api/v1/imports/9", 404, "application/json", "there is no import 9"),
        ("DELETE", "/api/v1/imports/9", 404, "application/json", "there is no import 9"),
        ("DELETE", "/api/v1/imports/x", 404, "application/json", "not the number"),
        ("PUT", "/api/v1/imports", 405, "application/json", "GET and POST"),
        ("POST", "/api/v1/imports", 415, "application/json", "Content-Type: application/json"),
        ("GET", "/api/v1/recordings", 200, "application/json", "\"count\":3,\"recordings\":[{\"id\":7,"),
        ("GET", "/api/v1/recordings/8", 200, "application/json", "\"ended\":\"somebody ended it\""),
        ("GET", "/api/v1/recordings/77", 404, "application/json", "there is no recording 77"),
        ("DELETE", "/api/v1/recordings/7", 200, "application/json", "\"state\":\"done\""),
        ("DELETE", "/api/v1/recordings/7?discard=true", 200, "application/json", "\"state\":\"cancelled\""),
        ("DELETE", "/api/v1/recordings/7?discard=perhaps", 400, "application/json", "?discard=true"),
        ("DELETE", "/api/v1/recordings/77", 404, "application/json", "there is no recording 77"),
        ("PUT", "/api/v1/recordings", 405, "application/json", "GET and POST"),
        ("PUT", "/api/v1/recordings/7", 405, "application/json", "GET and DELETE"),
        ("POST", "/api/v1/recordings", 415, "application/json", "Content-Type: application/json"),
        ("DELETE", "/healthz", 405, "application/json", "\"status\":405"),
    ] {
        let (got, head, body) = request(server.address, method, path).await;
        assert_eq!(got, status, "{method} {path}: {head}\n{body}");
        assert!(head.contains(&format!("content-type: {kind}")), "{method} {path}: {head}");
        assert!(body.contains(within), "{method} {path}: {body}");
    }
}

#[tokio::test]
async fn transfers_are_asked_for_in_json() {
    let server = start(FakeEngine::default(), PATIENT, Limits::default()).await;
    let post = async |page: &str, kind: &str, body: &str| {
        let head = format!("POST /api/v1/{page} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: {kind}\r\n");
        let answer = exchange(server.address, &format!("{head}Content-Length: {}\r\n\r\n{body}", body.len())).await;
        (answer[9..12].to_owned(), answer)
    };
    let good = r#"{"from":"a.mp4","to":"c.mp4"}"#;
    let long = format!(r#"{{"from":"{}","to":"c.mp4"}}"#, "a".repeat(20_000));
    for (kind, body, status, within) in [
        ("application/json", good, "201", "\"id\":9,\"from\":\"a.mp4\",\"to\":\"c.mp4\",\"state\":\"running\""),
        ("application/json; charset=utf-8", good, "201", "\"rate_bps\":null"),
        ("application/json", r#"{"from":"a.mp4","to":"c.mp4","rate_bps":5000,"replace":true}"#, "201", "\"rate_bps\":5000"),
        ("application/json", r#"{"from":"a.mp4","to":"there.mp4"}"#, "409", "it is there"),
        ("text/plain", good, "415", "Content-Type"),
        ("application/json", r#"{"from":"a.mp4"}"#, "400", "missing field `to`"),
        ("application/json", r#"{"from":"a.mp4","to":"c.mp4","rate":1}"#, "400", "unknown field `rate`"),
        ("application/json", "{", "400", "not what it should be"),
        ("application/json", &long, "413", ""),
    ] {
        let (got, answer) = post("imports", kind, body).await;
        assert!(got == status && answer.contains(within), "{body}: {answer}");
    }
    for (body, status, within) in [
        (r#"{"channel":"live/a","to":"r/a.mp4","seconds":60}"#, "201", "\"channel\":\"live/a\",\"to\":\"r/a.mp4\",\"state\":\"running\""),
        (r#"{"channel":"live/none","to":"r/a.mp4"}"#, "404", "nothing is live"),
        (r#"{"channel":"live/a","to":"r/a.mp4","seconds":-1}"#, "400", "not what it should be"),
        (r#"{"to":"r/a.mp4"}"#, "400", "missing field `channel`"),
    ] {
        let (got, answer) = post("recordings", "application/json", body).await;
        assert!(got == status && answer.contains(within), "{body}: {answer}");
    }
}

#[tokio::test]
async fn totals_are_sums_that_saturate() {
    let server = start(FakeEngine::default(), PATIENT, Limits::default()).await;
    let (_, _, body) = request(server.address, "GET", "/api/v1/status").await;
    let status: Value = serde_json::from_str(&body).unwrap();
    let totals = &status["totals"];
    assert_eq!((&totals["sessions"], &totals["packets"], &totals["lateness_max_us"]), (&6.into(), &200.into(), &41.into()));
    assert_eq!(totals["bytes"], u64::MAX);
}

#[tokio::test]
async fn many_callers_cost_the_engine_one_query() {
    let server = start(FakeEngine::default(), PATIENT, Limits::default()).await;
    let callers: Vec<_> = (0..40).map(|_| tokio::spawn(async move { request(server.address, "GET", "/api/v1/status").await.0 })).collect();
    for caller in callers {
        assert_eq!(caller.await.unwrap(), 200);
    }
    assert_eq!(server.engine.queries.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_snapshot_that_has_aged_is_asked_for_again() {
    let ages = Ages { status: Duration::ZERO, ..PATIENT };
    let server = start(FakeEngine::default(), ages, Limits::default()).await;
    for queries in 1..4 {
        assert_eq!(request(server.address, "GET", "/api/v1/status").await.0, 200);
        assert_eq!(server.engine.queries.load(Ordering::Relaxed), queries);
    }
}

#[tokio::test]
async fn an_engine_that_does_not_answer_is_a_503() {
    let ages = Ages { patience: Duration::from_millis(1), ..PATIENT };
    let server = start(FakeEngine { hangs: true, ..FakeEngine::default() }, ages, Limits::default()).await;
    for _ in 0..3 {
        let (status, _, body) = request(server.address, "GET", "/api/v1/status").await;
        assert_eq!(status, 503);
        assert!(body.starts_with("{\"status\":503,\"error\":\"the engine does not answer"), "{body}");
    }
    assert_eq!(server.engine.queries.load(Ordering::Relaxed), 1, "nobody asks again before the first answer has come");
    assert_eq!(request(server.address, "GET", "/healthz").await.0, 200);
}

#[tokio::test]
async fn half_a_request_and_silence_is_closed_and_frees_its_place() {
    let limits = Limits { connections: 2, head_timeout: Duration::from_millis(50), ..Limits::default() };
    let server = start(FakeEngine::default(), PATIENT, limits).await;
    let silent: Vec<_> = (0..6).map(|_| tokio::spawn(exchange(server.address, "GET /api/v1/sta"))).collect();
    for client in silent {
        let answer = client.await.unwrap();
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408"), "{answer}");
    }
    assert_eq!(request(server.address, "GET", "/healthz").await.0, 200);
}

#[tokio::test]
async fn oversized_and_broken_heads_are_refused() {
    let server = start(FakeEngine::default(), PATIENT, Limits::default()).await;
    let long = format!("GET / HTTP/1.1\r\nHost: x\r\nA: {}\r\n\r\n", "a".repeat(100_000));
    let many = format!("GET / HTTP/1.1\r\nHost: x\r\n{}\r\n", "A: a\r\n".repeat(100));
    for (input, statuses) in [(long.as_str(), &["431", ""][..]), (&many, &["431"]), ("\0\0\0\0\r\n\r\n", &["400"])] {
        let answer = exchange(server.address, input).await;
        assert!(statuses.contains(&answer.get(9..12).unwrap_or("")), "{answer:?}");
    }
    // A huge body that is announced is not waited for.
    let answer = exchange(server.address, "GET /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

/// Paths and types of all values; `[]` stands for the places of a list, `*` for names that are numbers.
fn shape(value: &Value, path: &str, out: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => fields.iter().for_each(|(name, value)| {
            let name = if name.parse::<u64>().is_ok() { "*" } else { name };
            shape(value, &format!("{path}.{name}"), out);
        }),
        Value::Array(items) => items.iter().for_each(|item| shape(item, &format!("{path}[]"), out)),
        leaf => {
            let kind = match leaf {
                Value::Null => "null",
                Value::Bool(_) => "bool",
                Value::Number(n) if n.is_f64() => "float",
                Value::Number(_) => "integer",
                _ => "string",
            };
            out.insert(format!("{path}: {kind}"));
        }
    }
}

#[tokio::test]
async fn the_shape_of_the_json_is_the_published_one() {
    let server = start(FakeEngine::default(), PATIENT, Limits::default()).await;
    let mut lines = BTreeSet::new();
    for page in ["status", "sessions", "media", "imports", "recordings"] {
        let (_, _, body) = request(server.address, "GET", &format!("/api/v1/{page}")).await;
        shape(&serde_json::from_str(&body).unwrap(), page, &mut lines);
    }
    let refused = RtspCountersSnapshot { refused: [(404, 1)].into(), ..RtspCountersSnapshot::default() };
    shape(&serde_json::to_value(refused).unwrap(), "status.rtsp", &mut lines);
    let now: String = lines.into_iter().map(|line| line + "\n").collect();
    let published = include_str!("api_shape.txt");
    assert!(now == published, "the JSON has changed; if that is meant, api_shape.txt is to be:\n{now}");
}
