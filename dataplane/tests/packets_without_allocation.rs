//! The way of a packet through packetiser, header and reports allocates nothing.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use dataplane::media::Codec;
use dataplane::payload::{Packetiser, SliceBytes, Step};
use dataplane::rtp::sender::REPORT_BYTES_MAX;
use dataplane::rtp::{HEADER_BYTES, RtpSender, SenderSetup, TimeMap};

/// Counts the allocations of each thread.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: every call is passed on to the system's allocator as it came; counting touches a thread-local that needs no allocation.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller keeps to the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps to the contract of `dealloc`, and `ptr` came from the system's allocator.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

fn allocations() -> usize {
    ALLOCATIONS.with(Cell::get)
}

/// A NAL unit of `len` bytes with a 4-byte length.
fn nal(header: &[u8], len: u32) -> Vec<u8> {
    let body = header.iter().copied().chain(std::iter::repeat(7)).take(len as usize);
    len.to_be_bytes().into_iter().chain(body).collect()
}

#[test]
fn packets_and_reports_allocate_nothing() {
    let set = |header: u8| vec![vec![header, 1, 2, 3]];
    let formats = [
        (
            Codec::H264 { length_bytes: 4, sps: set(0x67), pps: set(0x68) },
            [nal(&[9], 2), nal(&[6], 700), nal(&[0x65], 40_000), nal(&[0x41], 300)].concat(),
        ),
        (
            Codec::H265 { length_bytes: 4, vps: set(0x40), sps: set(0x42), pps: set(0x44) },
            [nal(&[0x46, 1], 3), nal(&[0x26, 1], 40_000)].concat(),
        ),
        (Codec::Av1 { config: vec![] }, [&[0x12, 0, 0x32, 0x80, 0x10][..], &[7; 2048]].concat()),
        (Codec::Mpeg4Visual { config: vec![] }, vec![7; 5000]),
        (Codec::Aac { config: vec![0x12, 0x10], sample_rate: 44_100, channels: 2 }, vec![7; 5000]),
        (Codec::MpegAudio, vec![7; 5000]),
        (Codec::Opus { channels: 2 }, vec![7; 500]),
        (Codec::Pcmu { sample_rate: 48_000, channels: 2 }, vec![7; 5000]),
    ];
    let mut frame = vec![0; 1500];
    let mut rtcp = [0; REPORT_BYTES_MAX];
    let map = TimeMap { unix_ns: 0, rtp_timestamp: 0, clock_rate: 90_000 };
    for (codec, sample) in &formats {
        let mut packetiser = Packetiser::new(codec, 1400);
        let mut sender = RtpSender::new(SenderSetup { ssrc: 1, payload_type: 96, first_seq: 0, clock_rate: 90_000, seed: 1 });
        let before = allocations();
        let mut packets = 0;
        for _ in 0..3 {
            let mut bytes = SliceBytes::new(sample);
            packetiser.begin(sample.len() as u32, true);
            while let Step::Packet(meta) = packetiser.next(&mut bytes, &mut frame[HEADER_BYTES..]).expect("the sample is good") {
                frame[..HEADER_BYTES].copy_from_slice(&sender.header(meta.marker, 0));
                sender.note_sent(0, meta.len);
                packets += 1;
            }
            let len = sender.write_report(0, 0, &map, b"tactus", &mut rtcp).expect("there is room");
            sender.receive(0, &rtcp[..len]).expect("our own reports are valid");
        }
        let made = allocations() - before;
        assert!(packets > 0);
        assert_eq!(made, 0, "{codec:?}");
    }
    let before = allocations();
    drop(std::hint::black_box(Box::new(1)));
    assert_eq!(allocations() - before, 1, "the counter counts");
}
