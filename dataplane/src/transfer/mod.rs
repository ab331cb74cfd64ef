//! Deliveries whose destination is a file, best-effort beside all that is played.
//!
//! - [`import`]: file to file.
//! - [`record`]: what is live to file; [`take`] makes an MP4 file of it, [`journal`] sees to it that it still can after a crash.
//!
//! Both ends are pairs of GDSL modules like any other delivery; what becomes of the file (its name, its place in the catalogue) is for the
//! control core.

pub mod import;
pub mod journal;
pub mod record;
pub mod take;

pub use import::{FileSink, FileSource, import};
pub use record::{Layout, RecordSink, RecordSpec};
pub use take::Take;
