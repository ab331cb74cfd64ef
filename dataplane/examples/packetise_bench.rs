//! What packetising costs: nanoseconds per packet, the copy into the frame included.
//!
//! `cargo run -p dataplane --release --example packetise_bench`

use std::hint::black_box;
use std::time::Instant;

use dataplane::media::Codec;
use dataplane::payload::{Packetiser, SliceBytes, Step};

const MAX_PAYLOAD_BYTES: usize = 1400;
const ROUNDS: usize = 7;
const PACKETS_PER_ROUND: usize = 2_000_000;
/// Samples are taken in turn from so much memory, as delivery takes them from chunks: some of it is never in the first-level cache.
const MEMORY_BYTES: usize = 1 << 20;

fn main() {
    let h264 = Codec::H264 { length_bytes: 4, sps: vec![vec![0x67, 0x64, 0, 0x28]], pps: vec![vec![0x68, 0xee]] };
    let h265 = Codec::H265 { length_bytes: 4, vps: vec![vec![0x40, 1]], sps: vec![vec![0x42, 1]], pps: vec![vec![0x44, 1]] };
    let aac = Codec::Aac { config: vec![0x12, 0x10], sample_rate: 44_100, channels: 2 };
    bench("H.264, samples of 5 KB", &h264, &nal_sample(&[0x41], 5 << 10), false);
    bench("H.264, sync samples of 40 KB", &h264, &nal_sample(&[0x65], 40 << 10), true);
    bench("H.265, samples of 5 KB", &h265, &nal_sample(&[0x02, 0x01], 5 << 10), false);
    bench("AAC, samples of 350 bytes", &aac, &vec![7; 350], true);
}

/// One NAL unit with a 4-byte length.
fn nal_sample(header: &[u8], bytes: usize) -> Vec<u8> {
    let mut sample = vec![0x55; bytes];
    sample[..4].copy_from_slice(&((bytes - 4) as u32).to_be_bytes());
    sample[4..4 + header.len()].copy_from_slice(header);
    sample
}

fn bench(what: &str, codec: &Codec, sample: &[u8], sync: bool) {
    let memory: Vec<Vec<u8>> = (0..(MEMORY_BYTES / sample.len()).max(1)).map(|_| sample.to_vec()).collect();
    let mut packetiser = Packetiser::new(codec, MAX_PAYLOAD_BYTES);
    let mut frame = vec![0u8; 2048];
    let mut rounds: Vec<(f64, f64)> = (0..ROUNDS)
        .map(|_| {
            let (mut packets, mut bytes, mut at) = (0usize, 0usize, 0);
            let start = Instant::now();
            while packets < PACKETS_PER_ROUND {
                let sample = &memory[at % memory.len()];
                at += 1;
                let mut source = SliceBytes::new(sample);
                packetiser.begin(sample.len() as u32, sync);
                while let Ok(Step::Packet(meta)) = packetiser.next(&mut source, black_box(&mut frame)) {
                    packets += 1;
                    bytes += meta.len;
                }
            }
            let ns = start.elapsed().as_nanos() as f64;
            (ns / packets as f64, bytes as f64 / packets as f64)
        })
        .collect();
    rounds.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (median, bytes) = rounds[ROUNDS / 2];
    println!("{what:32} {median:6.1} ns per packet of {bytes:.0} bytes (median of {ROUNDS}; best {:.1})", rounds[0].0);
}
