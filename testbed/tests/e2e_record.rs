//! Live streams that are recorded into the media folder of a running server: what is in the file is what was sent.

mod support;

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testbed::player;
use testbed::serve::{Server, binary, http_ask};

const PATIENCE: Duration = Duration::from_secs(60);
/// How much is recorded before somebody ends it, seconds.
const ENOUGH_S: f64 = 3.0;

/// Pictures that a decoder of the clips may have to hold back.
const REORDERED_MAX: usize = 4;

/// A process that is killed when the test is done with it.
struct Sender(Child);

impl Drop for Sender {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// ffmpeg sends a clip over and over.
fn send(clip: &Path, transport: &str, url: &str) -> Sender {
    let mut command = Command::new("ffmpeg");
    command.args(["-nostdin", "-v", "error", "-re", "-stream_loop", "5", "-i"]).arg(clip);
    command.args(["-map", "0:v:0?", "-map", "0:a:0?", "-c", "copy", "-strict", "-2", "-f", "rtsp", "-rtsp_transport", transport, url]);
    Sender(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::inherit()).spawn().unwrap())
}

/// A packet of a file: its checksum, and when it is shown, seconds.
type Packet = (String, f64);

/// The packets of a file's pictures and sound.
fn packets(file: &Path) -> Result<[Vec<Packet>; 2], String> {
    let mut command = Command::new("ffmpeg");
    command.args(["-nostdin", "-v", "error", "-i"]).arg(file);
    command.args(["-map", "0:v:0", "-map", "0:a:0", "-c", "copy", "-f", "framemd5", "-"]);
    let outcome = player::run(&mut command, PATIENCE).map_err(|e| e.to_string())?;
    let text = outcome.stdout_text();
    if !outcome.ok() || !outcome.stderr.is_empty() {
        return Err(format!("{}: {}", file.display(), outcome.stderr));
    }
    let (mut units, mut packets) = ([0.0; 2], [Vec::new(), Vec::new()]);
    for line in text.lines() {
        if let Some((track, unit)) = line.strip_prefix("#tb ").and_then(|line| line.split_once(':')) {
            let (over, under) = unit.trim().split_once('/').unwrap();
            units[track.parse::<usize>().unwrap()] = over.parse::<f64>().unwrap() / under.parse::<f64>().unwrap();
        } else if !line.starts_with('#') {
            let fields: Vec<&str> = line.split(',').map(str::trim).collect();
            let track: usize = fields[0].parse().unwrap();
            packets[track].push((fields[5].to_owned(), fields[2].parse::<f64>().unwrap() * units[track]));
        }
    }
    Ok(packets)
}

/// Where the recorded packets begin in those that were sent, over and over; the recording's time minus the file's, between the two sharpest.
fn place(sent: &[Packet], recorded: &[Packet]) -> Result<(usize, f64), String> {
    let sums = |packets: &[Packet]| packets.iter().map(|(sum, _)| sum.clone()).collect::<Vec<_>>();
    let (whole, part) = ([sums(sent), sums(sent), sums(sent)].concat(), sums(recorded));
    let at = whole.windows(part.len()).position(|window| window == part);
    let at = at.ok_or_else(|| format!("{} recorded packets are no part of the {} that were sent", part.len(), sent.len()))?;
    // Times are compared before the file begins anew.
    let once = (sent.len() - at).min(part.len());
    let mut differences: Vec<f64> = (0..once).map(|i| recorded[i].1 - sent[at + i].1).collect();
    differences.sort_by(f64::total_cmp);
    let spread = differences[once - 1] - differences[0];
    if spread > 0.002 {
        return Err(format!("times differ by {differences:?}"));
    }
    Ok((at, differences[once / 2]))
}

/// Checksums of the decoded pictures of a file or stream.
fn decoded(input: &[&str]) -> Vec<String> {
    let mut command = Command::new("ffmpeg");
    command.args(["-nostdin", "-v", "error"]).args(input).args(["-map", "0:v:0", "-an", "-vsync", "passthrough", "-f", "framemd5", "-"]);
    let outcome = player::run(&mut command, PATIENCE).unwrap();
    assert!(outcome.ok() && outcome.stderr.is_empty(), "{input:?}: {}", outcome.stderr);
    let sum = |line: &str| line.rsplit(',').next().map(|sum| sum.trim().to_owned());
    outcome.stdout_text().lines().filter(|line| !line.starts_with('#')).filter_map(sum).collect()
}

fn ask(server: &Server, method: &str, path: &str, body: Value) -> (u16, Value) {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let (status, answer) = http_ask(server.http, method, path, &body).unwrap();
    (status, serde_json::from_str(&answer).unwrap_or_else(|e| panic!("{method} {path}: {e}: {answer}")))
}

fn post(server: &Server, body: Value) -> (u16, Value) {
    ask(server, "POST", "/api/v1/recordings", body)
}

/// Begins, as soon as the stream has a key frame.
fn begin(server: &Server, body: Value) -> Value {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match post(server, body.clone()) {
            (201, recording) => return recording,
            (404 | 503, answer) => assert!(Instant::now() < deadline, "{answer}"),
            (status, answer) => panic!("{status}: {answer}"),
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn page(recording: &Value) -> String {
    format!("/api/v1/recordings/{}", recording["id"])
}

/// Waits until `what` holds of the recording.
fn until(server: &Server, recording: &Value, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let (status, now) = ask(server, "GET", &page(recording), Value::Null);
        assert_eq!(status, 200, "{now}");
        if holds(&now) {
            return now;
        }
        assert!(Instant::now() < deadline, "{what}: {now}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn is_over(recording: &Value) -> bool {
    !["running", "finishing"].contains(&recording["state"].as_str().unwrap())
}

/// Names in a folder, hidden ones too.
fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn what_is_recorded_is_what_was_sent() {
    if !support::have(&["ffmpeg"]) {
        return;
    }
    let (clips, media) = (support::clips(), tempfile::tempdir().unwrap());
    let server = Server::start(media.path(), &["--record-paths", "live/", "--recordings-to", "recordings/"]).unwrap();
    let jobs = [
        ("h264-aac.mp4", "udp"),
        ("h264-aac.mp4", "tcp"),
        ("h265-aac.mp4", "tcp"),
        ("h264-opus.mp4", "tcp"),
        ("h264-mp3.mp4", "tcp"),
        ("h264-mulaw.mov", "tcp"),
        ("mpeg4-aac.mp4", "tcp"),
    ];
    support::run_all(&jobs, jobs.len(), |(clip, transport)| {
        let (channel, to) = (format!("live/{transport}-{clip}"), format!("recordings/{transport}/{clip}.mp4"));
        let clip_path = clips.join(clip);
        if !clip_path.exists() {
            return Err("there is no such clip".into());
        }
        let sent = packets(&clip_path)?;
        let _sender = send(&clip_path, transport, &server.url(&channel));
        let recording = begin(&server, json!({"channel": channel, "to": to}));
        until(&server, &recording, "it goes on", |now| now["recorded_s"].as_f64().unwrap() >= ENOUGH_S);
        let (status, end) = ask(&server, "DELETE", &page(&recording), Value::Null);
        if (status, &end["state"], &end["ended"]) != (200, &json!("done"), &json!("somebody ended it")) {
            return Err(format!("{status}: {end}"));
        }
        let file = media.path().join(&to);
        if end["bytes"] != std::fs::metadata(&file).unwrap().len() {
            return Err(format!("{end}"));
        }
        let recorded = packets(&file)?;
        let (pictures, sound) = (place(&sent[0], &recorded[0])?, place(&sent[1], &recorded[1])?);
        if recorded[0].len() < 50 || recorded[1].len() < 50 {
            return Err(format!("{} pictures, {} frames of sound", recorded[0].len(), recorded[1].len()));
        }
        // What was sent together is shown together, to within a frame of sound.
        let apart = pictures.1 - sound.1;
        if apart.abs() > 0.021 {
            return Err(format!("pictures are {:.1} ms behind the sound", apart * 1e3));
        }
        Ok(format!("{} and {} packets, {:.2} ms apart", recorded[0].len(), recorded[1].len(), apart * 1e3))
    });
    // The files are served like any other.
    let url = server.url("recordings/tcp/h264-aac.mp4.mp4");
    let decoded = |input: &[&str]| {
        let mut command = Command::new("ffmpeg");
        command.args(["-nostdin", "-v", "error"]).args(input).args([
            "-map",
            "0:v:0",
            "-an",
            "-vsync",
            "passthrough",
            "-f",
            "framemd5",
            "-",
        ]);
        let outcome = player::run(&mut command, PATIENCE).unwrap();
        assert!(outcome.ok(), "{input:?}: {}", outcome.stderr);
        let sum = |line: &str| line.rsplit(',').next().map(|sum| sum.trim().to_owned());
        outcome.stdout_text().lines().filter(|line| !line.starts_with('#')).filter_map(sum).collect::<Vec<_>>()
    };
    let file = media.path().join("recordings/tcp/h264-aac.mp4.mp4");
    let (played, whole) = (decoded(&["-rtsp_transport", "tcp", "-i", &url]), decoded(&["-i", file.to_str().unwrap()]));
    assert!(whole.len() >= 50 && played == whole, "{} of {} pictures", played.len(), whole.len());
    let status = server.json("/api/v1/status").unwrap();
    assert_eq!(status["cores"][0]["disk_errors"], 0);
}

#[test]
fn what_a_crash_cuts_off_is_there_after_the_next_start() {
    if !support::have(&["ffmpeg"]) {
        return;
    }
    let (clips, media) = (support::clips(), tempfile::tempdir().unwrap());
    let (clip, folder) = (clips.join("h264-aac.mp4"), media.path().join("recordings"));
    let sent = packets(&clip).unwrap();
    let options = ["--record-paths", "live/", "--recordings-to", "recordings/"];
    // More than one crash, and the last server is stopped as it should be.
    for round in 0..3 {
        let server = Server::start(media.path(), &options).unwrap();
        let _sender = send(&clip, "tcp", &server.url("live/a"));
        let recording = begin(&server, json!({"channel": "live/a", "to": format!("recordings/{round}.mp4")}));
        let noted = until(&server, &recording, "it goes on", |now| now["recorded_s"].as_f64().unwrap() >= 2.0 * ENOUGH_S);
        if round == 2 {
            server.stop().unwrap();
        } else {
            server.crash().unwrap();
            assert_eq!(names(&folder)[..2], [format!(".{round}.mp4.notes"), format!(".{round}.mp4.part")], "{noted}");
        }
    }
    let server = Server::start(media.path(), &options).unwrap();
    assert_eq!(names(&folder), ["0.mp4", "1.mp4", "2.mp4"], "nothing else is left");
    for name in names(&folder) {
        let recorded = packets(&folder.join(&name)).unwrap();
        place(&sent[0], &recorded[0]).unwrap();
        place(&sent[1], &recorded[1]).unwrap();
        // A second of notes, a second that was not collected, and the clip's blocks are not full for a while.
        let seconds = recorded[0].len() as f64 / 25.0;
        assert!(seconds >= ENOUGH_S, "{name}: {seconds} s");
    }
    drop(server);
}

#[test]
fn a_transport_stream_is_recorded_picture_by_picture() {
    if !support::have(&["ffmpeg"]) {
        return;
    }
    let (clips, media) = (support::clips(), tempfile::tempdir().unwrap());
    let clip = clips.join("h264-aac.mp4");
    // Our own stack has ports of its own.
    let port = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let source = format!("live/ts=udp://0.0.0.0:{port}");
    let server = Server::start(media.path(), &["--source", &source, "--recordings-to", "recordings/"]).unwrap();
    let mut command = Command::new("ffmpeg");
    command.args(["-nostdin", "-v", "error", "-re", "-stream_loop", "5", "-i"]).arg(&clip).args(["-c", "copy", "-f", "mpegts"]);
    command.arg(format!("udp://{}:{port}?pkt_size=1316", server.rtsp.ip())).stdin(Stdio::null()).stdout(Stdio::null());
    let _sender = Sender(command.spawn().unwrap());
    let recording = begin(&server, json!({"channel": "live/ts", "to": "recordings/ts.mp4", "seconds": 3}));
    let end = until(&server, &recording, "it ends by itself", is_over);
    assert_eq!(end["state"], "done", "{end}");
    let file = media.path().join("recordings/ts.mp4");
    let (sent, recorded) = (decoded(&["-i", clip.to_str().unwrap()]), decoded(&["-i", file.to_str().unwrap()]));
    // A recording ends in the order of decoding: of the last pictures some may be missing that are shown before others.
    let recorded = &recorded[..recorded.len() - REORDERED_MAX];
    let whole = [sent.as_slice(), &sent].concat();
    let is_part = whole.windows(recorded.len()).any(|window| window == recorded);
    assert!(recorded.len() >= 60 && is_part, "{} pictures", recorded.len());
    let [_, sent] = packets(&clip).unwrap();
    let [_, recorded] = packets(&file).unwrap();
    place(&sent, &recorded).unwrap();
}

#[test]
fn a_recording_ends_in_every_way_and_is_refused_where_it_may_not_be() {
    if !support::have(&["ffmpeg"]) {
        return;
    }
    let (clips, media) = (support::clips(), tempfile::tempdir().unwrap());
    let arguments = ["--record-paths", "live/", "--recordings-to", "recordings/", "--live-timeout", "2"];
    let server = Server::start(media.path(), &arguments).unwrap();
    let folder = media.path().join("recordings");
    let sender = send(&clips.join("h264-aac.mp4"), "tcp", &server.url("live/a"));
    let wish = |to: &str| json!({"channel": "live/a", "to": format!("recordings/{to}")});
    // As long as was asked for.
    let mut short = wish("short.mp4");
    short["seconds"] = json!(2);
    let short = begin(&server, short);
    let (dropped, other) = (begin(&server, wish("dropped.mp4")), begin(&server, wish("other.mp4")));
    for (body, status, why) in [
        (json!({"channel": "live/a", "to": "films/a.mp4"}), 403, "recordings/"),
        (json!({"channel": "live/a", "to": "recordings/../a.mp4"}), 400, "to:"),
        (json!({"channel": "live/a", "to": "recordings/a.txt"}), 400, ".mp4"),
        (json!({"channel": "live/none", "to": "recordings/a.mp4"}), 404, "nothing is live"),
        (json!({"channel": "live/a", "to": "recordings/a.mp4", "seconds": 0}), 400, "seconds"),
        (wish("other.mp4"), 409, "being written"),
    ] {
        let (got, answer) = post(&server, body.clone());
        assert!(got == status && answer["error"].as_str().unwrap().contains(why), "{body}: {got}: {answer}");
    }
    let end = until(&server, &short, "it ends by itself", is_over);
    assert_eq!((&end["state"], &end["ended"]), (&json!("done"), &json!("it is as long as was asked for")), "{end}");
    assert!((1.8..=2.0).contains(&end["recorded_s"].as_f64().unwrap()), "{end}");
    let (status, again) = post(&server, wish("short.mp4"));
    assert!(status == 409 && again["error"].as_str().unwrap().contains("there already"), "{again}");
    // Not wanted.
    let (status, end) = ask(&server, "DELETE", &format!("{}?discard=true", page(&dropped)), Value::Null);
    assert_eq!((status, &end["state"]), (200, &json!("cancelled")), "{end}");
    assert_eq!(names(&folder), [".other.mp4.notes", ".other.mp4.part", "short.mp4"]);
    // What is over can be forgotten.
    assert_eq!(ask(&server, "DELETE", &page(&dropped), Value::Null).0, 200);
    assert_eq!(ask(&server, "GET", &page(&dropped), Value::Null).0, 404);
    // The sender goes.
    drop(sender);
    let end = until(&server, &other, "the stream ends", is_over);
    assert_eq!((&end["state"], &end["ended"]), (&json!("done"), &json!("the live stream has ended")), "{end}");
    // The server is stopped.
    let sender = send(&clips.join("h264-aac.mp4"), "udp", &server.url("live/a"));
    let last = begin(&server, wish("deep/last.mp4"));
    until(&server, &last, "it goes on", |now| now["recorded_s"].as_f64().unwrap() >= 1.0);
    let (status, stderr) = server.stop().unwrap();
    assert!(status.success(), "{stderr}");
    drop(sender);
    assert_eq!(
        (names(&folder), names(&folder.join("deep"))),
        (vec!["deep".into(), "other.mp4".into(), "short.mp4".into()], vec!["last.mp4".into()])
    );
    for file in ["short.mp4", "other.mp4", "deep/last.mp4"] {
        let [pictures, sound] = packets(&folder.join(file)).unwrap();
        assert!(pictures.len() >= 20 && sound.len() >= 30, "{file}: {} and {}", pictures.len(), sound.len());
    }
    // Where nobody allowed it there is none.
    let server = Server::start(media.path(), &["--record-paths", "live/"]).unwrap();
    let (status, answer) = post(&server, wish("x.mp4"));
    assert!(status == 403 && answer["error"].as_str().unwrap().contains("--recordings-to"), "{answer}");
}

#[test]
fn the_command_records_and_says_how_it_went() {
    if !support::have(&["ffmpeg"]) {
        return;
    }
    let (clips, media) = (support::clips(), tempfile::tempdir().unwrap());
    let server = Server::start(media.path(), &["--record-paths", "live/", "--recordings-to", "recordings/"]).unwrap();
    let url = format!("http://{}", server.http);
    let tactus = |arguments: &[&str]| {
        let output = Command::new(binary().unwrap()).arg("record").args(arguments).args(["--url", &url]).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    };
    let (code, stdout, stderr) = tactus(&["live/a", "recordings/a.mp4"]);
    assert!(code == 1 && stdout.is_empty() && stderr.contains("nothing is live"), "{stderr}");
    let _sender = send(&clips.join("h264-aac.mp4"), "tcp", &server.url("live/a"));
    let first = begin(&server, json!({"channel": "live/a", "to": "recordings/first.mp4"}));
    let (code, stdout, stderr) = tactus(&["live/a", "recordings/a.mp4", "--seconds", "1"]);
    assert!(
        code == 0 && stdout.starts_with("recordings/a.mp4: ") && stdout.contains("as long as") && stderr.is_empty(),
        "{stdout}{stderr}"
    );
    let (code, stdout, _) = tactus(&["/live/a", "recordings/a.mp4", "--seconds", "1", "--replace", "--json"]);
    let json: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((code, &json["state"], &json["tracks"].as_array().unwrap().len()), (0, &json!("done"), &2), "{json}");
    let (code, _, stderr) = tactus(&["live/a", "recordings/a.mp4"]);
    assert!(code == 1 && stderr.contains("there already"), "{stderr}");
    assert_eq!((tactus(&["live/a"]).0, tactus(&["live/a", "recordings/b.mp4", "--seconds", "0"]).0), (2, 2));
    let (_, end) = ask(&server, "DELETE", &page(&first), Value::Null);
    assert_eq!(end["state"], "done", "{end}");
}
