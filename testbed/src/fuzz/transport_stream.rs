//! Fuzz target `transport_stream`: bytes as they might come from a sender of MPEG transport streams, in datagrams.
//!
//! What comes out must be whole: times never fall, pictures begin with a sync sample, NAL units add up.

use dataplane::delivery::live::RecordHeader;
use dataplane::ingest::TsIngest;
use dataplane::ingest::sync::nal_units;
use dataplane::ingest::ts::TRACKS;
use dataplane::media::{Codec, TrackKind};

/// Bytes of a datagram: seven packets.
const DATAGRAM_BYTES: usize = 7 * 188;

/// What holds of the records of each track.
#[derive(Default)]
pub(super) struct Promises {
    last: [Option<RecordHeader>; 8],
}

impl Promises {
    pub(super) fn check(&mut self, track: usize, kind: TrackKind, header: &RecordHeader, data: &[u8]) {
        assert_eq!(header.bytes as usize, data.len());
        assert!(!data.is_empty());
        match self.last[track] {
            Some(last) => {
                assert!(header.at_ns >= last.at_ns, "our own time goes back");
                assert!(header.dts >= last.dts || header.discontinuity, "the sender's time goes back");
            }
            None => assert!(header.sync || kind == TrackKind::Audio, "pictures begin where a decoder can start"),
        }
        self.last[track] = Some(*header);
    }
}

/// Runs one input.
pub fn run(data: &[u8]) {
    let mut ingest = TsIngest::new();
    let mut promises = Promises::default();
    let mut sink = |track: usize, header: &RecordHeader, unit: &[u8]| {
        promises.check(track, TRACKS[track], header, unit);
        if TRACKS[track] == TrackKind::Video {
            assert_eq!(nal_units(unit, 4).map(|nal| nal.len() + 4).sum::<usize>(), unit.len(), "NAL units add up");
        }
    };
    for (n, datagram) in data.chunks(DATAGRAM_BYTES).enumerate() {
        ingest.datagram(1_000_000_000 + n as u64 * 10_000_000, datagram, &mut sink);
    }
    if let Some(described) = ingest.take_described() {
        assert!(described.tracks.iter().any(Option::is_some) && described.tracks.len() == TRACKS.len());
        let pictures = |codec: &Codec| matches!(codec, Codec::H264 { .. } | Codec::H265 { .. });
        for (codec, kind) in described.tracks.iter().zip(TRACKS) {
            assert!(codec.as_ref().is_none_or(|codec| pictures(codec) == (kind == TrackKind::Video)));
        }
    }
}
