//! A file that comes to be: written under another name, and given its own only when it is whole and on the disk.
//!
//! ```text
//! create: `.NAME.part`, locked, its place on the disk taken ─► writes through a `Disk` ─► finish: cut to length, synced, renamed
//! take_up: one that a crash has left behind, as it is ────────────────────────────────┘├─► leave: it stays for who takes it up
//!                                                                                      └─► dropped: the part is removed
//! ```
//!
//! Everything here blocks: it is for the control core. A part that a crash has left behind is emptied by whoever makes the same file next,
//! unless it was taken up before; one that a living process writes is locked.

use std::ffi::{OsStr, OsString};
use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::MediaFile;

/// Why a file could not be made.
#[derive(Debug, thiserror::Error)]
pub enum NewFileError {
    /// It is there already.
    #[error("{} is there already", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// Somebody else is making it.
    #[error("{} is being written already", path.display())]
    Busy {
        /// The file.
        path: PathBuf,
    },
    /// The disk has too little room.
    #[error("no room for {bytes} bytes on the disk of {}", path.display())]
    NoRoom {
        /// The file.
        path: PathBuf,
        /// What it needs.
        bytes: u64,
    },
    /// The system refused.
    #[error("cannot {what} {}: {source}", path.display())]
    Os {
        /// What was tried.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
}

/// A file that is being made. Dropped before [`Self::finish`] it leaves nothing behind.
#[derive(Debug)]
pub struct NewFile {
    path: PathBuf,
    part: PathBuf,
    replace: bool,
    file: MediaFile,
    done: bool,
}

impl NewFile {
    /// Begins the file at `path`, with room for `bytes` (0: it grows as it is written). The folder must be there; a link at the place of
    /// the part is not followed. A file that is there already stays until [`Self::finish`], and is then replaced only with `replace`.
    ///
    /// # Errors
    /// [`NewFileError`].
    pub fn create(path: &Path, bytes: u64, replace: bool) -> Result<Self, NewFileError> {
        if !replace && path.symlink_metadata().is_ok() {
            return Err(NewFileError::Exists { path: path.to_owned() });
        }
        let new = Self::open(path, replace, true)?;
        new.file.buffered().set_len(0).map_err(|source| new.os_error("make", source))?;
        new.reserve(bytes)?;
        Ok(new)
    }

    /// Takes up the part of the file at `path` that a crash has left behind, as it is; `None` when there is none.
    ///
    /// # Errors
    /// [`NewFileError`]; the part stays.
    pub fn take_up(path: &Path, replace: bool) -> Result<Option<Self>, NewFileError> {
        match Self::open(path, replace, false) {
            Ok(new) => Ok(Some(new)),
            Err(NewFileError::Os { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn open(path: &Path, replace: bool, create: bool) -> Result<Self, NewFileError> {
        let os_error = |what, source| NewFileError::Os { what, path: path.to_owned(), source };
        let name = path.file_name().ok_or_else(|| os_error("make", io::ErrorKind::InvalidInput.into()))?;
        let part = path.with_file_name(hidden(name, PART));
        let buffered = open_part(&part, create).map_err(|source| os_error("make", source))?;
        match buffered.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(NewFileError::Busy { path: path.to_owned() }),
            Err(TryLockError::Error(source)) => return Err(os_error("lock", source)),
        }
        // Who held the lock before may just have renamed or removed what was opened here.
        let is_same = part.symlink_metadata().is_ok_and(|found| buffered.metadata().is_ok_and(|opened| found.ino() == opened.ino()));
        if !is_same {
            return Err(NewFileError::Busy { path: path.to_owned() });
        }
        let file = MediaFile::writable(buffered, &part).map_err(|source| os_error("make", source))?;
        Ok(Self { path: path.to_owned(), part, replace, file, done: false })
    }

    /// The handle to write it with.
    pub fn file(&self) -> &MediaFile {
        &self.file
    }

    /// Where it will be.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where what must be known of it lies until it is whole.
    pub fn notes_path(&self) -> PathBuf {
        Self::notes_path_of(&self.path)
    }

    /// Where what must be known of the file at `path` lies until it is whole.
    pub fn notes_path_of(path: &Path) -> PathBuf {
        path.with_file_name(hidden(path.file_name().unwrap_or_default(), NOTES))
    }

    /// Bytes that the part has now.
    ///
    /// # Errors
    /// The system's answer.
    pub fn size_now(&self) -> io::Result<u64> {
        Ok(self.file.buffered().metadata()?.len())
    }

    /// Waits until what was written is on the disk.
    ///
    /// # Errors
    /// The system's answer.
    pub fn sync_data(&self) -> io::Result<()> {
        self.file.buffered().sync_data()
    }

    /// Whether a file that is there is replaced in the end.
    pub fn set_replace(&mut self, replace: bool) {
        self.replace = replace;
    }

    /// The part stays as it is, for whoever takes it up.
    pub fn leave(mut self) {
        self.done = true;
    }

    /// Takes room for the first `bytes` of the file, so that a disk that is too full is known before anything was written.
    ///
    /// # Errors
    /// [`NewFileError::NoRoom`]. A file system that cannot reserve room is not an error.
    pub fn reserve(&self, bytes: u64) -> Result<(), NewFileError> {
        let no_room = || NewFileError::NoRoom { path: self.path.clone(), bytes };
        let Ok(length) = libc::off_t::try_from(bytes) else { return Err(no_room()) };
        if length == 0 {
            return Ok(());
        }
        // SAFETY: the descriptor is open as long as `self.file` lives; the call touches no memory.
        let answer = unsafe { libc::fallocate(self.file.buffered().as_raw_fd(), 0, 0, length) };
        if answer == 0 {
            return Ok(());
        }
        let source = io::Error::last_os_error();
        match source.raw_os_error() {
            Some(libc::ENOSPC | libc::EDQUOT | libc::EFBIG) => Err(no_room()),
            Some(libc::EOPNOTSUPP | libc::ENOSYS | libc::EINVAL) => Ok(()),
            _ => Err(NewFileError::Os { what: "reserve room for", path: self.path.clone(), source }),
        }
    }

    /// Writes all of `bytes` at `offset`, blocking, through the page cache: for what is not written on an engine core.
    ///
    /// # Errors
    /// The system's answer.
    pub fn write_all_at(&self, bytes: &[u8], offset: u64) -> Result<(), NewFileError> {
        self.file.buffered().write_all_at(bytes, offset).map_err(|source| self.os_error("write", source))
    }

    /// All that was to be written is: cuts the file to `bytes`, waits until it is on the disk and gives it its name.
    ///
    /// # Errors
    /// [`NewFileError`]; the part is removed then.
    pub fn finish(mut self, bytes: u64) -> Result<PathBuf, NewFileError> {
        let file = self.file.buffered();
        let on_disk = file.set_len(bytes).and_then(|()| file.sync_all());
        on_disk.map_err(|source| self.os_error("finish", source))?;
        if self.replace {
            std::fs::rename(&self.part, &self.path).map_err(|source| self.os_error("rename to", source))?;
        } else {
            // A link fails where a rename would replace what has come to be there meanwhile.
            std::fs::hard_link(&self.part, &self.path).or_else(|source| self.rename_if_free(source))?;
            let _ = std::fs::remove_file(&self.part);
        }
        self.done = true;
        if let Some(folder) = self.path.parent().and_then(|folder| File::open(folder).ok()) {
            let _ = folder.sync_all();
        }
        Ok(std::mem::take(&mut self.path))
    }

    /// For file systems without hard links, and for a part that got its name already before a crash.
    fn rename_if_free(&self, source: io::Error) -> Result<(), NewFileError> {
        let own = self.file.identity();
        if self.path.symlink_metadata().is_ok_and(|found| (found.dev(), found.ino()) == (own.device, own.inode)) {
            return Ok(());
        }
        if source.kind() == io::ErrorKind::AlreadyExists || self.path.symlink_metadata().is_ok() {
            return Err(NewFileError::Exists { path: self.path.clone() });
        }
        std::fs::rename(&self.part, &self.path).map_err(|source| self.os_error("rename to", source))
    }

    fn os_error(&self, what: &'static str, source: io::Error) -> NewFileError {
        match source.raw_os_error() {
            Some(libc::ENOSPC | libc::EDQUOT) => NewFileError::NoRoom { path: self.path.clone(), bytes: self.file.identity().size },
            _ => NewFileError::Os { what, path: self.path.clone(), source },
        }
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if !self.done {
            // What else there is to do about a file that cannot be removed, nobody here knows; the next one of its name takes it over.
            let _ = std::fs::remove_file(&self.part);
        }
    }
}

const PART: &str = ".part";
const NOTES: &str = ".notes";

/// A name beside a file's, until that is whole. Its extension keeps it out of the catalogue.
fn hidden(name: &OsStr, extension: &str) -> OsString {
    let mut hidden = OsString::from(".");
    hidden.push(name);
    hidden.push(extension);
    hidden
}

/// The name of the file whose notes have this name, if it is one of notes.
pub fn name_of_notes(name: &str) -> Option<&str> {
    name.strip_prefix('.')?.strip_suffix(NOTES).filter(|name| !name.is_empty())
}

fn open_part(part: &Path, create: bool) -> io::Result<File> {
    // O_DSYNC: what goes through the page cache does not pile up there until the end.
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_DSYNC;
    OpenOptions::new().read(true).write(true).create(create).truncate(false).custom_flags(flags).open(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_gets_its_name_when_it_is_whole_and_else_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.mp4");
        let new = NewFile::create(&path, 100_000, false).unwrap();
        new.write_all_at(&[7; 5000], 0).unwrap();
        assert_eq!(names(folder.path()), [".a.mp4.part"]);
        assert!(matches!(NewFile::create(&path, 0, true), Err(NewFileError::Busy { .. })), "two at once");
        drop(new);
        assert!(names(folder.path()).is_empty());
        let new = NewFile::create(&path, 100_000, false).unwrap();
        new.write_all_at(&[7; 5000], 0).unwrap();
        assert_eq!(new.finish(5000).unwrap(), path);
        assert_eq!(names(folder.path()), ["a.mp4"]);
        assert_eq!(std::fs::read(&path).unwrap(), [7; 5000]);
    }

    #[test]
    fn what_is_there_is_replaced_only_when_that_is_meant() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.mp4");
        std::fs::write(&path, "old").unwrap();
        assert!(matches!(NewFile::create(&path, 10, false), Err(NewFileError::Exists { .. })));
        drop(NewFile::create(&path, 10, true).unwrap());
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        let new = NewFile::create(&path, 10, true).unwrap();
        new.write_all_at(b"new", 0).unwrap();
        new.finish(3).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
        // It came to be there while the new one was written.
        let other = folder.path().join("b.mp4");
        let new = NewFile::create(&other, 10, false).unwrap();
        std::fs::write(&other, "theirs").unwrap();
        assert!(matches!(new.finish(3), Err(NewFileError::Exists { .. })));
        assert_eq!((names(folder.path()), std::fs::read(&other).unwrap()), (vec!["a.mp4".into(), "b.mp4".into()], b"theirs".to_vec()));
    }

    #[test]
    fn a_part_that_a_crash_left_is_taken_over_and_a_link_is_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let (path, part) = (folder.path().join("a.mp4"), folder.path().join(".a.mp4.part"));
        std::fs::write(&part, vec![1; 9999]).unwrap();
        let new = NewFile::create(&path, 0, false).unwrap();
        new.write_all_at(b"abc", 0).unwrap();
        new.finish(3).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"abc");
        let victim = folder.path().join("victim");
        std::fs::write(&victim, "precious").unwrap();
        std::os::unix::fs::symlink(&victim, folder.path().join(".b.mp4.part")).unwrap();
        assert!(matches!(NewFile::create(&folder.path().join("b.mp4"), 0, true), Err(NewFileError::Os { .. })));
        assert_eq!(std::fs::read(&victim).unwrap(), b"precious");
    }

    #[test]
    fn a_disk_that_is_too_full_is_known_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let error = NewFile::create(&folder.path().join("huge.mp4"), 1 << 60, false).unwrap_err();
        assert!(matches!(error, NewFileError::NoRoom { .. }) || error.to_string().contains("cannot"), "{error}");
        assert!(names(folder.path()).is_empty());
    }
}
