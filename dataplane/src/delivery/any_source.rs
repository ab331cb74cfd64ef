//! The source of a track, whichever it comes from.

use stack::host::Host;

use super::live::TapeSource;
use super::plan::{Timeline, TrackPlan};
use super::source::TrackSource;
use crate::disks::Disk;
use crate::gdsl::{IoBatch, IssueModule, NextUpcall};

/// The source of a viewer of a live channel.
#[derive(Debug)]
pub struct LiveSource {
    /// The channel, by the number that it was opened with.
    pub channel: u64,
    /// Position of the track in it.
    pub track: usize,
    /// The module; its tape is set by the engine core.
    pub tape: TapeSource,
}

/// The source module of a track.
#[derive(Debug)]
pub enum Source<F> {
    /// It reads a file.
    Title(TrackSource<F>),
    /// It follows a tape.
    Live(LiveSource),
}

impl<F> Source<F> {
    /// Prepares for the range of `plan`; a live one sleeps until it is started. The pair's link must be empty.
    pub fn prepare(&mut self, plan: TrackPlan, start_dts_ns: i64) {
        if let Self::Title(source) = self {
            source.prepare(plan, start_dts_ns);
        }
    }

    /// Sets the time line's anchor (`None`: delivery stands still).
    pub fn set_timeline(&mut self, timeline: Timeline) {
        if let Self::Title(source) = self {
            source.set_timeline(timeline);
        }
    }

    /// There is nothing to be read before time passes.
    pub fn is_at_rest(&self) -> bool {
        match self {
            Self::Title(source) => source.is_at_rest(),
            Self::Live(_) => true,
        }
    }

    /// The source of a live delivery.
    pub fn live(&self) -> Option<&LiveSource> {
        match self {
            Self::Title(_) => None,
            Self::Live(source) => Some(source),
        }
    }

    /// The same, to be set up.
    pub fn live_mut(&mut self) -> Option<&mut LiveSource> {
        match self {
            Self::Title(_) => None,
            Self::Live(source) => Some(source),
        }
    }
}

impl<H: Host, D: Disk> IssueModule<H, D> for Source<D::File> {
    fn upcall(&mut self, now_ns: u64, io: &mut IoBatch<'_, H, D>) -> NextUpcall {
        match self {
            Self::Title(source) => source.upcall(now_ns, io),
            Self::Live(source) => source.tape.upcall(now_ns, io),
        }
    }
}
