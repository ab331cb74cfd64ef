//! Scales of axes: from values to places, and round numbers to write beside them.

/// A scale with its ends and ticks.
#[derive(Clone, Debug, PartialEq)]
pub struct Scale {
    log: bool,
    from: f64,
    to: f64,
    /// Values that are written, ascending.
    pub ticks: Vec<f64>,
}

/// About so many ticks are wanted.
const TICKS: f64 = 6.0;

impl Scale {
    /// A linear scale from 0 that holds all `values` and ends on a tick.
    pub fn linear(values: impl Iterator<Item = f64>) -> Self {
        let most = values.filter(|v| v.is_finite()).fold(0.0, f64::max);
        let most = if most > 0.0 { most } else { 1.0 };
        let raw = most / TICKS;
        let power = 10f64.powf(raw.log10().floor());
        let step = [1.0, 2.0, 2.5, 5.0, 10.0].into_iter().map(|m| m * power).find(|&step| step >= raw * 0.999).unwrap_or(10.0 * power);
        let count = (most / step - 1e-9).ceil().max(1.0) as usize;
        Self { log: false, from: 0.0, to: step * count as f64, ticks: (0..=count).map(|k| k as f64 * step).collect() }
    }

    /// A logarithmic scale that holds all positive `values`, with ticks at 1, 2 and 5 of each decade, or at whole decades when there are many.
    pub fn log(values: impl Iterator<Item = f64>) -> Self {
        let (least, most) =
            values.filter(|v| v.is_finite() && *v > 0.0).fold((f64::INFINITY, 0.0), |(least, most), v| (v.min(least), v.max(most)));
        let (least, most) = if most > 0.0 { (least, most) } else { (0.1, 1.0) };
        let decades = (most / least).log10();
        let steps: &[f64] = if decades > 2.5 { &[1.0] } else { &[1.0, 2.0, 5.0] };
        let (low, high) = (least.log10().floor() as i32, most.log10().ceil() as i32);
        let all: Vec<f64> = (low..=high).flat_map(|power| steps.iter().map(move |m| m * 10f64.powi(power))).collect();
        let from = all.iter().copied().filter(|&t| t <= least * 1.001).fold(10f64.powi(low), f64::max);
        let to = all.iter().copied().filter(|&t| t >= most * 0.999 && t > from).fold(10f64.powi(high.max(low + 1)), f64::min);
        Self { log: true, from, to, ticks: all.into_iter().filter(|t| (from * 0.999..=to * 1.001).contains(t)).collect() }
    }

    /// Where `value` lies: 0 at the start, 1 at the end. What lies beyond an end is put there.
    pub fn place(&self, value: f64) -> f64 {
        let place = if self.log {
            (value.max(self.from) / self.from).ln() / (self.to / self.from).ln()
        } else {
            (value - self.from) / (self.to - self.from)
        };
        if place.is_finite() { place.clamp(0.0, 1.0) } else { 0.0 }
    }
}

/// A number as people write it: three digits that matter, thousands parted.
pub fn number(value: f64) -> String {
    let decimals = match value.abs() {
        0.0 => 0,
        v if v < 0.01 => 4,
        v if v < 0.1 => 3,
        v if v < 10.0 => 2,
        v if v < 100.0 => 1,
        _ => 0,
    };
    let text = format!("{value:.decimals$}");
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    let (sign, digits) = text.strip_prefix('-').map_or(("", text), |digits| ("-", digits));
    let (whole, rest) = digits.split_at(digits.find('.').unwrap_or(digits.len()));
    let mut parted = String::new();
    for (place, digit) in whole.chars().enumerate() {
        if place > 0 && (whole.len() - place).is_multiple_of(3) && whole.len() > 4 {
            parted.push('\u{202f}');
        }
        parted.push(digit);
    }
    format!("{sign}{parted}{rest}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn linear_scales_end_on_a_round_number() {
        assert_eq!(Scale::linear([3.0, 950.0].into_iter()).ticks, [0.0, 200.0, 400.0, 600.0, 800.0, 1000.0]);
        assert_eq!(Scale::linear([1000.0].into_iter()).to, 1000.0);
        assert_eq!(Scale::linear([7.0].into_iter()).ticks, [0.0, 2.0, 4.0, 6.0, 8.0]);
        assert_eq!(Scale::linear(std::iter::empty()).ticks.first(), Some(&0.0));
        assert_eq!(Scale::linear([f64::NAN, f64::INFINITY, -3.0].into_iter()).to, 1.0);
    }

    #[test]
    fn logarithmic_scales_hold_their_values() {
        let scale = Scale::log([0.03, 250.0, 0.0].into_iter());
        assert_eq!(scale.ticks, [0.01, 0.1, 1.0, 10.0, 100.0, 1000.0]);
        assert_eq!((scale.place(0.01), scale.place(1000.0), scale.place(0.0)), (0.0, 1.0, 0.0));
        assert!((scale.place(10.0) - 0.6).abs() < 1e-9);
        assert_eq!(Scale::log([3.0, 40.0].into_iter()).ticks, [2.0, 5.0, 10.0, 20.0, 50.0]);
    }

    #[test]
    fn any_values_have_a_scale_that_holds_them() {
        use proptest::prelude::*;
        proptest!(|(values in proptest::collection::vec(1e-6f64..1e9, 0..20))| {
            for scale in [Scale::linear(values.iter().copied()), Scale::log(values.iter().copied())] {
                prop_assert!(scale.to > scale.from && (2..=40).contains(&scale.ticks.len()), "{scale:?}");
                prop_assert!(scale.ticks.is_sorted());
                for &value in &values {
                    prop_assert!(value <= scale.to * 1.002 && value >= scale.from * 0.998, "{value} {scale:?}");
                    prop_assert!((0.0..=1.0).contains(&scale.place(value)));
                }
            }
        });
    }

    #[test]
    fn numbers_are_short() {
        let written: Vec<String> = [0.0, 0.00123, 0.5, 2.0, 12.34, 1234.0, 12345.6, -1.5].into_iter().map(number).collect();
        assert_eq!(written, ["0", "0.0012", "0.5", "2", "12.3", "1234", "12\u{202f}346", "-1.5"]);
    }
}
