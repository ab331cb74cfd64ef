//! Clients that send: ANNOUNCE, SETUP, RECORD, and what they must not do.

use std::sync::Arc;
use std::time::Duration;

use super::{Client, expect};
use crate::config::RecordRules;
use crate::rtsp::fake_engine::FakeEngine;
use crate::rtsp::service::Service;

const SDP: &str = "v=0\r\no=- 0 0 IN IP4 192.0.2.7\r\ns=x\r\nt=0 0\r\nm=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\n\
    a=control:streamid=0\r\nm=audio 0 RTP/AVP 97\r\na=rtpmap:97 opus/48000/2\r\na=control:streamid=1\r\n";

fn client() -> Client {
    let engine = FakeEngine::with_titles();
    let rules = RecordRules { paths: "live/".parse().unwrap(), from: "192.0.2.0/24".parse().unwrap() };
    let service = Arc::new(Service::new(Arc::clone(&engine), Duration::from_secs(60)).with_record(rules));
    Client::of(engine, service, "192.0.2.7:40000")
}

async fn announce(client: &mut Client, path: &str, sdp: &str) -> String {
    let head = format!("ANNOUNCE rtsp://h/{path} RTSP/1.0\r\nCSeq: 1\r\nContent-Type: application/sdp\r\n");
    let request = format!("{head}Content-Length: {}\r\n\r\n{sdp}", sdp.len());
    client.send_in(request.as_bytes(), usize::MAX).await.unwrap()
}

#[tokio::test]
async fn a_client_announces_and_records() {
    for (transport, answer) in [
        ("RTP/AVP/UDP;unicast;client_port=20164-20165;mode=record", "server_port=6970-6971;mode=\"RECORD\"\r\n"),
        ("RTP/AVP/TCP;unicast;interleaved=0-1;mode=record", "interleaved=0-1;mode=\"RECORD\"\r\n"),
    ] {
        for session in ["", "\nSession: {S}"] {
            let mut client = client();
            expect(&announce(&mut client, "live/cam1", SDP).await, 200, &["Session: "]);
            for track in 0..2 {
                let transport = transport.replace("0-1", &format!("{}-{}", 2 * track, 2 * track + 1));
                let setup = format!("SETUP rtsp://h/live/cam1/streamid={track} RTSP/1.0\nCSeq: 2\nTransport: {transport}{session}");
                expect(&client.say(&setup).await, 200, &[&answer.replace("0-1", &format!("{}-{}", 2 * track, 2 * track + 1))]);
            }
            expect(&client.say("PLAY rtsp://h/live/cam1 RTSP/1.0\nCSeq: 3\nSession: {S}").await, 455, &["RECORD starts it"]);
            expect(&client.say(&format!("RECORD rtsp://h/live/cam1 RTSP/1.0\nCSeq: 4\nRange: npt=0.000-{session}")).await, 200, &[]);
            expect(&client.say("PAUSE rtsp://h/live/cam1 RTSP/1.0\nCSeq: 5\nSession: {S}").await, 455, &["cannot be paused"]);
            assert!(client.engine.take_calls().contains(&"run 1".to_owned()));
            expect(&client.say("TEARDOWN rtsp://h/live/cam1 RTSP/1.0\nCSeq: 6\nSession: {S}").await, 200, &[]);
            assert!(client.engine.state().sessions.is_empty());
        }
    }
}

#[tokio::test]
async fn who_may_not_record_hears_what_to_set() {
    let mut client = client();
    expect(&announce(&mut client, "films/x", SDP).await, 403, &["--record-paths"]);
    let mut stranger = client.another("198.51.100.1:5");
    expect(&announce(&mut stranger, "live/x", SDP).await, 403, &["--record-from"]);
    expect(&announce(&mut Client::new(), "live/x", SDP).await, 403, &["--record-paths"]);
    expect(&announce(&mut client, "live/x", "v=0\r\n").await, 400, &[]);
    expect(&announce(&mut client, "live/x", &SDP.replace("H264", "VP8")).await, 400, &["VP8"]);
    assert!(client.engine.state().sessions.is_empty());
    let record = "SETUP rtsp://h/film.mp4/trackID=1 RTSP/1.0\nCSeq: 1\nTransport: RTP/AVP;client_port=5-6;mode=record";
    expect(&client.say(record).await, 455, &["ANNOUNCE"]);
    expect(&client.say("RECORD rtsp://h/live/x RTSP/1.0\nCSeq: 1").await, 454, &["Session header is missing"]);
    expect(&announce(&mut client, "live/x", SDP).await, 200, &[]);
    let play = "SETUP rtsp://h/live/x/streamid=0 RTSP/1.0\nCSeq: 2\nSession: {S}\nTransport: RTP/AVP;client_port=5-6";
    expect(&client.say(play).await, 461, &["mode=record"]);
    let none = "SETUP rtsp://h/live/x/streamid=7 RTSP/1.0\nCSeq: 2\nSession: {S}\nTransport: RTP/AVP;client_port=5-6;mode=record";
    expect(&client.say(none).await, 404, &["announced"]);
    expect(&client.say("RECORD rtsp://h/live/x RTSP/1.0\nCSeq: 3\nSession: {S}").await, 455, &["set up"]);
}
