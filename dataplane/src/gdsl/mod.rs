//! GDSL, the generic data streaming library: the layer between media code and devices (SYSTEMS 1.3).
//!
//! A *source peer* reads from a file, a *destination peer* writes to a flow, a bounded *link* of blocks lies between the two. Each
//! peer has an *I/O issue module*, which the executor upcalls at a due time. The module says which I/O to issue and returns the time
//! of its next upcall; scheduling, batching, buffering and hand-over are done here, and nothing here knows what is delivered.
//!
//! ```text
//!   wheel: who is due ──► upcall(now, io) ──► reads  ─► disk ─► blocks ─► link ─► upcall of the destination ─► frames ─► host
//!                            └─► the time of the next upcall ─► wheel
//! ```
//!
//! What does not come from a disk comes over a [tape](Tape): a file that is appended to by whoever drives the executor
//! ([`Gdsl::append`]) and read by any number of sources ([`IoBatch::read_tape`]), of which the newest blocks are retained.
//!
//! A pair is added with [`Gdsl::add`], as boxes built by another thread, and taken out again by [`Gdsl::remove`], which gives the boxes
//! back so that an engine core neither allocates nor frees. Guaranteed peers are upcalled first; best-effort ones after them, in what is
//! left of the cycle. What does not fit in a cycle is carried over into the next one and counted.

mod blocks;
mod cache;
mod costs;
mod counts;
mod executor;
mod io;
mod link;
#[cfg(test)]
pub(crate) mod ready;
mod stats;
mod tape;
#[cfg(test)]
mod tests;

pub(crate) use blocks::Mix;
pub use blocks::{BlockId, BlockKey, BlockState};
pub use executor::{Cycle, Gdsl, GdslConfig, GdslCounters};
pub use io::{IoBatch, LinkView, Outcome, ReadIssue, TapeIssue};
pub use link::Link;
pub use stats::{Lateness, LatenessSnapshot};
pub use tape::{Append, Tape, TapeId, TapePlace};

use crate::disks::Disk;
use stack::host::Host;

/// Names a pair of peers with the link between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PairId {
    pub(crate) index: u32,
    pub(crate) generation: u32,
}

impl PairId {
    /// The pair's place in the executor's table: below its `pairs_max`, and unique among the pairs that exist.
    pub fn place(self) -> usize {
        self.index as usize
    }
}

/// Which end of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The peer that fills the link.
    Source,
    /// The peer that empties it.
    Destination,
}

/// Whose I/O goes first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Class {
    /// Served first in each cycle.
    #[default]
    Guaranteed,
    /// Served with what the guaranteed peers leave.
    BestEffort,
}

impl Class {
    /// The class of this name, as [`std::fmt::Display`] writes it.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Guaranteed, Self::BestEffort].into_iter().find(|class| class.name() == name)
    }

    fn name(self) -> &'static str {
        match self {
            Self::Guaranteed => "guaranteed",
            Self::BestEffort => "best-effort",
        }
    }
}

impl std::fmt::Display for Class {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// When a module wants to be called again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NextUpcall {
    /// At this time; a time in the past means in the next turn.
    At(u64),
    /// When the link moves: room for a source, the block at its front for a destination.
    OnLink,
    /// As `OnLink`, but at this time at the latest.
    OnLinkOrAt(u64),
    /// Not before somebody wakes the peer ([`Gdsl::wake`]).
    Never,
}

/// An I/O issue module: one peer's part of a delivery.
pub trait IssueModule<H: Host, D: Disk> {
    /// Issues the I/O that is due at `now_ns` and says when to be called again. Must do a bounded amount of work.
    fn upcall(&mut self, now_ns: u64, io: &mut IoBatch<'_, H, D>) -> NextUpcall;

    /// An upcall comes soon, a few other modules' later: asks for the memory that it will read. The module itself is in the cache.
    fn prefetch(&self, _host: &H) {}
}

/// A source, a destination and the link between them, as handed to [`Gdsl::add`]; built off the engine core.
#[derive(Debug)]
pub struct Pair<S, T> {
    /// Fills the link.
    pub source: S,
    /// Empties it.
    pub destination: T,
    /// The link.
    pub link: Link,
    /// Whose I/O goes first.
    pub class: Class,
    /// Lateness of what the destination sent.
    pub lateness: Lateness,
}
