//! Once it is made, a TCP allocates and frees nothing: not for segments in or out, nor for connections that come and go.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::net::{IpAddr, SocketAddr};

use stack::tcp::{SegmentOut, SendOutcome, Tcp};

use super::bulk::config;
use super::link::{MS, Random, SECOND, ip};

/// Counts what each thread allocates and frees.
struct Counting;

thread_local! {
    static CALLS: Cell<usize> = const { Cell::new(0) };
}

fn count() {
    CALLS.with(|calls| calls.set(calls.get() + 1));
}

// SAFETY: every call is passed on to the system's allocator as it came; counting touches a thread-local that needs no allocation.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller keeps to the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        count();
        // SAFETY: the caller keeps to the contract of `dealloc`, and `ptr` came from the system's allocator.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// Frames from one side to the other, in memory of their own.
struct Pipe {
    frames: Vec<[u8; 1500]>,
    lens: Vec<usize>,
}

impl SegmentOut for Pipe {
    fn queued(&self) -> usize {
        self.lens.len()
    }

    fn segment(&mut self, _local: IpAddr, _remote: IpAddr, len: usize, fill: &mut dyn FnMut(&mut [u8])) -> SendOutcome {
        let Some(frame) = self.frames.get_mut(self.lens.len()) else { return SendOutcome::Full };
        fill(&mut frame[..len]);
        self.lens.push(len);
        SendOutcome::Sent
    }
}

#[test]
fn nothing_is_allocated_after_the_start() {
    let mut tcp = [Tcp::new(config(), 1, 0), Tcp::new(config(), 2, 0)];
    let listener = tcp[1].listen(SocketAddr::new(ip(1), 80), 8).unwrap();
    let mut pipe = Pipe { frames: vec![[0; 1500]; 32], lens: Vec::with_capacity(32) };
    let (mut random, mut buf) = (Random(5), [0; 4096]);
    let (mut now_ns, mut received, mut closed) = (0, 0, 0);
    let mut conns = [None; 2];
    let before = CALLS.with(Cell::get);
    while now_ns < 100 * SECOND {
        now_ns += MS;
        if conns[0].is_none() {
            conns[0] = tcp[0].connect(now_ns, SocketAddr::new(ip(0), 0), SocketAddr::new(ip(1), 80)).ok();
        }
        conns[1] = conns[1].or_else(|| tcp[1].accept(listener));
        for node in 0..2 {
            if let Some(id) = conns[node] {
                let _ = tcp[node].send(id, &[&buf[..random.below(4096) as usize]]);
                while let Ok(Some(len @ 1..)) = tcp[node].recv(id, &mut buf) {
                    received += len;
                }
            }
            while tcp[node].next_event().is_some() {}
        }
        if random.chance(0.005) {
            (0..2).filter_map(|node| conns[node].take().map(|id| (node, id))).for_each(|(node, id)| tcp[node].close(id));
            closed += 1;
        }
        for from in 0..2 {
            tcp[from].egress(now_ns, &mut pipe);
            for (frame, len) in pipe.frames.iter().zip(pipe.lens.drain(..)) {
                if !random.chance(0.02) {
                    tcp[1 - from].ingress(now_ns, ip(from), ip(1 - from), &frame[..len]);
                }
            }
        }
    }
    let calls = CALLS.with(Cell::get) - before;
    assert_eq!(calls, 0);
    let counters = tcp[0].counters();
    assert!(received > 10_000_000 && closed > 100 && counters.tx_retransmits > 100, "{received} bytes, {closed} closed, {counters:?}");
}
