//! Monitor data of the local engine: the polling module's half that asks the engine cores.

use std::sync::{Arc, Mutex, PoisonError};

use dataplane::engine::net::Layers;
use dataplane::engine::{Command, CoreReport, Reply, SessionReport, TrackReport};
use dataplane::gdsl::LatenessSnapshot;
use pacing::period::{Period, Spent, Unreserved};

use super::core::Core;
use super::disks::Disks;
use super::session::{Life, Session};
use crate::engine::{
    CoreStatus, EngineError, LatenessSummary, OwnStackStatus, SessionId, SessionState, SessionStatus, TrackStatus, TrackTransport,
    UnreservedStatus,
};

/// The latest answers of the engine cores.
#[derive(Default)]
pub(super) struct Monitor {
    latest: Mutex<Vec<CoreStatus>>,
}

impl Monitor {
    /// Asks every core.
    pub(super) async fn poll(&self, cores: &[Arc<Core>], disks: &Disks) {
        let mut answers = Vec::with_capacity(cores.len());
        for core in cores {
            if let Ok(Reply::Core(report)) = core.ask(|reply| Command::CoreStatus { reply, report: Box::default() }).await {
                core.observe(report.cost);
                for device in report.devices.iter().take(report.device_count) {
                    disks.observe(device.device, device.read_ns);
                }
                answers.push(core_status(core, &report));
            }
        }
        *self.latest.lock().unwrap_or_else(PoisonError::into_inner) = answers;
    }

    /// What the last poll found; polls when there was none yet.
    pub(super) async fn latest(&self, cores: &[Arc<Core>], disks: &Disks) -> Vec<CoreStatus> {
        let known = || self.latest.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let answers = known();
        if !answers.is_empty() {
            return answers;
        }
        self.poll(cores, disks).await;
        known()
    }
}

fn core_status(core: &Core, report: &CoreReport) -> CoreStatus {
    let facts = core.facts();
    let interval_ns = report.interval_ns.max(1) as f64;
    let devices = report.devices.iter().take(report.device_count);
    CoreStatus {
        core: core.index as u32,
        cpu: facts.cpu.and_then(|cpu| u32::try_from(cpu).ok()),
        busy: (report.busy_ns as f64 / interval_ns).min(1.0),
        sessions: report.sessions,
        playing: report.playing,
        packets: report.gdsl.packets,
        bytes: report.gdsl.bytes,
        rate_bps: (report.interval_bytes as f64 * 8e9 / interval_ns) as u64,
        ports: facts.ports,
        lateness: summary(report.lateness.snapshot()),
        carried_over: report.gdsl.carried_over,
        disk: facts.disk.clone(),
        disk_reads: report.disk.reads,
        disk_bytes: report.disk.bytes,
        disk_errors: report.disk.errors,
        disk_in_flight: report.disk.in_flight,
        promised: core.promised(),
        packet_ns: report.cost.packet_ns,
        read_ns: report.cost.read_ns,
        reserved: report.period.map_or(0.0, |period| period.reserved_ns() as f64 / period.length_ns() as f64),
        unreserved: report.period.iter().flat_map(unreserved).collect(),
        disk_late: devices.clone().map(|device| device.late).sum(),
        disk_retries: devices.map(|device| device.retries).sum(),
        chunks: facts.chunks as u64,
        chunks_free: report.chunks_free as u64,
        chunks_reserved: core.chunks_reserved() as u64,
        chunk_bytes: facts.chunk_bytes as u64,
        memory: facts.memory.clone(),
        net: facts.net.clone(),
        own_stack: report.layers.as_ref().map(own_stack),
    }
}

fn unreserved(period: &Period) -> impl Iterator<Item = UnreservedStatus> + '_ {
    Unreserved::ALL.iter().map(|&kind| {
        let Spent { ns, longest_ns, put_off } = period.spent(kind);
        UnreservedStatus { kind: kind.name().to_owned(), busy_us: ns / 1000, longest_us: longest_ns / 1000, put_off }
    })
}

fn own_stack(layers: &Layers) -> OwnStackStatus {
    let Layers { port, iface, tcp, steered, unserved, exchanged } = layers;
    OwnStackStatus {
        rx_frames: port.rx_frames,
        rx_bytes: port.rx_bytes,
        rx_dropped: port.rx_dropped,
        tx_frames: port.tx_frames,
        tx_bytes: port.tx_bytes,
        tx_failed: port.tx_failed,
        tx_full: port.tx_full,
        steered_to_us: steered.map(|(to_us, _)| to_us),
        left_to_kernel: steered.map(|(_, to_kernel)| to_kernel),
        on_other_queues: *unserved,
        handed_over: exchanged.handed_over,
        taken_over: exchanged.taken_over,
        handover_dropped: exchanged.dropped,
        malformed: iface.dropped_malformed,
        bad_checksums: iface.dropped_checksum,
        fragments_refused: iface.dropped_fragments,
        neighbours: iface.neighbours,
        tcp_established: tcp.established,
        tcp_rx_segments: tcp.rx_segments,
        tcp_tx_segments: tcp.tx_segments,
        tcp_retransmits: tcp.tx_retransmits,
        tcp_timeouts: tcp.rtos,
        tcp_ifq_waits: tcp.ifq_waits,
        tcp_cookies_sent: tcp.cookies_sent,
    }
}

fn summary(lateness: LatenessSnapshot) -> LatenessSummary {
    let LatenessSnapshot { packets, mean_us, p50_us, p99_us, p999_us, max_us } = lateness;
    LatenessSummary { packets, mean_us, p50_us, p99_us, p999_us, max_us }
}

/// Delivery state of one session.
pub(super) async fn session_status(id: SessionId, session: &Session) -> Result<SessionStatus, EngineError> {
    let (core, transport, life) = {
        let inner = session.inner();
        (inner.reservation.as_ref().map(|r| Arc::clone(&r.core)), inner.transport, inner.state)
    };
    let mut status = SessionStatus {
        session: id,
        state: life.state(),
        path: session.path.clone(),
        client: session.client.to_string(),
        transport: match transport {
            Some(TrackTransport::Interleaved { .. }) => "TCP",
            _ => "UDP",
        }
        .into(),
        class: session.class,
        core: core.as_ref().map_or(0, |core| core.index as u32),
        position_ns: 0,
        file_offset: 0,
        last_rtcp_age_ns: None,
        lateness: LatenessSummary::default(),
        tracks: Vec::new(),
        end_reason: match life {
            Life::Failed(why) => Some(why.to_owned()),
            _ => None,
        },
        ingest: None,
    };
    if let (true, Some(channel)) = (session.records, &session.channel) {
        status.core = channel.core.index as u32;
        // Of a channel that has ended nothing more is known.
        status.ingest = channel.status().await.ok();
        if status.state == SessionState::Playing {
            status.state = SessionState::Recording;
        }
        return Ok(status);
    }
    let Some(core) = core else { return Ok(status) };
    match core.ask(|reply| Command::SessionStatus { reply, session: id.0, report: Box::default() }).await {
        Ok(Reply::Session(report)) => fill(&mut status, &report),
        // Between the reservation and the first set-up the engine core does not know it yet.
        Err(EngineError::NoSession) if status.state == SessionState::Ready => {}
        Ok(_) => return Err(EngineError::NoSession),
        Err(error) => return Err(error),
    }
    Ok(status)
}

fn fill(status: &mut SessionStatus, report: &SessionReport) {
    status.position_ns = report.position_ns;
    status.last_rtcp_age_ns = report.last_rtcp_age_ns;
    status.lateness = summary(report.lateness.snapshot());
    let tracks = report.tracks.iter().take(report.count);
    status.file_offset = tracks.clone().map(|t| t.sent.file_offset).max().unwrap_or(0);
    status.tracks = tracks.map(track_status).collect();
}

fn track_status(track: &TrackReport) -> TrackStatus {
    let reception = track.reception;
    TrackStatus {
        track_id: track.track_id,
        ssrc: track.ssrc,
        packets: track.sent.packets,
        payload_bytes: track.sent.payload_bytes,
        skips: track.sent.skips,
        rr_lost: reception.map_or(0, |r| r.cumulative_lost.into()),
        rr_fraction_lost: reception.map_or(0.0, |r| f64::from(r.fraction_lost) / 256.0),
        rr_jitter_us: reception.map_or(0, |r| r.jitter_us),
        client_cname: track.client_cname.clone(),
    }
}
