//! What well-known players say, request for request, and what they need to hear.

use super::{Client, expect};

/// Request; status; what the answer must contain.
type Step = (&'static str, u16, &'static [&'static str]);

const FFMPEG_UDP: &[Step] = &[
    (
        "OPTIONS rtsp://192.0.2.1:8554/film.mp4 RTSP/1.0\nCSeq: 1\nUser-Agent: Lavf59.27.100",
        200,
        &["CSeq: 1\r\n", "Public: OPTIONS, DESCRIBE"],
    ),
    (
        "DESCRIBE rtsp://192.0.2.1:8554/film.mp4 RTSP/1.0\nAccept: application/sdp\nCSeq: 2\nUser-Agent: Lavf59.27.100",
        200,
        &[
            "Content-Base: rtsp://192.0.2.1:8554/film.mp4/\r\n",
            "Content-Type: application/sdp\r\n",
            "m=video 0 RTP/AVP 96\r\n",
            "a=control:trackID=2",
        ],
    ),
    (
        "SETUP rtsp://192.0.2.1:8554/film.mp4/trackID=1 RTSP/1.0\nTransport: RTP/AVP/UDP;unicast;client_port=20164-20165\nCSeq: 3\nUser-Agent: Lavf59.27.100",
        200,
        &[
            "Session: ",
            ";timeout=60\r\n",
            "Transport: RTP/AVP/UDP;unicast;client_port=20164-20165;server_port=6970-6971;ssrc=00001001;mode=\"PLAY\"\r\n",
        ],
    ),
    (
        "SETUP rtsp://192.0.2.1:8554/film.mp4/trackID=2 RTSP/1.0\nTransport: RTP/AVP/UDP;unicast;client_port=20166-20167\nCSeq: 4\nSession: {S}",
        200,
        &["client_port=20166-20167", "ssrc=00001002"],
    ),
    (
        "PLAY rtsp://192.0.2.1:8554/film.mp4/ RTSP/1.0\nRange: npt=0.000-\nCSeq: 5\nSession: {S}",
        200,
        &[
            "Range: npt=0.000-\r\n",
            "RTP-Info: url=rtsp://192.0.2.1:8554/film.mp4/trackID=1;seq=100;rtptime=0,url=rtsp://192.0.2.1:8554/film.mp4/trackID=2;seq=100;rtptime=0\r\n",
        ],
    ),
    ("GET_PARAMETER rtsp://192.0.2.1:8554/film.mp4/ RTSP/1.0\nCSeq: 6\nSession: {S}", 200, &["Session: "]),
    ("PAUSE rtsp://192.0.2.1:8554/film.mp4/ RTSP/1.0\nCSeq: 7\nSession: {S}", 200, &["Range: npt=2.000-"]),
    (
        "PLAY rtsp://192.0.2.1:8554/film.mp4/ RTSP/1.0\nRange: npt=33.300-\nCSeq: 8\nSession: {S}",
        200,
        &["Range: npt=32.000-\r\n", "rtptime=2880000", "rtptime=1536000"],
    ),
    ("TEARDOWN rtsp://192.0.2.1:8554/film.mp4/ RTSP/1.0\nCSeq: 9\nSession: {S}", 200, &["CSeq: 9\r\n"]),
];

const FFMPEG_TCP: &[Step] = &[
    ("OPTIONS rtsp://192.0.2.1/film.mp4 RTSP/1.0\nCSeq: 1", 200, &[]),
    ("DESCRIBE rtsp://192.0.2.1/film.mp4 RTSP/1.0\nAccept: application/sdp\nCSeq: 2", 200, &[]),
    (
        "SETUP rtsp://192.0.2.1/film.mp4/trackID=1 RTSP/1.0\nTransport: RTP/AVP/TCP;unicast;interleaved=0-1\nCSeq: 3",
        200,
        &["Transport: RTP/AVP/TCP;unicast;interleaved=0-1;ssrc=00001001;mode=\"PLAY\"\r\n"],
    ),
    (
        "SETUP rtsp://192.0.2.1/film.mp4/trackID=2 RTSP/1.0\nTransport: RTP/AVP/TCP;unicast;interleaved=2-3\nCSeq: 4\nSession: {S}",
        200,
        &["interleaved=2-3"],
    ),
    ("PLAY rtsp://192.0.2.1/film.mp4/ RTSP/1.0\nRange: npt=0.000-\nCSeq: 5\nSession: {S}", 200, &["RTP-Info: "]),
    ("TEARDOWN rtsp://192.0.2.1/film.mp4/ RTSP/1.0\nCSeq: 6\nSession: {S}", 200, &[]),
];

const GSTREAMER: &[Step] = &[
    ("OPTIONS rtsp://192.0.2.1:8554/sub/my%20film.mp4 RTSP/1.0\nCSeq: 1\nUser-Agent: GStreamer/1.22.0", 200, &["PAUSE"]),
    (
        "DESCRIBE rtsp://192.0.2.1:8554/sub/my%20film.mp4 RTSP/1.0\nCSeq: 2\nUser-Agent: GStreamer/1.22.0\nAccept: application/sdp",
        200,
        &["Content-Base: rtsp://192.0.2.1:8554/sub/my%20film.mp4/\r\n", "s=my film\r\n"],
    ),
    (
        "SETUP rtsp://192.0.2.1:8554/sub/my%20film.mp4/trackID=1 RTSP/1.0\nCSeq: 3\nBlocksize: 1400\nTransport: RTP/AVPF;unicast;client_port=50000-50001,RTP/AVP;unicast;client_port=50000-50001,RTP/AVP/TCP;unicast;interleaved=0-1",
        200,
        &["Transport: RTP/AVP;unicast;client_port=50000-50001;"],
    ),
    (
        "SETUP rtsp://192.0.2.1:8554/sub/my%20film.mp4/trackID=2 RTSP/1.0\nCSeq: 4\nSession: {S}\nTransport: RTP/AVP;unicast;client_port=50002-50003",
        200,
        &["client_port=50002-50003"],
    ),
    (
        "PLAY rtsp://192.0.2.1:8554/sub/my%20film.mp4 RTSP/1.0\nCSeq: 5\nSession: {S}\nRange: npt=0-\nScale: 1.0\nSpeed: 2.0",
        200,
        &["Scale: 1.0\r\n", "Speed: 1.0\r\n", "url=rtsp://192.0.2.1:8554/sub/my%20film.mp4/trackID=1;seq=100"],
    ),
    ("GET_PARAMETER rtsp://192.0.2.1:8554/sub/my%20film.mp4 RTSP/1.0\nCSeq: 6\nSession: {S}", 200, &[]),
    ("TEARDOWN rtsp://192.0.2.1:8554/sub/my%20film.mp4 RTSP/1.0\nCSeq: 7\nSession: {S}", 200, &[]),
];

const LIVE555: &[Step] = &[
    ("OPTIONS rtsp://192.0.2.1:8554/film.mp4 RTSP/1.0\nCSeq: 2\nUser-Agent: LibVLC/3.0.18 (LIVE555 Streaming Media v2016.11.28)", 200, &[]),
    ("DESCRIBE rtsp://192.0.2.1:8554/film.mp4 RTSP/1.0\nCSeq: 3\nUser-Agent: LibVLC/3.0.18\nAccept: application/sdp", 200, &[]),
    (
        "SETUP rtsp://192.0.2.1:8554/film.mp4/trackID=1 RTSP/1.0\nCSeq: 4\nTransport: RTP/AVP;unicast;client_port=59874-59875",
        200,
        &[";timeout=60"],
    ),
    (
        "SETUP rtsp://192.0.2.1:8554/film.mp4/trackID=2 RTSP/1.0\nCSeq: 5\nTransport: RTP/AVP;unicast;client_port=59876-59877\nSession: {S}",
        200,
        &[],
    ),
    ("PLAY rtsp://192.0.2.1:8554/film.mp4/ RTSP/1.0\nCSeq: 6\nSession: {S}\nRange: npt=0.000-", 200, &[]),
    ("OPTIONS rtsp://192.0.2.1:8554/film.mp4/ RTSP/1.0\nCSeq: 7\nSession: {S}", 200, &["Session: "]),
    ("PAUSE rtsp://192.0.2.1:8554/film.mp4/ RTSP/1.0\nCSeq: 8\nSession: {S}", 200, &[]),
    ("PAUSE rtsp://192.0.2.1:8554/film.mp4/ RTSP/1.0\nCSeq: 9\nSession: {S}", 200, &[]),
    ("PLAY rtsp://192.0.2.1:8554/film.mp4/ RTSP/1.0\nCSeq: 10\nSession: {S}", 200, &["Range: npt=2.000-\r\n"]),
    ("TEARDOWN rtsp://192.0.2.1:8554/film.mp4/ RTSP/1.0\nCSeq: 11\nSession: {S}", 200, &[]),
];

/// An embedded client: bare names, path-only URLs, the session's timeout repeated, `*`, a wish for UDP that it takes back.
const EMBEDDED: &[Step] = &[
    ("options * rtsp/1.0\ncseq:1", 200, &["CSeq: 1\r\n"]),
    (
        "DESCRIBE /sub/my film.mp4 RTSP/1.0\nCSeq:2\nAccept: application/rtsl, application/sdp;level=-2",
        200,
        &["Content-Base: rtsp://192.0.2.1:8554/sub/my%20film.mp4/\r\n"],
    ),
    ("SETUP trackID=1 RTSP/1.0\nCSeq:3\nTransport: RTP/SAVP;unicast;client_port=1-2", 461, &["CSeq: 3"]),
    ("SETUP trackID=1 RTSP/1.0\nCSeq:4\nTransport: RTP/AVP/TCP", 200, &["interleaved=0-1"]),
    ("SETUP trackid=2 RTSP/1.0\nCSeq:5\nTransport: RTP/AVP/TCP;interleaved=0-1\nSession: {S};timeout=60", 200, &["interleaved=2-3"]),
    ("PLAY * RTSP/1.0\nCSeq:6\nSession:{S}\nRange:npt=now-", 200, &["Range: npt=0.000-\r\n"]),
    ("SET_PARAMETER rtsp://192.0.2.1:8554 RTSP/1.0\nCSeq:7\nSession:{S}", 200, &[]),
    ("TEARDOWN * RTSP/1.0\nCSeq:8\nSession:{S}", 200, &[]),
];

const ALL: [(&str, &[Step]); 5] =
    [("ffmpeg UDP", FFMPEG_UDP), ("ffmpeg TCP", FFMPEG_TCP), ("GStreamer", GSTREAMER), ("live555", LIVE555), ("embedded", EMBEDDED)];

/// Plays a transcript with requests in pieces of this size; all answers with the session's name taken out.
async fn play(steps: &[Step], piece: usize, line_end: &str) -> (String, Vec<String>) {
    let mut client = Client::new();
    let mut all = String::new();
    for (request, status, parts) in steps {
        let bytes = String::from_utf8(client.bytes(request)).unwrap().replace("\r\n", line_end);
        let answer = client.send_in(bytes.as_bytes(), piece).await.unwrap();
        expect(&answer, *status, parts);
        all += &if client.session.is_empty() { answer } else { answer.replace(&client.session, "{S}") };
    }
    assert!(client.engine.state().sessions.is_empty(), "the engine's session is gone");
    assert_eq!(client.service.counters.snapshot().sessions, 0);
    (all, client.engine.take_calls())
}

#[tokio::test]
async fn well_known_players_are_served() {
    for (name, steps) in ALL {
        println!("{name}");
        play(steps, usize::MAX, "\r\n").await;
    }
}

#[tokio::test]
async fn cuts_and_line_ends_do_not_matter() {
    for (name, steps) in ALL {
        let whole = play(steps, usize::MAX, "\r\n").await;
        let longest = steps.iter().map(|(request, ..)| request.len() + 100).max().unwrap();
        for piece in 1..longest {
            assert_eq!(play(steps, piece, "\r\n").await, whole, "{name} in pieces of {piece}");
        }
        assert_eq!(play(steps, usize::MAX, "\n").await, whole, "{name} with bare LF");
    }
}

#[tokio::test]
async fn the_engine_is_told_each_thing_once_and_in_order() {
    let (_, calls) = play(FFMPEG_UDP, usize::MAX, "\r\n").await;
    assert_eq!(
        calls,
        [
            "create film.mp4",
            "setup 1 1",
            "setup 1 2",
            "start 1 Npt(0) None",
            "run 1",
            "stop 1",
            "start 1 Npt(33300000000) None",
            "run 1",
            "destroy 1"
        ]
    );
    let (_, calls) = play(FFMPEG_TCP, usize::MAX, "\r\n").await;
    assert_eq!(calls[..3], ["create film.mp4", "attach", "setup 1 1"]);
}

#[tokio::test]
async fn pipelined_requests_and_frames_are_told_apart() {
    let mut client = Client::new();
    for (request, status, parts) in &FFMPEG_TCP[..4] {
        expect(&client.say(request).await, *status, parts);
    }
    let mut bytes = Vec::new();
    for (i, method) in ["PLAY", "GET_PARAMETER", "PAUSE", "PLAY", "OPTIONS"].iter().enumerate() {
        bytes.extend(client.bytes(&format!("{method} rtsp://192.0.2.1/film.mp4/ RTSP/1.0\nCSeq: {}\nSession: {{S}}", 10 + i)));
        bytes.extend([b'$', 1, 0, 3, b'$', 0, i as u8]);
    }
    for piece in [1, 7, bytes.len()] {
        let answers = client.send_in(&bytes, piece).await.unwrap();
        assert_eq!(answers.matches("RTSP/1.0 200 OK\r\n").count(), 5, "{answers}");
        let cseqs: Vec<&str> = answers.lines().filter_map(|line| line.strip_prefix("CSeq: ")).collect();
        assert_eq!(cseqs, ["10", "11", "12", "13", "14"]);
    }
    let stream = client.connection.stream.unwrap();
    let frames = client.engine.state().streams[&stream].frames.clone();
    assert_eq!(frames.len(), 15);
    assert!(frames.iter().enumerate().all(|(i, (channel, payload))| *channel == 1 && payload[..] == [b'$', 0, (i % 5) as u8]));
}

#[tokio::test]
async fn nothing_is_written_past_the_engine_once_it_has_the_stream() {
    let mut client = Client::new();
    // One segment: answered before the hand-over, at it, and after it.
    let mut bytes = client.bytes("OPTIONS * RTSP/1.0\nCSeq: 1");
    bytes.extend(client.bytes(FFMPEG_TCP[2].0));
    bytes.extend(client.bytes("OPTIONS * RTSP/1.0\nCSeq: 4"));
    client.connection.push(&bytes);
    client.connection.process(&mut client.wire).await.unwrap();
    let direct = String::from_utf8(client.wire.sent.clone()).unwrap();
    assert!(direct.contains("CSeq: 1\r\n") && !direct.contains("CSeq: 3"), "{direct}");
    let stream = client.connection.stream.unwrap();
    let attached = String::from_utf8(client.engine.state().streams[&stream].written.clone()).unwrap();
    assert!(attached.starts_with("RTSP/1.0 200 OK\r\nCSeq: 3\r\n") && attached.contains("CSeq: 4\r\n"), "{attached}");
}
