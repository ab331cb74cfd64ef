//! RTP and RTCP (RFC 3550): headers, reports, and the state of a stream that is sent. All sans I/O, without allocation per packet.
//!
//! ```text
//! Packetiser ──────────► payload ──┐
//! RtpSender::header ──► 12 bytes ──┴─► datagram or `$` frame ─► RtpSender::note_sent
//!
//! RtpSender::write_report, write_bye ─► SR, SDES, BYE out
//! RtpSender::receive ◄─ the client's RTCP: loss, jitter, round trip, CNAME, BYE
//! ```
//!
//! - [`header`]: the fixed header, read and written.
//! - [`ntp`]: the time formats of reports.
//! - [`rtcp`]: compound packets, read and written.
//! - [`sender`]: one stream that is sent.
//! - [`interleaved`]: the `$` prefix of RTP in an RTSP connection.

pub mod header;
pub mod interleaved;
pub mod ntp;
pub mod rtcp;
pub mod sender;

pub use header::{HEADER_BYTES, HeaderTemplate, RtpPacket};
pub use ntp::NtpTime;
pub use sender::{RtpSender, SenderSetup, TimeMap};
