//! MP4 and QuickTime files, plain and fragmented, to a [`Title`].
//!
//! ```text
//! layout::walk ─► moov ─► track::parse_trak ─► tables::walk ─┐
//!            └──► moof ─► fragments::add_fragment ───────────┴─► sink ─► edits::apply ─► Title
//! ```
//!
//! What bounds the cost of a hostile file: boxes are stepped over unless they are needed, and read only when they lie wholly within the file;
//! every count is checked against the bytes of its box before it is used; samples are counted against the size of the file (`sink`); the
//! functions call each other to a fixed depth. Boxes that are never looked at (`udta`, `meta`, `sgpd`, `sbgp`, ...) cannot do harm.

mod boxes;
mod edits;
mod entries;
mod esds;
mod fragments;
mod layout;
pub(crate) mod parameter_sets;
mod sink;
mod tables;
mod track;

use std::collections::{HashMap, HashSet};
use std::io::{Read, Seek};

use boxes::{Source, View};
use fragments::TrackDefaults;
use layout::{Layout, Span};
use sink::Budget;
use track::{Parsed, TrackState};

use super::error::{FourCc, MediaError};
use super::measure::{Shape, codec_label, describe, measure};
use super::{LeftOutTrack, Title, Track};

/// Bytes of one `trak`: 20 million samples with all their tables have 480 MB.
const TRAK_BYTES_MAX: u64 = 512 << 20;
/// Bytes of one `moof`.
const MOOF_BYTES_MAX: u64 = 64 << 20;
/// Bytes of `mvhd` and `mvex`.
const HEADER_BYTES_MAX: u64 = 1 << 20;
/// Tracks of a title, delivered or not.
const TRACKS_MAX: usize = 256;
/// A fragmented recording that starts later than this on its own clock is taken to start at its first sample.
const START_NS_MAX: i64 = 1_000_000_000;

/// What `moov` says.
struct Movie {
    timescale: u32,
    defaults: Option<TrackDefaults>,
    /// Ids in file order.
    order: Vec<u32>,
    tracks: HashMap<u32, Box<TrackState>>,
    left_out: Vec<LeftOutTrack>,
}

/// Reads the title of a file of `size` bytes.
///
/// # Errors
/// [`MediaError`], which says at which byte and what to do.
pub fn read<F: Read + Seek>(file: &mut F, size: u64) -> Result<Title, MediaError> {
    let mut source = Source::new(file, size);
    let layout = layout::walk(&mut source)?;
    let mut budget = Budget::new(size);
    let mut movie = read_movie(&mut source, &layout, &mut budget)?;
    let mut fragmented = false;
    if let Some(defaults) = &movie.defaults {
        fragmented = !layout.fragments.is_empty();
        for span in &layout.fragments {
            let moof = source.bytes(span.body_at, span.end - span.body_at, MOOF_BYTES_MAX, "moof")?;
            let view = View { bytes: &moof, at: span.body_at };
            fragments::add_fragment(view, span.at, defaults, &mut movie.tracks, &mut budget)?;
        }
    }
    let mut tracks = Vec::new();
    let mut shapes = Vec::new();
    for id in std::mem::take(&mut movie.order) {
        let Some(state) = movie.tracks.remove(&id) else { continue };
        match finish_track(*state, movie.timescale, fragmented, &mut source, &mut budget)? {
            Ok((track, shape)) => {
                tracks.push(track);
                shapes.push(shape);
            }
            Err(left_out) => movie.left_out.push(left_out),
        }
    }
    movie.left_out.sort_by_key(|track| track.id);
    if tracks.is_empty() {
        let reasons: Vec<_> = movie.left_out.iter().map(|t| format!("track {} ({}): {}", t.id, t.format, t.reason)).collect();
        let reason = if reasons.is_empty() { "it has no tracks".to_owned() } else { reasons.join("; ") };
        return Err(MediaError::Unsupported { reason });
    }
    if fragmented {
        start_at_zero(&mut tracks, &mut shapes)?;
    }
    let container = match (layout.quicktime, fragmented) {
        (true, false) => "QuickTime",
        (true, true) => "fragmented QuickTime",
        (false, false) => "MP4",
        (false, true) => "fragmented MP4",
    };
    let figures: Vec<_> = tracks.iter().zip(shapes).map(|(track, shape)| measure(track, shape)).collect();
    let description = describe(container, size, &tracks, &figures, &movie.left_out);
    Ok(Title { tracks, left_out: movie.left_out, description })
}

fn read_movie<F: Read + Seek>(source: &mut Source<'_, F>, layout: &Layout, budget: &mut Budget) -> Result<Movie, MediaError> {
    let mut movie = Movie { timescale: 0, defaults: None, order: Vec::new(), tracks: HashMap::new(), left_out: Vec::new() };
    let mut chapters = HashSet::new();
    let mut seen = HashSet::new();
    let mut at = layout.moov.body_at;
    while at < layout.moov.end {
        let Some(header) = source.header(at)? else { break };
        // Zeros end a container; so does what is too short for a box.
        if header.size == 0 {
            break;
        }
        let span = Span { at, body_at: at.saturating_add(header.len), end: at.saturating_add(header.size) };
        if header.size < header.len || span.end > layout.moov.end {
            let what = format!("box '{}' in moov says {} bytes where {} are left", FourCc(header.kind), header.size, layout.moov.end - at);
            return Err(MediaError::Broken { what, at });
        }
        let mut body = |limit, what| source.bytes(span.body_at, span.end - span.body_at, limit, what);
        match &header.kind {
            b"mvhd" => movie.timescale = movie_timescale(View { bytes: &body(HEADER_BYTES_MAX, "mvhd")?, at: span.body_at })?,
            b"mvex" => {
                let mvex = body(HEADER_BYTES_MAX, "mvex")?;
                movie.defaults = Some(TrackDefaults::parse(View { bytes: &mvex, at: span.body_at })?);
            }
            b"cmov" => return Err(MediaError::Unsupported { reason: "its moov box is compressed (cmov); remux it".into() }),
            b"trak" => {
                if seen.len() >= TRACKS_MAX {
                    let (what, limit) = ("the number of tracks".to_owned(), TRACKS_MAX as u64);
                    return Err(MediaError::Limit { what, value: limit + 1, limit, at });
                }
                let bytes = body(TRAK_BYTES_MAX, "trak")?;
                let trak = track::parse_trak(View { bytes: &bytes, at: span.body_at }, layout.quicktime, budget)?;
                chapters.extend(trak.chapters);
                let id = match &trak.parsed {
                    Parsed::Delivered(state) => state.id,
                    Parsed::LeftOut(track) => track.id,
                };
                if !seen.insert(id) {
                    return Err(MediaError::Broken { what: format!("two tracks have the id {id}"), at });
                }
                match trak.parsed {
                    Parsed::Delivered(state) => {
                        movie.order.push(id);
                        movie.tracks.insert(id, state);
                    }
                    Parsed::LeftOut(track) => movie.left_out.push(track),
                }
            }
            _ => {}
        }
        at = span.end;
    }
    if movie.timescale == 0 {
        return Err(MediaError::Broken { what: "moov has no movie header (mvhd)".into(), at: layout.moov.at });
    }
    for id in movie.order.iter().filter(|id| chapters.contains(id)) {
        if movie.tracks.remove(id).is_some() {
            let reason = "chapter marks are not delivered".to_owned();
            movie.left_out.push(LeftOutTrack { id: *id, format: "chap".to_owned(), reason });
        }
    }
    Ok(movie)
}

fn movie_timescale(mvhd: View<'_>) -> Result<u32, MediaError> {
    let mut fields = mvhd.fields("mvhd");
    let (version, _) = fields.version_flags()?;
    fields.u32_or_u64(version)?;
    fields.u32_or_u64(version)?;
    match fields.u32()? {
        0 => Err(fields.broken("a time scale of zero")),
        timescale => Ok(timescale),
    }
}

fn finish_track<F: Read + Seek>(
    state: TrackState,
    movie_timescale: u32,
    fragmented: bool,
    source: &mut Source<'_, F>,
    budget: &mut Budget,
) -> Result<Result<(Track, Shape), LeftOutTrack>, MediaError> {
    let TrackState { id, kind, timescale, codec, width, height, parameter_sets_inside, edits, collector } = state;
    let mut samples = collector.finish(budget)?;
    let media_samples = samples.len();
    samples.decode_before_composition().map_err(|error| MediaError::Index { track: id, sample: 1, error })?;
    let context = edits::Context { track: id, kind, timescale, movie_timescale, fragmented };
    let edited = edits::apply(samples, &edits, context)?;
    let left_out = |codec, reason: &str| Ok(Err(LeftOutTrack { id, format: codec_label(codec).to_owned(), reason: reason.to_owned() }));
    if edited.samples.is_empty() {
        return left_out(&codec, if media_samples == 0 { "it has no samples" } else { "its edit list shows none of its samples" });
    }
    let mut track = Track { id, kind, codec, timescale, samples: edited.samples };
    if parameter_sets_inside && !parameter_sets::fill_from_samples(&mut track, source)? {
        return left_out(&track.codec, "its parameter sets are neither in the sample entry nor in the first sync sample");
    }
    Ok(Ok((track, Shape { width, height, end: edited.end })))
}

/// A recording of a live stream may start at any time of the stream's clock; its first sample is then the start of the title.
fn start_at_zero(tracks: &mut [Track], shapes: &mut [Shape]) -> Result<(), MediaError> {
    let start_ns =
        |track: &Track| track.samples.iter().take(64).map(|s| s.dts.saturating_add(i64::from(s.cts_offset))).min().map(|t| track.ns_of(t));
    let Some(start_ns) = tracks.iter().filter_map(start_ns).min().filter(|ns| *ns > START_NS_MAX) else { return Ok(()) };
    for (track, shape) in tracks.iter_mut().zip(shapes) {
        let ticks = track.ticks_of(start_ns);
        track.samples.shift(-ticks).map_err(|error| MediaError::Index { track: track.id, sample: 1, error })?;
        shape.end = shape.end.map(|end| end.saturating_sub(ticks));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
