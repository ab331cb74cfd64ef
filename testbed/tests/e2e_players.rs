//! Real players against a real server: what they receive is what the file holds, in content and in time.

mod support;

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use dataplane::media::Codec;
use testbed::clip::catalogue::{CATALOGUE, CatalogueClip, TrackCodec, entry};
use testbed::player::compare::{Comparison, Match, compare_units, nal_units};
use testbed::player::reception::units;
use testbed::player::rtsp_client::{Over, RtspClient};
use testbed::player::{self, ffmpeg, gstreamer};
use testbed::serve::Server;

/// A clip of ten seconds, set-up, and a slow machine.
const LIMIT: Duration = Duration::from_secs(60);
/// Frames between key frames in the catalogue's clips, which have 25 frames per second.
const GOP: usize = 25;

/// Packets of half a second of sound: what may be left in a player's sockets when it seeks.
const STALE_MAX: usize = 50;

struct Job {
    clip: &'static CatalogueClip,
    transport: &'static str,
    seek_s: Option<f64>,
}

impl std::fmt::Debug for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}-from-{}", self.clip.name, self.transport, self.seek_s.unwrap_or(0.0))
    }
}

/// ffmpeg, every codec and container, both transports, from the start and after a seek.
#[test]
fn ffmpeg_receives_the_file_bit_by_bit_and_in_time() {
    if !support::have(&["ffmpeg"]) {
        return;
    }
    let clips = support::clips();
    let server = Server::start(&clips, &[]).unwrap();
    let scratch = tempfile::tempdir().unwrap();
    // ffmpeg 5 has no depacketiser for AV1.
    let playable = CATALOGUE.iter().filter(|c| c.video != Some(TrackCodec::Av1));
    let only = std::env::var("E2E_ONLY").unwrap_or_default();
    let jobs: Vec<Job> = playable
        .flat_map(|clip| {
            [("udp", None), ("tcp", None), ("udp", Some(4.3)), ("tcp", Some(6.3))].map(|(transport, seek_s)| Job {
                clip,
                transport,
                seek_s,
            })
        })
        .filter(|job| format!("{job:?}").contains(&only))
        .collect();
    support::run_all(&jobs, 24, |job| check_ffmpeg(job, &server, &clips, scratch.path()));
}

fn check_ffmpeg(job: &Job, server: &Server, clips: &Path, scratch: &Path) -> Result<String, String> {
    let clip = job.clip;
    let path = clips.join(clip.name);
    let file = ffmpeg::file_packets(&path, clip.video)?;
    let pcm = matches!(clip.audio, Some(TrackCodec::Pcmu | TrackCodec::Pcma));
    let raw = scratch.join(format!("{job:?}"));
    let receive = ffmpeg::Receive {
        url: &server.url(clip.name),
        transport: job.transport,
        video: clip.video,
        seek_s: job.seek_s,
        raw_audio: pcm.then_some(raw.as_path()),
        limit: LIMIT,
    };
    let (got, outcome) = ffmpeg::receive(&receive)?;
    if got.len() != file.len() {
        return Err(format!("{} streams received, {} in the file", got.len(), file.len()));
    }
    let parsed = clip.video == Some(TrackCodec::Mpeg4) || clip.audio == Some(TrackCodec::Mp3);
    let mut comparison = if job.seek_s.is_some() { Comparison::after_seek(STALE_MAX, parsed) } else { Comparison::default() };
    let mut found = comparison.streams(&file, if pcm { &got[..1] } else { &got })?;
    if pcm {
        let in_file = ffmpeg::file_bytes(&path, &["-map", "0:a", "-c", "copy", "-f", "data"])?;
        let received = std::fs::read(&raw).map_err(|e| e.to_string())?;
        found.push(comparison.bytes(&in_file, &received, &got[1].packets, 8000)?);
    }
    let file_pts = |m: &Match| file.iter().find(|s| s.kind == m.kind).and_then(|s| s.packets.get(..m.first)).unwrap_or_default();
    for m in &found {
        let late_ns = m.deviation_ns_max - m.sample_ns;
        // ffmpeg rounds to the RTP clock, and to the file's: a millisecond covers both.
        if late_ns > 1_000_000 {
            return Err(format!("{}: time is {} us off, a sample is {} us", m.kind, m.deviation_ns_max / 1000, m.sample_ns / 1000));
        }
        if m.missing_at_end > 0 {
            return Err(format!("{}: {} packets missing at the end ({} received)", m.kind, m.missing_at_end, m.packets));
        }
        if let Some(seek) = job.seek_s {
            check_start(m, seek, found.first())?;
        } else if file_pts(m).iter().any(|p| p.pts_ns.is_some_and(|pts| pts >= 0)) {
            return Err(format!("{}: the first {} packets of the file did not come", m.kind, m.first));
        }
    }
    if !outcome.ok() {
        return Err(format!("ffmpeg did not end by itself within {LIMIT:?}: {}", outcome.stderr));
    }
    let off = found.iter().map(|m| m.deviation_ns_max).max().unwrap_or(0) / 1000;
    Ok(format!("{} packets, at most {off} us off, {:.1} s", found.iter().map(|m| m.packets).sum::<usize>(), outcome.took.as_secs_f64()))
}

/// After a seek, video starts at the sync sample at or before the time asked for, audio where the video does.
fn check_start(m: &Match, seek_s: f64, leader: Option<&Match>) -> Result<(), String> {
    let seconds = |m: &Match| m.first_pts_ns.unwrap_or(0) as f64 / 1e9;
    let at = seconds(m);
    if m.kind == "video" && (!m.first.is_multiple_of(GOP) || at > seek_s || at + 1.0 <= seek_s) {
        return Err(format!("video starts at packet {} ({at} s) after a seek to {seek_s} s", m.first));
    }
    let wanted = leader.filter(|l| l.kind == "video").map_or(seek_s, seconds);
    if m.kind == "audio" && (at - wanted).abs() > 0.1 {
        return Err(format!("audio starts at {at} s, wanted {wanted} s"));
    }
    Ok(())
}

/// GStreamer's rtspsrc: the NAL units and the AAC frames are those of the file.
#[test]
fn gstreamer_receives_the_file_bit_by_bit() {
    if !support::have(&["ffmpeg", "gst-launch-1.0"]) {
        return;
    }
    let clips = support::clips();
    let server = Server::start(&clips, &[]).unwrap();
    let scratch = tempfile::tempdir().unwrap();
    let jobs: Vec<_> = ["h264-aac.mp4", "h264-large-frames.mp4", "h265-aac.mp4", "h264-aac-fragmented.mp4"]
        .iter()
        .flat_map(|name| ["udp", "tcp"].map(|protocol| (*name, protocol)))
        .collect();
    support::run_all(&jobs, 8, |(name, protocol)| {
        let clip = entry(name).ok_or("not in the catalogue")?;
        let video = scratch.path().join(format!("{name}-{protocol}.video"));
        let audio = clip.audio.map(|_| scratch.path().join(format!("{name}-{protocol}.adts")));
        let h265 = clip.video == Some(TrackCodec::H265);
        let outcome = gstreamer::receive(&server.url(name), protocol, h265, &video, audio.as_deref(), LIMIT).map_err(|e| e.to_string())?;
        // What was received decides.
        let goodbye = if gstreamer::only_its_goodbye_failed(&outcome) { ", but its goodbye failed" } else { "" };
        if !outcome.ok() && goodbye.is_empty() {
            return Err(format!("gst-launch-1.0: {:?} after {:?}: {}", outcome.status, outcome.took, outcome.stderr));
        }
        let (filter, format) = if h265 { ("hevc_mp4toannexb", "hevc") } else { ("h264_mp4toannexb", "h264") };
        let file = ffmpeg::file_bytes(&clips.join(name), &["-map", "0:V", "-c", "copy", "-bsf:v", filter, "-f", format])?;
        let got = std::fs::read(&video).map_err(|e| e.to_string())?;
        let leave_out = |header: u8| if h265 { (32..=35).contains(&(header >> 1 & 63)) } else { (7..=9).contains(&(header & 31)) };
        let units = nal_units(&got, leave_out);
        compare_units(&nal_units(&file, leave_out), &units, 0).map_err(|e| format!("video: {e}"))?;
        if let Some(audio) = audio {
            let file = ffmpeg::file_bytes(&clips.join(name), &["-map", "0:a", "-c", "copy", "-f", "adts"])?;
            let got = std::fs::read(&audio).map_err(|e| e.to_string())?;
            // Up to two frames that only prime the decoder may be left out.
            compare_units(&adts_frames(&file), &adts_frames(&got), 2).map_err(|e| format!("audio: {e}"))?;
        }
        Ok(format!("{} NAL units, {:.1} s{goodbye}", units.len(), outcome.took.as_secs_f64()))
    });
}

/// Payloads of ADTS frames (ISO/IEC 13818-7 6.2).
fn adts_frames(mut bytes: &[u8]) -> Vec<&[u8]> {
    let mut frames = Vec::new();
    while let [0xff, flags, _, a, b, c, ..] = bytes {
        let length = usize::from(a & 3) << 11 | usize::from(*b) << 3 | usize::from(c >> 5);
        let header = if flags & 1 == 1 { 7 } else { 9 };
        frames.extend(bytes.get(header..length));
        bytes = bytes.get(length.max(1)..).unwrap_or_default();
    }
    frames
}

/// No player at hand reads AV1 from RTP, so our own client does: the temporal units are those of the file.
#[test]
fn av1_arrives_as_it_is_in_the_file() {
    if !support::have(&["ffmpeg"]) {
        return;
    }
    let clips = support::clips();
    let server = Server::start(&clips, &[]).unwrap();
    let jobs = [Over::Udp, Over::Tcp];
    let file = ffmpeg::file_checksums(&clips.join("av1-opus.mp4"), "0:V").unwrap();
    support::run_all(&jobs, jobs.len(), |over| {
        let mut client = RtspClient::connect(server.rtsp).map_err(|e| e.to_string())?;
        let url = server.url("av1-opus.mp4");
        client.open(&url, *over).map_err(|e| e.to_string())?;
        client.play(&url, None).map_err(|e| e.to_string())?;
        let arrivals = client.receive_until(Instant::now() + LIMIT, |a| a.track == 0 && a.rtcp_types().contains(&203));
        let units = units(&arrivals, 0, &Codec::Av1 { config: Vec::new() })?;
        let got: Vec<u32> = units.iter().map(|u| ffmpeg::adler32(&u.data)).collect();
        match got.iter().zip(&file).position(|(g, f)| g != f) {
            Some(at) => Err(format!("temporal unit {at} of {} differs ({} in the file)", got.len(), file.len())),
            None if got.len() != file.len() => Err(format!("{} temporal units received, {} in the file", got.len(), file.len())),
            None => Ok(format!("{} temporal units", got.len())),
        }
    });
}

/// Players that decode and keep time (not VLC: Debian builds it without an RTSP client) reach the end of the clip and then stop by themselves.
#[test]
fn players_play_to_the_end() {
    if !support::have(&["ffmpeg"]) {
        return;
    }
    let clips = support::clips();
    let server = Server::start(&clips, &[]).unwrap();
    let mut jobs: Vec<(&str, &str, &str)> =
        vec![("ffmpeg", "h264-aac.mp4", "udp"), ("ffmpeg", "h265-aac.mp4", "tcp"), ("ffmpeg", "mpeg4-aac.mp4", "udp")];
    if support::have(&["gst-launch-1.0"]) {
        jobs.extend([("gstreamer", "h264-aac.mp4", "udp"), ("gstreamer", "h264-opus.mp4", "tcp")]);
    }
    if support::have(&["mpv"]) {
        jobs.extend([("mpv", "h264-aac.mp4", "udp"), ("mpv", "h264-mp3.mp4", "tcp")]);
    }
    support::run_all(&jobs, jobs.len(), |(program, clip, transport)| {
        let url = server.url(clip);
        let outcome = match *program {
            "gstreamer" => gstreamer::decode(&url, transport, LIMIT),
            "mpv" => player::run(&mut mpv(&url, transport), LIMIT),
            _ => player::run(&mut ffmpeg_decode(&url, transport), LIMIT),
        };
        let outcome = outcome.map_err(|e| e.to_string())?;
        let took = outcome.took.as_secs_f64();
        let ended = outcome.ok() || *program == "gstreamer" && gstreamer::only_its_goodbye_failed(&outcome);
        if !ended || took < 8.0 {
            return Err(format!("{:?} after {took:.1} s: {}\n{}", outcome.status, outcome.stdout_text(), outcome.stderr));
        }
        let complaints = ["error while decoding", "Invalid NAL", "corrupt", "RTP: missed"];
        match complaints.iter().find(|c| outcome.stderr.contains(**c)) {
            Some(complaint) => Err(format!("complains of \"{complaint}\": {}", outcome.stderr)),
            None => Ok(format!("{took:.1} s")),
        }
    });
}

fn ffmpeg_decode(url: &str, transport: &str) -> Command {
    let mut command = Command::new("ffmpeg");
    command.args(["-hide_banner", "-nostdin", "-nostats", "-v", "warning", "-rtsp_transport", transport, "-timeout", "5000000"]);
    command.args(["-i", url, "-f", "null", "-"]);
    command
}

fn mpv(url: &str, transport: &str) -> Command {
    let mut command = Command::new("mpv");
    command.args(["--no-config", "--vo=null", "--ao=null", "--msg-level=all=warn", &format!("--rtsp-transport={transport}"), url]);
    command
}
