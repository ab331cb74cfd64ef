//! The clock of an engine core: the processor's time-stamp counter, held to `CLOCK_MONOTONIC`.
//!
//! ```text
//! CLOCK_MONOTONIC   .---------*---------*---------*   every 10 ms of use the line is laid through a new pair (counter, time),
//! counter              line ──┘  line ──┘              with the rate measured over the last half second or more
//! ```
//!
//! Between two such points a reading is one counter read, one multiplication and one comparison. The operating system's clock is
//! disciplined by NTP; following it point by point means that receive timestamps and other threads' times can be compared with this
//! clock's, within a microsecond or so. A reading is never below the one before it: where the new line lies lower, time stands still for
//! the few nanoseconds until it has caught up.
//!
//! Where the counter cannot be trusted (no invariant counter, another architecture, or its rate turns out to change) every reading asks
//! `CLOCK_MONOTONIC`.

use std::cell::Cell;

use super::Clock;
use super::sys;
use crate::NS_PER_SEC;

/// The line is laid anew when this much time has passed on it.
const ANCHOR_NS: u64 = 10_000_000;
/// The rate is measured anew over at least this long.
const RATE_WINDOW_NS: u64 = NS_PER_SEC / 2;
/// How long `new` measures the rate for the first time.
const CALIBRATE_NS: u64 = 20_000_000;
/// A counter whose rate seems to change by more than 1/512 is not trusted: NTP steers by a quarter of that at most.
const RATE_TOLERANCE: u64 = 512;
/// A pair of counter and time that took longer than this to read was interrupted, and is good for the offset only.
const PAIR_GOOD_NS: u64 = 1_000;
/// Fraction bits of a rate.
const RATE_BITS: u32 = 32;

/// A reading of the counter and the time that belongs to it.
#[derive(Clone, Copy, Debug, Default)]
struct Pair {
    ticks: u64,
    ns: u64,
}

/// A straight line from counter ticks to nanoseconds, laid anew now and then. Knows no hardware: the counter and pairs are given to it.
#[derive(Clone, Copy, Debug)]
struct Line {
    anchor: Pair,
    /// Where the rate's measurement starts.
    rate_from: Pair,
    /// Nanoseconds per tick, times 2^RATE_BITS.
    rate: u64,
    /// Ticks after the anchor for which the line holds.
    valid_ticks: u64,
}

impl Line {
    /// The line through two pairs; `None` if they do not make one.
    fn through(from: Pair, to: Pair) -> Option<Self> {
        let rate = rate_between(from, to)?;
        let mut line = Self { anchor: to, rate_from: from, rate, valid_ticks: 0 };
        line.lay(to);
        Some(line)
    }

    /// The time at `ticks`, `None` when the line must be laid anew first (also when the counter went back).
    #[inline]
    fn at(&self, ticks: u64) -> Option<u64> {
        let after = ticks.wrapping_sub(self.anchor.ticks);
        (after <= self.valid_ticks).then(|| self.anchor.ns + ((u128::from(after) * u128::from(self.rate)) >> RATE_BITS) as u64)
    }

    /// Continues from `pair` on; `false` when the counter's rate has changed so much that it is not to be trusted. A pair that is not
    /// `exact` does not take part in measuring the rate.
    fn follow(&mut self, pair: Pair, exact: bool) -> bool {
        if pair.ticks < self.anchor.ticks {
            return false;
        }
        if exact && pair.ns.saturating_sub(self.rate_from.ns) >= RATE_WINDOW_NS {
            let Some(rate) = rate_between(self.rate_from, pair) else { return false };
            if rate.abs_diff(self.rate) > self.rate / RATE_TOLERANCE {
                return false;
            }
            self.rate = rate;
            self.rate_from = pair;
        }
        self.lay(pair);
        true
    }

    fn lay(&mut self, pair: Pair) {
        self.anchor = pair;
        self.valid_ticks = ((u128::from(ANCHOR_NS) << RATE_BITS) / u128::from(self.rate)).min(1 << 40) as u64;
    }
}

/// Nanoseconds per tick, times 2^RATE_BITS; `None` if the counter does not run forward, or slower than 1 MHz.
fn rate_between(from: Pair, to: Pair) -> Option<u64> {
    let ticks = to.ticks.checked_sub(from.ticks)?;
    let ns = to.ns.checked_sub(from.ns)?;
    let rate = (u128::from(ns) << RATE_BITS).checked_div(u128::from(ticks))?;
    u64::try_from(rate).ok().filter(|&rate| rate > 0 && rate < 1000 << RATE_BITS)
}

/// The clock of an engine core. Each core makes (or clones) its own; readings of one clone never go back.
#[derive(Clone, Debug)]
pub struct TscClock {
    /// `None` where only `CLOCK_MONOTONIC` is to be trusted.
    line: Cell<Option<Line>>,
    last_ns: Cell<u64>,
}

impl TscClock {
    /// A clock, calibrated against `CLOCK_MONOTONIC`: takes about 20 ms.
    pub fn new() -> Self {
        Self { line: Cell::new(calibrate()), last_ns: Cell::new(0) }
    }

    /// True when readings come from the time-stamp counter, false when each asks the operating system (some 20 ns more).
    pub fn uses_counter(&self) -> bool {
        self.line.get().is_some()
    }

    #[cold]
    fn follow(&self) -> u64 {
        let Some(mut line) = self.line.get() else { return sys::monotonic_ns() };
        let (pair, took_ns) = read_pair();
        self.line.set(line.follow(pair, took_ns <= PAIR_GOOD_NS).then_some(line));
        pair.ns
    }
}

impl Default for TscClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for TscClock {
    #[inline]
    fn now_ns(&self) -> u64 {
        let read_ns = match self.line.get() {
            Some(line) => line.at(sys::counter()).unwrap_or_else(|| self.follow()),
            None => sys::monotonic_ns(),
        };
        let now_ns = read_ns.max(self.last_ns.get());
        self.last_ns.set(now_ns);
        now_ns
    }

    fn unix_ns_at(&self, at_ns: u64) -> u64 {
        // The two clocks are read one after the other: of a few tries the quickest counts, others were interrupted in between.
        let (mut best_ns, mut unix_minus_monotonic) = (u64::MAX, 0);
        for _ in 0..4 {
            let before_ns = sys::monotonic_ns();
            let unix_ns = sys::unix_ns();
            let took_ns = sys::monotonic_ns() - before_ns;
            if took_ns < best_ns {
                best_ns = took_ns;
                unix_minus_monotonic = unix_ns.wrapping_sub(before_ns + took_ns / 2);
            }
            if took_ns <= PAIR_GOOD_NS {
                break;
            }
        }
        at_ns.wrapping_add(unix_minus_monotonic)
    }
}

/// The first line, or `None` if the counter is of no use here.
fn calibrate() -> Option<Line> {
    if !sys::counter_is_invariant() {
        return None;
    }
    let (from, _) = read_pair();
    std::thread::sleep(std::time::Duration::from_nanos(CALIBRATE_NS));
    let (to, _) = read_pair();
    Line::through(from, to)
}

/// The counter and the time that belongs to it, and how long the reading took: the quickest of a few tries.
fn read_pair() -> (Pair, u64) {
    let mut best = (Pair::default(), u64::MAX);
    for _ in 0..4 {
        let before_ns = sys::monotonic_ns();
        let ticks = sys::counter();
        let took_ns = sys::monotonic_ns() - before_ns;
        if took_ns < best.1 {
            best = (Pair { ticks, ns: before_ns + took_ns / 2 }, took_ns);
        }
        if took_ns <= PAIR_GOOD_NS {
            break;
        }
    }
    best
}

#[cfg(test)]
mod tests;
