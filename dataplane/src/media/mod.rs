//! Media: from container files to samples with times.
//!
//! - [`title`]: what a file is once it has been read: tracks, codecs, the flat sample index.
//! - [`description`]: the same as plain data, for the control server (SDP, JSON).
//!
//! Files are hostile input: reading one costs bounded time and memory and never panics.

pub mod description;
pub mod title;

pub use description::{LeftOutTrack, MediaDescription, TrackDescription, TrackKind};
pub use title::{Codec, Sample, SampleIndex, Title, Track};
