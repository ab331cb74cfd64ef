//! The journal of a recording: what its takes were told, kept beside the file, so that a crash does not take the recording along.
//!
//! ```text
//! .NAME.part    the samples, as the sinks write them
//! .NAME.notes   what they are:  magic 8 │ frames, each: length 4 │ xxh3 of the payload 8 │ payload
//!               first payload: boot, replace, bytes of an extent, tracks
//!               the others:    tag 1, track 1, then  1: offset of an extent 8 │ 2: record header 32, place 8 │ 3: bytes that are safe 8
//!                              4 (and track 0): all that was said to be safe before is on the disk
//! ```
//!
//! All numbers are little endian. The journal is written about once a second and synced now and then. What it says is true of a process that
//! crashed; where the machine did, which the boot tells, only what was said before the last tag 4 counts. A frame that is not as it was
//! written is the end of the journal. All of this blocks: it is for the control core.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use xxhash_rust::xxh3::xxh3_64;

use super::record::Note;
use super::take::Take;
use crate::delivery::live::{HEADER_BYTES, RecordHeader};
use crate::disks::NewFile;
use crate::ingest::UNIT_BYTES_MAX;
use crate::media::TrackKind;
use crate::media::encoding::{Decoder, Encoder, decode_codec, encode_codec};

const MAGIC: [u8; 8] = *b"TACTUSN1";
const EXTENT: u8 = 1;
const RECORD: u8 = 2;
const SAFE: u8 = 3;
const SYNCED: u8 = 4;
/// Bytes of a payload. What is collected in a second has fewer.
const PAYLOAD_BYTES_MAX: usize = 1 << 20;
/// Bytes of an entry.
const ENTRY_BYTES_MAX: usize = 64;
/// Tracks of a recording.
const TRACKS_MAX: usize = 255;
/// Bytes of an extent.
const EXTENT_BYTES_MAX: u64 = 1 << 32;
/// Bytes of a file, and of a track: sums of them never overflow.
const FILE_BYTES_MAX: u64 = 1 << 60;

/// Why a journal tells nothing.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// It cannot be read.
    #[error("cannot read its notes: {0}")]
    Io(#[from] io::Error),
    /// It does not begin as one does.
    #[error("its notes do not begin as they should")]
    Broken,
    /// It tells of more than the file has.
    #[error("its notes tell of more than there is")]
    Short,
}

/// What is written, as bytes.
#[derive(Debug, Default)]
pub struct Notes {
    /// Frames that are full.
    full: Vec<u8>,
    pending: Vec<u8>,
}

impl Notes {
    /// The beginning: it goes before all frames.
    pub fn head(boot: &[u8], replace: bool, takes: &[Take]) -> Vec<u8> {
        let mut out = Encoder::default();
        out.bytes(boot);
        out.u8(replace.into());
        let extent_bytes = takes.first().map_or(0, |take| take.shape().3);
        out.u64(extent_bytes);
        out.u64(takes.len() as u64);
        for take in takes {
            let (kind, codec, clock_rate, _) = take.shape();
            out.u8(u8::from(kind == TrackKind::Audio));
            out.u32(clock_rate);
            encode_codec(codec, &mut out);
        }
        let mut head = MAGIC.to_vec();
        head.extend(frame(&out.finish()));
        head
    }

    /// Has the takes collect what the sinks have noted, and remembers it for the next frame.
    pub fn collect(&mut self, takes: &mut [Take]) {
        for (track, take) in takes.iter_mut().enumerate() {
            let Ok(track) = u8::try_from(track) else { break };
            // A sink notes a record before it writes it: all that is safe by now is among the notes.
            let safe = take.safe();
            take.collect(|note| match note {
                Note::Extent(offset) => self.put(EXTENT, track, &[&offset.to_le_bytes()]),
                Note::Record(header, at) => self.put(RECORD, track, &[&header.encode(), &at.to_le_bytes()]),
            });
            self.put(SAFE, track, &[&safe.to_le_bytes()]);
        }
    }

    /// The frames of what was remembered since the last ones.
    pub fn frames(&mut self) -> Vec<u8> {
        let mut frames = std::mem::take(&mut self.full);
        frames.extend(frame(&self.pending));
        self.pending.clear();
        frames
    }

    /// The frame that says that all before it is on the disk.
    pub fn synced() -> Vec<u8> {
        frame(&[SYNCED, 0])
    }

    fn put(&mut self, tag: u8, track: u8, parts: &[&[u8]]) {
        self.pending.extend_from_slice(&[tag, track]);
        parts.iter().for_each(|part| self.pending.extend_from_slice(part));
        if self.pending.len() > PAYLOAD_BYTES_MAX - ENTRY_BYTES_MAX {
            self.full.extend(frame(&self.pending));
            self.pending.clear();
        }
    }
}

/// A frame with this payload.
pub fn frame(payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(12 + payload.len());
    out.extend_from_slice(&u32::try_from(payload.len()).unwrap_or(u32::MAX).to_le_bytes());
    out.extend_from_slice(&xxh3_64(payload).to_le_bytes());
    out.extend_from_slice(payload);
    out
}

/// What a journal tells.
#[derive(Debug)]
pub struct Replayed {
    /// The takes as they were, with what is safe of them.
    pub takes: Vec<Take>,
    /// Whether a file that is there was to be replaced.
    pub replace: bool,
}

/// Takes from a journal, in a machine whose boot is `boot` (empty: not known).
///
/// # Errors
/// [`JournalError`]. That it ends in the midst is none.
pub fn replay(mut from: impl Read, boot: &[u8]) -> Result<Replayed, JournalError> {
    let mut magic = [0; MAGIC.len()];
    from.read_exact(&mut magic).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => JournalError::Broken,
        _ => error.into(),
    })?;
    let mut payload = Vec::new();
    if magic != MAGIC || !next_payload(&mut from, &mut payload)? {
        return Err(JournalError::Broken);
    }
    let (written_in, replace, mut takes) = read_head(&payload).ok_or(JournalError::Broken)?;
    let mut safe = vec![0; takes.len()];
    let mut on_disk = safe.clone();
    while next_payload(&mut from, &mut payload)? {
        let mut entries = Decoder::new(&payload);
        while !entries.is_empty() {
            if entry(&mut entries, &mut takes, &mut safe, &mut on_disk).is_none() {
                break;
            }
        }
    }
    let same_boot = !boot.is_empty() && written_in == boot;
    for (take, bytes) in takes.iter().zip(if same_boot { safe } else { on_disk }) {
        take.set_safe(bytes);
    }
    Ok(Replayed { takes, replace })
}

/// Reads the next frame; false at the end of what is as it was written.
fn next_payload(from: &mut impl Read, payload: &mut Vec<u8>) -> io::Result<bool> {
    let mut head = [0; 12];
    payload.clear();
    if let Err(error) = from.read_exact(&mut head) {
        return if error.kind() == io::ErrorKind::UnexpectedEof { Ok(false) } else { Err(error) };
    }
    let [a, b, c, d, hash @ ..] = head;
    let len = u32::from_le_bytes([a, b, c, d]) as usize;
    if len > PAYLOAD_BYTES_MAX {
        return Ok(false);
    }
    from.take(len as u64).read_to_end(payload)?;
    Ok(payload.len() == len && xxh3_64(payload) == u64::from_le_bytes(hash))
}

fn read_head(payload: &[u8]) -> Option<(Vec<u8>, bool, Vec<Take>)> {
    let mut from = Decoder::new(payload);
    let boot = from.bytes()?.to_vec();
    let replace = from.u8()? != 0;
    let extent_bytes = from.u64().filter(|bytes| (1..=EXTENT_BYTES_MAX).contains(bytes))?;
    let tracks = usize::try_from(from.u64()?).ok().filter(|tracks| *tracks <= TRACKS_MAX)?;
    let mut takes = Vec::new();
    for _ in 0..tracks {
        let kind = if from.u8()? == 0 { TrackKind::Video } else { TrackKind::Audio };
        let clock_rate = from.u32().filter(|rate| *rate > 0)?;
        takes.push(Take::of_journal(kind, decode_codec(&mut from)?, clock_rate, extent_bytes));
    }
    from.is_empty().then_some((boot, replace, takes))
}

/// Takes in the next entry; `None` when it is none, and nothing after it can be told apart.
fn entry(from: &mut Decoder<'_>, takes: &mut [Take], safe: &mut [u64], on_disk: &mut Vec<u64>) -> Option<()> {
    let (tag, track) = (from.u8()?, usize::from(from.u8()?));
    if tag == SYNCED {
        on_disk.clear();
        on_disk.extend_from_slice(safe);
        return Some(());
    }
    let (take, safe) = (takes.get_mut(track)?, safe.get_mut(track)?);
    let small = |value: &u64| *value <= FILE_BYTES_MAX;
    match tag {
        EXTENT => take.note(Note::Extent(from.u64().filter(small)?)),
        RECORD => {
            let header = RecordHeader::decode(&from.array::<HEADER_BYTES>()?);
            let at = from.u64().filter(small)?;
            if header.bytes as usize > UNIT_BYTES_MAX {
                return None;
            }
            take.note(Note::Record(header, at));
        }
        SAFE => *safe = from.u64().filter(small)?,
        _ => return None,
    }
    Some(())
}

/// The journal of a recording that goes on. Dropped, it is removed.
#[derive(Debug)]
pub struct Journal {
    file: File,
    path: PathBuf,
    left: bool,
}

impl Journal {
    /// Begins the journal of what is written to `new`. One that an earlier recording has left there is gone then.
    ///
    /// # Errors
    /// The system's answer.
    pub fn create(new: &NewFile, replace: bool, takes: &[Take]) -> io::Result<Self> {
        let path = new.notes_path();
        let file = OpenOptions::new().write(true).create(true).truncate(true).custom_flags(FLAGS).open(&path)?;
        let mut journal = Self { file, path, left: false };
        journal.write(&Notes::head(&boot(), replace, takes))?;
        journal.file.sync_all()?;
        Ok(journal)
    }

    /// Takes up the journal that was left beside `new`.
    ///
    /// # Errors
    /// [`JournalError`]; the journal stays.
    pub fn take_up(new: &NewFile) -> Result<(Self, Replayed), JournalError> {
        let path = new.notes_path();
        let file = OpenOptions::new().read(true).write(true).custom_flags(FLAGS).open(&path)?;
        let replayed = replay(io::BufReader::new(&file), &boot())?;
        let bytes = new.size_now()?;
        if replayed.takes.iter().any(|take| take.end() > bytes) {
            return Err(JournalError::Short);
        }
        Ok((Self { file, path, left: false }, replayed))
    }

    /// Writes a frame.
    ///
    /// # Errors
    /// The system's answer.
    pub fn write(&mut self, frame: &[u8]) -> io::Result<()> {
        self.file.write_all(frame)
    }

    /// Waits until all that was written, to `new` and here, is on the disk, and says so.
    ///
    /// # Errors
    /// The system's answer.
    pub fn sync(&mut self, new: &NewFile) -> io::Result<()> {
        new.sync_data()?;
        // With what it is about: where the frames before it are lost, it is not reached.
        self.write(&Notes::synced())?;
        self.file.sync_data()
    }

    /// It stays, for the next start.
    pub fn leave(mut self) {
        self.left = true;
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        if !self.left {
            // One that stays without its part is removed by the next start.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

const FLAGS: i32 = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY;

/// What tells this run of the machine from all others; empty where the system does not say.
fn boot() -> Vec<u8> {
    std::fs::read("/proc/sys/kernel/random/boot_id").unwrap_or_default()
}

#[cfg(test)]
mod tests;
