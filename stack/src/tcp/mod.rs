//! TCP: a sans-I/O state machine for all connections and listeners of one engine core, with IFQ limiting.
//!
//! ```text
//! ingress(now, src, dst, segment)    takes what has arrived; answers nothing, notes what is to be said
//! egress(now, out)                   timers, acknowledgments, data; to be called in each turn of the core
//! next_ns()                          when egress has to be called again at the latest, completions and ingress apart
//!
//! segment ─► wire ─► table ─► input ─► recovery (rack, congestion, flight, rtt)      user ─► queues
//!                      └► handshake (listeners, cookies)                                       │
//! frame  ◄─ wire ◄─ output ◄─ egress (rings: ready, waiting) ◄─ timers (pacing's wheel) ◄──────┘
//! ```
//!
//! Rules: RFC 9293 with RFC 5961 (blind attacks), RFC 7323 (window scale, timestamps, PAWS), RFC 2018, 2883 and 6675 (SACK), RFC 8985
//! (RACK-TLP), RFC 6298 (timeout), RFC 6937 (rate reduction), RFC 6928 (initial window), RFC 3522 (undo), RFC 5681, 6582 and 9438
//! (congestion control), RFC 6528 (initial sequence numbers), RFC 6056 (ports), RFC 6191 (reuse from TIME-WAIT), RFC 5927 (ICMP).
//! Urgent data is delivered in line. There is no ECN and no TCP fast open.
//!
//! All memory is taken at the start: places for connections, blocks for payload, records for segments in flight. A connection at rest holds
//! its place alone ([`Tcp::memory`] says how much that is).

mod api;
mod blocks;
mod buffers;
mod checksum;
mod congestion;
mod conn;
mod cubic;
mod egress;
mod fifo;
mod flight;
mod handshake;
mod icmp;
pub mod ifq;
mod input;
mod keys;
mod output;
mod queues;
mod rack;
mod reassembly;
mod recovery;
mod replies;
mod rtt;
mod seq;
mod shared;
mod table;
mod timers;
mod user;
mod wire;

pub use api::{
    ConnId, ConnInfo, Events, IcmpError, IfqLimit, KeepAlive, LinkAddress, ListenerId, Memory, SegmentOut, SendOutcome, State, TcpConfig,
    TcpCounters, TcpError, TcpOption,
};
pub use congestion::Algorithm;

use std::net::{IpAddr, Ipv4Addr};

use conn::Conn;
use fifo::Fifo;
use handshake::Listener;
use seq::Seq;
use shared::Shared;
use table::Table;
use wire::{Incoming, Tuple, flag};

/// All connections and listeners of one engine core.
#[derive(Debug)]
pub struct Tcp {
    shared: Shared,
    conns: Box<[Conn]>,
    /// Free places.
    free: Vec<u32>,
    table: Table,
    listeners: Box<[Listener]>,
    /// Listeners with something to accept.
    acceptable: Fifo,
    /// The latest time told.
    now_ns: u64,
    /// Counts connections that were opened from here (RFC 6056 3.3.3).
    port_counter: u32,
}

impl Tcp {
    /// Allocates everything. `seed` is the source of the keys of initial sequence numbers, table hashes, cookies and ports: secret and
    /// random in earnest, chosen in tests. `now_ns` is the time from which on calls come.
    pub fn new(config: TcpConfig, seed: u64, now_ns: u64) -> Self {
        let connections = config.connections_max.clamp(1, u32::MAX as usize / 4);
        let config = TcpConfig { connections_max: connections, ..config };
        let listeners = config.listeners_max;
        let shared = Shared::new(config, seed, now_ns);
        let nobody = Tuple { local: Ipv4Addr::UNSPECIFIED.into(), remote: Ipv4Addr::UNSPECIFIED.into(), local_port: 0, remote_port: 0 };
        Self {
            conns: (0..connections as u32).map(|index| Conn::vacant(index, nobody, &shared)).collect(),
            free: (0..connections as u32).rev().collect(),
            table: Table::new(connections),
            listeners: (0..listeners).map(|_| Listener::VACANT).collect(),
            acceptable: Fifo::new(listeners),
            shared,
            now_ns,
            port_counter: 0,
        }
    }

    /// Takes a segment from `src` to `dst` (one of our unicast addresses). Sends nothing.
    pub fn ingress(&mut self, now_ns: u64, src: IpAddr, dst: IpAddr, segment: &[u8]) {
        self.ingress_via(now_ns, None, src, dst, segment);
    }

    /// The same, with where its frame came from on the link. True when it has completed a handshake: `src` gets what is sent to it there.
    pub fn ingress_via(&mut self, now_ns: u64, via: Option<LinkAddress>, src: IpAddr, dst: IpAddr, segment: &[u8]) -> bool {
        self.now_ns = self.now_ns.max(now_ns);
        self.shared.counters.rx_segments += 1;
        let Some(segment) = wire::parse(src, dst, segment, self.shared.config.verify_checksums) else {
            self.shared.counters.rx_malformed += 1;
            return false;
        };
        let segment = Incoming { via, ..segment };
        let (now_ns, before) = (self.now_ns, self.shared.counters.established);
        match self.lookup(&segment.tuple) {
            Some(index) if self.is_reopened(index, &segment) => {
                self.drive(index, Conn::end);
                self.segment_for_listener(&segment);
            }
            Some(index) => {
                self.drive(index, |conn, shared| conn.segment_arrives(shared, now_ns, &segment));
            }
            None => self.segment_for_listener(&segment),
        }
        self.shared.counters.established != before
    }

    /// A SYN for a connection in TIME-WAIT that cannot be an old one (RFC 6191 2, RFC 9293 3.6.1).
    fn is_reopened(&self, index: u32, segment: &Incoming) -> bool {
        let Some(conn) = self.conns.get(index as usize).filter(|conn| conn.state == State::TimeWait) else { return false };
        let header = &segment.header;
        if !header.has(flag::SYN) || header.has(flag::ACK | flag::RST | flag::FIN) {
            return false;
        }
        match header.options.timestamps {
            Some((value, _)) if conn.timestamps && value != conn.rcv.ts_recent => (value.wrapping_sub(conn.rcv.ts_recent) as i32) > 0,
            _ => conn.rcv.nxt.lt(header.seq),
        }
    }

    fn lookup(&self, tuple: &Tuple) -> Option<u32> {
        let is = |index: u32| {
            self.conns.get(index as usize).is_some_and(|conn| {
                // All of it at once rather than line by line.
                hugepages::prefetch(conn);
                conn.tuple == *tuple
            })
        };
        self.table.find(self.shared.keys.table(tuple), is)
    }

    /// Lets a connection work, and does what follows from it. `None` when there is no such place.
    fn drive<T>(&mut self, index: u32, work: impl FnOnce(&mut Conn, &mut Shared) -> T) -> Option<T> {
        let conn = self.conns.get_mut(index as usize)?;
        let before = conn.state;
        let result = work(conn, &mut self.shared);
        conn.settle(&mut self.shared, self.now_ns);
        let after = conn.state;
        if before == after && after != State::Closed {
            return Some(result);
        }
        if before == State::SynReceived && after != State::SynReceived {
            self.handshake_over(index);
        }
        if after == State::TimeWait {
            self.bound_time_wait(self.shared.config.time_wait_max);
        }
        self.retire(index);
        Some(result)
    }

    /// Takes a connection that is over out of the table, and frees its place when nobody has its name.
    fn retire(&mut self, index: u32) {
        let Some(conn) = self.conns.get_mut(index as usize).filter(|conn| conn.state == State::Closed) else { return };
        if std::mem::take(&mut conn.listed) {
            self.table.remove(self.shared.keys.table(&conn.tuple), index);
            if !conn.held {
                self.vacate(index);
            }
        }
    }

    fn vacate(&mut self, index: u32) {
        let Some(conn) = self.conns.get_mut(index as usize) else { return };
        conn.rcv.queue.clear(&mut self.shared.blocks, &mut self.shared.ranges);
        conn.generation = conn.generation.wrapping_add(1);
        conn.held = false;
        conn.listener = None;
        conn.events = Events::default();
        // As many places as were taken out of it: it does not grow.
        self.free.push(index);
    }

    /// Drops the oldest connections from TIME-WAIT until at most `max` are left.
    fn bound_time_wait(&mut self, max: usize) {
        while self.shared.time_wait.len() > max {
            let Some(index) = self.shared.time_wait.pop() else { return };
            if self.conns.get(index as usize).is_some_and(|conn| conn.state == State::TimeWait) {
                self.shared.counters.time_wait_dropped += 1;
                self.drive(index, Conn::end);
            }
        }
    }

    /// A place for a connection, which is then in SYN-SENT and in the table.
    fn open_place(&mut self, tuple: Tuple, iss: Seq) -> Option<u32> {
        while self.free.is_empty() && !self.shared.time_wait.is_empty() {
            let one_less = self.shared.time_wait.len() - 1;
            self.bound_time_wait(one_less);
        }
        let index = self.free.pop()?;
        let conn = self.conns.get_mut(index as usize)?;
        conn.open(&self.shared, self.now_ns, tuple, iss);
        conn.listed = true;
        self.table.insert(self.shared.keys.table(&tuple), index);
        Some(index)
    }

    /// When [`Tcp::egress`] has to be called at the latest. Besides, it wants a call in each turn in which something arrived, a call was
    /// made, or frames were completed.
    pub fn next_ns(&self) -> Option<u64> {
        self.shared.wheel.next_due_ns()
    }

    /// Counters since start.
    pub fn counters(&self) -> TcpCounters {
        self.shared.counters
    }

    /// The limit of the interface queue as it is now, in frames; `usize::MAX` without one.
    pub fn ifq_limit(&self) -> usize {
        self.shared.ifq.limit()
    }

    /// What was allocated.
    pub fn memory(&self) -> Memory {
        let rings = 5 * std::mem::size_of::<u32>() + 32;
        let per_connection = std::mem::size_of::<Conn>() + std::mem::size_of::<u32>() + rings;
        Memory {
            per_connection_bytes: per_connection + self.table.bytes() / self.conns.len(),
            payload_bytes: self.shared.blocks.memory_bytes(),
            payload_free_bytes: self.shared.blocks.free() * blocks::BLOCK_BYTES,
            segments_bytes: self.shared.records.memory_bytes() + self.shared.ranges.memory_bytes(),
            connections: self.conns.len() - self.free.len(),
        }
    }
}
