//! The engine: everything between the disk and the wire. Knows nothing of RTSP, users or accounting.
//!
//! ```text
//! commands ─► host.receive ─► gdsl.cycle(now): guaranteed, then best-effort ─► disks.submit/reap ─► host.flush
//! ```
//!
//! - [`delivery`]: video on demand, and live, as pairs of GDSL modules.
//! - [`disks`]: the `Disk` seam and its implementations.
//! - [`engine`]: the pinned, polling core.
//! - [`gdsl`]: the data streaming library: peers, links, the executor.
//! - [`ingest`]: packets that arrive to access units on tapes.
//! - [`media`]: containers to samples with times.
//! - [`payload`]: samples to RTP payloads.
//! - [`ports`]: drivers: AF_XDP with our own steering program, TAP.
//! - [`rtp`]: RTP headers, RTCP, the reports of a stream.
//! - [`transfer`]: what is copied or recorded into files, as pairs of GDSL modules.

pub mod delivery;
pub mod disks;
pub mod engine;
pub mod gdsl;
pub mod ingest;
pub mod media;
pub mod payload;
pub mod ports;
pub mod rtp;
pub mod transfer;

pub use hugepages::reserve;
