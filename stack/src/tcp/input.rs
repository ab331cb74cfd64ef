//! Segments that arrive for a connection (RFC 9293 3.10.7.3 and 3.10.7.4), with the checks of RFC 5961 and RFC 7323.

use super::api::{Events, State, TcpError};
use super::conn::{Conn, Fin, NEVER, reply};
use super::recovery::AckNews;
use super::replies::Reply;
use super::seq::Seq;
use super::shared::Shared;
use super::wire::{Header, Incoming, Options, flag};

/// How long a timestamp is worth comparing with (RFC 7323 5.5).
const TS_VALID_NS: u64 = 24 * 24 * 3600 * 1_000_000_000;
/// Full segments that are acknowledged together (RFC 9293 3.8.6.3).
const ACK_EVERY: u32 = 2;

impl Conn {
    /// A segment of this connection. The state is CLOSED afterwards if it is over.
    pub fn segment_arrives(&mut self, shared: &mut Shared, now_ns: u64, segment: &Incoming) {
        match self.state {
            State::Closed => refuse(shared, segment),
            State::SynSent => self.answer_to_syn(shared, now_ns, segment),
            _ => self.synchronized(shared, now_ns, segment),
        }
    }

    /// RFC 9293 3.10.7.3.
    fn answer_to_syn(&mut self, shared: &mut Shared, now_ns: u64, segment: &Incoming) {
        let header = &segment.header;
        let acks = header.has(flag::ACK);
        // Our SYN may not have left yet.
        if acks && (header.ack.le(self.snd.iss) || self.snd.nxt.lt(header.ack)) {
            return refuse(shared, segment);
        }
        if header.has(flag::RST) {
            if acks {
                self.fail(shared, TcpError::Refused);
            }
            return;
        }
        if !header.has(flag::SYN) {
            return;
        }
        self.learn_peer(shared, now_ns, header);
        self.heard_ns = now_ns;
        if !acks {
            // Both sides open at once (RFC 9293 3.5).
            self.state = State::SynReceived;
            self.snd.rtt.backoff = 0;
            self.syn_due = true;
            return self.wake(shared);
        }
        self.snd.una = header.ack;
        self.sample_handshake(now_ns);
        self.establish(shared, now_ns);
        self.ack_now(shared);
        self.take_payload(shared, segment, header.seq + 1);
    }

    fn sample_handshake(&mut self, now_ns: u64) {
        if self.snd.rtt.backoff == 0 && self.syn_sent_ns != NEVER {
            self.snd.rtt.sample(now_ns, now_ns.saturating_sub(self.syn_sent_ns));
        }
    }

    /// RFC 9293 3.10.7.4.
    fn synchronized(&mut self, shared: &mut Shared, now_ns: u64, segment: &Incoming) {
        let mut segment = *segment;
        let header = &mut segment.header;
        if self.state == State::SynReceived && header.has(flag::SYN) && header.seq == self.rcv.irs {
            if !header.has(flag::ACK) || header.ack != self.snd.nxt {
                // The peer has not got our SYN.
                self.syn_due = true;
                return self.wake(shared);
            }
            // Both sides opened at once, and this acknowledges our SYN.
            header.flags &= !flag::SYN;
            header.seq = header.seq + 1;
        }
        if !self.is_fresh(shared, now_ns, &segment) || !self.is_in_window(shared, now_ns, &segment) {
            return;
        }
        let header = &segment.header;
        if header.has(flag::RST) {
            return self.take_reset(shared, now_ns, header.seq);
        }
        if header.has(flag::SYN) {
            // RFC 5961 4.2.
            return self.challenge(shared, now_ns);
        }
        if !header.has(flag::ACK) {
            return;
        }
        self.remember_timestamp(now_ns, header);
        (self.heard_ns, self.probes) = (now_ns, 0);
        if self.take_ack(shared, now_ns, &segment) {
            self.take_payload(shared, &segment, segment.header.seq);
            self.take_fin(shared, now_ns, &segment);
            if self.rcv.ack_now || self.timers.ack_ns != NEVER || self.has_work() {
                self.wake(shared);
            }
        }
    }

    /// Something could be sent now that an acknowledgment came.
    fn has_work(&self) -> bool {
        self.snd.has_unsent() || self.snd.flight.lost_bytes > 0 || self.snd.recovery.probe_due
    }

    /// PAWS (RFC 7323 5.3).
    fn is_fresh(&mut self, shared: &mut Shared, now_ns: u64, segment: &Incoming) -> bool {
        if !self.timestamps || segment.header.has(flag::RST) {
            return true;
        }
        let fresh = match segment.header.options.timestamps {
            // RFC 7323 3.2: a segment that should have one and does not is dropped.
            None => return false,
            Some((value, _)) => (value.wrapping_sub(self.rcv.ts_recent) as i32) >= 0,
        };
        if !fresh && now_ns.saturating_sub(self.rcv.ts_recent_at_ns) < TS_VALID_NS {
            shared.counters.rx_out_of_window += 1;
            if segment.len() > 0 {
                self.ack_now(shared);
            } else {
                self.challenge(shared, now_ns);
            }
            return false;
        }
        true
    }

    /// RFC 7323 4.3.
    fn remember_timestamp(&mut self, now_ns: u64, header: &Header) {
        if let (true, Some((value, _))) = (self.timestamps && header.seq.le(self.rcv.last_ack), header.options.timestamps) {
            (self.rcv.ts_recent, self.rcv.ts_recent_at_ns) = (value, now_ns);
        }
    }

    /// RFC 9293 3.10.7.4, first step. An acknowledgment at the edge of a window that is full or was taken back still counts.
    fn is_in_window(&mut self, shared: &mut Shared, now_ns: u64, segment: &Incoming) -> bool {
        let (seq, len) = (segment.header.seq, segment.len());
        let end = seq + len;
        let begins = seq.le(self.rcv.edge);
        let ends = if len == 0 { self.rcv.nxt.le(seq) } else { self.rcv.nxt.lt(end) };
        if begins && ends {
            return true;
        }
        shared.counters.rx_out_of_window += 1;
        if segment.header.has(flag::RST) {
            return false;
        }
        if self.state == State::TimeWait && segment.header.has(flag::FIN) {
            // Our last acknowledgment was lost (RFC 9293 3.10.7.4, eighth step).
            self.timers.state_ns = now_ns + shared.config.time_wait_ns;
        }
        if len > 0 && begins {
            // Sent again, because our acknowledgment was lost or late.
            if self.sack && !segment.payload.is_empty() {
                self.rcv.duplicate = Some((seq, seq + segment.payload.len() as u32));
            }
            self.remember_timestamp(now_ns, &segment.header);
            self.ack_now(shared);
        } else {
            self.challenge(shared, now_ns);
        }
        false
    }

    /// RFC 5961 3.2: only a reset at exactly the next sequence number is believed.
    fn take_reset(&mut self, shared: &mut Shared, now_ns: u64, seq: Seq) {
        if seq != self.rcv.nxt {
            return self.challenge(shared, now_ns);
        }
        match self.state {
            // RFC 1337: nothing kills TIME-WAIT.
            State::TimeWait => {}
            State::Closing | State::LastAck => self.end(shared),
            State::SynReceived => self.fail(shared, TcpError::Refused),
            _ => self.fail(shared, TcpError::Reset),
        }
    }

    /// RFC 9293 3.10.7.4, fifth step. False: nothing more of the segment counts.
    fn take_ack(&mut self, shared: &mut Shared, now_ns: u64, segment: &Incoming) -> bool {
        let header = &segment.header;
        if self.state == State::SynReceived {
            if header.ack.le(self.snd.una) || self.snd.nxt.lt(header.ack) {
                refuse(shared, segment);
                return false;
            }
            self.snd.una = self.snd.iss + 1;
            self.sample_handshake(now_ns);
            self.snd.window = u32::from(header.window) << self.snd.scale;
            self.establish(shared, now_ns);
            if self.snd.fin == Fin::Queued {
                self.state = State::FinWait1;
            }
        }
        // RFC 5961 5.2.
        if self.snd.nxt.lt(header.ack) || header.ack.lt(self.snd.una - self.snd.window_max) {
            self.challenge(shared, now_ns);
            return false;
        }
        if header.ack.lt(self.snd.una) {
            return true;
        }
        let window = u32::from(header.window) << self.snd.scale;
        let duplicate = header.ack == self.snd.una && segment.len() == 0 && window == self.snd.window && !self.snd.flight.is_empty();
        let advanced = header.ack.since(self.snd.una);
        self.update_window(header, window);
        if advanced > 0 || !self.snd.flight.is_empty() {
            let echo = header.options.timestamps.filter(|_| self.timestamps).map(|(_, echo)| echo);
            let sack = if self.sack { header.options.sack.as_slice() } else { &[] };
            self.drop_acknowledged(shared, header.ack, |conn, shared| {
                conn.acknowledged(shared, now_ns, &AckNews { ack: header.ack, sack, echo, duplicate });
            });
        }
        self.own_fin_acknowledged(shared, now_ns);
        self.state != State::Closed
    }

    /// RFC 9293 3.10.7.4: not from an older segment.
    fn update_window(&mut self, header: &Header, window: u32) {
        let snd = &mut self.snd;
        if snd.wl1.lt(header.seq) || (snd.wl1 == header.seq && snd.wl2.le(header.ack)) {
            if window > 0 && snd.window != window {
                // The persist timer starts anew when it is needed again.
                self.timers.probe_ns = NEVER;
                self.probe_due = false;
                snd.persists = 0;
            }
            snd.window = window;
            snd.window_max = snd.window_max.max(window);
            (snd.wl1, snd.wl2) = (header.seq, header.ack);
        }
    }

    /// Runs `recover` and takes the acknowledged bytes out of the queue behind it: records of segments point into it.
    fn drop_acknowledged(&mut self, shared: &mut Shared, ack: Seq, recover: impl FnOnce(&mut Self, &mut Shared)) {
        let una = self.snd.una;
        recover(self, shared);
        let mut bytes = ack.since(una);
        if self.snd.fin == Fin::Sent && ack == self.snd.nxt && bytes > 0 {
            bytes -= 1;
        }
        if bytes == 0 {
            return;
        }
        self.snd.queue.acknowledge(&mut shared.blocks, bytes as usize);
        if self.snd.writer_waits && 2 * self.snd.queue.len() <= self.send_limit(shared) {
            self.snd.writer_waits = false;
            self.tell(shared, Events::WRITABLE);
        }
    }

    /// What follows when everything, the FIN included, is acknowledged.
    fn own_fin_acknowledged(&mut self, shared: &mut Shared, now_ns: u64) {
        if self.snd.fin != Fin::Sent || self.snd.una != self.snd.nxt {
            return;
        }
        match self.state {
            State::FinWait1 => {
                self.state = State::FinWait2;
                if !self.held {
                    self.timers.state_ns = now_ns + shared.config.fin_wait_ns;
                }
            }
            State::Closing => self.enter_time_wait(shared, now_ns),
            State::LastAck => {
                self.end(shared);
                self.tell(shared, Events::CLOSED);
            }
            _ => {}
        }
    }

    /// RFC 9293 3.10.7.4, seventh step. `seq` is that of the first byte.
    fn take_payload(&mut self, shared: &mut Shared, segment: &Incoming, seq: Seq) {
        let payload = segment.payload;
        let receiving = matches!(self.state, State::Established | State::FinWait1 | State::FinWait2);
        if payload.is_empty() || !receiving {
            return;
        }
        if !self.held && self.listener.is_none() {
            // Nobody will ever read this (RFC 2525 2.17).
            self.reset_peer(shared);
            return self.end(shared);
        }
        let behind = self.rcv.nxt.since(seq) as usize;
        let limit = self.rcv.fin.map_or(self.rcv.edge, |fin| fin.min(self.rcv.edge));
        let Some(fresh) = payload.get(behind..payload.len().min(limit.since(seq) as usize)).filter(|fresh| !fresh.is_empty()) else {
            return self.ack_now(shared);
        };
        let start = seq + behind as u32;
        let (gap, end) = (start.since(self.rcv.nxt), start + fresh.len() as u32);
        if gap > 0 && self.rcv.queue.ranges().cover(&shared.ranges, start, end) {
            self.rcv.duplicate = Some((start, end));
            return self.ack_now(shared);
        }
        let had_gaps = !self.rcv.queue.ranges().is_empty();
        self.rcv.full = self.rcv.full.max(payload.len() as u32);
        match self.rcv.queue.store(&mut shared.blocks, &mut shared.ranges, self.rcv.nxt, gap, fresh) {
            None => {
                shared.counters.rx_no_room += 1;
                self.ack_now(shared);
            }
            Some(0) => {
                shared.counters.rx_out_of_order += 1;
                // RFC 9293 3.8.6.3, RFC 5681 4.2: out of order, or filling a gap: at once.
                self.ack_now(shared);
            }
            Some(grown) => {
                self.rcv.nxt = self.rcv.nxt + grown;
                shared.counters.rx_bytes += u64::from(grown);
                let echo = segment.header.options.timestamps.filter(|_| self.timestamps).map(|(_, echo)| echo);
                self.note_received(shared, self.heard_ns, grown, echo);
                self.tell(shared, Events::READABLE);
                self.acknowledge_later(shared, grown, had_gaps);
            }
        }
    }

    fn acknowledge_later(&mut self, shared: &mut Shared, grown: u32, had_gaps: bool) {
        self.rcv.unacked += grown;
        if had_gaps || self.rcv.quick_acks > 0 || self.rcv.unacked >= ACK_EVERY * self.rcv.full {
            self.rcv.quick_acks = self.rcv.quick_acks.saturating_sub(1);
            self.ack_now(shared);
        } else if self.timers.ack_ns == NEVER {
            self.timers.ack_ns = self.heard_ns + shared.config.delayed_ack_ns;
        }
    }

    /// RFC 9293 3.10.7.4, eighth step.
    fn take_fin(&mut self, shared: &mut Shared, now_ns: u64, segment: &Incoming) {
        let fin = segment.header.seq + segment.payload.len() as u32;
        let open = matches!(self.state, State::Established | State::FinWait1 | State::FinWait2);
        if segment.header.has(flag::FIN) && open && fin.le(self.rcv.edge) {
            self.rcv.fin = Some(fin);
            if self.rcv.nxt != fin {
                self.ack_now(shared);
            }
        }
        if !open || self.rcv.fin != Some(self.rcv.nxt) {
            return;
        }
        self.rcv.nxt = self.rcv.nxt + 1;
        self.rcv.edge = self.rcv.edge.max(self.rcv.nxt);
        self.ack_now(shared);
        self.tell(shared, Events::PEER_CLOSED | Events::READABLE);
        match self.state {
            State::Established => self.state = State::CloseWait,
            State::FinWait1 => self.state = State::Closing,
            State::FinWait2 => self.enter_time_wait(shared, now_ns),
            _ => {}
        }
    }
}

/// A reset for a segment that belongs to nobody (RFC 9293 3.10.7.1).
pub(super) fn refuse(shared: &mut Shared, segment: &Incoming) {
    let header = &segment.header;
    if header.has(flag::RST) {
        return;
    }
    let (seq, ack, flags) =
        if header.has(flag::ACK) { (header.ack, Seq(0), flag::RST) } else { (Seq(0), header.seq + segment.len(), flag::RST | flag::ACK) };
    let header = Header { seq, ack, flags, window: 0, options: Options::default() };
    reply(shared, Reply { tuple: segment.tuple, header, via: segment.via });
}
