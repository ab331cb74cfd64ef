//! The chain of IPv6 extension headers (RFC 8200 4), walked within bounds.

/// Extension headers that are walked; nobody needs more (RFC 9288 asks for such a limit).
const HEADERS_MAX: usize = 8;
/// Options that are walked in one header.
const OPTIONS_MAX: usize = 16;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const NO_NEXT: u8 = 59;
const DESTINATION_OPTIONS: u8 = 60;

/// What stands at the end of the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Upper {
    /// Its protocol number.
    pub(crate) protocol: u8,
    /// Where it begins in the packet.
    pub(crate) at: usize,
    /// Where in the packet its protocol number stands.
    pub(crate) named_at: usize,
}

/// Why a packet goes no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// It ends early, is longer than anybody needs, or says nothing.
    Malformed,
    /// It is a part of a packet.
    Fragment,
    /// An option asks to be discarded without a word (RFC 8200 4.2: 01).
    Option,
    /// To be told to the sender: ICMPv6 parameter problem with this code, at this byte.
    Problem {
        /// RFC 4443 3.4.
        code: u8,
        /// Offset in the packet.
        pointer: u32,
    },
}

/// Walks the chain of a packet that begins with an IPv6 header.
pub(crate) fn walk(packet: &[u8]) -> Result<Upper, Stop> {
    let mut named_at = 6;
    let mut at = super::header::IPV6_BYTES;
    for nth in 0..=HEADERS_MAX {
        let protocol = *packet.get(named_at).ok_or(Stop::Malformed)?;
        match protocol {
            // RFC 8200 4.1: only right behind the IPv6 header.
            HOP_BY_HOP if nth > 0 => return Err(Stop::Problem { code: 1, pointer: named_at as u32 }),
            HOP_BY_HOP | DESTINATION_OPTIONS | ROUTING => {
                let header = sized(packet, at)?;
                if protocol == ROUTING {
                    // RFC 8200 4.4: nothing left to visit, or a problem.
                    if header.get(3).is_some_and(|left| *left != 0) {
                        return Err(Stop::Problem { code: 0, pointer: at as u32 + 2 });
                    }
                } else {
                    options(header, at)?;
                }
                (named_at, at) = (at, at + header.len());
            }
            FRAGMENT => {
                let header = packet.get(at..at + 8).ok_or(Stop::Malformed)?;
                // RFC 6946: a fragment header around a whole packet is nothing special.
                if u16::from_be_bytes([header[2], header[3]]) & 0xfff9 != 0 {
                    return Err(Stop::Fragment);
                }
                (named_at, at) = (at, at + 8);
            }
            NO_NEXT => return Err(Stop::Malformed),
            protocol => return Ok(Upper { protocol, at, named_at }),
        }
    }
    Err(Stop::Malformed)
}

fn sized(packet: &[u8], at: usize) -> Result<&[u8], Stop> {
    let units = usize::from(*packet.get(at + 1).ok_or(Stop::Malformed)?);
    packet.get(at..at + (units + 1) * 8).ok_or(Stop::Malformed)
}

fn options(header: &[u8], header_at: usize) -> Result<(), Stop> {
    let mut at = 2;
    for _ in 0..OPTIONS_MAX {
        let Some(&kind) = header.get(at) else { return Ok(()) };
        // RFC 8200 4.2: Pad1 is the one option without a length.
        if kind == 0 {
            at += 1;
            continue;
        }
        let len = usize::from(*header.get(at + 1).ok_or(Stop::Malformed)?);
        let known = matches!(kind, 1 | 5);
        match kind >> 6 {
            0 => {}
            _ if known => {}
            1 => return Err(Stop::Option),
            _ => return Err(Stop::Problem { code: 2, pointer: (header_at + at) as u32 }),
        }
        at += 2 + len;
    }
    if at < header.len() { Err(Stop::Malformed) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// An IPv6 header that names the first of the chain, and the chain.
    fn packet(first: u8, chain: &[&[u8]]) -> Vec<u8> {
        let mut bytes = vec![0; 40];
        bytes[6] = first;
        bytes.extend(chain.concat());
        bytes
    }

    #[test]
    fn chains() {
        let pad = [17, 0, 1, 4, 0, 0, 0, 0];
        let cases: [(&str, Vec<u8>, Result<Upper, Stop>); 13] = [
            ("none", packet(17, &[]), Ok(Upper { protocol: 17, at: 40, named_at: 6 })),
            ("hop-by-hop", packet(0, &[&pad]), Ok(Upper { protocol: 17, at: 48, named_at: 40 })),
            ("cut short", packet(0, &[&pad[..7]]), Err(Stop::Malformed)),
            ("hop-by-hop twice", packet(0, &[&[0, 0, 1, 4, 0, 0, 0, 0], &pad]), Err(Stop::Problem { code: 1, pointer: 40 })),
            ("routing, arrived", packet(43, &[&[6, 0, 0, 0, 0, 0, 0, 0]]), Ok(Upper { protocol: 6, at: 48, named_at: 40 })),
            ("routing, more to visit", packet(43, &[&[6, 0, 0, 1, 0, 0, 0, 0]]), Err(Stop::Problem { code: 0, pointer: 42 })),
            ("whole fragment", packet(44, &[&[6, 0, 0, 0, 1, 2, 3, 4]]), Ok(Upper { protocol: 6, at: 48, named_at: 40 })),
            ("first fragment", packet(44, &[&[6, 0, 0, 1, 1, 2, 3, 4]]), Err(Stop::Fragment)),
            ("later fragment", packet(44, &[&[6, 0, 0, 8, 1, 2, 3, 4]]), Err(Stop::Fragment)),
            ("no next header", packet(59, &[]), Err(Stop::Malformed)),
            ("option to discard", packet(60, &[&[17, 0, 0x41, 4, 0, 0, 0, 0]]), Err(Stop::Option)),
            ("option to report", packet(60, &[&[17, 0, 0, 0x81, 3, 0, 0, 0]]), Err(Stop::Problem { code: 2, pointer: 43 })),
            ("unknown option to skip", packet(60, &[&[17, 0, 0x1e, 4, 0, 0, 0, 0]]), Ok(Upper { protocol: 17, at: 48, named_at: 40 })),
        ];
        for (name, bytes, expected) in cases {
            assert_eq!(walk(&bytes), expected, "{name}");
        }
        let long = [[60, 0, 1, 4, 0, 0, 0, 0]; HEADERS_MAX + 1];
        let parts: Vec<&[u8]> = long.iter().map(|part| &part[..]).collect();
        assert_eq!(walk(&packet(60, &parts)), Err(Stop::Malformed));
    }

    proptest! {
        #[test]
        fn any_bytes_stay_within_the_packet(mut bytes in prop::collection::vec(any::<u8>(), 0..200), first in prop::sample::select(vec![0_u8, 43, 44, 60, 17])) {
            if let Some(place) = bytes.get_mut(6) {
                *place = first;
            }
            match walk(&bytes) {
                Ok(upper) => prop_assert!(upper.at <= bytes.len().max(40) && bytes[upper.named_at] == upper.protocol),
                Err(Stop::Problem { pointer, .. }) => prop_assert!((pointer as usize) < bytes.len()),
                Err(_) => {}
            }
        }
    }
}
