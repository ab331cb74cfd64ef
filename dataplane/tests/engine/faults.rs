//! Disks that fail, files that shrink, networks that are full.

use dataplane::disks::sim::{SimDiskConfig, SimFile};
use dataplane::gdsl::Outcome;
use stack::sim::SimLink;

use super::stage::{CHUNK_BYTES, Config, Film, MS, SECOND, Stage, client};

#[test]
fn a_file_that_became_shorter_ends_only_its_session() {
    let whole = Film::plain(1, 4, 2000);
    let bytes = whole.file.size();
    // Cut within a block, at the edge of a block, and to nothing.
    for left in [bytes / 2 + 5, bytes / 2 / CHUNK_BYTES as u64 * CHUNK_BYTES as u64, 0] {
        let mut stage = Stage::new(Config::default());
        let mut cut = Film::plain(2, 4, 2000);
        cut.file = SimFile::pattern(2, left);
        stage.play(1, &whole);
        stage.play(2, &cut);
        stage.run_for(6 * SECOND);
        let mut finished = stage.finished.clone();
        finished.sort_by_key(|f| f.0);
        assert_eq!(finished, [(1, Outcome::Ended), (2, Outcome::Failed("the file is shorter than it was"))], "{left} bytes left");
        for track in 0..2 {
            assert!(stage.payload_to(client(1, track)) == whole.bytes(track));
            let got = stage.payload_to(client(2, track));
            assert!(whole.bytes(track).len() > got.len() && got == cut.bytes(track)[..got.len()]);
        }
        assert!(stage.status(1).lateness.snapshot().max_us < 1000);
        stage.destroy(1);
        stage.destroy(2);
        stage.assert_empty();
    }
}

#[test]
fn a_disk_error_ends_the_sessions_that_need_the_block_and_a_retry_reads_it_again() {
    let disk = SimDiskConfig { errors_per_million: 1_000_000, ..SimDiskConfig::default() };
    let mut stage = Stage::new(Config { disk, ..Config::default() });
    let film = Film::plain(3, 3, 2000);
    stage.play(1, &film);
    stage.play(2, &film);
    stage.run_for(SECOND);
    let mut finished = std::mem::take(&mut stage.finished);
    finished.sort_by_key(|f| f.0);
    let failed = Outcome::Failed("the disk cannot read the file");
    assert_eq!(finished, [(1, failed), (2, failed)]);
    // Their links still hold the failed blocks. A newcomer gets a fresh read, which fails as well; nobody waits.
    stage.play(3, &film);
    stage.run_for(SECOND);
    assert_eq!(stage.finished, [(3, failed)]);
    for session in 1..=3 {
        stage.destroy(session);
    }
    stage.assert_empty();
}

#[test]
fn a_full_network_makes_late_but_loses_and_disorders_nothing() {
    let mut config = Config::default();
    // 3 sessions of 0.5 Mbit/s and more fit on the average; a sync sample does not go out at once.
    config.host.link = Some(SimLink { rate_bps: 3_000_000, queue_bytes: 3000 });
    let mut stage = Stage::new(config);
    let film = Film::plain(4, 4, 2500);
    for session in 1..=3 {
        stage.play(session, &film);
    }
    stage.run_for(6 * SECOND);
    assert_eq!(stage.finished.len(), 3);
    let status = stage.core_status();
    assert!(status.host.tx_backpressure > 0, "the link was full at times");
    for session in 1..=3 {
        for track in 0..2 {
            assert!(stage.payload_to(client(session, track)) == film.bytes(track));
        }
        stage.destroy(session);
    }
    stage.assert_empty();
}

#[test]
fn too_few_buffers_make_late_and_are_no_end() {
    let mut stage = Stage::new(Config { chunks: 6, ..Config::default() });
    let (film, other) = (Film::plain(5, 2, 2500), Film::plain(6, 2, 2500));
    stage.play(1, &film);
    stage.play(2, &other);
    stage.run_for(10 * SECOND);
    assert!(stage.core_status().gdsl.chunk_shortages > 0);
    assert_eq!(stage.finished.len(), 2, "{:?}", stage.finished);
    for track in 0..2 {
        assert!(stage.payload_to(client(1, track)) == film.bytes(track));
        assert!(stage.payload_to(client(2, track)) == other.bytes(track));
    }
    stage.destroy(1);
    stage.destroy(2);
    stage.run_for(100 * MS);
    stage.assert_empty();
}
