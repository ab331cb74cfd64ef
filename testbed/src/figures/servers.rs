//! What the experiments that compare servers share: one measurement of one server, and lines for all of them.

use super::experiment::{Context, Data, Row};
use super::plot::{Line, Mark, Stroke};
use super::scale::number;
use super::{Args, FiguresError};
use crate::bench::{BenchError, CellSpec, measure};
use crate::peers::Peer;

/// Clients that begin per second.
const RAMP: f64 = 200.0;

/// What a server is called in figures.
pub fn display_name(peer: &str) -> &str {
    match peer {
        "tactus" => "tactus, kernel sockets",
        "gst-rtsp-server" => "GStreamer RTSP server",
        "send" => "testbed send",
        other => other,
    }
}

/// The settings that every comparison of servers has.
pub fn settings(args: &Args) -> std::collections::BTreeMap<String, f64> {
    [("seconds", args.seconds()), ("rate_bps", args.rate as f64), ("ramp_per_s", RAMP)].map(|(k, v)| (k.to_owned(), v)).into()
}

/// Loads `peer` with `streams`: one row at `x`. A server that fails is a result. `burnt_percent` of a core is used on purpose meanwhile.
///
/// # Errors
/// The load generator or its titles fail.
pub fn row(context: &Context<'_>, peer: &Peer, streams: usize, x: f64, burnt_percent: f64) -> Result<Row, FiguresError> {
    let (media, logs) = (context.media()?, context.logs()?);
    let seconds = context.args.seconds();
    let spec = CellSpec { streams, round: 1, seconds, ramp: RAMP, limit: streams + 16, kind: "figure" };
    let series = peer.name.clone();
    match measure(peer, &media, &logs, spec) {
        Ok(cell) => {
            let mut values: std::collections::BTreeMap<String, f64> = cell.metrics.iter().map(|(k, v)| ((*k).to_owned(), *v)).collect();
            values.insert("streams".to_owned(), streams as f64);
            let others = values.get("machine_other_percent").copied().unwrap_or(0.0) - burnt_percent;
            let disturbed_percent = (others > context.args.disturbance).then_some(others);
            Ok(Row { series, x, values, trouble: cell.trouble, disturbed_percent })
        }
        Err(BenchError::Peer(error)) => {
            Ok(Row { series, x, values: Default::default(), trouble: Some(error.to_string()), disturbed_percent: None })
        }
        Err(error) => Err(error.into()),
    }
}

/// A row for a place that is not measured, since the server had failed before it.
pub fn not_asked(peer: &Peer, x: f64, why: &str) -> Row {
    Row { series: peer.name.clone(), x, values: Default::default(), trouble: Some(why.to_owned()), disturbed_percent: None }
}

/// One line for each server.
pub fn lines(data: &Data, value: &str) -> Vec<Line> {
    let series = data.series().into_iter().enumerate();
    series
        .map(|(hue, name)| Line { label: display_name(name).to_owned(), points: data.points(name, value), hue, stroke: Stroke::Solid })
        .collect()
}

/// What [`lateness_lines`] draws.
pub const LATENESS_VALUES: [&str; 3] = ["late_mean_ms", "late_p99_ms", "late_max_ms"];

/// Mean, 99th percentile and maximum of the lateness, three lines for each server. In the legend those of one measure stand side by side.
pub fn lateness_lines(data: &Data) -> Vec<Line> {
    let [mean, p99, max] = LATENESS_VALUES;
    let measures = [("mean", mean, Stroke::Solid), ("p99", p99, Stroke::Dashed), ("max", max, Stroke::Dotted)];
    let series = data.series();
    let line = |(label, value, stroke): (&str, &str, Stroke)| {
        let lines = series.iter().enumerate().map(move |(hue, name)| Line {
            label: format!("{}: {label}", display_name(name)),
            points: data.points(name, value),
            hue,
            stroke,
        });
        lines.collect::<Vec<_>>()
    };
    measures.into_iter().flat_map(line).collect()
}

/// A mark wherever something went wrong or disturbed, and there are points to put it at.
pub fn marks(data: &Data, values: &[&str]) -> Vec<Mark> {
    let mut marks = Vec::new();
    for row in &data.rows {
        let points: Vec<f64> = values.iter().filter_map(|value| row.value(value)).collect();
        if let (Some(trouble), Some(&y)) = (&row.trouble, points.last()) {
            let label = if trouble.contains("hung") { "hung" } else { "trouble" };
            marks.push(Mark { at: (row.x, y), label: Some(label.to_owned()), detail: trouble.clone() });
        } else if let Some(percent) = row.disturbed_percent {
            let detail = format!("disturbed: other programs used {percent:.0} % of a core meanwhile");
            marks.extend(points.into_iter().map(|y| Mark { at: (row.x, y), label: None, detail: detail.clone() }));
        }
    }
    marks
}

/// What went wrong, in sentences; places with the same trouble share one.
pub fn troubles(data: &Data, unit: &str) -> String {
    let mut told: Vec<(&str, &str, Vec<String>)> = Vec::new();
    for row in &data.rows {
        let Some(why) = row.trouble.as_deref() else { continue };
        match told.iter_mut().find(|(series, known, _)| *series == row.series && *known == why) {
            Some((.., places)) => places.push(number(row.x)),
            None => told.push((&row.series, why, vec![number(row.x)])),
        }
    }
    let sentence =
        |(series, why, places): (&str, &str, Vec<String>)| format!("{} at {} {unit}: {why}.", display_name(series), places.join(", "));
    let mut told: Vec<String> = told.into_iter().map(sentence).collect();
    let disturbed: Vec<f64> = data.rows.iter().filter_map(|row| row.disturbed_percent).collect();
    if let Some(most) = disturbed.iter().copied().max_by(f64::total_cmp) {
        told.push(format!(
            "Rings: {} of {} measurements were disturbed by other programs, which used up to {most:.0} % of a core meanwhile.",
            disturbed.len(),
            data.rows.len()
        ));
    }
    told.join(" ")
}

/// How lateness is measured, in a sentence.
pub const LATENESS: &str = "Lateness is judged at the receiver, from kernel receive timestamps against each stream's own RTP time line; \
    servers that pace are judged packet by packet against the evenly spread frame, servers that send a frame at once against its RTP timestamp.";

/// What the machine itself added, in a sentence.
pub fn noise(data: &Data) -> String {
    let probes = data.rows.iter().filter(|row| row.value("noise_max_ms").is_some()).count();
    match data.most("noise_max_ms") {
        Some(most) => format!(
            "In the second before each of the {probes} measurements a spinning thread on the same machine was kept waiting for up to {} ms.",
            number(most)
        ),
        None => String::new(),
    }
}
