//! Quantities of a topology as people write them: "50 Mbps", "2 ms", "64 KiB", "1 %".

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use stack::wire::Probability;

/// Longest piece of a wrong value that a message repeats, characters.
const QUOTE_CHARS_MAX: usize = 40;

/// A number and its unit, in the unit's base. Fractions are allowed: "1.5 ms".
fn scaled(text: &str, units: &[(&str, f64)], what: &str) -> Result<f64, String> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (digits, unit) = text.split_at(end);
    let unit = unit.trim_start();
    let factor = units.iter().find(|(name, _)| *name == unit).map(|(_, factor)| *factor);
    match (digits.parse::<f64>(), factor) {
        (Ok(number), Some(factor)) if digits.starts_with(|c: char| c.is_ascii_digit()) && number * factor < 1e18 => Ok(number * factor),
        _ => {
            let names: Vec<&str> = units.iter().map(|(name, _)| *name).collect();
            let quote: String = text.chars().take(QUOTE_CHARS_MAX).collect();
            Err(format!("{quote:?} is not {what}; write a number and one of {}", names.join(", ")))
        }
    }
}

/// The number in the largest of the units that leaves no more than three decimals, so that it reads back.
fn in_units(f: &mut fmt::Formatter<'_>, value: u64, units: &[(&str, f64)]) -> fmt::Result {
    for (unit, factor) in units.iter().rev() {
        let number = value as f64 / factor;
        let thousandths = number * 1000.0;
        if number >= 1.0 && thousandths.fract() == 0.0 && thousandths < 1e9 {
            return write!(f, "{number} {unit}");
        }
    }
    write!(f, "{value} {}", units[0].0)
}

macro_rules! quantity {
    ($(#[$doc:meta])* $name:ident, $units:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct $name(pub u64);

        impl FromStr for $name {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, String> {
                scaled(text, $units, $what).map(|value| Self(value.round() as u64))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                in_units(f, self.0, $units)
            }
        }

        as_text!($name);
    };
}

/// Serde through the written form.
macro_rules! as_text {
    ($name:ident) => {
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
    };
}

const RATES: &[(&str, f64)] = &[("bps", 1.0), ("kbps", 1e3), ("Mbps", 1e6), ("Gbps", 1e9)];
const TIMES: &[(&str, f64)] = &[("ns", 1.0), ("us", 1e3), ("ms", 1e6), ("s", 1e9)];
const SIZES: &[(&str, f64)] = &[("B", 1.0), ("KiB", 1024.0), ("MiB", 1_048_576.0), ("GiB", 1_073_741_824.0)];

quantity! {
    /// Bits per second.
    Rate, RATES, "a rate"
}
quantity! {
    /// Nanoseconds.
    Time, TIMES, "a time"
}
quantity! {
    /// Bytes.
    Size, SIZES, "a size"
}

/// A share of all frames: "1%", or "0.01".
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Share(f64);

impl Share {
    /// As a chance of each frame.
    pub fn probability(self) -> Probability {
        Probability::new(self.0)
    }
}

impl FromStr for Share {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let fraction = scaled(text, &[("%", 0.01), ("", 1.0)], "a share")?;
        if fraction <= 1.0 { Ok(Self(fraction)) } else { Err(format!("{text:?} is more than all; write \"1%\" or \"0.01\"")) }
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

as_text!(Share);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn quantities_are_read_with_their_units() {
        assert_eq!("50 Mbps".parse(), Ok(Rate(50_000_000)));
        assert_eq!("1Gbps".parse(), Ok(Rate(1_000_000_000)));
        assert_eq!("1.5 ms".parse(), Ok(Time(1_500_000)));
        assert_eq!("0 s".parse(), Ok(Time(0)));
        assert_eq!("64 KiB".parse(), Ok(Size(65_536)));
        assert_eq!("1%".parse::<Share>().map(|s| s.probability()), Ok(Probability::new(0.01)));
        assert_eq!("0.01".parse::<Share>().map(|s| s.probability()), Ok(Probability::new(0.01)));
        assert_eq!("100 %".parse::<Share>().map(|s| s.probability()), Ok(Probability::ALWAYS));
        for text in ["", "ms", "1", "1 m", "-1 ms", ".5 ms", "1e3 ms", "1 ms ms", "1.2.3 s", "nan s", "9999999999999 s"] {
            assert!(text.parse::<Time>().is_err(), "{text}");
        }
        for text in ["101%", "1.01", "x"] {
            assert!(text.parse::<Share>().is_err(), "{text}");
        }
        assert_eq!("1 m".parse::<Time>().unwrap_err(), "\"1 m\" is not a time; write a number and one of ns, us, ms, s");
    }

    #[test]
    fn quantities_print_as_they_are_read() {
        for (value, text) in [(0, "0 ns"), (1_500_000, "1.5 ms"), (2_000_000_000, "2 s"), (1_234_567, "1234.567 us"), (999, "999 ns")] {
            assert_eq!(Time(value).to_string(), text);
            assert_eq!(text.parse(), Ok(Time(value)));
        }
        assert_eq!(Rate(50_000_000).to_string(), "50 Mbps");
        assert_eq!(Size(1536).to_string(), "1.5 KiB");
    }

    proptest! {
        #[test]
        fn whatever_is_read_prints_as_something_that_reads_the_same(text in "[0-9]{0,12}\\.?[0-9]{0,6} ?(ns|us|ms|s|bps|Gbps|KiB|%|x)?") {
            if let Ok(time) = text.parse::<Time>() {
                prop_assert_eq!(time.to_string().parse(), Ok(time));
            }
            if let Ok(rate) = text.parse::<Rate>() {
                prop_assert_eq!(rate.to_string().parse(), Ok(rate));
            }
            if let Ok(share) = text.parse::<Share>() {
                prop_assert_eq!(share.to_string().parse(), Ok(share));
            }
        }

        #[test]
        fn any_text_is_survived(text in ".{0,30}") {
            let _ = (text.parse::<Time>(), text.parse::<Size>(), text.parse::<Rate>(), text.parse::<Share>());
        }
    }
}
