//! What is recorded and where it goes, and the pair of modules made of that.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_channel::bounded;

use super::super::take::Take;
use super::{EXTENT_BLOCKS, LINK_BLOCKS, RecordSink};
use crate::delivery::live::{RecordHeader, TapeSource};
use crate::delivery::{LiveSource, Source};
use crate::gdsl::{Class, Lateness, Link, Pair, TapeId};
use crate::media::movie::HEAD_BYTES;
use crate::media::{Codec, TrackKind};

/// Notes that the control core has not collected; then the sink waits.
const NOTES_MAX: usize = 4096;

/// What a sink has noted in passing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Note {
    /// The track's next extent lies at this offset of the file.
    Extent(u64),
    /// A record, and the place of its access unit: bytes of the track that lie in its extents before it.
    Record(RecordHeader, u64),
}

/// The file that all tracks of a recording go into: where its next free extent is.
#[derive(Debug)]
pub struct Layout(AtomicU64);

impl Default for Layout {
    fn default() -> Self {
        Self(AtomicU64::new(HEAD_BYTES))
    }
}

impl Layout {
    /// Where the extents that were taken so far end.
    pub fn end(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Takes the next extent; its offset.
    pub(super) fn take(&self, bytes: u64) -> u64 {
        self.0.fetch_add(bytes, Ordering::Relaxed)
    }
}

/// What is recorded of a channel's track, and where it goes.
#[derive(Debug)]
pub struct RecordSpec<F> {
    /// The channel, by the number that it was opened with.
    pub channel: u64,
    /// Position of the track in it.
    pub track: usize,
    /// Sight or sound.
    pub kind: TrackKind,
    /// How it is coded.
    pub codec: Codec,
    /// Units per second of its records' times.
    pub clock_rate: u32,
    /// The file, to be written.
    pub file: F,
    /// Where in it.
    pub layout: Arc<Layout>,
    /// Bytes of a block of the engine core.
    pub block_bytes: u64,
    /// How much is recorded at most, nanoseconds; `None`: until it is ended.
    pub duration_ns: Option<u64>,
}

impl<F> RecordSpec<F> {
    /// The pair of modules, best-effort, and what takes its notes.
    pub fn build(self) -> (Pair<Source<F>, RecordSink<F>>, Take) {
        let (notes, noted) = bounded(NOTES_MAX);
        let safe = Arc::new(AtomicU64::new(0));
        let take = Take::new(self.kind, self.codec, self.clock_rate, self.block_bytes * EXTENT_BLOCKS, noted, Arc::clone(&safe));
        let destination = RecordSink::new(self.file, self.layout, (notes, safe), self.kind == TrackKind::Video, self.duration_ns);
        let source = Source::Live(LiveSource { channel: self.channel, track: self.track, tape: TapeSource::new(TapeId::NONE) });
        let pair = Pair { source, destination, link: Link::new(LINK_BLOCKS), class: Class::BestEffort, lateness: Lateness::new() };
        (pair, take)
    }
}
