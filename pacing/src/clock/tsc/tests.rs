use proptest::prelude::*;

use super::*;

/// A machine with a counter of `hz`, whose operating system clock runs `ppb` parts in 10^9 faster than true time.
struct Machine {
    hz: u64,
    true_ns: u64,
    os_ns: f64,
    ppb: f64,
}

impl Machine {
    fn pass(&mut self, ns: u64) {
        self.true_ns += ns;
        self.os_ns += ns as f64 * (1.0 + self.ppb / 1e9);
    }

    fn ticks(&self) -> u64 {
        (u128::from(self.true_ns) * u128::from(self.hz) / u128::from(NS_PER_SEC)) as u64
    }

    fn pair(&self) -> Pair {
        Pair { ticks: self.ticks(), ns: self.os_ns as u64 }
    }
}

proptest! {
    /// Hours of reading at random moments under a steered operating system clock: the line stays near it, and is never distrusted.
    #[test]
    fn the_line_stays_with_the_operating_system(
        hz in 1_000_000_000u64..5_000_000_000,
        steps in proptest::collection::vec((1u64..30_000_000, -500_000.0f64..500_000.0), 1..40),
        gaps in proptest::collection::vec(1u64..3_600_000_000_000, 0..4),
    ) {
        let mut machine = Machine { hz, true_ns: 1, os_ns: 5e9, ppb: 0.0 };
        let from = machine.pair();
        machine.pass(CALIBRATE_NS);
        let mut line = Line::through(from, machine.pair()).unwrap();
        for (step_ns, ppb) in steps {
            machine.ppb = ppb;
            for _ in 0..300 {
                machine.pass(step_ns);
                match line.at(machine.ticks()) {
                    // At most 1/1000 off (the rate just changed from one end to the other), over at most 10 ms.
                    Some(ns) => prop_assert!(ns.abs_diff(machine.os_ns as u64) <= 10_100, "{} ns off", ns.abs_diff(machine.os_ns as u64)),
                    None => prop_assert!(line.follow(machine.pair(), true)),
                }
            }
        }
        // A core that slept for an hour.
        for gap_ns in gaps {
            machine.pass(gap_ns);
            if line.at(machine.ticks()).is_none() {
                prop_assert!(line.follow(machine.pair(), true));
            }
            prop_assert!(line.at(machine.ticks()).unwrap().abs_diff(machine.os_ns as u64) <= 10_100);
        }
    }
}

#[test]
fn a_steady_machine_is_followed_to_the_microsecond() {
    let mut machine = Machine { hz: 2_899_999_321, true_ns: 1, os_ns: 5e9, ppb: 40_000.0 };
    let from = machine.pair();
    machine.pass(CALIBRATE_NS);
    let mut line = Line::through(from, machine.pair()).unwrap();
    let mut worst_ns = 0;
    // Ten hours in steps of 7.3 ms.
    for _ in 0..5_000_000 {
        machine.pass(7_300_000);
        match line.at(machine.ticks()) {
            Some(ns) => worst_ns = worst_ns.max(ns.abs_diff(machine.os_ns as u64)),
            None => assert!(line.follow(machine.pair(), true)),
        }
    }
    assert!(worst_ns < 1_000, "{worst_ns} ns");
}

#[test]
fn a_counter_that_changes_its_rate_or_goes_back_is_not_trusted() {
    let start = Line::through(Pair { ticks: 0, ns: 0 }, Pair { ticks: 60_000_000, ns: 20_000_000 }).unwrap();
    let second = NS_PER_SEC + 20_000_000;
    let mut line = start;
    assert!(line.follow(Pair { ticks: 60_000_000 + 3_001_000_000, ns: second }, true), "a third of a part in 1000 is NTP's");
    let mut line = start;
    assert!(!line.follow(Pair { ticks: 60_000_000 + 2_000_000_000, ns: second }, true));
    let mut line = start;
    assert!(line.follow(Pair { ticks: 60_000_000 + 2_000_000_000, ns: second }, false), "an interrupted reading proves nothing");
    let mut line = start;
    assert_eq!(line.at(59_999_999), None);
    assert!(!line.follow(Pair { ticks: 59_999_999, ns: second }, true));
    assert!(Line::through(Pair { ticks: 5, ns: 0 }, Pair { ticks: 5, ns: 20_000_000 }).is_none(), "a counter that stands still");
}

#[test]
fn readings_never_go_back_and_lie_between_those_of_the_kernel() {
    let clock = TscClock::new();
    println!("time-stamp counter: {}", clock.uses_counter());
    let mut last_ns = 0;
    let mut off_ns = 0;
    let end_ns = sys::monotonic_ns() + 700_000_000;
    while last_ns < end_ns {
        let before_ns = sys::monotonic_ns();
        let now_ns = clock.now_ns();
        let after_ns = sys::monotonic_ns();
        assert!(now_ns >= last_ns);
        last_ns = now_ns;
        off_ns = off_ns.max(before_ns.saturating_sub(now_ns)).max(now_ns.saturating_sub(after_ns));
    }
    // The epoch is that of CLOCK_MONOTONIC; how near the readings are is printed, not judged, as machines stall.
    println!("at most {off_ns} ns outside the kernel's readings");
    assert!(off_ns < NS_PER_SEC);
}

#[test]
fn clones_and_other_threads_agree() {
    fn is_send<T: Send>(_: &T) {}
    let clock = TscClock::new();
    is_send(&clock);
    let first_ns = clock.now_ns();
    let other = clock.clone();
    let second_ns = std::thread::spawn(move || other.now_ns()).join().unwrap();
    assert!(second_ns.abs_diff(first_ns) < 60 * NS_PER_SEC);
}

#[test]
fn wall_clock_time_is_that_of_the_kernel() {
    let clock = TscClock::new();
    let before_ns = sys::unix_ns();
    let unix_ns = clock.unix_ns_at(clock.now_ns());
    assert!(unix_ns.abs_diff(before_ns) < 60 * NS_PER_SEC);
    // An hour on is an hour on.
    let at_ns = clock.now_ns();
    let hour_ns = 3_600 * NS_PER_SEC;
    assert!((clock.unix_ns_at(at_ns + hour_ns) - clock.unix_ns_at(at_ns)).abs_diff(hour_ns) < 60 * NS_PER_SEC);
}
