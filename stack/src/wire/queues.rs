//! An interface with several queues in simulated time: a [`SimPort`] whose frames come by any of them.
//!
//! ```text
//! SimPort ─► each frame by chance ─► queue 0 │ queue 1 │ ...      (a [`SimQueue`] each)
//!         ◄──────────────────────────── commit, flush
//! ```
//!
//! The worst that an interface can do to those who share it: not even the frames of one flow come by one queue. Sending is one line for
//! all: [`Port::queued`] and [`Port::capacity`] are those of the interface.

use std::cell::{RefCell, RefMut};
use std::os::fd::RawFd;
use std::rc::Rc;

use super::chance::Chance;
use super::port::SimPort;
use super::ring::FrameRing;
use crate::port::{Port, PortCounters};

/// The stream of a seed that sprays frames.
const SPRAY: u64 = 0x5350_5259;

/// The port and what came, by queue.
struct Interface {
    port: SimPort,
    arrived: Vec<FrameRing>,
    dropped: Vec<u64>,
    chance: Chance,
}

/// One of several queues of a simulated interface.
pub struct SimQueue {
    interface: Rc<RefCell<Interface>>,
    nth: usize,
    open: Box<[u8]>,
    mac: [u8; 6],
    mtu_bytes: usize,
    capacity: usize,
    is_open: bool,
    counters: PortCounters,
}

/// Makes an interface with `queues` queues of `rx_frames` frames each of a port. Equal seeds and calls give equal results.
pub fn sim_queues(port: SimPort, queues: usize, rx_frames: usize, seed: u64) -> Vec<SimQueue> {
    let (mac, mtu_bytes, frame_bytes, capacity) = (port.mac(), port.mtu_bytes(), port.frame_bytes(), port.capacity());
    let arrived = (0..queues).map(|_| FrameRing::new(rx_frames, frame_bytes)).collect();
    let interface = Rc::new(RefCell::new(Interface { port, arrived, dropped: vec![0; queues], chance: Chance::new(seed, SPRAY) }));
    let queue = |nth| SimQueue {
        interface: Rc::clone(&interface),
        nth,
        open: vec![0; frame_bytes].into_boxed_slice(),
        mac,
        mtu_bytes,
        capacity,
        is_open: false,
        counters: PortCounters::default(),
    };
    (0..queues).map(queue).collect()
}

impl SimQueue {
    fn interface(&self) -> RefMut<'_, Interface> {
        // No call keeps the borrow while it calls foreign code.
        self.interface.borrow_mut()
    }

    fn oldest(&self) -> Option<Vec<u8>> {
        let mut interface = self.interface();
        let queue = interface.arrived.get_mut(self.nth)?;
        let frame = queue.nth(0)?.to_vec();
        queue.pop();
        Some(frame)
    }
}

impl Interface {
    fn spray(&mut self, now_ns: u64) {
        let Self { port, arrived, dropped, chance } = self;
        let queues = arrived.len().max(1) as u64;
        port.receive(now_ns, usize::MAX, &mut |frame| {
            let nth = (chance.next() % queues) as usize;
            if let (Some(queue), Some(dropped)) = (arrived.get_mut(nth), dropped.get_mut(nth)) {
                *dropped += u64::from(!queue.push(frame));
            }
        });
    }
}

impl Port for SimQueue {
    fn mac(&self) -> [u8; 6] {
        self.mac
    }

    fn mtu_bytes(&self) -> usize {
        self.mtu_bytes
    }

    fn frame_bytes(&self) -> usize {
        self.open.len()
    }

    fn receive(&mut self, now_ns: u64, limit: usize, sink: &mut dyn FnMut(&[u8])) -> usize {
        self.interface().spray(now_ns);
        for shown in 0..limit {
            let Some(frame) = self.oldest() else { return shown };
            self.counters.rx_frames += 1;
            self.counters.rx_bytes += frame.len() as u64;
            sink(&frame);
        }
        limit
    }

    fn frame(&mut self) -> Option<&mut [u8]> {
        let free = self.interface().port.frame().is_some();
        self.is_open = free;
        self.counters.tx_full += u64::from(!free);
        free.then_some(&mut self.open[..])
    }

    fn commit(&mut self, len: usize) {
        if !std::mem::take(&mut self.is_open) {
            return;
        }
        let sent = {
            let mut interface = self.interface();
            let room = interface.port.frame().and_then(|room| room.get_mut(..len));
            room.zip(self.open.get(..len)).map(|(room, frame)| room.copy_from_slice(frame)).map(|()| interface.port.commit(len))
        };
        match sent {
            Some(()) => {
                self.counters.tx_frames += 1;
                self.counters.tx_bytes += len as u64;
            }
            // Another queue took the last frame since this one asked.
            None => self.counters.tx_failed += 1,
        }
    }

    fn flush(&mut self, now_ns: u64) -> usize {
        self.counters.tx_calls += 1;
        self.interface().port.flush(now_ns)
    }

    fn queued(&self) -> usize {
        self.interface().port.queued()
    }

    fn capacity(&self) -> usize {
        self.capacity
    }

    fn wait(&mut self, _timeout_ns: u64, _wake: RawFd) {}

    fn counters(&self) -> PortCounters {
        let rx_dropped = self.interface().dropped.get(self.nth).copied().unwrap_or(0);
        PortCounters { rx_dropped, ..self.counters }
    }
}
