//! Fuzz target `mp4_index`.

/// Runs one input.
pub fn run(_data: &[u8]) {}
