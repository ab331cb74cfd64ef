use std::collections::HashSet;

use proptest::prelude::*;

use super::*;
use crate::media::TrackKind;
use crate::media::index::IndexBuilder;

fn title(tracks: &[Vec<(u64, u32, i64)>], timescales: &[u32], size_bytes: u64) -> Title {
    let tracks: Vec<_> = tracks
        .iter()
        .zip(timescales)
        .map(|(samples, &timescale)| {
            let mut builder = IndexBuilder::default();
            let mut dts = 0;
            for &(offset, size, step) in samples {
                dts += step;
                builder.push(offset, size, dts, 0, true).expect("it fits");
            }
            Track { id: 1, kind: TrackKind::Audio, codec: Codec::MpegAudio, timescale, samples: builder.finish(10) }
        })
        .collect();
    let figures: Vec<_> = tracks.iter().map(|track| measure(track, Shape::default())).collect();
    let description = describe("test", size_bytes, &tracks, &figures, &[]);
    Title { tracks, left_out: Vec::new(), description }
}

/// Looks at every window that starts at a sample: the fullest window can be moved to one without losing a block.
fn by_hand(title: &Title, block_bytes: u64, window_ns: i64) -> u64 {
    let samples: Vec<_> = title.tracks.iter().flat_map(|track| track.samples.iter().map(|s| (track.ns_of(s.dts), s))).collect();
    let window = |start: i64| {
        let within = samples.iter().filter(|(ns, _)| (start..=start + window_ns).contains(ns));
        within.flat_map(|(_, s)| s.offset / block_bytes..=(s.offset + u64::from(s.size) - 1) / block_bytes).collect::<HashSet<u64>>().len()
    };
    samples.iter().map(|(ns, _)| window(*ns)).max().unwrap_or(0) as u64
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn resident_blocks_bound_what_any_window_touches(
        tracks in proptest::collection::vec(proptest::collection::vec((0u64..20_000, 1u32..3000, 0i64..50), 0..60), 1..4),
        block_bytes in prop_oneof![Just(512u64), Just(4096), Just(64)],
        window_ms in 0i64..500,
    ) {
        let title = title(&tracks, &[1000, 90_000, 48_000], 30_000);
        let answer = title.resident_blocks_max(block_bytes, window_ms as u64 * 1_000_000);
        let exact = by_hand(&title, block_bytes, window_ms * 1_000_000);
        prop_assert!(answer >= exact, "{answer} for {exact}");
        // Samples of one block that follow each other are held from the first to the last of them, as they are when they are read ahead.
        prop_assert!(answer <= 30_000u64.div_ceil(block_bytes));
    }

    #[test]
    fn resident_blocks_of_a_file_in_order_are_exact(
        steps in proptest::collection::vec((1u32..9000, 1i64..50), 1..300),
        window_ms in 0i64..2000,
    ) {
        let mut offset = 0;
        let samples: Vec<_> = steps
            .into_iter()
            .map(|(size, step)| {
                offset += u64::from(size);
                (offset - u64::from(size), size, step)
            })
            .collect();
        let title = title(&[samples], &[1000], offset);
        let exact = by_hand(&title, 4096, window_ms * 1_000_000);
        let answer = title.resident_blocks_max(4096, window_ms as u64 * 1_000_000);
        // A window may begin between two samples of one block, which counts the block although neither sample is within.
        prop_assert!((exact..=exact + 1).contains(&answer), "{answer} for {exact}");
    }

    #[test]
    fn the_peak_is_the_fullest_second(
        samples in proptest::collection::vec((Just(0u64), 1u32..5000, 0i64..400), 1..200),
    ) {
        let title = title(std::slice::from_ref(&samples), &[1000], 5000);
        let track = &title.tracks[0];
        let all: Vec<_> = track.samples.iter().collect();
        let second = |start: i64| all.iter().filter(|s| (start..start + 1000).contains(&s.dts)).map(|s| u64::from(s.size)).sum::<u64>();
        let peak = all.iter().map(|s| second(s.dts)).max().expect("samples") * 8;
        prop_assert_eq!(title.description.tracks[0].peak_1s_bps, peak);
    }
}

#[test]
fn figures_of_a_steady_stream() {
    // 10 seconds of 25 samples of 3000 bytes per second: 600 kbit/s, three packets each.
    let samples: Vec<_> = (0..250).map(|i| (i * 3000, 3000, if i == 0 { 0 } else { 40 })).collect();
    let mut title = title(&[samples], &[1000], 750_000);
    let description = &title.description.tracks[0];
    // The last sample lasts 10 ms here.
    assert_eq!(description.duration_ns, 9_970_000_000);
    assert_eq!(description.peak_1s_bps, 600_000);
    assert!((description.mean_bps as i64 - 601_805).abs() < 10, "{}", description.mean_bps);
    assert!((description.packets_per_second - 75.22).abs() < 0.1);
    assert_eq!(title.resident_blocks_max(4096, 0), 2);
    assert_eq!(title.resident_blocks_max(1 << 30, 0), 1);
    assert_eq!(title.resident_blocks_max(4096, u64::MAX), 750_000u64.div_ceil(4096));
    title.tracks.clear();
    assert_eq!(title.resident_blocks_max(4096, 1), 0);
}
