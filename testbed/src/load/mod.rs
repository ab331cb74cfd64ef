//! `testbed load`: RTSP clients by the thousand from one thread, and what they saw.
//!
//! ```text
//! course (phases) ─► runner (epoll, sweeps) ─► client (RTSP, no I/O) ─► session ─► flow (numbers, bursts) ─► lateness::Meter ─► rates
//!        │                                              └────────────► totals ─► report ─► table, JSON, --require
//!        └─ sockets, sys (system calls)
//! ```

pub mod client;
pub mod course;
pub mod flow;
pub mod options;
pub mod rates;
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

pub use course::{Outcomes, Phase, Snapshot, run};
pub use options::{Options, TransportKind};
pub use runner::LoadError;
