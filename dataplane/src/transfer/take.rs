//! What comes of a recording: the notes of its sinks become samples with times and places, and these an MP4 file.
//!
//! ```text
//! Notes of each track ─► Take: samples, extents ─┐
//!                                               ├─► finish: samples in two pieces joined behind the others, moov, head
//! the file, as the sinks have written it ────────┘
//! ```
//!
//! Times count from a track's first sample, by the sender's clock while that goes on, by the engine core's where it does not. Where a track
//! starts on the line of time of all tracks is the median of what its records say, so that one late packet at the start moves nothing.
//! Everything here blocks or takes memory: it is for the control core.

mod times;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_channel::{Receiver, never};
use pacing::schedule::ticks_to_ns;

use self::times::Times;
use super::record::Note;
use crate::disks::NewFile;
use crate::ingest::UNIT_BYTES_MAX;
use crate::media::movie::{self, HEAD_BYTES, MovieSample, MovieTrack};
use crate::media::mp4::parameter_sets;
use crate::media::{Codec, TrackKind};

/// Samples of a track: more than a day of sound. Their tables are in memory until the file is finished, 24 bytes each, and once more then.
pub const SAMPLES_MAX: usize = 1 << 22;

/// Why there is no file.
#[derive(Debug, thiserror::Error)]
pub enum TakeError {
    /// There is no whole sample.
    #[error("nothing was recorded: no sample came, or the first one could not be written")]
    Nothing,
    /// What the sinks have written cannot be read again.
    #[error("cannot read what was recorded: {0}")]
    Read(io::Error),
    /// What belongs around the samples cannot be written.
    #[error("cannot finish the file: {0}")]
    Write(io::Error),
}

/// A file that is recorded to, for threads that may block.
pub trait Storage {
    /// Fills `buf` with what lies at `offset`.
    ///
    /// # Errors
    /// The system's answer, or that the file ends before.
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()>;

    /// Writes all of `bytes` at `offset`.
    ///
    /// # Errors
    /// The system's answer.
    fn write_all_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()>;
}

impl Storage for NewFile {
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let mut done = 0;
        while done < buf.len() {
            match self.file().read_at(buf.get_mut(done..).unwrap_or_default(), offset + done as u64)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                bytes => done += bytes,
            }
        }
        Ok(())
    }

    fn write_all_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        NewFile::write_all_at(self, bytes, offset).map_err(io::Error::other)
    }
}

/// A sample as it was noted: `at` counts the track's bytes, as they lie in its extents.
#[derive(Clone, Copy, Debug)]
struct Noted {
    at: u64,
    dts: u64,
    pts_offset: i32,
    /// The highest bit: a decoder can start here. No access unit is that long.
    bytes: u32,
}

const SYNC: u32 = 1 << 31;
const _: () = assert!(UNIT_BYTES_MAX < SYNC as usize);

/// What was recorded of a track so far.
#[derive(Debug)]
pub struct Take {
    kind: TrackKind,
    codec: Codec,
    clock_rate: u32,
    extent_bytes: u64,
    notes: Receiver<Note>,
    safe: Arc<AtomicU64>,
    extents: Vec<u64>,
    /// Extents that do not lie behind the one before.
    breaks: u64,
    /// Bytes of the longest sample.
    longest: u32,
    samples: Vec<Noted>,
    times: Times,
}

impl Take {
    pub(super) fn new(
        kind: TrackKind,
        codec: Codec,
        clock_rate: u32,
        extent_bytes: u64,
        notes: Receiver<Note>,
        safe: Arc<AtomicU64>,
    ) -> Self {
        let (extents, samples, times) = (Vec::new(), Vec::new(), Times::default());
        Self { kind, codec, clock_rate, extent_bytes, notes, safe, extents, breaks: 0, longest: 0, samples, times }
    }

    /// A take of what a journal tells, from its beginning.
    pub(super) fn of_journal(kind: TrackKind, codec: Codec, clock_rate: u32, extent_bytes: u64) -> Self {
        Self::new(kind, codec, clock_rate, extent_bytes, never(), Arc::default())
    }

    /// Collects what the sink has noted since the last call, and passes it on. The sink waits for that when it has noted thousands of records.
    pub fn collect(&mut self, mut told: impl FnMut(&Note)) {
        while let Ok(note) = self.notes.try_recv() {
            told(&note);
            self.note(note);
        }
    }

    pub(super) fn note(&mut self, note: Note) {
        match note {
            Note::Extent(offset) => {
                self.breaks += u64::from(self.extents.last().is_some_and(|last| last + self.extent_bytes != offset));
                self.extents.push(offset);
            }
            Note::Record(header, at) if self.samples.len() < SAMPLES_MAX => {
                let (dts, pts_offset) = self.times.next(&header, self.clock_rate);
                self.longest = self.longest.max(header.bytes);
                let bytes = header.bytes & !SYNC | if header.sync { SYNC } else { 0 };
                self.samples.push(Noted { at, dts, pts_offset, bytes });
            }
            Note::Record(..) => {}
        }
    }

    /// Bytes of the track that are in the file without a gap.
    pub(super) fn safe(&self) -> u64 {
        self.safe.load(Ordering::Acquire)
    }

    pub(super) fn set_safe(&self, bytes: u64) {
        self.safe.store(bytes, Ordering::Release);
    }

    /// What a journal must know of it.
    pub(super) fn shape(&self) -> (TrackKind, &Codec, u32, u64) {
        (self.kind, &self.codec, self.clock_rate, self.extent_bytes)
    }

    /// No more samples are taken.
    pub fn is_full(&self) -> bool {
        self.samples.len() >= SAMPLES_MAX
    }

    /// How much was noted, nanoseconds.
    pub fn duration_ns(&self) -> u64 {
        self.times.duration_ns()
    }

    /// Samples that were noted.
    pub fn samples(&self) -> u64 {
        self.samples.len() as u64
    }

    /// Bytes at most of what [`finish`] writes for this track behind all extents: tables, and copies of samples that lie in two pieces.
    pub fn tail_bytes(&self) -> u64 {
        // stts, ctts, stss, stsz and co64.
        let tables = self.samples() * (8 + 8 + 4 + 4 + 8);
        tables.saturating_add(self.breaks.saturating_mul(self.longest.into()))
    }

    /// The pieces of the file in which `bytes` of the track lie, from its byte `at` on.
    fn pieces(&self, at: u64, bytes: u64) -> Option<Vec<(u64, u64)>> {
        let mut pieces: Vec<(u64, u64)> = Vec::new();
        let (mut at, mut left) = (at, bytes);
        while left > 0 {
            let extent = *self.extents.get(usize::try_from(at / self.extent_bytes).ok()?)?;
            let within = at % self.extent_bytes;
            let len = left.min(self.extent_bytes - within);
            match pieces.last_mut() {
                Some((offset, bytes)) if *offset + *bytes == extent + within => *bytes += len,
                _ => pieces.push((extent + within, len)),
            }
            (at, left) = (at + len, left - len);
        }
        Some(pieces)
    }

    /// Where the track's bytes that are safely in the file end.
    pub(super) fn end(&self) -> u64 {
        let safe = self.safe();
        safe.checked_sub(1)
            .and_then(|last| self.pieces(last, 1))
            .and_then(|pieces| pieces.first().map(|(offset, _)| offset + 1))
            .unwrap_or(0)
    }

    /// The track of the movie; what lies in two pieces is written again at `end`, which moves on.
    fn finish(mut self, storage: &mut impl Storage, end: &mut u64) -> Result<Option<MovieTrack>, TakeError> {
        let safe = self.safe();
        let is_whole = |sample: &Noted| sample.at.saturating_add(u64::from(sample.bytes & !SYNC)) <= safe;
        let whole = self.samples.iter().take_while(|sample| is_whole(sample)).count();
        let cut_at = self.samples.get(whole).map(|sample| sample.dts);
        self.samples.truncate(whole);
        let mut samples = Vec::with_capacity(whole);
        let mut copy = Vec::new();
        for Noted { at, dts, pts_offset, bytes } in std::mem::take(&mut self.samples) {
            let (bytes, sync) = (bytes & !SYNC, bytes & SYNC != 0);
            let Some(pieces) = self.pieces(at, bytes.into()) else { break };
            let offset = match pieces.as_slice() {
                [(offset, _)] => *offset,
                // No bytes: no sample.
                [] => continue,
                _ => {
                    copy.resize(bytes as usize, 0);
                    let mut rest = copy.as_mut_slice();
                    for (offset, len) in pieces {
                        let Some((piece, after)) = rest.split_at_mut_checked(usize::try_from(len).unwrap_or(usize::MAX)) else { break };
                        storage.read_exact_at(piece, offset).map_err(TakeError::Read)?;
                        rest = after;
                    }
                    storage.write_all_at(&copy, *end).map_err(TakeError::Write)?;
                    let offset = *end;
                    *end += u64::from(bytes);
                    offset
                }
            };
            samples.push(MovieSample { offset, dts, bytes, pts_offset, sync });
        }
        let Some(last) = samples.last() else { return Ok(None) };
        let span = u64::from(self.times.last_span_ns) * u64::from(self.clock_rate) / 1_000_000_000;
        let last_duration = cut_at.map_or(span, |dts| dts.saturating_sub(last.dts));
        self.fill_parameter_sets(storage, &samples);
        Ok(Some(MovieTrack {
            kind: self.kind,
            timescale: self.clock_rate,
            start_ns: self.times.start_ns(),
            last_duration: u32::try_from(last_duration).unwrap_or(u32::MAX).max(1),
            codec: self.codec,
            samples,
        }))
    }

    /// A sender that does not tell its parameter sets beforehand has them in its sync samples.
    fn fill_parameter_sets(&mut self, storage: &impl Storage, samples: &[MovieSample]) {
        let missing = match &self.codec {
            Codec::H264 { sps, pps, .. } => sps.is_empty() || pps.is_empty(),
            Codec::H265 { vps, sps, pps, .. } => vps.is_empty() || sps.is_empty() || pps.is_empty(),
            _ => false,
        };
        let Some(sample) = samples.iter().find(|sample| missing && sample.sync) else { return };
        let len = u64::from(sample.bytes).min(parameter_sets::LOOK_BYTES_MAX);
        let mut bytes = vec![0; len as usize];
        if storage.read_exact_at(&mut bytes, sample.offset).is_ok() {
            parameter_sets::fill(&mut self.codec, &bytes);
        }
    }
}

/// What a recording has become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Finished {
    /// Bytes of the file.
    pub bytes: u64,
    /// Samples of all tracks.
    pub samples: u64,
    /// From the beginning to the end of the longest track, nanoseconds.
    pub duration_ns: u64,
}

/// Makes an MP4 file of what the sinks of these takes have written to `storage`. They must have come to their ends.
///
/// # Errors
/// [`TakeError`]: there is no file.
pub fn finish(storage: &mut impl Storage, mut takes: Vec<Take>) -> Result<Finished, TakeError> {
    takes.iter_mut().for_each(|take| take.collect(|_| {}));
    let mut end = takes.iter().map(Take::end).max().unwrap_or(0).max(HEAD_BYTES);
    let mut tracks = Vec::new();
    for take in takes {
        tracks.extend(take.finish(storage, &mut end)?);
    }
    if tracks.is_empty() {
        return Err(TakeError::Nothing);
    }
    let moov = movie::moov(&tracks);
    storage.write_all_at(&moov, end).map_err(TakeError::Write)?;
    storage.write_all_at(&movie::head(end), 0).map_err(TakeError::Write)?;
    let duration_ns = |track: &MovieTrack| {
        let ticks = track.samples.last().map_or(0, |last| last.dts.saturating_add(track.last_duration.into()));
        u64::try_from(ticks_to_ns(i64::try_from(ticks).unwrap_or(i64::MAX), track.timescale)).unwrap_or(0)
    };
    Ok(Finished {
        bytes: end + moov.len() as u64,
        samples: tracks.iter().map(|track| track.samples.len() as u64).sum(),
        duration_ns: tracks.iter().map(duration_ns).max().unwrap_or(0),
    })
}
