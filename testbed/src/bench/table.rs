//! The bench's results for people.

use std::fmt::Write as _;

use super::{Cell, Results};

/// The median of a metric over the rounds of one kind, peer and number of streams.
fn median(cells: &[&Cell], name: &str) -> Option<f64> {
    let mut values: Vec<f64> = cells.iter().filter_map(|c| c.metrics.get(name).copied()).collect();
    values.sort_by(f64::total_cmp);
    let upper = *values.get(values.len() / 2)?;
    let lower = *values.get(values.len().checked_sub(1)? / 2)?;
    Some((lower + upper) / 2.0)
}

fn number(value: Option<f64>, width: usize, decimals: usize) -> String {
    value.map_or_else(|| format!("{:>width$}", "-"), |v| format!("{v:>width$.decimals$}"))
}

/// Cells of one kind, in groups that differ only by their round, in the order measured.
fn groups<'a>(results: &'a Results, kind: &str) -> Vec<Vec<&'a Cell>> {
    let mut groups: Vec<Vec<&Cell>> = Vec::new();
    for cell in results.cells.iter().filter(|c| c.spec.kind == kind) {
        let same = |group: &&mut Vec<&Cell>| group.first().is_some_and(|c| c.peer == cell.peer && c.spec.streams == cell.spec.streams);
        match groups.iter_mut().find(same) {
            Some(group) => group.push(cell),
            None => groups.push(vec![cell]),
        }
    }
    groups
}

/// A column: heading, metric, factor, decimals.
type Column = (&'static str, &'static str, f64, usize);

const STEADY: [Column; 17] = [
    ("playing", "playing", 1.0, 0),
    ("us/packet", "server_ns_per_packet", 1e-3, 2),
    ("sendmmsg", "sendmmsg_ns_per_packet", 1e-3, 2),
    ("CPU %", "server_cpu_percent", 1.0, 1),
    ("late p50", "late_p50_ms", 1.0, 3),
    ("p99", "late_p99_ms", 1.0, 3),
    ("p99.9", "late_p999_ms", 1.0, 3),
    ("max", "late_max_ms", 1.0, 2),
    ("frame p99", "frame_late_p99_ms", 1.0, 3),
    ("burst", "burst_max", 1.0, 0),
    ("rate ok %", "rate_conforming", 100.0, 2),
    ("lost", "loss", 1.0, 0),
    ("first pkt", "play_to_packet_p50_ms", 1.0, 2),
    ("connect+", "connect_to_packet_p50_ms", 1.0, 2),
    ("others %", "machine_other_percent", 1.0, 0),
    ("stolen %", "machine_stolen_percent", 1.0, 1),
    ("noise max", "noise_max_ms", 1.0, 2),
];
const SET_UP: [Column; 6] = [
    ("playing", "playing", 1.0, 0),
    ("sessions/s", "sessions_per_s", 1.0, 0),
    ("DESCRIBE", "describe_p50_ms", 1.0, 2),
    ("SETUP", "setup_p50_ms", 1.0, 2),
    ("PLAY", "play_p50_ms", 1.0, 2),
    ("connect+", "connect_to_packet_p50_ms", 1.0, 2),
];
const LIMIT: [Column; 9] = [
    ("asked", "asked", 1.0, 0),
    ("accepted", "accepted", 1.0, 0),
    ("refused", "refused", 1.0, 0),
    ("failed", "failed", 1.0, 0),
    ("us/packet", "server_ns_per_packet", 1e-3, 2),
    ("CPU %", "server_cpu_percent", 1.0, 1),
    ("late p99", "late_p99_ms", 1.0, 3),
    ("burst", "burst_max", 1.0, 0),
    ("memory MB", "server_resident_mb", 1.0, 0),
];

fn section(text: &mut String, results: &Results, kind: &str, heading: &str, columns: &[Column]) {
    let groups = groups(results, kind);
    if groups.is_empty() {
        return;
    }
    let _ = write!(text, "\n{heading}\n{:>7}  {:<18}", "streams", "server");
    for (name, ..) in columns {
        let _ = write!(text, "{name:>11}");
    }
    text.push('\n');
    for group in groups {
        let Some(first) = group.first() else { continue };
        let _ = write!(text, "{:>7}  {:<18}", first.spec.streams, first.peer);
        for (_, metric, factor, decimals) in columns {
            text.push_str(&number(median(&group, metric).map(|v| v * factor), 11, *decimals));
        }
        text.push('\n');
        for cell in &group {
            if let Some(trouble) = &cell.trouble {
                let _ = writeln!(text, "{:>9}round {}: {trouble}", "", cell.spec.round);
            }
        }
    }
}

/// The whole table.
pub fn text(results: &Results) -> String {
    let mut text = String::new();
    let machine = &results.machine;
    let _ = writeln!(
        text,
        "{} cores, {}, Linux {}; clips of {:.2} Mbps, {} s each, {} rounds. Times in ms.",
        machine.cores,
        machine.processor,
        machine.kernel,
        results.settings.rate as f64 / 1e6,
        results.settings.seconds,
        results.settings.rounds
    );
    let _ = writeln!(
        text,
        "Lateness of packets: against the evenly spread frame where the server paces, against the RTP timestamp where it sends frames at once\n\
         (the one that fits better); us/packet: CPU of the server's process; sendmmsg: what the kernel alone takes to send such a packet,\n\
         measured just before. Lateness of frames: first packets against the RTP timestamp. burst: packets of one stream closer than 200 us.\n\
         first pkt: PLAY to first packet; connect+: connect to first packet; others: CPU of everything else meanwhile, stolen: taken by the\n\
         hypervisor, both in percent of one core; noise max: the longest gap of a spinning thread in the second before."
    );
    section(&mut text, results, "steady", "Playing", &STEADY);
    section(&mut text, results, "set-up", "Set-up as fast as possible", &SET_UP);
    section(&mut text, results, "limit", "At the limit of sessions (slow clips)", &LIMIT);
    for held in &results.held {
        let _ = writeln!(text, "\n{held}");
    }
    for cell in results.cells.iter().filter(|c| c.spec.kind == "limit") {
        let refused: Vec<String> = cell.refused.iter().map(|(what, count)| format!("{count} by {what}")).collect();
        let _ = writeln!(text, "         refused: {}", refused.join(", "));
    }
    text
}

/// True when each run at the limit had every session within it accepted, and every other one refused by a status.
pub fn limit_kept(results: &Results) -> bool {
    results.cells.iter().filter(|c| c.spec.kind == "limit").all(|cell| {
        let metric = |name| cell.metrics.get(name).copied().unwrap_or(-1.0) as i64;
        let beyond = cell.spec.streams.saturating_sub(cell.spec.limit) as i64;
        metric("accepted") == cell.spec.limit as i64 && metric("refused") == beyond && metric("failed") == 0
    })
}
