//! Test clips, three kinds:
//!
//! - [`make_clips`]: any number of synthetic titles of any length and rate, without outside tools (H.264 and silent AAC that real
//!   decoders accept; every access unit names its title and frame in SEI user data);
//! - [`catalogue`]: small real clips of every codec and container flavour, made once by ffmpeg;
//! - [`mutate`]: damaged copies, for folders that try to bring a server down.

pub mod aac;
pub mod bits;
pub mod catalogue;
pub mod h264;
pub mod mutate;
mod title;

use std::fs::{self, File};
use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

pub use title::write_title;

/// Why clips could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ClipError {
    /// Reading or writing failed.
    #[error("clip file: {0}")]
    Io(#[from] io::Error),
    /// The container library refused.
    #[error("writing MP4: {0}")]
    Mp4(#[from] mp4::Error),
    /// The specification cannot be met.
    #[error("clip specification: {0}")]
    Spec(String),
    /// ffmpeg is missing or failed.
    #[error("ffmpeg: {0}")]
    Ffmpeg(String),
}

/// How the rate is spread over time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Shape {
    /// Every frame of equal size.
    Cbr,
    /// Large key frames, the others vary.
    Vbr,
}

/// What synthetic titles should be like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClipSpec {
    /// Payload rate of all tracks together, bits per second.
    pub rate_bps: u64,
    /// Of this, the audio track; 0 for no audio.
    pub audio_bps: u64,
    /// Length in seconds.
    pub seconds: u32,
    /// Picture width, a multiple of 16.
    pub width: u16,
    /// Picture height, a multiple of 16.
    pub height: u16,
    /// Frames per second; must divide 90000.
    pub fps: u32,
    /// Seconds between key frames.
    pub gop_seconds: u32,
    /// How the rate is spread over time.
    pub shape: Shape,
    /// How many files of a set have bytes of their own, the others being hard links to them in turn; 0 for all.
    pub distinct: u32,
}

impl Default for ClipSpec {
    fn default() -> Self {
        Self {
            rate_bps: 1_400_000,
            audio_bps: 64_000,
            seconds: 60,
            width: 320,
            height: 176,
            fps: 25,
            gop_seconds: 1,
            shape: Shape::Cbr,
            distinct: 0,
        }
    }
}

impl ClipSpec {
    fn video_bps(&self) -> u64 {
        self.rate_bps.saturating_sub(self.audio_bps)
    }

    fn gop_frames(&self) -> u32 {
        (self.gop_seconds * self.fps).max(1)
    }

    fn check(&self) -> Result<(), ClipError> {
        let refuse = |why: &str| Err(ClipError::Spec(why.into()));
        if !self.width.is_multiple_of(16)
            || !self.height.is_multiple_of(16)
            || !(16..=1280).contains(&self.width)
            || !(16..=720).contains(&self.height)
        {
            return refuse("width and height must be multiples of 16, at most 1280x720");
        }
        if self.fps == 0 || 90_000 % self.fps != 0 {
            return refuse("frames per second must divide 90000");
        }
        if self.gop_seconds == 0 || self.gop_seconds > 60 || self.seconds == 0 || self.seconds > 100_000 {
            return refuse("lengths must be 1 to 100000 seconds, key frames 1 to 60 seconds apart");
        }
        if self.video_bps() < 20_000 || self.rate_bps > 200_000_000 {
            return refuse("the rate must leave 20 kbit/s for video and be at most 200 Mbit/s");
        }
        Ok(())
    }
}

/// Writes `count` distinct titles `clip-0000.mp4`, ... into `folder` (made if missing), on all processors.
///
/// # Errors
/// The first error of any title.
pub fn make_clips(spec: &ClipSpec, count: u32, folder: &Path) -> Result<Vec<PathBuf>, ClipError> {
    spec.check()?;
    fs::create_dir_all(folder)?;
    let paths: Vec<PathBuf> = (0..count).map(|n| folder.join(format!("clip-{n:04}.mp4"))).collect();
    for path in &paths {
        // Files of an earlier run may be linked with each other.
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
    }
    let distinct = if spec.distinct == 0 { count } else { spec.distinct.min(count) };
    let (own, links) = paths.split_at(distinct as usize);
    let next = AtomicU32::new(0);
    let workers = std::thread::available_parallelism().map_or(1, usize::from).min(8);
    std::thread::scope(|scope| {
        let work = || -> Result<(), ClipError> {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                let Some(path) = own.get(number as usize) else { return Ok(()) };
                let out = BufWriter::with_capacity(1 << 20, File::create(path)?);
                write_title(out, spec, number)?.into_inner().map_err(io::IntoInnerError::into_error)?;
            }
        };
        let handles: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        handles.into_iter().try_for_each(|h| h.join().unwrap_or_else(|_| Err(ClipError::Spec("a writer thread panicked".into()))))
    })?;
    for (link, file) in links.iter().zip(own.iter().cycle()) {
        fs::hard_link(file, link)?;
    }
    Ok(paths)
}

/// `testbed clip`: makes synthetic titles.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Folder to write into.
    pub folder: PathBuf,
    /// Payload rate of all tracks together: 1400000, 800k, 1.4M.
    #[arg(long, default_value = "1.4M", value_parser = parse_rate)]
    pub rate: u64,
    /// Of this, audio; 0 for none.
    #[arg(long, default_value = "64k", value_parser = parse_rate)]
    pub audio_rate: u64,
    /// Length of each title in seconds.
    #[arg(long, default_value_t = 60)]
    pub seconds: u32,
    /// How many titles.
    #[arg(long, default_value_t = 1)]
    pub count: u32,
    /// Picture size.
    #[arg(long, default_value = "320x176", value_parser = parse_size)]
    pub size: (u16, u16),
    /// Frames per second.
    #[arg(long, default_value_t = 25)]
    pub fps: u32,
    /// Seconds between key frames.
    #[arg(long, default_value_t = 1)]
    pub gop: u32,
    /// How the rate is spread over time.
    #[arg(long, value_enum, default_value = "cbr")]
    pub shape: Shape,
    /// How many files have bytes of their own, the others being hard links to them in turn; 0 for all.
    #[arg(long, default_value_t = 0)]
    pub distinct: u32,
}

/// Reads a rate such as `1400000`, `800k` or `1.4M`, bits per second.
///
/// # Errors
/// What is wrong with it.
pub fn parse_rate(text: &str) -> Result<u64, String> {
    let (number, factor) = match text.strip_suffix(['k', 'K']) {
        Some(n) => (n, 1e3),
        None => text.strip_suffix('M').map_or((text, 1.0), |n| (n, 1e6)),
    };
    match number.parse::<f64>() {
        Ok(value) if value.is_finite() && (0.0..=1e9).contains(&(value * factor)) => Ok((value * factor).round() as u64),
        _ => Err(format!("'{text}' is no rate: write for instance 1400000, 800k or 1.4M")),
    }
}

fn parse_size(text: &str) -> Result<(u16, u16), String> {
    let parts = text.split_once('x').and_then(|(w, h)| Some((w.parse().ok()?, h.parse().ok()?)));
    parts.ok_or_else(|| format!("'{text}' is no picture size: write for instance 320x176"))
}

/// Runs `testbed clip`.
///
/// # Errors
/// As [`make_clips`].
pub fn run(args: &Args) -> Result<(), ClipError> {
    let spec = ClipSpec {
        rate_bps: args.rate,
        audio_bps: args.audio_rate,
        seconds: args.seconds,
        width: args.size.0,
        height: args.size.1,
        fps: args.fps,
        gop_seconds: args.gop,
        shape: args.shape,
        distinct: args.distinct,
    };
    let started = std::time::Instant::now();
    let paths = make_clips(&spec, args.count, &args.folder)?;
    println!("{} titles of {} s in {} ({:.1} s)", paths.len(), args.seconds, args.folder.display(), started.elapsed().as_secs_f64());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_has_as_many_distinct_files_as_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        let spec = |distinct| ClipSpec { seconds: 1, distinct, ..ClipSpec::default() };
        let make =
            |distinct| make_clips(&spec(distinct), 5, folder.path()).unwrap().iter().map(|p| fs::read(p).unwrap()).collect::<Vec<_>>();
        let bytes = make(2);
        assert!(bytes[0] != bytes[1] && bytes[2] == bytes[0] && bytes[3] == bytes[1] && bytes[4] == bytes[0]);
        // A second run replaces what the first one made.
        let bytes = make(0);
        assert!((1..5).all(|n| bytes[n] != bytes[0]));
    }

    #[test]
    fn rates_are_read_with_and_without_suffix() {
        assert_eq!(parse_rate("1.4M"), Ok(1_400_000));
        assert_eq!(parse_rate("800k"), Ok(800_000));
        assert_eq!(parse_rate("64000"), Ok(64_000));
        for bad in ["", "M", "-1", "1e300", "fast"] {
            assert!(parse_rate(bad).is_err(), "{bad}");
        }
    }
}
