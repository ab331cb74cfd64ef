//! The goals of IFQ limiting, in simulated time: equal runs give equal figures, so these bounds decide.

use super::path::{Outcome, QUEUE_FRAMES, START_NS, Setup, Window, jain, run};
use super::{Scenario, ms};

const MS: u64 = 1_000_000;

#[test]
fn jains_index_is_one_for_equals_and_the_share_of_the_only_one() {
    assert_eq!(jain([7, 7, 7].into_iter()), 1.0);
    assert_eq!(jain([5, 0, 0, 0].into_iter()), 0.25);
    assert_eq!(jain([0, 0].into_iter()), 0.0);
}

fn settled(outcome: &Outcome) -> impl Iterator<Item = &Window> {
    outcome.windows.iter().filter(|window| window.end_ns > START_NS)
}

fn show(name: &str, outcome: &Outcome) {
    let median = |mut values: Vec<u64>| {
        values.sort_unstable();
        values.get(values.len() / 2).copied().unwrap_or(0)
    };
    let srtts: Vec<u64> = settled(outcome).map(|w| w.srtt_median_ns).collect();
    let shorts: Vec<u64> = settled(outcome).filter_map(|w| w.short_ns).collect();
    let (fair, busy) = settled(outcome).fold((f64::INFINITY, f64::INFINITY), |(f, b), w| (f.min(w.fairness.unwrap_or(f)), b.min(w.busy)));
    println!(
        "{name:<34} srtt {:.3} to {:.3} ms, max of any {:.3}; queue {:.3} ms; fairness >= {fair:.4}; busy >= {busy:.4}; 100 KB {:.2} ms ({} times); \
         ends {:?} ms; again {}",
        ms(srtts.iter().copied().min().unwrap_or(0)),
        ms(srtts.iter().copied().max().unwrap_or(0)),
        ms(settled(outcome).map(|w| w.srtt_max_ns).max().unwrap_or(0)),
        ms(settled(outcome).map(|w| w.queue_ns_max).max().unwrap_or(0)),
        ms(median(shorts.clone())),
        shorts.len(),
        outcome.ended_ns.iter().map(|ns| ns / MS).collect::<Vec<_>>(),
        outcome.retransmits,
    );
}

/// A run whose limit keeps the queue short, the link full and the connections equal.
fn meets_the_goals(name: &str, setup: Setup) -> Outcome {
    let outcome = run(setup).unwrap();
    show(name, &outcome);
    assert_eq!(outcome.retransmits, 0, "{name}: what waits is no loss");
    assert!(settled(&outcome).filter(|window| window.fairness.is_some()).count() >= 20, "{name}");
    for window in settled(&outcome) {
        assert!(window.queue_ns_max < MS, "{name}: pseudo delay, {window:?}");
        assert!(window.busy > 0.95, "{name}: the link is full, {window:?}");
        assert!(window.fairness.is_none_or(|index| index > 0.99), "{name}: fairness, {window:?}");
    }
    outcome
}

#[test]
fn a_short_transfer_beside_two_endless_ones_does_not_wait_for_their_queue() {
    let without = run(Scenario::Short.setup(false)).unwrap();
    show("100 KB beside two, no limit", &without);
    let with = meets_the_goals("100 KB beside two, limit", Scenario::Short.setup(true));
    assert!(settled(&with).all(|window| window.srtt_max_ns < 3 * MS), "of which 2 ms are the path");
    // The experiment would show nothing if the queue did not fill without the limit.
    assert!(settled(&without).all(|window| window.queue_frames_max == QUEUE_FRAMES && window.srtt_median_ns > 13 * MS));
    let shorts = |outcome: &Outcome| settled(outcome).filter_map(|window| window.short_ns).collect::<Vec<_>>();
    let (with, without) = (shorts(&with), shorts(&without));
    assert!(with.len() >= 25 && without.len() >= 25, "{} and {}", with.len(), without.len());
    assert!(2 * with.iter().max().unwrap() <= *without.iter().min().unwrap(), "{with:?} {without:?}");
}

#[test]
fn three_equal_transfers_are_equal_all_the_time() {
    let without = run(Scenario::Bulk.setup(false)).unwrap();
    show("three of 100 MB, no limit", &without);
    let with = meets_the_goals("three of 100 MB, limit", Scenario::Bulk.setup(true));
    assert!(settled(&with).all(|window| window.srtt_max_ns < 3 * MS), "of which 2 ms are the path");
    assert_eq!(with.ended_ns.len(), 3);
    let last = |outcome: &Outcome| outcome.ended_ns.iter().copied().max().unwrap();
    assert!(last(&with) <= last(&without) + 20 * MS, "the limit costs nothing");
}

#[test]
fn a_thousand_connections_share_as_well_as_three() {
    let without = run(Scenario::Many.setup(false)).unwrap();
    show("1,000 connections, no limit", &without);
    meets_the_goals("1,000 connections, limit", Scenario::Many.setup(true));
    // Without acknowledgments held back, round-trip times show the queue alone.
    let prompt = Setup { delayed_ack_ns: 0, ..Scenario::Many.setup(true) };
    let prompt = meets_the_goals("1,000 connections, limit, prompt", prompt);
    assert!(settled(&prompt).all(|window| window.srtt_max_ns < 3 * MS), "of which 2 ms are the path");
}

#[test]
fn equal_runs_give_equal_figures() {
    let setup = Setup { until_ns: 3 * START_NS, ..Scenario::Short.setup(true) };
    assert_eq!(run(setup), run(setup));
}
