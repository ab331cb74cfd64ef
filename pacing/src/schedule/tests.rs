use proptest::prelude::*;

use super::*;

/// The definition, in numbers wide enough for everything.
fn exact_floor(units: i64, from: u32, to: u64) -> i128 {
    (i128::from(units) * i128::from(to)).div_euclid(i128::from(from))
}

fn clamp(value: i128) -> i64 {
    value.clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn conversions_equal_their_definition(units in any::<i64>(), from in 1u32.., to in any::<u32>()) {
        prop_assert_eq!(rescale_floor(units, from, to), clamp(exact_floor(units, from, to.into())));
        let doubled = (2 * i128::from(units) * i128::from(to) + i128::from(from - from % 2)).div_euclid(2 * i128::from(from));
        prop_assert_eq!(rescale_nearest(units, from, to), clamp(doubled));
        prop_assert_eq!(ticks_to_ns(units, from), clamp(exact_floor(units, from, NS_PER_SEC)));
        prop_assert_eq!(ns_to_ticks(units, to), clamp((i128::from(units) * i128::from(to)).div_euclid(i128::from(NS_PER_SEC))));
    }

    /// A player that converts an RTP time back into the track's time scale finds the sample's own time.
    #[test]
    fn a_faster_clock_and_back_is_the_same(seconds in -(1i64 << 32)..1 << 32, rest in 0i64..100_000, timescale in 1u32..100_000, faster in 0u32..100_000) {
        let (ticks, clock_rate) = (seconds * i64::from(timescale) + rest, timescale + faster);
        prop_assert_eq!(rescale_nearest(rescale_nearest(ticks, timescale, clock_rate), clock_rate, timescale), ticks);
        let via_ns = rescale_nearest(ticks_to_ns(ticks, timescale), NS_PER_SEC as u32, timescale);
        prop_assert_eq!(via_ns, ticks);
    }

    /// The sender report's RTP time and a packet's RTP time of the same moment differ by one unit at most.
    #[test]
    fn reports_and_packets_agree(seconds in -(1i64 << 32)..1 << 32, rest in 0i64..100_000, timescale in 1u32..100_000, clock_rate in 1_000u32..200_000, base in any::<u32>()) {
        let ticks = seconds * i64::from(timescale) + rest;
        let packet = rtp_timestamp(base, ticks, timescale, clock_rate);
        let report = base.wrapping_add(ns_to_rtp(ticks_to_ns(ticks, timescale), clock_rate));
        let apart = packet.wrapping_sub(report) as i32;
        prop_assert!(apart.abs() <= 1, "{} units apart", apart);
    }

    #[test]
    fn packets_are_spread_in_order_between_their_sample_and_the_next(
        anchor_ns in 0u64..1 << 62, start_s in 0i64..1 << 32, timescale in 1u32..200_000,
        samples in proptest::collection::vec((1u32..20_000, 1u32..3_000_000), 1..30), packet_bytes in 1u32..3_000,
    ) {
        let start_ticks = start_s * i64::from(timescale) + i64::from(timescale / 3);
        let start_dts_ns = ticks_to_ns(start_ticks, timescale);
        let mut dts_ticks = start_ticks;
        let mut last_ns = 0;
        for (duration_ticks, sample_bytes) in samples {
            let dts_ns = ticks_to_ns(dts_ticks, timescale);
            let next_ns = ticks_to_ns(dts_ticks + i64::from(duration_ticks), timescale);
            let duration_ns = next_ns.abs_diff(dts_ns);
            let steps = (sample_bytes / packet_bytes).min(300);
            for step in 0..=steps {
                let offset = (u64::from(step) * u64::from(sample_bytes - 1) / u64::from(steps.max(1))) as u32;
                let due = due_ns(anchor_ns, dts_ns, start_dts_ns, duration_ns, offset, sample_bytes);
                prop_assert!(due >= anchor_ns);
                prop_assert!(due >= last_ns, "{} before {}", due, last_ns);
                prop_assert!(due < anchor_ns + next_ns.abs_diff(start_dts_ns));
                // Evenly: within one nanosecond of the byte's share.
                let share = f64::from(offset) / f64::from(sample_bytes) * duration_ns as f64;
                let into_ns = due - anchor_ns - dts_ns.abs_diff(start_dts_ns);
                prop_assert!((into_ns as f64 - share).abs() < 1.0 + share * 1e-9);
                last_ns = due;
            }
            dts_ticks += i64::from(duration_ticks);
        }
    }

    #[test]
    fn nothing_overflows(a in any::<u64>(), b in any::<i64>(), c in any::<i64>(), d in any::<u64>(), e in any::<u32>(), f in any::<u32>()) {
        let due = due_ns(a, b, c, d, e, f);
        prop_assert!(due >= a);
        rtp_timestamp(e, b, f, e);
        ns_to_rtp(b, f);
        rescale_nearest(b, 0, f);
    }
}

#[test]
fn thirty_hours_of_a_film_do_not_drift() {
    // 30000/1001 frames per second on a 90 kHz clock: frame n at exactly n * 3003.
    let frames = 30 * 3_600 * 30;
    for n in [1, 2, 999, frames] {
        assert_eq!(rtp_timestamp(7, n * 1001, 30_000, 90_000), 7u32.wrapping_add((n * 3003) as u32));
        assert_eq!(ticks_to_ns(n * 1001, 30_000), (i128::from(n) * 1001 * 1_000_000_000 / 30_000) as i64);
    }
}

#[test]
fn what_lies_before_the_start_is_due_at_the_anchor() {
    assert_eq!(due_ns(500, -40, 0, 20, 0, 10), 500);
    assert_eq!(due_ns(500, 0, 10, 20, 9, 10), 508);
    assert_eq!(due_ns(500, 10, 0, 0, 9, 10), 510);
    assert_eq!(due_ns(500, 10, 0, 20, 0, 0), 510);
}
