//! Small clips, made by ffmpeg where it is there, and what ffprobe sees in them.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// True when ffmpeg and ffprobe can be run. Without them the tests that need them pass with a loud line, except in CI, where they fail.
pub fn have_ffmpeg() -> bool {
    static HAVE: OnceLock<bool> = OnceLock::new();
    *HAVE.get_or_init(|| {
        let runs = |program: &str| Command::new(program).arg("-version").output().is_ok_and(|output| output.status.success());
        let have = runs("ffmpeg") && runs("ffprobe");
        if !have {
            assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "ffmpeg and ffprobe must be installed in CI");
            eprintln!("==== SKIPPED: ffmpeg or ffprobe is not installed, so our index is not compared with theirs ====");
        }
        have
    })
}

/// Sources of test pictures and tones, to be followed by encoder options.
pub const VIDEO: &str = "-f lavfi -i testsrc2=size=96x64:rate=25:duration=3";
pub const AUDIO: &str = "-f lavfi -i sine=frequency=440:sample_rate=48000:duration=3";

/// Runs ffmpeg with `args` (separated by spaces), which end with the file to write in `folder`.
pub fn ffmpeg(folder: &Path, args: &str) -> PathBuf {
    let args: Vec<&str> = args.split_whitespace().collect();
    let output = Command::new("ffmpeg")
        .args(["-v", "error", "-nostdin", "-y", "-fflags", "+bitexact"])
        .args(&args)
        .current_dir(folder)
        .output()
        .expect("ffmpeg runs");
    assert!(output.status.success(), "ffmpeg {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    folder.join(args.last().expect("an output file"))
}

/// A packet as ffprobe sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    pub pts: i64,
    pub dts: i64,
    pub size: u32,
    pub pos: u64,
    pub sync: bool,
}

/// A stream as ffprobe sees it.
#[derive(Clone, Debug)]
pub struct Stream {
    pub id: u32,
    pub timescale: u32,
    pub packets: Vec<Packet>,
}

/// The streams of a file.
pub fn ffprobe(file: &Path) -> Vec<Stream> {
    let output = Command::new("ffprobe")
        .args(["-v", "error", "-of", "default"])
        .args(["-show_entries", "stream=index,id,time_base:packet=stream_index,pts,dts,size,pos,flags"])
        .arg(file)
        .output()
        .expect("ffprobe runs");
    assert!(output.status.success(), "ffprobe: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("ffprobe writes UTF-8");
    let sections = |name: &str| {
        let (open, close) = (format!("[{name}]\n"), format!("[/{name}]\n"));
        let mut found = Vec::new();
        for part in text.split(&open).skip(1) {
            found.push(part.split(&close).next().unwrap_or_default().to_owned());
        }
        found
    };
    let field = |section: &str, key: &str| {
        section.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('=')).map(str::to_owned).unwrap_or_default()
    };
    let mut streams: Vec<(usize, Stream)> = sections("STREAM")
        .iter()
        .map(|section| {
            let id = u32::from_str_radix(field(section, "id").trim_start_matches("0x"), 16).expect("a stream id");
            let timescale = field(section, "time_base").split_once('/').and_then(|(_, base)| base.parse().ok()).expect("a time base");
            (field(section, "index").parse().expect("an index"), Stream { id, timescale, packets: Vec::new() })
        })
        .collect();
    for section in sections("PACKET") {
        let index: usize = field(&section, "stream_index").parse().expect("a stream index");
        let number = |key: &str| field(&section, key).parse::<i64>().unwrap_or_else(|_| panic!("{key} of {section}"));
        let packet = Packet {
            pts: number("pts"),
            dts: number("dts"),
            size: number("size") as u32,
            pos: number("pos") as u64,
            sync: field(&section, "flags").starts_with('K'),
        };
        streams.iter_mut().find(|(i, _)| *i == index).expect("the packet's stream").1.packets.push(packet);
    }
    streams.into_iter().map(|(_, stream)| stream).collect()
}
