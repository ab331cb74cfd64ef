//! The `Transport` header (RFC 2326 section 12.39): which of the client's offers is taken, and the answer.
//!
//! The header is a list of alternatives in order of preference; the first one that this server can do is chosen. It can do RTP/AVP over
//! unicast UDP and interleaved in the RTSP connection, both to play and to record. Multicast, RTP/SAVP and the like are passed over. `destination` and
//! `source` are never followed: media goes to the address that the RTSP connection comes from, or a server becomes a cannon (RFC 2326
//! section 16).

use std::fmt::Write as _;

use crate::engine::TrackReady;

/// The lower transport that was agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lower {
    /// Unicast UDP to these ports of the client.
    Udp {
        /// RTP.
        rtp_port: u16,
        /// RTCP.
        rtcp_port: u16,
    },
    /// Interleaved in the RTSP connection.
    Interleaved {
        /// Channels of RTP and RTCP that the client asked for; the server picks when it asked for none.
        channels: Option<(u8, u8)>,
    },
}

/// The offer that was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// Transport specifier in the client's spelling ("RTP/AVP", "RTP/AVP/UDP", "RTP/AVP/TCP").
    pub specifier: &'static str,
    /// Lower transport.
    pub lower: Lower,
    /// The client sends.
    pub record: bool,
}

/// Chooses among the alternatives of a `Transport` header; `None` when none can be done (461).
pub fn choose(header: &str) -> Option<Choice> {
    split_unquoted(header, ',').find_map(alternative)
}

/// The `Transport` header of the answer. `lower` has the ports or channels that really hold.
pub fn answer(choice: &Choice, channels: (u8, u8), ready: &TrackReady) -> String {
    let mut out = format!("{};unicast", choice.specifier);
    // Writing to a String cannot fail.
    let _ = match choice.lower {
        Lower::Udp { rtp_port, rtcp_port } => write!(out, ";client_port={rtp_port}-{rtcp_port}"),
        Lower::Interleaved { .. } => write!(out, ";interleaved={}-{}", channels.0, channels.1),
    };
    if let (Lower::Udp { .. }, Some((rtp, rtcp))) = (choice.lower, ready.server_ports) {
        let _ = write!(out, ";server_port={rtp}-{rtcp}");
    }
    if choice.record {
        out.push_str(";mode=\"RECORD\"");
    } else {
        let _ = write!(out, ";ssrc={:08X};mode=\"PLAY\"", ready.ssrc);
    }
    out
}

/// Reads one alternative; `None` when we cannot do it or it contradicts itself.
fn alternative(text: &str) -> Option<Choice> {
    let mut parameters = split_unquoted(text, ';').map(str::trim);
    let specifier = parameters.next()?;
    let specifier = ["RTP/AVP", "RTP/AVP/UDP", "RTP/AVP/TCP"].into_iter().find(|known| known.eq_ignore_ascii_case(specifier))?;
    let tcp = specifier == "RTP/AVP/TCP";
    let (mut client_port, mut interleaved, mut record) = (None, None, false);
    for parameter in parameters {
        let (name, value) = parameter.split_once('=').map_or((parameter, ""), |(name, value)| (name.trim(), value.trim()));
        if name.eq_ignore_ascii_case("multicast") {
            return None;
        } else if name.eq_ignore_ascii_case("client_port") {
            client_port = Some(pair::<u16>(value)?);
        } else if name.eq_ignore_ascii_case("interleaved") {
            interleaved = Some(pair::<u8>(value)?);
        } else if name.eq_ignore_ascii_case("mode") {
            // RFC 2326: mode = <"> 1#Method <">; clients also send it bare.
            let methods = value.trim_matches('"');
            let has = |name: &str| methods.split(',').any(|method| method.trim().eq_ignore_ascii_case(name));
            if !has("PLAY") && !has("RECORD") {
                return None;
            }
            record = !has("PLAY");
        }
    }
    let lower = match (tcp, interleaved, client_port) {
        (true, channels, _) => Lower::Interleaved { channels },
        (false, _, Some((rtp_port, rtcp_port))) if rtp_port != 0 && rtcp_port != 0 => Lower::Udp { rtp_port, rtcp_port },
        _ => return None,
    };
    Some(Choice { specifier, lower, record })
}

/// A number of a port or channel pair.
trait Number: std::str::FromStr + PartialEq + Copy {
    /// The one after it, if there is.
    fn successor(self) -> Option<Self>;
}

impl Number for u8 {
    fn successor(self) -> Option<Self> {
        self.checked_add(1)
    }
}

impl Number for u16 {
    fn successor(self) -> Option<Self> {
        self.checked_add(1)
    }
}

/// `a-b`, or `a` for `a` and the one after it. RTP and RTCP must differ: RFC 5761 multiplexing is not RTSP 1.0.
fn pair<N: Number>(value: &str) -> Option<(N, N)> {
    let number = |text: &str| {
        let text = text.trim();
        text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse::<N>().ok()).flatten()
    };
    let (first, second) = match value.split_once('-') {
        Some((first, second)) => (number(first)?, number(second)?),
        None => number(value).and_then(|first| Some((first, first.successor()?)))?,
    };
    (first != second).then_some((first, second))
}

/// Splits at `separator` where it is not within double quotes.
fn split_unquoted(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let mut quoted = false;
    text.split(move |c| {
        quoted ^= c == '"';
        c == separator && !quoted
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn udp(specifier: &'static str, rtp_port: u16, rtcp_port: u16) -> Option<Choice> {
        Some(Choice { specifier, lower: Lower::Udp { rtp_port, rtcp_port }, record: false })
    }

    fn tcp(channels: Option<(u8, u8)>) -> Option<Choice> {
        Some(Choice { specifier: "RTP/AVP/TCP", lower: Lower::Interleaved { channels }, record: false })
    }

    fn recording(choice: Option<Choice>) -> Option<Choice> {
        choice.map(|choice| Choice { record: true, ..choice })
    }

    #[test]
    fn the_first_offer_that_can_be_done_is_taken() {
        for (header, expected) in [
            ("RTP/AVP;unicast;client_port=5000-5001", udp("RTP/AVP", 5000, 5001)),
            ("RTP/AVP/UDP;unicast;client_port=5000", udp("RTP/AVP/UDP", 5000, 5001)),
            ("rtp/avp/tcp; unicast ; interleaved = 2 - 3", tcp(Some((2, 3)))),
            ("RTP/AVP/TCP;interleaved=4", tcp(Some((4, 5)))),
            ("RTP/AVP/TCP", tcp(None)),
            ("RTP/AVP/TCP;unicast;mode=play", tcp(None)),
            ("RTP/AVP/TCP;unicast;mode=\"PLAY\"", tcp(None)),
            ("RTP/AVP/TCP;unicast;mode=\"RECORD,PLAY\";interleaved=0-1", tcp(Some((0, 1)))),
            ("RTP/AVP/TCP;unicast;mode=\"RECORD\"", recording(tcp(None))),
            ("RTP/AVP/TCP;unicast;mode=record", recording(tcp(None))),
            ("RTP/AVP/TCP;unicast;mode=redirect", None),
            ("RTP/AVP/TCP;multicast", None),
            ("RTP/AVP;multicast;port=3456-3457;ttl=16", None),
            ("RTP/AVP;multicast,RTP/AVP;unicast;client_port=6-7,RTP/AVP/TCP", udp("RTP/AVP", 6, 7)),
            ("RTP/SAVP;unicast;client_port=6-7, RTP/AVPF;unicast;client_port=6-7, RTP/AVP/TCP;unicast;interleaved=0-1", tcp(Some((0, 1)))),
            ("x-real-rdt/udp;client_port=1;mode=play,RTP/AVP;client_port=9-8", udp("RTP/AVP", 9, 8)),
            ("RTP/AVP;unicast;destination=203.0.113.9;client_port=5000-5001;ssrc=1234ABCD", udp("RTP/AVP", 5000, 5001)),
            ("RTP/AVP;unicast", None),
            ("RTP/AVP;unicast;client_port=0-1", None),
            ("RTP/AVP;unicast;client_port=65535", None),
            ("RTP/AVP;unicast;client_port=70000-70001", None),
            ("RTP/AVP;unicast;client_port=+5-6", None),
            ("RTP/AVP;unicast;client_port=5-5", None),
            ("RTP/AVP/TCP;interleaved=255", None),
            ("RTP/AVP/TCP;interleaved=256-257", None),
            ("RTP/AVP/TCP;interleaved=", None),
            ("", None),
            (",,;;", None),
            ("RTP/AVP/TCP;x=\"a,b;mode=record\"", tcp(None)),
        ] {
            assert_eq!(choose(header), expected, "{header}");
        }
    }

    #[test]
    fn the_answer_says_what_holds() {
        let ready = TrackReady { ssrc: 0xab, server_ports: Some((6970, 6971)) };
        let choice = choose("RTP/AVP;client_port=5000").unwrap();
        assert_eq!(
            answer(&choice, (0, 0), &ready),
            "RTP/AVP;unicast;client_port=5000-5001;server_port=6970-6971;ssrc=000000AB;mode=\"PLAY\""
        );
        let choice = choose("RTP/AVP/TCP").unwrap();
        assert_eq!(answer(&choice, (2, 3), &ready), "RTP/AVP/TCP;unicast;interleaved=2-3;ssrc=000000AB;mode=\"PLAY\"");
    }

    proptest! {
        #[test]
        fn offers_in_any_dress_are_read_back(
            a in 1_u16..65535, b in 1_u16..65535, spaces in " {0,2}", upper in any::<bool>(), junk in "[a-z;=\" ]{0,12}", refused in 0_usize..3,
        ) {
            prop_assume!(a != b);
            let offer = format!("RTP/AVP;unicast;{spaces}client_port{spaces}={a}-{b};mode=\"PLAY\"");
            let offer = if upper { offer.to_uppercase() } else { offer };
            // An unknown profile with any parameters, its quotes closed, is passed over.
            let junk = if junk.matches('"').count() % 2 == 0 { junk } else { format!("{junk}\"") };
            let header = format!("{}{offer}", format!("RTP/SAVP;{junk},").repeat(refused));
            prop_assert_eq!(choose(&header), udp("RTP/AVP", a, b));
        }

        #[test]
        fn any_text_gives_a_sound_choice(header in "(RTP/AVP|/TCP|/UDP|;|,|client_port|interleaved|=|-|\"|mode|PLAY|multicast|[0-9]{1,6}|\\PC){0,24}") {
            match choose(&header).map(|choice| choice.lower) {
                Some(Lower::Udp { rtp_port, rtcp_port }) => prop_assert!(rtp_port != rtcp_port && rtp_port != 0 && rtcp_port != 0),
                Some(Lower::Interleaved { channels: Some((a, b)) }) => prop_assert_ne!(a, b),
                _ => {}
            }
        }
    }
}
