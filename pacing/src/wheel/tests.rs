use std::collections::{BTreeSet, HashMap};

use proptest::prelude::*;

use super::*;

/// The plain wheel: a sorted set.
#[derive(Default)]
struct Oracle {
    by_time: BTreeSet<(u64, u32)>,
    by_key: HashMap<u32, u64>,
    /// When each key's deadline was set: it cannot come before those that were due by then.
    set_at_ns: HashMap<u32, u64>,
}

impl Oracle {
    fn schedule(&mut self, key: u32, due_ns: u64, now_ns: u64) {
        self.cancel(key);
        self.set_at_ns.insert(key, now_ns);
        self.by_key.insert(key, due_ns);
        self.by_time.insert((due_ns, key));
    }

    fn cancel(&mut self, key: u32) -> Option<u64> {
        let due = self.by_key.remove(&key)?;
        self.by_time.remove(&(due, key));
        Some(due)
    }

    fn earliest(&self) -> Option<u64> {
        self.by_time.first().map(|&(due, _)| due)
    }
}

#[derive(Clone, Debug)]
enum Op {
    Schedule {
        key: u32,
        ahead_ns: u64,
    },
    SchedulePast {
        key: u32,
        behind_ns: u64,
    },
    Cancel {
        key: u32,
    },
    Advance {
        by_ns: u64,
    },
    /// Sleeps as a polling loop does: to what `next_due_ns` says.
    AdvanceToNext,
}

/// Durations of every order of magnitude, so that each level of the wheel is met.
fn duration() -> impl Strategy<Value = u64> {
    (0u32..46, any::<u64>()).prop_map(|(bits, raw)| raw & ((1 << bits) - 1))
}

fn op(keys: u32) -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (0..keys, duration()).prop_map(|(key, ahead_ns)| Op::Schedule { key, ahead_ns }),
        // Whole multiples of spans, where off-by-one errors live.
        2 => (0..keys, 0u64..3, 10u32..45).prop_map(|(key, n, bits)| Op::Schedule { key, ahead_ns: n << bits }),
        1 => (0..keys, duration()).prop_map(|(key, behind_ns)| Op::SchedulePast { key, behind_ns }),
        2 => (0..keys).prop_map(|key| Op::Cancel { key }),
        3 => duration().prop_map(|by_ns| Op::Advance { by_ns }),
        3 => Just(Op::AdvanceToNext),
    ]
}

/// Takes out all that is due and checks it: nothing early, nothing overdue left, earlier ticks first.
fn drain(wheel: &mut Wheel, oracle: &mut Oracle, now_ns: u64, tick_ns: u64, start_ns: u64) -> Result<usize, TestCaseError> {
    let mut last_tick = 0;
    let mut released = 0;
    while let Some((key, due_ns)) = wheel.pop_due(now_ns) {
        prop_assert_eq!(oracle.cancel(key), Some(due_ns), "key {}", key);
        prop_assert!(due_ns <= now_ns, "{} ns early", due_ns - now_ns);
        // What was past when it was set counts as due then.
        let set_at_ns = oracle.set_at_ns[&key];
        let tick = if due_ns <= set_at_ns { (set_at_ns - start_ns) / tick_ns } else { due_ns.saturating_sub(start_ns).div_ceil(tick_ns) };
        prop_assert!(tick >= last_tick, "tick {} after {}", tick, last_tick);
        last_tick = tick;
        released += 1;
    }
    if let Some(due_ns) = oracle.earliest() {
        prop_assert!(due_ns + tick_ns > now_ns, "{} ns late and still held", now_ns - due_ns);
    }
    prop_assert_eq!(wheel.len(), oracle.by_key.len());
    prop_assert_eq!(wheel.is_empty(), oracle.by_key.is_empty());
    Ok(released)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn random_use_equals_a_sorted_set(
        ops in proptest::collection::vec(op(40), 1..250), tick_bits in 0u32..18, start_ns in duration(),
    ) {
        let tick_ns = 1 << tick_bits;
        let mut wheel = Wheel::new(40, tick_ns, start_ns);
        let mut oracle = Oracle::default();
        let mut now_ns = start_ns;
        for op in ops {
            match op {
                Op::Schedule { key, ahead_ns } => {
                    wheel.schedule(key, now_ns + ahead_ns);
                    oracle.schedule(key, now_ns + ahead_ns, now_ns);
                }
                Op::SchedulePast { key, behind_ns } => {
                    let due_ns = now_ns.saturating_sub(behind_ns);
                    wheel.schedule(key, due_ns);
                    oracle.schedule(key, due_ns, now_ns);
                    // Past deadlines do not wait for the end of the tick, if the wheel has been told the time.
                    let held = wheel.next_due_ns().unwrap();
                    prop_assert!(held <= now_ns, "a past deadline waits {} ns", held - now_ns);
                }
                Op::Cancel { key } => {
                    wheel.cancel(key);
                    oracle.cancel(key);
                }
                Op::Advance { by_ns } => {
                    now_ns += by_ns;
                    drain(&mut wheel, &mut oracle, now_ns, tick_ns, start_ns)?;
                }
                Op::AdvanceToNext => {
                    let Some(next_ns) = wheel.next_due_ns() else {
                        prop_assert!(oracle.earliest().is_none());
                        continue;
                    };
                    let due_ns = oracle.earliest().unwrap();
                    prop_assert!(next_ns < due_ns.max(now_ns) + tick_ns, "told to sleep {} ns past a deadline", next_ns - due_ns);
                    let near = due_ns < now_ns + tick_ns * (NEAR_SLOTS as u64 - 1);
                    now_ns = now_ns.max(next_ns);
                    let released = drain(&mut wheel, &mut oracle, now_ns, tick_ns, start_ns)?;
                    prop_assert!(released > 0 || wheel.next_due_ns() > Some(now_ns), "no progress");
                    // The wheel may not know yet how late it is if this is the first call; after that the answer is exact.
                    if near && due_ns > start_ns {
                        prop_assert!(released > 0 || now_ns < due_ns);
                    }
                }
            }
            let known: Vec<u32> = oracle.by_key.keys().copied().collect();
            prop_assert_eq!(wheel.len(), known.len());
        }
        // Everything comes out in the end.
        for _ in 0..40 * FAR_LEVELS + 40 {
            let Some(next_ns) = wheel.next_due_ns() else { break };
            now_ns = now_ns.max(next_ns);
            drain(&mut wheel, &mut oracle, now_ns, tick_ns, start_ns)?;
        }
        prop_assert!(wheel.is_empty() && oracle.by_key.is_empty());
    }

    /// A stream's pattern: each released key comes back a short while later, for some simulated time, one tick at a time.
    #[test]
    fn periodic_keys_are_released_on_time(periods in proptest::collection::vec(1_000u64..400_000_000, 1..30), step_ns in 1_000u64..3_000_000) {
        let tick_ns = 32_768;
        let mut wheel = Wheel::new(periods.len() as u32, tick_ns, 0);
        for (key, &period_ns) in periods.iter().enumerate() {
            wheel.schedule(key as u32, period_ns);
        }
        let mut now_ns = 0;
        let mut next_ns = periods.clone();
        for _ in 0..2_000 {
            now_ns += step_ns;
            while let Some((key, due_ns)) = wheel.pop_due(now_ns) {
                prop_assert_eq!(due_ns, next_ns[key as usize]);
                prop_assert!(due_ns <= now_ns && now_ns < due_ns + step_ns + tick_ns);
                next_ns[key as usize] += periods[key as usize];
                wheel.schedule(key, next_ns[key as usize]);
            }
            prop_assert_eq!(wheel.len(), periods.len());
        }
    }
}

#[test]
fn a_deadline_is_neither_early_nor_a_tick_late() {
    let mut wheel = Wheel::new(4, 1024, 5_000);
    wheel.schedule(3, 5_000 + 1025);
    assert_eq!(wheel.next_due_ns(), Some(5_000 + 2048));
    assert_eq!(wheel.pop_due(5_000 + 2047), None);
    assert_eq!(wheel.pop_due(5_000 + 2048), Some((3, 5_000 + 1025)));
    assert_eq!((wheel.pop_due(u64::MAX / 4), wheel.next_due_ns()), (None, None));
}

#[test]
fn past_deadlines_are_due_at_once_and_after_older_ones() {
    let mut wheel = Wheel::new(4, 1024, 0);
    assert_eq!(wheel.pop_due(1_000_000), None);
    wheel.schedule(0, 999_999);
    wheel.schedule(1, 3);
    wheel.schedule(2, 1_000_000);
    let mut out: Vec<u32> = std::iter::from_fn(|| wheel.pop_due(1_000_000)).map(|(key, _)| key).collect();
    out.sort_unstable();
    assert_eq!(out, [0, 1, 2]);
}

#[test]
fn moving_a_deadline_leaves_one() {
    let mut wheel = Wheel::new(1, 1, 0);
    for due_ns in [10, 10_000_000_000, 5, 3_600_000_000_000, 7] {
        wheel.schedule(0, due_ns);
        assert_eq!(wheel.len(), 1);
    }
    assert_eq!(wheel.pop_due(u64::MAX), Some((0, 7)));
    assert_eq!(wheel.pop_due(u64::MAX), None);
}

#[test]
fn the_end_of_time_is_reached_without_overflow() {
    for tick_ns in [0, 1, 20_000, u64::MAX] {
        for start_ns in [0, 1 << 40, u64::MAX - 2_000_000_000, u64::MAX] {
            let mut wheel = Wheel::new(3, tick_ns, start_ns);
            wheel.schedule(0, u64::MAX);
            wheel.schedule(1, 0);
            wheel.schedule(2, start_ns.saturating_add(1_000_000_000));
            for _ in 0..100 {
                if let Some(next_ns) = wheel.next_due_ns() {
                    wheel.pop_due(next_ns);
                }
            }
            wheel.pop_due(u64::MAX);
            wheel.schedule(1, u64::MAX);
            wheel.cancel(1);
            assert!(wheel.len() <= 2, "tick {tick_ns}, start {start_ns}: {wheel:?}");
        }
    }
}
