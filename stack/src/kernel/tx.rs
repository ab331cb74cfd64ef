//! The transmit queue: frames filled in place, planned into messages, handed over in commit order.
//!
//! ```text
//! frames  [ A0 A1 A2 B0 C0 C1 .. ]      a ring; each frame carries its envelope from the moment it is given out
//! plan      \__A__/  B   \_C_/          consecutive frames to one destination with equal sizes become one message (UDP GSO)
//! wire      one call per local port
//! ```
//!
//! What the wire has no room for stays queued. A route that refuses a joined message gets its frames singly from then on.

use super::envelope::Envelope;
use crate::address::LOCAL_PORTS;
use crate::host::{Flushed, HostCounters};

/// UDP_MAX_SEGMENTS of Linux before 6.9; later ones allow 128.
const SEGMENTS_MAX: u16 = 64;
/// Largest UDP payload that fits IPv4 and IPv6 alike (65,535 less 40 and 8 bytes of headers).
const MESSAGE_BYTES_MAX: usize = 65_487;

/// Consecutive frames that travel as one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Message {
    /// Ring index of the first frame; it carries the envelope.
    pub first: u16,
    /// How many frames.
    pub count: u16,
    /// Length of the control messages in the first frame's envelope.
    pub control_len: u8,
}

/// The layer below: hands messages over, in order.
pub(super) trait Wire {
    /// Offers messages of one local port. Answers how many were taken, at least one; otherwise the error number of the first.
    fn send(&mut self, port: usize, frames: &Frames, messages: &[Message]) -> Result<usize, i32>;
}

/// Payload memory and envelopes of all frames.
pub(super) struct Frames {
    bytes: Box<[u8]>,
    frame_bytes: usize,
    lens: Box<[u16]>,
    envelopes: Box<[Envelope]>,
}

impl Frames {
    fn new(frames: usize, frame_bytes: usize) -> Self {
        Self {
            // Not zero, so that every page is touched here.
            bytes: vec![0xA5; frames * frame_bytes].into_boxed_slice(),
            frame_bytes,
            lens: vec![0; frames].into_boxed_slice(),
            envelopes: vec![Envelope::EMPTY; frames].into_boxed_slice(),
        }
    }

    /// Frames in all.
    pub(super) fn len(&self) -> usize {
        self.lens.len()
    }

    /// Payload of a frame.
    pub(super) fn payload(&self, frame: usize) -> &[u8] {
        let at = frame * self.frame_bytes;
        &self.bytes[at..at + usize::from(self.lens[frame])]
    }

    /// Envelope of a frame.
    pub(super) fn envelope(&self, frame: usize) -> &Envelope {
        &self.envelopes[frame]
    }

    fn buffer_mut(&mut self, frame: usize) -> &mut [u8] {
        let at = frame * self.frame_bytes;
        &mut self.bytes[at..at + self.frame_bytes]
    }
}

/// A flow as the queue needs it.
pub(super) struct Route {
    /// Encoded addresses.
    pub envelope: Envelope,
    /// Changes whenever the envelope does, differs between flows, never 0.
    pub epoch: u64,
    /// Index of the local port.
    pub port: u8,
    /// Frames may be joined.
    pub join: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Queued,
    Sent,
    Failed,
}

#[derive(Clone, Copy)]
struct Tag {
    epoch: u64,
    flow: u32,
    port: u8,
    join: bool,
    state: State,
}

/// The queue.
pub(super) struct TxQueue {
    frames: Frames,
    tags: Box<[Tag]>,
    head: usize,
    queued: usize,
    open: bool,
    pending: [usize; LOCAL_PORTS],
    plan: Vec<Message>,
    refused: Option<(u32, u64)>,
}

impl TxQueue {
    pub(super) fn new(frames: usize, frame_bytes: usize) -> Self {
        let empty = Tag { epoch: 0, flow: 0, port: 0, join: false, state: State::Sent };
        Self {
            frames: Frames::new(frames, frame_bytes),
            tags: vec![empty; frames].into_boxed_slice(),
            head: 0,
            queued: 0,
            open: false,
            pending: [0; LOCAL_PORTS],
            plan: Vec::with_capacity(frames),
            refused: None,
        }
    }

    pub(super) fn frame_bytes(&self) -> usize {
        self.frames.frame_bytes
    }

    pub(super) fn queued(&self) -> usize {
        self.queued
    }

    /// Frames of one port that wait for the wire.
    pub(super) fn pending(&self, port: usize) -> usize {
        self.pending[port]
    }

    /// The next free frame, addressed to the route as it is now.
    pub(super) fn open(&mut self, flow: u32, route: &Route) -> Option<&mut [u8]> {
        if self.queued == self.frames.len() {
            self.open = false;
            return None;
        }
        let frame = self.at(self.queued);
        let tag = &mut self.tags[frame];
        if tag.epoch != route.epoch {
            self.frames.envelopes[frame] = route.envelope;
        }
        *tag = Tag { epoch: route.epoch, flow, port: route.port, join: route.join, state: State::Queued };
        self.open = true;
        Some(self.frames.buffer_mut(frame))
    }

    /// Gives the open frame up.
    pub(super) fn cancel(&mut self) {
        self.open = false;
    }

    /// Queues the open frame.
    pub(super) fn commit(&mut self, len: usize) {
        if !self.open {
            return;
        }
        self.open = false;
        let frame = self.at(self.queued);
        self.frames.lens[frame] = len.min(self.frames.frame_bytes) as u16;
        self.pending[usize::from(self.tags[frame].port)] += 1;
        self.queued += 1;
    }

    /// Hands frames over, port by port.
    pub(super) fn flush(&mut self, wire: &mut impl Wire, counters: &mut HostCounters) -> Flushed {
        let mut blocked = false;
        for port in 0..LOCAL_PORTS {
            if self.pending[port] > 0 {
                blocked |= !self.flush_port(port, wire, counters);
            }
        }
        counters.tx_backpressure += u64::from(blocked);
        self.pop()
    }

    /// Flow (and epoch of its route) that refused joined messages in the last flush. When several did, the others are told when they
    /// refuse again.
    pub(super) fn take_refused(&mut self) -> Option<(u32, u64)> {
        self.refused.take()
    }

    /// Messages of the last plan.
    #[cfg(test)]
    pub(super) fn planned(&self) -> &[Message] {
        &self.plan
    }

    /// False when the wire was full.
    fn flush_port(&mut self, port: usize, wire: &mut impl Wire, counters: &mut HostCounters) -> bool {
        self.plan(port);
        let mut next = 0;
        while next < self.plan.len() {
            counters.tx_calls += 1;
            match wire.send(port, &self.frames, &self.plan[next..]) {
                Ok(taken) => {
                    let end = (next + taken.max(1)).min(self.plan.len());
                    for at in next..end {
                        self.settle(port, self.plan[at], State::Sent, counters);
                    }
                    next = end;
                }
                Err(libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM) => return false,
                Err(libc::EIO | libc::EINVAL | libc::EOPNOTSUPP | libc::EMSGSIZE | libc::ENOPROTOOPT) if self.plan[next].count > 1 => {
                    // Each time at least one route of the plan stops joining, so this ends.
                    self.stop_joining(usize::from(self.plan[next].first));
                    self.plan(port);
                    next = 0;
                }
                Err(_) => {
                    self.settle(port, self.plan[next], State::Failed, counters);
                    next += 1;
                }
            }
        }
        true
    }

    /// Turns the port's waiting frames into messages.
    fn plan(&mut self, port: usize) {
        self.plan.clear();
        let (mut message_bytes, mut segment_bytes) = (0, 0);
        for nth in 0..self.queued {
            let frame = self.at(nth);
            let tag = self.tags[frame];
            if usize::from(tag.port) != port || tag.state != State::Queued {
                continue;
            }
            let len = self.frames.lens[frame];
            if let Some(last) = self.plan.last_mut() {
                let first = usize::from(last.first);
                // udp(7), UDP_SEGMENT: the kernel cuts at every `segment_bytes`, so only the last datagram may be shorter, and none empty.
                let joins = tag.join
                    && self.tags[first].epoch == tag.epoch
                    && first + usize::from(last.count) == frame
                    && last.count < SEGMENTS_MAX
                    && (1..=segment_bytes).contains(&len)
                    && message_bytes + usize::from(len) <= MESSAGE_BYTES_MAX;
                if joins {
                    if last.count == 1 {
                        last.control_len = self.frames.envelopes[first].put_segment(segment_bytes);
                    }
                    last.count += 1;
                    message_bytes += usize::from(len);
                    if len < segment_bytes {
                        segment_bytes = 0;
                    }
                    continue;
                }
            }
            self.plan.push(Message { first: frame as u16, count: 1, control_len: self.frames.envelopes[frame].control_len() });
            message_bytes = usize::from(len);
            segment_bytes = len;
        }
    }

    fn settle(&mut self, port: usize, message: Message, state: State, counters: &mut HostCounters) {
        for frame in usize::from(message.first)..usize::from(message.first + message.count) {
            self.tags[frame].state = state;
            if state == State::Sent {
                counters.tx_datagrams += 1;
                counters.tx_bytes += u64::from(self.frames.lens[frame]);
            } else {
                counters.tx_failed += 1;
            }
        }
        self.pending[port] -= usize::from(message.count);
    }

    fn stop_joining(&mut self, first: usize) {
        let Tag { epoch, flow, .. } = self.tags[first];
        self.refused = Some((flow, epoch));
        for tag in &mut self.tags {
            if tag.epoch == epoch {
                tag.join = false;
            }
        }
    }

    /// Takes settled frames from the head.
    fn pop(&mut self) -> Flushed {
        let mut flushed = Flushed::default();
        while self.queued > 0 {
            match self.tags[self.head].state {
                State::Queued => break,
                State::Sent => {}
                State::Failed => flushed.failed += 1,
            }
            flushed.done += 1;
            self.head = self.at(1);
            self.queued -= 1;
        }
        flushed
    }

    fn at(&self, nth: usize) -> usize {
        let index = self.head + nth;
        if index >= self.frames.len() { index - self.frames.len() } else { index }
    }
}

#[cfg(test)]
mod tests;
