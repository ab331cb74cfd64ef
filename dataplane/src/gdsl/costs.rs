//! What work costs on this core, measured while it is done: the ground of the isochronous budget ([`pacing::cpu`]).

use pacing::cpu::{Cost, CostMeter};

/// Packets of a cycle that make its time worth counting: a cycle with fewer is dear for each of them, and cheap for one more.
const PACKETS_MIN: u64 = 8;

/// The meters of a core.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Costs {
    packet: CostMeter,
    read: CostMeter,
}

impl Costs {
    /// A cycle sent this many packets in this time.
    pub(super) fn packets(&mut self, count: u64, ns: u64) {
        if count >= PACKETS_MIN {
            self.packet.add(count, ns);
        }
    }

    /// A cycle took in this many reads, and issued others, in this time.
    pub(super) fn reads(&mut self, count: u64, ns: u64) {
        self.read.add(count, ns);
    }

    pub(super) fn cost(&self) -> Cost {
        let reckoned = Cost::default();
        Cost { packet_ns: self.packet.each_ns().unwrap_or(reckoned.packet_ns), read_ns: self.read.each_ns().unwrap_or(reckoned.read_ns) }
    }
}
