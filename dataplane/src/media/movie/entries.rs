//! Sample entries: how a track is coded, as `stsd` says it.

use super::boxes::Boxes;
use super::pictures::{self, Picture};
use crate::media::Codec;

/// Bytes of a descriptor; its length is written in four bytes of seven bits each (ISO/IEC 14496-1 8.3.3).
const DESCRIPTOR_BYTES_MAX: usize = 1 << 20;
/// Opus at its own rate before the first picture: what encoders put in unless they say otherwise (RFC 7845 4.2).
const OPUS_PRE_SKIP: u16 = 3840;

/// Why tracks of this codec cannot be in a file.
pub(super) fn obstacle(codec: &Codec) -> Option<&'static str> {
    match codec {
        Codec::Av1 { config } if config.is_empty() => Some("AV1 whose sender does not tell its configuration (av1C) cannot be written"),
        Codec::Aac { config, .. } | Codec::Mpeg4Visual { config } if config.is_empty() => {
            Some("its sender does not tell its configuration")
        }
        _ => None,
    }
}

/// The pictures of a codec, as far as its parameter sets tell.
pub(super) fn picture(codec: &Codec) -> Picture {
    let read = match codec {
        Codec::H264 { sps, .. } => sps.first().and_then(|sps| pictures::of_h264(sps)),
        Codec::H265 { sps, .. } => sps.first().and_then(|sps| pictures::of_h265(sps)),
        _ => None,
    };
    read.unwrap_or(pictures::UNKNOWN)
}

/// Writes the one sample entry of a track.
pub(super) fn write(out: &mut Boxes, codec: &Codec, timescale: u32) {
    match codec {
        Codec::H264 { length_bytes, sps, pps } => {
            let inside = sps.is_empty() || pps.is_empty();
            visual(out, if inside { b"avc3" } else { b"avc1" }, codec, |out| avcc(out, *length_bytes, sps, pps, picture(codec)));
        }
        Codec::H265 { length_bytes, vps, sps, pps } => {
            let inside = vps.is_empty() || sps.is_empty() || pps.is_empty();
            let kind = if inside { b"hev1" } else { b"hvc1" };
            visual(out, kind, codec, |out| hvcc(out, *length_bytes, [(32, vps), (33, sps), (34, pps)], picture(codec)));
        }
        Codec::Av1 { config } => visual(out, b"av01", codec, |out| out.within(b"av1C", |out| out.bytes(config))),
        // ISO/IEC 14496-1 tables 5 and 6: MPEG-4 visual, in a visual stream.
        Codec::Mpeg4Visual { config } => visual(out, b"mp4v", codec, |out| esds(out, 0x20, 4, config)),
        Codec::Aac { config, sample_rate, channels } => {
            sound(out, b"mp4a", *channels, *sample_rate, |out| esds(out, 0x40, 5, config));
        }
        // MPEG-1 audio; every frame tells its own rate.
        Codec::MpegAudio => sound(out, b"mp4a", 2, timescale, |out| esds(out, 0x6b, 5, &[])),
        Codec::Opus { channels } => sound(out, b"Opus", *channels, 48_000, |out| {
            // Encapsulation of Opus in ISO Base Media File Format 4.3.2.
            out.within(b"dOps", |out| {
                out.u8(0);
                out.u8(*channels);
                out.u16(OPUS_PRE_SKIP);
                out.u32(48_000);
                out.u16(0);
                out.u8(0);
            });
        }),
        Codec::Pcmu { sample_rate, channels } => sound(out, b"ulaw", *channels, *sample_rate, |_| {}),
        Codec::Pcma { sample_rate, channels } => sound(out, b"alaw", *channels, *sample_rate, |_| {}),
    }
}

/// ISO/IEC 14496-12 12.1.3.
fn visual(out: &mut Boxes, kind: &[u8; 4], codec: &Codec, config: impl FnOnce(&mut Boxes)) {
    let Picture { width, height, .. } = picture(codec);
    out.within(kind, |out| {
        out.zeros(6);
        out.u16(1);
        out.zeros(16);
        out.u16(width);
        out.u16(height);
        // 72 dots per inch, one frame in a sample, no name, 24 bits.
        out.u32(72 << 16);
        out.u32(72 << 16);
        out.u32(0);
        out.u16(1);
        out.zeros(32);
        out.u16(24);
        out.u16(0xffff);
        config(out);
    });
}

/// ISO/IEC 14496-12 12.2.3.
fn sound(out: &mut Boxes, kind: &[u8; 4], channels: u8, rate_hz: u32, config: impl FnOnce(&mut Boxes)) {
    out.within(kind, |out| {
        out.zeros(6);
        out.u16(1);
        out.zeros(8);
        out.u16(channels.into());
        out.u16(16);
        out.zeros(4);
        // 16.16; rates above 65535 Hz are in the codec's configuration only.
        out.u32(u16::try_from(rate_hz).map_or(0, |rate| u32::from(rate) << 16));
        config(out);
    });
}

/// ISO/IEC 14496-15 5.3.3.1.
fn avcc(out: &mut Boxes, length_bytes: u8, sps: &[Vec<u8>], pps: &[Vec<u8>], picture: Picture) {
    let head = |at| sps.first().and_then(|sps| sps.get(at)).copied().unwrap_or_default();
    out.within(b"avcC", |out| {
        out.bytes(&[1, head(1), head(2), head(3), 0xfc | length_bytes.saturating_sub(1) & 3]);
        let count = sets(sps).take(31).count() as u8;
        out.u8(0xe0 | count);
        sets(sps).take(31).for_each(|set| sized(out, set));
        out.u8(sets(pps).take(255).count() as u8);
        sets(pps).take(255).for_each(|set| sized(out, set));
        if matches!(head(1), 100 | 110 | 122 | 144) {
            out.bytes(&[0xfc | picture.chroma & 3, 0xf8 | picture.luma_depth & 7, 0xf8 | picture.chroma_depth & 7, 0]);
        }
    });
}

/// ISO/IEC 14496-15 8.3.3.1.
fn hvcc(out: &mut Boxes, length_bytes: u8, arrays: [(u8, &Vec<Vec<u8>>); 3], picture: Picture) {
    let [_, (_, sps), _] = arrays;
    let first = sps.first();
    out.within(b"hvcC", |out| {
        out.u8(1);
        out.bytes(&first.and_then(|sps| pictures::h265_profile(sps)).unwrap_or_default());
        // Unknown: the least segmentation, the parallelism.
        out.u16(0xf000);
        out.u8(0xfc);
        out.bytes(&[0xfc | picture.chroma & 3, 0xf8 | picture.luma_depth & 7, 0xf8 | picture.chroma_depth & 7]);
        // Unknown: the mean frame rate; then constant rate, temporal layers and nesting of the parameter set.
        out.u16(0);
        let layers = first.and_then(|sps| sps.get(2)).copied().unwrap_or(1);
        out.u8((((layers >> 1) & 7) + 1) << 3 & 0x38 | (layers & 1) << 2 | length_bytes.saturating_sub(1) & 3);
        out.u8(arrays.iter().filter(|(_, list)| sets(list).next().is_some()).count() as u8);
        for (kind, list) in arrays {
            let count = sets(list).count() as u16;
            if count > 0 {
                // All of these are here, none in the samples only.
                out.u8(0x80 | kind);
                out.u16(count);
                sets(list).for_each(|set| sized(out, set));
            }
        }
    });
}

/// The parameter sets that fit their 16-bit lengths.
fn sets(list: &[Vec<u8>]) -> impl Iterator<Item = &[u8]> {
    list.iter().map(Vec::as_slice).filter(|set| !set.is_empty() && set.len() <= usize::from(u16::MAX)).take(256)
}

fn sized(out: &mut Boxes, set: &[u8]) {
    out.u16(set.len() as u16);
    out.bytes(set);
}

/// ISO/IEC 14496-1 7.2.6, 14496-14 5.6.
fn esds(out: &mut Boxes, object_type: u8, stream_type: u8, config: &[u8]) {
    let config = config.get(..DESCRIPTOR_BYTES_MAX).unwrap_or(config);
    let specific = if config.is_empty() { 0 } else { 5 + config.len() };
    out.full(b"esds", 0, 0, |out| {
        descriptor(out, 3, 3 + 5 + 13 + specific + 5 + 1);
        out.u16(0);
        out.u8(0);
        descriptor(out, 4, 13 + specific);
        out.u8(object_type);
        out.u8(stream_type << 2 | 1);
        // Unknown: the decoder's buffer, highest and mean rate.
        out.zeros(11);
        if specific > 0 {
            descriptor(out, 5, config.len());
            out.bytes(config);
        }
        // The only value that files have (ISO/IEC 14496-14 3.1.2).
        descriptor(out, 6, 1);
        out.u8(2);
    });
}

fn descriptor(out: &mut Boxes, tag: u8, bytes: usize) {
    out.u8(tag);
    for group in (0..4).rev() {
        out.u8((bytes >> (7 * group) & 0x7f) as u8 | if group > 0 { 0x80 } else { 0 });
    }
}
