use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use crossbeam_channel::{Sender, unbounded};
use proptest::prelude::*;

use super::*;
use crate::media::Codec;

const EXTENT_BYTES: u64 = 1 << 16;

/// A take whose sink is the test, with what the sink shares with it.
fn take(kind: TrackKind, codec: Codec) -> (Take, Sender<Note>, Arc<AtomicU64>) {
    let (sink, notes) = unbounded();
    let safe = Arc::new(AtomicU64::new(0));
    (Take::new(kind, codec, 90_000, EXTENT_BYTES, notes, Arc::clone(&safe)), sink, safe)
}

fn takes() -> ([Take; 2], [Sender<Note>; 2], [Arc<AtomicU64>; 2]) {
    let video = Codec::H264 { length_bytes: 4, sps: vec![vec![0x67, 1, 2]], pps: vec![vec![0x68]] };
    let (video, video_sink, video_safe) = take(TrackKind::Video, video);
    let (audio, audio_sink, audio_safe) = take(TrackKind::Audio, Codec::Opus { channels: 2 });
    ([video, audio], [video_sink, audio_sink], [video_safe, audio_safe])
}

fn record(n: u64) -> Note {
    let header = RecordHeader {
        at_ns: n * 40_000_000,
        dts: n as i64 * 3600,
        pts_offset: (n % 3) as i32 * 3600,
        span_ns: 40_000_000,
        bytes: 100,
        sync: n.is_multiple_of(10),
        discontinuity: false,
    };
    Note::Record(header, n * 132)
}

/// A journal of 60 records of each track in 6 frames, synced after the third; the length of it after each frame, head first.
fn journal() -> (Vec<u8>, Vec<usize>) {
    let (mut takes, sinks, safe) = takes();
    let mut bytes = Notes::head(b"boot", true, &takes);
    let mut ends = vec![bytes.len()];
    let mut notes = Notes::default();
    sinks.iter().enumerate().for_each(|(i, sink)| sink.send(Note::Extent((i as u64 + 1) * EXTENT_BYTES)).unwrap());
    for frame in 0..6 {
        for n in frame * 10..(frame + 1) * 10 {
            sinks.iter().for_each(|sink| sink.send(record(n)).unwrap());
        }
        safe.iter().for_each(|safe| safe.store(frame * 10 * 132, std::sync::atomic::Ordering::Release));
        notes.collect(&mut takes);
        bytes.extend(notes.frames());
        ends.push(bytes.len());
        if frame == 2 {
            bytes.extend(Notes::synced());
        }
    }
    (bytes, ends)
}

#[test]
fn a_journal_tells_what_the_takes_were_told() {
    let (bytes, ends) = journal();
    let replayed = replay(bytes.as_slice(), b"boot").unwrap();
    assert!(replayed.replace && replayed.takes.len() == 2);
    for (take, (kind, codec)) in replayed.takes.iter().zip(takes().0.iter().map(|take| (take.shape().0, take.shape().1.clone()))) {
        assert_eq!((take.shape().0, take.shape().1), (kind, &codec));
        assert_eq!((take.samples(), take.safe(), take.duration_ns()), (60, 50 * 132, 59 * 40_000_000));
        assert!(take.end() > EXTENT_BYTES);
    }
    // The machine was started anew since: what was synced counts, and where it is not known, too.
    for boot in [&b"other"[..], b""] {
        let replayed = replay(bytes.as_slice(), boot).unwrap();
        assert!(replayed.takes.iter().all(|take| take.safe() == 20 * 132));
    }
    let replayed = replay(&bytes[..ends[3]], b"other").unwrap();
    assert!(replayed.takes.iter().all(|take| take.safe() == 0), "nothing was synced yet");
    for bad in [&b""[..], b"TACTUSN0", &bytes[..ends[0] - 1], &bytes[1..]] {
        assert!(matches!(replay(bad, b"boot"), Err(JournalError::Broken)));
    }
}

#[test]
fn a_journal_goes_when_its_recording_is_over_and_stays_when_it_is_left() {
    let folder = tempfile::tempdir().unwrap();
    let names = || {
        let mut names: Vec<_> = folder.path().read_dir().unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let (takes, ..) = takes();
    let path = folder.path().join("a.mp4");
    let new = NewFile::create(&path, 1 << 20, false).unwrap();
    let mut journal = Journal::create(&new, false, &takes).unwrap();
    journal.sync(&new).unwrap();
    assert_eq!(names(), [".a.mp4.notes", ".a.mp4.part"]);
    journal.leave();
    new.leave();
    let new = NewFile::take_up(&path, false).unwrap().unwrap();
    assert_eq!(new.size_now().unwrap(), 1 << 20, "as it was left");
    let (journal, replayed) = Journal::take_up(&new).unwrap();
    assert_eq!((replayed.takes.len(), replayed.replace), (2, false));
    drop((journal, new));
    assert!(names().is_empty());
    assert!(NewFile::take_up(&path, false).unwrap().is_none());
}

#[test]
fn a_journal_of_more_than_there_is_tells_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let new = NewFile::create(&folder.path().join("a.mp4"), 100, false).unwrap();
    let (bytes, _) = journal();
    let own = super::boot();
    let (takes, ..) = takes();
    let head = Notes::head(b"boot", true, &takes).len();
    let mut all = Notes::head(&own, true, &takes);
    all.extend_from_slice(&bytes[head..]);
    std::fs::write(new.notes_path(), all).unwrap();
    assert!(matches!(Journal::take_up(&new), Err(JournalError::Short)));
}

proptest! {
    /// Cut anywhere, it tells all of the frames before.
    #[test]
    fn a_cut_journal_tells_what_comes_before(at in any::<prop::sample::Index>()) {
        let (bytes, ends) = journal();
        let at = at.index(bytes.len());
        match replay(&bytes[..at], b"boot") {
            Err(_) => prop_assert!(at < ends[0]),
            Ok(replayed) => {
                let frames = ends.iter().filter(|&&end| end <= at).count() as u64 - 1;
                for take in &replayed.takes {
                    prop_assert_eq!((take.samples(), take.safe()), (frames * 10, frames.saturating_sub(1) * 1320));
                }
            }
        }
    }

    /// A flipped bit ends it there, and does no harm.
    #[test]
    fn a_damaged_journal_tells_what_comes_before(at in any::<prop::sample::Index>(), bit in 0u32..8) {
        let (mut bytes, ends) = journal();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        match replay(bytes.as_slice(), b"boot") {
            Err(_) => prop_assert!(at < ends[0]),
            Ok(replayed) => {
                let frames = ends.iter().filter(|&&end| end <= at).count() as u64;
                prop_assert!(frames > 0 && replayed.takes.iter().all(|take| take.samples() >= (frames - 1) * 10));
            }
        }
    }
}
