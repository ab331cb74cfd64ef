//! Quantities as people write them: byte sizes ("256 MiB"), lists of CPUs ("0,2-3"), rates, durations and wall-clock times.
//!
//! Every type prints itself in a form that it reads again, so that a printed configuration is a configuration.

use std::fmt;
use std::str::FromStr;
use std::time::{SystemTime, UNIX_EPOCH};

/// Bytes in a KiB.
pub const KIB: u64 = 1 << 10;
/// Bytes in a MiB.
pub const MIB: u64 = 1 << 20;
/// Bytes in a GiB.
pub const GIB: u64 = 1 << 30;
/// CPUs that an affinity mask of the kernel interface can name.
pub const CPU_MAX: u32 = 1024;

/// Why a quantity could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// Not a byte size.
    #[error("{0:?} is not a size; write a whole number and a unit: \"256 MiB\" (units: B, KiB, MiB, GiB)")]
    Size(String),
    /// More bytes than 64 bits count.
    #[error("{0:?} is too large")]
    TooLarge(String),
    /// Not a list of CPUs.
    #[error("{0:?} is not a list of CPUs; write \"auto\", \"1\", \"0,2\" or \"0,2-3\"")]
    Cpus(String),
    /// A CPU number that no machine has.
    #[error("CPU {cpu} does not exist; the highest number is {}", CPU_MAX - 1)]
    CpuRange {
        /// The number.
        cpu: u32,
    },
    /// A CPU named twice: two engine cores would fight for it.
    #[error("CPU {cpu} is listed twice")]
    CpuTwice {
        /// The number.
        cpu: u32,
    },
}

/// A number of bytes, written with binary units.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

impl FromStr for ByteSize {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let text = text.trim();
        let digits_end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (digits, unit) = text.split_at(digits_end);
        if digits.is_empty() {
            return Err(UnitError::Size(text.to_owned()));
        }
        let unit_bytes = match unit.trim_start() {
            "" | "B" => 1,
            "KiB" => KIB,
            "MiB" => MIB,
            "GiB" => GIB,
            _ => return Err(UnitError::Size(text.to_owned())),
        };
        digits.parse::<u64>().ok().and_then(|n| n.checked_mul(unit_bytes)).map(ByteSize).ok_or_else(|| UnitError::TooLarge(text.to_owned()))
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (n, unit) = match self.0 {
            n if n >= GIB && n.is_multiple_of(GIB) => (n / GIB, "GiB"),
            n if n >= MIB && n.is_multiple_of(MIB) => (n / MIB, "MiB"),
            n if n >= KIB && n.is_multiple_of(KIB) => (n / KIB, "KiB"),
            n => (n, "B"),
        };
        write!(f, "{n} {unit}")
    }
}

/// CPUs in ascending order, each once; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CpuList(Vec<u32>);

impl CpuList {
    /// The CPUs in ascending order.
    pub fn as_slice(&self) -> &[u32] {
        &self.0
    }
}

impl FromStr for CpuList {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let bad = || UnitError::Cpus(text.to_owned());
        let number = |digits: &str| -> Result<u32, UnitError> {
            let digits = digits.trim();
            if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
                return Err(bad());
            }
            let cpu: u32 = digits.parse().map_err(|_| bad())?;
            if cpu < CPU_MAX { Ok(cpu) } else { Err(UnitError::CpuRange { cpu }) }
        };
        let mut listed = [false; CPU_MAX as usize];
        for part in text.split(',') {
            let (first, last) = match part.split_once('-') {
                Some((first, last)) => (number(first)?, number(last)?),
                None => (number(part)?, number(part)?),
            };
            if first > last {
                return Err(bad());
            }
            for cpu in first..=last {
                // `number` has checked the range.
                if std::mem::replace(&mut listed[cpu as usize], true) {
                    return Err(UnitError::CpuTwice { cpu });
                }
            }
        }
        Ok(CpuList((0..CPU_MAX).filter(|cpu| listed[*cpu as usize]).collect()))
    }
}

impl fmt::Display for CpuList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0.as_slice();
        let mut separator = "";
        while let Some(&first) = rest.first() {
            let run = rest.iter().zip(first..).take_while(|(cpu, expected)| *cpu == expected).count();
            let last = rest[run - 1];
            match run {
                1 => write!(f, "{separator}{first}")?,
                _ => write!(f, "{separator}{first}-{last}")?,
            }
            separator = ",";
            rest = &rest[run..];
        }
        Ok(())
    }
}

/// A rate for people: "1.42 Mbps".
pub fn rate(bps: u64) -> String {
    match bps {
        0..1_000 => format!("{bps} bps"),
        1_000..1_000_000 => format!("{:.1} kbps", bps as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.2} Mbps", bps as f64 / 1e6),
        _ => format!("{:.2} Gbps", bps as f64 / 1e9),
    }
}

/// A number of bytes for people, rounded: "12.3 MiB".
pub fn about_bytes(bytes: u64) -> String {
    match bytes {
        0..KIB => format!("{bytes} B"),
        KIB..MIB => format!("{:.1} KiB", bytes as f64 / KIB as f64),
        MIB..GIB => format!("{:.1} MiB", bytes as f64 / MIB as f64),
        _ => format!("{:.2} GiB", bytes as f64 / GIB as f64),
    }
}

/// A duration for people: "1:02:03.5", "2:03.5", "3.5 s".
pub fn duration(ns: u64) -> String {
    let tenths = ns / 100_000_000;
    let (s, tenth) = (tenths / 10, tenths % 10);
    match s {
        0..60 => format!("{s}.{tenth} s"),
        60..3600 => format!("{}:{:02}.{tenth}", s / 60, s % 60),
        _ => format!("{}:{:02}:{:02}.{tenth}", s / 3600, s / 60 % 60, s % 60),
    }
}

/// A wall-clock time as RFC 3339 in UTC, to the millisecond: "2026-11-21T02:55:58.123Z". Times before 1970 print as 1970.
pub fn rfc3339_utc(time: SystemTime) -> String {
    let since_epoch = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (days, second_of_day) = (since_epoch.as_secs() / 86_400, since_epoch.as_secs() % 86_400);
    // Gregorian calendar in eras of 400 years (146,097 days) whose years start in March, so that the leap day is the last of a year.
    let days = days + 719_468;
    let day_of_era = days % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + days / 146_097 * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (second_of_day / 3600, second_of_day / 60 % 60, second_of_day % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z", since_epoch.subsec_millis())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    #[test]
    fn sizes_are_read_with_their_units() {
        for (text, bytes) in
            [("0", 0), ("4096", 4096), ("4096 B", 4096), ("64KiB", 64 * KIB), ("256 MiB", 256 * MIB), (" 2  GiB ", 2 * GIB)]
        {
            assert_eq!(text.parse(), Ok(ByteSize(bytes)), "{text}");
        }
        for text in ["", "MiB", "64 KB", "64 kib", "1.5 GiB", "-1", "+1", "64 KiB KiB", "0x10"] {
            assert!(matches!(text.parse::<ByteSize>(), Err(UnitError::Size(_))), "{text}");
        }
        for text in ["18446744073709551616", "17179869184 GiB"] {
            assert!(matches!(text.parse::<ByteSize>(), Err(UnitError::TooLarge(_))), "{text}");
        }
    }

    #[test]
    fn cpu_lists_are_sorted_and_without_repeats() {
        for (text, cpus) in [("0", &[0][..]), ("3,0", &[0, 3]), ("0,2-3", &[0, 2, 3]), (" 4 - 5 , 1 ", &[1, 4, 5]), ("1023", &[1023])] {
            assert_eq!(text.parse::<CpuList>().map(|l| l.as_slice().to_vec()), Ok(cpus.to_vec()), "{text}");
        }
        for text in ["", ",", "1,", "a", "3-1", "1-2-3", "-1", "99999999999", "+1"] {
            assert!(matches!(text.parse::<CpuList>(), Err(UnitError::Cpus(_))), "{text}");
        }
        assert_eq!("1-3,2".parse::<CpuList>(), Err(UnitError::CpuTwice { cpu: 2 }));
        assert_eq!("0-1024".parse::<CpuList>(), Err(UnitError::CpuRange { cpu: 1024 }));
    }

    #[test]
    fn figures_read_well() {
        assert_eq!(rate(999), "999 bps");
        assert_eq!(rate(1_420_000), "1.42 Mbps");
        assert_eq!(rate(12_000_000_000), "12.00 Gbps");
        assert_eq!(duration(3_500_000_000), "3.5 s");
        assert_eq!(duration(123_560_000_000), "2:03.5");
        assert_eq!(duration(3_723_500_000_000), "1:02:03.5");
        assert_eq!(about_bytes(12 * MIB + 300 * KIB), "12.3 MiB");
    }

    #[test]
    fn times_are_rfc_3339() {
        for (unix_ms, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399_999, "2000-02-28T23:59:59.999Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (951_868_800_000, "2000-03-01T00:00:00.000Z"),
            (1_795_229_758_123, "2026-11-21T02:55:58.123Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(rfc3339_utc(UNIX_EPOCH + Duration::from_millis(unix_ms)), text);
        }
    }

    proptest! {
        #[test]
        fn any_size_reads_back(bytes: u64) {
            prop_assert_eq!(ByteSize(bytes).to_string().parse(), Ok(ByteSize(bytes)));
        }

        #[test]
        fn any_cpu_list_reads_back(cpus in prop::collection::btree_set(0..CPU_MAX, 1..40)) {
            let list = CpuList(cpus.into_iter().collect());
            prop_assert_eq!(list.to_string().parse(), Ok(list));
        }

        #[test]
        fn any_text_is_survived(text in ".{0,40}") {
            let _ = text.parse::<ByteSize>();
            let _ = text.parse::<CpuList>();
        }
    }
}
