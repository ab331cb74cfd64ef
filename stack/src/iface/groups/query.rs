//! Queries of multicast routers, read: IGMP (RFC 1112, RFC 2236, RFC 3376 4.1) and MLD (RFC 2710, RFC 3810 5.1).
//!
//! All versions of a query have the same type and are told apart by their length (RFC 3376 7.1, RFC 3810 8.1).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::Version;

/// Type of an IGMP query.
const IGMP_QUERY: u8 = 0x11;
/// RFC 3376 7.2.1: a query of version 1 says no time; this one holds.
const FIRST_VERSION_DELAY_NS: u64 = 10_000_000_000;
/// Unit of IGMP's times.
const TENTH_NS: u64 = 100_000_000;
/// Unit of MLD's response times.
const MILLI_NS: u64 = 1_000_000;
const SECOND_NS: u64 = 1_000_000_000;

/// A question who listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Query {
    /// What the router speaks.
    pub(crate) version: Version,
    /// The group that is asked about; `None`: all. Sources that are asked about are passed over: whoever wants all of them wants these.
    pub(crate) group: Option<IpAddr>,
    /// Answers come within this time.
    pub(crate) max_delay_ns: u64,
    /// How often what may get lost is said; 0: the router does not tell.
    pub(crate) robustness: u8,
    /// Time between general queries; 0: the router does not tell.
    pub(crate) interval_ns: u64,
}

/// Reads an IGMP query; `None`: it is none that can be understood.
pub(crate) fn igmp(message: &[u8]) -> Option<Query> {
    let (header, rest) = message.split_first_chunk::<8>()?;
    let group = Ipv4Addr::new(header[4], header[5], header[6], header[7]);
    let (version, max_delay_ns, tail) = match (rest.len(), header[1]) {
        (0, 0) => (Version::First, FIRST_VERSION_DELAY_NS, [0, 0]),
        (0, code) => (Version::Second, u64::from(code) * TENTH_NS, [0, 0]),
        // RFC 3376 7.1: longer than that of version 2 and shorter than that of version 3 is ignored.
        (_, code) => (Version::Third, short_code(code) * TENTH_NS, third_version(rest, 4)?),
    };
    let group = (!group.is_unspecified()).then_some(IpAddr::V4(group));
    (header[0] == IGMP_QUERY && group.is_none_or(|group| group.is_multicast())).then_some(Query {
        version,
        group,
        max_delay_ns,
        robustness: tail[0] & 7,
        interval_ns: short_code(tail[1]) * SECOND_NS,
    })
}

/// Reads the ICMPv6 message of an MLD query, which has the type of one; `None`: it cannot be understood.
pub(crate) fn mld(message: &[u8]) -> Option<Query> {
    let (header, rest) = message.split_first_chunk::<24>()?;
    let group = Ipv6Addr::from(*header.last_chunk::<16>()?);
    let code = u16::from_be_bytes([header[4], header[5]]);
    let (version, max_delay_ns, tail) = match rest.len() {
        0 => (Version::Second, u64::from(code) * MILLI_NS, [0, 0]),
        _ => (Version::Third, long_code(code) * MILLI_NS, third_version(rest, 16)?),
    };
    let group = (!group.is_unspecified()).then_some(IpAddr::V6(group));
    group.is_none_or(|group| group.is_multicast()).then_some(Query {
        version,
        group,
        max_delay_ns,
        robustness: tail[0] & 7,
        interval_ns: short_code(tail[1]) * SECOND_NS,
    })
}

/// What the newest versions add: robustness and interval. The sources have to fit the message.
fn third_version(rest: &[u8], source_bytes: usize) -> Option<[u8; 2]> {
    let (added, sources) = rest.split_first_chunk::<4>()?;
    let count = usize::from(u16::from_be_bytes([added[2], added[3]]));
    (count * source_bytes <= sources.len()).then_some([added[0], added[1]])
}

/// RFC 3376 4.1.1, RFC 3810 5.1.9: from 128 on a mantissa of 4 bits and an exponent of 3.
fn short_code(code: u8) -> u64 {
    let value = u64::from(code);
    if code < 128 { value } else { (value & 15 | 16) << ((value >> 4 & 7) + 3) }
}

/// RFC 3810 5.1.3: from 32768 on a mantissa of 12 bits and an exponent of 3.
fn long_code(code: u16) -> u64 {
    let value = u64::from(code);
    if code < 32_768 { value } else { (value & 0xfff | 0x1000) << ((value >> 12 & 7) + 3) }
}

/// The options of an IPv4 header, or those of an IPv6 packet right behind its header, have a router alert (RFC 2113, RFC 2711): who sent the
/// packet made sure that no router passed it on unseen.
pub(crate) fn has_router_alert(packet: &[u8]) -> bool {
    let Some(&first) = packet.first() else { return false };
    let (options, alert) = if first >> 4 == 4 {
        (packet.get(20..usize::from(first & 15) * 4), 0x94)
    } else {
        let hop_by_hop = packet.get(6) == Some(&0);
        let bytes = packet.get(41).map_or(0, |units| (usize::from(*units) + 1) * 8);
        (packet.get(42..40 + bytes).filter(|_| hop_by_hop), 5)
    };
    let mut rest = options.unwrap_or_default();
    // Each turn takes a byte at least, and options have 2048 at most.
    while let Some(&kind) = rest.first() {
        let is_ipv4 = first >> 4 == 4;
        let step = match (is_ipv4, kind) {
            _ if kind == alert => return rest.get(1) == Some(if is_ipv4 { &4 } else { &2 }),
            // RFC 791 3.1: the end of the list, and no operation; RFC 8200 4.2: Pad1.
            (true, 0) => return false,
            (true, 1) | (false, 0) => 1,
            (true, _) => rest.get(1).map_or(0, |len| usize::from(*len)).max(2),
            (false, _) => rest.get(1).map_or(0, |len| usize::from(*len)) + 2,
        };
        rest = rest.get(step..).unwrap_or_default();
    }
    false
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn versions_are_told_apart_by_length() {
        let igmp_of = |bytes: &[u8]| igmp(bytes);
        let group = Some(IpAddr::from([239, 1, 2, 3]));
        let second = Query { version: Version::Second, group: None, max_delay_ns: 10_000_000_000, robustness: 0, interval_ns: 0 };
        assert_eq!(igmp_of(&[0x11, 0, 0, 0, 0, 0, 0, 0]), Some(Query { version: Version::First, ..second }));
        assert_eq!(igmp_of(&[0x11, 100, 0, 0, 0, 0, 0, 0]), Some(second));
        assert_eq!(igmp_of(&[0x11, 10, 0, 0, 239, 1, 2, 3]), Some(Query { group, max_delay_ns: 1_000_000_000, ..second }));
        let third = Query { version: Version::Third, robustness: 2, interval_ns: 125_000_000_000, ..second };
        assert_eq!(igmp_of(&[0x11, 100, 0, 0, 0, 0, 0, 0, 0x0a, 125, 0, 0]), Some(third));
        assert_eq!(igmp_of(&[0x11, 100, 0, 0, 239, 1, 2, 3, 2, 125, 0, 1, 10, 0, 0, 9]), Some(Query { group, ..third }));
        for wrong in [
            &[0x11, 100, 0, 0, 0, 0, 0][..],
            &[0x11, 100, 0, 0, 0, 0, 0, 0, 2, 125, 0],
            &[0x11, 100, 0, 0, 239, 1, 2, 3, 2, 125, 0, 1, 10, 0, 0],
            &[0x11, 100, 0, 0, 10, 0, 0, 1],
            &[0x16, 100, 0, 0, 239, 1, 2, 3],
        ] {
            assert_eq!(igmp_of(wrong), None, "{wrong:?}");
        }
        let mld_of = |code: [u8; 2], group: &str, tail: &[u8]| {
            let group: Ipv6Addr = group.parse().unwrap();
            mld(&[&[130, 0, 0, 0][..], &code, &[0, 0], &group.octets(), tail].concat())
        };
        assert_eq!(mld_of([0x27, 0x10], "::", &[]), Some(second));
        assert_eq!(mld_of([0x27, 0x10], "::", &[2, 125, 0, 0]), Some(third));
        let group = Some("ff15::9".parse().unwrap());
        assert_eq!(mld_of([0x27, 0x10], "ff15::9", &[2, 125, 0, 0]), Some(Query { group, ..third }));
        assert_eq!(mld_of([0, 0], "fe80::9", &[]), None);
        assert_eq!(mld_of([0, 0], "ff15::9", &[2, 125, 0, 1]), None);
    }

    #[test]
    fn long_times_are_written_as_floating_point() {
        assert_eq!([0, 127, 128, 0xff].map(short_code), [0, 127, 128, 31_744]);
        assert_eq!([0, 32_767, 32_768, 0xffff].map(long_code), [0, 32_767, 32_768, 8_387_584]);
    }

    #[test]
    fn router_alerts_are_found_behind_other_options() {
        let ipv4 = |options: &[u8]| [&[0x40 | (5 + options.len() as u8 / 4)][..], &[0; 19], options].concat();
        let ipv6 = |first: u8, options: &[u8]| {
            let mut packet = vec![0x60, 0, 0, 0, 0, 0, first, 1];
            packet.extend([0; 32]);
            packet.extend([58, (options.len() as u8 + 2) / 8 - 1]);
            packet.extend(options);
            packet
        };
        for (packet, expected) in [
            (ipv4(&[0x94, 4, 0, 0]), true),
            (ipv4(&[1, 7, 3, 4, 0x94, 4, 0, 0]), true),
            (ipv4(&[0, 0x94, 4, 0]), false),
            (ipv4(&[7, 8, 0x94, 4, 0, 0, 0, 0]), false),
            (ipv4(&[]), false),
            (ipv6(0, &[5, 2, 0, 0, 1, 0]), true),
            (ipv6(0, &[0, 0, 5, 2, 0, 0]), true),
            (ipv6(0, &[1, 4, 5, 2, 0, 0]), false),
            (ipv6(60, &[5, 2, 0, 0, 1, 0]), false),
        ] {
            assert_eq!(has_router_alert(&packet), expected, "{packet:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes(mut bytes in prop::collection::vec(any::<u8>(), 0..80), first in prop::sample::select(vec![0x11_u8, 0x45, 0x4f, 0x60])) {
            if let Some(place) = bytes.get_mut(0) {
                *place = first;
            }
            has_router_alert(&bytes);
            for query in [igmp(&bytes), mld(&bytes)].into_iter().flatten() {
                prop_assert!(query.group.is_none_or(|group| group.is_multicast()));
                prop_assert!(query.max_delay_ns <= 8_387_584 * MILLI_NS && query.interval_ns <= 31_744 * SECOND_NS && query.robustness < 8);
            }
        }
    }
}
