//! Link and network layer of our own stack: Ethernet (with an optional VLAN tag), ARP, IPv4, IPv6, neighbour discovery, ICMP.
//!
//! ```text
//! frame ─► ingress(now) ─► Ingress::Udp, Ingress::Tcp, Ingress::Error ─► the layers above
//!             │ notes answers
//!             ▼
//!          egress(now, out) ─► duplicate detection, announcements, solicitations, answers ─► frames
//! ```
//!
//! An [`Interface`] is a state machine without I/O: it is given frames and the time, and says in its egress pass what is to be said, never
//! from within ingress. Packets of the layers above are addressed with [`Interface::path`] and written with a prebuilt header (see
//! [`UdpTemplate`]) or [`Interface::ip_frame`]. All memory is taken at start; what others can make it remember or say is bounded.
//!
//! Not done, on purpose: fragments are counted and dropped (RTSP and RTCP never need them), multicast is heard only as far as neighbour
//! discovery needs it and where a group was joined, from any source, redirects are passed over (RFC 4861 8 lets a host do so), IPv6 addresses
//! are configured, never made from prefixes.

mod address;
mod answers;
mod arp;
mod checksum;
mod cidr;
mod config;
mod extension;
mod groups;
mod hash;
mod header;
mod icmp;
mod ingress;
mod limit;
mod ndp;
mod neighbour;
mod owner;
mod routes;
mod speech;
mod template;

pub use address::{AddressState, solicited_node};
pub use cidr::{Cidr, CidrError};
pub use config::{ADDRESSES_MAX, IfaceConfig, IfaceCounters, ROUTES_MAX, Route, link_local};
pub use header::group_mac;
pub use icmp::{PathError, PathErrorKind};
pub use ingress::Ingress;
pub use neighbour::{Asker, Mac, NeighbourState};
pub use owner::{Owner, Owners, PortBlock};
pub use speech::FrameOut;
pub use template::{Path, UdpTemplate};

use std::net::{IpAddr, Ipv4Addr};

use self::address::Addresses;
use self::answers::{Answers, PARCEL_PATIENCE_NS};
use self::groups::Groups;
use self::header::{HOP_LIMIT, IpHeader, Link};
pub(crate) use self::limit::Bucket;
use self::neighbour::{Handle, Lookup, Neighbours};
use self::routes::Routes;
use self::speech::Speech;

/// ARP and NDP answers that are said although the port's queue is long ([`FrameOut::is_crowded`]).
const ANSWERS_IN_A_CROWD_PER_SECOND: u32 = 1000;

/// Why a packet cannot be addressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathFailure {
    /// The neighbour is being asked for: again in a moment.
    #[error("the neighbour's hardware address is being looked up")]
    Unresolved,
    /// No route, no address of that family, or not the address of one host.
    #[error("there is no route to that address")]
    NoRoute,
}

/// One interface.
pub struct Interface {
    addresses: Addresses,
    routes: Routes,
    neighbours: Neighbours,
    answers: Answers,
    groups: Groups,
    speech: Speech,
    errors: Bucket,
    echoes: Bucket,
    answers_in_a_crowd: Bucket,
    mtu_bytes: usize,
    rx_checksums_done: bool,
    accept_routers: bool,
    counters: IfaceCounters,
}

impl Interface {
    /// An interface with a hardware address on a link that carries IP packets of `mtu_bytes`.
    pub fn new(config: IfaceConfig, mac: Mac, mtu_bytes: usize, now_ns: u64) -> Self {
        let own = config.own_addresses(mac);
        let solicited = own.iter().filter_map(|cidr| match cidr.addr() {
            IpAddr::V6(addr) => Some(address::solicited_node(addr)),
            IpAddr::V4(_) => None,
        });
        Self {
            groups: Groups::new(solicited, config.seed),
            addresses: Addresses::new(now_ns, &own, config.detect_duplicates, config.seed),
            routes: Routes::new(config.routes),
            neighbours: Neighbours::new(config.neighbours_max, config.seed),
            answers: Answers::new(mtu_bytes),
            speech: Speech { link: Link { mac, vlan: config.vlan }, tx_frames: 0 },
            errors: Bucket::new(config.errors_per_second, (config.errors_per_second / 10).max(1)),
            echoes: Bucket::new(config.echoes_per_second, (config.echoes_per_second / 10).max(1)),
            answers_in_a_crowd: Bucket::new(ANSWERS_IN_A_CROWD_PER_SECOND, ANSWERS_IN_A_CROWD_PER_SECOND / 100),
            mtu_bytes,
            rx_checksums_done: config.rx_checksums_done,
            accept_routers: config.accept_routers,
            counters: IfaceCounters::default(),
        }
    }

    /// Bytes of the largest IP packet that the link carries.
    pub fn mtu_bytes(&self) -> usize {
        self.mtu_bytes
    }

    /// Own addresses with their state.
    pub fn addresses(&self) -> impl Iterator<Item = (Cidr, AddressState)> {
        self.addresses.iter()
    }

    /// The address is ours and can be used now.
    pub fn is_usable(&self, addr: IpAddr) -> bool {
        self.addresses.is_usable(addr)
    }

    /// What is known of a neighbour.
    pub fn neighbour(&self, now_ns: u64, addr: IpAddr) -> Option<NeighbourState> {
        self.neighbours.state(now_ns, addr)
    }

    /// Bytes of link header in front of each packet.
    pub fn link_header_bytes(&self) -> usize {
        self.speech.link.header_bytes()
    }

    /// The source address for packets to `to`; `None`: there is no route.
    pub fn source(&self, now_ns: u64, to: IpAddr) -> Option<IpAddr> {
        let hop = self.routes.next_hop(now_ns, &self.addresses, to)?;
        routes::source(&self.addresses, to, hop)
    }

    /// How packets to `to` leave; starts looking the neighbour up if need be.
    ///
    /// # Errors
    /// [`PathFailure`].
    pub fn path(&mut self, now_ns: u64, to: IpAddr, asker: Asker) -> Result<Path, PathFailure> {
        let hop = self.routes.next_hop(now_ns, &self.addresses, to).ok_or(PathFailure::NoRoute)?;
        // Of routers there are few, whoever wants to send through them.
        let asker = if hop == to { asker } else { Asker::Own };
        match self.neighbours.resolve(now_ns, hop, asker) {
            Lookup::Known(mac, handle) => Ok(Path { mac, handle }),
            Lookup::Pending | Lookup::Full => Err(PathFailure::Unresolved),
        }
    }

    /// How the answer to a packet goes that came from `via` on the link, from somebody who has proved nothing: as [`Interface::path`] says if
    /// that is known, otherwise back to where the packet came from. Only routers are looked up, of which there are few: nobody outside can
    /// make this fail, or ask for many neighbours.
    ///
    /// # Errors
    /// [`PathFailure::NoRoute`].
    pub fn path_back(&mut self, now_ns: u64, to: IpAddr, via: Mac) -> Result<Path, PathFailure> {
        let hop = self.routes.next_hop(now_ns, &self.addresses, to).ok_or(PathFailure::NoRoute)?;
        let known = hop != to || self.neighbours.state(now_ns, hop).is_some_and(|state| state != NeighbourState::Incomplete);
        let lookup = if known { self.neighbours.resolve(now_ns, hop, Asker::Own) } else { Lookup::Pending };
        Ok(match lookup {
            Lookup::Known(mac, handle) => Path { mac, handle },
            Lookup::Pending | Lookup::Full => Path { mac: via, handle: Handle::NOWHERE },
        })
    }

    /// `from`, which is at `via` on the link, has answered what was sent to it: it is there (RFC 4861 7.3.1). Of an address behind a router
    /// nothing is learned.
    pub fn confirmed(&mut self, now_ns: u64, from: IpAddr, via: Mac) {
        if self.routes.next_hop(now_ns, &self.addresses, from) == Some(from) {
            self.neighbours.confirmed(now_ns, from, via);
        }
    }

    /// The path still holds, and nothing has to be asked: cheap, to be tried for each packet.
    pub fn holds(&self, now_ns: u64, path: &Path) -> bool {
        self.neighbours.holds(now_ns, path.handle)
    }

    /// Writes link and IP header of a packet of `payload_bytes` into a transmit frame; where the payload begins. `None`: the frame is too
    /// short for that or the families differ.
    pub fn ip_frame(&self, frame: &mut [u8], path: &Path, from: IpAddr, to: IpAddr, protocol: u8, payload_bytes: usize) -> Option<usize> {
        if from.is_ipv4() != to.is_ipv4() {
            return None;
        }
        let header = IpHeader { source: from, destination: to, protocol, hop_limit: HOP_LIMIT, payload_bytes };
        let at = self.link_header_bytes();
        let payload_at = at + header.bytes();
        if payload_at + payload_bytes > frame.len() || header.bytes() + payload_bytes > self.mtu_bytes {
            return None;
        }
        self.speech.link.write(frame, path.mac, header.ethertype());
        header.write(frame.get_mut(at..)?);
        Some(payload_at)
    }

    /// Listens to a multicast group as well, and tells routers; as often as it was joined it has to be left. False: it is no group, or there
    /// are too many.
    pub fn join(&mut self, now_ns: u64, group: IpAddr) -> bool {
        self.groups.join(now_ns, group)
    }

    /// Listens to the group no longer.
    pub fn leave(&mut self, now_ns: u64, group: IpAddr) {
        self.groups.leave(now_ns, group);
    }

    /// Something can be said now.
    pub fn is_waiting(&self) -> bool {
        self.answers.is_waiting()
    }

    /// When [`Interface::egress`] has to be called at the latest, ingress apart.
    pub fn next_ns(&self) -> Option<u64> {
        [self.addresses.next_ns(), self.neighbours.next_ns(), self.groups.next_ns()].into_iter().flatten().min()
    }

    /// Says what is to be said: steps of own addresses, solicitations, reports of groups, answers. Stops when `out` has no frame left; the rest waits.
    pub fn egress(&mut self, now_ns: u64, out: &mut dyn FrameOut) {
        if !self.answers.is_waiting() && self.next_ns().is_none_or(|at_ns| at_ns > now_ns) {
            return;
        }
        let Self { addresses, routes, neighbours, answers, groups, speech, answers_in_a_crowd, .. } = self;
        let link_local = addresses.iter().find_map(|(cidr, state)| match cidr.addr() {
            IpAddr::V6(addr) if addr.is_unicast_link_local() && state == AddressState::Preferred => Some(addr),
            _ => None,
        });
        addresses.poll(now_ns, &mut |step| speech.step(out, step, link_local));
        neighbours.poll(now_ns, &mut |solicit| {
            // Without a usable address nobody can be asked; the attempt counts.
            routes::source(addresses, solicit.target, solicit.target).is_none_or(|own| speech.solicit(out, solicit, own))
        });
        let own_v4 = addresses.iter().find(|(cidr, state)| cidr.addr().is_ipv4() && *state == AddressState::Preferred);
        // RFC 3376 4.2.13: who has no address says so.
        let own_v4 = own_v4.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |(cidr, _)| cidr.addr());
        groups.poll(now_ns, link_local.is_some(), &mut |report| {
            let is_ipv4 = report.records.iter().all(|(_, group)| group.is_ipv4());
            speech.report(out, if is_ipv4 { own_v4 } else { link_local.map_or(own_v4, IpAddr::V6) }, report)
        });
        while let Some(answer) = answers.next() {
            // Some are answered whatever waits for the line.
            if out.is_crowded() && !answers_in_a_crowd.take(now_ns) {
                break;
            }
            if !speech.answer(out, answer) {
                return;
            }
            answers.said();
        }
        answers.offer(&mut |parcel| {
            let hop = routes.next_hop(now_ns, addresses, parcel.to);
            match hop.map(|hop| neighbours.resolve(now_ns, hop, Asker::Foreign)) {
                Some(Lookup::Known(mac, _)) => speech.packet(out, mac, parcel.packet()),
                Some(Lookup::Pending) => now_ns.saturating_sub(parcel.since_ns) >= PARCEL_PATIENCE_NS,
                Some(Lookup::Full) | None => true,
            }
        });
    }

    /// Counters since start.
    pub fn counters(&self) -> IfaceCounters {
        let (neighbours_evicted, neighbours_refused, neighbours_failed) = self.neighbours.losses();
        IfaceCounters {
            tx_frames: self.speech.tx_frames,
            neighbours: self.neighbours.len() as u64,
            neighbours_evicted,
            neighbours_refused,
            neighbours_failed,
            ..self.counters
        }
    }

    fn note(&mut self, said: bool) {
        self.counters.answers_dropped += u64::from(!said);
    }
}

#[cfg(test)]
mod tests;
