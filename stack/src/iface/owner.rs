//! Which core a frame is for, where several cores share the addresses of one interface and each has a queue of it.
//!
//! | frame | for |
//! | --- | --- |
//! | UDP to a port of a core, or to one that it listens at ([`Owners::listen`]) | that core |
//! | TCP to a port that a core chose for a connection of its own | that core |
//! | other TCP | the core that a keyed hash of addresses and ports names, so that nobody outside can load one core alone |
//! | ICMP errors | the core that the quoted packet came from |
//! | ARP replies and announcements, neighbour and router advertisements, probes for duplicates | every core: each has its own table of neighbours |
//! | IGMP, questions who listens to which group | every core: each has its own groups |
//! | everything else (requests, echo, fragments, what makes no sense) | the core that it came to |
//!
//! The look is cheap and decides nothing but the way: no checksum is verified, and what is cut short or lies stays where it came, where
//! [`Interface::ingress`](super::Interface::ingress) drops and counts it.

use std::hash::{BuildHasher as _, Hasher as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::extension;
use super::hash::Keyed;
use super::header::{
    ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6, ETHERTYPE_VLAN, IPV4_BYTES, IPV6_BYTES, PROTOCOL_ICMP, PROTOCOL_ICMPV6, PROTOCOL_IGMP,
    PROTOCOL_TCP, PROTOCOL_UDP,
};
use super::icmp::LISTENER_QUERY;
use super::ndp;

/// Bytes of an ICMP header in front of what an error quotes.
const ICMP_BYTES: usize = 8;
/// Ports of connections that are opened from here, for all cores together.
const OUTGOING_FIRST: u16 = 32_768;
const OUTGOING_COUNT: u16 = 28_232;

/// Whom a frame is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// The core that it came to.
    Here,
    /// This core.
    Core(usize),
    /// Every core.
    Everybody,
}

/// Ports that belong to cores in turn: the first `per_core` to the first core, the next to the second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortBlock {
    /// The first port of the first core.
    pub first: u16,
    /// Ports of each core.
    pub per_core: u16,
}

impl PortBlock {
    fn core(self, port: u16, cores: usize) -> Option<usize> {
        let nth = port.checked_sub(self.first)?.checked_div(self.per_core)?;
        Some(usize::from(nth)).filter(|core| *core < cores)
    }
}

/// Further ports of all cores that only receive.
const FURTHER_PORTS: usize = 16;

/// Which core owns what. Every core has the same.
#[derive(Clone, Debug)]
pub struct Owners {
    cores: usize,
    udp: Vec<PortBlock>,
    /// Ports that cores listen at, with one more than the core's number in the lower half; 0: none. Written only when a core begins to listen.
    further: Arc<[AtomicU32; FURTHER_PORTS]>,
    outgoing: PortBlock,
    secret: Keyed,
}

impl Owners {
    /// Owners for `cores` cores (at least one) whose UDP ports lie in these blocks. `seed` must not be guessed from outside.
    pub fn new(cores: usize, udp: Vec<PortBlock>, seed: u64) -> Self {
        let cores = cores.max(1);
        let per_core = OUTGOING_COUNT / u16::try_from(cores).unwrap_or(u16::MAX);
        let outgoing = PortBlock { first: OUTGOING_FIRST, per_core };
        Self { cores, udp, further: Arc::default(), outgoing, secret: Keyed::new(seed) }
    }

    /// UDP to `port` is for `core` from now on, wherever it is sent. False: the port belongs to another core, or there are too many.
    pub fn listen(&self, core: usize, port: u16) -> bool {
        let Some(entry) = u16::try_from(core).ok().and_then(|core| core.checked_add(1)) else { return false };
        let entry = u32::from(port) << 16 | u32::from(entry);
        if let Some(owner) = self.of_port(port) {
            return owner == core;
        }
        let free = |place: &AtomicU32| place.compare_exchange(0, entry, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        self.further.iter().any(free)
    }

    /// The core that has a UDP port.
    fn of_port(&self, port: u16) -> Option<usize> {
        let block = self.udp.iter().find_map(|block| block.core(port, self.cores));
        block.or_else(|| {
            let further = self.further.iter().map(|place| place.load(Ordering::Relaxed));
            let entry = further.take_while(|entry| *entry != 0).find(|entry| entry >> 16 == u32::from(port))?;
            (entry as u16 as usize).checked_sub(1)
        })
    }

    /// How many cores there are.
    pub fn cores(&self) -> usize {
        self.cores
    }

    /// Ports, first and last, that a core chooses from for connections that it opens (see
    /// [`TcpConfig::ephemeral_ports`](crate::tcp::TcpConfig::ephemeral_ports)): what answers comes back to it.
    pub fn outgoing_ports(&self, core: usize) -> (u16, u16) {
        let PortBlock { first, per_core } = self.outgoing;
        let before = u16::try_from(core).unwrap_or(u16::MAX).saturating_mul(per_core);
        let first = first.saturating_add(before);
        (first, first.saturating_add(per_core.saturating_sub(1)))
    }

    /// Whom a frame is for.
    pub fn of(&self, frame: &[u8]) -> Owner {
        self.look(frame).unwrap_or(Owner::Here)
    }

    /// `None`: nothing can be made of it.
    fn look(&self, frame: &[u8]) -> Option<Owner> {
        let mut at = 12;
        let mut ethertype = half(frame, at)?;
        if ethertype == ETHERTYPE_VLAN {
            at += 4;
            ethertype = half(frame, at)?;
        }
        let packet = frame.get(at + 2..)?;
        match ethertype {
            ETHERTYPE_IPV4 => self.ipv4(packet),
            ETHERTYPE_IPV6 => self.ipv6(packet),
            ETHERTYPE_ARP => arp(packet),
            _ => None,
        }
    }

    fn ipv4(&self, packet: &[u8]) -> Option<Owner> {
        let header: &[u8; IPV4_BYTES] = packet.first_chunk()?;
        let header_bytes = usize::from(header[0] & 15) * 4;
        // A part of a packet says nothing of ports.
        if header[0] >> 4 != 4 || header_bytes < IPV4_BYTES || half(header, 6)? & 0x3fff != 0 {
            return None;
        }
        let payload = packet.get(header_bytes..)?;
        match header[9] {
            PROTOCOL_ICMP => {
                // RFC 792: destination unreachable, time exceeded, parameter problem. Others are no errors.
                if !matches!(payload.first()?, 3 | 11 | 12) {
                    return None;
                }
                self.quoted_v4(payload.get(ICMP_BYTES..)?)
            }
            PROTOCOL_IGMP => Some(Owner::Everybody),
            protocol => self.flow(protocol, address_v4(header, 12)?, half(payload, 0)?, half(payload, 2)?),
        }
    }

    /// A packet of ours, which an error quotes: its ends are the other way round.
    fn quoted_v4(&self, quote: &[u8]) -> Option<Owner> {
        let header: &[u8; IPV4_BYTES] = quote.first_chunk()?;
        let upper = quote.get(usize::from(header[0] & 15) * 4..)?;
        self.flow(header[9], address_v4(header, 16)?, half(upper, 2)?, half(upper, 0)?)
    }

    fn ipv6(&self, packet: &[u8]) -> Option<Owner> {
        let header: &[u8; IPV6_BYTES] = packet.first_chunk()?;
        if header[0] >> 4 != 6 {
            return None;
        }
        let upper = extension::walk(packet).ok()?;
        let payload = packet.get(upper.at..)?;
        let source = address_v6(header, 8)?;
        if upper.protocol != PROTOCOL_ICMPV6 {
            return self.flow(upper.protocol, source, half(payload, 0)?, half(payload, 2)?);
        }
        match *payload.first()? {
            ndp::ADVERT | ndp::ROUTER_ADVERT | LISTENER_QUERY => Some(Owner::Everybody),
            // RFC 4862 5.4.3: somebody tries an address. Each core that tries the same must hear of it.
            ndp::SOLICIT if source.is_unspecified() => Some(Owner::Everybody),
            // RFC 4443 2.1: errors are those below 128.
            1..=4 => {
                let quote = payload.get(ICMP_BYTES..)?;
                let upper = quote.get(IPV6_BYTES..)?;
                self.flow(*quote.get(6)?, address_v6(quote, 24)?, half(upper, 2)?, half(upper, 0)?)
            }
            _ => None,
        }
    }

    fn flow(&self, protocol: u8, remote: IpAddr, remote_port: u16, local_port: u16) -> Option<Owner> {
        match protocol {
            PROTOCOL_UDP => self.of_port(local_port).map(Owner::Core),
            PROTOCOL_TCP => Some(Owner::Core(self.of_connection(remote, remote_port, local_port))),
            _ => None,
        }
    }

    /// The core that has the TCP connection between our port and a peer, or is to have it.
    pub fn of_connection(&self, remote: IpAddr, remote_port: u16, local_port: u16) -> usize {
        if let Some(core) = self.outgoing.core(local_port, self.cores) {
            return core;
        }
        let address = match remote {
            IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
            IpAddr::V6(v6) => v6.to_bits(),
        };
        let mut hasher = self.secret.build_hasher();
        hasher.write_u128(address);
        hasher.write_u128(u128::from(remote_port) << 16 | u128::from(local_port));
        // The upper half of the product of a 32-bit fraction and the number of cores is below that number.
        ((u128::from(hasher.finish()) * self.cores as u128) >> 64) as usize
    }
}

fn arp(packet: &[u8]) -> Option<Owner> {
    let operation = half(packet, 6)?;
    let (sender, target) = (packet.get(14..18)?, packet.get(24..28)?);
    // RFC 5227 1.1: who announces an address asks for it itself.
    (operation == 2 || sender == target).then_some(Owner::Everybody)
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|octets| u16::from_be_bytes(*octets))
}

fn address_v4(bytes: &[u8], at: usize) -> Option<IpAddr> {
    bytes.get(at..)?.first_chunk::<4>().map(|octets| IpAddr::V4(Ipv4Addr::from(*octets)))
}

fn address_v6(bytes: &[u8], at: usize) -> Option<IpAddr> {
    bytes.get(at..)?.first_chunk::<16>().map(|octets| IpAddr::V6(Ipv6Addr::from(*octets)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RTP: u16 = 6970;

    fn owners(cores: usize) -> Owners {
        Owners::new(cores, vec![PortBlock { first: RTP, per_core: 2 }], 7)
    }

    fn ether(ethertype: u16, packet: &[u8]) -> Vec<u8> {
        [&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2][..], &ethertype.to_be_bytes(), packet].concat()
    }

    fn v4(protocol: u8, from: [u8; 4], to: [u8; 4], payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x45, 0, 0, 20 + payload.len() as u8, 0, 0, 0x40, 0, 64, protocol, 0, 0];
        packet.extend([from, to].concat());
        packet.extend(payload);
        packet
    }

    fn v6(protocol: u8, from: u128, to: u128, payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x60, 0, 0, 0, 0, payload.len() as u8, protocol, 64];
        packet.extend(from.to_be_bytes());
        packet.extend(to.to_be_bytes());
        packet.extend(payload);
        packet
    }

    fn ports(from: u16, to: u16) -> Vec<u8> {
        [&from.to_be_bytes()[..], &to.to_be_bytes(), &[0; 16]].concat()
    }

    const US: [u8; 4] = [10, 0, 0, 1];
    const THEM: [u8; 4] = [10, 0, 0, 9];

    #[test]
    fn datagrams_go_by_their_port() {
        let owners = owners(3);
        for (port, owner) in [
            (6969, Owner::Here),
            (6970, Owner::Core(0)),
            (6971, Owner::Core(0)),
            (6972, Owner::Core(1)),
            (6975, Owner::Core(2)),
            (6976, Owner::Here),
            (0, Owner::Here),
        ] {
            let datagram = ports(5000, port);
            assert_eq!(owners.of(&ether(0x0800, &v4(17, THEM, US, &datagram))), owner, "{port}");
            assert_eq!(owners.of(&ether(0x86dd, &v6(17, 9, 1, &datagram))), owner, "{port} over IPv6");
            let tagged = [&[0, 5, 0x08, 0x00][..], &v4(17, THEM, US, &datagram)].concat();
            assert_eq!(owners.of(&ether(0x8100, &tagged)), owner, "{port} in a VLAN");
        }
    }

    #[test]
    fn a_port_that_a_core_listens_at_is_its_own() {
        let owners = owners(3);
        let others = owners.clone();
        let group = |port| ether(0x0800, &v4(17, THEM, [239, 1, 2, 3], &ports(5000, port)));
        assert_eq!(others.of(&group(9500)), Owner::Here);
        assert!(owners.listen(2, 9500) && others.listen(2, 9500), "again is no matter");
        assert!(!others.listen(1, 9500) && !others.listen(1, RTP) && owners.listen(0, RTP));
        assert_eq!((others.of(&group(9500)), owners.of(&group(9501))), (Owner::Core(2), Owner::Here));
        let more = (1..40).filter(|port| owners.listen(0, *port)).count();
        assert_eq!((more, others.of(&group(9500)), others.of(&group(1))), (FURTHER_PORTS - 1, Owner::Core(2), Owner::Core(0)));
    }

    #[test]
    fn the_link_is_everybodys_and_questions_stay() {
        let owners = owners(2);
        let arp = |operation: u8, sender: [u8; 4], target: [u8; 4]| {
            let packet = [&[0, 1, 8, 0, 6, 4, 0, operation, 2, 0, 0, 0, 0, 9][..], &sender, &[0; 6], &target].concat();
            ether(0x0806, &packet)
        };
        let ndp = |kind: u8, from: u128| ether(0x86dd, &v6(58, from, 1, &[&[kind, 0, 0, 0, 0, 0, 0, 0][..], &[0; 16]].concat()));
        for (what, frame, owner) in [
            ("reply", arp(2, THEM, US), Owner::Everybody),
            ("request", arp(1, THEM, US), Owner::Here),
            ("announcement", arp(1, THEM, THEM), Owner::Everybody),
            ("advertisement", ndp(136, 9), Owner::Everybody),
            ("router", ndp(134, 9), Owner::Everybody),
            ("solicitation", ndp(135, 9), Owner::Here),
            ("probe", ndp(135, 0), Owner::Everybody),
            ("echo", ndp(128, 9), Owner::Here),
            ("echo, IPv4", ether(0x0800, &v4(1, THEM, US, &[8, 0, 0, 0, 0, 0, 0, 0, 1])), Owner::Here),
            ("another protocol", ether(0x0800, &v4(132, THEM, US, &ports(1, RTP))), Owner::Here),
            ("LLDP", ether(0x88cc, &[0; 60]), Owner::Here),
            ("who listens", ether(0x0800, &v4(2, THEM, [224, 0, 0, 1], &[0x11, 100, 0, 0, 0, 0, 0, 0])), Owner::Everybody),
            ("who listens, IPv6", ndp(130, 9), Owner::Everybody),
        ] {
            assert_eq!(owners.of(&frame), owner, "{what}");
        }
        let mut fragment = v4(17, THEM, US, &ports(1, RTP + 2));
        fragment[7] = 1;
        assert_eq!(owners.of(&ether(0x0800, &fragment)), Owner::Here);
    }

    #[test]
    fn errors_go_to_the_core_that_sent() {
        let owners = owners(4);
        for core in 0..4 {
            let port = RTP + 2 * core;
            let quote = v4(17, US, THEM, &ports(port, 5000));
            let error = [&[3, 4, 0, 0, 0, 0, 5, 0][..], &quote].concat();
            assert_eq!(owners.of(&ether(0x0800, &v4(1, [10, 0, 0, 254], US, &error))), Owner::Core(core.into()));
            let quote = v6(17, 1, 9, &ports(port, 5000));
            let error = [&[2, 0, 0, 0, 0, 0, 5, 0][..], &quote].concat();
            assert_eq!(owners.of(&ether(0x86dd, &v6(58, 254, 1, &error))), Owner::Core(core.into()));
        }
        for port in [1024, 40_000, 65_535] {
            let there = owners.of(&ether(0x0800, &v4(6, THEM, US, &ports(port, 554))));
            let error = [&[3, 1, 0, 0, 0, 0, 0, 0][..], &v4(6, US, THEM, &ports(554, port))].concat();
            assert_eq!(owners.of(&ether(0x0800, &v4(1, THEM, US, &error))), there, "{port}");
            assert!(matches!(there, Owner::Core(0..4)));
        }
    }

    #[test]
    fn connections_are_spread_by_a_secret() {
        let [one, other] = [7, 8].map(|seed| Owners::new(4, Vec::new(), seed));
        let core = |owners: &Owners, nth: u16| owners.of_connection(IpAddr::from([10, 1, (nth >> 8) as u8, nth as u8]), 1024 + nth, 554);
        let mut per_core = [0; 4];
        for nth in 0..4000 {
            per_core[core(&one, nth)] += 1;
        }
        assert!(per_core.iter().all(|count| (850..1150).contains(count)), "{per_core:?}");
        let same = (0..4000).filter(|nth| core(&one, *nth) == core(&other, *nth)).count();
        assert!((850..1150).contains(&same), "another secret is another spread: {same}");
    }

    proptest! {
        #[test]
        fn what_a_core_opens_comes_back_to_it(cores in 1_usize..64, remote: [u8; 4], remote_port: u16) {
            let owners = owners(cores);
            let mut before = OUTGOING_FIRST;
            for core in 0..cores {
                let (first, last) = owners.outgoing_ports(core);
                prop_assert!(first == before && first < last);
                before = last + 1;
                for port in [first, last] {
                    prop_assert_eq!(owners.of_connection(remote.into(), remote_port, port), core);
                }
            }
        }

        #[test]
        fn any_bytes_have_an_owner_that_exists(
            cores in 1_usize..9,
            mut frame in prop::collection::vec(any::<u8>(), 0..160),
            ethertype in prop::sample::select(vec![0x0800_u16, 0x0806, 0x86dd, 0x8100]),
            first in prop::sample::select(vec![0x45_u8, 0x4f, 0x60, 0x00]),
        ) {
            if let Some(place) = frame.get_mut(12..14) {
                place.copy_from_slice(&ethertype.to_be_bytes());
            }
            if let Some(place) = frame.get_mut(14) {
                *place = first;
            }
            match owners(cores).of(&frame) {
                Owner::Core(core) => prop_assert!(core < cores),
                Owner::Here | Owner::Everybody => {}
            }
        }

        #[test]
        fn cut_short_it_stays_or_goes_where_it_went(port in RTP..RTP + 8, len in 0_usize..80) {
            let owners = owners(4);
            let frame = ether(0x86dd, &v6(17, 9, 1, &ports(5000, port)));
            let whole = owners.of(&frame);
            let cut = owners.of(&frame[..len.min(frame.len())]);
            prop_assert!(cut == whole || cut == Owner::Here);
        }
    }
}
