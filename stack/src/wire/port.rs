//! The [`Port`] seam in simulated time: two ports and the cable between them.
//!
//! ```text
//! commit, flush ─► transmit queue ─► Wire ─► receive queue ─► receive
//!                  at line rate              overrun: dropped
//! ```
//!
//! A committed frame counts as queued until its last bit is on the line and a flush has taken it back: [`Port::queued`] is a real interface
//! queue, which fills when more is committed than the line carries. Without [`SimPortConfig::line_rate_bps`] the port sends at the rate of
//! the wire and the wire's own queue stays empty; with it the port is an interface of that speed, and the wire a slower path behind it with a
//! queue of its own.
//!
//! No clock is read: every call that takes the time brings both directions up to it. [`SimCable::next_ns`] says when something happens by
//! itself. Equal settings, seeds and calls give equal results.

use std::cell::{RefCell, RefMut};
use std::collections::VecDeque;
use std::os::fd::RawFd;
use std::rc::Rc;

use super::line::{ETHERNET_OVERHEAD_BYTES, Line};
use super::ring::FrameRing;
use super::{Wire, WireConfig, WireCounters};
use crate::port::{Port, PortCounters};

/// Ethernet header with a VLAN tag.
const HEADER_BYTES_MAX: usize = 18;

/// Settings of a [`SimPort`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SimPortConfig {
    /// Hardware address.
    pub mac: [u8; 6],
    /// Bytes of the largest IP packet.
    pub mtu_bytes: usize,
    /// Frames of the transmit queue.
    pub tx_frames: usize,
    /// Frames that wait to be received; more are dropped.
    pub rx_frames: usize,
    /// Speed of the interface, bits per second; 0: that of the wire.
    pub line_rate_bps: u64,
}

impl Default for SimPortConfig {
    fn default() -> Self {
        Self { mac: [2, 0, 0, 0, 0, 1], mtu_bytes: 1500, tx_frames: 256, rx_frames: 1024, line_rate_bps: 0 }
    }
}

impl SimPortConfig {
    fn frame_bytes(&self) -> usize {
        HEADER_BYTES_MAX + self.mtu_bytes
    }
}

/// A transmit queue and the wire that it feeds.
struct Direction {
    wire: Wire,
    /// Frames handed over and not yet sent, and when they were.
    queue: FrameRing,
    flushed_ns: VecDeque<u64>,
    /// When the last bit of the oldest has been sent, while it is being sent.
    sending_ns: Option<u64>,
    /// `None`: at the rate of the wire.
    line: Option<Line>,
    free_ns: u64,
    completed: usize,
}

impl Direction {
    fn new(config: &SimPortConfig, wire: Wire) -> Self {
        Self {
            wire,
            queue: FrameRing::new(config.tx_frames, config.frame_bytes()),
            flushed_ns: VecDeque::with_capacity(config.tx_frames),
            sending_ns: None,
            line: (config.line_rate_bps > 0).then(|| Line::new(config.line_rate_bps, ETHERNET_OVERHEAD_BYTES)),
            free_ns: 0,
            completed: 0,
        }
    }

    /// Takes a frame over. There is room: the port keeps at most as many committed.
    fn take(&mut self, now_ns: u64, frame: &[u8]) {
        if self.queue.push(frame) {
            self.flushed_ns.push_back(now_ns);
        }
    }

    /// Sends what the line had time for.
    fn advance(&mut self, now_ns: u64) {
        loop {
            if let Some(end_ns) = self.sending_ns {
                if end_ns > now_ns {
                    return;
                }
                self.finish(end_ns);
            }
            if !self.begin() {
                return;
            }
        }
    }

    /// Begins to send the oldest frame; false when there is none.
    fn begin(&mut self) -> bool {
        let (Some(frame), Some(flushed_ns)) = (self.queue.nth(0), self.flushed_ns.pop_front()) else { return false };
        let start_ns = flushed_ns.max(self.free_ns);
        let end_ns = match &mut self.line {
            Some(line) => line.send(start_ns, frame.len()).1,
            None => {
                self.wire.push(start_ns, frame);
                self.wire.line_free_ns().max(start_ns)
            }
        };
        self.sending_ns = Some(end_ns);
        true
    }

    fn finish(&mut self, end_ns: u64) {
        if let (Some(_), Some(frame)) = (&self.line, self.queue.nth(0)) {
            self.wire.push(end_ns, frame);
        }
        self.queue.pop();
        self.sending_ns = None;
        self.free_ns = end_ns;
        self.completed += 1;
    }

    fn next_ns(&self) -> Option<u64> {
        self.sending_ns.into_iter().chain(self.wire.next_ns()).min()
    }
}

/// Two directions; that of index 0 begins at the first port.
struct Both {
    directions: [Direction; 2],
    now_ns: u64,
}

impl Both {
    fn advance(&mut self, now_ns: u64) {
        self.now_ns = self.now_ns.max(now_ns);
        for direction in &mut self.directions {
            direction.advance(self.now_ns);
        }
    }
}

/// The cable between two ports: what a test asks and changes.
#[derive(Clone)]
pub struct SimCable(Rc<RefCell<Both>>);

impl SimCable {
    fn both(&self) -> RefMut<'_, Both> {
        // No call keeps the borrow beyond its own end, and none calls foreign code meanwhile.
        self.0.borrow_mut()
    }

    /// When something happens by itself: a frame arrives, leaves a queue, or has been sent. It lies in the past when no port was called
    /// since. What a `receive` with a small limit left over is not told of.
    pub fn next_ns(&self) -> Option<u64> {
        let both = self.both();
        both.directions.iter().filter_map(Direction::next_ns).min()
    }

    /// Counters of the wire that begins at the first (0) or second (1) port.
    pub fn counters(&self, from: usize) -> WireCounters {
        self.both().directions.get(from).map(|direction| *direction.wire.counters()).unwrap_or_default()
    }

    /// Settings of the wire that begins at the first (0) or second (1) port.
    pub fn config(&self, from: usize) -> WireConfig {
        self.both().directions.get(from).map(|direction| *direction.wire.config()).unwrap_or_default()
    }

    /// Changes these for the frames that have not begun to be sent by `now_ns`.
    pub fn reconfigure(&self, from: usize, now_ns: u64, config: WireConfig) {
        let mut both = self.both();
        both.advance(now_ns);
        if let Some(direction) = both.directions.get_mut(from) {
            direction.wire.reconfigure(now_ns, config);
        }
    }
}

/// One of two ports at a simulated cable.
pub struct SimPort {
    config: SimPortConfig,
    cable: SimCable,
    /// The direction that this port feeds.
    from: usize,
    committed: FrameRing,
    arrived: FrameRing,
    open: bool,
    /// Of the committed frames, those handed over.
    flushed: usize,
    counters: PortCounters,
}

/// Two ports and the cable between them; `there` carries what `a` sends, `back` what `b` sends.
pub fn sim_ports(a: SimPortConfig, b: SimPortConfig, there: Wire, back: Wire) -> (SimPort, SimPort, SimCable) {
    let directions = [Direction::new(&a, there), Direction::new(&b, back)];
    let cable = SimCable(Rc::new(RefCell::new(Both { directions, now_ns: 0 })));
    let port = |config: SimPortConfig, from| {
        let frame_bytes = config.frame_bytes();
        SimPort {
            config,
            cable: cable.clone(),
            from,
            committed: FrameRing::new(config.tx_frames, frame_bytes),
            arrived: FrameRing::new(config.rx_frames, frame_bytes),
            open: false,
            flushed: 0,
            counters: PortCounters::default(),
        }
    };
    (port(a, 0), port(b, 1), cable.clone())
}

impl SimPort {
    /// Takes what has arrived off the wire. Those that find the receive queue full, or are longer than this port's frames, are dropped.
    fn take_arrivals(&mut self, now_ns: u64) {
        let mut both = self.cable.both();
        both.advance(now_ns);
        let Some(direction) = both.directions.get_mut(1 - self.from) else { return };
        while let Some(frame) = direction.wire.pop(now_ns) {
            self.counters.rx_dropped += u64::from(!self.arrived.push(frame));
        }
    }
}

impl Port for SimPort {
    fn mac(&self) -> [u8; 6] {
        self.config.mac
    }

    fn mtu_bytes(&self) -> usize {
        self.config.mtu_bytes
    }

    fn frame_bytes(&self) -> usize {
        self.config.frame_bytes()
    }

    fn receive(&mut self, now_ns: u64, limit: usize, sink: &mut dyn FnMut(&[u8])) -> usize {
        self.take_arrivals(now_ns);
        let mut shown = 0;
        while shown < limit {
            let Some(frame) = self.arrived.nth(0) else { break };
            self.counters.rx_frames += 1;
            self.counters.rx_bytes += frame.len() as u64;
            sink(frame);
            self.arrived.pop();
            shown += 1;
        }
        shown
    }

    fn frame(&mut self) -> Option<&mut [u8]> {
        let free = self.committed.tail();
        self.open = free.is_some();
        self.counters.tx_full += u64::from(free.is_none());
        free
    }

    fn commit(&mut self, len: usize) {
        if std::mem::take(&mut self.open) {
            self.committed.keep(len);
        }
    }

    fn flush(&mut self, now_ns: u64) -> usize {
        let mut both = self.cable.both();
        both.advance(now_ns);
        let now_ns = both.now_ns;
        let Some(direction) = both.directions.get_mut(self.from) else { return 0 };
        self.counters.tx_calls += u64::from(self.flushed < self.committed.len());
        while let Some(frame) = self.committed.nth(self.flushed) {
            self.counters.tx_frames += 1;
            self.counters.tx_bytes += frame.len() as u64;
            direction.take(now_ns, frame);
            self.flushed += 1;
        }
        direction.advance(now_ns);
        let completed = std::mem::take(&mut direction.completed);
        for _ in 0..completed {
            self.committed.pop();
        }
        self.flushed -= completed;
        self.counters.tx_completed += completed as u64;
        completed
    }

    fn queued(&self) -> usize {
        self.committed.len()
    }

    fn capacity(&self) -> usize {
        self.config.tx_frames
    }

    fn wait(&mut self, _timeout_ns: u64, _wake: RawFd) {}

    fn counters(&self) -> PortCounters {
        self.counters
    }
}

#[cfg(test)]
mod tests;
