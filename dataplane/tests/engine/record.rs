//! Live channels that are recorded: what is in the file is what the sender sent, whatever the disk does, and nobody else notices.

use std::io::{self, Cursor};
use std::sync::Arc;

use dataplane::disks::sim::{SimDiskConfig, SimFile};
use dataplane::engine::{Command, Refusal, Reply, TransferReport};
use dataplane::gdsl::Outcome;
use dataplane::media::{Title, read_title};
use dataplane::transfer::Take;
use dataplane::transfer::journal::{Notes, replay};
use dataplane::transfer::record::{Layout, RecordSpec, TOO_SLOW};
use dataplane::transfer::take::{Storage, TakeError, finish};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::allocation::calls;
use super::live::{CHANNEL, GOP, Sender, codecs, join, open, report, sender};
use super::stage::{CHUNK_BYTES, Config, MS, RTCP, RTP, SECOND, Stage, client, rtcp_of};

const KEY: u64 = 5;

/// The file as the control core has it.
struct Content(Vec<u8>);

impl Storage for Content {
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let from = self.0.get(offset as usize..).and_then(|rest| rest.get(..buf.len())).ok_or(io::ErrorKind::UnexpectedEof)?;
        buf.copy_from_slice(from);
        Ok(())
    }

    fn write_all_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let end = offset as usize + bytes.len();
        self.0.resize(self.0.len().max(end), 0);
        self.0[offset as usize..end].copy_from_slice(bytes);
        Ok(())
    }
}

struct Recording {
    file: SimFile,
    takes: Vec<Take>,
}

impl Recording {
    fn begin(stage: &mut Stage, room: u64, duration_ns: Option<u64>) -> Result<Self, Refusal> {
        Self::begin_in(stage, &SimFile::writable(900, room), duration_ns)
    }

    fn begin_in(stage: &mut Stage, file: &SimFile, duration_ns: Option<u64>) -> Result<Self, Refusal> {
        let layout = Arc::new(Layout::default());
        let spec = |(track, (codec, kind, clock_rate, _))| RecordSpec {
            channel: CHANNEL,
            track,
            kind,
            codec,
            clock_rate,
            file: file.clone(),
            layout: Arc::clone(&layout),
            block_bytes: CHUNK_BYTES as u64,
            duration_ns,
        };
        let (mut pairs, mut takes) = (Vec::new(), Vec::new());
        for spec in codecs().into_iter().enumerate().map(spec) {
            let (pair, take) = spec.build();
            pairs.push(Box::new(pair.into()));
            takes.push(take);
        }
        match stage.ask(|reply| Command::StartTransfer { reply, transfer: KEY, pairs }) {
            Reply::Done => Ok(Self { file: file.clone(), takes }),
            Reply::Refused(refusal) => Err(refusal),
            other => panic!("{other:?}"),
        }
    }

    fn end(stage: &mut Stage) {
        assert!(matches!(stage.ask(|reply| Command::EndRecording { reply, transfer: KEY }), Reply::Done));
    }

    /// Once the engine core has let go of it.
    fn finish(self, stage: &mut Stage) -> Result<Film, TakeError> {
        stage.stop_transfer(KEY);
        while stage.gone.is_empty() {
            stage.run_for(MS);
        }
        Self::film(self.file.written().unwrap(), self.takes)
    }

    fn film(written: Vec<u8>, takes: Vec<Take>) -> Result<Film, TakeError> {
        let mut content = Content(written);
        let finished = finish(&mut content, takes)?;
        content.0.truncate(finished.bytes as usize);
        let title = read_title(&mut Cursor::new(&content.0), finished.bytes).unwrap();
        let samples: usize = title.tracks.iter().map(|track| track.samples.len() as usize).sum();
        assert_eq!(finished.samples, samples as u64);
        Ok(Film { title, content: content.0 })
    }
}

/// A file that was recorded.
struct Film {
    title: Title,
    content: Vec<u8>,
}

impl Film {
    /// Numbers of the access units of a track and when each is shown, nanoseconds. All bytes are the sender's.
    fn units(&self, track: usize, sent: &[(Vec<u8>, bool)]) -> Vec<(usize, i64)> {
        let (codec, kind, ..) = &codecs()[track];
        let Some(found) = self.title.tracks.iter().find(|found| found.kind == *kind) else { return Vec::new() };
        assert_eq!(found.codec, *codec);
        let samples: Vec<_> = found.samples.iter().collect();
        let mut units = Vec::new();
        for sample in samples {
            let data = &self.content[sample.offset as usize..][..sample.size as usize];
            let number = u32::from_be_bytes(data[5..9].try_into().unwrap()) as usize;
            assert!(data == sent[number].0, "unit {number} of track {track}");
            assert_eq!(sample.sync, track == 1 || number.is_multiple_of(GOP));
            units.push((number, found.ns_of(sample.dts + i64::from(sample.cts_offset))));
        }
        units
    }
}

/// Sends what is due while time passes until `end_ns`.
fn play(stage: &mut Stage, arrivals: &mut std::iter::Peekable<std::vec::IntoIter<(u64, usize, Vec<u8>)>>, end_ns: u64) {
    while stage.now() < end_ns {
        while let Some((_, track, datagram)) = arrivals.next_if(|&(at_ns, ..)| at_ns <= stage.now()) {
            stage.inject(RTP, client(200, track), &datagram);
        }
        let next_ns = arrivals.peek().map_or(end_ns, |&(at_ns, ..)| at_ns);
        stage.run_for(next_ns.min(end_ns).saturating_sub(stage.now()).clamp(1000, 50 * MS));
    }
}

/// A channel with a sender of so many seconds.
fn channel(config: Config, rng: &mut StdRng, seconds: usize, lost_per_mille: u32, jitter_ns: u64) -> (Stage, Sender) {
    let mut stage = Stage::new(Config { chunks: 2048, ..config });
    open(&mut stage, [200, 60], false);
    let sender = sender(rng, stage.now(), seconds, lost_per_mille, jitter_ns);
    for (track, (_, _, rate, _)) in codecs().iter().enumerate() {
        stage.inject(RTCP, rtcp_of(client(200, track)), &report(track, *rate, 0));
    }
    (stage, sender)
}

fn close(mut stage: Stage) {
    assert!(matches!(stage.ask(|reply| Command::CloseChannel { reply, channel: CHANNEL }), Reply::Done));
    stage.assert_empty();
}

/// One recording from a seed: when it begins and how it ends is up to chance, and so is the network.
fn world(seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let lost_per_mille = [0, 5][seed as usize % 2];
    let disk = SimDiskConfig { seed, lanes: 1 + seed as usize % 3, ..SimDiskConfig::default() };
    let (mut stage, Sender { arrivals, units }) =
        channel(Config { disk, ..Config::default() }, &mut rng, 12, lost_per_mille, seed % 3 * 10 * MS);
    let mut arrivals = arrivals.into_iter().peekable();
    let begin_ns = stage.now();
    let from_ns = begin_ns + rng.random_range(SECOND..4 * SECOND);
    let end_ns = from_ns + rng.random_range(0..6 * SECOND);
    play(&mut stage, &mut arrivals, from_ns);
    // 0: it is ended, 1: it ends by itself, 2: the sender ends.
    let way = seed / 2 % 3;
    let duration_ns = (way == 1).then(|| rng.random_range(200 * MS..5 * SECOND));
    let Ok(recording) = Recording::begin(&mut stage, 1 << 30, duration_ns) else { panic!("seed {seed}: it begins") };
    match way {
        0 => {
            play(&mut stage, &mut arrivals, end_ns);
            Recording::end(&mut stage);
        }
        _ => play(&mut stage, &mut arrivals, begin_ns + 18 * SECOND),
    }
    stage.run_for(SECOND);
    let ends = stage.over.clone();
    assert!(
        matches!(ends.as_slice(), [(KEY, first), (KEY, last)] if first.going_on == 1 && last.outcome == Some(Outcome::Ended)),
        "{ends:?}"
    );
    let film = recording.finish(&mut stage).unwrap();
    let (pictures, sound) = (film.units(0, &units[0]), film.units(1, &units[1]));
    let (&(first, first_ns), &(last, _)) = (pictures.first().unwrap(), pictures.last().unwrap());
    assert!(first.is_multiple_of(GOP), "seed {seed}: it starts with a sync sample");
    for two in pictures.windows(2) {
        assert!(
            two[1].0 == two[0].0 + 1 || lost_per_mille > 0 && two[1].0 > two[0].0 && two[1].0.is_multiple_of(GOP),
            "seed {seed}: {two:?}"
        );
    }
    // Every one keeps the time that the sender gave it, and the tracks theirs to each other.
    for (units, step_ms) in [(&pictures, 40), (&sound, 20)] {
        for &(number, at_ns) in units {
            let expected_ns = (number as i64 * step_ms - first as i64 * 40) * MS as i64;
            assert!(
                (at_ns - first_ns - expected_ns).abs() < 20 * MS as i64 / 48,
                "seed {seed}: {number}: {at_ns} ns, expected {expected_ns}"
            );
        }
    }
    let (&(sound_first, _), &(sound_last, _)) = (sound.first().unwrap(), sound.last().unwrap());
    assert!(sound_first.abs_diff(first * 2) <= 2 || lost_per_mille > 0, "seed {seed}: sound from {sound_first}, pictures from {first}");
    if lost_per_mille == 0 {
        match duration_ns {
            Some(ns) => {
                assert!(((last - first + 1) as u64 * 40 * MS).abs_diff(ns.div_ceil(40 * MS) * 40 * MS) <= 40 * MS, "seed {seed}: {ns} ns")
            }
            None if way == 2 => assert_eq!((last + 1, sound_last + 1), (units[0].len(), units[1].len()), "seed {seed}: to the end"),
            None => assert!((last as u64 * 40 * MS).abs_diff(end_ns - begin_ns) < 120 * MS, "seed {seed}: up to now"),
        }
    }
    close(stage);
}

#[test]
fn a_channel_is_recorded_access_unit_by_access_unit() {
    match std::env::var("TACTUS_SIM_SEED") {
        Ok(seed) => world(seed.parse().expect("a number")),
        Err(_) => (0..18).for_each(world),
    }
}

#[test]
fn when_the_disk_gives_out_what_is_there_is_a_film_and_viewers_notice_nothing() {
    let full = |seconds| (SimDiskConfig::default(), 300_000, seconds, "the disk is full");
    // Slower than the stream: what is retained runs out.
    let slow = |seconds| (SimDiskConfig { lanes: 1, bytes_per_s: 20_000, ..SimDiskConfig::default() }, 1 << 30, seconds, TOO_SLOW);
    for (disk, room, seconds, why) in [full(8), slow(25)] {
        let mut rng = StdRng::seed_from_u64(9);
        let (mut stage, Sender { arrivals, units }) = channel(Config { disk, ..Config::default() }, &mut rng, seconds, 0, 0);
        let mut arrivals = arrivals.into_iter().peekable();
        let begin_ns = stage.now();
        play(&mut stage, &mut arrivals, begin_ns + SECOND);
        join(&mut stage, 1);
        let recording = Recording::begin(&mut stage, room, None).unwrap();
        play(&mut stage, &mut arrivals, begin_ns + seconds as u64 * SECOND);
        let failed = stage.over.iter().any(|(_, report)| report.outcome == Some(Outcome::Failed(why)));
        assert!(failed, "{why}: {:?}", stage.over);
        assert!(
            matches!(stage.ask(|reply| Command::TransferStatus { reply, transfer: KEY }), Reply::Transfer(TransferReport { bytes, .. }) if bytes > 0)
        );
        Recording::end(&mut stage);
        stage.run_for(20 * SECOND);
        let film = recording.finish(&mut stage).unwrap();
        let pictures = film.units(0, &units[0]);
        film.units(1, &units[1]);
        assert!(pictures.len() > 10 && pictures.windows(2).all(|two| two[1].0 == two[0].0 + 1), "{why}: {pictures:?}");
        assert!(stage.status(1).lateness.snapshot().max_us < 2_500, "{why}");
        assert_eq!(super::live::seen(&stage, 1, 0, &units[0]).last().map(|&(number, _)| number + 1), Some(units[0].len()), "{why}");
        stage.destroy(1);
        close(stage);
    }
}

#[test]
fn a_recording_may_be_ended_or_dropped_at_any_moment() {
    for after_ms in (0..300).step_by(13) {
        let mut rng = StdRng::seed_from_u64(after_ms);
        let disk = SimDiskConfig { lanes: 1, seek_min_ns: 3 * MS, seek_max_ns: 5 * MS, ..SimDiskConfig::default() };
        let (mut stage, Sender { arrivals, units }) = channel(Config { disk, ..Config::default() }, &mut rng, 4, 0, 0);
        let mut arrivals = arrivals.into_iter().peekable();
        let begin_ns = stage.now();
        play(&mut stage, &mut arrivals, begin_ns + SECOND);
        let recording = Recording::begin(&mut stage, 1 << 30, None).unwrap();
        play(&mut stage, &mut arrivals, begin_ns + SECOND + after_ms * MS);
        if after_ms % 2 == 0 {
            Recording::end(&mut stage);
            while stage.over.last().is_none_or(|(_, report)| report.going_on > 0) {
                assert!(stage.now() < 60 * SECOND);
                stage.run_for(MS);
            }
        }
        match recording.finish(&mut stage) {
            Ok(film) => assert!(!film.units(0, &units[0]).is_empty() || after_ms % 2 == 1),
            Err(error) => assert!(after_ms % 2 == 1 && matches!(error, TakeError::Nothing), "{error}"),
        }
        close(stage);
    }
}

#[test]
fn what_was_noted_before_a_crash_is_a_film() {
    const EVERY_MS: u64 = 300;
    for seed in 0..12 {
        let mut rng = StdRng::seed_from_u64(seed);
        let disk = SimDiskConfig { seed, lanes: 1 + seed as usize % 2, ..SimDiskConfig::default() };
        let (mut stage, Sender { arrivals, units }) = channel(Config { disk, ..Config::default() }, &mut rng, 9, 0, 0);
        let mut arrivals = arrivals.into_iter().peekable();
        let begin_ns = stage.now();
        play(&mut stage, &mut arrivals, begin_ns + SECOND);
        let mut recording = Recording::begin(&mut stage, 1 << 30, None).unwrap();
        let mut notes = Notes::default();
        let mut journal = Notes::head(b"boot", false, &recording.takes);
        let (mut now_ns, mut last) = (begin_ns + SECOND, 0);
        let crash_ns = begin_ns + rng.random_range(2 * SECOND..9 * SECOND);
        while now_ns < crash_ns {
            now_ns += rng.random_range(1..EVERY_MS) * MS;
            play(&mut stage, &mut arrivals, now_ns);
            notes.collect(&mut recording.takes);
            last = journal.len();
            journal.extend(notes.frames());
        }
        // The crash comes while the last frame is written; what the disk does with the writes that are under way, nobody knows.
        journal.truncate(rng.random_range(last..=journal.len()));
        let written = recording.file.written().unwrap();
        let film = Recording::film(written, replay(journal.as_slice(), b"boot").unwrap().takes).unwrap();
        let (pictures, sound) = (film.units(0, &units[0]), film.units(1, &units[1]));
        for (units, step_ms) in [(&pictures, 40), (&sound, 20)] {
            assert!(units.windows(2).all(|two| two[1].0 == two[0].0 + 1), "seed {seed}: {units:?}");
            // What may be missing: two frames of notes, and a block of sound that was not full.
            let until_ms = units.last().map_or(0, |&(number, _)| (number as u64 + 1) * step_ms);
            let missing_ms = ((now_ns - begin_ns) / MS).saturating_sub(until_ms);
            assert!(missing_ms < 2 * EVERY_MS + 600, "seed {seed}: {missing_ms} ms are missing");
        }
        assert!(!stage.over.iter().any(|(_, report)| report.outcome.is_some()));
        recording.finish(&mut stage).unwrap();
        close(stage);
    }
}

#[test]
fn what_cannot_be_recorded_is_refused() {
    let mut rng = StdRng::seed_from_u64(3);
    let mut stage = Stage::new(Config { chunks: 2048, ..Config::default() });
    assert_eq!(Recording::begin(&mut stage, 1 << 20, None).err(), Some(Refusal::NoChannel));
    open(&mut stage, [200, 60], false);
    assert_eq!(Recording::begin(&mut stage, 1 << 20, None).err(), Some(Refusal::NoKeyFrame));
    let Sender { arrivals, .. } = sender(&mut rng, stage.now(), 2, 0, 0);
    let end_ns = stage.now() + SECOND;
    play(&mut stage, &mut arrivals.into_iter().peekable(), end_ns);
    let recording = Recording::begin(&mut stage, 1 << 20, None).unwrap();
    assert_eq!(Recording::begin(&mut stage, 1 << 20, None).err(), Some(Refusal::State), "two of one name");
    // A channel that is closed ends it.
    assert!(matches!(stage.ask(|reply| Command::CloseChannel { reply, channel: CHANNEL }), Reply::Done));
    stage.run_for(SECOND);
    assert!(stage.over.last().is_some_and(|(_, report)| report.outcome == Some(Outcome::Ended)), "{:?}", stage.over);
    recording.finish(&mut stage).unwrap();
    stage.assert_empty();
}

#[test]
fn a_recording_allocates_and_frees_nothing() {
    let mut rng = StdRng::seed_from_u64(4);
    // So few at once that the simulated disk's tables keep their one node.
    let disk = SimDiskConfig { depth: 8, ..SimDiskConfig::default() };
    let (mut stage, Sender { arrivals, .. }) = channel(Config { disk, ..Config::default() }, &mut rng, 9, 0, 0);
    let mut arrivals = arrivals.into_iter().peekable();
    let begin_ns = stage.now();
    play(&mut stage, &mut arrivals, begin_ns + SECOND);
    // The simulated file gets its memory.
    let file = SimFile::writable(900, 1 << 24);
    let recording = Recording::begin_in(&mut stage, &file, None).unwrap();
    play(&mut stage, &mut arrivals, begin_ns + 5 * SECOND);
    recording.finish(&mut stage).unwrap();
    let mut recording = Recording::begin_in(&mut stage, &file, None).unwrap();
    play(&mut stage, &mut arrivals, begin_ns + 5 * SECOND + 20 * MS);
    let (mut turns, written) = (0, stage.core_status().disk.write_bytes);
    while stage.now() < begin_ns + 8 * SECOND {
        let mut datagrams = 0;
        while let Some((_, track, datagram)) = arrivals.next_if(|&(at_ns, ..)| at_ns <= stage.now()) {
            stage.inject(RTP, client(200, track), &datagram);
            datagrams += 1;
        }
        let before = calls();
        let turn = stage.core.turn();
        // The simulated host frees what it has handed over.
        assert!(calls() - before <= datagrams, "turn {turns} allocated or freed");
        turns += 1;
        recording.takes.iter_mut().for_each(|take| take.collect(|_| {}));
        stage.clock.advance_to(turn.next_ns.unwrap_or(u64::MAX).clamp(stage.now() + 1_000, stage.now() + MS / 2));
    }
    assert!(turns > 1000 && stage.core_status().disk.write_bytes > written + 100_000);
    stage.gone.clear();
    recording.finish(&mut stage).unwrap();
    close(stage);
}
