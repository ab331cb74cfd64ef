//! Deliveries whose destination is a file, best-effort beside all that is played.
//!
//! - [`import`]: file to file.
//!
//! Both ends are pairs of GDSL modules like any other delivery; what becomes of the file (its name, its place in the catalogue) is for the
//! control core.

pub mod import;

pub use import::{FileSink, FileSource, import};
