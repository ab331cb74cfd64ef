//! Loss recovery: what an acknowledgment means for the scoreboard, the congestion window and the loss timer.
//!
//! ```text
//! Open ──loss found──► Recovery ──everything sent before the loss acknowledged──► Open     proportional rate reduction (RFC 6937)
//!   └────timeout─────► Loss ─────────────────────────────────────────────────────► Open     slow start from one segment
//! ```
//!
//! With SACK, RACK finds losses and tail loss probes provoke the acknowledgments that it needs (RFC 8985). Without, three duplicate
//! acknowledgments do, and partial ones in recovery (RFC 6582). What turns out to have been only late is undone (RFC 3522, RFC 4015).

use super::congestion::Acked;
use super::conn::{Conn, LossTimer, NEVER};
use super::flight::Record;
use super::rack::DUP_THRESH;
use super::seq::Seq;
use super::shared::Shared;

/// What a peer may hold an acknowledgment of a single segment back for, as far as tail loss probes allow for it (RFC 8985 7.2).
const PROBE_ACK_DELAY_NS: u64 = 50_000_000;
/// What is added to two round trips before a probe, for the peer's and our own timers.
const PROBE_SLACK_NS: u64 = 2_000_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Open,
    Recovery,
    Loss,
}

/// A tail loss probe under way (RFC 8985 7.1).
#[derive(Clone, Copy, Debug)]
pub(super) struct Probe {
    pub end: Seq,
    /// It repeats a segment, so it may repair a loss unseen.
    pub resent: bool,
}

/// State of loss recovery of one connection.
#[derive(Clone, Debug)]
pub(super) struct Recovery {
    pub mode: Mode,
    /// Recovery ends when everything before this is acknowledged.
    high: Seq,
    /// RFC 6937: bytes delivered and sent in this recovery, and what was in flight at its start.
    prr_delivered: u64,
    pub prr_out: u64,
    prr_flight: u64,
    /// End of the first segment sent again, and its timestamp then; an acknowledgment of it that echoes an earlier one was for the
    /// original (RFC 3522).
    pub first_resend: Option<(Seq, u32)>,
    undo: bool,
    pub probe: Option<Probe>,
    pub probe_due: bool,
    /// When to look for losses again.
    reordering_ns: Option<u64>,
    /// When the retransmission timer was started.
    pub rto_from_ns: u64,
    /// Without SACK: duplicate acknowledgments, and the bytes that they stand for.
    dup_acks: u32,
    pub reno_sacked_bytes: u32,
}

impl Recovery {
    pub fn new(iss: Seq) -> Self {
        Self {
            mode: Mode::Open,
            high: iss,
            prr_delivered: 0,
            prr_out: 0,
            prr_flight: 0,
            first_resend: None,
            undo: false,
            probe: None,
            probe_due: false,
            reordering_ns: None,
            rto_from_ns: 0,
            dup_acks: 0,
            reno_sacked_bytes: 0,
        }
    }
}

/// What an acknowledgment says.
pub(super) struct AckNews<'a> {
    pub ack: Seq,
    pub sack: &'a [(Seq, Seq)],
    /// The timestamp that it echoes, if timestamps are in use.
    pub echo: Option<u32>,
    /// It acknowledges nothing, carries nothing and does not change the window, while something is in flight (RFC 5681 2).
    pub duplicate: bool,
}

/// What became known to be delivered by one acknowledgment.
#[derive(Default)]
struct Delivered {
    bytes: u64,
    resent: bool,
    rtt_max_ns: u64,
    rtt_min_ns: u64,
}

impl Conn {
    /// An acceptable acknowledgment, for data in flight or a duplicate one.
    pub fn acknowledged(&mut self, shared: &mut Shared, now_ns: u64, news: &AckNews) {
        let before = self.snd.in_flight();
        let outstanding = u64::from(self.snd.nxt.since(self.snd.una));
        let advanced = news.ack.since(self.snd.una);
        let dsack = self.has_dsack(news);
        let delivered = self.update_scoreboard(shared, now_ns, news);
        self.snd.una = self.snd.una.max(news.ack);
        self.measure(now_ns, news, advanced, &delivered);
        if dsack {
            self.snd.rack.dsack(self.snd.una, self.snd.nxt);
        }
        if advanced > 0 {
            self.progress_ns = now_ns;
            self.snd.recovery.rto_from_ns = now_ns;
            self.undo_if_spurious(shared, news);
        }
        if delivered.bytes > 0 {
            self.snd.recovery.probe_due = false;
        }
        self.settle_probe(shared, news, dsack);
        let was_recovering = self.snd.recovery.mode == Mode::Recovery;
        self.leave_recovery(advanced);
        let lost = if self.sack { self.detect(shared, now_ns) } else { self.count_duplicates(shared, news, advanced) };
        if lost && self.snd.recovery.mode == Mode::Open {
            self.enter_recovery(shared, outstanding);
        }
        let mss = u64::from(self.snd.mss);
        if self.snd.recovery.mode == Mode::Recovery {
            self.reduce_proportionally(delivered.bytes, advanced > 0 && !lost);
        } else if advanced > 0 {
            // A window that the sender did not use proves nothing (RFC 7661); in slow start half of it is proof enough.
            let (cwnd, ssthresh) = (self.snd.congestion.cwnd, self.snd.congestion.ssthresh);
            if before + mss > cwnd || (cwnd < ssthresh && 2 * before >= cwnd) {
                // What the peer had told of before does not count again when a hole is filled; without SACK nobody knows how much that is.
                let known_before = was_recovering && !self.sack;
                let bytes = if known_before { 0 } else { delivered.bytes.min(u64::from(advanced)) };
                self.snd.congestion.acknowledged(mss, Acked { now_ns, bytes, srtt_ns: self.snd.rtt.srtt_ns });
            }
        }
        self.arm_loss(shared, now_ns);
    }

    fn update_scoreboard(&mut self, shared: &mut Shared, now_ns: u64, news: &AckNews) -> Delivered {
        let mut delivered = Delivered::default();
        let (ts_offset, rtt, rack) = (self.ts_offset, &self.snd.rtt, &mut self.snd.rack);
        let mut note = |record: &Record| {
            let ts = ((record.xmit_ns / 1_000_000) as u32).wrapping_add(ts_offset);
            // A segment out of order does not change what the peer echoes, so only of a cumulative acknowledgment does the echo tell.
            let cumulative = record.end.le(news.ack);
            let echo_is_older = cumulative && news.echo.is_some_and(|echo| (echo.wrapping_sub(ts) as i32) < 0);
            let rtt_ns = now_ns.saturating_sub(record.xmit_ns);
            if !record.resent() {
                delivered.rtt_max_ns = delivered.rtt_max_ns.max(rtt_ns);
                delivered.rtt_min_ns = if delivered.rtt_min_ns == 0 { rtt_ns } else { delivered.rtt_min_ns.min(rtt_ns) };
            }
            delivered.resent |= record.resent();
            delivered.bytes += u64::from(record.len());
            rack.delivered(record, now_ns, rtt, echo_is_older);
        };
        let flight = &mut self.snd.flight;
        flight.acknowledge(&mut shared.records, &shared.blocks, news.ack, &mut note);
        if self.sack {
            let (una, nxt) = (self.snd.una.max(news.ack), self.snd.nxt);
            let mut valid = news.sack.iter().filter(|block| una.lt(block.0) && block.0.lt(block.1) && block.1.le(nxt)).copied();
            let blocks: [Option<(Seq, Seq)>; 3] = std::array::from_fn(|_| valid.next());
            let (Some(first), len) = (blocks[0], blocks.iter().flatten().count()) else { return delivered };
            let blocks = blocks.map(|block| block.unwrap_or(first));
            flight.sack(&mut shared.records, &blocks[..len], &mut note);
        }
        delivered
    }

    /// RFC 2883 4: the first block tells of what is acknowledged already, or lies inside of the second.
    fn has_dsack(&self, news: &AckNews) -> bool {
        match news.sack {
            [first, ..] if first.1.le(news.ack) => true,
            [first, second, ..] => second.0.le(first.0) && first.1.le(second.1),
            _ => false,
        }
    }

    fn measure(&mut self, now_ns: u64, news: &AckNews, advanced: u32, delivered: &Delivered) {
        if delivered.rtt_min_ns > 0 {
            self.snd.rtt.sample_min(now_ns, delivered.rtt_min_ns);
        }
        if delivered.bytes > 0 && !delivered.resent && delivered.rtt_max_ns > 0 {
            self.snd.rtt.sample(now_ns, delivered.rtt_max_ns);
        } else if let (true, Some(echo)) = (advanced > 0, news.echo) {
            // Which transmission was acknowledged only the timestamp tells (RFC 7323 4.1).
            let ms = self.ts_at(now_ns).wrapping_sub(echo);
            if (1..600_000).contains(&ms) {
                self.snd.rtt.sample(now_ns, u64::from(ms) * 1_000_000);
            }
        }
    }

    fn undo_if_spurious(&mut self, shared: &mut Shared, news: &AckNews) {
        let recovery = &mut self.snd.recovery;
        let Some((_, first)) = recovery.first_resend.filter(|(end, _)| end.le(news.ack)) else { return };
        recovery.first_resend = None;
        let spurious = recovery.undo && news.echo.is_some_and(|echo| (echo.wrapping_sub(first) as i32) < 0);
        recovery.undo = false;
        if spurious && recovery.mode != Mode::Open {
            recovery.mode = Mode::Open;
            shared.counters.undone += 1;
            self.snd.congestion.undo();
            self.snd.flight.unmark_lost(&mut shared.records);
        }
    }

    /// RFC 8985 7.4.2.
    fn settle_probe(&mut self, shared: &mut Shared, news: &AckNews, dsack: bool) {
        let Some(probe) = self.snd.recovery.probe.filter(|probe| probe.end.le(news.ack)) else { return };
        if !probe.resent || dsack {
            self.snd.recovery.probe = None;
        } else if probe.end.lt(news.ack) {
            // The probe has repaired a loss that nobody saw.
            self.snd.recovery.probe = None;
            let outstanding = u64::from(self.snd.nxt.since(self.snd.una));
            self.snd.congestion.congested(outstanding.max(self.snd.congestion.cwnd / 2), u64::from(self.snd.mss));
            self.snd.congestion.cwnd = self.snd.congestion.ssthresh;
            shared.counters.recoveries += 1;
        } else if news.duplicate && news.sack.is_empty() {
            self.snd.recovery.probe = None;
        }
    }

    fn leave_recovery(&mut self, advanced: u32) {
        let recovery = &mut self.snd.recovery;
        if recovery.mode == Mode::Open || advanced == 0 || self.snd.una.lt(recovery.high) {
            return;
        }
        if recovery.mode == Mode::Recovery {
            self.snd.congestion.cwnd = self.snd.congestion.ssthresh;
        }
        recovery.mode = Mode::Open;
        (recovery.dup_acks, recovery.reno_sacked_bytes) = (0, 0);
        self.snd.rack.recovered();
    }

    /// True when new losses were found.
    fn detect(&mut self, shared: &mut Shared, now_ns: u64) -> bool {
        let snd = &mut self.snd;
        let in_recovery = snd.recovery.mode != Mode::Open;
        let (lost, again_ns) = snd.rack.detect(&mut snd.flight, &mut shared.records, now_ns, &snd.rtt, in_recovery);
        snd.recovery.reordering_ns = again_ns;
        lost
    }

    /// Without SACK (RFC 5681 3.2, RFC 6582 3.2). True when a segment was found lost.
    fn count_duplicates(&mut self, shared: &mut Shared, news: &AckNews, advanced: u32) -> bool {
        let snd = &mut self.snd;
        if advanced > 0 {
            (snd.recovery.dup_acks, snd.recovery.reno_sacked_bytes) = (0, 0);
            // A partial acknowledgment: the next one is lost as well.
            return snd.recovery.mode == Mode::Recovery && snd.flight.mark_first_lost(&mut shared.records);
        }
        if !news.duplicate || snd.recovery.mode == Mode::Loss {
            return false;
        }
        snd.recovery.dup_acks += 1;
        let first = snd.flight.first(&shared.records).map_or(0, Record::len);
        snd.recovery.reno_sacked_bytes = (snd.recovery.dup_acks.saturating_mul(snd.mss)).min(snd.nxt.since(snd.una).saturating_sub(first));
        snd.recovery.mode == Mode::Open && snd.recovery.dup_acks >= DUP_THRESH && snd.flight.mark_first_lost(&mut shared.records)
    }

    fn enter_recovery(&mut self, shared: &mut Shared, outstanding: u64) {
        let snd = &mut self.snd;
        shared.counters.recoveries += 1;
        snd.congestion.congested(outstanding, u64::from(snd.mss));
        let recovery = &mut snd.recovery;
        (recovery.mode, recovery.high) = (Mode::Recovery, snd.nxt);
        (recovery.prr_delivered, recovery.prr_out, recovery.prr_flight) = (0, 0, outstanding.max(1));
        (recovery.undo, recovery.first_resend, recovery.probe) = (true, None, None);
    }

    /// Proportional rate reduction (RFC 6937 3.1).
    fn reduce_proportionally(&mut self, delivered: u64, progress: bool) {
        let in_flight = self.snd.in_flight();
        let (mss, ssthresh) = (u64::from(self.snd.mss), self.snd.congestion.ssthresh);
        let recovery = &mut self.snd.recovery;
        recovery.prr_delivered += delivered;
        let mut room = if in_flight > ssthresh {
            (recovery.prr_delivered * ssthresh).div_ceil(recovery.prr_flight).saturating_sub(recovery.prr_out)
        } else {
            let bound = recovery.prr_delivered.saturating_sub(recovery.prr_out).max(delivered) + if progress { mss } else { 0 };
            bound.min(ssthresh - in_flight)
        };
        if recovery.prr_out == 0 {
            // The first segment goes out at once (RFC 5681 3.2, step 3).
            room = room.max(mss);
        }
        self.snd.congestion.cwnd = in_flight + room;
    }

    /// The time has come to look for losses again (RFC 8985 6.3).
    pub fn reordering_timeout(&mut self, shared: &mut Shared, now_ns: u64) {
        let outstanding = u64::from(self.snd.nxt.since(self.snd.una));
        if self.detect(shared, now_ns) && self.snd.recovery.mode == Mode::Open {
            self.enter_recovery(shared, outstanding);
            self.reduce_proportionally(0, false);
        }
    }

    /// Nothing was heard for a whole retransmission timeout (RFC 6298 5.4-5.6, RFC 5681 3.1).
    pub fn retransmission_timeout(&mut self, shared: &mut Shared, now_ns: u64) {
        let snd = &mut self.snd;
        let outstanding = u64::from(snd.nxt.since(snd.una));
        if snd.recovery.mode != Mode::Loss {
            snd.congestion.congested(outstanding, u64::from(snd.mss));
            (snd.recovery.undo, snd.recovery.first_resend) = (true, None);
        }
        snd.congestion.cwnd = u64::from(snd.mss);
        (snd.recovery.mode, snd.recovery.high) = (Mode::Loss, snd.nxt);
        (snd.recovery.dup_acks, snd.recovery.reno_sacked_bytes) = (0, 0);
        (snd.recovery.probe, snd.recovery.probe_due, snd.recovery.reordering_ns) = (None, false, None);
        snd.flight.mark_all_lost(&mut shared.records);
        snd.rtt.backoff += 1;
        snd.rtos += 1;
        snd.recovery.rto_from_ns = now_ns;
        shared.counters.rtos += 1;
    }

    /// Sets the loss timer: to look for losses again, to probe, or to time out, whichever is first.
    pub fn arm_loss(&mut self, shared: &Shared, _now_ns: u64) {
        let snd = &self.snd;
        if snd.flight.is_empty() {
            self.timers.loss_ns = NEVER;
            return;
        }
        let timeout_ns = snd.recovery.rto_from_ns + snd.rtt.rto_ns();
        let probe_ns = self.probe_at_ns(shared).filter(|at_ns| *at_ns < timeout_ns);
        (self.timers.loss, self.timers.loss_ns) = match (snd.recovery.reordering_ns, probe_ns) {
            (Some(at_ns), _) if at_ns < timeout_ns => (LossTimer::Reordering, at_ns),
            (_, Some(at_ns)) => (LossTimer::Probe, at_ns),
            _ => (LossTimer::Retransmit, timeout_ns),
        };
    }

    /// When to send a tail loss probe (RFC 8985 7.2): two round trips after the last transmission, as in RFC 9002 6.2.1. Counting from the last
    /// acknowledgment would add a round trip when only the last segment is lost. Measurements of delayed acknowledgments make the smoothed
    /// time too long, so two smallest round trips are enough while they are a third longer than the smoothed one. The allowance for a delayed
    /// acknowledgment is made for a segment that was sent alone; a needless probe costs one segment, and the peer's DSACK keeps it from
    /// doing harm.
    fn probe_at_ns(&self, shared: &Shared) -> Option<u64> {
        let snd = &self.snd;
        let recovery = &snd.recovery;
        let probing = recovery.probe.is_some() || recovery.probe_due;
        let wanted = self.sack && recovery.mode == Mode::Open && !probing && snd.flight.sacked_count == 0;
        if !wanted || snd.rtt.srtt_ns == 0 || snd.rtt.backoff > 0 {
            return None;
        }
        let delay_ns = if snd.lone && snd.flight.count() == 1 { PROBE_ACK_DELAY_NS } else { 0 };
        let (srtt_ns, min_ns) = (snd.rtt.srtt_ns, snd.rtt.min_ns);
        let wait_ns = (2 * min_ns).max(srtt_ns + srtt_ns / 3).min(2 * srtt_ns) + PROBE_SLACK_NS + delay_ns;
        snd.flight.newest_xmit_ns(&shared.records).map(|sent_ns| sent_ns + wait_ns)
    }
}
