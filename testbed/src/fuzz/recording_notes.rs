//! Fuzz target `recording_notes`: the journal of a recording that a crash has cut off, as bytes and as entries of a frame that is as it was
//! written, replayed and made a file of.

use std::io;
use std::sync::Arc;

use dataplane::media::{Codec, TrackKind};
use dataplane::transfer::journal::{Notes, frame, replay};
use dataplane::transfer::record::{Layout, RecordSpec};
use dataplane::transfer::take::{Storage, Take, finish};

/// Bytes that the file may come to have.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// A file with nothing in it, that takes no more than some.
struct Empty;

impl Storage for Empty {
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        buf.fill(0);
        if offset + buf.len() as u64 <= FILE_BYTES_MAX { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }

    fn write_all_at(&mut self, _: &[u8], _: u64) -> io::Result<()> {
        Ok(())
    }
}

fn take(kind: TrackKind, codec: Codec) -> Take {
    let (channel, track, clock_rate, duration_ns) = (1, 0, 90_000, None);
    RecordSpec { channel, track, kind, codec, clock_rate, file: (), layout: Arc::new(Layout::default()), block_bytes: 4096, duration_ns }
        .build()
        .1
}

/// Runs one input.
pub fn run(data: &[u8]) {
    let _ = replay(data, b"boot");
    let video = Codec::H264 { length_bytes: 4, sps: Vec::new(), pps: Vec::new() };
    let takes = [take(TrackKind::Video, video), take(TrackKind::Audio, Codec::Opus { channels: 2 })];
    let mut journal = Notes::head(b"boot", false, &takes);
    journal.extend(frame(data));
    let replayed = replay(journal.as_slice(), b"boot").expect("the head is as it was written");
    assert_eq!(replayed.takes.len(), 2);
    let _ = finish(&mut Empty, replayed.takes);
}
