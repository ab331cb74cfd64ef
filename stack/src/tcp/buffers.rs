//! How much a connection may hold: what the configuration grants it, and more when the path holds more.
//!
//! A sender can use twice its congestion window: one that is under way, and one that follows when that is acknowledged. A receiver can use
//! twice of what comes in a round trip. Both grow to that, so that neither a long path nor an end that is kept from running for some
//! milliseconds leaves the line idle, and a connection that needs little holds little.
//!
//! Growth is lent: when less than half of the pool is free, everybody is back at what is granted. Then nothing is taken away that is queued
//! or was offered; only no more is accepted.

use super::api::MS;
use super::conn::Conn;
use super::shared::Shared;

/// What a connection receives, seen over a round trip.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Round {
    /// Largest window, as far as it has grown; 0 before it has.
    window: u32,
    /// Since when bytes are counted, and how many that were.
    from_ns: u64,
    bytes: u32,
}

impl Shared {
    fn may_grow(&self) -> bool {
        self.blocks.free() > self.blocks.count() / 2
    }

    /// The largest receive window that any connection can have.
    pub fn recv_window_max(&self) -> usize {
        self.config.recv_buffer_bytes.max(self.config.buffer_bytes_max)
    }
}

impl Conn {
    /// Bytes that may be queued for sending.
    pub fn send_limit(&self, shared: &Shared) -> usize {
        let granted = shared.config.send_buffer_bytes;
        if !shared.may_grow() {
            return granted;
        }
        let wanted = usize::try_from(2 * self.snd.congestion.cwnd).unwrap_or(usize::MAX);
        wanted.min(shared.config.buffer_bytes_max).max(granted)
    }

    /// Bytes that may be held for the reader.
    pub fn recv_limit(&self, shared: &Shared) -> usize {
        let granted = shared.config.recv_buffer_bytes;
        if shared.may_grow() { granted.max(self.rcv.round.window as usize) } else { granted }
    }

    /// So many bytes have come in order; `echo` is the timestamp of ours that they answer to.
    pub fn note_received(&mut self, shared: &Shared, now_ns: u64, bytes: u32, echo: Option<u32>) {
        let limit = self.recv_limit(shared);
        let echoed_ms = echo.map_or(0, |echo| self.ts_at(now_ns).wrapping_sub(echo));
        let echoed_ns = if echoed_ms < 10_000 { u64::from(echoed_ms) * MS } else { 0 };
        let round_ns = echoed_ns.max(self.snd.rtt.srtt_ns).max(MS);
        let round = &mut self.rcv.round;
        if now_ns.saturating_sub(round.from_ns) > round_ns {
            // The window is what limits the peer if half of it came in one round trip, and the reader keeps up.
            if round.bytes as usize >= limit / 2 && self.rcv.queue.readable() < limit / 2 {
                round.window = (2 * limit).min(shared.recv_window_max()) as u32;
            }
            (round.from_ns, round.bytes) = (now_ns, 0);
        }
        round.bytes = round.bytes.saturating_add(bytes);
    }
}
