//! The control core: RTSP, SDP, sessions, configuration, the monitor. Knows nothing of how bytes reach the wire.

pub mod cli;
pub mod config;
pub mod engine;
pub mod http;
pub mod local;
pub mod logging;
pub mod net;
pub mod rtsp;
pub mod sdp;
pub mod transfer;
pub mod units;
