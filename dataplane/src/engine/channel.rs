//! A live channel as an engine core keeps it: the tapes of its tracks, what fills them, and from where that comes.

use std::net::SocketAddr;

use super::command::TRACKS_MAX;
use crate::gdsl::{Tape, TapeId};
use crate::ingest::{Ingest, TrackCounters};
use crate::media::TrackKind;
use stack::host::{FlowId, StreamId};

/// What a channel is made of; built by the control core.
#[derive(Debug)]
pub struct ChannelSpec {
    /// Its name between control core and engine core.
    pub key: u64,
    /// Sight or sound of each track, and the blocks that its tape retains.
    pub tracks: Vec<(TrackKind, usize)>,
    /// How much later than decoded samples are due, nanoseconds: what jitter may take.
    pub latency_ns: u64,
    /// A sender that is silent for this long is gone, nanoseconds.
    pub silence_ns: u64,
    /// When the sender is gone, viewers wait for it to come back; else their deliveries end.
    pub hold: bool,
    /// What fills it.
    pub ingest: Option<Box<Ingest>>,
}

/// Where a track's packets arrive from, and where our reports go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route {
    Udp { rtp: SocketAddr, rtcp: SocketAddr, reports: FlowId },
    Stream { stream: StreamId, token: u64, rtp_channel: u8, rtcp_channel: u8 },
}

/// One track of a channel.
#[derive(Debug)]
pub(super) struct ChannelTrack {
    pub(super) kind: TrackKind,
    pub(super) tape: TapeId,
    pub(super) route: Option<Route>,
    /// The next record at or after this time is a mark: a viewer who starts with the picture of that time starts here with the sound.
    pub(super) mark_from_ns: Option<u64>,
    /// The sender has such a track.
    pub(super) active: bool,
}

/// A channel.
#[derive(Debug)]
pub struct Channel {
    pub(super) key: u64,
    pub(super) tracks: Vec<ChannelTrack>,
    /// The tapes, before the engine core has them and afterwards.
    #[expect(clippy::vec_box, reason = "they are handed over and back in their boxes: an engine core neither allocates nor frees")]
    pub(super) tapes: Vec<Box<Tape>>,
    pub(super) latency_ns: u64,
    pub(super) silence_ns: u64,
    pub(super) hold: bool,
    pub(super) ingest: Option<Box<Ingest>>,
    pub(super) last_packet_ns: u64,
    pub(super) ended: bool,
}

impl Channel {
    /// A channel. Of its tracks the first [`TRACKS_MAX`] count.
    pub fn new(spec: ChannelSpec) -> Self {
        let kinds = spec.tracks.iter().take(TRACKS_MAX);
        let active = spec.ingest.as_ref().is_none_or(|ingest| ingest.is_announced());
        let track = |&(kind, _): &(TrackKind, usize)| ChannelTrack { kind, tape: TapeId::NONE, route: None, mark_from_ns: None, active };
        Self {
            key: spec.key,
            tracks: kinds.clone().map(track).collect(),
            tapes: kinds.map(|&(_, blocks)| Box::new(Tape::new(blocks))).collect(),
            latency_ns: spec.latency_ns,
            silence_ns: spec.silence_ns,
            hold: spec.hold,
            ingest: spec.ingest,
            last_packet_ns: 0,
            ended: false,
        }
    }

    /// Position of the track at whose sync samples viewers start: the first of pictures, or the first.
    pub(super) fn leader(&self) -> usize {
        let pictures = self.tracks.iter().position(|track| track.active && track.kind == TrackKind::Video);
        pictures.or_else(|| self.tracks.iter().position(|track| track.active)).unwrap_or(0)
    }
}

/// State of a channel; made by the control core, filled in by the engine core.
#[derive(Clone, Copy, Debug, Default)]
pub struct ChannelReport {
    /// A sender fills it.
    pub live: bool,
    /// When the last packet came: age in nanoseconds.
    pub last_packet_age_ns: u64,
    /// A viewer can start: the newest sync sample that is retained came so long ago, nanoseconds.
    pub sync_age_ns: Option<u64>,
    /// Tracks; `count` entries are filled in.
    pub tracks: [TrackCounters; TRACKS_MAX],
    /// How many there are.
    pub count: usize,
}
