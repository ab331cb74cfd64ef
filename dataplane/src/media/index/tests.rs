use proptest::prelude::*;

use super::*;

/// Times that stay close, and times that force the groups to shrink.
fn sample() -> impl Strategy<Value = (u64, u32, u64, i64, bool)> {
    let step = prop_oneof![4 => 0u64..4000, 2 => 0u64..50_000_000, 1 => 0u64..1 << 40];
    let cts_offset = prop_oneof![8 => -4000i64..4000, 1 => -CTS_OFFSET_MAX..=CTS_OFFSET_MAX];
    (0..=OFFSET_MAX, 0..=SIZE_MAX, step, cts_offset, any::<bool>())
}

fn build(samples: &[(u64, u32, u64, i64, bool)], last_duration: u32) -> (SampleIndex, Vec<Sample>) {
    let mut builder = IndexBuilder::default();
    let mut dts = -1000i64;
    let mut plain = Vec::new();
    for &(offset, size, step, cts_offset, sync) in samples {
        dts += step as i64;
        builder.push(offset, size, dts, cts_offset, sync).expect("it fits");
        plain.push(Sample { offset, size, dts, cts_offset: cts_offset as i32, duration: last_duration, sync });
    }
    for i in 1..plain.len() {
        plain[i - 1].duration = (plain[i].dts - plain[i - 1].dts).min(i64::from(u32::MAX)) as u32;
    }
    (builder.finish(last_duration), plain)
}

fn pts(sample: &Sample) -> i64 {
    sample.dts + i64::from(sample.cts_offset)
}

fn check(index: &SampleIndex, plain: &[Sample], times: &[i64]) {
    assert_eq!(index.len() as usize, plain.len());
    assert_eq!(index.is_empty(), plain.is_empty());
    assert_eq!(index.iter().collect::<Vec<_>>(), plain);
    assert_eq!(index.get(index.len()), None);
    assert_eq!(index.sync_samples() as usize, plain.iter().filter(|s| s.sync).count());
    for &time in times {
        let first = plain.iter().position(|s| s.dts >= time).unwrap_or(plain.len());
        assert_eq!(index.first_at_or_after(time) as usize, first, "first at or after {time}");
        let sync = plain.iter().rposition(|s| s.sync && pts(s) <= time);
        let sync = sync.or_else(|| plain.iter().position(|s| s.sync)).unwrap_or(0);
        assert_eq!(index.sync_at_or_before(time) as usize, sync, "sync at or before {time}");
    }
    for first in 0..=plain.len() {
        let is_entry = |&i: &usize| plain[i].sync && plain[i..].iter().filter(|s| s.sync).all(|s| pts(&plain[i]) <= pts(s));
        let shown_last = (first..plain.len()).find(is_entry);
        let found = index.sync_from(first as u32).map(|i| i as usize);
        assert!(found.is_none_or(|i| i >= first && plain[i].sync), "sync from {first}");
        assert_eq!(found.is_some(), shown_last.is_some(), "sync from {first}");
        assert!(found.zip(shown_last).is_none_or(|(found, entry)| pts(&plain[found]) <= pts(&plain[entry])));
    }
}

proptest! {
    #[test]
    fn holds_what_a_vector_holds(
        samples in proptest::collection::vec(sample(), 0..400),
        last_duration: u32,
        times in proptest::collection::vec(any::<i64>(), 0..8),
        picks in proptest::collection::vec((any::<proptest::sample::Index>(), -1i64..=1), 0..40),
    ) {
        let (index, plain) = build(&samples, last_duration);
        let mut times = times;
        if !plain.is_empty() {
            times.extend(picks.iter().flat_map(|(pick, near)| {
                let sample = pick.get(&plain);
                [sample.dts + near, pts(sample) + near]
            }));
        }
        check(&index, &plain, &times);
    }

    #[test]
    fn all_sync_in_order(steps in proptest::collection::vec(0u64..3000, 1..300)) {
        let samples: Vec<_> = steps.iter().enumerate().map(|(i, &step)| (i as u64 * 100, 100, step, 0, true)).collect();
        let (index, plain) = build(&samples, 1024);
        prop_assert!(matches!(index.syncs, Syncs::All));
        let times: Vec<i64> = plain.iter().flat_map(|s| [s.dts - 1, s.dts, s.dts + 1]).collect();
        check(&index, &plain, &times);
    }

    #[test]
    fn decode_times_never_decrease_whatever_comes(
        samples in proptest::collection::vec((any::<u64>(), any::<u32>(), any::<i64>(), any::<i64>(), any::<bool>()), 0..200),
        near in proptest::collection::vec((0u64..1 << 20, 0u32..9000, -5000i64..5000, -5000i64..5000, any::<bool>()), 0..200),
    ) {
        let mut builder = IndexBuilder::default();
        let mut composed = Vec::new();
        for (offset, size, dts, cts_offset, sync) in samples.into_iter().chain(near) {
            if builder.push(offset, size, dts, cts_offset, sync).is_ok() {
                composed.push(dts + cts_offset);
            }
        }
        let mut index = builder.finish(1);
        let got: Vec<Sample> = index.iter().collect();
        prop_assert!(got.is_sorted_by_key(|s| s.dts));
        prop_assert_eq!(got.iter().map(pts).collect::<Vec<_>>(), composed.clone(), "composition times stay when decode times are moved");
        if index.decode_before_composition().is_ok() {
            prop_assert!(index.iter().all(|s| s.cts_offset >= 0));
            prop_assert_eq!(index.iter().map(|s| pts(&s)).collect::<Vec<_>>(), composed);
        }
    }

    #[test]
    fn parts_make_the_same_index(samples in proptest::collection::vec(sample(), 0..200)) {
        let (index, plain) = build(&samples, 7);
        let Parts { words, bases, group_shift, last_duration } = index.parts();
        let (words, bases) = (words.to_vec(), bases.to_vec());
        let again = SampleIndex::from_parts(words.clone(), bases.clone(), group_shift, last_duration, u64::MAX);
        check(&again.expect("its own parts"), &plain, &[0, i64::MIN, i64::MAX]);
        let last_byte = plain.iter().map(|s| s.offset + u64::from(s.size)).max().unwrap_or(0);
        prop_assert!(SampleIndex::from_parts(words.clone(), bases.clone(), group_shift, last_duration, last_byte).is_some());
        prop_assert!(last_byte == 0 || SampleIndex::from_parts(words, bases, group_shift, last_duration, last_byte - 1).is_none());
    }
}

#[test]
fn a_day_at_ten_megahertz_stays_at_sixteen_bytes() {
    // 24 hours of 60 pictures per second; the last picture is 8.64e11 units in.
    let mut builder = IndexBuilder::default();
    let pictures = 24 * 3600 * 60i64;
    for i in 0..pictures {
        builder.push(i as u64 * 20_000, 20_000, i * 10_000_000 / 60, 333_333, i % 120 == 0).expect("it fits");
    }
    let index = builder.finish(166_666);
    assert_eq!(index.len() as i64, pictures);
    assert!(index.memory_bytes() < pictures as usize * 17, "{}", index.memory_bytes());
    assert_eq!(index.get(index.len() - 1).expect("the last").dts, (pictures - 1) * 10_000_000 / 60);
    assert_eq!(index.sync_at_or_before(12 * 3600 * 10_000_000), 12 * 3600 * 60 - 120);
    assert_eq!(index.sync_at_or_before(12 * 3600 * 10_000_000 + 333_333), 12 * 3600 * 60);
}

#[test]
fn a_slide_show_shrinks_the_groups() {
    let mut builder = IndexBuilder::default();
    for i in 0..100i64 {
        builder.push(0, 1, i * 600 * 10_000_000, 0, true).expect("it fits");
    }
    let index = builder.finish(5);
    assert_eq!(index.group_shift, 0);
    assert!(index.iter().enumerate().all(|(i, s)| s.dts == i as i64 * 6_000_000_000));
    assert_eq!(index.get(0).expect("a sample").duration, u32::MAX, "ten minutes do not fit 32 bits at 10 MHz");
}

#[test]
fn refuses_what_does_not_fit() {
    let mut builder = IndexBuilder::default();
    assert_eq!(builder.push(OFFSET_MAX + 1, 1, 0, 0, true), Err(IndexError::Offset(OFFSET_MAX + 1)));
    assert_eq!(builder.push(0, SIZE_MAX + 1, 0, 0, true), Err(IndexError::Size(SIZE_MAX + 1)));
    assert_eq!(builder.push(0, 1, TIME_MAX + 1, 0, true), Err(IndexError::Time(TIME_MAX + 1)));
    assert_eq!(builder.push(0, 1, i64::MIN, 0, true), Err(IndexError::Time(i64::MIN)));
    assert_eq!(builder.push(0, 1, 0, CTS_OFFSET_MAX + 1, true), Err(IndexError::CtsOffset(CTS_OFFSET_MAX + 1)));
    assert!(builder.is_empty());
    let empty = builder.finish(0);
    assert_eq!((empty.get(0), empty.sync_at_or_before(0), empty.first_at_or_after(0)), (None, 0, 0));
}
