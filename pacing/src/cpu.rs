//! The isochronous budget of an engine core: processor time that guaranteed work reserves beforehand, from what it was measured to cost.
//!
//! ```text
//! measured ns per packet, per read ─► CostMeter ─► Cost ─► CpuBudget: packets and reads a second ─► admitted, or OverBooked
//! ```
//!
//! Guaranteed work goes first in every turn, and nothing that runs in between is longer than a slice. So it is on time as long as it
//! does not need more than the core has; the budget sees to it that it never needs more than a configured share.

use crate::NS_PER_SEC;

/// What work costs on a core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cost {
    /// Processor time of a packet, from the wheel to the layer below, nanoseconds.
    pub packet_ns: u64,
    /// Processor time of a disk read, from its issue to the link, nanoseconds.
    pub read_ns: u64,
}

impl Default for Cost {
    /// What is reckoned with before anything was measured: kernel sockets on a modest machine.
    fn default() -> Self {
        Self { packet_ns: 2_500, read_ns: 15_000 }
    }
}

/// Learns what one kind of work costs: a moving average that rises faster than it falls, so that it errs on the dear side.
///
/// It is fed with time that went by, which contains what the machine took from the core meanwhile. Work that seems to have cost many
/// times the average was interrupted, and is left out: else a machine that stalls would turn streams away that it can carry. Only when
/// that goes on without a break has the work itself become dearer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CostMeter {
    /// What is expected before anything was measured, nanoseconds.
    expected_ns: u64,
    /// Average, 1/256 nanoseconds; 0 before anything was measured.
    each: u64,
    /// Work not averaged yet, and its time.
    count: u64,
    spent_ns: u64,
    /// Interrupted work, in a row.
    interrupted: u32,
}

/// So many times the average is an interruption.
const INTERRUPTED_TIMES: u64 = 4;
/// So many in a row are none.
const INTERRUPTED_MAX: u32 = 64;
/// Pieces of work that are averaged at once: one alone is mostly what disturbed it.
const BATCH: u64 = 256;

impl CostMeter {
    /// A meter of work that is expected to cost about `expected_ns` each.
    pub fn new(expected_ns: u64) -> Self {
        Self { expected_ns, each: 0, count: 0, spent_ns: 0, interrupted: 0 }
    }

    /// `count` pieces of work took `ns` together.
    pub fn add(&mut self, count: u64, ns: u64) {
        let usual_ns = self.each_ns().unwrap_or(self.expected_ns);
        let is_dear = ns > count.saturating_mul(usual_ns).saturating_mul(INTERRUPTED_TIMES);
        self.interrupted = if is_dear { self.interrupted.saturating_add(1) } else { 0 };
        if is_dear && self.interrupted < INTERRUPTED_MAX {
            return;
        }
        self.count += count;
        self.spent_ns = self.spent_ns.saturating_add(ns);
        if self.count < BATCH {
            return;
        }
        let each = (self.spent_ns.saturating_mul(256) / self.count).max(1);
        // Up by an eighth of the difference, down by a sixteenth.
        self.each = match self.each {
            0 => each,
            old if each > old => old + (each - old).div_ceil(8),
            old => old - (old - each) / 16,
        };
        (self.count, self.spent_ns) = (0, 0);
    }

    /// Cost of one piece, nanoseconds, rounded up; `None` before enough was measured.
    pub fn each_ns(&self) -> Option<u64> {
        (self.each > 0).then_some(self.each.div_ceil(256))
    }
}

/// Work that a stream brings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Packets a second, in thousandths.
    pub packets_milli: u64,
    /// Disk reads a second, in thousandths.
    pub reads_milli: u64,
}

impl Work {
    /// This and another stream's.
    pub fn and(self, other: Self) -> Self {
        Self {
            packets_milli: self.packets_milli.saturating_add(other.packets_milli),
            reads_milli: self.reads_milli.saturating_add(other.reads_milli),
        }
    }

    /// This without another stream's.
    pub fn without(self, other: Self) -> Self {
        Self {
            packets_milli: self.packets_milli.saturating_sub(other.packets_milli),
            reads_milli: self.reads_milli.saturating_sub(other.reads_milli),
        }
    }

    /// Of a core's time, what it takes at this cost, per mille. Rounded up.
    pub fn permille(self, cost: Cost) -> u64 {
        let ns = u128::from(self.packets_milli) * u128::from(cost.packet_ns) + u128::from(self.reads_milli) * u128::from(cost.read_ns);
        u64::try_from(ns.div_ceil(u128::from(NS_PER_SEC))).unwrap_or(u64::MAX)
    }
}

/// A stream's work does not fit into the core's time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OverBooked {
    /// What is promised already, per mille of the core.
    pub promised_permille: u64,
    /// What the stream would need in addition, per mille.
    pub asked_permille: u64,
    /// What may be promised, per mille.
    pub share_permille: u64,
}

impl std::fmt::Display for OverBooked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let percent = |permille: u64| permille as f64 / 10.0;
        let (asked, promised, share) = (percent(self.asked_permille), percent(self.promised_permille), percent(self.share_permille));
        write!(f, "the stream needs {asked} % of an engine core, {promised} % of at most {share} % are promised already")
    }
}

impl std::error::Error for OverBooked {}

/// The promises of one core.
#[derive(Clone, Copy, Debug)]
pub struct CpuBudget {
    share_permille: u64,
    cost: Cost,
    promised: Work,
}

impl CpuBudget {
    /// A budget of which at most `share_permille` is promised.
    pub fn new(share_permille: u64) -> Self {
        Self { share_permille, cost: Cost::default(), promised: Work::default() }
    }

    /// Work costs this from now on.
    pub fn set_cost(&mut self, cost: Cost) {
        self.cost = cost;
    }

    /// What is promised of the core's time, per mille.
    pub fn promised_permille(&self) -> u64 {
        self.promised.permille(self.cost)
    }

    /// Promises time for `work`.
    ///
    /// # Errors
    /// [`OverBooked`]; nothing is promised then.
    pub fn reserve(&mut self, work: Work) -> Result<(), OverBooked> {
        let all = self.promised.and(work);
        if all.permille(self.cost) > self.share_permille {
            let (promised_permille, asked_permille) = (self.promised_permille(), work.permille(self.cost));
            return Err(OverBooked { promised_permille, asked_permille, share_permille: self.share_permille });
        }
        self.promised = all;
        Ok(())
    }

    /// Takes a promise back.
    pub fn release(&mut self, work: Work) {
        self.promised = self.promised.without(work);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costs_rise_faster_than_they_fall() {
        let mut meter = CostMeter::new(1000);
        assert_eq!(meter.each_ns(), None);
        meter.add(BATCH, BATCH * 1000);
        assert_eq!(meter.each_ns(), Some(1000));
        for _ in 0..32 {
            meter.add(BATCH, BATCH * 3000);
        }
        assert!((2950..=3000).contains(&meter.each_ns().unwrap()), "{:?}", meter.each_ns());
        for _ in 0..4 {
            meter.add(BATCH, BATCH * 1000);
        }
        assert!(meter.each_ns().unwrap() > 2500);
        for _ in 0..1000 {
            meter.add(1, 1000);
        }
        assert!((1000..3000).contains(&meter.each_ns().unwrap()));
    }

    #[test]
    fn what_interrupts_the_work_is_not_its_cost() {
        let mut meter = CostMeter::new(2000);
        // From the start: two cycles of three are kept from running for 2 ms.
        for _ in 0..1000 {
            meter.add(32, 32 * 1000 + 2_000_000);
            meter.add(32, 32 * 1000 + 2_000_000);
            meter.add(32, 32 * 1000);
        }
        assert_eq!(meter.each_ns(), Some(1000));
        for _ in 0..1000 {
            meter.add(32, 32 * 10_000);
        }
        assert!(meter.each_ns().unwrap() > 9_000, "dearer for good: {:?}", meter.each_ns());
    }

    #[test]
    fn a_core_is_not_promised_beyond_its_share() {
        let mut budget = CpuBudget::new(700);
        budget.set_cost(Cost { packet_ns: 5_000, read_ns: 10_000 });
        // 140 packets and 3 reads a second: 0.73 ms of each second.
        let stream = Work { packets_milli: 140_000, reads_milli: 3_000 };
        let admitted = (0..2000).take_while(|_| budget.reserve(stream).is_ok()).count();
        assert_eq!(admitted, 958);
        assert_eq!(budget.promised_permille(), 700);
        // What was dearer than thought keeps everybody else out.
        budget.set_cost(Cost { packet_ns: 10_000, read_ns: 10_000 });
        let refused = budget.reserve(stream).unwrap_err();
        assert!(refused.promised_permille > 1300 && refused.to_string().contains("at most 70 %"), "{refused}");
        for _ in 0..admitted {
            budget.release(stream);
        }
        assert_eq!(budget.promised_permille(), 0);
        budget.reserve(stream).unwrap();
    }
}
