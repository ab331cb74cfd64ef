//! `tactus probe`: what is in a file, as the server would see it.

use std::fmt::Write as _;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use dataplane::media::{MediaDescription, TrackDescription, TrackKind, read_title};
use serde::Serialize;

use super::{print, printable};
use crate::units::{about_bytes, duration, rate};

/// Arguments of `tactus probe`.
#[derive(Debug, clap::Args)]
pub(super) struct ProbeArgs {
    /// Media files
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Print JSON: an array with one object per file
    #[arg(long)]
    json: bool,
}

/// What was found in one file.
#[derive(Debug, Serialize)]
struct Report {
    /// The file, as it was named.
    path: String,
    /// True when the server would deliver it.
    servable: bool,
    /// Why not.
    error: Option<String>,
    /// What is in it.
    media: Option<MediaDescription>,
    /// What the SDP would say of each track, in the order of `media.tracks`.
    sdp: Vec<Vec<String>>,
}

/// Runs the command.
pub(super) fn run(args: &ProbeArgs) -> ExitCode {
    let reports: Vec<Report> = args.files.iter().map(|path| Report::new(path, describe(path))).collect();
    if args.json {
        let json = serde_json::to_string_pretty(&reports).unwrap_or_else(|error| format!("{{\"error\":\"{error}\"}}"));
        print(&(json + "\n"));
    } else {
        print(&reports.iter().map(Report::text).collect::<Vec<_>>().join("\n"));
    }
    if reports.iter().all(|report| report.servable) { ExitCode::SUCCESS } else { ExitCode::from(1) }
}

fn describe(path: &Path) -> Result<MediaDescription, String> {
    let metadata = std::fs::metadata(path).map_err(|error| error.to_string())?;
    if !metadata.is_file() {
        return Err("not a file".into());
    }
    let mut file = File::open(path).map_err(|error| error.to_string())?;
    let title = read_title(&mut file, metadata.len()).map_err(|error| error.to_string())?;
    Ok(title.description)
}

impl Report {
    fn new(path: &Path, found: Result<MediaDescription, String>) -> Self {
        let path = path.display().to_string();
        match found {
            Err(error) => Self { path, servable: false, error: Some(error), media: None, sdp: Vec::new() },
            Ok(media) => {
                let servable = !media.tracks.is_empty();
                let error = (!servable).then(|| "no track in it can be delivered".to_owned());
                let sdp = media.tracks.iter().map(sdp_lines).collect();
                Self { path, servable, error, media: Some(media), sdp }
            }
        }
    }

    fn text(&self) -> String {
        let mut out = String::new();
        let path = printable(&self.path);
        if let Some(error) = &self.error {
            let _ = writeln!(out, "{path}: cannot be served: {}", printable(error));
        }
        let Some(media) = &self.media else { return out };
        if self.servable {
            let size = about_bytes(media.size_bytes);
            let _ = writeln!(out, "{path}: {}, {}, {size}", printable(&media.container), duration(media.duration_ns));
            out += &table(&track_rows(&media.tracks));
        }
        for left_out in &media.left_out {
            let (format, reason) = (printable(&left_out.format), printable(&left_out.reason));
            let _ = writeln!(out, "  left out: track {} ({format}): {reason}", left_out.id);
        }
        for line in self.sdp.iter().flatten() {
            let _ = writeln!(out, "  {}", printable(line));
        }
        out
    }
}

/// The lines that describe a track in the SDP (RFC 8866 5.14, 6.6, 6.15).
fn sdp_lines(track: &TrackDescription) -> Vec<String> {
    let kind = match track.kind {
        TrackKind::Video => "video",
        TrackKind::Audio => "audio",
    };
    let payload_type = track.payload_type;
    let channels = track.channels.map(|channels| format!("/{channels}")).unwrap_or_default();
    let mut lines = vec![
        format!("m={kind} 0 RTP/AVP {payload_type}"),
        format!("a=rtpmap:{payload_type} {}/{}{channels}", track.encoding, track.clock_rate),
    ];
    if !track.fmtp.is_empty() {
        lines.push(format!("a=fmtp:{payload_type} {}", track.fmtp));
    }
    lines
}

const COLUMNS: [&str; 10] = ["TRACK", "KIND", "CODEC", "PICTURE", "DURATION", "SAMPLES", "SYNC", "MEAN", "PEAK 1 S", "PACKETS/S"];

/// The tracks' figures under their column heads, with a sum when there are several.
fn track_rows(tracks: &[TrackDescription]) -> Vec<[String; COLUMNS.len()]> {
    let mut rows = vec![COLUMNS.map(str::to_owned)];
    rows.extend(tracks.iter().map(|track| {
        [
            track.id.to_string(),
            if track.kind == TrackKind::Video { "video".into() } else { "audio".into() },
            printable(&track.codec),
            if track.width == 0 { "-".into() } else { format!("{}x{}", track.width, track.height) },
            duration(track.duration_ns),
            track.samples.to_string(),
            track.sync_samples.to_string(),
            rate(track.mean_bps),
            rate(track.peak_1s_bps),
            format!("{:.1}", track.packets_per_second),
        ]
    }));
    if tracks.len() > 1 {
        let mut sum = [const { String::new() }; COLUMNS.len()];
        sum[0] = "all".into();
        sum[7] = rate(tracks.iter().fold(0, |sum, track| sum.saturating_add(track.mean_bps)));
        // The tracks' peaks need not meet, so their sum is a bound.
        sum[8] = format!("<= {}", rate(tracks.iter().fold(0, |sum, track| sum.saturating_add(track.peak_1s_bps))));
        sum[9] = format!("{:.1}", tracks.iter().map(|track| track.packets_per_second).sum::<f64>());
        rows.push(sum);
    }
    rows
}

/// Rows as aligned columns.
fn table<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    let mut out = String::new();
    for row in rows {
        let cells: Vec<String> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        let _ = writeln!(out, "  {}", cells.join("  ").trim_end());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::fake::description;

    #[test]
    fn people_get_a_table_and_the_sdp() {
        let report = Report::new(Path::new("a.mp4"), Ok(description()));
        let expected = "\
a.mp4: MP4, 1:00.0, 11.8 MiB
  TRACK  KIND   CODEC           PICTURE   DURATION  SAMPLES  SYNC  MEAN        PEAK 1 S      PACKETS/S
  1      video  H.264 High@4.0  1280x720  1:00.0    1500     30    1.40 Mbps   2.20 Mbps     150.5
  2      audio  AAC-LC          -         1:00.0    2812     2812  128.0 kbps  129.0 kbps    46.9
  all                                                              1.53 Mbps   <= 2.33 Mbps  197.4
  left out: track 3 (tx3g): subtitles have no payload format here
  m=video 0 RTP/AVP 96
  a=rtpmap:96 H264/90000
  a=fmtp:96 packetization-mode=1;profile-level-id=640028
  m=audio 0 RTP/AVP 97
  a=rtpmap:97 mpeg4-generic/48000/2
  a=fmtp:97 mode=AAC-hbr
";
        assert_eq!(report.text(), expected);
        assert!(report.servable);
    }

    #[test]
    fn programs_get_everything() {
        let reports = [Report::new(Path::new("a.mp4"), Ok(description())), Report::new(Path::new("b"), Err("broken".into()))];
        let json: serde_json::Value = serde_json::to_value(reports).unwrap();
        assert_eq!(json[0]["media"]["tracks"][1]["channels"], 2);
        assert_eq!(json[0]["sdp"][0][1], "a=rtpmap:96 H264/90000");
        assert_eq!((&json[1]["servable"], &json[1]["error"]), (&false.into(), &"broken".into()));
    }

    #[test]
    fn what_cannot_be_served_says_why() {
        let bare = MediaDescription { tracks: Vec::new(), ..description() };
        let report = Report::new(Path::new("a\x1b[2J.mp4"), Ok(bare));
        assert!(!report.servable);
        let text = report.text();
        assert!(text.contains("cannot be served: no track") && text.contains("left out: track 3"), "{text}");
        assert!(!text.contains('\x1b'), "{text:?}");
        assert_eq!(describe(Path::new("/")), Err("not a file".into()));
        assert!(describe(Path::new("/nonexistent")).unwrap_err().contains("No such file"));
    }
}
