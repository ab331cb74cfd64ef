//! Writes one synthetic title: the `mp4` crate lays out boxes and sample tables, [`super::h264`] and [`super::aac`] make the samples.

use std::io::{Seek, Write};

use bytes::Bytes;
use mp4::{
    AacConfig, AudioObjectType, AvcConfig, ChannelConfig, MediaConfig, Mp4Config, Mp4Sample, Mp4Writer, SampleFreqIndex, TrackConfig,
    TrackType,
};

use super::h264::{Picture, sei_user_data};
use super::{ClipError, ClipSpec, Shape, aac};

const VIDEO: u32 = 1;
const AUDIO: u32 = 2;
const VIDEO_TIMESCALE: u32 = 90_000;
const AUDIO_RATE: u32 = 48_000;
const MOVIE_TIMESCALE: u32 = 1_000;
/// A square costs two I_PCM macroblocks; thinner frames go without.
const SQUARE_MIN_BYTES: usize = 1_200;

/// Writes title `number` of the set that `spec` describes.
///
/// # Errors
/// When writing fails or the specification asks for what the container cannot hold.
pub fn write_title<W: Write + Seek>(out: W, spec: &ClipSpec, number: u32) -> Result<W, ClipError> {
    spec.check()?;
    let brand = |b: &[u8; 4]| mp4::FourCC::from(*b);
    let config = Mp4Config {
        major_brand: brand(b"isom"),
        minor_version: 512,
        compatible_brands: vec![brand(b"isom"), brand(b"avc1"), brand(b"mp41")],
        timescale: MOVIE_TIMESCALE,
    };
    let picture = picture(spec, number);
    let mut writer = Mp4Writer::write_start(out, &config)?;
    writer.add_track(&TrackConfig {
        track_type: TrackType::Video,
        timescale: VIDEO_TIMESCALE,
        language: "und".into(),
        media_conf: MediaConfig::AvcConfig(AvcConfig {
            width: spec.width,
            height: spec.height,
            seq_param_set: picture.sps(),
            pic_param_set: picture.pps(),
        }),
    })?;
    let audio_frame_bytes = (spec.audio_bps * u64::from(aac::SAMPLES_PER_UNIT) / u64::from(AUDIO_RATE) / 8) as usize;
    if spec.audio_bps > 0 {
        writer.add_track(&TrackConfig {
            track_type: TrackType::Audio,
            timescale: AUDIO_RATE,
            language: "und".into(),
            media_conf: MediaConfig::AacConfig(AacConfig {
                bitrate: u32::try_from(spec.audio_bps).unwrap_or(u32::MAX),
                profile: AudioObjectType::AacLowComplexity,
                freq_index: SampleFreqIndex::Freq48000,
                chan_conf: ChannelConfig::Stereo,
            }),
        })?;
    }
    let silence = Bytes::from(aac::silence(2, audio_frame_bytes));
    let sizes = sample_sizes(spec, number);
    let frame_ticks = VIDEO_TIMESCALE / spec.fps;
    let mut audio_units = 0u64;
    for frame in 0..spec.seconds * spec.fps {
        writer.write_sample(
            VIDEO,
            &Mp4Sample {
                start_time: u64::from(frame) * u64::from(frame_ticks),
                duration: frame_ticks,
                rendering_offset: 0,
                is_sync: frame % spec.gop_frames() == 0,
                bytes: video_sample(spec, &picture, number, frame, &sizes),
            },
        )?;
        let audio_due = u64::from(frame + 1) * u64::from(AUDIO_RATE) / u64::from(spec.fps) / u64::from(aac::SAMPLES_PER_UNIT);
        while spec.audio_bps > 0 && audio_units < audio_due {
            writer.write_sample(
                AUDIO,
                &Mp4Sample {
                    start_time: audio_units * u64::from(aac::SAMPLES_PER_UNIT),
                    duration: aac::SAMPLES_PER_UNIT,
                    rendering_offset: 0,
                    is_sync: true,
                    bytes: silence.clone(),
                },
            )?;
            audio_units += 1;
        }
    }
    writer.write_end()?;
    Ok(writer.into_writer())
}

/// Sizes of the video samples of one group of pictures, so that their mean gives the rate.
fn sample_sizes(spec: &ClipSpec, number: u32) -> Vec<usize> {
    let gop = spec.gop_frames();
    let mean = (spec.video_bps() as f64 / 8.0 / f64::from(spec.fps)).max(1.0);
    match spec.shape {
        Shape::Cbr => vec![mean as usize; gop as usize],
        Shape::Vbr => {
            // An I frame of five times the mean, the others spread over a factor of four.
            let mut random = super::mutate::SplitMix64::new(u64::from(number) ^ 0x5eed);
            let mut weights: Vec<f64> = (0..gop).map(|_| 0.4 + 1.2 * (random.next_u64() >> 11) as f64 / (1u64 << 53) as f64).collect();
            if let Some(first) = weights.first_mut() {
                *first = 5.0;
            }
            let sum: f64 = weights.iter().sum();
            weights.iter().map(|w| (w / sum * mean * f64::from(gop)) as usize).collect()
        }
    }
}

/// The access unit at `frame`, length-prefixed.
fn video_sample(spec: &ClipSpec, picture: &Picture, number: u32, frame: u32, sizes: &[usize]) -> Bytes {
    let gop = spec.gop_frames();
    let in_gop = frame % gop;
    let want = sizes.get(in_gop as usize).copied().unwrap_or(0);
    let slice = if in_gop == 0 { picture.idr(u16::from(frame / gop % 2 == 1)) } else { picture.skip(in_gop, want >= SQUARE_MIN_BYTES) };
    let mut sample = Vec::with_capacity(want.max(slice.len() + 8));
    let mut identity = [b'.'; 16];
    for (to, from) in identity.iter_mut().zip(format!("t{number:06x}f{frame:08x}").bytes()) {
        *to = from;
    }
    let room = want.saturating_sub(slice.len() + 8);
    for nal in sei_user_data(identity, room).iter().chain([&slice]) {
        sample.extend_from_slice(&u32::try_from(nal.len()).unwrap_or(u32::MAX).to_be_bytes());
        sample.extend_from_slice(nal);
    }
    Bytes::from(sample)
}

fn picture(spec: &ClipSpec, number: u32) -> Picture {
    let shade = |step: u32| 48 + u8::try_from(number.wrapping_mul(step) % 160).unwrap_or(0);
    Picture { width_mbs: spec.width / 16, height_mbs: spec.height / 16, colour: [shade(37), shade(59), shade(83)] }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use mp4::Mp4Reader;

    use super::*;

    fn mean_bps(file: &[u8], track: u32) -> f64 {
        let reader = Mp4Reader::read_header(Cursor::new(file), file.len() as u64).unwrap();
        let table = &reader.moov.traks[track as usize - 1].mdia.minf.stbl;
        let bytes: u64 = if table.stsz.sample_size > 0 {
            u64::from(table.stsz.sample_size) * u64::from(table.stsz.sample_count)
        } else {
            table.stsz.sample_sizes.iter().map(|s| u64::from(*s)).sum()
        };
        let mdhd = &reader.moov.traks[track as usize - 1].mdia.mdhd;
        bytes as f64 * 8.0 * f64::from(mdhd.timescale) / mdhd.duration as f64
    }

    #[test]
    fn the_rate_is_the_one_asked_for() {
        for shape in [Shape::Cbr, Shape::Vbr] {
            for rate_bps in [300_000, 1_400_000, 8_000_000] {
                let spec = ClipSpec { rate_bps, seconds: 20, shape, ..ClipSpec::default() };
                let file = write_title(Cursor::new(Vec::new()), &spec, 3).unwrap().into_inner();
                let got = mean_bps(&file, 1) + mean_bps(&file, 2);
                let off = (got / rate_bps as f64 - 1.0).abs();
                assert!(off < 0.02, "{shape:?} {rate_bps}: {got}");
            }
        }
    }

    #[test]
    fn titles_of_a_set_differ_in_every_frame() {
        let spec = ClipSpec { seconds: 2, ..ClipSpec::default() };
        let make = |n| write_title(Cursor::new(Vec::new()), &spec, n).unwrap().into_inner();
        let (a, b) = (make(1), make(2));
        let mut a = Mp4Reader::read_header(Cursor::new(&a[..]), a.len() as u64).unwrap();
        let mut b = Mp4Reader::read_header(Cursor::new(&b[..]), b.len() as u64).unwrap();
        for sample in 1..=a.sample_count(VIDEO).unwrap() {
            assert_ne!(a.read_sample(VIDEO, sample).unwrap().unwrap().bytes, b.read_sample(VIDEO, sample).unwrap().unwrap().bytes);
        }
    }
}
