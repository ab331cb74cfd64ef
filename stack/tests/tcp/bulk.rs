//! Bulk transfer over loss, delay and buffers: an oracle checks every byte, and the results are a committed table.

use std::net::SocketAddr;

use stack::tcp::{Algorithm, ConnId, Events, IfqLimit, ListenerId, Tcp, TcpConfig, TcpCounters};

use super::link::{MS, Path, SECOND, World, ip};

/// The byte that belongs at that place of a stream.
pub fn byte(stream: u64, at: u64) -> u8 {
    let mixed = (at / 8 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15 ^ stream << 7);
    (mixed >> (8 * (at % 8))) as u8
}

pub fn config() -> TcpConfig {
    TcpConfig { connections_max: 64, pool_bytes: 8 << 20, segments_max: 8192, ..TcpConfig::default() }
}

/// One transfer from node 0 to node 1, or the other way.
pub struct Transfer {
    pub from: usize,
    pub bytes: u64,
    pub id: [Option<ConnId>; 2],
    pub sent: u64,
    pub received: u64,
    /// When the receiver had seen the end of the stream.
    pub done_ns: Option<u64>,
    pub stream: u64,
}

impl Transfer {
    pub fn new(from: usize, bytes: u64, stream: u64) -> Self {
        Self { from, bytes, id: [None; 2], sent: 0, received: 0, done_ns: None, stream }
    }

    /// Writes and reads as much as goes.
    pub fn work(&mut self, world: &mut World) {
        if let Some(id) = self.id[self.from] {
            let tcp = &mut world.tcp[self.from];
            let mut chunk = [0; 8192];
            while self.sent < self.bytes {
                let len = chunk.len().min((self.bytes - self.sent) as usize);
                chunk[..len].iter_mut().enumerate().for_each(|(i, b)| *b = byte(self.stream, self.sent + i as u64));
                match tcp.send(id, &[&chunk[..len / 3], &chunk[len / 3..len]]) {
                    Ok(0) | Err(_) => break,
                    Ok(taken) => self.sent += taken as u64,
                }
                if self.sent == self.bytes {
                    tcp.shutdown(id).unwrap();
                }
            }
        }
        let to = 1 - self.from;
        if let Some(id) = self.id[to] {
            let mut chunk = [0; 16_384];
            while let Ok(Some(len)) = world.tcp[to].recv(id, &mut chunk) {
                if len == 0 {
                    assert_eq!(self.received, self.bytes, "the stream ends where it should");
                    if self.done_ns.is_none() {
                        self.done_ns = Some(world.now_ns);
                        world.tcp[to].shutdown(id).unwrap();
                    }
                    break;
                }
                for (i, b) in chunk[..len].iter().enumerate() {
                    assert_eq!(
                        *b,
                        byte(self.stream, self.received + i as u64),
                        "byte {} of stream {}",
                        self.received + i as u64,
                        self.stream
                    );
                }
                self.received += len as u64;
            }
        }
    }
}

/// Node 0 connects, node 1 accepts; then the transfer runs.
pub struct Bulk {
    pub world: World,
    pub listener: ListenerId,
    pub transfer: Transfer,
}

impl Bulk {
    pub fn new(configs: [TcpConfig; 2], path: Path, bytes: u64, seed: u64) -> Self {
        let [a, b] = configs;
        let mut world = World::new([Tcp::new(a, seed ^ 1, 0), Tcp::new(b, seed ^ 2, 0)], path, seed);
        let listener = world.tcp[1].listen(SocketAddr::new(ip(1), 80), 8).unwrap();
        let client = world.tcp[0].connect(0, SocketAddr::new(ip(0), 0), SocketAddr::new(ip(1), 80)).unwrap();
        let mut transfer = Transfer::new(0, bytes, seed);
        transfer.id[0] = Some(client);
        Self { world, listener, transfer }
    }

    /// True when the transfer was done in that time.
    pub fn run(&mut self, until_ns: u64) -> bool {
        let (listener, transfer) = (self.listener, &mut self.transfer);
        self.world.run(until_ns, &mut |world| {
            if transfer.id[1].is_none() {
                transfer.id[1] = world.tcp[1].accept(listener);
            }
            transfer.work(world);
            for node in 0..2 {
                while let Some((_, events)) = world.tcp[node].next_event() {
                    assert!(!events.any(Events::FAILED), "node {node} at {} ns: {events:?}", world.now_ns);
                }
            }
            transfer.done_ns.is_some()
        })
    }

    pub fn counters(&self) -> TcpCounters {
        self.world.tcp[0].counters()
    }
}

#[test]
fn a_clean_path_is_filled() {
    for congestion in [Algorithm::NewReno, Algorithm::Cubic] {
        let config = TcpConfig { congestion, ..config() };
        let mut bulk = Bulk::new([config.clone(), config], Path::default(), 20_000_000, 1);
        assert!(bulk.run(20 * SECOND), "{:?}", bulk.counters());
        let rate = bulk.transfer.received as f64 * 8.0 / bulk.transfer.done_ns.unwrap() as f64 * 1e9;
        assert!(rate > 85e6, "{congestion:?}: {rate:.0} bit/s of 100 Mbit/s, {:?}", bulk.counters());
        assert_eq!(bulk.counters().rtos, 0, "{congestion:?}");
    }
}

/// The extra time that losses of certain segments cost, against a run without loss.
fn extra_ns(lose: &[u64], bytes: u64) -> (i64, TcpCounters) {
    let run = |lose: Vec<u64>| {
        let path = Path { lose, bottleneck_bps: 1_000_000_000, delay_ns: 25 * MS, ..Path::default() };
        let mut bulk = Bulk::new([config(), config()], path, bytes, 7);
        assert!(bulk.run(60 * SECOND), "{:?}", bulk.counters());
        (bulk.transfer.done_ns.unwrap() as i64, bulk.counters())
    };
    let (clean, _) = run(vec![]);
    let (lossy, counters) = run(lose.to_vec());
    (lossy - clean, counters)
}

#[test]
fn losses_in_a_window_are_recovered_in_two_round_trips() {
    const RTT: i64 = 50 * MS as i64;
    // 40 segments: the initial window of 10, and 20 and 10 more.
    let bytes = 40 * 1448;
    let cases: [(&str, &[u64], i64); 8] = [
        ("one, early in the window", &[3], 2),
        ("one, later", &[15], 2),
        ("two in a row", &[14, 15], 2),
        ("two apart", &[12, 17], 2),
        ("three", &[11, 15, 16], 2),
        ("the last one", &[40], 2),
        // The probe repairs the last one, and its acknowledgment tells of the other.
        ("the last two", &[39, 40], 3),
        ("the last of the initial window", &[10], 2),
    ];
    for (what, lose, round_trips) in cases {
        let (extra, counters) = extra_ns(lose, bytes);
        assert!(extra <= round_trips * RTT + 10 * MS as i64, "{what}: {} ms more, {counters:?}", extra / MS as i64);
        assert_eq!(counters.rtos, 0, "{what}");
    }
}

/// One line of the table.
fn measure(path: &Path, congestion: Algorithm) -> String {
    let config = TcpConfig { congestion, ifq_limit: IfqLimit::Fixed(16), ..config() };
    let mut bulk = Bulk::new([config.clone(), config], path.clone(), 5_000_000, 42);
    let done = bulk.run(600 * SECOND);
    let counters = bulk.counters();
    let seconds = bulk.world.now_ns as f64 / 1e9;
    let goodput = bulk.transfer.received as f64 * 8.0 / 1e6 / seconds;
    format!(
        "{:>9} {:>7.2} {:>8} {:>8} | {goodput:>7.2} {:>7} {:>6} {:>6} {:>4} {:>6} {}",
        format!("{congestion:?}").to_lowercase(),
        path.loss * 100.0,
        2 * path.delay_ns / MS,
        path.buffer_bytes / 1000,
        counters.tx_retransmits,
        bulk.world.dropped(),
        counters.recoveries,
        counters.rtos,
        counters.undone,
        if done { "" } else { "UNFINISHED" }
    )
    .trim_end()
    .to_owned()
}

#[test]
fn the_table_of_bulk_transfers() {
    let mut table = vec![
        "5 MB over a bottleneck of 20 Mbit/s; loss in both directions. Regenerate: TACTUS_WRITE_SNAPSHOTS=1 cargo test -p stack --test tcp table".into(),
        "algorithm  loss %   RTT ms buffer kB | Mbit/s   again   lost recov.  RTOs undone".to_owned(),
    ];
    for congestion in [Algorithm::NewReno, Algorithm::Cubic] {
        for delay_ns in [MS, 10 * MS, 50 * MS] {
            for buffer_bytes in [15_000, 60_000, 250_000] {
                for loss in [0.0, 0.001, 0.01, 0.05] {
                    let path = Path { bottleneck_bps: 20_000_000, buffer_bytes, delay_ns, loss, ..Path::default() };
                    table.push(measure(&path, congestion));
                }
            }
        }
    }
    let table = table.join("\n") + "\n";
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/tcp/bulk.txt");
    if std::env::var_os("TACTUS_WRITE_SNAPSHOTS").is_some() {
        std::fs::write(file, &table).unwrap();
    }
    let known = std::fs::read_to_string(file).unwrap_or_default();
    assert!(table == known, "the table has changed; if that is as it should be: TACTUS_WRITE_SNAPSHOTS=1\n{table}");
    assert!(!table.contains("UNFINISHED"));
}
