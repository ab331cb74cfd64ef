//! Fuzz target `transport_header`.

/// Runs one input.
pub fn run(_data: &[u8]) {}
