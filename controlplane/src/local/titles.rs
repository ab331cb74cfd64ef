//! Titles that are being delivered: the open file, and what a session of it needs at most.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use dataplane::disks::{FileIdentity, MediaFile};
use dataplane::media::MediaDescription;
use dataplane::media::library::{Catalogued, Library, LibraryError, OpenTitle};

use pacing::cpu::Work;

use super::buffers::Share;
use crate::engine::{EngineError, MediaEntry};

/// A title with its file open.
pub(super) struct Playable {
    pub(super) open: Arc<OpenTitle>,
    pub(super) file: MediaFile,
    /// Names the file's blocks in the engine cores' memory.
    pub(super) file_key: u64,
    /// Buffers that one session of it needs at most.
    pub(super) chunks: usize,
    /// Reads that one session of it needs in any read-ahead window at most.
    pub(super) blocks: u64,
}

impl Playable {
    /// What a session of it needs of an engine core's buffers of this size.
    pub(super) fn share(&self, chunk_bytes: usize) -> Share {
        let blocks = usize::try_from(self.file.identity().size.div_ceil(chunk_bytes.max(1) as u64)).unwrap_or(usize::MAX);
        Share { title: self.file_key, chunks: self.chunks, blocks }
    }
}

/// Opens titles; sessions of one title share its file.
pub(super) struct Titles {
    pub(super) library: Library,
    playing: Mutex<HashMap<String, Weak<Playable>>>,
    next_key: AtomicU64,
    /// A file that is opened again is the same to the engine cores' caches.
    keys: Mutex<HashMap<FileIdentity, u64>>,
    chunk_bytes: u64,
    pub(super) window_ns: u64,
}

impl Titles {
    pub(super) fn new(library: Library, chunk_bytes: u64, window_ns: u64) -> Self {
        Self { library, playing: Mutex::new(HashMap::new()), next_key: AtomicU64::new(1), keys: Mutex::default(), chunk_bytes, window_ns }
    }

    /// The title at `path`, without opening it for delivery. Blocks while it is read for the first time.
    pub(super) fn look_up(&self, path: &str) -> Result<Arc<OpenTitle>, EngineError> {
        self.library.get(path).map_err(error_of)
    }

    /// There is a file of this path.
    pub(super) fn exists(&self, path: &str) -> bool {
        !matches!(self.look_up(path), Err(EngineError::NotFound(_)))
    }

    /// The title at `path`, ready for delivery. Blocks on the file system.
    pub(super) fn open(&self, path: &str) -> Result<Arc<Playable>, EngineError> {
        let open = self.look_up(path)?;
        if let Some(known) = self.playing().get(path).and_then(Weak::upgrade)
            && Arc::ptr_eq(&known.open.title, &open.title)
        {
            return Ok(known);
        }
        let file = MediaFile::open(&open.file_path).map_err(|e| EngineError::NotFound(e.to_string()))?;
        let blocks = open.resident_blocks_max(self.chunk_bytes, self.window_ns);
        // Each track holds on to the block it is sending from while the next one is here already.
        let chunks = blocks as usize + open.title.tracks.len() + 1;
        let file_key = self.key_of(file.identity());
        let playable = Arc::new(Playable { open, file, file_key, chunks, blocks });
        let mut playing = self.playing();
        playing.retain(|_, title| title.strong_count() > 0);
        playing.insert(path.to_owned(), Arc::downgrade(&playable));
        Ok(playable)
    }

    /// All files of the media folder; reads those that were not read yet. Blocks.
    pub(super) fn entries(&self) -> Vec<MediaEntry> {
        let entry = |known: Catalogued| {
            let path = known.file.path;
            let result = known.result.unwrap_or_else(|| self.library.get(&path).map(|open| Arc::clone(&open.description)));
            let (media, error) = match result {
                Ok(media) => (Some(media), None),
                Err(error) => (None, Some(error.to_string())),
            };
            MediaEntry { path, size_bytes: known.file.identity.size, media, error }
        };
        self.library.catalogue().into_iter().map(entry).collect()
    }

    fn key_of(&self, file: FileIdentity) -> u64 {
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        *keys.entry(file).or_insert_with(|| self.next_key.fetch_add(1, Ordering::Relaxed))
    }

    fn playing(&self) -> std::sync::MutexGuard<'_, HashMap<String, Weak<Playable>>> {
        self.playing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The work of delivering all tracks, in the seconds that bring the most.
pub(super) fn work_of(media: &MediaDescription, blocks: u64, window_ns: u64) -> Work {
    let packets = media.tracks.iter().map(|track| {
        let peak = track.peak_1s_bps as f64 / track.mean_bps.max(1) as f64;
        track.packets_per_second * peak.max(1.0) * 1000.0
    });
    let reads_milli = u128::from(blocks) * 1_000_000_000_000 / u128::from(window_ns.max(1));
    Work { packets_milli: packets.sum::<f64>() as u64, reads_milli: u64::try_from(reads_milli).unwrap_or(u64::MAX) }
}

fn error_of(error: LibraryError) -> EngineError {
    match error {
        LibraryError::Root { .. } | LibraryError::NotFound { .. } => EngineError::NotFound(error.to_string()),
        LibraryError::Media { .. } => EngineError::Unsupported(error.to_string()),
        LibraryError::Open { .. } | LibraryError::Interrupted(_) => EngineError::Unavailable(error.to_string()),
    }
}
