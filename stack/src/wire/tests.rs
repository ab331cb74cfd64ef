use proptest::prelude::*;

use super::*;

const MILLISECOND: u64 = 1_000_000;
const SECOND: u64 = 1_000_000_000;

/// A frame as it came out: when, its number, its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Arrived {
    at_ns: u64,
    number: u32,
    bytes: Vec<u8>,
}

fn frame(number: u32, len: usize) -> Vec<u8> {
    let mut bytes = vec![0xA5; len.max(18)];
    bytes[14..18].copy_from_slice(&number.to_be_bytes());
    bytes
}

fn pop_all(wire: &mut Wire, until_ns: u64, arrived: &mut Vec<Arrived>) {
    while let Some(at_ns) = wire.next_ns().filter(|at_ns| *at_ns <= until_ns) {
        while let Some(bytes) = wire.pop(at_ns) {
            let number = u32::from_be_bytes([bytes[14], bytes[15], bytes[16], bytes[17]]);
            arrived.push(Arrived { at_ns, number, bytes: bytes.to_vec() });
        }
    }
}

/// Offers `count` frames of `len` bytes, one every `every_ns`, and runs to the end.
fn run(config: WireConfig, seed: u64, count: u32, len: usize, every_ns: u64) -> (Vec<Arrived>, Wire) {
    let mut wire = Wire::new(config, WirePool { frames: 8192, frame_bytes: 1514 }, seed);
    let mut arrived = Vec::new();
    for number in 0..count {
        let now_ns = u64::from(number) * every_ns;
        pop_all(&mut wire, now_ns, &mut arrived);
        wire.push(now_ns, &frame(number, len));
    }
    pop_all(&mut wire, u64::MAX, &mut arrived);
    let counters = wire.counters();
    let dropped = counters.dropped_queue + counters.dropped_pool + counters.dropped_too_long + counters.lost;
    assert_eq!(counters.in_frames + counters.duplicated, dropped + counters.out_frames, "{counters:?}");
    assert_eq!(arrived.len() as u64, counters.out_frames);
    (arrived, wire)
}

fn within(got: f64, wanted: f64, share: f64) {
    assert!((got - wanted).abs() <= wanted * share, "{got}, not within {share} of {wanted}");
}

#[test]
fn a_link_keeps_its_rate() {
    for (rate_bps, len) in [(50_000_000, 1514), (1_000_000_000, 1514), (1_000_000_000, 60), (10_000_000_000, 60), (1_234_567, 700)] {
        let config = WireConfig { rate_bps, queue_frames: 5000, ..WireConfig::default() };
        let (arrived, wire) = run(config, 1, 5000, len, 0);
        assert_eq!(arrived.len(), 5000);
        let bits = (len + ETHERNET_OVERHEAD_BYTES) as f64 * 8.0 * 5000.0;
        let took_ns = arrived.last().unwrap().at_ns;
        within(bits / (took_ns as f64 / 1e9), rate_bps as f64, 1e-6);
        assert_eq!(wire.counters().busy_ns, took_ns);
    }
}

#[test]
fn a_link_that_is_offered_more_carries_its_rate_and_drops_the_rest() {
    let config = WireConfig { rate_bps: 50_000_000, queue_bytes: 64 << 10, ..WireConfig::default() };
    // 100 Mbps of frames for 2 s.
    let every_ns = (1514 + 24) * 8 * 10;
    let count = (2 * SECOND / every_ns) as u32;
    let (arrived, wire) = run(config, 1, count, 1514, every_ns);
    let seconds = arrived.last().unwrap().at_ns as f64 / 1e9;
    within(arrived.len() as f64 * 1538.0 * 8.0 / seconds, 50e6, 0.01);
    let counters = wire.counters();
    assert_eq!(counters.dropped_queue, u64::from(count) - arrived.len() as u64);
    // The bound is 64 KiB, in whole frames.
    assert_eq!(counters.queue_frames_max, (64 << 10) / 1514);
    assert_eq!(counters.queue_bytes_max, (64 << 10) / 1514 * 1514);
    let full_ns = counters.queue_frames_max * (1514 + 24) * 8 * 20;
    assert!(counters.queue_delay_ns_max > full_ns - every_ns && counters.queue_delay_ns_max <= full_ns + every_ns * 2);
    assert_eq!(wire.queue_delay().max_ns(), counters.queue_delay_ns_max);
    assert!(wire.queue_delay().quantile_ns(0.5) > full_ns * 9 / 10, "the queue stands");
}

#[test]
fn a_queue_of_frames_is_bounded_and_zero_is_none() {
    for queue_frames in [0, 1, 7] {
        let config = WireConfig { rate_bps: 1_000_000, queue_frames, ..WireConfig::default() };
        let (arrived, wire) = run(config, 1, 100, 1000, 0);
        assert_eq!(arrived.len(), 1 + queue_frames);
        assert_eq!(wire.counters().queue_frames_max, queue_frames as u64);
    }
}

#[test]
fn delay_is_exact() {
    let config = WireConfig { rate_bps: 1_000_000_000, delay_ns: 2 * MILLISECOND, ..WireConfig::default() };
    let (arrived, wire) = run(config, 1, 1000, 1514, 100_000);
    assert_eq!(arrived.len(), 1000);
    for (number, frame) in (0..).zip(&arrived) {
        assert_eq!((frame.number, frame.at_ns), (number, u64::from(number) * 100_000 + 12_304 + 2 * MILLISECOND));
    }
    assert_eq!(wire.lateness().max_ns(), 0);
}

#[test]
fn popping_late_is_counted_and_shows_the_frames_all_the_same() {
    let mut wire = Wire::new(WireConfig { delay_ns: 100, ..WireConfig::default() }, WirePool::default(), 1);
    wire.push(0, &frame(0, 60));
    assert!(wire.pop(99).is_none());
    assert_eq!(wire.next_ns(), Some(100));
    assert!(wire.pop(150).is_some());
    assert_eq!(wire.lateness().max_ns(), 50);
    // A frame whose time of arrival lies before what was popped, as kernel timestamps have it.
    wire.push(120, &frame(1, 60));
    assert_eq!(wire.next_ns(), Some(220));
    assert!(wire.pop(220).is_some());
    assert_eq!(wire.lateness().max_ns(), 50);
}

#[test]
fn loss_is_as_asked() {
    for fraction in [0.01, 0.1, 0.5] {
        let (arrived, wire) = run(WireConfig { loss: Probability::new(fraction), ..WireConfig::default() }, 5, 500_000, 60, 1000);
        let lost = 1.0 - arrived.len() as f64 / 500_000.0;
        assert!((lost - fraction).abs() < 0.001, "{lost} of {fraction}");
        assert_eq!(wire.counters().lost, 500_000 - arrived.len() as u64);
        assert!(arrived.is_sorted_by_key(|frame| frame.number));
    }
    assert_eq!(run(WireConfig { loss: Probability::ALWAYS, ..WireConfig::default() }, 5, 1000, 60, 1000).0.len(), 0);
}

#[test]
fn a_lost_frame_has_used_the_line() {
    let config = WireConfig { rate_bps: 1_000_000_000, loss: Probability::new(0.5), queue_frames: 5000, ..WireConfig::default() };
    let (_, wire) = run(config, 1, 5000, 1514, 0);
    assert_eq!(wire.counters().busy_ns, 5000 * 12_304);
}

#[test]
fn bursts_have_their_length_and_share() {
    let bursts = Bursts { enter: Probability::new(0.01), leave: Probability::new(0.1), loss: Probability::ALWAYS };
    let (arrived, wire) = run(WireConfig { bursts: Some(bursts), ..WireConfig::default() }, 3, 1_000_000, 60, 1000);
    let lost = wire.counters().lost as f64;
    within(lost / 1e6, 0.01 / 0.11, 0.03);
    let gaps = arrived.windows(2).filter(|pair| pair[1].number > pair[0].number + 1).count();
    within(lost / gaps as f64, 10.0, 0.03);
    assert_eq!(wire.counters().lost_in_bursts, wire.counters().lost);
}

#[test]
fn jitter_spreads_arrivals_and_keeps_their_order() {
    for (kind, deviation) in [(JitterKind::Uniform, 1.0 / 3.0_f64.sqrt()), (JitterKind::Normal, 1.0)] {
        let jitter = Jitter { kind, amount_ns: MILLISECOND };
        let config = WireConfig { delay_ns: 10 * MILLISECOND, jitter, ..WireConfig::default() };
        // Far apart: nothing is held up by the frame before.
        let (arrived, _) = run(config, 1, 100_000, 60, 20 * MILLISECOND);
        let delays: Vec<f64> = (0_u64..).zip(&arrived).map(|(n, frame)| (frame.at_ns - n * 20 * MILLISECOND) as f64).collect();
        let mean = delays.iter().sum::<f64>() / delays.len() as f64;
        within(mean, 10.0 * MILLISECOND as f64, 0.01);
        let variance = delays.iter().map(|delay| (delay - mean).powi(2)).sum::<f64>() / delays.len() as f64;
        within(variance.sqrt(), deviation * MILLISECOND as f64, 0.01);
        // Close together.
        let (arrived, wire) = run(config, 1, 100_000, 60, MILLISECOND / 10);
        assert_eq!(arrived.len(), 100_000);
        assert!(arrived.windows(2).all(|pair| pair[0].number < pair[1].number && pair[0].at_ns <= pair[1].at_ns));
        assert_eq!(wire.counters().reordered, 0);
    }
    // More jitter than delay.
    let jitter = Jitter { kind: JitterKind::Normal, amount_ns: MILLISECOND };
    let (arrived, _) = run(WireConfig { jitter, ..WireConfig::default() }, 1, 1000, 60, 0);
    assert_eq!(arrived.len(), 1000);
}

#[test]
fn held_back_frames_are_overtaken() {
    let config = WireConfig { reordering: Probability::new(0.05), hold_back_ns: MILLISECOND, ..WireConfig::default() };
    let (arrived, wire) = run(config, 1, 200_000, 60, MILLISECOND / 10);
    let counters = wire.counters();
    within(counters.held_back as f64 / 200_000.0, 0.05, 0.02);
    // All but the last few have frames behind them that overtake, unless all ten of these are held back too.
    assert!(counters.held_back - counters.reordered < 5, "{counters:?}");
    let mut highest = 0;
    let mut late = 0;
    for frame in &arrived {
        late += u64::from(frame.number < highest);
        highest = highest.max(frame.number);
    }
    assert_eq!(late, counters.reordered);
    // The distance is the time held back, in frames; ten behind it arrives at the same moment.
    let (arrived, _) = run(WireConfig { reordering: Probability::new(0.0005), ..config }, 1, 10_000, 60, MILLISECOND / 10);
    let place = |number: u32| arrived.iter().position(|frame| frame.number == number).unwrap();
    let held = (0..10_000).find(|number| place(*number) != *number as usize).unwrap();
    assert_eq!(place(held), held as usize + 9);
}

#[test]
fn duplicates_come_twice_and_flipped_bits_are_one_each() {
    let config = WireConfig { duplication: Probability::new(0.1), corruption: Probability::new(0.2), ..WireConfig::default() };
    let (arrived, wire) = run(config, 1, 50_000, 100, 1000);
    let counters = wire.counters();
    within(counters.duplicated as f64 / 50_000.0, 0.1, 0.05);
    within(counters.corrupted as f64 / 50_000.0, 0.2, 0.05);
    assert_eq!(counters.reordered, 0, "a second copy is no reordering");
    let mut damaged = [0_usize; 100 * 8];
    for (index, pair) in arrived.windows(2).enumerate() {
        assert_eq!(pair[0].bytes[..HEADER_BYTES], frame(0, 100)[..HEADER_BYTES], "{index}: the header is spared");
    }
    let mut first_copies = arrived.clone();
    first_copies.dedup_by(|second, first| second.bytes == first.bytes && second.at_ns == first.at_ns);
    assert_eq!(first_copies.len(), 50_000);
    let mut flips = 0;
    for (number, got) in (0..).zip(&first_copies) {
        let sent = frame(number, 100);
        for (at, (a, b)) in sent.iter().zip(&got.bytes).enumerate() {
            for bit in (0..8).filter(|bit| ((a ^ b) >> bit) & 1 == 1) {
                damaged[at * 8 + bit] += 1;
                flips += 1;
            }
        }
    }
    assert_eq!(flips, counters.corrupted);
    assert!(damaged[HEADER_BYTES * 8..].iter().all(|count| *count > 0), "every bit behind the header is hit sometimes");
}

#[test]
fn settings_do_not_disturb_each_other() {
    let lossy = WireConfig { loss: Probability::new(0.1), ..WireConfig::default() };
    let numbers = |config, seed| run(config, seed, 10_000, 60, 100_000).0.iter().map(|frame| frame.number).collect::<Vec<_>>();
    let jitter = Jitter { kind: JitterKind::Normal, amount_ns: MILLISECOND };
    let lost = numbers(lossy, 9);
    assert!(lost == numbers(WireConfig { jitter, delay_ns: MILLISECOND, rate_bps: 1_000_000_000, ..lossy }, 9));
    assert!(lost != numbers(lossy, 10));
}

#[test]
fn what_the_pool_cannot_hold_is_dropped_and_told() {
    let config = WireConfig { delay_ns: SECOND, duplication: Probability::ALWAYS, ..WireConfig::default() };
    let mut wire = Wire::new(config, WirePool { frames: 3, frame_bytes: 100 }, 1);
    assert!(!wire.push(0, &[0; 101]));
    assert!(wire.push(0, &frame(0, 100)));
    assert!(wire.push(0, &frame(1, 100)));
    assert!(!wire.push(0, &frame(2, 100)));
    let counters = *wire.counters();
    assert_eq!((counters.dropped_too_long, counters.dropped_pool, counters.duplicated), (1, 1, 1));
    let mut arrived = Vec::new();
    pop_all(&mut wire, u64::MAX, &mut arrived);
    assert_eq!(arrived.iter().map(|frame| frame.number).collect::<Vec<_>>(), [0, 0, 1]);
    assert!(wire.push(2 * SECOND, &frame(2, 100)), "frames come back");
}

#[test]
fn settings_change_while_it_runs() {
    let config = WireConfig { rate_bps: 1_000_000_000, ..WireConfig::default() };
    let mut wire = Wire::new(config, WirePool::default(), 1);
    for number in 0..4 {
        wire.push(0, &frame(number, 1514));
    }
    // Two are sent or being sent; the other two go at a tenth of the rate.
    wire.reconfigure(12_304, WireConfig { rate_bps: 100_000_000, ..config });
    let mut arrived = Vec::new();
    pop_all(&mut wire, u64::MAX, &mut arrived);
    let times: Vec<u64> = arrived.iter().map(|frame| frame.at_ns).collect();
    assert_eq!(times, [12_304, 24_608, 147_648, 270_688]);
    // A shorter delay does not let frames overtake.
    wire.reconfigure(SECOND, WireConfig { delay_ns: MILLISECOND, ..WireConfig::default() });
    wire.push(SECOND, &frame(4, 60));
    wire.reconfigure(SECOND, WireConfig::default());
    wire.push(SECOND, &frame(5, 60));
    arrived.clear();
    pop_all(&mut wire, u64::MAX, &mut arrived);
    assert_eq!(arrived.iter().map(|frame| (frame.at_ns - SECOND, frame.number)).collect::<Vec<_>>(), [(MILLISECOND, 4), (MILLISECOND, 5)]);
}

/// What a link without chance does, computed in the plainest way: every frame's times in a list.
fn oracle(config: &WireConfig, pushes: &[(u64, usize)]) -> Vec<(u64, u32)> {
    let mut out: Vec<(u64, u32)> = Vec::new();
    // Start and end of sending and length of each frame that was accepted.
    let mut sent: Vec<(u64, u64, usize)> = Vec::new();
    let (mut busy_since_ns, mut busy_bytes) = (0, 0_u128);
    for (number, &(now_ns, len)) in (0..).zip(pushes) {
        let end_ns = sent.last().map_or(0, |last| last.1);
        let waiting: Vec<usize> = sent.iter().filter(|one| one.0 > now_ns).map(|one| one.2).collect();
        let full = waiting.len() + 1 > config.queue_frames || waiting.iter().sum::<usize>() + len > config.queue_bytes;
        if full && end_ns > now_ns {
            continue;
        }
        if end_ns < now_ns {
            (busy_since_ns, busy_bytes) = (now_ns, 0);
        }
        busy_bytes += (len.max(ETHERNET_FRAME_BYTES_MIN) + config.overhead_bytes) as u128;
        let busy_ns = (busy_bytes * 8_000_000_000 / u128::from(config.rate_bps)) as u64;
        sent.push((end_ns.max(now_ns), busy_since_ns + busy_ns, len));
        out.push((busy_since_ns + busy_ns + config.delay_ns, number));
    }
    out
}

proptest! {
    #[test]
    fn without_chance_it_does_what_a_plain_list_does(
        rate_bps in 1_000_000_u64..3_000_000_000,
        queue_frames in 0_usize..20,
        queue_bytes in 0_usize..20_000,
        delay_ns in 0_u64..100_000,
        overhead_bytes in 0_usize..40,
        steps in prop::collection::vec((0_u64..40_000, 18_usize..1514), 1..100),
    ) {
        let config = WireConfig { rate_bps, queue_frames, queue_bytes, delay_ns, overhead_bytes, ..WireConfig::default() };
        let mut now_ns = 0;
        let pushes: Vec<(u64, usize)> = steps.into_iter().map(|(after_ns, len)| { now_ns += after_ns; (now_ns, len) }).collect();
        let mut wire = Wire::new(config, WirePool { frames: 100, frame_bytes: 1514 }, 1);
        let mut arrived = Vec::new();
        for (number, &(now_ns, len)) in (0..).zip(&pushes) {
            pop_all(&mut wire, now_ns, &mut arrived);
            wire.push(now_ns, &frame(number, len));
        }
        pop_all(&mut wire, u64::MAX, &mut arrived);
        let got: Vec<(u64, u32)> = arrived.iter().map(|frame| (frame.at_ns, frame.number)).collect();
        prop_assert_eq!(got, oracle(&config, &pushes));
    }

    #[test]
    fn whatever_is_asked_frames_are_accounted_for_and_runs_repeat(
        seed: u64,
        rate_bps in prop_oneof![Just(0), 1_000_000_u64..1_000_000_000],
        chances in prop::array::uniform7(0.0..1.0_f64),
        delay_ns in 0..MILLISECOND,
        amount_ns in 0..2 * MILLISECOND,
        normal: bool,
        every_ns in 0_u64..100_000,
    ) {
        let [loss, reordering, duplication, corruption, enter, leave, burst] = chances.map(Probability::new);
        let kind = if normal { JitterKind::Normal } else { JitterKind::Uniform };
        let bursts = Some(Bursts { enter, leave, loss: burst });
        let jitter = Jitter { kind, amount_ns };
        let base = WireConfig { rate_bps, delay_ns, jitter, loss, reordering, duplication, corruption, bursts, ..WireConfig::default() };
        let (arrived, wire) = run(base, seed, 300, 200, every_ns);
        prop_assert!(arrived.is_sorted_by_key(|frame| frame.at_ns));
        prop_assert_eq!(wire.next_ns(), None);
        prop_assert_eq!(&run(base, seed, 300, 200, every_ns).0, &arrived);
    }
}
