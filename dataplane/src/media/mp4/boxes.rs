//! Bytes, boxes and the file they come from: everything that reads lengths and offsets out of a hostile file goes through here.
//!
//! A [`View`] is a run of bytes that knows where in the file it lies, so that every error can name a byte. [`Source`] reads boxes that were
//! found to be wholly inside the file, so that what is allocated is never more than what the file holds.

use std::io::{ErrorKind, Read, Seek, SeekFrom};

use crate::media::error::{FourCc, MediaError};

/// Bytes of the file in memory.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    pub bytes: &'a [u8],
    /// Offset in the file of the first byte.
    pub at: u64,
}

impl<'a> View<'a> {
    /// The bytes after the first `n`; none when there are fewer.
    pub fn after(self, n: usize) -> View<'a> {
        View { bytes: self.bytes.get(n..).unwrap_or_default(), at: self.at.saturating_add(n as u64) }
    }

    /// The boxes one after the other. Ends at a terminator (QuickTime writes four zero bytes) or at less than a header.
    pub fn boxes(self) -> Boxes<'a> {
        Boxes { rest: self }
    }

    /// Fields one after the other; `what` names the place in errors.
    pub fn fields(self, what: &'static str) -> Fields<'a> {
        Fields { rest: self, what }
    }
}

/// A box in memory.
#[derive(Clone, Copy, Debug)]
pub struct BoxView<'a> {
    pub kind: [u8; 4],
    pub body: View<'a>,
}

/// Iterator over the boxes of a [`View`].
pub struct Boxes<'a> {
    rest: View<'a>,
}

impl<'a> Iterator for Boxes<'a> {
    type Item = Result<BoxView<'a>, MediaError>;

    fn next(&mut self) -> Option<Self::Item> {
        let header = Header::parse(self.rest.bytes)?;
        let len = self.rest.bytes.len() as u64;
        let size = match header.size {
            // "To the end of the file" has no meaning inside another box; zeros are a terminator.
            0 => return None,
            size if size < header.len || size > len => {
                let at = self.rest.at;
                self.rest = View { bytes: &[], at };
                let what = format!("box '{}' says {size} bytes where {len} are left", FourCc(header.kind));
                return Some(Err(MediaError::Broken { what, at }));
            }
            size => size as usize,
        };
        let body = View { bytes: self.rest.bytes.get(..size).unwrap_or_default(), at: self.rest.at }.after(header.len as usize);
        self.rest = self.rest.after(size);
        Some(Ok(BoxView { kind: header.kind, body }))
    }
}

/// A box header.
#[derive(Clone, Copy, Debug)]
pub struct Header {
    pub kind: [u8; 4],
    /// Bytes of the whole box; 0 says "to the end of the file".
    pub size: u64,
    /// Bytes of the header.
    pub len: u64,
}

impl Header {
    /// Most bytes that a header has.
    pub const LEN_MAX: usize = 16;

    /// Parses a header; `None` when there are too few bytes for one.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let (size, rest) = bytes.split_first_chunk::<4>()?;
        let (kind, rest) = rest.split_first_chunk::<4>()?;
        match u32::from_be_bytes(*size) {
            1 => Some(Self { kind: *kind, size: u64::from_be_bytes(*rest.first_chunk::<8>()?), len: 16 }),
            size => Some(Self { kind: *kind, size: u64::from(size), len: 8 }),
        }
    }
}

/// Reads fields one after the other.
pub struct Fields<'a> {
    rest: View<'a>,
    what: &'static str,
}

impl<'a> Fields<'a> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], MediaError> {
        let Some(head) = self.rest.bytes.first_chunk::<N>() else {
            return Err(self.broken("too short"));
        };
        self.rest = self.rest.after(N);
        Ok(*head)
    }

    pub fn u16(&mut self) -> Result<u16, MediaError> {
        Ok(u16::from_be_bytes(self.take()?))
    }

    pub fn u32(&mut self) -> Result<u32, MediaError> {
        Ok(u32::from_be_bytes(self.take()?))
    }

    pub fn u64(&mut self) -> Result<u64, MediaError> {
        Ok(u64::from_be_bytes(self.take()?))
    }

    /// A field of 32 bits in version 0 of a box and of 64 bits later.
    pub fn u32_or_u64(&mut self, version: u8) -> Result<u64, MediaError> {
        if version == 0 { Ok(u64::from(self.u32()?)) } else { self.u64() }
    }

    /// Version and flags of a full box.
    pub fn version_flags(&mut self) -> Result<(u8, u32), MediaError> {
        let word = self.u32()?;
        Ok(((word >> 24) as u8, word & 0x00ff_ffff))
    }

    pub fn skip(&mut self, n: usize) -> Result<(), MediaError> {
        if self.rest.bytes.len() < n {
            return Err(self.broken("too short"));
        }
        self.rest = self.rest.after(n);
        Ok(())
    }

    /// What was not read yet.
    pub fn rest(&self) -> View<'a> {
        self.rest
    }

    /// A count, then as many rows of `N` bytes; the count is checked against the bytes that are there.
    pub fn table<const N: usize>(&mut self) -> Result<&'a [[u8; N]], MediaError> {
        let count = self.u32()? as usize;
        let (rows, _) = self.rest.bytes.as_chunks::<N>();
        match rows.get(..count) {
            Some(rows) => Ok(rows),
            None => Err(self.broken(&format!("says {count} entries but has room for {}", rows.len()))),
        }
    }

    /// An error at the current place.
    pub fn broken(&self, what: &str) -> MediaError {
        MediaError::Broken { what: format!("{}: {what}", self.what), at: self.rest.at }
    }
}

/// The file that is read.
pub struct Source<'f, F> {
    file: &'f mut F,
    pub size: u64,
}

impl<'f, F: Read + Seek> Source<'f, F> {
    pub fn new(file: &'f mut F, size: u64) -> Self {
        Self { file, size }
    }

    /// The box header at `at`; `None` where less than a header is left.
    pub fn header(&mut self, at: u64) -> Result<Option<Header>, MediaError> {
        let left = self.size.saturating_sub(at).min(Header::LEN_MAX as u64);
        let bytes = self.bytes(at, left, Header::LEN_MAX as u64, "a box header")?;
        Ok(Header::parse(&bytes))
    }

    /// `len` bytes from `at`, which must lie within the file and be at most `limit`.
    pub fn bytes(&mut self, at: u64, len: u64, limit: u64, what: &str) -> Result<Vec<u8>, MediaError> {
        if len > limit {
            return Err(MediaError::Limit { what: format!("the size of {what}"), value: len, limit, at });
        }
        let end = at.saturating_add(len);
        if end > self.size {
            return Err(MediaError::Truncated { what: what.to_owned(), needed_end: end, first_missing: self.size });
        }
        let io = |error: std::io::Error| MediaError::Io { what: what.to_owned(), at, error };
        self.file.seek(SeekFrom::Start(at)).map_err(io)?;
        // Memory grows as bytes arrive, so that a size that is not true costs nothing.
        let mut bytes = Vec::with_capacity(len.min(64 << 10) as usize);
        match self.file.by_ref().take(len).read_to_end(&mut bytes) {
            Ok(n) if n as u64 == len => Ok(bytes),
            Ok(_) => Err(MediaError::Changing { what: format!("it became shorter while {what} was read") }),
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
                Err(MediaError::Changing { what: format!("it became shorter while {what} was read") })
            }
            Err(error) => Err(io(error)),
        }
    }
}
