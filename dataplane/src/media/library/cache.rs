//! Indices on disk: one file per media file in the cache folder, named by a hash of the media file's path.
//!
//! ```text
//! magic 8 │ version 4 │ size 8 │ mtime 8 │ inode 8 │ length of the rest 8 │ xxh3 of all but itself 8 │ path, title (encoding)
//! ```
//!
//! All numbers are little endian. A cache file is written under another name and renamed, so a reader sees all of it or nothing. One that is
//! not exactly as it was written (version, identity, hash) is as good as none: the media file is read and the cache file written anew.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use xxhash_rust::xxh3::{Xxh3, xxh3_128};

use super::Identity;
use crate::media::Title;
use crate::media::encoding::{Decoder, Encoder, decode_title, encode_title};

const MAGIC: [u8; 8] = *b"TACTUSIX";
/// To be raised whenever the encoding changes, or what the reader makes of a file.
const VERSION: u32 = 1;
/// Bytes before the hash.
const HEAD_BYTES: usize = 44;
const HASH_BYTES: usize = 8;
/// Bytes of a cache file: 20 million samples, with room to spare.
const FILE_BYTES_MAX: u64 = 1 << 30;
/// The path of the media file lies within these first bytes.
const PATH_WITHIN_BYTES: u64 = 8 << 10;
/// No write takes longer than this.
const PART_AGE_MAX: Duration = Duration::from_secs(3600);

/// The cache folder.
#[derive(Debug)]
pub struct Cache {
    folder: PathBuf,
    temporaries: AtomicU64,
}

impl Cache {
    /// Opens the cache folder, and makes it if need be; `None` when that cannot be.
    pub fn open(folder: PathBuf) -> Option<Self> {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder).ok()?;
        Some(Self { folder, temporaries: AtomicU64::new(0) })
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The title of the media file at `media`, if it is cached and the file is still `identity`.
    pub fn load(&self, media: &Path, identity: Identity) -> Option<Title> {
        let mut file = File::open(self.file_of(media)).ok()?;
        let len = file.metadata().ok().map(|metadata| metadata.len()).filter(|len| *len <= FILE_BYTES_MAX)?;
        let mut bytes = Vec::with_capacity(len as usize);
        Read::by_ref(&mut file).take(len).read_to_end(&mut bytes).ok()?;
        let (head, rest) = bytes.split_at_checked(HEAD_BYTES)?;
        let (hash, body) = rest.split_first_chunk::<HASH_BYTES>()?;
        if head != self::head(identity, body.len()) || u64::from_le_bytes(*hash) != self::hash(head, body) {
            return None;
        }
        let mut decoder = Decoder::new(body);
        if decoder.bytes()? != media.as_os_str().as_bytes() {
            return None;
        }
        decode_title(&mut decoder, identity.size)
    }

    /// Caches a title. A cache that cannot be written is no error: the next start reads the media file again.
    pub fn store(&self, media: &Path, identity: Identity, title: &Title) {
        let mut encoder = Encoder::default();
        encoder.bytes(media.as_os_str().as_bytes());
        encode_title(title, &mut encoder);
        let body = encoder.finish();
        let head = head(identity, body.len());
        let number = self.temporaries.fetch_add(1, Ordering::Relaxed);
        let temporary = self.folder.join(format!(".{}-{number}.part", std::process::id()));
        let written = File::create(&temporary).and_then(|mut file| {
            file.write_all(&head)?;
            file.write_all(&hash(&head, &body).to_le_bytes())?;
            file.write_all(&body)
        });
        let stored = written.and_then(|()| std::fs::rename(&temporary, self.file_of(media)));
        if stored.is_err() {
            // Nothing more can be done about it, not even when this fails too.
            let _ = std::fs::remove_file(&temporary);
        }
    }

    /// Removes the indices of files below `root` that are gone, and what an interrupted write left behind.
    pub fn prune(&self, root: &Path) {
        let Ok(entries) = self.folder.read_dir() else { return };
        for entry in entries.flatten() {
            let path = entry.path();
            let gone = match path.extension().and_then(|extension| extension.to_str()) {
                Some("index") => media_of(&path).is_some_and(|media| media.starts_with(root) && !media.exists()),
                Some("part") => is_older_than(&path, PART_AGE_MAX),
                _ => false,
            };
            if gone {
                // What cannot be removed now is tried again at the next scan.
                let _ = std::fs::remove_file(&path);
            }
        }
    }

    fn file_of(&self, media: &Path) -> PathBuf {
        self.folder.join(format!("{:032x}.index", xxh3_128(media.as_os_str().as_bytes())))
    }
}

/// The media file that a cache file is of.
fn media_of(cached: &Path) -> Option<PathBuf> {
    let mut start = Vec::new();
    File::open(cached).ok()?.take(PATH_WITHIN_BYTES).read_to_end(&mut start).ok()?;
    let path = Decoder::new(start.get(HEAD_BYTES + HASH_BYTES..)?).bytes()?;
    Some(PathBuf::from(OsStr::from_bytes(path)))
}

fn is_older_than(path: &Path, age: Duration) -> bool {
    let modified = path.metadata().and_then(|metadata| metadata.modified());
    modified.is_ok_and(|modified| modified.elapsed().is_ok_and(|elapsed| elapsed > age))
}

fn head(identity: Identity, body_bytes: usize) -> Vec<u8> {
    let mut head = Vec::with_capacity(HEAD_BYTES);
    head.extend_from_slice(&MAGIC);
    head.extend_from_slice(&VERSION.to_le_bytes());
    head.extend_from_slice(&identity.size.to_le_bytes());
    head.extend_from_slice(&identity.mtime_ns.to_le_bytes());
    // The device number is left out: it may change when the machine starts anew.
    head.extend_from_slice(&identity.inode.to_le_bytes());
    head.extend_from_slice(&(body_bytes as u64).to_le_bytes());
    head
}

fn hash(head: &[u8], body: &[u8]) -> u64 {
    let mut hasher = Xxh3::new();
    hasher.update(head);
    hasher.update(body);
    hasher.digest()
}
