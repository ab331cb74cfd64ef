//! Fuzz target `range_header`.

/// Runs one input.
pub fn run(_data: &[u8]) {}
