//! Where samples go, one after the other, on their way from a file's tables into the index: the place where every sample is checked against
//! the file and against what a file of its size may cost.

use crate::media::error::MediaError;
use crate::media::index::{IndexBuilder, IndexError, SampleIndex};

/// Samples of a title: 33 hours of 60 pictures and 100 audio frames per second.
const SAMPLES_MAX: u64 = 20_000_000;
/// The least bytes of file that one sample takes, in the mean: its bytes and its entry in the tables. It bounds the index by the file.
const FILE_BYTES_PER_SAMPLE_MIN: u64 = 4;
/// Samples that any file may have.
const SAMPLES_ALLOWANCE: u64 = 4096;
/// Milliseconds of a group of PCM frames.
const PCM_GROUP_MS: u64 = 20;

/// What a title may still cost.
#[derive(Debug)]
pub struct Budget {
    pub file_bytes: u64,
    samples_max: u64,
    samples_left: u64,
    bytes_left: u64,
}

impl Budget {
    /// The budget of a file of `file_bytes`.
    pub fn new(file_bytes: u64) -> Self {
        let samples_max = SAMPLES_MAX.min(file_bytes / FILE_BYTES_PER_SAMPLE_MIN + SAMPLES_ALLOWANCE);
        // Samples may overlap (a picture shown twice is stored once), but not without end.
        let bytes_left = file_bytes.saturating_mul(2).saturating_add(SAMPLES_ALLOWANCE);
        Self { file_bytes, samples_max, samples_left: samples_max, bytes_left }
    }

    fn take_sample(&mut self, at: u64) -> Result<(), MediaError> {
        let Some(left) = self.samples_left.checked_sub(1) else {
            let limit = self.samples_max;
            return Err(MediaError::Limit { what: "the number of samples".into(), value: limit + 1, limit, at });
        };
        self.samples_left = left;
        Ok(())
    }

    fn take_bytes(&mut self, offset: u64, bytes: u64) -> Result<(), MediaError> {
        match self.bytes_left.checked_sub(bytes) {
            Some(left) => {
                self.bytes_left = left;
                Ok(())
            }
            None => Err(MediaError::Broken { what: "samples overlap: they have more bytes than twice the file".into(), at: offset }),
        }
    }
}

/// How PCM is grouped.
#[derive(Clone, Copy, Debug)]
pub struct PcmShape {
    /// Bytes of one audio frame (one sample of each channel).
    pub frame_bytes: u32,
    /// Audio frames per second.
    pub rate_hz: u32,
}

/// The samples of one track while its tables are read.
#[derive(Debug)]
pub struct Collector {
    track: u32,
    timescale: u32,
    builder: IndexBuilder,
    pcm: Option<(PcmShape, Option<PcmRun>)>,
    /// Decode time of the next sample.
    dts: i64,
    /// Decode time at the end of the last sample that has bytes.
    end_dts: i64,
    /// Decode time of the last sample.
    last_dts: i64,
    seen: u64,
}

/// PCM frames that follow each other in the file and in time, not yet in the index.
#[derive(Debug)]
struct PcmRun {
    offset: u64,
    bytes: u64,
    start_dts: i64,
    /// Bytes of the run that went into the index.
    done_bytes: u64,
    end_dts: i64,
}

impl Collector {
    /// An empty collector.
    pub fn new(track: u32, timescale: u32, pcm: Option<PcmShape>) -> Self {
        let pcm = pcm.map(|shape| (shape, None));
        Self { track, timescale, builder: IndexBuilder::default(), pcm, dts: 0, end_dts: 0, last_dts: 0, seen: 0 }
    }

    /// Decode time of the last sample; of the next one when there is none.
    pub fn last_dts(&self) -> i64 {
        if self.seen == 0 { self.dts } else { self.last_dts }
    }

    /// Sets the next sample's decode time.
    pub fn set_next_dts(&mut self, dts: i64) {
        self.dts = dts;
    }

    /// The index of all samples.
    pub fn finish(mut self, budget: &mut Budget) -> Result<SampleIndex, MediaError> {
        Sink { budget, track: &mut self }.flush_pcm()?;
        let last = self.end_dts.saturating_sub(self.builder.last_dts()).clamp(0, i64::from(u32::MAX));
        Ok(self.builder.finish(last as u32))
    }

    fn index_error(&self, error: IndexError) -> MediaError {
        MediaError::Index { track: self.track, sample: self.seen, error }
    }
}

/// A collector with the budget that it draws on.
pub struct Sink<'b> {
    pub budget: &'b mut Budget,
    pub track: &'b mut Collector,
}

impl Sink<'_> {
    /// Bytes of one audio frame when the track is PCM.
    pub fn pcm_frame_bytes(&self) -> Option<u32> {
        self.track.pcm.as_ref().map(|(shape, _)| shape.frame_bytes)
    }

    /// Adds the next sample. One without bytes only takes time.
    pub fn add(&mut self, offset: u64, size: u32, duration: u32, cts_offset: i32, sync: bool) -> Result<(), MediaError> {
        if self.track.pcm.is_some() {
            return self.add_pcm(offset, u64::from(size), u64::from(duration));
        }
        let dts = self.advance(u64::from(duration))?;
        if size == 0 {
            return Ok(());
        }
        self.check(offset, u64::from(size))?;
        self.budget.take_sample(offset)?;
        let pushed = self.track.builder.push(offset, size, dts, i64::from(cts_offset), sync);
        pushed.map_err(|error| self.track.index_error(error))?;
        self.track.end_dts = self.track.dts;
        Ok(())
    }

    /// Lets time pass without samples.
    pub fn skip(&mut self, duration: u64) -> Result<(), MediaError> {
        self.advance(duration).map(|_| ())
    }

    /// Adds PCM frames.
    pub fn add_pcm(&mut self, offset: u64, bytes: u64, duration: u64) -> Result<(), MediaError> {
        let dts = self.advance(duration)?;
        if bytes == 0 {
            return Ok(());
        }
        self.check(offset, bytes)?;
        let end_dts = self.track.dts;
        self.track.end_dts = end_dts;
        let Some((shape, run)) = &mut self.track.pcm else { return Ok(()) };
        let group_frames = u64::from(shape.rate_hz) * PCM_GROUP_MS / 1000;
        let group_bytes = group_frames.max(1) * u64::from(shape.frame_bytes.max(1));
        match run {
            Some(run) if run.offset + run.bytes == offset && run.end_dts == dts => {
                run.bytes += bytes;
                run.end_dts = end_dts;
            }
            _ => {
                self.flush_pcm()?;
                if let Some((_, run)) = &mut self.track.pcm {
                    *run = Some(PcmRun { offset, bytes, start_dts: dts, done_bytes: 0, end_dts });
                }
            }
        }
        while self.pcm_pending() >= group_bytes {
            self.push_pcm(group_bytes)?;
        }
        Ok(())
    }

    fn flush_pcm(&mut self) -> Result<(), MediaError> {
        match self.pcm_pending() {
            0 => Ok(()),
            bytes => self.push_pcm(bytes),
        }
    }

    fn pcm_pending(&self) -> u64 {
        self.track.pcm.as_ref().and_then(|(_, run)| run.as_ref()).map_or(0, |run| run.bytes)
    }

    fn push_pcm(&mut self, bytes: u64) -> Result<(), MediaError> {
        let timescale = u128::from(self.track.timescale);
        let Some((shape, Some(run))) = &mut self.track.pcm else { return Ok(()) };
        let frames = run.done_bytes / u64::from(shape.frame_bytes.max(1));
        let ticks = (u128::from(frames) * timescale / u128::from(shape.rate_hz.max(1))) as i64;
        let (offset, dts) = (run.offset, run.start_dts.saturating_add(ticks));
        run.offset += bytes;
        run.bytes -= bytes;
        run.done_bytes += bytes;
        self.budget.take_sample(offset)?;
        let size = u32::try_from(bytes).unwrap_or(u32::MAX);
        self.track.builder.push(offset, size, dts, 0, true).map_err(|error| self.track.index_error(error))
    }

    /// Moves on in time; the answer is the decode time before.
    fn advance(&mut self, duration: u64) -> Result<i64, MediaError> {
        let dts = self.track.dts;
        let next = dts.checked_add_unsigned(duration);
        self.track.seen += 1;
        self.track.dts = next.ok_or_else(|| self.track.index_error(IndexError::Time(dts)))?;
        self.track.last_dts = dts;
        Ok(dts)
    }

    fn check(&mut self, offset: u64, bytes: u64) -> Result<(), MediaError> {
        let end = offset.saturating_add(bytes);
        if end > self.budget.file_bytes {
            let what = format!("sample {} of track {} (from byte {offset})", self.track.seen, self.track.track);
            return Err(MediaError::Truncated { what, needed_end: end, first_missing: self.budget.file_bytes });
        }
        self.budget.take_bytes(offset, bytes)
    }
}
