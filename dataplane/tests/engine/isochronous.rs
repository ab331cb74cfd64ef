//! The isochronous budget: what guaranteed sessions have reserved of the core's time nobody else takes, however much there is to do.
//!
//! All work has a price here, and simulated time passes while it is done. Guaranteed sessions need 70 % of it; commands, datagrams,
//! best-effort sessions and byte streams would each take all of it, in pieces of up to a millisecond.

use dataplane::engine::Command;
use dataplane::gdsl::Class;
use pacing::cpu::Work;
use pacing::period::{Spent, Unreserved};
use stack::sim::{SimConfig, SimPeer, SimPrices, stream_pair};

use super::stage::{Config, Film, MS, RTCP, SECOND, Sent, Stage, client, rtcp_of};

const PRICES: SimPrices = SimPrices { sent_ns: 8_000, received_ns: 15_000, written_kib_ns: 30_000, counters_ns: 1_000_000 };
/// Guaranteed sessions, and the first number of best-effort ones.
const GUARANTEED: u64 = 200;
const BEST_EFFORT: u64 = 201;
/// A guaranteed session: 15 packets for each of 25 pictures a second, and 50 of sound.
const PACKETS_PER_SECOND: u64 = 425;
/// The origin's period (SYSTEMS 1.3).
const PERIOD_US: u64 = 8_000;
const TOKEN: u64 = 7;

struct Came {
    late_us: u64,
    lost: bool,
    best_effort_packets: u64,
    stream_bytes: u64,
    answers: usize,
    /// What each kind of work had in this second.
    spent: [(Unreserved, Spent); 6],
}

fn film(id: u64, class: Class, bytes: u32, packets_per_second: u64) -> Film {
    let mut film = Film::plain(id, 8, bytes);
    film.class = class;
    // Two tracks share what the session reserves.
    film.work = Work { packets_milli: packets_per_second * 1000 / 2, reads_milli: 0 };
    film
}

fn attach(stage: &mut Stage) -> SimPeer {
    let (stream, peer) = stream_pair(1 << 20);
    stage.ask(|reply| Command::AttachStream { reply, token: TOKEN, stream });
    peer
}

/// A second in which there is far too much to do.
fn run(packets_reserved: u64) -> Came {
    let mut config = Config { chunks: 24_000, host: SimConfig { tx_frames: 256, ..SimConfig::default() }, ..Config::default() };
    config.core.sessions_max = 256;
    config.core.tracks_max = 512;
    config.core.host_frames = 256;
    let mut stage = Stage::new(config);
    stage.core.host_mut().charge(stage.clock.clone(), PRICES);
    let films: Vec<Film> = (0..8).map(|id| film(id, Class::Guaranteed, 20_500, packets_reserved)).collect();
    for session in 1..=GUARANTEED {
        stage.play(session, &films[session as usize % films.len()]);
        stage.run_for(2 * MS / 3);
    }
    let greedy = film(100, Class::BestEffort, 100_000, 0);
    for session in BEST_EFFORT..BEST_EFFORT + 20 {
        stage.play(session, &greedy);
    }
    let peer = attach(&mut stage);
    stage.run_for(SECOND / 2);
    stage.sent.clear();
    let before = *stage.core.period();
    let end_ns = stage.now() + SECOND;
    let (mut stream_bytes, mut posted) = (0, 0);
    while stage.now() < end_ns {
        // Neither queue ever runs empty.
        while stage.commands.len() < 64 {
            posted += 1;
            let order = match posted % 2 {
                0 => Command::CoreStatus { reply: 1_000_000 + posted, report: Box::default() },
                _ => Command::StreamWrite { token: TOKEN, bytes: vec![0; 32 << 10].into() },
            };
            stage.commands.try_send(order).expect("the command queue has room");
        }
        for client_number in 0..64 {
            stage.inject(RTCP, rtcp_of(client(client_number % 16, 0)), &[0x80; 40]);
        }
        stage.turn();
        stage.clock.advance_to(stage.now() + 1_000);
        stream_bytes += peer.take().len() as u64;
    }
    let (answers, after) = (stage.replies.len(), *stage.core.period());
    let spent = Unreserved::ALL.map(|kind| {
        let spent = after.spent(kind);
        (kind, Spent { ns: spent.ns - before.spent(kind).ns, ..spent })
    });
    let late_us = (1..=GUARANTEED).map(|session| stage.status_later(session).lateness.snapshot().max_us).max().unwrap();
    let lost = (1..=GUARANTEED).any(|session| !sent_in_time(&stage, session));
    let is_best_effort = |sent: &&Sent| (BEST_EFFORT..BEST_EFFORT + 20).any(|session| sent.remote.ip() == client(session, 0).ip());
    let best_effort_packets = stage.sent.iter().filter(is_best_effort).count() as u64;
    Came { late_us, lost, best_effort_packets, stream_bytes, answers, spent }
}

/// A session had its packets: a second of them, to within a picture.
fn sent_in_time(stage: &Stage, session: u64) -> bool {
    let expected = PACKETS_PER_SECOND - 20;
    stage.sent.iter().filter(|sent| sent.remote.ip() == client(session, 0).ip()).count() as u64 >= expected
}

#[test]
fn guaranteed_packets_are_on_time_whatever_else_the_core_is_asked_to_do() {
    let came = run(PACKETS_PER_SECOND);
    assert!(came.late_us <= PERIOD_US, "a guaranteed packet was {} us late", came.late_us);
    assert!(!came.lost);
    // The others had the rest, all of them some of it, and none went on for longer than one of its pieces beyond its slice.
    println!("{} us late, {:?}", came.late_us, came.spent);
    for (kind, spent) in came.spent {
        if kind != Unreserved::Reads && kind != Unreserved::Sessions {
            assert!(spent.ns > 20 * MS && spent.put_off > 0, "{kind:?}: {spent:?}");
        }
        assert!(spent.longest_ns <= 1_200_000, "{kind:?}: {spent:?}");
    }
    let all_ns: u64 = came.spent.iter().map(|(_, spent)| spent.ns).sum();
    assert!((250 * MS..350 * MS).contains(&all_ns), "about 30 % of a second: {all_ns}");
    assert!(came.best_effort_packets > 2_500 && came.stream_bytes > 1 << 19 && came.answers > 25);
}

#[test]
fn without_a_reservation_they_would_not_be() {
    let came = run(0);
    assert!(came.late_us > PERIOD_US, "{} us", came.late_us);
}
