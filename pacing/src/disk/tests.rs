use proptest::prelude::*;

use super::*;

const MS: u64 = 1_000_000;

fn point(bytes: u32, depth: u16, bytes_per_s: u64, latency_p99_ns: u64) -> ProfilePoint {
    ProfilePoint { bytes, depth, bytes_per_s, latency_p50_ns: latency_p99_ns / 2, latency_p99_ns }
}

#[test]
fn reads_cost_what_was_measured_and_lie_between_it_elsewhere() {
    let profile = DiskProfile {
        points: vec![point(65_536, 1, 65_536_000, 2 * MS), point(262_144, 1, 131_072_000, 4 * MS), point(65_536, 8, 262_144_000, 3 * MS)],
    };
    assert_eq!(profile.read_ns(65_536, 1), MS);
    assert_eq!(profile.read_ns(262_144, 1), 2 * MS);
    assert_eq!(profile.read_ns((65_536 + 262_144) / 2, 4), MS + MS / 2);
    assert_eq!(profile.read_ns(4096, 1), MS, "no cheaper than the smallest that was measured");
    assert_eq!(profile.read_ns(524_288, 1), 4 * MS);
    assert_eq!(profile.read_ns(65_536, 32), MS / 4);
    assert!(profile.checked().is_some());
}

#[test]
fn the_depth_is_the_smallest_good_one_that_answers_in_time() {
    let points = vec![
        point(65_536, 1, 100 * MS, MS),
        point(65_536, 8, 390 * MS, 2 * MS),
        point(65_536, 16, 396 * MS, 5 * MS),
        point(65_536, 64, 400 * MS, 30 * MS),
    ];
    let profile = DiskProfile { points };
    assert_eq!(profile.depth_for(65_536, 100 * MS), 8);
    assert_eq!(profile.depth_for(60_000, 3 * MS), 8);
    assert_eq!(profile.depth_for(65_536, MS), 1);
    assert_eq!(profile.depth_for(65_536, 0), 1);
}

#[test]
fn profiles_that_cannot_be_true_are_refused() {
    for points in [
        vec![],
        vec![point(0, 1, 1 << 20, MS)],
        vec![point(4096, 0, 1 << 20, MS)],
        vec![point(4096, 1, 10, MS)],
        vec![point(4096, 1, u64::MAX, MS)],
    ] {
        assert_eq!(DiskProfile { points: points.clone() }.checked(), None, "{points:?}");
    }
    assert!(DiskProfile::unknown().checked().is_some());
    assert!(DiskProfile::default().read_ns(65_536, 4) > 10 * MS, "nothing known is taken for slow");
}

#[test]
fn what_does_not_fit_is_refused_and_fits_again_once_something_is_given_back() {
    // A read takes 5 ms, a cycle is a second, of which 80 % may be promised: 160 reads.
    let mut budget = DiskBudget::new(1000 * MS, 800, 5 * MS);
    let stream = Reads::of(24, 3000 * MS, 1000 * MS);
    assert_eq!(stream, Reads(8000));
    for _ in 0..20 {
        budget.reserve(stream).unwrap();
    }
    let refused = budget.reserve(Reads(1)).unwrap_err();
    assert_eq!(refused, OverCommitted { promised_permille: 800, asked_permille: 1, share_permille: 800 });
    assert!(refused.to_string().contains("80 % of at most 80 %"), "{refused}");
    budget.release(stream);
    budget.reserve(stream).unwrap();
    // The disk turns out to be slower: nobody is thrown out, nobody is let in.
    budget.observe(10 * MS);
    budget.release(stream);
    assert!(budget.reserve(stream).is_err());
    assert_eq!(budget.promised_permille(), 1520);
    // Or much faster, of which half is believed.
    budget.observe(1);
    assert_eq!(budget.read_ns(), 5 * MS / 2);
    budget.reserve(stream).unwrap();
}

#[test]
fn a_device_that_answers_late_gets_less_at_once_and_then_slowly_more() {
    // A device that takes 1 ms a read answers a queue of n in n ms.
    let mut control = DepthControl::new(64, 10 * MS);
    let mut depths = Vec::new();
    for _ in 0..2000 {
        control.answered(u64::from(control.depth()) * MS);
        depths.push(control.depth());
    }
    assert!(depths[1000..].iter().all(|depth| (6..=11).contains(depth)), "{:?}", &depths[1000..1040]);
    // It becomes ten times faster.
    for _ in 0..4000 {
        control.answered(u64::from(control.depth()) * MS / 10);
    }
    assert_eq!(control.depth(), 64);
    // And stops: one read at a time remains.
    for _ in 0..1000 {
        control.answered(u64::MAX);
    }
    assert_eq!(control.depth(), 1);
}

proptest! {
    #[test]
    fn costs_grow_with_size_and_promises_never_exceed_the_share(
        points in prop::collection::vec((1u32..1 << 22, 1u16..64, 1_000u64..1 << 36), 1..12),
        sizes in prop::collection::vec(1u32..1 << 23, 2..10),
        depth in 1u16..128,
        asks in prop::collection::vec((0u64..1000, 1u64..10_000_000_000, any::<bool>()), 1..50),
        share in 0u64..1000,
    ) {
        let points = points.into_iter().map(|(bytes, depth, rate)| point(bytes, depth, rate, MS)).collect();
        let profile = DiskProfile { points };
        for &size in &sizes {
            prop_assert!(profile.read_ns(size, depth) > 0 || size == 0);
        }
        prop_assert!(profile.depth_for(sizes[0], u64::MAX) >= 1);
        let mut budget = DiskBudget::new(500 * MS, share, profile.read_ns(65_536, depth));
        let mut held = Vec::new();
        for (blocks, window_ns, give_back) in asks {
            let reads = Reads::of(blocks, window_ns, budget.cycle_ns());
            if budget.reserve(reads).is_ok() {
                held.push(reads);
            }
            prop_assert!(budget.promised_permille() <= share);
            if give_back && let Some(reads) = held.pop() {
                budget.release(reads);
            }
        }
        for reads in held {
            budget.release(reads);
        }
        prop_assert_eq!(budget.promised_permille(), 0);
    }
}
