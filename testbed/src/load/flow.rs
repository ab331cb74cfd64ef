//! One RTP stream at the receiver: sequence accounting, bursts, receiver reports; its punctuality goes to a [`Meter`].

use super::rates::{Both, StreamRate};
use super::rtcp::Block;
use super::totals::Totals;
use crate::lateness::{Meter, Record};

/// Packets of one stream that follow each other closer than this belong to one burst.
pub const BURST_GAP_NS: u64 = 200_000;
/// Sequence numbers below the highest one that are remembered, to tell a late packet from a duplicate.
const WINDOW: i64 = 1024;
/// RFC 3550 A.1: a larger step is a restart of the sender.
const DROPOUT_MAX: i64 = 3000;
/// PLAY's announced first number is believed when the first packet is at most this much later.
const HEAD_LOSS_MAX: i64 = 64;

/// Sequence numbers of one run of a stream, from PLAY or a seek to the next.
#[derive(Clone, Debug)]
struct Run {
    first: i64,
    highest: i64,
    received: i64,
    window: [u64; (WINDOW / 64) as usize],
}

enum Place {
    Next,
    Late,
    Duplicate,
}

impl Run {
    fn new(first: i64) -> Self {
        Self { first, highest: first - 1, received: 0, window: [0; (WINDOW / 64) as usize] }
    }

    fn bit(&mut self, seq: i64) -> (&mut u64, u64) {
        let place = seq.rem_euclid(WINDOW) as usize;
        // In bounds: `place` is below WINDOW.
        (&mut self.window[place / 64], 1 << (place % 64))
    }

    fn take(&mut self, seq: i64) -> Place {
        if seq > self.highest {
            for skipped in (self.highest + 1).max(seq - WINDOW)..seq {
                let (word, mask) = self.bit(skipped);
                *word &= !mask;
            }
            let (word, mask) = self.bit(seq);
            *word |= mask;
            self.highest = seq;
            self.received += 1;
            return Place::Next;
        }
        let before_first = seq < self.first;
        let (word, mask) = self.bit(seq);
        if *word & mask != 0 || before_first {
            return Place::Duplicate;
        }
        *word |= mask;
        self.received += 1;
        Place::Late
    }

    fn expected(&self) -> u64 {
        (self.highest - self.first + 1).max(0) as u64
    }
}

/// A stream being received.
#[derive(Debug)]
pub struct Flow {
    clock_hz: u32,
    ssrc: Option<u32>,
    /// The source of the session before, whose stragglers are not ours.
    ssrc_before: Option<u32>,
    run: Option<Run>,
    /// A PLAY was accepted; packets from this number on (from the next packet, when unknown) are of the new run.
    awaited: Option<Option<u16>>,
    last_arrival_ns: u64,
    burst: u32,
    lost_before: u64,
    jitter_16: u64,
    transit: Option<i64>,
    reported_expected: u64,
    reported_received: u64,
    last_sr: Option<(u32, u64)>,
    meter: Meter,
    rate: StreamRate,
    /// The sender said goodbye.
    pub bye: bool,
    /// It had a pause that counts as starving.
    pub starved: bool,
}

impl Flow {
    /// A stream with an RTP clock of `clock_hz`, judged by `meter`. `ssrc_before` is the source of the session before on this address.
    pub fn new(clock_hz: u32, ssrc_before: Option<u32>, meter: Meter) -> Self {
        Self {
            clock_hz,
            ssrc: None,
            ssrc_before,
            run: None,
            awaited: None,
            last_arrival_ns: 0,
            burst: 0,
            lost_before: 0,
            jitter_16: 0,
            transit: None,
            reported_expected: 0,
            reported_received: 0,
            last_sr: None,
            meter,
            rate: StreamRate::default(),
            bye: false,
            starved: false,
        }
    }

    /// The source seen.
    pub fn ssrc(&self) -> Option<u32> {
        self.ssrc
    }

    /// When the last packet arrived; 0 when none did.
    pub fn last_arrival_ns(&self) -> u64 {
        self.last_arrival_ns
    }

    /// Expects a new run of packets after an accepted PLAY, starting at `seq` when that was announced.
    pub fn await_run(&mut self, seq: Option<u16>) {
        self.awaited = Some(seq);
        self.bye = false;
    }

    /// Packets missing so far.
    pub fn lost(&self) -> u64 {
        self.lost_before + self.run.as_ref().map_or(0, |r| r.expected().saturating_sub(r.received as u64))
    }

    /// Takes an RTP packet of `length` bytes whose first bytes are `head`. True when it is the first of a run that was awaited.
    pub fn on_rtp(&mut self, arrival_ns: u64, head: &[u8], length: usize, totals: &mut Totals) -> bool {
        // RFC 3550 5.1.
        let Some(&[flags, _, s0, s1, t0, t1, t2, t3, c0, c1, c2, c3]) = head.first_chunk::<12>() else {
            totals.strays += 1;
            return false;
        };
        let (seq, timestamp) = (u16::from_be_bytes([s0, s1]), u32::from_be_bytes([t0, t1, t2, t3]));
        let ssrc = u32::from_be_bytes([c0, c1, c2, c3]);
        if flags >> 6 != 2 || (self.ssrc.is_none() && self.ssrc_before == Some(ssrc)) || self.ssrc.is_some_and(|own| own != ssrc) {
            totals.strays += 1;
            return false;
        }
        self.ssrc = Some(ssrc);
        let first = self.start_run(seq, totals);
        let Some(run) = &mut self.run else { return false };
        let unwrapped = run.highest + i64::from(seq.wrapping_sub(run.highest as u16) as i16);
        if (unwrapped - run.highest).abs() > DROPOUT_MAX {
            self.lost_before += run.expected().saturating_sub(run.received as u64);
            *run = Run::new(i64::from(seq));
            totals.restarts += 1;
        }
        let unwrapped = run.highest + i64::from(seq.wrapping_sub(run.highest as u16) as i16);
        match run.take(unwrapped) {
            Place::Duplicate => {
                totals.duplicates += 1;
                return first;
            }
            Place::Late => totals.reordered += 1,
            Place::Next => {}
        }
        totals.packets += 1;
        totals.bytes += length as u64;
        self.rate.steady_bytes += if totals.judge.is_steady(arrival_ns) { length as u64 } else { 0 };
        self.on_arrival(arrival_ns, timestamp, totals);
        // The spread within a frame is one of the payload.
        let bytes = length.saturating_sub(12).min(usize::from(u16::MAX)) as u16;
        if self.meter.push(Record { arrival_ns, timestamp, seq, bytes }) {
            let (points, judge) = totals.judging();
            self.meter.flush(points, &mut Both { judge, rate: &mut self.rate });
        }
        first
    }

    /// Goes over to the awaited run when `seq` belongs to it.
    fn start_run(&mut self, seq: u16, totals: &mut Totals) -> bool {
        let awaited = match self.awaited {
            Some(Some(from)) if seq.wrapping_sub(from) as i16 >= 0 => Some(from),
            Some(None) => None,
            // Still the run before, or none was ever asked for.
            _ if self.run.is_some() => return false,
            _ => None,
        };
        let first = self.awaited.take().is_some();
        if let Some(run) = &self.run {
            self.lost_before += run.expected().saturating_sub(run.received as u64);
            let (points, judge) = totals.judging();
            self.meter.restart(points, &mut Both { judge, rate: &mut self.rate });
        }
        let head_lost = awaited.map_or(0, |from| i64::from(seq.wrapping_sub(from)));
        self.run = Some(Run::new(i64::from(seq) - if head_lost <= HEAD_LOSS_MAX { head_lost } else { 0 }));
        self.transit = None;
        first
    }

    fn on_arrival(&mut self, arrival_ns: u64, timestamp: u32, totals: &mut Totals) {
        if self.last_arrival_ns != 0 && arrival_ns.saturating_sub(self.last_arrival_ns) < BURST_GAP_NS {
            self.burst += 1;
        } else {
            totals.record_burst(self.burst);
            self.burst = 1;
        }
        self.last_arrival_ns = self.last_arrival_ns.max(arrival_ns);
        // RFC 3550 6.4.1 and A.8; the jitter is kept in sixteenths.
        let arrival_units = (u128::from(arrival_ns) * u128::from(self.clock_hz) / 1_000_000_000) as u32;
        let transit = i64::from(arrival_units.wrapping_sub(timestamp) as i32);
        if let Some(before) = self.transit.replace(transit) {
            let change = transit.abs_diff(before).min(1 << 31);
            self.jitter_16 = (self.jitter_16 + change).saturating_sub((self.jitter_16 + 8) >> 4);
        }
    }

    /// Notes a sender report (the middle of its NTP time).
    pub fn on_sender_report(&mut self, ntp_middle: u32, now_ns: u64) {
        self.last_sr = Some((ntp_middle, now_ns));
    }

    /// RFC 3550 A.3: the report block due now; `None` before the first packet.
    pub fn report(&mut self, now_ns: u64) -> Option<Block> {
        let run = self.run.as_ref()?;
        let (expected, received) = (run.expected(), run.received as u64);
        let expected_since = expected.saturating_sub(self.reported_expected);
        let received_since = received.saturating_sub(self.reported_received);
        let lost_since = expected_since.saturating_sub(received_since);
        self.reported_expected = expected;
        self.reported_received = received;
        let (last_sr, delay) = self.last_sr.map_or((0, 0), |(ntp, at)| (ntp, now_ns.saturating_sub(at)));
        Some(Block {
            ssrc: self.ssrc?,
            fraction_lost: (lost_since * 256).checked_div(expected_since).unwrap_or(0).min(255) as u8,
            lost: self.lost().min(0x7f_ffff) as u32,
            highest_seq: run.highest as u32,
            jitter: (self.jitter_16 >> 4) as u32,
            last_sr,
            delay_since_last_sr: (u128::from(delay) * 65_536 / 1_000_000_000) as u32,
        })
    }

    /// Ends the stream: what is held is judged and counted, also for its client when that is known and such counts are wanted.
    pub fn finish(&mut self, client: Option<usize>, totals: &mut Totals) {
        totals.record_burst(self.burst);
        self.burst = 0;
        totals.lost += self.lost();
        self.lost_before = 0;
        self.run = None;
        totals.head_start_ns_max = totals.head_start_ns_max.max(self.meter.head_start_ns());
        let (points, judge) = totals.judging();
        self.meter.restart(points, &mut Both { judge, rate: &mut self.rate });
        if let (Some(told), Some(client)) = (&mut totals.per_stream, client) {
            told.push(StreamRate { client, ..std::mem::take(&mut self.rate) });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(seq: u16, timestamp: u32) -> [u8; 12] {
        let mut packet = [0x80, 96, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9];
        packet[2..4].copy_from_slice(&seq.to_be_bytes());
        packet[4..8].copy_from_slice(&timestamp.to_be_bytes());
        packet
    }

    fn feed(numbers: &[u16], announced: Option<u16>) -> (Flow, Totals) {
        let mut flow = Flow::new(90_000, None, Meter::new(90_000, 0.0, 0, 1000));
        let mut totals = Totals::default();
        flow.await_run(announced);
        for (k, &seq) in numbers.iter().enumerate() {
            let first = flow.on_rtp(1_000_000_000 + k as u64 * 1_000_000, &packet(seq, 7), 1200, &mut totals);
            assert_eq!(first, k == 0);
        }
        (flow, totals)
    }

    #[test]
    fn loss_duplicates_and_reordering_are_told_apart() {
        let (mut flow, mut totals) = feed(&[65_534, 65_535, 1, 0, 1, 4, 4, 3], None);
        assert_eq!((totals.packets, totals.duplicates, totals.reordered), (6, 2, 2));
        assert_eq!(flow.lost(), 1);
        let block = flow.report(2_000_000_000).unwrap();
        assert_eq!((block.lost, block.fraction_lost), (1, (256 / 7) as u8));
        assert_eq!(flow.report(3_000_000_000).unwrap().fraction_lost, 0);
        flow.finish(None, &mut totals);
        assert_eq!((totals.lost, flow.lost()), (1, 0));
    }

    #[test]
    fn the_announced_first_number_shows_loss_at_the_head() {
        assert_eq!(feed(&[12, 13], Some(10)).0.lost(), 2);
        assert_eq!(feed(&[12, 13], Some(12)).0.lost(), 0);
        // An announcement that cannot be true is not believed.
        assert_eq!(feed(&[5000, 5001], Some(10)).0.lost(), 0);
    }

    #[test]
    fn a_seek_starts_a_new_run_at_the_announced_number() {
        let (mut flow, mut totals) = feed(&[10, 11], Some(10));
        flow.await_run(Some(20));
        // A straggler of the old run, then the new one.
        assert!(!flow.on_rtp(1_100_000_000, &packet(12, 7), 100, &mut totals));
        assert!(flow.on_rtp(1_200_000_000, &packet(20, 900_000), 100, &mut totals));
        assert_eq!(flow.lost(), 0);
    }

    #[test]
    fn bursts_are_counted_by_length() {
        let mut flow = Flow::new(90_000, None, Meter::new(90_000, 0.0, 0, 1000));
        let mut totals = Totals::default();
        for k in 0u64..20 {
            // Four bursts of five packets, 10 us apart.
            let at = 1_000_000_000 + k / 5 * 40_000_000 + k % 5 * 10_000;
            flow.on_rtp(at, &packet(k as u16, (k / 5 * 3600) as u32), 1000, &mut totals);
        }
        flow.finish(None, &mut totals);
        assert_eq!((totals.burst_max(), totals.bursts_of(5)), (5, 4));
    }

    #[test]
    fn packets_of_another_source_are_strays() {
        let mut flow = Flow::new(90_000, Some(9), Meter::new(90_000, 0.0, 0, 1000));
        let mut totals = Totals::default();
        assert!(!flow.on_rtp(1, &packet(1, 1), 100, &mut totals));
        assert!(!flow.on_rtp(1, &[0x80, 1, 2], 3, &mut totals));
        assert_eq!((totals.packets, totals.strays), (0, 2));
    }
}
