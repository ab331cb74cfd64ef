//! Deliveries that get too little of the disk: late, valid, and no further behind than they may be.

use dataplane::delivery::{LagAction, LagPolicy};
use dataplane::disks::sim::SimDiskConfig;
use dataplane::gdsl::{Class, Outcome};
use dataplane::rtp::header::RtpPacket;

use super::stage::{Config, Film, MS, SECOND, Stage, client, join};

/// Eight seconds of 25 pictures of 8,000 bytes: 200 kB/s. Every tenth picture is a sync sample.
fn film(lag: LagPolicy) -> Film {
    let pictures: Vec<_> = (0..200).map(|i| (8000 * i, 8000, 40 * i as i64)).collect();
    Film { class: Class::BestEffort, lag, ..Film::new(1, &[('v', &pictures, 40)]) }
}

/// A disk that reads this many bytes per second, one after the other.
fn disk(bytes_per_s: u64) -> SimDiskConfig {
    SimDiskConfig { lanes: 1, depth: 2, seek_min_ns: 0, seek_max_ns: 0, bytes_per_s, ..SimDiskConfig::default() }
}

/// Time sent, RTP time and payload of every packet, with no gap in the sequence numbers.
fn packets(stage: &Stage) -> Vec<(u64, u32, Vec<u8>)> {
    let sent = stage.rtp_to(client(1, 0));
    join(sent.iter().map(|s| &s.bytes[..]));
    let parse = |bytes| RtpPacket::new_checked(bytes).expect("RTP");
    sent.iter().map(|s| (s.at_ns, parse(&s.bytes[..]).timestamp(), parse(&s.bytes[..]).payload().to_vec())).collect()
}

#[test]
fn a_best_effort_stream_gets_later_smoothly_and_loses_nothing() {
    let film = film(LagPolicy::default());
    let run = |bytes_per_s| {
        let mut stage = Stage::new(Config { disk: disk(bytes_per_s), ..Config::default() });
        stage.play(1, &film);
        stage.run_for(20 * SECOND);
        assert_eq!(stage.finished, [(1, Outcome::Ended)]);
        stage
    };
    // Half as fast again as the film, and two thirds as fast.
    let (on_time, slow) = (run(300_000), run(133_000));
    let (expected, got) = (packets(&on_time), packets(&slow));
    assert!(slow.payload_to(client(1, 0)) == film.bytes(0));
    assert_eq!(expected.len(), got.len());
    let mut late_ns = Vec::new();
    for (expected_one, got_one) in expected.iter().zip(&got) {
        assert_eq!(got_one.1.wrapping_sub(got[0].1), expected_one.1.wrapping_sub(expected[0].1), "RTP times are those of the film");
        late_ns.push((got_one.0 - got[0].0) as i64 - (expected_one.0 - expected[0].0) as i64);
    }
    // Eight seconds of film take twelve, and no packet waits for much more than the block that it lies in.
    let last = late_ns[late_ns.len() - 1];
    assert!((3_700 * MS as i64..4_200 * MS as i64).contains(&last), "{last}");
    let steps = late_ns.windows(2).map(|pair| pair[1] - pair[0]);
    assert!(steps.max() < Some(60 * MS as i64));
}

#[test]
fn a_stream_that_falls_too_far_behind_goes_on_from_sync_samples() {
    let film = film(LagPolicy { max_ns: 500 * MS, action: LagAction::Skip });
    let mut stage = Stage::new(Config { disk: disk(100_000), ..Config::default() });
    stage.play(1, &film);
    stage.run_for(7 * SECOND);
    let report = stage.status(1);
    assert!(report.tracks[0].sent.skips >= 2, "{:?}", report.tracks[0].sent);
    let late_us = report.lateness.snapshot().max_us;
    assert!((300_000..750_000).contains(&late_us), "{late_us}");
    let pictures = packets(&stage);
    let zero = pictures[0].1;
    let numbers: Vec<u32> = pictures.iter().map(|(_, ts, _)| ts.wrapping_sub(zero) / 3600).collect();
    assert!(numbers.is_sorted());
    let mut jumps = 0;
    for pair in numbers.windows(2).filter(|pair| pair[1] > pair[0] + 1) {
        jumps += 1;
        assert_eq!(pair[1] % 10, 0, "behind picture {} comes picture {}, which no decoder can start with", pair[0], pair[1]);
    }
    assert!(jumps >= 2);
    // What was sent of a picture is its beginning; only the last one before a jump may be cut.
    let whole = film.bytes(0);
    for number in numbers.iter().collect::<std::collections::BTreeSet<_>>() {
        let parts = pictures.iter().zip(&numbers).filter(|(_, n)| *n == number).flat_map(|((_, _, payload), _)| payload.iter().copied());
        let got: Vec<u8> = parts.collect();
        assert!(whole[8000 * *number as usize..].starts_with(&got), "picture {number}");
    }
    stage.run_for(5 * SECOND);
    assert_eq!(stage.finished, [(1, Outcome::Ended)], "it ends when the film does");
    stage.destroy(1);
    stage.assert_empty();
}

#[test]
fn a_stream_may_be_ended_when_it_falls_behind() {
    let film = film(LagPolicy { max_ns: 500 * MS, action: LagAction::End });
    let mut stage = Stage::new(Config { disk: disk(100_000), ..Config::default() });
    stage.play(1, &film);
    stage.run_for(4 * SECOND);
    assert_eq!(stage.finished, [(1, Outcome::Failed("the delivery fell further behind than it may"))]);
    stage.destroy(1);
    stage.assert_empty();
}

#[test]
fn a_disk_that_stops_answering_is_waited_for_and_then_skipped() {
    let film = film(LagPolicy { max_ns: SECOND, action: LagAction::Skip });
    let slow = dataplane::disks::sim::SlowPeriods { every_ns: 4 * SECOND, for_ns: 500 * MS, factor: 600 };
    let mut stage = Stage::new(Config { disk: SimDiskConfig { slow: Some(slow), ..disk(1_000_000) }, ..Config::default() });
    stage.play(1, &film);
    stage.run_for(14 * SECOND);
    assert_eq!(stage.finished, [(1, Outcome::Ended)]);
    assert!(stage.status(1).tracks[0].sent.skips > 0);
    assert!(packets(&stage).len() > 200);
    stage.destroy(1);
    stage.assert_empty();
}
