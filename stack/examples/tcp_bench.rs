//! What TCP costs: `cargo run -p stack --release --example tcp_bench`.
//!
//! Two TCPs are joined by memory: each segment that one sends is shown to the other at once. Counted is the time of both sides, payload
//! copies and checksums included, divided by the segments with payload; acknowledgments are not counted as segments but their time is.
//! Each connection sends a message in turn, so that with many connections neither their state nor their buffers are in the cache. A message
//! is one full segment, or four, which is what a frame of video takes.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Instant;

use stack::tcp::{ConnId, IfqLimit, SegmentOut, SendOutcome, Tcp, TcpConfig, TcpOption};

const A: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
const B: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2));
/// Payload of a full segment.
const SEGMENT_BYTES: usize = 1448;
/// Segments measured in each round. The cases take turns, and the best round of each is reported: the machine may be busy with other
/// things.
const SEGMENTS: usize = 200_000;
const ROUNDS: usize = 7;
/// Segments of a turn.
const BATCH: usize = 32;

/// Segments in flight between the two, in one flat buffer.
struct Pipe {
    bytes: Vec<u8>,
    lens: Vec<usize>,
}

impl SegmentOut for Pipe {
    fn queued(&self) -> usize {
        self.lens.len()
    }

    fn segment(&mut self, _local: IpAddr, _remote: IpAddr, len: usize, fill: &mut dyn FnMut(&mut [u8])) -> SendOutcome {
        let start = self.lens.len() * 2048;
        let Some(buf) = self.bytes.get_mut(start..start + len) else { return SendOutcome::Full };
        fill(buf);
        self.lens.push(len);
        SendOutcome::Sent
    }
}

struct Pair {
    tcp: [Tcp; 2],
    pipe: Pipe,
    now_ns: u64,
}

impl Pair {
    fn turn(&mut self) {
        self.now_ns += 10_000;
        for from in 0..2 {
            self.tcp[from].egress(self.now_ns, &mut self.pipe);
            let (src, dst) = if from == 0 { (A, B) } else { (B, A) };
            for (i, len) in self.pipe.lens.drain(..).enumerate() {
                self.tcp[1 - from].ingress(self.now_ns, src, dst, &self.pipe.bytes[i * 2048..i * 2048 + len]);
            }
        }
    }
}

fn open(connections: usize) -> (Pair, Vec<ConnId>, Vec<ConnId>) {
    let config = TcpConfig {
        connections_max: connections + 8,
        pool_bytes: (connections * 16 * 1024).max(16 << 20),
        ifq_limit: IfqLimit::Off,
        ephemeral_ports: (10_000, 65_535),
        ..TcpConfig::default()
    };
    let pipe = Pipe { bytes: vec![0; 2048 * 8192], lens: Vec::with_capacity(8192) };
    let mut pair = Pair { tcp: [Tcp::new(config.clone(), 1, 0), Tcp::new(config, 2, 0)], pipe, now_ns: 0 };
    let listener = pair.tcp[1].listen(SocketAddr::new(B, 80), 64).expect("a free port");
    let (mut clients, mut servers) = (Vec::new(), Vec::new());
    while clients.len() < connections {
        let client = pair.tcp[0].connect(pair.now_ns, SocketAddr::new(A, 0), SocketAddr::new(B, 80)).expect("a free place");
        pair.tcp[0].set_option(client, TcpOption::NoDelay(true)).expect("it is there");
        clients.push(client);
        (0..2).for_each(|_| pair.turn());
        servers.extend(pair.tcp[1].accept(listener));
    }
    (pair, clients, servers)
}

/// Nanoseconds per segment with payload, in messages of so many segments.
fn measure(pair: &mut Pair, clients: &[ConnId], message_segments: usize) -> f64 {
    let message = vec![7; SEGMENT_BYTES * message_segments];
    let mut buf = vec![0; 64 * 1024];
    let mut next = 0;
    let start = Instant::now();
    for _ in 0..SEGMENTS / BATCH {
        for _ in 0..BATCH / message_segments {
            pair.tcp[0].send(clients[next], &[&message]).expect("it is open");
            next = (next + 1) % clients.len();
        }
        (0..2).for_each(|_| pair.turn());
        while let Some((id, _)) = pair.tcp[1].next_event() {
            while let Ok(Some(1..)) = pair.tcp[1].recv(id, &mut buf) {}
        }
        while pair.tcp[0].next_event().is_some() {}
    }
    start.elapsed().as_nanos() as f64 / SEGMENTS as f64
}

fn main() {
    let mut cases: Vec<_> = [1, 1_000, 10_000].into_iter().map(open).collect();
    let free_bytes: Vec<usize> = cases.iter().map(|(pair, ..)| pair.tcp[0].memory().payload_free_bytes).collect();
    let mut best = [[f64::INFINITY; 2]; 3];
    for _ in 0..ROUNDS {
        for ((pair, clients, _), best) in cases.iter_mut().zip(&mut best) {
            for (best, message_segments) in best.iter_mut().zip([1, 4]) {
                *best = best.min(measure(pair, clients, message_segments));
            }
        }
    }
    println!("ns per segment of {SEGMENT_BYTES} bytes, both sides together, best of {ROUNDS} rounds (ratio to one connection):");
    println!("connections   messages of 1 segment   messages of 4 segments   bytes per idle connection");
    for (i, (pair, clients, servers)) in cases.iter_mut().enumerate() {
        assert_eq!(servers.len(), clients.len(), "all are accepted");
        // The last acknowledgments were held back.
        pair.now_ns += 1_000_000_000;
        (0..4).for_each(|_| pair.turn());
        let memory = pair.tcp[0].memory();
        assert_eq!(pair.tcp[0].counters().tx_retransmits, 0, "nothing is lost");
        assert_eq!(memory.payload_free_bytes, free_bytes[i], "at rest nothing is held");
        let shown = |which: usize| format!("{:.0} ({:.2})", best[i][which], best[i][which] / best[0][which]);
        println!("{:>11}   {:>21}   {:>22}   {:>25}", clients.len(), shown(0), shown(1), memory.per_connection_bytes);
    }
}
