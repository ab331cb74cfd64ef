//! RTSP sessions over a real server, with a client of our own: pause, seek, ends, limits, signs of life, the clean stop.
//!
//! Titles are synthetic, so nothing but the server is needed.

mod support;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use dataplane::media::Codec;
use testbed::clip::{self, ClipSpec};
use testbed::player::reception::{FileSample, Unit, file_samples, locate, range_start_ns, rtp_info, units};
use testbed::player::rtsp_client::{Arrival, Over, Response, RtspClient};
use testbed::serve::Server;

type Outcome = Result<String, String>;

/// RTP clocks and file samples of the two tracks of a synthetic title, in SDP order.
struct Title {
    path: PathBuf,
    tracks: [(Codec, i64, Vec<FileSample>); 2],
}

impl Title {
    fn make(folder: &Path, seconds: u32) -> Self {
        let path = clip::make_clips(&ClipSpec { seconds, ..ClipSpec::default() }, 1, folder).unwrap().remove(0);
        let h264 = Codec::H264 { length_bytes: 4, sps: Vec::new(), pps: Vec::new() };
        // AudioSpecificConfig: AAC-LC, 48 kHz, stereo.
        let aac = Codec::Aac { config: vec![0x11, 0x90], sample_rate: 48_000, channels: 2 };
        let tracks = [(h264, 90_000, file_samples(&path, 1).unwrap()), (aac, 48_000, file_samples(&path, 2).unwrap())];
        Self { path, tracks }
    }

    fn name(&self) -> &str {
        self.path.file_name().and_then(|n| n.to_str()).unwrap()
    }

    fn units(&self, arrivals: &[Arrival], track: usize) -> Result<Vec<Unit>, String> {
        units(arrivals, track, &self.tracks[track].0)
    }

    /// Where the video received lies in the file, all RTP times checked against the PLAY response, and the audio's.
    fn check(&self, arrivals: &[Arrival], played: &Response) -> Result<std::ops::Range<usize>, String> {
        let info = rtp_info(played)?;
        let from_ns = range_start_ns(played)?;
        let mut video = 0..0;
        for (track, (_, clock, file)) in self.tracks.iter().enumerate() {
            let first = arrivals.iter().find(|a| a.track == track && !a.rtcp).and_then(Arrival::rtp);
            let first = first.ok_or_else(|| format!("track {track}: nothing received"))?;
            let info = info.get(track).ok_or("RTP-Info has too few tracks")?;
            if first.seq != info.seq {
                return Err(format!("track {track}: the first packet is {}, RTP-Info says {}", first.seq, info.seq));
            }
            let units = self.units(arrivals, track)?;
            let time_ns = |u: &Unit| from_ns + i64::from(u.rtp_time.wrapping_sub(info.rtptime).cast_signed()) * 1_000_000_000 / clock;
            if track == 0 {
                video = locate(file, &units)?;
                for (sample, unit) in file[video.clone()].iter().zip(&units) {
                    if (time_ns(unit) - sample.pts_ns).abs() > 1_000_000 {
                        return Err(format!("video: a sample of {} ns came with the RTP time of {} ns", sample.pts_ns, time_ns(unit)));
                    }
                }
            } else {
                // Silence is the same everywhere: the place is told by the time.
                for unit in units.iter().filter(|u| u.intact) {
                    let at = time_ns(unit);
                    let nearest = file.partition_point(|s| s.pts_ns + 1_000_000 < at);
                    let sample = file.get(nearest).ok_or_else(|| format!("audio of {at} ns is behind the end"))?;
                    if (sample.pts_ns - at).abs() > 1_000_000 || sample.data != unit.data {
                        return Err(format!("audio of {at} ns is none of the file's (nearest: {} ns)", sample.pts_ns));
                    }
                }
            }
        }
        Ok(video)
    }
}

fn ok(response: &Response, what: &str) -> Result<(), String> {
    if response.status == 200 { Ok(()) } else { Err(format!("{what}: {} {:?}", response.status, response.headers)) }
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

fn open(server: &Server, title: &Title, over: Over) -> Result<(RtspClient, String), String> {
    let mut client = RtspClient::connect(server.rtsp).map_err(text)?;
    let url = server.url(title.name());
    client.open(&url, over).map_err(text)?;
    Ok((client, url))
}

fn seconds(s: f64) -> Duration {
    Duration::from_secs_f64(s)
}

/// One scenario: its name, and what it does to the server.
type Scenario = (&'static str, fn(&Server, &Title) -> Outcome);

/// Scenarios are mostly waiting, so they run all at once against one server.
#[test]
fn sessions_do_what_rtsp_says() {
    let folder = tempfile::tempdir().unwrap();
    let title = Title::make(folder.path(), 30);
    let server = Server::start(folder.path(), &["--session-timeout", "5"]).unwrap();
    let scenarios: Vec<Scenario> = vec![
        ("pause, wait, play over UDP", |s, t| pause_wait_play(s, t, Over::Udp)),
        ("pause, wait, play over TCP", |s, t| pause_wait_play(s, t, Over::Tcp)),
        ("seek over UDP", |s, t| seek(s, t, Over::Udp)),
        ("seek over TCP", |s, t| seek(s, t, Over::Tcp)),
        ("a range with an end", range_with_an_end),
        ("ranges that are refused", bad_ranges),
        ("two sessions on one connection", two_sessions),
        ("requests in pieces and in a row", pieces),
        ("sender reports agree", sender_reports),
        ("teardown while playing", teardown),
        ("one track alone", one_track),
        ("signs of life", signs_of_life),
    ];
    let names: Vec<_> = scenarios.iter().map(|(name, _)| *name).collect();
    support::run_all(&names, names.len(), |name| {
        let (_, scenario) = scenarios.iter().find(|(n, _)| n == name).ok_or("no such scenario")?;
        scenario(&server, &title)
    });
}

fn pause_wait_play(server: &Server, title: &Title, over: Over) -> Outcome {
    let (mut client, url) = open(server, title, over)?;
    let played = client.play(&url, Some("npt=0-")).map_err(text)?;
    ok(&played, "PLAY")?;
    let mut first = client.receive_for(seconds(2.3));
    ok(&client.request("PAUSE", &url, &[]).map_err(text)?, "PAUSE")?;
    first.extend(client.receive_for(seconds(0.5)));
    let silence = client.receive_for(seconds(1.5));
    if let Some(packet) = silence.iter().find(|a| !a.rtcp) {
        return Err(format!("a packet of track {} arrived while paused", packet.track));
    }
    let again = client.play(&url, None).map_err(text)?;
    ok(&again, "second PLAY")?;
    let second = client.receive_for(seconds(2.3));
    let before = title.check(&first, &played).map_err(|e| format!("before the pause: {e}"))?;
    // RTP-Info of the second PLAY names the packet that came next.
    for (track, info) in rtp_info(&again)?.iter().enumerate() {
        let next = second.iter().find(|a| a.track == track && !a.rtcp).and_then(Arrival::rtp).map(|p| p.seq);
        if next != Some(info.seq) {
            return Err(format!("track {track}: RTP-Info says {}, packet {next:?} came", info.seq));
        }
    }
    // Both parts together are the file, without a hole, whether the pause cut a sample in two or not.
    let all: Vec<Arrival> = first.into_iter().chain(second).collect();
    let together = locate(&title.tracks[0].2, &title.units(&all, 0)?).map_err(|e| format!("both parts: {e}"))?;
    if together.start != 0 || before.len() < 25 || together.len() < before.len() + 25 {
        return Err(format!("samples {before:?} came before the pause, {together:?} in all"));
    }
    let audio = title.units(&all, 1)?;
    if audio.iter().any(|u| !u.intact) || audio.len() * 25 < together.len() * 40 {
        return Err(format!("{} audio units to {} pictures", audio.len(), together.len()));
    }
    Ok(format!("stopped at sample {}, went on to {}", before.end, together.end))
}

fn seek(server: &Server, title: &Title, over: Over) -> Outcome {
    let (mut client, url) = open(server, title, over)?;
    ok(&client.play(&url, None).map_err(text)?, "PLAY")?;
    client.receive_for(seconds(0.7));
    let mut places = Vec::new();
    // While playing, without PAUSE in between: forwards, backwards, exactly on and just before a sync sample.
    for (npt, sample) in [(12.3, 300), (5.0, 125), (17.99, 425), (0.0, 0)] {
        let played = client.play(&url, Some(&format!("npt={npt}-"))).map_err(text)?;
        ok(&played, "PLAY")?;
        let arrivals = client.receive_for(seconds(1.2));
        // Packets that were under way before the seek come first; RTP-Info names the first one behind it.
        let info = rtp_info(&played)?;
        let from = |track: usize| {
            let seq = info.get(track).map(|i| i.seq);
            arrivals.iter().position(|a| a.track == track && a.rtp().map(|p| p.seq) == seq).unwrap_or(usize::MAX)
        };
        let starts = [from(0), from(1)];
        let behind: Vec<_> = arrivals.iter().enumerate().filter(|(i, a)| *i >= starts[a.track.min(1)]).map(|(_, a)| a.clone()).collect();
        let range = title.check(&behind, &played).map_err(|e| format!("after the seek to {npt}: {e}"))?;
        if range.start != sample {
            return Err(format!("the seek to {npt} s began at sample {}, not {sample}", range.start));
        }
        places.push(range.start);
    }
    Ok(format!("began at samples {places:?}"))
}

fn range_with_an_end(server: &Server, title: &Title) -> Outcome {
    let (mut client, url) = open(server, title, Over::Udp)?;
    let played = client.play(&url, Some("npt=2-4")).map_err(text)?;
    ok(&played, "PLAY")?;
    let arrivals = client.receive_for(seconds(4.5));
    let range = title.check(&arrivals, &played)?;
    // 25 frames per second: samples 50 to 99.
    if range.start != 50 || !(99..=101).contains(&range.end) {
        return Err(format!("samples {range:?} came"));
    }
    // The session is still there and plays on.
    let played = client.play(&url, Some("npt=1-")).map_err(text)?;
    ok(&played, "PLAY after the end")?;
    let again: Vec<_> = client.receive_for(seconds(1.0));
    let range_again = title.check(&again, &played)?;
    Ok(format!("samples {range:?}, then {range_again:?}"))
}

fn bad_ranges(server: &Server, title: &Title) -> Outcome {
    let (mut client, url) = open(server, title, Over::Tcp)?;
    // A range that does not read may be refused as such or as a bad request.
    let cases: [(&str, &[u16]); 4] =
        [("npt=40-", &[457]), ("npt=5-3", &[457]), ("clock=20260101T000000Z-", &[400, 457, 501]), ("bananas", &[400, 457])];
    for (range, wanted) in cases {
        let status = client.play(&url, Some(range)).map_err(text)?.status;
        if !wanted.contains(&status) {
            return Err(format!("{range}: {status}, not one of {wanted:?}"));
        }
    }
    let not_yet = RtspClient::connect(server.rtsp).and_then(|mut c| c.play(&url, None)).map_err(text)?;
    if !matches!(not_yet.status, 454 | 455) {
        return Err(format!("PLAY without a session: {}", not_yet.status));
    }
    ok(&client.play(&url, Some("npt=now-")).map_err(text)?, "npt=now-")?;
    Ok("refused".into())
}

fn two_sessions(server: &Server, title: &Title) -> Outcome {
    let (mut client, url) = open(server, title, Over::Tcp)?;
    let first = client.session.take();
    client.open(&url, Over::Tcp).map_err(text)?;
    let second = client.session.clone();
    if first == second || client.tracks.len() != 4 {
        return Err(format!("sessions {first:?} and {second:?}, {} tracks", client.tracks.len()));
    }
    ok(&client.play(&url, Some("npt=10-")).map_err(text)?, "second PLAY")?;
    client.session = first;
    let played = client.play(&url, Some("npt=0-")).map_err(text)?;
    ok(&played, "first PLAY")?;
    let arrivals = client.receive_for(seconds(2.0));
    let range = title.check(&arrivals, &played)?;
    let other = locate(&title.tracks[0].2, &units(&arrivals, 2, &title.tracks[0].0)?)?;
    if range.start != 0 || other.start != 250 {
        return Err(format!("the two play {range:?} and {other:?}"));
    }
    Ok(format!("{range:?} and {other:?}"))
}

fn pieces(server: &Server, title: &Title) -> Outcome {
    let mut client = RtspClient::connect(server.rtsp).map_err(text)?;
    let url = server.url(title.name());
    let describe = |n: u32| format!("DESCRIBE {url} RTSP/1.0\r\nCSeq: {n}\r\nAccept: application/sdp\r\n\r\n");
    for byte in describe(1).bytes() {
        client.send_raw(&[byte]).map_err(text)?;
        std::thread::sleep(Duration::from_millis(2));
    }
    ok(&client.response().map_err(text)?, "DESCRIBE byte by byte")?;
    // Many at once, with line ends alone and a frame nobody asked for in between.
    let mut row = (2..20).map(describe).collect::<String>().into_bytes();
    row.extend(b"$\x05\0\x04abcd");
    row.extend(describe(20).replace("\r\n", "\n").into_bytes());
    row.extend(describe(21).into_bytes());
    let (head, tail) = row.split_at(row.len() / 2 + 3);
    client.send_raw(head).map_err(text)?;
    std::thread::sleep(Duration::from_millis(50));
    client.send_raw(tail).map_err(text)?;
    for n in 2..=21u32 {
        let response = client.response().map_err(|e| format!("response {n}: {e}"))?;
        ok(&response, "DESCRIBE in a row")?;
        if response.header("CSeq") != Some(&n.to_string()) || !response.body.contains("m=video") {
            return Err(format!("response {n}: {:?}", response.headers));
        }
    }
    Ok("21 responses in order".into())
}

fn sender_reports(server: &Server, title: &Title) -> Outcome {
    let (mut client, url) = open(server, title, Over::Udp)?;
    let played = client.play(&url, Some("npt=0-")).map_err(text)?;
    let info = rtp_info(&played)?;
    let mut seen = [false; 2];
    let mut arrivals = client.receive_until(Instant::now() + Duration::from_secs(12), |a| {
        if a.rtcp_types().starts_with(&[200]) {
            seen[a.track.min(1)] = true;
        }
        seen == [true; 2]
    });
    if seen != [true; 2] {
        return Err(format!("sender reports of the tracks: {seen:?}"));
    }
    // A report may overtake its first packet on the way through two sockets.
    arrivals.extend(client.receive_for(seconds(0.5)));
    // What wall-clock time does each report give to the start of the title? Both must say the same.
    let mut origins = Vec::new();
    for (track, (_, clock, _)) in title.tracks.iter().enumerate() {
        let report = arrivals.iter().find(|a| a.track == track && a.rtcp_types().first() == Some(&200)).ok_or("no report")?;
        if !report.rtcp_types().contains(&202) {
            return Err(format!("track {track}: a report without SDES: {:?}", report.rtcp_types()));
        }
        let word = |at: usize| report.bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_be_bytes);
        let ntp_ns = i128::from(word(8)) * 1_000_000_000 + ((i128::from(word(12)) * 1_000_000_000) >> 32);
        let rtp = i128::from(word(16).wrapping_sub(info[track].rtptime).cast_signed());
        origins.push(ntp_ns - rtp * 1_000_000_000 / i128::from(*clock));
        let ssrc = arrivals.iter().filter(|a| a.track == track).find_map(Arrival::rtp).map(|p| p.ssrc);
        if ssrc != Some(word(4)) {
            return Err(format!("track {track}: the report is of {:x}, the packets of {ssrc:x?}", word(4)));
        }
    }
    let apart_us = (origins[0] - origins[1]) / 1000;
    if apart_us.abs() > 1000 { Err(format!("sound and picture are {apart_us} us apart")) } else { Ok(format!("{apart_us} us apart")) }
}

fn teardown(server: &Server, title: &Title) -> Outcome {
    let (mut client, url) = open(server, title, Over::Udp)?;
    ok(&client.play(&url, None).map_err(text)?, "PLAY")?;
    client.receive_for(seconds(0.6));
    ok(&client.request("TEARDOWN", &url, &[]).map_err(text)?, "TEARDOWN")?;
    let rest = client.receive_for(seconds(0.4));
    if !rest.iter().any(|a| a.rtcp_types().contains(&203)) {
        return Err("no BYE".into());
    }
    if client.receive_for(seconds(0.8)).iter().any(|a| !a.rtcp) {
        return Err("packets after TEARDOWN".into());
    }
    let again = client.play(&url, None).map_err(text)?.status;
    if again == 454 { Ok("BYE, then 454".into()) } else { Err(format!("PLAY after TEARDOWN: {again}")) }
}

fn one_track(server: &Server, title: &Title) -> Outcome {
    let mut client = RtspClient::connect(server.rtsp).map_err(text)?;
    let url = server.url(title.name());
    let (_, controls) = client.describe(&url).map_err(text)?;
    ok(&client.setup(&controls[0], Over::Udp).map_err(text)?, "SETUP")?;
    ok(&client.play(&url, Some("npt=3-")).map_err(text)?, "PLAY")?;
    let range = locate(&title.tracks[0].2, &title.units(&client.receive_for(seconds(1.5)), 0)?)?;
    if range.start == 75 { Ok(format!("{range:?}")) } else { Err(format!("samples {range:?}")) }
}

/// With a timeout of 5 s: silence ends a session, requests and receiver reports keep it.
fn signs_of_life(server: &Server, title: &Title) -> Outcome {
    let mut clients = Vec::new();
    for _ in 0..3 {
        let (mut client, url) = open(server, title, Over::Udp)?;
        let played = client.play(&url, None).map_err(text)?;
        ok(&played, "PLAY")?;
        if !played.header("Session").is_none_or(|s| s.contains("timeout=5") || !s.contains("timeout")) {
            return Err(format!("Session: {:?}", played.header("Session")));
        }
        clients.push((client, url));
    }
    let deadline = Instant::now() + seconds(14.0);
    let mut rtcp_types = Vec::new();
    let mut last = [Instant::now(); 3];
    while Instant::now() < deadline {
        for (n, (client, url)) in clients.iter_mut().enumerate() {
            let arrivals = client.receive_for(seconds(0.3));
            if arrivals.iter().any(|a| !a.rtcp) {
                last[n] = Instant::now();
            }
            match n {
                0 => rtcp_types.extend(arrivals.iter().flat_map(Arrival::rtcp_types)),
                1 => ok(&client.request("GET_PARAMETER", url, &[]).map_err(text)?, "GET_PARAMETER")?,
                _ => receiver_report(server, client)?,
            }
        }
    }
    let still = |n: usize| last[n] > deadline - seconds(2.0);
    if still(0) || !rtcp_types.contains(&203) {
        return Err(format!("the silent client is still served: {}; BYE: {}", still(0), rtcp_types.contains(&203)));
    }
    if !still(1) || !still(2) {
        return Err(format!("served: with requests {}, with receiver reports {}", still(1), still(2)));
    }
    Ok("silence ends, requests and reports keep".into())
}

/// Sends an empty receiver report to the server's RTCP port.
fn receiver_report(server: &Server, client: &RtspClient) -> Result<(), String> {
    let track = client.tracks.first().ok_or("no track")?;
    let (_, rtcp) = track.sockets.as_ref().ok_or("not UDP")?;
    let ports = track.transport.split(';').find_map(|f| f.trim().strip_prefix("server_port=")).ok_or("no server_port")?;
    let port: u16 = ports.split('-').nth(1).and_then(|p| p.parse().ok()).ok_or("server_port is no pair")?;
    let report = [0x80, 201, 0, 1, 0, 0, 0, 77, 0x81, 202, 0, 3, 0, 0, 0, 77, 1, 4, b't', b'e', b's', b't', 0, 0];
    rtcp.send_to(&report, (server.rtsp.ip(), port)).map_err(text)?;
    Ok(())
}

/// SIGTERM: BYE to everyone who plays, over UDP and TCP, then exit 0 (asserted when the server is dropped, too).
#[test]
fn a_stop_says_goodbye_to_every_session() {
    let folder = tempfile::tempdir().unwrap();
    let title = Title::make(folder.path(), 30);
    let mut server = Server::start(folder.path(), &[]).unwrap();
    let mut clients: Vec<_> = [Over::Udp, Over::Tcp, Over::Udp]
        .into_iter()
        .map(|over| {
            let (mut client, url) = open(&server, &title, over).unwrap();
            ok(&client.play(&url, None).unwrap(), "PLAY").unwrap();
            client
        })
        .collect();
    for client in &mut clients {
        assert!(!client.receive_for(seconds(0.5)).is_empty());
    }
    server.terminate();
    for (n, client) in clients.iter_mut().enumerate() {
        let mut goodbyes = std::collections::HashSet::new();
        client.receive_until(Instant::now() + seconds(5.0), |a| {
            if a.rtcp_types().contains(&203) {
                goodbyes.insert(a.track);
            }
            goodbyes.len() == 2
        });
        assert_eq!(goodbyes.len(), 2, "client {n}: BYE on tracks {goodbyes:?}");
    }
    let (status, stderr) = server.stop().unwrap();
    assert!(status.success(), "{status}: {stderr}");
}

/// Beyond the limit a client is told so, and a place that is given back can be taken.
#[test]
fn a_full_server_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let title = Title::make(folder.path(), 5);
    let server = Server::start(folder.path(), &["--max-sessions", "3"]).unwrap();
    let mut held: Vec<_> = (0..3).map(|_| open(&server, &title, Over::Udp).unwrap()).collect();
    let refused = |over| {
        let mut client = RtspClient::connect(server.rtsp).unwrap();
        let (described, controls) = client.describe(&server.url(title.name())).unwrap();
        if described.status == 200 { client.setup(&controls[0], over).unwrap().status } else { described.status }
    };
    assert_eq!(refused(Over::Udp), 453);
    assert_eq!(refused(Over::Tcp), 453);
    let (mut leaving, url) = held.remove(0);
    assert_eq!(leaving.request("TEARDOWN", &url, &[]).unwrap().status, 200);
    assert!(open(&server, &title, Over::Udp).is_ok());
}

/// The same over IPv6.
#[test]
fn clients_of_ipv6_are_served() {
    let folder = tempfile::tempdir().unwrap();
    let title = Title::make(folder.path(), 5);
    if std::net::TcpListener::bind("[::1]:0").is_err() {
        eprintln!("SKIPPED: this machine has no IPv6");
        return;
    }
    let server = Server::start(folder.path(), &["--rtsp", "[::1]:0"]).unwrap();
    for over in [Over::Udp, Over::Tcp] {
        let (mut client, url) = open(&server, &title, over).unwrap();
        let played = client.play(&url, Some("npt=0-")).unwrap();
        ok(&played, "PLAY").unwrap();
        let range = title.check(&client.receive_for(seconds(3.0)), &played).unwrap();
        assert!(range.start == 0 && range.len() > 20, "{over:?}: {range:?}");
    }
}
