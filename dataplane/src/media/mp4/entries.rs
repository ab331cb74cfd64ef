//! Sample entries (`stsd`): how a track is coded, or why it cannot be delivered.
//!
//! The entry's own fields are read here, because QuickTime and MP4 disagree about them; most codec configuration boxes inside are decoded by
//! `mp4-atom`, each only when it is small, as all real ones are. `esds` is not: `mp4-atom` recurses as deep as its descriptors nest, and refuses
//! those that the `mp4` crate writes.

use mp4_atom::{Atom, Avcc, Dops, Hvcc};

use super::boxes::{BoxView, View};
use super::esds::Esds;
use crate::media::error::{FourCc, MediaError};
use crate::media::{Codec, TrackKind};

/// Bytes of a configuration box; parameter sets are a few hundred at most, and a list of them seldom above a thousand.
const CONFIG_BYTES_MAX: usize = 16 << 10;
/// Sample entries looked at.
const ENTRIES_MAX: usize = 256;

/// One sample entry.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    pub format: FourCc,
    pub codec: Result<Codec, String>,
    pub width: u32,
    pub height: u32,
    /// Parameter sets are (also) in the samples and there is none in the entry.
    pub parameter_sets_inside: bool,
}

/// Parses `stsd`.
pub fn parse_stsd(stsd: View<'_>, kind: TrackKind, quicktime: bool) -> Result<Vec<Entry>, MediaError> {
    let mut fields = stsd.fields("stsd");
    let (version, _) = fields.version_flags()?;
    let count = fields.u32()? as usize;
    let mut entries = Vec::new();
    for entry in fields.rest().boxes().take(count.min(ENTRIES_MAX)) {
        let entry = entry?;
        entries.push(match kind {
            TrackKind::Video => parse_visual(entry)?,
            TrackKind::Audio => parse_audio(entry, version, quicktime)?,
        });
    }
    if entries.is_empty() {
        return Err(MediaError::Broken { what: "stsd: no sample entry".into(), at: stsd.at });
    }
    Ok(entries)
}

fn parse_visual(entry: BoxView<'_>) -> Result<Entry, MediaError> {
    // ISO/IEC 14496-12 12.1.3: reserved, data reference, predefined; then the picture's size.
    let mut fields = entry.body.fields("visual sample entry");
    fields.skip(24)?;
    let (width, height) = (u32::from(fields.u16()?), u32::from(fields.u16()?));
    fields.skip(50)?;
    let children = Children::find(fields.rest());
    let mut parameter_sets_inside = false;
    let codec = match &entry.kind {
        b"avc1" | b"avc3" => children.config(b"avcC", CONFIG_BYTES_MAX, Avcc::decode_body).and_then(|avcc| {
            parameter_sets_inside = avcc.sequence_parameter_sets.is_empty() || avcc.picture_parameter_sets.is_empty();
            let length_bytes = nal_length(avcc.length_size)?;
            Ok(Codec::H264 { length_bytes, sps: avcc.sequence_parameter_sets, pps: avcc.picture_parameter_sets })
        }),
        b"hvc1" | b"hev1" => children.config(b"hvcC", CONFIG_BYTES_MAX, Hvcc::decode_body).and_then(|hvcc| {
            let sets = |nal_type| {
                let arrays = hvcc.arrays.iter().filter(move |array| array.nal_unit_type == nal_type);
                arrays.flat_map(|array| array.nalus.iter().cloned()).collect::<Vec<_>>()
            };
            // ITU-T H.265 table 7-1.
            let (vps, sps, pps) = (sets(32), sets(33), sets(34));
            parameter_sets_inside = vps.is_empty() || sps.is_empty() || pps.is_empty();
            Ok(Codec::H265 { length_bytes: nal_length(hvcc.length_size_minus_one + 1)?, vps, sps, pps })
        }),
        b"av01" => children.body(b"av1C", CONFIG_BYTES_MAX).and_then(|config| match config.bytes {
            // Marker and version (AV1 ISOBMFF 2.3.3).
            [0x81, _, _, _, ..] => Ok(Codec::Av1 { config: config.bytes.to_vec() }),
            _ => Err("its av1C box is not of version 1".to_owned()),
        }),
        b"mp4v" => children.esds().and_then(|esds| {
            // ISO/IEC 14496-1 table 5.
            match esds.object_type {
                0x20 if !esds.config.is_empty() => Ok(Codec::Mpeg4Visual { config: esds.config }),
                0x20 => Err("MPEG-4 visual without its configuration".to_owned()),
                0x60..=0x65 => Err("MPEG-2 video is not delivered".to_owned()),
                0x6a => Err("MPEG-1 video is not delivered".to_owned()),
                0x6c => Err("JPEG pictures are not delivered".to_owned()),
                other => Err(format!("object type {other:#04x} is not delivered")),
            }
        }),
        b"encv" => Err("it is encrypted".to_owned()),
        b"apcn" | b"apch" | b"apcs" | b"apco" | b"ap4h" | b"ap4x" => Err("Apple ProRes is not delivered".to_owned()),
        b"jpeg" | b"png " | b"mjpa" | b"mjpb" => Err("still pictures and motion JPEG are not delivered".to_owned()),
        b"dvh1" | b"dvhe" | b"dvav" | b"dva1" => Err("Dolby Vision without a compatible base layer is not delivered".to_owned()),
        b"vp08" | b"vp09" => Err("VP8 and VP9 are not delivered".to_owned()),
        other => Err(format!("video coded as '{}' is not delivered", FourCc(*other))),
    };
    Ok(Entry { format: FourCc(entry.kind), codec, width, height, parameter_sets_inside })
}

fn nal_length(bytes: u8) -> Result<u8, String> {
    match bytes {
        1 | 2 | 4 => Ok(bytes),
        _ => Err(format!("NAL lengths of {bytes} bytes are not delivered")),
    }
}

/// What an audio sample entry says itself.
#[derive(Clone, Copy)]
struct Sound {
    channels: u32,
    rate_hz: u32,
}

fn parse_audio(entry: BoxView<'_>, stsd_version: u8, quicktime: bool) -> Result<Entry, MediaError> {
    // ISO/IEC 14496-12 12.2.3; QuickTime File Format, sound sample descriptions.
    let mut fields = entry.body.fields("audio sample entry");
    fields.skip(8)?;
    let version = fields.u16()?;
    fields.skip(6)?;
    let mut sound = Sound { channels: u32::from(fields.u16()?), rate_hz: 0 };
    fields.skip(6)?;
    sound.rate_hz = fields.u32()? >> 16;
    // MP4 has a version 1 without further fields, which it announces by the version of `stsd`.
    match version {
        1 if quicktime || stsd_version == 0 => fields.skip(16)?,
        2 if quicktime || stsd_version == 0 => {
            fields.skip(4)?;
            let rate = f64::from_bits(fields.u64()?);
            sound = Sound { channels: fields.u32()?, rate_hz: rate as u32 };
            fields.skip(20)?;
        }
        _ => {}
    }
    let children = Children::find(fields.rest());
    let codec = match &entry.kind {
        b"mp4a" => children.esds().and_then(|esds| mp4a(esds, sound)),
        b".mp3" | b"mp3 " | b"ms\0\x55" => Ok(Codec::MpegAudio),
        b"Opus" => children.config(b"dOps", CONFIG_BYTES_MAX, Dops::decode_body).and_then(|dops| match dops.output_channel_count {
            channels @ 1..=2 if dops.channel_mapping.is_none() => Ok(Codec::Opus { channels }),
            channels => Err(format!("Opus with {channels} channels in several streams has no RTP form (RFC 7587)")),
        }),
        b"ulaw" => g711(sound).map(|(sample_rate, channels)| Codec::Pcmu { sample_rate, channels }),
        b"alaw" => g711(sound).map(|(sample_rate, channels)| Codec::Pcma { sample_rate, channels }),
        b"enca" => Err("it is encrypted".to_owned()),
        b"twos" | b"sowt" | b"lpcm" | b"ipcm" | b"fpcm" | b"raw " | b"NONE" | b"in24" | b"in32" | b"fl32" | b"fl64" => {
            Err("uncompressed audio is not delivered".to_owned())
        }
        b"ac-3" | b"ec-3" => Err("Dolby Digital is not delivered".to_owned()),
        b"alac" | b"fLaC" => Err("lossless audio is not delivered".to_owned()),
        other => Err(format!("audio coded as '{}' is not delivered", FourCc(*other))),
    };
    Ok(Entry { format: FourCc(entry.kind), codec, width: 0, height: 0, parameter_sets_inside: false })
}

fn g711(sound: Sound) -> Result<(u32, u8), String> {
    match (u8::try_from(sound.channels), sound.rate_hz) {
        (Ok(channels @ 1..=8), 1000..=384_000) => Ok((sound.rate_hz, channels)),
        _ => Err(format!("G.711 with {} channels at {} Hz makes no sense", sound.channels, sound.rate_hz)),
    }
}

fn mp4a(esds: Esds, sound: Sound) -> Result<Codec, String> {
    match esds.object_type {
        // ISO/IEC 14496-1 table 5: MPEG-4 audio; MPEG-2 AAC main, LC, SSR.
        0x40 | 0x66..=0x68 => aac(esds.config, sound),
        0x69 | 0x6b => Ok(Codec::MpegAudio),
        0xa5 | 0xa6 => Err("Dolby Digital is not delivered".to_owned()),
        0xa9..=0xac => Err("DTS is not delivered".to_owned()),
        0xdd => Err("Vorbis is not delivered".to_owned()),
        other => Err(format!("object type {other:#04x} is not delivered")),
    }
}

/// ISO/IEC 14496-3 table 1.18.
const AAC_RATES_HZ: [u32; 13] = [96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000, 7_350];

fn aac(mut config: Vec<u8>, sound: Sound) -> Result<Codec, String> {
    let known_rate = AAC_RATES_HZ.iter().position(|&hz| hz == sound.rate_hz);
    if config.is_empty() {
        let (Some(rate), 1..=6) = (known_rate, sound.channels) else {
            return Err("AAC without its configuration".to_owned());
        };
        // AAC-LC: 5 bits object type, 4 bits rate, 4 bits channels.
        config = ((2u16 << 11) | (rate as u16) << 7 | (sound.channels as u16) << 3).to_be_bytes().to_vec();
    }
    let mut bits = Bits { bytes: &config, at: 0 };
    let parsed = (|| {
        let mut object_type = audio_object_type(&mut bits)?;
        let mut rate = sampling_rate(&mut bits)?;
        let mut channels = bits.take(4)?;
        // ISO/IEC 14496-3 1.6.2.1: SBR and PS name the rate that comes out and the object type inside.
        if object_type == 5 || object_type == 29 {
            rate = sampling_rate(&mut bits)?;
            if object_type == 29 {
                channels = channels.max(2);
            }
            object_type = audio_object_type(&mut bits)?;
        }
        Some((object_type, rate, channels))
    })();
    let Some((object_type, sample_rate, channels)) = parsed else {
        return Err("its AAC configuration is too short".to_owned());
    };
    match object_type {
        1..=4 | 6 | 17 | 19 | 20 | 23 | 39 | 42 => {}
        other => return Err(format!("MPEG-4 audio object type {other} is not delivered")),
    }
    if !(1000..=384_000).contains(&sample_rate) {
        return Err(format!("AAC at {sample_rate} Hz makes no sense"));
    }
    // ISO/IEC 14496-3 table 1.19; 0 means that a program config element says it.
    let channels = match channels {
        0 => u8::try_from(sound.channels).unwrap_or(0).max(1),
        1..=6 => channels as u8,
        7 | 12 | 14 => 8,
        11 => 7,
        13 => 24,
        other => return Err(format!("AAC channel configuration {other} is not defined")),
    };
    Ok(Codec::Aac { config, sample_rate, channels })
}

fn audio_object_type(bits: &mut Bits<'_>) -> Option<u32> {
    match bits.take(5)? {
        31 => Some(32 + bits.take(6)?),
        object_type => Some(object_type),
    }
}

fn sampling_rate(bits: &mut Bits<'_>) -> Option<u32> {
    match bits.take(4)? {
        15 => bits.take(24),
        index => AAC_RATES_HZ.get(index as usize).copied(),
    }
}

/// Reads bits, most significant first.
struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Bits<'_> {
    fn take(&mut self, n: u32) -> Option<u32> {
        let mut value = 0;
        for _ in 0..n {
            let byte = self.bytes.get(self.at / 8)?;
            value = value << 1 | u32::from(byte >> (7 - self.at % 8) & 1);
            self.at += 1;
        }
        Some(value)
    }
}

/// The boxes inside a sample entry; those of a `wave` box (QuickTime) included.
struct Children<'a> {
    boxes: Vec<BoxView<'a>>,
}

impl<'a> Children<'a> {
    fn find(rest: View<'a>) -> Self {
        let mut boxes = Vec::new();
        // What does not parse here is padding: QuickTime entries end in all kinds of bytes.
        for child in rest.boxes().take(64).map_while(Result::ok) {
            boxes.push(child);
            if child.kind == *b"wave" {
                boxes.extend(child.body.boxes().take(64).map_while(Result::ok));
            }
        }
        Self { boxes }
    }

    fn body(&self, kind: &[u8; 4], bytes_max: usize) -> Result<View<'a>, String> {
        let found = self.boxes.iter().find(|child| child.kind == *kind);
        let body = found.ok_or_else(|| format!("its sample entry has no {} box", FourCc(*kind)))?.body;
        if body.bytes.len() > bytes_max {
            return Err(format!(
                "its {} box (byte {}) has {} bytes, at most {bytes_max} are read",
                FourCc(*kind),
                body.at,
                body.bytes.len()
            ));
        }
        Ok(body)
    }

    fn config<T>(&self, kind: &[u8; 4], bytes_max: usize, decode: impl FnOnce(&mut &'a [u8]) -> mp4_atom::Result<T>) -> Result<T, String> {
        let body = self.body(kind, bytes_max)?;
        decode(&mut &*body.bytes).map_err(|error| format!("its {} box (byte {}) does not parse: {error}", FourCc(*kind), body.at))
    }

    fn esds(&self) -> Result<Esds, String> {
        let body = self.body(b"esds", CONFIG_BYTES_MAX)?;
        Esds::parse(body.bytes).ok_or_else(|| format!("its esds box (byte {}) has no decoder configuration", body.at))
    }
}
