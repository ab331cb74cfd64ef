//! The reader of media files against the readers of others (ffprobe, the `mp4` crate), and against broken files.

mod against_ffprobe;
mod against_mp4;
mod clips;
mod counting;
mod long;
mod mutations;

use std::path::Path;

use dataplane::media::{MediaError, Title, read_title};

/// Reads a title from a file.
pub fn read(file: &Path) -> Result<Title, MediaError> {
    let mut opened = std::fs::File::open(file).expect("the clip opens");
    let size = opened.metadata().expect("the clip has a size").len();
    read_title(&mut opened, size)
}
