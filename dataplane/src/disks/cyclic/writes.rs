//! Writes beside the reads of the cyclic scheduler: best-effort work in pieces of at most a chunk.
//!
//! ```text
//! queue_write ─► in turn with best-effort reads, while no guaranteed read waits ─► a few under way ─► Disk ─► finish_write ─► done
//!                                                                                      ▲                           │
//!                                     none for a cycle after a guaranteed read was late, fewer while answers take long
//! ```
//!
//! A device may take far longer to write than to read, and a write under way is not taken back. So writes have a depth of their own, at
//! most a quarter of the reads', and they take no place away from guaranteed reads: those find their whole depth free of them.

use pacing::disk::DepthControl;

use super::queue::{Fifo, FifoLink};
use super::{ATTEMPTS_MAX, Cyclic, CyclicConfig, Device, State};
use crate::disks::{Disk, DiskError, WriteDone, WriteRequest};

/// Writes under way on one device at most, whatever the depth.
const WRITE_DEPTH_MAX: u16 = 8;

/// A write, from when it is asked for to when it is answered for good.
pub(super) struct WriteSlot<F> {
    state: State,
    request: Option<WriteRequest<F>>,
    /// Kept while the write is under way, to try again.
    again: Option<(F, u64)>,
    device: u8,
    issued_ns: u64,
    attempts: u8,
}

impl<F> WriteSlot<F> {
    pub(super) fn free() -> Self {
        Self { state: State::Free, request: None, again: None, device: 0, issued_ns: 0, attempts: 0 }
    }
}

/// A device's writes.
pub(super) struct DeviceWrites {
    waiting: Fifo,
    pub(super) under_way: u16,
    depth: DepthControl,
    /// No write is issued before this time.
    quiet_until_ns: u64,
    /// The last best-effort operation was a read.
    turn: bool,
}

impl DeviceWrites {
    pub(super) fn new(config: CyclicConfig) -> Self {
        let depth = DepthControl::new((config.depth / 4).clamp(1, WRITE_DEPTH_MAX), config.latency_max_ns);
        Self { waiting: Fifo::default(), under_way: 0, depth, quiet_until_ns: 0, turn: false }
    }

    /// None waits.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// A guaranteed read was answered too late.
    pub(super) fn keep_quiet_until(&mut self, ns: u64) {
        self.quiet_until_ns = self.quiet_until_ns.max(ns);
    }

    /// A read was answered while writes were under way: if that took long, they may be why.
    pub(super) fn read_answered(&mut self, latency_ns: u64) {
        if self.under_way > 0 {
            self.depth.answered(latency_ns);
        }
    }

    /// The next write, if one may go now and it is its turn beside a best-effort read that waits.
    pub(super) fn pop(&mut self, now_ns: u64, links: &mut [FifoLink], read_waits: bool) -> Option<u64> {
        let may_go = self.under_way < self.depth.depth() && now_ns >= self.quiet_until_ns && (self.turn || !read_waits);
        let tag = may_go.then(|| self.waiting.pop(links)).flatten();
        self.turn = tag.is_none();
        tag
    }
}

impl<F: Clone> Cyclic<F> {
    /// Takes a write; its tag is below the `writes_max` of [`Self::with_writes`].
    pub fn queue_write<D: Disk<File = F>>(&mut self, request: WriteRequest<F>) {
        let (device, tag) = (self.device(D::device_of(&request.file)), request.tag);
        let Some(slot) = slot(&mut self.write_slots, tag) else { return };
        *slot = WriteSlot { state: State::Waiting, request: Some(request), again: None, device, issued_ns: 0, attempts: 0 };
        self.wait_to_write(tag, device);
    }

    fn wait_to_write(&mut self, tag: u64, device: u8) {
        let Some(device) = self.devices.get_mut(usize::from(device)) else { return };
        self.waiting += 1;
        device.writes.waiting.push(&mut self.write_links, tag);
    }

    /// Drops the writes that `keep` does not want and the disk does not have, slices and all.
    pub fn retain_writes(&mut self, mut keep: impl FnMut(u64) -> bool) {
        let Self { devices, write_links, write_slots, waiting, write_batch, .. } = self;
        for device in devices.iter_mut().take(self.known) {
            device.writes.waiting.retain(write_links, |tag| {
                let keeps = keep(tag);
                if let Some(slot) = slot(write_slots, tag).filter(|_| !keeps) {
                    *slot = WriteSlot::free();
                    *waiting -= 1;
                }
                keeps
            });
        }
        write_batch.retain(|request| {
            let keeps = keep(request.tag);
            if let Some(slot) = slot(write_slots, request.tag).filter(|_| !keeps) {
                if let Some(device) = devices.get_mut(usize::from(slot.device)) {
                    device.writes.under_way = device.writes.under_way.saturating_sub(1);
                }
                *slot = WriteSlot::free();
            }
            keeps
        });
    }

    /// Gives the disk a write next.
    pub(super) fn pick_write(&mut self, now_ns: u64, index: usize, tag: u64) {
        let Some(slot) = slot(&mut self.write_slots, tag) else { return };
        let Some(request) = slot.request.take() else { return };
        slot.again = Some((request.file.clone(), request.offset));
        (slot.state, slot.issued_ns, slot.attempts) = (State::UnderWay, now_ns, slot.attempts + 1);
        self.waiting -= 1;
        if let Some(device) = self.devices.get_mut(index) {
            device.writes.under_way += 1;
        }
        self.write_batch.push_back(request);
    }

    /// Takes the disk's answer to a write. `None`: it failed and is tried again, because it is `wanted` and that may help.
    pub fn finish_write<D: Disk<File = F>>(&mut self, now_ns: u64, done: WriteDone, wanted: bool) -> Option<WriteDone> {
        let Some(slot) = slot(&mut self.write_slots, done.tag).filter(|slot| slot.state == State::UnderWay) else { return Some(done) };
        let latency_ns = now_ns.saturating_sub(slot.issued_ns);
        let (again, index, attempts) = (slot.again.take(), slot.device, slot.attempts);
        slot.state = State::Free;
        if let Some(device) = self.devices.get_mut(usize::from(index)) {
            device.wrote(now_ns, latency_ns);
            let try_again = wanted && attempts < ATTEMPTS_MAX && done.result.is_err_and(DiskError::may_pass);
            if let Some((file, offset)) = again.filter(|_| try_again) {
                device.report.retries += 1;
                slot.request = Some(WriteRequest { tag: done.tag, file, offset, slice: done.slice });
                slot.state = State::Waiting;
                self.wait_to_write(done.tag, index);
                return None;
            }
        }
        Some(done)
    }
}

impl Device {
    fn wrote(&mut self, now_ns: u64, latency_ns: u64) {
        self.writes.under_way = self.writes.under_way.saturating_sub(1);
        self.writes.depth.answered(latency_ns);
        self.report.writes += 1;
        self.count_answer(now_ns);
    }
}

fn slot<F>(slots: &mut [WriteSlot<F>], tag: u64) -> Option<&mut WriteSlot<F>> {
    slots.get_mut(usize::try_from(tag).ok()?)
}
