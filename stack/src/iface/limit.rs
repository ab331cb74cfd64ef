//! A token bucket for what others can make us say (RFC 4443 2.4 (f), RFC 1812 4.3.2.8).

const SECOND_NS: u64 = 1_000_000_000;

/// The bucket: `burst` tokens, filled again at `per_second`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bucket {
    per_second: u32,
    burst: u32,
    /// When the bucket was, or will be, full, ns.
    full_at_ns: u64,
}

impl Bucket {
    /// A full bucket.
    pub(crate) fn new(per_second: u32, burst: u32) -> Self {
        Self { per_second, burst, full_at_ns: 0 }
    }

    /// Takes a token if there is one.
    pub(crate) fn take(&mut self, now_ns: u64) -> bool {
        if self.per_second == 0 || self.burst == 0 {
            return false;
        }
        let token_ns = SECOND_NS / u64::from(self.per_second);
        let full_at_ns = self.full_at_ns.max(now_ns).saturating_add(token_ns);
        if full_at_ns - now_ns > token_ns.saturating_mul(u64::from(self.burst)) {
            return false;
        }
        self.full_at_ns = full_at_ns;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_then_the_rate() {
        let mut bucket = Bucket::new(100, 5);
        let taken = |bucket: &mut Bucket, now_ns| (0..50).filter(|_| bucket.take(now_ns)).count();
        assert_eq!(taken(&mut bucket, 0), 5);
        assert_eq!(taken(&mut bucket, 9_999_999), 0);
        assert_eq!(taken(&mut bucket, 10_000_000), 1);
        assert_eq!(taken(&mut bucket, 40_000_000), 3);
        assert_eq!(taken(&mut bucket, 3_600 * SECOND_NS), 5, "no more than the burst is saved up");
        assert!(!Bucket::new(0, 5).take(0) && !Bucket::new(5, 0).take(0));
    }
}
