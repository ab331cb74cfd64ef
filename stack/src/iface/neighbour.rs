//! Neighbour table: which hardware address has an on-link IP address, with the states of RFC 4861 7.3.2 for NDP and for ARP alike
//! (RFC 1122 2.3.2.1 asks ARP for the same: unicast polls, at most one request per second).
//!
//! ```text
//!            resolve                    answer                     30 s
//! (nothing) ────────► INCOMPLETE ───────────────────► REACHABLE ────────► STALE ◄── heard, not asked
//!                        │ 3 x 1 s without answer        ▲                  │ resolve
//!                        ▼                               │ answer           ▼
//!                     forgotten ◄──── 3 x 1 s ──────── PROBE ◄─── 5 s ──── DELAY
//! ```
//!
//! The table is bounded and all its memory is taken at start. When it is full, a few random entries are looked at and the least useful
//! one goes; an entry that was used in the last minute and answers never goes (RFC 6583 6.3). Entries come from what we ask for, from
//! neighbours that ask for us, and from those that have completed a TCP handshake, never from other traffic.

use std::collections::HashMap;
use std::net::IpAddr;

use super::hash::{Keyed, mix};

/// A hardware address.
pub type Mac = [u8; 6];

const SECOND_NS: u64 = 1_000_000_000;
/// RFC 4861 10: REACHABLE_TIME, before the random factor.
const REACHABLE_NS: u64 = 30 * SECOND_NS;
/// RFC 4861 10: RETRANS_TIMER.
pub(crate) const RETRANSMIT_NS: u64 = SECOND_NS;
/// RFC 4861 10: DELAY_FIRST_PROBE_TIME.
const DELAY_NS: u64 = 5 * SECOND_NS;
/// RFC 4861 10: MAX_MULTICAST_SOLICIT and MAX_UNICAST_SOLICIT.
const SOLICITS_MAX: u8 = 3;
/// An entry is in use when it was asked for in this time; what uses an entry asks at least whenever REACHABLE runs out.
const IN_USE_NS: u64 = 60 * SECOND_NS;
/// Entries looked at to find one to evict.
const EVICTION_SAMPLE: usize = 16;

/// State of an entry (RFC 4861 7.3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NeighbourState {
    /// Asked for, no answer yet.
    Incomplete,
    /// Answered lately.
    Reachable,
    /// Known, but who knows.
    Stale,
    /// Stale and used; a sign of life may come by itself.
    Delay,
    /// Being asked whether it is still there.
    Probe,
}

/// On whose behalf an address is resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asker {
    /// The control core opened a flow or a connection.
    Own,
    /// A packet from outside wants an answer. These may take only half of the places for unfinished resolutions.
    Foreign,
}

/// What is known of a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lookup {
    /// Its hardware address.
    Known(Mac, Handle),
    /// It is being asked for.
    Pending,
    /// No place for it.
    Full,
}

/// Remembers an entry, to see at little cost whether it still says the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Handle {
    slot: u32,
    version: u32,
}

impl Handle {
    /// Of no entry: what it stands for is looked up again before every use.
    pub(crate) const NOWHERE: Self = Self { slot: u32::MAX, version: 0 };
}

/// A solicitation that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Solicit {
    /// Who is asked for.
    pub(crate) target: IpAddr,
    /// Where it was last; `None` asks everybody.
    pub(crate) at: Option<Mac>,
}

/// What a neighbour said of itself in an ARP reply or a neighbour advertisement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Advert {
    pub(crate) ip: IpAddr,
    pub(crate) mac: Option<Mac>,
    pub(crate) solicited: bool,
    pub(crate) overrides: bool,
}

#[derive(Clone, Copy)]
struct Entry {
    ip: IpAddr,
    mac: Mac,
    state: NeighbourState,
    /// It is one of the unfinished resolutions that are counted, and whether for somebody outside.
    unfinished: Option<Asker>,
    tries: u8,
    /// Changes whenever handles to the entry must be looked up again.
    version: u32,
    /// Handles may be used until then without asking.
    use_until_ns: u64,
    used_ns: u64,
    timer_ns: u64,
    /// Its slot is on the list of those with timers.
    timed: bool,
    occupied: bool,
}

/// The table.
pub(crate) struct Neighbours {
    index: HashMap<u128, u32, Keyed>,
    entries: Vec<Entry>,
    free: Vec<u32>,
    timed: Vec<u32>,
    /// No timer runs out before this.
    next_timer_ns: u64,
    incomplete: usize,
    incomplete_foreign: usize,
    incomplete_max: usize,
    random: u64,
    evicted: u64,
    refused: u64,
    failed: u64,
}

fn key(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().to_bits(),
        IpAddr::V6(ip) => ip.to_bits(),
    }
}

impl Neighbours {
    /// A table of `size` entries, a quarter of which may be unfinished at once.
    pub(crate) fn new(size: usize, seed: u64) -> Self {
        let size = size.clamp(4, 1 << 20);
        let vacant = Entry {
            ip: IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED),
            mac: [0; 6],
            state: NeighbourState::Incomplete,
            unfinished: None,
            tries: 0,
            version: 0,
            use_until_ns: 0,
            used_ns: 0,
            timer_ns: 0,
            timed: false,
            occupied: false,
        };
        Self {
            // Twice the room: then the map tidies up after removals in place and never grows.
            index: HashMap::with_capacity_and_hasher(size * 2, Keyed::new(seed)),
            entries: vec![vacant; size],
            free: (0..size as u32).rev().collect(),
            timed: Vec::with_capacity(size),
            next_timer_ns: u64::MAX,
            incomplete: 0,
            incomplete_foreign: 0,
            incomplete_max: size / 4,
            random: mix(seed ^ 0x6E65_6967),
            evicted: 0,
            refused: 0,
            failed: 0,
        }
    }

    /// Entries held.
    pub(crate) fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    /// Entries evicted, places refused, resolutions and probes that ended without answer.
    pub(crate) fn losses(&self) -> (u64, u64, u64) {
        (self.evicted, self.refused, self.failed)
    }

    /// State of an entry.
    pub(crate) fn state(&self, now_ns: u64, ip: IpAddr) -> Option<NeighbourState> {
        let entry = self.entries.get(*self.index.get(&key(ip))? as usize)?;
        let expired = entry.state == NeighbourState::Reachable && now_ns >= entry.use_until_ns;
        Some(if expired { NeighbourState::Stale } else { entry.state })
    }

    /// The handle's hardware address still holds and nothing needs to be asked.
    pub(crate) fn holds(&self, now_ns: u64, handle: Handle) -> bool {
        self.entries.get(handle.slot as usize).is_some_and(|entry| entry.version == handle.version && now_ns < entry.use_until_ns)
    }

    /// Looks a neighbour up because a packet is to go there; asks for it if need be.
    pub(crate) fn resolve(&mut self, now_ns: u64, ip: IpAddr, asker: Asker) -> Lookup {
        let Some(&slot) = self.index.get(&key(ip)) else { return self.begin(now_ns, ip, asker) };
        let Some(entry) = self.entries.get_mut(slot as usize) else { return Lookup::Full };
        entry.used_ns = now_ns;
        match entry.state {
            NeighbourState::Incomplete => return Lookup::Pending,
            NeighbourState::Reachable if now_ns < entry.use_until_ns => {}
            NeighbourState::Reachable | NeighbourState::Stale => {
                entry.state = NeighbourState::Delay;
                entry.use_until_ns = u64::MAX;
                self.set_timer(slot, now_ns.saturating_add(DELAY_NS));
            }
            NeighbourState::Delay | NeighbourState::Probe => {}
        }
        match self.entries.get(slot as usize) {
            Some(entry) => Lookup::Known(entry.mac, Handle { slot, version: entry.version }),
            None => Lookup::Full,
        }
    }

    /// A neighbour asked for us and said where it is (an ARP request, a solicitation with a source link-layer address: RFC 4861 7.2.3).
    pub(crate) fn heard(&mut self, now_ns: u64, ip: IpAddr, mac: Mac) {
        if let Some(&slot) = self.index.get(&key(ip)) {
            let Some(entry) = self.entries.get(slot as usize) else { return };
            if entry.state == NeighbourState::Incomplete || entry.mac != mac {
                self.learn(slot, mac, None);
            }
        } else if let Some(slot) = self.occupy(now_ns, ip) {
            self.learn(slot, mac, None);
        }
    }

    /// A neighbour has answered what a layer above sent to it (RFC 4861 7.3.1), from there.
    pub(crate) fn confirmed(&mut self, now_ns: u64, ip: IpAddr, mac: Mac) {
        let known = self.index.get(&key(ip)).copied();
        let Some(slot) = known.or_else(|| self.occupy(now_ns, ip)) else { return };
        let Some(entry) = self.entries.get_mut(slot as usize) else { return };
        // What it said of itself counts for more than where a packet came from.
        if entry.state == NeighbourState::Incomplete || entry.mac == mac {
            let until_ns = now_ns.saturating_add(reachable_ns(&mut self.random));
            self.learn(slot, mac, Some(until_ns));
        }
    }

    /// An advertisement (RFC 4861 7.2.5). Nothing is made of one that nobody waited for.
    pub(crate) fn advert(&mut self, now_ns: u64, advert: Advert) {
        let Some(&slot) = self.index.get(&key(advert.ip)) else { return };
        let Some(entry) = self.entries.get_mut(slot as usize) else { return };
        let reachable_until_ns = advert.solicited.then(|| now_ns.saturating_add(reachable_ns(&mut self.random)));
        if entry.state == NeighbourState::Incomplete {
            if let Some(mac) = advert.mac {
                self.learn(slot, mac, reachable_until_ns);
            }
            return;
        }
        let mac = advert.mac.unwrap_or(entry.mac);
        if mac != entry.mac && !advert.overrides {
            if entry.state == NeighbourState::Reachable {
                entry.state = NeighbourState::Stale;
                entry.use_until_ns = 0;
            }
        } else if mac != entry.mac || advert.solicited {
            self.learn(slot, mac, reachable_until_ns);
        }
    }

    /// The neighbour was asked and its answer has not come: only then is an ARP reply an answer.
    pub(crate) fn awaits(&self, ip: IpAddr) -> bool {
        let entry = self.index.get(&key(ip)).and_then(|slot| self.entries.get(*slot as usize));
        entry.is_some_and(|entry| matches!(entry.state, NeighbourState::Incomplete | NeighbourState::Delay | NeighbourState::Probe))
    }

    /// When [`Neighbours::poll`] has something to do.
    pub(crate) fn next_ns(&self) -> Option<u64> {
        (self.next_timer_ns != u64::MAX).then_some(self.next_timer_ns)
    }

    /// Runs timers. `solicit` answers whether it could send; if not, it is asked again at the next poll.
    pub(crate) fn poll(&mut self, now_ns: u64, solicit: &mut dyn FnMut(Solicit) -> bool) {
        if now_ns < self.next_timer_ns {
            return;
        }
        self.next_timer_ns = u64::MAX;
        let mut at = 0;
        while let Some(&slot) = self.timed.get(at) {
            if self.tick(now_ns, slot, solicit) {
                at += 1;
            } else {
                self.timed.swap_remove(at);
            }
        }
    }

    /// Runs one timer; false when the entry has none any more.
    fn tick(&mut self, now_ns: u64, slot: u32, solicit: &mut dyn FnMut(Solicit) -> bool) -> bool {
        let Some(entry) = self.entries.get_mut(slot as usize) else { return false };
        if !entry.occupied || matches!(entry.state, NeighbourState::Reachable | NeighbourState::Stale) {
            entry.timed = false;
            return false;
        }
        if now_ns >= entry.timer_ns {
            if entry.tries >= SOLICITS_MAX {
                entry.timed = false;
                self.failed += 1;
                self.vacate(slot);
                return false;
            }
            let at = (entry.state != NeighbourState::Incomplete).then_some(entry.mac);
            if solicit(Solicit { target: entry.ip, at }) {
                entry.tries += 1;
                entry.timer_ns = now_ns.saturating_add(RETRANSMIT_NS);
                if entry.state == NeighbourState::Delay {
                    entry.state = NeighbourState::Probe;
                }
            }
        }
        self.next_timer_ns = self.next_timer_ns.min(entry.timer_ns);
        true
    }

    fn begin(&mut self, now_ns: u64, ip: IpAddr, asker: Asker) -> Lookup {
        let foreign = asker == Asker::Foreign;
        if self.incomplete >= self.incomplete_max || (foreign && self.incomplete_foreign >= self.incomplete_max / 2) {
            self.refused += 1;
            return Lookup::Full;
        }
        let Some(slot) = self.occupy(now_ns, ip) else { return Lookup::Full };
        if let Some(entry) = self.entries.get_mut(slot as usize) {
            entry.unfinished = Some(asker);
        }
        self.incomplete += 1;
        self.incomplete_foreign += usize::from(foreign);
        self.set_timer(slot, now_ns);
        Lookup::Pending
    }

    /// Sets the hardware address; REACHABLE until the given time, or STALE.
    fn learn(&mut self, slot: u32, mac: Mac, reachable_until_ns: Option<u64>) {
        self.finished(slot);
        let Some(entry) = self.entries.get_mut(slot as usize) else { return };
        if entry.mac != mac {
            entry.version = entry.version.wrapping_add(1);
        }
        entry.mac = mac;
        entry.tries = 0;
        entry.state = if reachable_until_ns.is_some() { NeighbourState::Reachable } else { NeighbourState::Stale };
        entry.use_until_ns = reachable_until_ns.unwrap_or(0);
    }

    fn finished(&mut self, slot: u32) {
        if let Some(asker) = self.entries.get_mut(slot as usize).and_then(|entry| entry.unfinished.take()) {
            self.incomplete -= 1;
            self.incomplete_foreign -= usize::from(asker == Asker::Foreign);
        }
    }

    fn set_timer(&mut self, slot: u32, timer_ns: u64) {
        let Some(entry) = self.entries.get_mut(slot as usize) else { return };
        entry.timer_ns = timer_ns;
        entry.tries = 0;
        if !entry.timed {
            entry.timed = true;
            self.timed.push(slot);
        }
        self.next_timer_ns = self.next_timer_ns.min(timer_ns);
    }

    /// Takes a slot for a new entry, INCOMPLETE and without timer.
    fn occupy(&mut self, now_ns: u64, ip: IpAddr) -> Option<u32> {
        if self.free.is_empty() {
            self.evict(now_ns);
        }
        let Some(slot) = self.free.pop() else {
            self.refused += 1;
            return None;
        };
        let entry = self.entries.get_mut(slot as usize)?;
        *entry = Entry {
            ip,
            mac: [0; 6],
            state: NeighbourState::Incomplete,
            unfinished: None,
            tries: 0,
            version: entry.version.wrapping_add(1),
            use_until_ns: 0,
            used_ns: now_ns,
            timer_ns: u64::MAX,
            occupied: true,
            timed: entry.timed,
        };
        self.index.insert(key(ip), slot);
        Some(slot)
    }

    fn vacate(&mut self, slot: u32) {
        self.finished(slot);
        let Some(entry) = self.entries.get_mut(slot as usize) else { return };
        entry.occupied = false;
        entry.version = entry.version.wrapping_add(1);
        entry.use_until_ns = 0;
        self.index.remove(&key(entry.ip));
        self.free.push(slot);
    }

    /// Makes room if a look at a few random entries finds one that nobody will miss.
    fn evict(&mut self, now_ns: u64) {
        let mut worst: Option<(u64, u32)> = None;
        for _ in 0..EVICTION_SAMPLE {
            self.random = mix(self.random);
            let slot = (self.random % self.entries.len() as u64) as u32;
            let Some(entry) = self.entries.get(slot as usize) else { continue };
            let idle_ns = now_ns.saturating_sub(entry.used_ns);
            let spared = match entry.state {
                NeighbourState::Stale => false,
                NeighbourState::Incomplete => true,
                NeighbourState::Reachable | NeighbourState::Delay | NeighbourState::Probe => idle_ns < IN_USE_NS,
            };
            if !spared && worst.is_none_or(|(longest_ns, _)| idle_ns > longest_ns) {
                worst = Some((idle_ns, slot));
            }
        }
        if let Some((_, slot)) = worst {
            self.evicted += 1;
            self.vacate(slot);
        }
    }
}

/// RFC 4861 6.3.4: a random time between half and one and a half of the base, so that neighbours are not probed in step.
fn reachable_ns(random: &mut u64) -> u64 {
    *random = mix(*random);
    REACHABLE_NS / 2 + *random % REACHABLE_NS
}

#[cfg(test)]
mod tests;
