//! What ffmpeg receives (or reads from a file), packet by packet, through its `framemd5` format.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::{Outcome, run};
use crate::clip::catalogue::TrackCodec;

/// One packet of one stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Presentation time, nanoseconds; `None` where ffmpeg did not know it (often that of the very first packet).
    pub pts_ns: Option<i64>,
    /// Duration as the container says, nanoseconds; 0 when unknown.
    pub duration_ns: i64,
    /// Bytes.
    pub size: u64,
    /// MD5 of the bytes, hexadecimal.
    pub md5: String,
}

/// The packets of one stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stream {
    /// "video" or "audio".
    pub kind: String,
    /// In order of arrival.
    pub packets: Vec<Packet>,
}

/// Bitstream filters that make the two ways of carrying a codec equal: parameter sets inside or outside of the stream, length prefixes or
/// start codes.
fn normalise(codec: TrackCodec) -> Option<&'static str> {
    match codec {
        // Types 7, 8, 9: parameter sets and access unit delimiters.
        TrackCodec::H264 => Some("h264_mp4toannexb,filter_units=remove_types=7-9"),
        // Types 32 to 35: the same for H.265.
        TrackCodec::H265 => Some("hevc_mp4toannexb,filter_units=remove_types=32-35"),
        _ => None,
    }
}

/// The arguments that write every packet's checksum to standard output, after `-i URL`.
pub fn framemd5_arguments(command: &mut Command, video: Option<TrackCodec>) {
    // 0:V leaves pictures attached as cover art out.
    command.args(["-map", "0:V?", "-map", "0:a?", "-c", "copy"]);
    if let Some(filter) = video.and_then(normalise) {
        command.args(["-bsf:v", filter]);
    }
    command.args(["-copyts", "-f", "framemd5", "-"]);
}

/// Packets of a file.
///
/// # Errors
/// What ffmpeg said.
pub fn file_packets(path: &Path, video: Option<TrackCodec>) -> Result<Vec<Stream>, String> {
    let mut command = Command::new("ffmpeg");
    command.args(["-hide_banner", "-nostdin", "-v", "error", "-i"]).arg(path);
    framemd5_arguments(&mut command, video);
    let outcome = run(&mut command, Duration::from_secs(60)).map_err(|e| e.to_string())?;
    if !outcome.ok() {
        return Err(format!("ffmpeg on {}: {}", path.display(), outcome.stderr));
    }
    parse(&outcome.stdout_text())
}

/// An elementary stream of a file as one string of bytes, by ffmpeg's arguments behind the input (without an output).
///
/// # Errors
/// What ffmpeg said.
pub fn file_bytes(path: &Path, arguments: &[&str]) -> Result<Vec<u8>, String> {
    let mut command = Command::new("ffmpeg");
    command.args(["-hide_banner", "-nostdin", "-v", "error", "-i"]).arg(path).args(arguments).arg("-");
    let outcome = run(&mut command, Duration::from_secs(60)).map_err(|e| e.to_string())?;
    if outcome.ok() { Ok(outcome.stdout) } else { Err(format!("ffmpeg on {}: {}", path.display(), outcome.stderr)) }
}

/// Adler-32 checksums of a file's packets, in file order, by ffmpeg's `framecrc`; compare with [`adler32`].
///
/// # Errors
/// What ffmpeg said.
pub fn file_checksums(path: &Path, stream: &str) -> Result<Vec<u32>, String> {
    let text = file_bytes(path, &["-map", stream, "-c", "copy", "-f", "framecrc"])?;
    let text = String::from_utf8_lossy(&text).into_owned();
    let lines = text.lines().filter(|l| !l.starts_with('#'));
    let sum = |l: &str| u32::from_str_radix(l.split(',').nth(5)?.trim().strip_prefix("0x")?, 16).ok();
    lines.map(|l| sum(l).ok_or_else(|| format!("framecrc line does not read: {l}"))).collect()
}

/// The checksum that `framecrc` prints: Adler-32 started from 0.
pub fn adler32(bytes: &[u8]) -> u32 {
    let (a, b) = bytes.iter().fold((0u32, 0u32), |(a, b), byte| {
        let a = (a + u32::from(*byte)) % 65_521;
        (a, (b + a) % 65_521)
    });
    b << 16 | a
}

/// How to receive.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Receive<'a> {
    /// The URL.
    pub url: &'a str,
    /// "udp" or "tcp".
    pub transport: &'a str,
    /// The video codec, for normalising.
    pub video: Option<TrackCodec>,
    /// Seek to this time first, seconds.
    pub seek_s: Option<f64>,
    /// Also write the bytes of the audio, packet after packet, to this file.
    pub raw_audio: Option<&'a Path>,
    /// When to give up.
    pub limit: Duration,
}

/// Packets as received over RTSP until the server ends the stream, and what became of ffmpeg.
///
/// # Errors
/// What ffmpeg said, when it received nothing to speak of.
pub fn receive(how: &Receive<'_>) -> Result<(Vec<Stream>, Outcome), String> {
    let mut command = Command::new("ffmpeg");
    command.args(["-hide_banner", "-nostdin", "-v", "info", "-rtsp_transport", how.transport, "-timeout", "5000000"]);
    if let Some(seek) = how.seek_s {
        command.args(["-ss", &seek.to_string()]);
    }
    command.args(["-i", how.url]);
    framemd5_arguments(&mut command, how.video);
    if let Some(path) = how.raw_audio {
        command.args(["-map", "0:a", "-c", "copy", "-f", "data", "-y"]).arg(path);
    }
    let outcome = run(&mut command, how.limit).map_err(|e| e.to_string())?;
    let streams = parse(&outcome.stdout_text()).map_err(|e| format!("{e}\nffmpeg {}: {}", how.url, outcome.stderr))?;
    if streams.iter().all(|s| s.packets.is_empty()) {
        return Err(format!("ffmpeg received nothing from {} over {}: {}", how.url, how.transport, outcome.stderr));
    }
    Ok((streams, outcome))
}

/// Reads the `framemd5` format.
///
/// # Errors
/// The line that does not read.
pub fn parse(text: &str) -> Result<Vec<Stream>, String> {
    let mut streams: Vec<(Stream, (i64, i64))> = Vec::new();
    for line in text.lines() {
        let bad = || format!("framemd5 line does not read: {line}");
        // "#tb N: num/den" opens stream N, "#media_type N: kind" follows.
        if let Some(rest) = line.strip_prefix("#tb ") {
            let (_, base) = rest.split_once(": ").ok_or_else(bad)?;
            let (num, den) = base.split_once('/').ok_or_else(bad)?;
            streams.push((Stream::default(), (num.parse().map_err(|_| bad())?, den.parse().map_err(|_| bad())?)));
            continue;
        } else if let Some(rest) = line.strip_prefix("#media_type ") {
            let (stream, _) = streams.last_mut().ok_or_else(bad)?;
            stream.kind = rest.split_once(": ").ok_or_else(bad)?.1.to_owned();
            continue;
        } else if line.starts_with('#') {
            continue;
        }
        let fields: Vec<&str> = line.split(',').map(str::trim).collect();
        let [index, _dts, pts, duration, size, md5, ..] = fields.as_slice() else { return Err(bad()) };
        let number = |text: &str| text.parse::<i64>().map_err(|_| bad());
        let index = usize::try_from(number(index)?).map_err(|_| bad())?;
        let (stream, (num, den)) = streams.get_mut(index).ok_or_else(bad)?;
        let ns = |ticks: i64| (i128::from(ticks) * 1_000_000_000 * i128::from(*num) / i128::from((*den).max(1))) as i64;
        stream.packets.push(Packet {
            pts_ns: Some(number(pts)?).filter(|pts| *pts != i64::MIN).map(ns),
            duration_ns: ns(number(duration)?),
            size: number(size)?.unsigned_abs(),
            md5: (*md5).to_owned(),
        });
    }
    Ok(streams.into_iter().map(|(s, _)| s).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn framemd5_is_read() {
        let text = "#format: frame checksums\n#software: Lavf\n#tb 0: 1/90000\n#media_type 0: video\n#codec_id 0: h264\n#tb 1: 1/48000\n\
                    #media_type 1: audio\n#stream#, dts,        pts, duration,     size, hash\n\
                    0,      -3600,          0,     3600,      931, 0011\n1,   -1024,  -1024,     1024,   23, 2233, S=1\n";
        let streams = parse(text).unwrap();
        assert_eq!(streams[0].packets, [Packet { pts_ns: Some(0), duration_ns: 40_000_000, size: 931, md5: "0011".into() }]);
        assert_eq!((streams[1].kind.as_str(), streams[1].packets[0].pts_ns), ("audio", Some(-21_333_333)));
        assert!(parse("0, 1, 2, 3, 4, 5").is_err());
    }
}
