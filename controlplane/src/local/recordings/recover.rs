//! What a crash has left of recordings becomes files at the next start: all that was recorded up to about a second before, or up to
//! some seconds before where the machine was what crashed.
//!
//! They are taken up before anything new can be recorded, so that nothing is written over, and made whole beside all that is played.

use dataplane::disks::new_file::name_of_notes;
use dataplane::disks::{NewFile, NewFileError};
use dataplane::media::library::Library;
use dataplane::transfer::journal::Journal;
use dataplane::transfer::take::Take;

use super::files::Files;
use crate::config::RecordPaths;

/// A recording that a crash has cut off.
pub(super) struct Left {
    path: String,
    files: Files,
    takes: Vec<Take>,
}

/// Takes up what was left below the media folder where recordings may go.
pub(super) fn take_up(library: &Library, paths: &RecordPaths) -> Vec<Left> {
    if paths.is_off() {
        return Vec::new();
    }
    let left = library.beside(name_of_notes).into_iter().filter(|path| paths.allows(path));
    left.filter_map(|path| {
        let taken = take_up_one(library, &path);
        taken.unwrap_or_else(|why| {
            tracing::warn!(%path, "what a crash has left of this recording stays as it is ('.part', '.notes'): {why}");
            None
        })
    })
    .collect()
}

fn take_up_one(library: &Library, path: &str) -> Result<Option<Left>, String> {
    let place = library.place(path).map_err(|error| error.to_string())?;
    let mut new = match NewFile::take_up(place.path(), false) {
        Ok(Some(new)) => new,
        Ok(None) => {
            // The file was whole already, or there was none yet.
            let _ = std::fs::remove_file(NewFile::notes_path_of(place.path()));
            return Ok(None);
        }
        // Another process records it.
        Err(NewFileError::Busy { .. }) => return Ok(None),
        Err(error) => return Err(error.to_string()),
    };
    match Journal::take_up(&new) {
        Ok((journal, replayed)) => {
            new.set_replace(replayed.replace);
            Ok(Some(Left { path: path.to_owned(), files: Files::left(new, journal, place), takes: replayed.takes }))
        }
        Err(error) => {
            new.leave();
            Err(error.to_string())
        }
    }
}

/// Makes files of what was taken up. Blocks.
pub(super) fn finish(left: Vec<Left>) {
    for Left { path, files, takes } in left {
        match files.finish(takes) {
            Ok(file) => {
                let seconds = file.duration_ns as f64 / 1e9;
                tracing::warn!(%path, bytes = file.bytes, "a crash had cut this recording off: {seconds:.1} s of it are there");
            }
            Err(why) => tracing::warn!(%path, "a crash has cut this recording off: {why}"),
        }
    }
}
