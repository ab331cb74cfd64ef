//! What work costs on this core, measured while it is done: the ground of the isochronous budget ([`pacing::cpu`]).

use pacing::cpu::{Cost, CostMeter};

/// Packets of a cycle that make its time worth counting: a cycle with fewer is dear for each of them, and cheap for one more.
const PACKETS_MIN: u64 = 8;
/// Reads that are counted together: a read is issued in one cycle and answered in another.
const READS_MIN: u64 = 8;

/// The meters of a core.
#[derive(Clone, Copy, Debug)]
pub(super) struct Costs {
    packet: CostMeter,
    read: CostMeter,
    /// Reads that were answered and are not counted yet, and the time that reads have taken since.
    answers: u64,
    read_ns: u64,
}

impl Default for Costs {
    fn default() -> Self {
        let Cost { packet_ns, read_ns } = Cost::default();
        Self { packet: CostMeter::new(packet_ns), read: CostMeter::new(read_ns), answers: 0, read_ns: 0 }
    }
}

impl Costs {
    /// A cycle sent this many packets in this time.
    pub(super) fn packets(&mut self, count: u64, ns: u64) {
        if count >= PACKETS_MIN {
            self.packet.add(count, ns);
        }
    }

    /// A cycle took in this many reads, and issued others, in this time.
    pub(super) fn reads(&mut self, answers: u64, ns: u64) {
        self.answers += answers;
        self.read_ns = self.read_ns.saturating_add(ns);
        if self.answers >= READS_MIN {
            self.read.add(self.answers, self.read_ns);
            (self.answers, self.read_ns) = (0, 0);
        }
    }

    pub(super) fn cost(&self) -> Cost {
        let reckoned = Cost::default();
        Cost { packet_ns: self.packet.each_ns().unwrap_or(reckoned.packet_ns), read_ns: self.read.each_ns().unwrap_or(reckoned.read_ns) }
    }
}
