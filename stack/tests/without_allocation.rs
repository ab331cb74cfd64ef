//! Once it runs, our own stack allocates nothing: neither for what it sends, nor for what comes in, nor for what is garbage.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use stack::host::{FlowSpec, Host};
use stack::host_port::{StackConfig, StackHost};
use stack::iface::IfaceConfig;
use stack::port::Port;
use stack::tcp::TcpConfig;
use stack::wire::{SimPort, SimPortConfig, Wire, WireConfig, WirePool, sim_ports};

/// Counts the allocations of each thread.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: every call is passed on to the system's allocator as it came; counting touches a thread-local that needs no allocation.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller keeps to the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps to the contract of `dealloc`, and `ptr` came from the system's allocator.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

const MS: u64 = 1_000_000;
const OURS: [u8; 6] = [2, 0, 0, 0, 0, 1];
const PEER: [u8; 6] = [2, 0, 0, 0, 0, 2];

fn say(peer: &mut SimPort, now_ns: u64, parts: &[&[u8]]) {
    let frame = peer.frame().unwrap();
    let mut at = 0;
    for part in parts {
        frame[at..at + part.len()].copy_from_slice(part);
        at += part.len();
    }
    peer.commit(at.max(60));
    peer.flush(now_ns);
}

/// An ARP request of a neighbour with these last bytes.
fn ask(peer: &mut SimPort, now_ns: u64, a: u8, b: u8) {
    let mac = [2, 9, 0, 0, a, b];
    say(peer, now_ns, &[&[0xff; 6], &mac, &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1], &mac, &[10, 0, a, b], &[0; 6], &[10, 0, 0, 1]]);
}

#[test]
fn nothing_is_allocated_after_start() {
    let wire = |seed| Wire::new(WireConfig::default(), WirePool::default(), seed);
    let port = |mac| SimPortConfig { mac, tx_frames: 1024, ..SimPortConfig::default() };
    let (ours, mut peer, _) = sim_ports(port(OURS), port(PEER), wire(1), wire(2));
    let iface = IfaceConfig { addresses: vec!["10.0.0.1/8".parse().unwrap()], neighbours_max: 512, ..IfaceConfig::default() };
    let mut host = StackHost::new(StackConfig { iface, tcp: TcpConfig::default(), ..StackConfig::default() }, ours, None, 1, 0);
    let open = |host: &mut StackHost<SimPort>, remote: &str| {
        host.open_flow(FlowSpec { local_port: 0, local_addr: None, remote: remote.parse().unwrap() }).unwrap()
    };
    let (near, dead) = (open(&mut host, "10.0.0.2:5004"), open(&mut host, "10.0.0.3:5004"));
    let mut start = 0;
    for turn in 0..20_000_u64 {
        // The first turns fill what is filled lazily: queues and tables reach their full size.
        if turn == 4_000 {
            start = ALLOCATIONS.with(Cell::get);
        }
        let now_ns = turn * MS;
        let [.., a, b] = turn.to_be_bytes();
        ask(&mut peer, now_ns, 0, 2);
        for c in 0..8 {
            ask(&mut peer, now_ns, a ^ c, b);
        }
        say(&mut peer, now_ns, &[&OURS, &PEER, &[8, 0, 0x45, 0, 0, 40], &turn.to_be_bytes(), &[10, 0, 0, 2, 10, 0, 0, 1]]);
        say(&mut peer, now_ns, &[&OURS, &PEER, &[0x86, 0xdd], &turn.to_be_bytes()]);
        host.receive(now_ns, 64, &mut |_, _| {});
        for flow in [near, dead] {
            host.datagram(flow).unwrap().fill(7);
            host.commit(1400);
        }
        assert_eq!(host.flush(now_ns).done, 2);
        host.flush_streams(now_ns);
        peer.receive(now_ns, 1024, &mut |_| {});
    }
    let allocations = ALLOCATIONS.with(Cell::get) - start;
    let (port, iface, _) = host.layers();
    assert!(port.tx_frames > 20_000 && iface.neighbours_evicted > 10_000, "{port:?} {iface:?}");
    assert_eq!(allocations, 0);
}
