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

/// An IPv4 packet to a group in a frame; `first` has its version and the length of its header, of which options are in the payload.
fn to_group(group: [u8; 4], first: u8, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![first, 0, 0, 20 + payload.len() as u8, 0, 0, 0, 0, 1, protocol, 0, 0, 10, 0, 0, 2];
    packet.extend(group);
    packet.extend(payload);
    let header = usize::from(first & 15) * 4;
    let mut sum: u32 = packet[..header].chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    sum = (sum & 0xffff) + (sum >> 16);
    packet[10..12].copy_from_slice(&(!(sum as u16)).to_be_bytes());
    [&[1, 0, 0x5e, group[1] & 0x7f, group[2], group[3]][..], &PEER, &[8, 0], &packet].concat()
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
    let group = host.listen("239.1.2.3:9500".parse().unwrap()).unwrap();
    let (stream, query) = (to_group([239, 1, 2, 3], 0x45, 17, &[0x13, 0x8c, 0x25, 0x1c, 0, 12, 0, 0, 1, 2, 3, 4]), {
        // Who listens? In a tenth of a second. The checksum is that of this message.
        let message = [0x94, 4, 0, 0, 0x11, 1, 0xec, 0x81, 0, 0, 0, 0, 2, 125, 0, 0];
        to_group([224, 0, 0, 1], 0x46, 2, &message)
    });
    let (mut start, mut streamed) = (0, 0);
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
        if turn % 64 == 0 {
            say(&mut peer, now_ns, &[&query]);
        }
        say(&mut peer, now_ns, &[&stream]);
        host.receive(now_ns, 64, &mut |from, _| streamed += u64::from(from.local_port == group));
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
    assert_eq!((streamed, iface.rx_igmp), (20_000, 20_000_u64.div_ceil(64)));
    assert!(port.tx_frames > 20_000 && iface.neighbours_evicted > 10_000, "{port:?} {iface:?}");
    assert_eq!(allocations, 0);
}
