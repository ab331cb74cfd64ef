//! Video on demand and live: the pair of I/O issue modules that delivers one track of a title, or of what arrives now ([`live`]), over RTP.
//!
//! ```text
//! TrackSource: the blocks of the track's samples, read ahead ─► link ─► TrackSender: samples ─► RTP packets, each at its due time
//! ```
//!
//! Every packet has a due time: the decode process shifted in time (SYSTEMS 2). A sample is due from its decode time on, and its packets
//! are spread evenly up to the decode time of the next one, by the bytes they carry. All tracks of a session share one [`Timeline`].

mod any_source;
mod build;
mod bytes;
pub mod live;
mod plan;
mod sender;
mod source;
mod walk;

pub use any_source::{LiveSource, Source};
pub use build::{LiveTrackSpec, PACKET_BYTES_MAX, TrackSpec};
pub use plan::{StartPlan, Timeline, TrackPlan};
pub use sender::{LagAction, LagPolicy, Outlet, TrackSender, TrackSenderConfig, TrackSenderStatus};
pub use source::TrackSource;
