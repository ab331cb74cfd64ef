//! Refusals, and whose session it is and for how long.

use std::time::Duration;

use dataplane::media::MediaDescription;
use proptest::prelude::*;
use tokio::time::advance;

use super::{Client, expect};
use crate::config::{ClassQuery, ClassRules};
use crate::engine::{Class, Engine as _, SessionId, SessionState};
use crate::rtsp::connection::Closed;
use crate::rtsp::fake_engine::sample_media;

const SETUP: &str = "SETUP rtsp://h/film.mp4/trackID=1 RTSP/1.0\nCSeq: 1\nTransport: RTP/AVP;unicast;client_port=5000-5001";
const SETUP_TCP: &str = "SETUP rtsp://h/film.mp4/trackID=1 RTSP/1.0\nCSeq: 1\nTransport: RTP/AVP/TCP;unicast;interleaved=0-1";
const PLAY: &str = "PLAY rtsp://h/film.mp4 RTSP/1.0\nCSeq: 2\nSession: {S}";

/// A client with one track set up.
async fn set_up(setup: &str) -> Client {
    let mut client = Client::new();
    expect(&client.say(setup).await, 200, &[]);
    client
}

#[tokio::test]
async fn requests_are_refused_with_the_right_status() {
    for (request, status, part) in [
        ("OPTIONS * RTSP/1.0", 400, "CSeq is missing"),
        ("OPTIONS * RTSP/1.0\nCSeq: x", 400, "CSeq is missing"),
        ("DANCE rtsp://h/film.mp4 RTSP/1.0\nCSeq: 1", 501, "Public: OPTIONS"),
        ("RECORD rtsp://h/film.mp4 RTSP/1.0\nCSeq: 1", 454, "Session header is missing"),
        ("ANNOUNCE rtsp://h/film.mp4 RTSP/1.0\nCSeq: 1", 403, "--record-paths"),
        ("REDIRECT rtsp://h/film.mp4 RTSP/1.0\nCSeq: 1", 405, "Allow: OPTIONS"),
        ("DESCRIBE rtsp://h/film.mp4 RTSP/1.0\nCSeq: 1\nRequire: x.y, z", 551, "Unsupported: x.y, z\r\n"),
        ("DESCRIBE rtsp://h/film.mp4 RTSP/1.0\nCSeq: 1\nAccept: text/html", 406, "Not Acceptable"),
        ("DESCRIBE rtsp://h/none.mp4 RTSP/1.0\nCSeq: 1", 404, "no title none.mp4"),
        ("DESCRIBE rtsp://h/ RTSP/1.0\nCSeq: 1", 404, ""),
        ("DESCRIBE * RTSP/1.0\nCSeq: 1", 400, ""),
        ("DESCRIBE rtsp://h/a/../film.mp4 RTSP/1.0\nCSeq: 1", 404, ""),
        ("DESCRIBE rtsp://h/%2e%2e/film.mp4 RTSP/1.0\nCSeq: 1", 404, ""),
        ("DESCRIBE rtsp://h/broken.mp4 RTSP/1.0\nCSeq: 1", 415, "byte 17"),
        ("DESCRIBE rtsp://h/new.mp4 RTSP/1.0\nCSeq: 1", 503, "being read"),
        ("SETUP rtsp://h/film.mp4/trackID=1 RTSP/1.0\nCSeq: 1", 461, ""),
        ("SETUP rtsp://h/film.mp4/trackID=1 RTSP/1.0\nCSeq: 1\nTransport: RTP/AVP;multicast", 461, ""),
        ("SETUP rtsp://h/film.mp4/trackID=9 RTSP/1.0\nCSeq: 1\nTransport: RTP/AVP/TCP", 404, "no track 9"),
        ("SETUP rtsp://h/film.mp4 RTSP/1.0\nCSeq: 1\nTransport: RTP/AVP/TCP", 459, ""),
        ("SETUP rtsp://h/film.mp4/trackID=1 RTSP/1.0\nCSeq: 1\nTransport: RTP/AVP/TCP\nSession: nope", 454, ""),
        ("PLAY rtsp://h/film.mp4 RTSP/1.0\nCSeq: 1", 454, "Session header is missing"),
        ("PLAY rtsp://h/film.mp4 RTSP/1.0\nCSeq: 1\nSession: nope", 454, ""),
        ("PAUSE rtsp://h/film.mp4 RTSP/1.0\nCSeq: 1\nSession: nope", 454, ""),
        ("TEARDOWN rtsp://h/film.mp4 RTSP/1.0\nCSeq: 1\nSession: nope", 454, ""),
        ("OPTIONS * RTSP/1.0\nCSeq: 1\nSession: nope", 454, ""),
        ("GET_PARAMETER * RTSP/1.0\nCSeq: 1\nContent-Length: 10\n\nposition: ", 451, ""),
        ("SET_PARAMETER * RTSP/1.0\nCSeq: 1\nContent-Length: 4\n\na: b", 451, ""),
    ] {
        let mut client = Client::new();
        let answer = client.say(request).await;
        expect(&answer, status, &[part]);
        assert_eq!(answer.contains("CSeq: 1\r\n"), status != 400 || part.is_empty(), "{answer}");
        assert!(client.engine.state().sessions.is_empty(), "{request}");
        assert_eq!(client.service.counters.snapshot().refused[&status], 1);
    }
}

#[tokio::test]
async fn the_unintelligible_is_answered_and_closed() {
    for (bytes, status) in [
        (&b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"[..], 505),
        (b"\x16\x03\x01\r\n\r\n", 400),
        (b"SET_PARAMETER * RTSP/1.0\r\nCSeq: 1\r\nContent-Length: 1000000000\r\n\r\n", 413),
        (b"SET_PARAMETER * RTSP/1.0\r\nCSeq: 1\r\nContent-Length: many\r\n\r\n", 400),
    ] {
        let mut client = Client::new();
        assert!(matches!(client.send_in(bytes, usize::MAX).await, Err(Closed::Protocol)));
        expect(std::str::from_utf8(&client.wire.sent).unwrap(), status, &[]);
    }
}

#[tokio::test]
async fn ranges_are_checked_against_the_title() {
    let mut client = set_up(SETUP).await;
    for (range, status, part) in [
        ("npt=70-", 457, "beyond the end"),
        ("npt=20-10", 457, "before it starts"),
        ("npt=x", 457, "malformed"),
        ("smpte=0:10:00-", 501, "only npt"),
        ("clock=19961108T142300Z-", 501, "only npt"),
        ("npt=10.5-20", 200, "Range: npt=10.000-20.000\r\n"),
        ("npt=50-100", 200, "Range: npt=50.000-\r\n"),
        ("npt=-55", 200, "Range: npt=50.000-55.000\r\n"),
        ("npt=-30", 457, "ends before the position"),
    ] {
        expect(&client.say(&format!("{PLAY}\nRange: {range}")).await, status, &[part]);
    }
}

#[tokio::test]
async fn play_while_playing_tells_the_same_time_line() {
    let mut client = set_up(SETUP).await;
    let first = client.say(&format!("{PLAY}\nRange: npt=10-")).await;
    client.engine.take_calls();
    for range in ["", "\nRange: npt=now-"] {
        assert_eq!(client.say(&format!("{PLAY}{range}")).await, first);
        assert_eq!(client.engine.take_calls(), ["status 1"], "delivery goes on undisturbed");
    }
    client.engine.state().sessions.get_mut(&SessionId(1)).unwrap().state = SessionState::Ended;
    expect(&client.say(PLAY).await, 200, &["Range: npt=0.000-\r\n"]);
    assert_eq!(client.engine.take_calls(), ["status 1", "start 1 Npt(0) None", "run 1"], "from the start once it has ended");
}

#[tokio::test]
async fn states_are_kept() {
    let mut client = set_up(SETUP).await;
    expect(&client.say("PAUSE rtsp://h/film.mp4 RTSP/1.0\nCSeq: 2\nSession: {S}").await, 455, &[]);
    expect(&client.say(PLAY).await, 200, &[]);
    let second = SETUP.replace("trackID=1", "trackID=2") + "\nSession: {S}";
    expect(&client.say(&second).await, 455, &["pause before"]);
    expect(&client.say(&PLAY.replace("film.mp4", "song.mp4")).await, 404, &["another title"]);
    expect(&client.say(&SETUP.replace("film.mp4", "song.mp4").replace("CSeq: 1", "CSeq: 1\nSession: {S}")).await, 459, &[]);
    client.engine.state().sessions.clear();
    expect(&client.say(&format!("{PLAY}\nRange: npt=0-")).await, 454, &[]);
    assert_eq!(client.service.counters.snapshot().sessions, 0, "a session that the engine forgot is forgotten");
}

#[tokio::test]
async fn tracks_are_controlled_as_far_as_an_engine_can() {
    let mut client = set_up(SETUP).await;
    let on_track = |method: &str, id: u32| format!("{method} rtsp://h/film.mp4/trackID={id} RTSP/1.0\nCSeq: 3\nSession: {{S}}");
    expect(&client.say(&on_track("PLAY", 1)).await, 200, &["url=rtsp://h/film.mp4/trackID=1;seq="]);
    expect(&client.say(&on_track("PLAY", 2)).await, 404, &["not set up"]);
    expect(&client.say(&on_track("PAUSE", 1)).await, 200, &[]);
    expect(&client.say(&(SETUP.replace("trackID=1", "trackID=2") + "\nSession: {S}")).await, 200, &[]);
    expect(&client.say(&on_track("PLAY", 1)).await, 460, &[]);
    expect(&client.say(&on_track("TEARDOWN", 1)).await, 460, &["CSeq: 3"]);
    assert_eq!(client.engine.state().sessions.len(), 1);
    expect(&client.say(&on_track("TEARDOWN", 2)).await, 200, &[]);
    assert!(client.engine.state().sessions.is_empty(), "the last track takes the session along");

    let single = "SETUP rtsp://h/song.mp4/ RTSP/1.0\nCSeq: 1\nTransport: RTP/AVP/TCP";
    expect(&client.say(single).await, 200, &["interleaved=0-1"]);
    expect(&client.say(&on_track("TEARDOWN", 2).replace("film", "song")).await, 200, &[]);
}

#[tokio::test]
async fn capacity_and_silence_of_the_engine_are_told() {
    let mut client = Client::new();
    client.engine.state().sessions_max = Some(1);
    expect(&client.say(SETUP).await, 200, &[]);
    expect(&client.say(SETUP).await, 453, &["all sessions are in use"]);
    client.engine.state().unavailable = true;
    expect(&client.say(SETUP).await, 503, &["does not answer"]);
    expect(&client.say(PLAY).await, 503, &[]);
    let counters = client.service.counters.snapshot();
    assert_eq!((counters.sessions, counters.refused[&453], counters.refused[&503]), (1, 1, 2));
    assert_eq!((counters.responses_2xx, counters.responses_4xx, counters.responses_5xx), (1, 1, 2));
}

#[tokio::test]
async fn a_session_belongs_to_its_host() {
    let mut client = set_up(SETUP).await;
    let mut same_host = client.another("192.0.2.7:50000");
    let mut other_host = client.another("192.0.2.8:50000");
    expect(&other_host.say(PLAY).await, 454, &[]);
    expect(&same_host.say(PLAY).await, 200, &[]);
    // UDP delivery survives the connection.
    client.connection.close().await;
    expect(&same_host.say("TEARDOWN rtsp://h/film.mp4 RTSP/1.0\nCSeq: 3\nSession: {S}").await, 200, &[]);
}

#[tokio::test]
async fn interleaved_sessions_end_with_their_connection() {
    let mut client = set_up(SETUP_TCP).await;
    expect(&client.say(SETUP).await, 200, &[]);
    assert_eq!(client.engine.state().sessions.len(), 2);
    client.engine.take_calls();
    client.connection.close().await;
    assert_eq!(client.engine.take_calls(), ["destroy 1", "detach"], "BYE needs the stream; the UDP session goes on");
}

#[tokio::test]
async fn channels_are_handed_out_and_taken_back() {
    let mut client = Client::new();
    expect(&client.say(SETUP_TCP).await, 200, &["interleaved=0-1"]);
    expect(&client.say(SETUP_TCP).await, 200, &["interleaved=2-3"]);
    expect(&client.say(&SETUP_TCP.replace("0-1", "7-9")).await, 200, &["interleaved=7-9"]);
    expect(&client.say(&(SETUP_TCP.replace("0-1", "10-11") + "\nSession: {S}")).await, 200, &["interleaved=10-11"]);
    expect(&client.say(&SETUP_TCP.replace("0-1", "7-9")).await, 200, &["interleaved=7-9"]);
    expect(&client.say("TEARDOWN * RTSP/1.0\nCSeq: 1\nSession: {S}").await, 200, &[]);
    expect(&client.say(&SETUP_TCP.replace("0-1", "7-9")).await, 200, &["interleaved=7-9"]);
    while client.say(SETUP_TCP).await.starts_with("RTSP/1.0 200") {}
    assert!(client.engine.state().sessions.len() < 128);
    expect(&client.say(SETUP_TCP).await, 453, &["no interleaved channels"]);
    assert_eq!(client.service.counters.snapshot().sessions, client.engine.state().sessions.len() as u64, "refused set-ups leave nothing");
}

#[tokio::test(start_paused = true)]
async fn a_silent_client_loses_its_session() {
    let mut client = set_up(SETUP).await;
    let mut other = client.another("192.0.2.7:50000");
    // Any request that names it, or comes on the connection that made it.
    for request in [PLAY, "GET_PARAMETER * RTSP/1.0\nCSeq: 2\nSession: {S}"] {
        advance(Duration::from_secs(59)).await;
        client.service.reap().await;
        expect(&other.say(request).await, 200, &[]);
    }
    advance(Duration::from_secs(59)).await;
    client.say("OPTIONS * RTSP/1.0\nCSeq: 2").await;
    advance(Duration::from_secs(59)).await;
    client.service.reap().await;
    assert!(client.connection.has_session());
    // RTCP counts from when it arrived.
    let heard = |ns| client.engine.state().sessions.get_mut(&SessionId(1)).unwrap().last_rtcp_age_ns = ns;
    heard(Some(20_000_000_000));
    advance(Duration::from_secs(30)).await;
    client.service.reap().await;
    heard(None);
    advance(Duration::from_secs(39)).await;
    client.service.reap().await;
    assert_eq!(client.service.counters.snapshot().sessions, 1);
    advance(Duration::from_secs(2)).await;
    client.service.reap().await;
    assert_eq!(client.service.counters.snapshot().sessions, 0);
    assert_eq!(client.service.counters.snapshot().sessions_expired, 1);
    assert!(!client.connection.has_session());
    expect(&client.say(PLAY).await, 454, &[]);
}

#[tokio::test(start_paused = true)]
async fn what_the_engine_ends_is_cleaned_up() {
    let set = |client: &Client, state, age| {
        let mut engine = client.engine.state();
        let session = engine.sessions.get_mut(&SessionId(1)).unwrap();
        (session.state, session.last_rtcp_age_ns) = (state, age);
    };
    let client = set_up(SETUP).await;
    set(&client, SessionState::Failed, Some(0));
    advance(Duration::from_secs(31)).await;
    client.service.reap().await;
    assert!(client.engine.state().sessions.is_empty(), "failed: at the next poll");

    let client = set_up(SETUP).await;
    set(&client, SessionState::Ended, Some(0));
    advance(Duration::from_secs(31)).await;
    client.service.reap().await;
    assert_eq!(client.engine.state().sessions.len(), 1, "ended: it may be played again");
    advance(Duration::from_secs(30)).await;
    client.service.reap().await;
    assert!(client.engine.state().sessions.is_empty(), "but not for ever, even if receiver reports go on");

    let client = set_up(SETUP).await;
    client.engine.state().unavailable = true;
    advance(Duration::from_secs(100)).await;
    client.service.reap().await;
    assert_eq!(client.service.counters.snapshot().sessions, 1, "an engine that does not answer says nothing of the client");

    let mut client = set_up(SETUP_TCP).await;
    let session = client.engine.state().sessions.keys().next().copied().unwrap();
    client.say(PLAY).await;
    advance(Duration::from_secs(100)).await;
    client.service.reap().await;
    assert_eq!(client.service.counters.snapshot().sessions, 1, "a connection that takes what is played into it lives");
    client.engine.stop_session(session).await.unwrap();
    advance(Duration::from_secs(100)).await;
    client.service.reap().await;
    assert_eq!(client.service.counters.snapshot().sessions, 0);
}

#[tokio::test]
async fn the_directory_lists_no_secrets() {
    let client = set_up(&format!("{SETUP}\nUser-Agent: Player/1 {}", "x".repeat(500))).await;
    let list = crate::rtsp::service::SessionDirectory(client.service.sessions.clone()).list();
    let [info] = list.as_slice() else { panic!("{list:?}") };
    assert_eq!((info.path.as_str(), info.engine_session), ("film.mp4", SessionId(1)));
    assert_eq!(info.client, "192.0.2.7:40000".parse().unwrap());
    assert!(info.user_agent.starts_with("Player/1 xx") && info.user_agent.len() == 120);
    assert_eq!(client.session.len(), 32);
    assert!(!client.session.contains(&info.id));
}

#[tokio::test]
async fn media_without_tracks_is_described() {
    let mut client = Client::new();
    let media = MediaDescription { tracks: Vec::new(), ..sample_media() };
    client.engine.state().titles.insert("empty.mp4".into(), Ok(std::sync::Arc::new(media)));
    expect(&client.say("DESCRIBE rtsp://h/empty.mp4 RTSP/1.0\nCSeq: 1").await, 200, &["a=control:*"]);
    expect(&client.say("SETUP rtsp://h/empty.mp4 RTSP/1.0\nCSeq: 1\nTransport: RTP/AVP/TCP").await, 459, &[]);
}

proptest! {
    /// Whatever order clients say things in: as many answers as requests, and no session is lost between the table and the engine.
    #[test]
    fn any_order_of_requests_is_answered(steps in proptest::collection::vec((0_usize..10, 0_usize..3, 0_usize..6), 1..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let mut client = Client::new();
            for (method, url, header) in steps {
                let method = ["OPTIONS", "DESCRIBE", "SETUP", "SETUP", "PLAY", "PLAY", "PAUSE", "TEARDOWN", "GET_PARAMETER", "X"][method];
                let url = ["rtsp://h/film.mp4", "rtsp://h/film.mp4/trackID=1", "rtsp://h/film.mp4/trackID=2"][url];
                let header = [
                    "Session: {S}",
                    "X: y",
                    "Transport: RTP/AVP/TCP",
                    "Transport: RTP/AVP;client_port=5-6",
                    "Transport: RTP/AVP/TCP;interleaved=0-1\nSession: {S}",
                    "Range: npt=30-\nSession: {S}",
                ][header];
                let answer = client.say(&format!("{method} {url} RTSP/1.0\nCSeq: 77\n{header}")).await;
                assert_eq!(answer.matches("RTSP/1.0 ").count(), 1, "{answer}");
                assert!(answer.contains("CSeq: 77\r\n"));
                let known = client.service.sessions.all().len();
                assert_eq!(known, client.engine.state().sessions.len());
                assert_eq!(known as u64, client.service.counters.snapshot().sessions);
            }
            client.connection.close().await;
            client.service.end_all("test").await;
            assert!(client.engine.state().sessions.is_empty());
        });
    }
}

/// The class of the only session of the engine.
fn only_class(client: &Client) -> Class {
    let state = client.engine.state();
    assert_eq!(state.sessions.len(), 1);
    state.sessions.values().next().unwrap().class
}

#[tokio::test]
async fn the_class_comes_from_the_path_or_from_a_client_that_may_choose() {
    let rules =
        |query: &str| ClassRules { paths: "sub/=best-effort".parse().unwrap(), query: query.parse().unwrap(), ..ClassRules::default() };
    let transport = "RTSP/1.0\nCSeq: 1\nTransport: RTP/AVP;unicast;client_port=5000-5001";
    for (query, url, class) in [
        ("off", "film.mp4/trackID=1", Class::Guaranteed),
        ("off", "sub/my%20film.mp4/trackID=1", Class::BestEffort),
        ("off", "sub/my%20film.mp4/trackID=1?class=best-effort", Class::BestEffort),
        ("192.0.2.0/24", "film.mp4/trackID=1?class=best-effort", Class::BestEffort),
        ("192.0.2.0/24", "film.mp4?class=best-effort/trackID=1", Class::BestEffort),
        ("any", "sub/my%20film.mp4/trackID=1?x=1&class=guaranteed", Class::Guaranteed),
    ] {
        let mut client = Client::under(rules(query));
        expect(&client.say(&format!("SETUP rtsp://h/{url} {transport}")).await, 200, &[]);
        assert_eq!(only_class(&client), class, "{query} {url}");
    }
    for (query, url, status) in
        [("off", "film.mp4?class=best-effort", 403), ("10.0.0.0/8", "film.mp4?class=best-effort", 403), ("any", "film.mp4?class=gold", 400)]
    {
        let mut client = Client::under(rules(query));
        expect(&client.say(&format!("DESCRIBE rtsp://h/{url} RTSP/1.0\nCSeq: 1")).await, status, &["class"]);
        expect(&client.say(&format!("SETUP rtsp://h/{url}/trackID=1 {transport}")).await, status, &[]);
        assert!(client.engine.state().sessions.is_empty(), "{query} {url}");
    }
}

#[tokio::test]
async fn the_wish_of_the_describe_counts_for_set_ups_below_content_base() {
    let transport = "RTSP/1.0\nCSeq: 2\nTransport: RTP/AVP;unicast;client_port=5000-5001";
    let mut client = Client::under(ClassRules { query: ClassQuery::Any, ..ClassRules::default() });
    expect(
        &client.say("DESCRIBE rtsp://h/film.mp4?class=best-effort RTSP/1.0\nCSeq: 1").await,
        200,
        &["Content-Base: rtsp://h/film.mp4/\r\n"],
    );
    expect(&client.say(&format!("SETUP rtsp://h/film.mp4/trackID=1 {transport}")).await, 200, &[]);
    assert_eq!(only_class(&client), Class::BestEffort);
    // Of that title only.
    let mut client = Client::under(ClassRules { query: ClassQuery::Any, ..ClassRules::default() });
    expect(&client.say("DESCRIBE rtsp://h/film.mp4?class=best-effort RTSP/1.0\nCSeq: 1").await, 200, &[]);
    expect(&client.say(&format!("SETUP rtsp://h/song.mp4/trackID=2 {transport}")).await, 200, &[]);
    assert_eq!(only_class(&client), Class::Guaranteed);
}
