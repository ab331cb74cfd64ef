//! Experiment `ifq`: what connections see of the interface queue, with and without a limit on it.
//!
//! All of it happens in simulated time ([`path`]): a run takes a second or two, equal runs give equal figures, and the machine has no part in
//! them. A row is a tenth of a second of one [`Scenario`], with or without the limit.

pub mod linux;
pub mod path;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use stack::tcp::{IfqLimit, TcpConfig};

use super::experiment::{Context, Data, Experiment, Row};
use super::plot::{Axis, Line, Plot, Stroke};
use super::scale::number;
use super::{Args, FiguresError};
use path::{QUEUE_FRAMES, RATE_BPS, RTT_NS, START_NS, Setup, TURN_NS, WINDOW_NS, Window};

/// Size of the short transfers.
pub const SHORT_BYTES: u64 = 100_000;
/// Size of the three equal ones.
pub const BULK_BYTES: u64 = 100_000_000;
/// How long scenarios last whose connections never end.
pub const DURATION_NS: u64 = 3_000_000_000;
/// Where equal transfers are given up.
const BULK_NS_MAX: u64 = 30_000_000_000;

/// What shares the path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scenario {
    /// Short transfers beside two connections that never end.
    Short,
    /// Three equal transfers.
    Bulk,
    /// A thousand connections that never end.
    Many,
}

impl Scenario {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Short, Self::Bulk, Self::Many];

    /// Its name in the series.
    pub fn name(self) -> &'static str {
        match self {
            Self::Short => "100 KB beside two",
            Self::Bulk => "three of 100 MB",
            Self::Many => "1,000 connections",
        }
    }

    /// How it is run, with TCP's own limit or with none.
    pub fn setup(self, limited: bool) -> Setup {
        let own = TcpConfig::default();
        let limit = if limited { own.ifq_limit } else { IfqLimit::Off };
        let endless =
            Setup { limit, connections: 2, bulk_bytes: None, short_bytes: 0, delayed_ack_ns: own.delayed_ack_ns, until_ns: DURATION_NS };
        match self {
            Self::Short => Setup { short_bytes: SHORT_BYTES, ..endless },
            Self::Bulk => Setup { connections: 3, bulk_bytes: Some(BULK_BYTES), until_ns: BULK_NS_MAX, ..endless },
            Self::Many => Setup { connections: 1000, ..endless },
        }
    }

    fn series(self, limited: bool) -> String {
        format!("{}, {}", self.name(), if limited { "adaptive limit" } else { "no limit" })
    }
}

fn ms(ns: u64) -> f64 {
    ns as f64 / 1e6
}

fn row(series: &str, window: &Window) -> Row {
    let mut values: BTreeMap<String, f64> = [
        ("srtt_median_ms", ms(window.srtt_median_ns)),
        ("srtt_max_ms", ms(window.srtt_max_ns)),
        ("queue_frames_max", window.queue_frames_max as f64),
        ("pseudo_delay_ms", ms(window.queue_ns_max)),
        ("busy", window.busy),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into();
    let sometimes = [
        ("fairness", window.fairness),
        ("short_ms", window.short_ns.map(ms)),
        ("limit_frames", window.limit_frames.map(|frames| frames as f64)),
    ];
    values.extend(sometimes.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))));
    Row { series: series.to_owned(), x: ms(window.end_ns), values, trouble: None, disturbed_percent: None }
}

/// The experiment.
#[derive(Debug)]
pub struct Ifq;

impl Experiment for Ifq {
    fn name(&self) -> &'static str {
        "ifq"
    }

    fn title(&self) -> &'static str {
        "Limit of the interface queue"
    }

    fn about(&self) -> &'static str {
        "round-trip time, short transfers and fairness on a full 1 Gbps path, with and without IFQ limiting (simulated time)"
    }

    fn settings(&self, _: &Args) -> BTreeMap<String, f64> {
        [
            ("rate_bps", RATE_BPS as f64),
            ("rtt_ms", ms(RTT_NS)),
            ("queue_frames", QUEUE_FRAMES as f64),
            ("turn_us", TURN_NS as f64 / 1e3),
            ("short_bytes", SHORT_BYTES as f64),
            ("bulk_bytes", BULK_BYTES as f64),
            ("seconds", DURATION_NS as f64 / 1e9),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
    }

    fn method(&self, data: &Data) -> String {
        let setting = |name: &str| number(data.settings.get(name).copied().unwrap_or(0.0));
        format!(
            "Simulated time: two hosts of our own stack, joined by {} Gbps with a round-trip time of {} ms; the sender's interface queue holds {} \
             frames, and each host has a turn every {} us. The path loses nothing. A point is {} ms of it. Start-up, until {} ms, is shown, but \
             fairness counts from there on, and while all bulk connections have data.",
            number(data.settings.get("rate_bps").copied().unwrap_or(0.0) / 1e9),
            setting("rtt_ms"),
            setting("queue_frames"),
            setting("turn_us"),
            number(ms(WINDOW_NS)),
            number(ms(START_NS)),
        )
    }

    fn run(&self, context: &mut Context<'_>) -> Result<(), FiguresError> {
        for scenario in Scenario::ALL {
            for limited in [false, true] {
                let series = scenario.series(limited);
                eprintln!("  {series}");
                let outcome = path::run(scenario.setup(limited)).unwrap_or_default();
                context.keep(outcome.windows.iter().map(|window| row(&series, window)).collect())?;
            }
        }
        Ok(())
    }

    fn plots(&self, data: &Data) -> Vec<Plot> {
        let plot = |id: &str, title: &str, caption: String, value: &str, label: &str, log: bool| Plot {
            id: format!("ifq-{id}"),
            title: title.into(),
            caption,
            x: Axis { label: "time, ms".into(), log: false },
            y: Axis { label: label.into(), log },
            lines: lines(data, value),
            marks: Vec::new(),
        };
        vec![
            plot("rtt", "Round-trip time seen", rtt_caption(data), "srtt_median_ms", "median of smoothed round-trip times, ms", true),
            plot(
                "queue",
                "Pseudo delay",
                told(data, "What a frame waits behind the longest interface queue of each window.", "pseudo_delay_ms", "ms"),
                "pseudo_delay_ms",
                "wait in the interface queue, ms",
                true,
            ),
            plot(
                "short",
                "Short transfers",
                told(data, "100 KB from the SYN to the last byte, beside two connections that never end.", "short_ms", "ms"),
                "short_ms",
                "100 KB, ms",
                false,
            ),
            plot(
                "fairness",
                "Fairness",
                told(data, "Jain's index of what the bulk connections delivered in each window.", "fairness", ""),
                "fairness",
                "Jain's fairness index",
                false,
            ),
            plot(
                "busy",
                "Use of the link",
                told(data, "Part of each window in which the line was sending, from start-up on.", "busy", ""),
                "busy",
                "busy",
                false,
            ),
        ]
    }

    fn columns(&self) -> &'static [(&'static str, &'static str, f64, usize)] {
        &[
            ("RTT median, ms", "srtt_median_ms", 1.0, 3),
            ("max", "srtt_max_ms", 1.0, 3),
            ("queue max, frames", "queue_frames_max", 1.0, 0),
            ("limit, frames", "limit_frames", 1.0, 0),
            ("pseudo delay, ms", "pseudo_delay_ms", 1.0, 3),
            ("100 KB, ms", "short_ms", 1.0, 2),
            ("fairness", "fairness", 1.0, 4),
            ("busy, %", "busy", 100.0, 2),
        ]
    }
}

/// A colour for each scenario; dashed without the limit.
fn lines(data: &Data, value: &str) -> Vec<Line> {
    let both = Scenario::ALL
        .into_iter()
        .enumerate()
        .flat_map(|(hue, scenario)| [false, true].map(|limited| (hue, scenario.series(limited), limited)));
    let lines = both.map(|(hue, series, limited)| Line {
        points: data.points(&series, value),
        label: series,
        hue,
        stroke: if limited { Stroke::Solid } else { Stroke::Dashed },
    });
    lines.filter(|line| !line.points.is_empty()).collect()
}

/// From start-up on, the least and the most of a value in each series.
fn told(data: &Data, what: &str, value: &str, unit: &str) -> String {
    let mut text = what.to_owned();
    for series in data.series() {
        let points = data.points(series, value);
        // The last window of transfers that end is not whole.
        let settled = || points.iter().filter(|(x, _)| *x > ms(START_NS)).map(|(_, y)| *y);
        if let (Some(least), Some(most)) = (settled().min_by(f64::total_cmp), settled().max_by(f64::total_cmp)) {
            text.push_str(&format!(" {series}: {least:.4} to {most:.4}{}{unit}.", if unit.is_empty() { "" } else { " " }));
        }
    }
    text
}

fn rtt_caption(data: &Data) -> String {
    told(
        data,
        "As TCP at the sender measures it. With 1,000 connections it contains what receivers hold acknowledgments back, up to 40 ms: that is no \
         queue.",
        "srtt_median_ms",
        "ms",
    )
}
