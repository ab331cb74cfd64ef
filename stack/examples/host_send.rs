//! CPU time per datagram of the kernel host over loopback: `cargo run -p stack --release --example host_send [packets]`.
//!
//! System time includes what the kernel does for the receiver in the same call (loopback delivers at once). The receiver counts what
//! arrived on a thread of its own; it need not keep up, and what it misses costs the sender less than what it gets: read the figures as
//! loopback figures.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use stack::host::{FlowId, FlowSpec, Host};
use stack::kernel::{KernelConfig, KernelHost};

const PAYLOAD_BYTES: usize = 1400;
/// The machine may be busy with other things: each case is measured this often, in turns with the others.
const ROUNDS: usize = 7;

/// User and system time of this thread.
fn cpu() -> (Duration, Duration) {
    // SAFETY: rusage is plain integers, so all zero is valid; the kernel fills it.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_THREAD, &raw mut usage);
        usage
    };
    let time = |t: libc::timeval| Duration::from_secs(t.tv_sec.cast_unsigned()) + Duration::from_micros(t.tv_usec.cast_unsigned());
    (time(usage.ru_utime), time(usage.ru_stime))
}

struct Case {
    name: &'static str,
    config: KernelConfig,
    destinations: u32,
    batch: usize,
    /// Name the source address.
    source: bool,
    /// Datagrams for one destination before the next has its turn.
    run: usize,
}

/// Nanoseconds per datagram, and shares.
struct Figures {
    wall: f64,
    user: f64,
    system: f64,
    fill: f64,
    per_call: f64,
    arrived: f64,
}

fn measure(case: &Case, sink: SocketAddr, arrived: &AtomicU64, packets: u64) -> Figures {
    let (mut host, _) = KernelHost::bind(case.config).expect("bind");
    let local_addr = case.source.then_some(Ipv4Addr::LOCALHOST.into());
    let flows: Vec<FlowId> = (0..case.destinations)
        .map(|nth| {
            // All of 127.0.0.0/8 is this machine.
            let ip = Ipv4Addr::from(u32::from(Ipv4Addr::LOCALHOST) + nth);
            host.open_flow(FlowSpec { local_port: 0, local_addr, remote: (ip, sink.port()).into() }).expect("flow")
        })
        .collect();
    let payload = [0x24_u8; PAYLOAD_BYTES];
    let before = arrived.load(Ordering::Relaxed);
    let (user, system) = cpu();
    let start = Instant::now();
    let (mut sent, mut filling) = (0_u64, Duration::ZERO);
    let mut turns = flows.iter().cycle().flat_map(|flow| std::iter::repeat_n(*flow, case.run));
    while sent < packets {
        let fill = Instant::now();
        for flow in turns.by_ref().take(case.batch) {
            let Some(frame) = host.datagram(flow) else { break };
            frame[..PAYLOAD_BYTES].copy_from_slice(&payload);
            host.commit(PAYLOAD_BYTES);
        }
        filling += fill.elapsed();
        sent += u64::from(host.flush(0).done);
    }
    let wall = start.elapsed();
    let (user, system) = (cpu().0 - user, cpu().1 - system);
    std::thread::sleep(Duration::from_millis(50));
    let arrived = arrived.load(Ordering::Relaxed) - before;
    let each = |time: Duration| time.as_nanos() as f64 / sent as f64;
    Figures {
        wall: each(wall),
        user: each(user),
        system: each(system),
        fill: each(filling),
        per_call: sent as f64 / host.counters().tx_calls as f64,
        arrived: 100.0 * arrived as f64 / sent as f64,
    }
}

fn main() {
    let packets = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(100_000);
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("sink");
    let sink = socket.local_addr().expect("sink");
    socket.set_read_timeout(Some(Duration::from_millis(100))).expect("sink");
    let (arrived, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let reader = {
        let (arrived, stop) = (Arc::clone(&arrived), Arc::clone(&stop));
        std::thread::spawn(move || {
            let mut buffer = [0; 2048];
            while !stop.load(Ordering::Relaxed) {
                arrived.fetch_add(u64::from(socket.recv(&mut buffer).is_ok()), Ordering::Relaxed);
            }
        })
    };
    let base = KernelConfig { port: 0, gso: false, streams_max: 0, ..KernelConfig::default() };
    let single = Case { name: "", config: base, destinations: 1, batch: 64, source: true, run: 1 };
    let joined = KernelConfig { gso: true, ..base };
    let cases = [
        Case { name: "1 destination, GSO, batches of 64", config: joined, ..single },
        Case { name: "1 destination, singly, batches of 64", ..single },
        Case { name: "1000 destinations, batches of 64", destinations: 1000, ..single },
        Case { name: "1000 destinations, no source address", destinations: 1000, source: false, ..single },
        Case { name: "1000 destinations, IPv4 sockets", config: KernelConfig { ipv6: false, ..base }, destinations: 1000, ..single },
        Case { name: "1000 destinations, batches of 8", destinations: 1000, batch: 8, ..single },
        Case { name: "1000 destinations, one at a time", destinations: 1000, batch: 1, ..single },
        Case { name: "1000 destinations, pairs singly", destinations: 1000, run: 2, ..single },
        Case { name: "1000 destinations, pairs joined by GSO", config: joined, destinations: 1000, run: 2, ..single },
    ];
    println!("ns per datagram of {PAYLOAD_BYTES} bytes (best of {ROUNDS})      wall    user  system    fill per call  arrived");
    let mut best: Vec<Option<Figures>> = cases.iter().map(|_| None).collect();
    for _ in 0..ROUNDS {
        for (case, best) in cases.iter().zip(&mut best) {
            let new = measure(case, sink, &arrived, packets);
            if best.as_ref().is_none_or(|old| new.user + new.system < old.user + old.system) {
                *best = Some(new);
            }
        }
    }
    for (case, best) in cases.iter().zip(best) {
        let Some(Figures { wall, user, system, fill, per_call, arrived }) = best else { continue };
        println!("{:<42} {wall:>7.0} {user:>7.0} {system:>7.0} {fill:>7.0} {per_call:>8.1} {arrived:>7.1}%", case.name);
    }
    stop.store(true, Ordering::Relaxed);
    reader.join().expect("reader");
}
