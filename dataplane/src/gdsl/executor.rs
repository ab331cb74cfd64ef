//! The executor: one cycle upcalls who is due, issues their I/O in one batch and reaps completions.

use hugepages::{ChunkPool, prefetch};
use pacing::cpu::{Cost, Work};
use pacing::period::Period;
use pacing::{Clock, Wheel};
use stack::host::{FlowId, Host};

use super::blocks::{BlockId, BlockState, Blocks};
use super::costs::Costs;
use super::io::{IoBatch, Outcome, SendLog};
use super::stats::Lateness;
use super::tape::Tapes;
use super::writes::Writes;
use super::{Class, End, IssueModule, NextUpcall, Pair, PairId};
use crate::disks::{Cyclic, CyclicConfig, DeviceReport, Disk, ReadDone};

/// Most packets that one upcall may send; the log of a cycle keeps this much slack.
pub const PACKETS_PER_UPCALL_MAX: usize = 32;

/// Peers that are taken from the wheel at once, so that their memory comes while others are seen to.
pub(super) const UPCALL_BATCH: usize = 8;

/// The period of published systems (SYSTEMS 1.3).
const PERIOD_NS: u64 = 8_000_000;

/// Sizes of an executor, all fixed at start.
#[derive(Clone, Copy, Debug)]
pub struct GdslConfig {
    /// Pairs of peers at once.
    pub pairs_max: u32,
    /// Resolution of the deadline wheel, nanoseconds.
    pub tick_ns: u64,
    /// Upcalls in one cycle; the rest is carried over.
    pub upcalls_per_cycle: u32,
    /// Frames that the host can queue; of no more is made use.
    pub host_frames: usize,
    /// How disks are scheduled.
    pub disk: CyclicConfig,
    /// Whether buffers that nobody needs keep what is likely to be read again.
    pub cache: bool,
    /// Writes under way of all pairs at once.
    pub writes_max: usize,
    /// Length of the periods in which guaranteed work has reserved time, nanoseconds.
    pub period_ns: u64,
    /// Tapes at once.
    pub tapes_max: u32,
}

impl Default for GdslConfig {
    fn default() -> Self {
        Self {
            pairs_max: 1024,
            tick_ns: 20_000,
            upcalls_per_cycle: 512,
            host_frames: 1024,
            disk: CyclicConfig::default(),
            cache: false,
            writes_max: 128,
            period_ns: PERIOD_NS,
            tapes_max: 64,
        }
    }
}

/// Counters of an executor since start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GdslCounters {
    /// Packets with a due time that were queued.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Packets that the host could not send for good.
    pub tx_failed: u64,
    /// Blocks read.
    pub reads_issued: u64,
    /// Blocks that were in memory, or on their way, when they were asked for.
    pub reads_shared: u64,
    /// Of these, blocks that nobody held: the cache had kept them.
    pub cache_hits: u64,
    /// Writes issued.
    pub writes_issued: u64,
    /// Times that no buffer was free when a block was asked for.
    pub chunk_shortages: u64,
    /// Upcalls.
    pub upcalls: u64,
    /// Cycles that ended with peers still due: they were served in the next one.
    pub carried_over: u64,
}

/// What a cycle did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cycle {
    /// Anything at all happened.
    pub worked: bool,
    /// When the next cycle is needed; `None` when nothing is scheduled or under way.
    pub next_ns: Option<u64>,
}

struct Slot<S, T> {
    generation: u32,
    pair: Option<Box<Pair<S, T>>>,
    /// The next pair that waits for the same block.
    next_waiter: Option<u32>,
    waiting_on: Option<BlockId>,
    waits_for_entry: bool,
}

/// Most blocks that [`Gdsl::front_arrived`] looks at.
const FRONT_MAX: usize = 8;

/// The executor of one engine core.
pub struct Gdsl<H: Host, D: Disk, S, T> {
    pub(super) config: GdslConfig,
    pub(super) host: H,
    pub(super) disk: D,
    pub(super) blocks: Blocks,
    slots: Vec<Slot<S, T>>,
    free: Vec<u32>,
    pub(super) wheels: [Wheel; 2],
    pub(super) reads: Cyclic<D::File>,
    done: Vec<ReadDone>,
    pub(super) writes: Writes,
    pub(super) log: SendLog,
    pub(super) counters: GdslCounters,
    outcomes: Vec<(PairId, Outcome)>,
    pub(super) costs: Costs,
    pub(super) period: Period,
    /// What guaranteed pairs have reserved.
    pub(super) reserved: Work,
    /// Byte streams that carry nothing guaranteed have something to write.
    pub(super) streams_wait: bool,
    pub(super) tapes: Tapes,
}

impl<H: Host, D: Disk, S: IssueModule<H, D>, T: IssueModule<H, D>> Gdsl<H, D, S, T> {
    /// An executor over `host` and `disk`, whose buffers are the chunks of `pool`. All tables are allocated here.
    pub fn new(config: GdslConfig, host: H, disk: D, pool: ChunkPool, start_ns: u64) -> Self {
        let pairs = config.pairs_max as usize;
        let per_cycle = config.upcalls_per_cycle as usize * 4 + config.host_frames + 2 * UPCALL_BATCH * PACKETS_PER_UPCALL_MAX;
        let wheel = || Wheel::new(config.pairs_max.saturating_mul(2), config.tick_ns, start_ns);
        let (pool_chunks, blocks) = (pool.capacity(), Blocks::new(pool, if config.cache { pairs } else { 0 }));
        let slot = || Slot { generation: 0, pair: None, next_waiter: None, waiting_on: None, waits_for_entry: false };
        Self {
            slots: (0..pairs).map(|_| slot()).collect(),
            free: (0..config.pairs_max).rev().collect(),
            wheels: [wheel(), wheel()],
            reads: Cyclic::with_writes(config.disk, blocks.tags_max(), pool_chunks, config.writes_max),
            done: Vec::with_capacity(64),
            writes: Writes::new(pairs, config.writes_max),
            log: SendLog::new(config.host_frames.max(1), per_cycle),
            counters: GdslCounters::default(),
            outcomes: Vec::with_capacity(2 * pairs),
            costs: Costs::default(),
            period: Period::new(config.period_ns, start_ns),
            reserved: Work::default(),
            streams_wait: false,
            tapes: Tapes::new(config.tapes_max),
            blocks,
            config,
            host,
            disk,
        }
    }

    /// Adds a pair; both modules sleep until they are woken.
    ///
    /// # Errors
    /// Gives the pair back when the table is full.
    pub fn add(&mut self, pair: Box<Pair<S, T>>) -> Result<PairId, Box<Pair<S, T>>> {
        let Some(index) = self.free.pop() else { return Err(pair) };
        let Some(slot) = self.slots.get_mut(index as usize) else { return Err(pair) };
        slot.pair = Some(pair);
        Ok(PairId { index, generation: slot.generation })
    }

    /// Takes a pair out, with an empty link.
    pub fn remove(&mut self, id: PairId) -> Option<Box<Pair<S, T>>> {
        self.clear_link(id);
        let pair = self.slot(id)?.pair.take()?;
        self.blocks.reader_left(id.index);
        self.writes.forget(id);
        self.sleep(id.index, pair.class);
        let slot = self.slots.get_mut(id.index as usize)?;
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(id.index);
        Some(pair)
    }

    /// Empties the pair's link; reads that the disk has go on and are dropped when they arrive, those that wait for it are taken back.
    /// Both modules sleep until they are woken.
    pub fn clear_link(&mut self, id: PairId) {
        if self.slot(id).is_none() {
            return;
        }
        self.stop_waiting(id.index);
        let Some(slot) = self.slots.get_mut(id.index as usize) else { return };
        slot.waits_for_entry = false;
        let Some(pair) = slot.pair.as_mut() else { return };
        (pair.link.source_waits, pair.link.mark) = (false, None);
        while let Some((_, block)) = pair.link.pop() {
            self.blocks.release(block);
        }
        let class = pair.class;
        self.sleep(id.index, class);
    }

    /// Upcalls one end of the pair at `at_ns`, whatever it was waiting for.
    pub fn wake(&mut self, id: PairId, end: End, at_ns: u64) {
        if let Some(class) = self.slot(id).and_then(|s| s.pair.as_ref()).map(|p| p.class) {
            self.wheels[class as usize].schedule(key(id.index, end), at_ns);
        }
    }

    /// Puts one end of the pair to sleep until it is woken.
    pub fn hold(&mut self, id: PairId, end: End) {
        if let Some(class) = self.slot(id).and_then(|s| s.pair.as_ref()).map(|p| p.class) {
            self.wheels[class as usize].cancel(key(id.index, end));
            if end == End::Destination {
                self.stop_waiting(id.index);
                if let Some(slot) = self.slots.get_mut(id.index as usize) {
                    slot.waits_for_entry = false;
                }
            }
        }
    }

    /// Pairs that were added and not removed.
    pub fn pairs(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// The pair's modules.
    pub fn pair_mut(&mut self, id: PairId) -> Option<&mut Pair<S, T>> {
        self.slot(id)?.pair.as_deref_mut()
    }

    /// Writes of the pair that have not ended. A pair may go before they have: those that the disk was not given are dropped, the others
    /// end without anybody being told.
    pub fn writes_under_way(&self, id: PairId) -> usize {
        self.writes.under_way(id)
    }

    /// The first `count` blocks of the pair's link, or all when there are fewer, have arrived (or failed); of a best-effort pair the first
    /// one. `None` when the link is empty or there is no such pair.
    pub fn front_arrived(&mut self, id: PairId, count: usize) -> Option<bool> {
        let pair = self.slot(id)?.pair.as_deref()?;
        let count = if pair.class == Class::Guaranteed { count.max(1) } else { 1 };
        let last = pair.link.len().min(count).checked_sub(1)?;
        let mut blocks = [None; FRONT_MAX];
        for (i, place) in blocks.iter_mut().enumerate().take(last + 1) {
            *place = pair.link.get(i);
        }
        Some(blocks.iter().flatten().all(|&(_, block)| !matches!(self.blocks.state(block), BlockState::Reading)))
    }

    /// The host.
    pub fn host(&self) -> &H {
        &self.host
    }

    /// The host, for what is not a packet of a pair.
    pub fn host_mut(&mut self) -> &mut H {
        &mut self.host
    }

    /// The disk.
    pub fn disk(&self) -> &D {
        &self.disk
    }

    /// The disk, for a test that changes it.
    pub fn disk_mut(&mut self) -> &mut D {
        &mut self.disk
    }

    /// What each device did.
    pub fn devices(&self) -> impl Iterator<Item = DeviceReport> + '_ {
        self.reads.reports()
    }

    /// Buffers that are free, or would be the moment somebody needs them.
    pub fn chunks_free(&self) -> usize {
        self.blocks.chunks_free()
    }

    /// What a packet and a read cost so far; what is reckoned with where too little was measured.
    pub fn cost(&self) -> Cost {
        self.costs.cost()
    }

    /// The buffers.
    pub fn pool(&self) -> &ChunkPool {
        self.blocks.pool()
    }

    /// Counters since start.
    pub fn counters(&self) -> GdslCounters {
        self.counters
    }

    /// Lateness of all packets since start.
    pub fn lateness(&self) -> &Lateness {
        &self.log.lateness
    }

    /// Deliveries came to an end that nobody has heard of.
    pub fn has_outcomes(&self) -> bool {
        !self.outcomes.is_empty()
    }

    /// Deliveries that came to an end since this was last asked, one at a time.
    pub fn next_outcome(&mut self) -> Option<(PairId, Outcome)> {
        self.outcomes.pop()
    }

    /// Issues I/O on behalf of the pair outside of an upcall (a last RTCP packet); it goes out with the next flush.
    pub fn with_io<R>(&mut self, id: PairId, clock: &dyn Clock, f: impl FnOnce(&mut T, &mut IoBatch<'_, H, D>) -> R) -> Option<R> {
        let slot = self.slots.get_mut(id.index as usize).filter(|s| s.generation == id.generation)?;
        let pair = slot.pair.as_deref_mut()?;
        let (class, now_ns) = (pair.class, clock.now_ns());
        let mut io = IoBatch {
            pair: id,
            host: &mut self.host,
            clock,
            blocks: &mut self.blocks,
            link: &mut pair.link,
            tapes: &self.tapes,
            reads: &mut self.reads,
            writes: &mut self.writes,
            class,
            now_ns,
            log: &mut self.log,
            counters: &mut self.counters,
            outcomes: &mut self.outcomes,
            popped: false,
            restarted: false,
        };
        Some(f(&mut pair.destination, &mut io))
    }

    /// Queues a datagram that belongs to no pair (a report to who sends to us), when there is room for it.
    pub fn send_untimed(&mut self, flow: FlowId, packet: &[u8]) {
        if !self.log.has_room() {
            return;
        }
        let Some(place) = self.host.datagram(flow).and_then(|frame| frame.get_mut(..packet.len())) else { return };
        place.copy_from_slice(packet);
        self.host.commit(packet.len());
        self.log.note_untimed();
    }

    /// One cycle.
    pub fn cycle(&mut self, clock: &dyn Clock) -> Cycle {
        let now_ns = clock.now_ns();
        let answers = self.reap(now_ns) + self.reap_writes(now_ns);
        let reaped_ns = clock.now_ns();
        let packets = self.counters.packets;
        let upcalls = self.upcall_due(now_ns, clock);
        let mut worked = answers > 0 || upcalls > 0;
        self.counters.upcalls += u64::from(upcalls);
        let upcalled_ns = clock.now_ns();
        if self.blocks.take_abandoned() {
            let blocks = &mut self.blocks;
            self.reads.retain(|tag| !blocks.drop_unwanted(tag));
        }
        if self.writes.take_abandoned() {
            let writes = &mut self.writes;
            self.reads.retain_writes(|tag| !writes.drop_unwanted(tag));
        }
        let reads_wait = !self.reads.is_empty();
        if reads_wait {
            self.issue_reads(now_ns, upcalled_ns);
        }
        let issued_ns = clock.now_ns();
        worked |= self.flush(clock);
        self.flush_streams(clock);
        self.count_lateness();
        // Looking for answers in vain is no read's work.
        let reap_ns = if answers > 0 { reaped_ns.saturating_sub(now_ns) } else { 0 };
        let issue_ns = if reads_wait { issued_ns.saturating_sub(upcalled_ns) } else { 0 };
        self.costs.reads(answers, issue_ns + reap_ns);
        let packet_ns = clock.now_ns().saturating_sub(issued_ns) + upcalled_ns.saturating_sub(reaped_ns);
        self.costs.packets(self.counters.packets - packets, packet_ns);
        Cycle { worked, next_ns: self.next_ns(now_ns) }
    }

    /// Upcalls the peers that are due, guaranteed ones first; how many there were.
    fn upcall_due(&mut self, now_ns: u64, clock: &dyn Clock) -> u32 {
        let mut upcalls = 0;
        let mut due = [0; UPCALL_BATCH];
        loop {
            let left = self.upcalls_left(upcalls);
            let batch = self.take_due(Class::Guaranteed, now_ns, left, &mut due);
            if batch.is_empty() {
                break;
            }
            self.prefetch_pairs(batch);
            for &key in batch {
                self.upcall(key, now_ns, clock);
            }
            upcalls += batch.len() as u32;
        }
        let mut carried_over = self.is_due(Class::Guaranteed, now_ns);
        if self.is_due(Class::BestEffort, now_ns) {
            upcalls += self.upcall_best_effort(now_ns, clock, upcalls);
            carried_over |= self.is_due(Class::BestEffort, now_ns);
        }
        self.counters.carried_over += u64::from(carried_over);
        upcalls
    }

    /// Takes out the next peers that are due, at most `limit`.
    pub(super) fn take_due<'b>(&mut self, class: Class, now_ns: u64, limit: usize, batch: &'b mut [u32; UPCALL_BATCH]) -> &'b [u32] {
        let mut taken = 0;
        for place in batch.iter_mut().take(limit) {
            let Some((key, _)) = self.wheels[class as usize].pop_due(now_ns) else { break };
            *place = key;
            taken += 1;
            if let Some(slot) = self.slots.get((key >> 1) as usize) {
                prefetch(slot);
            }
        }
        batch.get(..taken).unwrap_or(&[])
    }

    /// Asks for the memory of a whole batch, each step for what the step before has brought: the pairs, then what lies behind them.
    pub(super) fn prefetch_pairs(&self, keys: &[u32]) {
        let pair = |key: u32| self.slots.get((key >> 1) as usize).and_then(|slot| slot.pair.as_deref());
        for &key in keys {
            let Some(pair) = pair(key) else { continue };
            prefetch(&pair.link);
            if key & 1 == 0 {
                prefetch(&pair.source);
            } else {
                prefetch(&pair.destination);
                pair.lateness.prefetch();
            }
        }
        for &key in keys {
            let Some(pair) = pair(key) else { continue };
            pair.link.prefetch();
            if key & 1 == 0 {
                pair.source.prefetch(&self.host);
            } else {
                pair.destination.prefetch(&self.host);
            }
        }
    }

    /// Takes in what the disk has answered; how many reads that is.
    fn reap(&mut self, now_ns: u64) -> u64 {
        if self.disk.in_flight() == 0 {
            return 0;
        }
        let mut done = std::mem::take(&mut self.done);
        self.disk.reap(now_ns, &mut done);
        let answers = done.len() as u64;
        for read in done.drain(..) {
            let wanted = self.blocks.is_wanted(read.tag);
            let Some(read) = self.reads.finish::<D>(now_ns, read, wanted) else { continue };
            let waiter = self.blocks.complete(read);
            self.wake_waiters(waiter, now_ns);
        }
        self.done = done;
        answers
    }

    /// Upcalls the pairs that wait for a block, which are a list that begins with `waiter`.
    pub(super) fn wake_waiters(&mut self, mut waiter: Option<u32>, now_ns: u64) {
        while let Some(index) = waiter {
            let Some(slot) = self.slots.get_mut(index as usize) else { break };
            waiter = slot.next_waiter.take();
            slot.waiting_on = None;
            if let Some(pair) = &slot.pair {
                self.wheels[pair.class as usize].schedule(key(index, End::Destination), now_ns);
            }
        }
    }

    pub(super) fn upcall(&mut self, wheel_key: u32, now_ns: u64, clock: &dyn Clock) {
        let (index, end) = (wheel_key >> 1, if wheel_key & 1 == 0 { End::Source } else { End::Destination });
        if end == End::Destination {
            self.stop_waiting(index);
        }
        let Some(slot) = self.slots.get_mut(index as usize) else { return };
        let Some(pair) = slot.pair.as_deref_mut() else { return };
        let class = pair.class;
        let mut io = IoBatch {
            pair: PairId { index, generation: slot.generation },
            host: &mut self.host,
            clock,
            blocks: &mut self.blocks,
            link: &mut pair.link,
            tapes: &self.tapes,
            reads: &mut self.reads,
            writes: &mut self.writes,
            class,
            now_ns,
            log: &mut self.log,
            counters: &mut self.counters,
            outcomes: &mut self.outcomes,
            popped: false,
            restarted: false,
        };
        let next = match end {
            End::Source => pair.source.upcall(now_ns, &mut io),
            End::Destination => pair.destination.upcall(now_ns, &mut io),
        };
        let (popped, restarted) = (io.popped, io.restarted);
        let wheel = &mut self.wheels[class as usize];
        if let NextUpcall::At(at_ns) | NextUpcall::OnLinkOrAt(at_ns) = next {
            // Who asks for a time in the past has its turn in the next cycle, so that nobody fills this one alone.
            wheel.schedule(wheel_key, at_ns.max(now_ns + 1));
        }
        let on_link = matches!(next, NextUpcall::OnLink | NextUpcall::OnLinkOrAt(_));
        match end {
            End::Source => {
                pair.link.source_waits = on_link;
                if slot.waits_for_entry && !pair.link.is_empty() {
                    slot.waits_for_entry = false;
                    wheel.schedule(key(index, End::Destination), now_ns);
                }
            }
            End::Destination => {
                if restarted || popped && pair.link.source_waits {
                    pair.link.source_waits = false;
                    wheel.schedule(key(index, End::Source), now_ns);
                }
                if on_link {
                    self.wait_for_link(index);
                }
            }
        }
    }

    /// The destination waits for the first block of its link that is not here yet, or for a block to enter.
    fn wait_for_link(&mut self, index: u32) {
        let Some(slot) = self.slots.get_mut(index as usize) else { return };
        let Some(pair) = slot.pair.as_deref() else { return };
        let first_reading = (0..pair.link.len()).filter_map(|i| pair.link.get(i)).find(|&(_, block)| self.blocks.is_awaited(block));
        match first_reading {
            Some((_, block)) => {
                slot.waiting_on = Some(block);
                slot.next_waiter = self.blocks.wait(block, index);
            }
            None => slot.waits_for_entry = true,
        }
    }

    /// Takes the pair out of the list of those that wait for a block.
    fn stop_waiting(&mut self, index: u32) {
        let Some(slot) = self.slots.get_mut(index as usize) else { return };
        let Some(block) = slot.waiting_on.take() else { return };
        let after = slot.next_waiter.take();
        let mut at = self.blocks.first_waiter(block);
        if at == Some(index) {
            self.blocks.set_first_waiter(block, after);
            return;
        }
        while let Some(i) = at {
            let Some(slot) = self.slots.get_mut(i as usize) else { return };
            if slot.next_waiter == Some(index) {
                slot.next_waiter = after;
                return;
            }
            at = slot.next_waiter;
        }
    }

    fn sleep(&mut self, index: u32, class: Class) {
        self.wheels[class as usize].cancel(key(index, End::Source));
        self.wheels[class as usize].cancel(key(index, End::Destination));
    }

    fn slot(&mut self, id: PairId) -> Option<&mut Slot<S, T>> {
        self.slots.get_mut(id.index as usize).filter(|s| s.generation == id.generation && s.pair.is_some())
    }

    fn count_lateness(&mut self) {
        for (id, lateness_ns) in self.log.sent.drain(..) {
            let slot = self.slots.get_mut(id.index as usize).filter(|s| s.generation == id.generation);
            if let Some(pair) = slot.and_then(|s| s.pair.as_deref_mut()) {
                pair.lateness.record_ns(lateness_ns);
            }
        }
    }
}

fn key(index: u32, end: End) -> u32 {
    index << 1 | u32::from(end == End::Destination)
}
