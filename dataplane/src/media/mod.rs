//! Media: from container files to samples with times.
//!
//! ```text
//! library (which files, kept, cached) ─► read_title ─► mp4 ─► Title { tracks, index, description }
//! ```
//!
//! - [`title`]: what a file is once it has been read: tracks, codecs, the flat sample [`index`].
//! - [`description`]: the same as plain data, for the control server (SDP, JSON); its figures come from [`measure`].
//! - [`mp4`]: the reader of MP4 and QuickTime files.
//! - [`movie`]: the writer of MP4 files, for what is recorded.
//! - [`library`]: the titles of a media folder.
//! - `encoding`: titles and codecs as bytes, for what the appliance writes for itself.
//!
//! Files are hostile input: reading one costs bounded time and memory and never panics.

pub mod description;
pub(crate) mod encoding;
pub mod error;
pub mod index;
pub mod library;
pub mod measure;
pub mod movie;
pub mod mp4;
#[cfg(test)]
mod test_file;
pub mod title;

use std::io::{Read, Seek};

pub use description::{LeftOutTrack, MediaDescription, TrackDescription, TrackKind};
pub use error::MediaError;
pub use library::{Identity, Library, LibraryError, OpenTitle};
pub use title::{Codec, Sample, SampleIndex, Title, Track};

/// Reads the title of a media file of `size` bytes. Blocks; for worker threads.
///
/// # Errors
/// [`MediaError`], which says what is wrong, at which byte, and what to do.
pub fn read_title(file: &mut (impl Read + Seek), size: u64) -> Result<Title, MediaError> {
    mp4::read(file, size)
}
