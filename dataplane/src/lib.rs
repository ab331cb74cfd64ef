//! The engine: everything between the disk and the wire. Knows nothing of RTSP, users or accounting.
//!
//! ```text
//! commands ─► host.receive ─► gdsl.cycle(now): guaranteed, then best-effort ─► disks.submit/reap ─► host.flush
//! ```
//!
//! - [`disks`]: the `Disk` seam and its implementations.
//! - [`media`]: containers to samples with times.
//! - [`payload`]: samples to RTP payloads.
//! - [`rtp`]: RTP headers, RTCP, the reports of a stream.

pub mod disks;
pub mod media;
pub mod payload;
pub mod rtp;
