//! One turn of sending: timers, the ring of connections that wait for the interface queue (and replies to strangers), then everybody else.

use super::Tcp;
use super::api::{Events, SegmentOut, SendOutcome};
use super::output::Turn;
use super::replies::Reply;
use super::wire::{self, flag};

/// Writers that are told of free blocks in one turn.
const WRITERS_PER_TURN: usize = 16;

impl Tcp {
    /// Runs timers and sends what is to be sent. Returns how many segments went out.
    pub fn egress(&mut self, now_ns: u64, out: &mut impl SegmentOut) -> usize {
        self.now_ns = self.now_ns.max(now_ns);
        let sent_before = self.shared.counters.tx_segments;
        while let Some((index, _)) = self.shared.wheel.pop_due(now_ns) {
            self.drive(index, |conn, shared| conn.on_time(shared, now_ns));
        }
        self.shared.ifq.begin(now_ns, out.queued());
        if self.serve_waiting(out) && self.serve_ready(out) {
            self.send_replies(out, usize::MAX);
        }
        let somebody_waits = !self.shared.waiting.is_empty() || self.shared.replies.first().is_some();
        self.shared.ifq.end(out.queued(), somebody_waits);
        self.wake_writers();
        (self.shared.counters.tx_segments - sent_before) as usize
    }

    /// Asks for the memory of the connection whose turn is next.
    fn prefetch(&self, next: Option<u32>) {
        if let Some(conn) = next.and_then(|index| self.conns.get(index as usize)) {
            hugepages::prefetch(conn);
        }
    }

    /// Up to `max` replies, while the interface queue is below its limit: who sends them is not known, and what they come to is up to others.
    /// False when the port is full.
    fn send_replies(&mut self, out: &mut dyn SegmentOut, max: usize) -> bool {
        for _ in 0..max {
            if !self.shared.ifq.allows(out.queued()) {
                return true;
            }
            let Some(Reply { tuple, header, via }) = self.shared.replies.first() else { return true };
            let fill = &mut |buf: &mut [u8]| wire::emit(tuple, header, buf, &|_| {});
            let outcome = match via {
                Some(via) => out.answer(*via, tuple.local, tuple.remote, header.len(), fill),
                None => out.segment(tuple.local, tuple.remote, header.len(), fill),
            };
            let reset = header.has(flag::RST);
            match outcome {
                SendOutcome::Full => {
                    self.shared.counters.port_full += 1;
                    return false;
                }
                SendOutcome::Sent => {
                    self.shared.counters.tx_segments += 1;
                    self.shared.counters.tx_resets += u64::from(reset);
                }
                SendOutcome::Unresolved | SendOutcome::NoRoute => self.shared.counters.tx_replies_dropped += 1,
            }
            self.shared.replies.pop();
        }
        true
    }

    /// Round-robin, a quantum each, while the interface queue is below its limit; replies have every other turn. False when the port is
    /// full.
    fn serve_waiting(&mut self, out: &mut dyn SegmentOut) -> bool {
        let now_ns = self.now_ns;
        while self.shared.ifq.allows(out.queued()) {
            if self.shared.replies.take_turn() {
                if !self.send_replies(out, self.shared.config.quantum.max(1) as usize) {
                    return false;
                }
                continue;
            }
            let Some(index) = self.shared.waiting.pop() else { return true };
            self.prefetch(self.shared.waiting.first());
            let turn = self.drive(index, |conn, shared| {
                let turn = conn.transmit(shared, now_ns, out);
                match turn {
                    Turn::More => {
                        shared.waiting.push(index);
                    }
                    // It keeps its place, and what is left of its quantum.
                    Turn::Waits | Turn::Full => shared.waiting.push_front(index),
                    Turn::Done | Turn::Later => {}
                }
                turn
            });
            if turn == Some(Turn::Full) {
                return false;
            }
        }
        true
    }

    /// False when the port is full.
    fn serve_ready(&mut self, out: &mut dyn SegmentOut) -> bool {
        let now_ns = self.now_ns;
        while let Some(index) = self.shared.ready.pop() {
            self.prefetch(self.shared.ready.first());
            let turn = self.drive(index, |conn, shared| {
                // Nobody overtakes those who wait.
                let mut turn = if !shared.waiting.is_empty() {
                    if conn.wants_to_send(shared, now_ns) { Turn::Waits } else { Turn::Done }
                } else {
                    conn.transmit(shared, now_ns, out)
                };
                if turn == Turn::Waits && shared.waiting.push(index) {
                    shared.counters.ifq_waits += 1;
                }
                if matches!(turn, Turn::Done | Turn::Waits) {
                    turn = conn.send_owed(shared, now_ns, out);
                }
                match turn {
                    Turn::More => {
                        shared.ready.push(index);
                    }
                    Turn::Full => shared.ready.push_front(index),
                    Turn::Done | Turn::Waits | Turn::Later => {}
                }
                turn
            });
            if turn == Some(Turn::Full) {
                return false;
            }
        }
        true
    }

    /// Tells writers for which the pool had no block that it has some again.
    fn wake_writers(&mut self) {
        for _ in 0..WRITERS_PER_TURN {
            if self.shared.starved.is_empty() || self.shared.blocks.free() <= self.shared.blocks.count() / 4 {
                return;
            }
            let Some(index) = self.shared.starved.pop() else { return };
            self.drive(index, |conn, shared| {
                conn.snd.writer_waits = false;
                conn.tell(shared, Events::WRITABLE);
            });
        }
    }
}
