//! Reading compound packets.

use super::{
    COUNT_MASK, HEADER_BYTES, NtpTime, PADDING, REPORT_BYTES, ReportBlock, SENDER_INFO_BYTES, SSRC_BYTES, SenderInfo, VERSION, packet_type,
    word,
};

/// Why a datagram is no RTCP compound packet (RFC 3550 A.2). `at` is a byte offset in the datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadRtcp {
    /// A packet or something in it reaches past the end.
    #[error("RTCP packet at byte {at} is cut short")]
    Truncated {
        /// Where that packet starts.
        at: usize,
    },
    /// Not version 2.
    #[error("RTCP packet at byte {at} is not of version 2")]
    Version {
        /// Where that packet starts.
        at: usize,
    },
    /// The first packet is no sender or receiver report.
    #[error("a compound packet starts with packet type {0} in place of a report")]
    First(u8),
    /// Padding in another packet than the last, or of a size that cannot be.
    #[error("RTCP packet at byte {at} has padding that cannot be")]
    Padding {
        /// Where that packet starts.
        at: usize,
    },
}

/// A compound packet whose lengths all have been checked.
#[derive(Clone, Copy, Debug)]
pub struct Compound<'a>(&'a [u8]);

/// One packet of a compound packet.
#[derive(Clone, Copy, Debug)]
pub enum Packet<'a> {
    /// SR.
    SenderReport {
        /// The reporter.
        ssrc: u32,
        /// What it sent.
        info: SenderInfo,
        /// What it received.
        reports: Reports<'a>,
    },
    /// RR.
    ReceiverReport {
        /// The reporter.
        ssrc: u32,
        /// What it received.
        reports: Reports<'a>,
    },
    /// SDES.
    Description(SdesItems<'a>),
    /// BYE.
    Bye(Bye<'a>),
    /// APP or any other type.
    Other(u8),
}

/// A packet's place in the datagram.
#[derive(Clone, Copy)]
struct Raw<'a> {
    count: usize,
    kind: u8,
    body: &'a [u8],
}

impl<'a> Compound<'a> {
    /// Checks all of it.
    ///
    /// # Errors
    /// [`BadRtcp`].
    pub fn new_checked(datagram: &'a [u8]) -> Result<Self, BadRtcp> {
        let mut at = 0;
        loop {
            let (raw, next) = raw_at(datagram, at)?;
            if at == 0 && !matches!(raw.kind, packet_type::SR | packet_type::RR) {
                return Err(BadRtcp::First(raw.kind));
            }
            if !raw.is_whole() {
                return Err(BadRtcp::Truncated { at });
            }
            if next == datagram.len() {
                return Ok(Self(datagram));
            }
            at = next;
        }
    }

    /// The packets in order.
    pub fn packets(&self) -> Packets<'a> {
        Packets { datagram: self.0, at: 0 }
    }
}

/// The packet at `at` and where the next one starts.
fn raw_at(datagram: &[u8], at: usize) -> Result<(Raw<'_>, usize), BadRtcp> {
    let rest = datagram.get(at..).unwrap_or(&[]);
    let (&[first, kind, high, low], _) = rest.split_first_chunk::<HEADER_BYTES>().ok_or(BadRtcp::Truncated { at })?;
    if first >> 6 != VERSION {
        return Err(BadRtcp::Version { at });
    }
    let len = (usize::from(u16::from_be_bytes([high, low])) + 1) * 4;
    let mut body = rest.get(HEADER_BYTES..len).ok_or(BadRtcp::Truncated { at })?;
    if first & PADDING != 0 {
        // RFC 3550 6.4.1: only the last packet may be padded, to a multiple of four bytes, the count of padding being its last byte.
        let padding = usize::from(body.last().copied().unwrap_or(0));
        let possible = at > 0 && len == rest.len() && padding > 0 && padding.is_multiple_of(4);
        let kept = body.len().checked_sub(padding).filter(|_| possible).ok_or(BadRtcp::Padding { at })?;
        body = &body[..kept];
    }
    Ok((Raw { count: usize::from(first & COUNT_MASK), kind, body }, at + len))
}

impl<'a> Raw<'a> {
    /// Does all that it announces fit?
    fn is_whole(&self) -> bool {
        let needed = match self.kind {
            packet_type::SR => SSRC_BYTES + SENDER_INFO_BYTES + self.count * REPORT_BYTES,
            packet_type::RR => SSRC_BYTES + self.count * REPORT_BYTES,
            packet_type::BYE => self.count * SSRC_BYTES,
            packet_type::SDES => {
                let mut items = SdesItems::new(self.body, self.count);
                while items.next().is_some() {}
                return items.chunks == 0;
            }
            _ => 0,
        };
        self.body.len() >= needed
    }

    fn parse(&self) -> Packet<'a> {
        let ssrc = word(self.body, 0);
        let reports = |at: usize| Reports { bytes: self.body.get(at..at + self.count * REPORT_BYTES).unwrap_or(&[]) };
        match self.kind {
            packet_type::SR => Packet::SenderReport {
                ssrc,
                info: SenderInfo {
                    ntp: NtpTime(u64::from(word(self.body, 4)) << 32 | u64::from(word(self.body, 8))),
                    rtp_timestamp: word(self.body, 12),
                    packets: word(self.body, 16),
                    octets: word(self.body, 20),
                },
                reports: reports(SSRC_BYTES + SENDER_INFO_BYTES),
            },
            packet_type::RR => Packet::ReceiverReport { ssrc, reports: reports(SSRC_BYTES) },
            packet_type::SDES => Packet::Description(SdesItems::new(self.body, self.count)),
            packet_type::BYE => {
                let (sources, rest) = self.body.split_at_checked(self.count * SSRC_BYTES).unwrap_or_default();
                let reason = rest.split_first().and_then(|(&len, text)| text.get(..usize::from(len))).unwrap_or(&[]);
                Packet::Bye(Bye { sources, reason })
            }
            other => Packet::Other(other),
        }
    }
}

/// Iterator over the packets of a compound packet.
#[derive(Clone, Debug)]
pub struct Packets<'a> {
    datagram: &'a [u8],
    at: usize,
}

impl<'a> Iterator for Packets<'a> {
    type Item = Packet<'a>;

    fn next(&mut self) -> Option<Packet<'a>> {
        let (raw, next) = raw_at(self.datagram, self.at).ok()?;
        self.at = next;
        Some(raw.parse())
    }
}

/// Iterator over report blocks.
#[derive(Clone, Copy, Debug)]
pub struct Reports<'a> {
    bytes: &'a [u8],
}

impl Iterator for Reports<'_> {
    type Item = ReportBlock;

    fn next(&mut self) -> Option<ReportBlock> {
        let (block, rest) = self.bytes.split_first_chunk::<REPORT_BYTES>()?;
        self.bytes = rest;
        let lost = word(block, 4);
        Some(ReportBlock {
            ssrc: word(block, 0),
            fraction_lost: (lost >> 24) as u8,
            // 24 bits, signed: the shift left and the arithmetic shift back extend the sign.
            cumulative_lost: (lost << 8) as i32 >> 8,
            highest_seq: word(block, 8),
            jitter: word(block, 12),
            last_sr: word(block, 16),
            delay_since_last_sr: word(block, 20),
        })
    }
}

/// BYE.
#[derive(Clone, Copy, Debug)]
pub struct Bye<'a> {
    sources: &'a [u8],
    /// Why, in UTF-8 if the sender keeps to the standard; empty for none.
    pub reason: &'a [u8],
}

impl Bye<'_> {
    /// Is `ssrc` among those that leave?
    pub fn includes(&self, ssrc: u32) -> bool {
        self.sources.chunks_exact(SSRC_BYTES).any(|source| word(source, 0) == ssrc)
    }
}

/// One item of SDES.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SdesItem<'a> {
    /// The source that it describes.
    pub ssrc: u32,
    /// Item type ([`SDES_CNAME`](super::SDES_CNAME) and others).
    pub kind: u8,
    /// At most 255 bytes, UTF-8 if the sender keeps to the standard.
    pub value: &'a [u8],
}

/// Iterator over the items of all chunks of SDES (RFC 3550 6.5).
#[derive(Clone, Copy, Debug)]
pub struct SdesItems<'a> {
    body: &'a [u8],
    at: usize,
    /// Chunks not yet finished.
    chunks: usize,
    /// The chunk being read.
    ssrc: Option<u32>,
}

impl<'a> SdesItems<'a> {
    fn new(body: &'a [u8], chunks: usize) -> Self {
        Self { body, at: 0, chunks, ssrc: None }
    }
}

impl<'a> Iterator for SdesItems<'a> {
    type Item = SdesItem<'a>;

    fn next(&mut self) -> Option<SdesItem<'a>> {
        while self.chunks > 0 {
            let ssrc = match self.ssrc {
                Some(ssrc) => ssrc,
                None => {
                    self.body.get(self.at..self.at + SSRC_BYTES)?;
                    let ssrc = word(self.body, self.at);
                    self.at += SSRC_BYTES;
                    *self.ssrc.insert(ssrc)
                }
            };
            let kind = *self.body.get(self.at)?;
            if kind == 0 {
                // A chunk ends with at least one zero byte, up to a multiple of four.
                self.at = (self.at + 1).next_multiple_of(4);
                self.chunks -= 1;
                self.ssrc = None;
                continue;
            }
            let len = usize::from(*self.body.get(self.at + 1)?);
            let value = self.body.get(self.at + 2..self.at + 2 + len)?;
            self.at += 2 + len;
            return Some(SdesItem { ssrc, kind, value });
        }
        None
    }
}
