//! A whole engine in simulated time: every packet of a thousand sessions is checked.

use dataplane::disks::sim::SimDiskConfig;
use testbed::sim::{Report, Scenario, run};

fn scenario(seed: u64, viewers: usize, seconds: u64) -> Scenario {
    Scenario { seed, viewers, seconds, titles: 24, disk: SimDiskConfig::default(), tcp_percent: 20 }
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
    assert!(report.seeks > 1_000 && report.pauses > 1_000 && report.ended > 100);
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

#[test]
#[ignore = "an hour of simulated time: make test-long"]
fn a_thousand_sessions_are_on_time_for_an_hour() {
    must(&scenario(seed(), 1_000, 3_600));
}
