//! One measurement: one peer, one number of streams.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use serde::Serialize;

use super::{BenchError, TITLES, floor};
use crate::load::report::Report;
use crate::load::{self, Options, Phase, Snapshot, TransportKind};
use crate::noise;
use crate::peers::{Peer, PeerError, Running};
use crate::procstat::{self, MachineUse, ProcessUse};

/// What to measure.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct CellSpec {
    /// What this cell is for: `steady`, `set-up` or `limit`.
    pub kind: &'static str,
    /// Which round it belongs to.
    pub round: u32,
    /// Clients.
    pub streams: usize,
    /// Seconds measured.
    pub seconds: f64,
    /// Clients that begin per second.
    pub ramp: f64,
    /// The limit of sessions that the server is given.
    pub limit: usize,
}

/// What was found.
#[derive(Debug, Serialize)]
pub struct Cell {
    /// Which server.
    pub peer: String,
    /// What was measured.
    pub spec: CellSpec,
    /// The load's metrics, and those of the server's process (`server_...`) and the machine (`machine_...`).
    pub metrics: BTreeMap<&'static str, f64>,
    /// What each packet was measured against.
    pub late_against: &'static str,
    /// Sessions refused, by request and status.
    pub refused: BTreeMap<String, u64>,
    /// Sessions failed, by reason.
    pub failed: BTreeMap<&'static str, u64>,
    /// Bursts by length.
    pub bursts: Vec<(usize, u64)>,
    /// What went wrong with the server, if something did.
    pub trouble: Option<String>,
}

/// The server and the machine at one moment of the load.
#[derive(Clone, Copy, Debug)]
struct Moment {
    load: Snapshot,
    server: ProcessUse,
    machine: MachineUse,
}

impl Moment {
    fn take(load: &Snapshot, pid: u32) -> Option<Self> {
        Some(Self { load: *load, server: procstat::process(pid).ok()?, machine: procstat::machine().ok()? })
    }
}

/// As [`measure`], with a server that does not start made a result.
///
/// # Errors
/// The load generator cannot run, or the server's program is missing.
pub fn measure_reported(peer: &Peer, media: &Path, logs: &Path, spec: CellSpec) -> Result<Cell, BenchError> {
    match measure(peer, media, logs, spec) {
        Err(BenchError::Peer(error @ PeerError::NotReady(..))) => Ok(Cell {
            peer: peer.name.clone(),
            spec,
            metrics: BTreeMap::new(),
            late_against: "",
            refused: BTreeMap::new(),
            failed: BTreeMap::new(),
            bursts: Vec::new(),
            trouble: Some(error.to_string()),
        }),
        other => other,
    }
}

/// Starts the server, loads it, and stops it. What the server says goes to a file in `logs`.
///
/// # Errors
/// The server does not start, or the load generator cannot run.
pub fn measure(peer: &Peer, media: &Path, logs: &Path, spec: CellSpec) -> Result<Cell, BenchError> {
    let floor_ns = floor::sendmmsg_ns().ok();
    let log = logs.join(format!("{}-{}-{}-{}.log", peer.name, spec.kind, spec.streams, spec.round));
    let mut server = peer.start(media, spec.limit, &log)?;
    let options = options(&server, spec);
    let Observed { mut report, died, .. } = observe(&mut server, options)?;
    if let Some(floor_ns) = floor_ns {
        report.metrics.insert("sendmmsg_ns_per_packet", floor_ns);
    }
    let trouble = trouble(&report, spec.streams.min(spec.limit), died);
    let Report { metrics, refused, failed, bursts, late_against, .. } = report;
    Ok(Cell { peer: peer.name.clone(), spec, metrics, late_against, refused, failed, bursts, trouble })
}

/// What went wrong in a run that was to have `streams` of them, if something did.
pub fn trouble(report: &Report, streams: usize, died: bool) -> Option<String> {
    let playing = report.metric("playing");
    if died {
        Some("the server died".to_owned())
    } else if report.failed.contains_key("timeout") {
        Some(format!("the server hung: {} requests were not answered in 10 s", report.failed.values().sum::<u64>()))
    } else if (playing as usize) < streams {
        Some(format!("only {playing} of {streams} streams played"))
    } else if report.metric("receiver_drops") > 0.0 {
        Some(format!("{} packets were lost at the receiver: this machine was too busy to measure", report.metric("receiver_drops")))
    } else {
        None
    }
}

/// What loading a server found.
pub struct Observed {
    /// The load's report, with the server's costs.
    pub report: Report,
    /// The server died.
    pub died: bool,
    /// When the part in which all played began and ended.
    pub steady: Option<(Instant, Instant)>,
}

/// Loads a server that runs, with a probe of the machine's noise before.
///
/// # Errors
/// The load generator cannot run.
pub fn observe(server: &mut Running, options: Options) -> Result<Observed, BenchError> {
    let noise = noise::probe(None, 1.0).ok();
    let (mut from, mut to, mut died, mut steady) = (None, None, false, (None, None));
    let outcomes = load::run(&options, &mut |snapshot| {
        match snapshot.phase {
            Phase::Ramp => {}
            Phase::Steady if from.is_none() => {
                from = Moment::take(snapshot, server.pid());
                steady.0.get_or_insert_with(Instant::now);
            }
            Phase::Steady => {}
            Phase::Stop if to.is_none() => {
                to = Moment::take(snapshot, server.pid());
                steady.1.get_or_insert_with(Instant::now);
            }
            Phase::Stop => {}
        }
        died |= !server.is_alive();
        !died
    })?;
    let mut report = Report::new(&options, &outcomes, noise);
    if let Some((from, to)) = from.zip(to) {
        add_costs(&mut report.metrics, &from, &to);
    }
    Ok(Observed { report, died, steady: steady.0.zip(steady.1) })
}

fn options(server: &Running, spec: CellSpec) -> Options {
    let titles = u64::from(TITLES);
    Options { titles, ..video_over_udp(vec![server.url("clip-000{n}.mp4")], spec.streams, spec.ramp, spec.seconds) }
}

/// What every measurement asks of the load generator: the pictures of these titles, over UDP.
pub fn video_over_udp(url: Vec<String>, clients: usize, ramp: f64, seconds: f64) -> Options {
    Options {
        url,
        titles: u64::MAX,
        clients,
        ramp,
        duration: seconds,
        transport: TransportKind::Udp,
        video_only: true,
        seek_every: None,
        churn: None,
        from: None,
        cpu: None,
        drift_ppm: None,
        settle: 1.0,
        starve: 1.0,
        sweep_ms: 2,
        noise: 0.0,
        per_stream: false,
        ordinary: false,
        quiet: true,
    }
}

/// What the server and everything else used between two moments.
fn add_costs(metrics: &mut BTreeMap<&'static str, f64>, from: &Moment, to: &Moment) {
    let wall_ns = to.load.elapsed_ns.saturating_sub(from.load.elapsed_ns).max(1) as f64;
    let packets = to.load.packets.saturating_sub(from.load.packets);
    let server_ns = to.server.cpu_ns.saturating_sub(from.server.cpu_ns) as f64;
    let load_ns = to.load.cpu_ns.saturating_sub(from.load.cpu_ns) as f64;
    let busy_ns = to.machine.busy_ns.saturating_sub(from.machine.busy_ns) as f64;
    metrics.insert("server_cpu_percent", 100.0 * server_ns / wall_ns);
    if packets > 0 {
        metrics.insert("server_ns_per_packet", server_ns / packets as f64);
    }
    metrics.insert("server_resident_mb", to.server.resident_bytes as f64 / 1e6);
    metrics.insert("server_threads", to.server.threads as f64);
    // Neither the server nor the generator: other programs, and the kernel's own work.
    metrics.insert("machine_other_percent", 100.0 * (busy_ns - server_ns - load_ns).max(0.0) / wall_ns);
    metrics.insert("machine_stolen_percent", 100.0 * to.machine.stolen_ns.saturating_sub(from.machine.stolen_ns) as f64 / wall_ns);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costs_are_those_between_the_moments() {
        let snapshot = |elapsed_ns, packets, cpu_ns| Snapshot {
            phase: Phase::Steady,
            elapsed_ns,
            asked: 0,
            playing: 0,
            refused: 0,
            failed: 0,
            packets,
            bytes: 0,
            cpu_ns,
        };
        let moment = |load, cpu_ns, busy_ns| Moment {
            load,
            server: ProcessUse { cpu_ns, resident_bytes: 5_000_000, threads: 2 },
            machine: MachineUse { busy_ns, stolen_ns: 0 },
        };
        let mut metrics = BTreeMap::new();
        let from = moment(snapshot(1_000_000_000, 500, 100), 1_000, 0);
        let to = moment(snapshot(3_000_000_000, 1_500, 200_000_100), 600_001_000, 1_200_000_000);
        add_costs(&mut metrics, &from, &to);
        assert_eq!(metrics["server_cpu_percent"], 30.0);
        assert_eq!(metrics["server_ns_per_packet"], 600_000.0);
        assert_eq!(metrics["machine_other_percent"], 20.0);
    }
}
