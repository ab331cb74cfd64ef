//! Fuzz target `mp4_index`: any bytes as a media file. What is read keeps the promises of the sample index and of the title.

use std::io::Cursor;

use dataplane::media::{SampleIndex, Title, Track, read_title};

/// Runs one input.
pub fn run(data: &[u8]) {
    let file_bytes = data.len() as u64;
    match read_title(&mut Cursor::new(data), file_bytes) {
        Ok(title) => check(&title, file_bytes),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

fn check(title: &Title, file_bytes: u64) {
    assert!(!title.tracks.is_empty(), "a title has something to deliver");
    let description = &title.description;
    assert_eq!(description.tracks.len(), title.tracks.len());
    assert_eq!(description.left_out, title.left_out);
    assert!(title.left_out.iter().all(|track| !track.reason.is_empty()));
    let samples: u64 = title.tracks.iter().map(|track| u64::from(track.samples.len())).sum();
    assert!(samples <= file_bytes * 2 + 10_000, "{samples} samples out of {file_bytes} bytes");
    for (track, described) in title.tracks.iter().zip(&description.tracks) {
        assert!(track.timescale > 0);
        assert_eq!((track.id, track.kind), (described.id, described.kind));
        assert_eq!((track.samples.len(), track.samples.sync_samples()), (described.samples, described.sync_samples));
        assert!(described.packets_per_second.is_finite());
        check_samples(track, file_bytes);
    }
    let blocks = title.resident_blocks_max(512, 1_000_000_000);
    assert!((1..=file_bytes.div_ceil(512)).contains(&blocks), "{blocks} blocks");
    assert!(title.resident_blocks_max(512, u64::MAX) >= blocks);
}

fn check_samples(track: &Track, file_bytes: u64) {
    let index = &track.samples;
    assert!(!index.is_empty());
    let mut last_dts = i64::MIN;
    for i in 0..index.len() {
        let sample = index.get(i).expect("every sample up to len is there");
        assert!(sample.size > 0);
        assert!(sample.offset + u64::from(sample.size) <= file_bytes, "samples lie within the file");
        assert!(sample.dts >= last_dts, "decode times never decrease");
        last_dts = sample.dts;
    }
    assert!(index.get(index.len()).is_none());
    for time in [i64::MIN, -1, 0, 1, last_dts, i64::MAX] {
        check_search(index, time);
    }
}

fn check_search(index: &SampleIndex, time: i64) {
    let first = index.first_at_or_after(time);
    assert!(first <= index.len());
    assert!(index.get(first).is_none_or(|sample| sample.dts >= time));
    assert!(first == 0 || index.get(first - 1).is_some_and(|sample| sample.dts < time));
    let found = index.sync_at_or_before(time);
    let sample = index.get(found).expect("a sample to start with");
    assert!(sample.sync || index.sync_samples() == 0);
    let pts = sample.dts + i64::from(sample.cts_offset);
    assert!(pts <= time || (0..found).all(|i| index.get(i).is_some_and(|earlier| !earlier.sync)), "before the time, or the first");
}
