//! What a packet costs on its way through a turn: 1,000 sessions over a simulated network and disk, in simulated time, on one core.
//!
//! `cargo run --release -p dataplane --example turn_bench [SESSIONS [SECONDS]]`; under `perf stat -e instructions:u` with 0 seconds and with
//! some, the difference divided by the packets is the cost of one.

#[allow(dead_code, reason = "the tests use the rest of it")]
#[path = "../tests/engine/stage.rs"]
mod stage;

use std::time::{Duration, Instant};

use dataplane::disks::sim::SimDiskConfig;
use stage::{Config, Film, MS, SECOND, Stage};

fn main() {
    let mut args = std::env::args().skip(1).map_while(|arg| arg.parse::<u64>().ok());
    let (sessions, seconds) = (args.next().unwrap_or(1000), args.next().unwrap_or(20));
    let mut config = Config { chunks: 64 * sessions as usize, ..Config::default() };
    (config.core.sessions_max, config.core.tracks_max, config.host.flows_max) = (sessions as u32, 2 * sessions as u32, 4 * sessions as u32);
    config.disk = SimDiskConfig { lanes: 32, depth: 64, ..config.disk };
    config.events = 1 << 16;
    let mut stage = Stage::new(config);
    // 1.4 Mbit/s: 25 pictures of 6,600 bytes and 50 frames of sound of 200 bytes a second.
    let films: Vec<Film> = (0..20).map(|id| Film::plain(id, (20 + seconds) as i64, 6600)).collect();
    for session in 0..sessions {
        stage.play(session, &films[(session % 20) as usize]);
        stage.run_for(MS);
        stage.sent.clear();
    }
    let end_ns = stage.now() + seconds * SECOND;
    let (mut turns, mut packets, mut spent) = (0u64, 0u64, Duration::ZERO);
    while stage.now() < end_ns {
        let before = Instant::now();
        let turn = stage.core.turn();
        spent += before.elapsed();
        turns += 1;
        stage.core.host_mut().take_sent(|_| packets += 1);
        stage.clock.advance_to(turn.next_ns.unwrap_or(u64::MAX).clamp(stage.now() + 1_000, stage.now() + MS / 2));
    }
    let each_ns = spent.as_nanos() as f64 / packets.max(1) as f64;
    println!("{sessions} sessions, {turns} turns, {packets} packets: {each_ns:.0} ns a packet within the turns");
}
