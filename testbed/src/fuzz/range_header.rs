//! Fuzz target `range_header`: any text as the `Range` header of a PLAY, and a title's duration from its first bytes.

use controlplane::rtsp::range::{Start, parse, seconds};

/// Runs one input.
pub fn run(data: &[u8]) {
    let Some((duration_ns, text)) = data.split_first_chunk() else { return };
    let duration_ns = u64::from_le_bytes(*duration_ns);
    let Ok(range) = parse(&String::from_utf8_lossy(text)) else { return };
    let Ok(range) = range.within(duration_ns) else { return };
    let start_ns = match range.start {
        Start::Position => 0,
        Start::Npt(start_ns) => start_ns,
    };
    assert!(start_ns == 0 || start_ns < duration_ns);
    if let Some(end_ns) = range.end_ns {
        assert!(end_ns < duration_ns && (start_ns < end_ns || range.start == Start::Position));
    }
    // Written times are read back, to the microsecond.
    let again = parse(&format!("npt={}-", seconds(start_ns))).expect("our own writing");
    assert_eq!(again.start, Start::Npt(start_ns - start_ns % 1_000));
}
