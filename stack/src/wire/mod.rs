//! The link emulator: one direction of a link, deterministic from a seed, with the time as an argument.
//!
//! ```text
//! push(now, frame) ─► queue (tail drop) ─► line (rate) ─► loss, corruption, duplication ─► delay, jitter, holding back ─► pop(now)
//! ```
//!
//! - A frame that finds the line free is sent at once; otherwise it waits in the queue, or is dropped when that is full.
//! - Sending takes as long as the frame, padded to Ethernet's minimum, plus [`WireConfig::overhead_bytes`] take at the rate. A frame that is
//!   then lost has used the line all the same.
//! - It arrives, whole, when its last bit does: end of sending plus delay plus jitter. Order is kept unless holding back is asked for: a frame
//!   that jitter would let overtake arrives together with the one before it.
//! - Frames lie in a pool that is made at start; nothing is allocated per frame.
//!
//! The same code runs in simulated time under [`SimPort`] and in real time under `testbed net`.

mod chance;
mod config;
mod counters;
mod line;
mod pool;
mod port;
mod queues;
mod ring;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

pub use self::chance::Probability;
pub use self::config::{Bursts, Jitter, JitterKind, WireConfig, WirePool};
pub use self::counters::{DelayHistogram, WireCounters};
pub use self::line::{ETHERNET_FRAME_BYTES_MIN, ETHERNET_OVERHEAD_BYTES};
pub use self::port::{SimCable, SimPort, SimPortConfig, sim_ports};
pub use self::queues::{SimQueue, sim_queues};

use self::chance::Chance;
use self::line::Line;
use self::pool::{Pool, Slot};

/// Bytes at the start of a frame that corruption spares: a frame with a wrong address or type would be ignored, not checked.
const HEADER_BYTES: usize = 14;

/// A frame on its way, ordered by when it arrives; those of equal time by when they were sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Due {
    at_ns: u64,
    order: u64,
    slot: Slot,
}

/// Independent sources of chance, so that no setting changes what another one does.
struct Chances {
    loss: Chance,
    bursts: Chance,
    corruption: Chance,
    duplication: Chance,
    jitter: Chance,
    holding_back: Chance,
}

/// One direction of a link.
pub struct Wire {
    config: WireConfig,
    pool: Pool,
    line: Line,
    waiting: VecDeque<Slot>,
    waiting_bytes: usize,
    flying: BinaryHeap<Reverse<Due>>,
    /// When the latest frame that keeps its order arrives.
    latest_ns: u64,
    chances: Chances,
    burst: bool,
    sent: u64,
    order: u64,
    /// One more than the highest number that arrived.
    next_expected: u64,
    /// The frame that the last `pop` showed; free again at the next call.
    shown: Option<Slot>,
    counters: WireCounters,
    queue_delay: DelayHistogram,
    lateness: DelayHistogram,
}

impl Wire {
    /// A link that is idle. Equal settings, seed and calls give equal results.
    pub fn new(config: WireConfig, pool: WirePool, seed: u64) -> Self {
        let pool = Pool::new(pool.frames, pool.frame_bytes);
        let chance = |stream| Chance::new(seed, stream);
        Self {
            line: Line::new(config.rate_bps, config.overhead_bytes),
            waiting: VecDeque::with_capacity(pool.frames()),
            waiting_bytes: 0,
            flying: BinaryHeap::with_capacity(pool.frames()),
            latest_ns: 0,
            chances: Chances {
                loss: chance(1),
                bursts: chance(2),
                corruption: chance(3),
                duplication: chance(4),
                jitter: chance(5),
                holding_back: chance(6),
            },
            burst: false,
            sent: 0,
            order: 0,
            next_expected: 0,
            shown: None,
            counters: WireCounters::default(),
            queue_delay: DelayHistogram::default(),
            lateness: DelayHistogram::default(),
            config,
            pool,
        }
    }

    /// Offers a frame (without frame check sequence) that came at `now_ns`. Times of pushes do not decrease; they may lie before that
    /// of the last `pop`. False when the frame was dropped here; what is lost on the line is not told.
    pub fn push(&mut self, now_ns: u64, frame: &[u8]) -> bool {
        self.give_back_shown();
        self.advance(now_ns);
        self.counters.in_frames += 1;
        self.counters.in_bytes += frame.len() as u64;
        if frame.len() > self.pool.frame_bytes() {
            self.counters.dropped_too_long += 1;
            return false;
        }
        let waits = !self.waiting.is_empty() || self.line.free_ns() > now_ns;
        let bytes = self.waiting_bytes + frame.len();
        if waits && (bytes > self.config.queue_bytes || self.waiting.len() >= self.config.queue_frames) {
            self.counters.dropped_queue += 1;
            return false;
        }
        let Some(slot) = self.pool.take(frame, now_ns) else {
            self.counters.dropped_pool += 1;
            return false;
        };
        if !waits {
            self.send(slot);
            return true;
        }
        self.waiting.push_back(slot);
        self.waiting_bytes = bytes;
        self.counters.queue_frames_max = self.counters.queue_frames_max.max(self.waiting.len() as u64);
        self.counters.queue_bytes_max = self.counters.queue_bytes_max.max(bytes as u64);
        true
    }

    /// The next frame that has arrived by `now_ns`; it is there until the next call.
    pub fn pop(&mut self, now_ns: u64) -> Option<&[u8]> {
        self.give_back_shown();
        self.advance(now_ns);
        let due = self.flying.peek().map(|first| first.0).filter(|due| due.at_ns <= now_ns)?;
        self.flying.pop();
        self.lateness.record(now_ns - due.at_ns);
        let slot = due.slot;
        self.shown = Some(slot);
        let note = *self.pool.note(slot);
        self.counters.out_frames += 1;
        self.counters.out_bytes += note.len as u64;
        if note.number >= self.next_expected {
            self.next_expected = note.number + 1;
        } else if !note.copy {
            self.counters.reordered += 1;
        }
        Some(self.pool.bytes(slot))
    }

    /// When something happens by itself: a frame arrives, or the line takes the next one out of the queue.
    pub fn next_ns(&self) -> Option<u64> {
        let arrival_ns = self.flying.peek().map(|first| first.0.at_ns);
        let sending_ns = (!self.waiting.is_empty()).then(|| self.line.free_ns());
        arrival_ns.into_iter().chain(sending_ns).min()
    }

    /// When the line has sent all that it has begun to send.
    pub fn line_free_ns(&self) -> u64 {
        self.line.free_ns()
    }

    /// Frames that wait for the line.
    pub fn waiting_frames(&self) -> usize {
        self.waiting.len()
    }

    /// The settings.
    pub fn config(&self) -> &WireConfig {
        &self.config
    }

    /// Changes the settings for the frames that have not begun to be sent, those in the queue included.
    pub fn reconfigure(&mut self, now_ns: u64, config: WireConfig) {
        self.advance(now_ns);
        if (config.rate_bps, config.overhead_bytes) != (self.config.rate_bps, self.config.overhead_bytes) {
            self.line.change(config.rate_bps, config.overhead_bytes);
        }
        if config.bursts.is_none() {
            self.burst = false;
        }
        self.config = config;
    }

    /// Counters since start.
    pub fn counters(&self) -> &WireCounters {
        &self.counters
    }

    /// How long frames waited in the queue.
    pub fn queue_delay(&self) -> &DelayHistogram {
        &self.queue_delay
    }

    /// How much later than their time frames were popped: the error of whoever drives the link; in simulated time his step.
    pub fn lateness(&self) -> &DelayHistogram {
        &self.lateness
    }

    fn give_back_shown(&mut self) {
        if let Some(slot) = self.shown.take() {
            self.pool.give_back(slot);
        }
    }

    /// Sends what the line had time for.
    fn advance(&mut self, now_ns: u64) {
        while self.line.free_ns() <= now_ns {
            let Some(slot) = self.waiting.pop_front() else { break };
            self.waiting_bytes -= self.pool.note(slot).len;
            self.send(slot);
        }
    }

    fn send(&mut self, slot: Slot) {
        let note = self.pool.note_mut(slot);
        note.number = self.sent;
        self.sent += 1;
        let arrived_ns = note.arrived_ns;
        let (start_ns, end_ns) = self.line.send(arrived_ns, note.len);
        let waited_ns = start_ns - arrived_ns;
        self.counters.queue_delay_ns_max = self.counters.queue_delay_ns_max.max(waited_ns);
        self.counters.busy_ns += end_ns - start_ns;
        self.queue_delay.record(waited_ns);
        if self.is_lost() {
            self.pool.give_back(slot);
            return;
        }
        self.corrupt(slot);
        let at_ns = self.arrival(end_ns);
        self.fly(at_ns, slot);
        if self.chances.duplication.happens(self.config.duplication)
            && let Some(second) = self.pool.copy(slot)
        {
            self.counters.duplicated += 1;
            self.fly(at_ns, second);
        }
    }

    fn fly(&mut self, at_ns: u64, slot: Slot) {
        let order = self.order;
        self.order += 1;
        self.flying.push(Reverse(Due { at_ns, order, slot }));
    }

    /// Gilbert's and Elliott's model: the line is in a good or a bad state, changes by chance before each frame, and loses in each state
    /// with that state's own probability. Losses of both settings add up.
    fn is_lost(&mut self) -> bool {
        let mut lost = self.chances.loss.happens(self.config.loss);
        if let Some(bursts) = self.config.bursts {
            let change = if self.burst { bursts.leave } else { bursts.enter };
            self.burst ^= self.chances.bursts.happens(change);
            if self.burst && self.chances.bursts.happens(bursts.loss) {
                lost = true;
                self.counters.lost_in_bursts += 1;
            }
        }
        self.counters.lost += u64::from(lost);
        lost
    }

    fn corrupt(&mut self, slot: Slot) {
        if !self.chances.corruption.happens(self.config.corruption) {
            return;
        }
        let bytes = self.pool.bytes_mut(slot);
        let bits = bytes.len().saturating_sub(HEADER_BYTES) as u64 * 8;
        let bit = self.chances.corruption.below(bits) as usize;
        if let Some(byte) = bytes.get_mut(HEADER_BYTES + bit / 8) {
            *byte ^= 1 << (bit % 8);
            self.counters.corrupted += 1;
        }
    }

    /// When a frame arrives whose last bit was sent at `end_ns`.
    fn arrival(&mut self, end_ns: u64) -> u64 {
        let Jitter { kind, amount_ns } = self.config.jitter;
        let jitter_ns = match kind {
            JitterKind::Uniform => self.chances.jitter.uniform(amount_ns),
            JitterKind::Normal => self.chances.jitter.normal(amount_ns),
        };
        let at_ns = end_ns.saturating_add(self.config.delay_ns.saturating_add_signed(jitter_ns));
        if self.chances.holding_back.happens(self.config.reordering) {
            self.counters.held_back += 1;
            return at_ns.saturating_add(self.config.hold_back_ns);
        }
        self.latest_ns = self.latest_ns.max(at_ns);
        self.latest_ns
    }
}

#[cfg(test)]
mod tests;
