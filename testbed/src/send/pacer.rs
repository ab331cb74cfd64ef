//! When which packet goes out: the streams' schedules and what is done wrong on purpose, in one queue ordered by time. No I/O, no clock.
//!
//! A stream has a constant rate: frames of equal size, each cut into packets of equal size, spread evenly from its RTP timestamp to the next
//! frame's. What the receiver must find is kept as [`Books`], counted from the order in which packets really leave.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::ops::AddAssign;

use serde::Serialize;

use super::pattern::Pattern;

/// RTP clock of the streams, Hz.
pub const CLOCK_HZ: u32 = 90_000;
/// A packet's payload is at most this long, so that it fits every path.
const PAYLOAD_MAX: u64 = 1_200;

/// The shape of every stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Media {
    /// Frames per second; divides the RTP clock.
    pub fps: u32,
    /// Packets of a frame.
    pub packets_per_frame: u64,
    /// Payload of a packet.
    pub payload_bytes: u64,
}

impl Media {
    /// The shape for a payload rate. `None` for a rate or a number of frames that cannot be sent.
    pub fn new(rate_bps: u64, fps: u32) -> Option<Self> {
        if fps == 0 || !CLOCK_HZ.is_multiple_of(fps) || rate_bps > 1_000_000_000 {
            return None;
        }
        let frame_bytes = rate_bps / 8 / u64::from(fps);
        let packets_per_frame = frame_bytes.div_ceil(PAYLOAD_MAX).max(1);
        let payload_bytes = frame_bytes / packets_per_frame;
        (payload_bytes > 0).then_some(Self { fps, packets_per_frame, payload_bytes })
    }

    /// When packet `index` is due, ns since the stream's start.
    pub fn due_ns(&self, index: u64) -> u64 {
        let frame = index / self.packets_per_frame;
        let at = |frame: u64| frame * 1_000_000_000 / u64::from(self.fps);
        let span = at(frame + 1) - at(frame);
        at(frame) + span * (index % self.packets_per_frame) / self.packets_per_frame
    }

    /// RTP time of packet `index` since the stream's start.
    pub fn timestamp(&self, index: u64) -> u32 {
        (index / self.packets_per_frame).wrapping_mul(u64::from(CLOCK_HZ / self.fps)) as u32
    }

    /// True for the last packet of a frame.
    pub fn ends_frame(&self, index: u64) -> bool {
        index % self.packets_per_frame + 1 == self.packets_per_frame
    }
}

/// What a receiver must find.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Books {
    /// Packets, without duplicates.
    pub packets: u64,
    /// Numbers that never came although a higher one did.
    pub lost: u64,
    /// Packets after a higher number.
    pub reordered: u64,
    /// Packets sent a second time.
    pub duplicates: u64,
    /// Packets sent late on purpose.
    pub late: u64,
}

impl AddAssign for Books {
    fn add_assign(&mut self, other: Self) {
        self.packets += other.packets;
        self.lost += other.lost;
        self.reordered += other.reordered;
        self.duplicates += other.duplicates;
        self.late += other.late;
    }
}

/// A packet that goes out now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// Of which stream.
    pub slot: u32,
    /// Its number in the stream.
    pub index: u64,
    /// When the media's rate wants it.
    pub due_ns: u64,
    /// When it was to go out: its due time, or later on purpose.
    pub planned_ns: u64,
    /// It has gone out before.
    pub again: bool,
}

/// In the order of the fields: what is due first goes first; at the same time, a packet in its turn goes before one that was held back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Event {
    at_ns: u64,
    held_back: bool,
    slot: u32,
    index: u64,
    generation: u32,
}

#[derive(Clone, Copy, Debug, Default)]
struct Stream {
    playing: bool,
    generation: u32,
    start_ns: u64,
    /// Packets sent are numbered below this.
    above_highest: u64,
    books: Books,
}

/// All streams.
#[derive(Debug)]
pub struct Pacer {
    media: Media,
    pattern: Pattern,
    streams: Vec<Stream>,
    queue: BinaryHeap<Reverse<Event>>,
    ended: Books,
}

impl Pacer {
    /// Room for `slots` streams.
    pub fn new(media: Media, pattern: Pattern, slots: usize) -> Self {
        // Each stream has its next packet in the queue and a few that are held back.
        Self {
            media,
            pattern,
            streams: vec![Stream::default(); slots],
            queue: BinaryHeap::with_capacity(slots * 8),
            ended: Books::default(),
        }
    }

    /// Starts the stream in `slot` at `now_ns`. A slot that does not exist is ignored.
    pub fn start(&mut self, slot: u32, now_ns: u64) {
        self.stop(slot);
        let Some(stream) = self.streams.get_mut(slot as usize) else { return };
        let generation = stream.generation.wrapping_add(1);
        *stream = Stream { playing: true, generation, start_ns: now_ns, ..Stream::default() };
        self.queue.push(Reverse(Event { at_ns: now_ns, held_back: false, slot, index: 0, generation }));
    }

    /// Ends the stream in `slot`: nothing of it goes out any more, and what it sent is in the sum of [`Pacer::books`].
    pub fn stop(&mut self, slot: u32) {
        let Some(stream) = self.streams.get_mut(slot as usize).filter(|s| s.playing) else { return };
        stream.playing = false;
        stream.books.lost = stream.above_highest - stream.books.packets;
        self.ended += stream.books;
    }

    /// The sum of all streams that ended.
    pub fn books(&self) -> Books {
        self.ended
    }

    /// Ends all streams.
    pub fn stop_all(&mut self) {
        (0..self.streams.len() as u32).for_each(|slot| self.stop(slot));
    }

    /// When the next packet is due.
    pub fn next_ns(&self) -> Option<u64> {
        self.queue.peek().map(|Reverse(event)| event.at_ns)
    }

    /// Puts the packets that are due at `now_ns` into `out`, in order, until it holds `most` or nothing more is due. A packet that is sent
    /// twice may make it one more.
    pub fn take_due(&mut self, now_ns: u64, most: usize, out: &mut Vec<Outgoing>) {
        while out.len() < most {
            let Some(Reverse(event)) = self.queue.peek().copied().filter(|Reverse(event)| event.at_ns <= now_ns) else { return };
            self.queue.pop();
            self.take(event, out);
        }
    }

    fn take(&mut self, event: Event, out: &mut Vec<Outgoing>) {
        let Event { slot, index, generation, held_back, at_ns } = event;
        let Some(stream) = self.streams.get_mut(slot as usize).filter(|s| s.playing && s.generation == generation) else { return };
        let due_ns = stream.start_ns + self.media.due_ns(index);
        let fate = self.pattern.fate(index);
        if !held_back {
            let next_ns = stream.start_ns + self.media.due_ns(index + 1);
            self.queue.push(Reverse(Event { at_ns: next_ns, index: index + 1, ..event }));
            if fate.lost {
                return;
            }
            if fate.swapped || fate.late_ns > 0 {
                let at_ns = if fate.swapped { next_ns } else { due_ns + fate.late_ns };
                return self.queue.push(Reverse(Event { at_ns, held_back: true, ..event }));
            }
        }
        stream.books.packets += 1;
        stream.books.late += u64::from(fate.late_ns > 0);
        stream.books.reordered += u64::from(index + 1 < stream.above_highest);
        stream.above_highest = stream.above_highest.max(index + 1);
        let outgoing = Outgoing { slot, index, due_ns, planned_ns: at_ns, again: false };
        out.push(outgoing);
        if fate.doubled {
            stream.books.duplicates += 1;
            out.push(Outgoing { again: true, ..outgoing });
        }
    }
}
