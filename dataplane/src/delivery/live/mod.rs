//! Live: what arrives now, sent on to many.
//!
//! ```text
//! ingest ─► records ─► tape of a track ─► TapeSource ─► link ─► TrackSender: record by record, each at its due time
//!                          (gdsl)    └──► TapeSource ─► link ─► any other destination (a recording, a relay)
//! ```
//!
//! - [`record`]: how access units lie on a tape.
//! - [`source`]: the source module of every reader of a tape.

pub mod record;
pub mod source;
#[cfg(test)]
mod tests;

pub use record::{HEADER_BYTES, Record, RecordHeader};
pub use source::TapeSource;
