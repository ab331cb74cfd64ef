//! Loss detection by time: RACK (RFC 8985 6). A segment is lost when one that was sent later has been delivered, and a bit more than a round
//! trip has passed since; the bit more grows where the network is seen to reorder.

use super::flight::{Flight, Record, Records};
use super::rtt::Rtt;
use super::seq::Seq;

/// RFC 8985 6.2 step 4: recoveries for which a wider reordering window is kept.
const PERSIST: u8 = 16;
/// RFC 5681: duplicate acknowledgments that mean loss.
pub(super) const DUP_THRESH: u32 = 3;

/// State of one connection (RFC 8985 5.3).
#[derive(Clone, Debug)]
pub(super) struct Rack {
    /// Of the segment that was sent last among those delivered: when, its end, and its round-trip time.
    xmit_ns: u64,
    end: Seq,
    rtt_ns: u64,
    /// The highest sequence number delivered.
    fack: Seq,
    reordering_seen: bool,
    window_mult: u8,
    persist: u8,
    /// A DSACK has widened the window in the round trip that ends here.
    dsack_round: Option<Seq>,
}

impl Rack {
    pub fn new(start: Seq) -> Self {
        Self { xmit_ns: 0, end: start, rtt_ns: 0, fack: start, reordering_seen: false, window_mult: 1, persist: 0, dsack_round: None }
    }

    /// A segment was delivered. `echo_is_older`: the acknowledgment's timestamp says that it is for an earlier transmission.
    pub fn delivered(&mut self, record: &Record, now_ns: u64, rtt: &Rtt, echo_is_older: bool) {
        // Step 3: a segment that was sent once and is delivered behind a later one.
        if self.fack.lt(record.end) {
            self.fack = record.end;
        } else if record.end.lt(self.fack) && !record.resent() {
            self.reordering_seen = true;
        }
        // Step 2.
        let rtt_ns = now_ns.saturating_sub(record.xmit_ns);
        if record.resent() && (echo_is_older || rtt_ns < rtt.min_ns) {
            return;
        }
        self.rtt_ns = rtt_ns;
        if sent_after((record.xmit_ns, record.end), (self.xmit_ns, self.end)) {
            (self.xmit_ns, self.end) = (record.xmit_ns, record.end);
        }
    }

    /// Step 4: a duplicate was delivered: what was called lost was only late.
    pub fn dsack(&mut self, una: Seq, nxt: Seq) {
        if self.dsack_round.is_some_and(|end| end.le(una)) {
            self.dsack_round = None;
        }
        if self.dsack_round.is_none() {
            self.dsack_round = Some(nxt);
            self.window_mult = self.window_mult.saturating_add(1);
            self.persist = PERSIST;
        }
    }

    /// A recovery has ended.
    pub fn recovered(&mut self) {
        self.persist = self.persist.saturating_sub(1);
        if self.persist == 0 {
            self.window_mult = 1;
        }
    }

    fn reordering_window_ns(&self, rtt: &Rtt, in_recovery: bool, sacked: u32) -> u64 {
        if !self.reordering_seen && (in_recovery || sacked >= DUP_THRESH) {
            return 0;
        }
        (u64::from(self.window_mult) * rtt.min_ns / 4).min(rtt.srtt_ns)
    }

    /// Step 5: marks what is lost. Returns whether something was, and when to look again.
    pub fn detect(&self, flight: &mut Flight, records: &mut Records, now_ns: u64, rtt: &Rtt, in_recovery: bool) -> (bool, Option<u64>) {
        if self.rtt_ns == 0 {
            return (false, None);
        }
        let window_ns = self.reordering_window_ns(rtt, in_recovery, flight.sacked_count);
        let mut again_ns = None;
        let any = flight.mark_lost(records, |record| {
            if !sent_after((self.xmit_ns, self.end), (record.xmit_ns, record.end)) {
                return None;
            }
            let lost_ns = record.xmit_ns + self.rtt_ns + window_ns;
            if lost_ns > now_ns {
                again_ns = Some(lost_ns);
            }
            Some(lost_ns <= now_ns)
        });
        (any, again_ns)
    }
}

/// RFC 8985 6.2: of segments sent in one instant the one with the higher end counts as sent later.
fn sent_after(a: (u64, Seq), b: (u64, Seq)) -> bool {
    a.0 > b.0 || (a.0 == b.0 && b.1.lt(a.1))
}
