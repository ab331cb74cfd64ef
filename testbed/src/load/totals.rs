//! Sums over all clients, filled while packets arrive.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;

use super::client::Method;
use super::rates::StreamRate;
use crate::lateness::frames::Point;
use crate::lateness::{Sample, Sink, Tally, histogram_ns};

/// Bursts of this many packets and more are counted as one length.
const BURST_LENGTHS: usize = 256;

/// Lateness by the part of the run that the packet arrived in.
#[derive(Debug)]
pub struct Judge {
    /// While sessions were still being set up.
    pub ramp: Tally,
    /// With all sessions up.
    pub steady: Tally,
    /// When the steady part began and ended.
    pub steady_ns: (u64, u64),
}

impl Sink for Judge {
    fn sample(&mut self, sample: Sample) {
        if sample.arrival_ns >= self.steady_ns.1 {
            return;
        }
        let part = if sample.arrival_ns >= self.steady_ns.0 { &mut self.steady } else { &mut self.ramp };
        part.record(&sample);
    }

    fn second(&mut self, start_ns: u64, own_bytes: u64, delivered_bytes: u64) {
        if start_ns.saturating_add(1_000_000_000) >= self.steady_ns.1 {
            return;
        }
        let part = if start_ns >= self.steady_ns.0 { &mut self.steady } else { &mut self.ramp };
        part.rate.record(own_bytes, delivered_bytes);
    }
}

impl Judge {
    /// True when the second that begins then lies in the steady part.
    pub fn is_steady_second(&self, start_ns: u64) -> bool {
        start_ns >= self.steady_ns.0 && start_ns.saturating_add(1_000_000_000) < self.steady_ns.1
    }

    /// True for a moment of the steady part.
    pub fn is_steady(&self, at_ns: u64) -> bool {
        (self.steady_ns.0..self.steady_ns.1).contains(&at_ns)
    }
}

/// Everything that is counted.
#[derive(Debug)]
pub struct Totals {
    /// Sessions that were begun.
    pub asked: u64,
    /// Sessions whose PLAY was accepted.
    pub accepted: u64,
    /// Sessions refused, by request and status.
    pub refused: BTreeMap<(Method, u16), u64>,
    /// Sessions that failed, by reason.
    pub failed: BTreeMap<&'static str, u64>,
    /// Sessions that the server ended while they played, without BYE.
    pub dropped: u64,
    /// Sessions that came to the end of their title.
    pub finished: u64,
    /// RTP packets, without duplicates.
    pub packets: u64,
    /// Their bytes, RTP headers included.
    pub bytes: u64,
    /// Packets that never came.
    pub lost: u64,
    /// Packets that came after a later one.
    pub reordered: u64,
    /// Packets that came again.
    pub duplicates: u64,
    /// Datagrams that belong to no stream.
    pub strays: u64,
    /// Jumps in sequence numbers that are no loss.
    pub restarts: u64,
    /// Packets that came before the answer to the first PLAY.
    pub before_answer: u64,
    /// RTCP packets.
    pub rtcp: u64,
    /// Streams of accepted sessions.
    pub streams: u64,
    /// Streams that got no packet for the starving time while they should have.
    pub starved: u64,
    /// Streams of accepted sessions that never got a packet.
    pub silent: u64,
    /// The farthest that a stream ran ahead of its own line at its start.
    pub head_start_ns_max: u64,
    /// Answer times by request.
    pub answer_ns: BTreeMap<Method, Histogram<u64>>,
    /// TCP connect.
    pub connect_ns: Histogram<u64>,
    /// From sending PLAY to the first packet.
    pub play_to_packet_ns: Histogram<u64>,
    /// From beginning to connect to the first packet.
    pub connect_to_packet_ns: Histogram<u64>,
    /// From sending PLAY for a seek to the first packet of the new place.
    pub seek_to_packet_ns: Histogram<u64>,
    /// Lateness.
    pub judge: Judge,
    /// What each stream got, where that was asked for.
    pub per_stream: Option<Vec<StreamRate>>,
    bursts: Vec<u64>,
    points: Vec<Point>,
}

impl Default for Totals {
    fn default() -> Self {
        Self {
            asked: 0,
            accepted: 0,
            refused: BTreeMap::new(),
            failed: BTreeMap::new(),
            dropped: 0,
            finished: 0,
            packets: 0,
            bytes: 0,
            lost: 0,
            reordered: 0,
            duplicates: 0,
            strays: 0,
            restarts: 0,
            before_answer: 0,
            rtcp: 0,
            streams: 0,
            starved: 0,
            silent: 0,
            head_start_ns_max: 0,
            answer_ns: BTreeMap::new(),
            connect_ns: histogram_ns(),
            play_to_packet_ns: histogram_ns(),
            connect_to_packet_ns: histogram_ns(),
            seek_to_packet_ns: histogram_ns(),
            judge: Judge { ramp: Tally::default(), steady: Tally::default(), steady_ns: (u64::MAX, u64::MAX) },
            per_stream: None,
            bursts: vec![0; BURST_LENGTHS + 1],
            points: Vec::new(),
        }
    }
}

impl Totals {
    /// Empty sums, with a list of streams if that is asked for.
    pub fn telling(per_stream: bool) -> Self {
        Self { per_stream: per_stream.then(Vec::new), ..Self::default() }
    }

    /// Scratch space and sink for a meter.
    pub fn judging(&mut self) -> (&mut Vec<Point>, &mut Judge) {
        (&mut self.points, &mut self.judge)
    }

    /// Counts a burst of `length` packets.
    pub fn record_burst(&mut self, length: u32) {
        if let Some(count) = self.bursts.get_mut((length as usize).min(BURST_LENGTHS)).filter(|_| length > 0) {
            *count += 1;
        }
    }

    /// The longest burst.
    pub fn burst_max(&self) -> usize {
        self.bursts.iter().rposition(|&count| count > 0).unwrap_or(0)
    }

    /// How many bursts had `length` packets.
    pub fn bursts_of(&self, length: usize) -> u64 {
        self.bursts.get(length).copied().unwrap_or(0)
    }

    /// Share of the packets that arrived in bursts of more than `length`.
    pub fn packets_in_bursts_above(&self, length: usize) -> f64 {
        let weight = |from: usize| self.bursts.iter().enumerate().skip(from).map(|(n, &count)| n as u64 * count).sum::<u64>();
        match weight(0) {
            0 => 0.0,
            all => weight(length + 1) as f64 / all as f64,
        }
    }

    /// Counts an answer.
    pub fn record_answer(&mut self, method: Method, elapsed_ns: u64) {
        self.answer_ns.entry(method).or_insert_with(histogram_ns).saturating_record(elapsed_ns);
    }

    /// All sessions refused.
    pub fn refused_all(&self) -> u64 {
        self.refused.values().sum()
    }

    /// All sessions failed.
    pub fn failed_all(&self) -> u64 {
        self.failed.values().sum()
    }
}
