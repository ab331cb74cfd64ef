//! What is to be said in answer to frames, noted in bounded queues until the egress pass says it.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::neighbour::Mac;

/// Short answers that wait.
const ANSWERS_MAX: usize = 64;
/// ICMP packets that wait.
const PARCELS: usize = 32;
/// An ICMP packet that cannot be sent in this time (its neighbour does not answer) is dropped.
pub(crate) const PARCEL_PATIENCE_NS: u64 = 3_000_000_000;

/// A short answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// An ARP reply.
    Arp {
        /// Who asked.
        to: (Mac, Ipv4Addr),
        /// Our address that was asked for.
        own: Ipv4Addr,
    },
    /// A solicited advertisement.
    Advert {
        /// Who asked.
        to: (Mac, Ipv6Addr),
        /// Our address that was asked for.
        own: Ipv6Addr,
    },
    /// To everybody: whose address this is.
    Announce(IpAddr),
}

/// An IP packet that waits.
pub(crate) struct Parcel {
    bytes: Box<[u8]>,
    len: usize,
    /// Where it goes.
    pub(crate) to: IpAddr,
    /// Since when it waits.
    pub(crate) since_ns: u64,
}

impl Parcel {
    /// The packet.
    pub(crate) fn packet(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

/// The queues.
pub(crate) struct Answers {
    short: VecDeque<Answer>,
    parcels: Vec<Parcel>,
    waiting: VecDeque<u8>,
    free: Vec<u8>,
}

impl Answers {
    pub(crate) fn new(mtu_bytes: usize) -> Self {
        let parcel = |_| Parcel { bytes: vec![0; mtu_bytes].into(), len: 0, to: IpAddr::V4(Ipv4Addr::UNSPECIFIED), since_ns: 0 };
        Self {
            short: VecDeque::with_capacity(ANSWERS_MAX),
            parcels: (0..PARCELS).map(parcel).collect(),
            waiting: VecDeque::with_capacity(PARCELS),
            free: (0..PARCELS as u8).rev().collect(),
        }
    }

    /// Something waits.
    pub(crate) fn is_waiting(&self) -> bool {
        !self.short.is_empty() || !self.waiting.is_empty()
    }

    /// Notes a short answer; false when the queue is full.
    pub(crate) fn say(&mut self, answer: Answer) -> bool {
        let room = self.short.len() < ANSWERS_MAX;
        if room {
            self.short.push_back(answer);
        }
        room
    }

    /// The next short answer.
    pub(crate) fn next(&self) -> Option<Answer> {
        self.short.front().copied()
    }

    /// It was said.
    pub(crate) fn said(&mut self) {
        self.short.pop_front();
    }

    /// Notes a packet; `write` writes it into a buffer of the link's size and says how long it became, `None`: it does not fit.
    pub(crate) fn send(&mut self, now_ns: u64, to: IpAddr, write: impl FnOnce(&mut [u8]) -> Option<usize>) -> bool {
        let Some(&slot) = self.free.last() else { return false };
        let Some(parcel) = self.parcels.get_mut(usize::from(slot)) else { return false };
        let Some(len) = write(&mut parcel.bytes) else { return false };
        (parcel.len, parcel.to, parcel.since_ns) = (len, to, now_ns);
        self.free.pop();
        self.waiting.push_back(slot);
        true
    }

    /// Offers each waiting packet once. `send` answers whether it is done with (sent or given up); the others wait on.
    pub(crate) fn offer(&mut self, send: &mut dyn FnMut(&Parcel) -> bool) {
        for _ in 0..self.waiting.len() {
            let Some(slot) = self.waiting.pop_front() else { return };
            match self.parcels.get(usize::from(slot)) {
                Some(parcel) if !send(parcel) => self.waiting.push_back(slot),
                _ => self.free.push(slot),
            }
        }
    }
}
