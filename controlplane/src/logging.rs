//! The log: lines for people on stderr. Standard output belongs to what programs read (the ready line, JSON, printed configuration).
//!
//! `RUST_LOG` (`info,controlplane::rtsp=debug`), when it is set, takes the place of the configured level.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::config::LogLevel;

/// Starts the log. Later calls in the same process change nothing.
pub fn start(level: LogLevel) {
    let from_environment = std::env::var("RUST_LOG").ok().filter(|text| !text.trim().is_empty());
    let (filter, complaint) = match from_environment.map(EnvFilter::try_new) {
        None => (EnvFilter::new(level.to_string()), None),
        Some(Ok(filter)) => (filter, None),
        Some(Err(error)) => (EnvFilter::new(level.to_string()), Some(error)),
    };
    let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(colour).with_target(false);
    if log.finish().try_init().is_ok()
        && let Some(error) = complaint
    {
        tracing::warn!("RUST_LOG is not a filter ({error}); logging at {level}");
    }
}
