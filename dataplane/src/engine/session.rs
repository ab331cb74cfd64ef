//! A session as the engine core keeps it.

use std::net::{IpAddr, SocketAddr};

use pacing::cpu::Work;

use super::command::{State, TRACKS_MAX};
use crate::delivery::{Outlet, Timeline};
use crate::gdsl::PairId;

/// A track that is set up.
#[derive(Clone, Copy, Debug)]
pub(super) struct TrackSlot {
    pub(super) track_id: u32,
    pub(super) pair: PairId,
    pub(super) ssrc: u32,
    pub(super) outlet: Outlet,
    /// Where RTP and RTCP go (UDP).
    pub(super) remotes: Option<(SocketAddr, SocketAddr)>,
    pub(super) over: bool,
}

/// Where a session is between `Start` and delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Not prepared.
    Idle,
    /// Prepared; data is being read.
    Prepared,
    /// Told to run; starts when each track's first block is here, or at this time.
    Starting { give_up_ns: u64 },
    /// Being delivered.
    Running,
}

#[derive(Debug)]
pub(super) struct Session {
    pub(super) key: u64,
    pub(super) tracks: [Option<TrackSlot>; TRACKS_MAX],
    /// What it has reserved of the core.
    pub(super) work: Work,
    pub(super) state: State,
    pub(super) phase: Phase,
    pub(super) timeline: Timeline,
    pub(super) from_ns: u64,
    pub(super) to_ns: u64,
    /// Time line position kept by a stop, as decode time.
    pub(super) stopped_at_dts_ns: i64,
    /// Monotonic time of the last stop.
    pub(super) stopped_ns: u64,
    pub(super) last_rtcp_ns: Option<u64>,
    /// Address of the RTSP client; RTCP from elsewhere proves nothing.
    pub(super) peer: Option<IpAddr>,
}

impl Session {
    pub(super) fn new(key: u64) -> Self {
        Self {
            key,
            tracks: [None; TRACKS_MAX],
            work: Work::default(),
            state: State::Ready,
            phase: Phase::Idle,
            timeline: Timeline::default(),
            from_ns: 0,
            to_ns: 0,
            stopped_at_dts_ns: 0,
            stopped_ns: 0,
            last_rtcp_ns: None,
            peer: None,
        }
    }

    pub(super) fn tracks(&self) -> impl Iterator<Item = &TrackSlot> {
        self.tracks.iter().flatten()
    }

    /// It was delivered to the end of its range, or given up.
    pub(super) fn is_over(&self) -> bool {
        matches!(self.state, State::Ended | State::Failed(_))
    }

    /// Presentation time reached at `now_ns`, within the range.
    pub(super) fn position_ns(&self, now_ns: u64) -> u64 {
        let dts_ns = match self.phase {
            Phase::Running => self.timeline.dts_at(now_ns),
            _ => self.stopped_at_dts_ns,
        };
        let elapsed = dts_ns.saturating_sub(self.timeline.start_dts_ns).max(0) as u64;
        self.from_ns.saturating_add(elapsed).min(self.to_ns.max(self.from_ns))
    }
}
