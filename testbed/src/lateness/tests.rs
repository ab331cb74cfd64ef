//! Synthetic traces whose lateness is known.

use super::meter::{Sample, Sink};
use super::{Meter, Record, Tally};

/// Milliseconds in nanoseconds.
const MS: u64 = 1_000_000;
const START_NS: u64 = 5_000_000_000;
const FRAME_NS: u64 = 40 * MS;
const PACKET_BYTES: u16 = 1400;

#[derive(Default)]
struct Heard {
    samples: Vec<Sample>,
    seconds: Vec<(u64, u64)>,
    tally: Tally,
}

impl Sink for Heard {
    fn sample(&mut self, sample: Sample) {
        self.tally.record(&sample);
        self.samples.push(sample);
    }

    fn second(&mut self, _start_ns: u64, own_bytes: u64, delivered_bytes: u64) {
        self.tally.rate.record(own_bytes, delivered_bytes);
        self.seconds.push((own_bytes, delivered_bytes));
    }
}

/// `frames` frames of `per_frame` packets at 25 frames per second; `late` gives each packet's lateness from (frame, place in the frame).
fn trace(frames: u64, per_frame: u64, even: bool, late: impl Fn(u64, u64) -> u64) -> Vec<Record> {
    let mut records = Vec::new();
    for frame in 0..frames {
        for place in 0..per_frame {
            let spread = if even { FRAME_NS * place / per_frame } else { 0 };
            records.push(Record {
                arrival_ns: START_NS + frame * FRAME_NS + spread + late(frame, place),
                // Starts shortly before the 32-bit wrap.
                timestamp: (0xffff_0000u32).wrapping_add(frame as u32 * 3600),
                seq: (65_000u16).wrapping_add((frame * per_frame + place) as u16),
                bytes: PACKET_BYTES,
            });
        }
    }
    records
}

fn judge(records: &[Record], drift_ppm: f64, block: usize) -> Heard {
    let mut meter = Meter::new(90_000, drift_ppm, 500 * MS, block);
    let (mut heard, mut points) = (Heard::default(), Vec::new());
    for &record in records {
        if meter.push(record) {
            meter.flush(&mut points, &mut heard);
        }
    }
    meter.restart(&mut points, &mut heard);
    heard
}

fn close(found: u64, expected: u64) -> bool {
    found.abs_diff(expected) <= 2_000
}

fn even(sample: &Sample) -> Option<u64> {
    sample.even_ns.map(|ns| ns.max(0) as u64)
}

#[test]
fn a_punctual_paced_stream_has_no_lateness() {
    for block in [100, 100_000] {
        let heard = judge(&trace(500, 7, true, |_, _| 0), 0.0, block);
        let (packet, is_even) = heard.tally.packet();
        assert!(is_even);
        assert!(packet.max() <= 2_000, "{}", packet.max());
        assert_eq!(heard.tally.frame.max(), 0);
        // All but the last frame, whose length nobody knows.
        assert_eq!(heard.samples.len(), 499 * 7);
        assert!(heard.seconds.len() >= 18);
        assert!((heard.tally.rate.conforming() - 1.0).abs() < 1e-9, "{:?}", heard.seconds);
    }
}

#[test]
fn a_punctual_burst_sender_is_judged_by_its_timestamps() {
    // Twenty packets, 10 us apart.
    let heard = judge(&trace(500, 20, false, |_, place| place * 10_000), 0.0, 100_000);
    let (packet, is_even) = heard.tally.packet();
    assert!(!is_even);
    assert!(packet.max() <= 191_000, "{}", packet.max());
    assert_eq!(heard.tally.frame.max(), 0);
    assert!((heard.tally.rate.conforming() - 1.0).abs() < 1e-9);
}

#[test]
fn known_lateness_is_found_packet_by_packet() {
    // Every fifth packet is 3 ms late, one packet 17 ms.
    let late = |frame: u64, place: u64| match (frame, place) {
        (200, 3) => 17 * MS,
        (f, p) if (f * 7 + p) % 5 == 0 => 3 * MS,
        _ => 0,
    };
    let heard = judge(&trace(500, 7, true, late), 0.0, 700);
    for (place, sample) in heard.samples.iter().enumerate() {
        let expected = late(place as u64 / 7, place as u64 % 7);
        assert!(close(even(sample).unwrap(), expected), "packet {place}: {sample:?} {expected}");
    }
    assert!(close(heard.samples.iter().map(|s| even(s).unwrap()).max().unwrap(), 17 * MS));
}

#[test]
fn a_constant_delay_is_invisible_and_a_head_start_does_not_set_the_line() {
    // The first ten frames come 300 ms early, all others with the same 80 ms of path delay.
    let records: Vec<Record> = trace(500, 7, true, |_, _| 380 * MS)
        .into_iter()
        .enumerate()
        .map(|(k, mut r)| {
            r.arrival_ns -= if k < 70 { 300 * MS } else { 0 };
            r
        })
        .collect();
    let mut meter = Meter::new(90_000, 0.0, 500 * MS, 10_000);
    let (mut heard, mut points) = (Heard::default(), Vec::new());
    for &record in &records {
        meter.push(record);
    }
    meter.flush(&mut points, &mut heard);
    assert!(heard.tally.even.max() <= 2_000);
    assert!(close(meter.head_start_ns(), 300 * MS), "{}", meter.head_start_ns());
}

#[test]
fn loss_neither_shifts_nor_invents_lateness() {
    let mut records = trace(500, 7, true, |frame, _| if frame == 300 { 5 * MS } else { 0 });
    // Packets in the middle, the first of a frame, the last of a frame, a whole frame.
    let gone = |k: usize| k == 703 || k == 777 || k == 783 || (840..847).contains(&k);
    let mut place = 0;
    records.retain(|_| {
        place += 1;
        !gone(place - 1)
    });
    let heard = judge(&records, 0.0, 500);
    let late: Vec<u64> = heard.samples.iter().filter_map(even).collect();
    assert!(late.iter().all(|&l| l <= 2_000 || close(l, 5 * MS)), "{:?}", late.iter().max());
    assert_eq!(late.iter().filter(|&&l| l > 2_000).count(), 7);
    // The seconds tell of the loss: ten packets of 3,500.
    let (own, delivered) = heard.seconds.iter().fold((0, 0), |sum, s| (sum.0 + s.0, sum.1 + s.1));
    assert_eq!((own - delivered) / u64::from(PACKET_BYTES), 10);
}

#[test]
fn reordered_packets_are_put_back() {
    let mut records = trace(500, 7, true, |_, _| 0);
    for pair in records.chunks_exact_mut(10) {
        let (a, b) = (pair[3].arrival_ns, pair[4].arrival_ns);
        pair.swap(3, 4);
        (pair[3].arrival_ns, pair[4].arrival_ns) = (a, b);
    }
    let heard = judge(&records, 0.0, 100_000);
    assert_eq!(heard.samples.len(), 499 * 7);
    // A swapped packet is early or late by one packet time.
    assert!(heard.tally.even.max() <= FRAME_NS / 7 * 2 + 10_000);
    assert!(heard.tally.even.value_at_quantile(0.5) <= FRAME_NS / 7 + 10_000);
}

#[test]
fn drift_is_lateness_unless_it_is_allowed() {
    let drifting = trace(2_500, 7, true, |frame, _| frame * FRAME_NS / 20_000);
    let strict = judge(&drifting, 0.0, 100_000);
    // 50 ppm of 100 s.
    assert!(strict.tally.even.max().abs_diff(5 * MS) < 50_000, "{}", strict.tally.even.max());
    let allowed = judge(&drifting, 100.0, 100_000);
    assert!(allowed.tally.even.max() < 20_000, "{}", allowed.tally.even.max());
    let beyond = judge(&drifting, 10.0, 100_000);
    assert!(beyond.tally.even.max() > 3 * MS, "{}", beyond.tally.even.max());
}

#[test]
fn b_frames_are_judged_in_decode_order() {
    // Decode order I P B B P B B: presentation is two frames later than decoding, timestamps go back and forth.
    let presentation = |frame: u64| match frame {
        0 => 0,
        f if f % 3 == 1 => f + 2,
        f => f - 1,
    };
    let mut records = trace(601, 5, true, |frame, _| if frame == 400 { 9 * MS } else { 0 });
    for (k, record) in records.iter_mut().enumerate() {
        record.timestamp = (presentation(k as u64 / 5) as u32 + 10) * 3600;
    }
    let heard = judge(&records, 0.0, 400);
    let late: Vec<u64> = heard.samples.iter().filter_map(even).collect();
    assert!(late.iter().all(|&l| l <= 2_000 || close(l, 9 * MS)), "{:?}", late.iter().max());
    assert_eq!(late.iter().filter(|&&l| l > 2_000).count(), 5);
}

#[test]
fn a_stalled_stream_shows_in_its_seconds() {
    // Everything of the seconds 8 to 10 arrives at the end of second 10.
    let heard = judge(
        &trace(500, 7, true, |frame, place| {
            let at = frame * FRAME_NS + FRAME_NS * place / 7;
            if (8_000 * MS..10_000 * MS).contains(&at) { 10_000 * MS - at } else { 0 }
        }),
        0.0,
        100_000,
    );
    assert_eq!(heard.tally.rate.spread()[0], 0);
    assert_eq!(heard.seconds.iter().filter(|s| s.1 == 0).count(), 2);
    assert_eq!(heard.tally.rate.spread()[3], 300);
}

#[test]
fn any_input_is_survived() {
    use proptest::prelude::*;
    proptest!(|(input in proptest::collection::vec((any::<u32>(), any::<u16>(), any::<u16>(), 0u64..1 << 40), 0..400), hz in any::<u32>(), ppm in 0.0f64..1e6)| {
        let mut meter = Meter::new(hz, ppm, 0, 64);
        let (mut heard, mut points) = (Heard::default(), Vec::new());
        for (timestamp, seq, bytes, arrival_ns) in input {
            if meter.push(Record { arrival_ns, timestamp, seq, bytes }) {
                meter.flush(&mut points, &mut heard);
            }
        }
        meter.restart(&mut points, &mut heard);
        meter.restart(&mut points, &mut heard);
    });
}
