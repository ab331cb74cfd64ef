//! The chunk cache: viewers of one title who are close together read the disk once, and nobody lacks a buffer because of it.

use super::stage::{CHUNK_BYTES, Config, Film, MS, SECOND, Stage, client};

fn stage(cache: bool, chunks: usize) -> Stage {
    let mut config = Config { chunks, ..Config::default() };
    config.core.cache = cache;
    Stage::new(config)
}

fn blocks(film: &Film) -> u64 {
    film.file.size().div_ceil(CHUNK_BYTES as u64)
}

/// Disk reads of two viewers of one film, the second this much later.
fn reads_of_two(cache: bool, chunks: usize, later_ns: u64) -> u64 {
    let mut stage = stage(cache, chunks);
    let film = Film::plain(1, 6, 4000);
    stage.play(1, &film);
    stage.run_for(later_ns);
    stage.play(2, &film);
    stage.run_for(8 * SECOND);
    for session in [1, 2] {
        for track in 0..2 {
            assert!(stage.payload_to(client(session, track)) == film.bytes(track));
        }
        stage.destroy(session);
    }
    let reads = stage.core_status().disk.reads;
    stage.assert_empty();
    reads
}

#[test]
fn the_second_viewer_reads_what_the_first_one_left() {
    let blocks = blocks(&Film::plain(1, 6, 4000));
    // With the interval of two seconds in memory (50 blocks), and with the whole film.
    for chunks in [150, 1000] {
        assert_eq!(reads_of_two(true, chunks, 2 * SECOND), blocks);
    }
    assert!(reads_of_two(false, 1000, 2 * SECOND) > blocks * 3 / 2);
    // Without memory for the interval the disk is read, and nobody lacks a buffer.
    assert!(reads_of_two(true, 70, 4 * SECOND) > blocks);
}

#[test]
fn scans_do_not_push_out_what_is_read_again_and_again() {
    let mut stage = stage(true, 400);
    let popular = Film::plain(1, 3, 4000);
    for session in 1..=2 {
        stage.play(session, &popular);
        stage.run_for(8 * SECOND);
        stage.destroy(session);
    }
    assert_eq!(stage.core_status().disk.reads, blocks(&popular), "the second viewer read nothing");
    // Two films seen once, larger than the memory together.
    for (session, id) in [(3, 2), (4, 3)] {
        stage.play(session, &Film::plain(id, 8, 4000));
        stage.run_for(10 * SECOND);
        stage.destroy(session);
    }
    let scanned = stage.core_status().disk.reads;
    stage.play(5, &popular);
    stage.run_for(5 * SECOND);
    assert_eq!(stage.core_status().disk.reads, scanned, "it is all still here");
    assert!(stage.payload_to(client(5, 0)) == popular.bytes(0));
    stage.destroy(5);
    stage.assert_empty();
}

#[test]
fn a_full_cache_takes_no_buffer_from_anyone() {
    let mut stage = stage(true, 240);
    for session in 1..=6 {
        stage.play(session, &Film::plain(session, 4, 4000));
        stage.run_for(300 * MS);
    }
    stage.run_for(8 * SECOND);
    let status = stage.core_status();
    assert_eq!(status.gdsl.chunk_shortages, 0);
    assert!(status.lateness.snapshot().max_us < 5_000, "{:?}", status.lateness.snapshot());
    for session in 1..=6 {
        stage.destroy(session);
    }
    stage.assert_empty();
}
