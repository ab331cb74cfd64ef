//! Edit lists (ISO/IEC 14496-12 8.6.6): from media time to presentation time.
//!
//! An empty edit delays, a media edit shows a stretch of the media. After this, time 0 of every track is time 0 of the presentation.
//! Samples that a decoder needs before it can show the first one of an edit are kept: at the start of a track their times are before the
//! edit's (often negative); at a later edit their decode times are moved up to the end of what came before.

use super::boxes::View;
use crate::media::error::MediaError;
use crate::media::index::{IndexBuilder, SampleIndex, TIME_MAX};
use crate::media::{Sample, TrackKind};

/// Edits of a track.
const EDITS_MAX: usize = 100_000;
/// Editing may show samples again; this many times the samples of the media at most (and a few).
const EXPANSION_MAX: u64 = 2;
/// Samples looked at for the last one shown; far more than any decoder reorders.
const REORDER_MAX: u32 = 1024;

/// One entry of `elst`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edit {
    /// In the movie's time scale; 0 in the last edit of a fragmented file says "all there is".
    pub duration: u64,
    /// In the track's time scale; `None` shows nothing.
    pub media_time: Option<i64>,
}

/// Parses `elst`. A rate other than 1 is taken for 1, except 0 (a still picture), which is taken for an empty edit.
pub fn parse_elst(body: View<'_>) -> Result<Vec<Edit>, MediaError> {
    let mut fields = body.fields("elst");
    let (version, _) = fields.version_flags()?;
    let mut edits = Vec::new();
    let mut add = |duration: u64, media_time: i64, rate: [u8; 4]| {
        let shows = media_time >= 0 && rate != [0; 4];
        edits.push(Edit { duration, media_time: shows.then_some(media_time) });
    };
    let count = if version == 0 {
        let rows = fields.table::<12>()?;
        for [a, b, c, d, e, f, g, h, rate @ ..] in rows.iter().take(EDITS_MAX) {
            add(u32::from_be_bytes([*a, *b, *c, *d]).into(), i32::from_be_bytes([*e, *f, *g, *h]).into(), *rate);
        }
        rows.len()
    } else {
        let rows = fields.table::<20>()?;
        for [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, rate @ ..] in rows.iter().take(EDITS_MAX) {
            let duration = u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h]);
            add(duration, i64::from_be_bytes([*i, *j, *k, *l, *m, *n, *o, *p]), *rate);
        }
        rows.len()
    };
    if count > EDITS_MAX {
        let what = "the number of edits of a track".to_owned();
        return Err(MediaError::Limit { what, value: count as u64, limit: EDITS_MAX as u64, at: body.at });
    }
    Ok(edits)
}

/// What [`apply`] needs to know of a track besides its samples.
#[derive(Clone, Copy, Debug)]
pub struct Context {
    pub track: u32,
    pub kind: TrackKind,
    pub timescale: u32,
    pub movie_timescale: u32,
    pub fragmented: bool,
}

/// A stretch of media in the presentation, in the track's time scale.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Segment {
    at: i64,
    media_start: i64,
    /// `None`: to the end.
    media_end: Option<i64>,
}

/// A track after its edits.
#[derive(Debug)]
pub struct Edited {
    pub samples: SampleIndex,
    /// Where the edits end, in the track's time scale, if they say so.
    pub end: Option<i64>,
}

/// Applies `edits`; none at all leave the media as it is.
pub fn apply(samples: SampleIndex, edits: &[Edit], context: Context) -> Result<Edited, MediaError> {
    if edits.is_empty() {
        return Ok(Edited { samples, end: None });
    }
    let segments = segments(edits, context);
    let end = segments.last().and_then(|last| Some(last.at.saturating_add(last.media_end?.saturating_sub(last.media_start))));
    let ranges: Vec<(u32, u32)> = segments.iter().enumerate().map(|(i, segment)| range(&samples, *segment, i == 0, context)).collect();
    if let ([segment], [(0, last)]) = (segments.as_slice(), ranges.as_slice())
        && *last == samples.len()
    {
        let mut samples = samples;
        samples.shift(segment.at.saturating_sub(segment.media_start)).map_err(|error| index_error(context, 0, error))?;
        return Ok(Edited { samples, end });
    }
    let shown: u64 = ranges.iter().map(|(first, last)| u64::from(last - first)).sum();
    let limit = u64::from(samples.len()) * EXPANSION_MAX + 4096;
    if shown > limit {
        let what = format!("the number of samples that the edits of track {} show", context.track);
        return Err(MediaError::Limit { what, value: shown, limit, at: 0 });
    }
    let mut builder = IndexBuilder::default();
    let mut last_duration = 0;
    for (segment, (first, last)) in segments.iter().zip(ranges) {
        for i in first..last {
            let Some(sample) = samples.get(i) else { break };
            let dts = sample.dts.saturating_sub(segment.media_start).saturating_add(segment.at);
            let pushed = builder.push(sample.offset, sample.size, dts, i64::from(sample.cts_offset), sample.sync);
            pushed.map_err(|error| index_error(context, i, error))?;
            last_duration = sample.duration;
        }
    }
    Ok(Edited { samples: builder.finish(last_duration), end })
}

fn index_error(context: Context, i: u32, error: crate::media::index::IndexError) -> MediaError {
    MediaError::Index { track: context.track, sample: u64::from(i) + 1, error }
}

/// The media edits, in the track's time scale; edits that only go on where the last one ended are one.
fn segments(edits: &[Edit], context: Context) -> Vec<Segment> {
    let ticks = |movie: u128| {
        let movie_timescale = u128::from(context.movie_timescale.max(1));
        let ticks = (movie.saturating_mul(u128::from(context.timescale)) + movie_timescale / 2) / movie_timescale;
        ticks.min(TIME_MAX as u128) as i64
    };
    let mut segments: Vec<Segment> = Vec::new();
    let mut movie_at = 0u128;
    for (i, edit) in edits.iter().enumerate() {
        let at = ticks(movie_at);
        movie_at += u128::from(edit.duration);
        let Some(media_start) = edit.media_time else { continue };
        let open = i + 1 == edits.len() && (context.fragmented || edit.duration == 0);
        let media_end = (!open).then(|| media_start.saturating_add(ticks(movie_at).saturating_sub(at)));
        let slack = slack(context);
        match segments.last_mut() {
            Some(last) if last.at.saturating_sub(last.media_start).abs_diff(at.saturating_sub(media_start)) <= slack => {
                last.media_end = media_end;
            }
            _ => segments.push(Segment { at, media_start, media_end }),
        }
    }
    segments
}

/// Durations are in the movie's time scale, which is often milliseconds: one unit of it is rounding.
fn slack(context: Context) -> u64 {
    u64::from(context.timescale.div_ceil(context.movie_timescale.max(1)))
}

/// The samples that a segment needs, as a half-open range in decode order.
fn range(samples: &SampleIndex, segment: Segment, first_segment: bool, context: Context) -> (u32, u32) {
    let last = match segment.media_end {
        None => samples.len(),
        Some(end) => {
            // Composition is never before decoding here, so no sample from `cut` on is shown; of those before, later ones may be needed.
            let mut cut = samples.first_at_or_after(end);
            let shown = |i: u32| samples.get(i).is_some_and(|s| pts(s) < end);
            let lowest = cut.saturating_sub(REORDER_MAX);
            while cut > lowest && !shown(cut - 1) {
                cut -= 1;
            }
            cut
        }
    };
    let sync = samples.sync_at_or_before(segment.media_start);
    let first = match context.kind {
        TrackKind::Video => sync,
        // A second of audio before the start primes any decoder; in the middle of a presentation it would be heard twice.
        TrackKind::Audio if first_segment => {
            let start = segment.media_start.saturating_sub(i64::from(context.timescale));
            sync.min(samples.first_at_or_after(start.saturating_add(1)).saturating_sub(1))
        }
        TrackKind::Audio => sync,
    };
    let first = first.min(last);
    let reaches = |i| samples.get(i).is_some_and(|s| pts(s).saturating_add(i64::from(s.duration)) > segment.media_start);
    let shows = (first..last).rev().take(REORDER_MAX as usize).any(reaches);
    (if shows { first } else { last }, last)
}

fn pts(sample: Sample) -> i64 {
    sample.dts.saturating_add(i64::from(sample.cts_offset))
}
