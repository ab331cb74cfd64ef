//! The sending side of one RTP stream (RFC 3550 6): its sequence numbers, what it sent, when its next report is due, what its receiver
//! says of it.
//!
//! Sans I/O: the owner of the stream asks [`RtpSender::next_report_ns`] when to come back, writes what
//! [`RtpSender::write_report`] put into its buffer, and passes on what the receiver sends. The first report is due with the first packet of
//! each time line, because players put sound and sight together by it; the next ones follow every 5 s, times 0.5 to 1.5.

use std::fmt::Write as _;

use super::header::{HEADER_BYTES, HeaderTemplate};
use super::ntp::{NtpTime, short_to_ns};
use super::rtcp::{BadRtcp, Compound, NoRoom, Packet, ReportBlock, SDES_CNAME, SenderInfo, TEXT_BYTES_MAX, Writer};

/// RFC 3550 6.2: the least mean time between two reports.
pub const REPORT_INTERVAL_NS: u64 = 5 * pacing::NS_PER_SEC;
/// Room that [`RtpSender::write_report`] and [`RtpSender::write_bye`] may need: SR, SDES and BYE with the longest texts.
pub const REPORT_BYTES_MAX: usize = 28 + 268 + 264;
/// Sender reports remembered for the round-trip time: a receiver repeats the last one that it got.
const REPORTS_REMEMBERED: usize = 4;

/// A straight line between wall-clock time and the time of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeMap {
    /// A moment, nanoseconds since 1970.
    pub unix_ns: u64,
    /// The RTP timestamp of what is due at that moment.
    pub rtp_timestamp: u32,
    /// RTP clock, Hz.
    pub clock_rate: u32,
}

impl TimeMap {
    /// The RTP timestamp of what is due at `unix_ns`, which may lie before the map's own moment.
    pub fn rtp_at(&self, unix_ns: u64) -> u32 {
        let ns = i128::from(unix_ns) - i128::from(self.unix_ns);
        let ticks = (ns * i128::from(self.clock_rate)).div_euclid(i128::from(pacing::NS_PER_SEC));
        self.rtp_timestamp.wrapping_add(ticks as u32)
    }
}

/// What a stream starts with. RFC 3550 5.1 wants SSRC, sequence number and timestamp base to be random.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SenderSetup {
    /// Synchronisation source.
    pub ssrc: u32,
    /// Payload type.
    pub payload_type: u8,
    /// Sequence number of the first packet.
    pub first_seq: u16,
    /// RTP clock, Hz.
    pub clock_rate: u32,
    /// Seed of the random report intervals.
    pub seed: u64,
}

/// What the receiver last said of the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reception {
    /// When it said so (the time given to [`RtpSender::receive`]).
    pub at_ns: u64,
    /// Share of packets lost since its report before, in 1/256.
    pub fraction_lost: u8,
    /// Packets lost since the beginning; negative when duplicates came.
    pub cumulative_lost: i32,
    /// Highest sequence number received; its cycles in the high 16 bits.
    pub highest_seq: u32,
    /// Interarrival jitter, microseconds.
    pub jitter_us: u64,
    /// Round-trip time, nanoseconds; `None` until the receiver has answered a sender report.
    pub round_trip_ns: Option<u64>,
}

/// What a compound packet brought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Heard {
    /// A report about this stream.
    pub report: bool,
    /// The receiver says goodbye.
    pub bye: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct SentReport {
    ntp_short: u32,
    sent_ns: u64,
}

/// State of one RTP stream that is sent.
#[derive(Debug)]
pub struct RtpSender {
    template: HeaderTemplate,
    setup: SenderSetup,
    next_seq: u16,
    packets: u64,
    octets: u64,
    /// A new time line began: a report is due with its first packet.
    announce: bool,
    next_report_ns: Option<u64>,
    /// `packets` at the last two reports, the older one first.
    packets_at_reports: [u64; 2],
    reports: usize,
    random: u64,
    rarely: Box<Rarely>,
}

/// What only reports need, apart from what every packet needs.
#[derive(Debug)]
struct Rarely {
    reports_sent: [SentReport; REPORTS_REMEMBERED],
    reception: Option<Reception>,
    heard_ns: Option<u64>,
    left: bool,
    cname: [u8; TEXT_BYTES_MAX],
    cname_bytes: u8,
}

impl RtpSender {
    /// A stream of which nothing was sent.
    pub fn new(setup: SenderSetup) -> Self {
        Self {
            template: HeaderTemplate::new(setup.payload_type, setup.ssrc),
            setup,
            next_seq: setup.first_seq,
            packets: 0,
            octets: 0,
            announce: true,
            next_report_ns: None,
            packets_at_reports: [0; 2],
            reports: 0,
            random: setup.seed,
            rarely: Box::new(Rarely {
                reports_sent: [SentReport::default(); REPORTS_REMEMBERED],
                reception: None,
                heard_ns: None,
                left: false,
                cname: [0; TEXT_BYTES_MAX],
                cname_bytes: 0,
            }),
        }
    }

    /// Synchronisation source.
    pub fn ssrc(&self) -> u32 {
        self.setup.ssrc
    }

    /// Sequence number that the next packet gets.
    pub fn next_seq(&self) -> u16 {
        self.next_seq
    }

    /// RTP packets sent.
    pub fn packets(&self) -> u64 {
        self.packets
    }

    /// Payload bytes sent.
    pub fn octets(&self) -> u64 {
        self.octets
    }

    /// The header of the next packet; takes its sequence number.
    #[inline]
    pub fn header(&mut self, marker: bool, timestamp: u32) -> [u8; HEADER_BYTES] {
        let header = self.template.packet(marker, self.next_seq, timestamp);
        self.next_seq = self.next_seq.wrapping_add(1);
        header
    }

    /// The packet that got the last header will never be sent: the next one gets its sequence number.
    pub fn take_back(&mut self) {
        self.next_seq = self.next_seq.wrapping_sub(1);
    }

    /// A packet was sent.
    #[inline]
    pub fn note_sent(&mut self, now_ns: u64, payload_bytes: usize) {
        self.packets += 1;
        self.octets += payload_bytes as u64;
        if self.announce {
            self.announce = false;
            self.next_report_ns = Some(now_ns);
        }
    }

    /// A new time line begins (play after a pause or a seek): its first packet will be followed by a report at once.
    pub fn restart(&mut self) {
        self.announce = true;
    }

    /// When the next report is due; `None` before the first packet.
    pub fn next_report_ns(&self) -> Option<u64> {
        self.next_report_ns
    }

    /// Writes a compound packet of SR (RR, when nothing was sent for two reports: RFC 3550 6.4) and SDES, and fixes the time of the next.
    /// `now_unix_ns` is the wall-clock time at `now_ns`.
    ///
    /// # Errors
    /// [`NoRoom`]; [`REPORT_BYTES_MAX`] is always enough.
    pub fn write_report(&mut self, now_ns: u64, now_unix_ns: u64, map: &TimeMap, cname: &[u8], out: &mut [u8]) -> Result<usize, NoRoom> {
        let mut writer = Writer::new(out);
        self.report(now_ns, now_unix_ns, map, cname, &mut writer)?;
        self.next_report_ns = Some(now_ns.saturating_add(self.interval_ns()));
        Ok(writer.len())
    }

    /// Writes a compound packet of SR or RR, SDES and BYE. 0 when nothing was ever sent: then RFC 3550 6.3.7 forbids a BYE.
    ///
    /// # Errors
    /// [`NoRoom`]; [`REPORT_BYTES_MAX`] is always enough.
    pub fn write_bye(
        &mut self,
        now_ns: u64,
        now_unix_ns: u64,
        map: &TimeMap,
        cname: &[u8],
        reason: &[u8],
        out: &mut [u8],
    ) -> Result<usize, NoRoom> {
        if self.packets == 0 && self.reports == 0 {
            return Ok(0);
        }
        let mut writer = Writer::new(out);
        self.report(now_ns, now_unix_ns, map, cname, &mut writer)?;
        writer.bye(self.setup.ssrc, reason)?;
        self.next_report_ns = None;
        Ok(writer.len())
    }

    fn report(&mut self, now_ns: u64, now_unix_ns: u64, map: &TimeMap, cname: &[u8], writer: &mut Writer<'_>) -> Result<(), NoRoom> {
        let ssrc = self.setup.ssrc;
        let is_sender = self.packets > self.packets_at_reports[0];
        let ntp = NtpTime::from_unix_ns(now_unix_ns);
        if is_sender {
            let rtp_timestamp = map.rtp_at(now_unix_ns);
            let info = SenderInfo { ntp, rtp_timestamp, packets: self.packets as u32, octets: self.octets as u32 };
            writer.sender_report(ssrc, &info, &[])?;
        } else {
            writer.receiver_report(ssrc, &[])?;
        }
        writer.cname(ssrc, cname)?;
        self.packets_at_reports = [self.packets_at_reports[1], self.packets];
        if is_sender {
            self.rarely.reports_sent[self.reports % REPORTS_REMEMBERED] = SentReport { ntp_short: ntp.short(), sent_ns: now_ns };
            self.reports += 1;
        }
        Ok(())
    }

    /// RFC 3550 6.3.1: between half and one and a half times the mean.
    fn interval_ns(&mut self) -> u64 {
        REPORT_INTERVAL_NS / 2 + self.random() % REPORT_INTERVAL_NS
    }

    /// SplitMix64 (Steele, Lea, Flood 2014).
    fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// Takes a compound packet of the receiver.
    ///
    /// # Errors
    /// [`BadRtcp`]; nothing of it was taken.
    pub fn receive(&mut self, now_ns: u64, datagram: &[u8]) -> Result<Heard, BadRtcp> {
        let compound = Compound::new_checked(datagram)?;
        self.rarely.heard_ns = Some(now_ns);
        let mut heard = Heard::default();
        let mut reporter = None;
        for packet in compound.packets() {
            match packet {
                Packet::SenderReport { ssrc, reports, .. } | Packet::ReceiverReport { ssrc, reports } => {
                    reporter.get_or_insert(ssrc);
                    for block in reports.filter(|block| block.ssrc == self.setup.ssrc) {
                        self.rarely.reception = Some(self.reception_of(now_ns, &block));
                        heard.report = true;
                    }
                }
                Packet::Description(items) => {
                    let cname = items.into_iter().find(|item| item.kind == SDES_CNAME && Some(item.ssrc) == reporter);
                    if let Some(cname) = cname {
                        self.rarely.cname[..cname.value.len()].copy_from_slice(cname.value);
                        self.rarely.cname_bytes = cname.value.len() as u8;
                    }
                }
                Packet::Bye(bye) => heard.bye |= reporter.is_some_and(|reporter| bye.includes(reporter)),
                Packet::Other(_) => {}
            }
        }
        self.rarely.left |= heard.bye;
        Ok(heard)
    }

    fn reception_of(&self, now_ns: u64, block: &ReportBlock) -> Reception {
        // RFC 3550 6.4.1: round trip = arrival - LSR - DLSR, with the arrival and LSR by our monotonic clock.
        let known = self.rarely.reports_sent.iter().take(self.reports);
        let round_trip_ns = known
            .filter(|_| block.last_sr != 0)
            .find(|sent| sent.ntp_short == block.last_sr)
            .and_then(|sent| now_ns.checked_sub(sent.sent_ns)?.checked_sub(short_to_ns(block.delay_since_last_sr)));
        Reception {
            at_ns: now_ns,
            fraction_lost: block.fraction_lost,
            cumulative_lost: block.cumulative_lost,
            highest_seq: block.highest_seq,
            jitter_us: u64::from(block.jitter) * 1_000_000 / u64::from(self.setup.clock_rate.max(1)),
            round_trip_ns: round_trip_ns.or(self.rarely.reception.and_then(|last| last.round_trip_ns)),
        }
    }

    /// What the receiver last said of the stream.
    pub fn reception(&self) -> Option<Reception> {
        self.rarely.reception
    }

    /// When the receiver was last heard of; `None` when it never was.
    pub fn heard_ns(&self) -> Option<u64> {
        self.rarely.heard_ns
    }

    /// The receiver said goodbye.
    pub fn receiver_left(&self) -> bool {
        self.rarely.left
    }

    /// The receiver's CNAME, printable without loss: what is no printable character appears as `\xNN`, a backslash as two. Allocates.
    pub fn receiver_cname(&self) -> Option<String> {
        let raw = &self.rarely.cname[..usize::from(self.rarely.cname_bytes)];
        (!raw.is_empty()).then(|| printable(raw))
    }
}

fn printable(raw: &[u8]) -> String {
    let mut out = String::with_capacity(raw.len());
    let escape = |out: &mut String, bytes: &[u8]| bytes.iter().for_each(|byte| _ = write!(out, "\\x{byte:02x}"));
    for chunk in raw.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\\' => out.push_str("\\\\"),
                c if c.is_control() => escape(&mut out, c.encode_utf8(&mut [0; 4]).as_bytes()),
                c => out.push(c),
            }
        }
        escape(&mut out, chunk.invalid());
    }
    out
}

#[cfg(test)]
mod tests;
