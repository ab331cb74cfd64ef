//! The form of a title in the cache, and of a codec in a recording's journal: fields one after the other, little endian, byte strings and lists
//! with their length before them.
//!
//! What can be told from the rest (RTP parameters) is not written, so that a newer program never announces what an older one thought.

use crate::media::index::Parts;
use crate::media::measure::{Figures, describe};
use crate::media::{Codec, LeftOutTrack, SampleIndex, Title, Track, TrackKind};

/// Writes fields.
#[derive(Debug, Default)]
pub struct Encoder {
    out: Vec<u8>,
}

impl Encoder {
    /// What was written.
    pub fn finish(self) -> Vec<u8> {
        self.out
    }

    /// A number.
    pub fn u8(&mut self, value: u8) {
        self.out.push(value);
    }

    /// A number.
    pub fn u32(&mut self, value: u32) {
        self.out.extend_from_slice(&value.to_le_bytes());
    }

    /// A number.
    pub fn u64(&mut self, value: u64) {
        self.out.extend_from_slice(&value.to_le_bytes());
    }

    /// A byte string.
    pub fn bytes(&mut self, value: &[u8]) {
        self.u64(value.len() as u64);
        self.out.extend_from_slice(value);
    }

    fn list(&mut self, values: &[Vec<u8>]) {
        self.u64(values.len() as u64);
        for value in values {
            self.bytes(value);
        }
    }
}

/// Reads fields; `None` where there are not enough bytes.
#[derive(Debug)]
pub struct Decoder<'a> {
    rest: &'a [u8],
}

impl<'a> Decoder<'a> {
    /// Reads from `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// True when all was read.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.rest.split_at_checked(n)?;
        self.rest = rest;
        Some(head)
    }

    /// Bytes of a fixed number.
    pub fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.rest.split_first_chunk::<N>()?;
        self.rest = rest;
        Some(*head)
    }

    /// A number.
    pub fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_le_bytes)
    }

    /// A number.
    pub fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    /// A number.
    pub fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    /// A length of things that take at least `bytes_each` bytes of what is left.
    fn len(&mut self, bytes_each: usize) -> Option<usize> {
        let len = usize::try_from(self.u64()?).ok()?;
        (len <= self.rest.len() / bytes_each).then_some(len)
    }

    /// A byte string.
    pub fn bytes(&mut self) -> Option<&'a [u8]> {
        let len = self.len(1)?;
        self.take(len)
    }

    fn string(&mut self) -> Option<String> {
        String::from_utf8(self.bytes()?.to_vec()).ok()
    }

    fn list(&mut self) -> Option<Vec<Vec<u8>>> {
        (0..self.len(8)?).map(|_| self.bytes().map(<[u8]>::to_vec)).collect()
    }

    fn rows<const N: usize>(&mut self) -> Option<&'a [[u8; N]]> {
        let len = self.len(N)?;
        Some(self.take(len * N)?.as_chunks::<N>().0)
    }
}

/// Writes a title.
pub fn encode_title(title: &Title, out: &mut Encoder) {
    out.bytes(title.description.container.as_bytes());
    out.u64(title.tracks.len() as u64);
    for (track, description) in title.tracks.iter().zip(&title.description.tracks) {
        out.u32(track.id);
        out.u8(u8::from(track.kind == TrackKind::Audio));
        out.u32(track.timescale);
        encode_codec(&track.codec, out);
        out.u32(description.width);
        out.u32(description.height);
        out.u64(description.duration_ns);
        out.u64(description.mean_bps);
        out.u64(description.peak_1s_bps);
        out.u64(description.packets_per_second.to_bits());
        encode_index(&track.samples, out);
    }
    out.u64(title.left_out.len() as u64);
    for track in &title.left_out {
        out.u32(track.id);
        out.bytes(track.format.as_bytes());
        out.bytes(track.reason.as_bytes());
    }
}

/// Reads a title of a file of `file_bytes`; `None` when it does not hold together.
pub fn decode_title(from: &mut Decoder<'_>, file_bytes: u64) -> Option<Title> {
    let container = from.string()?;
    let mut tracks = Vec::new();
    let mut figures = Vec::new();
    for _ in 0..from.len(64)? {
        let id = from.u32()?;
        let kind = if from.u8()? == 0 { TrackKind::Video } else { TrackKind::Audio };
        let timescale = from.u32().filter(|timescale| *timescale > 0)?;
        let codec = decode_codec(from)?;
        figures.push(Figures {
            width: from.u32()?,
            height: from.u32()?,
            duration_ns: from.u64()?,
            mean_bps: from.u64()?,
            peak_1s_bps: from.u64()?,
            packets_per_second: f64::from_bits(from.u64()?),
        });
        tracks.push(Track { id, kind, codec, timescale, samples: decode_index(from, file_bytes)? });
    }
    let mut left_out = Vec::new();
    for _ in 0..from.len(20)? {
        left_out.push(LeftOutTrack { id: from.u32()?, format: from.string()?, reason: from.string()? });
    }
    let description = describe(&container, file_bytes, &tracks, &figures, &left_out);
    from.is_empty().then_some(Title { tracks, left_out, description })
}

/// Writes a codec.
pub fn encode_codec(codec: &Codec, out: &mut Encoder) {
    match codec {
        Codec::H264 { length_bytes, sps, pps } => {
            out.u8(0);
            out.u8(*length_bytes);
            out.list(sps);
            out.list(pps);
        }
        Codec::H265 { length_bytes, vps, sps, pps } => {
            out.u8(1);
            out.u8(*length_bytes);
            out.list(vps);
            out.list(sps);
            out.list(pps);
        }
        Codec::Av1 { config } => {
            out.u8(2);
            out.bytes(config);
        }
        Codec::Mpeg4Visual { config } => {
            out.u8(3);
            out.bytes(config);
        }
        Codec::Aac { config, sample_rate, channels } => {
            out.u8(4);
            out.bytes(config);
            out.u32(*sample_rate);
            out.u8(*channels);
        }
        Codec::MpegAudio => out.u8(5),
        Codec::Opus { channels } => {
            out.u8(6);
            out.u8(*channels);
        }
        Codec::Pcmu { sample_rate, channels } => {
            out.u8(7);
            out.u32(*sample_rate);
            out.u8(*channels);
        }
        Codec::Pcma { sample_rate, channels } => {
            out.u8(8);
            out.u32(*sample_rate);
            out.u8(*channels);
        }
    }
}

/// Reads a codec.
pub fn decode_codec(from: &mut Decoder<'_>) -> Option<Codec> {
    Some(match from.u8()? {
        0 => Codec::H264 { length_bytes: from.u8()?, sps: from.list()?, pps: from.list()? },
        1 => Codec::H265 { length_bytes: from.u8()?, vps: from.list()?, sps: from.list()?, pps: from.list()? },
        2 => Codec::Av1 { config: from.bytes()?.to_vec() },
        3 => Codec::Mpeg4Visual { config: from.bytes()?.to_vec() },
        4 => Codec::Aac { config: from.bytes()?.to_vec(), sample_rate: from.u32()?, channels: from.u8()? },
        5 => Codec::MpegAudio,
        6 => Codec::Opus { channels: from.u8()? },
        7 => Codec::Pcmu { sample_rate: from.u32()?, channels: from.u8()? },
        8 => Codec::Pcma { sample_rate: from.u32()?, channels: from.u8()? },
        _ => return None,
    })
}

fn encode_index(index: &SampleIndex, out: &mut Encoder) {
    let Parts { words, bases, group_shift, last_duration } = index.parts();
    out.u8(group_shift);
    out.u32(last_duration);
    out.u64(bases.len() as u64);
    for base in bases {
        out.u64(*base as u64);
    }
    out.u64(words.len() as u64);
    out.out.reserve(size_of_val(words));
    for word in words {
        out.out.extend_from_slice(&word.to_le_bytes());
    }
}

fn decode_index(from: &mut Decoder<'_>, file_bytes: u64) -> Option<SampleIndex> {
    let group_shift = from.u8()?;
    let last_duration = from.u32()?;
    let bases = from.rows::<8>()?.iter().map(|row| i64::from_le_bytes(*row)).collect();
    let words = from.rows::<16>()?.iter().map(|row| u128::from_le_bytes(*row)).collect();
    SampleIndex::from_parts(words, bases, group_shift, last_duration, file_bytes)
}
