//! Files that are copied by an engine core, beside what it plays.

use dataplane::disks::sim::{SimDiskConfig, SimFile};
use dataplane::engine::{Command, Refusal, Reply, TRANSFERS_MAX, TransferReport};
use dataplane::gdsl::Outcome;

use super::allocation::calls;
use super::stage::{CHUNK_BYTES, Config, Film, MS, SECOND, Stage, client};

fn content(file: &SimFile, bytes: u64) -> Vec<u8> {
    let mut content = vec![0; bytes as usize];
    file.fill(0, &mut content);
    content
}

#[test]
fn a_file_is_copied_beside_streams_that_are_on_time() {
    const BYTES: u64 = 3_000_001;
    let mut config = Config { chunks: 1200, ..Config::default() };
    // A spinning disk that the streams keep busy for half of its time.
    config.disk = SimDiskConfig { lanes: 1, seek_min_ns: MS, seek_max_ns: 2 * MS, ..config.disk };
    let mut stage = Stage::new(config);
    let films: Vec<Film> = (1..=6).map(|id| Film::plain(id, 6, 6_000)).collect();
    for film in &films {
        stage.play(film.file.id(), film);
    }
    stage.run_for(SECOND / 2);
    let (from, to) = (SimFile::pattern(50, BYTES), SimFile::writable(51, BYTES));
    stage.import(1, &from, &to, BYTES);
    stage.run_for(10 * SECOND);
    assert_eq!(stage.over, [(1, TransferReport { bytes: BYTES, outcome: Some(Outcome::Ended), going_on: 0 })]);
    assert!(to.written() == Some(content(&from, BYTES)));
    for film in &films {
        let session = film.file.id();
        let late = stage.status(session).lateness.snapshot();
        assert!(late.max_us < 8_000, "{late:?}");
        assert!(stage.payload_to(client(session, 0)) == film.bytes(0));
        stage.destroy(session);
    }
    let status = stage.core_status();
    assert_eq!((status.disk.write_bytes, status.devices[0].writes), (BYTES, BYTES.div_ceil(CHUNK_BYTES as u64)));
    stage.stop_transfer(1);
    stage.run_for(MS);
    assert_eq!(stage.gone, [1]);
    stage.assert_empty();
}

#[test]
fn when_a_transfer_is_gone_nothing_of_it_is_under_way() {
    for after_ms in 0..40 {
        let mut config = Config::default();
        config.disk = SimDiskConfig { lanes: 1, seek_min_ns: 3 * MS, seek_max_ns: 5 * MS, ..config.disk };
        let mut stage = Stage::new(config);
        let (from, to) = (SimFile::pattern(50, 1 << 20), SimFile::writable(51, 1 << 20));
        stage.import(1, &from, &to, 1 << 20);
        stage.run_for(after_ms * MS);
        stage.stop_transfer(1);
        while stage.gone.is_empty() {
            assert!(stage.now() < 10 * SECOND);
            stage.run_for(MS / 2);
        }
        let written = to.written();
        stage.run_for(SECOND);
        assert!(to.written() == written && stage.over.is_empty(), "stopped after {after_ms} ms");
        stage.assert_empty();
    }
}

#[test]
fn what_cannot_be_is_refused() {
    let mut stage = Stage::new(Config::default());
    let (from, to) = (SimFile::pattern(50, 1 << 20), SimFile::writable(51, 1 << 20));
    let start = |stage: &mut Stage, transfer| {
        let pairs = vec![Box::new(dataplane::transfer::import(from.clone(), 50, to.clone(), 1 << 20, Some(1000)).into())];
        stage.ask(|reply| Command::StartTransfer { reply, transfer, pairs })
    };
    for transfer in 1..=TRANSFERS_MAX as u64 {
        assert!(matches!(start(&mut stage, transfer), Reply::Done));
    }
    assert!(matches!(start(&mut stage, 99), Reply::Refused(Refusal::Full)));
    stage.stop_transfer(16);
    stage.run_for(100 * MS);
    assert!(matches!(start(&mut stage, 3), Reply::Refused(Refusal::State)));
    for order in [|reply| Command::StopTransfer { reply, transfer: 99 }, |reply| Command::TransferStatus { reply, transfer: 99 }] {
        assert!(matches!(stage.ask(order), Reply::Refused(Refusal::NoTransfer)));
    }
    assert!(matches!(
        stage.ask(|reply| Command::TransferStatus { reply, transfer: 3 }),
        Reply::Transfer(TransferReport { outcome: None, .. })
    ));
    for transfer in 1..16 {
        stage.stop_transfer(transfer);
    }
    stage.run_for(SECOND);
    assert_eq!(stage.gone.len(), 16);
    stage.assert_empty();
}

#[test]
fn a_copy_allocates_and_frees_nothing() {
    let mut config = Config::default();
    // So few at once that the simulated disk's tables keep their one node.
    config.disk = SimDiskConfig { depth: 8, ..config.disk };
    let mut stage = Stage::new(config);
    let (from, to) = (SimFile::pattern(50, 8 << 20), SimFile::writable(51, 8 << 20));
    // The simulated file gets its memory.
    stage.import(1, &from, &to, 8 << 20);
    stage.run_for(3 * SECOND);
    assert_eq!(stage.over.len(), 1);
    stage.import(2, &from, &to, 8 << 20);
    stage.run_for(20 * MS);
    let (mut turns, end_ns) = (0, stage.now() + 100 * MS);
    while stage.now() < end_ns {
        let before = calls();
        let turn = stage.core.turn();
        assert_eq!(calls(), before, "turn {turns} allocated or freed");
        turns += 1;
        stage.clock.advance_to(turn.next_ns.unwrap_or(u64::MAX).clamp(stage.now() + 1_000, stage.now() + MS / 2));
    }
    assert!(turns > 200 && stage.over.len() == 1, "{turns} turns");
}
