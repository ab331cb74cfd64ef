//! The sample tables of `stbl`, read in place: they are the big boxes, so nothing of them is copied.

use super::boxes::{Fields, View};
use super::sink::Sink;
use crate::media::error::MediaError;

/// Rows of (count, value): `stts` and `ctts`.
#[derive(Clone, Copy, Default)]
struct Runs<'a> {
    rows: &'a [[u8; 8]],
    left: u32,
    value: u32,
}

impl Runs<'_> {
    /// Takes up to `n` samples of one run; how many, and their value. `None` past the last run.
    fn take(&mut self, n: u32) -> Option<(u32, u32)> {
        while self.left == 0 {
            let (row, rest) = self.rows.split_first()?;
            self.rows = rest;
            (self.left, self.value) = pair(row);
        }
        let n = n.min(self.left);
        self.left -= n;
        Some((n, self.value))
    }

    fn next(&mut self) -> Option<u32> {
        self.take(1).map(|(_, value)| value)
    }
}

fn pair(row: &[u8; 8]) -> (u32, u32) {
    let [a, b, c, d, e, f, g, h] = *row;
    (u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h]))
}

/// `stsz` and `stz2`.
#[derive(Clone, Copy)]
enum Sizes<'a> {
    Constant { size: u32, count: u32 },
    Words(&'a [[u8; 4]]),
    Halves(&'a [[u8; 2]]),
    Bytes(&'a [u8]),
    Nibbles { bytes: &'a [u8], count: u32 },
}

impl Sizes<'_> {
    fn len(&self) -> u32 {
        match self {
            Sizes::Constant { count, .. } | Sizes::Nibbles { count, .. } => *count,
            Sizes::Words(rows) => rows.len() as u32,
            Sizes::Halves(rows) => rows.len() as u32,
            Sizes::Bytes(rows) => rows.len() as u32,
        }
    }

    fn get(&self, i: u32) -> Option<u32> {
        let at = i as usize;
        match self {
            Sizes::Constant { size, count } => (i < *count).then_some(*size),
            Sizes::Words(rows) => rows.get(at).map(|row| u32::from_be_bytes(*row)),
            Sizes::Halves(rows) => rows.get(at).map(|row| u32::from(u16::from_be_bytes(*row))),
            Sizes::Bytes(rows) => rows.get(at).map(|row| u32::from(*row)),
            Sizes::Nibbles { bytes, .. } => bytes.get(at / 2).map(|row| u32::from(if at.is_multiple_of(2) { row >> 4 } else { row & 15 })),
        }
    }
}

/// `stco` and `co64`.
#[derive(Clone, Copy)]
enum ChunkOffsets<'a> {
    Short(&'a [[u8; 4]]),
    Long(&'a [[u8; 8]]),
}

impl ChunkOffsets<'_> {
    fn get(&self, i: usize) -> Option<u64> {
        match self {
            ChunkOffsets::Short(rows) => rows.get(i).map(|row| u64::from(u32::from_be_bytes(*row))),
            ChunkOffsets::Long(rows) => rows.get(i).map(|row| u64::from_be_bytes(*row)),
        }
    }

    fn len(&self) -> usize {
        match self {
            ChunkOffsets::Short(rows) => rows.len(),
            ChunkOffsets::Long(rows) => rows.len(),
        }
    }
}

/// The tables of one track.
pub struct Tables<'a> {
    at: u64,
    times: Runs<'a>,
    composition: Runs<'a>,
    syncs: Option<&'a [[u8; 4]]>,
    runs: &'a [[u8; 12]],
    sizes: Sizes<'a>,
    chunks: ChunkOffsets<'a>,
}

impl<'a> Tables<'a> {
    /// Reads the tables of an `stbl`. Fragmented files have them empty or not at all.
    pub fn parse(stbl: View<'a>) -> Result<Self, MediaError> {
        let mut tables = Tables {
            at: stbl.at,
            times: Runs::default(),
            composition: Runs::default(),
            syncs: None,
            runs: &[],
            sizes: Sizes::Constant { size: 0, count: 0 },
            chunks: ChunkOffsets::Short(&[]),
        };
        for child in stbl.boxes() {
            let child = child?;
            match &child.kind {
                b"stts" => tables.times.rows = full_box(child.body, "stts")?.table()?,
                b"ctts" => tables.composition.rows = full_box(child.body, "ctts")?.table()?,
                b"stss" => tables.syncs = Some(full_box(child.body, "stss")?.table()?),
                b"stsc" => tables.runs = full_box(child.body, "stsc")?.table()?,
                b"stsz" => tables.sizes = stsz(child.body)?,
                b"stz2" => tables.sizes = stz2(child.body)?,
                b"stco" => tables.chunks = ChunkOffsets::Short(full_box(child.body, "stco")?.table()?),
                b"co64" => tables.chunks = ChunkOffsets::Long(full_box(child.body, "co64")?.table()?),
                _ => {}
            }
        }
        Ok(tables)
    }

    /// Number of samples that the tables declare.
    pub fn samples(&self) -> u32 {
        self.sizes.len()
    }

    /// The size that all samples have, if the tables say it once for all.
    pub fn constant_size(&self) -> Option<u32> {
        match self.sizes {
            Sizes::Constant { size, count } if count > 0 => Some(size),
            _ => None,
        }
    }

    /// The sample entries that are used, as indices from 0, in order of first use; at most 16 are told.
    pub fn entries_used(&self) -> Vec<usize> {
        let mut used = Vec::new();
        for row in self.runs {
            let entry = (StscRow::parse(row).entry as usize).saturating_sub(1);
            if used.len() < 16 && !used.contains(&entry) {
                used.push(entry);
            }
        }
        used
    }

    /// Feeds all samples to `sink`.
    pub fn walk(mut self, sink: &mut Sink<'_>) -> Result<(), MediaError> {
        if self.samples() == 0 {
            return Ok(());
        }
        if self.runs.is_empty() || self.chunks.len() == 0 {
            return Err(self.broken(format!("{} samples, but no table says where they are (stsc, stco)", self.samples())));
        }
        let mut sample = 0;
        let mut run = self.first_run()?;
        for chunk in 0..self.chunks.len() {
            while let Some(next) = self.runs.first().map(StscRow::parse).filter(|next| next.first_chunk as usize <= chunk + 1) {
                run = next;
                self.runs = self.runs.get(1..).unwrap_or_default();
            }
            let Some(offset) = self.chunks.get(chunk) else { break };
            let left = self.samples() - sample;
            if left == 0 {
                break;
            }
            let n = run.samples.min(left);
            match (sink.pcm_frame_bytes(), self.constant_size()) {
                // One "sample" of old style PCM is one audio frame, whatever size is written beside it.
                (Some(frame_bytes), Some(size)) if size <= frame_bytes => self.add_frames(sink, offset, n, frame_bytes)?,
                _ => self.add_samples(sink, offset, sample, n)?,
            }
            sample += n;
        }
        Ok(())
    }

    fn first_run(&self) -> Result<StscRow, MediaError> {
        match self.runs.first().map(StscRow::parse) {
            Some(run) if run.first_chunk == 1 => Ok(run),
            _ => Err(self.broken("stsc does not start at chunk 1".to_owned())),
        }
    }

    fn add_samples(&mut self, sink: &mut Sink<'_>, chunk_offset: u64, first: u32, n: u32) -> Result<(), MediaError> {
        let mut offset = chunk_offset;
        for i in first..first.saturating_add(n) {
            let Some(size) = self.sizes.get(i) else { break };
            let duration = self.duration();
            let cts_offset = self.composition.next().unwrap_or(0) as i32;
            let sync = self.is_sync(i);
            sink.add(offset, size, duration, cts_offset, sync)?;
            offset = offset.saturating_add(u64::from(size));
        }
        Ok(())
    }

    fn duration(&mut self) -> u32 {
        let delta = self.times.next().unwrap_or(self.times.value);
        // Some writers put a negative number here; time cannot go back, and other readers take it for one unit too.
        if delta > i32::MAX as u32 { 1 } else { delta }
    }

    fn add_frames(&mut self, sink: &mut Sink<'_>, chunk_offset: u64, n: u32, frame_bytes: u32) -> Result<(), MediaError> {
        let mut offset = chunk_offset;
        let mut left = n;
        while left > 0 {
            let (frames, frame_duration) = self.times.take(left).unwrap_or((left, self.times.value));
            let bytes = u64::from(frames) * u64::from(frame_bytes);
            sink.add_pcm(offset, bytes, u64::from(frames) * u64::from(frame_duration))?;
            offset = offset.saturating_add(bytes);
            left -= frames;
        }
        Ok(())
    }

    /// No `stss` at all means that every sample is a sync sample (ISO/IEC 14496-12 8.6.2).
    fn is_sync(&mut self, i: u32) -> bool {
        let Some(rows) = &mut self.syncs else { return true };
        let number = i + 1;
        while let Some((row, rest)) = rows.split_first() {
            match u32::from_be_bytes(*row).cmp(&number) {
                std::cmp::Ordering::Less => *rows = rest,
                std::cmp::Ordering::Equal => return true,
                std::cmp::Ordering::Greater => return false,
            }
        }
        false
    }

    fn broken(&self, what: String) -> MediaError {
        MediaError::Broken { what, at: self.at }
    }
}

#[derive(Clone, Copy)]
struct StscRow {
    first_chunk: u32,
    samples: u32,
    entry: u32,
}

impl StscRow {
    fn parse(row: &[u8; 12]) -> Self {
        let [a, b, c, d, e, f, g, h, i, j, k, l] = *row;
        Self {
            first_chunk: u32::from_be_bytes([a, b, c, d]),
            samples: u32::from_be_bytes([e, f, g, h]),
            entry: u32::from_be_bytes([i, j, k, l]),
        }
    }
}

fn full_box<'a>(body: View<'a>, what: &'static str) -> Result<Fields<'a>, MediaError> {
    let mut fields = body.fields(what);
    fields.version_flags()?;
    Ok(fields)
}

fn stsz(body: View<'_>) -> Result<Sizes<'_>, MediaError> {
    let mut fields = full_box(body, "stsz")?;
    match fields.u32()? {
        0 => Ok(Sizes::Words(fields.table()?)),
        size => Ok(Sizes::Constant { size, count: fields.u32()? }),
    }
}

fn stz2(body: View<'_>) -> Result<Sizes<'_>, MediaError> {
    let mut fields = full_box(body, "stz2")?;
    match fields.u32()? & 0xff {
        4 => {
            let count = fields.u32()?;
            let bytes = fields.rest().bytes;
            match bytes.get(..count.div_ceil(2) as usize) {
                Some(bytes) => Ok(Sizes::Nibbles { bytes, count }),
                None => Err(fields.broken("says more entries than it has room for")),
            }
        }
        8 => Ok(Sizes::Bytes(fields.table::<1>()?.as_flattened())),
        16 => Ok(Sizes::Halves(fields.table()?)),
        bits => Err(fields.broken(&format!("entries of {bits} bits"))),
    }
}
