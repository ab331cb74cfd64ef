//! Writes what an MP4 file has around its samples: the head before them, and the `moov` behind (ISO 14496-12).
//!
//! ```text
//! ftyp free mdat-header │ samples of all tracks, with gaps between │ moov
//! └── HEAD_BYTES ───────┘
//! ```
//!
//! The samples lie where whoever wrote them says. Times begin at the first sample of all tracks; a track that begins later has an empty
//! edit before it.

use crate::media::{Codec, TrackKind};

/// Bytes before the first sample: a page, so that samples can be written in whole pages.
pub const HEAD_BYTES: u64 = 4096;
/// Units per second of the times that concern the whole file.
const MOVIE_TIMESCALE: u32 = 1000;
/// Bytes of a box header with a 64-bit size.
const LARGE_HEADER_BYTES: u64 = 16;

/// A sample that lies in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WrittenSample {
    /// Byte offset in the file.
    pub offset: u64,
    /// Bytes.
    pub bytes: u32,
    /// Decode time after that of the track's first sample, in the track's time scale.
    pub dts: u64,
    /// Presentation time minus decode time.
    pub pts_offset: i32,
    /// A decoder can start here.
    pub sync: bool,
}

/// A track of the file.
#[derive(Clone, Debug)]
pub struct WrittenTrack {
    /// Sight or sound.
    pub kind: TrackKind,
    /// How it is coded.
    pub codec: Codec,
    /// Units per second of its times.
    pub timescale: u32,
    /// Width and height of the picture.
    pub size: (u16, u16),
    /// How much later than the file's first sample of all it begins, nanoseconds.
    pub begins_ns: u64,
    /// Duration of the last sample.
    pub last_duration: u32,
    /// The samples in decode order.
    pub samples: Vec<WrittenSample>,
}

/// Codecs that can be written.
pub fn can_write(codec: &Codec) -> bool {
    matches!(codec, Codec::H264 { .. } | Codec::H265 { .. } | Codec::Aac { .. } | Codec::Opus { .. })
}

/// The first [`HEAD_BYTES`] of a file whose samples end at `end`.
pub fn head(end: u64) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEAD_BYTES as usize);
    boxed(&mut out, b"ftyp", |out| {
        out.extend_from_slice(b"isom\0\0\x02\0isomiso2avc1mp41");
    });
    let free = HEAD_BYTES as usize - LARGE_HEADER_BYTES as usize - out.len();
    boxed(&mut out, b"free", |out| out.resize(out.len() + free - 8, 0));
    out.extend_from_slice(&1u32.to_be_bytes());
    out.extend_from_slice(b"mdat");
    let mdat = end.saturating_sub(HEAD_BYTES).saturating_add(LARGE_HEADER_BYTES);
    out.extend_from_slice(&mdat.to_be_bytes());
    out
}

/// The `moov` of a file with these tracks, of which each has samples.
pub fn moov(tracks: &[WrittenTrack]) -> Vec<u8> {
    let mut out = Vec::new();
    let duration = tracks.iter().map(|track| track.movie_times().1).max().unwrap_or(0);
    boxed(&mut out, b"moov", |out| {
        full(out, b"mvhd", 1, 0, |out| {
            put(out, &[0u64.to_be_bytes(), 0u64.to_be_bytes()].concat());
            put(out, &MOVIE_TIMESCALE.to_be_bytes());
            put(out, &duration.to_be_bytes());
            // Rate and volume 1.0, reserved, unity matrix, pre_defined.
            put(out, &[0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
            put(out, &MATRIX);
            put(out, &[0; 24]);
            put(out, &(tracks.len() as u32 + 1).to_be_bytes());
        });
        for (id, track) in (1..).zip(tracks) {
            track.trak(out, id);
        }
    });
    out
}

const MATRIX: [u8; 36] = [
    0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x40, 0, 0, 0,
];

impl WrittenTrack {
    /// Duration in the track's time scale.
    fn duration(&self) -> u64 {
        self.samples.last().map_or(0, |last| last.dts.saturating_add(self.last_duration.into()))
    }

    /// When it begins, and when it ends, in the movie's time scale.
    fn movie_times(&self) -> (u64, u64) {
        let scaled = |ticks: u64, per_second: u64| {
            u64::try_from(u128::from(ticks) * u128::from(MOVIE_TIMESCALE) / u128::from(per_second.max(1))).unwrap_or(u64::MAX)
        };
        let begins = scaled(self.begins_ns, 1_000_000_000);
        (begins, begins.saturating_add(scaled(self.duration(), self.timescale.into())))
    }

    fn trak(&self, out: &mut Vec<u8>, id: u32) {
        let (begins, ends) = self.movie_times();
        let is_video = self.kind == TrackKind::Video;
        boxed(out, b"trak", |out| {
            // Enabled, in the movie.
            full(out, b"tkhd", 1, 3, |out| {
                put(out, &[0; 16]);
                put(out, &id.to_be_bytes());
                put(out, &[0; 4]);
                put(out, &ends.to_be_bytes());
                put(out, &[0; 12]);
                put(out, if is_video { &[0; 4] } else { &[1, 0, 0, 0] });
                put(out, &MATRIX);
                for side in [self.size.0, self.size.1] {
                    put(out, &(u32::from(side) << 16).to_be_bytes());
                }
            });
            boxed(out, b"edts", |out| full(out, b"elst", 1, 0, |out| self.edits(out, begins, ends)));
            boxed(out, b"mdia", |out| {
                full(out, b"mdhd", 1, 0, |out| {
                    put(out, &[0; 16]);
                    put(out, &self.timescale.to_be_bytes());
                    put(out, &self.duration().to_be_bytes());
                    // Language "und".
                    put(out, &[0x55, 0xc4, 0, 0]);
                });
                full(out, b"hdlr", 0, 0, |out| {
                    put(out, &[0; 4]);
                    put(out, if is_video { b"vide" } else { b"soun" });
                    put(out, &[0; 12]);
                    put(out, b"tactus\0");
                });
                boxed(out, b"minf", |out| {
                    match is_video {
                        true => full(out, b"vmhd", 0, 1, |out| put(out, &[0; 8])),
                        false => full(out, b"smhd", 0, 0, |out| put(out, &[0; 4])),
                    }
                    boxed(out, b"dinf", |out| {
                        full(out, b"dref", 0, 0, |out| {
                            put(out, &1u32.to_be_bytes());
                            // The samples are in this file.
                            full(out, b"url ", 0, 1, |_| {});
                        });
                    });
                    boxed(out, b"stbl", |out| self.sample_table(out));
                });
            });
        });
    }

    /// An empty edit up to where the track begins, then all of it from its first presentation time on.
    fn edits(&self, out: &mut Vec<u8>, begins: u64, ends: u64) {
        let first = self.samples.iter().take(FIRST_MAX).map(|s| (s.dts as i64).saturating_add(s.pts_offset.into())).min().unwrap_or(0);
        let edits = [(begins, -1i64), (ends - begins, first.max(0))];
        let edits = if begins == 0 { edits.get(1..).unwrap_or(&[]) } else { &edits };
        put(out, &(edits.len() as u32).to_be_bytes());
        for (duration, media_time) in edits {
            put(out, &duration.to_be_bytes());
            put(out, &media_time.to_be_bytes());
            put(out, &[0, 1, 0, 0]);
        }
    }

    fn sample_table(&self, out: &mut Vec<u8>) {
        full(out, b"stsd", 0, 0, |out| {
            put(out, &1u32.to_be_bytes());
            self.sample_entry(out);
        });
        let durations = self.samples.windows(2).map(|pair| match pair {
            [a, b] => u32::try_from(b.dts.saturating_sub(a.dts)).unwrap_or(u32::MAX),
            _ => 0,
        });
        full(out, b"stts", 0, 0, |out| runs(out, durations.chain([self.last_duration]), |out, value| put(out, &value.to_be_bytes())));
        if self.samples.iter().any(|sample| sample.pts_offset != 0) {
            let offsets = self.samples.iter().map(|sample| sample.pts_offset);
            full(out, b"ctts", 1, 0, |out| runs(out, offsets, |out, value| put(out, &value.to_be_bytes())));
        }
        if self.samples.iter().any(|sample| !sample.sync) {
            let syncs: Vec<u32> = (1..).zip(&self.samples).filter(|(_, sample)| sample.sync).map(|(number, _)| number).collect();
            full(out, b"stss", 0, 0, |out| {
                put(out, &(syncs.len() as u32).to_be_bytes());
                syncs.iter().for_each(|number| put(out, &number.to_be_bytes()));
            });
        }
        full(out, b"stsz", 0, 0, |out| {
            put(out, &0u32.to_be_bytes());
            put(out, &(self.samples.len() as u32).to_be_bytes());
            self.samples.iter().for_each(|sample| put(out, &sample.bytes.to_be_bytes()));
        });
        let chunks = self.chunks();
        full(out, b"stsc", 0, 0, |out| {
            let mut entries = Vec::new();
            for (number, &(_, samples)) in (1u32..).zip(&chunks) {
                if entries.last().is_none_or(|&(_, last)| last != samples) {
                    entries.push((number, samples));
                }
            }
            put(out, &(entries.len() as u32).to_be_bytes());
            for (number, samples) in entries {
                put(out, &[number.to_be_bytes(), samples.to_be_bytes(), 1u32.to_be_bytes()].concat());
            }
        });
        full(out, b"co64", 0, 0, |out| {
            put(out, &(chunks.len() as u32).to_be_bytes());
            chunks.iter().for_each(|(offset, _)| put(out, &offset.to_be_bytes()));
        });
    }

    /// Runs of samples that lie one behind the other: offset and number.
    fn chunks(&self) -> Vec<(u64, u32)> {
        let mut chunks: Vec<(u64, u32)> = Vec::new();
        let mut end = None;
        for sample in &self.samples {
            match chunks.last_mut().filter(|_| end == Some(sample.offset)) {
                Some((_, samples)) => *samples += 1,
                None => chunks.push((sample.offset, 1)),
            }
            end = Some(sample.offset + u64::from(sample.bytes));
        }
        chunks
    }

    fn sample_entry(&self, out: &mut Vec<u8>) {
        match &self.codec {
            Codec::H264 { length_bytes, sps, pps } => self.visual(out, b"avc1", |out| boxed(out, b"avcC", |out| avcc(out, *length_bytes, sps, pps))),
            Codec::H265 { length_bytes, vps, sps, pps } => {
                self.visual(out, b"hvc1", |out| boxed(out, b"hvcC", |out| hvcc(out, *length_bytes, vps, sps, pps)));
            }
            Codec::Aac { config, sample_rate, channels } => {
                audio(out, b"mp4a", *channels, *sample_rate, |out| full(out, b"esds", 0, 0, |out| esds(out, config)));
            }
            // RFC 7845 5.1.1 and "Encapsulation of Opus in ISO Base Media File Format" 4.3.2: always 48 kHz, no mapping table.
            Codec::Opus { channels } => audio(out, b"Opus", *channels, 48_000, |out| {
                boxed(out, b"dOps", |out| {
                    put(out, &[0, *channels, 0, 0]);
                    put(out, &48_000u32.to_be_bytes());
                    put(out, &[0, 0, 0]);
                });
            }),
            // INVARIANT: nobody begins to write what `can_write` does not take; such a track would have no description.
            _ => {}
        }
    }

    fn visual(&self, out: &mut Vec<u8>, kind: &[u8; 4], config: impl FnOnce(&mut Vec<u8>)) {
        boxed(out, kind, |out| {
            put(out, &[0, 0, 0, 0, 0, 0, 0, 1]);
            put(out, &[0; 16]);
            put(out, &self.size.0.to_be_bytes());
            put(out, &self.size.1.to_be_bytes());
            // 72 dpi both ways, one frame per sample, no name, depth 24.
            put(out, &[0, 0x48, 0, 0, 0, 0x48, 0, 0, 0, 0, 0, 0, 0, 1]);
            put(out, &[0; 32]);
            put(out, &[0, 0x18, 0xff, 0xff]);
            config(out);
        });
    }
}

/// Samples that are looked at for the first presentation time; pictures are not reordered farther.
const FIRST_MAX: usize = 64;

fn audio(out: &mut Vec<u8>, kind: &[u8; 4], channels: u8, sample_rate: u32, config: impl FnOnce(&mut Vec<u8>)) {
    boxed(out, kind, |out| {
        put(out, &[0, 0, 0, 0, 0, 0, 0, 1]);
        put(out, &[0; 8]);
        put(out, &u16::from(channels).to_be_bytes());
        put(out, &[0, 16, 0, 0, 0, 0]);
        // 16.16; what does not fit is told by the codec's own configuration.
        put(out, &(u32::from(u16::try_from(sample_rate).unwrap_or(0)) << 16).to_be_bytes());
        config(out);
    });
}

/// ISO 14496-15 5.3.3.1.
fn avcc(out: &mut Vec<u8>, length_bytes: u8, sps: &[Vec<u8>], pps: &[Vec<u8>]) {
    let profile = sps.first().and_then(|sps| sps.get(1..4)).unwrap_or(&[0, 0, 0]);
    put(out, &[1]);
    put(out, profile);
    put(out, &[0xfc | (length_bytes.clamp(1, 4) - 1), 0xe0 | sps.len().min(31) as u8]);
    sps.iter().take(31).for_each(|nal| with_length(out, nal));
    put(out, &[pps.len().min(255) as u8]);
    pps.iter().take(255).for_each(|nal| with_length(out, nal));
}

/// ISO 14496-15 8.3.3.1.
fn hvcc(out: &mut Vec<u8>, length_bytes: u8, vps: &[Vec<u8>], sps: &[Vec<u8>], pps: &[Vec<u8>]) {
    let plain: Vec<u8> = sps.first().map(|sps| unescaped(sps.get(..40).unwrap_or(sps))).unwrap_or_default();
    let layers = plain.get(2).map_or(1, |byte| (byte >> 1 & 7) + 1);
    put(out, &[1]);
    // The general profile, tier and level, as the sequence parameter set has them.
    put(out, plain.get(3..15).unwrap_or(&[0; 12]));
    // No spatial segmentation, parallelism unknown, 4:2:0 of 8 bits unless the parameter set says otherwise, frame rate unknown.
    put(out, &[0xf0, 0, 0xfc, 0xfd, 0xf8, 0xf8, 0, 0]);
    put(out, &[layers << 3 | 4 | (length_bytes.clamp(1, 4) - 1), 3]);
    for (kind, nals) in [(32, vps), (33, sps), (34, pps)] {
        put(out, &[0x80 | kind]);
        put(out, &(nals.len() as u16).to_be_bytes());
        nals.iter().for_each(|nal| with_length(out, nal));
    }
}

/// Without the bytes that keep start codes from arising (ITU-T H.265 7.3.1.1).
fn unescaped(nal: &[u8]) -> Vec<u8> {
    let mut zeros = 0;
    let mut out = Vec::with_capacity(nal.len());
    for &byte in nal {
        if zeros >= 2 && byte == 3 {
            zeros = 0;
            continue;
        }
        zeros = if byte == 0 { zeros + 1 } else { 0 };
        out.push(byte);
    }
    out
}

/// ISO 14496-1 7.2.6.5: an ES descriptor with the decoder's configuration for AAC.
fn esds(out: &mut Vec<u8>, config: &[u8]) {
    let config = config.get(..config.len().min(64)).unwrap_or(config);
    let length = config.len() as u8;
    put(out, &[3, 3 + 2 + 13 + 2 + length + 3, 0, 1, 0]);
    // Object type AAC, audio stream, buffer and rates unknown.
    put(out, &[4, 13 + 2 + length, 0x40, 0x15, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    put(out, &[5, length]);
    put(out, config);
    put(out, &[6, 1, 2]);
}

fn with_length(out: &mut Vec<u8>, nal: &[u8]) {
    let len = u16::try_from(nal.len()).unwrap_or(u16::MAX);
    put(out, &len.to_be_bytes());
    put(out, nal.get(..len.into()).unwrap_or(nal));
}

/// A table of runs of equal values.
fn runs<T: PartialEq + Copy>(out: &mut Vec<u8>, values: impl Iterator<Item = T>, value: impl Fn(&mut Vec<u8>, T)) {
    let mut runs: Vec<(u32, T)> = Vec::new();
    for value in values {
        match runs.last_mut().filter(|(_, last)| *last == value) {
            Some((count, _)) => *count += 1,
            None => runs.push((1, value)),
        }
    }
    put(out, &(runs.len() as u32).to_be_bytes());
    for (count, each) in runs {
        put(out, &count.to_be_bytes());
        value(out, each);
    }
}

fn put(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(bytes);
}

/// A box around what `body` writes.
fn boxed(out: &mut Vec<u8>, kind: &[u8; 4], body: impl FnOnce(&mut Vec<u8>)) {
    let at = out.len();
    put(out, &[0; 4]);
    put(out, kind);
    body(out);
    let size = u32::try_from(out.len() - at).unwrap_or(u32::MAX);
    if let Some(place) = out.get_mut(at..at + 4) {
        place.copy_from_slice(&size.to_be_bytes());
    }
}

/// A box with version and flags.
fn full(out: &mut Vec<u8>, kind: &[u8; 4], version: u8, flags: u32, body: impl FnOnce(&mut Vec<u8>)) {
    boxed(out, kind, |out| {
        put(out, &(u32::from(version) << 24 | flags).to_be_bytes());
        body(out);
    });
}
