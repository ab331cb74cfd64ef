//! Keyed hashes and what is made of them: places in the connection table, initial sequence numbers (RFC 6528), offsets of timestamps
//! (RFC 7323 5.4), ephemeral ports (RFC 6056 3.3.3) and SYN cookies. Nobody who does not know the seed can foretell or flood them.

use std::net::IpAddr;

use super::seq::Seq;
use super::wire::Tuple;

/// SYN cookies count time in units of this.
const COOKIE_PERIOD_NS: u64 = 64_000_000_000;
/// Segment sizes that a cookie can remember, from small to large.
const COOKIE_MSS: [u16; 8] = [216, 536, 1024, 1220, 1360, 1400, 1440, 1460];

/// Which hash: each has its own key.
#[derive(Clone, Copy)]
enum Purpose {
    Table,
    Isn,
    Timestamp,
    Port,
    Cookie,
}

/// The secret keys of one core's TCP.
#[derive(Debug)]
pub(super) struct Keys {
    keys: [(u64, u64); 5],
}

impl Keys {
    pub fn new(seed: u64) -> Self {
        let mut state = seed;
        let mut next = || {
            // SplitMix64.
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            mixed ^ (mixed >> 31)
        };
        Self { keys: std::array::from_fn(|_| (next(), next())) }
    }

    fn hash(&self, purpose: Purpose, tuple: &Tuple, extra: u64) -> u64 {
        let (k0, k1) = self.keys[purpose as usize];
        let mut sip = Sip::new(k0, k1);
        match (tuple.local, tuple.remote) {
            (IpAddr::V4(local), IpAddr::V4(remote)) => sip.write(u64::from(local.to_bits()) << 32 | u64::from(remote.to_bits())),
            (local, remote) => {
                for address in [local, remote] {
                    let bits = match address {
                        IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
                        IpAddr::V6(v6) => v6.to_bits(),
                    };
                    sip.write((bits >> 64) as u64);
                    sip.write(bits as u64);
                }
            }
        }
        sip.write(u64::from(tuple.local_port) << 16 | u64::from(tuple.remote_port) | extra << 32);
        if extra >> 32 != 0 {
            sip.write(extra >> 32);
        }
        sip.finish()
    }

    /// The connection's place in the table.
    pub fn table(&self, tuple: &Tuple) -> u64 {
        self.hash(Purpose::Table, tuple, 0)
    }

    /// RFC 6528 3: a clock of 4 us plus a secret function of the tuple.
    pub fn isn(&self, tuple: &Tuple, now_ns: u64) -> Seq {
        Seq((now_ns / 4_000) as u32) + self.hash(Purpose::Isn, tuple, 0) as u32
    }

    /// What is added to the millisecond clock in timestamps.
    pub fn timestamp_offset(&self, tuple: &Tuple) -> u32 {
        self.hash(Purpose::Timestamp, tuple, 0) as u32
    }

    /// Where the search for an ephemeral port to that peer starts.
    pub fn port_offset(&self, tuple: &Tuple) -> u32 {
        self.hash(Purpose::Port, tuple, 0) as u32
    }

    /// An initial sequence number that remembers the peer's segment size: 5 bits of time, 3 of size, 24 of hash.
    pub fn cookie(&self, tuple: &Tuple, irs: Seq, peer_mss: u16, now_ns: u64) -> Seq {
        let size = COOKIE_MSS.iter().rposition(|mss| *mss <= peer_mss).unwrap_or(0);
        self.cookie_of(tuple, irs, now_ns / COOKIE_PERIOD_NS, size as u32)
    }

    /// The peer's segment size, if `iss` is a cookie that was sent to it in the last one or two minutes.
    pub fn check_cookie(&self, tuple: &Tuple, irs: Seq, iss: Seq, now_ns: u64) -> Option<u16> {
        let now = now_ns / COOKIE_PERIOD_NS;
        let size = iss.0 >> 24 & 7;
        let fresh = [now, now.wrapping_sub(1)].into_iter().any(|time| self.cookie_of(tuple, irs, time, size) == iss);
        fresh.then_some(COOKIE_MSS[size as usize])
    }

    fn cookie_of(&self, tuple: &Tuple, irs: Seq, time: u64, size: u32) -> Seq {
        let hash = self.hash(Purpose::Cookie, tuple, u64::from(irs.0) | (time & 0xffff) << 40 | u64::from(size) << 32 | 1 << 63);
        Seq((time as u32 & 31) << 27 | size << 24 | (hash as u32 & 0x00ff_ffff))
    }
}

/// SipHash-1-3 over whole words (Aumasson, Bernstein: SipHash: a fast short-input PRF).
struct Sip {
    v: [u64; 4],
    words: u64,
}

impl Sip {
    fn new(k0: u64, k1: u64) -> Self {
        Self {
            v: [k0 ^ 0x736f_6d65_7073_6575, k1 ^ 0x646f_7261_6e64_6f6d, k0 ^ 0x6c79_6765_6e65_7261, k1 ^ 0x7465_6462_7974_6573],
            words: 0,
        }
    }

    fn round(&mut self) {
        let [v0, v1, v2, v3] = &mut self.v;
        *v0 = v0.wrapping_add(*v1);
        *v1 = v1.rotate_left(13) ^ *v0;
        *v0 = v0.rotate_left(32);
        *v2 = v2.wrapping_add(*v3);
        *v3 = v3.rotate_left(16) ^ *v2;
        *v0 = v0.wrapping_add(*v3);
        *v3 = v3.rotate_left(21) ^ *v0;
        *v2 = v2.wrapping_add(*v1);
        *v1 = v1.rotate_left(17) ^ *v2;
        *v2 = v2.rotate_left(32);
    }

    fn write(&mut self, word: u64) {
        self.v[3] ^= word;
        self.round();
        self.v[0] ^= word;
        self.words += 1;
    }

    fn finish(mut self) -> u64 {
        let length = self.words * 8;
        self.write(length << 56);
        self.v[2] ^= 0xff;
        (0..3).for_each(|_| self.round());
        self.v.into_iter().fold(0, |all, v| all ^ v)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::hash::Hasher;
    use std::net::Ipv4Addr;

    fn tuple(remote_port: u16) -> Tuple {
        let local = Ipv4Addr::new(10, 0, 0, 1).into();
        Tuple { local, remote: Ipv4Addr::new(10, 0, 0, 2).into(), local_port: 80, remote_port }
    }

    #[test]
    fn the_hash_is_siphash_1_3() {
        // The standard library's hasher is SipHash-1-3 with zero keys.
        let mut std = std::hash::DefaultHasher::new();
        let mut ours = Sip::new(0, 0);
        for word in [1, 0x0123_4567_89ab_cdef, u64::MAX] {
            std.write_u64(word);
            ours.write(word);
        }
        assert_eq!(ours.finish(), std.finish());
    }

    #[test]
    fn initial_sequence_numbers_grow_with_time_and_differ_by_peer() {
        let (keys, other) = (Keys::new(1), Keys::new(2));
        let first = keys.isn(&tuple(1), 1_000_000);
        assert_eq!(keys.isn(&tuple(1), 5_000_000).since(first), 1_000, "4 us a step");
        assert_ne!(keys.isn(&tuple(2), 1_000_000), first);
        assert_ne!(other.isn(&tuple(1), 1_000_000), first);
    }

    #[test]
    fn a_cookie_is_good_for_its_peer_for_a_while() {
        let keys = Keys::new(3);
        let now_ns = 1_000 * COOKIE_PERIOD_NS + 5;
        for (mss, kept) in [(100, 216), (536, 536), (1400, 1400), (1459, 1440), (9000, 1460)] {
            let cookie = keys.cookie(&tuple(1), Seq(77), mss, now_ns);
            assert_eq!(keys.check_cookie(&tuple(1), Seq(77), cookie, now_ns + COOKIE_PERIOD_NS), Some(kept));
            assert_eq!(keys.check_cookie(&tuple(1), Seq(77), cookie, now_ns + 2 * COOKIE_PERIOD_NS), None, "too old");
            assert_eq!(keys.check_cookie(&tuple(2), Seq(77), cookie, now_ns), None, "another peer's");
            assert_eq!(keys.check_cookie(&tuple(1), Seq(78), cookie, now_ns), None, "another handshake's");
            assert_eq!(Keys::new(4).check_cookie(&tuple(1), Seq(77), cookie, now_ns), None, "another key's");
        }
    }
}
