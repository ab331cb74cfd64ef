//! Live streams from end to end: ffmpeg sends, others play what it sends, picture by picture as in the file.

mod support;

use std::net::{IpAddr, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use testbed::player;
use testbed::serve::Server;

const LIMIT: Duration = Duration::from_secs(60);
/// Pictures between key frames of the clips.
const GOP: usize = 25;
/// Seconds that a player plays.
const PLAYS_S: usize = 3;

/// A process that is killed when the test is done with it.
struct Sender(Child);

impl Drop for Sender {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// ffmpeg sends a clip over and over.
fn send(clip: &Path, output: &[&str]) -> Sender {
    let mut command = Command::new("ffmpeg");
    command
        .args(["-nostdin", "-v", "error", "-re", "-stream_loop", "5", "-i"])
        .arg(clip)
        .args(["-map", "0:v:0", "-map", "0:a:0?", "-c", "copy"])
        .args(output);
    Sender(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::inherit()).spawn().unwrap())
}

/// Checksums of the decoded pictures of a file or stream.
fn pictures(input: &[&str]) -> Result<Vec<String>, String> {
    let mut command = Command::new("ffmpeg");
    command.args(["-nostdin", "-v", "error"]).args(input).args(["-map", "0:v:0", "-an", "-vsync", "passthrough", "-f", "framemd5", "-"]);
    let outcome = player::run(&mut command, LIMIT).map_err(|e| e.to_string())?;
    if !outcome.ok() {
        return Err(format!("{input:?}: {}", outcome.stderr));
    }
    let checksum = |line: &str| line.rsplit(',').next().map(|sum| sum.trim().to_owned());
    Ok(outcome.stdout_text().lines().filter(|line| !line.starts_with('#')).filter_map(checksum).collect())
}

/// Plays for [`PLAYS_S`] seconds; what was seen must be a part of the file without a gap that begins with a key frame.
fn play(server: &Server, path: &str, transport: &str, file: &[String]) -> Result<String, String> {
    let (url, seconds) = (server.url(path), PLAYS_S.to_string());
    let seen = pictures(&["-rtsp_transport", transport, "-t", &seconds, "-i", &url])?;
    if seen.len() < (PLAYS_S - 1) * 25 {
        return Err(format!("{} pictures in {PLAYS_S} seconds over {transport}", seen.len()));
    }
    // It is sent over and over.
    let twice = [file, file].concat();
    let first = twice.windows(seen.len()).position(|window| window == seen);
    let first = first.ok_or_else(|| format!("what was played over {transport} is no part of the file: {} pictures", seen.len()))?;
    if !first.is_multiple_of(GOP) {
        return Err(format!("it begins with picture {first}, which is no key frame"));
    }
    Ok(format!("{} pictures from {first} on over {transport}", seen.len()))
}

/// Waits until viewers can start.
fn ready(server: &Server, path: &str) {
    let deadline = Instant::now() + LIMIT;
    let can_start = |address| {
        let mut client = player::rtsp_client::RtspClient::connect(address).ok()?;
        client.describe(&server.url(path)).ok().filter(|(response, _)| response.status == 200)
    };
    while can_start(server.rtsp).is_none() {
        assert!(Instant::now() < deadline, "{path} did not get ready");
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn sessions(server: &Server) -> Vec<serde_json::Value> {
    let json = server.json("/api/v1/sessions").unwrap();
    json["sessions"].as_array().cloned().unwrap_or_default()
}

/// Waits until `what` holds of the sessions.
fn until(server: &Server, what: &str, holds: impl Fn(&[serde_json::Value]) -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !holds(&sessions(server)) {
        assert!(Instant::now() < deadline, "{what}: {:#?}", sessions(server));
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn what_ffmpeg_pushes_is_played_picture_by_picture() {
    if !support::have(&["ffmpeg"]) {
        return;
    }
    let clips = support::clips();
    let clip = clips.join("h264-aac.mp4");
    let file = pictures(&["-i", clip.to_str().unwrap()]).unwrap();
    let server = Server::start(&clips, &["--record-paths", "live/"]).unwrap();
    let jobs: Vec<(&str, &str)> = ["udp", "tcp"].into_iter().flat_map(|push| ["udp", "tcp"].map(|play| (push, play))).collect();
    let senders: Vec<Sender> = ["udp", "tcp"]
        .iter()
        .map(|push| send(&clip, &["-f", "rtsp", "-rtsp_transport", push, &server.url(&format!("live/{push}"))]))
        .collect();
    for push in ["udp", "tcp"] {
        ready(&server, &format!("live/{push}"));
    }
    support::run_all(&jobs, 4, |(push, transport)| play(&server, &format!("live/{push}"), transport, &file));
    let recording: Vec<_> = sessions(&server).into_iter().filter(|session| session["state"] == "recording").collect();
    assert_eq!(recording.len(), 2, "{recording:#?}");
    for session in &recording {
        let ingest = &session["ingest"];
        assert!(ingest["units"].as_u64() > Some(50) && ingest["lost"] == 0 && ingest["broken_units"] == 0, "{session:#?}");
    }
    let media = server.json("/api/v1/media").unwrap();
    let live = media["media"].as_array().unwrap().iter().filter(|entry| entry["media"]["container"] == "live").count();
    assert_eq!(live, 2);
    // What ends by itself is gone, for those who ask and for those who play.
    drop(senders);
    until(&server, "the channels end", |sessions| sessions.iter().all(|session| session["state"] != "recording"));
    drop(server);
}

/// A live stream is on one engine core. A connection of the kernel's is handed to that one, whoever has fewer sessions; on our own stack it
/// stays where it came to, so there only the sender's side can be chosen.
#[test]
fn with_two_engine_cores_a_connection_goes_where_its_stream_is() {
    if !support::have(&["ffmpeg"]) || testbed::own_stack::wanted().unwrap().is_some() {
        return;
    }
    let clips = support::clips();
    let clip = clips.join("h264-aac.mp4");
    let file = pictures(&["-i", clip.to_str().unwrap()]).unwrap();
    let server = Server::start(&clips, &["--record-paths", "live/", "--engine-cores", "0,1"]).unwrap();
    let paths = ["live/a", "live/b", "live/c"];
    let _senders = paths.map(|path| {
        let sender = send(&clip, &["-f", "rtsp", "-rtsp_transport", "tcp", &server.url(path)]);
        ready(&server, path);
        sender
    });
    let jobs: Vec<&str> = paths.into_iter().flat_map(|path| [path; 2]).collect();
    support::run_all(&jobs, 3, |path| play(&server, path, "tcp", &file));
    let cores = server.json("/api/v1/status").unwrap()["cores"].as_array().unwrap().len();
    assert_eq!(cores, 2);
}

#[test]
fn who_may_send_is_configured() {
    if !support::have(&["ffmpeg"]) {
        return;
    }
    let clips = support::clips();
    let clip = clips.join("h264-aac.mp4");
    for (arguments, path, why) in [
        (&[][..], "live/a", "403"),
        (&["--record-paths", "live/"][..], "films/a", "403"),
        (&["--record-paths", "live/", "--record-from", "10.255.0.0/16"][..], "live/a", "403"),
        (&["--record-paths", "h264"][..], "h264-aac.mp4", "455"),
    ] {
        let server = Server::start(&clips, arguments).unwrap();
        let mut command = Command::new("ffmpeg");
        command.args(["-nostdin", "-v", "error", "-i"]).arg(&clip).args(["-c", "copy", "-f", "rtsp", &server.url(path)]);
        let outcome = player::run(&mut command, LIMIT).unwrap();
        assert!(!outcome.ok() && outcome.stderr.contains(why), "{arguments:?}: {}", outcome.stderr);
    }
}

#[test]
fn a_sender_that_vanishes_is_held_or_ends() {
    if !support::have(&["ffmpeg"]) {
        return;
    }
    let clips = support::clips();
    let clip = clips.join("h264-aac.mp4");
    let output = |server: &Server| server.url("live/a");
    let start = |lost: &str| Server::start(&clips, &["--record-paths", "live/", "--live-timeout", "1", "--live-lost", lost]).unwrap();
    let (ends, holds) = (start("end"), start("hold"));
    let push = |server: &Server, transport: &str| send(&clip, &["-f", "rtsp", "-rtsp_transport", transport, &output(server)]);
    let (one, other) = (push(&ends, "udp"), push(&holds, "tcp"));
    let viewer = |server: &Server| {
        ready(server, "live/a");
        let mut command = Command::new("ffmpeg");
        command.args(["-nostdin", "-v", "error", "-rtsp_transport", "udp", "-i", &output(server), "-c", "copy", "-f", "null", "-"]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Sender(command.spawn().unwrap())
    };
    let (mut leaves, _stays) = (viewer(&ends), viewer(&holds));
    let packets = |sessions: &[serde_json::Value]| {
        let viewers = sessions.iter().filter(|session| session["state"] == "playing");
        viewers.filter_map(|session| session["tracks"][0]["packets"].as_u64()).max().unwrap_or(0)
    };
    for server in [&ends, &holds] {
        until(server, "a viewer plays", |sessions| packets(sessions) > 20);
    }
    drop((one, other));
    let (_, killed) = player::wait(&mut leaves.0, LIMIT).unwrap();
    assert!(!killed, "the end was told");
    until(&holds, "the sender is gone", |sessions| sessions.iter().all(|session| session["state"] != "recording"));
    let before = packets(&sessions(&holds));
    let _back = push(&holds, "udp");
    until(&holds, "the viewer goes on", |sessions| packets(sessions) > before + 20);
}

/// A transport stream that a server is to receive.
struct TransportStream {
    path: &'static str,
    /// Where it arrives.
    source: String,
    /// Where it is sent, which depends on the server.
    output: fn(&Server, u16) -> String,
    port: u16,
}

fn transport_streams() -> Vec<TransportStream> {
    if testbed::own_stack::wanted().unwrap().is_none() {
        let port = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let source = format!("udp://127.0.0.1:{port}");
        return vec![TransportStream { path: "live/ts", source, output: |_, port| format!("udp://127.0.0.1:{port}?pkt_size=1316"), port }];
    }
    // Our own stack has ports of its own. A group is sent to by the cable to the server's namespace.
    let unicast = |server: &Server, port| format!("udp://{}:{port}?pkt_size=1316", server.rtsp.ip());
    let group = |server: &Server, port| {
        let IpAddr::V4(ip) = server.rtsp.ip() else { panic!("an IPv4 address") };
        let [a, b, c, _] = ip.octets();
        format!("udp://239.1.2.3:{port}?pkt_size=1316&ttl=1&localaddr={a}.{b}.{c}.2")
    };
    vec![
        TransportStream { path: "live/ts", source: "udp://0.0.0.0:9500".to_owned(), output: unicast, port: 9500 },
        TransportStream { path: "live/group", source: "udp://239.1.2.3:9500".to_owned(), output: group, port: 9500 },
    ]
}

#[test]
fn a_transport_stream_is_played_picture_by_picture() {
    if !support::have(&["ffmpeg"]) {
        return;
    }
    let clips = support::clips();
    let clip = clips.join("h264-aac.mp4");
    let file = pictures(&["-i", clip.to_str().unwrap()]).unwrap();
    let streams = transport_streams();
    let sources: Vec<String> = streams.iter().map(|stream| format!("{}={}", stream.path, stream.source)).collect();
    let server = Server::start(&clips, &["--source", &sources.join(","), "--live-timeout", "1"]).unwrap();
    let push = |stream: &TransportStream| send(&clip, &["-f", "mpegts", &(stream.output)(&server, stream.port)]);
    let senders: Vec<Sender> = streams.iter().map(push).collect();
    for stream in &streams {
        ready(&server, stream.path);
    }
    let jobs: Vec<(&str, &str)> = streams.iter().flat_map(|stream| ["udp", "tcp"].map(|transport| (stream.path, transport))).collect();
    support::run_all(&jobs, 4, |(path, transport)| play(&server, path, transport, &file));
    // A source comes back.
    drop(senders);
    let gone = |path: &str| {
        let mut client = player::rtsp_client::RtspClient::connect(server.rtsp).unwrap();
        client.describe(&server.url(path)).unwrap().0.status != 200
    };
    let deadline = Instant::now() + LIMIT;
    while !streams.iter().all(|stream| gone(stream.path)) {
        assert!(Instant::now() < deadline, "the sources are gone");
        std::thread::sleep(Duration::from_millis(100));
    }
    let _again: Vec<Sender> = streams.iter().map(push).collect();
    for stream in &streams {
        ready(&server, stream.path);
    }
}
