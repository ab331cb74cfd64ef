//! What happens when nothing arrives: timeouts, probes, delayed acknowledgments, the ends of TIME-WAIT and of patience.

use super::api::{MS, State, TcpError};
use super::conn::{Conn, LossTimer, NEVER};
use super::shared::Shared;

/// Zero-window probes are at most this far apart (RFC 9293 3.8.6.1 leaves it open).
const PERSIST_MAX_NS: u64 = 60_000 * MS;

impl Conn {
    /// The wheel calls: does what is due.
    pub fn on_time(&mut self, shared: &mut Shared, now_ns: u64) {
        self.timers.wheel_ns = NEVER;
        if self.timers.state_ns <= now_ns {
            self.timers.state_ns = NEVER;
            return self.end(shared);
        }
        if self.timers.ack_ns <= now_ns {
            self.timers.ack_ns = NEVER;
            self.ack_now(shared);
        }
        if self.timers.retry_ns <= now_ns {
            self.timers.retry_ns = NEVER;
            if self.stalled_ns != NEVER && now_ns - self.stalled_ns > self.patience_ns(shared) {
                return self.fail(shared, TcpError::Unreachable);
            }
            self.wake(shared);
        }
        if self.timers.loss_ns <= now_ns {
            self.loss_time(shared, now_ns);
        }
        if self.timers.probe_ns <= now_ns && self.state != State::Closed {
            self.timers.probe_ns = NEVER;
            self.probe_time(shared, now_ns);
        }
    }

    fn patience_ns(&self, shared: &Shared) -> u64 {
        match self.state {
            State::SynSent | State::SynReceived => shared.config.connect_timeout_ns,
            _ => self.user_timeout_ns,
        }
    }

    fn loss_time(&mut self, shared: &mut Shared, now_ns: u64) {
        self.timers.loss_ns = NEVER;
        let gives_up = now_ns.saturating_sub(self.progress_ns) > self.patience_ns(shared);
        if matches!(self.state, State::SynSent | State::SynReceived) {
            if gives_up {
                return self.fail(shared, TcpError::TimedOut);
            }
            self.snd.rtt.backoff += 1;
            self.syn_due = true;
            return self.wake(shared);
        }
        match self.timers.loss {
            LossTimer::Reordering => self.reordering_timeout(shared, now_ns),
            LossTimer::Probe => self.snd.recovery.probe_due = true,
            LossTimer::Retransmit if self.snd.flight.lost_bytes > 0 && shared.waiting.contains(self.index) => {
                // What is to be sent again has not left yet: that is the interface queue's doing, not the network's.
                self.snd.recovery.rto_from_ns = now_ns;
            }
            LossTimer::Retransmit if gives_up => {
                self.reset_peer(shared);
                return self.fail(shared, TcpError::TimedOut);
            }
            LossTimer::Retransmit => self.retransmission_timeout(shared, now_ns),
        }
        self.arm_loss(shared, now_ns);
        self.wake(shared);
    }

    /// A zero-window probe if something is queued, a keep-alive if not.
    fn probe_time(&mut self, shared: &mut Shared, now_ns: u64) {
        if !self.snd.flight.is_empty() {
            return;
        }
        if self.snd.has_unsent() {
            // A peer that answers may keep its window shut for as long as it likes (RFC 9293 3.8.6.1), but not for nobody's sake.
            let heard_ns = if self.held { self.heard_ns } else { self.progress_ns };
            if now_ns.saturating_sub(heard_ns) > self.user_timeout_ns {
                self.reset_peer(shared);
                return self.fail(shared, TcpError::TimedOut);
            }
            self.snd.persists += 1;
        } else if let Some(keep_alive) = self.keep_alive {
            if now_ns < self.heard_ns + keep_alive.idle_ns {
                return;
            }
            if self.probes >= keep_alive.probes {
                self.reset_peer(shared);
                return self.fail(shared, TcpError::TimedOut);
            }
            self.probes += 1;
            self.timers.probe_ns = now_ns + keep_alive.interval_ns.max(MS);
        } else {
            return;
        }
        self.probe_due = true;
        self.wake(shared);
    }

    /// To be called when the connection was worked on: starts the timer that its new state calls for.
    pub fn settle(&mut self, shared: &mut Shared, now_ns: u64) {
        let open = !matches!(self.state, State::Closed | State::SynSent | State::SynReceived | State::TimeWait);
        if !open || !self.snd.flight.is_empty() {
            self.timers.probe_ns = NEVER;
        } else if self.timers.probe_ns == NEVER && !self.probe_due {
            if self.snd.has_unsent() {
                let busy = shared.waiting.contains(self.index) || shared.ready.contains(self.index) || self.timers.retry_ns != NEVER;
                if !busy {
                    let wait_ns = (self.snd.rtt.base_rto_ns() << self.snd.persists.min(16)).min(PERSIST_MAX_NS);
                    self.timers.probe_ns = now_ns + wait_ns;
                }
            } else if let Some(keep_alive) = self.keep_alive {
                self.timers.probe_ns = (self.heard_ns + keep_alive.idle_ns.max(MS)).max(now_ns + 1);
            }
        }
        self.arm(shared, now_ns);
    }
}
