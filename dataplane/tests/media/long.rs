//! A title of a day, as a sparse file: what its index costs.

use std::io::Write;
use std::time::Instant;

use crate::counting::most_bytes;

fn boxed(kind: &[u8; 4], parts: &[&[u8]]) -> Vec<u8> {
    let len: usize = parts.iter().map(|part| part.len()).sum();
    [&(len as u32 + 8).to_be_bytes()[..], kind, &parts.concat()].concat()
}

fn full(kind: &[u8; 4], words: impl IntoIterator<Item = u32>) -> Vec<u8> {
    let words: Vec<u8> = words.into_iter().flat_map(u32::to_be_bytes).collect();
    boxed(kind, &[&[0; 4], &words])
}

/// A track of `samples` samples: `each` of them in every chunk, chunks `stride` bytes apart from `first` on.
fn trak(
    id: u32,
    handler: &[u8; 4],
    entry: &[u8],
    rate: (u32, u32),
    samples: u32,
    size: impl Fn(u32) -> u32,
    chunks: (u32, u64, u64),
) -> Vec<u8> {
    let (timescale, duration) = rate;
    let (each, first, stride) = chunks;
    let number = samples.div_ceil(each);
    let offsets = (0..u64::from(number)).map(|i| first + i * stride).flat_map(|at| [(at >> 32) as u32, at as u32]);
    let tables = [
        boxed(b"stsd", &[&[0, 0, 0, 0, 0, 0, 0, 1], entry]),
        full(b"stts", [1, samples, duration]),
        full(b"stsc", [1, 1, each, 1]),
        full(b"stsz", [0, samples].into_iter().chain((0..samples).map(size))),
        full(b"co64", [number].into_iter().chain(offsets)),
    ];
    let mdhd = full(b"mdhd", [0, 0, timescale, 0, 0]);
    let hdlr = boxed(b"hdlr", &[&[0; 8], handler, &[0; 13]]);
    let mdia = boxed(b"mdia", &[&mdhd, &hdlr, &boxed(b"minf", &[&boxed(b"stbl", &[&tables.concat()])])]);
    boxed(b"trak", &[&full(b"tkhd", [0, 0, id, 0, 0]), &mdia])
}

#[test]
fn a_day_costs_17_bytes_a_sample() {
    const SECONDS: u32 = 24 * 3600;
    const SECOND_BYTES: u64 = 250_000;
    let config = [1, 66, 0, 30, 0xff, 0xe1, 0, 4, 0x67, 66, 0, 30, 1, 0, 2, 0x68, 0xce];
    let avc1 = boxed(b"avc1", &[&[0; 24], &[0, 64, 0, 48], &[0; 50], &boxed(b"avcC", &[&config])]);
    let mp3 = boxed(b".mp3", &[&[0; 16], &[0, 2, 0, 16, 0, 0, 0, 0], &(48_000u32 << 16).to_be_bytes()]);
    let video = trak(1, b"vide", &avc1, (10_000_000, 400_000), SECONDS * 25, |i| 7000 + i % 1000, (25, 16, SECOND_BYTES));
    let audio = trak(2, b"soun", &mp3, (48_000, 1152), SECONDS * 125 / 3, |_| 400, (40, 16 + 200_000, SECOND_BYTES * 24 / 25));
    let moov = boxed(b"moov", &[&full(b"mvhd", [0, 0, 1000, 0]), &video, &audio]);
    let media_bytes = u64::from(SECONDS) * SECOND_BYTES;
    let mut file = tempfile::tempfile().expect("a file");
    file.write_all(&[&[0, 0, 0, 1][..], b"mdat", &(16 + media_bytes).to_be_bytes()].concat()).expect("it writes");
    std::io::Seek::seek(&mut file, std::io::SeekFrom::Start(16 + media_bytes)).expect("it seeks");
    file.write_all(&moov).expect("it writes");

    let size = file.metadata().expect("a size").len();
    let began = Instant::now();
    let (title, most) = most_bytes(|| dataplane::media::read_title(&mut file, size).expect("it reads"));
    let read = began.elapsed();
    let samples: u64 = title.tracks.iter().map(|track| u64::from(track.samples.len())).sum();
    assert_eq!(samples, u64::from(SECONDS) * 25 + u64::from(SECONDS) * 125 / 3);
    let index: usize = title.tracks.iter().map(|track| track.samples.memory_bytes()).sum();
    assert!(index as u64 <= samples * 17, "{index} bytes for {samples} samples");
    assert!(most as u64 <= samples * 64, "{most} bytes at most while reading");
    assert_eq!(title.description.duration_ns, u64::from(SECONDS) * 1_000_000_000);
    let began = Instant::now();
    let blocks = title.resident_blocks_max(256 << 10, 4_000_000_000);
    assert!((5..=10).contains(&blocks), "{blocks} blocks of 256 KiB hold 4 s at 250 kB/s");
    println!("{samples} samples: read in {read:?}, {most} bytes at most, blocks reckoned in {:?}", began.elapsed());
}
