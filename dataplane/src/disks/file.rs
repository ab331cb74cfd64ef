//! Media files as the disks read and write them: one handle, two descriptors.
//!
//! The direct descriptor (O_DIRECT) bypasses the page cache; the buffered one serves where the file system refuses that, at opening
//! time or at the first read. Opening is for the control core: it may block.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What tells whether a file is still the one that was looked at before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FileIdentity {
    /// Device number of the file system.
    pub device: u64,
    /// Inode number on it.
    pub inode: u64,
    /// Bytes.
    pub size: u64,
    /// Last modification of the content, in nanoseconds since 1970 UTC.
    pub modified_unix_ns: i64,
}

/// Why a media file could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The operating system refused.
    #[error("cannot open {}: {source}", path.display())]
    Os {
        /// The file's path.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// A folder, a pipe, a device.
    #[error("{} is not a regular file", path.display())]
    NotRegular {
        /// The file's path.
        path: PathBuf,
    },
}

/// An open media file. Clones are handles of the same open file, which is closed with the last one.
#[derive(Clone)]
pub struct MediaFile {
    inner: Arc<Inner>,
}

struct Inner {
    buffered: File,
    direct: Option<File>,
    /// Set when the file system took O_DIRECT at opening time and refused it at a read or write.
    direct_refused: AtomicBool,
    identity: FileIdentity,
}

impl MediaFile {
    /// Opens the regular file at `path` for reading, following symbolic links (whether they may lead out of the media folder is for the
    /// catalogue to say).
    ///
    /// # Errors
    /// [`OpenError`]: the system refuses, or it is no regular file.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let os_error = |source| OpenError::Os { path: path.to_owned(), source };
        // O_NONBLOCK: a pipe without a writer must not hold the caller up; it means nothing for regular files.
        let open = |flags| OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY | flags).open(path);
        let buffered = open(0).map_err(os_error)?;
        let metadata = buffered.metadata().map_err(os_error)?;
        if !metadata.is_file() {
            return Err(OpenError::NotRegular { path: path.to_owned() });
        }
        Ok(Self::of(buffered, &metadata, open(libc::O_DIRECT).ok()))
    }

    /// A file that `buffered` has open for reading and writing, and that lies at `path`: it can be written.
    ///
    /// # Errors
    /// The system's answer to `fstat`.
    pub(super) fn writable(buffered: File, path: &Path) -> io::Result<Self> {
        let metadata = buffered.metadata()?;
        let direct = OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK | libc::O_NOFOLLOW | libc::O_DIRECT).open(path);
        Ok(Self::of(buffered, &metadata, direct.ok()))
    }

    fn of(buffered: File, metadata: &std::fs::Metadata, direct: Option<File>) -> Self {
        let identity = identity_of(metadata);
        // The path may have come to mean another file in between.
        let is_same = |file: &File| file.metadata().is_ok_and(|m| (m.dev(), m.ino()) == (identity.device, identity.inode));
        let direct = direct.filter(is_same);
        Self { inner: Arc::new(Inner { buffered, direct, direct_refused: AtomicBool::new(false), identity }) }
    }

    /// A file whose reads last until something is written to the pipe.
    #[cfg(test)]
    pub(super) fn of_pipe(reader: File) -> Self {
        let identity = identity_of(&reader.metadata().unwrap());
        Self { inner: Arc::new(Inner { buffered: reader, direct: None, direct_refused: AtomicBool::new(false), identity }) }
    }

    /// Bytes, when the file was opened.
    pub fn size(&self) -> u64 {
        self.inner.identity.size
    }

    /// What the file was when it was opened.
    pub fn identity(&self) -> FileIdentity {
        self.inner.identity
    }

    /// What the open file is now; it differs from [`Self::identity`] when it has been written or cut since.
    ///
    /// # Errors
    /// The system's answer to `fstat`.
    pub fn identity_now(&self) -> io::Result<FileIdentity> {
        self.inner.buffered.metadata().map(|metadata| identity_of(&metadata))
    }

    /// Where the open file lies now, links resolved.
    ///
    /// # Errors
    /// The system's answer, where `/proc` is not there.
    pub fn real_path(&self) -> io::Result<PathBuf> {
        std::fs::read_link(format!("/proc/self/fd/{}", self.inner.buffered.as_raw_fd()))
    }

    /// True while reads and writes bypass the page cache.
    pub fn is_direct(&self) -> bool {
        self.inner.direct.is_some() && !self.inner.direct_refused.load(Ordering::Relaxed)
    }

    /// Reads through the page cache, blocking; for threads that may.
    ///
    /// # Errors
    /// The system's answer to `pread`.
    pub fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.inner.buffered.read_at(buf, offset)
    }

    /// Writes through the page cache, blocking; for threads that may.
    ///
    /// # Errors
    /// The system's answer to `pwrite`; EBADF for a file that was opened for reading.
    pub fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<usize> {
        self.inner.buffered.write_at(buf, offset)
    }

    /// The file behind the handle, for threads that may block.
    pub(super) fn buffered(&self) -> &File {
        &self.inner.buffered
    }

    /// The descriptor that bypasses the page cache, where the file system has one and has not refused to do with it what it should.
    pub(super) fn direct_fd(&self) -> Option<RawFd> {
        self.inner.direct.as_ref().filter(|_| self.is_direct()).map(File::as_raw_fd)
    }

    pub(super) fn buffered_fd(&self) -> RawFd {
        self.inner.buffered.as_raw_fd()
    }

    /// The file system refused a well-formed direct read or write: later ones go through the page cache.
    pub(super) fn refuse_direct(&self) {
        self.inner.direct_refused.store(true, Ordering::Relaxed);
    }
}

impl std::fmt::Debug for MediaFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Inner { identity, .. } = &*self.inner;
        write!(f, "MediaFile(inode {}, {} bytes, {})", identity.inode, identity.size, if self.is_direct() { "direct" } else { "buffered" })
    }
}

fn identity_of(metadata: &std::fs::Metadata) -> FileIdentity {
    FileIdentity {
        device: metadata.dev(),
        inode: metadata.ino(),
        size: metadata.size(),
        modified_unix_ns: metadata.mtime().saturating_mul(1_000_000_000).saturating_add(metadata.mtime_nsec()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn tells_what_it_opened_and_notices_changes() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&[7; 5000]).unwrap();
        let media = MediaFile::open(file.path()).unwrap();
        assert_eq!(media.size(), 5000);
        assert_eq!(media.identity_now().unwrap(), media.identity());
        file.write_all(&[7; 1]).unwrap();
        assert_ne!(media.identity_now().unwrap(), media.identity());
        let mut buf = [0; 10];
        assert_eq!(media.read_at(&mut buf, 4995).unwrap(), 6);
    }

    #[test]
    fn refuses_what_is_no_regular_file_without_blocking() {
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(MediaFile::open(folder.path()), Err(OpenError::NotRegular { .. })));
        assert!(matches!(MediaFile::open(Path::new("/dev/zero")), Err(OpenError::NotRegular { .. })));
        assert!(matches!(MediaFile::open(&folder.path().join("none")), Err(OpenError::Os { .. })));
        let pipe = folder.path().join("pipe");
        let name = std::ffi::CString::new(pipe.as_os_str().as_encoded_bytes()).unwrap();
        // SAFETY: `name` is a valid C string for the length of the call.
        assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
        assert!(matches!(MediaFile::open(&pipe), Err(OpenError::NotRegular { .. })));
    }
}
