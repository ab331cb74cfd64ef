//! Fuzz target `transport_header`: any text as the `Transport` header of a SETUP.

use controlplane::engine::TrackReady;
use controlplane::rtsp::transport::{Lower, answer, choose};

/// Runs one input.
pub fn run(data: &[u8]) {
    let Some(choice) = choose(&String::from_utf8_lossy(data)) else { return };
    let channels = match choice.lower {
        Lower::Udp { rtp_port, rtcp_port } => {
            assert!(rtp_port != 0 && rtcp_port != 0 && rtp_port != rtcp_port);
            (0, 1)
        }
        Lower::Interleaved { channels } => {
            let channels = channels.unwrap_or((0, 1));
            assert_ne!(channels.0, channels.1);
            channels
        }
    };
    // What we answer, a client may offer again.
    let text = answer(&choice, channels, &TrackReady { ssrc: 7, server_ports: Some((6970, 6971)) });
    let again = choose(&text).expect("our own answer can be done");
    assert_eq!(again.specifier, choice.specifier);
    match (again.lower, choice.lower) {
        (Lower::Interleaved { channels: Some(read) }, Lower::Interleaved { .. }) => assert_eq!(read, channels),
        (read, chosen) => assert_eq!(read, chosen),
    }
}
