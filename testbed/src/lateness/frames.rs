//! From packets in sequence order to points in time: packets are grouped into frames by RTP timestamp, frames get their decode time, and
//! each packet gets the two media times it can be judged by.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

/// Frames over which timestamps are put into decode order. H.264 and H.265 reorder at most 16 frames.
pub const REORDER_FRAMES: usize = 16;
/// Packets of one frame that are held; further ones are counted as one more packet at the same place.
const FRAME_PACKETS_MAX: usize = 4096;
/// A frame longer than this is a pause in the media, and its packets are not expected to be spread over it.
const SPREAD_MAX_NS: i64 = 2_000_000_000;

/// A packet with the media times that it may have been aimed at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Point {
    /// When it arrived, in nanoseconds.
    pub arrival_ns: i64,
    /// Media time of its frame.
    pub frame_ns: i64,
    /// Media time when the frame is spread evenly by bytes up to the next; `None` when a loss hides the packet's place.
    pub even_ns: Option<i64>,
    /// Bytes of the packet.
    pub bytes: u32,
    /// It is surely the first packet of its frame.
    pub first: bool,
    /// Packets lost just before it.
    pub lost_before: u32,
}

#[derive(Clone, Copy, Debug)]
struct Held {
    arrival_ns: i64,
    bytes: u32,
    lost_before: u32,
}

#[derive(Debug, Default)]
struct Frame {
    timestamp: i64,
    packets: Vec<Held>,
}

/// Groups packets into frames. Feed packets in sequence order.
#[derive(Debug, Default)]
pub struct Framer {
    clock_hz: u32,
    open: Option<Frame>,
    /// Frames that are complete and wait for their decode time.
    waiting: VecDeque<Frame>,
    /// Timestamps of the waiting frames that are not yet handed out, smallest first.
    timestamps: BinaryHeap<Reverse<i64>>,
    reordered: bool,
    seen: usize,
    /// The frame with a decode time that waits for the next one's, to know how long it lasts.
    placed: Option<(i64, Frame)>,
    spare: Vec<Vec<Held>>,
}

impl Framer {
    /// For a stream whose RTP clock runs at `clock_hz`.
    pub fn new(clock_hz: u32) -> Self {
        Self { clock_hz: clock_hz.max(1), ..Self::default() }
    }

    /// Takes the next packet in sequence order; `timestamp` is unwrapped, `lost_before` packets are missing right before it. Points of
    /// frames whose place is known by now go to `out`.
    pub fn push(&mut self, timestamp: i64, arrival_ns: i64, bytes: u32, lost_before: u32, out: &mut impl FnMut(Point)) {
        let held = Held { arrival_ns, bytes, lost_before };
        if let Some(open) = &mut self.open {
            if open.timestamp == timestamp {
                if open.packets.len() < FRAME_PACKETS_MAX {
                    open.packets.push(held);
                }
                return;
            }
            self.reordered |= timestamp < open.timestamp;
        }
        let mut packets = self.spare.pop().unwrap_or_default();
        packets.push(held);
        if let Some(complete) = self.open.replace(Frame { timestamp, packets }) {
            self.timestamps.push(Reverse(complete.timestamp));
            self.waiting.push_back(complete);
            self.seen += 1;
            let undecided = self.seen <= 2 * REORDER_FRAMES;
            let keep = if self.reordered || undecided { REORDER_FRAMES } else { 0 };
            self.hand_out(keep, out);
        }
    }

    /// Gives out what is held, except for the last frame, whose length is unknown.
    pub fn finish(&mut self, out: &mut impl FnMut(Point)) {
        if let Some(open) = self.open.take() {
            self.timestamps.push(Reverse(open.timestamp));
            self.waiting.push_back(open);
        }
        self.hand_out(0, out);
        self.placed = None;
    }

    fn hand_out(&mut self, keep: usize, out: &mut impl FnMut(Point)) {
        while self.waiting.len() > keep {
            let (Some(frame), Some(Reverse(decode))) = (self.waiting.pop_front(), self.timestamps.pop()) else { return };
            let starts_whole = frame.packets.first().is_some_and(|p| p.lost_before == 0);
            if let Some((at, placed)) = self.placed.take() {
                self.emit(at, &placed, decode, !starts_whole, out);
                let mut packets = placed.packets;
                packets.clear();
                if self.spare.len() < 2 * REORDER_FRAMES {
                    self.spare.push(packets);
                }
            }
            self.placed = Some((decode, frame));
        }
    }

    fn emit(&self, decode: i64, frame: &Frame, next_decode: i64, border_lost: bool, out: &mut impl FnMut(Point)) {
        let frame_ns = self.nanoseconds(decode);
        let span_ns = self.nanoseconds(next_decode) - frame_ns;
        let first_whole = frame.packets.first().is_some_and(|p| p.lost_before == 0);
        let inner_lost: u64 = frame.packets.iter().skip(1).map(|p| u64::from(p.lost_before)).sum();
        let received: u64 = frame.packets.iter().map(|p| u64::from(p.bytes)).sum();
        // Lost packets inside the frame are taken to be of the mean size.
        let mean = received / frame.packets.len().max(1) as u64;
        let total = (received + inner_lost * mean).max(1);
        let spread = first_whole && !border_lost && (0..=SPREAD_MAX_NS).contains(&span_ns);
        let mut before = 0u64;
        for (place, packet) in frame.packets.iter().enumerate() {
            if place > 0 {
                before += u64::from(packet.lost_before) * mean;
            }
            let within = (span_ns as f64 * (before as f64 / total as f64)) as i64;
            out(Point {
                arrival_ns: packet.arrival_ns,
                frame_ns,
                even_ns: spread.then_some(frame_ns + within),
                bytes: packet.bytes,
                first: place == 0 && first_whole,
                lost_before: packet.lost_before,
            });
            before += u64::from(packet.bytes);
        }
    }

    fn nanoseconds(&self, timestamp: i64) -> i64 {
        (i128::from(timestamp) * 1_000_000_000 / i128::from(self.clock_hz)) as i64
    }
}
