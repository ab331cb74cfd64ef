//! The top level of a file: where `moov` and the fragments are. Media data is stepped over, not read.

use std::io::{Read, Seek};

use super::boxes::Source;
use crate::media::error::{FourCc, MediaError};

/// Boxes at the top level; a day of fragments of a fifth of a second has 900,000.
const TOP_BOXES_MAX: u64 = 4_000_000;

/// A box of the file: where its body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Where the header starts.
    pub at: u64,
    /// Where the body starts.
    pub body_at: u64,
    /// One past the last byte.
    pub end: u64,
}

/// What the top level has.
#[derive(Debug)]
pub struct Layout {
    pub moov: Span,
    pub fragments: Vec<Span>,
    /// The file says that it is QuickTime (brand `qt  `, or no `ftyp` at all).
    pub quicktime: bool,
}

/// Walks the top level.
pub fn walk<F: Read + Seek>(source: &mut Source<'_, F>) -> Result<Layout, MediaError> {
    let size = source.size;
    let mut at = 0;
    let mut boxes = 0u64;
    let mut moov = None;
    let mut fragments = Vec::new();
    let mut quicktime = true;
    let mut hint = String::from("it ends between two boxes");
    while at < size {
        let Some(header) = source.header(at)? else {
            hint = format!("its last {} bytes are no box", size - at);
            break;
        };
        if boxes == 0 && !starts_a_file(header.kind) {
            return Err(MediaError::NotMedia { found: format!("'{}' where a box type belongs", FourCc(header.kind)), at: at + 4 });
        }
        boxes += 1;
        if boxes > TOP_BOXES_MAX {
            return Err(MediaError::Limit { what: "the number of top-level boxes".into(), value: boxes, limit: TOP_BOXES_MAX, at });
        }
        let end = if header.size == 0 { size } else { at.saturating_add(header.size) };
        let span = Span { at, body_at: at + header.len, end };
        if end < span.body_at {
            if moov.is_some() {
                break;
            }
            let what = format!("box '{}' says {} bytes, less than its header", FourCc(header.kind), header.size);
            return Err(MediaError::Broken { what, at });
        }
        let needed = matches!(&header.kind, b"ftyp" | b"moov" | b"moof") && !(moov.is_some() && header.kind == *b"moov");
        if needed && end > size {
            return Err(MediaError::Truncated {
                what: format!("box '{}' (from byte {at})", FourCc(header.kind)),
                needed_end: end,
                first_missing: size,
            });
        }
        match &header.kind {
            b"ftyp" => quicktime = is_quicktime(source, span)?,
            b"moov" if moov.is_none() => moov = Some(span),
            b"moof" => fragments.push(span),
            _ => {}
        }
        if end > size {
            hint = format!("box '{}' from byte {at} should end at byte {end}", FourCc(header.kind));
        }
        if header.size == 0 {
            hint = format!("box '{}' from byte {at} has no size yet and runs to the end", FourCc(header.kind));
        }
        at = end;
    }
    match moov {
        Some(moov) => Ok(Layout { moov, fragments, quicktime }),
        None if size == 0 => Err(MediaError::NotMedia { found: "nothing (the file is empty)".into(), at: 0 }),
        None if boxes == 0 => Err(MediaError::NotMedia { found: format!("only {size} bytes"), at: 0 }),
        None if !fragments.is_empty() => {
            let reason = "it has fragments but no moov: a media segment without its initialisation segment; put that before it";
            Err(MediaError::Unsupported { reason: reason.into() })
        }
        None => Err(MediaError::NoMoov { size, hint }),
    }
}

fn starts_a_file(kind: [u8; 4]) -> bool {
    const FIRST: [&[u8; 4]; 14] =
        [b"ftyp", b"styp", b"moov", b"moof", b"mdat", b"free", b"skip", b"wide", b"pnot", b"sidx", b"uuid", b"PICT", b"emsg", b"prft"];
    FIRST.contains(&&kind)
}

fn is_quicktime<F: Read + Seek>(source: &mut Source<'_, F>, ftyp: Span) -> Result<bool, MediaError> {
    // Major brand, version, compatible brands. No writer lists more than this.
    let len = (ftyp.end - ftyp.body_at).min(256);
    let bytes = source.bytes(ftyp.body_at, len, len, "ftyp")?;
    let (words, _) = bytes.as_chunks::<4>();
    Ok(words.first() == Some(b"qt  ") || words.iter().skip(2).any(|brand| brand == b"qt  "))
}
