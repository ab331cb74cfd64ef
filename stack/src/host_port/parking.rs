//! Datagrams whose neighbour is still being looked up: bounded, the oldest makes way (RFC 4861 7.2.2), and nobody waits for ever.

use std::collections::VecDeque;
use std::net::SocketAddr;

/// Resolution ends after three seconds; what waited longer will not go.
const PATIENCE_NS: u64 = 3_500_000_000;
/// Datagrams of one destination that wait.
const PER_REMOTE_MAX: usize = 16;

/// Where a datagram comes from and goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ends {
    pub(super) local: SocketAddr,
    pub(super) remote: SocketAddr,
}

struct Parked {
    ends: Ends,
    since_ns: u64,
    len: usize,
    bytes: Box<[u8]>,
}

/// What became of a datagram that was offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Offered {
    /// It went.
    Sent,
    /// It has to wait.
    Waits,
    /// It can never go.
    Failed,
}

/// The place where they wait.
pub(super) struct Parking {
    slots: Vec<Parked>,
    free: Vec<u16>,
    waiting: VecDeque<u16>,
    /// Datagrams that made way or waited in vain.
    failed: u64,
}

impl Parking {
    pub(super) fn new(places: u16, datagram_bytes: usize) -> Self {
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
        let ends = Ends { local: nowhere, remote: nowhere };
        let slot = |_| Parked { ends, since_ns: 0, len: 0, bytes: vec![0; datagram_bytes].into() };
        // One more than may wait: the one that is being written.
        let places = places.saturating_add(1);
        Self {
            slots: (0..places).map(slot).collect(),
            free: (0..places).rev().collect(),
            waiting: VecDeque::with_capacity(usize::from(places)),
            failed: 0,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Datagrams lost here since this was last asked.
    pub(super) fn take_failed(&mut self) -> u64 {
        std::mem::take(&mut self.failed)
    }

    /// The payload of the next datagram; the same until [`Parking::park`].
    pub(super) fn space(&mut self) -> Option<&mut [u8]> {
        let slot = *self.free.last()?;
        self.slots.get_mut(usize::from(slot)).map(|parked| &mut parked.bytes[..])
    }

    /// Parks what was written into [`Parking::space`].
    pub(super) fn park(&mut self, now_ns: u64, ends: Ends, len: usize) {
        let Some(slot) = self.free.pop() else { return };
        if let Some(parked) = self.slots.get_mut(usize::from(slot)) {
            (parked.ends, parked.since_ns, parked.len) = (ends, now_ns, len.min(parked.bytes.len()));
        }
        self.waiting.push_back(slot);
        self.make_way(ends.remote);
    }

    fn make_way(&mut self, remote: SocketAddr) {
        let slots = &self.slots;
        let same = |slot: &u16| slots.get(usize::from(*slot)).is_some_and(|parked| parked.ends.remote == remote);
        let oldest = if self.waiting.iter().filter(|slot| same(slot)).count() > PER_REMOTE_MAX {
            self.waiting.iter().position(same)
        } else {
            self.free.is_empty().then_some(0)
        };
        if let Some(slot) = oldest.and_then(|at| self.waiting.remove(at)) {
            self.free.push(slot);
            self.failed += 1;
        }
    }

    /// Offers each datagram once, oldest first.
    pub(super) fn offer(&mut self, now_ns: u64, send: &mut dyn FnMut(Ends, &[u8]) -> Offered) {
        for _ in 0..self.waiting.len() {
            let Some(slot) = self.waiting.pop_front() else { return };
            let Some(parked) = self.slots.get(usize::from(slot)) else { return };
            let offered = send(parked.ends, parked.bytes.get(..parked.len).unwrap_or_default());
            let late = now_ns.saturating_sub(parked.since_ns) >= PATIENCE_NS;
            if offered == Offered::Waits && !late {
                self.waiting.push_back(slot);
                continue;
            }
            self.failed += u64::from(offered != Offered::Sent);
            self.free.push(slot);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends(port: u16) -> Ends {
        Ends { local: ([10, 0, 0, 1], 1).into(), remote: ([10, 0, 0, 2], port).into() }
    }

    fn park(parking: &mut Parking, now_ns: u64, port: u16, byte: u8) {
        parking.space().unwrap()[0] = byte;
        parking.park(now_ns, ends(port), 1);
    }

    fn taken(parking: &mut Parking, now_ns: u64, port: u16) -> Vec<u8> {
        let mut bytes = Vec::new();
        parking.offer(now_ns, &mut |at, datagram| {
            if at == ends(port) {
                bytes.extend(datagram);
                Offered::Sent
            } else {
                Offered::Waits
            }
        });
        bytes
    }

    #[test]
    fn the_oldest_makes_way() {
        let mut parking = Parking::new(20, 4);
        for byte in 0..18 {
            park(&mut parking, 0, 1, byte);
        }
        assert_eq!(parking.take_failed(), 2, "one destination has a bound");
        for byte in 0..6 {
            park(&mut parking, 0, 2, 100 + byte);
        }
        assert_eq!(parking.take_failed(), 2, "so have all together");
        assert_eq!(taken(&mut parking, 1, 2), [100, 101, 102, 103, 104, 105]);
        assert_eq!(taken(&mut parking, 1, 1), (4..18).collect::<Vec<u8>>());
        assert!(parking.is_empty());
    }

    #[test]
    fn nobody_waits_for_ever() {
        let mut parking = Parking::new(4, 4);
        park(&mut parking, 0, 1, 7);
        assert_eq!(taken(&mut parking, PATIENCE_NS - 1, 2), []);
        assert!(!parking.is_empty());
        taken(&mut parking, PATIENCE_NS, 2);
        assert_eq!((parking.is_empty(), parking.take_failed()), (true, 1));
    }
}
