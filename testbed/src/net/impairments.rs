//! What a wire does to frames, as it is written in a topology and on the command line of `testbed net set`.

use serde::{Deserialize, Serialize};
use stack::wire::{Bursts, JitterKind, Probability, WireConfig};

use super::units::{Rate, Share, Size, Time};

/// Settings of one direction of a wire. What is not given keeps its value: at first, a wire that lets everything through at once and
/// lets 1,000 frames wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Impairments {
    /// Rate, with Ethernet's overhead; "0 bps" for no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<Rate>,
    /// Bytes that each frame takes beside its own (24 by default).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub overhead: Option<Size>,
    /// Bytes that may wait for the line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue: Option<Size>,
    /// Frames that may wait for the line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue_frames: Option<usize>,
    /// Time from end to end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delay: Option<Time>,
    /// Variation of the delay: the bound of the uniform or the standard deviation of the normal distribution.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jitter: Option<Time>,
    /// "uniform" (default) or "normal".
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jitter_kind: Option<Distribution>,
    /// Frames lost, each by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loss: Option<Share>,
    /// Chance of each frame to begin a burst of losses; 0 for none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub burst_enter: Option<Share>,
    /// Chance of each frame in a burst to end it (0.1 by default: 10 frames on average).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub burst_leave: Option<Share>,
    /// Frames of a burst that are lost (all by default).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub burst_loss: Option<Share>,
    /// Frames held back so that later ones overtake them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reorder: Option<Share>,
    /// For how long these are held back (1 ms by default).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reorder_by: Option<Time>,
    /// Frames that arrive twice.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duplicate: Option<Share>,
    /// Frames with one bit flipped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub corrupt: Option<Share>,
}

/// Shape of the jitter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Distribution {
    /// Evenly spread.
    Uniform,
    /// Bell-shaped.
    Normal,
}

impl Impairments {
    /// Reads settings as they are given on a command line: `loss=1%`, `delay=2ms`.
    ///
    /// # Errors
    /// What is wrong with which setting.
    pub fn from_pairs<'a>(pairs: impl IntoIterator<Item = &'a str>) -> Result<Self, String> {
        let mut table = toml::Table::new();
        for pair in pairs {
            let (key, text) = pair.split_once('=').ok_or_else(|| format!("{pair:?}: write KEY=VALUE, as in loss=1%"))?;
            let (key, text) = (key.trim(), text.trim());
            // The one setting that is a plain number.
            let value = match text.parse::<i64>() {
                Ok(number) if key == "queue_frames" => toml::Value::Integer(number),
                _ => toml::Value::String(text.to_owned()),
            };
            if table.insert(key.to_owned(), value).is_some() {
                return Err(format!("{key} is given twice"));
            }
        }
        table.try_into().map_err(|e: toml::de::Error| e.message().to_owned())
    }

    /// Puts these settings over those of a wire.
    pub fn apply(&self, config: &mut WireConfig) {
        fn put<T>(to: &mut T, from: Option<T>) {
            if let Some(value) = from {
                *to = value;
            }
        }
        let bytes = |size: Option<Size>| size.map(|size| usize::try_from(size.0).unwrap_or(usize::MAX));
        let share = |share: Option<Share>| share.map(Share::probability);
        put(&mut config.rate_bps, self.rate.map(|rate| rate.0));
        put(&mut config.overhead_bytes, bytes(self.overhead));
        put(&mut config.queue_bytes, bytes(self.queue));
        put(&mut config.queue_frames, self.queue_frames);
        put(&mut config.delay_ns, self.delay.map(|time| time.0));
        put(&mut config.jitter.amount_ns, self.jitter.map(|time| time.0));
        put(
            &mut config.jitter.kind,
            self.jitter_kind.map(|kind| match kind {
                Distribution::Uniform => JitterKind::Uniform,
                Distribution::Normal => JitterKind::Normal,
            }),
        );
        put(&mut config.loss, share(self.loss));
        put(&mut config.reordering, share(self.reorder));
        put(&mut config.hold_back_ns, self.reorder_by.map(|time| time.0));
        put(&mut config.duplication, share(self.duplicate));
        put(&mut config.corruption, share(self.corrupt));
        if self.burst_enter.is_some() || self.burst_leave.is_some() || self.burst_loss.is_some() {
            let default = Bursts { enter: Probability::NEVER, leave: Probability::new(0.1), loss: Probability::ALWAYS };
            let bursts = config.bursts.get_or_insert(default);
            put(&mut bursts.enter, share(self.burst_enter));
            put(&mut bursts.leave, share(self.burst_leave));
            put(&mut bursts.loss, share(self.burst_loss));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_of_a_command_line_are_those_of_a_file() {
        let pairs = ["rate=50Mbps", "delay=2 ms", "loss=1%", "queue_frames=100", "jitter=1ms", "jitter_kind=normal"];
        let settings = Impairments::from_pairs(pairs).unwrap();
        let same: Impairments = toml::from_str(
            "rate = \"50 Mbps\"\ndelay = \"2 ms\"\nloss = \"0.01\"\nqueue_frames = 100\njitter = \"1 ms\"\njitter_kind = \"normal\"",
        )
        .unwrap();
        assert_eq!(settings, same);
        let mut config = WireConfig { corruption: Probability::ALWAYS, ..WireConfig::default() };
        settings.apply(&mut config);
        assert_eq!((config.rate_bps, config.delay_ns, config.queue_frames), (50_000_000, 2_000_000, 100));
        assert_eq!((config.jitter.kind, config.jitter.amount_ns), (JitterKind::Normal, 1_000_000));
        assert_eq!((config.loss, config.corruption), (Probability::new(0.01), Probability::ALWAYS));
        assert_eq!(config.bursts, None);
        Impairments::from_pairs(["burst_enter=1%"]).unwrap().apply(&mut config);
        Impairments::from_pairs(["burst_loss=50%"]).unwrap().apply(&mut config);
        let bursts = Bursts { enter: Probability::new(0.01), leave: Probability::new(0.1), loss: Probability::new(0.5) };
        assert_eq!(config.bursts, Some(bursts));
    }

    #[test]
    fn wrong_settings_are_named() {
        for (pairs, part) in [
            (&["los=1%"][..], "unknown field `los`"),
            (&["loss"], "KEY=VALUE"),
            (&["loss=1%", "loss=2%"], "given twice"),
            (&["delay=2"], "\"2\" is not a time"),
            (&["queue_frames=x"], "invalid type"),
        ] {
            let error = Impairments::from_pairs(pairs.iter().copied()).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
    }
}
