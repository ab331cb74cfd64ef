//! Fuzz target `rtp_ingest`: RTP and RTCP of a client that records, in any order and shape.
//!
//! ```text
//! byte 0: codec of track 0 | then, again and again:  what and which track | milliseconds | length | that many bytes
//! ```

use dataplane::delivery::live::RecordHeader;
use dataplane::ingest::{REPORT_BYTES_MAX, RtpIngest, RtpTrackSpec};
use dataplane::media::{Codec, TrackKind};
use dataplane::rtp::header::HeaderTemplate;
use dataplane::rtp::rtcp::Compound;

use super::transport_stream::Promises;

/// Runs one input.
pub fn run(data: &[u8]) {
    let Some((&which, mut rest)) = data.split_first() else { return };
    let (codec, kind) = match which % 6 {
        0 => (Codec::H264 { length_bytes: 4, sps: vec![], pps: vec![] }, TrackKind::Video),
        1 => (Codec::H265 { length_bytes: 4, vps: vec![], sps: vec![], pps: vec![] }, TrackKind::Video),
        2 => (Codec::Av1 { config: vec![] }, TrackKind::Video),
        3 => (Codec::Mpeg4Visual { config: vec![] }, TrackKind::Video),
        4 => (Codec::Aac { config: vec![0x12, 0x10], sample_rate: 44_100, channels: 2 }, TrackKind::Audio),
        _ => (Codec::MpegAudio, TrackKind::Audio),
    };
    let track = |codec: Codec, payload_type| RtpTrackSpec { codec, payload_type, clock_rate: 90_000 };
    let mut ingest = RtpIngest::new(&[track(codec, 96), track(Codec::Opus { channels: 2 }, 97)], 1, "fuzz");
    let mut promises = Promises::default();
    let kinds = [kind, TrackKind::Audio];
    let mut sink = |track: usize, header: &RecordHeader, unit: &[u8]| promises.check(track, kinds[track], header, unit);
    let (mut now_ns, mut seq) = (1_000_000_000u64, 0u16);
    while let Some((&[what, ms, len], after)) = rest.split_first_chunk() {
        let (bytes, after) = after.split_at(after.len().min(usize::from(len)));
        rest = after;
        now_ns += u64::from(ms) * 1_000_000;
        let track = usize::from(what & 1);
        match what >> 1 & 3 {
            // Nothing but what was given.
            0 => _ = ingest.rtp(now_ns, track, bytes, &mut sink),
            1 => _ = ingest.rtcp(now_ns, track, bytes),
            // A packet with a sound header, a number that goes on or jumps, and the given payload.
            2 => {
                seq = seq.wrapping_add(u16::from(what >> 3 & 7)).wrapping_sub(1);
                let timestamp = u32::from(what >> 6) * 3000 + (now_ns / 100_000) as u32;
                let header = HeaderTemplate::new(96 + track as u8, 7).packet(what & 8 != 0, seq, timestamp);
                ingest.rtp(now_ns, track, &[&header[..], bytes].concat(), &mut sink);
            }
            _ => {
                ingest.tick(now_ns, &mut sink);
                let mut report = [0; REPORT_BYTES_MAX];
                let len = ingest.report(now_ns, track, &mut report);
                assert!(len == 0 || Compound::new_checked(&report[..len]).is_ok());
            }
        }
    }
    ingest.flush(now_ns, &mut sink);
}
