//! Fuzz target `packetise`.

/// Runs one input.
pub fn run(_data: &[u8]) {}
