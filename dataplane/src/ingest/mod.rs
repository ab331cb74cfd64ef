//! Ingest: from packets that arrive to access units with times, ready for a tape.
//!
//! ```text
//! RTP, RTCP ─► reorder ─► depacketiser ─┐
//!                                       ├─► access unit, complete or dropped ─► sync? ─► times ─► RecordHeader + bytes ─► tape
//! MPEG-TS ─► packets ─► PES ─► units ───┘
//! ```
//!
//! - [`reorder`]: the few packets that a network delivers out of order, put back.
//! - [`times`]: decode times where only presentation times are known; the senders' clocks against ours.
//! - [`sync`]: can a decoder start here?
//! - [`track`]: one track of what arrives, whatever carried it.
//! - [`rtp`]: what an RTSP client records.
//! - [`ts`]: MPEG transport streams over UDP.
//!
//! All of it is sans I/O, takes its memory when it is made, and trusts nothing that arrives. What is incomplete is dropped whole, and
//! after it all video up to the next sync sample: receivers see a cut, never a damaged picture.

mod any;
pub mod reorder;
pub mod rtp;
pub mod sync;
pub mod times;
pub mod track;
pub mod ts;

pub use any::Ingest;
pub use rtp::{REPORT_BYTES_MAX, RtpIngest, RtpTrackSpec};
pub use track::{TrackCounters, UNIT_BYTES_MAX};
pub use ts::TsIngest;

use crate::delivery::live::RecordHeader;
use crate::media::Codec;

/// How the tracks of a sender that describes itself in its stream are coded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Described {
    /// One entry for each track, in order; `None` for one that the sender does not have.
    pub tracks: Vec<Option<Codec>>,
}

/// Takes what an ingest has made: the position of the track, the record's header and its bytes.
pub trait Records {
    /// A record of the track at this position.
    fn record(&mut self, track: usize, header: &RecordHeader, data: &[u8]);
}

impl<F: FnMut(usize, &RecordHeader, &[u8])> Records for F {
    fn record(&mut self, track: usize, header: &RecordHeader, data: &[u8]) {
        self(track, header, data);
    }
}
