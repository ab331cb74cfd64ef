//! Experiment `cpu-load`: how punctual servers stay while something else uses the processors.

use std::collections::BTreeMap;

use super::experiment::{Context, Data, Experiment};
use super::plot::{Axis, Line, Plot, Stroke};
use super::scale::number;
use super::{Args, Effort, FiguresError, servers};
use crate::burn::Burner;

/// The experiment.
#[derive(Debug)]
pub struct CpuLoad;

fn loads(args: &Args) -> Vec<u8> {
    let loads: &[u8] = match args.effort() {
        Effort::Quick => &[0, 50, 90],
        Effort::Standard => &[0, 20, 40, 60, 80, 90],
        Effort::Full => &[0, 10, 20, 30, 40, 50, 60, 70, 80, 90, 95],
    };
    if args.loads.is_empty() { loads.to_vec() } else { args.loads.clone() }
}

impl Experiment for CpuLoad {
    fn name(&self) -> &'static str {
        "cpu-load"
    }

    fn title(&self) -> &'static str {
        "Punctuality against CPU load"
    }

    fn about(&self) -> &'static str {
        "lateness against the share of every core that another process burns, for each server"
    }

    fn settings(&self, args: &Args) -> BTreeMap<String, f64> {
        let mut settings = servers::settings(args);
        settings.insert("streams".into(), args.load_streams() as f64);
        settings
    }

    fn method(&self, data: &Data) -> String {
        let setting = |name: &str| data.settings.get(name).copied().unwrap_or(0.0);
        format!(
            "Each server serves {} streams of {} Mbps over UDP on loopback, for {} s, while another process (testbed burn, a thread pinned to each \
             core, ordinary priority) uses the given share of every core in periods of 10 ms. The load generator runs before ordinary threads. {} {} \
             That thread, too, shared the machine with the load.",
            number(setting("streams")),
            number(setting("rate_bps") / 1e6),
            number(setting("seconds")),
            servers::LATENESS,
            servers::noise(data)
        )
    }

    fn run(&self, context: &mut Context<'_>) -> Result<(), FiguresError> {
        let peers = context.peers.to_vec();
        let streams = context.args.load_streams();
        let cores = context.cores() as f64;
        for share in loads(context.args) {
            for peer in &peers {
                context.measure(&peer.name, f64::from(share), |context| {
                    let _burner = Burner::start(share).map_err(|e| FiguresError::File("testbed burn".into(), e))?;
                    servers::row(context, peer, streams, f64::from(share), f64::from(share) * cores)
                })?;
            }
        }
        Ok(())
    }

    fn plots(&self, data: &Data) -> Vec<Plot> {
        let mut lines = servers::lateness_lines(data);
        lines.push(noise_line(data));
        vec![Plot {
            id: "cpu-load-late".into(),
            title: "Lateness against CPU load".into(),
            caption: caption(data),
            x: Axis { label: "share of every core that another process burns, %".into(), log: false },
            y: Axis { label: "lateness of packets, ms".into(), log: true },
            lines,
            marks: servers::marks(data, &servers::LATENESS_VALUES),
        }]
    }

    fn columns(&self) -> &'static [(&'static str, &'static str, f64, usize)] {
        &[
            ("playing", "playing", 1.0, 0),
            ("lost", "loss", 1.0, 0),
            ("rate held, % of stream-seconds", "rate_conforming", 100.0, 2),
            ("CPU of the server, %", "server_cpu_percent", 1.0, 1),
            ("of all others, %", "machine_other_percent", 1.0, 1),
            ("late mean, ms", "late_mean_ms", 1.0, 3),
            ("p50", "late_p50_ms", 1.0, 3),
            ("p99", "late_p99_ms", 1.0, 3),
            ("p99.9", "late_p999_ms", 1.0, 3),
            ("max", "late_max_ms", 1.0, 2),
            ("noise max, ms", "noise_max_ms", 1.0, 2),
        ]
    }
}

/// The longest wait of the probing thread at each load, whichever server was measured after it.
fn noise_line(data: &Data) -> Line {
    let mut points: Vec<(f64, f64)> = Vec::new();
    for (x, y) in data.series().into_iter().flat_map(|series| data.points(series, "noise_max_ms")) {
        match points.iter_mut().find(|p| p.0 == x) {
            Some(point) => point.1 = point.1.max(y),
            None => points.push((x, y)),
        }
    }
    points.sort_by(|a, b| a.0.total_cmp(&b.0));
    Line { label: "noise: a spinning thread's longest wait".into(), points, hue: 0, stroke: Stroke::Reference }
}

fn caption(data: &Data) -> String {
    let told = data.series().into_iter().filter_map(|series| {
        let p99 = data.points(series, "late_p99_ms");
        let ((idle, before), (most, after)) = (*p99.first()?, *p99.last()?);
        let name = servers::display_name(series);
        Some(format!("{name}: p99 {} ms at {} %, {} ms at {} %.", number(before), number(idle), number(after), number(most)))
    });
    let told: Vec<String> = told.collect();
    let troubles = servers::troubles(data, "%");
    format!("Mean, 99th percentile and maximum over all packets; the scale is logarithmic, lower is better. {} {troubles}", told.join(" "))
}
