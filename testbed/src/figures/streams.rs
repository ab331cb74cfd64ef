//! Experiment `streams`: what servers deliver, what it costs them and how punctual they are, against the number of streams asked.

use std::collections::BTreeMap;

use super::experiment::{Context, Data, Experiment, Row};
use super::plot::{Axis, Line, Plot, Stroke};
use super::scale::number;
use super::{Args, Effort, FiguresError, servers};

/// The experiment.
#[derive(Debug)]
pub struct Streams;

/// All was delivered when this share of what was asked was: seconds do not begin and end with frames.
const DELIVERED: f64 = 0.97;

fn steps(args: &Args) -> Vec<usize> {
    let steps: &[usize] = match args.effort() {
        Effort::Quick => &[1, 25, 100],
        Effort::Standard => &[1, 50, 100, 200, 300, 400, 500, 750, 1000],
        Effort::Full => &[1, 50, 100, 200, 300, 400, 500, 600, 700, 800, 900, 1000, 1250, 1500],
    };
    if args.streams.is_empty() { steps.to_vec() } else { args.streams.clone() }
}

impl Experiment for Streams {
    fn name(&self) -> &'static str {
        "streams"
    }

    fn title(&self) -> &'static str {
        "Delivery, cost and punctuality against the number of streams"
    }

    fn about(&self) -> &'static str {
        "delivery rate, CPU and lateness against streams asked, for each server"
    }

    fn settings(&self, args: &Args) -> BTreeMap<String, f64> {
        servers::settings(args)
    }

    fn method(&self, data: &Data) -> String {
        let setting = |name: &str| data.settings.get(name).copied().unwrap_or(0.0);
        format!(
            "Each server serves the same {} CBR titles of {} Mbps (H.264) over UDP on loopback to the same clients (testbed load), {} new ones per \
             second; once all have begun, {} s are measured. Servers take turns at each number of streams. {} {}",
            super::experiment::TITLES,
            number(setting("rate_bps") / 1e6),
            number(setting("ramp_per_s")),
            number(setting("seconds")),
            servers::LATENESS,
            servers::noise(data)
        )
    }

    fn run(&self, context: &mut Context<'_>) -> Result<(), FiguresError> {
        let peers = context.peers.to_vec();
        let mut hung: BTreeMap<String, usize> = BTreeMap::new();
        for streams in steps(context.args) {
            for peer in &peers {
                let x = streams as f64;
                let before = hung.get(&peer.name).copied();
                let row: Row = context.measure(&peer.name, x, |context| match before {
                    Some(at) => Ok(servers::not_asked(peer, x, &format!("not asked, since it hung at {at} streams"))),
                    None => servers::row(context, peer, streams, x, 0.0),
                })?;
                if row.trouble.is_some_and(|t| t.contains("hung") || t.contains("died")) {
                    hung.entry(peer.name.clone()).or_insert(streams);
                }
            }
        }
        Ok(())
    }

    fn plots(&self, data: &Data) -> Vec<Plot> {
        let x = Axis { label: "streams asked".into(), log: false };
        let plot = |id: &str, title: &str, caption: String, y: Axis, lines: Vec<Line>, marked: &[&str]| Plot {
            id: format!("streams-{id}"),
            title: title.into(),
            caption,
            x: x.clone(),
            y,
            lines,
            marks: servers::marks(data, marked),
        };
        let mut delivered = servers::lines(data, "mbps");
        delivered.push(asked(data));
        let late = servers::lateness_lines(data);
        vec![
            plot(
                "rate",
                "Delivery rate against streams asked",
                delivery_caption(data),
                Axis { label: "delivered, Mbps (RTP, headers included)".into(), log: false },
                delivered,
                &["mbps"],
            ),
            plot(
                "cpu",
                "CPU against streams asked",
                cpu_caption(data),
                Axis { label: "CPU of the server, % of one core".into(), log: false },
                servers::lines(data, "server_cpu_percent"),
                &["server_cpu_percent"],
            ),
            plot(
                "late",
                "Lateness against streams asked",
                format!(
                    "Every packet of every stream while all played. The scale is logarithmic; lower is better. {}",
                    servers::troubles(data, "streams")
                ),
                Axis { label: "lateness of packets, ms".into(), log: true },
                late,
                &servers::LATENESS_VALUES,
            ),
        ]
    }

    fn columns(&self) -> &'static [(&'static str, &'static str, f64, usize)] {
        &[
            ("playing", "playing", 1.0, 0),
            ("Mbps", "mbps", 1.0, 1),
            ("lost", "loss", 1.0, 0),
            ("rate held, % of stream-seconds", "rate_conforming", 100.0, 2),
            ("CPU, %", "server_cpu_percent", 1.0, 1),
            ("us per packet", "server_ns_per_packet", 1e-3, 2),
            ("late mean, ms", "late_mean_ms", 1.0, 3),
            ("p99", "late_p99_ms", 1.0, 3),
            ("max", "late_max_ms", 1.0, 2),
            ("noise max, ms", "noise_max_ms", 1.0, 2),
        ]
    }
}

/// What would be delivered if all streams had their rate: that of the median stream where nothing went wrong, since titles' rates are those
/// of the payload.
fn asked(data: &Data) -> Line {
    let whole = data.rows.iter().filter(|row| row.trouble.is_none() && row.disturbed_percent.is_none());
    let mut rates: Vec<f64> = whole.filter_map(|row| Some(row.value("mbps")? / row.value("playing").filter(|n| *n > 0.0)?)).collect();
    rates.sort_by(f64::total_cmp);
    let own = data.settings.get("rate_bps").copied().unwrap_or(0.0) / 1e6;
    let rate = rates.get(rates.len() / 2).copied().unwrap_or(own);
    let most = data.rows.iter().map(|row| row.x).fold(0.0, f64::max);
    Line { label: "asked".into(), points: vec![(0.0, 0.0), (most, most * rate)], hue: 0, stroke: Stroke::Reference }
}

fn delivery_caption(data: &Data) -> String {
    let rate = asked(data).points.last().map_or(0.0, |(x, y)| y / x.max(1.0));
    let told: Vec<String> = data
        .series()
        .into_iter()
        .map(|series| {
            let name = servers::display_name(series);
            let points = data.points(series, "mbps");
            let (full, short): (Vec<_>, Vec<_>) = points.into_iter().partition(|(x, mbps)| *mbps >= DELIVERED * x * rate);
            let mut text = match full.last() {
                Some((most, _)) => format!("{name}: all of what was asked was delivered with {} streams", number(*most)),
                None => format!("{name}: never all of what was asked was delivered"),
            };
            let shares = short.iter().map(|(x, mbps)| format!("; {} % with {}", number(100.0 * mbps / (x * rate).max(1e-9)), number(*x)));
            text.extend(shares);
            text.push('.');
            text
        })
        .collect();
    format!("{} {}", told.join(" "), servers::troubles(data, "streams"))
}

fn cpu_caption(data: &Data) -> String {
    let told = data.series().into_iter().filter_map(|series| {
        let (x, _) = data.points(series, "mbps").pop()?;
        let (_, ns) = data.points(series, "server_ns_per_packet").pop()?;
        Some(format!("{} at {} streams: {} us of CPU per packet.", servers::display_name(series), number(x), number(ns / 1e3)))
    });
    let told: Vec<String> = told.collect();
    format!(
        "CPU time of the server's process, the kernel's work for it included (on loopback that is also receiving). {} {}",
        told.join(" "),
        servers::troubles(data, "streams")
    )
}
