//! GDSL, the generic data streaming library: the layer between media code and devices (SYSTEMS 1.3).
//!
//! A *source peer* reads from a file, a *destination peer* writes to a flow or a file, a bounded *link* of blocks lies between the two. Each
//! peer has an *I/O issue module*, which the executor upcalls at a due time. The module says which I/O to issue and returns the time
//! of its next upcall; scheduling, batching, buffering and hand-over are done here, and nothing here knows what is delivered.
//!
//! ```text
//!   wheel: who is due ──► upcall(now, io) ──► reads  ─► disk ─► blocks ─► link ─► upcall of the destination ─► frames ─► host
//!                            │                                                                            └► writes ─► disk
//!                            └─► the time of the next upcall ─► wheel
//! ```
//!
//! What does not come from a disk comes over a [tape](Tape): a file that is appended to by whoever drives the executor
//! ([`Gdsl::append`]) and read by any number of sources ([`IoBatch::read_tape`]), of which the newest blocks are retained.
//!
//! A pair is added with [`Gdsl::add`], as boxes built by another thread, and taken out again by [`Gdsl::remove`], which gives the boxes
//! back so that an engine core neither allocates nor frees. Guaranteed peers are upcalled first; best-effort ones after them, in what is
//! left of the cycle. What does not fit in a cycle is carried over into the next one and counted. What guaranteed peers have reserved of a
//! period's time no other work takes, theirs or the engine core's ([`Gdsl::slice`]).
//!
//! # A delivery of one's own
//!
//! Two modules are a delivery, and nothing here changes for it. This one sends the first kilobyte of each block of a file as a datagram,
//! one every 20 ms. It runs on simulated parts; over io_uring and AF_XDP it would be the same.
//!
//! ```
//! use dataplane::disks::{Disk, SimDisk, SimDiskConfig, SimFile};
//! use dataplane::gdsl::*;
//! use hugepages::{Arena, ChunkPool};
//! use pacing::{Clock, SimClock};
//! use stack::host::{FlowId, FlowSpec, Host};
//! use stack::sim::{SimConfig, SimHost};
//!
//! const MS: u64 = 1_000_000;
//!
//! struct Reader<F> {
//!     file: F,
//!     next: u64,
//!     end: u64,
//! }
//!
//! impl<H: Host, D: Disk> IssueModule<H, D> for Reader<D::File> {
//!     fn upcall(&mut self, now_ns: u64, io: &mut IoBatch<'_, H, D>) -> NextUpcall {
//!         while self.next < self.end {
//!             match io.read(&self.file, 1, self.next, now_ns + 20 * MS) {
//!                 ReadIssue::Issued => self.next += io.block_bytes() as u64,
//!                 ReadIssue::NoRoom => return NextUpcall::OnLink,
//!                 ReadIssue::NoChunk => return NextUpcall::At(now_ns + MS),
//!             }
//!         }
//!         NextUpcall::Never
//!     }
//! }
//!
//! struct Ticker {
//!     flow: FlowId,
//!     due_ns: u64,
//!     left: u32,
//! }
//!
//! impl<H: Host, D: Disk> IssueModule<H, D> for Ticker {
//!     fn upcall(&mut self, now_ns: u64, io: &mut IoBatch<'_, H, D>) -> NextUpcall {
//!         if self.left == 0 {
//!             io.finish(Outcome::Ended);
//!             return NextUpcall::Never;
//!         }
//!         if now_ns < self.due_ns {
//!             return NextUpcall::At(self.due_ns);
//!         }
//!         // The frame is written where the port takes it from, straight from where the disk has put the block.
//!         let Some((frame, link)) = io.frame(self.flow) else { return NextUpcall::At(now_ns + MS) };
//!         match link.block(0) {
//!             Some((_, BlockState::Ready(bytes))) => frame[..1000].copy_from_slice(&bytes[..1000]),
//!             Some((_, BlockState::Failed(_))) => {
//!                 io.finish(Outcome::Failed("the disk cannot read it"));
//!                 return NextUpcall::Never;
//!             }
//!             Some((_, BlockState::Reading)) | None => return NextUpcall::OnLink,
//!         }
//!         io.commit(1000, self.due_ns);
//!         io.pop();
//!         self.due_ns += 20 * MS;
//!         self.left -= 1;
//!         NextUpcall::At(self.due_ns)
//!     }
//! }
//!
//! let clock = SimClock::new(0);
//! let mut host = SimHost::new(SimConfig::default(), 1);
//! let spec = FlowSpec { local_port: 0, local_addr: None, remote: ([192, 0, 2, 1], 5004).into() };
//! let flow = host.open_flow(spec).unwrap();
//! let (disk, file) = (SimDisk::new(SimDiskConfig::default()), SimFile::pattern(1, 50 * 4096));
//! let pool = ChunkPool::new(Arena::new(16 * 4096).unwrap(), 4096);
//! let mut gdsl = Gdsl::new(GdslConfig::default(), host, disk, pool, clock.now_ns());
//!
//! let pair = Pair {
//!     source: Reader { file: file.clone(), next: 0, end: file.size() },
//!     destination: Ticker { flow, due_ns: 100 * MS, left: 50 },
//!     link: Link::new(4),
//!     class: Class::Guaranteed,
//!     lateness: Lateness::new(),
//! };
//! let id = gdsl.add(Box::new(pair)).ok().expect("there is room for a pair");
//! gdsl.wake(id, End::Source, clock.now_ns());
//! gdsl.wake(id, End::Destination, clock.now_ns());
//! let outcome = loop {
//!     let cycle = gdsl.cycle(&clock);
//!     if let Some(outcome) = gdsl.next_outcome() {
//!         break outcome;
//!     }
//!     clock.advance_to(cycle.next_ns.expect("it is not over").max(clock.now_ns() + 1));
//! };
//!
//! assert_eq!(outcome, (id, Outcome::Ended));
//! let mut packets = 0;
//! gdsl.host_mut().take_sent(|sent| {
//!     let mut expected = vec![0; 1000];
//!     file.fill(packets * 4096, &mut expected);
//!     assert_eq!(sent.bytes, expected);
//!     // The wheel's resolution is 20 us.
//!     let due_ns = (100 + 20 * packets) * MS;
//!     assert!((due_ns..due_ns + 20_000).contains(&sent.at_ns));
//!     packets += 1;
//! });
//! assert_eq!(packets, 50);
//! ```
//!
//! What is here as deliveries: video on demand and interleaved in TCP ([`crate::delivery`]), copying files ([`crate::transfer::import`]).

mod blocks;
mod cache;
mod costs;
mod counts;
mod executor;
mod io;
mod link;
#[cfg(test)]
pub(crate) mod ready;
mod shares;
mod stats;
mod tape;
#[cfg(test)]
mod tests;
mod writes;

pub(crate) use blocks::Mix;
pub use blocks::{BlockId, BlockKey, BlockState};
pub use executor::{Cycle, Gdsl, GdslConfig, GdslCounters};
pub use io::{IoBatch, LinkView, Outcome, ReadIssue, TapeIssue};
pub use link::Link;
pub use stats::{Lateness, LatenessSnapshot};
pub use tape::{Append, Tape, TapeId, TapePlace};
pub use writes::{WRITES_PER_PAIR_MAX, WriteIssue, Written};

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
    /// Not before somebody wakes the peer ([`Gdsl::wake`]), or, for a destination, one of its writes ends.
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
