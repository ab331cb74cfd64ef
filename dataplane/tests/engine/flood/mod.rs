//! A flood at the rate of the line while a hundred sessions play over the core's own stack.
//!
//! The same simulated seconds pass twice, with and without the flood. Nothing else differs, so that each packet can be compared with itself.

mod frames;
mod rig;

use stack::port::Port;

use self::frames::{ALL, Frames, Kind};
use self::rig::{BACKLOG, LINE_BPS, NEIGHBOURS_MAX, RESERVED_FRAMES, Rig, TX_FRAMES};
use super::stage::{Film, MS, SECOND};

const FLOOD_NS: u64 = 2 * SECOND;
/// Everything at once, and what was found to do the most harm alone.
const FLOODS: [&[Kind]; 5] =
    [&ALL, &[Kind::Syn], &[Kind::Arp], &[Kind::Solicit], &[Kind::Garbage, Kind::FragmentV4, Kind::FragmentV6, Kind::Segment]];
/// Bytes of a frame on the line beside its own: preamble, checksum, gap.
const LINE_OVERHEAD_BYTES: u64 = 24;

/// A hundred sessions that have been playing for a second, and then the flood; `None`: then nothing special.
fn run(flood: Option<&[Kind]>, rx_cost_ns: u64) -> Rig {
    let film = Film::plain(1, 6, 2000);
    let mut rig = Rig::new(rx_cost_ns);
    for session in 2..=101 {
        rig.play(session, &film);
        rig.run_for(137_000, None);
    }
    rig.run_for(SECOND, None);
    rig.begin();
    rig.run_for(FLOOD_NS, flood.map(|kinds| Frames::new(5, kinds)).as_mut());
    // What was sent at the last moment arrives.
    rig.run_for(20 * MS, None);
    rig
}

/// Every packet that left during the flood is what it is without, and comes in its order and at most `late_ns` later.
fn compare(what: &str, quiet: &Rig, loud: &Rig, late_ns: u64) {
    assert_eq!(quiet.arrivals.len(), 200, "all tracks of all sessions");
    let (mut packets, mut worst_ns) = (0, 0);
    for (client, quiet) in &quiet.arrivals {
        let loud = &loud.arrivals[client];
        // Not the last few milliseconds: the two runs may end on both sides of a packet.
        let end_ns = quiet.last().map_or(0, |last| last.at_ns.saturating_sub(2 * MS));
        let due = quiet.iter().take_while(|packet| packet.at_ns < end_ns);
        for (nth, quiet) in due.enumerate() {
            let loud = loud.get(nth).unwrap_or_else(|| panic!("{what}: packet {nth} to {client} did not arrive"));
            assert!(quiet.bytes == loud.bytes, "{what}: packet {nth} to {client} is another one");
            worst_ns = worst_ns.max(loud.at_ns.saturating_sub(quiet.at_ns));
            packets += 1;
        }
    }
    println!("{what}: {packets} packets, the latest by {} us", worst_ns / 1000);
    assert!(packets > 30_000, "{what}: {packets} packets");
    assert!(worst_ns <= late_ns, "{what}: a packet was {worst_ns} ns later than without the flood");
}

/// What others made the stack remember.
fn check_memory(what: &str, rig: &mut Rig) {
    assert_eq!(rig.allocating_turns, 0, "{what}: a turn allocated or freed memory");
    assert!(rig.longest_queue <= TX_FRAMES - RESERVED_FRAMES, "{what}: {} frames queued", rig.longest_queue);
    let host = rig.core.host_mut();
    let (_, iface, tcp) = host.layers();
    assert!(iface.neighbours <= NEIGHBOURS_MAX as u64, "{what}: {iface:?}");
    let memory = host.tcp_mut().memory();
    // The honest one, and handshakes that nobody will finish.
    assert!(memory.connections <= BACKLOG + 1, "{what}: {memory:?}");
    assert_eq!(tcp.established, 1, "{what}: {tcp:?}");
    assert_eq!(tcp.rx_bytes, rig::QUESTION.len() as u64, "{what}: only the honest client's bytes were taken");
}

fn check_honest(what: &str, rig: &mut Rig, kinds: &[Kind]) {
    let (_, _, tcp) = rig.core.host_mut().layers();
    let expected = u64::from(kinds.contains(&Kind::Syn));
    assert_eq!(tcp.cookies_accepted, expected, "{what}: it came by a SYN cookie if SYNs had filled the backlog: {tcp:?}");
    let honest = &rig.honest;
    let (wanted_ns, answered_ns) = (honest.wanted_ns.expect("it wanted to"), honest.answered_ns);
    let took_ns = answered_ns.unwrap_or_else(|| panic!("{what}: the honest client has no answer")) - wanted_ns;
    println!("{what}: the honest client has its answer after {} us", took_ns / 1000);
}

/// A core that takes a frame in 250 ns has a third of its time left under a flood of shortest frames at 1 Gbps.
#[test]
fn under_a_flood_nobody_is_late_and_memory_is_bounded() {
    let quiet = run(None, 250);
    for kinds in FLOODS {
        let what = format!("{kinds:?}");
        let mut loud = run(Some(kinds), 250);
        // A tick of the wheel (20 us), a turn (15 us), and what may stand in the interface queue: 32 shortest frames (22 us).
        compare(&what, &quiet, &loud, 60_000);
        check_memory(&what, &mut loud);
        check_honest(&what, &mut loud, kinds);
        let port = loud.core.host_mut().port().counters();
        let line_bits = (port.rx_bytes + port.rx_frames * LINE_OVERHEAD_BYTES) * 8;
        assert!(line_bits > LINE_BPS * 99 / 100 * (FLOOD_NS / SECOND), "{what}: the line was full: {port:?}");
        assert_eq!(port.rx_dropped, 0, "{what}: the core kept up");
    }
}

/// A core that takes a frame in 1.5 us cannot keep up: half of all frames are lost before it sees them, and it has no time left. A turn takes
/// 256 frames and not more, so that packets are still sent between two of these.
#[test]
fn under_a_flood_that_the_core_cannot_keep_up_with_nobody_is_late_by_more_than_a_turn() {
    let quiet = run(None, 1500);
    for kinds in FLOODS {
        let what = format!("{kinds:?}, too fast");
        let mut loud = run(Some(kinds), 1500);
        // 256 frames taken (384 us), as many replies sent (51 us), a tick, and the interface queue.
        compare(&what, &quiet, &loud, 384_000 + 51_000 + 60_000);
        check_memory(&what, &mut loud);
        check_honest(&what, &mut loud, kinds);
        assert!(loud.core.host_mut().port().counters().rx_dropped > 100_000, "{what}: the core could keep up");
    }
}
