//! Why a media file cannot be read.

use std::fmt;

use super::index::IndexError;

/// A box type or another four-character code, printable whatever is in it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct FourCc(pub [u8; 4]);

impl fmt::Display for FourCc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.0 {
            match byte {
                b' '..=b'~' => write!(f, "{}", byte as char)?,
                _ => write!(f, "\\x{byte:02x}")?,
            }
        }
        Ok(())
    }
}

impl fmt::Debug for FourCc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why a file cannot be read as media: what is wrong, at which byte, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum MediaError {
    /// It is not MP4 or QuickTime.
    #[error("not an MP4 or QuickTime file: {found} at byte {at}; convert it, for instance with `ffmpeg -i IN -c copy OUT.mp4`")]
    NotMedia {
        /// What was there instead.
        found: String,
        /// Byte offset.
        at: u64,
    },
    /// There is no `moov`: the file is being written still, or its end is missing.
    #[error("no moov box in {size} bytes ({hint}): the file is still being written, or it was cut off; wait, or copy it again")]
    NoMoov {
        /// File size in bytes.
        size: u64,
        /// What was seen instead.
        hint: String,
    },
    /// A part that is needed lies past the end of the file.
    #[error(
        "truncated: {what} reaches to byte {needed_end}, but the first missing byte is {first_missing}; copy the file again, or wait until it is complete"
    )]
    Truncated {
        /// What lies past the end.
        what: String,
        /// One past the last byte needed.
        needed_end: u64,
        /// The first byte that is not there: the file's size.
        first_missing: u64,
    },
    /// The file changed while it was read.
    #[error("the file is growing or changing ({what}); wait until it is complete")]
    Changing {
        /// What changed.
        what: String,
    },
    /// The file contradicts itself.
    #[error("broken: {what} at byte {at}; remux it, for instance with `ffmpeg -i IN -c copy OUT.mp4`")]
    Broken {
        /// What is wrong.
        what: String,
        /// Byte offset.
        at: u64,
    },
    /// Sound, but nothing in it that can be delivered.
    #[error("nothing in it can be delivered: {reason}")]
    Unsupported {
        /// Why.
        reason: String,
    },
    /// More of something than is read of any file.
    #[error("limit exceeded: {what} (at byte {at}) is {value}, at most {limit} is read; the file is broken, or has to be cut into pieces")]
    Limit {
        /// Of what.
        what: String,
        /// How much there is.
        value: u64,
        /// How much may be.
        limit: u64,
        /// Byte offset.
        at: u64,
    },
    /// A sample does not fit into the index.
    #[error("track {track}, sample {sample}: {error}")]
    Index {
        /// The container's track id.
        track: u32,
        /// Number of the sample, from 1.
        sample: u64,
        /// Why.
        error: IndexError,
    },
    /// The operating system could not read it.
    #[error("cannot read {what} at byte {at}: {error}")]
    Io {
        /// What was to be read.
        what: String,
        /// Byte offset.
        at: u64,
        /// Why.
        error: std::io::Error,
    },
}
