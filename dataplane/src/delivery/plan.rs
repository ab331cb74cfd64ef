//! Where each track of a session starts, and the time line that they share.

use pacing::schedule::ticks_to_ns;

use crate::media::{Title, Track, TrackKind};

/// Maps decode times to due times.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timeline {
    /// Decode time that is due at the anchor, nanoseconds of presentation time (negative for priming samples).
    pub start_dts_ns: i64,
    /// Monotonic time of the anchor; `None` before delivery runs.
    pub anchor_ns: Option<u64>,
}

impl Timeline {
    /// When the decode time is due; `None` before delivery runs.
    pub fn due_ns(&self, dts_ns: i64) -> Option<u64> {
        let ahead = dts_ns.saturating_sub(self.start_dts_ns);
        self.anchor_ns.map(|anchor| anchor.saturating_add_signed(ahead))
    }

    /// The decode time that is due at `now_ns`.
    pub fn dts_at(&self, now_ns: u64) -> i64 {
        let elapsed = self.anchor_ns.map_or(0, |anchor| now_ns as i64 - anchor as i64);
        self.start_dts_ns.saturating_add(elapsed)
    }
}

/// One track's part of a [`StartPlan`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrackPlan {
    /// Position of the track in the title.
    pub track: usize,
    /// First sample.
    pub first: u32,
    /// First sample that is not sent any more.
    pub end: u32,
}

/// What `StartSession` prepares: file positions and the schedule of the range asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartPlan {
    /// Presentation time at which play really starts (a sync sample), nanoseconds.
    pub from_ns: u64,
    /// Presentation time at which it ends, nanoseconds.
    pub to_ns: u64,
    /// Decode time that is due when delivery starts, nanoseconds: that of the earliest first sample, within reason.
    pub start_dts_ns: i64,
    /// One per track that is set up.
    pub tracks: Vec<TrackPlan>,
}

/// A track's samples are due at most this long before the sample that the range is asked for; earlier ones go out at the start.
const LEAD_NS_MAX: i64 = 100_000_000;

impl StartPlan {
    /// A plan that plays `tracks` (positions in the title) from the sync sample at or before `from_ns` up to `to_ns`.
    ///
    /// The first video track decides where to start; the others start with the sample that covers that time, so that nothing of them
    /// is missing. A track that is over by then has no part in the range. Runs in logarithmic time.
    pub fn new(title: &Title, tracks: &[usize], from_ns: u64, to_ns: Option<u64>) -> Self {
        let to_ns = to_ns.unwrap_or(u64::MAX).min(title.description.duration_ns);
        let leader = tracks.iter().filter_map(|&i| title.tracks.get(i)).find(|t| t.kind == TrackKind::Video);
        let from_ns = match leader {
            Some(track) => start_of_sync(track, from_ns),
            None => from_ns,
        };
        let (mut start_dts_ns, mut leader_dts_ns) = (i64::MAX, None);
        let mut plans = Vec::with_capacity(tracks.len());
        for &position in tracks {
            let Some(track) = title.tracks.get(position) else { continue };
            let is_leader = leader.is_some_and(|leader| std::ptr::eq(leader, track));
            let first = match track.kind {
                _ if !is_leader && is_over(track, from_ns) => track.samples.len(),
                TrackKind::Video => track.samples.sync_at_or_before(ns_to_ticks(from_ns, track.timescale)),
                TrackKind::Audio if from_ns == 0 => 0,
                TrackKind::Audio => covering(track, from_ns),
            };
            let end = track.samples.first_at_or_after(ns_to_ticks_up(to_ns, track.timescale)).max(first);
            let end = if to_ns >= title.description.duration_ns { track.samples.len() } else { end };
            if let Some(sample) = track.samples.get(first) {
                let dts_ns = ticks_to_ns(sample.dts, track.timescale);
                if is_leader {
                    leader_dts_ns = Some(dts_ns);
                }
                start_dts_ns = start_dts_ns.min(dts_ns);
            }
            plans.push(TrackPlan { track: position, first, end });
        }
        // A sample may have begun long before (a gap in the sound, a second picture track with rare sync samples): nobody waits for that
        // time to pass again.
        let begins_ns = leader_dts_ns.unwrap_or(i64::try_from(from_ns).unwrap_or(i64::MAX));
        let start_dts_ns = if start_dts_ns == i64::MAX { begins_ns } else { start_dts_ns.max(begins_ns.saturating_sub(LEAD_NS_MAX)) };
        Self { from_ns, to_ns, start_dts_ns, tracks: plans }
    }
}

/// Presentation time of the sync sample at or before `from_ns`, but never after it and never negative.
fn start_of_sync(track: &Track, from_ns: u64) -> u64 {
    let index = track.samples.sync_at_or_before(ns_to_ticks(from_ns, track.timescale));
    let Some(sample) = track.samples.get(index) else { return from_ns };
    let pts = sample.dts.saturating_add(i64::from(sample.cts_offset));
    u64::try_from(ticks_to_ns(pts, track.timescale)).unwrap_or(0).min(from_ns)
}

/// All of the track's samples have been on show by `from_ns`.
fn is_over(track: &Track, from_ns: u64) -> bool {
    let last = track.samples.len().checked_sub(1).and_then(|last| track.samples.get(last));
    last.is_none_or(|last| {
        let end = last.dts.saturating_add(i64::from(last.cts_offset)).saturating_add(i64::from(last.duration).max(1));
        end <= ns_to_ticks(from_ns, track.timescale)
    })
}

/// The sample that is being heard at `from_ns`.
fn covering(track: &Track, from_ns: u64) -> u32 {
    let ticks = ns_to_ticks(from_ns, track.timescale);
    let next = track.samples.first_at_or_after(ticks);
    match track.samples.get(next) {
        Some(sample) if sample.dts == ticks => next,
        _ => next.saturating_sub(1),
    }
}

/// Rounds down, so that a time that was made from ticks by `ticks_to_ns` finds its tick again.
fn ns_to_ticks(ns: u64, timescale: u32) -> i64 {
    let ticks = (u128::from(ns) + 1) * u128::from(timescale) / 1_000_000_000;
    i64::try_from(ticks).unwrap_or(i64::MAX)
}

fn ns_to_ticks_up(ns: u64, timescale: u32) -> i64 {
    let ticks = (u128::from(ns) * u128::from(timescale)).div_ceil(1_000_000_000);
    i64::try_from(ticks).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::media::index::IndexBuilder;
    use crate::media::{Codec, MediaDescription};

    const SECOND: u64 = 1_000_000_000;

    fn track(kind: TrackKind, timescale: u32, samples: &[(i64, i64, bool)], last: u32) -> Track {
        let mut index = IndexBuilder::default();
        for &(dts, cts_offset, sync) in samples {
            index.push(0, 1, dts, cts_offset, sync).unwrap();
        }
        Track { id: 1, kind, codec: Codec::MpegAudio, timescale, samples: index.finish(last) }
    }

    fn title(tracks: Vec<Track>, duration_ns: u64) -> Title {
        let description =
            MediaDescription { container: String::new(), duration_ns, size_bytes: 0, tracks: Vec::new(), left_out: Vec::new() };
        Title { tracks, left_out: Vec::new(), description }
    }

    fn pts_ns(track: &Track, i: u32) -> i64 {
        let sample = track.samples.get(i).unwrap();
        ticks_to_ns(sample.dts + i64::from(sample.cts_offset), track.timescale)
    }

    /// Steps in ticks, composition offsets, and whether a decoder can start.
    fn samples() -> impl Strategy<Value = Vec<(i64, i64, bool)>> {
        let sample = (prop_oneof![9 => 1i64..100, 1 => 0i64..5000], 0i64..300, prop::bool::weighted(0.2));
        prop::collection::vec(sample, 0..80).prop_map(|steps| {
            let mut at = -50;
            let dts = |(step, cts, sync)| {
                at += step;
                (at - step, cts, sync)
            };
            steps.into_iter().map(dts).collect()
        })
    }

    fn hostile_ns() -> impl Strategy<Value = u64> {
        prop_oneof![8 => 0u64..20 * SECOND, 1 => Just(u64::MAX), 1 => any::<u64>()]
    }

    proptest! {
        #[test]
        fn ranges_hold_what_was_asked_for(
            video in samples(),
            second in samples(),
            sound in samples(),
            scale in prop_oneof![Just(1000u32), Just(1), Just(90_000), Just(u32::MAX), 1u32..100_000],
            order in Just(vec![0usize, 1, 2, 9]).prop_shuffle(),
            from_ns in hostile_ns(),
            to_ns in prop::option::of(hostile_ns()),
        ) {
            let tracks = vec![
                track(TrackKind::Video, scale, &video, 40),
                track(TrackKind::Video, 1000, &second, 40),
                track(TrackKind::Audio, 1000, &sound, 20),
            ];
            let duration_ns = 15 * SECOND;
            let title = title(tracks, duration_ns);
            let plan = StartPlan::new(&title, &order, from_ns, to_ns);
            prop_assert!(plan.from_ns <= from_ns && plan.to_ns <= duration_ns);
            let known: Vec<usize> = order.iter().copied().filter(|&i| i < 3).collect();
            prop_assert_eq!(plan.tracks.iter().map(|t| t.track).collect::<Vec<_>>(), known.clone());
            let leader = known.iter().copied().find(|&i| i < 2);
            let mut earliest = i64::MAX;
            for part in &plan.tracks {
                let track = &title.tracks[part.track];
                let len = track.samples.len();
                prop_assert!(part.first <= part.end && part.end <= len);
                let Some(first) = track.samples.get(part.first) else { continue };
                earliest = earliest.min(ticks_to_ns(first.dts, track.timescale));
                if part.track < 2 && track.samples.sync_samples() > 0 {
                    prop_assert!(first.sync, "a decoder can start");
                }
                if part.track == 2 {
                    // Nothing that is heard from `from_ns` on is missing.
                    let missing = part.first.checked_sub(1).map(|i| ticks_to_ns(track.samples.get(i).unwrap().dts, 1000));
                    prop_assert!(missing.is_none_or(|dts_ns| dts_ns < i64::try_from(plan.from_ns).unwrap_or(i64::MAX)));
                }
                if Some(part.track) == leader {
                    let syncs: Vec<i64> = (0..len).filter(|&i| track.samples.get(i).unwrap().sync).map(|i| pts_ns(track, i)).collect();
                    let latest = syncs.iter().copied().filter(|&ns| i128::from(ns) <= i128::from(from_ns)).max();
                    let starts_ns = pts_ns(track, part.first);
                    prop_assert!(latest.is_none_or(|ns| starts_ns <= ns), "at or before");
                    // Where later ones are shown earlier there is no such thing as the last.
                    let last = latest.filter(|_| syncs.is_sorted());
                    prop_assert!(last.is_none_or(|ns| starts_ns == ns), "the last sync sample at or before");
                }
                if let Some(to_ns) = to_ns.filter(|&to_ns| to_ns < duration_ns) {
                    let kept = |i: u32| ticks_to_ns(track.samples.get(i).unwrap().dts, track.timescale);
                    prop_assert!((part.first..part.end).all(|i| i128::from(kept(i)) < i128::from(to_ns)));
                } else {
                    prop_assert_eq!(part.end, len);
                }
            }
            if earliest != i64::MAX {
                prop_assert!(plan.start_dts_ns >= earliest);
            }
            // Nobody waits: what the leader starts with is due soon.
            let leading = plan.tracks.iter().find(|part| Some(part.track) == leader);
            if let Some(first) = leading.and_then(|part| title.tracks[part.track].samples.get(part.first)) {
                let dts_ns = ticks_to_ns(first.dts, title.tracks[leader.unwrap()].timescale);
                prop_assert!(dts_ns - plan.start_dts_ns <= LEAD_NS_MAX);
            }
        }
    }

    #[test]
    fn time_lines_saturate() {
        for start_dts_ns in [i64::MIN, -1, 0, i64::MAX] {
            for anchor_ns in [None, Some(0), Some(u64::MAX)] {
                let timeline = Timeline { start_dts_ns, anchor_ns };
                for dts_ns in [i64::MIN, 0, i64::MAX] {
                    assert_eq!(timeline.due_ns(dts_ns).is_some(), anchor_ns.is_some());
                }
                for now_ns in [0, 1, u64::MAX] {
                    timeline.dts_at(now_ns);
                }
            }
        }
    }
}
