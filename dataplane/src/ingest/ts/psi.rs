//! Program-specific information (ISO 13818-1 2.4.4): which PIDs carry what.

/// Longest section, bytes (ISO 13818-1 2.4.4.1: 1021 after the length field).
const SECTION_BYTES_MAX: usize = 1024;
/// Elementary streams that are looked at.
pub const STREAMS_MAX: usize = 16;

/// Puts a section together from the payloads of its packets.
#[derive(Debug)]
pub struct SectionBuffer {
    data: Box<[u8; SECTION_BYTES_MAX]>,
    len: usize,
    /// A section has begun and is not complete.
    open: bool,
}

impl Default for SectionBuffer {
    fn default() -> Self {
        Self { data: Box::new([0; SECTION_BYTES_MAX]), len: 0, open: false }
    }
}

impl SectionBuffer {
    /// Packets are missing here.
    pub fn lost(&mut self) {
        (self.open, self.len) = (false, 0);
    }

    /// Takes the payload of the next packet; calls `each` with each section that is complete and whose CRC is right.
    pub fn push(&mut self, starts: bool, payload: &[u8], each: &mut dyn FnMut(&[u8])) {
        let mut rest = payload;
        if starts {
            let Some((&pointer, after)) = payload.split_first() else { return };
            let Some((end_of_last, begin)) = after.split_at_checked(usize::from(pointer)) else { return self.lost() };
            if self.open {
                self.take(end_of_last, each);
            }
            (self.open, self.len) = (true, 0);
            rest = begin;
        }
        // After a section another may follow at once; 0xff is stuffing.
        while self.open && !rest.is_empty() {
            if self.len == 0 && rest.first() == Some(&0xff) {
                self.open = false;
                break;
            }
            let taken = self.take(rest, each);
            rest = rest.get(taken..).unwrap_or(&[]);
            if taken == 0 {
                break;
            }
        }
    }

    /// Takes as much as the section wants; how much that is.
    fn take(&mut self, bytes: &[u8], each: &mut dyn FnMut(&[u8])) -> usize {
        let mut taken = 0;
        while taken < bytes.len() {
            let wanted = self.wanted();
            let step = wanted.saturating_sub(self.len).min(bytes.len() - taken);
            if step == 0 {
                break;
            }
            let (Some(to), Some(from)) = (self.data.get_mut(self.len..self.len + step), bytes.get(taken..taken + step)) else {
                self.lost();
                return bytes.len();
            };
            to.copy_from_slice(from);
            self.len += step;
            taken += step;
        }
        if self.len >= 3 && self.len == self.wanted() {
            if let Some(section) = self.data.get(..self.len).filter(|section| crc32(section) == 0) {
                each(section);
            }
            self.len = 0;
        }
        taken
    }

    /// Bytes of the section, as far as it has told its length.
    fn wanted(&self) -> usize {
        if self.len < 3 {
            return 3;
        }
        let [_, high, low, ..] = *self.data;
        (3 + (usize::from(high & 0xf) << 8 | usize::from(low))).min(SECTION_BYTES_MAX)
    }
}

/// CRC-32/MPEG-2 (ISO 13818-1 annex A); 0 over a section with its CRC.
pub fn crc32(bytes: &[u8]) -> u32 {
    bytes.iter().fold(u32::MAX, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte) << 24, |crc, _| if crc >> 31 == 1 { crc << 1 ^ 0x04c1_1db7 } else { crc << 1 })
    })
}

/// PID of the map of the first program that a PAT section names (ISO 13818-1 2.4.4.3).
pub fn first_program(section: &[u8]) -> Option<u16> {
    let body = body_of(section, 0)?;
    let programs = body.chunks_exact(4).filter_map(|entry| {
        let &[a, b, c, d] = entry else { return None };
        Some((u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]) & 0x1fff))
    });
    // Program 0 is the network information.
    programs.into_iter().find(|&(program, _)| program != 0).map(|(_, pid)| pid)
}

/// One elementary stream of a program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stream {
    /// `stream_type` (ISO 13818-1 table 2-34).
    pub kind: u8,
    /// Its PID.
    pub pid: u16,
}

/// The streams of a program map section (ISO 13818-1 2.4.4.8), the first [`STREAMS_MAX`] of them, and how many there are.
pub fn streams(section: &[u8]) -> Option<([Stream; STREAMS_MAX], usize)> {
    let body = body_of(section, 2)?;
    let (&[_, _, high, low], rest) = body.split_first_chunk::<4>()?;
    let mut rest = rest.get(usize::from(high & 0xf) << 8 | usize::from(low)..)?;
    let (mut streams, mut count) = ([Stream::default(); STREAMS_MAX], 0);
    while let Some((&[kind, pid_high, pid_low, info_high, info_low], after)) = rest.split_first_chunk::<5>() {
        if let Some(place) = streams.get_mut(count) {
            *place = Stream { kind, pid: u16::from_be_bytes([pid_high, pid_low]) & 0x1fff };
            count += 1;
        }
        rest = after.get(usize::from(info_high & 0xf) << 8 | usize::from(info_low)..)?;
    }
    Some((streams, count))
}

/// What lies between the common header of a long section and its CRC; `None` for another table, or one that is not current.
fn body_of(section: &[u8], table: u8) -> Option<&[u8]> {
    let (&[id, _, _, _, _, version, ..], rest) = section.split_first_chunk::<8>()?;
    let current = version & 1 == 1;
    (id == table && current).then(|| rest.get(..rest.len().checked_sub(4)?)).flatten()
}
