//! The titles of a media folder.
//!
//! A title is read once, by whoever asks first while all others wait for that one reading; it is kept while its file is unchanged, up to a
//! bound of memory (least recently used goes first), and its index is kept in a cache folder, so that a second start reads no media at all.
//!
//! - `folder`: which files there are; no path ever leads out of the root. `place`: where a new one goes.
//! - `shelf`: the titles in memory.
//! - `cache`: the titles on disk.
//!
//! Everything here blocks: it is for worker threads, never for an engine core.

mod cache;
mod folder;
mod place;
mod shelf;

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cache::Cache;
pub use folder::{EXTENSIONS, ListedFile};
pub use place::NewPlace;
use shelf::{Found, Pending, Shelf};

use super::{MediaDescription, MediaError, Title, read_title};

/// Memory for indices unless set otherwise: the indices of about 600 films.
pub const MEMORY_BYTES_DEFAULT: u64 = 4 << 30;

/// Why there is no title.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LibraryError {
    /// The media folder itself cannot be used.
    #[error("media folder {}: {error}; give a folder that exists and that this user may read", path.display())]
    Root {
        /// The folder.
        path: PathBuf,
        /// Why.
        error: Arc<std::io::Error>,
    },
    /// There is no such file in the media folder, or the path would leave it.
    #[error("no media file '{path}': {reason}")]
    NotFound {
        /// The path asked for.
        path: String,
        /// Why not.
        reason: &'static str,
    },
    /// The file is there but cannot be opened.
    #[error("cannot open '{path}': {error}")]
    Open {
        /// The path asked for.
        path: String,
        /// Why.
        error: Arc<std::io::Error>,
    },
    /// The file is there but cannot be delivered.
    #[error("'{path}': {error}")]
    Media {
        /// The path asked for.
        path: String,
        /// Why.
        error: Arc<MediaError>,
    },
    /// The reading of the file ended without a result (it panicked); asking again reads again.
    #[error("'{0}' could not be read to the end; this is a defect of the reader, please report the file")]
    Interrupted(String),
}

/// What tells an unchanged file from a changed one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Size in bytes.
    pub size: u64,
    /// Time of the last modification, nanoseconds since 1970.
    pub mtime_ns: i64,
    /// Number of the file in its file system.
    pub inode: u64,
    /// The file system.
    pub dev: u64,
}

impl Identity {
    fn of(metadata: &std::fs::Metadata) -> Self {
        let mtime_ns = metadata.mtime().saturating_mul(1_000_000_000).saturating_add(metadata.mtime_nsec());
        Self { size: metadata.len(), mtime_ns, inode: metadata.ino(), dev: metadata.dev() }
    }
}

/// A title of the media folder.
#[derive(Debug)]
pub struct OpenTitle {
    /// What the file is.
    pub title: Arc<Title>,
    /// `title.description`, to be shared.
    pub description: Arc<MediaDescription>,
    /// Path below the media folder, with `/` separators.
    pub path: String,
    /// Where the file is, links resolved.
    pub file_path: PathBuf,
    /// The file that was read.
    pub identity: Identity,
    /// Answers of `resident_blocks_max` by block size and window.
    blocks: Mutex<Vec<(u64, u64, u64)>>,
}

impl OpenTitle {
    /// A title that was read from `file_path`.
    pub fn new(title: Title, path: String, file_path: PathBuf, identity: Identity) -> Self {
        let description = Arc::new(title.description.clone());
        Self { title: Arc::new(title), description, path, file_path, identity, blocks: Mutex::default() }
    }

    /// [`Title::resident_blocks_max`], reckoned once for each pair of arguments.
    pub fn resident_blocks_max(&self, block_bytes: u64, window_ns: u64) -> u64 {
        let known = |blocks: &[(u64, u64, u64)]| blocks.iter().find(|(b, w, _)| (*b, *w) == (block_bytes, window_ns)).map(|known| known.2);
        let mut blocks = lock(&self.blocks);
        known(&blocks).unwrap_or_else(|| {
            let most = self.title.resident_blocks_max(block_bytes, window_ns);
            // There is one pair of arguments per engine; a caller that makes up new ones is not to fill the memory.
            if blocks.len() < 16 {
                blocks.push((block_bytes, window_ns, most));
            }
            most
        })
    }

    fn memory_bytes(&self) -> u64 {
        let indices: usize = self.title.tracks.iter().map(|track| track.samples.memory_bytes()).sum();
        indices as u64 + 4096
    }
}

/// What is known of a file of the media folder.
#[derive(Clone, Debug)]
pub struct Catalogued {
    /// The file.
    pub file: ListedFile,
    /// What it is, or why it cannot be served; `None` while it was not read yet, or since it changed.
    pub result: Option<Result<Arc<MediaDescription>, LibraryError>>,
}

/// What a scan says of one file.
#[derive(Clone, Debug)]
pub struct Scanned {
    /// The file.
    pub file: ListedFile,
    /// What it is, or why it cannot be served.
    pub result: Result<Arc<MediaDescription>, LibraryError>,
    /// Files done so far, this one included.
    pub done: usize,
    /// Files in all.
    pub total: usize,
}

/// The sum of a scan.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScanSummary {
    /// Files that can be served.
    pub good: usize,
    /// Files that cannot.
    pub bad: usize,
}

/// The media folder.
#[derive(Debug)]
pub struct Library {
    root: PathBuf,
    cache: Option<Cache>,
    shelf: Mutex<Shelf>,
}

/// A file of the folder, found.
struct Located {
    path: String,
    file_path: PathBuf,
    identity: Identity,
}

impl Library {
    /// Opens the media folder `root`; indices are kept in the folder `cache` too, if there is one and it can be made.
    ///
    /// # Errors
    /// [`LibraryError::Root`] when `root` is not a folder that can be read.
    pub fn open(root: PathBuf, cache: Option<PathBuf>) -> Result<Self, LibraryError> {
        let refuse = |path: &Path, error| LibraryError::Root { path: path.to_owned(), error: Arc::new(error) };
        let canonical = root.canonicalize().map_err(|error| refuse(&root, error))?;
        std::fs::read_dir(&canonical).map_err(|error| refuse(&root, error))?;
        let shelf = Mutex::new(Shelf::new(MEMORY_BYTES_DEFAULT));
        Ok(Self { root: canonical, cache: cache.and_then(Cache::open), shelf })
    }

    /// Where indices are cached unless the operator says otherwise: `$XDG_CACHE_HOME/tactus`, else `$HOME/.cache/tactus`, else nowhere.
    pub fn default_cache() -> Option<PathBuf> {
        let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache"))).map(|base| base.join("tactus"))
    }

    /// Bounds the memory for indices. Titles in use stay in memory even above it.
    pub fn with_memory_bytes(self, bytes: u64) -> Self {
        lock(&self.shelf).set_bytes_max(bytes);
        self
    }

    /// The media folder, links resolved.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The cache folder, if there is one in use.
    pub fn cache(&self) -> Option<&Path> {
        self.cache.as_ref().map(Cache::folder)
    }

    /// The media files below the root, sorted by path. Bounded in depth and number; links that leave the root are not followed.
    pub fn list(&self) -> Vec<ListedFile> {
        folder::list(&self.root)
    }

    /// The paths of media files that hidden files beside them are about, whether they are there or not; `of` tells what a hidden file is about
    /// by its name.
    pub fn beside(&self, of: impl Fn(&str) -> Option<&str>) -> Vec<String> {
        folder::beside(&self.root, of)
    }

    /// The media files below the root with what is known of each; reads no file.
    pub fn catalogue(&self) -> Vec<Catalogued> {
        let files = self.list();
        let shelf = lock(&self.shelf);
        files.into_iter().map(|file| Catalogued { result: shelf.described(&file.path, file.identity), file }).collect()
    }

    /// The title at `path`, relative to the root with `/` separators. Reads the file unless it was read before and is unchanged; when several
    /// threads ask at once, one reads and the others wait for it.
    ///
    /// # Errors
    /// [`LibraryError`], which says what is wrong with the path or the file.
    pub fn get(&self, path: &str) -> Result<Arc<OpenTitle>, LibraryError> {
        let located = match folder::locate(&self.root, path) {
            Ok((file_path, identity)) => Located { path: path.to_owned(), file_path, identity },
            Err(error) => {
                lock(&self.shelf).forget(path);
                return Err(error);
            }
        };
        let found = lock(&self.shelf).find_or_begin(path, located.identity);
        match found {
            Found::Title(title) => Ok(title),
            Found::Error(error) => Err(error),
            Found::Building(pending) => pending.wait(),
            Found::Begun(pending) => {
                let mut reading = Reading { library: self, path, pending, identity: located.identity, result: None };
                reading.result = Some(self.read(&located));
                reading.finish()
            }
        }
    }

    /// Reads all files on `threads` threads and tells `progress` of each as it is done. Then lets go of cached indices of files that are gone.
    pub fn scan(&self, threads: usize, progress: impl Fn(Scanned) + Sync) -> ScanSummary {
        let files = self.list();
        let next = AtomicUsize::new(0);
        let done = AtomicUsize::new(0);
        let good = AtomicUsize::new(0);
        let work = || {
            while let Some(file) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
                let result = self.get(&file.path).map(|title| title.description.clone());
                good.fetch_add(usize::from(result.is_ok()), Ordering::Relaxed);
                let done = done.fetch_add(1, Ordering::Relaxed) + 1;
                progress(Scanned { file: file.clone(), result, done, total: files.len() });
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..threads.clamp(1, 64).min(files.len().max(1)) {
                scope.spawn(work);
            }
            work();
        });
        // A folder without any media is more likely a disk that is not mounted.
        if let Some(cache) = self.cache.as_ref().filter(|_| !files.is_empty()) {
            cache.prune(&self.root);
        }
        let good = good.into_inner();
        ScanSummary { good, bad: files.len() - good }
    }

    fn read(&self, located: &Located) -> Result<Arc<OpenTitle>, LibraryError> {
        let Located { path, file_path, .. } = located;
        let open_error = |error| LibraryError::Open { path: path.clone(), error: Arc::new(error) };
        let mut file = File::open(file_path).map_err(open_error)?;
        let identity = Identity::of(&file.metadata().map_err(open_error)?);
        if let Some(title) = self.cache.as_ref().and_then(|cache| cache.load(file_path, identity)) {
            return Ok(Arc::new(OpenTitle::new(title, path.clone(), file_path.clone(), identity)));
        }
        let result = read_title(&mut file, identity.size);
        let after = Identity::of(&file.metadata().map_err(open_error)?);
        let result = match changed(identity, after) {
            Some(what) => Err(MediaError::Changing { what }),
            None => result,
        };
        let title = result.map_err(|error| LibraryError::Media { path: path.clone(), error: Arc::new(error) })?;
        if let Some(cache) = &self.cache {
            cache.store(file_path, identity, &title);
        }
        Ok(Arc::new(OpenTitle::new(title, path.clone(), file_path.clone(), identity)))
    }
}

fn changed(before: Identity, after: Identity) -> Option<String> {
    if before.size != after.size {
        return Some(format!("its size went from {} to {} bytes while it was read", before.size, after.size));
    }
    (before != after).then(|| "it was written to while it was read".to_owned())
}

/// A reading under way. However it ends, those who wait for it get an answer.
struct Reading<'a> {
    library: &'a Library,
    path: &'a str,
    pending: Arc<Pending>,
    identity: Identity,
    result: Option<Result<Arc<OpenTitle>, LibraryError>>,
}

impl Reading<'_> {
    fn finish(mut self) -> Result<Arc<OpenTitle>, LibraryError> {
        let result = self.result.clone();
        self.publish();
        result.unwrap_or_else(|| Err(LibraryError::Interrupted(self.path.to_owned())))
    }

    fn publish(&mut self) {
        let result = self.result.take().unwrap_or_else(|| Err(LibraryError::Interrupted(self.path.to_owned())));
        lock(&self.library.shelf).end(self.path, &self.pending, self.identity, &result);
        self.pending.fulfil(result);
    }
}

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        if !self.pending.is_fulfilled() {
            self.publish();
        }
    }
}

/// Locks; a thread that panicked with the lock held left nothing half done that would matter here.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
