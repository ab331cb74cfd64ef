//! Starts, stops, seeks and ends at odd moments, and titles of odd shapes: whatever happens, nobody sleeps for ever.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use dataplane::disks::sim::SimDiskConfig;
use dataplane::engine::{Command, Refusal, Reply};
use dataplane::gdsl::Outcome;

use super::stage::{CHUNK_BYTES, Config, Film, MS, SECOND, Stage, client, udp};

const BLOCK: u64 = CHUNK_BYTES as u64;

/// A disk that needs 20 ms for each read, one at a time.
fn slow_disk() -> SimDiskConfig {
    SimDiskConfig { lanes: 1, seek_min_ns: 20 * MS, seek_max_ns: 20 * MS, ..SimDiskConfig::default() }
}

fn delivered(stage: &Stage, film: &Film, session: u64) {
    for track in 0..film.title.tracks.len() {
        assert!(stage.payload_to(client(session, track)) == film.bytes(track), "track {track} of session {session}");
    }
}

#[test]
fn a_film_is_delivered_to_its_end_and_again() {
    let mut stage = Stage::new(Config::default());
    let film = Film::plain(1, 2, 3000);
    stage.play(1, &film);
    stage.run_for(3 * SECOND);
    assert_eq!(stage.finished, [(1, Outcome::Ended)]);
    delivered(&stage, &film, 1);
    assert!(matches!(stage.start(1, None), Reply::Refused(Refusal::State)), "there is nothing to go on with");
    assert!(matches!(stage.run(1), Reply::Refused(Refusal::State)), "the end is not started again");
    assert!(matches!(stage.start(1, Some(film.plan(0))), Reply::Started { .. }));
    stage.sent.clear();
    stage.run(1);
    stage.run_for(3 * SECOND);
    assert_eq!(stage.finished.len(), 2);
    delivered(&stage, &film, 1);
    stage.destroy(1);
    stage.assert_empty();
}

#[test]
fn samples_that_overlap_repeat_and_lie_backwards_are_delivered() {
    // The same bytes again and farther on, a sample across three blocks behind one across two, blocks visited in disorder.
    let samples = [
        (0, 4200, 0),
        (0, 10_000, 0),
        (100, 5000, 0),
        (200, 10_000, 40),
        (5 * BLOCK, 100, 80),
        (3 * BLOCK + 7, 50, 120),
        (5 * BLOCK + 50, 9000, 160),
        (2 * BLOCK, 8192, 200),
        (2 * BLOCK, 3 * BLOCK as u32, 240),
        (BLOCK - 1, 2, 280),
    ];
    let mut stage = Stage::new(Config::default());
    let film = Film::new(2, &[('v', &samples, 40)]);
    stage.play(1, &film);
    stage.run_for(2 * SECOND);
    assert_eq!(stage.finished, [(1, Outcome::Ended)]);
    delivered(&stage, &film, 1);
}

#[test]
fn empty_samples_take_no_blocks_and_any_number_of_them_passes() {
    let mut samples = vec![(3 * BLOCK, 100, 0), (7 * BLOCK + 5, 0, 10), (3 * BLOCK + 100, 6000, 20), (2, 0, 30), (9 * BLOCK, 500, 40)];
    samples.extend((0..5000).map(|i| (i * 7, 0, 50)));
    samples.push((11 * BLOCK, 300, 60));
    let mut stage = Stage::new(Config::default());
    let film = Film::new(3, &[('v', &samples, 40)]);
    stage.play(1, &film);
    stage.run_for(2 * SECOND);
    assert_eq!(stage.finished, [(1, Outcome::Ended)]);
    delivered(&stage, &film, 1);
}

#[test]
fn a_track_without_samples_holds_nobody_up() {
    let mut stage = Stage::new(Config::default());
    let video: Vec<_> = (0..25).map(|i| (i * 1000, 1000, 40 * i as i64)).collect();
    let film = Film::new(4, &[('v', &video, 40), ('a', &[], 20)]);
    let before = stage.now();
    stage.play(1, &film);
    stage.run_for(2 * SECOND);
    let first = stage.rtp_to(client(1, 0))[0].at_ns;
    assert!(first - before < 5 * MS, "the first packet left after {} ns", first - before);
    assert_eq!(stage.finished, [(1, Outcome::Ended)]);
    // A title of nothing but such tracks ends without a wait for samples.
    let nothing = Film::new(5, &[('a', &[], 20)]);
    stage.play(2, &nothing);
    stage.run_for(250 * MS);
    assert_eq!(stage.finished[1], (2, Outcome::Ended));
}

#[test]
fn a_track_that_begins_late_holds_nobody_up() {
    let mut stage = Stage::new(Config::default());
    let video: Vec<_> = (0..75).map(|i| (i * 1000, 1000, 40 * i as i64)).collect();
    let audio: Vec<_> = (0..50).map(|i| (100_000 + i * 100, 100, 2000 + 20 * i as i64)).collect();
    let film = Film::new(6, &[('v', &video, 40), ('a', &audio, 20)]);
    let before = stage.now();
    stage.play(1, &film);
    stage.run_for(4 * SECOND);
    assert!(stage.rtp_to(client(1, 0))[0].at_ns - before < 5 * MS);
    let sound = stage.rtp_to(client(1, 1))[0].at_ns - before;
    assert!((2 * SECOND..2 * SECOND + 10 * MS).contains(&sound), "sound began after {sound} ns");
    assert_eq!(stage.finished, [(1, Outcome::Ended)]);
}

#[test]
fn a_seek_beyond_the_end_of_the_sound_starts_at_once() {
    let mut stage = Stage::new(Config::default());
    let video: Vec<_> = (0..250).map(|i| (i * 1000, 1000, 40 * i as i64)).collect();
    // Two seconds of sound in a film of ten; and sound with a gap of nine.
    let audio: Vec<_> = (0..100).map(|i| (300_000 + i * 100, 100, 20 * i as i64)).collect();
    let gap = [(400_000, 100, 0), (400_100, 100, 9000)];
    let film = Film::new(7, &[('v', &video, 40), ('a', &audio, 20), ('a', &gap, 20)]);
    stage.play(1, &film);
    stage.run_for(100 * MS);
    stage.sent.clear();
    stage.start(1, Some(film.plan(6 * SECOND)));
    let before = stage.now();
    stage.run(1);
    stage.run_for(200 * MS);
    let first = stage.rtp_to(client(1, 0)).first().map(|s| s.at_ns - before);
    assert!(first.is_some_and(|ns| ns < 110 * MS), "the first picture left after {first:?} ns");
    stage.run_for(5 * SECOND);
    assert_eq!(stage.finished, [(1, Outcome::Ended)]);
    assert!(stage.rtp_to(client(1, 1)).is_empty(), "the sound was over");
}

#[test]
fn the_exact_end_and_times_beyond_it_end_at_once() {
    let film = Film::plain(8, 2, 500);
    let sound_only: Vec<_> = (0..50).map(|i| (i * 100, 100, 20 * i as i64)).collect();
    let sound = Film::new(9, &[('a', &sound_only, 20)]);
    let mut stage = Stage::new(Config::default());
    stage.play(1, &film);
    stage.play(2, &sound);
    for from_ns in [2 * SECOND, 2 * SECOND + 1, u64::MAX - 1, u64::MAX] {
        stage.finished.clear();
        for (session, film) in [(1, &film), (2, &sound)] {
            assert!(matches!(stage.start(session, Some(film.plan(from_ns))), Reply::Started { .. }));
            stage.run(session);
        }
        stage.run_for(SECOND);
        let mut finished = std::mem::take(&mut stage.finished);
        finished.sort_by_key(|f| f.0);
        assert_eq!(finished, [(1, Outcome::Ended), (2, Outcome::Ended)], "from {from_ns} ns");
    }
    stage.destroy(1);
    stage.destroy(2);
    stage.assert_empty();
}

#[test]
fn starts_and_stops_that_crowd_leave_room_for_everyone() {
    let mut config = Config { disk: slow_disk(), ..Config::default() };
    config.core.sessions_max = 2;
    let mut stage = Stage::new(config);
    let film = Film::plain(10, 2, 500);
    for session in 1..=2 {
        for track in 0..2 {
            stage.set_up(session, &film, track, udp(session, track));
        }
    }
    let plan = film.plan(0);
    stage.start(1, Some(plan.clone()));
    stage.start(2, Some(plan));
    for _ in 0..5 {
        stage.post(|reply| Command::Run { reply, session: 1 });
        stage.post(|reply| Command::Stop { reply, session: 1 });
        stage.post(|reply| Command::Start { reply, session: 1, plan: None });
    }
    stage.post(|reply| Command::Run { reply, session: 1 });
    stage.post(|reply| Command::Run { reply, session: 2 });
    stage.run_for(4 * SECOND);
    let mut finished = stage.finished.clone();
    finished.sort_by_key(|f| f.0);
    assert_eq!(finished, [(1, Outcome::Ended), (2, Outcome::Ended)]);
    delivered(&stage, &film, 1);
    delivered(&stage, &film, 2);
}

#[test]
fn a_pause_at_any_moment_goes_on_where_it_stopped() {
    for pause_at_ms in [0, 1, 5, 19, 21, 60, 333, 990, 1700, 1990] {
        let mut stage = Stage::new(Config { disk: slow_disk(), ..Config::default() });
        let film = Film::plain(11, 2, 2500);
        stage.play(1, &film);
        stage.run_for(pause_at_ms * MS);
        assert!(matches!(stage.stop(1), Reply::Stopped { .. }));
        let count = stage.sent.len();
        stage.run_for(700 * MS);
        assert_eq!(stage.sent.len(), count, "a packet while paused");
        assert!(matches!(stage.start(1, None), Reply::Started { .. }));
        stage.run(1);
        stage.run_for(5 * SECOND);
        assert_eq!(stage.finished, [(1, Outcome::Ended)], "paused after {pause_at_ms} ms");
        delivered(&stage, &film, 1);
        stage.destroy(1);
        stage.assert_empty();
    }
}

#[test]
fn seeks_in_a_row_leave_no_useless_reads_behind() {
    let mut stage = Stage::new(Config { disk: slow_disk(), chunks: 128, ..Config::default() });
    let (film, other) = (Film::plain(12, 60, 20_000), Film::plain(13, 60, 100));
    stage.play(1, &film);
    stage.play(2, &other);
    stage.run_for(SECOND);
    for i in 0..200 {
        stage.start(1, Some(film.plan(i * 300 * MS)));
        stage.run(1);
        stage.run_for(MS);
    }
    // What the link holds now, what the disk was given (32 at most), and the other session's.
    let used = stage.core.pool().capacity() - stage.core.pool().free();
    assert!(used <= 64 + 32 + 8, "{used} buffers are in use");
    assert_eq!(stage.core_status().gdsl.chunk_shortages, 0);
    stage.destroy(1);
    stage.destroy(2);
    stage.run_for(2 * SECOND);
    stage.assert_empty();
}

#[test]
fn what_is_not_valid_in_a_state_is_refused_and_disturbs_nothing() {
    let mut stage = Stage::new(Config::default());
    let film = Film::plain(14, 2, 500);
    assert!(matches!(stage.start(1, Some(film.plan(0))), Reply::Refused(Refusal::NoSession)));
    assert!(matches!(stage.run(1), Reply::Refused(Refusal::NoSession)));
    stage.set_up(1, &film, 0, udp(1, 0));
    assert!(matches!(stage.start(1, None), Reply::Refused(Refusal::State)));
    assert!(matches!(stage.run(1), Reply::Refused(Refusal::State)));
    assert!(matches!(stage.start(1, Some(film.plan(0))), Reply::Refused(Refusal::State)), "the plan has more tracks");
    stage.set_up(1, &film, 1, udp(1, 1));
    stage.start(1, Some(film.plan(0)));
    stage.run(1);
    stage.run_for(500 * MS);
    assert!(matches!(stage.set_up(1, &film, 0, udp(1, 3)), Reply::Refused(Refusal::State)), "delivery has begun");
    let mut plan = film.plan(0);
    plan.tracks.pop();
    assert!(matches!(stage.start(1, Some(plan)), Reply::Refused(Refusal::State)));
    assert!(matches!(stage.run(1), Reply::Done), "running already");
    stage.run_for(2 * SECOND);
    assert_eq!(stage.finished, [(1, Outcome::Ended)]);
    delivered(&stage, &film, 1);
}

#[test]
fn tracks_start_as_the_plan_orders_them_and_a_subset_will_do() {
    let mut stage = Stage::new(Config::default());
    let film = Film::plain(15, 1, 500);
    // Sound first, then sight; and sound alone.
    stage.set_up(1, &film, 1, udp(1, 1));
    stage.set_up(1, &film, 0, udp(1, 0));
    stage.set_up(2, &film, 1, udp(2, 1));
    let plan = |tracks: &[usize]| dataplane::delivery::StartPlan::new(&film.title, tracks, 0, None);
    let Reply::Started { tracks, count, .. } = stage.start(1, Some(plan(&[1, 0]))) else { panic!() };
    assert_eq!((tracks[0].track_id, tracks[1].track_id, count), (2, 1, 2));
    stage.start(2, Some(plan(&[1])));
    stage.run(1);
    stage.run(2);
    stage.run_for(2 * SECOND);
    delivered(&stage, &film, 1);
    assert!(stage.payload_to(client(2, 1)) == film.bytes(1));
    assert_eq!(stage.finished.len(), 2);
}

#[test]
fn a_listener_that_is_behind_loses_no_answer() {
    let mut config = Config { events: 64, ..Config::default() };
    config.core.sessions_max = 4;
    let mut stage = Stage::new(config);
    let film = Film::plain(16, 1, 500);
    stage.play(1, &film);
    stage.replies.clear();
    let asked: Vec<u64> = (0..500).map(|_| stage.post(|reply| Command::Stop { reply, session: 1 })).collect();
    // The core turns, nobody listens.
    for _ in 0..100 {
        stage.core.turn();
    }
    for _ in 0..100 {
        stage.turn();
    }
    assert!(asked.iter().all(|id| stage.replies.contains_key(id)), "{} of 500 answers came", stage.replies.len());
}

/// 50 Mbps: five packets are due in a millisecond, and the core has a turn every half of one.
#[test]
fn a_stream_that_is_faster_than_the_turns_of_the_core_keeps_its_pace() {
    let mut stage = Stage::new(Config { chunks: 4096, ..Config::default() });
    stage.quantum_ns = MS / 2;
    let film = Film::plain(1, 2, 250_000);
    stage.play(1, &film);
    stage.run_for(2 * SECOND + 300 * MS);
    assert_eq!(stage.finished, [(1, Outcome::Ended)]);
    delivered(&stage, &film, 1);
    let late_us = stage.core.lateness().snapshot().max_us;
    assert!(late_us <= 1_000, "{late_us} us late");
}

/// Each command comes to a core that has just found that there is none, sooner or later at the worst moment.
#[test]
fn a_command_that_comes_while_the_core_looks_for_one_is_carried_out() {
    const ORDERS: u64 = 20_000;
    let mut stage = Stage::new(Config::default());
    let commands = stage.commands.clone();
    let done = AtomicU64::new(0);
    let lost = std::thread::scope(|scope| {
        scope.spawn(|| {
            for reply in 1..=ORDERS {
                let order = Command::Destroy { reply, session: 7 };
                commands.try_send(order).expect("the queue is empty");
                let given_up = Instant::now() + Duration::from_secs(5);
                while done.load(Ordering::Acquire) < reply {
                    if Instant::now() > given_up {
                        return;
                    }
                    std::thread::yield_now();
                }
            }
        });
        for reply in 1..=ORDERS {
            let given_up = Instant::now() + Duration::from_secs(5);
            while stage.replies.remove(&reply).is_none() {
                if Instant::now() > given_up {
                    return Some(reply);
                }
                stage.turn();
            }
            done.store(reply, Ordering::Release);
        }
        None
    });
    assert_eq!(lost, None, "a command without an answer");
}
