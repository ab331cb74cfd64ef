//! What the parts of a polling turn that live in this package cost: a reading of the clock, and a release of the wheel (streams of
//! packets, each released and put back one packet time later).
//!
//! `cargo run -p pacing --release --example wheel_bench`

use std::hint::black_box;
use std::time::Instant;

use pacing::{Clock, TscClock, Wheel};

const TICK_NS: u64 = 32_768;
/// Packet time of a 1.4 Mbps stream in packets of 1,400 bytes.
const PACKET_NS: u64 = 8_000_000;
/// A polling core looks at its wheel about this often.
const TURN_NS: u64 = 5_000;

fn main() {
    let clock = TscClock::new();
    let readings = 10_000_000u64;
    let started = Instant::now();
    for _ in 0..readings {
        black_box(clock.now_ns());
    }
    let per_reading = started.elapsed().as_nanos() as f64 / readings as f64;
    println!("clock: {per_reading:.1} ns/reading ({})", if clock.uses_counter() { "time-stamp counter" } else { "CLOCK_MONOTONIC" });

    println!("{:>8}  {:>12}  {:>12}  {:>12}  {:>12}", "keys", "ns/release", "ns/idle pop", "ns/move", "ns/far timer");
    for keys in [100u32, 1_000, 10_000, 50_000, 100_000] {
        let mut wheel = Wheel::new(keys, TICK_NS, 0);
        let mut random = 0x9e37_79b9_7f4a_7c15u64;
        let mut next = move || {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random
        };
        for key in 0..keys {
            wheel.schedule(key, next() % PACKET_NS);
        }

        let releases = 10_000_000u64.min(u64::from(keys) * 5_000);
        let (mut now_ns, mut released) = (0, 0);
        let started = Instant::now();
        while released < releases {
            now_ns = wheel.next_due_ns().unwrap_or(now_ns).max(now_ns);
            while let Some((key, due_ns)) = wheel.pop_due(now_ns) {
                wheel.schedule(key, due_ns + PACKET_NS);
                released += 1;
            }
        }
        let per_release = started.elapsed().as_nanos() as f64 / released as f64;

        // Polls between two ticks: nothing is due.
        let polls = 10_000_000u64;
        let started = Instant::now();
        for poll in 0..polls {
            black_box(wheel.pop_due(black_box(now_ns + poll % TURN_NS)));
        }
        let per_idle_pop = started.elapsed().as_nanos() as f64 / polls as f64;

        let moves = 10_000_000u64;
        let started = Instant::now();
        for _ in 0..moves {
            let random = next();
            wheel.schedule((random >> 32) as u32 % keys, now_ns + (random & 0x00ff_ffff));
        }
        let per_move = started.elapsed().as_nanos() as f64 / moves as f64;

        // Timers of many minutes: set, moved down level by level, released.
        let rounds = 2_000_000 / keys;
        let started = Instant::now();
        for _ in 0..rounds {
            for key in 0..keys {
                wheel.schedule(key, now_ns + 1_800_000_000_000 + next() % 1_000_000_000);
            }
            while let Some(next_ns) = wheel.next_due_ns() {
                now_ns = now_ns.max(next_ns);
                while wheel.pop_due(now_ns).is_some() {}
            }
        }
        let per_far_timer = started.elapsed().as_nanos() as f64 / f64::from(rounds * keys);
        println!("{keys:>8}  {per_release:>12.1}  {per_idle_pop:>12.1}  {per_move:>12.1}  {per_far_timer:>12.1}");
    }
}
