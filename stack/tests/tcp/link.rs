//! Two TCPs joined by a simulated path, in simulated time.
//!
//! ```text
//! tcp ─► interface queue (nic_bps) ─► router's buffer (bottleneck_bps, drop tail) ─► delay, loss, mangling ─► other tcp
//! ```

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::net::IpAddr;

use stack::tcp::{SegmentOut, SendOutcome, Tcp};

pub const MS: u64 = 1_000_000;
pub const SECOND: u64 = 1_000 * MS;
/// Ethernet and IPv4 headers, preamble, gap and check sequence of a frame.
const OVERHEAD_BYTES: u64 = 58;

pub fn ip(node: usize) -> IpAddr {
    IpAddr::from([10, 0, 0, 1 + node as u8])
}

/// SplitMix64.
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    pub fn chance(&mut self, probability: f64) -> bool {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64 <= probability && probability > 0.0
    }
}

/// What a path does. Probabilities are per frame, in both directions.
#[derive(Clone, Debug)]
pub struct Path {
    pub nic_bps: u64,
    pub nic_frames: usize,
    pub bottleneck_bps: u64,
    pub buffer_bytes: u64,
    pub delay_ns: u64,
    pub loss: f64,
    pub duplicate: f64,
    pub corrupt: f64,
    /// Frames are late by up to this, each by its own amount.
    pub jitter_ns: u64,
    /// Numbers of data-carrying segments of node 0, from 1, that are lost the first time.
    pub lose: Vec<u64>,
}

impl Default for Path {
    fn default() -> Self {
        Self {
            nic_bps: 1_000_000_000,
            nic_frames: 256,
            bottleneck_bps: 100_000_000,
            buffer_bytes: 125_000,
            delay_ns: 5 * MS,
            loss: 0.0,
            duplicate: 0.0,
            corrupt: 0.0,
            jitter_ns: 0,
            lose: Vec::new(),
        }
    }
}

/// The interface of a node.
#[derive(Debug, Default)]
pub struct Nic {
    /// Frames accepted, with the time when each will have left.
    frames: VecDeque<(u64, Vec<u8>)>,
    free_at_ns: u64,
    capacity: usize,
    bps: u64,
    now_ns: u64,
    pub longest: usize,
    pub refused: u64,
}

impl SegmentOut for Nic {
    fn queued(&self) -> usize {
        self.frames.len()
    }

    fn segment(&mut self, _local: IpAddr, _remote: IpAddr, len: usize, fill: &mut dyn FnMut(&mut [u8])) -> SendOutcome {
        if self.frames.len() >= self.capacity {
            self.refused += 1;
            return SendOutcome::Full;
        }
        let mut segment = vec![0xee; len];
        fill(&mut segment);
        let wire_ns = (len as u64 + OVERHEAD_BYTES) * 8 * 1_000_000_000 / self.bps;
        self.free_at_ns = self.free_at_ns.max(self.now_ns) + wire_ns;
        self.frames.push_back((self.free_at_ns, segment));
        self.longest = self.longest.max(self.frames.len());
        SendOutcome::Sent
    }
}

/// One direction behind the interface.
#[derive(Debug, Default)]
struct Direction {
    router_free_ns: u64,
    data_segments: u64,
    highest: Option<u32>,
    dropped: u64,
}

/// Time, order, to, segment.
type Arrival = (u64, u64, usize, Vec<u8>);

/// Two nodes and the path between them.
pub struct World {
    pub tcp: [Tcp; 2],
    pub nic: [Nic; 2],
    pub now_ns: u64,
    pub path: Path,
    random: Random,
    directions: [Direction; 2],
    arrivals: BinaryHeap<Reverse<Arrival>>,
    order: u64,
    /// Until when a node is kept from running: what arrives for it waits, and it sends nothing.
    pub asleep_until_ns: [u64; 2],
    waiting: [Vec<Vec<u8>>; 2],
    /// Prints each segment that arrives or is lost.
    pub trace: bool,
}

impl World {
    pub fn new(tcp: [Tcp; 2], path: Path, seed: u64) -> Self {
        let nic = || Nic { capacity: path.nic_frames, bps: path.nic_bps, ..Nic::default() };
        Self {
            tcp,
            nic: [nic(), nic()],
            now_ns: 0,
            random: Random(seed),
            directions: Default::default(),
            arrivals: BinaryHeap::new(),
            order: 0,
            asleep_until_ns: [0; 2],
            waiting: Default::default(),
            trace: false,
            path,
        }
    }

    pub fn dropped(&self) -> u64 {
        self.directions.iter().map(|direction| direction.dropped).sum()
    }

    /// A frame has left the interface of `from`.
    fn carry(&mut self, from: usize, at_ns: u64, mut segment: Vec<u8>) {
        let path = &self.path;
        let direction = &mut self.directions[from];
        let header = usize::from(segment[12] >> 4) * 4;
        let seq = u32::from_be_bytes(segment[4..8].try_into().unwrap());
        let fresh = direction.highest.is_none_or(|highest| (seq.wrapping_sub(highest) as i32) > 0);
        let mut lost = self.random.chance(path.loss);
        if segment.len() > header && fresh {
            direction.highest = Some(seq);
            direction.data_segments += 1;
            lost |= from == 0 && path.lose.contains(&direction.data_segments);
        }
        let wire = segment.len() as u64 + OVERHEAD_BYTES;
        let backlog_ns = direction.router_free_ns.saturating_sub(at_ns);
        lost |= backlog_ns * path.bottleneck_bps / 8_000_000_000 + wire > path.buffer_bytes.max(wire);
        if self.trace {
            let word = |at: usize| u32::from_be_bytes(segment[at..at + 4].try_into().unwrap());
            let what = if lost { "lost" } else { "" };
            let (flags, len) = (segment[13], segment.len() - header);
            println!("{:>12.6} {from}> {} +{len} ack {} flags {flags:#x} {what}", at_ns as f64 / 1e9, word(4), word(8));
        }
        if lost {
            direction.dropped += 1;
            return;
        }
        direction.router_free_ns = direction.router_free_ns.max(at_ns) + wire * 8 * 1_000_000_000 / path.bottleneck_bps;
        let due_ns = direction.router_free_ns + path.delay_ns;
        if self.random.chance(path.corrupt) {
            let at = self.random.below(segment.len() as u64) as usize;
            segment[at] ^= 1 << self.random.below(8);
        }
        let copies = 1 + u32::from(self.random.chance(path.duplicate));
        for _ in 0..copies {
            self.order += 1;
            let late_ns = self.random.below(path.jitter_ns + 1);
            self.arrivals.push(Reverse((due_ns + late_ns, self.order, 1 - from, segment.clone())));
        }
    }

    /// Does what is due now: frames leave, segments arrive, `app` acts, and both nodes have a turn.
    pub fn turn(&mut self, app: &mut dyn FnMut(&mut World)) {
        for node in 0..2 {
            while self.nic[node].frames.front().is_some_and(|frame| frame.0 <= self.now_ns) {
                let (at_ns, segment) = self.nic[node].frames.pop_front().unwrap();
                self.carry(node, at_ns, segment);
            }
        }
        while self.arrivals.peek().is_some_and(|Reverse(arrival)| arrival.0 <= self.now_ns) {
            let Reverse((_, _, to, segment)) = self.arrivals.pop().unwrap();
            self.waiting[to].push(segment);
        }
        for node in 0..2 {
            if self.is_awake(node) {
                for segment in self.waiting[node].drain(..) {
                    self.tcp[node].ingress(self.now_ns, ip(1 - node), ip(node), &segment);
                }
            }
        }
        app(self);
        for node in (0..2).filter(|node| self.now_ns >= self.asleep_until_ns[*node]) {
            self.nic[node].now_ns = self.now_ns;
            self.tcp[node].egress(self.now_ns, &mut self.nic[node]);
        }
    }

    pub fn is_awake(&self, node: usize) -> bool {
        self.now_ns >= self.asleep_until_ns[node]
    }

    /// When something happens next.
    pub fn next_ns(&self) -> Option<u64> {
        let frames = self.nic.iter().filter_map(|nic| nic.frames.front().map(|frame| frame.0));
        let arrival = self.arrivals.peek().map(|Reverse(arrival)| arrival.0);
        let timers = (0..2).filter_map(|node| Some(self.tcp[node].next_ns()?.max(self.asleep_until_ns[node])));
        let awake = self.asleep_until_ns.into_iter().filter(|at_ns| *at_ns > self.now_ns);
        frames.chain(arrival).chain(timers).chain(awake).min()
    }

    /// Runs until `app` says that it is done (true), or nothing can happen any more, or the time is over.
    pub fn run(&mut self, until_ns: u64, app: &mut dyn FnMut(&mut World) -> bool) -> bool {
        loop {
            let mut done = false;
            self.turn(&mut |world| done = app(world));
            if done {
                return true;
            }
            match self.next_ns() {
                Some(next_ns) if next_ns <= until_ns => self.now_ns = next_ns.max(self.now_ns + 1),
                _ => return false,
            }
        }
    }
}
