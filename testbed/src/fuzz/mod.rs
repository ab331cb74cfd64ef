//! Bodies of the fuzz targets. `testbed/fuzz` wraps each for libFuzzer; `tests/corpus.rs` replays `testbed/corpus/<target>/` through the
//! same functions in `make test`. A body must hold on every input: it panics only when the code under test broke a promise.

pub mod announce;
pub mod config;
pub mod interface;
pub mod movie;
pub mod mp4_index;
pub mod packetise;
pub mod range_header;
pub mod recording_notes;
pub mod rtcp;
pub mod rtp_ingest;
pub mod rtsp_input;
pub mod send_rtsp;
pub mod tcp_segments;
pub mod topology;
pub mod transport_header;
pub mod transport_stream;

/// A fuzz target's body.
pub type Target = fn(&[u8]);

/// All targets by name.
pub const TARGETS: [(&str, Target); 16] = [
    ("announce", announce::run),
    ("config", config::run),
    ("interface", interface::run),
    ("movie", movie::run),
    ("mp4_index", mp4_index::run),
    ("packetise", packetise::run),
    ("range_header", range_header::run),
    ("recording_notes", recording_notes::run),
    ("rtcp", rtcp::run),
    ("rtp_ingest", rtp_ingest::run),
    ("rtsp_input", rtsp_input::run),
    ("send_rtsp", send_rtsp::run),
    ("tcp_segments", tcp_segments::run),
    ("topology", topology::run),
    ("transport_header", transport_header::run),
    ("transport_stream", transport_stream::run),
];
