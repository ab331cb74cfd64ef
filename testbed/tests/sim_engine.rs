//! A whole engine in simulated time: every packet of a thousand sessions is checked.

use dataplane::disks::sim::{SimDiskConfig, SlowPeriods};
use stack::sim::SimLink;
use testbed::sim::{Report, Scenario, run};

fn scenario(seed: u64, viewers: usize, seconds: u64) -> Scenario {
    Scenario { seed, viewers, seconds, ..Scenario::default() }
}

fn must(scenario: &Scenario) -> Report {
    let report = run(scenario).unwrap_or_else(|e| panic!("{e}\n(run again with TACTUS_SIM_SEED={})", scenario.seed));
    println!("{report:?}");
    report
}

fn seed() -> u64 {
    std::env::var("TACTUS_SIM_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(20_260_101)
}

#[test]
fn a_thousand_sessions_are_on_time_for_two_minutes() {
    let report = must(&scenario(seed(), 1_000, 120));
    assert!(report.packets > 1_000_000 && report.sender_reports > 10_000 && report.byes > 1_000);
    assert!(report.seeks > 1_000 && report.pauses > 1_000 && report.ended > 100 && report.followed > 100);
    assert_eq!(report.failed, 0);
}

#[test]
fn the_same_seed_gives_the_same_trace_and_another_seed_another() {
    let (first, again) = (must(&scenario(7, 50, 30)), must(&scenario(7, 50, 30)));
    assert_eq!(first, again);
    assert_ne!(first.trace, must(&scenario(8, 50, 30)).trace);
}

#[test]
fn many_small_worlds() {
    for seed in 1..=40 {
        must(&scenario(seed, 20, 30));
    }
}

/// What is reserved of the buffers for all viewers of a title together.
#[test]
fn however_many_watch_a_title_and_wherever_each_of_its_blocks_is_in_memory_once() {
    let report = must(&Scenario { titles: 3, ..scenario(11, 300, 20) });
    let Report { chunks_used_max, blocks, .. } = report;
    assert!((blocks / 2..=blocks).contains(&chunks_used_max), "{chunks_used_max} buffers for titles of {blocks} blocks");
}

#[test]
fn what_the_disk_cannot_read_is_skipped_and_what_fails_once_is_read_again() {
    // A spinning disk under a fifth of its load, slow at times, with bad sectors. What is read ahead must cover all of that.
    let slow = Some(SlowPeriods { every_ns: 10_000_000_000, for_ns: 300_000_000, factor: 3 });
    let disk = SimDiskConfig {
        lanes: 1,
        seek_min_ns: 1_000_000,
        seek_max_ns: 8_000_000,
        bytes_per_s: 150_000_000,
        errors_per_million: 5_000,
        bad_per_million: 5_000,
        slow,
        ..SimDiskConfig::default()
    };
    let mut skips = 0;
    for seed in 1..=5 {
        let report = must(&Scenario { disk: disk.clone(), failures: true, patience_ns: Some(50_000_000), ..scenario(seed, 40, 60) });
        assert!(report.packets > 50_000 && report.ended > 0, "the others are served");
        skips += report.skips;
    }
    assert!(skips > 20, "{skips} places could not be read");
}

#[test]
fn a_full_network_makes_late_but_keeps_order_and_content() {
    // About what the viewers need on the average.
    let link = Some(SimLink { rate_bps: 40_000_000, queue_bytes: 20_000 });
    let mut backpressure = 0;
    for seed in 1..=3 {
        let report = must(&Scenario { link, patience_ns: None, restless: false, ..scenario(seed, 30, 120) });
        assert!(report.ended > 10);
        backpressure += report.backpressure;
    }
    assert!(backpressure > 100_000, "the network was full {backpressure} times");
}

#[test]
#[ignore = "an hour of simulated time: make test-long"]
fn a_thousand_sessions_are_on_time_for_an_hour() {
    must(&scenario(seed(), 1_000, 3_600));
}
