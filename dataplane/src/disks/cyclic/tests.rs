use hugepages::{Arena, ChunkPool};
use proptest::prelude::*;

use super::*;
use crate::disks::DiskError;
use crate::disks::sim::SimFile;
use crate::disks::{Disk, DiskCounters, WriteDone};

const MS: u64 = 1_000_000;
const BLOCK: usize = 4096;

/// A disk that takes everything and answers when it is told to.
#[derive(Default)]
struct Manual {
    taken: Vec<ReadRequest<SimFile>>,
    writes: Vec<WriteRequest<SimFile>>,
}

impl Disk for Manual {
    type File = SimFile;
    fn device_of(file: &SimFile) -> u64 {
        file.id() % 2
    }
    fn place_of(file: &SimFile) -> u64 {
        file.id()
    }
    fn submit(&mut self, _: u64, batch: &mut VecDeque<ReadRequest<SimFile>>) {
        self.taken.extend(batch.drain(..));
    }
    fn reap(&mut self, _: u64, _: &mut Vec<ReadDone>) {}
    fn submit_writes(&mut self, _: u64, batch: &mut VecDeque<WriteRequest<SimFile>>) {
        self.writes.extend(batch.drain(..));
    }
    fn reap_writes(&mut self, _: u64, _: &mut Vec<WriteDone>) {}
    fn in_flight(&self) -> usize {
        self.taken.len() + self.writes.len()
    }
    fn describe(&self) -> &str {
        "manual"
    }
    fn counters(&self) -> DiskCounters {
        DiskCounters::default()
    }
}

struct Rig {
    pool: ChunkPool,
    disk: Manual,
    cyclic: Cyclic<SimFile>,
}

impl Rig {
    fn new(depth: u16) -> Self {
        let pool = ChunkPool::new(Arena::new(64 * BLOCK).unwrap(), BLOCK);
        let config = CyclicConfig { cycle_ns: 80 * MS, depth, latency_max_ns: 1000 * MS };
        let cyclic = Cyclic::with_writes(config, 64, pool.capacity(), 32);
        Self { pool, disk: Manual::default(), cyclic }
    }

    fn ask(&mut self, tag: u64, file: u64, block: u64, class: Class, needed_ms: u64) {
        let (file, chunk) = (SimFile::pattern(file, 1 << 20), self.pool.take().unwrap());
        let request = ReadRequest { tag, file, offset: block * BLOCK as u64, len: BLOCK, chunk };
        self.cyclic.queue::<Manual>(0, request, class, needed_ms * MS);
    }

    /// Tags that the disk is given, one after the other.
    fn order(&mut self) -> Vec<u64> {
        let mut order = Vec::new();
        loop {
            self.cyclic.issue(0, &mut self.disk, u64::MAX);
            let Some(read) = self.disk.taken.pop() else { return order };
            order.push(read.tag);
            self.answer(read, Ok(BLOCK), 0);
        }
    }

    fn answer(&mut self, read: ReadRequest<SimFile>, result: Result<usize, DiskError>, at_ms: u64) -> Option<ReadDone> {
        self.cyclic.finish::<Manual>(at_ms * MS, ReadDone { tag: read.tag, chunk: read.chunk, result }, true)
    }
}

impl Rig {
    fn ask_to_write(&mut self, tag: u64) {
        let (file, slice) = (SimFile::writable(2, 1 << 20), self.pool.take().unwrap().freeze(BLOCK));
        self.cyclic.queue_write::<Manual>(WriteRequest { tag, file, offset: tag * BLOCK as u64, slice });
    }

    fn wrote(&mut self, result: Result<(), DiskError>, at_ms: u64) -> Option<WriteDone> {
        let WriteRequest { tag, slice, .. } = self.disk.writes.remove(0);
        self.cyclic.finish_write::<Manual>(at_ms * MS, WriteDone { tag, slice, result }, true)
    }

    /// Reads and writes that the disk has.
    fn under_way(&mut self, at_ms: u64) -> (Vec<u64>, Vec<u64>) {
        self.cyclic.issue(at_ms * MS, &mut self.disk, u64::MAX);
        (self.disk.taken.iter().map(|read| read.tag).collect(), self.disk.writes.iter().map(|write| write.tag).collect())
    }
}

const G: Class = Class::Guaranteed;
const B: Class = Class::BestEffort;

#[test]
fn batches_go_by_time_and_within_a_batch_by_place() {
    let mut rig = Rig::new(1);
    // (tag, file, block, class, needed at ms): batches are 10 ms long, a cycle is 80 ms.
    for (tag, file, block, class, needed_ms) in [
        (1, 4, 9, B, 0),
        (2, 4, 7, G, 205),
        (3, 2, 8, G, 209),
        (4, 4, 2, G, 201),
        (5, 4, 1, G, 215),
        (6, 2, 1, B, 0),
        (7, 6, 5, G, 70),
        (8, 4, 3, G, 60),
        (9, 2, 2, G, 199),
    ] {
        rig.ask(tag, file, block, class, needed_ms);
    }
    assert_eq!(rig.order(), [8, 7, 9, 3, 4, 2, 5, 1, 6]);
    assert!(rig.cyclic.is_empty());
    let reports: Vec<_> = rig.cyclic.reports().collect();
    assert_eq!((reports.len(), reports[0].guaranteed_reads, reports[0].best_effort_reads, reports[0].late), (1, 7, 2, 0));
}

#[test]
fn each_device_has_a_depth_of_its_own() {
    let mut rig = Rig::new(2);
    for tag in 0..8 {
        rig.ask(tag, tag % 2, tag, B, 0);
    }
    rig.cyclic.issue(0, &mut rig.disk, u64::MAX);
    assert_eq!(rig.disk.taken.iter().map(|read| read.tag).collect::<Vec<_>>(), [0, 2, 1, 3]);
    // Device 0 stands still; device 1 goes on.
    for expected in [5, 7] {
        let read = rig.disk.taken.pop().unwrap();
        rig.answer(read, Ok(BLOCK), 1);
        rig.cyclic.issue(0, &mut rig.disk, u64::MAX);
        assert_eq!(rig.disk.taken.last().unwrap().tag, expected);
    }
}

#[test]
fn who_shares_a_read_makes_it_no_later() {
    let mut rig = Rig::new(1);
    rig.ask(1, 2, 1, G, 500);
    rig.ask(2, 2, 2, B, 0);
    rig.ask(3, 2, 3, B, 0);
    rig.ask(4, 2, 4, G, 900);
    for (tag, class, needed_ms) in [(3, G, 700), (4, G, 300), (1, B, 0), (4, G, 800), (2, B, 0)] {
        rig.cyclic.hurry::<Manual>(0, tag, class, needed_ms * MS);
    }
    assert_eq!(rig.order(), [4, 1, 3, 2]);
}

#[test]
fn a_failed_read_is_tried_again_while_there_is_time() {
    let eio = Err(DiskError::Os(5));
    for (class, needed_ms, at_ms, tries) in [(G, 5_000, 10, 3), (G, 100, 5_000, 1), (B, 0, 5_000, 3)] {
        let mut rig = Rig::new(4);
        rig.ask(1, 2, 1, class, needed_ms);
        let mut tried = 0;
        let done = loop {
            rig.cyclic.issue(0, &mut rig.disk, u64::MAX);
            let read = rig.disk.taken.pop().unwrap();
            tried += 1;
            if let Some(done) = rig.answer(read, eio, at_ms) {
                break done;
            }
        };
        assert_eq!((tried, done.result), (tries, eio));
        drop(done);
        assert_eq!(rig.pool.free(), rig.pool.capacity());
    }
    // A disk that is gone is not asked again.
    let mut rig = Rig::new(4);
    rig.ask(1, 2, 1, G, 5_000);
    rig.cyclic.issue(0, &mut rig.disk, u64::MAX);
    let read = rig.disk.taken.pop().unwrap();
    assert!(rig.answer(read, Err(DiskError::Os(libc::ENODEV)), 1).is_some());
}

#[test]
fn more_devices_than_are_told_apart_share_the_last_queues() {
    let pool = ChunkPool::new(Arena::new(64 * BLOCK).unwrap(), BLOCK);
    let mut cyclic = Cyclic::new(CyclicConfig::default(), 64, pool.capacity());
    let mut disk = crate::disks::SimDisk::new(crate::disks::SimDiskConfig { depth: 64, ..Default::default() });
    for tag in 0..20 {
        let file = SimFile::pattern(1, 1 << 20).on_device(100 + tag);
        let request = ReadRequest { tag, file, offset: 0, len: BLOCK, chunk: pool.take().unwrap() };
        cyclic.queue::<crate::disks::SimDisk>(0, request, if tag % 2 == 0 { G } else { B }, 0);
    }
    cyclic.issue(0, &mut disk, u64::MAX);
    assert!(cyclic.is_empty() && disk.in_flight() == 20);
    assert_eq!(cyclic.reports().count(), DEVICES_MAX);
}

#[test]
fn writes_take_turns_with_best_effort_reads_and_no_place_from_guaranteed_ones() {
    let mut rig = Rig::new(8);
    for tag in 0..4 {
        rig.ask_to_write(tag);
        rig.ask(tag, 2, tag, B, 0);
    }
    // A quarter of the depth is for writes.
    assert_eq!(rig.under_way(0), (vec![0, 1, 2, 3], vec![0, 1]));
    for tag in 10..20 {
        rig.ask(tag, 2, tag, G, 5_000);
    }
    // Eight reads all the same, and no write beside those that wait.
    assert_eq!(rig.under_way(0), (vec![0, 1, 2, 3, 10, 11, 12, 13], vec![0, 1]));
    assert!(rig.wrote(Ok(()), 1).is_some() && rig.wrote(Ok(()), 1).is_some());
    assert_eq!(rig.under_way(1).1, Vec::<u64>::new());
    while let Some(read) = rig.disk.taken.pop() {
        rig.answer(read, Ok(BLOCK), 2);
    }
    assert_eq!(rig.under_way(2), ((14..20).collect(), vec![2, 3]));
    assert!(rig.wrote(Ok(()), 3).is_some() && rig.wrote(Ok(()), 3).is_some());
    let report = rig.cyclic.reports().next().unwrap();
    assert_eq!((report.writes, report.best_effort_reads, report.guaranteed_reads), (4, 4, 4));
}

#[test]
fn nothing_is_written_for_a_cycle_after_a_guaranteed_read_was_late() {
    let mut rig = Rig::new(8);
    rig.ask(1, 2, 1, G, 10);
    rig.under_way(0);
    let read = rig.disk.taken.pop().unwrap();
    rig.answer(read, Ok(BLOCK), 11);
    rig.ask_to_write(0);
    for (at_ms, expected) in [(11, 0), (90, 0), (91, 1)] {
        assert_eq!(rig.under_way(at_ms).1.len(), expected, "at {at_ms} ms");
    }
}

#[test]
fn slow_answers_leave_fewer_writes_under_way() {
    let mut rig = Rig::new(32);
    for tag in 0..32 {
        rig.ask_to_write(tag);
    }
    assert_eq!(rig.under_way(0).1.len(), 8);
    let mut at_ms = 0;
    while rig.disk.writes.len() > 1 {
        at_ms += 2_000;
        assert!(at_ms < 100_000, "one after the other in the end");
        rig.wrote(Ok(()), at_ms);
        rig.under_way(at_ms);
    }
}

#[test]
fn a_failed_write_is_tried_again_unless_the_disk_is_full() {
    for (number, tries) in [(libc::EIO, 3), (libc::ENOSPC, 1), (libc::ENODEV, 1)] {
        let mut rig = Rig::new(4);
        rig.ask_to_write(5);
        let mut tried = 0;
        let done = loop {
            assert_eq!(rig.under_way(0).1, [5]);
            tried += 1;
            if let Some(done) = rig.wrote(Err(DiskError::Os(number)), 1) {
                break done;
            }
        };
        assert_eq!((tried, done.result, rig.cyclic.is_empty()), (tries, Err(DiskError::Os(number)), true));
        drop(done);
        assert_eq!(rig.pool.free(), rig.pool.capacity());
    }
}

proptest! {
    /// Whatever is asked for and answered: writes keep to their depth, guaranteed reads that wait keep writes from going, and all come back.
    #[test]
    fn writes_never_go_before_guaranteed_reads(ops in prop::collection::vec((0u8..6, any::<prop::sample::Index>()), 1..300), depth in 1u16..16) {
        let mut rig = Rig::new(depth);
        let (mut reads, mut writes): (Vec<u64>, Vec<u64>) = ((0..32).collect(), (0..24).collect());
        for (op, which) in ops {
            let at = |len: usize| which.index(len);
            match op {
                0 | 1 if !reads.is_empty() => {
                    let tag = reads.swap_remove(at(reads.len()));
                    rig.ask(tag, 2, tag, if op == 0 { G } else { B }, 1_000_000);
                }
                2 if !writes.is_empty() => rig.ask_to_write(writes.swap_remove(at(writes.len()))),
                3 if !rig.disk.taken.is_empty() => {
                    let read = rig.disk.taken.swap_remove(at(rig.disk.taken.len()));
                    reads.push(read.tag);
                    prop_assert!(rig.answer(read, Ok(BLOCK), 1).is_some());
                }
                4 if !rig.disk.writes.is_empty() => {
                    let write = rig.wrote(Ok(()), 1);
                    writes.push(write.unwrap().tag);
                }
                _ => {
                    let before = rig.disk.writes.len();
                    rig.cyclic.issue(0, &mut rig.disk, u64::MAX);
                    let guaranteed_waits = !rig.cyclic.devices[0].guaranteed.is_empty();
                    prop_assert!(!guaranteed_waits || rig.disk.writes.len() == before);
                    prop_assert!(rig.disk.writes.len() <= usize::from((depth / 4).max(1)) && rig.disk.taken.len() <= usize::from(depth));
                }
            }
        }
        rig.cyclic.retain(|_| false);
        rig.cyclic.retain_writes(|_| false);
        prop_assert!(rig.cyclic.is_empty());
        while let Some(read) = rig.disk.taken.pop() {
            rig.answer(read, Ok(BLOCK), 1);
        }
        while !rig.disk.writes.is_empty() {
            rig.wrote(Ok(()), 1);
        }
        prop_assert_eq!(rig.pool.free(), rig.pool.capacity());
        prop_assert_eq!(rig.cyclic.devices[0].writes.under_way, 0);
    }

    /// Against a plain oracle: what goes next is the least by (class, batch, place), or the first asked for.
    #[test]
    fn the_order_is_that_of_a_sorted_list(reads in prop::collection::vec((0u64..4, 0u64..50, any::<bool>(), 100u64..2000, 0u8..8), 1..60)) {
        let mut rig = Rig::new(1);
        let mut expected = Vec::new();
        for (tag, &(file, block, guaranteed, needed_ms, fate)) in reads.iter().enumerate() {
            let tag = tag as u64;
            rig.ask(tag, 2 * file, block, if guaranteed { G } else { B }, needed_ms);
            let batch = if guaranteed { needed_ms.div_ceil(10) } else { 0 };
            let place = if guaranteed { (2 * file, block) } else { (0, 0) };
            if fate > 0 {
                expected.push((!guaranteed, batch, place, tag));
            }
        }
        rig.cyclic.retain(|tag| reads[tag as usize].4 > 0);
        expected.sort_unstable();
        let expected: Vec<u64> = expected.into_iter().map(|(.., tag)| tag).collect();
        prop_assert_eq!(rig.order(), expected);
        prop_assert!(rig.cyclic.is_empty());
        prop_assert_eq!(rig.pool.free(), rig.pool.capacity());
    }
}
