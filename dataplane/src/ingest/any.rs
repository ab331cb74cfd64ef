//! What fills a channel, whichever it is.

use super::rtp::RtpIngest;
use super::track::TrackCounters;
use super::ts::TsIngest;
use super::{Described, Records};

/// What fills a channel.
#[derive(Debug)]
#[non_exhaustive]
pub enum Ingest {
    /// An RTSP client that records.
    Rtp(RtpIngest),
    /// A transport stream; whatever track its datagrams are said to be of.
    Ts(TsIngest),
}

impl Ingest {
    /// Tracks.
    pub fn len(&self) -> usize {
        match self {
            Self::Rtp(ingest) => ingest.len(),
            Self::Ts(_) => super::ts::TRACKS.len(),
        }
    }

    /// True when there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What became of a track's packets.
    pub fn counters(&self, track: usize) -> TrackCounters {
        match self {
            Self::Rtp(ingest) => ingest.counters(track),
            Self::Ts(ingest) => ingest.counters(track),
        }
    }

    /// A record of the track found no room.
    pub fn overrun(&mut self, track: usize) {
        match self {
            Self::Rtp(ingest) => ingest.overrun(track),
            Self::Ts(ingest) => ingest.overrun(track),
        }
    }

    /// Takes a datagram of the track at this position. False when it was none of it.
    pub fn rtp(&mut self, now_ns: u64, track: usize, datagram: &[u8], records: &mut dyn Records) -> bool {
        match self {
            Self::Rtp(ingest) => ingest.rtp(now_ns, track, datagram, records),
            Self::Ts(ingest) => ingest.datagram(now_ns, datagram, records),
        }
    }

    /// Takes an RTCP packet of the track at this position. False when it does not parse.
    pub fn rtcp(&mut self, now_ns: u64, track: usize, datagram: &[u8]) -> bool {
        match self {
            Self::Rtp(ingest) => ingest.rtcp(now_ns, track, datagram),
            Self::Ts(_) => false,
        }
    }

    /// The sender has said goodbye.
    pub fn is_over(&self) -> bool {
        match self {
            Self::Rtp(ingest) => ingest.is_over(),
            Self::Ts(_) => false,
        }
    }

    /// A sender was there, so its silence means something.
    pub fn may_vanish(&self) -> bool {
        match self {
            Self::Rtp(_) => true,
            Self::Ts(ingest) => ingest.is_described(),
        }
    }

    /// Its tracks are known before anything comes.
    pub fn is_announced(&self) -> bool {
        matches!(self, Self::Rtp(_))
    }

    /// Gives up what has waited for too long.
    pub fn tick(&mut self, now_ns: u64, records: &mut dyn Records) {
        match self {
            Self::Rtp(ingest) => ingest.tick(now_ns, records),
            Self::Ts(_) => {}
        }
    }

    /// The end: what there is of the last access units.
    pub fn flush(&mut self, now_ns: u64, records: &mut dyn Records) {
        match self {
            Self::Rtp(ingest) => ingest.flush(now_ns, records),
            // A picture whose end the next one would have shown may be cut short.
            Self::Ts(_) => {}
        }
    }

    /// When something is due though nothing came.
    pub fn next_ns(&self) -> Option<u64> {
        match self {
            Self::Rtp(ingest) => ingest.next_ns(),
            Self::Ts(_) => None,
        }
    }

    /// Whether a receiver report is due for each track.
    pub fn reports_due(&mut self, now_ns: u64) -> bool {
        match self {
            Self::Rtp(ingest) => ingest.reports_due(now_ns),
            Self::Ts(_) => false,
        }
    }

    /// Writes a receiver report about the track; its length, 0 when there is nothing to report.
    pub fn report(&mut self, now_ns: u64, track: usize, out: &mut [u8]) -> usize {
        match self {
            Self::Rtp(ingest) => ingest.report(now_ns, track, out),
            Self::Ts(_) => 0,
        }
    }

    /// How the tracks are coded, when that has become known, or has changed, since this was last asked.
    pub fn take_described(&mut self) -> Option<Box<Described>> {
        match self {
            Self::Rtp(_) => None,
            Self::Ts(ingest) => ingest.take_described(),
        }
    }
}
