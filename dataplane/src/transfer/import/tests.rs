//! Imports in simulated time, from a seed: whatever the disk does, the copy is the file or the import says why not.

use hugepages::{Arena, ChunkPool};
use pacing::{Clock, SimClock};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use stack::sim::{SimConfig, SimHost};

use super::*;
use crate::disks::sim::{SimDisk, SimDiskConfig, SimFile, SlowPeriods};
use crate::gdsl::{End, Gdsl, GdslConfig, PairId};

const BLOCK: usize = 4096;
const MS: u64 = 1_000_000;

struct World {
    clock: SimClock,
    gdsl: Gdsl<SimHost, SimDisk, FileSource<SimFile>, FileSink<SimFile>>,
    outcomes: Vec<(PairId, Outcome)>,
    used_max: usize,
}

impl World {
    fn new(disk: SimDiskConfig, cache: bool) -> Self {
        let pool = ChunkPool::new(Arena::new(128 * BLOCK).unwrap(), BLOCK);
        let config = GdslConfig { pairs_max: 8, cache, ..GdslConfig::default() };
        let gdsl = Gdsl::new(config, SimHost::new(SimConfig::default(), 1), SimDisk::new(disk), pool, 0);
        Self { clock: SimClock::new(0), gdsl, outcomes: Vec::new(), used_max: 0 }
    }

    fn begin(&mut self, from: &SimFile, to: &SimFile, bytes: u64, rate_bps: Option<u64>) -> PairId {
        let pair = Box::new(import(from.clone(), from.id(), to.clone(), bytes, rate_bps));
        let id = self.gdsl.add(pair).expect("room for a pair");
        for end in [End::Source, End::Destination] {
            self.gdsl.wake(id, end, self.clock.now_ns());
        }
        id
    }

    fn run_for(&mut self, ns: u64) {
        let end_ns = self.clock.now_ns() + ns;
        while self.clock.now_ns() < end_ns {
            let next_ns = self.gdsl.cycle(&self.clock).next_ns.unwrap_or(end_ns);
            while let Some(outcome) = self.gdsl.next_outcome() {
                self.outcomes.push(outcome);
            }
            self.used_max = self.used_max.max(self.gdsl.pool().capacity() - self.gdsl.chunks_free());
            self.clock.advance_to(next_ns.clamp(self.clock.now_ns() + 1, end_ns));
        }
    }

    fn assert_all_free(&self) {
        assert_eq!(self.gdsl.chunks_free(), self.gdsl.pool().capacity(), "buffers came back");
    }
}

/// Some files on a disk that is slow and fails at times; what became of it, to be compared with another run.
fn copies(seed: u64) -> Vec<(Outcome, u64)> {
    let mut random = StdRng::seed_from_u64(seed);
    let slow = random.random_bool(0.3).then_some(SlowPeriods { every_ns: 50 * MS, for_ns: 10 * MS, factor: 10 });
    let faults = random.random_bool(0.3);
    let disk = SimDiskConfig {
        seed,
        lanes: random.random_range(1..5),
        depth: random.random_range(1..40),
        slow,
        errors_per_million: if faults { 20_000 } else { 0 },
        write_errors_per_million: if faults { 20_000 } else { 0 },
        bad_per_million: if faults { 5_000 } else { 0 },
        ..SimDiskConfig::default()
    };
    let mut world = World::new(disk, seed.is_multiple_of(2));
    let count = random.random_range(1..4);
    let copies: Vec<_> = (0..count)
        .map(|i| {
            let bytes = *[0, 1, 4095, 4096, 4097, random.random_range(0..400_000)].get(random.random_range(0..6)).unwrap();
            // A file that has grown since is copied as far as it was.
            let from = SimFile::pattern(1 + i, bytes + random.random_range(0..3) * 1000);
            let to = SimFile::writable(100 + i, 1 << 20);
            (world.begin(&from, &to, bytes, None), from, to, bytes)
        })
        .collect();
    world.run_for(20_000 * MS);
    assert!(world.used_max <= copies.len() * IMPORT_CHUNKS, "{} buffers", world.used_max);
    let mut ends = Vec::new();
    for (id, from, to, bytes) in copies {
        let outcome = world.outcomes.iter().find(|(pair, _)| *pair == id).unwrap_or_else(|| panic!("an end of {id:?}")).1;
        if outcome == Outcome::Ended {
            let mut expected = vec![0; bytes as usize];
            from.fill(0, &mut expected);
            assert!(to.written().unwrap() == expected, "{bytes} bytes");
        } else {
            assert!(faults, "{outcome:?}");
        }
        assert_eq!(world.gdsl.writes_under_way(id), 0);
        ends.push((outcome, world.gdsl.pair_mut(id).unwrap().destination.written()));
        world.gdsl.remove(id);
    }
    world.run_for(MS);
    world.assert_all_free();
    ends
}

#[test]
fn every_copy_is_the_file_or_says_why_not() {
    let ends: Vec<_> = (0..120).flat_map(copies).collect();
    let failed = ends.iter().filter(|(outcome, _)| *outcome != Outcome::Ended).count();
    assert!((1..ends.len() / 2).contains(&failed), "{failed} of {} failed", ends.len());
}

#[test]
fn the_same_seed_copies_the_same_way() {
    assert!((0..10).all(|seed| copies(seed) == copies(seed)));
}

#[test]
fn what_goes_wrong_is_said() {
    let dying = |read, write| SimDiskConfig { errors_per_million: read, write_errors_per_million: write, ..SimDiskConfig::default() };
    let (source, short) = (SimFile::pattern(1, 200_000), SimFile::pattern(1, 150_000));
    for (disk, from, room, gone, why) in [
        (dying(0, 0), &source, 123_456, false, "the disk is full"),
        (dying(0, 0), &short, 1 << 20, false, "the source has become shorter while it was copied"),
        (dying(1_000_000, 0), &source, 1 << 20, false, "the disk cannot read the source"),
        (dying(0, 1_000_000), &source, 1 << 20, false, "the disk cannot write the file"),
        (dying(0, 0), &source, 1 << 20, true, "the source or its disk is gone"),
    ] {
        let mut world = World::new(disk, true);
        let id = world.begin(from, &SimFile::writable(2, room), 200_000, None);
        if gone {
            world.gdsl.disk_mut().take_away(0);
        }
        world.run_for(2_000 * MS);
        assert_eq!(world.outcomes, [(id, Outcome::Failed(why))]);
        world.gdsl.remove(id);
        world.run_for(MS);
        world.assert_all_free();
    }
}

#[test]
fn an_import_may_go_at_any_moment() {
    for after_us in (0..6_000).step_by(149) {
        let mut world = World::new(SimDiskConfig { depth: 4, ..SimDiskConfig::default() }, false);
        let (going, to) = (SimFile::writable(2, 1 << 20), SimFile::writable(3, 1 << 20));
        let goes = world.begin(&SimFile::pattern(1, 900_000), &going, 900_000, None);
        let stays = world.begin(&SimFile::pattern(7, 100_000), &to, 100_000, None);
        world.run_for(after_us * 1000 + 1);
        assert!(world.gdsl.remove(goes).is_some_and(|pair| pair.link.is_empty()));
        let next = world.begin(&SimFile::pattern(9, 50_000), &SimFile::writable(4, 1 << 20), 50_000, None);
        assert_eq!(next.place(), goes.place());
        world.run_for(2_000 * MS);
        let ended = |id| world.outcomes.contains(&(id, Outcome::Ended));
        assert!(ended(stays) && ended(next), "after {after_us} us: {:?}", world.outcomes);
        assert_eq!(to.written().unwrap().len(), 100_000);
        for id in [stays, next] {
            world.gdsl.remove(id);
        }
        world.run_for(MS);
        world.assert_all_free();
    }
}

#[test]
fn a_rate_is_kept() {
    let mut world = World::new(SimDiskConfig::default(), false);
    let to = SimFile::writable(2, 1 << 20);
    // 8 blocks a second.
    let id = world.begin(&SimFile::pattern(1, 1 << 20), &to, 1 << 20, Some(8 * 8 * BLOCK as u64));
    for second in 1..5 {
        world.run_for(1_000 * MS);
        let blocks = world.gdsl.pair_mut(id).unwrap().destination.written() / BLOCK as u64;
        assert!((8 * second - 1..=8 * second + 1).contains(&blocks), "{blocks} blocks after {second} s");
    }
}
