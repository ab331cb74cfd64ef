//! Damaged MP4 files from good ones: cut short, bytes flipped, sizes and counts made absurd. Same seed, same files.

use std::fs;
use std::path::{Path, PathBuf};

use super::ClipError;

/// The SplitMix64 generator: small, seedable, good enough to damage files with.
#[derive(Clone, Debug)]
pub struct SplitMix64 {
    state: u64,
}

impl SplitMix64 {
    /// A generator that starts from `seed`.
    pub fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// The next 64 random bits.
    pub fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`; 0 when `end` is 0.
    pub fn below(&mut self, end: usize) -> usize {
        if end == 0 { 0 } else { (self.next_u64() % end as u64) as usize }
    }
}

/// How a file was damaged; part of its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// Cut at a random place.
    Truncated,
    /// Cut within the `moov` box.
    TruncatedMoov,
    /// A few bytes of `moov` set to random values.
    FlippedMoov,
    /// A box size within `moov` replaced by an extreme one.
    BoxSize,
    /// A 32-bit table field within `moov` replaced by an extreme value.
    Count,
    /// A stretch of `moov` moved over another.
    Shuffled,
    /// Media bytes flipped: the index is fine, the samples are not.
    FlippedMedia,
    /// Nothing but noise behind the file type.
    Noise,
}

impl Damage {
    const ALL: [Self; 8] = [
        Self::Truncated,
        Self::TruncatedMoov,
        Self::FlippedMoov,
        Self::BoxSize,
        Self::Count,
        Self::Shuffled,
        Self::FlippedMedia,
        Self::Noise,
    ];
}

/// Byte range of the top-level box `name`.
fn find_box(file: &[u8], name: [u8; 4]) -> Option<std::ops::Range<usize>> {
    let mut at = 0usize;
    loop {
        let header = file.get(at..at.checked_add(8)?)?;
        let size = u32::from_be_bytes(header.get(..4)?.try_into().ok()?) as usize;
        let size = match size {
            0 => file.len() - at,
            1 => usize::try_from(u64::from_be_bytes(file.get(at + 8..at + 16)?.try_into().ok()?)).ok()?,
            n => n.max(8),
        };
        let end = at.checked_add(size)?.min(file.len());
        if header.get(4..) == Some(&name[..]) {
            return Some(at..end);
        }
        at = end;
    }
}

/// Damages `file` in the given way.
pub fn damage(file: &[u8], how: Damage, random: &mut SplitMix64) -> Vec<u8> {
    const EXTREMES: [u32; 8] = [0, 1, 7, 8, 0x7fff_ffff, 0x8000_0000, 0xffff_fff0, 0xffff_ffff];
    let mut out = file.to_vec();
    let moov = find_box(file, *b"moov").unwrap_or(0..file.len());
    let inside = |random: &mut SplitMix64, bytes: usize| moov.start + random.below(moov.len().saturating_sub(bytes));
    match how {
        Damage::Truncated => out.truncate(random.below(file.len())),
        Damage::TruncatedMoov => out.truncate(inside(random, 0)),
        Damage::FlippedMoov => {
            for _ in 0..1 + random.below(8) {
                let at = inside(random, 1);
                if let Some(byte) = out.get_mut(at) {
                    *byte = random.next_u64() as u8;
                }
            }
        }
        Damage::BoxSize | Damage::Count => {
            let wanted: &[&[u8; 4]] = if how == Damage::BoxSize {
                &[b"trak", b"mdia", b"minf", b"stbl", b"stsd", b"avcC", b"esds", b"mdhd", b"elst", b"hdlr"]
            } else {
                &[b"stsz", b"stsc", b"stco", b"stts", b"stss", b"ctts", b"elst", b"mdhd", b"stsd"]
            };
            let name = wanted.get(random.below(wanted.len())).copied().unwrap_or(b"stsz");
            let places: Vec<usize> = file.windows(4).enumerate().skip(moov.start).filter(|(_, w)| w == name).map(|(at, _)| at).collect();
            let at = places.get(random.below(places.len())).copied().unwrap_or_else(|| inside(random, 40));
            // The size is in front of the name; version and flags, then counts and the first entries are behind it.
            let field = if how == Damage::BoxSize { at.saturating_sub(4) } else { at + 8 + 4 * random.below(5) };
            let value = EXTREMES.get(random.below(EXTREMES.len())).copied().unwrap_or(0);
            if let Some(bytes) = out.get_mut(field..field + 4) {
                bytes.copy_from_slice(&value.to_be_bytes());
            }
        }
        Damage::Shuffled => {
            let bytes = 4 + random.below(200);
            let (from, to) = (inside(random, bytes), inside(random, bytes));
            if from + bytes <= out.len() && to + bytes <= out.len() {
                out.copy_within(from..from + bytes, to);
            }
        }
        Damage::FlippedMedia => {
            let mdat = find_box(file, *b"mdat").unwrap_or(0..file.len());
            for _ in 0..64 {
                let at = mdat.start + 8 + random.below(mdat.len().saturating_sub(8));
                if let Some(byte) = out.get_mut(at) {
                    *byte = random.next_u64() as u8;
                }
            }
        }
        Damage::Noise => out.iter_mut().skip(32).for_each(|byte| *byte = random.next_u64() as u8),
    }
    out
}

/// Writes `count` damaged copies of `originals` (taken in turn) into `folder`.
///
/// # Errors
/// When a file cannot be read or written.
pub fn write_damaged(originals: &[PathBuf], count: usize, seed: u64, folder: &Path) -> Result<Vec<PathBuf>, ClipError> {
    fs::create_dir_all(folder)?;
    let mut random = SplitMix64::new(seed);
    let mut written = Vec::with_capacity(count);
    let files = originals.iter().map(fs::read).collect::<Result<Vec<_>, _>>()?;
    for i in 0..count {
        let (Some(file), Some(how)) = (files.get(i % files.len().max(1)), Damage::ALL.get(i % Damage::ALL.len())) else { break };
        let path = folder.join(format!("{i:03}-{how:?}.mp4"));
        fs::write(&path, damage(file, *how, &mut random))?;
        written.push(path);
    }
    Ok(written)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn same_seed_same_damage_and_never_the_original() {
        let spec = super::super::ClipSpec { seconds: 2, ..Default::default() };
        let file = super::super::write_title(std::io::Cursor::new(Vec::new()), &spec, 0).unwrap().into_inner();
        for how in Damage::ALL {
            for seed in 0..8 {
                let once = damage(&file, how, &mut SplitMix64::new(seed));
                assert_eq!(once, damage(&file, how, &mut SplitMix64::new(seed)), "{how:?} seed {seed}");
            }
            assert!((0..8).any(|seed| damage(&file, how, &mut SplitMix64::new(seed)) != file), "{how:?} never damaged anything");
        }
    }
}
