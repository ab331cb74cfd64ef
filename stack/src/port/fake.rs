//! A port for tests of decorators: what arrives is put into it, what was sent can be looked at.

use std::collections::VecDeque;
use std::os::fd::RawFd;

use super::{Port, PortCounters};

pub(super) const FRAME_BYTES: usize = 1600;

/// Frames wait in `sent` from the flush on; they complete in the flush after that one.
pub(super) struct Fake {
    pub arriving: VecDeque<Vec<u8>>,
    pub sent: Vec<Vec<u8>>,
    committed: Vec<Vec<u8>>,
    under_way: usize,
    capacity: usize,
    open: [u8; FRAME_BYTES],
}

impl Fake {
    pub(super) fn new(capacity: usize) -> Self {
        Self { arriving: VecDeque::new(), sent: vec![], committed: vec![], under_way: 0, capacity, open: [0; FRAME_BYTES] }
    }
}

impl Port for Fake {
    fn mac(&self) -> [u8; 6] {
        [2, 0, 0, 0, 0, 1]
    }

    fn mtu_bytes(&self) -> usize {
        1500
    }

    fn frame_bytes(&self) -> usize {
        FRAME_BYTES
    }

    fn receive(&mut self, _now_ns: u64, limit: usize, sink: &mut dyn FnMut(&[u8])) -> usize {
        let frames: Vec<_> = self.arriving.drain(..limit.min(self.arriving.len())).collect();
        frames.iter().for_each(|frame| sink(frame));
        frames.len()
    }

    fn frame(&mut self) -> Option<&mut [u8]> {
        (self.queued() < self.capacity).then_some(&mut self.open)
    }

    fn commit(&mut self, len: usize) {
        self.committed.push(self.open[..len].to_vec());
    }

    fn flush(&mut self, _now_ns: u64) -> usize {
        let completed = std::mem::replace(&mut self.under_way, self.committed.len());
        self.sent.append(&mut self.committed);
        completed
    }

    fn queued(&self) -> usize {
        self.committed.len() + self.under_way
    }

    fn capacity(&self) -> usize {
        self.capacity
    }

    fn wait(&mut self, _timeout_ns: u64, _wake: RawFd) {}

    fn counters(&self) -> PortCounters {
        PortCounters { tx_frames: self.sent.len() as u64, ..PortCounters::default() }
    }
}
