//! The control core: RTSP, SDP, sessions, configuration, the monitor. Knows nothing of how bytes reach the wire.

pub mod engine;
pub mod rtsp;
pub mod sdp;
