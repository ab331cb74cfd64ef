//! Experiment `lateness`: how punctual servers are, from idle to nearly all of their processor used by the streams themselves.
//!
//! `cpu-load` asks what other programs do to a server; here it is the server's own work that grows. Numbers of streams are chosen for each
//! server so that its busy share goes from nothing to its most, and the plots have that share across.

use std::collections::BTreeMap;

use super::experiment::{Context, Data, Experiment, Row};
use super::plot::{Axis, Line, Plot, Stroke};
use super::scale::number;
use super::{Args, Effort, FiguresError, servers};
use crate::bench::{BenchError, Observed, Place, trouble, video_over_udp};
use crate::net;
use crate::peers::Peer;

/// Clients that begin per second.
const RAMP: f64 = 400.0;
/// Length of a point in the full run, as the published figure has it.
const FULL_SECONDS: f64 = 420.0;
/// The busy share up to which the goals hold, percent.
const GOAL_BUSY_PERCENT: f64 = 60.0;
/// The load generator runs here; the engine core is the last one.
const GENERATOR_CPU: usize = 0;

/// How a server is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// As its table says.
    Plain,
    /// `--realtime on`.
    RealTime,
    /// `--poll busy`.
    Busy,
    /// `--poll busy`, on its own stack.
    OwnStack,
}

impl Way {
    fn of(peer: &Peer) -> &'static [Self] {
        if peer.name == "tactus" { &[Self::Plain, Self::RealTime, Self::Busy, Self::OwnStack] } else { &[Self::Plain] }
    }

    fn series(self, peer: &Peer) -> String {
        match self {
            Self::Plain if peer.name == "tactus" => "tactus, kernel sockets, adaptive".to_owned(),
            Self::Plain => peer.name.clone(),
            Self::RealTime => "tactus, kernel sockets, adaptive, real time".to_owned(),
            Self::Busy => "tactus, kernel sockets, busy".to_owned(),
            Self::OwnStack => "tactus, AF_XDP, busy".to_owned(),
        }
    }

    /// The server, run in this way; of ours, what is measured is not to end where it would refuse more.
    fn tuned(self, peer: &Peer) -> Peer {
        let own = if peer.name == "tactus" { peer.with_options(&[("--cpu-share", "100")]) } else { peer.clone() };
        match self {
            Self::Plain => own,
            Self::RealTime => own.with_options(&[("--realtime", "on")]),
            Self::Busy | Self::OwnStack => own.with_options(&[("--poll", "busy")]),
        }
    }
}

/// Numbers of streams for a server.
fn streams(args: &Args, peer: &Peer, way: Way) -> Vec<usize> {
    let own = peer.name == "tactus";
    let streams: &[usize] = match args.effort() {
        Effort::Quick => &[25, 200],
        Effort::Standard if own => &[50, 500, 1000, 1500, 2000],
        Effort::Standard => &[25, 100, 200, 300],
        Effort::Full if matches!(way, Way::Busy | Way::OwnStack) => &[300, 1200, 2000],
        Effort::Full if own => &[300, 2000],
        Effort::Full => &[25, 250],
    };
    if args.streams.is_empty() { streams.to_vec() } else { args.streams.clone() }
}

fn seconds(args: &Args) -> f64 {
    if args.full && args.seconds.is_none() { FULL_SECONDS } else { args.seconds() }
}

/// The experiment.
#[derive(Debug)]
pub struct Lateness;

impl Experiment for Lateness {
    fn name(&self) -> &'static str {
        "lateness"
    }

    fn title(&self) -> &'static str {
        "Punctuality against the server's own load"
    }

    fn about(&self) -> &'static str {
        "lateness against how busy the streams keep the server: kernel sockets, AF_XDP (needs root), other servers"
    }

    fn settings(&self, args: &Args) -> BTreeMap<String, f64> {
        let mut settings = servers::settings(args);
        settings.insert("seconds".into(), seconds(args));
        settings.insert("ramp_per_s".into(), RAMP);
        settings
    }

    fn method(&self, data: &Data) -> String {
        let setting = |name: &str| data.settings.get(name).copied().unwrap_or(0.0);
        format!(
            "Each server serves more and more streams of {} Mbps over UDP, {} s at each number. Across is how busy that keeps it: with tactus the \
             share of the engine core's time in which it had something to do, as /api/v1/status tells (an engine that polls busily uses all of \
             its core whatever it has to do); with other servers their CPU time, of all cores. Kernel sockets are on loopback; the series AF_XDP is \
             tactus on its own stack at one end of a pair of virtual interfaces, clients at the other. adaptive sleeps between deadlines, at least \
             0.2 ms at a time; busy never sleeps; real time is SCHED_FIFO. The load generator is on core {GENERATOR_CPU} and runs before ordinary threads there; the \
             engine core is the last one. {} {}",
            number(setting("rate_bps") / 1e6),
            number(setting("seconds")),
            servers::LATENESS,
            servers::noise(data)
        )
    }

    fn run(&self, context: &mut Context<'_>) -> Result<(), FiguresError> {
        let peers = context.peers;
        for peer in peers {
            for &way in Way::of(peer) {
                if way == Way::OwnStack && !net::is_root() {
                    eprintln!("  SKIPPED (needs root): {}", way.series(peer));
                    continue;
                }
                for streams in streams(context.args, peer, way) {
                    context.measure(&way.series(peer), streams as f64, |context| measure(context, peer, way, streams))?;
                }
            }
        }
        Ok(())
    }

    fn plots(&self, data: &Data) -> Vec<Plot> {
        let plot = |id: &str, title: &str, value: &str, noise: (&str, &str), caption: String| {
            let mut lines = lines(data, value);
            lines.push(noise_line(data, noise));
            Plot {
                id: format!("lateness-{id}"),
                title: title.into(),
                caption,
                x: Axis { label: "how busy the streams keep the server, %".into(), log: false },
                y: Axis { label: "lateness of packets, ms".into(), log: true },
                lines,
                marks: Vec::new(),
            }
        };
        let mean_noise = ("noise_wait_mean_ms", "noise: mean wait of who comes at a random moment");
        let p999_noise = ("noise_wait_p999_ms", "noise: wait of one in a thousand");
        let max_noise = ("noise_max_ms", "noise: a spinning thread's longest wait");
        vec![
            plot("mean", "Mean lateness", "late_mean_ms", mean_noise, goal(data, "late_mean_ms", mean_noise.0, "mean")),
            plot("p99", "99th percentile of lateness", "late_p99_ms", p999_noise, troubles(data)),
            plot("p999", "99.9th percentile of lateness", "late_p999_ms", p999_noise, goal(data, "late_p999_ms", p999_noise.0, "p99.9")),
            plot("max", "Maximum of lateness", "late_max_ms", max_noise, "One packet decides.".into()),
        ]
    }

    fn columns(&self) -> &'static [(&'static str, &'static str, f64, usize)] {
        &[
            ("playing", "playing", 1.0, 0),
            ("busy, %", "busy_percent", 1.0, 1),
            ("packets/s", "packets_per_s", 1.0, 0),
            ("lost", "loss", 1.0, 0),
            ("late mean, ms", "late_mean_ms", 1.0, 3),
            ("p50", "late_p50_ms", 1.0, 3),
            ("p99", "late_p99_ms", 1.0, 3),
            ("p99.9", "late_p999_ms", 1.0, 3),
            ("max", "late_max_ms", 1.0, 2),
            ("noise mean, ms", "noise_wait_mean_ms", 1.0, 4),
            ("p99.9", "noise_wait_p999_ms", 1.0, 3),
            ("max", "noise_max_ms", 1.0, 2),
            ("CPU of the server, %", "server_cpu_percent", 1.0, 1),
            ("of all others, %", "machine_other_percent", 1.0, 1),
        ]
    }
}

fn measure(context: &Context<'_>, peer: &Peer, way: Way, streams: usize) -> Result<Row, FiguresError> {
    let (series, x) = (way.series(peer), streams as f64);
    match observed(context, peer, way, streams) {
        Err(FiguresError::Peer(error) | FiguresError::Bench(BenchError::Peer(error))) => {
            Ok(Row { series, x, values: BTreeMap::new(), trouble: Some(error.to_string()), disturbed_percent: None })
        }
        other => other,
    }
}

fn observed(context: &Context<'_>, peer: &Peer, way: Way, streams: usize) -> Result<Row, FiguresError> {
    let place = if way == Way::OwnStack { Place::cable()? } else { Place::Loopback };
    let tuned = way.tuned(peer);
    let log = context.logs()?.join(format!("{}-lateness-{way:?}-{streams}.log", peer.name));
    let media = context.media_for(seconds(context.args))?;
    let mut server = place.start(&tuned, &media, streams + 16, &log)?;
    let url = vec![server.url("clip-000{n}.mp4")];
    let mut options = video_over_udp(url, streams, RAMP, seconds(context.args));
    options.titles = u64::from(super::experiment::TITLES);
    options.cpu = Some(GENERATOR_CPU);
    let (Observed { report, died, .. }, busy) = place.observe(&mut server, options)?;
    let trouble = trouble(&report, streams, died);
    let mut values: BTreeMap<String, f64> = report.metrics.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
    let cpu_percent = report.metric("server_cpu_percent") / context.cores() as f64;
    values.insert("busy_percent".into(), busy.map_or(cpu_percent, |busy| 100.0 * busy));
    // An engine that polls is not idle when it has nothing to do, and the cable's own work is the kernel's.
    let others = report.metric("machine_other_percent");
    let disturbed_percent = (others > context.args.disturbance).then_some(others);
    Ok(Row { series: way.series(peer), x: streams as f64, values, trouble, disturbed_percent })
}

/// One line for each series, over how busy it was.
fn lines(data: &Data, value: &str) -> Vec<Line> {
    let line = |(hue, series): (usize, &str)| {
        let rows = data.rows.iter().filter(|row| row.series == series);
        let mut points: Vec<(f64, f64)> = rows.filter_map(|row| Some((row.value("busy_percent")?, row.value(value)?))).collect();
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        Line { label: servers::display_name(series).to_owned(), points, hue, stroke: Stroke::Solid }
    };
    data.series().into_iter().enumerate().map(line).collect()
}

/// The machine's noise is not a matter of load: the median of what was probed before each measurement, across the plot.
fn noise_line(data: &Data, (value, label): (&str, &str)) -> Line {
    let mut found: Vec<f64> = data.rows.iter().filter_map(|row| row.value(value)).collect();
    found.sort_by(f64::total_cmp);
    let points = found.get(found.len() / 2).map_or(Vec::new(), |&middle| vec![(0.0, middle), (100.0, middle)]);
    Line { label: label.to_owned(), points, hue: 0, stroke: Stroke::Reference }
}

/// What became of a value up to the busy share of the goals, above the noise that was probed just before.
fn goal(data: &Data, value: &str, noise: &str, name: &str) -> String {
    let told = data.series().into_iter().filter_map(|series| {
        let rows = data.rows.iter().filter(|row| row.series == series && row.trouble.is_none());
        let within = rows.filter(|row| row.value("busy_percent").is_some_and(|busy| busy <= GOAL_BUSY_PERCENT));
        let above = within.filter_map(|row| Some((row.value(value)?, row.value(value)? - row.value(noise)?)));
        let (most, above) = above.max_by(|a, b| a.0.total_cmp(&b.0))?;
        Some(format!("{}: {name} {} ms, {} ms above the noise.", servers::display_name(series), number(most), number(above.max(0.0))))
    });
    let told: Vec<String> = told.collect();
    format!("The most up to {GOAL_BUSY_PERCENT:.0} % busy: {} {}", told.join(" "), troubles(data))
}

fn troubles(data: &Data) -> String {
    servers::troubles(data, "streams")
}
