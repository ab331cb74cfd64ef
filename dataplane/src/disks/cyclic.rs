//! The cyclic disk scheduler: which reads and writes a disk is given next, and how many at once.
//!
//! ```text
//!              device 0: guaranteed, in batches by deadline, then by place   ─┐ first
//! queue(read) ─►          best-effort, in the order asked for, and writes    ─┴─► at most `depth` under way ─► Disk ─► finish(read) ─► done
//!              device 1: ...                                                                    ▲                       │ late: fewer
//!                                                                                               └── again, if it failed ─┘
//! ```
//!
//! Time is divided into cycles; what is played in one is read in the one before. A cycle has a few batches: the guaranteed reads whose data
//! is needed at about the same time, issued in the order of their place on the disk; batches go in the order of their times (known as
//! SCAN-EDF: Reddy and Wyllie, ACM Multimedia 1993). A read that is needed sooner than in a cycle, because its stream has just begun, goes
//! by its own deadline. Best-effort reads get what is left, one chunk at a time, as soon as no guaranteed read waits: the disk is never idle while anybody wants it. A read under
//! way is not taken back, so a guaranteed read waits for at most `depth` others; the depth is kept where they are answered in time.
//!
//! Devices are told apart by their number (`st_dev`), each with queues and a depth of its own: one that stops answering holds up nobody
//! else. A read that fails is tried again while there is time. What is written is best-effort work too (see `writes`). Nothing here allocates
//! after start.

mod queue;
mod writes;

use std::collections::VecDeque;

use pacing::disk::DepthControl;

use self::queue::{Fifo, Place, Sorted};
use self::writes::{DeviceWrites, WriteSlot};
use super::{Disk, ReadDone, ReadRequest, WriteRequest};
use crate::gdsl::Class;

/// Devices that are told apart; the files of any others share the last one's queues.
pub const DEVICES_MAX: usize = 8;
/// Sorted batches of a cycle.
const BATCHES_PER_CYCLE: u64 = 8;
/// How often a read is tried.
const ATTEMPTS_MAX: u8 = 3;
/// Answers that an observed time per read is averaged over.
const OBSERVED_OVER: u64 = 32;

/// How disks are scheduled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CyclicConfig {
    /// Length of a cycle, nanoseconds.
    pub cycle_ns: u64,
    /// Reads under way on one device at most.
    pub depth: u16,
    /// A device that takes longer to answer gets fewer at once, nanoseconds.
    pub latency_max_ns: u64,
}

impl Default for CyclicConfig {
    /// One second of read-ahead: two cycles of half a second.
    fn default() -> Self {
        Self { cycle_ns: 500_000_000, depth: 32, latency_max_ns: 125_000_000 }
    }
}

impl CyclicConfig {
    /// What follows from a read-ahead: it covers two cycles, and a quarter of a cycle is the longest that a device may take to answer.
    pub fn for_read_ahead(read_ahead_ns: u64, depth: u16) -> Self {
        let cycle_ns = (read_ahead_ns / 2).max(1_000_000);
        Self { cycle_ns, depth, latency_max_ns: cycle_ns / 4 }
    }
}

/// What a device did since start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeviceReport {
    /// Its number.
    pub device: u64,
    /// Guaranteed reads that were answered.
    pub guaranteed_reads: u64,
    /// Best-effort reads that were answered.
    pub best_effort_reads: u64,
    /// Guaranteed reads that were answered after their deadline.
    pub late: u64,
    /// Writes that were answered.
    pub writes: u64,
    /// Reads and writes that failed and were tried again.
    pub retries: u64,
    /// Reads that may be under way now.
    pub depth: u16,
    /// Device time of a read while reads waited for the device, nanoseconds; 0 before it was ever that busy.
    pub read_ns: u64,
}

/// A read, from when it is asked for to when it is answered for good.
struct Slot<F> {
    state: State,
    request: Option<ReadRequest<F>>,
    /// Kept while the read is under way, to try again.
    again: Option<(F, u64, usize)>,
    device: u8,
    class: Class,
    deadline_ns: u64,
    issued_ns: u64,
    attempts: u8,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Free,
    Waiting,
    UnderWay,
}

struct Device {
    guaranteed: Sorted,
    best_effort: Fifo,
    writes: DeviceWrites,
    under_way: u16,
    depth: DepthControl,
    report: DeviceReport,
    /// Since when reads have waited for the device without a pause, and how many were answered since.
    busy: Option<(u64, u64)>,
}

/// The scheduler of all devices of one engine core.
pub struct Cyclic<F> {
    config: CyclicConfig,
    slots: Vec<Slot<F>>,
    /// Links of the queues of best-effort reads, by tag.
    links: Vec<queue::FifoLink>,
    devices: Vec<Device>,
    known: usize,
    write_slots: Vec<WriteSlot<F>>,
    write_links: Vec<queue::FifoLink>,
    /// Given to the disk and not yet taken by it.
    batch: VecDeque<ReadRequest<F>>,
    write_batch: VecDeque<WriteRequest<F>>,
    waiting: usize,
}

impl<F: Clone> Cyclic<F> {
    /// A scheduler for reads whose tags are below `tags_max`, of which at most `reads_max` exist at once.
    pub fn new(config: CyclicConfig, tags_max: usize, reads_max: usize) -> Self {
        Self::with_writes(config, tags_max, reads_max, 0)
    }

    /// The same, for writes as well, whose tags are below `writes_max`.
    pub fn with_writes(config: CyclicConfig, tags_max: usize, reads_max: usize, writes_max: usize) -> Self {
        let slot = || Slot {
            state: State::Free,
            request: None,
            again: None,
            device: 0,
            class: Class::BestEffort,
            deadline_ns: 0,
            issued_ns: 0,
            attempts: 0,
        };
        let device = || Device {
            guaranteed: Sorted::with_capacity(reads_max),
            best_effort: Fifo::default(),
            writes: DeviceWrites::new(config),
            under_way: 0,
            depth: DepthControl::new(config.depth, config.latency_max_ns),
            report: DeviceReport::default(),
            busy: None,
        };
        Self {
            config,
            slots: (0..tags_max).map(|_| slot()).collect(),
            links: vec![queue::FifoLink::default(); tags_max],
            devices: (0..DEVICES_MAX).map(|_| device()).collect(),
            known: 0,
            write_slots: (0..writes_max).map(|_| WriteSlot::free()).collect(),
            write_links: vec![queue::FifoLink::default(); writes_max],
            batch: VecDeque::with_capacity(DEVICES_MAX * usize::from(config.depth.max(1))),
            write_batch: VecDeque::with_capacity(writes_max),
            waiting: 0,
        }
    }

    /// True when nothing waits to be given to the disk.
    pub fn is_empty(&self) -> bool {
        self.waiting == 0 && self.batch.is_empty() && self.write_batch.is_empty()
    }

    /// What the devices did, in the order in which they were first used.
    pub fn reports(&self) -> impl Iterator<Item = DeviceReport> + '_ {
        self.devices.iter().take(self.known).map(|device| DeviceReport { depth: device.depth.depth(), ..device.report })
    }

    /// Takes a read that is needed by `deadline_ns`.
    pub fn queue<D: Disk<File = F>>(&mut self, now_ns: u64, request: ReadRequest<F>, class: Class, deadline_ns: u64) {
        let (device, tag) = (self.device(D::device_of(&request.file)), request.tag);
        let Some(slot) = slot(&mut self.slots, tag) else { return };
        let place = self.config.place::<D>(now_ns, &request, deadline_ns);
        let (attempts, issued_ns) = (0, now_ns);
        *slot = Slot { state: State::Waiting, request: Some(request), again: None, device, class, deadline_ns, issued_ns, attempts };
        self.wait(tag, place);
    }

    /// Somebody else needs the read as well: it gets the better class and the earlier deadline of the two.
    pub fn hurry<D: Disk<File = F>>(&mut self, now_ns: u64, tag: u64, class: Class, deadline_ns: u64) {
        let Some(slot) = slot(&mut self.slots, tag) else { return };
        let promoted = slot.class == Class::BestEffort && class == Class::Guaranteed;
        let earlier = slot.class == class && deadline_ns < slot.deadline_ns;
        if !promoted && !earlier {
            return;
        }
        let was = std::mem::replace(&mut slot.class, class);
        slot.deadline_ns = deadline_ns;
        let place = slot.request.as_ref().map(|request| self.config.place::<D>(now_ns, request, deadline_ns));
        let Some(place) = place.filter(|_| class == Class::Guaranteed && slot.state == State::Waiting) else { return };
        let Some(device) = self.devices.get_mut(usize::from(slot.device)) else { return };
        match was {
            Class::Guaranteed => device.guaranteed.retain(|other| other != tag),
            Class::BestEffort => device.best_effort.remove(&mut self.links, tag),
        }
        device.guaranteed.push(place, tag);
    }

    /// Drops the reads that `keep` does not want and the disk does not have, chunks and all.
    pub fn retain(&mut self, mut keep: impl FnMut(u64) -> bool) {
        let Self { devices, links, slots, waiting, .. } = self;
        let mut keeps = |tag: u64| {
            let keeps = keep(tag);
            if let Some(slot) = slots.get_mut(tag as usize).filter(|_| !keeps) {
                (slot.state, slot.request) = (State::Free, None);
                *waiting -= 1;
            }
            keeps
        };
        for device in devices.iter_mut().take(self.known) {
            device.guaranteed.retain(&mut keeps);
            device.best_effort.retain(links, &mut keeps);
        }
        self.batch.retain(|request| {
            let keeps = keep(request.tag);
            if let Some(slot) = slots.get_mut(request.tag as usize).filter(|_| !keeps) {
                (slot.state, slot.again) = (State::Free, None);
                if let Some(device) = devices.get_mut(usize::from(slot.device)) {
                    device.under_way = device.under_way.saturating_sub(1);
                }
            }
            keeps
        });
    }

    /// Best-effort reads or writes wait to be given to the disk.
    pub fn best_effort_waits(&self) -> bool {
        self.devices.iter().take(self.known).any(|device| !device.best_effort.is_empty() || !device.writes.is_empty())
    }

    /// Gives the disk what it may have now, in one batch, with at most `best_effort_max` best-effort reads and writes; how many these were.
    pub fn issue<D: Disk<File = F>>(&mut self, now_ns: u64, disk: &mut D, best_effort_max: u64) -> u64 {
        let mut left = best_effort_max;
        // What the disk did not take goes first, and nothing else with it: it was next already.
        if self.batch.is_empty() {
            for device in 0..self.known {
                self.pick(now_ns, device, &mut left);
            }
        }
        if !self.batch.is_empty() {
            disk.submit(now_ns, &mut self.batch);
        }
        if !self.write_batch.is_empty() {
            disk.submit_writes(now_ns, &mut self.write_batch);
        }
        best_effort_max - left
    }

    fn pick(&mut self, now_ns: u64, index: usize, best_effort_left: &mut u64) {
        loop {
            let Some(device) = self.devices.get_mut(index) else { return };
            let depth = device.depth.depth();
            if device.under_way >= depth {
                break;
            }
            let guaranteed = device.guaranteed.pop();
            if guaranteed.is_none() {
                // What is best-effort shares the depth; a guaranteed read has all of it.
                if *best_effort_left == 0 || device.under_way + device.writes.under_way >= depth {
                    break;
                }
                if let Some(tag) = device.writes.pop(now_ns, &mut self.write_links, !device.best_effort.is_empty()) {
                    *best_effort_left -= 1;
                    self.pick_write(now_ns, index, tag);
                    continue;
                }
            }
            let tag = match guaranteed {
                Some(tag) => tag,
                None => {
                    let Some(tag) = device.best_effort.pop(&mut self.links) else { break };
                    *best_effort_left -= 1;
                    tag
                }
            };
            let Some(slot) = slot(&mut self.slots, tag) else { continue };
            let Some(request) = slot.request.take() else { continue };
            slot.again = Some((request.file.clone(), request.offset, request.len));
            (slot.state, slot.issued_ns, slot.attempts) = (State::UnderWay, now_ns, slot.attempts + 1);
            device.under_way += 1;
            self.waiting -= 1;
            self.batch.push_back(request);
        }
        // Busy is a device for which somebody waits, and not for the processor.
        let Some(device) = self.devices.get_mut(index) else { return };
        let somebody_waits = !device.guaranteed.is_empty() || !device.best_effort.is_empty();
        let is_busy = somebody_waits && device.under_way >= device.depth.depth();
        device.busy = if is_busy { device.busy.or(Some((now_ns, 0))) } else { None };
    }

    /// Takes the disk's answer to a read. `None`: it failed and is tried again, because it is `wanted` and there is time.
    pub fn finish<D: Disk<File = F>>(&mut self, now_ns: u64, done: ReadDone, wanted: bool) -> Option<ReadDone> {
        let Some(slot) = slot(&mut self.slots, done.tag).filter(|slot| slot.state == State::UnderWay) else { return Some(done) };
        let latency_ns = now_ns.saturating_sub(slot.issued_ns);
        let again = slot.again.take();
        slot.state = State::Free;
        if let Some(device) = self.devices.get_mut(usize::from(slot.device)) {
            device.answered(now_ns, latency_ns, slot.class, slot.deadline_ns, self.config.cycle_ns);
            // A little late is better than what lies up to the next sync sample lost.
            let in_time = now_ns < slot.deadline_ns.saturating_add(self.config.latency_max_ns);
            let try_again = wanted
                && slot.attempts < ATTEMPTS_MAX
                && (in_time || slot.class == Class::BestEffort)
                && done.result.is_err_and(|error| !error.is_for_good());
            if let Some((file, offset, len)) = again.filter(|_| try_again) {
                device.report.retries += 1;
                return self.try_again::<D>(now_ns, ReadRequest { tag: done.tag, file, offset, len, chunk: done.chunk });
            }
        }
        Some(done)
    }

    fn try_again<D: Disk<File = F>>(&mut self, now_ns: u64, request: ReadRequest<F>) -> Option<ReadDone> {
        let tag = request.tag;
        let slot = slot(&mut self.slots, tag)?;
        let place = self.config.place::<D>(now_ns, &request, slot.deadline_ns);
        (slot.state, slot.request) = (State::Waiting, Some(request));
        self.wait(tag, place);
        None
    }

    fn wait(&mut self, tag: u64, place: Place) {
        let Some(slot) = slot(&mut self.slots, tag) else { return };
        let Some(device) = self.devices.get_mut(usize::from(slot.device)) else { return };
        self.waiting += 1;
        match slot.class {
            Class::Guaranteed => device.guaranteed.push(place, tag),
            Class::BestEffort => device.best_effort.push(&mut self.links, tag),
        }
    }

    /// Place in the table of the device of this number.
    fn device(&mut self, number: u64) -> u8 {
        let known = self.devices.iter().take(self.known).position(|device| device.report.device == number);
        let index = known.unwrap_or_else(|| {
            let index = self.known.min(DEVICES_MAX - 1);
            if let Some(device) = self.devices.get_mut(index).filter(|_| index == self.known) {
                device.report.device = number;
            }
            self.known = (index + 1).max(self.known);
            index
        });
        index as u8
    }
}

fn slot<F>(slots: &mut [Slot<F>], tag: u64) -> Option<&mut Slot<F>> {
    slots.get_mut(usize::try_from(tag).ok()?)
}

impl CyclicConfig {
    /// Where a guaranteed read stands in the order.
    fn place<D: Disk>(&self, now_ns: u64, request: &ReadRequest<D::File>, deadline_ns: u64) -> Place {
        let batch_ns = (self.cycle_ns / BATCHES_PER_CYCLE).max(1);
        let is_early = deadline_ns.saturating_sub(now_ns) >= self.cycle_ns;
        // Rounded up: nobody in a hurry waits for what is needed later.
        let needed_ns = if is_early { deadline_ns.div_ceil(batch_ns).saturating_mul(batch_ns) } else { deadline_ns };
        Place { needed_ns, file: D::place_of(&request.file), offset: request.offset }
    }
}

impl Device {
    fn answered(&mut self, now_ns: u64, latency_ns: u64, class: Class, deadline_ns: u64, cycle_ns: u64) {
        self.under_way = self.under_way.saturating_sub(1);
        self.depth.answered(latency_ns);
        self.writes.read_answered(latency_ns);
        match class {
            Class::Guaranteed => {
                self.report.guaranteed_reads += 1;
                if now_ns > deadline_ns {
                    self.report.late += 1;
                    self.writes.keep_quiet_until(now_ns.saturating_add(cycle_ns));
                }
            }
            Class::BestEffort => self.report.best_effort_reads += 1,
        }
        self.count_answer(now_ns);
    }

    /// One more answer of a device that somebody waits for.
    fn count_answer(&mut self, now_ns: u64) {
        let Some((since_ns, answers)) = &mut self.busy else { return };
        *answers += 1;
        if *answers >= OBSERVED_OVER {
            let each_ns = now_ns.saturating_sub(*since_ns) / *answers;
            let before_ns = if self.report.read_ns == 0 { each_ns } else { self.report.read_ns };
            self.report.read_ns = (before_ns * 7 + each_ns) / 8;
            (*since_ns, *answers) = (now_ns, 0);
        }
    }
}

#[cfg(test)]
mod tests;
