//! What all connections of one core share: memory, rings, timers, keys and counters.

use pacing::Wheel;

use super::api::{TcpConfig, TcpCounters};
use super::blocks::Blocks;
use super::fifo::Fifo;
use super::flight::Records;
use super::ifq::Ifq;
use super::keys::Keys;
use super::reassembly::RangeLists;
use super::replies::Replies;

/// Resolution of timers: 2^16 ns.
const TICK_NS: u64 = 65_536;

#[derive(Debug)]
pub(super) struct Shared {
    pub config: TcpConfig,
    pub counters: TcpCounters,
    pub keys: Keys,
    pub blocks: Blocks,
    pub records: Records,
    pub ranges: RangeLists,
    pub wheel: Wheel,
    pub ifq: Ifq,
    /// Connections with something to send.
    pub ready: Fifo,
    /// Connections that wait for the interface queue to become shorter.
    pub waiting: Fifo,
    /// Connections with something to tell their user.
    pub events: Fifo,
    /// Connections whose writer waits for blocks of the pool.
    pub starved: Fifo,
    /// Connections in TIME-WAIT, oldest first; some may have left it.
    pub time_wait: Fifo,
    pub replies: Replies,
}

impl Shared {
    pub fn new(config: TcpConfig, seed: u64, now_ns: u64) -> Self {
        let connections = config.connections_max;
        Self {
            counters: TcpCounters::default(),
            keys: Keys::new(seed),
            blocks: Blocks::new(config.pool_bytes),
            records: Records::new(config.segments_max, connections),
            ranges: RangeLists::new(connections),
            wheel: Wheel::new(connections as u32, TICK_NS, now_ns),
            ifq: Ifq::new(config.ifq_limit),
            ready: Fifo::new(connections),
            waiting: Fifo::new(connections),
            events: Fifo::new(connections),
            starved: Fifo::new(connections),
            time_wait: Fifo::new(connections),
            replies: Replies::new(),
            config,
        }
    }
}
