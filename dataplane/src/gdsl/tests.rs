use std::cell::RefCell;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::rc::Rc;

use hugepages::{Arena, ChunkPool};
use pacing::SimClock;
use stack::host::{FlowId, FlowSpec, Host};
use stack::sim::{SimConfig, SimHost, SimLink};

use super::*;
use crate::disks::sim::{SimDisk, SimDiskConfig, SimFile};

const MS: u64 = 1_000_000;
const BLOCK: usize = 4096;

type Log = Rc<RefCell<Vec<(&'static str, u64)>>>;

/// Reads blocks one after another, as many in one upcall as it is told.
struct Reader {
    file: SimFile,
    offsets: VecDeque<u64>,
    at_once: usize,
    log: Log,
    name: &'static str,
}

impl IssueModule<SimHost, SimDisk> for Reader {
    fn upcall(&mut self, now_ns: u64, io: &mut IoBatch<'_, SimHost, SimDisk>) -> NextUpcall {
        self.log.borrow_mut().push((self.name, now_ns));
        for _ in 0..self.at_once {
            let Some(&offset) = self.offsets.front() else { return NextUpcall::Never };
            match io.read(&self.file, self.file.id(), offset, now_ns) {
                ReadIssue::Issued => self.offsets.pop_front(),
                ReadIssue::NoRoom => return NextUpcall::OnLink,
                ReadIssue::NoChunk => return NextUpcall::At(now_ns + MS),
            };
        }
        NextUpcall::At(now_ns)
    }
}

/// What a block looked like when it came to the front.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Seen {
    Block { first: u8, bytes: usize },
    Failed,
}

/// Sends one packet for each block, with its first byte.
struct Writer {
    flow: FlowId,
    seen: Rc<RefCell<Vec<Seen>>>,
    log: Log,
    name: &'static str,
}

impl IssueModule<SimHost, SimDisk> for Writer {
    fn upcall(&mut self, now_ns: u64, io: &mut IoBatch<'_, SimHost, SimDisk>) -> NextUpcall {
        self.log.borrow_mut().push((self.name, now_ns));
        loop {
            let seen = match io.block(0) {
                Some((_, BlockState::Ready(slice))) => Seen::Block { first: slice.first().copied().unwrap_or(0), bytes: slice.len() },
                Some((_, BlockState::Failed(_))) => Seen::Failed,
                Some((_, BlockState::Reading)) | None => return NextUpcall::OnLink,
            };
            let Some((frame, _)) = io.frame(self.flow) else { return NextUpcall::At(now_ns + MS) };
            frame[0] = match seen {
                Seen::Block { first, .. } => first,
                Seen::Failed => 0xff,
            };
            io.commit(100, now_ns);
            io.pop();
            self.seen.borrow_mut().push(seen);
        }
    }
}

struct World {
    gdsl: Gdsl<SimHost, SimDisk, Reader, Writer>,
    clock: SimClock,
    log: Log,
}

/// A pair in the world, and what its destination saw.
struct Peer {
    id: PairId,
    seen: Rc<RefCell<Vec<Seen>>>,
}

impl World {
    fn new(config: GdslConfig, host: SimConfig, disk: SimDiskConfig, chunks: usize) -> Self {
        let pool = ChunkPool::new(Arena::new(chunks * BLOCK).unwrap(), BLOCK);
        // An arena may be larger than was asked for.
        let gdsl = Gdsl::new(config, SimHost::new(host, 1), SimDisk::new(disk), pool, 0);
        Self { gdsl, clock: SimClock::new(0), log: Log::default() }
    }

    fn plain() -> Self {
        Self::new(GdslConfig { pairs_max: 8, host_frames: 64, ..GdslConfig::default() }, SimConfig::default(), SimDiskConfig::default(), 64)
    }

    fn add(&mut self, class: Class, names: [&'static str; 2], file: &SimFile, offsets: impl IntoIterator<Item = u64>, room: usize) -> Peer {
        let remote: SocketAddr = ([10, 0, 0, 1], 5000).into();
        let flow = self.gdsl.host_mut().open_flow(FlowSpec { local_port: 0, local_addr: None, remote }).unwrap();
        let seen = Rc::default();
        let offsets = offsets.into_iter().collect();
        let source = Reader { file: file.clone(), offsets, at_once: 4, log: Rc::clone(&self.log), name: names[0] };
        let destination = Writer { flow, seen: Rc::clone(&seen), log: Rc::clone(&self.log), name: names[1] };
        let pair = Box::new(Pair { source, destination, link: Link::new(room), class, lateness: Lateness::new() });
        let id = self.gdsl.add(pair).ok().expect("room for a pair");
        Peer { id, seen }
    }

    fn wake(&mut self, peer: &Peer) {
        let now_ns = pacing::Clock::now_ns(&self.clock);
        self.gdsl.wake(peer.id, End::Source, now_ns);
        self.gdsl.wake(peer.id, End::Destination, now_ns);
    }

    fn run_for(&mut self, ns: u64) {
        let end_ns = pacing::Clock::now_ns(&self.clock) + ns;
        while pacing::Clock::now_ns(&self.clock) < end_ns {
            let next_ns = self.gdsl.cycle(&self.clock).next_ns.unwrap_or(end_ns);
            self.clock.advance_to(next_ns.max(pacing::Clock::now_ns(&self.clock) + 1).min(end_ns));
        }
        self.gdsl.cycle(&self.clock);
    }

    fn all_free(&self) -> bool {
        self.gdsl.pool().free() == self.gdsl.pool().capacity()
    }
}

fn blocks(range: std::ops::Range<u64>) -> impl Iterator<Item = u64> {
    range.map(|i| i * BLOCK as u64)
}

fn expected(file: &SimFile, offsets: impl IntoIterator<Item = u64>) -> Vec<Seen> {
    let block = |offset| Seen::Block { first: crate::disks::sim::pattern_byte(file.id(), offset), bytes: BLOCK };
    offsets.into_iter().map(block).collect()
}

#[test]
fn blocks_arrive_in_the_order_asked_for_through_a_link_of_any_size() {
    let file = SimFile::pattern(1, 1 << 20);
    let order = [5, 0, 200, 3, 3, 7, 199, 5];
    for room in [1, 2, 3, 100] {
        let mut world = World::plain();
        let offsets = || order.into_iter().map(|i| i * BLOCK as u64).chain(blocks(10..60));
        let peer = world.add(Class::Guaranteed, ["read", "write"], &file, offsets(), room);
        world.wake(&peer);
        world.run_for(100 * MS);
        assert_eq!(*peer.seen.borrow(), expected(&file, offsets()), "a link of {room}");
        assert!(world.all_free());
        assert_eq!(world.gdsl.lateness().snapshot().packets, 58);
    }
}

#[test]
fn guaranteed_peers_go_first_and_what_does_not_fit_is_carried_over() {
    let config = GdslConfig { pairs_max: 8, upcalls_per_cycle: 4, ..GdslConfig::default() };
    let mut world = World::new(config, SimConfig::default(), SimDiskConfig::default(), 64);
    let file = SimFile::pattern(1, 1 << 20);
    let peers: Vec<_> = (0..6)
        .map(|i| {
            let (class, name) = if i % 2 == 0 { (Class::BestEffort, "best effort") } else { (Class::Guaranteed, "guaranteed") };
            world.add(class, [name, "write"], &file, blocks(0..1), 4)
        })
        .collect();
    for peer in &peers {
        world.gdsl.wake(peer.id, End::Source, 0);
    }
    world.gdsl.cycle(&world.clock);
    let names: Vec<_> = world.log.borrow().iter().map(|&(name, _)| name).collect();
    assert_eq!(names, ["guaranteed", "guaranteed", "guaranteed", "best effort"]);
    assert_eq!(world.gdsl.counters().carried_over, 1);
    world.log.borrow_mut().clear();
    let cycle = world.gdsl.cycle(&world.clock);
    assert_eq!(world.log.borrow().len(), 2, "the others have their turn now");
    assert!(cycle.worked);
    assert_eq!(world.gdsl.counters().carried_over, 1);
    // Three files' worth of the same block: one read.
    assert_eq!((world.gdsl.counters().reads_issued, world.gdsl.counters().reads_shared), (1, 5));
}

#[test]
fn who_asks_for_a_time_in_the_past_does_not_fill_the_cycle() {
    let mut world = World::plain();
    let file = SimFile::pattern(1, 1 << 20);
    let peer = world.add(Class::Guaranteed, ["read", "write"], &file, blocks(0..40), 64);
    world.gdsl.wake(peer.id, End::Source, 0);
    world.gdsl.cycle(&world.clock);
    assert_eq!(world.log.borrow().len(), 1);
    assert_eq!(world.gdsl.counters().reads_issued, 4);
}

#[test]
fn two_pairs_share_a_block_and_its_chunk_goes_back_with_the_last_share() {
    let mut world = World::plain();
    let file = SimFile::pattern(1, 1 << 20);
    let first = world.add(Class::Guaranteed, ["read 1", "write 1"], &file, blocks(0..3), 4);
    let second = world.add(Class::BestEffort, ["read 2", "write 2"], &file, blocks(0..3), 4);
    let other = world.add(Class::BestEffort, ["read 3", "write 3"], &SimFile::pattern(2, 1 << 20), blocks(0..1), 4);
    for peer in [&first, &second, &other] {
        world.gdsl.wake(peer.id, End::Source, 0);
    }
    world.gdsl.wake(first.id, End::Destination, 0);
    world.run_for(10 * MS);
    let used = |world: &World| world.gdsl.pool().capacity() - world.gdsl.pool().free();
    assert_eq!((world.gdsl.counters().reads_issued, world.gdsl.counters().reads_shared, used(&world)), (4, 3, 4));
    assert_eq!(*first.seen.borrow(), expected(&file, blocks(0..3)));
    world.gdsl.wake(second.id, End::Destination, 10 * MS);
    world.run_for(10 * MS);
    assert_eq!((second.seen.borrow().len(), used(&world)), (3, 1));
    assert!(world.gdsl.remove(other.id).is_some() && world.gdsl.remove(other.id).is_none());
    assert!(world.all_free());
}

#[test]
fn a_failed_read_wakes_everyone_who_waits_and_whoever_asks_later_gets_a_fresh_one() {
    let disk = SimDiskConfig { errors_per_million: 1_000_000, ..SimDiskConfig::default() };
    let mut world = World::new(GdslConfig { pairs_max: 8, ..GdslConfig::default() }, SimConfig::default(), disk, 64);
    let file = SimFile::pattern(1, 1 << 20);
    let peers: Vec<_> = (0..4).map(|_| world.add(Class::Guaranteed, ["read", "write"], &file, blocks(0..1), 4)).collect();
    for peer in &peers[..3] {
        world.wake(peer);
    }
    world.run_for(10 * MS);
    assert!(peers[..3].iter().all(|peer| *peer.seen.borrow() == [Seen::Failed]));
    world.wake(&peers[3]);
    world.run_for(10 * MS);
    assert_eq!(*peers[3].seen.borrow(), [Seen::Failed]);
    assert_eq!(world.gdsl.counters().reads_issued, 2);
    assert!(world.all_free());
}

#[test]
fn pairs_may_go_and_links_be_emptied_while_reads_are_under_way() {
    let disk = SimDiskConfig { lanes: 1, depth: 2, seek_min_ns: MS, seek_max_ns: MS, ..SimDiskConfig::default() };
    let file = SimFile::pattern(1, 1 << 20);
    // Everyone waits for the same block; each of them in turn goes, or has its link emptied, at each stage of the read.
    for goes in 0..4 {
        for (after_us, removed) in [(0, true), (0, false), (50, true), (50, false), (1100, true), (1100, false)] {
            let mut world = World::new(GdslConfig { pairs_max: 4, ..GdslConfig::default() }, SimConfig::default(), disk.clone(), 64);
            let peers: Vec<_> = (0..4).map(|_| world.add(Class::Guaranteed, ["read", "write"], &file, blocks(0..9), 16)).collect();
            for peer in &peers {
                world.wake(peer);
            }
            world.run_for(after_us * 1000 + 1);
            let told = if removed {
                world.gdsl.remove(peers[goes].id).is_some_and(|pair| pair.link.is_empty())
            } else {
                world.gdsl.clear_link(peers[goes].id);
                world.gdsl.pair_mut(peers[goes].id).is_some_and(|pair| pair.link.is_empty())
            };
            assert!(told);
            let seen = peers[goes].seen.borrow().len();
            world.run_for(30 * MS);
            for (i, peer) in peers.iter().enumerate().filter(|&(i, _)| i != goes) {
                assert_eq!(*peer.seen.borrow(), expected(&file, blocks(0..9)), "pair {i} when {goes} goes after {after_us} us");
            }
            assert_eq!(peers[goes].seen.borrow().len(), seen, "it sleeps");
            assert!(world.all_free());
        }
    }
}

#[test]
fn reads_that_nobody_wants_any_more_are_taken_back() {
    let disk = SimDiskConfig { lanes: 1, depth: 2, seek_min_ns: MS, seek_max_ns: MS, ..SimDiskConfig::default() };
    let mut world = World::new(GdslConfig { pairs_max: 4, ..GdslConfig::default() }, SimConfig::default(), disk, 64);
    let file = SimFile::pattern(1, 1 << 20);
    let peer = world.add(Class::Guaranteed, ["read", "write"], &file, blocks(0..20), 32);
    let other = world.add(Class::Guaranteed, ["read", "write"], &file, blocks(8..9), 32);
    world.wake(&peer);
    world.run_for(MS / 2);
    world.wake(&other);
    world.run_for(MS / 4);
    world.gdsl.clear_link(peer.id);
    world.run_for(10 * MS);
    assert_eq!(world.gdsl.disk().counters().reads, 3, "two that the disk had, and the one that the other wants");
    assert_eq!(*other.seen.borrow(), expected(&file, blocks(8..9)));
    assert!(world.all_free());
}

#[test]
fn a_shortage_of_chunks_passes() {
    let file = SimFile::pattern(1, 16 << 20);
    let mut world = World::new(GdslConfig { pairs_max: 4, ..GdslConfig::default() }, SimConfig::default(), SimDiskConfig::default(), 4);
    let chunks = world.gdsl.pool().capacity() as u64;
    let hoarder = world.add(Class::Guaranteed, ["read", "write"], &file, blocks(0..chunks), chunks as usize);
    world.gdsl.wake(hoarder.id, End::Source, 0);
    world.run_for(10 * MS);
    assert_eq!(world.gdsl.pool().free(), 0);
    let peer = world.add(Class::Guaranteed, ["read", "write"], &file, blocks(1000..1003), 8);
    world.wake(&peer);
    world.run_for(10 * MS);
    assert!(world.gdsl.counters().chunk_shortages > 0 && peer.seen.borrow().is_empty());
    world.gdsl.remove(hoarder.id);
    world.run_for(10 * MS);
    assert_eq!(*peer.seen.borrow(), expected(&file, blocks(1000..1003)));
    assert!(world.all_free());
}

#[test]
fn a_full_network_delays_and_loses_nothing() {
    // 166 bytes on the wire for each packet of 100: one packet a millisecond.
    let host = SimConfig { tx_frames: 4, link: Some(SimLink { rate_bps: 1_328_000, queue_bytes: 166 }), ..SimConfig::default() };
    let mut world = World::new(GdslConfig { pairs_max: 4, host_frames: 4, ..GdslConfig::default() }, host, SimDiskConfig::default(), 64);
    let file = SimFile::pattern(1, 1 << 20);
    let peer = world.add(Class::Guaranteed, ["read", "write"], &file, blocks(0..30), 16);
    world.wake(&peer);
    world.run_for(20 * MS);
    assert!((15..30).contains(&world.gdsl.lateness().snapshot().packets));
    world.run_for(80 * MS);
    let mut sent = Vec::new();
    world.gdsl.host_mut().take_sent(|s| sent.push(s.bytes[0]));
    let firsts: Vec<u8> = blocks(0..30).map(|at| crate::disks::sim::pattern_byte(1, at)).collect();
    assert_eq!(sent, firsts);
    let late = world.gdsl.pair_mut(peer.id).unwrap().lateness.snapshot();
    assert_eq!(late.packets, 30);
    assert!(late.max_us >= 3_000, "the wait in the queue counts: {late:?}");
}

#[test]
fn lateness_of_what_was_queued_does_not_go_to_the_next_pair_in_the_place() {
    let host = SimConfig { link: Some(SimLink { rate_bps: 0, queue_bytes: 1 }), ..SimConfig::default() };
    let mut world = World::new(GdslConfig { pairs_max: 1, ..GdslConfig::default() }, host, SimDiskConfig::default(), 64);
    let file = SimFile::pattern(1, 1 << 20);
    let peer = world.add(Class::Guaranteed, ["read", "write"], &file, blocks(0..5), 16);
    world.wake(&peer);
    world.run_for(10 * MS);
    world.gdsl.remove(peer.id);
    let next = world.add(Class::Guaranteed, ["read", "write"], &file, [], 16);
    assert_eq!(next.id.place(), peer.id.place());
    world.gdsl.host_mut().set_link(None);
    world.run_for(10 * MS);
    assert_eq!(world.gdsl.lateness().snapshot().packets, 5);
    assert_eq!(world.gdsl.pair_mut(next.id).unwrap().lateness.snapshot().packets, 0);
    assert!(world.gdsl.pair_mut(peer.id).is_none(), "the old name finds nothing");
}
