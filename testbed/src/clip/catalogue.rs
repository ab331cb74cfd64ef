//! Small real clips of every codec and container flavour that the server is to deliver, made by ffmpeg once and kept in a folder.
//!
//! Making is safe against other test processes: one makes, the others wait at a lock file; a clip appears under its name only when it is
//! complete.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::ClipError;

/// Part of the cache folder's name; to be raised whenever a recipe below changes.
const VERSION: &str = "2";

/// Sight and sound of ten seconds. Both change all the time, so that no two samples are alike.
const SOURCES: [&str; 8] = [
    "-f",
    "lavfi",
    "-i",
    "testsrc2=size=320x180:rate=25:duration=10",
    "-f",
    "lavfi",
    "-i",
    "aevalsrc=0.3*sin(2*PI*(300+40*t)*t)+0.02*random(0)|0.3*sin(2*PI*(500+30*t)*t)+0.02*random(1):s=48000:d=10",
];

/// Codec of a clip's track, as far as comparing needs to know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrackCodec {
    /// H.264.
    H264,
    /// H.265.
    H265,
    /// MPEG-4 part 2.
    Mpeg4,
    /// AV1.
    Av1,
    /// AAC-LC.
    Aac,
    /// MPEG-1 layer III.
    Mp3,
    /// Opus.
    Opus,
    /// G.711 mu-law.
    Pcmu,
    /// G.711 A-law.
    Pcma,
}

/// One clip of the catalogue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CatalogueClip {
    /// File name.
    pub name: &'static str,
    /// Video track, if any.
    pub video: Option<TrackCodec>,
    /// Audio track (the first), if any.
    pub audio: Option<TrackCodec>,
    /// ffmpeg's arguments between the inputs and the output.
    recipe: &'static [&'static str],
    /// Another clip that is the input, with the input options in front of it; the sources otherwise.
    from: Option<(&'static [&'static str], &'static str)>,
}

/// Three B-frames in a row, key frames one second apart.
const H264: [&str; 16] = [
    "-c:v",
    "libx264",
    "-preset",
    "veryfast",
    "-bf",
    "3",
    "-b_strategy",
    "0",
    "-g",
    "25",
    "-keyint_min",
    "25",
    "-sc_threshold",
    "0",
    "-pix_fmt",
    "yuv420p",
];

const fn clip(
    name: &'static str,
    video: Option<TrackCodec>,
    audio: Option<TrackCodec>,
    recipe: &'static [&'static str],
    from: Option<(&'static [&'static str], &'static str)>,
) -> CatalogueClip {
    CatalogueClip { name, video, audio, recipe, from }
}

/// Marks in a recipe where the usual H.264 options go.
const X264: &str = "@h264";

use TrackCodec as C;

/// The catalogue. A clip that is made from another comes after it.
pub const CATALOGUE: &[CatalogueClip] = &[
    clip("h264-aac.mp4", Some(C::H264), Some(C::Aac), &[X264, "-b:v", "800k", "-c:a", "aac", "-b:a", "96k"], None),
    clip("h264-aac-faststart.mp4", Some(C::H264), Some(C::Aac), &["-c", "copy", "-movflags", "+faststart"], Some((&[], "h264-aac.mp4"))),
    clip(
        "h264-aac-fragmented.mp4",
        Some(C::H264),
        Some(C::Aac),
        &["-c", "copy", "-movflags", "+frag_keyframe+empty_moov+default_base_moof"],
        Some((&[], "h264-aac.mp4")),
    ),
    clip("h264-aac.mov", Some(C::H264), Some(C::Aac), &["-c", "copy"], Some((&[], "h264-aac.mp4"))),
    clip("h264-large-frames.mp4", Some(C::H264), None, &[X264, "-b:v", "6M", "-x264-params", "slices=3:nal-hrd=none", "-an"], None),
    clip(
        "h265-aac.mp4",
        Some(C::H265),
        Some(C::Aac),
        &[
            "-c:v",
            "libx265",
            "-preset",
            "ultrafast",
            "-x265-params",
            "keyint=25:bframes=3:log-level=error:scenecut=0:info=0",
            "-tag:v",
            "hvc1",
            "-c:a",
            "aac",
        ],
        None,
    ),
    clip("h264-mp3.mp4", Some(C::H264), Some(C::Mp3), &[X264, "-c:a", "libmp3lame", "-b:a", "128k"], None),
    clip("h264-opus.mp4", Some(C::H264), Some(C::Opus), &[X264, "-c:a", "libopus", "-b:a", "64k", "-strict", "-2"], None),
    clip("h264-mulaw.mov", Some(C::H264), Some(C::Pcmu), &[X264, "-c:a", "pcm_mulaw", "-ar", "8000", "-ac", "1"], None),
    clip("h264-alaw.mov", Some(C::H264), Some(C::Pcma), &[X264, "-c:a", "pcm_alaw", "-ar", "8000", "-ac", "1"], None),
    clip("aac-only.mp4", None, Some(C::Aac), &["-map", "1:a", "-c:a", "aac"], None),
    clip("video-only.mp4", Some(C::H264), None, &["-map", "0:v", X264], None),
    clip("edit-list.mp4", Some(C::H264), Some(C::Aac), &["-c", "copy"], Some((&["-ss", "2.4"], "h264-aac.mp4"))),
    clip(
        "two-audio.mp4",
        Some(C::H264),
        Some(C::Aac),
        &["-map", "0:v", "-map", "0:a", "-map", "0:a", "-c:v", "copy", "-c:a:0", "copy", "-c:a:1", "aac", "-ac:a:1", "1"],
        Some((&[], "h264-aac.mp4")),
    ),
    clip(
        "subtitles.mp4",
        Some(C::H264),
        Some(C::Aac),
        &["-map", "0", "-map", "1", "-c", "copy", "-c:s", "mov_text"],
        Some((&[], "h264-aac.mp4")),
    ),
    clip("mpeg4-aac.mp4", Some(C::Mpeg4), Some(C::Aac), &["-c:v", "mpeg4", "-b:v", "800k", "-g", "25", "-bf", "0", "-c:a", "aac"], None),
    clip("av1-opus.mp4", Some(C::Av1), Some(C::Opus), &["-c:v", "libsvtav1", "-preset", "12", "-g", "25", "-c:a", "libopus"], None),
];

/// The catalogue's entry of that file name.
pub fn entry(name: &str) -> Option<&'static CatalogueClip> {
    CATALOGUE.iter().find(|c| c.name == name)
}

/// The folder with all clips of the catalogue below `cache`, made now if need be.
///
/// # Errors
/// When ffmpeg is missing or cannot make one of them.
pub fn ensure(cache: &Path) -> Result<PathBuf, ClipError> {
    let folder = cache.join(format!("clips-v{VERSION}"));
    let complete = folder.join(".complete");
    if complete.exists() {
        return Ok(folder);
    }
    fs::create_dir_all(&folder)?;
    let lock = File::create(cache.join(format!("clips-v{VERSION}.lock")))?;
    lock.lock()?;
    if !complete.exists() {
        for clip in CATALOGUE {
            make(clip, &folder)?;
        }
        File::create(&complete)?;
    }
    Ok(folder)
}

fn make(clip: &CatalogueClip, folder: &Path) -> Result<(), ClipError> {
    let target = folder.join(clip.name);
    if target.exists() {
        return Ok(());
    }
    let (stem, extension) = clip.name.rsplit_once('.').unwrap_or((clip.name, "mp4"));
    let unfinished = folder.join(format!(".{stem}.part.{extension}"));
    let mut command = Command::new("ffmpeg");
    command.args(["-hide_banner", "-nostdin", "-y", "-v", "error"]);
    match clip.from {
        Some((options, name)) => {
            command.args(options).arg("-i").arg(folder.join(name));
        }
        None => {
            command.args(SOURCES);
        }
    }
    if clip.name.starts_with("subtitles") {
        let text = folder.join(".subtitles.srt");
        fs::write(&text, "1\n00:00:01,000 --> 00:00:03,000\nOne\n\n2\n00:00:05,000 --> 00:00:07,000\nTwo\n")?;
        command.arg("-i").arg(text);
    }
    for argument in clip.recipe {
        if *argument == X264 {
            command.args(H264)
        } else {
            command.arg(argument)
        };
    }
    command.args(["-fflags", "+bitexact", "-threads", "2"]).arg(&unfinished);
    let output = command.stdin(Stdio::null()).output()?;
    if !output.status.success() {
        return Err(ClipError::Ffmpeg(format!("making {}: {}", clip.name, String::from_utf8_lossy(&output.stderr))));
    }
    fs::rename(&unfinished, &target)?;
    Ok(())
}
