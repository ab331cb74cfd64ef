//! What a run is reported as: a table for people, JSON, and a percentile file. Everything is made from one flat map of metrics.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::course::Outcomes;
use super::options::Options;
use super::rates::StreamRate;
use crate::lateness::Tally;
use crate::noise::Noise;

/// A run's report. Field names are stable: dashboards and later experiments read the JSON.
#[derive(Debug, Serialize)]
pub struct Report {
    /// What was asked.
    pub settings: Options,
    /// Every figure by name; what `--require` looks at.
    pub metrics: BTreeMap<&'static str, f64>,
    /// Sessions refused, by request and status, such as `SETUP 453`.
    pub refused: BTreeMap<String, u64>,
    /// Sessions failed, by reason.
    pub failed: BTreeMap<&'static str, u64>,
    /// How many bursts of each length there were, as (length, count).
    pub bursts: Vec<(usize, u64)>,
    /// What each packet is measured against: `even` (its frame spread evenly) or `burst` (its RTP timestamp), whichever fits the sender better.
    pub late_against: &'static str,
    /// What each stream got, in the order in which they ended; with `--per-stream`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub streams: Vec<StreamRate>,
    /// What this machine itself added to a spinning thread just before the run.
    pub noise: Option<Noise>,
}

const PERCENTILES: [(usize, f64); 4] = [(0, 0.5), (1, 0.9), (2, 0.99), (3, 0.999)];

/// Names are fixed so that they can be looked up in the documentation: mean, p50, p90, p99, p99.9, max.
fn lateness(metrics: &mut BTreeMap<&'static str, f64>, names: [&'static str; 6], histogram: &Histogram<u64>) {
    if histogram.is_empty() {
        return;
    }
    let [mean, p50, p90, p99, p999, max] = names;
    metrics.insert(mean, histogram.mean() / 1e6);
    let quantiles = [p50, p90, p99, p999];
    for (place, quantile) in PERCENTILES {
        if let Some(&name) = quantiles.get(place) {
            metrics.insert(name, histogram.value_at_quantile(quantile) as f64 / 1e6);
        }
    }
    metrics.insert(max, histogram.max() as f64 / 1e6);
}

/// Median, p99 and maximum of a time.
fn times(metrics: &mut BTreeMap<&'static str, f64>, names: [&'static str; 3], histogram: &Histogram<u64>) {
    if histogram.is_empty() {
        return;
    }
    for (name, quantile) in names.into_iter().zip([0.5, 0.99, 1.0]) {
        metrics.insert(name, histogram.value_at_quantile(quantile) as f64 / 1e6);
    }
}

fn part(metrics: &mut BTreeMap<&'static str, f64>, tally: &Tally) {
    let frame =
        ["frame_late_mean_ms", "frame_late_p50_ms", "frame_late_p90_ms", "frame_late_p99_ms", "frame_late_p999_ms", "frame_late_max_ms"];
    lateness(metrics, frame, &tally.frame);
    let even = ["even_late_mean_ms", "even_late_p50_ms", "even_late_p90_ms", "even_late_p99_ms", "even_late_p999_ms", "even_late_max_ms"];
    lateness(metrics, even, &tally.even);
    let burst =
        ["burst_late_mean_ms", "burst_late_p50_ms", "burst_late_p90_ms", "burst_late_p99_ms", "burst_late_p999_ms", "burst_late_max_ms"];
    lateness(metrics, burst, &tally.burst);
    metrics.insert("even_early_max_ms", tally.even_early_max_ns as f64 / 1e6);
    let packet = ["late_mean_ms", "late_p50_ms", "late_p90_ms", "late_p99_ms", "late_p999_ms", "late_max_ms"];
    lateness(metrics, packet, tally.packet().0);
    let [least, low, median, most] = tally.rate.spread();
    metrics.insert("rate_seconds", tally.rate.seconds() as f64);
    metrics.insert("rate_conforming", tally.rate.conforming());
    if tally.rate.seconds() > 0 {
        metrics.insert("rate_min_percent", least as f64);
        metrics.insert("rate_p1_percent", low as f64);
        metrics.insert("rate_p50_percent", median as f64);
        metrics.insert("rate_max_percent", most as f64);
    }
}

impl Report {
    /// Makes the report of a run.
    pub fn new(settings: &Options, outcomes: &Outcomes, noise: Option<Noise>) -> Self {
        use super::client::Method;
        let totals = &outcomes.totals;
        let mut metrics = BTreeMap::new();
        let counts = [
            ("asked", totals.asked),
            ("accepted", totals.accepted),
            ("refused", totals.refused_all()),
            ("failed", totals.failed_all()),
            ("dropped", totals.dropped),
            ("finished", totals.finished),
            ("streams", totals.streams),
            ("starved", totals.starved),
            ("silent", totals.silent),
            ("packets", totals.packets),
            ("bytes", totals.bytes),
            ("loss", totals.lost),
            ("reordered", totals.reordered),
            ("duplicates", totals.duplicates),
            ("strays", totals.strays),
            ("restarts", totals.restarts),
            ("before_answer", totals.before_answer),
            ("rtcp", totals.rtcp),
            ("receiver_drops", outcomes.receiver_drops),
            ("burst_max", totals.burst_max() as u64),
        ];
        metrics.extend(counts.map(|(name, value)| (name, value as f64)));
        metrics.insert("loss_percent", 100.0 * totals.lost as f64 / (totals.packets + totals.lost).max(1) as f64);
        metrics.insert("burst_above_2_percent", 100.0 * totals.packets_in_bursts_above(2));
        metrics.insert("head_start_ms", totals.head_start_ns_max as f64 / 1e6);
        metrics.insert("playing", outcomes.steady.0.playing as f64);
        metrics.insert("sessions_per_s", outcomes.steady.0.playing as f64 / (outcomes.ramp_ns as f64 / 1e9).max(1e-3));
        times(&mut metrics, ["connect_p50_ms", "connect_p99_ms", "connect_max_ms"], &totals.connect_ns);
        let answers = [
            (Method::Options, ["options_p50_ms", "options_p99_ms", "options_max_ms"]),
            (Method::Describe, ["describe_p50_ms", "describe_p99_ms", "describe_max_ms"]),
            (Method::Setup, ["setup_p50_ms", "setup_p99_ms", "setup_max_ms"]),
            (Method::Play, ["play_p50_ms", "play_p99_ms", "play_max_ms"]),
            (Method::GetParameter, ["keep_alive_p50_ms", "keep_alive_p99_ms", "keep_alive_max_ms"]),
            (Method::Teardown, ["teardown_p50_ms", "teardown_p99_ms", "teardown_max_ms"]),
        ];
        for (method, names) in answers {
            if let Some(histogram) = totals.answer_ns.get(&method) {
                times(&mut metrics, names, histogram);
            }
        }
        let play = ["play_to_packet_p50_ms", "play_to_packet_p99_ms", "play_to_packet_max_ms"];
        times(&mut metrics, play, &totals.play_to_packet_ns);
        let connect = ["connect_to_packet_p50_ms", "connect_to_packet_p99_ms", "connect_to_packet_max_ms"];
        times(&mut metrics, connect, &totals.connect_to_packet_ns);
        times(&mut metrics, ["seek_to_packet_p50_ms", "seek_to_packet_p99_ms", "seek_to_packet_max_ms"], &totals.seek_to_packet_ns);
        part(&mut metrics, &totals.judge.steady);
        if !totals.judge.ramp.burst.is_empty() {
            let ramp = totals.judge.ramp.packet().0;
            metrics.insert("ramp_late_p99_ms", ramp.value_at_quantile(0.99) as f64 / 1e6);
            metrics.insert("ramp_late_max_ms", ramp.max() as f64 / 1e6);
        }
        throughput(&mut metrics, outcomes);
        if let Some(noise) = &noise {
            metrics.insert("noise_max_ms", noise.max_us / 1e3);
            metrics.insert("noise_wait_mean_ms", noise.wait_mean_us / 1e3);
            metrics.insert("noise_wait_p999_ms", noise.wait_p999_us / 1e3);
            metrics.insert("noise_above_50us_per_s", noise.above_50_us_per_s);
            metrics.insert("noise_above_1ms_per_s", noise.above_1_ms_per_s);
        }
        Self {
            settings: settings.clone(),
            metrics,
            refused: totals.refused.iter().map(|((method, status), count)| (format!("{} {status}", method.name()), *count)).collect(),
            failed: totals.failed.clone(),
            bursts: (1..=totals.burst_max()).map(|n| (n, totals.bursts_of(n))).filter(|(_, count)| *count > 0).collect(),
            late_against: if totals.judge.steady.packet().1 { "even" } else { "burst" },
            streams: totals.per_stream.clone().unwrap_or_default(),
            noise,
        }
    }

    /// A metric, 0 when it was not measured.
    pub fn metric(&self, name: &str) -> f64 {
        self.metrics.get(name).copied().unwrap_or(0.0)
    }

    /// The table for people.
    pub fn table(&self) -> String {
        let mut text = String::new();
        let m = |name: &str| self.metric(name);
        let by = |map: &[(String, u64)]| match map {
            [] => String::new(),
            _ => format!(" ({})", map.iter().map(|(what, count)| format!("{what}: {count}")).collect::<Vec<_>>().join(", ")),
        };
        let refused: Vec<(String, u64)> = self.refused.iter().map(|(k, v)| (k.clone(), *v)).collect();
        let failed: Vec<(String, u64)> = self.failed.iter().map(|(k, v)| ((*k).to_owned(), *v)).collect();
        let three = |p: &str| [m(&format!("{p}_p50_ms")), m(&format!("{p}_p99_ms")), m(&format!("{p}_max_ms"))];
        let _ = writeln!(
            text,
            "sessions     asked {}, accepted {}, refused {}{}, failed {}{}, dropped {}, finished {}; {:.0} set up per second",
            m("asked"),
            m("accepted"),
            m("refused"),
            by(&refused),
            m("failed"),
            by(&failed),
            m("dropped"),
            m("finished"),
            m("sessions_per_s")
        );
        let _ = writeln!(text, "{:<34}{:>10}{:>10}{:>10}", "set-up, ms", "p50", "p99", "max");
        let rows = [
            ("connect", "  TCP connect"),
            ("describe", "  DESCRIBE to answer"),
            ("setup", "  SETUP to answer"),
            ("play", "  PLAY to answer"),
            ("play_to_packet", "  PLAY to first packet"),
            ("connect_to_packet", "  connect to first packet"),
            ("seek_to_packet", "  seek to first packet"),
        ];
        for (name, label) in rows.into_iter().filter(|(name, _)| self.metrics.contains_key(format!("{name}_p50_ms").as_str())) {
            let [p50, p99, max] = three(name);
            let _ = writeln!(text, "{label:<34}{p50:>10.2}{p99:>10.2}{max:>10.2}");
        }
        let _ = writeln!(
            text,
            "packets      {} ({:.0}/s, {:.1} Mbps while steady), lost {} ({:.4} %, of them {} at this receiver), reordered {}, duplicates {}, strays {}, before the 200 {}",
            m("packets"),
            m("packets_per_s"),
            m("mbps"),
            m("loss"),
            m("loss_percent"),
            m("receiver_drops"),
            m("reordered"),
            m("duplicates"),
            m("strays"),
            m("before_answer")
        );
        if !self.metrics.contains_key("late_max_ms") {
            return text;
        }
        let _ = writeln!(text, "{:<24}{:>10}{:>10}{:>10}{:>10}{:>10}{:>10}", "lateness, ms", "mean", "p50", "p90", "p99", "p99.9", "max");
        let against = if self.late_against == "even" { "  packets, even spread" } else { "  packets, RTP time" };
        for (prefix, label) in [("late", against), ("frame_late", "  frames, first packet")] {
            let value = |suffix: &str| m(&format!("{prefix}_{suffix}_ms"));
            let columns = ["mean", "p50", "p90", "p99", "p999", "max"].map(value);
            let columns: String = columns.iter().map(|v| format!("{v:>10.3}")).collect();
            let _ = writeln!(text, "{label:<24}{columns}");
        }
        let _ = writeln!(
            text,
            "rate         {:.2} % of {} stream-seconds within 5 % of the media's own (least {} %, p1 {} %, most {} %)",
            100.0 * m("rate_conforming"),
            m("rate_seconds"),
            m("rate_min_percent"),
            m("rate_p1_percent"),
            m("rate_max_percent")
        );
        let _ = writeln!(
            text,
            "streams      {}, starved {}, silent {}; longest burst {} packets, {:.2} % of packets in bursts of more than 2; head start {:.1} ms",
            m("streams"),
            m("starved"),
            m("silent"),
            m("burst_max"),
            m("burst_above_2_percent"),
            m("head_start_ms")
        );
        let _ = writeln!(
            text,
            "generator    {:.1} % of a core, {:.0} ns per packet, {:.1} % of a core per Gbps",
            m("generator_cpu_percent"),
            m("generator_ns_per_packet"),
            m("generator_percent_per_gbps")
        );
        if let Some(noise) = &self.noise {
            let _ = writeln!(text, "noise        {noise}");
        }
        text
    }
}

/// What flowed in the steady part, and what it cost here.
fn throughput(metrics: &mut BTreeMap<&'static str, f64>, outcomes: &Outcomes) {
    let (from, to) = &outcomes.steady;
    let seconds = to.elapsed_ns.saturating_sub(from.elapsed_ns) as f64 / 1e9;
    metrics.insert("generator_preferred", f64::from(u8::from(outcomes.preferred)));
    if seconds <= 0.0 {
        return;
    }
    let packets = to.packets.saturating_sub(from.packets) as f64;
    let bits = 8.0 * to.bytes.saturating_sub(from.bytes) as f64;
    let cpu_ns = to.cpu_ns.saturating_sub(from.cpu_ns) as f64;
    metrics.insert("steady_s", seconds);
    metrics.insert("steady_packets", packets);
    metrics.insert("packets_per_s", packets / seconds);
    metrics.insert("mbps", bits / seconds / 1e6);
    metrics.insert("generator_cpu_percent", cpu_ns / seconds / 1e7);
    metrics.insert("generator_ns_per_packet", cpu_ns / packets.max(1.0));
    metrics.insert("generator_percent_per_gbps", cpu_ns / seconds / 1e7 / (bits / seconds / 1e9).max(1e-9));
}

/// A histogram as the percentile table that HdrHistogram's tools plot; values in milliseconds.
pub fn percentile_file(histogram: &Histogram<u64>) -> String {
    let mut text = format!("{:>12} {:>16} {:>12} {:>16}\n\n", "Value", "Percentile", "TotalCount", "1/(1-Percentile)");
    let mut count = 0;
    for value in histogram.iter_quantiles(5) {
        count += value.count_since_last_iteration();
        let quantile = value.quantile_iterated_to();
        let inverse = if quantile < 1.0 { format!("{:.2}", 1.0 / (1.0 - quantile)) } else { "inf".to_owned() };
        let _ = writeln!(text, "{:>12.6} {quantile:>16.12} {count:>12} {inverse:>16}", value.value_iterated_to() as f64 / 1e6);
    }
    let _ = writeln!(text, "#[Mean    = {:>12.6}, StdDeviation   = {:>12.6}]", histogram.mean() / 1e6, histogram.stdev() / 1e6);
    let _ = writeln!(text, "#[Max     = {:>12.6}, Total count    = {:>12}]", histogram.max() as f64 / 1e6, histogram.len());
    text
}
