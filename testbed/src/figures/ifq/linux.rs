//! Experiment `ifq-linux`: the kernel's TCP on the path of experiment `ifq`, in real time.
//!
//! ```text
//! server: kernel TCP ─► [tbf, queue of 1000] ─► veth ─► wire: 1 Gbps, 1 ms, queue of 1000 ─► veth ─► client: kernel TCP
//! ```
//!
//! Two connections that never end, and a 100 KB transfer beside them, as there. The queue is either that of the wire, which the kernel does not
//! know of, or one of the kernel's own: a token bucket a little slower than the wire, with a queue of packets under it.

mod transfers;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;

use super::super::experiment::{Context, Data, Experiment, Row};
use super::super::plot::{Axis, Line, Plot, Stroke};
use super::super::scale::number;
use super::super::{Args, Effort, FiguresError};
use super::{Scenario, ms, path, row, told};
use crate::net::{Net, NetError, Topology};

const GIGABIT: &str = include_str!("../../../topologies/gigabit.toml");
/// The token bucket's rate: the wire's queue stays empty behind it.
const BUCKET: &str = "980mbit";
/// Its burst: a timer's tick at this rate.
const BURST: &str = "64kb";

/// Where packets wait at the sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Queue {
    /// In the wire, 1000 frames.
    Wire,
    /// In the kernel, behind a token bucket: this queueing discipline.
    Kernel(&'static str, &'static [&'static str]),
}

/// What is compared: name, congestion control, queue.
const SERIES: [(&str, &str, Queue); 4] = [
    ("Linux, CUBIC, 1000 frames in the wire", "cubic", Queue::Wire),
    ("Linux, CUBIC, pfifo of 1000", "cubic", Queue::Kernel("pfifo", &["limit", "1000"])),
    ("Linux, CUBIC, fq_codel", "cubic", Queue::Kernel("fq_codel", &[])),
    ("Linux, BBR, pfifo of 1000", "bbr", Queue::Kernel("pfifo", &["limit", "1000"])),
];

/// The experiment.
#[derive(Debug)]
pub struct IfqLinux;

impl Experiment for IfqLinux {
    fn name(&self) -> &'static str {
        "ifq-linux"
    }

    fn title(&self) -> &'static str {
        "The interface queue under the kernel's TCP"
    }

    fn about(&self) -> &'static str {
        "round-trip time and 100 KB transfers beside two endless ones with the kernel's TCP, in real time (needs root)"
    }

    fn needs_root(&self) -> bool {
        true
    }

    fn settings(&self, args: &Args) -> BTreeMap<String, f64> {
        [("seconds".to_owned(), seconds(args))].into()
    }

    fn method(&self, data: &Data) -> String {
        let seconds = data.settings.get("seconds").copied().unwrap_or(0.0);
        format!(
            "Real time, and so with what this machine adds: two network namespaces, joined by testbed net with 1 Gbps and a round-trip time of 2 ms \
             (testbed/topologies/gigabit.toml), the kernel's TCP at both ends, {} s. Round-trip times are the sender's own smoothed ones (TCP_INFO), \
             every 10 ms; a point is 100 ms. The wire is a process that needs most of a core for a full gigabit. The queue of 1000 is either \
             the wire's, or a queueing discipline of the kernel under a token bucket of {BUCKET}, where TCP sees it (TCP small queues). A discipline \
             that this kernel does not have is left out. Beside them our own stack from the experiment ifq, in simulated time, which knows no \
             noise.",
            number(seconds)
        )
    }

    fn run(&self, context: &mut Context<'_>) -> Result<(), FiguresError> {
        for (name, congestion, queue) in SERIES {
            eprintln!("  {name}");
            let topology = Topology::parse(GIGABIT, Path::new("gigabit.toml")).map_err(NetError::from)?;
            let net = topology.up()?;
            if let Err(why) = set_up(&net, queue) {
                eprintln!("    left out: {why}");
                continue;
            }
            let windows = transfers::run(&net, congestion, seconds(context.args)).map_err(|e| FiguresError::File(name.into(), e))?;
            let stats = net.stats()?;
            let late_ms = stats.links.first().map(|link| link.forward.lateness.p99_us / 1e3);
            let rows = windows.into_iter().map(|window| Row {
                series: name.to_owned(),
                x: window.end_ms,
                values: window.values(late_ms),
                trouble: None,
                disturbed_percent: None,
            });
            context.keep(rows.collect())?;
        }
        for limited in [false, true] {
            let series = format!("our stack, {} (simulated time)", if limited { "adaptive limit" } else { "no limit" });
            let outcome = path::run(Scenario::Short.setup(limited)).unwrap_or_default();
            context.keep(outcome.windows.iter().map(|window| row(&series, window)).collect())?;
        }
        Ok(())
    }

    fn plots(&self, data: &Data) -> Vec<Plot> {
        let plot = |id: &str, title: &str, caption: String, value: &str, label: &str| Plot {
            id: format!("ifq-linux-{id}"),
            title: title.into(),
            caption,
            x: Axis { label: "time, ms".into(), log: false },
            y: Axis { label: label.into(), log: true },
            lines: lines(data, value),
            marks: Vec::new(),
        };
        let rtt = told(data, "As TCP at the sender measures it; the empty path has 2 ms.", "srtt_median_ms", "ms");
        let late = data.most("wire_late_p99_ms").map_or(String::new(), |late| {
            format!(" The wire itself handed frames over late: p99 up to {} ms, which is in these round-trip times.", number(late))
        });
        vec![
            plot("rtt", "Round-trip time seen", format!("{rtt}{late}"), "srtt_median_ms", "median of smoothed round-trip times, ms"),
            plot(
                "short",
                "Short transfers",
                told(data, "100 KB from the SYN to the last byte, beside two connections that never end.", "short_ms", "ms"),
                "short_ms",
                "100 KB, ms",
            ),
        ]
    }

    fn columns(&self) -> &'static [(&'static str, &'static str, f64, usize)] {
        &[
            ("RTT median, ms", "srtt_median_ms", 1.0, 3),
            ("max", "srtt_max_ms", 1.0, 3),
            ("100 KB, ms", "short_ms", 1.0, 2),
            ("fairness", "fairness", 1.0, 4),
            ("both, Mbps", "mbps", 1.0, 0),
            ("wire late p99, ms", "wire_late_p99_ms", 1.0, 3),
        ]
    }
}

fn seconds(args: &Args) -> f64 {
    match args.effort() {
        Effort::Quick => 1.0,
        Effort::Standard => 3.0,
        Effort::Full => 10.0,
    }
}

/// A colour for each series; what is simulated is dashed.
fn lines(data: &Data, value: &str) -> Vec<Line> {
    let line = |(hue, series): (usize, &str)| Line {
        points: data.points(series, value),
        label: series.to_owned(),
        hue,
        stroke: if series.contains("simulated") { Stroke::Dashed } else { Stroke::Solid },
    };
    data.series().into_iter().enumerate().map(line).filter(|line| !line.points.is_empty()).collect()
}

/// Puts the queue in its place.
fn set_up(net: &Net, queue: Queue) -> Result<(), String> {
    let Queue::Kernel(discipline, options) = queue else { return Ok(()) };
    let bucket = ["root", "handle", "1:", "tbf", "rate", BUCKET, "burst", BURST, "limit", "2mb"];
    tc(net, &bucket)?;
    tc(net, &[&["parent", "1:1", "handle", "10:", discipline][..], options].concat())
}

fn tc(net: &Net, arguments: &[&str]) -> Result<(), String> {
    let mut command = net.command("server", "tc").map_err(|e| e.to_string())?;
    let output = command.args(["qdisc", "add", "dev", "eth0"]).args(arguments).stdin(Stdio::null()).output().map_err(|e| e.to_string())?;
    let said = String::from_utf8_lossy(&output.stderr).trim().replace('\n', ", ");
    if output.status.success() { Ok(()) } else { Err(format!("tc qdisc add {}: {said}", arguments.join(" "))) }
}

/// What 100 ms have seen.
#[derive(Clone, Debug, Default, PartialEq)]
struct Window {
    end_ms: f64,
    /// Smoothed round-trip times of the endless connections, microseconds.
    rtts_us: Vec<u32>,
    /// What each of them delivered, bytes.
    delivered: Vec<u64>,
    /// The short transfer that ended.
    short_ms: Option<f64>,
}

impl Window {
    fn values(mut self, late_ms: Option<f64>) -> BTreeMap<String, f64> {
        self.rtts_us.sort_unstable();
        let rtt_ms = |place: usize| self.rtts_us.get(place).map(|&us| f64::from(us) / 1e3);
        let settled = self.end_ms > ms(path::START_NS);
        let mbps = self.delivered.iter().sum::<u64>() as f64 * 8.0 / 1e6 / (ms(path::WINDOW_NS) / 1e3);
        let values = [
            ("srtt_median_ms", rtt_ms(self.rtts_us.len() / 2)),
            ("srtt_max_ms", rtt_ms(self.rtts_us.len().saturating_sub(1))),
            ("short_ms", self.short_ms),
            ("fairness", settled.then(|| path::jain(self.delivered.iter().copied()))),
            ("mbps", Some(mbps)),
            ("wire_late_p99_ms", late_ms),
        ];
        values.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_is_summed_up() {
        let window = Window { end_ms: 300.0, rtts_us: vec![9_000, 2_000, 3_000], delivered: vec![1_250_000, 0], short_ms: Some(7.5) };
        let values = window.values(Some(0.5));
        let value = |name: &str| values[name];
        assert_eq!((value("srtt_median_ms"), value("srtt_max_ms"), value("short_ms")), (3.0, 9.0, 7.5));
        assert_eq!((value("fairness"), value("mbps"), value("wire_late_p99_ms")), (0.5, 100.0, 0.5));
        assert!(!Window { end_ms: 100.0, ..Window::default() }.values(None).contains_key("fairness"));
    }

    #[test]
    fn the_path_is_that_of_the_simulated_experiment() {
        let topology = Topology::parse(GIGABIT, Path::new("gigabit.toml")).unwrap();
        assert_eq!(topology.name(), "gigabit");
        assert!(GIGABIT.contains("1 Gbps") && GIGABIT.contains("queue_frames = 1000"));
    }
}
