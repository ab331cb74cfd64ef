//! RTCP compound packets (RFC 3550 6): [`Compound`] reads them, [`Writer`] writes them.
//!
//! A compound packet is checked as a whole before any of it is looked at (RFC 3550 A.2); what is read afterwards cannot fail.

mod read;
mod write;

pub use read::{BadRtcp, Bye, Compound, Packet, Packets, Reports, SdesItem, SdesItems};
pub use write::{NoRoom, Writer};

use super::ntp::NtpTime;

/// Packet types (RFC 3550 12.1).
pub mod packet_type {
    /// Sender report.
    pub const SR: u8 = 200;
    /// Receiver report.
    pub const RR: u8 = 201;
    /// Source description.
    pub const SDES: u8 = 202;
    /// Goodbye.
    pub const BYE: u8 = 203;
    /// Application-defined.
    pub const APP: u8 = 204;
}

/// SDES item type of the canonical name (RFC 3550 6.5.1).
pub const SDES_CNAME: u8 = 1;
/// Longest value of an SDES item, and longest reason of a BYE.
pub const TEXT_BYTES_MAX: usize = 255;
/// Most report blocks, SDES chunks or BYE sources of one packet (5-bit count).
pub const COUNT_MAX: usize = 31;

const VERSION: u8 = 2;
const PADDING: u8 = 0x20;
const COUNT_MASK: u8 = 0x1f;
/// Bytes of the header that all packets share.
const HEADER_BYTES: usize = 4;
const SSRC_BYTES: usize = 4;
/// Bytes of a sender report's sender information, and of a report block (RFC 3550 6.4.1).
const SENDER_INFO_BYTES: usize = 20;
const REPORT_BYTES: usize = 24;

/// What a sender report says of its sender (RFC 3550 6.4.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SenderInfo {
    /// When the report was sent.
    pub ntp: NtpTime,
    /// The same moment in units of the RTP clock.
    pub rtp_timestamp: u32,
    /// RTP packets sent since the stream began, modulo 2^32.
    pub packets: u32,
    /// Payload bytes of these, modulo 2^32.
    pub octets: u32,
}

/// What a receiver says of one source (RFC 3550 6.4.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReportBlock {
    /// The source.
    pub ssrc: u32,
    /// Share of packets lost since the last report, in 1/256.
    pub fraction_lost: u8,
    /// Packets lost since the beginning; negative when duplicates came. 24 bits, signed.
    pub cumulative_lost: i32,
    /// Highest sequence number received; its cycles in the high 16 bits.
    pub highest_seq: u32,
    /// Interarrival jitter in units of the RTP clock.
    pub jitter: u32,
    /// Middle 32 bits of the NTP time of the last sender report received; 0 for none.
    pub last_sr: u32,
    /// Time from that report's arrival to this one's sending, in 1/65536 second.
    pub delay_since_last_sr: u32,
}

/// Big-endian word at `at`, 0 where there is none.
fn word(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(|bytes| bytes.first_chunk::<4>()).map_or(0, |word| u32::from_be_bytes(*word))
}

#[cfg(test)]
mod tests;
