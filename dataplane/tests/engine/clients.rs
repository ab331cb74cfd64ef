//! What clients send and do: reports from behind a NAT, reports of strangers, streams that are not read.

use std::net::SocketAddr;

use dataplane::engine::{Command, Refusal, Reply, Transport};
use dataplane::gdsl::Outcome;
use dataplane::rtp::interleaved;
use dataplane::rtp::rtcp::{ReportBlock, Writer};
use stack::sim::{SimPeer, stream_pair};

use super::stage::{Config, Film, MS, RTCP, RTP, SECOND, Stage, client, join, rtcp_of, udp};

/// A receiver report of a client, about these streams.
fn report(ssrcs: &[u32]) -> Vec<u8> {
    let mut out = [0; 600];
    let mut writer = Writer::new(&mut out);
    let block = |&ssrc: &u32| ReportBlock {
        ssrc,
        fraction_lost: 0,
        cumulative_lost: 0,
        highest_seq: 1,
        jitter: 3,
        last_sr: 0,
        delay_since_last_sr: 0,
    };
    writer.receiver_report(77, &ssrcs.iter().map(block).collect::<Vec<_>>()).expect("room");
    writer.cname(77, b"client").expect("room");
    let len = writer.len();
    out[..len].to_vec()
}

fn ssrcs(stage: &mut Stage, session: u64) -> [u32; 2] {
    let status = stage.status(session);
    [status.tracks[0].ssrc, status.tracks[1].ssrc]
}

#[test]
fn a_client_behind_a_nat_is_followed_to_where_its_packets_come_from() {
    let mut stage = Stage::new(Config::default());
    let film = Film::plain(1, 5, 500);
    stage.play(1, &film);
    stage.run_for(SECOND);
    let [video, _] = ssrcs(&mut stage, 1);
    // The NAT chose other ports; the player opened both.
    let outside = SocketAddr::new(client(1, 0).ip(), 40_000);
    stage.inject(RTP, outside, &[0; 12]);
    stage.run_for(MS);
    stage.inject(RTCP, rtcp_of(outside), &report(&[video]));
    stage.run_for(MS);
    stage.sent.clear();
    stage.run_for(SECOND);
    assert!(stage.rtp_to(client(1, 0)).is_empty(), "the old address gets nothing any more");
    assert!(stage.rtp_to(outside).len() >= 24);
    assert!(!stage.rtp_to(client(1, 1)).is_empty(), "the other track stays");
    let status = stage.core_status();
    assert_eq!((status.flows_followed, status.rtcp_ignored), (1, 0));
    assert_eq!(stage.status(1).tracks[0].client_cname.as_deref(), Some("client"));
    stage.sent.clear();
    stage.destroy(1);
    assert!(stage.sent.iter().any(|s| s.remote == rtcp_of(outside) && s.local_port == RTCP), "BYE goes there too");
    stage.assert_empty();
}

#[test]
fn strangers_are_counted_and_change_nothing() {
    let mut stage = Stage::new(Config::default());
    let film = Film::plain(2, 5, 500);
    stage.play(1, &film);
    stage.run_for(SECOND);
    let [video, _] = ssrcs(&mut stage, 1);
    let stranger = SocketAddr::from(([192, 168, 9, 9], 40_000));
    stage.inject(RTP, stranger, &[0; 12]);
    for packet in [report(&[video]), report(&[video ^ 1]), vec![], vec![0x80; 3], vec![0xff; 1500]] {
        stage.inject(RTCP, rtcp_of(stranger), &packet);
    }
    // The client's host, but no stream of ours.
    stage.inject(RTCP, SocketAddr::new(client(1, 0).ip(), 999), &report(&[video ^ 1]));
    stage.run_for(10 * MS);
    stage.sent.clear();
    stage.run_for(SECOND);
    assert!(stage.sent.iter().all(|s| s.remote.ip() == client(1, 0).ip()));
    assert!(stage.rtp_to(client(1, 0)).len() >= 24);
    let status = stage.core_status();
    assert_eq!((status.flows_followed, status.rtcp_ignored), (0, 6));
    assert_eq!(stage.status(1).last_rtcp_age_ns, None);
}

#[test]
fn a_port_that_the_nat_uses_again_leads_to_the_new_session() {
    let mut stage = Stage::new(Config::default());
    let film = Film::plain(3, 5, 500);
    stage.play(1, &film);
    stage.play(2, &film);
    stage.run_for(100 * MS);
    // Both sessions are of one host; the second one's reports come from where the first one's did.
    let [_, sound_1] = ssrcs(&mut stage, 1);
    stage.inject(RTCP, rtcp_of(client(1, 1)), &report(&[sound_1]));
    stage.run_for(MS);
    assert_eq!(stage.core_status().flows_followed, 0);
    let same_host = |port| Transport::Udp { rtp: ([10, 0, 0, 1], port).into(), rtcp: ([10, 0, 0, 1], port + 1).into(), local: None };
    for track in 0..2 {
        stage.set_up(3, &film, track, same_host(7000 + 2 * track as u16));
    }
    stage.start(3, Some(film.plan(0)));
    stage.run(3);
    let [_, sound_3] = ssrcs(&mut stage, 3);
    stage.inject(RTCP, rtcp_of(client(1, 1)), &report(&[sound_3]));
    stage.run_for(MS);
    assert_eq!(stage.core_status().flows_followed, 1);
    assert!(stage.status(3).last_rtcp_age_ns.is_some());
    // One port for the reports on both tracks is no change of address.
    let [sight_2, sound_2] = ssrcs(&mut stage, 2);
    for port in [0, 1, 0] {
        stage.inject(RTCP, rtcp_of(client(2, port)), &report(&[sight_2, sound_2]));
        stage.run_for(MS);
    }
    assert_eq!(stage.core_status().flows_followed, 1);
    for session in 1..=3 {
        stage.destroy(session);
    }
    stage.assert_empty();
}

/// Sets both tracks up interleaved and plays; the client's end.
fn play_interleaved(stage: &mut Stage, session: u64, film: &Film, buffer_bytes: usize) -> SimPeer {
    let (stream, peer) = stream_pair(buffer_bytes);
    assert!(matches!(stage.ask(|reply| Command::AttachStream { reply, token: session, stream }), Reply::Done));
    for track in 0..2 {
        let transport = Transport::Stream { token: session, rtp_channel: 2 * track, rtcp_channel: 2 * track + 1 };
        assert!(matches!(stage.set_up(session, film, track.into(), transport), Reply::Done));
    }
    stage.start(session, Some(film.plan(0)));
    stage.run(session);
    peer
}

/// The frames of one channel.
fn frames(mut bytes: &[u8], channel: u8) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    while let Some((at, payload, used)) = interleaved::frame(bytes) {
        if at == channel {
            found.push(payload.to_vec());
        }
        bytes = &bytes[used..];
    }
    assert!(bytes.is_empty(), "{} bytes are no frame", bytes.len());
    found
}

#[test]
fn a_stream_that_is_not_read_ends_its_session_and_nobody_else_is_late() {
    let mut config = Config::default();
    config.host.stream_queue_bytes = 8 << 10;
    let mut stage = Stage::new(config);
    let film = Film::plain(4, 8, 3000);
    let peer = play_interleaved(&mut stage, 1, &film, 4 << 10);
    let reader = play_interleaved(&mut stage, 2, &film, 4 << 10);
    stage.play(3, &film);
    stage.run_for(SECOND);
    peer.stop_reading();
    stage.run_for(SECOND);
    assert_eq!(stage.finished, [], "its patience is not over");
    stage.run_for(500 * MS);
    assert_eq!(stage.finished, [(1, Outcome::Failed("the client stopped reading"))]);
    stage.run_for(7 * SECOND);
    assert_eq!(stage.finished.len(), 3);
    let got = reader.take();
    for track in 0..2 {
        let packets = frames(&got, 2 * track);
        assert!(join(packets.iter().map(|p| &p[..])) == film.bytes(track.into()));
        assert!(stage.payload_to(client(3, track.into())) == film.bytes(track.into()));
    }
    for session in 2..=3 {
        let late = stage.status(session).lateness.snapshot();
        assert!(late.packets > 500 && late.max_us < 1000, "session {session}: {late:?}");
    }
    for session in 1..=3 {
        stage.destroy(session);
    }
    stage.assert_empty();
}

#[test]
fn a_seek_and_a_pause_while_a_packet_is_held_back_leave_no_gap() {
    let mut config = Config::default();
    config.host.stream_queue_bytes = 4 << 10;
    let mut stage = Stage::new(config);
    let mut film = Film::plain(5, 8, 3000);
    film.stall_ns = 60 * SECOND;
    let peer = play_interleaved(&mut stage, 1, &film, 2 << 10);
    stage.run_for(500 * MS);
    for round in 0..4 {
        peer.stop_reading();
        stage.run_for(500 * MS);
        if round % 2 == 0 {
            stage.start(1, Some(film.plan((1 + round) * SECOND)));
        } else {
            stage.stop(1);
            stage.run_for(20 * SECOND);
            stage.start(1, None);
        }
        peer.resume_reading();
        stage.run(1);
        stage.run_for(300 * MS);
    }
    stage.run_for(9 * SECOND);
    assert_eq!(stage.finished, [(1, Outcome::Ended)]);
    let got = peer.take();
    for track in 0..2 {
        let packets = frames(&got, 2 * track);
        join(packets.iter().map(|p| &p[..]));
    }
    let late = stage.status(1).lateness.snapshot();
    assert!(late.max_us < 1_000_000, "a pause is no lateness: {late:?}");
}

#[test]
fn streams_may_go_at_any_time() {
    let mut stage = Stage::new(Config::default());
    let film = Film::plain(6, 3, 1000);
    let peer = play_interleaved(&mut stage, 1, &film, 1 << 20);
    let other = play_interleaved(&mut stage, 2, &film, 1 << 20);
    stage.run_for(500 * MS);
    stage.post(|_| Command::DetachStream { token: 1 });
    stage.run_for(100 * MS);
    assert!(peer.is_given_up());
    assert_eq!(stage.finished, [(1, Outcome::Failed("the client closed the connection"))]);
    // A new stream in its place does not get what was meant for it.
    let (stream, newcomer) = stream_pair(1 << 20);
    stage.ask(|reply| Command::AttachStream { reply, token: 9, stream });
    other.close();
    stage.run_for(SECOND);
    assert_eq!(stage.finished.len(), 2);
    assert_eq!(newcomer.take(), b"");
    let gone = Transport::Stream { token: 1, rtp_channel: 0, rtcp_channel: 1 };
    assert!(matches!(stage.set_up(3, &film, 0, gone), Reply::Refused(Refusal::NoStream)));
    assert_eq!(stage.core_status().sessions, 2, "a session without a track is none");
    // Writes that do not fit end the stream.
    stage.post(|_| Command::StreamWrite { token: 9, bytes: vec![1; 10 << 20].into() });
    stage.run_for(MS);
    assert_eq!(stage.closed, [9]);
    stage.destroy(1);
    stage.destroy(2);
    stage.assert_empty();
}

#[test]
fn full_tables_refuse_and_leak_nothing() {
    let mut config = Config::default();
    (config.core.sessions_max, config.core.tracks_max, config.host.flows_max) = (3, 4, 100);
    let mut stage = Stage::new(config);
    let film = Film::plain(7, 1, 500);
    for round in 0..3 {
        stage.play(1, &film);
        assert!(matches!(stage.set_up(2, &film, 0, udp(2, 0)), Reply::Done));
        assert!(matches!(stage.set_up(3, &film, 0, udp(3, 0)), Reply::Done));
        assert!(matches!(stage.set_up(3, &film, 1, udp(3, 1)), Reply::Refused(Refusal::Full)), "tracks");
        assert!(matches!(stage.set_up(4, &film, 0, udp(4, 0)), Reply::Refused(Refusal::Full)), "sessions, round {round}");
        stage.destroy(3);
        stage.set_up(2, &film, 1, udp(2, 1));
        assert!(matches!(stage.set_up(5, &film, 0, udp(5, 0)), Reply::Refused(Refusal::Full)), "tracks again");
        assert_eq!(stage.core_status().sessions, 2, "no session without a track stays");
        stage.run_for(100 * MS);
        for session in 1..=3 {
            stage.destroy(session);
        }
        stage.assert_empty();
    }
    let mut config = Config::default();
    config.host.flows_max = 3;
    let mut stage = Stage::new(config);
    assert!(matches!(stage.set_up(1, &film, 0, udp(1, 0)), Reply::Done));
    assert!(matches!(stage.set_up(1, &film, 1, udp(1, 1)), Reply::Refused(Refusal::Full)), "flows");
    assert!(matches!(stage.set_up(2, &film, 1, udp(2, 1)), Reply::Refused(Refusal::Full)), "flows");
    stage.destroy(1);
    stage.assert_empty();
}

#[test]
fn shutdown_says_goodbye_to_everyone() {
    let mut stage = Stage::new(Config::default());
    let film = Film::plain(8, 5, 500);
    for session in 1..=12 {
        stage.play(session, &film);
    }
    stage.run_for(SECOND);
    stage.sent.clear();
    stage.post(|_| Command::Shutdown);
    stage.turn();
    assert!(stage.stopped);
    for session in 1..=12 {
        for track in 0..2 {
            let to = rtcp_of(client(session, track));
            let byes = stage.sent.iter().filter(|s| s.remote == to && s.bytes.windows(2).any(|w| w == [0x81, 203]));
            assert_eq!(byes.count(), 1, "session {session}");
        }
    }
}
