//! One `trak`: what it is, how it is coded, its edits, and its samples as far as `moov` has them.

use super::boxes::{BoxView, View};
use super::edits::{Edit, parse_elst};
use super::entries::{Entry, parse_stsd};
use super::sink::{Budget, Collector, PcmShape, Sink};
use super::tables::Tables;
use crate::media::error::{FourCc, MediaError};
use crate::media::{Codec, LeftOutTrack, TrackKind};

/// A track that is delivered.
#[derive(Debug)]
pub struct TrackState {
    pub id: u32,
    pub kind: TrackKind,
    pub timescale: u32,
    pub codec: Codec,
    pub width: u32,
    pub height: u32,
    pub parameter_sets_inside: bool,
    pub edits: Vec<Edit>,
    pub collector: Collector,
}

/// What a `trak` turned out to be.
#[derive(Debug)]
pub enum Parsed {
    Delivered(Box<TrackState>),
    LeftOut(LeftOutTrack),
}

/// A parsed `trak`, and the tracks that it names as its chapters.
#[derive(Debug)]
pub struct Trak {
    pub parsed: Parsed,
    pub chapters: Vec<u32>,
}

/// Boxes of a `trak` that matter.
struct Parts<'a> {
    tkhd: View<'a>,
    mdhd: View<'a>,
    hdlr: View<'a>,
    stsd: View<'a>,
    stbl: View<'a>,
    dref: Option<View<'a>>,
    elst: Option<View<'a>>,
    tref: Option<View<'a>>,
}

/// Parses a `trak`.
pub fn parse_trak(trak: View<'_>, quicktime: bool, budget: &mut Budget) -> Result<Trak, MediaError> {
    let parts = Parts::find(trak)?;
    let id = track_id(parts.tkhd)?;
    let handler = FourCc(handler(parts.hdlr)?);
    let chapters = parts.tref.map(chapters).transpose()?.unwrap_or_default();
    let left_out = |format: FourCc, reason: String| {
        let parsed = Parsed::LeftOut(LeftOutTrack { id, format: format.to_string(), reason });
        Ok(Trak { parsed, chapters: chapters.clone() })
    };
    let kind = match &handler.0 {
        b"vide" => TrackKind::Video,
        b"soun" => TrackKind::Audio,
        other => return left_out(first_format(parts.stsd).unwrap_or(handler), no_media(*other)),
    };
    let timescale = timescale(parts.mdhd)?;
    let tables = Tables::parse(parts.stbl)?;
    let entries = parse_stsd(parts.stsd, kind, quicktime)?;
    let entry = match pick(&entries, &tables.entries_used()) {
        Ok(entry) => entry,
        Err((format, reason)) => return left_out(format, reason),
    };
    let codec = match entry.codec {
        Ok(codec) => codec,
        Err(reason) => return left_out(entry.format, reason),
    };
    if parts.dref.map(elsewhere).transpose()?.unwrap_or(false) {
        return left_out(entry.format, "its media data is in another file".to_owned());
    }
    let pcm = pcm_shape(&codec);
    if let (Some(1), TrackKind::Audio, None) = (tables.constant_size(), kind, pcm) {
        return left_out(entry.format, "its table counts audio frames instead of packets (old QuickTime)".to_owned());
    }
    let edits = parts.elst.map(parse_elst).transpose()?.unwrap_or_default();
    let mut collector = Collector::new(id, timescale, pcm);
    tables.walk(&mut Sink { budget, track: &mut collector })?;
    let state = TrackState {
        id,
        kind,
        timescale,
        codec,
        width: entry.width,
        height: entry.height,
        parameter_sets_inside: entry.parameter_sets_inside,
        edits,
        collector,
    };
    Ok(Trak { parsed: Parsed::Delivered(Box::new(state)), chapters })
}

impl<'a> Parts<'a> {
    fn find(trak: View<'a>) -> Result<Self, MediaError> {
        let [tkhd, mdia, edts, tref] = children(trak, [b"tkhd", b"mdia", b"edts", b"tref"])?;
        let mdia = need(mdia, "mdia", trak)?;
        let [mdhd, hdlr, minf] = children(mdia, [b"mdhd", b"hdlr", b"minf"])?;
        let minf = need(minf, "minf", mdia)?;
        let [stbl, dinf] = children(minf, [b"stbl", b"dinf"])?;
        let stbl = need(stbl, "stbl", minf)?;
        let [stsd] = children(stbl, [b"stsd"])?;
        let [elst] = edts.map_or(Ok([None]), |edts| children(edts, [b"elst"]))?;
        let [dref] = dinf.map_or(Ok([None]), |dinf| children(dinf, [b"dref"]))?;
        Ok(Self {
            tkhd: need(tkhd, "tkhd", trak)?,
            mdhd: need(mdhd, "mdhd", mdia)?,
            hdlr: need(hdlr, "hdlr", mdia)?,
            stsd: need(stsd, "stsd", stbl)?,
            stbl,
            dref,
            elst,
            tref,
        })
    }
}

/// The bodies of the first box of each kind.
pub fn children<'a, const N: usize>(parent: View<'a>, kinds: [&[u8; 4]; N]) -> Result<[Option<View<'a>>; N], MediaError> {
    let mut found = [None; N];
    for child in parent.boxes() {
        let BoxView { kind, body } = child?;
        if let Some(place) = kinds.iter().zip(&mut found).find_map(|(k, place)| (**k == kind && place.is_none()).then_some(place)) {
            *place = Some(body);
        }
    }
    Ok(found)
}

fn need<'a>(found: Option<View<'a>>, kind: &str, parent: View<'a>) -> Result<View<'a>, MediaError> {
    found.ok_or_else(|| MediaError::Broken { what: format!("no {kind} box in the one that starts here"), at: parent.at })
}

fn track_id(tkhd: View<'_>) -> Result<u32, MediaError> {
    let mut fields = tkhd.fields("tkhd");
    let (version, _) = fields.version_flags()?;
    fields.u32_or_u64(version)?;
    fields.u32_or_u64(version)?;
    fields.u32()
}

fn timescale(mdhd: View<'_>) -> Result<u32, MediaError> {
    let mut fields = mdhd.fields("mdhd");
    let (version, _) = fields.version_flags()?;
    fields.u32_or_u64(version)?;
    fields.u32_or_u64(version)?;
    match fields.u32()? {
        0 => Err(fields.broken("a time scale of zero")),
        timescale => Ok(timescale),
    }
}

fn handler(hdlr: View<'_>) -> Result<[u8; 4], MediaError> {
    let mut fields = hdlr.fields("hdlr");
    fields.skip(8)?;
    Ok(fields.u32()?.to_be_bytes())
}

fn first_format(stsd: View<'_>) -> Option<FourCc> {
    stsd.after(8).boxes().next()?.ok().map(|entry| FourCc(entry.kind))
}

fn no_media(handler: [u8; 4]) -> String {
    match &handler {
        b"text" | b"sbtl" | b"subt" | b"subp" | b"clcp" => "text and subtitles are not delivered".to_owned(),
        b"tmcd" => "time code is not delivered".to_owned(),
        b"hint" => "hint tracks are not delivered: packets are made from the media itself".to_owned(),
        b"meta" | b"mdta" | b"camm" => "timed metadata is not delivered".to_owned(),
        other => format!("a track of kind '{}' is not delivered", FourCc(*other)),
    }
}

/// The track's one sample entry. Several are fine when only one is used, or when all that are used say the same.
fn pick(entries: &[Entry], used: &[usize]) -> Result<Entry, (FourCc, String)> {
    let first = used.first().copied().unwrap_or(0);
    let Some(entry) = entries.get(first) else {
        let format = entries.first().map_or(FourCc(*b"none"), |entry| entry.format);
        return Err((format, format!("its samples name sample entry {}, which is not there", first + 1)));
    };
    if used.iter().any(|&other| entries.get(other).is_none_or(|other| other.codec != entry.codec)) {
        return Err((entry.format, "its coding changes on the way (several sample entries are used)".to_owned()));
    }
    Ok(entry.clone())
}

/// True when the first data reference is to another file.
fn elsewhere(dref: View<'_>) -> Result<bool, MediaError> {
    let mut fields = dref.fields("dref");
    fields.skip(8)?;
    let Some(reference) = fields.rest().boxes().next() else { return Ok(false) };
    let (_, flags) = reference?.body.fields("dref entry").version_flags()?;
    Ok(flags & 1 == 0)
}

fn chapters(tref: View<'_>) -> Result<Vec<u32>, MediaError> {
    let [chap] = children(tref, [b"chap"])?;
    let (ids, _) = chap.map_or(&[][..], |chap| chap.bytes).as_chunks::<4>();
    Ok(ids.iter().take(64).map(|id| u32::from_be_bytes(*id)).collect())
}

fn pcm_shape(codec: &Codec) -> Option<PcmShape> {
    match codec {
        Codec::Pcmu { sample_rate, channels } | Codec::Pcma { sample_rate, channels } => {
            Some(PcmShape { frame_bytes: u32::from(*channels), rate_hz: *sample_rate })
        }
        _ => None,
    }
}
