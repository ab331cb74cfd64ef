//! Fuzz target `config`.

/// Runs one input.
pub fn run(_data: &[u8]) {}
