//! Chance, repeatable from a seed.

use std::fmt;

/// How often something happens, from never to always, exact to 2^-63.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Probability(u64);

const ALWAYS: u64 = 1 << 63;

impl Probability {
    /// It never happens.
    pub const NEVER: Self = Self(0);
    /// It happens each time.
    pub const ALWAYS: Self = Self(ALWAYS);

    /// From a fraction: 0.01 is one in a hundred. Limited to 0..=1; what is not a number is 0.
    pub fn new(fraction: f64) -> Self {
        // A float becomes an integer by saturation, and NaN becomes 0.
        Self(((fraction * ALWAYS as f64) as u64).min(ALWAYS))
    }

    /// As a fraction.
    pub fn fraction(self) -> f64 {
        self.0 as f64 / ALWAYS as f64
    }
}

impl fmt::Debug for Probability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.fraction())
    }
}

/// A sequence of numbers that look random and are the same for the same seed (splitmix64: one addition, then a mix that spreads it over all
/// bits; Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014).
#[derive(Clone, Copy, Debug)]
pub(super) struct Chance(u64);

impl Chance {
    /// The sequence `stream` of a seed. Each purpose has a stream of its own, so that changing one setting of a link leaves what happens
    /// to its frames otherwise as it was.
    pub(super) fn new(seed: u64, stream: u64) -> Self {
        let mut mixed = Self(seed ^ stream.wrapping_mul(0xD1B5_4A32_D192_ED03));
        Self(mixed.next())
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// Whether it happens this time.
    pub(super) fn happens(&mut self, probability: Probability) -> bool {
        self.next() >> 1 < probability.0
    }

    /// A number below `bound`; 0 when that is 0.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        // The high half of the product is spread evenly, but for one part in 2^64 / bound.
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }

    /// A number from -`amount` to `amount`, evenly spread.
    pub(super) fn uniform(&mut self, amount: u64) -> i64 {
        let amount = amount.min(i64::MAX as u64 / 2) as i64;
        self.below(2 * amount as u64 + 1) as i64 - amount
    }

    /// A number of normal distribution around 0 with standard deviation `amount`, never further out than 6 of these: the sum of 12
    /// evenly spread numbers, in integers, so that it is the same on every machine.
    pub(super) fn normal(&mut self, amount: u64) -> i64 {
        let mut sum: i64 = 0;
        for _ in 0..3 {
            let mut bits = self.next();
            for _ in 0..4 {
                sum += (bits & 0xFFFF) as i64;
                bits >>= 16;
            }
        }
        // Each term has mean 32767.5 and variance 65536^2 / 12, so the sum's deviation is 65536.
        let centred = i128::from(sum - 12 * 0xFFFF / 2);
        i64::try_from((centred * i128::from(amount)) >> 16).unwrap_or(i64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DRAWS: u32 = 200_000;

    #[test]
    fn probabilities_are_met() {
        assert_eq!(Probability::new(f64::NAN), Probability::NEVER);
        assert_eq!(Probability::new(-1.0), Probability::NEVER);
        assert_eq!(Probability::new(2.0), Probability::ALWAYS);
        for fraction in [0.0, 0.001, 0.3, 0.999, 1.0] {
            let mut chance = Chance::new(1, 2);
            let hits = (0..DRAWS).filter(|_| chance.happens(Probability::new(fraction))).count();
            let got = hits as f64 / f64::from(DRAWS);
            let deviation = (fraction * (1.0 - fraction) / f64::from(DRAWS)).sqrt();
            assert!((got - fraction).abs() <= 4.0 * deviation, "{fraction}: {got}");
        }
    }

    #[test]
    fn streams_of_a_seed_differ_and_repeat() {
        let draw = |seed, stream| -> Vec<u64> {
            let mut chance = Chance::new(seed, stream);
            (0..8).map(|_| chance.next()).collect()
        };
        assert_eq!(draw(7, 1), draw(7, 1));
        assert_ne!(draw(7, 1), draw(7, 2));
        assert_ne!(draw(7, 1), draw(8, 1));
    }

    #[test]
    fn distributions_have_their_mean_and_spread() {
        let moments = |draw: &mut dyn FnMut() -> i64| {
            let values: Vec<f64> = (0..DRAWS).map(|_| draw() as f64).collect();
            let mean = values.iter().sum::<f64>() / values.len() as f64;
            let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / values.len() as f64;
            let most = values.iter().fold(0.0_f64, |most, v| most.max(v.abs()));
            (mean, variance.sqrt(), most)
        };
        let mut chance = Chance::new(3, 1);
        let (mean, deviation, most) = moments(&mut || chance.normal(1_000_000));
        assert!(mean.abs() < 10_000.0 && (deviation - 1e6).abs() < 10_000.0 && most < 6e6, "{mean} {deviation} {most}");
        let (mean, deviation, most) = moments(&mut || chance.uniform(1_000_000));
        assert!(mean.abs() < 10_000.0 && (deviation - 577_350.0).abs() < 5_000.0 && most <= 1e6, "{mean} {deviation} {most}");
        assert_eq!(chance.uniform(0), 0);
        assert_eq!(chance.normal(0), 0);
        assert_eq!(chance.below(0), 0);
    }
}
