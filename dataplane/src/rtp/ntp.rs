//! Times of RTCP (RFC 3550 4): NTP's 64-bit format (seconds since 1900 and a 32-bit fraction) and its middle 32 bits.

/// Seconds from NTP's epoch (1900) to Unix's (1970).
const UNIX_EPOCH_SECONDS: u64 = 2_208_988_800;
const NS_PER_SEC: u64 = pacing::NS_PER_SEC;

/// A time in NTP's 64-bit format. The seconds wrap in 2036, as the format's do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NtpTime(pub u64);

impl NtpTime {
    /// From nanoseconds since 1970.
    pub fn from_unix_ns(unix_ns: u64) -> Self {
        let seconds = (unix_ns / NS_PER_SEC).wrapping_add(UNIX_EPOCH_SECONDS);
        let fraction = ((unix_ns % NS_PER_SEC) << 32) / NS_PER_SEC;
        Self(seconds << 32 | fraction)
    }

    /// Nanoseconds since 1970, for times of 1970 to 2106, to the nanosecond below.
    pub fn to_unix_ns(self) -> u64 {
        // RFC 4330 3: seconds below the epoch's belong to the era that begins in 2036.
        let seconds = (self.0 >> 32).wrapping_sub(UNIX_EPOCH_SECONDS) & u64::from(u32::MAX);
        // Rounded up: the fraction was rounded down.
        seconds * NS_PER_SEC + ((self.0 & u64::from(u32::MAX)) * NS_PER_SEC).div_ceil(1 << 32)
    }

    /// The middle 32 bits: what a receiver report's LSR repeats.
    pub fn short(self) -> u32 {
        (self.0 >> 16) as u32
    }
}

/// Nanoseconds of a duration in units of 1/65536 second (DLSR).
pub fn short_to_ns(short: u32) -> u64 {
    (u64::from(short) * NS_PER_SEC) >> 16
}

/// A duration in units of 1/65536 second, at most what 32 bits hold.
pub fn ns_to_short(ns: u64) -> u32 {
    u32::try_from((u128::from(ns) << 16) / u128::from(NS_PER_SEC)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn known_times() {
        assert_eq!(NtpTime::from_unix_ns(0), NtpTime(2_208_988_800 << 32));
        // The example of RFC 3550 6.4.1, figure 2.
        assert_eq!(NtpTime::from_unix_ns(816_003_205_125_000_000).0, 0xb44d_b705_2000_0000);
        assert_eq!(NtpTime(0xb44d_b705_2000_0000).short(), 0xb705_2000);
        assert_eq!(short_to_ns(0x0005_4000), 5_250_000_000);
        assert_eq!(ns_to_short(5_250_000_000), 0x0005_4000);
        assert_eq!(ns_to_short(u64::MAX), u32::MAX);
    }

    proptest! {
        #[test]
        fn there_and_back(unix_ns in 0u64..4_294_967_296_000_000_000) {
            prop_assert_eq!(NtpTime::from_unix_ns(unix_ns).to_unix_ns(), unix_ns);
        }

        #[test]
        fn any_value_is_survived(ntp: u64, ns: u64, short: u32) {
            NtpTime(ntp).to_unix_ns();
            NtpTime::from_unix_ns(ns);
            prop_assert!(ns_to_short(short_to_ns(short)).abs_diff(short) <= 1);
        }
    }
}
