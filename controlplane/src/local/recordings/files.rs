//! The files of a recording that goes on: the one that it becomes, and its journal.

use dataplane::disks::{NewFile, NewFileError};
use dataplane::media::library::NewPlace;
use dataplane::transfer::journal::{Journal, Notes};
use dataplane::transfer::take::{Finished, Take, TakeError, finish};

/// Room is taken ahead of what is written, in the first of these steps for which there is room, bytes.
const ROOM_STEPS_BYTES: [u64; 3] = [64 << 20, 8 << 20, 0];
/// Room that is left when more is taken, if there is more.
const ROOM_LEFT_BYTES: u64 = 32 << 20;
/// Room with which a recording ends because there is no more: what is written until the next look, at a gigabit per second.
const ROOM_MIN_BYTES: u64 = 16 << 20;
/// Every so many times the journal is written, what was written is waited for to be on the disk.
const WRITES_PER_SYNC: u32 = 5;

/// The files; dropped, they leave nothing behind.
pub(super) struct Files {
    pub(super) new: NewFile,
    /// Where it is kept what is in the file, and whether that could not be written once.
    journal: Option<Journal>,
    journal_is_cut: bool,
    place: NewPlace,
    room_bytes: u64,
    notes: Notes,
    writes: u32,
}

impl Files {
    /// The files of a recording that begins, with room for its beginning.
    pub(super) fn begin(new: NewFile, place: NewPlace) -> Result<Self, NewFileError> {
        let mut files = Self { new, journal: None, journal_is_cut: false, place, room_bytes: 0, notes: Notes::default(), writes: 0 };
        files.make_room(0)?;
        Ok(files)
    }

    /// What a crash has left of a recording.
    pub(super) fn left(new: NewFile, journal: Journal, place: NewPlace) -> Self {
        Self { new, journal: Some(journal), journal_is_cut: false, place, room_bytes: 0, notes: Notes::default(), writes: 0 }
    }

    /// From now on there is a journal of what these takes collect.
    pub(super) fn begin_journal(&mut self, replace: bool, takes: &[Take]) {
        self.journal = Journal::create(&self.new, replace, takes).map_err(|error| self.warn(&error)).ok();
    }

    /// Has the takes collect what was noted.
    pub(super) fn collect(&mut self, takes: &mut [Take]) {
        if self.journal.is_some() && !self.journal_is_cut {
            self.notes.collect(takes);
        } else {
            takes.iter_mut().for_each(|take| take.collect(|_| {}));
        }
    }

    /// Writes what was collected to the journal.
    pub(super) fn write_journal(&mut self) {
        let (Some(journal), false) = (&mut self.journal, self.journal_is_cut) else { return };
        self.writes = self.writes.wrapping_add(1);
        let written = journal.write(&self.notes.frames());
        let written = written.and_then(|()| if self.writes.is_multiple_of(WRITES_PER_SYNC) { journal.sync(&self.new) } else { Ok(()) });
        if let Err(error) = written {
            self.journal_is_cut = true;
            self.warn(&error);
        }
    }

    fn warn(&self, error: &std::io::Error) {
        tracing::warn!(path = %self.new.path().display(), %error, "the recording goes on, but no note of it can be kept: a crash would cut it off here");
    }

    /// Little room is left beyond these bytes.
    pub(super) fn is_short(&self, needed_bytes: u64) -> bool {
        needed_bytes.saturating_add(ROOM_LEFT_BYTES) > self.room_bytes
    }

    /// Takes room for these bytes and more.
    pub(super) fn make_room(&mut self, needed_bytes: u64) -> Result<(), NewFileError> {
        let wanted_bytes = needed_bytes.saturating_add(ROOM_LEFT_BYTES);
        for step_bytes in ROOM_STEPS_BYTES {
            let room_bytes = wanted_bytes.saturating_add(step_bytes);
            match self.new.reserve(room_bytes) {
                Ok(()) => {
                    self.room_bytes = room_bytes;
                    return Ok(());
                }
                Err(NewFileError::NoRoom { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        if needed_bytes.saturating_add(ROOM_MIN_BYTES) <= self.room_bytes {
            return Ok(());
        }
        Err(NewFileError::NoRoom { path: self.new.path().to_owned(), bytes: wanted_bytes })
    }

    /// The file gets what is missing of it, and its name.
    pub(super) fn finish(mut self, takes: Vec<Take>) -> Result<Finished, String> {
        self.write_journal();
        let finished = match finish(&mut self.new, takes) {
            Ok(finished) => finished,
            Err(error @ TakeError::Nothing) => return Err(error.to_string()),
            Err(error) => return Err(self.leave(&error)),
        };
        self.new.finish(finished.bytes).map_err(|error| error.to_string())?;
        drop(self.journal);
        self.place.keep();
        Ok(finished)
    }

    /// What there is stays for the next start, if it can be told what it is.
    fn leave(self, error: &TakeError) -> String {
        let Some(journal) = self.journal else { return error.to_string() };
        journal.leave();
        self.new.leave();
        self.place.keep();
        format!("{error}; what was recorded is kept, and the next start tries again")
    }
}
