//! Clients and files that try to bring the server down: it answers with the right refusal, and everyone else is served as before.

mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use testbed::clip::{self, ClipSpec, catalogue, mutate};
use testbed::player::rtsp_client::{Over, RtspClient};
use testbed::serve::Server;

/// Silent connections held open at once; `HOSTILE_CONNECTIONS` asks for more.
const SILENT: usize = 2_000;

fn titles(folder: &Path, count: u32, spec: &ClipSpec) {
    clip::make_clips(spec, count, folder).unwrap();
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect_timeout(&address, Duration::from_secs(10)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream
}

/// One write, so that nothing waits for an acknowledgement.
fn say(stream: &mut TcpStream, request: &str) {
    stream.write_all(request.as_bytes()).unwrap();
}

/// Sends bytes and reads what comes back until the server closes, `limit` passes, or there are `enough` response heads.
fn exchange(address: SocketAddr, bytes: &[u8], enough: usize, limit: Duration) -> (String, bool) {
    let mut stream = connect(address);
    // A server that has seen enough may close while we still write; its answer is what counts.
    let _ = stream.write_all(bytes);
    read_answers(&mut stream, enough, limit)
}

fn read_answers(stream: &mut TcpStream, enough: usize, limit: Duration) -> (String, bool) {
    let deadline = Instant::now() + limit;
    let mut answer = Vec::new();
    let mut buffer = [0; 65_536];
    stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    loop {
        let text = String::from_utf8_lossy(&answer);
        if enough > 0 && text.matches("RTSP/1.0 ").count() >= enough && text.ends_with("\n") {
            return (text.into_owned(), false);
        }
        match stream.read(&mut buffer) {
            Ok(0) => return (text.into_owned(), true),
            Ok(n) => answer.extend_from_slice(&buffer[..n]),
            Err(e) if matches!(e.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {}
            Err(_) => return (text.into_owned(), true),
        }
        if Instant::now() > deadline {
            return (String::from_utf8_lossy(&answer).into_owned(), false);
        }
    }
}

fn describe(address: SocketAddr, url: &str) -> u16 {
    let (answer, _) = exchange(
        address,
        format!("DESCRIBE {url} RTSP/1.0\r\nCSeq: 1\r\nAccept: application/sdp\r\n\r\n").as_bytes(),
        1,
        Duration::from_secs(20),
    );
    answer.split_whitespace().nth(1).and_then(|s| s.parse().ok()).unwrap_or(0)
}

/// Plays a whole title and asserts that every RTP packet came, in order, to the last one.
fn play_clean(server: &Server, title: &str, over: Over, seconds: u64) -> Result<usize, String> {
    let mut client = RtspClient::connect(server.rtsp).map_err(|e| e.to_string())?;
    let url = server.url(title);
    client.open(&url, over).map_err(|e| e.to_string())?;
    let played = client.play(&url, Some("npt=0-")).map_err(|e| e.to_string())?;
    if played.status != 200 {
        return Err(format!("PLAY: {}", played.status));
    }
    let tracks = client.tracks.len();
    let mut goodbyes = 0;
    let arrivals = client.receive_until(Instant::now() + Duration::from_secs(seconds + 20), |a| {
        goodbyes += usize::from(a.rtcp_types().contains(&203));
        goodbyes >= tracks
    });
    let mut packets = 0;
    for track in 0..tracks {
        let seqs: Vec<u16> = arrivals.iter().filter(|a| a.track == track).filter_map(|a| a.rtp()).map(|p| p.seq).collect();
        if let Some(at) = seqs.windows(2).position(|w| w[1] != w[0].wrapping_add(1)) {
            return Err(format!("track {track}: packet {} follows {} (of {})", seqs[at + 1], seqs[at], seqs.len()));
        }
        packets += seqs.len();
    }
    if goodbyes < tracks {
        return Err(format!("no BYE after {packets} packets"));
    }
    let wanted = seconds * 20 * tracks as u64;
    if (packets as u64) < wanted {
        return Err(format!("only {packets} packets in {seconds} s"));
    }
    Ok(packets)
}

/// 200 damaged files: each is listed, those that cannot be served with the reason, and the good ones play.
#[test]
fn a_folder_of_damaged_files_is_listed_and_the_good_ones_play() {
    let folder = tempfile::tempdir().unwrap();
    let spec = ClipSpec { seconds: 3, rate_bps: 500_000, ..ClipSpec::default() };
    titles(&folder.path().join("good"), 4, &spec);
    let mut originals: Vec<_> = vec![folder.path().join("good/clip-0000.mp4")];
    if support::have(&["ffmpeg"]) {
        let real = support::clips();
        originals.extend(catalogue::CATALOGUE.iter().map(|c| real.join(c.name)));
    }
    let damaged = mutate::write_damaged(&originals, 200, 2026, &folder.path().join("bad")).unwrap();
    std::fs::write(folder.path().join("bad/empty.mp4"), b"").unwrap();
    std::fs::write(folder.path().join("bad/text.mp4"), b"this is no film").unwrap();
    let server = Server::start(folder.path(), &[]).unwrap();

    // The listing may still be read in the background.
    let deadline = Instant::now() + Duration::from_secs(30);
    let media = loop {
        let media = server.json("/api/v1/media").unwrap();
        let entries = media["media"].as_array().cloned().unwrap_or_default();
        let known = |e: &serde_json::Value| !e["media"].is_null() || e["error"].as_str().is_some_and(|s| !s.is_empty());
        if entries.len() == damaged.len() + 2 + 4 && entries.iter().all(known) {
            break entries;
        }
        assert!(
            Instant::now() < deadline,
            "{} entries, of these without media and reason: {:?}",
            entries.len(),
            entries.iter().find(|e| !known(e))
        );
        std::thread::sleep(Duration::from_millis(200));
    };
    let servable = media.iter().filter(|e| !e["media"].is_null()).count();
    let reasons: std::collections::BTreeSet<_> = media.iter().filter_map(|e| e["error"].as_str()).map(str::to_owned).collect();
    println!("{servable} of {} can be served; {} different reasons", media.len(), reasons.len());

    // Every file answers DESCRIBE, with what the listing says of it.
    for entry in &media {
        let path = entry["path"].as_str().unwrap();
        let status = describe(server.rtsp, &server.url(path));
        let refused = matches!(status, 404 | 415);
        assert!(if entry["media"].is_null() { refused } else { status == 200 }, "{path}: DESCRIBE says {status}, the listing {entry}");
    }
    // All that can be served are played for a moment at once, the good ones to the end.
    std::thread::scope(|scope| {
        for entry in media.iter().filter(|e| !e["media"].is_null()) {
            let server = &server;
            scope.spawn(move || {
                let url = server.url(entry["path"].as_str().unwrap());
                let mut client = RtspClient::connect(server.rtsp).unwrap();
                let opened = client.open(&url, Over::Tcp);
                // A damaged file may claim any rate, and more than this machine has is refused.
                let refused = url.contains("/bad/") && opened.as_ref().is_err_and(|e| e.to_string().ends_with(": 453"));
                assert!(opened.is_ok() || refused, "{url}: {opened:?}");
                if refused {
                    return;
                }
                let _ = client.play(&url, None);
                client.receive_for(Duration::from_secs(2));
            });
        }
        for n in 0..4 {
            let server = &server;
            scope.spawn(move || play_clean(server, &format!("good/clip-000{n}.mp4"), Over::Udp, 3).unwrap());
        }
    });
    assert!(server.json("/api/v1/status").is_ok());
}

/// Requests that are too large, cut off, or no requests at all are refused at once; a connection that says half a thing is closed.
#[test]
fn odd_requests_are_refused_and_half_requests_time_out() {
    let folder = tempfile::tempdir().unwrap();
    titles(folder.path(), 1, &ClipSpec { seconds: 3, ..ClipSpec::default() });
    let server = Server::start(folder.path(), &[]).unwrap();

    let halves: Vec<TcpStream> = [
        &b"DESCRIBE rtsp://x/clip-0000.mp4 RTSP/1.0\r\nCSe"[..],
        b"GET_PARAMETER * RTSP/1.0\r\nCSeq: 1\r\nContent-Length: 10\r\n\r\nabc",
        b"$\0\xff",
        b"O",
    ]
    .iter()
    .map(|half| {
        let mut stream = connect(server.rtsp);
        stream.write_all(half).unwrap();
        stream
    })
    .collect();

    let huge = b"SET_PARAMETER rtsp://x/clip-0000.mp4 RTSP/1.0\r\nCSeq: 1\r\nContent-Length: 1073741824\r\n\r\n";
    let endless = [b"OPTIONS * RTSP/1.0\r\nX: ".to_vec(), vec![b'a'; 1 << 20]].concat();
    let cases: [(&str, &[u8]); 5] = [
        ("a body of 1 GB", huge),
        ("a negative length", b"SET_PARAMETER * RTSP/1.0\r\nCSeq: 1\r\nContent-Length: -1\r\n\r\n"),
        ("an endless header", &endless),
        ("noise", &[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3, b'\r', b'\n', b'\r', b'\n']),
        ("another protocol", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
    ];
    for (what, bytes) in cases {
        let (answer, closed) = exchange(server.rtsp, bytes, 1, Duration::from_secs(20));
        let status = answer.split_whitespace().nth(1).and_then(|s| s.parse::<u16>().ok());
        assert!(closed || status.is_some_and(|s| (400..=505).contains(&s)), "{what}: {answer:?}");
        assert_eq!(describe(server.rtsp, &server.url("clip-0000.mp4")), 200, "after {what}");
    }
    for (n, mut half) in halves.into_iter().enumerate() {
        let (answer, closed) = read_answers(&mut half, 0, Duration::from_secs(90));
        assert!(closed, "half request {n} was not closed: {answer:?}");
    }
}

/// No way out of the media folder.
#[test]
fn paths_never_leave_the_media_folder() {
    let folder = tempfile::tempdir().unwrap();
    let media = folder.path().join("media");
    titles(&media.join("sub"), 1, &ClipSpec { seconds: 3, ..ClipSpec::default() });
    titles(folder.path(), 1, &ClipSpec { seconds: 3, ..ClipSpec::default() });
    std::os::unix::fs::symlink(folder.path(), media.join("link")).unwrap();
    let server = Server::start(&media, &[]).unwrap();
    for path in ["sub/clip-0000.mp4", "sub/clip%2D0000.mp4", "sub/clip-0000%2emp4", "sub//clip-0000.mp4"] {
        let status = describe(server.rtsp, &server.url(path));
        assert!(status == 200 || (path.contains("//") && status == 404), "{path}: {status}");
    }
    let outside = folder.path().join("clip-0000.mp4");
    let absolute = outside.to_str().unwrap();
    let attempts = [
        "../clip-0000.mp4".to_owned(),
        "sub/../../clip-0000.mp4".into(),
        "%2e%2e/clip-0000.mp4".into(),
        "..%2fclip-0000.mp4".into(),
        "%2e%2e%2fclip-0000.mp4".into(),
        "sub/%2e%2e/%2e%2e/clip-0000.mp4".into(),
        "..%5cclip-0000.mp4".into(),
        "%252e%252e/clip-0000.mp4".into(),
        "..%c0%afclip-0000.mp4".into(),
        "sub/clip-0000.mp4%00".into(),
        "sub/clip-0000.mp4%00.txt".into(),
        absolute.into(),
        format!("/{absolute}"),
        absolute.replace('/', "%2f"),
        "link/clip-0000.mp4".into(),
        "sub".into(),
        "nothing.mp4".into(),
        "a".repeat(5000),
    ];
    for path in attempts {
        let status = describe(server.rtsp, &server.url(&path));
        assert!(matches!(status, 400 | 403 | 404 | 414), "{path}: {status}");
    }
}

/// Thousands of connections that say nothing, a client that stops reading, and a storm of DESCRIBE: others lose nothing.
#[test]
fn players_lose_nothing_while_others_misbehave() {
    let folder = tempfile::tempdir().unwrap();
    titles(folder.path(), 1, &ClipSpec { seconds: 12, ..ClipSpec::default() });
    // Fast enough to fill any socket buffer of a client that does not read.
    let fat = ClipSpec { seconds: 20, rate_bps: 20_000_000, ..ClipSpec::default() };
    titles(&folder.path().join("fat"), 1, &fat);
    let server = Server::start(folder.path(), &["--stall-timeout", "3"]).unwrap();
    let wanted = std::env::var("HOSTILE_CONNECTIONS").ok().and_then(|n| n.parse().ok()).unwrap_or(SILENT);
    let silent = silent_connections(server.rtsp, wanted);
    println!("{} silent connections", silent.len());

    std::thread::scope(|scope| {
        let players: Vec<_> = [Over::Udp, Over::Tcp]
            .into_iter()
            .map(|over| {
                scope.spawn({
                    let server = &server;
                    move || play_clean(server, "clip-0000.mp4", over, 12)
                })
            })
            .collect();
        scope.spawn(|| stops_reading(&server));
        scope.spawn(|| describe_storm(&server));
        for player in players {
            let played = player.join().unwrap();
            assert!(played.is_ok(), "{played:?}");
            println!("{played:?} packets");
        }
    });
    println!("{}", server.json("/api/v1/status").unwrap()["totals"]);
    drop(silent);
}

fn silent_connections(address: SocketAddr, wanted: usize) -> Vec<TcpStream> {
    // This process's own limit bounds what can be tried; half of it is left for everything else.
    let open = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let limit = open.lines().find(|l| l.starts_with("Max open files")).and_then(|l| l.split_whitespace().nth(3)?.parse().ok());
    let wanted = wanted.min(limit.unwrap_or(1024) / 2);
    let mut held = Vec::with_capacity(wanted);
    for _ in 0..wanted {
        // The server may refuse at its own bound; that is its right.
        match TcpStream::connect_timeout(&address, Duration::from_secs(5)) {
            Ok(stream) => held.push(stream),
            Err(_) => break,
        }
    }
    held
}

fn stops_reading(server: &Server) {
    let mut stream = connect(server.rtsp);
    let url = server.url("fat/clip-0000.mp4");
    let mut session = String::new();
    let sdp = {
        say(&mut stream, &format!("DESCRIBE {url} RTSP/1.0\r\nCSeq: 1\r\nAccept: application/sdp\r\n\r\n"));
        read_answers(&mut stream, 1, Duration::from_secs(10)).0
    };
    let control = sdp.split("m=video").nth(1).and_then(|m| m.split("a=control:").nth(1)).and_then(|c| c.lines().next()).unwrap_or_default();
    let control = if control.contains("://") { control.to_owned() } else { format!("{url}/{control}") };
    for (n, request) in
        [format!("SETUP {control} RTSP/1.0\r\nTransport: RTP/AVP/TCP;unicast;interleaved=0-1"), format!("PLAY {url} RTSP/1.0")]
            .iter()
            .enumerate()
    {
        let with_session = if session.is_empty() { String::new() } else { format!("Session: {session}\r\n") };
        say(&mut stream, &format!("{request}\r\nCSeq: {}\r\n{with_session}\r\n", n + 2));
        if n == 0 {
            let answer = read_answers(&mut stream, 1, Duration::from_secs(10)).0;
            let id = answer.lines().find_map(|l| l.strip_prefix("Session:")).unwrap_or_default();
            session = id.split(';').next().unwrap_or_default().trim().to_owned();
            assert!(!session.is_empty(), "SETUP: {answer}");
        }
    }
    // From here on nothing is read. The session must play, then be gone.
    let fat = || {
        let sessions = server.json("/api/v1/sessions").unwrap();
        let all = sessions["sessions"].as_array().cloned().unwrap_or_default();
        all.into_iter().find(|s| s["path"].as_str().is_some_and(|p| p.contains("fat")))
    };
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut seen = false;
    loop {
        match fat() {
            Some(session) if session["state"] == "playing" || session["state"] == "ready" => seen = true,
            Some(session) if session["state"] == "failed" => break,
            None if seen => break,
            other => assert!(Instant::now() < deadline, "{other:?}"),
        }
        assert!(Instant::now() < deadline, "the session of a client that does not read goes on: {:?}", fat());
        std::thread::sleep(Duration::from_millis(200));
    }
    assert!(seen, "the session was never seen");
}

fn describe_storm(server: &Server) {
    let url = server.url("clip-0000.mp4");
    let started = Instant::now();
    for connection in 0..10 {
        let mut stream = connect(server.rtsp);
        for n in 1..=100 {
            say(&mut stream, &format!("DESCRIBE {url} RTSP/1.0\r\nCSeq: {n}\r\nAccept: application/sdp\r\n\r\n"));
            let (answer, closed) = read_answers(&mut stream, 1, Duration::from_secs(20));
            assert!(!closed && answer.starts_with("RTSP/1.0 200"), "connection {connection}, DESCRIBE {n}: {answer:?}");
        }
    }
    println!("1000 DESCRIBE in {:?}", started.elapsed());
}
