//! What a connection sends: which segment is next, and writing it into a frame.

use super::api::{MS, SegmentOut, SendOutcome, State, TcpError};
use super::blocks::Cursor;
use super::conn::{Conn, Fin, LossTimer, NEVER, own_mss};
use super::recovery::{Mode, Probe};
use super::seq::Seq;
use super::shared::Shared;
use super::wire::{self, Header, Options, flag};

/// How soon a segment is tried again that the layer below had no way for.
const RETRY_UNRESOLVED_NS: u64 = 5 * MS;
const RETRY_NO_ROUTE_NS: u64 = 100 * MS;
const RETRY_NO_RECORD_NS: u64 = MS;

/// How a connection's turn ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// It has nothing more to send now.
    Done,
    /// It has more, and has had its quantum.
    More,
    /// The interface queue is at its limit.
    Waits,
    /// The port has no frame free.
    Full,
    /// It tries again by a timer.
    Later,
}

/// The next segment with payload or FIN.
#[derive(Clone, Copy, Debug)]
enum Next {
    /// One in flight, again.
    Again(u32),
    /// Bytes never sent.
    New { len: u32, fin: bool },
}

impl Conn {
    /// Sends what the windows allow, up to `quantum` segments a turn.
    pub fn transmit(&mut self, shared: &mut Shared, now_ns: u64, out: &mut dyn SegmentOut) -> Turn {
        if self.snd.credit == 0 {
            self.snd.credit = shared.config.quantum.max(1);
        }
        loop {
            let Some(next) = self.next_segment(shared, now_ns) else {
                self.snd.credit = 0;
                return Turn::Done;
            };
            if self.snd.credit == 0 {
                return Turn::More;
            }
            if matches!(next, Next::New { .. }) && !self.snd.flight.has_room(&shared.records) {
                self.timers.retry_ns = now_ns + RETRY_NO_RECORD_NS;
                return Turn::Later;
            }
            // The last test before a segment is handed down.
            if !shared.ifq.allows(out.queued()) {
                return Turn::Waits;
            }
            let outcome = match next {
                Next::Again(index) => self.send_again(shared, now_ns, out, index),
                Next::New { len, fin } => self.send_new(shared, now_ns, out, len, fin),
            };
            match outcome {
                SendOutcome::Sent => self.snd.credit -= 1,
                refused => return self.refused(shared, now_ns, refused),
            }
        }
    }

    /// True when a segment with payload or FIN could go now.
    pub fn wants_to_send(&mut self, shared: &mut Shared, now_ns: u64) -> bool {
        self.next_segment(shared, now_ns).is_some()
    }

    fn next_segment(&mut self, shared: &mut Shared, now_ns: u64) -> Option<Next> {
        if matches!(self.state, State::Closed | State::SynSent | State::SynReceived | State::TimeWait) {
            return None;
        }
        if self.snd.recovery.probe_due {
            // RFC 8985 7.3: new data if there is any, the last segment if not.
            return match self.new_len(u64::MAX, true) {
                Some((len, fin)) => Some(Next::New { len, fin }),
                None if self.snd.flight.is_empty() => None,
                None => Some(Next::Again(self.snd.flight.last_index())),
            };
        }
        let in_flight = self.snd.in_flight();
        let cwnd = self.snd.congestion.cwnd;
        if let Some(index) = self.snd.flight.first_lost(&shared.records) {
            return (in_flight < cwnd).then_some(Next::Again(index));
        }
        if self.snd.flight.is_empty() && self.snd.has_unsent() {
            let idle_ns = now_ns.saturating_sub(self.snd.last_sent_ns);
            if self.snd.last_sent_ns > 0 && idle_ns > self.snd.rtt.base_rto_ns() && self.snd.recovery.mode == Mode::Open {
                // RFC 5681 4.1.
                self.snd.congestion.restart(u64::from(self.snd.mss), idle_ns);
                self.snd.last_sent_ns = now_ns;
            }
        }
        let (len, fin) = self.new_len(self.snd.congestion.cwnd.saturating_sub(in_flight), false)?;
        Some(Next::New { len, fin })
    }

    /// Length of the next new segment, and whether it carries the FIN, when `room` bytes more may be in flight (RFC 9293 3.8.6.2.1 and 3.7.4).
    /// A probe may be small whatever the rules against small segments say.
    fn new_len(&self, room: u64, probe: bool) -> Option<(u32, bool)> {
        let snd = &self.snd;
        let unsent = snd.queue.unsent_len() as u32;
        let usable = (snd.una + snd.window).since(snd.nxt);
        if !snd.has_unsent() || usable == 0 {
            return None;
        }
        let len = unsent.min(snd.mss).min(usable);
        let last = len == unsent;
        let fin = last && snd.fin == Fin::Queued && len < usable;
        if u64::from(len) > room && !(snd.flight.is_empty() && room > 0) {
            return None;
        }
        let idle = snd.flight.is_empty();
        let full = len == snd.mss;
        let may_be_small = if last { self.no_delay || idle || fin } else { len >= snd.window_max / 2 };
        (full || may_be_small || probe || self.probe_due).then_some((len, fin)).filter(|_| len > 0 || fin)
    }

    fn send_new(&mut self, shared: &mut Shared, now_ns: u64, out: &mut dyn SegmentOut, len: u32, fin: bool) -> SendOutcome {
        let at = self.snd.queue.unsent_at(&shared.blocks);
        let start = self.snd.nxt;
        let push = len as usize == self.snd.queue.unsent_len();
        let flags = flag::ACK | if push && len > 0 { flag::PSH } else { 0 } | if fin { flag::FIN } else { 0 };
        let outcome = self.send_segment(shared, now_ns, out, start, flags, at, len as usize);
        if outcome != SendOutcome::Sent {
            return outcome;
        }
        self.snd.queue.send(&shared.blocks, len as usize);
        let end = start + len + u32::from(fin);
        let was_idle = self.snd.flight.is_empty();
        self.snd.lone = was_idle;
        if was_idle {
            (self.snd.recovery.rto_from_ns, self.progress_ns) = (now_ns, now_ns);
        }
        self.snd.flight.push(&mut shared.records, (start, end), at, fin, now_ns);
        self.snd.nxt = end;
        if fin {
            self.snd.fin = Fin::Sent;
        }
        shared.counters.tx_bytes += u64::from(len);
        if std::mem::take(&mut self.probe_due) {
            self.timers.probe_ns = NEVER;
        }
        self.sent_data(shared, now_ns, Probe { end, resent: false });
        outcome
    }

    fn send_again(&mut self, shared: &mut Shared, now_ns: u64, out: &mut dyn SegmentOut, index: u32) -> SendOutcome {
        // The path may have become narrower since.
        self.snd.flight.split(&mut shared.records, &shared.blocks, index, self.snd.mss);
        let Some(&record) = shared.records.get(index) else { return SendOutcome::Full };
        let flags = flag::ACK | flag::PSH | if record.fin() { flag::FIN } else { 0 };
        let outcome = self.send_segment(shared, now_ns, out, record.start, flags, record.at, record.payload_len());
        if outcome != SendOutcome::Sent {
            return outcome;
        }
        if self.snd.recovery.first_resend.is_none() {
            self.snd.recovery.first_resend = Some((record.end, self.ts_at(now_ns)));
        }
        if index == self.snd.flight.first_index() {
            self.snd.recovery.rto_from_ns = now_ns;
        }
        self.snd.flight.resent(&mut shared.records, index, now_ns);
        self.snd.retransmits += 1;
        shared.counters.tx_retransmits += 1;
        self.sent_data(shared, now_ns, Probe { end: record.end, resent: true });
        outcome
    }

    fn sent_data(&mut self, shared: &mut Shared, now_ns: u64, sent: Probe) {
        if std::mem::take(&mut self.snd.recovery.probe_due) {
            self.snd.recovery.probe = Some(Probe { end: self.snd.nxt, ..sent });
            self.snd.recovery.rto_from_ns = now_ns;
            shared.counters.tx_probes += 1;
        } else if self.snd.recovery.mode == Mode::Recovery {
            self.snd.recovery.prr_out += u64::from(self.snd.mss);
        }
        self.snd.last_sent_ns = now_ns;
        self.arm_loss(shared, now_ns);
    }

    /// A segment without payload, if one is owed; says nothing when the last one said it all.
    pub fn send_owed(&mut self, shared: &mut Shared, now_ns: u64, out: &mut dyn SegmentOut) -> Turn {
        let nowhere = Cursor { block: u32::MAX, offset: 0 };
        let outcome = if self.syn_due {
            self.send_syn(shared, now_ns, out)
        } else if self.state == State::Closed {
            return Turn::Done;
        } else if self.probe_due {
            // An old sequence number: the peer has to answer (RFC 9293 3.8.4), whatever its window is.
            let outcome = self.send_segment(shared, now_ns, out, self.snd.una - 1, flag::ACK, nowhere, 0);
            self.probe_due = outcome != SendOutcome::Sent;
            outcome
        } else if self.rcv.ack_now {
            self.send_segment(shared, now_ns, out, self.snd.nxt, flag::ACK, nowhere, 0)
        } else {
            return Turn::Done;
        };
        if outcome == SendOutcome::Sent { Turn::Done } else { self.refused(shared, now_ns, outcome) }
    }

    fn send_syn(&mut self, shared: &mut Shared, now_ns: u64, out: &mut dyn SegmentOut) -> SendOutcome {
        let synack = self.state == State::SynReceived;
        let options = Options {
            mss: Some(own_mss(shared.config.mtu_bytes, self.tuple.local.is_ipv4())),
            window_scale: (!synack || self.snd.scale > 0 || self.rcv.scale > 0).then_some(self.rcv.scale),
            sack_permitted: self.sack,
            timestamps: self.timestamps.then(|| (self.ts_at(now_ns), self.rcv.ts_recent)),
            ..Options::default()
        };
        let (flags, ack) = if synack { (flag::SYN | flag::ACK, self.rcv.nxt) } else { (flag::SYN, Seq(0)) };
        let window = self.offer_window(shared);
        let window = ((u32::from(window)) << self.rcv.scale).min(0xffff) as u16;
        let header = Header { seq: self.snd.iss, ack, flags, window, options };
        let outcome = self.hand_down(shared, out, &header, Cursor { block: u32::MAX, offset: 0 }, 0);
        if outcome == SendOutcome::Sent {
            self.syn_due = false;
            self.snd.nxt = self.snd.iss + 1;
            self.syn_sent_ns = now_ns;
            (self.timers.loss, self.timers.loss_ns) = (LossTimer::Retransmit, now_ns + self.snd.rtt.rto_ns());
        }
        outcome
    }

    #[allow(clippy::too_many_arguments, reason = "a segment has that many parts")]
    fn send_segment(
        &mut self,
        shared: &mut Shared,
        now_ns: u64,
        out: &mut dyn SegmentOut,
        seq: Seq,
        flags: u8,
        at: Cursor,
        len: usize,
    ) -> SendOutcome {
        let room = if len == 0 { usize::MAX } else { (self.snd.mss as usize).saturating_sub(len) };
        let (options, tells_all) = self.options(shared, now_ns, room);
        let window = self.offer_window(shared);
        let header = Header { seq, ack: self.rcv.nxt, flags, window, options };
        let outcome = self.hand_down(shared, out, &header, at, len);
        if outcome == SendOutcome::Sent {
            self.rcv.last_ack = self.rcv.nxt;
            self.rcv.unacked = 0;
            self.timers.ack_ns = NEVER;
            if tells_all {
                self.rcv.ack_now = false;
                self.rcv.duplicate = None;
            }
        }
        outcome
    }

    fn hand_down(&mut self, shared: &mut Shared, out: &mut dyn SegmentOut, header: &Header, at: Cursor, len: usize) -> SendOutcome {
        let (tuple, blocks) = (&self.tuple, &shared.blocks);
        let total = header.len() + len;
        let fill = &mut |buf: &mut [u8]| wire::emit(tuple, header, buf, &|payload| blocks.read(at, payload));
        let outcome = match self.via {
            Some(via) => out.answer(via, tuple.local, tuple.remote, total, fill),
            None => out.segment(tuple.local, tuple.remote, total, fill),
        };
        if outcome == SendOutcome::Sent {
            shared.counters.tx_segments += 1;
            self.stalled_ns = NEVER;
        }
        outcome
    }

    /// The layer below did not take a segment. Nothing was sent, so nothing of what was sent changes.
    fn refused(&mut self, shared: &mut Shared, now_ns: u64, outcome: SendOutcome) -> Turn {
        let retry_ns = match outcome {
            SendOutcome::Sent => return Turn::Done,
            SendOutcome::Full => {
                shared.counters.port_full += 1;
                return Turn::Full;
            }
            SendOutcome::NoRoute if self.state == State::SynSent => {
                self.fail(shared, TcpError::Unreachable);
                return Turn::Later;
            }
            SendOutcome::Unresolved => RETRY_UNRESOLVED_NS,
            SendOutcome::NoRoute => RETRY_NO_ROUTE_NS,
        };
        self.stalled_ns = self.stalled_ns.min(now_ns);
        self.timers.retry_ns = now_ns + retry_ns;
        Turn::Later
    }
}
