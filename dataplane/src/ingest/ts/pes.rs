//! PES packets (ISO 13818-1 2.4.3.6): the access units of an elementary stream with their times.

/// What a PES header says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PesHeader {
    /// Presentation time, 33 bits of 90 kHz.
    pub pts: Option<u64>,
    /// Decode time, where it differs.
    pub dts: Option<u64>,
    /// Bytes of the payload; 0 when it lasts until the next PES packet.
    pub payload_bytes: usize,
}

impl PesHeader {
    /// Reads the header at the front of `packet`; what follows is payload.
    pub fn parse(packet: &[u8]) -> Option<(Self, &[u8])> {
        let (&[0, 0, 1, _, length_high, length_low, flags, more_flags, header_bytes], rest) = packet.split_first_chunk::<9>()? else {
            return None;
        };
        // '10', else it is a packet of a stream without this header.
        if flags >> 6 != 2 {
            return None;
        }
        let (header, payload) = rest.split_at_checked(usize::from(header_bytes))?;
        let pts = if more_flags & 0x80 != 0 { time(header) } else { None };
        let dts = if more_flags & 0xc0 == 0xc0 { header.get(5..).and_then(time) } else { None };
        let length = usize::from(u16::from_be_bytes([length_high, length_low]));
        let payload_bytes = length.saturating_sub(3 + usize::from(header_bytes));
        Some((Self { pts, dts, payload_bytes: if length == 0 { 0 } else { payload_bytes } }, payload))
    }
}

/// 33 bits in five bytes with marker bits between.
fn time(bytes: &[u8]) -> Option<u64> {
    let &[a, b, c, d, e] = bytes.first_chunk::<5>()?;
    let [a, b, c, d, e] = [a, b, c, d, e].map(u64::from);
    Some((a >> 1 & 7) << 30 | b << 22 | (c >> 1) << 15 | d << 7 | e >> 1)
}

/// A PES packet under construction.
#[derive(Debug)]
pub struct PesBuffer {
    data: Vec<u8>,
    max: usize,
    header: Option<PesHeader>,
    broken: bool,
}

impl PesBuffer {
    /// A buffer for PES packets of at most `max` bytes, which are taken now.
    pub fn new(max: usize) -> Self {
        Self { data: Vec::with_capacity(max), max, header: None, broken: false }
    }

    /// Packets are missing here.
    pub fn lost(&mut self) {
        self.broken = true;
    }

    /// A packet begins with this payload. What was there before must have been taken with [`Self::complete`].
    pub fn begin(&mut self, payload: &[u8]) {
        self.data.clear();
        self.broken = false;
        self.header = None;
        if let Some((header, data)) = PesHeader::parse(payload) {
            self.header = Some(header);
            self.append(data);
        }
    }

    /// It goes on with this payload.
    pub fn append(&mut self, payload: &[u8]) {
        if self.header.is_none() {
            return;
        }
        if payload.len() > self.max.saturating_sub(self.data.len()) {
            self.broken = true;
            return;
        }
        self.data.extend_from_slice(payload);
    }

    /// All of its bytes are here, as far as it said how many there are.
    pub fn is_full(&self) -> bool {
        self.header.is_some_and(|header| header.payload_bytes > 0 && self.data.len() >= header.payload_bytes)
    }

    /// The packet, which ends here: its header and data, and whether nothing of it is missing; `None` when none has begun.
    pub fn complete(&mut self) -> Option<(PesHeader, &[u8], bool)> {
        let header = self.header.take()?;
        let (mut data, mut whole) = (self.data.as_slice(), !self.broken);
        if header.payload_bytes > 0 {
            whole &= data.len() >= header.payload_bytes;
            data = data.get(..header.payload_bytes).unwrap_or(data);
        }
        Some((header, data, whole))
    }
}
