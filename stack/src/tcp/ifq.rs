//! IFQ limiting: how long the interface queue may be when TCP adds to it (SYSTEMS: SAPS).
//!
//! The test is the last one before a segment is handed down. At the limit the connection joins a ring and goes on when frames have been
//! completed, a few segments at a time. A segment that waits was not sent: it is no loss, starts no timer and does not touch the congestion
//! window. Segments without payload do not wait: they are short, and the peer's clock hangs on them.
//!
//! The adaptive limit looks at how long the queue is when a turn begins, that is, at what was left of it after the completions since the
//! turn before. Only turns count before which somebody had to wait:
//!
//! - Nothing was left: the device may have stood still while segments waited. The limit grows at once, by half of what was queued.
//! - In all of the last 20 ms something was left: that much was never needed. The limit falls by half of the least that was left.
//!
//! It so finds the smallest queue that lasts from one turn to the next, whatever the rate of the link and the length of a turn are. It is
//! the idea of Linux's dynamic queue limits, counted in frames.

use super::api::IfqLimit;

/// How long slack must last before the limit falls.
const HOLD_NS: u64 = 20_000_000;

#[derive(Debug)]
pub(super) struct Ifq {
    bounds: IfqLimit,
    limit: usize,
    /// Somebody had to wait in the last turn, and the queue was that long at its end.
    limited: bool,
    queued_at_end: usize,
    /// Least that was left in this hold time.
    slack: usize,
    hold_until_ns: u64,
}

impl Ifq {
    pub fn new(bounds: IfqLimit) -> Self {
        let limit = match bounds {
            IfqLimit::Off => usize::MAX,
            // A limit of 0 would be a standstill.
            IfqLimit::Fixed(frames) => frames.max(1),
            IfqLimit::Adaptive { min, .. } => min.max(1),
        };
        Self { bounds, limit, limited: false, queued_at_end: 0, slack: usize::MAX, hold_until_ns: 0 }
    }

    /// The limit as it is now, in frames; `usize::MAX` without one.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// A turn begins.
    pub fn begin(&mut self, now_ns: u64, queued: usize) {
        let IfqLimit::Adaptive { min, max } = self.bounds else { return };
        if !self.limited {
            return;
        }
        if queued == 0 {
            self.limit = (self.limit + self.queued_at_end.div_ceil(2).max(1)).min(max.max(1));
            (self.slack, self.hold_until_ns) = (usize::MAX, now_ns + HOLD_NS);
            return;
        }
        self.slack = self.slack.min(queued);
        if now_ns >= self.hold_until_ns {
            self.limit = self.limit.saturating_sub(self.slack / 2).max(min.max(1));
            (self.slack, self.hold_until_ns) = (usize::MAX, now_ns + HOLD_NS);
        }
    }

    /// The last test before a segment with payload is handed down.
    pub fn allows(&self, queued: usize) -> bool {
        queued < self.limit
    }

    /// A turn ends; `limited`: somebody waits.
    pub fn end(&mut self, queued: usize, limited: bool) {
        (self.limited, self.queued_at_end) = (limited, queued);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Turns of `turn_ns` for a second, on a link that completes a frame every `frame_ns`, with senders that never run dry. Returns the
    /// longest queue and the part of the time in which the link was idle, both of the last half second.
    fn run(ifq: &mut Ifq, turn_ns: u64, frame_ns: u64) -> (usize, f64) {
        let (mut queued, mut credit_ns, mut idle_ns, mut longest) = (0usize, 0u64, 0u64, 0);
        for now_ns in (0..1_000_000_000).step_by(turn_ns as usize) {
            credit_ns += turn_ns;
            let done = queued.min((credit_ns / frame_ns) as usize);
            credit_ns -= done as u64 * frame_ns;
            queued -= done;
            let idle = if queued == 0 { std::mem::take(&mut credit_ns) } else { 0 };
            ifq.begin(now_ns, queued);
            while ifq.allows(queued) {
                queued += 1;
            }
            ifq.end(queued, true);
            if now_ns > 500_000_000 {
                idle_ns += idle;
                longest = longest.max(queued);
            }
        }
        (longest, idle_ns as f64 / 500_000_000.0)
    }

    #[test]
    fn finds_the_smallest_queue_that_lasts_a_turn() {
        for (turn_ns, frame_ns) in [(10_000, 12_000), (50_000, 12_000), (250_000, 12_000), (1_000_000, 12_000), (100_000, 1_200)] {
            let mut ifq = Ifq::new(IfqLimit::Adaptive { min: 2, max: 4096 });
            let (longest, idle) = run(&mut ifq, turn_ns, frame_ns);
            let needed = (turn_ns / frame_ns) as usize;
            assert!(idle < 0.05, "turns of {turn_ns} ns: idle {idle:.3}");
            assert!(longest <= 2 * needed + 4, "turns of {turn_ns} ns: {longest} frames, {needed} needed");
        }
    }

    #[test]
    fn comes_down_when_turns_become_short() {
        let mut ifq = Ifq::new(IfqLimit::Adaptive { min: 2, max: 4096 });
        run(&mut ifq, 1_000_000, 12_000);
        let high = ifq.limit();
        run(&mut ifq, 50_000, 12_000);
        assert!(ifq.limit() < high / 4, "{high} frames, then {}", ifq.limit());
    }

    #[test]
    fn fixed_and_off() {
        let mut fixed = Ifq::new(IfqLimit::Fixed(7));
        assert_eq!(run(&mut fixed, 100_000, 12_000).0, 7);
        assert!(Ifq::new(IfqLimit::Off).allows(usize::MAX - 1));
        assert!(Ifq::new(IfqLimit::Fixed(0)).allows(0), "no standstill");
    }
}
