//! The writer of MP4 files: what surrounds the samples that are in a file already.
//!
//! ```text
//! 0                 HEAD_BYTES                                     media_end
//! [ftyp][free][mdat: 16 bytes | samples, wherever they lie in it ... ][moov]
//! ```
//!
//! The head has a fixed size, a multiple of what O_DIRECT wants, so that whoever brings the samples needs to know nothing of it. Each sample
//! is a chunk of its own, because other bytes may lie between them. Tracks start where they do on the movie's line of time: those that start
//! later than the first one do so behind an empty edit.

mod boxes;
mod entries;
mod pictures;

use super::{Codec, TrackKind};
use boxes::{Boxes, runs};

/// Bytes before the first sample.
pub const HEAD_BYTES: u64 = 4096;
/// Units per second of the times that all tracks share.
const MOVIE_TIMESCALE: u32 = 90_000;
/// Bytes of `ftyp`, and of the header of an `mdat` with a 64-bit size.
const FTYP_BYTES: usize = 32;
const MDAT_HEADER_BYTES: usize = 16;
/// ISO 639-2 "und", three times five bits.
const LANGUAGE_UNKNOWN: u16 = 0x55c4;

/// A sample and where it lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MovieSample {
    /// Offset in the file.
    pub offset: u64,
    /// Decode time in the track's time scale, that of the first sample being 0; later than that of the sample before.
    pub dts: u64,
    /// Bytes.
    pub bytes: u32,
    /// Presentation time minus decode time.
    pub pts_offset: i32,
    /// A decoder can start here.
    pub sync: bool,
}

/// A track of a movie that is written.
#[derive(Clone, Debug)]
pub struct MovieTrack {
    /// Sight or sound.
    pub kind: TrackKind,
    /// How it is coded.
    pub codec: Codec,
    /// Units per second of its times.
    pub timescale: u32,
    /// When its first sample is decoded, on a line of time that all tracks share, nanoseconds.
    pub start_ns: i64,
    /// How long its last sample lasts, in its time scale.
    pub last_duration: u32,
    /// The samples in decode order; there is at least one.
    pub samples: Vec<MovieSample>,
}

/// Why a track of this codec cannot be written; `None` when it can.
pub fn obstacle(codec: &Codec) -> Option<&'static str> {
    entries::obstacle(codec)
}

/// The head of a file whose samples end at `media_end`.
pub fn head(media_end: u64) -> Vec<u8> {
    let mut head = Boxes::default();
    head.within(b"ftyp", |out| {
        out.bytes(b"isom\0\0\x02\0");
        for brand in [b"isom", b"iso2", b"avc1", b"mp41"] {
            out.bytes(brand);
        }
    });
    head.within(b"free", |out| out.zeros(HEAD_BYTES as usize - FTYP_BYTES - MDAT_HEADER_BYTES - 8));
    // Size 1: the size follows, in 64 bits.
    head.u32(1);
    head.bytes(b"mdat");
    head.u64(media_end.saturating_sub(HEAD_BYTES).saturating_add(MDAT_HEADER_BYTES as u64));
    head.out
}

/// Times of a track in its presentation.
#[derive(Clone, Copy, Debug)]
struct Edit {
    /// Nothing is shown before, in the movie's time scale.
    delay: u64,
    /// Presentation time of the first sample, in the track's time scale.
    media_time: u64,
    /// From there to the end of the last one that is shown, in the movie's time scale.
    duration: u64,
}

impl MovieTrack {
    fn media_duration(&self) -> u64 {
        self.samples.last().map_or(0, |last| last.dts.saturating_add(self.last_duration.into()))
    }

    fn media_time(&self) -> u64 {
        self.samples.first().map_or(0, |first| u64::try_from(first.pts_offset).unwrap_or(0))
    }

    /// When the first sample is shown, nanoseconds.
    fn shown_ns(&self) -> i64 {
        self.start_ns.saturating_add(scale(self.media_time(), self.timescale, 1_000_000_000, false) as i64)
    }

    fn edit(&self, zero_ns: i64) -> Edit {
        let delay_ns = u64::try_from(self.shown_ns().saturating_sub(zero_ns)).unwrap_or(0);
        let shown = |sample: &MovieSample| sample.dts.saturating_add_signed(sample.pts_offset.into());
        let end = self.samples.iter().map(shown).max().unwrap_or(0).saturating_add(self.last_duration.into());
        let media_time = self.media_time();
        Edit {
            delay: scale(delay_ns, 1_000_000_000, MOVIE_TIMESCALE, false),
            media_time,
            duration: scale(end.saturating_sub(media_time), self.timescale, MOVIE_TIMESCALE, true),
        }
    }
}

/// `value` in units of `to` per second, from units of `from`; rounded up, or to the nearest.
fn scale(value: u64, from: u32, to: u32, up: bool) -> u64 {
    let from = u128::from(from.max(1));
    let scaled = u128::from(value) * u128::from(to) + if up { from - 1 } else { from / 2 };
    u64::try_from(scaled / from).unwrap_or(u64::MAX)
}

/// The `moov` of a movie of these tracks, to be written behind the samples.
pub fn moov(tracks: &[MovieTrack]) -> Vec<u8> {
    let tracks = || tracks.iter().filter(|track| !track.samples.is_empty());
    let zero_ns = tracks().map(MovieTrack::shown_ns).min().unwrap_or(0);
    let edits: Vec<Edit> = tracks().map(|track| track.edit(zero_ns)).collect();
    let duration = edits.iter().map(|edit| edit.delay.saturating_add(edit.duration)).max().unwrap_or(0);
    let mut out = Boxes::default();
    out.within(b"moov", |out| {
        // ISO/IEC 14496-12 8.2.2: version 1 has 64-bit times; when the file was made is not told.
        out.full(b"mvhd", 1, 0, |out| {
            out.zeros(16);
            out.u32(MOVIE_TIMESCALE);
            out.u64(duration);
            out.u32(1 << 16);
            out.u16(1 << 8);
            out.zeros(10);
            matrix(out);
            out.zeros(24);
            out.u32(edits.len() as u32 + 1);
        });
        for (id, (track, edit)) in (1..).zip(tracks().zip(&edits)) {
            out.within(b"trak", |out| trak(out, id, track, *edit));
        }
    });
    out.out
}

/// Shows pictures as they are.
fn matrix(out: &mut Boxes) {
    for value in [1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30] {
        out.u32(value);
    }
}

fn trak(out: &mut Boxes, id: u32, track: &MovieTrack, edit: Edit) {
    let is_video = track.kind == TrackKind::Video;
    // ISO/IEC 14496-12 8.3.2: enabled, in the movie.
    out.full(b"tkhd", 1, 3, |out| {
        let picture = entries::picture(&track.codec);
        out.zeros(16);
        out.u32(id);
        out.zeros(4);
        out.u64(edit.delay.saturating_add(edit.duration));
        out.zeros(8 + 4);
        out.u16(if is_video { 0 } else { 1 << 8 });
        out.zeros(2);
        matrix(out);
        out.u32(if is_video { u32::from(picture.width) << 16 } else { 0 });
        out.u32(if is_video { u32::from(picture.height) << 16 } else { 0 });
    });
    out.within(b"edts", |out| {
        let empty = (edit.delay > 0).then_some((edit.delay, u64::MAX));
        out.table(b"elst", 1, empty.into_iter().chain([(edit.duration, edit.media_time)]), |out, (duration, media_time)| {
            out.u64(duration);
            out.u64(media_time);
            out.u32(1 << 16);
        });
    });
    out.within(b"mdia", |out| {
        out.full(b"mdhd", 1, 0, |out| {
            out.zeros(16);
            out.u32(track.timescale);
            out.u64(track.media_duration());
            out.u16(LANGUAGE_UNKNOWN);
            out.zeros(2);
        });
        out.full(b"hdlr", 0, 0, |out| {
            out.zeros(4);
            out.bytes(if is_video { b"vide" } else { b"soun" });
            out.zeros(12);
            out.bytes(if is_video { b"VideoHandler\0" } else { b"SoundHandler\0" });
        });
        out.within(b"minf", |out| {
            if is_video {
                out.full(b"vmhd", 0, 1, |out| out.zeros(8));
            } else {
                out.full(b"smhd", 0, 0, |out| out.zeros(4));
            }
            // The media is in this file.
            out.within(b"dinf", |out| out.table(b"dref", 0, std::iter::once(()), |out, ()| out.full(b"url ", 0, 1, |_| {})));
            out.within(b"stbl", |out| tables(out, track));
        });
    });
}

/// ISO/IEC 14496-12 8.5 to 8.7.
fn tables(out: &mut Boxes, track: &MovieTrack) {
    let samples = &track.samples;
    let pair = |out: &mut Boxes, (count, value): (u32, u32)| {
        out.u32(count);
        out.u32(value);
    };
    out.table(b"stsd", 0, std::iter::once(()), |out, ()| entries::write(out, &track.codec, track.timescale));
    let spans = samples.windows(2).map(|two| match two {
        [one, next] => u32::try_from(next.dts.saturating_sub(one.dts)).unwrap_or(u32::MAX),
        _ => 0,
    });
    out.table(b"stts", 0, runs(spans.chain([track.last_duration])), pair);
    if samples.iter().any(|sample| sample.pts_offset != 0) {
        // Version 1: offsets may be below 0.
        out.table(b"ctts", 1, runs(samples.iter().map(|sample| sample.pts_offset as u32)), pair);
    }
    if samples.iter().any(|sample| !sample.sync) {
        let syncs = (1u32..).zip(samples).filter(|(_, sample)| sample.sync);
        out.table(b"stss", 0, syncs, |out, (number, _)| out.u32(number));
    }
    out.table(b"stsc", 0, std::iter::once(1u32), |out, first| {
        out.u32(first);
        out.u32(1);
        out.u32(1);
    });
    out.full(b"stsz", 0, 0, |out| {
        out.u32(0);
        out.u32(u32::try_from(samples.len()).unwrap_or(u32::MAX));
        samples.iter().for_each(|sample| out.u32(sample.bytes));
    });
    out.table(b"co64", 0, samples.iter(), |out, sample| out.u64(sample.offset));
}

#[cfg(test)]
mod tests;
