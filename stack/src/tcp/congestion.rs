//! Congestion control: NewReno and CUBIC behind one face.
//!
//! What is sent again, and when, is the business of loss recovery. Congestion control is told what was acknowledged and when the network
//! was congested, and keeps the window and the slow start threshold.

use super::cubic::Cubic;

/// Which congestion control a connection uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// RFC 5681 and RFC 6582.
    NewReno,
    /// RFC 9438.
    Cubic,
}

/// Segments of the initial window (RFC 6928), and the bytes that go with them.
const INITIAL_SEGMENTS: u64 = 10;
const INITIAL_BYTES: u64 = 14_600;

/// An acknowledgment as congestion control sees it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Acked {
    pub now_ns: u64,
    /// Bytes newly acknowledged.
    pub bytes: u64,
    pub srtt_ns: u64,
}

/// How an algorithm grows the window when slow start is over, and how far it falls.
pub(super) trait Law {
    /// Congestion avoidance: the new window.
    fn grow(&mut self, cwnd: u64, mss: u64, acked: Acked) -> u64;
    /// Congestion was seen with that window: the new slow start threshold.
    fn reduce(&mut self, cwnd: u64, in_flight: u64, mss: u64) -> u64;
    /// The sender had nothing to send until now: time that it did not use does not count.
    fn idle(&mut self, idle_ns: u64);
}

/// RFC 5681 3.1: one segment per round trip, one half at congestion.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct NewReno {
    /// Bytes acknowledged that have not grown the window yet (appropriate byte counting, RFC 3465).
    acked: u64,
}

impl Law for NewReno {
    fn grow(&mut self, cwnd: u64, mss: u64, acked: Acked) -> u64 {
        self.acked += acked.bytes;
        let rounds = self.acked / cwnd.max(1);
        self.acked -= rounds * cwnd;
        cwnd + rounds * mss
    }

    fn reduce(&mut self, _cwnd: u64, in_flight: u64, mss: u64) -> u64 {
        self.acked = 0;
        (in_flight / 2).max(2 * mss)
    }

    fn idle(&mut self, _idle_ns: u64) {}
}

#[derive(Clone, Copy, Debug)]
enum Laws {
    NewReno(NewReno),
    Cubic(Cubic),
}

/// The window of one connection. Bytes.
#[derive(Clone, Debug)]
pub(super) struct Congestion {
    pub cwnd: u64,
    /// `u64::MAX` before the first congestion.
    pub ssthresh: u64,
    laws: Laws,
    /// What [`Congestion::undo`] goes back to.
    before: Option<(u64, u64, Laws)>,
}

impl Congestion {
    pub fn new(algorithm: Algorithm, mss: u64) -> Self {
        let laws = match algorithm {
            Algorithm::NewReno => Laws::NewReno(NewReno::default()),
            Algorithm::Cubic => Laws::Cubic(Cubic::default()),
        };
        Self { cwnd: Self::initial(mss), ssthresh: u64::MAX, laws, before: None }
    }

    /// RFC 6928 2.
    pub fn initial(mss: u64) -> u64 {
        (INITIAL_SEGMENTS * mss).min(INITIAL_BYTES.max(2 * mss))
    }

    fn law(&mut self) -> &mut dyn Law {
        match &mut self.laws {
            Laws::NewReno(law) => law,
            Laws::Cubic(law) => law,
        }
    }

    /// Bytes were acknowledged while the window was what limited the sender, and no recovery is under way.
    pub fn acknowledged(&mut self, mss: u64, mut acked: Acked) {
        if self.cwnd < self.ssthresh {
            let grown = (self.cwnd + acked.bytes).min(self.ssthresh);
            acked.bytes -= grown - self.cwnd;
            self.cwnd = grown;
        }
        if acked.bytes > 0 && self.cwnd >= self.ssthresh {
            let cwnd = self.cwnd;
            self.cwnd = self.law().grow(cwnd, mss, acked);
        }
    }

    /// Loss was found: sets the threshold; recovery brings the window down to it. What was before can be restored once.
    pub fn congested(&mut self, in_flight: u64, mss: u64) {
        self.before = Some((self.cwnd, self.ssthresh, self.laws));
        let cwnd = self.cwnd;
        self.ssthresh = self.law().reduce(cwnd, in_flight, mss);
    }

    /// The congestion was none: everything was only late.
    pub fn undo(&mut self) {
        if let Some((cwnd, ssthresh, laws)) = self.before.take() {
            (self.cwnd, self.ssthresh, self.laws) = (self.cwnd.max(cwnd), ssthresh, laws);
        }
    }

    /// The sender starts again after a pause of more than a timeout (RFC 5681 4.1).
    pub fn restart(&mut self, mss: u64, idle_ns: u64) {
        self.cwnd = self.cwnd.min(Self::initial(mss));
        self.law().idle(idle_ns);
    }
}

#[cfg(test)]
mod tests;
