//! Memory for devices.
//!
//! - [`arena`]: one prefaulted mapping, on huge pages where the machine grants them, with an honest answer where it does not.
//! - [`bus`]: where an arena lies in physical memory, for devices that are driven from user space.
//! - [`chunk`]: a pool of equal chunks in an arena; a chunk is filled once by its only owner and then shared as reference-counted
//!   slices that give it back by themselves.
//! - [`frame`]: a pool of equal frames for one core, without counting or atomics.
//! - [`reserve`]: what to type so that huge pages are there.
//! - [`mod@prefetch`]: asks for memory that will be needed soon.
//!
//! Nothing here knows packets or media.

pub mod arena;
pub mod bus;
pub mod chunk;
pub mod frame;
pub mod prefetch;
pub mod reserve;

pub use arena::{Arena, ArenaError, Backing};
pub use bus::{BusError, BusMap};
pub use chunk::{Chunk, ChunkPool, FillingChunk, Slice};
pub use frame::{Frame, FramePool};
pub use prefetch::{Hint, prefetch, prefetch_at};
