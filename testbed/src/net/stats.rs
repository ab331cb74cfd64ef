//! What `testbed net stats` tells.

use serde::{Deserialize, Serialize};
use stack::wire::{DelayHistogram, Wire, WireCounters};

use super::packet::PacketCounters;

/// All wires of a topology.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NetStats {
    /// Name of the topology.
    pub name: String,
    /// How long the wires have been running, seconds.
    pub seconds: f64,
    /// CPU time that they have used meanwhile, seconds.
    pub cpu_seconds: f64,
    /// Times that the wires slept.
    pub sleeps: u64,
    /// The links that have wires.
    pub links: Vec<LinkStats>,
}

/// A link.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LinkStats {
    /// Name.
    pub name: String,
    /// From the first end to the second.
    pub forward: DirectionStats,
    /// And back.
    pub backward: DirectionStats,
}

/// One direction of a link.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DirectionStats {
    /// Host that it begins at.
    pub from: String,
    /// Host that it leads to.
    pub to: String,
    /// Rate asked for, bits per second; 0 without limit.
    pub rate_bps: u64,
    /// Delay asked for, ns.
    pub delay_ns: u64,
    /// Share of frames to lose.
    pub loss: f64,
    /// What the wire did.
    pub wire: WireFigures,
    /// Time in the queue.
    pub queue_delay: DelayFigures,
    /// How much later than its time a frame left the wire: the error of this machine.
    pub lateness: DelayFigures,
    /// What the interface that the direction begins at lost on the way into the wire, and the one at its end on the way out.
    pub entry: PacketCounters,
    /// The other.
    pub exit: PacketCounters,
}

/// [`WireCounters`], for JSON.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the fields are those of WireCounters")]
pub struct WireFigures {
    pub in_frames: u64,
    pub in_bytes: u64,
    pub out_frames: u64,
    pub out_bytes: u64,
    pub dropped_queue: u64,
    pub dropped_pool: u64,
    pub dropped_too_long: u64,
    pub lost: u64,
    pub lost_in_bursts: u64,
    pub duplicated: u64,
    pub corrupted: u64,
    pub held_back: u64,
    pub reordered: u64,
    pub queue_frames_max: u64,
    pub queue_bytes_max: u64,
    pub queue_delay_ns_max: u64,
    pub busy_ns: u64,
}

impl From<&WireCounters> for WireFigures {
    fn from(counters: &WireCounters) -> Self {
        let WireCounters { in_frames, in_bytes, out_frames, out_bytes, dropped_queue, dropped_pool, dropped_too_long, .. } = *counters;
        let WireCounters { lost, lost_in_bursts, duplicated, corrupted, held_back, reordered, .. } = *counters;
        let WireCounters { queue_frames_max, queue_bytes_max, queue_delay_ns_max, busy_ns, .. } = *counters;
        Self {
            in_frames,
            in_bytes,
            out_frames,
            out_bytes,
            dropped_queue,
            dropped_pool,
            dropped_too_long,
            lost,
            lost_in_bursts,
            duplicated,
            corrupted,
            held_back,
            reordered,
            queue_frames_max,
            queue_bytes_max,
            queue_delay_ns_max,
            busy_ns,
        }
    }
}

/// A distribution of times, microseconds.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct DelayFigures {
    /// How many.
    pub count: u64,
    /// Median.
    pub p50_us: f64,
    /// 99 % do not exceed this.
    pub p99_us: f64,
    /// 99.9 % do not exceed this.
    pub p999_us: f64,
    /// The longest.
    pub max_us: f64,
}

impl From<&DelayHistogram> for DelayFigures {
    fn from(histogram: &DelayHistogram) -> Self {
        let us = |ns: u64| ns as f64 / 1000.0;
        Self {
            count: histogram.count(),
            p50_us: us(histogram.quantile_ns(0.5)),
            p99_us: us(histogram.quantile_ns(0.99)),
            p999_us: us(histogram.quantile_ns(0.999)),
            max_us: us(histogram.max_ns()),
        }
    }
}

impl DirectionStats {
    /// The figures of a wire between two hosts and the interfaces at its ends.
    pub fn new(from: &str, to: &str, wire: &Wire, entry: PacketCounters, exit: PacketCounters) -> Self {
        let config = wire.config();
        Self {
            from: from.to_owned(),
            to: to.to_owned(),
            rate_bps: config.rate_bps,
            delay_ns: config.delay_ns,
            loss: config.loss.fraction(),
            wire: wire.counters().into(),
            queue_delay: wire.queue_delay().into(),
            lateness: wire.lateness().into(),
            entry,
            exit,
        }
    }
}
