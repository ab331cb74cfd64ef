//! Own addresses: duplicate address detection (RFC 4862 5.4), announcements (RFC 5227 2.3, RFC 4861 7.2.6) and membership of
//! solicited-node groups (RFC 3810), as steps in time.
//!
//! ```text
//! IPv6:  report ─► (0..1 s) ─► probe ─► 1 s ─► preferred: announce ─► 2 s ─► report, announce
//! IPv4:                                        preferred: announce ─► 2 s ─► announce
//! ```

use std::net::{IpAddr, Ipv6Addr};

use super::cidr::Cidr;
use super::hash::mix;
use super::neighbour::RETRANSMIT_NS;

/// RFC 5227 1.1: ANNOUNCE_INTERVAL.
const ANNOUNCE_NS: u64 = 2_000_000_000;
/// RFC 5227 1.1: DEFEND_INTERVAL.
const DEFEND_NS: u64 = 10_000_000_000;
/// RFC 4861 10: MAX_RTR_SOLICITATION_DELAY, the bound of the delay before the first probe.
const FIRST_DELAY_NS: u64 = 1_000_000_000;

/// State of an own address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressState {
    /// Not used yet: somebody may have it.
    Tentative,
    /// In use.
    Preferred,
    /// Somebody else has it; it is not used.
    Duplicate,
}

/// What is to be said next about an own address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Join the solicited-node group.
    Report(Ipv6Addr),
    /// Ask whether anybody has it.
    Probe(Ipv6Addr),
    /// Tell everybody.
    Announce(IpAddr),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Report,
    Probe,
    Announce,
    ReportAgain,
    AnnounceAgain,
    Done,
}

struct Own {
    cidr: Cidr,
    state: AddressState,
    phase: Phase,
    next_ns: u64,
    defended_ns: Option<u64>,
}

/// All own addresses.
pub(crate) struct Addresses {
    all: Vec<Own>,
    detect_duplicates: bool,
}

/// The multicast group of those that may have an address (RFC 4291 2.7.1).
pub fn solicited_node(addr: Ipv6Addr) -> Ipv6Addr {
    Ipv6Addr::from_bits((0xff02_0000_0000_0000_0000_0001_ff00_0000) | (addr.to_bits() & 0xff_ffff))
}

impl Addresses {
    pub(crate) fn new(now_ns: u64, cidrs: &[Cidr], detect_duplicates: bool, seed: u64) -> Self {
        let own = |(nth, &cidr): (usize, &Cidr)| {
            let tentative = detect_duplicates && cidr.addr().is_ipv6();
            let delay_ns = if tentative { mix(seed ^ nth as u64) % FIRST_DELAY_NS } else { 0 };
            Own {
                cidr,
                state: if tentative { AddressState::Tentative } else { AddressState::Preferred },
                phase: if cidr.addr().is_ipv6() { Phase::Report } else { Phase::Announce },
                next_ns: now_ns.saturating_add(delay_ns),
                defended_ns: None,
            }
        };
        Self { all: cidrs.iter().enumerate().map(own).collect(), detect_duplicates }
    }

    /// Every address with its prefix and state.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Cidr, AddressState)> {
        self.all.iter().map(|own| (own.cidr, own.state))
    }

    /// State of an address; `None` if it is not one of ours.
    pub(crate) fn state(&self, addr: IpAddr) -> Option<AddressState> {
        self.all.iter().find(|own| own.cidr.addr() == addr).map(|own| own.state)
    }

    /// The address is ours and can be used.
    pub(crate) fn is_usable(&self, addr: IpAddr) -> bool {
        self.state(addr) == Some(AddressState::Preferred)
    }

    /// One of our addresses listens to this group.
    pub(crate) fn is_member(&self, group: Ipv6Addr) -> bool {
        let listens = |own: &Own| matches!(own.cidr.addr(), IpAddr::V6(addr) if solicited_node(addr) == group);
        group == ALL_NODES || self.all.iter().any(listens)
    }

    /// Somebody else claims the address. True when it is to be defended by saying again whose it is (RFC 5227 2.4 (b): now and then).
    pub(crate) fn conflict(&mut self, now_ns: u64, addr: IpAddr) -> bool {
        let Some(own) = self.all.iter_mut().find(|own| own.cidr.addr() == addr) else { return false };
        match own.state {
            AddressState::Tentative => {
                own.state = AddressState::Duplicate;
                own.phase = Phase::Done;
                false
            }
            AddressState::Preferred => {
                let due = own.defended_ns.is_none_or(|at| now_ns.saturating_sub(at) >= DEFEND_NS);
                if due {
                    own.defended_ns = Some(now_ns);
                }
                due
            }
            AddressState::Duplicate => false,
        }
    }

    /// When the next step is due.
    pub(crate) fn next_ns(&self) -> Option<u64> {
        self.all.iter().filter(|own| own.phase != Phase::Done).map(|own| own.next_ns).min()
    }

    /// Takes the steps that are due; `say` answers whether it could be said, if not it stays due.
    pub(crate) fn poll(&mut self, now_ns: u64, say: &mut dyn FnMut(Step) -> bool) {
        for own in &mut self.all {
            while own.phase != Phase::Done && now_ns >= own.next_ns {
                let Some(step) = own.step() else { break };
                if !say(step) {
                    return;
                }
                own.advance(now_ns, self.detect_duplicates);
            }
        }
    }
}

/// All nodes of the link.
pub(crate) const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

impl Own {
    fn step(&self) -> Option<Step> {
        match (self.phase, self.cidr.addr()) {
            (Phase::Report | Phase::ReportAgain, IpAddr::V6(addr)) => Some(Step::Report(solicited_node(addr))),
            (Phase::Probe, IpAddr::V6(addr)) => Some(Step::Probe(addr)),
            (Phase::Announce | Phase::AnnounceAgain, addr) => Some(Step::Announce(addr)),
            _ => None,
        }
    }

    fn advance(&mut self, now_ns: u64, detect_duplicates: bool) {
        let (phase, pause_ns) = match self.phase {
            Phase::Report if detect_duplicates => (Phase::Probe, 0),
            Phase::Report => (Phase::Announce, 0),
            Phase::Probe => (Phase::Announce, RETRANSMIT_NS),
            Phase::Announce if self.cidr.addr().is_ipv6() => (Phase::ReportAgain, ANNOUNCE_NS),
            Phase::Announce => (Phase::AnnounceAgain, ANNOUNCE_NS),
            Phase::ReportAgain => (Phase::AnnounceAgain, 0),
            Phase::AnnounceAgain | Phase::Done => (Phase::Done, 0),
        };
        if self.phase == Phase::Announce {
            self.state = AddressState::Preferred;
        }
        (self.phase, self.next_ns) = (phase, now_ns.saturating_add(pause_ns));
    }
}
