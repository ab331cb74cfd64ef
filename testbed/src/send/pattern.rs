//! What a sender of known pacing does wrong on purpose: which packets it loses, sends twice, sends after their successor, or sends late.
//! Which packets these are follows from their number alone, so that a run can be repeated and computed.

use std::str::FromStr;

use serde::Serialize;

/// So many packets of so many, evenly spread: `1/1000`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Share {
    count: u64,
    of: u64,
}

impl FromStr for Share {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split_once('/').and_then(|(count, of)| Some((count.trim().parse().ok()?, of.trim().parse().ok()?)));
        match parts {
            Some((count, of)) if count < of && of <= 1_000_000_000 => Ok(Self { count, of }),
            _ => Err(format!("'{text}' is no share below one: write for instance 1/1000")),
        }
    }
}

impl Share {
    /// True for packet `index`. `kind` moves the choice, so that equal shares of different kinds hit different packets.
    fn hits(self, index: u64, kind: u64) -> bool {
        let place = (index + self.of / 2 + kind) % self.of;
        place * self.count % self.of < self.count
    }
}

/// One packet of so many is sent late by so much: `5ms/100`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Late {
    /// How late, ns.
    pub late_ns: u64,
    of: Share,
}

impl FromStr for Late {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("'{text}' is no lateness: write for instance 5ms/100 (one packet of a hundred is 5 ms late)");
        let (time, of) = text.split_once('/').ok_or_else(bad)?;
        let (number, unit_ns) = [("ms", 1e6), ("us", 1e3), ("s", 1e9)]
            .into_iter()
            .find_map(|(unit, ns)| time.trim().strip_suffix(unit).map(|n| (n, ns)))
            .ok_or_else(bad)?;
        let late = number.trim().parse::<f64>().ok().filter(|n| n.is_finite() && *n > 0.0 && n * unit_ns <= 60e9).ok_or_else(bad)?;
        let of = of.trim().parse().ok().filter(|of| (1..=1_000_000_000).contains(of)).ok_or_else(bad)?;
        Ok(Self { late_ns: (late * unit_ns) as u64, of: Share { count: 1, of } })
    }
}

/// What happens to one packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fate {
    /// It is never sent.
    pub lost: bool,
    /// It is sent twice.
    pub doubled: bool,
    /// It is sent right after its successor.
    pub swapped: bool,
    /// It is sent so much after its due time.
    pub late_ns: u64,
}

/// All that goes wrong on purpose.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, clap::Args)]
pub struct Pattern {
    /// Packets never sent, such as 1/1000
    #[arg(long)]
    pub lose: Option<Share>,
    /// Packets sent twice, such as 1/500
    #[arg(long)]
    pub duplicate: Option<Share>,
    /// Packets sent right after their successor, such as 1/200
    #[arg(long)]
    pub reorder: Option<Share>,
    /// Packets sent late, such as 5ms/100 (one of a hundred is 5 ms late). Several are parted by commas. One that is later than the next packet is reordered by it
    #[arg(long, value_delimiter = ',')]
    pub late: Vec<Late>,
}

impl Pattern {
    /// What happens to packet `index` of a stream. A lost packet is nothing else; a swapped one is not late besides.
    pub fn fate(&self, index: u64) -> Fate {
        let hits = |share: Option<Share>, kind| share.is_some_and(|s| s.hits(index, kind));
        if hits(self.lose, 0) {
            return Fate { lost: true, ..Fate::default() };
        }
        let swapped = hits(self.reorder, 2);
        let late = (3..).zip(&self.late).find(|(kind, late)| !swapped && late.of.hits(index, *kind));
        Fate { lost: false, doubled: hits(self.duplicate, 1), swapped, late_ns: late.map_or(0, |(_, late)| late.late_ns) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_kept_exactly_over_each_period() {
        for text in ["1/10", "3/10", "1/7", "5/6", "0/5", "2/4"] {
            let share: Share = text.parse().unwrap();
            for from in [0, 7, 1_000] {
                let hit = (from..from + share.of * 12).filter(|&k| share.hits(k, 3)).count() as u64;
                assert_eq!(hit, 12 * share.count, "{text} from {from}");
            }
        }
    }

    #[test]
    fn equal_shares_of_different_kinds_hit_different_packets() {
        let pattern = Pattern {
            lose: "1/50".parse().ok(),
            duplicate: "1/50".parse().ok(),
            reorder: "1/50".parse().ok(),
            late: vec!["5ms/50".parse().unwrap(), "1s/50".parse().unwrap()],
        };
        let fates: Vec<Fate> = (0..500).map(|k| pattern.fate(k)).collect();
        let count = |f: fn(&Fate) -> bool| fates.iter().filter(|fate| f(fate)).count();
        assert_eq!([count(|f| f.lost), count(|f| f.doubled), count(|f| f.swapped)], [10, 10, 10]);
        assert_eq!([count(|f| f.late_ns == 5_000_000), count(|f| f.late_ns == 1_000_000_000)], [10, 10]);
        assert!(fates.iter().all(|f| u8::from(f.lost) + u8::from(f.doubled) + u8::from(f.swapped) + u8::from(f.late_ns > 0) <= 1));
        assert_eq!(Pattern::default().fate(7), Fate::default());
    }

    #[test]
    fn what_is_no_share_is_refused() {
        for text in ["", "1", "1/0", "2/1", "1/1", "-1/5", "a/b", "1/99999999999"] {
            assert!(text.parse::<Share>().is_err(), "{text}");
        }
        for text in ["", "5ms", "5/100", "ms/5", "-1ms/5", "5ms/0", "99s/5", "nanms/4"] {
            assert!(text.parse::<Late>().is_err(), "{text}");
        }
        assert_eq!("0.5ms/4".parse::<Late>().unwrap().late_ns, 500_000);
        assert_eq!("30us/4".parse::<Late>().unwrap().late_ns, 30_000);
    }
}
