//! How the experiment's rows are drawn.

use super::super::experiment::Data;
use super::super::plot::{Axis, Line, Mark, Plot, Stroke};
use super::super::scale::number;
use super::super::servers;
use super::beside::Beside;

fn name(series: &str) -> String {
    let (server, beside) = Beside::of(series);
    format!("{}{}", servers::display_name(server), beside.suffix())
}

/// A colour for each server; broken with something beside it.
fn lines(data: &Data, value: &str, of: &str) -> Vec<Line> {
    let series = data.series();
    let mut servers: Vec<&str> = series.iter().map(|series| Beside::of(series).0).collect();
    servers.dedup();
    let line = |series: &&str| {
        let (server, beside) = Beside::of(series);
        Line {
            label: format!("{}{of}", name(series)),
            points: data.points(series, value),
            hue: servers.iter().position(|known| *known == server).unwrap_or(0),
            stroke: match beside {
                Beside::Nothing => Stroke::Solid,
                Beside::Reader => Stroke::Dashed,
                Beside::Import => Stroke::Dotted,
            },
        }
    };
    series.iter().map(line).filter(|line| !line.points.is_empty()).collect()
}

fn marks(data: &Data, value: &str) -> Vec<Mark> {
    servers::marks(data, &[value])
}

pub fn plots(data: &Data) -> Vec<Plot> {
    let plot = |id: &str, title: &str, caption: String, label: &str, lines: Vec<Line>, value: &str| Plot {
        id: format!("priority-{id}"),
        title: title.into(),
        caption,
        x: Axis { label: "streams asked for beside the best-effort one".into(), log: false },
        y: Axis { label: label.into(), log: false },
        lines,
        marks: marks(data, value),
    };
    let mut best_effort = lines(data, "best_effort_mbps", "");
    best_effort.extend(left(data));
    vec![
        plot(
            "guaranteed",
            "The guaranteed streams: the worst stream's rate",
            guaranteed_caption(data),
            "rate of the worst stream, % of its own",
            lines(data, "guaranteed_least_percent", ""),
            "guaranteed_least_percent",
        ),
        plot(
            "best-effort",
            "The best-effort stream gets what is left",
            best_effort_caption(data),
            "rate of the best-effort stream, Mbps",
            best_effort,
            "best_effort_mbps",
        ),
        plot(
            "playing",
            "Streams that play",
            "Streams beside the best-effort one that were let in. What tactus refuses, it refuses at SETUP; a server without classes lets everybody \
             in."
            .into(),
            "streams that play",
            lines(data, "guaranteed_playing", ""),
            "guaranteed_playing",
        ),
    ]
}

/// What the guaranteed streams of tactus leave of the disk, as far as the best-effort stream wants it.
fn left(data: &Data) -> Option<Line> {
    let setting = |name: &str| data.settings.get(name).copied();
    let (disk_mbps, wants_mbps) = (setting("disk_bytes_per_s")? * 8.0 / 1e6, setting("greedy_bps")? / 1e6);
    let points = data.points(super::OWN, "guaranteed_mbps");
    let points: Vec<(f64, f64)> = points.into_iter().map(|(x, mbps)| (x, (disk_mbps - mbps).clamp(0.0, wants_mbps))).collect();
    let label = "what the guaranteed streams of tactus leave of the disk".to_owned();
    (!points.is_empty()).then_some(Line { label, points, hue: 0, stroke: Stroke::Reference })
}

fn guaranteed_caption(data: &Data) -> String {
    let mut text =
        "Received in the whole measurement, of what the media's time line has in it; of all streams that play, the one that got least."
            .to_owned();
    for series in data.series() {
        let column = |value: &str| data.points(series, value).into_iter().map(|(_, y)| y).collect::<Vec<f64>>();
        let (least, most) = (column("guaranteed_least_percent"), column("guaranteed_most_percent"));
        let Some(least) = least.into_iter().min_by(f64::total_cmp) else { continue };
        let most = most.into_iter().fold(0.0, f64::max);
        let sum = |value: &str| column(value).into_iter().sum::<f64>();
        text.push_str(&format!(
            " {}: {least:.3} to {most:.3} % for every stream at every number, {} of {} stream-seconds starved.",
            name(series),
            number(sum("starved_seconds")),
            number(sum("judged_seconds"))
        ));
    }
    format!("{text} {}", servers::troubles(data, "streams"))
}

fn best_effort_caption(data: &Data) -> String {
    let told = data.series().into_iter().filter_map(|series| {
        let points = data.points(series, "best_effort_mbps");
        let ((few, before), (many, after)) = (*points.first()?, *points.last()?);
        Some(format!("{}: {} Mbps beside {}, {} Mbps beside {}.", name(series), number(before), number(few), number(after), number(many)))
    });
    let told: Vec<String> = told.collect();
    format!("Where more guaranteed streams are asked for than admission lets in, the line stays level. {}", told.join(" "))
}
