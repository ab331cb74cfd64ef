//! Time and arithmetic, pure and deterministic: no I/O of any kind lives here, but for asking what time it is.
//!
//! - [`clock`]: the [`Clock`] seam. A time-stamp-counter clock for engine cores, a simulated one for tests.
//! - [`wheel`]: the deadline wheel that holds every upcall time of an engine core (GDSL's I/O scheduling table).
//! - [`cpu`]: how much of a core's time is promised, from what packets and reads were measured to cost.
//! - [`period`]: who has a core's time within a period.
//! - [`disk`]: how much of a disk's time is promised, from its profile.
//! - [`schedule`]: due times of packets from the media's own decode times.
//!
//! All times are nanoseconds in `u64` unless a name says otherwise.
#![deny(unsafe_op_in_unsafe_fn)]

pub mod clock;
pub mod cpu;
pub mod disk;
pub mod period;
pub mod schedule;
pub mod wheel;

pub use clock::{Clock, SimClock, TscClock};
pub use wheel::Wheel;

/// Nanoseconds in one second.
pub const NS_PER_SEC: u64 = 1_000_000_000;
