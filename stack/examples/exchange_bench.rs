//! What it costs that several cores share an interface: a frame that comes by the queue of its own core, one that is handed over, and one
//! that is taken over, over ports that are memory. Ends of frames are not looked at: what a stack does with them comes on top.
//!
//! `cargo run --release -p stack --example exchange_bench [frame bytes]`

use std::hint::black_box;
use std::os::fd::RawFd;
use std::time::Instant;

use stack::exchange::{ExchangePort, Wake, exchange};
use stack::iface::{Owners, PortBlock};
use stack::port::{Port, PortCounters};

const RTP: u16 = 6970;
const BURST: usize = 32;
const BURSTS_PER_ROUND: usize = 400;
const ROUNDS: usize = 201;

/// A port by which the same frame comes again and again, as often as is asked for in all.
struct Again {
    frame: Vec<u8>,
    left: usize,
}

impl Port for Again {
    fn mac(&self) -> [u8; 6] {
        [2, 0, 0, 0, 0, 1]
    }

    fn mtu_bytes(&self) -> usize {
        1500
    }

    fn frame_bytes(&self) -> usize {
        1518
    }

    fn receive(&mut self, _now_ns: u64, limit: usize, sink: &mut dyn FnMut(&[u8])) -> usize {
        let count = limit.min(self.left);
        self.left -= count;
        for _ in 0..count {
            sink(black_box(&self.frame));
        }
        count
    }

    fn frame(&mut self) -> Option<&mut [u8]> {
        None
    }

    fn commit(&mut self, _len: usize) {}

    fn flush(&mut self, _now_ns: u64) -> usize {
        0
    }

    fn queued(&self) -> usize {
        0
    }

    fn capacity(&self) -> usize {
        1
    }

    fn wait(&mut self, _timeout_ns: u64, _wake: RawFd) {}

    fn counters(&self) -> PortCounters {
        PortCounters::default()
    }
}

/// An IPv4 datagram, or a segment, to a port of ours.
fn frame(protocol: u8, port: u16, bytes: usize) -> Vec<u8> {
    let mut frame = vec![0; bytes.max(60)];
    let head = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0, 0x45, 0, 0, 46, 0, 0, 0x40, 0, 64, protocol, 0, 0, 10, 0, 0, 2, 10, 0, 0, 1];
    let [high, low] = port.to_be_bytes();
    frame[..34].copy_from_slice(&head);
    frame[34..38].copy_from_slice(&[0x1b, 0x58, high, low]);
    frame
}

/// Nanoseconds per frame of core `of`, which is asked for bursts until nothing comes.
fn ns(cores: &mut [ExchangePort<Again>], of: usize, frames: usize) -> f64 {
    let start = Instant::now();
    let mut taken = 0;
    while taken < frames {
        taken += cores[of].receive(0, BURST, &mut |frame| {
            black_box(frame);
        });
    }
    start.elapsed().as_nanos() as f64 / frames as f64
}

fn median(mut rounds: Vec<f64>) -> f64 {
    rounds.sort_by(f64::total_cmp);
    rounds[rounds.len() / 2]
}

fn main() {
    let bytes: usize = std::env::args().nth(1).map_or(60, |text| text.parse().expect("a number"));
    let owners = Owners::new(2, vec![PortBlock { first: RTP, per_core: 2 }], 1);
    let port = |frame: &Vec<u8>| (Again { frame: frame.clone(), left: 0 }, Box::new(|| ()) as Wake);
    println!("frames of {bytes} bytes, ns per frame, medians of {ROUNDS} rounds");
    for (what, frame) in [("UDP", frame(17, RTP, bytes)), ("TCP", frame(6, 554, bytes))] {
        let mut cores = exchange(vec![port(&frame), port(&frame)], &owners, BURST);
        // Which core the segment belongs to is for the owners to say.
        let owner = match owners.of(&frame) {
            stack::iface::Owner::Core(core) => core,
            _ => 0,
        };
        let (mut own, mut over, mut taken) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            cores[owner].port_mut().left = BURST * BURSTS_PER_ROUND;
            own.push(ns(&mut cores, owner, BURST * BURSTS_PER_ROUND));
            let (mut handing, mut taking) = (0.0, 0.0);
            for _ in 0..BURSTS_PER_ROUND {
                cores[1 - owner].port_mut().left = BURST;
                handing += ns(&mut cores, 1 - owner, BURST);
                taking += ns(&mut cores, owner, BURST);
            }
            over.push(handing / BURSTS_PER_ROUND as f64);
            taken.push(taking / BURSTS_PER_ROUND as f64);
        }
        assert_eq!(cores[1 - owner].exchanged().dropped, 0);
        println!("  {what}: own {:.1}, handed over {:.1}, taken over {:.1}", median(own), median(over), median(taken));
    }
}
