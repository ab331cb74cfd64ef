//! Who has the core's time: what guaranteed peers have reserved of each period, and slices of the rest for all other work.

use pacing::cpu::Work;
use pacing::period::{Period, Slice, Unreserved};
use pacing::{Clock, Wheel};
use stack::host::Host;

use super::executor::{Gdsl, PACKETS_PER_UPCALL_MAX, UPCALL_BATCH};
use super::{Class, IssueModule};
use crate::disks::Disk;

/// How soon to look again while reads are under way or the layer below is full.
const RETRY_NS: u64 = 100_000;

impl<H: Host, D: Disk, S: IssueModule<H, D>, T: IssueModule<H, D>> Gdsl<H, D, S, T> {
    /// Guaranteed peers have reserved time for so much work, all of them together. It counts from the next period on.
    pub fn set_reserved(&mut self, work: Work) {
        self.reserved = work;
    }

    /// The account of the present period, and what each kind of work came to since start.
    pub fn period(&self) -> &Period {
        &self.period
    }

    /// The time that work of this kind may have from now on; `None`: it is put off. [`Self::took`] ends it.
    pub fn slice(&mut self, kind: Unreserved, now_ns: u64) -> Option<Slice> {
        if self.period.is_over(now_ns) {
            self.period.begin(now_ns, self.reserved.permille(self.costs.cost()));
        }
        let contested = self.is_due(Class::Guaranteed, now_ns);
        self.period.slice(kind, now_ns, contested)
    }

    /// The work of the slice went on until now.
    pub fn took(&mut self, slice: Slice, now_ns: u64) {
        self.period.took(slice, now_ns);
    }

    /// There is more work of this kind than its slice was long.
    pub fn put_off(&mut self, kind: Unreserved) {
        self.period.put_off(kind);
    }

    pub(super) fn is_due(&self, class: Class, now_ns: u64) -> bool {
        self.wheels[class as usize].next_due_ns().is_some_and(|at_ns| at_ns <= now_ns)
    }

    /// Hands queued frames over; false when there are none.
    pub(super) fn flush(&mut self, clock: &dyn Clock) -> bool {
        let any = self.host.queued() > 0;
        if any {
            self.log.flush(&mut self.host, clock, &mut self.counters);
        }
        any
    }

    /// Upcalls best-effort peers that are due and sends what they have, as long as their slice lasts; how many there were. The packets of
    /// guaranteed ones do not wait for them.
    pub(super) fn upcall_best_effort(&mut self, now_ns: u64, clock: &dyn Clock, before: u32) -> u32 {
        self.flush(clock);
        let Some(slice) = self.slice(Unreserved::BestEffort, clock.now_ns()) else { return 0 };
        let packets_max = self.counters.packets + slice.pieces(self.costs.cost().packet_ns);
        let mut upcalls = 0;
        let mut due = [0; UPCALL_BATCH];
        let mut is_over = false;
        while !is_over {
            let left = self.upcalls_left(before + upcalls);
            let batch = self.take_due(Class::BestEffort, now_ns, left, &mut due);
            if batch.is_empty() {
                break;
            }
            self.prefetch_pairs(batch);
            for &key in batch {
                if is_over {
                    self.wheels[Class::BestEffort as usize].schedule(key, now_ns);
                    continue;
                }
                self.upcall(key, now_ns, clock);
                upcalls += 1;
                is_over = self.counters.packets >= packets_max || slice.is_over(clock.now_ns());
            }
        }
        self.flush(clock);
        self.took(slice, clock.now_ns());
        if self.is_due(Class::BestEffort, now_ns) {
            self.period.put_off(Unreserved::BestEffort);
        }
        upcalls
    }

    /// Upcalls that fit in the cycle after so many.
    pub(super) fn upcalls_left(&self, upcalls: u32) -> usize {
        match self.log.nearly_full(UPCALL_BATCH * PACKETS_PER_UPCALL_MAX) {
            true => 0,
            false => self.config.upcalls_per_cycle.saturating_sub(upcalls) as usize,
        }
    }

    /// Issues guaranteed reads, and best-effort ones as far as there is processor time for them.
    pub(super) fn issue_reads(&mut self, now_ns: u64, begin_ns: u64) {
        let slice = if self.reads.best_effort_waits() { self.slice(Unreserved::Reads, begin_ns) } else { None };
        let read_ns = self.costs.cost().read_ns;
        let best_effort_max = slice.map_or(0, |slice| slice.pieces(read_ns));
        let best_effort = self.reads.issue(now_ns, &mut self.disk, best_effort_max);
        if let Some(slice) = slice {
            // All are issued in one batch: their part of it is what they are known to cost.
            self.took(slice, slice.from_ns().saturating_add(best_effort.saturating_mul(read_ns)));
        }
    }

    /// Writes byte streams out: those with guaranteed packets, and others as long as their slice lasts.
    pub(super) fn flush_streams(&mut self, clock: &dyn Clock) {
        self.host.flush_streams_up_to(clock.now_ns(), true, usize::MAX);
        self.streams_wait = self.host.flush_streams_up_to(clock.now_ns(), false, 0);
        if self.streams_wait
            && let Some(slice) = self.slice(Unreserved::Streams, clock.now_ns())
        {
            while self.streams_wait && !slice.is_over(clock.now_ns()) {
                self.streams_wait = self.host.flush_streams_up_to(clock.now_ns(), false, 1);
            }
            self.took(slice, clock.now_ns());
            if self.streams_wait {
                self.put_off(Unreserved::Streams);
            }
        }
        self.log.stamp_streams(clock.now_ns(), self.streams_wait);
    }

    /// When the next cycle is needed.
    pub(super) fn next_ns(&self, now_ns: u64) -> Option<u64> {
        if self.streams_wait {
            return Some(now_ns);
        }
        let wheels = self.wheels.iter().filter_map(Wheel::next_due_ns).min();
        let pending = !self.reads.is_empty() || self.disk.in_flight() > 0 || self.host.queued() > 0;
        let retry = pending.then_some(now_ns + RETRY_NS);
        match (wheels, retry) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }
}
