//! `testbed load`: RTSP clients by the thousand from one thread, and what they saw.
//!
//! ```text
//! runner (epoll, sweeps) ─► client (RTSP, no I/O) ─► session ─► flow (numbers, bursts) ─► lateness::Meter
//!        │                                              └────────────► totals ─► report ─► table, JSON, --require
//!        └─ sockets, sys (system calls)
//! ```

pub mod client;
pub mod flow;
pub mod options;
pub mod report;
pub mod require;
pub mod rtcp;
pub mod rtsp;
pub mod runner;
pub mod sdp;
pub mod session;
pub mod sockets;
pub mod sys;
pub mod totals;

pub use options::{Options, TransportKind};
pub use runner::{LoadError, Outcomes, Phase, Snapshot, run};
