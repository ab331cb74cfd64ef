//! CUBIC (RFC 9438). Windows are counted in segments, in floating point, as the formulas have them.

use super::congestion::{Acked, Law};

/// RFC 9438 5.1: segments per second cubed.
const C: f64 = 0.4;
/// RFC 9438 4.6: multiplicative decrease.
const BETA: f64 = 0.7;
/// RFC 9438 4.3: additive increase that is fair to Reno with that decrease.
const ALPHA: f64 = 3.0 * (1.0 - BETA) / (1.0 + BETA);

/// State of one connection; all zero before the first congestion.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Cubic {
    /// Window just before the last reduction, in segments.
    w_max: f64,
    /// Start of the current congestion avoidance stage; 0 when there is none.
    epoch_ns: u64,
    /// Window at its start, in segments.
    cwnd_epoch: f64,
    /// Time from there to `w_max`, in seconds.
    k: f64,
    /// What Reno would have, in segments.
    w_est: f64,
    /// Part of a byte that the window has grown by.
    fraction: f64,
}

impl Cubic {
    fn start(&mut self, now_ns: u64, cwnd: f64) {
        self.epoch_ns = now_ns.max(1);
        self.cwnd_epoch = cwnd;
        self.w_est = cwnd;
        if self.w_max < cwnd {
            // RFC 9438 4.8, and for a stage that no loss came before.
            self.w_max = cwnd;
        }
        self.k = ((self.w_max - cwnd) / C).cbrt();
    }
}

impl Law for Cubic {
    fn grow(&mut self, cwnd: u64, mss: u64, acked: Acked) -> u64 {
        let segments = cwnd as f64 / mss as f64;
        if self.epoch_ns == 0 {
            self.start(acked.now_ns, segments);
        }
        let acked_segments = acked.bytes as f64 / mss as f64;
        // RFC 9438 4.2: the window in one round trip from now, at most half as much again.
        let t = (acked.now_ns.saturating_sub(self.epoch_ns) + acked.srtt_ns) as f64 / 1e9;
        let target = (C * (t - self.k).powi(3) + self.w_max).clamp(segments, 1.5 * segments);
        // RFC 9438 4.3.
        let alpha = if self.w_est >= self.w_max { 1.0 } else { ALPHA };
        self.w_est += alpha * acked_segments / segments;
        let cubic = segments + (target - segments) / segments * acked_segments;
        let bytes = cubic.max(self.w_est.min(segments + acked_segments)) * mss as f64 + self.fraction;
        self.fraction = bytes.fract();
        (bytes as u64).max(cwnd)
    }

    fn reduce(&mut self, cwnd: u64, in_flight: u64, mss: u64) -> u64 {
        let segments = cwnd as f64 / mss as f64;
        // RFC 9438 4.7, fast convergence: the last maximum was not reached again, so there is less room than there was.
        self.w_max = if segments < self.w_max { segments * (1.0 + BETA) / 2.0 } else { segments };
        self.epoch_ns = 0;
        self.fraction = 0.0;
        ((in_flight as f64 * BETA) as u64).max(2 * mss)
    }

    fn idle(&mut self, idle_ns: u64) {
        // RFC 9438 4.2: time in which nothing was sent does not count.
        if self.epoch_ns != 0 {
            self.epoch_ns += idle_ns;
        }
    }
}
