//! Round-trip times and the retransmission timeout (RFC 6298), and the smallest round-trip time of late (RFC 8985 6.2, step 1).

use super::api::MS;

/// The first timeout, before anything was measured (RFC 6298 2.1).
const INITIAL_RTO_NS: u64 = 1_000 * MS;
/// How long the smallest round-trip time is remembered.
const MIN_RTT_WINDOW_NS: u64 = 10_000 * MS;
/// The backoff is not shifted farther than this.
const BACKOFF_MAX: u32 = 16;

#[derive(Clone, Debug)]
pub(super) struct Rtt {
    /// 0 before the first measurement.
    pub srtt_ns: u64,
    rttvar_ns: u64,
    /// 0 before the first measurement.
    pub min_ns: u64,
    min_at_ns: u64,
    pub backoff: u32,
    rto_min_ns: u64,
    rto_max_ns: u64,
}

impl Rtt {
    pub fn new(rto_min_ns: u64, rto_max_ns: u64) -> Self {
        Self { srtt_ns: 0, rttvar_ns: 0, min_ns: 0, min_at_ns: 0, backoff: 0, rto_min_ns, rto_max_ns }
    }

    /// A measurement; not of a segment that was sent twice unless timestamps tell which one was acknowledged (Karn).
    pub fn sample(&mut self, now_ns: u64, rtt_ns: u64) {
        let rtt_ns = rtt_ns.max(1);
        if self.srtt_ns == 0 {
            // RFC 6298 2.2.
            (self.srtt_ns, self.rttvar_ns) = (rtt_ns, rtt_ns / 2);
        } else {
            // RFC 6298 2.3: alpha = 1/8, beta = 1/4.
            self.rttvar_ns = self.rttvar_ns - self.rttvar_ns / 4 + self.srtt_ns.abs_diff(rtt_ns) / 4;
            self.srtt_ns = self.srtt_ns - self.srtt_ns / 8 + rtt_ns / 8;
        }
        self.backoff = 0;
        self.sample_min(now_ns, rtt_ns);
    }

    /// The shortest of an acknowledgment's measurements: for the smallest round-trip time alone.
    pub fn sample_min(&mut self, now_ns: u64, rtt_ns: u64) {
        if self.min_ns == 0 || rtt_ns <= self.min_ns || now_ns.saturating_sub(self.min_at_ns) > MIN_RTT_WINDOW_NS {
            (self.min_ns, self.min_at_ns) = (rtt_ns.max(1), now_ns);
        }
    }

    /// The timeout without backoff. The floor applies to the variance, not to the sum: a peer may hold an acknowledgment back for as long
    /// on a path of any length.
    pub fn base_rto_ns(&self) -> u64 {
        let rto_ns = if self.srtt_ns == 0 { INITIAL_RTO_NS } else { self.srtt_ns + (4 * self.rttvar_ns).max(self.rto_min_ns) };
        rto_ns.min(self.rto_max_ns)
    }

    /// The timeout (RFC 6298 2.3 and 5.5).
    pub fn rto_ns(&self) -> u64 {
        (self.base_rto_ns() << self.backoff.min(BACKOFF_MAX)).min(self.rto_max_ns)
    }
}
