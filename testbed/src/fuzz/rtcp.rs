//! Fuzz target `rtcp`.

/// Runs one input.
pub fn run(_data: &[u8]) {}
