//! The local engine: the `Engine` seam over the engine cores of this process.
//!
//! ```text
//! Engine methods ─► admission, plans, boxes built here ─► commands ─► engine core
//!                                    replies, ends   ◄─ events ◄──┘
//! ```
//!
//! Admission is decided here, before any engine core hears of a session: a session reserves its place and the buffers that its title can
//! need at most; a guaranteed one also the disk's and the core's time that it takes. All is given back when it is destroyed.

mod admission;
mod buffers;
mod channels;
mod config;
mod core;
mod disks;
mod engine;
mod imports;
mod jobs;
mod live;
mod recordings;
mod session;
mod status;
mod titles;
mod transfers;

pub use self::channels::LiveRules;
pub use self::config::{LiveSourceAt, LocalConfig};
pub use self::disks::{DiskRules, KnownDisk, KnownDisks};
pub use self::engine::LocalEngine;
