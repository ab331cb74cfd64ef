//! Tapes and their readers, whatever is on them.

use std::cell::RefCell;
use std::rc::Rc;

use hugepages::{Arena, ChunkPool};
use pacing::{Clock, SimClock};
use proptest::prelude::*;
use stack::host::Host;
use stack::sim::{SimConfig, SimHost};

use super::TapeSource;
use crate::disks::Disk;
use crate::disks::sim::{SimDisk, SimDiskConfig};
use crate::gdsl::{
    Append, BlockState, Class, End, Gdsl, GdslConfig, IoBatch, IssueModule, Lateness, Link, NextUpcall, Outcome, Pair, PairId, Tape, TapeId,
};

const BLOCK: usize = 4096;
const MS: u64 = 1_000_000;

/// The byte at this place of every tape.
fn pattern(at: u64) -> u8 {
    (at ^ (at >> 8) ^ (at >> 16)) as u8
}

/// What a reader has seen: where it began each time, and how far it is.
#[derive(Debug, Default)]
struct Seen {
    starts: Vec<u64>,
    at: Option<u64>,
    over: bool,
}

/// Takes the bytes of a tape as they come, at most so many in one upcall; goes on from the mark when what it wants is gone.
struct Checker {
    tape: TapeId,
    bytes_per_upcall: usize,
    pause_ns: u64,
    seen: Rc<RefCell<Seen>>,
}

impl<H: Host, D: Disk> IssueModule<H, D> for Checker {
    fn upcall(&mut self, now_ns: u64, io: &mut IoBatch<'_, H, D>) -> NextUpcall {
        let mut seen = self.seen.borrow_mut();
        let mut left = self.bytes_per_upcall;
        let Some(mut at) = seen.at else { return NextUpcall::Never };
        loop {
            let place = io.tape(self.tape);
            let block = match io.block(0) {
                Some((offset, BlockState::Ready(bytes))) => {
                    let bytes = at.checked_sub(offset).and_then(|skip| bytes.get(skip as usize..)).expect("blocks without a gap");
                    for &byte in bytes.iter().take(left) {
                        assert_eq!(byte, pattern(at));
                        at += 1;
                    }
                    left -= bytes.len().min(left);
                    Some(offset)
                }
                Some((_, state)) => {
                    assert!(matches!(state, BlockState::Reading));
                    None
                }
                None => None,
            };
            seen.at = Some(at);
            if left == 0 {
                return NextUpcall::At(now_ns + self.pause_ns);
            }
            if block.is_some_and(|offset| at == offset + BLOCK as u64) {
                io.pop();
                continue;
            }
            return match place {
                Some(place) if at < place.first && io.block(0).is_none() => match place.mark {
                    Some((mark, _)) => {
                        io.restart_from(mark);
                        seen.starts.push(mark);
                        seen.at = Some(mark);
                        NextUpcall::At(now_ns)
                    }
                    None => NextUpcall::At(now_ns + MS),
                },
                Some(place) if !(place.ended && at == place.end) => NextUpcall::OnLinkOrAt(now_ns + 50 * MS),
                _ => {
                    seen.over = true;
                    io.finish(Outcome::Ended);
                    NextUpcall::Never
                }
            };
        }
    }
}

struct World {
    gdsl: Gdsl<SimHost, SimDisk, TapeSource, Checker>,
    clock: SimClock,
    tape: TapeId,
    end: u64,
}

impl World {
    fn new(chunks: usize, retained: usize, cache: bool) -> Self {
        let pool = ChunkPool::new(Arena::new(chunks * BLOCK).unwrap(), BLOCK);
        let config = GdslConfig { pairs_max: 16, cache, ..GdslConfig::default() };
        let (host, disk) = (SimHost::new(SimConfig::default(), 1), SimDisk::new(SimDiskConfig::default()));
        let mut gdsl = Gdsl::new(config, host, disk, pool, 0);
        let tape = gdsl.add_tape(Box::new(Tape::new(retained))).ok().unwrap();
        Self { gdsl, clock: SimClock::new(0), tape, end: 0 }
    }

    fn append(&mut self, bytes: usize, mark: bool) -> Result<u64, Append> {
        let data: Vec<u8> = (self.end..self.end + bytes as u64).map(pattern).collect();
        let (front, back) = data.split_at(bytes / 3);
        let now_ns = self.clock.now_ns();
        let at = self.gdsl.append(self.tape, &[front, back], mark.then_some(now_ns), now_ns)?;
        assert_eq!(at, self.end);
        self.end += bytes as u64;
        Ok(at)
    }

    fn join(&mut self, room: usize, bytes_per_upcall: usize, pause_ns: u64) -> Option<(PairId, Rc<RefCell<Seen>>)> {
        let (mark, _) = self.gdsl.tape(self.tape)?.mark?;
        let seen = Rc::new(RefCell::new(Seen { starts: vec![mark], at: Some(mark), over: false }));
        let mut source = TapeSource::new(self.tape);
        source.start(mark);
        let destination = Checker { tape: self.tape, bytes_per_upcall, pause_ns, seen: Rc::clone(&seen) };
        let pair = Pair { source, destination, link: Link::new(room), class: Class::Guaranteed, lateness: Lateness::new() };
        let id = self.gdsl.add(Box::new(pair)).ok()?;
        for end in [End::Source, End::Destination] {
            self.gdsl.wake(id, end, self.clock.now_ns());
        }
        Some((id, seen))
    }

    fn run_for(&mut self, ns: u64) {
        let end_ns = self.clock.now_ns() + ns;
        while self.clock.now_ns() < end_ns {
            let next_ns = self.gdsl.cycle(&self.clock).next_ns.unwrap_or(end_ns);
            self.clock.advance_to(next_ns.max(self.clock.now_ns() + 1).min(end_ns));
        }
        self.gdsl.cycle(&self.clock);
    }

    fn all_free(&self) -> bool {
        self.gdsl.pool().free() == self.gdsl.pool().capacity()
    }
}

#[test]
fn a_reader_that_waits_at_the_end_is_woken_by_what_comes() {
    let mut world = World::new(32, 8, true);
    world.append(10, true).unwrap();
    let (_, seen) = world.join(3, usize::MAX, 0).unwrap();
    world.run_for(MS);
    for bytes in [1, 20, BLOCK - 31, BLOCK, 5 * BLOCK + 3, 7] {
        world.append(bytes, false).unwrap();
        let upcalls = world.gdsl.counters().upcalls;
        world.run_for(MS);
        assert_eq!(seen.borrow().at, Some(world.end), "after {bytes} bytes");
        assert!(world.gdsl.counters().upcalls - upcalls <= 4 + 2 * (bytes / BLOCK) as u64);
    }
    world.gdsl.end_tape(world.tape, world.clock.now_ns());
    world.run_for(MS);
    assert!(seen.borrow().over);
    assert_eq!(world.append(1, false), Err(Append::NoTape));
    let tape = world.gdsl.remove_tape(world.tape).unwrap();
    assert!(world.gdsl.tape(world.tape).is_none() && world.gdsl.remove_tape(world.tape).is_none());
    // The box serves again, under another name.
    let old = world.tape;
    world.tape = world.gdsl.add_tape(tape).ok().unwrap();
    world.end = 0;
    assert!(world.tape != old && world.append(3, false).is_ok());
}

#[test]
fn what_does_not_fit_is_refused_whole() {
    let mut world = World::new(16, 3, false);
    assert_eq!(world.append(3 * BLOCK, false), Err(Append::TooLong));
    world.append(2 * BLOCK, true).unwrap();
    let (id, _) = world.join(8, 1, 1000 * MS).unwrap();
    world.run_for(MS);
    // The reader holds what it was given beyond what the tape retains.
    for _ in 0..20 {
        world.append(BLOCK, false).unwrap();
    }
    assert!(world.gdsl.tape(world.tape).unwrap().mark.is_none());
    world.gdsl.remove(id);
    world.append(BLOCK, true).unwrap();
    world.gdsl.remove_tape(world.tape);
    assert!(world.all_free());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Readers of any pace join and leave a tape of any size: each sees the tape's bytes from a mark on without a gap, or goes on from a
    /// later mark; and all buffers come back.
    #[test]
    fn readers_see_what_was_appended(
        retained in 2usize..12,
        cache: bool,
        steps in prop::collection::vec((0u8..8, 1usize..9000, 1usize..6, 0u64..30), 1..120),
    ) {
        let mut world = World::new(retained + 2 + 8 * 6, retained, cache);
        let mut readers: Vec<(PairId, Rc<RefCell<Seen>>)> = Vec::new();
        let mut marks = Vec::new();
        for (op, size, room, ms) in steps {
            match op {
                0 if readers.len() < 8 => readers.extend(world.join(room, 64 + size, ms * MS)),
                1 if !readers.is_empty() => {
                    let (id, seen) = readers.swap_remove(size % readers.len());
                    world.gdsl.remove(id);
                    prop_assert!(seen.borrow().starts.iter().all(|start| marks.contains(start)));
                }
                _ => {
                    let at = world.append(size, op < 4);
                    prop_assert!(at.is_ok() || size > (retained - 1) * BLOCK, "{at:?}");
                    if op < 4 {
                        marks.extend(at);
                    }
                }
            }
            world.run_for(ms * MS);
            let place = world.gdsl.tape(world.tape).unwrap();
            prop_assert!(place.end == world.end && (place.end - place.first).div_ceil(BLOCK as u64) <= retained as u64);
            let newest = marks.last().copied().filter(|&at| at >= place.first);
            prop_assert_eq!(place.mark.map(|(at, _)| at), newest);
        }
        world.gdsl.end_tape(world.tape, world.clock.now_ns());
        world.run_for(60_000 * MS);
        for (_, seen) in &readers {
            let seen = seen.borrow();
            let behind = world.gdsl.tape(world.tape).unwrap().mark.is_none();
            prop_assert!(behind || seen.over && seen.at == Some(world.end), "{seen:?} at the end {}", world.end);
        }
        for (id, _) in readers {
            world.gdsl.remove(id);
        }
        world.gdsl.remove_tape(world.tape);
        world.run_for(MS);
        prop_assert!(world.gdsl.chunks_free() == world.gdsl.pool().capacity());
        prop_assert!(world.all_free());
    }
}
