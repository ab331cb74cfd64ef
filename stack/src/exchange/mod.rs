//! Several cores behind one interface: each has a queue of it, and what comes by the wrong one is handed over.
//!
//! ```text
//! queue 0 ─► core 0: ours? ─ yes ─► shown      ┌──► ring 1→0 ─► shown
//!                     └─ no ─► ring 0→1 ─┐     │
//! queue 1 ─► core 1: ours? ─ no ─────────┼─────┘
//!                     └─ yes ─► shown    └──► shown
//! ```
//!
//! An [`ExchangePort`] is a port like any other and stands between a queue's port and its user. Who owns a frame, [`Owners`] say. Cores share
//! nothing but who listens where and a ring for each ordered pair of them: one copy, no lock, and when it is full the frame is dropped and counted, as a full
//! queue of the interface would do. What goes to every core may fill only half of a ring, so that talk about neighbours never crowds out
//! what sessions need.
//!
//! A core looks at its own queue and at the rings in turn, so that a flood at either leaves the other its half. One that sleeps is woken, at
//! most once for each burst.

#[allow(unsafe_code)]
mod ring;

use std::net::SocketAddr;
use std::os::fd::RawFd;
use std::sync::Arc;

use self::ring::{Reader, Writer, ring};
use crate::iface::{Owner, Owners};
use crate::port::{Port, PortCounters, PortRefusal};
use crate::sockets::Bell;

/// Counters of what went between cores, since start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExchangeCounters {
    /// Frames from the own queue that were handed over to other cores; one for every core counts once for each.
    pub handed_over: u64,
    /// Frames that should have been, and found the ring full.
    pub dropped: u64,
    /// Frames that other cores handed over to this one and that were shown.
    pub taken_over: u64,
}

/// The way to another core.
struct Outward {
    core: usize,
    ring: Writer,
    bell: Arc<Bell>,
    /// Something was put there since the bell was last rung.
    fresh: bool,
}

/// A queue's port, as one of several cores has it.
pub struct ExchangePort<P> {
    port: P,
    owners: Owners,
    core: usize,
    outward: Vec<Outward>,
    inward: Vec<Reader>,
    /// The ring that is looked at first next time.
    turn: usize,
    /// Which of the two has the odd one of a burst.
    rings_have_odd: bool,
    bell: Arc<Bell>,
    counters: ExchangeCounters,
}

/// Wakes a core that sleeps in [`Port::wait`]; called from other cores, so it must be quick and must not block (write an eventfd).
pub type Wake = Box<dyn Fn() + Send + Sync>;

/// Joins the ports of the queues of one interface, that of core 0 first, each with what wakes its core. `ring_frames` may be under way
/// from any core to any other.
pub fn exchange<P: Port>(ports: Vec<(P, Wake)>, owners: &Owners, ring_frames: usize) -> Vec<ExchangePort<P>> {
    let (ports, wakes): (Vec<P>, Vec<Wake>) = ports.into_iter().unzip();
    let bells: Vec<Arc<Bell>> = wakes.into_iter().map(|wake| Arc::new(Bell::new(wake))).collect();
    let mut all: Vec<ExchangePort<P>> = ports
        .into_iter()
        .zip(&bells)
        .enumerate()
        .map(|(core, (port, bell))| ExchangePort {
            port,
            owners: owners.clone(),
            core,
            outward: Vec::new(),
            inward: Vec::new(),
            turn: 0,
            rings_have_odd: false,
            bell: Arc::clone(bell),
            counters: ExchangeCounters::default(),
        })
        .collect();
    for from in 0..all.len() {
        for (to, bell) in bells.iter().enumerate().filter(|(to, _)| *to != from) {
            let frame_bytes = all.get(from).map_or(0, |exchange| exchange.port.frame_bytes());
            let (writer, reader) = ring(ring_frames, frame_bytes);
            if let Some(from) = all.get_mut(from) {
                from.outward.push(Outward { core: to, ring: writer, bell: Arc::clone(bell), fresh: false });
            }
            if let Some(to) = all.get_mut(to) {
                to.inward.push(reader);
            }
        }
    }
    all
}

impl<P: Port> ExchangePort<P> {
    /// The queue's port.
    pub fn port(&self) -> &P {
        &self.port
    }

    /// The queue's port, for what a test does to it.
    pub fn port_mut(&mut self) -> &mut P {
        &mut self.port
    }

    /// What went between this core and the others.
    pub fn exchanged(&self) -> ExchangeCounters {
        self.counters
    }

    /// Shows what others handed over, up to `limit`, from each ring its share.
    fn take_over(&mut self, limit: usize, sink: &mut dyn FnMut(&[u8])) -> usize {
        let rings = self.inward.len();
        let mut taken = 0;
        for nth in 0..rings {
            let left = limit - taken;
            if left == 0 {
                break;
            }
            // The last one may have what those before it left.
            let share = left.div_ceil(rings - nth);
            if let Some(ring) = self.inward.get_mut((self.turn + nth) % rings) {
                taken += ring.show(share, sink);
            }
        }
        self.turn = (self.turn + 1) % rings.max(1);
        self.counters.taken_over += taken as u64;
        taken
    }

    /// Takes frames off the own queue, shows what is for this core and hands over the rest.
    fn take_in(&mut self, now_ns: u64, limit: usize, sink: &mut dyn FnMut(&[u8])) -> usize {
        let Self { port, owners, core, outward, counters, .. } = self;
        let taken = port.receive(now_ns, limit, &mut |frame| match owners.of(frame) {
            Owner::Here => sink(frame),
            Owner::Core(owner) if owner == *core => sink(frame),
            Owner::Core(owner) => match outward.iter_mut().find(|to| to.core == owner) {
                Some(to) => to.hand_over(frame, to.ring.capacity(), counters),
                None => sink(frame),
            },
            Owner::Everybody => {
                for to in outward.iter_mut() {
                    to.hand_over(frame, to.ring.capacity() / 2, counters);
                }
                sink(frame);
            }
        });
        for to in outward {
            if std::mem::take(&mut to.fresh) {
                to.bell.ring();
            }
        }
        taken
    }
}

impl Outward {
    fn hand_over(&mut self, frame: &[u8], limit: usize, counters: &mut ExchangeCounters) {
        if self.ring.push(frame, limit) {
            counters.handed_over += 1;
            self.fresh = true;
        } else {
            counters.dropped += 1;
        }
    }
}

impl<P: Port> Port for ExchangePort<P> {
    fn mac(&self) -> [u8; 6] {
        self.port.mac()
    }

    fn mtu_bytes(&self) -> usize {
        self.port.mtu_bytes()
    }

    fn frame_bytes(&self) -> usize {
        self.port.frame_bytes()
    }

    /// Frames that were handed over count too: they have cost time.
    fn receive(&mut self, now_ns: u64, limit: usize, sink: &mut dyn FnMut(&[u8])) -> usize {
        self.rings_have_odd = !self.rings_have_odd;
        let mut taken = self.take_over((limit + usize::from(self.rings_have_odd)) / 2, sink);
        taken += self.take_in(now_ns, limit - taken, sink);
        if taken < limit {
            taken += self.take_over(limit - taken, sink);
        }
        taken
    }

    fn frame(&mut self) -> Option<&mut [u8]> {
        self.port.frame()
    }

    fn commit(&mut self, len: usize) {
        self.port.commit(len);
    }

    fn flush(&mut self, now_ns: u64) -> usize {
        self.port.flush(now_ns)
    }

    fn queued(&self) -> usize {
        self.port.queued()
    }

    fn capacity(&self) -> usize {
        self.port.capacity()
    }

    fn listen(&mut self, addr: SocketAddr) -> Result<(), PortRefusal> {
        if !self.owners.listen(self.core, addr.port()) {
            return Err(PortRefusal::Taken);
        }
        self.port.listen(addr)
    }

    fn wait(&mut self, timeout_ns: u64, wake: RawFd) {
        self.bell.lie_down();
        if self.inward.iter().all(Reader::is_empty) {
            self.port.wait(timeout_ns, wake);
        }
        self.bell.get_up();
    }

    fn counters(&self) -> PortCounters {
        self.port.counters()
    }
}

#[cfg(test)]
mod tests;
