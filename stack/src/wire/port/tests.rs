use super::*;
use crate::wire::{Probability, WirePool};

const GIGABIT: u64 = 1_000_000_000;
/// 1514 bytes and Ethernet's 24 at 1 Gbps.
const FULL_NS: u64 = 12_304;

fn ports(config: SimPortConfig, wire: WireConfig) -> (SimPort, SimPort, SimCable) {
    let new = |seed| Wire::new(wire, WirePool::default(), seed);
    sim_ports(config, SimPortConfig { mac: [2, 0, 0, 0, 0, 2], ..config }, new(1), new(2))
}

fn commit(port: &mut SimPort, count: usize, len: usize) -> usize {
    (0..count)
        .take_while(|n| {
            let Some(frame) = port.frame() else { return false };
            frame[0] = *n as u8;
            port.commit(len);
            true
        })
        .count()
}

fn received(port: &mut SimPort, now_ns: u64) -> Vec<u8> {
    let mut firsts = Vec::new();
    port.receive(now_ns, usize::MAX, &mut |frame| firsts.push(frame[0]));
    firsts
}

#[test]
fn the_interface_queue_drains_at_line_rate() {
    let wire = WireConfig { rate_bps: GIGABIT, delay_ns: 2_000_000, ..WireConfig::default() };
    let (mut a, mut b, cable) = ports(SimPortConfig { tx_frames: 10, ..SimPortConfig::default() }, wire);
    assert_eq!(commit(&mut a, 12, 1514), 10);
    assert_eq!((a.queued(), a.capacity(), a.counters().tx_full), (10, 10, 1));
    assert_eq!(cable.next_ns(), None, "nothing was flushed");
    assert_eq!(a.flush(0), 0);
    assert_eq!(cable.next_ns(), Some(FULL_NS));
    assert_eq!(a.flush(FULL_NS - 1), 0);
    assert_eq!(a.flush(FULL_NS), 1);
    assert_eq!((a.queued(), commit(&mut a, 5, 1514)), (9, 1));
    assert_eq!(a.flush(3 * FULL_NS), 2);
    assert_eq!(received(&mut b, 2_000_000 + FULL_NS - 1), []);
    assert_eq!(received(&mut b, 2_000_000 + FULL_NS), [0]);
    assert_eq!(received(&mut b, 2_000_000 + 3 * FULL_NS), [1, 2]);
    // The eleventh was flushed while others waited and leaves right behind them.
    assert_eq!(received(&mut b, 2_000_000 + 11 * FULL_NS), [3, 4, 5, 6, 7, 8, 9, 0]);
    assert_eq!(a.flush(1 << 40), 8);
    assert_eq!((a.queued(), cable.next_ns()), (0, None));
    let counters = a.counters();
    assert_eq!((counters.tx_frames, counters.tx_bytes, counters.tx_completed, counters.tx_calls), (11, 11 * 1514, 11, 2));
    assert_eq!((b.counters().rx_frames, b.counters().rx_bytes, b.counters().rx_dropped), (11, 11 * 1514, 0));
    assert_eq!(cable.counters(0).queue_frames_max, 0, "the port's queue stands before the wire's");
}

#[test]
fn a_faster_interface_fills_the_queue_of_the_path() {
    let wire = WireConfig { rate_bps: GIGABIT / 10, queue_frames: 4, ..WireConfig::default() };
    let (mut a, mut b, cable) = ports(SimPortConfig { line_rate_bps: GIGABIT, ..SimPortConfig::default() }, wire);
    commit(&mut a, 20, 1514);
    a.flush(0);
    assert_eq!(a.flush(20 * FULL_NS), 20, "the interface sent all");
    // In the time of 20 frames, those of the path: the first leaves at once, two more at its pace, and four wait.
    let mut got = received(&mut b, 1 << 40);
    assert_eq!(got.len() as u64 + cable.counters(0).dropped_queue, 20);
    assert_eq!(cable.counters(0).queue_frames_max, 4);
    got.dedup();
    assert_eq!(got[..5], [0, 1, 2, 3, 4]);
    assert_eq!(got.len(), 6);
}

#[test]
fn a_receiver_that_does_not_poll_loses_frames() {
    let (mut a, mut b, _) = ports(SimPortConfig { rx_frames: 3, ..SimPortConfig::default() }, WireConfig::default());
    commit(&mut a, 5, 60);
    a.flush(0);
    let mut firsts = Vec::new();
    assert_eq!(b.receive(0, 2, &mut |frame| firsts.push((frame[0], frame.len()))), 2);
    assert_eq!(firsts, [(0, 60), (1, 60)]);
    commit(&mut a, 1, 60);
    a.flush(0);
    assert_eq!(received(&mut b, 0), [2, 0]);
    assert_eq!(b.counters().rx_dropped, 2);
}

#[test]
fn misuse_is_harmless() {
    let (mut a, mut b, _) = ports(SimPortConfig { tx_frames: 2, ..SimPortConfig::default() }, WireConfig::default());
    a.commit(60);
    assert_eq!(a.queued(), 0, "no frame was open");
    assert_eq!(a.frame().map(|frame| frame.len()), Some(a.frame_bytes()));
    a.commit(usize::MAX);
    a.flush(5);
    // Time that goes back is taken as standing still.
    a.flush(3);
    let mut lens = Vec::new();
    b.receive(5, 9, &mut |frame| lens.push(frame.len()));
    assert_eq!(lens, [a.frame_bytes()]);
    let (mut none, _, _) = ports(SimPortConfig { tx_frames: 0, rx_frames: 0, ..SimPortConfig::default() }, WireConfig::default());
    assert!(none.frame().is_none());
    none.commit(1);
    assert_eq!((none.flush(0), none.queued(), none.receive(0, 1, &mut |_| {})), (0, 0, 0));
}

#[test]
fn a_seed_repeats_a_run_and_changes_take_effect() {
    let run = |seed| {
        let wire = WireConfig { rate_bps: GIGABIT, loss: Probability::new(0.3), ..WireConfig::default() };
        let new = |seed| Wire::new(wire, WirePool::default(), seed);
        let (mut a, mut b, cable) = sim_ports(SimPortConfig::default(), SimPortConfig::default(), new(seed), new(seed + 1));
        commit(&mut a, 100, 60);
        a.flush(0);
        let first = received(&mut b, 1_000_000);
        cable.reconfigure(0, 1_000_000, WireConfig { loss: Probability::ALWAYS, ..cable.config(0) });
        commit(&mut a, 56, 60);
        a.flush(1_000_000);
        assert_eq!(received(&mut b, 2_000_000), []);
        first
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
}

#[test]
fn both_directions_are_independent() {
    let (mut a, mut b, _) = ports(SimPortConfig::default(), WireConfig { rate_bps: GIGABIT, ..WireConfig::default() });
    for port in [&mut a, &mut b] {
        commit(port, 3, 1514);
        port.flush(0);
    }
    assert_eq!(received(&mut a, 3 * FULL_NS), [0, 1, 2]);
    assert_eq!(received(&mut b, 3 * FULL_NS), [0, 1, 2]);
    assert_ne!(a.mac(), b.mac());
}
