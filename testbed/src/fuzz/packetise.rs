//! Fuzz target `packetise`: a sample of any bytes is packetised while its bytes arrive bit by bit, depacketised and compared.
//!
//! ```text
//! byte 0: codec and sync | byte 1: largest payload | byte 2: n | n bytes: how many bytes arrive each time | the sample
//! ```

use dataplane::media::Codec;
use dataplane::payload::verify;

/// Bytes of arrivals at most.
const ARRIVALS_MAX: usize = 7;

/// Runs one input.
pub fn run(data: &[u8]) {
    let (&[which, max, arrivals], rest) = match data.split_first_chunk() {
        Some(split) => split,
        None => return,
    };
    let (growth, sample) = rest.split_at(rest.len().min(usize::from(arrivals) % (ARRIVALS_MAX + 1)));
    let codec = codec(which >> 1);
    verify::roundtrip(&codec, usize::from(max) * 6, sample, which & 1 == 1, growth);
}

fn codec(which: u8) -> Codec {
    let (sps, pps) = (vec![vec![0x67, 0x64, 0, 0x28, 0xac]], vec![vec![0x68, 0xee, 0x3c]]);
    match which % 12 {
        n @ 0..3 => Codec::H264 { length_bytes: 1 << n, sps, pps },
        n @ 3..6 => Codec::H265 {
            length_bytes: 1 << (n - 3),
            vps: vec![vec![0x40, 1, 9]],
            sps: vec![vec![0x42, 1, 8]],
            pps: vec![vec![0x44, 1, 7]],
        },
        6 => Codec::Av1 { config: vec![0x81, 8, 12, 0] },
        7 => Codec::Mpeg4Visual { config: vec![] },
        8 => Codec::Aac { config: vec![0x12, 0x10], sample_rate: 44_100, channels: 2 },
        9 => Codec::MpegAudio,
        10 => Codec::Opus { channels: 2 },
        _ => Codec::Pcmu { sample_rate: 48_000, channels: 3 },
    }
}
