//! The modules of all deliveries side by side, as the executor of an engine core keeps them; it is told nothing of what they are.

use stack::host::Host;

use crate::delivery::{Source, TrackSender};
use crate::disks::Disk;
use crate::gdsl::{Gdsl, IoBatch, IssueModule, Lateness, NextUpcall, Pair, PairId};
use crate::transfer::{FileSink, FileSource, RecordSink};

/// The source module of a delivery.
#[derive(Debug)]
pub enum SourceModule<F> {
    /// A track of a title or of a live channel.
    Track(Source<F>),
    /// A file, from its start to its end.
    File(FileSource<F>),
}

/// The destination module of a delivery.
#[derive(Debug)]
pub enum SinkModule<F> {
    /// A client.
    Track(TrackSender),
    /// A file.
    File(FileSink<F>),
    /// A file that a track of a live channel is recorded to.
    Record(RecordSink<F>),
}

/// The pair of modules of any delivery.
pub type AnyPair<F> = Pair<SourceModule<F>, SinkModule<F>>;

/// Calls the same method of whichever of these modules it is.
macro_rules! of_any {
    ($kind:ident { $($name:ident)* }, $self:expr, $module:ident => $call:expr) => {
        match $self {
            $($kind::$name($module) => $call,)*
        }
    };
}

impl<H: Host, D: Disk> IssueModule<H, D> for SourceModule<D::File> {
    fn upcall(&mut self, now_ns: u64, io: &mut IoBatch<'_, H, D>) -> NextUpcall {
        of_any!(SourceModule { Track File }, self, module => module.upcall(now_ns, io))
    }

    fn prefetch(&self, host: &H) {
        of_any!(SourceModule { Track File }, self, module => IssueModule::<H, D>::prefetch(module, host));
    }
}

impl<H: Host, D: Disk> IssueModule<H, D> for SinkModule<D::File> {
    fn upcall(&mut self, now_ns: u64, io: &mut IoBatch<'_, H, D>) -> NextUpcall {
        of_any!(SinkModule { Track File Record }, self, module => module.upcall(now_ns, io))
    }

    fn prefetch(&self, host: &H) {
        of_any!(SinkModule { Track File Record }, self, module => IssueModule::<H, D>::prefetch(module, host));
    }
}

impl<F> From<Pair<Source<F>, TrackSender>> for AnyPair<F> {
    fn from(Pair { source, destination, link, class, lateness }: Pair<Source<F>, TrackSender>) -> Self {
        Pair { source: SourceModule::Track(source), destination: SinkModule::Track(destination), link, class, lateness }
    }
}

impl<F> From<Pair<FileSource<F>, FileSink<F>>> for AnyPair<F> {
    fn from(Pair { source, destination, link, class, lateness }: Pair<FileSource<F>, FileSink<F>>) -> Self {
        Pair { source: SourceModule::File(source), destination: SinkModule::File(destination), link, class, lateness }
    }
}

impl<F> From<Pair<Source<F>, RecordSink<F>>> for AnyPair<F> {
    fn from(Pair { source, destination, link, class, lateness }: Pair<Source<F>, RecordSink<F>>) -> Self {
        Pair { source: SourceModule::Track(source), destination: SinkModule::Record(destination), link, class, lateness }
    }
}

/// The modules of a track.
pub(super) struct TrackModules<'a, F> {
    pub(super) source: &'a mut Source<F>,
    pub(super) destination: &'a mut TrackSender,
    pub(super) lateness: &'a Lateness,
}

/// The modules of this pair, if it is a track's.
pub(super) fn track_in<F>(pair: &mut AnyPair<F>) -> Option<TrackModules<'_, F>> {
    match (&mut pair.source, &mut pair.destination) {
        (SourceModule::Track(source), SinkModule::Track(destination)) => {
            Some(TrackModules { source, destination, lateness: &pair.lateness })
        }
        _ => None,
    }
}

/// The executor of an engine core.
pub(super) type CoreGdsl<H, D> = Gdsl<H, D, SourceModule<<D as Disk>::File>, SinkModule<<D as Disk>::File>>;

/// The modules of the track whose pair this is.
pub(super) fn track_of<H: Host, D: Disk>(gdsl: &mut CoreGdsl<H, D>, id: PairId) -> Option<TrackModules<'_, D::File>> {
    track_in(gdsl.pair_mut(id)?)
}
