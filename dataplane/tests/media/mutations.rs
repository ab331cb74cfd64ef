//! Broken files: whatever is done to a small clip, reading it ends, in bounded time and memory, and what is read keeps its promises.

use std::io::Cursor;
use std::time::{Duration, Instant};

use dataplane::media::{Title, read_title};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use crate::against_mp4::clip;
use crate::clips::{AUDIO, VIDEO, ffmpeg, have_ffmpeg};
use crate::counting;

/// Memory that a file of this size may take: its tables in memory, and 16 bytes for each 4 bytes of file, twice while a vector grows.
fn allowed_bytes(file_bytes: usize) -> isize {
    (file_bytes * 16 + (1 << 20)) as isize
}

/// A reading takes well under a millisecond; this is for a machine that has other things to do.
const ALLOWED_TIME: Duration = Duration::from_secs(10);

fn walk(title: &Title, file_bytes: u64) {
    assert!(!title.tracks.is_empty());
    assert_eq!(title.description.tracks.len(), title.tracks.len());
    for track in &title.tracks {
        assert!(track.timescale > 0);
        assert!(!track.samples.is_empty());
        let mut last = i64::MIN;
        for sample in track.samples.iter() {
            assert!(sample.size > 0);
            assert!(sample.offset + u64::from(sample.size) <= file_bytes);
            assert!(sample.dts >= last);
            last = sample.dts;
        }
        for time in [i64::MIN, -1, 0, 1, last, i64::MAX] {
            assert!(track.samples.sync_at_or_before(time) < track.samples.len());
            assert!(track.samples.first_at_or_after(time) <= track.samples.len());
        }
    }
    assert!(title.resident_blocks_max(4096, 1_000_000_000) <= file_bytes.div_ceil(4096));
}

fn read(bytes: &[u8], what: &str) -> bool {
    let began = Instant::now();
    let (result, most) = counting::most_bytes(|| read_title(&mut Cursor::new(bytes), bytes.len() as u64));
    let took = began.elapsed();
    assert!(most <= allowed_bytes(bytes.len()), "{what}: {most} bytes of memory for a file of {}", bytes.len());
    assert!(took <= ALLOWED_TIME, "{what}: {took:?}");
    match &result {
        Ok(title) => walk(title, bytes.len() as u64),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    result.is_ok()
}

/// Changes a file: mostly where the boxes are, and mostly to numbers that hurt.
fn mutate(bytes: &mut Vec<u8>, random: &mut StdRng) {
    let boxes: Vec<usize> = (0..bytes.len().saturating_sub(8))
        .filter(|&i| {
            let kinds: [&[u8]; 26] = [
                b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd", b"stts", b"ctts", b"stsc", b"stsz", b"stco", b"stss", b"elst",
                b"mdhd", b"hdlr", b"avcC", b"esds", b"mvex", b"trex", b"moof", b"traf", b"tfhd", b"tfdt", b"trun", b"mdat", b"ftyp",
            ];
            kinds.contains(&&bytes[i..i + 4])
        })
        .collect();
    for _ in 0..random.random_range(1..6) {
        let len = bytes.len();
        let near = boxes.choose(random).map_or(0, |at| at + random.random_range(0..40)).saturating_sub(4);
        let at = if random.random_bool(0.8) { near } else { random.random_range(0..len.max(1)) };
        match random.random_range(0..6) {
            0 => bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1 << random.random_range(0..8)),
            1 | 2 => {
                let numbers = [0, 1, 2, 7, 8, 0x7fff_ffff, 0x8000_0000, u32::MAX, u32::MAX - 1, 0x0100_0000, len as u32, 20_000_000];
                let number = numbers.choose(random).expect("a number").to_be_bytes();
                bytes.iter_mut().skip(at).zip(number).for_each(|(byte, new)| *byte = new);
            }
            3 => bytes.iter_mut().skip(at).take(8).for_each(|byte| *byte = random.random()),
            4 => bytes.truncate(random.random_range(0..=len)),
            _ => {
                let piece: Vec<u8> = bytes.iter().skip(at).take(random.random_range(1..200)).copied().collect();
                let to = random.random_range(0..=bytes.len());
                bytes.splice(to..to, piece);
            }
        }
    }
}

fn mutations(name: &str, clip: &[u8], variants: u64) {
    assert!(read(clip, name), "{name} reads as it is");
    let mut good = 0;
    for seed in 0..variants {
        let mut bytes = clip.to_vec();
        mutate(&mut bytes, &mut StdRng::seed_from_u64(seed));
        good += u64::from(read(&bytes, &format!("{name}, seed {seed}")));
    }
    assert!(good < variants, "{name}: the mutations do nothing");
}

#[test]
fn mutated_plain_files() {
    mutations("a clip of the mp4 crate", &clip(40, false), 600);
}

#[test]
fn mutated_files_of_ffmpeg() {
    if !have_ffmpeg() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let short = |options: &str| {
        let (video, audio) = (VIDEO.replace("duration=3", "duration=1"), AUDIO.replace("duration=3", "duration=1"));
        std::fs::read(ffmpeg(folder.path(), &format!("{video} {audio} {options}"))).expect("the clip")
    };
    mutations("b-frames", &short("-c:v libx264 -bf 2 -g 10 -c:a aac out.mp4"), 200);
    mutations("fragments", &short("-c:v libx264 -bf 2 -g 5 -c:a aac -movflags frag_keyframe+cmaf out.mp4"), 200);
    mutations("mov", &short("-c:v mpeg4 -c:a pcm_mulaw -ar 8000 out.mov"), 200);
}

#[test]
fn every_length_of_a_truncated_file() {
    let whole = clip(20, false);
    for len in 0..whole.len() {
        assert!(!read(&whole[..len], &format!("cut to {len} bytes")));
    }
}
