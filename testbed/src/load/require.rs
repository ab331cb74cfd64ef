//! `--require 'late_p99_ms<5,loss=0'`: conditions on the metrics of a report.

use std::collections::BTreeMap;

/// A metric's name and its comparison with a number.
#[derive(Clone, Debug, PartialEq)]
pub struct Condition {
    name: String,
    comparison: Comparison,
    bound: f64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Comparison {
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    Equal,
    NotEqual,
}

/// Longer operators first: `<=` must not be read as `<`.
const COMPARISONS: [(&str, Comparison); 7] = [
    ("<=", Comparison::LessOrEqual),
    (">=", Comparison::GreaterOrEqual),
    ("!=", Comparison::NotEqual),
    ("==", Comparison::Equal),
    ("<", Comparison::Less),
    (">", Comparison::Greater),
    ("=", Comparison::Equal),
];

/// Reads conditions parted by commas.
///
/// # Errors
/// Says which condition is none, and how to write one.
pub fn parse(text: &str) -> Result<Vec<Condition>, String> {
    text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(parse_one).collect()
}

fn parse_one(part: &str) -> Result<Condition, String> {
    let bad = || format!("`{part}` is no condition; write NAME<NUMBER, with one of < <= > >= = !=, such as late_p99_ms<5");
    let at = part.find(['<', '>', '=', '!']).ok_or_else(bad)?;
    let (name, rest) = part.split_at(at);
    let (comparison, number) =
        COMPARISONS.iter().find_map(|(sign, comparison)| rest.strip_prefix(sign).map(|number| (*comparison, number))).ok_or_else(bad)?;
    let bound = number.trim().parse().ok().filter(|b: &f64| !b.is_nan()).ok_or_else(bad)?;
    Ok(Condition { name: name.trim().to_owned(), comparison, bound })
}

impl Condition {
    /// `Ok` when the condition holds.
    ///
    /// # Errors
    /// Says what the metric is instead, or which metrics there are.
    pub fn check(&self, metrics: &BTreeMap<&'static str, f64>) -> Result<(), String> {
        let Some(&value) = metrics.get(self.name.as_str()) else {
            let known: Vec<&str> = metrics.keys().copied().collect();
            return Err(format!("there is no metric `{}`; there are: {}", self.name, known.join(" ")));
        };
        let holds = match self.comparison {
            Comparison::Less => value < self.bound,
            Comparison::LessOrEqual => value <= self.bound,
            Comparison::Greater => value > self.bound,
            Comparison::GreaterOrEqual => value >= self.bound,
            Comparison::Equal => value == self.bound,
            Comparison::NotEqual => value != self.bound,
        };
        let sign = COMPARISONS.iter().rev().find(|(_, c)| *c == self.comparison).map_or("?", |(sign, _)| sign);
        if holds { Ok(()) } else { Err(format!("{} is {value}, required: {sign} {}", self.name, self.bound)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_are_read_and_judged() {
        let metrics = BTreeMap::from([("late_p99_ms", 4.5), ("loss", 0.0)]);
        let failures = |text: &str| parse(text).unwrap().iter().filter_map(|c| c.check(&metrics).err()).collect::<Vec<_>>();
        assert!(failures("late_p99_ms<5,loss=0, late_p99_ms>=4.5,loss!=1,late_p99_ms <= 4.5,loss==0").is_empty());
        assert_eq!(failures("late_p99_ms<4.5"), ["late_p99_ms is 4.5, required: < 4.5"]);
        assert_eq!(failures("loss>0").len(), 1);
        assert!(failures("lost=0")[0].contains("there are: late_p99_ms loss"));
        for bad in ["loss", "loss<", "loss<x", "loss!5", "loss<nan"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        assert!(parse("").unwrap().is_empty());
    }
}
