//! The flat index of a track's samples: 16 bytes per sample, constant-time access.
//!
//! A sample is one 128-bit word: file offset, size, decode time, composition offset, sync bit. The decode time is a difference from a base
//! that is kept once per group of samples. A group is 64 samples; where their times lie too far apart for the bits of the word, the whole
//! index goes over to smaller groups, down to one sample each, so that no time scale and no frame rate is out of reach.
//!
//! Whatever an [`IndexBuilder`] is fed, the index it makes has decode times that never decrease, which is what the searches rely on.

use super::title::Sample;

/// Bits of the word, from its low end.
mod field {
    pub const OFFSET_BITS: u32 = 42;
    pub const SIZE_BITS: u32 = 26;
    pub const DTS_BITS: u32 = 28;
    pub const CTS_BITS: u32 = 31;
    pub const SIZE_AT: u32 = OFFSET_BITS;
    pub const DTS_AT: u32 = SIZE_AT + SIZE_BITS;
    pub const CTS_AT: u32 = DTS_AT + DTS_BITS;
    pub const SYNC_AT: u32 = CTS_AT + CTS_BITS;
    const _: () = assert!(SYNC_AT == 127, "the fields and the sync bit fill the word");
}

/// Highest file offset of a sample: 4 TiB less one byte.
pub const OFFSET_MAX: u64 = (1 << field::OFFSET_BITS) - 1;
/// Largest sample: 64 MiB less one byte.
pub const SIZE_MAX: u32 = (1 << field::SIZE_BITS) - 1;
/// Largest composition offset either way, in units of the time scale.
pub const CTS_OFFSET_MAX: i64 = (1 << (field::CTS_BITS - 1)) - 1;
/// Times lie within this much of zero, in units of the time scale, so that sums and differences of two never overflow.
pub const TIME_MAX: i64 = 1 << 61;

const DTS_DELTA_MAX: i64 = (1 << field::DTS_BITS) - 1;
const CTS_MASK: u128 = ((1 << field::CTS_BITS) - 1) << field::CTS_AT;
const GROUP_SHIFT_MAX: u8 = 6;

/// A sample that does not fit into the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IndexError {
    /// The file offset is above [`OFFSET_MAX`].
    #[error("the sample lies at byte {0}, the highest offset that can be indexed is {OFFSET_MAX}")]
    Offset(u64),
    /// The sample is larger than [`SIZE_MAX`].
    #[error("the sample has {0} bytes, the most that can be indexed is {SIZE_MAX}")]
    Size(u32),
    /// The decode time is beyond [`TIME_MAX`].
    #[error("the sample's decode time {0} is out of range")]
    Time(i64),
    /// The composition offset is beyond [`CTS_OFFSET_MAX`].
    #[error("the sample's composition offset {0} is out of range (at most {CTS_OFFSET_MAX} either way)")]
    CtsOffset(i64),
    /// There are as many samples as an index can count.
    #[error("more than 4294967295 samples")]
    Count,
}

/// The flat index of a track's samples: about 16 bytes per sample.
#[derive(Clone, Debug, Default)]
pub struct SampleIndex {
    words: Vec<u128>,
    /// Decode time that the samples of a group count from.
    bases: Vec<i64>,
    /// A group has 2 to the power of this many samples.
    group_shift: u8,
    last_duration: u32,
    syncs: Syncs,
}

/// Where a decoder can start.
#[derive(Clone, Debug)]
enum Syncs {
    /// At every sample, and composition times never decrease.
    All,
    /// At some samples.
    Some {
        /// The sync samples whose composition time is below that of all later ones: the only ones that can be the last at or before a time.
        rising: Vec<u32>,
        first: u32,
        count: u32,
    },
}

impl Default for Syncs {
    fn default() -> Self {
        Self::Some { rising: Vec::new(), first: 0, count: 0 }
    }
}

impl SampleIndex {
    /// Number of samples.
    pub fn len(&self) -> u32 {
        self.words.len() as u32
    }

    /// True when there are none.
    pub fn is_empty(&self) -> bool {
        self.words.is_empty()
    }

    /// The sample at `i`, `None` past the end. Constant time. A `duration` that would not fit its 32 bits is the largest that does.
    #[inline]
    pub fn get(&self, i: u32) -> Option<Sample> {
        let word = *self.words.get(i as usize)?;
        let dts = self.dts(i)?;
        let duration = match i.checked_add(1).and_then(|next| self.dts(next)) {
            Some(next) => next.saturating_sub(dts).clamp(0, i64::from(u32::MAX)) as u32,
            None => self.last_duration,
        };
        Some(Sample {
            offset: (word as u64) & OFFSET_MAX,
            size: ((word >> field::SIZE_AT) as u32) & SIZE_MAX,
            dts,
            cts_offset: cts_offset(word),
            duration,
            sync: word >> field::SYNC_AT == 1,
        })
    }

    /// Index of the last sync sample whose composition time is at or before `time` (track time scale); the first sync sample when there
    /// is none before; 0 when the track has none at all. Logarithmic time.
    pub fn sync_at_or_before(&self, time: i64) -> u32 {
        match &self.syncs {
            Syncs::All => partition(self.len(), |i| self.pts(i).is_some_and(|pts| pts <= time)).saturating_sub(1),
            Syncs::Some { rising, first, .. } => {
                let after = rising.partition_point(|&i| self.pts(i).is_some_and(|pts| pts <= time));
                after.checked_sub(1).and_then(|last| rising.get(last)).copied().unwrap_or(*first)
            }
        }
    }

    /// Index of a sync sample at or after sample `i`, the next one unless later samples are shown before it; `None` when there is none.
    /// Logarithmic time.
    pub fn sync_from(&self, i: u32) -> Option<u32> {
        match &self.syncs {
            Syncs::All => (i < self.len()).then_some(i),
            Syncs::Some { rising, .. } => rising.get(rising.partition_point(|&sync| sync < i)).copied(),
        }
    }

    /// Index of the first sample whose decode time is at or after `time`; `len()` when there is none. Logarithmic time.
    pub fn first_at_or_after(&self, time: i64) -> u32 {
        partition(self.len(), |i| self.dts(i).is_some_and(|dts| dts < time))
    }

    /// Number of sync samples.
    pub fn sync_samples(&self) -> u32 {
        match &self.syncs {
            Syncs::All => self.len(),
            Syncs::Some { count, .. } => *count,
        }
    }

    /// The samples in decode order.
    pub fn iter(&self) -> impl Iterator<Item = Sample> + '_ {
        (0..self.len()).map_while(|i| self.get(i))
    }

    /// Memory that the index holds, bytes.
    pub fn memory_bytes(&self) -> usize {
        let syncs = match &self.syncs {
            Syncs::All => 0,
            Syncs::Some { rising, .. } => rising.len() * size_of::<u32>(),
        };
        self.words.len() * size_of::<u128>() + self.bases.len() * size_of::<i64>() + syncs
    }

    /// Moves all times by `delta`.
    ///
    /// # Errors
    /// [`IndexError::Time`] when a time would leave the range; the index is unusable then.
    pub(super) fn shift(&mut self, delta: i64) -> Result<(), IndexError> {
        for base in &mut self.bases {
            let moved = base.checked_add(delta).filter(|t| t.abs() <= TIME_MAX).ok_or(IndexError::Time(*base))?;
            *base = moved;
        }
        Ok(())
    }

    /// Moves decode times down (and so composition offsets up) until no composition time is before its decode time.
    ///
    /// # Errors
    /// [`IndexError::CtsOffset`] or [`IndexError::Time`] when the numbers leave their range; the index is unusable then.
    pub(super) fn decode_before_composition(&mut self) -> Result<(), IndexError> {
        let lowest = self.words.iter().map(|&word| cts_offset(word)).min().unwrap_or(0);
        if lowest >= 0 {
            return Ok(());
        }
        let lead = -i64::from(lowest);
        for word in &mut self.words {
            let raised = i64::from(cts_offset(*word)) + lead;
            if raised > CTS_OFFSET_MAX {
                return Err(IndexError::CtsOffset(raised));
            }
            *word = *word & !CTS_MASK | cts_bits(raised);
        }
        self.shift(-lead)
    }

    /// Word for word, for the cache on disk.
    pub(super) fn parts(&self) -> Parts<'_> {
        Parts { words: &self.words, bases: &self.bases, group_shift: self.group_shift, last_duration: self.last_duration }
    }

    /// The reverse of [`Self::parts`]. `None` when they do not belong together or a sample reaches past `file_bytes`.
    pub(super) fn from_parts(words: Vec<u128>, bases: Vec<i64>, group_shift: u8, last_duration: u32, file_bytes: u64) -> Option<Self> {
        if group_shift > GROUP_SHIFT_MAX || u32::try_from(words.len()).is_err() {
            return None;
        }
        if bases.len() != words.len().div_ceil(1 << group_shift) || bases.iter().any(|t| t.unsigned_abs() > TIME_MAX as u64) {
            return None;
        }
        let mut index = Self { words, bases, group_shift, last_duration, syncs: Syncs::default() };
        let mut last_dts = i64::MIN;
        for sample in index.iter() {
            if sample.offset + u64::from(sample.size) > file_bytes || sample.dts < last_dts {
                return None;
            }
            last_dts = sample.dts;
        }
        index.syncs = find_syncs(&index);
        Some(index)
    }

    #[inline]
    fn dts(&self, i: u32) -> Option<i64> {
        let word = self.words.get(i as usize)?;
        let base = self.bases.get((i >> self.group_shift) as usize)?;
        Some(base + (((word >> field::DTS_AT) as i64) & DTS_DELTA_MAX))
    }

    fn pts(&self, i: u32) -> Option<i64> {
        Some(self.dts(i)? + i64::from(cts_offset(*self.words.get(i as usize)?)))
    }
}

/// The numbers an index is made of.
pub(super) struct Parts<'a> {
    pub words: &'a [u128],
    pub bases: &'a [i64],
    pub group_shift: u8,
    pub last_duration: u32,
}

#[inline]
fn cts_offset(word: u128) -> i32 {
    // Shifted up to the top first, so that the shift down extends the sign.
    (((word >> field::CTS_AT) as u32) << (32 - field::CTS_BITS)) as i32 >> (32 - field::CTS_BITS)
}

fn cts_bits(cts_offset: i64) -> u128 {
    (cts_offset as u128) << field::CTS_AT & CTS_MASK
}

/// The first of `0..len` that `before` does not hold for.
fn partition(len: u32, before: impl Fn(u32) -> bool) -> u32 {
    let (mut low, mut high) = (0, len);
    while low < high {
        let middle = low + (high - low) / 2;
        if before(middle) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    low
}

fn find_syncs(index: &SampleIndex) -> Syncs {
    let is_sync = |i: u32| index.words.get(i as usize).is_some_and(|word| word >> field::SYNC_AT == 1);
    let len = index.len();
    let all = !index.is_empty() && (0..len).all(is_sync);
    if all && (1..len).all(|i| index.pts(i - 1) <= index.pts(i)) {
        return Syncs::All;
    }
    let mut rising = Vec::new();
    let mut first = 0;
    let mut count = 0;
    let mut lowest_later = i64::MAX;
    for i in (0..len).rev().filter(|&i| is_sync(i)) {
        first = i;
        count += 1;
        if let Some(pts) = index.pts(i).filter(|&pts| pts < lowest_later) {
            rising.push(i);
            lowest_later = pts;
        }
    }
    rising.reverse();
    rising.shrink_to_fit();
    Syncs::Some { rising, first, count }
}

/// Makes a [`SampleIndex`] sample by sample.
#[derive(Debug)]
pub struct IndexBuilder {
    index: SampleIndex,
    last_dts: i64,
}

impl Default for IndexBuilder {
    fn default() -> Self {
        Self { index: SampleIndex { group_shift: GROUP_SHIFT_MAX, ..SampleIndex::default() }, last_dts: -TIME_MAX }
    }
}

impl IndexBuilder {
    /// Number of samples so far.
    pub fn len(&self) -> u32 {
        self.index.len()
    }

    /// True when there are none yet.
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// Adds a sample. A decode time before the last sample's is taken to be the last sample's (the composition time stays).
    ///
    /// # Errors
    /// The sample does not fit; the builder stays as it was.
    pub fn push(&mut self, offset: u64, size: u32, dts: i64, cts_offset: i64, sync: bool) -> Result<(), IndexError> {
        if offset > OFFSET_MAX {
            return Err(IndexError::Offset(offset));
        }
        if size > SIZE_MAX {
            return Err(IndexError::Size(size));
        }
        if dts.unsigned_abs() > TIME_MAX as u64 {
            return Err(IndexError::Time(dts));
        }
        if self.len() == u32::MAX {
            return Err(IndexError::Count);
        }
        let late = (self.last_dts - dts).max(0);
        let dts = dts + late;
        let cts_offset = cts_offset.saturating_sub(late);
        if cts_offset.unsigned_abs() > CTS_OFFSET_MAX as u64 {
            return Err(IndexError::CtsOffset(cts_offset));
        }
        let delta = self.delta_of(dts);
        let word = u128::from(offset)
            | u128::from(size) << field::SIZE_AT
            | (delta as u128) << field::DTS_AT
            | cts_bits(cts_offset)
            | u128::from(sync) << field::SYNC_AT;
        self.index.words.push(word);
        self.last_dts = dts;
        Ok(())
    }

    /// Decode time of the last sample; the earliest there is when there is none.
    pub fn last_dts(&self) -> i64 {
        self.last_dts
    }

    /// The finished index. `last_duration` is that of the last sample.
    pub fn finish(mut self, last_duration: u32) -> SampleIndex {
        self.index.words.shrink_to_fit();
        self.index.bases.shrink_to_fit();
        self.index.last_duration = last_duration;
        self.index.syncs = find_syncs(&self.index);
        self.index
    }

    /// Difference of the next sample's decode time from its group's base; opens a group, or makes all groups smaller, as needed.
    fn delta_of(&mut self, dts: i64) -> i64 {
        loop {
            let next = self.index.words.len();
            let group = next >> self.index.group_shift;
            let Some(base) = self.index.bases.get(group) else {
                self.index.bases.push(dts);
                return 0;
            };
            if dts - base <= DTS_DELTA_MAX {
                return dts - base;
            }
            self.halve_groups();
        }
    }

    fn halve_groups(&mut self) {
        let shift = self.index.group_shift - 1;
        let half = 1usize << shift;
        let mut bases = Vec::with_capacity(self.index.bases.len() * 2);
        for (words, &base) in self.index.words.chunks_mut(2 * half).zip(&self.index.bases) {
            bases.push(base);
            let second = words.get_mut(half..).unwrap_or_default();
            let Some(step) = second.first().map(|word| (word >> field::DTS_AT) & DTS_DELTA_MAX as u128) else { continue };
            bases.push(base + step as i64);
            for word in second {
                *word -= step << field::DTS_AT;
            }
        }
        self.index.bases = bases;
        self.index.group_shift = shift;
    }
}

#[cfg(test)]
mod tests;
