//! `esds`: what an elementary stream is (ISO/IEC 14496-1 7.2.6).
//!
//! Descriptors nest, each with its length; but writers get the lengths of the outer ones wrong (the `mp4` crate does), so they are read one
//! after the other, as other players do: an outer one's fields are followed by the inner ones.

/// What matters of an `esds`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Esds {
    pub object_type: u8,
    /// Decoder-specific information; empty when there is none.
    pub config: Vec<u8>,
}

mod tag {
    pub const ES: u8 = 3;
    pub const DECODER_CONFIG: u8 = 4;
    pub const DECODER_SPECIFIC: u8 = 5;
}

/// Descriptors looked at.
const DESCRIPTORS_MAX: usize = 64;

impl Esds {
    /// Parses the body of an `esds` box; `None` when there is no decoder configuration in it.
    pub fn parse(body: &[u8]) -> Option<Self> {
        let mut found = None;
        // Version and flags come first.
        let mut rest = body.get(4..)?;
        for _ in 0..DESCRIPTORS_MAX {
            let Some((tag, len, inside)) = header(rest) else { break };
            match tag {
                tag::ES => rest = after_es_fields(inside)?,
                tag::DECODER_CONFIG => {
                    found = Some(Self { object_type: *inside.first()?, config: Vec::new() });
                    // Stream type, buffer size, highest and mean rate.
                    rest = inside.get(13..)?;
                }
                tag::DECODER_SPECIFIC => {
                    let (config, after) = inside.split_at(len.min(inside.len()));
                    if let Some(esds) = found.as_mut().filter(|esds| esds.config.is_empty()) {
                        esds.config = config.to_vec();
                    }
                    rest = after;
                }
                _ => rest = inside.get(len..).unwrap_or_default(),
            }
        }
        found
    }
}

/// Tag, length, and the bytes from the descriptor's body on.
fn header(bytes: &[u8]) -> Option<(u8, usize, &[u8])> {
    let (tag, mut rest) = bytes.split_first()?;
    let mut len = 0;
    // At most four groups of seven bits.
    for _ in 0..4 {
        let (byte, after) = rest.split_first()?;
        rest = after;
        len = len << 7 | usize::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            break;
        }
    }
    Some((*tag, len, rest))
}

fn after_es_fields(inside: &[u8]) -> Option<&[u8]> {
    let flags = *inside.get(2)?;
    let mut skip = 3;
    if flags & 0x80 != 0 {
        skip += 2;
    }
    if flags & 0x40 != 0 {
        skip += 1 + usize::from(*inside.get(skip)?);
    }
    if flags & 0x20 != 0 {
        skip += 2;
    }
    inside.get(skip..)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_one_byte_and_of_four() {
        let short = [0, 0, 0, 0, 3, 22, 0, 1, 0, 4, 17, 0x40, 0x15, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5, 2, 0x11, 0x90, 6, 1, 2];
        let expected = Some(Esds { object_type: 0x40, config: vec![0x11, 0x90] });
        assert_eq!(Esds::parse(&short), expected);
        let mut long = vec![0, 0, 0, 0, 3, 0x80, 0x80, 0x80, 34, 0, 1, 0, 4, 0x80, 0x80, 0x80, 20, 0x40, 0x15];
        long.extend([0; 11]);
        long.extend([5, 0x80, 0x80, 0x80, 2, 0x11, 0x90, 6, 0x80, 0x80, 0x80, 1, 2]);
        assert_eq!(Esds::parse(&long), expected);
        for len in 0..long.len() {
            // No cut of it makes up a configuration.
            assert!(Esds::parse(&long[..len]).is_none_or(|esds| expected.as_ref().is_some_and(|e| e.config.starts_with(&esds.config))));
        }
    }

    #[test]
    fn optional_fields_and_wrong_lengths() {
        let body = [0, 0, 0, 0, 3, 99, 0, 1, 0xe0, 0, 9, 2, b'h', b'i', 0, 8, 4, 1, 0x6b, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(Esds::parse(&body), Some(Esds { object_type: 0x6b, config: Vec::new() }));
    }
}
