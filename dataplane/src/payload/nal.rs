//! What H.264 (RFC 6184) and H.265 (RFC 7798) have in common: NAL units of a sample become single NAL unit packets, aggregation packets
//! and fragmentation units.
//!
//! ```text
//! sample:  |len|AUD|len|SEI|len|IDR slice ........|          sync sample, parameter sets not in band
//! packets: [AUD SPS PPS SEI] [FU start] [FU] [FU end, marker]
//! ```
//!
//! - A slice goes alone, in fragments when it is larger than a packet.
//! - Runs of small NAL units that are no slices go together in one aggregation packet, so that what precedes the slices is one packet
//!   and no burst.
//! - In a sync sample that does not bring its own parameter sets, those of the sample entry are put in where the standards want them:
//!   behind the access unit delimiter, before everything else. When they do not fit one packet they are left to the SDP.
//! - Empty NAL units are skipped; a long row of them is padding, and so is what follows it.

use std::marker::PhantomData;

use super::{BadSample, PacketMeta, SampleBytes, Step};

/// So many empty NAL units in a row are padding to the end of the sample. Bounds the work per packet.
pub(super) const PADDING_RUN: usize = 16;
/// Bytes of a NAL unit's size in an aggregation packet (RFC 6184 5.7.1, RFC 7798 4.4.2).
const UNIT_SIZE_BYTES: usize = 2;

/// A NAL unit header: one byte (H.264) or two (H.265, big-endian).
pub(super) type Header = u16;

/// How H.264 and H.265 differ.
pub(super) trait NalFormat {
    /// Bytes of a NAL unit header, and of an aggregation packet's.
    const HEADER_BYTES: usize;
    /// Bytes before the fragment in a fragmentation unit.
    const FU_BYTES: usize;
    /// Is it an access unit delimiter?
    fn is_delimiter(header: Header) -> bool;
    /// Is it (a part of) a coded slice?
    fn is_slice(header: Header) -> bool;
    /// Is its type one that the payload format uses itself? It can only travel inside fragmentation units.
    fn is_reserved(header: Header) -> bool;
    /// One bit for each kind of parameter set, 0 for others.
    fn set_kind(header: Header) -> u8;
    /// All the kinds that a decoder needs.
    const ALL_SETS: u8;
    /// The header of an aggregation packet with a NAL unit of header `next` added to those that `so_far` stands for.
    fn aggregate(so_far: Option<Header>, next: Header) -> Header;
    /// Writes what goes before a fragment (`FU_BYTES` bytes).
    fn write_fu(header: Header, start: bool, end: bool, out: &mut [u8]);
}

/// A NAL unit found ahead.
#[derive(Clone, Copy)]
struct Nal {
    /// Bytes ahead at which its length field starts.
    at: usize,
    /// Its bytes, header included.
    len: usize,
    header: Header,
}

enum Look {
    Nal(Nal),
    End,
    NeedData,
}

/// Is the parameter set packet of this sample wanted?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sets {
    No,
    Undecided,
    Due,
}

/// A NAL unit that is being sent in fragments.
#[derive(Clone, Copy, Debug)]
struct Fragmented {
    header: Header,
    left: usize,
}

/// What the next aggregation packet holds.
struct Plan {
    /// NAL units of the sample.
    nals: usize,
    /// The parameter sets go before the NAL unit of this number.
    sets_before: Option<usize>,
    /// Bytes of the sample that it covers.
    end: usize,
    /// Payload bytes.
    bytes: usize,
    header: Option<Header>,
    marker: bool,
}

/// Packetiser of length-prefixed NAL units.
#[derive(Debug)]
pub(super) struct NalPacketiser<F> {
    length_bytes: usize,
    max: usize,
    /// The sample entry's parameter sets as aggregation units (size, NAL unit), empty for none.
    sets: Vec<u8>,
    sets_header: Header,
    sets_count: usize,
    size: usize,
    state: Sets,
    fragmented: Option<Fragmented>,
    /// Only padding is left; not all of it may have been resident.
    padding: bool,
    format: PhantomData<F>,
}

impl<F: NalFormat> NalPacketiser<F> {
    pub(super) fn new<'a>(length_bytes: u8, sets: impl Iterator<Item = &'a Vec<u8>>, max: usize) -> Self {
        let mut this = Self {
            length_bytes: usize::from(length_bytes.clamp(1, 4)),
            max,
            sets: Vec::new(),
            sets_header: 0,
            sets_count: 0,
            size: 0,
            state: Sets::No,
            fragmented: None,
            padding: false,
            format: PhantomData,
        };
        let mut header = None;
        for set in sets {
            let (Some(own), Ok(len)) = (read_header::<F>(set), u16::try_from(set.len())) else { continue };
            if F::is_reserved(own) {
                continue;
            }
            header = Some(F::aggregate(header, own));
            this.sets.extend_from_slice(&len.to_be_bytes());
            this.sets.extend_from_slice(set);
            this.sets_count += 1;
        }
        this.sets_header = header.unwrap_or(0);
        if F::HEADER_BYTES + this.sets.len() > max {
            this.sets = Vec::new();
            this.sets_count = 0;
        }
        this
    }

    pub(super) fn begin(&mut self, size: u32, sync: bool) {
        self.size = size as usize;
        self.fragmented = None;
        self.padding = false;
        self.state = if sync && self.sets_count > 0 { Sets::Undecided } else { Sets::No };
    }

    #[inline]
    pub(super) fn next(&mut self, sample: &mut impl SampleBytes, out: &mut [u8]) -> Result<Step, BadSample> {
        if let Some(fragmented) = self.fragmented {
            return self.fragment(fragmented, sample, out);
        }
        if self.padding {
            return Ok(skip_padding(sample));
        }
        let nal = match self.nal_at(sample, 0)? {
            Look::Nal(nal) => nal,
            Look::NeedData => return Ok(Step::NeedData),
            Look::End => {
                self.padding = true;
                return Ok(skip_padding(sample));
            }
        };
        if self.state == Sets::Undecided {
            match self.brings_its_sets(sample) {
                Some(true) => self.state = Sets::No,
                Some(false) => self.state = Sets::Due,
                None => return Ok(Step::NeedData),
            }
        }
        if self.state == Sets::Due || !F::is_slice(nal.header) {
            let Some(plan) = self.plan(sample) else { return Ok(Step::NeedData) };
            if plan.nals > 1 || plan.sets_before.is_some() {
                return self.aggregation(&plan, sample, out);
            }
        }
        if nal.len <= self.max && !F::is_reserved(nal.header) {
            Ok(self.single(nal, sample, out))
        } else {
            self.first_fragment(nal, sample, out)
        }
    }

    fn offset(&self, sample: &impl SampleBytes) -> usize {
        self.size.saturating_sub(sample.remaining())
    }

    /// The first NAL unit that is not empty, `from` bytes ahead or later.
    fn nal_at(&self, sample: &impl SampleBytes, mut from: usize) -> Result<Look, BadSample> {
        let bad = |from: usize| BadSample { at: (self.offset(sample) + from) as u32 };
        for _ in 0..=PADDING_RUN {
            let ahead = sample.remaining().saturating_sub(from);
            if ahead == 0 {
                return Ok(Look::End);
            }
            if ahead < self.length_bytes {
                return Err(bad(from));
            }
            let mut bytes = [0u8; 4 + 2];
            let seen = ahead.min(self.length_bytes + F::HEADER_BYTES);
            if !sample.peek(from, &mut bytes[..seen]) {
                return Ok(Look::NeedData);
            }
            let (length, rest) = bytes.split_at(self.length_bytes);
            let len = length.iter().fold(0usize, |len, &b| len << 8 | usize::from(b));
            if len > 0 {
                if len > ahead - self.length_bytes {
                    return Err(bad(from));
                }
                let header = if len < F::HEADER_BYTES { None } else { read_header::<F>(rest) };
                return header.map(|header| Look::Nal(Nal { at: from, len, header })).ok_or(bad(from));
            }
            from += self.length_bytes;
        }
        Ok(Look::End)
    }

    /// Are there parameter sets of all kinds before the first slice? Looks one packet's length ahead at most. `None`: not resident yet.
    fn brings_its_sets(&self, sample: &impl SampleBytes) -> Option<bool> {
        let (mut seen, mut from) = (0, 0);
        while from <= self.max {
            match self.nal_at(sample, from) {
                Ok(Look::Nal(nal)) if !F::is_slice(nal.header) => {
                    seen |= F::set_kind(nal.header);
                    if seen == F::ALL_SETS {
                        return Some(true);
                    }
                    from = nal.at + self.length_bytes + nal.len;
                }
                Ok(Look::NeedData) => return None,
                _ => break,
            }
        }
        Some(false)
    }

    /// What an aggregation packet made now would hold. `None`: not resident yet.
    fn plan(&self, sample: &impl SampleBytes) -> Option<Plan> {
        let mut plan = Plan { nals: 0, sets_before: None, end: 0, bytes: F::HEADER_BYTES, header: None, marker: false };
        loop {
            let nal = match self.nal_at(sample, plan.end) {
                Ok(Look::Nal(nal)) => nal,
                Ok(Look::NeedData) => return None,
                // Behind an error nothing can be sent: the access unit ends before it.
                Ok(Look::End) | Err(_) => {
                    plan.marker = true;
                    return Some(plan);
                }
            };
            if self.state == Sets::Due && plan.sets_before.is_none() && !F::is_delimiter(nal.header) {
                if plan.bytes + self.sets.len() > self.max {
                    return Some(plan);
                }
                plan.sets_before = Some(plan.nals);
                plan.bytes += self.sets.len();
                plan.header = Some(F::aggregate(plan.header, self.sets_header));
            }
            let end = nal.at + self.length_bytes + nal.len;
            let bytes = plan.bytes + UNIT_SIZE_BYTES + nal.len;
            if F::is_slice(nal.header) || F::is_reserved(nal.header) || bytes > self.max || end > self.max {
                return Some(plan);
            }
            plan = Plan { nals: plan.nals + 1, end, bytes, header: Some(F::aggregate(plan.header, nal.header)), ..plan };
        }
    }

    /// RFC 6184 5.7.1 (STAP-A), RFC 7798 4.4.2 (AP); a lone parameter set goes as a single NAL unit.
    fn aggregation(&mut self, plan: &Plan, sample: &mut impl SampleBytes, out: &mut [u8]) -> Result<Step, BadSample> {
        if sample.resident() < plan.end {
            return Ok(Step::NeedData);
        }
        let sample_offset = self.offset(sample) as u32;
        let meta = |len| PacketMeta { len, marker: plan.marker, sample_offset, timestamp_offset: 0 };
        if plan.sets_before.is_some() {
            self.state = Sets::No;
            if plan.nals == 0 && self.sets_count == 1 {
                let set = &self.sets[UNIT_SIZE_BYTES..];
                out[..set.len()].copy_from_slice(set);
                return Ok(Step::Packet(meta(set.len())));
            }
        }
        let header = plan.header.unwrap_or(0).to_be_bytes();
        out[..F::HEADER_BYTES].copy_from_slice(&header[2 - F::HEADER_BYTES..]);
        let mut len = F::HEADER_BYTES;
        for n in 0..=plan.nals {
            if plan.sets_before == Some(n) {
                out[len..len + self.sets.len()].copy_from_slice(&self.sets);
                len += self.sets.len();
            }
            if n == plan.nals {
                break;
            }
            let Ok(Look::Nal(nal)) = self.nal_at(sample, 0) else { return Err(BadSample { at: sample_offset }) };
            out[len..len + UNIT_SIZE_BYTES].copy_from_slice(&(nal.len as u16).to_be_bytes());
            len += UNIT_SIZE_BYTES;
            sample.skip(nal.at + self.length_bytes);
            sample.take(&mut out[len..len + nal.len]);
            len += nal.len;
        }
        Ok(Step::Packet(meta(len)))
    }

    /// Does the access unit end `from` bytes ahead? `None`: not resident yet.
    #[inline]
    fn ends_at(&self, sample: &impl SampleBytes, from: usize) -> Option<bool> {
        if from == sample.remaining() {
            return Some(true);
        }
        match self.nal_at(sample, from) {
            Ok(Look::Nal(_)) => Some(false),
            Ok(Look::NeedData) => None,
            Ok(Look::End) | Err(_) => Some(true),
        }
    }

    /// RFC 6184 5.6, RFC 7798 4.4.1.
    fn single(&mut self, nal: Nal, sample: &mut impl SampleBytes, out: &mut [u8]) -> Step {
        let front = nal.at + self.length_bytes;
        if sample.resident() < front + nal.len {
            return Step::NeedData;
        }
        let Some(marker) = self.ends_at(sample, front + nal.len) else { return Step::NeedData };
        let sample_offset = self.offset(sample) as u32;
        sample.skip(front);
        sample.take(&mut out[..nal.len]);
        Step::Packet(PacketMeta { len: nal.len, marker, sample_offset, timestamp_offset: 0 })
    }

    /// RFC 6184 5.8 (FU-A), RFC 7798 4.4.3 (FU): the NAL unit's header travels in the fragmentation unit's, and no fragment is both
    /// first and last.
    fn first_fragment(&mut self, nal: Nal, sample: &mut impl SampleBytes, out: &mut [u8]) -> Result<Step, BadSample> {
        let sample_offset = self.offset(sample);
        let left = nal.len - F::HEADER_BYTES;
        if left < 2 {
            return Err(BadSample { at: (sample_offset + nal.at) as u32 });
        }
        let n = if nal.len > self.max { self.max - F::FU_BYTES } else { left.div_ceil(2) };
        let front = nal.at + self.length_bytes + F::HEADER_BYTES;
        if sample.resident() < front + n {
            return Ok(Step::NeedData);
        }
        F::write_fu(nal.header, true, false, out);
        sample.skip(front);
        sample.take(&mut out[F::FU_BYTES..F::FU_BYTES + n]);
        self.fragmented = Some(Fragmented { header: nal.header, left: left - n });
        Ok(Step::Packet(PacketMeta { len: F::FU_BYTES + n, marker: false, sample_offset: sample_offset as u32, timestamp_offset: 0 }))
    }

    #[inline]
    fn fragment(&mut self, nal: Fragmented, sample: &mut impl SampleBytes, out: &mut [u8]) -> Result<Step, BadSample> {
        let n = nal.left.min(self.max - F::FU_BYTES);
        if sample.resident() < n {
            return Ok(Step::NeedData);
        }
        let end = n == nal.left;
        let mut marker = false;
        if end {
            match self.ends_at(sample, n) {
                Some(ends) => marker = ends,
                None => return Ok(Step::NeedData),
            }
        }
        let sample_offset = self.offset(sample) as u32;
        F::write_fu(nal.header, false, end, out);
        sample.take(&mut out[F::FU_BYTES..F::FU_BYTES + n]);
        self.fragmented = (!end).then_some(Fragmented { left: nal.left - n, ..nal });
        Ok(Step::Packet(PacketMeta { len: F::FU_BYTES + n, marker, sample_offset, timestamp_offset: 0 }))
    }
}

/// The header of the NAL unit that starts with `bytes`.
pub(super) fn read_header<F: NalFormat>(bytes: &[u8]) -> Option<Header> {
    let header = bytes.get(..F::HEADER_BYTES)?;
    Some(header.iter().fold(0, |header, &b| header << 8 | Header::from(b)))
}

/// Takes what is left as far as it is resident.
fn skip_padding(sample: &mut impl SampleBytes) -> Step {
    let padding = sample.resident().min(sample.remaining());
    sample.skip(padding);
    if sample.remaining() == 0 { Step::SampleDone } else { Step::NeedData }
}
