//! Neighbour discovery inwards (RFC 4861 6.1.2, 7.1, 7.2) and duplicate address detection (RFC 4862 5.4).

use std::net::{IpAddr, Ipv6Addr};

use super::Interface;
use super::address::AddressState;
use super::answers::Answer;
use super::header::HOP_LIMIT_LINK;
use super::ingress::{Dropped, Inner};
use super::neighbour::{Advert, Mac};

/// Router advertisement.
pub(super) const ROUTER_ADVERT: u8 = 134;
/// Neighbour solicitation.
pub(super) const SOLICIT: u8 = 135;
/// Neighbour advertisement.
pub(super) const ADVERT: u8 = 136;
const SOURCE_LINK_ADDRESS: u8 = 1;
const TARGET_LINK_ADDRESS: u8 = 2;
/// Options of one message that are walked.
const OPTIONS_MAX: usize = 32;

/// The checks of RFC 4861 that all messages share.
pub(super) fn is_valid(inner: &Inner<'_>) -> bool {
    inner.hop_limit == HOP_LIMIT_LINK && inner.payload.get(1) == Some(&0)
}

/// The link-layer address in the options from `at` on. An error when an option has no length or does not fit (RFC 4861 4.6).
fn link_address(message: &[u8], at: usize, wanted: u8) -> Result<Option<Mac>, Dropped> {
    let mut rest = message.get(at..).ok_or(Dropped::Malformed)?;
    let mut found = None;
    for _ in 0..OPTIONS_MAX {
        let &[kind, units, ..] = rest else { break };
        let (option, next) = rest.split_at_checked(usize::from(units) * 8).filter(|_| units > 0).ok_or(Dropped::Malformed)?;
        if kind == wanted
            && units == 1
            && let Some(mac) = option.last_chunk::<6>()
        {
            found = Some(*mac);
        }
        rest = next;
    }
    if rest.is_empty() { Ok(found.filter(|mac| mac[0] & 1 == 0)) } else { Err(Dropped::Malformed) }
}

fn target(message: &[u8]) -> Result<Ipv6Addr, Dropped> {
    let octets: &[u8; 16] = message.get(8..24).and_then(|bytes| bytes.first_chunk()).ok_or(Dropped::Malformed)?;
    Some(Ipv6Addr::from(*octets)).filter(|target| !target.is_multicast()).ok_or(Dropped::Malformed)
}

impl Interface {
    /// A neighbour solicitation.
    pub(super) fn solicited(&mut self, now_ns: u64, inner: &Inner<'_>) -> Result<(), Dropped> {
        let own = target(inner.payload)?;
        let mac = link_address(inner.payload, 24, SOURCE_LINK_ADDRESS)?;
        let IpAddr::V6(from) = inner.from else { return Err(Dropped::Malformed) };
        // RFC 4861 7.1.1: who has no address asks a group, and does not say where it is.
        if from.is_unspecified() && (!inner.to.is_multicast() || mac.is_some()) {
            return Err(Dropped::Malformed);
        }
        self.counters.rx_ndp += 1;
        match self.addresses.state(IpAddr::V6(own)) {
            // RFC 4862 5.4.3: somebody else tries the same address; our own probe may come back to us.
            Some(AddressState::Tentative) if from.is_unspecified() && inner.link.from != self.speech.link.mac => {
                self.counters.conflicts += 1;
                self.addresses.conflict(now_ns, IpAddr::V6(own));
            }
            Some(AddressState::Preferred) => self.answer_solicit(now_ns, inner, from, own, mac),
            _ => {}
        }
        Ok(())
    }

    fn answer_solicit(&mut self, now_ns: u64, inner: &Inner<'_>, from: Ipv6Addr, own: Ipv6Addr, mac: Option<Mac>) {
        let answer = if from.is_unspecified() {
            Answer::Announce(IpAddr::V6(own))
        } else {
            if self.routes.next_hop(now_ns, &self.addresses, inner.from) != Some(inner.from) {
                return;
            }
            if let Some(mac) = mac {
                self.neighbours.heard(now_ns, inner.from, mac);
            }
            Answer::Advert { to: (mac.unwrap_or(inner.link.from), from), own }
        };
        let said = self.answers.say(answer);
        self.note(said);
    }

    /// A neighbour advertisement.
    pub(super) fn advertised(&mut self, now_ns: u64, inner: &Inner<'_>) -> Result<(), Dropped> {
        let ip = IpAddr::V6(target(inner.payload)?);
        let mac = link_address(inner.payload, 24, TARGET_LINK_ADDRESS)?;
        let flags = inner.payload.get(4).copied().unwrap_or(0);
        let solicited = flags & 0x40 != 0;
        // RFC 4861 7.1.2.
        if inner.to.is_multicast() && solicited {
            return Err(Dropped::Malformed);
        }
        self.counters.rx_ndp += 1;
        if self.addresses.state(ip).is_some() {
            if inner.link.from != self.speech.link.mac {
                self.counters.conflicts += 1;
                if self.addresses.conflict(now_ns, ip) {
                    let said = self.answers.say(Answer::Announce(ip));
                    self.note(said);
                }
            }
        } else {
            self.neighbours.advert(now_ns, Advert { ip, mac, solicited, overrides: flags & 0x20 != 0 });
        }
        Ok(())
    }

    /// A router advertisement (RFC 4861 6.1.2, 6.3.4). Passed over unless the settings say otherwise.
    pub(super) fn router_advertised(&mut self, now_ns: u64, inner: &Inner<'_>) -> Result<(), Dropped> {
        let IpAddr::V6(from) = inner.from else { return Err(Dropped::Malformed) };
        let mac = link_address(inner.payload, 16, SOURCE_LINK_ADDRESS)?;
        let &[seconds_high, seconds_low] = inner.payload.get(6..8).and_then(|bytes| bytes.first_chunk()).ok_or(Dropped::Malformed)?;
        if !from.is_unicast_link_local() {
            return Err(Dropped::Malformed);
        }
        self.counters.rx_ndp += 1;
        if self.accept_routers {
            let seconds = u64::from(u16::from_be_bytes([seconds_high, seconds_low]));
            self.routes.advertised(now_ns, from, now_ns.saturating_add(seconds * 1_000_000_000));
            if let Some(mac) = mac {
                self.neighbours.heard(now_ns, inner.from, mac);
            }
        }
        Ok(())
    }
}
