//! The forms in which elementary streams lie in PES packets, and the forms in which samples lie in files.

use crate::media::Codec;

/// Parameter sets of one kind that are kept, and bytes of one.
const SETS_MAX: usize = 8;
const SET_BYTES_MAX: usize = 1024;
/// Bytes of a NAL length.
pub const LENGTH_BYTES: u8 = 4;

/// The NAL units of a byte stream (ITU-T H.264 annex B, H.265 annex B), without trailing zeros.
pub fn annex_b(mut stream: &[u8]) -> impl Iterator<Item = &[u8]> {
    stream = start_code(stream).map_or(&[], |at| stream.get(at + 3..).unwrap_or(&[]));
    std::iter::from_fn(move || {
        while !stream.is_empty() {
            let (nal, rest) = match start_code(stream) {
                Some(at) => (stream.get(..at)?, stream.get(at + 3..).unwrap_or(&[])),
                None => (stream, &[][..]),
            };
            stream = rest;
            let end = nal.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
            let nal = nal.get(..end)?;
            if !nal.is_empty() {
                return Some(nal);
            }
        }
        None
    })
}

/// Where 00 00 01 is.
fn start_code(bytes: &[u8]) -> Option<usize> {
    let mut from = 0;
    loop {
        let rest = bytes.get(from..)?;
        let at = from + rest.iter().position(|&byte| byte == 1)?;
        if at >= 2 && bytes.get(at - 2..at) == Some(&[0, 0]) {
            return Some(at - 2);
        }
        from = at + 1;
    }
}

/// Writes the NAL units of a byte stream with their lengths before them to `out`, which has `max` bytes at most. False when they do not
/// fit.
pub fn with_lengths(stream: &[u8], out: &mut Vec<u8>, max: usize) -> bool {
    out.clear();
    for nal in annex_b(stream) {
        let Ok(len) = u32::try_from(nal.len()) else { return false };
        if usize::from(LENGTH_BYTES) + nal.len() > max.saturating_sub(out.len()) {
            return false;
        }
        out.extend_from_slice(&len.to_be_bytes());
        out.extend_from_slice(nal);
    }
    true
}

/// The parameter sets that a byte stream has shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sets {
    vps: Vec<Vec<u8>>,
    sps: Vec<Vec<u8>>,
    pps: Vec<Vec<u8>>,
}

impl Sets {
    /// Takes those of an access unit of H.264, or of H.265.
    pub fn learn(&mut self, stream: &[u8], h265: bool) {
        for nal in annex_b(stream) {
            let Some(&first) = nal.first() else { continue };
            let kind = if h265 { first >> 1 & 0x3f } else { first & 0x1f };
            // ITU-T H.264 table 7-1, H.265 table 7-1.
            let sets = match (h265, kind) {
                (true, 32) => &mut self.vps,
                (true, 33) | (false, 7) => &mut self.sps,
                (true, 34) | (false, 8) => &mut self.pps,
                _ => continue,
            };
            if sets.len() < SETS_MAX && nal.len() <= SET_BYTES_MAX && !sets.iter().any(|known| known == nal) {
                sets.push(nal.to_vec());
            }
        }
    }

    /// The codec, once all that a decoder needs was shown.
    pub fn codec(&self, h265: bool) -> Option<Codec> {
        let Self { vps, sps, pps } = self;
        let complete = !sps.is_empty() && !pps.is_empty() && (!h265 || !vps.is_empty());
        complete.then(|| match h265 {
            true => Codec::H265 { length_bytes: LENGTH_BYTES, vps: vps.clone(), sps: sps.clone(), pps: pps.clone() },
            false => Codec::H264 { length_bytes: LENGTH_BYTES, sps: sps.clone(), pps: pps.clone() },
        })
    }
}

/// A frame of sound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Its bytes, as they go on the tape.
    pub data: &'a [u8],
    /// Sampling rate, Hz.
    pub rate: u32,
    /// Channels.
    pub channels: u8,
    /// Sampling instants that it lasts.
    pub instants: u32,
    /// AudioSpecificConfig, of AAC.
    pub config: [u8; 2],
}

/// Sampling rates of AAC by index (ISO 14496-3 table 1.18).
const AAC_RATES: [u32; 13] = [96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8000, 7350];

/// The next frame of AAC with ADTS headers (ISO 14496-3 1.A.2) at the front of `stream`, and the bytes that it takes with its header.
/// `None` when there is none, or not all of it.
pub fn adts_frame(stream: &[u8]) -> Option<(Frame<'_>, usize)> {
    let &[sync, flags, third, fourth, fifth, sixth, seventh] = stream.first_chunk::<7>()?;
    if sync != 0xff || flags & 0xf6 != 0xf0 {
        return None;
    }
    let header_bytes = if flags & 1 == 1 { 7 } else { 9 };
    let bytes = usize::from(fourth & 3) << 11 | usize::from(fifth) << 3 | usize::from(sixth >> 5);
    // More than one raw data block in a frame has no RTP form.
    if seventh & 3 != 0 {
        return None;
    }
    let (profile, index) = (third >> 6, third >> 2 & 0xf);
    let channels = (third & 1) << 2 | fourth >> 6;
    let rate = *AAC_RATES.get(usize::from(index))?;
    let data = stream.get(header_bytes..bytes).filter(|data| !data.is_empty())?;
    // ISO 14496-3 1.6.2.1: object type, rate index, channel configuration.
    let config = [(profile + 1) << 3 | index >> 1, (index & 1) << 7 | channels << 3];
    Some((Frame { data, rate, channels: if channels == 7 { 8 } else { channels }, instants: 1024, config }, bytes))
}

/// Bit rates of MPEG audio in kbit/s by version (1; 2 and 2.5), layer and index (ISO 11172-3 2.4.2.3, ISO 13818-3 2.4.2.3).
const MPA_KBPS: [[[u16; 15]; 3]; 2] = [
    [
        [0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448],
        [0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384],
        [0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320],
    ],
    [
        [0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256],
        [0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160],
        [0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160],
    ],
];
const MPA_RATES: [u32; 3] = [44_100, 48_000, 32_000];

/// The next frame of MPEG audio at the front of `stream`, and the bytes that it takes.
pub fn mpeg_audio_frame(stream: &[u8]) -> Option<(Frame<'_>, usize)> {
    let &[sync, flags, third, fourth] = stream.first_chunk::<4>()?;
    if sync != 0xff || flags & 0xe0 != 0xe0 {
        return None;
    }
    let (version, layer) = (flags >> 3 & 3, 4 - usize::from(flags >> 1 & 3));
    if version == 1 || layer == 4 {
        return None;
    }
    let low = usize::from(version != 3);
    let rate = *MPA_RATES.get(usize::from(third >> 2 & 3))? >> [2, 0, 1, 0][usize::from(version)];
    let kbps = u32::from(*MPA_KBPS.get(low)?.get(layer - 1)?.get(usize::from(third >> 4))?);
    let padding = u32::from(third >> 1 & 1);
    let (bytes, instants) = match layer {
        1 => ((12_000 * kbps / rate + padding) * 4, 384),
        3 if low == 1 => (72_000 * kbps / rate + padding, 576),
        _ => (144_000 * kbps / rate + padding, 1152),
    };
    let data = stream.get(..bytes as usize).filter(|data| data.len() > 4)?;
    let channels = if fourth >> 6 == 3 { 1 } else { 2 };
    Some((Frame { data, rate, channels, instants, config: [0; 2] }, data.len()))
}
