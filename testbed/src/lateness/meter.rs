//! One stream's meter: collects records as packets arrive, and judges them a block at a time.

use std::collections::VecDeque;

use super::frames::{Framer, Point};
use super::line::LowerHull;

/// A received packet. Sixteen bytes: a thousand streams are held for minutes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// Kernel receive time, nanoseconds on any steady clock.
    pub arrival_ns: u64,
    /// RTP timestamp.
    pub timestamp: u32,
    /// RTP sequence number.
    pub seq: u16,
    /// Bytes of the packet's payload.
    pub bytes: u16,
}

/// What the meter found out about one packet: how late it came by each measure, negative when early. A measure is `None` where the packet
/// gives no sample of it (see the module above).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// When the packet arrived.
    pub arrival_ns: u64,
    /// Lateness of its frame; only the first packet of a frame has it.
    pub frame_ns: Option<i64>,
    /// Lateness against the evenly spread frame.
    pub even_ns: Option<i64>,
    /// Lateness against the RTP timestamp.
    pub burst_ns: i64,
}

/// Receives what a [`Meter`] finds out.
pub trait Sink {
    /// A packet was judged.
    fn sample(&mut self, sample: Sample);
    /// A second of the stream is complete: in the second from `start_ns` the media's own time line has `own_bytes`, and `delivered_bytes` arrived.
    fn second(&mut self, start_ns: u64, own_bytes: u64, delivered_bytes: u64);
}

/// RFC 3550 A.1 (MAX_DROPOUT): a larger jump in sequence numbers is a restart, not a loss.
const DROPOUT_MAX: i64 = 3000;
/// A jump of the media time line beyond this is a restart.
const JUMP_MAX_SECONDS: i64 = 3600;
const NS_PER_SECOND: i64 = 1_000_000_000;

/// Bytes per second of a stream's own line and of what arrived, for the seconds that are not complete yet.
#[derive(Debug, Default)]
struct Seconds {
    origin_ns: Option<i64>,
    first: i64,
    bins: VecDeque<(u64, u64)>,
}

impl Seconds {
    fn bin(&mut self, at_ns: i64) -> Option<&mut (u64, u64)> {
        let origin = *self.origin_ns.get_or_insert(at_ns);
        let place = (at_ns - origin).div_euclid(NS_PER_SECOND) - self.first;
        if !(0..JUMP_MAX_SECONDS).contains(&place) {
            return None;
        }
        let place = place as usize;
        while self.bins.len() <= place {
            self.bins.push_back((0, 0));
        }
        self.bins.get_mut(place)
    }

    fn complete_before(&mut self, at_ns: i64, sink: &mut impl Sink) {
        let Some(origin) = self.origin_ns else { return };
        let end = (at_ns - origin).div_euclid(NS_PER_SECOND);
        while self.first < end {
            let Some((own, delivered)) = self.bins.pop_front() else { return };
            sink.second((origin + self.first * NS_PER_SECOND) as u64, own, delivered);
            self.first += 1;
        }
    }
}

/// Judges one stream. Feed [`Meter::push`] with every packet that is no duplicate, and call [`Meter::flush`] when it says so.
#[derive(Debug)]
pub struct Meter {
    clock_hz: u32,
    drift_ppm: f64,
    settle_ns: u64,
    block: usize,
    records: Vec<Record>,
    first_arrival_ns: Option<u64>,
    last_seq: Option<i64>,
    last_timestamp: Option<i64>,
    framer: Framer,
    earliest: LowerHull,
    seconds: Seconds,
    head_start_ns: u64,
}

impl Meter {
    /// A meter for a stream with an RTP clock of `clock_hz`. The line may lean by `drift_ppm` (0 where both ends share a clock).
    /// Arrivals in the first `settle_ns` do not form the line: a sender may start ahead of its beat. `block` is the number of records
    /// after which [`Meter::push`] asks for a flush.
    pub fn new(clock_hz: u32, drift_ppm: f64, settle_ns: u64, block: usize) -> Self {
        Self {
            clock_hz,
            drift_ppm,
            settle_ns,
            block: block.max(64),
            records: Vec::new(),
            first_arrival_ns: None,
            last_seq: None,
            last_timestamp: None,
            framer: Framer::new(clock_hz),
            earliest: LowerHull::default(),
            seconds: Seconds::default(),
            head_start_ns: 0,
        }
    }

    /// Takes a packet; true means that a block is full and wants a [`Meter::flush`].
    pub fn push(&mut self, record: Record) -> bool {
        self.records.push(record);
        self.records.len() >= self.block
    }

    /// How far the stream ran ahead of its line at the start, in nanoseconds.
    pub fn head_start_ns(&self) -> u64 {
        self.head_start_ns
    }

    /// Judges everything and forgets the stream's line: its time line starts anew (a seek, a new session).
    pub fn restart(&mut self, points: &mut Vec<Point>, sink: &mut impl Sink) {
        self.judge(true, points, sink);
        let records = std::mem::take(&mut self.records);
        *self = Self { records, ..Self::new(self.clock_hz, self.drift_ppm, self.settle_ns, self.block) };
    }

    /// Judges the records held. `points` is scratch space that callers share among meters.
    pub fn flush(&mut self, points: &mut Vec<Point>, sink: &mut impl Sink) {
        self.judge(false, points, sink);
    }

    fn judge(&mut self, last: bool, points: &mut Vec<Point>, sink: &mut impl Sink) {
        points.clear();
        self.place(last, points);
        if let Some(first) = points.first() {
            self.first_arrival_ns.get_or_insert(first.arrival_ns as u64);
        }
        self.extend_line(points);
        self.measure(points, sink);
    }

    /// Puts the records into sequence order and gives them their media times.
    fn place(&mut self, last: bool, points: &mut Vec<Point>) {
        let mut records = std::mem::take(&mut self.records);
        let reference = self.last_seq.unwrap_or_else(|| records.first().map_or(0, |r| i64::from(r.seq)));
        let mut near = reference;
        let mut order: Vec<(i64, Record)> = Vec::with_capacity(records.len());
        for record in records.drain(..) {
            let seq = near + i64::from(record.seq.wrapping_sub(near as u16) as i16);
            near = near.max(seq);
            order.push((seq, record));
        }
        order.sort_by_key(|(seq, _)| *seq);
        for (seq, record) in order {
            let lost_before = match self.last_seq {
                Some(before) if seq <= before => continue,
                Some(before) if seq - before - 1 <= DROPOUT_MAX => (seq - before - 1) as u32,
                _ => 0,
            };
            self.last_seq = Some(seq);
            let timestamp = match self.last_timestamp {
                Some(before) => before + i64::from(record.timestamp.wrapping_sub(before as u32) as i32),
                None => i64::from(record.timestamp),
            };
            self.last_timestamp = Some(timestamp);
            self.framer.push(timestamp, record.arrival_ns as i64, u32::from(record.bytes), lost_before, &mut |p| points.push(p));
        }
        if last {
            self.framer.finish(&mut |p| points.push(p));
        }
        self.records = records;
    }

    /// Only first packets form the line: where they belong does not depend on how a frame is spread.
    fn extend_line(&mut self, points: &[Point]) {
        let settled_from = self.first_arrival_ns.unwrap_or(0).saturating_add(self.settle_ns) as i64;
        let firsts = || points.iter().filter(|p| p.first);
        firsts().filter(|p| p.arrival_ns >= settled_from).for_each(|p| self.earliest.push(p.frame_ns, p.arrival_ns - p.frame_ns));
        if self.earliest.line(0.0).is_none() {
            // Too short to settle: better the whole of it than nothing.
            firsts().for_each(|p| self.earliest.push(p.frame_ns, p.arrival_ns - p.frame_ns));
        }
    }

    fn measure(&mut self, points: &[Point], sink: &mut impl Sink) {
        let Some(line) = self.earliest.line(self.drift_ppm) else { return };
        let (mut due_last, mut arrival_last) = (i64::MIN, i64::MIN);
        for point in points {
            let on_time_ns = line.offset_ns(point.frame_ns);
            let burst_height = point.arrival_ns - point.frame_ns - on_time_ns;
            let even_height = point.even_ns.map(|x| point.arrival_ns - x - on_time_ns);
            let frame_height = point.first.then_some(burst_height);
            self.head_start_ns = self.head_start_ns.max(burst_height.saturating_neg().max(0) as u64);
            sink.sample(Sample {
                arrival_ns: point.arrival_ns as u64,
                frame_ns: frame_height,
                even_ns: even_height,
                burst_ns: burst_height,
            });
            let due = point.arrival_ns - even_height.unwrap_or(burst_height);
            let bytes = u64::from(point.bytes);
            if let Some(bin) = self.seconds.bin(due) {
                bin.0 += bytes * (1 + u64::from(point.lost_before));
            }
            if let Some(bin) = self.seconds.bin(point.arrival_ns) {
                bin.1 += bytes;
            }
            due_last = due_last.max(due);
            arrival_last = arrival_last.max(point.arrival_ns);
        }
        self.seconds.complete_before(due_last.min(arrival_last), sink);
    }
}
