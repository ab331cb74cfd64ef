//! The engine core: one pinned, polling thread that owns a host, a disk and the sessions delivered through them.
//!
//! ```text
//! commands ─► host.receive (RTCP) ─► gdsl.cycle ─► sessions that start or end ─► events
//! ```
//!
//! - [`command`]: what the control core asks for, and what comes back. Bounded queues, never a lock.
//! - [`core`]: the turn of a core, without a thread: tests drive it in simulated time.
//! - [`thread`]: the pinned thread around it.
//!
//! Everything a session needs is built by the control core and handed over in boxes; when it is over the boxes go back to be freed there.

mod any_port;
pub mod channel;
pub mod command;
mod control;
pub mod core;
pub mod eventfd;
mod inbound;
mod live;
pub mod local;
pub mod modules;
pub mod net;
pub mod own;
mod realtime;
mod session;
pub mod thread;
mod transfers;

pub use command::{
    Command, CoreReport, Event, Refusal, Reply, SessionReport, StartedTrack, TRACKS_MAX, TrackReport, TrackSetup, Transport,
};
pub use core::{CoreConfig, EngineCore, Turn};
pub use modules::AnyPair;
pub use thread::{CoreFacts, CoreHandle, Overloaded, Parts, Poll, ThreadConfig, spawn};
pub use transfers::{TRANSFERS_MAX, TransferReport};
