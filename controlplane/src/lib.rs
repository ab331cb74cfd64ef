//! The control core: RTSP, SDP, sessions, configuration, the monitor. Knows nothing of how bytes reach the wire.

pub mod config;
pub mod engine;
pub mod units;
