//! What a sequence parameter set says of its pictures, for the sample entry: size, and what `avcC` and `hvcC` repeat of it.
//!
//! Parameter sets come from senders: whatever they are, reading one takes bounded time and does not fail loudly. What cannot be read is
//! told as unknown; decoders read the parameter set itself.

/// What a sequence parameter set says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Picture {
    /// Pixels; 0: unknown.
    pub(super) width: u16,
    /// Pixels; 0: unknown.
    pub(super) height: u16,
    /// `chroma_format_idc`: 0 none, 1 4:2:0, 2 4:2:2, 3 4:4:4.
    pub(super) chroma: u8,
    /// Bits of a luma sample, less 8.
    pub(super) luma_depth: u8,
    /// Bits of a chroma sample, less 8.
    pub(super) chroma_depth: u8,
}

/// What is taken for true of a parameter set that cannot be read.
pub(super) const UNKNOWN: Picture = Picture { width: 0, height: 0, chroma: 1, luma_depth: 0, chroma_depth: 0 };

/// Bytes of a parameter set that are looked at.
const LOOK_BYTES_MAX: usize = 4096;

/// ITU-T H.264 profiles whose parameter sets tell of chroma and depth (7.3.2.1.1).
const WITH_CHROMA: [u8; 13] = [100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135];

/// Reads bits of a NAL unit's payload, most significant first, without what prevents start codes (ITU-T H.264 7.4.1, H.265 7.4.2).
struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
    bit: u8,
    zeros: u8,
}

impl<'a> Bits<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self { bytes: bytes.get(..LOOK_BYTES_MAX).unwrap_or(bytes), at: 0, bit: 0, zeros: 0 }
    }

    fn flag(&mut self) -> Option<bool> {
        if self.bit == 0 && self.zeros >= 2 && self.bytes.get(self.at) == Some(&3) {
            (self.at, self.zeros) = (self.at + 1, 0);
        }
        let byte = *self.bytes.get(self.at)?;
        let flag = byte << self.bit & 0x80 != 0;
        self.bit += 1;
        if self.bit == 8 {
            (self.bit, self.at) = (0, self.at + 1);
            self.zeros = if byte == 0 { self.zeros.saturating_add(1) } else { 0 };
        }
        Some(flag)
    }

    fn take(&mut self, bits: u32) -> Option<u32> {
        (0..bits).try_fold(0u32, |value, _| Some(value << 1 | u32::from(self.flag()?)))
    }

    fn skip(&mut self, bits: u32) -> Option<()> {
        (0..bits).try_for_each(|_| self.flag().map(|_| ()))
    }

    /// ue(v): Exp-Golomb.
    fn number(&mut self) -> Option<u32> {
        let mut zeros = 0;
        while !self.flag()? {
            zeros += 1;
            if zeros > 31 {
                return None;
            }
        }
        ((1u32 << zeros) - 1).checked_add(self.take(zeros)?)
    }

    /// se(v).
    fn signed(&mut self) -> Option<i64> {
        let number = i64::from(self.number()?);
        Some(if number % 2 == 0 { -(number / 2) } else { number / 2 + 1 })
    }

    /// The four numbers of a cropping or conformance window, in units: left and right together, top and bottom together.
    fn window(&mut self) -> Option<(u32, u32)> {
        if !self.flag()? {
            return Some((0, 0));
        }
        let (left, right, top, bottom) = (self.number()?, self.number()?, self.number()?, self.number()?);
        Some((left.checked_add(right)?, top.checked_add(bottom)?))
    }
}

/// What an H.264 sequence parameter set says, its NAL header included (ITU-T H.264 7.3.2.1.1).
pub(super) fn of_h264(sps: &[u8]) -> Option<Picture> {
    let mut bits = Bits::new(sps.get(1..)?);
    let profile = bits.take(8)? as u8;
    bits.skip(16)?;
    bits.number()?;
    let mut picture = UNKNOWN;
    if WITH_CHROMA.contains(&profile) {
        picture.chroma = u8::try_from(bits.number()?).ok().filter(|chroma| *chroma <= 3)?;
        let separate = picture.chroma == 3 && bits.flag()?;
        picture.luma_depth = depth(bits.number()?)?;
        picture.chroma_depth = depth(bits.number()?)?;
        bits.flag()?;
        if bits.flag()? {
            for list in 0..if picture.chroma == 3 { 12 } else { 8 } {
                if bits.flag()? {
                    skip_scaling_list(&mut bits, if list < 6 { 16 } else { 64 })?;
                }
            }
        }
        if separate {
            picture.chroma = 0;
        }
    }
    bits.number()?;
    match bits.number()? {
        0 => drop(bits.number()?),
        1 => {
            bits.flag()?;
            bits.signed()?;
            bits.signed()?;
            for _ in 0..bits.number()?.min(255) {
                bits.signed()?;
            }
        }
        _ => {}
    }
    bits.number()?;
    bits.flag()?;
    let (columns, rows) = (bits.number()?.checked_add(1)?, bits.number()?.checked_add(1)?);
    let fields = if bits.flag()? { 1 } else { 2 };
    if fields == 2 {
        bits.flag()?;
    }
    bits.flag()?;
    let (across, down) = bits.window()?;
    let (unit_across, unit_down) = crop_units(picture.chroma);
    picture.width = size(columns.checked_mul(16)?, across, unit_across)?;
    picture.height = size(rows.checked_mul(16)?.checked_mul(fields)?, down, unit_down * fields)?;
    Some(picture)
}

/// What an H.265 sequence parameter set says, its NAL header included (ITU-T H.265 7.3.2.2.1).
pub(super) fn of_h265(sps: &[u8]) -> Option<Picture> {
    let mut bits = Bits::new(sps.get(2..)?);
    bits.skip(4)?;
    let sub_layers = bits.take(3)?;
    bits.skip(1)?;
    // The general profile, tier and level, then those of the sub-layers (7.3.3).
    bits.skip(96)?;
    let mut present = [(false, false); 8];
    for layer in present.iter_mut().take(sub_layers as usize) {
        *layer = (bits.flag()?, bits.flag()?);
    }
    if sub_layers > 0 {
        bits.skip(2 * (8 - sub_layers))?;
    }
    for (profile, level) in present {
        bits.skip(if profile { 88 } else { 0 } + if level { 8 } else { 0 })?;
    }
    bits.number()?;
    let mut picture = UNKNOWN;
    picture.chroma = u8::try_from(bits.number()?).ok().filter(|chroma| *chroma <= 3)?;
    let separate = picture.chroma == 3 && bits.flag()?;
    let (width, height) = (bits.number()?, bits.number()?);
    let (across, down) = bits.window()?;
    picture.luma_depth = depth(bits.number()?)?;
    picture.chroma_depth = depth(bits.number()?)?;
    let (unit_across, unit_down) = crop_units(if separate { 0 } else { picture.chroma });
    picture.width = size(width, across, unit_across)?;
    picture.height = size(height, down, unit_down)?;
    Some(picture)
}

/// The 12 bytes of general profile, tier and level of an H.265 sequence parameter set, as `hvcC` repeats them.
pub(super) fn h265_profile(sps: &[u8]) -> Option<[u8; 12]> {
    // An emulation prevention byte may lie in them: they are zeros for the most part.
    let mut bits = Bits::new(sps.get(2..)?);
    bits.skip(8)?;
    let mut profile = [0; 12];
    for byte in &mut profile {
        *byte = bits.take(8)? as u8;
    }
    Some(profile)
}

fn depth(number: u32) -> Option<u8> {
    u8::try_from(number).ok().filter(|depth| *depth <= 8)
}

/// Luma samples that a unit of a window stands for (ITU-T H.264 table 6-1, H.265 table 6-1).
fn crop_units(chroma: u8) -> (u32, u32) {
    match chroma {
        1 => (2, 2),
        2 => (2, 1),
        _ => (1, 1),
    }
}

fn size(coded: u32, cropped: u32, unit: u32) -> Option<u16> {
    u16::try_from(coded.checked_sub(cropped.checked_mul(unit)?)?).ok()
}

fn skip_scaling_list(bits: &mut Bits<'_>, entries: u32) -> Option<()> {
    let (mut last, mut next) = (8i64, 8i64);
    for _ in 0..entries {
        if next != 0 {
            next = (last + bits.signed()?).rem_euclid(256);
        }
        last = if next == 0 { last } else { next };
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
    }

    #[test]
    fn what_encoders_write_is_read() {
        // x264, High, 640 by 360: 23 rows of macroblocks, of which 8 lines are cropped.
        let high = of_h264(&hex("6764001eacd940a02ff97011000003000100000300320f162d96")).unwrap();
        assert_eq!((high.width, high.height, high.chroma, high.luma_depth), (640, 360, 1, 0));
        // x265, Main, 1920 by 1080.
        let main = hex("420101016000000300900000030000030078a003c08010e596566924caf0168080000003008000000c84");
        let picture = of_h265(&main).unwrap();
        assert_eq!((picture.width, picture.height, picture.chroma, picture.luma_depth), (1920, 1080, 1, 0));
        assert_eq!(h265_profile(&main).unwrap(), [1, 0x60, 0, 0, 0, 0x90, 0, 0, 0, 0, 0, 120]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            of_h264(&bytes);
            of_h265(&bytes);
            h265_profile(&bytes);
        }
    }
}
