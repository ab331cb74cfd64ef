//! RTSP 1.0 (RFC 2326) against the [`Engine`](crate::engine::Engine) seam.
//!
//! ```text
//! TCP ─► server ─► connection ─► framing ─► normalise ─► methods ─► Engine
//!          ▲                                               │
//!          └──────────────── reply ◄───────────────────────┘   (after an interleaved SETUP: Engine::stream_write)
//! ```
//!
//! - [`framing`], [`normalise`], [`target`], [`transport`], [`range`]: what clients send, as values. No I/O, no clock.
//! - [`reply`]: what they get.
//! - [`session`], [`service`]: the sessions of all connections, their ends, the monitor's view.
//! - [`connection`], `methods`: one client connection, one method each.
//! - [`server`]: sockets, limits, deadlines, stop.

pub mod announce;
pub mod connection;
pub mod counters;
pub mod fake_engine;
pub mod framing;
pub mod idle;
mod methods;
pub mod normalise;
pub mod range;
mod record;
pub mod reply;
pub mod server;
pub mod service;
pub mod session;
pub mod target;
pub mod transport;

#[cfg(test)]
mod tests;

pub use counters::{RtspCounters, RtspCountersSnapshot};
pub use server::{RtspConfig, RtspServer};
pub use service::{RtspSessionInfo, SessionDirectory};
