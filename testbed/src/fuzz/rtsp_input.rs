//! Fuzz target `rtsp_input`.

/// Runs one input.
pub fn run(_data: &[u8]) {}
