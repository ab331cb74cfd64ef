//! A path of 1 Gbps and 2 ms there and back, as the runs against the kernel's TCP have it, in simulated time: what our TCP makes of it is
//! here, and what the machine makes of that is not.
//!
//! A node may be kept from running for a while every 20 ms, as a thread is on a machine that others use. What is in the buffers has to last
//! until it runs again.

use std::net::SocketAddr;

use stack::tcp::{IfqLimit, State, TcpConfig};

use super::bulk::{Bulk, config};
use super::link::{MS, Path, SECOND, ip};

/// Payload with timestamps of a full frame of 1538 bytes on the line.
const PAYLOAD_SHARE: f64 = 1448.0 / 1538.0;
/// What is transferred before the clock starts: connections find their rate.
const WARM_UP_BYTES: u64 = 6 << 20;
const BYTES: u64 = 16 << 20;
/// How often a node is kept from running.
const PERIOD_NS: u64 = 20 * MS;
const GRANTED_BYTES: usize = 512 << 10;

/// Which node is kept from running.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sleeper {
    Nobody,
    Sender,
    Receiver,
}

/// Goodput, percent of what the line can carry, with buffers of 512 KiB that grow to `max`.
fn percent(max: usize, sleeper: Sleeper, asleep_ns: u64) -> f64 {
    // Behind the interface, as it is between namespaces: that takes frames at once, and the line has a queue of 1000 frames.
    let path = Path {
        nic_bps: 20_000_000_000,
        bottleneck_bps: 1_000_000_000,
        nic_frames: 1024,
        buffer_bytes: 1_500_000,
        delay_ns: MS,
        ..Path::default()
    };
    let tcp = TcpConfig {
        send_buffer_bytes: GRANTED_BYTES,
        recv_buffer_bytes: GRANTED_BYTES,
        buffer_bytes_max: max,
        pool_bytes: 16 << 20,
        ifq_limit: IfqLimit::Adaptive { min: 4, max: 1024 },
        ..config()
    };
    let mut bulk = Bulk::new([tcp.clone(), tcp], path, BYTES, 3);
    let (mut warm, mut next_ns) = (None, 5 * MS);
    loop {
        let done = bulk.run(next_ns);
        if warm.is_none() && bulk.transfer.received >= WARM_UP_BYTES {
            warm = Some((bulk.world.now_ns, bulk.transfer.received));
        }
        if done {
            break;
        }
        assert!(next_ns < 60 * SECOND, "{:?}", bulk.counters());
        bulk.world.now_ns = next_ns;
        match sleeper {
            Sleeper::Nobody => {}
            Sleeper::Sender => bulk.world.asleep_until_ns[0] = next_ns + asleep_ns,
            Sleeper::Receiver => bulk.world.asleep_until_ns[1] = next_ns + asleep_ns,
        }
        next_ns += PERIOD_NS;
    }
    let (from_ns, from_bytes) = warm.expect("longer than the warm-up");
    let seconds = (bulk.transfer.done_ns.unwrap() - from_ns) as f64 / 1e9;
    (BYTES - from_bytes) as f64 * 8.0 / seconds / (1e9 * PAYLOAD_SHARE) * 100.0
}

#[test]
fn the_table_of_a_gigabit() {
    let mut table = vec![
        "1 Gbit/s, 2 ms: goodput in percent of what the line carries. One end is kept from running for a while every 20 ms.".to_owned(),
        "Regenerate: TACTUS_WRITE_SNAPSHOTS=1 cargo test -p stack --test tcp gigabit".to_owned(),
        "kept from running   buffers 512 KiB   growing to 2 MiB".to_owned(),
    ];
    let cases = [
        (Sleeper::Nobody, 0),
        (Sleeper::Sender, 2),
        (Sleeper::Sender, 5),
        (Sleeper::Sender, 10),
        (Sleeper::Receiver, 2),
        (Sleeper::Receiver, 5),
        (Sleeper::Receiver, 10),
    ];
    for (sleeper, asleep_ms) in cases {
        let [fixed, grown] = [0, 2 << 20].map(|max| percent(max, sleeper, asleep_ms * MS));
        let who = if sleeper == Sleeper::Nobody { "nobody".to_owned() } else { format!("{sleeper:?} {asleep_ms} ms").to_lowercase() };
        table.push(format!("{who:<18} {fixed:>16.1} {grown:>18.1}"));
        if sleeper == Sleeper::Nobody {
            assert!(fixed > 95.0 && grown > 95.0, "of the line: {fixed:.1} % and {grown:.1} %");
        } else {
            assert!(grown >= fixed - 0.5, "{who}: {grown:.1} % with larger buffers, {fixed:.1} % without");
        }
    }
    let table = table.join("\n") + "\n";
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/tcp/gigabit.txt");
    if std::env::var_os("TACTUS_WRITE_SNAPSHOTS").is_some() {
        std::fs::write(file, &table).unwrap();
    }
    let known = std::fs::read_to_string(file).unwrap_or_default();
    assert!(table == known, "the table has changed; if that is as it should be: TACTUS_WRITE_SNAPSHOTS=1\n{table}");
}

/// A connection on a long path may queue more than it is granted, until others need the pool.
#[test]
fn growth_is_lent() {
    const GRANTED: usize = 300_000;
    let path = Path { bottleneck_bps: 1_000_000_000, buffer_bytes: 4_000_000, delay_ns: 20 * MS, nic_frames: 1024, ..Path::default() };
    let tcp = TcpConfig {
        send_buffer_bytes: GRANTED,
        recv_buffer_bytes: GRANTED,
        buffer_bytes_max: 2 << 20,
        pool_bytes: 4 << 20,
        ifq_limit: IfqLimit::Off,
        ..config()
    };
    let mut bulk = Bulk::new([tcp.clone(), tcp], path, 1 << 30, 3);
    let id = bulk.transfer.id[0].unwrap();
    bulk.run(SECOND);
    let queued = bulk.world.tcp[0].send_queued_bytes(id);
    assert!(queued > 3 * GRANTED, "it has filled what it was lent: {queued}");
    let remote = SocketAddr::new(ip(1), 80);
    let others: Vec<_> = (0..5).map(|_| bulk.world.tcp[0].connect(bulk.world.now_ns, SocketAddr::new(ip(0), 0), remote).unwrap()).collect();
    bulk.run(SECOND + 200 * MS);
    let block = [0; GRANTED];
    for other in others {
        assert_eq!(bulk.world.tcp[0].send(other, &[&block]), Ok(GRANTED), "everybody has what is granted");
    }
    assert_eq!(bulk.world.tcp[0].send_room(id), 0, "no more is lent");
    bulk.run(3 * SECOND);
    let info = bulk.world.tcp[0].info(id).unwrap();
    assert!(info.send_queued_bytes > GRANTED && info.state == State::Established, "lent again, once the others have sent theirs: {info:?}");
}
