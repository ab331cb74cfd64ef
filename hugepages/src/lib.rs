//! Memory for devices.
//!
//! - [`arena`]: one prefaulted mapping, on huge pages where the machine grants them, with an honest answer where it does not.
//! - [`chunk`]: a pool of equal chunks in an arena; a chunk is filled once by its only owner and then shared as reference-counted
//!   slices that give it back by themselves.
//! - [`mod@prefetch`]: asks for memory that will be needed soon.
//!
//! Nothing here knows packets or media.

pub mod arena;
pub mod chunk;
pub mod prefetch;

pub use arena::{Arena, ArenaError, Backing};
pub use chunk::{Chunk, ChunkPool, Slice};
pub use prefetch::{Hint, prefetch, prefetch_at};
