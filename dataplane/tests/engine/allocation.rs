//! Turns of the engine core allocate nothing and free nothing.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use dataplane::disks::sim::SimDiskConfig;

use super::stage::{Config, Film, MS, SECOND, Stage};

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

/// Calls of this thread that allocated or freed memory.
pub fn calls() -> usize {
    CALLS.with(Cell::get)
}

#[global_allocator]
static COUNTING: Counting = Counting;

#[test]
fn turns_allocate_and_free_nothing() {
    let mut config = Config { chunks: 4096, ..Config::default() };
    (config.core.sessions_max, config.core.tracks_max) = (64, 128);
    // So few reads at once that the simulated disk's table of them keeps its one node.
    config.disk = SimDiskConfig { depth: 8, ..config.disk };
    let mut stage = Stage::new(config);
    let films: Vec<Film> = (0..5).map(|i| Film::plain(i, 30, 4000 + 700 * i as u32)).collect();
    for session in 1..=50 {
        stage.play(session, &films[session as usize % films.len()]);
        stage.run_for(7 * MS);
    }
    stage.run_for(6 * SECOND);
    let (mut turns, mut packets) = (0u32, 0);
    let end_ns = stage.now() + 5 * SECOND;
    while stage.now() < end_ns {
        let before = calls();
        let turn = stage.core.turn();
        let calls = calls() - before;
        // The simulated host's own log grew to its size while it was warming up.
        stage.core.host_mut().take_sent(|_| packets += 1);
        assert!(calls == 0, "turn {turns} allocated or freed {calls} times");
        turns += 1;
        let next_ns = turn.next_ns.unwrap_or(u64::MAX).clamp(stage.now() + 1_000, stage.now() + MS / 2);
        stage.clock.advance_to(next_ns);
    }
    assert!(turns > 10_000 && packets > 20_000, "{turns} turns, {packets} packets");
    assert_eq!(stage.events.len(), 0);
}
