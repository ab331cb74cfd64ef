//! Experiment `priority`: guaranteed streams on a disk that has too much to do.
//!
//! ```text
//!                                     ┌─ n guaranteed streams, each of its own title, as many as admission lets in
//! slow disk (throttle group, stage) ──┼─ one best-effort stream that alone could take most of the disk
//!                                     └─ in some series: a reader of a large file beside the server, or an import of it by the server
//! ```
//!
//! The published figure has a best-effort stream like the others, and shows what becomes of it beyond the disk's limit. Here the guaranteed
//! streams that go beyond are refused at SETUP, and admission leaves a fifth of the disk to others; so the best-effort stream is one that
//! asks for most of the disk, and the limit is passed as soon as a few others play. A server without classes gets the same titles and has to
//! do what it can.

mod beside;
mod draw;
mod stage;

use std::collections::BTreeMap;
use std::path::Path;

use super::experiment::{Context, Data, Experiment, Row};
use super::plot::Plot;
use super::scale::number;
use super::{Args, Effort, FiguresError, servers};
use crate::bench::{BenchError, Observed, observe, trouble, video_over_udp};
use crate::load::report::Report;
use crate::load::{self, rates::StreamRate};
use crate::peers::{Peer, Running};
use beside::Beside;
use stage::{GREEDY, Stage};

/// The server that has classes.
const OWN: &str = "tactus";
/// How a stream is refused that does not fit.
const FULL: &str = "SETUP 453";
/// Clients that begin per second.
const RAMP: f64 = 20.0;
/// Ramp, stragglers and the end come on top of the seconds measured.
const EXTRA_SECONDS: u32 = 30;
/// Shorter measurements have no whole seconds to judge.
const SECONDS_MIN: f64 = 3.0;
/// A server that reads ahead lives on that for a while, so these are longer than the other experiments' measurements.
const SECONDS_FACTOR: f64 = 1.5;

/// What the disk and its titles are like.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// What the disk can do.
    pub disk_bytes_per_s: u64,
    /// Rate of the titles of guaranteed streams.
    pub title_bps: u64,
    /// Rate of the best-effort stream's title.
    pub greedy_bps: u64,
    /// Size of the file that is read beside the server, or imported by it.
    pub beside_bytes: u64,
    /// Numbers of guaranteed streams asked for.
    pub guaranteed: Vec<usize>,
    /// How long each is measured.
    pub seconds: f64,
    /// How long the disk is measured.
    pub probe_seconds: u32,
}

impl Plan {
    fn new(args: &Args) -> Self {
        let (guaranteed, beside_bytes): (&[usize], u64) = match args.effort() {
            Effort::Quick => (&[2, 30], 64 << 20),
            Effort::Standard => (&[1, 8, 14, 18, 24, 40], 2_000_000_000),
            Effort::Full => (&[1, 4, 8, 12, 14, 16, 18, 20, 22, 24, 28, 34, 40, 50, 60], 2_000_000_000),
        };
        let guaranteed = if args.guaranteed.is_empty() { guaranteed.to_vec() } else { args.guaranteed.clone() };
        Self {
            disk_bytes_per_s: 10_000_000,
            title_bps: 3_000_000,
            greedy_bps: 50_000_000,
            beside_bytes,
            guaranteed,
            seconds: (args.seconds() * SECONDS_FACTOR).max(SECONDS_MIN),
            probe_seconds: if args.quick { 2 } else { 8 },
        }
    }

    fn titles(&self) -> usize {
        self.guaranteed.iter().copied().max().unwrap_or(1).max(1)
    }

    fn title_seconds(&self) -> u32 {
        self.seconds.ceil() as u32 + EXTRA_SECONDS
    }

    fn title_bytes(&self) -> u64 {
        self.title_bps / 8 * u64::from(self.title_seconds())
    }

    fn greedy_bytes(&self) -> u64 {
        self.greedy_bps / 8 * u64::from(self.title_seconds())
    }
}

/// The experiment.
#[derive(Debug)]
pub struct Priority;

impl Experiment for Priority {
    fn name(&self) -> &'static str {
        "priority"
    }

    fn title(&self) -> &'static str {
        "Priority on an overloaded disk"
    }

    fn about(&self) -> &'static str {
        "rates of guaranteed streams and of a best-effort one on a slow disk, from idle to overloaded, for each server (needs root)"
    }

    fn needs_root(&self) -> bool {
        true
    }

    fn settings(&self, args: &Args) -> BTreeMap<String, f64> {
        let plan = Plan::new(args);
        [
            ("seconds", plan.seconds),
            ("disk_bytes_per_s", plan.disk_bytes_per_s as f64),
            ("title_bps", plan.title_bps as f64),
            ("greedy_bps", plan.greedy_bps as f64),
            ("beside_bytes", plan.beside_bytes as f64),
            ("titles", plan.titles() as f64),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
    }

    fn method(&self, data: &Data) -> String {
        let setting = |name: &str| data.settings.get(name).copied().unwrap_or(0.0);
        format!(
            "A disk of {} MB/s ({} Mbps; a throttle group of qemu-storage-daemon). Everybody plays a title of their own, so nothing can come from \
             a cache: n streams of {} Mbps, and one of {} Mbps that alone would take most of the disk. With tactus the n are guaranteed and the one \
             is best-effort (?class=best-effort, --cache off); the disk was measured by tactus probe-disk, admission promises 80 % of it \
             (--disk-share), and guaranteed streams that do not fit are refused at SETUP, while best-effort ones are never refused for the disk's \
             sake. A server without classes gets the same {} streams and accepts all. Rates are those at the receiver in each second of {} s, against \
             the media's own time line; a stream starves in a second that brings less than 95 % of it. Where a series says so, a process beside \
             the server reads a file of {} GB from the same disk, 256 KiB at a time, of which tactus does not know; or tactus itself imports \
             that file from this disk to another one. {}",
            number(setting("disk_bytes_per_s") / 1e6),
            number(setting("disk_bytes_per_s") * 8.0 / 1e6),
            number(setting("title_bps") / 1e6),
            number(setting("greedy_bps") / 1e6),
            "n + 1",
            number(setting("seconds")),
            number(setting("beside_bytes") / 1e9),
            servers::noise(data)
        )
    }

    fn run(&self, context: &mut Context<'_>) -> Result<(), FiguresError> {
        let plan = Plan::new(context.args);
        // Made for the first row that is not there already.
        let mut stage: Option<Stage> = None;
        let effort = context.args.effort();
        let peers = context.peers;
        for peer in peers {
            // What a reader does to others is not what this is about.
            let besides = match effort {
                _ if peer.name == OWN => Beside::ALL.as_slice(),
                Effort::Full => &[Beside::Nothing, Beside::Reader],
                Effort::Quick | Effort::Standard => &[Beside::Nothing],
            };
            for &beside in besides {
                for &guaranteed in &plan.guaranteed {
                    let series = format!("{}{}", peer.name, beside.suffix());
                    context.measure(&series, guaranteed as f64, |context| {
                        let stage = match &mut stage {
                            Some(stage) => stage,
                            none => none.insert(Stage::new(&plan, &context.args.out)?),
                        };
                        let mut run = Run { plan: &plan, stage, peer, guaranteed, beside };
                        run.measure(context, series.clone())
                    })?;
                }
            }
        }
        Ok(())
    }

    fn plots(&self, data: &Data) -> Vec<Plot> {
        draw::plots(data)
    }

    fn columns(&self) -> &'static [(&'static str, &'static str, f64, usize)] {
        &[
            ("playing", "guaranteed_playing", 1.0, 0),
            ("refused", "guaranteed_refused", 1.0, 0),
            ("their rate, % of their own", "guaranteed_percent", 1.0, 3),
            ("least stream", "guaranteed_least_percent", 1.0, 3),
            ("most", "guaranteed_most_percent", 1.0, 3),
            ("worst second of any", "guaranteed_worst_second_percent", 1.0, 1),
            ("starved seconds", "starved_seconds", 1.0, 0),
            ("of", "judged_seconds", 1.0, 0),
            ("best-effort, Mbps", "best_effort_mbps", 1.0, 2),
            ("beside, Mbps", "beside_mbps", 1.0, 2),
            ("lost", "loss", 1.0, 0),
            ("CPU of the server, %", "server_cpu_percent", 1.0, 1),
            ("of all others, %", "machine_other_percent", 1.0, 1),
        ]
    }
}

/// One measurement.
struct Run<'a> {
    plan: &'a Plan,
    stage: &'a mut Stage,
    peer: &'a Peer,
    guaranteed: usize,
    beside: Beside,
}

impl Run<'_> {
    fn measure(&mut self, context: &Context<'_>, series: String) -> Result<Row, FiguresError> {
        let x = self.guaranteed as f64;
        match self.observed(context) {
            Ok((report, beside_bytes_per_s, trouble)) => Ok(self.row(context, series, &report, beside_bytes_per_s, trouble)),
            Err(FiguresError::Bench(BenchError::Peer(error)) | FiguresError::Peer(error)) => {
                Ok(Row { series, x, values: BTreeMap::new(), trouble: Some(error.to_string()), disturbed_percent: None })
            }
            Err(error) => Err(error),
        }
    }

    fn observed(&mut self, context: &Context<'_>) -> Result<(Report, f64, Option<String>), FiguresError> {
        let log = context.logs()?.join(format!("{}-priority-{}{}.log", self.peer.name, self.guaranteed, self.beside as u8));
        let index = context.args.out.join("index-cache").display().to_string();
        let profile = self.stage.profile.display().to_string();
        let root = self.stage.root().display().to_string();
        let own = [
            ("--disk-share", "80"),
            ("--import-from", root.as_str()),
            ("--disk-profile", profile.as_str()),
            ("--cache", "off"),
            ("--class-query", "any"),
            ("--index-cache", index.as_str()),
        ];
        let has_classes = self.peer.name == OWN;
        let peer = if has_classes { self.peer.with_options(&own) } else { self.peer.clone() };
        if has_classes && !std::mem::replace(&mut self.stage.indexed, true) {
            self.index(&peer, &log)?;
        }
        self.stage.forget()?;
        let mut server = peer.start(&self.stage.media(), self.guaranteed + 16, &log)?;
        let mut options = video_over_udp(urls(&server, has_classes, self.guaranteed), self.guaranteed + 1, RAMP, self.plan.seconds);
        options.per_stream = true;
        let beside = self.beside.start(self.stage, &server)?;
        let (since, before) = (std::time::Instant::now(), beside.bytes());
        let Observed { report, died, .. } = observe(&mut server, options)?;
        let done = beside.bytes().saturating_sub(before);
        // Who is refused for the disk's sake was asked for on purpose; the best-effort stream never is.
        let refused = report.refused.get(FULL).copied().filter(|_| has_classes).unwrap_or(0);
        let trouble = trouble(&report, (self.guaranteed + 1).saturating_sub(refused as usize), died);
        let best_effort_plays = report.streams.iter().any(|stream| stream.client == 0);
        let trouble = trouble.or_else(|| (!best_effort_plays).then(|| "the best-effort stream did not play".to_owned()));
        Ok((report, done as f64 / since.elapsed().as_secs_f64(), trouble))
    }

    /// Has the server index all titles, so that no measurement has that in it.
    fn index(&self, peer: &Peer, log: &Path) -> Result<(), FiguresError> {
        let titles = self.plan.titles();
        let server = peer.start(&self.stage.media(), titles + 16, log)?;
        let options = video_over_udp(urls(&server, true, titles), titles + 1, RAMP, 0.1);
        load::run(&options, &mut |_| true).map(drop).map_err(|e| BenchError::from(e).into())
    }

    fn row(&self, context: &Context<'_>, series: String, report: &Report, beside_bytes_per_s: f64, trouble: Option<String>) -> Row {
        let mut values = figures(&report.streams, report.metric("steady_s"));
        values.insert("guaranteed_refused".into(), report.refused.values().sum::<u64>() as f64);
        values.insert("loss".into(), report.metric("loss"));
        if self.beside != Beside::Nothing {
            values.insert("beside_mbps".into(), beside_bytes_per_s * 8.0 / 1e6);
        }
        for name in ["server_cpu_percent", "machine_other_percent", "noise_max_ms", "setup_p99_ms"] {
            values.extend(report.metrics.get(name).map(|&value| (name.to_owned(), value)));
        }
        let others = report.metric("machine_other_percent");
        let disturbed_percent = (others > context.args.disturbance).then_some(others);
        Row { series, x: self.guaranteed as f64, values, trouble, disturbed_percent }
    }
}

/// The best-effort stream is the first client.
fn urls(server: &Running, has_classes: bool, guaranteed: usize) -> Vec<String> {
    let query = if has_classes { "?class=best-effort" } else { "" };
    let greedy = server.url(&format!("{GREEDY}{query}"));
    std::iter::once(greedy).chain((0..guaranteed).map(|n| server.url(&format!("clip-{n:04}.mp4")))).collect()
}

/// What the guaranteed streams got, and the best-effort one, which is client 0.
fn figures(streams: &[StreamRate], steady_s: f64) -> BTreeMap<String, f64> {
    let mut values = BTreeMap::new();
    let mbps = |bytes: u64| bytes as f64 * 8.0 / 1e6 / steady_s.max(1e-3);
    let guaranteed: Vec<&StreamRate> = streams.iter().filter(|stream| stream.client > 0).collect();
    let sum = |of: fn(&StreamRate) -> u64| guaranteed.iter().map(|stream| of(stream)).sum::<u64>();
    values.insert("guaranteed_playing".to_owned(), guaranteed.len() as f64);
    values.insert("guaranteed_mbps".to_owned(), mbps(sum(|s| s.steady_bytes)));
    values.insert("judged_seconds".to_owned(), sum(|s| s.seconds) as f64);
    values.insert("starved_seconds".to_owned(), sum(|s| s.starved_seconds) as f64);
    let shares: Vec<f64> = guaranteed.iter().filter_map(|stream| stream.share()).collect();
    let own = sum(|s| s.own_bytes);
    if own > 0 {
        let least = shares.iter().copied().fold(f64::INFINITY, f64::min);
        let most = shares.iter().copied().fold(0.0, f64::max);
        let worst = guaranteed.iter().filter(|s| s.seconds > 0).map(|s| s.least_permille).min().unwrap_or(0);
        values.insert("guaranteed_percent".to_owned(), 100.0 * sum(|s| s.delivered_bytes) as f64 / own as f64);
        values.insert("guaranteed_least_percent".to_owned(), 100.0 * least);
        values.insert("guaranteed_most_percent".to_owned(), 100.0 * most);
        values.insert("guaranteed_worst_second_percent".to_owned(), worst as f64 / 10.0);
    }
    let best_effort = streams.iter().filter(|stream| stream.client == 0).map(|stream| stream.steady_bytes).sum();
    values.insert("best_effort_mbps".to_owned(), mbps(best_effort));
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_summed_by_their_class() {
        let stream = |client, delivered_bytes, least_permille, starved_seconds| StreamRate {
            client,
            seconds: 4,
            own_bytes: 4000,
            delivered_bytes,
            least_permille,
            starved_seconds,
            steady_bytes: 1_250_000,
        };
        let found = figures(&[stream(1, 4000, 998, 0), stream(0, 100, 0, 4), stream(2, 3000, 500, 1)], 5.0);
        let value = |name: &str| found[name];
        assert_eq!((value("guaranteed_playing"), value("best_effort_mbps"), value("guaranteed_mbps")), (2.0, 2.0, 4.0));
        assert_eq!((value("guaranteed_percent"), value("guaranteed_least_percent"), value("guaranteed_most_percent")), (87.5, 75.0, 100.0));
        assert_eq!((value("guaranteed_worst_second_percent"), value("starved_seconds"), value("judged_seconds")), (50.0, 1.0, 8.0));
        // Nobody was let in.
        let none = figures(&[stream(0, 100, 0, 4)], 5.0);
        assert!(!none.contains_key("guaranteed_percent") && none["guaranteed_playing"] == 0.0);
    }
}
