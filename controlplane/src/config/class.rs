//! Which sessions are guaranteed and which are best-effort: by where the client is, by the title's path, or by the client's wish (`?class=`)
//! where it may have one.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use dataplane::gdsl::Class;

use super::ValueError;
use super::network::{List, parts};

const CLASSES: &str = "\"guaranteed\" and \"best-effort\"";

/// The class of this name.
pub(super) fn class(text: &str) -> Result<Class, ValueError> {
    Class::from_name(text.trim()).ok_or_else(|| ValueError::Choice { text: text.to_owned(), choices: CLASSES })
}

/// What a rule about classes goes by.
pub trait Named: FromStr<Err = ValueError> + fmt::Display {
    /// The error for what is not a rule.
    fn not_a_rule(rule: &str) -> ValueError;
}

/// Rules, each a name and its class: `news/=guaranteed, trailers/=best-effort`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules<N>(Vec<(N, Class)>);

impl<N> Default for Rules<N> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<N: Named> FromStr for Rules<N> {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let rule = |rule: &str| {
            let (name, of) = rule.split_once('=').ok_or_else(|| N::not_a_rule(rule))?;
            Ok((name.trim().parse().map_err(|_| N::not_a_rule(rule))?, class(of)?))
        };
        parts(text).map(rule).collect::<Result<_, _>>().map(Self)
    }
}

impl<N: fmt::Display> fmt::Display for Rules<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (name, class)) in self.0.iter().enumerate() {
            write!(f, "{}{name}={class}", if i == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

/// The beginning of a title's path, not empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prefix(String);

impl FromStr for Prefix {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let prefix = text.trim_start_matches('/');
        if prefix.is_empty() { Err(Self::not_a_rule(text)) } else { Ok(Self(prefix.to_owned())) }
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Named for Prefix {
    fn not_a_rule(rule: &str) -> ValueError {
        ValueError::ClassRule(rule.to_owned())
    }
}

/// Classes by path.
pub type ClassPaths = Rules<Prefix>;

impl ClassPaths {
    /// The class of the longest prefix that the title's path begins with.
    pub fn of(&self, path: &str) -> Option<Class> {
        let matching = self.0.iter().filter(|(Prefix(prefix), _)| path.starts_with(prefix.as_str()));
        matching.max_by_key(|(Prefix(prefix), _)| prefix.len()).map(|&(_, class)| class)
    }
}

/// Addresses that begin with the same bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    bits: u8,
}

impl Network {
    fn contains(self, client: IpAddr) -> bool {
        let same = |own: u128, other: u128, width: u32| {
            let shift = width - u32::from(self.bits).min(width);
            own.checked_shr(shift).unwrap_or(0) == other.checked_shr(shift).unwrap_or(0)
        };
        match (self.address, client.to_canonical()) {
            (IpAddr::V4(own), IpAddr::V4(other)) => same(u32::from(own).into(), u32::from(other).into(), 32),
            (IpAddr::V6(own), IpAddr::V6(other)) => same(own.into(), other.into(), 128),
            _ => false,
        }
    }
}

impl FromStr for Network {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let wrong = || ValueError::Network(text.to_owned());
        let (address, bits) = text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Ok(most), |bits| bits.parse().map_err(|_| wrong()))?;
        if bits <= most { Ok(Self { address, bits }) } else { Err(wrong()) }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

impl Named for Network {
    fn not_a_rule(rule: &str) -> ValueError {
        ValueError::ClassClient(rule.to_owned())
    }
}

/// Classes by the client's network: `10.1.0.0/16=guaranteed, 10.0.0.0/8=best-effort`.
pub type ClassClients = Rules<Network>;

impl ClassClients {
    /// The class of the smallest network that the client is in.
    pub fn of(&self, client: IpAddr) -> Option<Class> {
        let matching = self.0.iter().filter(|(network, _)| network.contains(client));
        matching.max_by_key(|(network, _)| network.bits).map(|&(_, class)| class)
    }
}

/// Which clients may choose the class by `?class=`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ClassQuery {
    /// None.
    #[default]
    Off,
    /// All.
    Any,
    /// Those in these networks.
    From(List<Network>),
}

impl ClassQuery {
    /// True when the client at this address may.
    pub fn allows(&self, client: IpAddr) -> bool {
        match self {
            ClassQuery::Off => false,
            ClassQuery::Any => true,
            ClassQuery::From(networks) => networks.0.iter().any(|network| network.contains(client)),
        }
    }
}

impl FromStr for ClassQuery {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        match text {
            "off" => Ok(ClassQuery::Off),
            "any" => Ok(ClassQuery::Any),
            list => list.split(',').map(|network| network.trim().parse()).collect::<Result<_, _>>().map(List).map(ClassQuery::From),
        }
    }
}

impl fmt::Display for ClassQuery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ClassQuery::Off => f.write_str("off"),
            ClassQuery::Any => f.write_str("any"),
            ClassQuery::From(networks) => write!(f, "{networks}"),
        }
    }
}

/// Why a session is not made in the class that its URL asks for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClassRefused {
    /// There is no such class.
    #[error("there is no class {0:?}; there is {CLASSES}")]
    Unknown(String),
    /// This client may not choose.
    #[error("this client may not choose the class (class-query)")]
    NotAllowed,
}

/// All rules about classes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClassRules {
    /// Class of sessions that no rule names.
    pub default: Class,
    /// Classes by path.
    pub paths: ClassPaths,
    /// Classes by client; they count before those by path.
    pub clients: ClassClients,
    /// Who may choose.
    pub query: ClassQuery,
}

impl ClassRules {
    /// The class of a session of the title at `path` for `client`, whose URL has this query. Asking for what the rules give anyway is
    /// always allowed.
    ///
    /// # Errors
    /// [`ClassRefused`].
    pub fn decide(&self, path: &str, query: Option<&str>, client: IpAddr) -> Result<Class, ClassRefused> {
        let given = self.clients.of(client).or_else(|| self.paths.of(path)).unwrap_or(self.default);
        let asked = query.and_then(|query| query.split('&').find_map(|pair| pair.strip_prefix("class=")));
        let Some(asked) = asked else { return Ok(given) };
        let asked = Class::from_name(asked).ok_or_else(|| ClassRefused::Unknown(asked.to_owned()))?;
        if asked == given || self.query.allows(client) { Ok(asked) } else { Err(ClassRefused::NotAllowed) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_prefix_decides_and_wishes_need_permission() {
        let rules = ClassRules {
            default: Class::Guaranteed,
            paths: "trailers/=best-effort, /trailers/new/ = guaranteed,ads=best-effort".parse().unwrap(),
            query: "10.0.0.0/8, ::1".parse().unwrap(),
            clients: ClassClients::default(),
        };
        let (near, far): (IpAddr, IpAddr) = ("10.9.8.7".parse().unwrap(), "192.0.2.1".parse().unwrap());
        let mapped: IpAddr = "::ffff:10.1.1.1".parse().unwrap();
        for (path, query, client, decided) in [
            ("film.mp4", None, far, Ok(Class::Guaranteed)),
            ("trailers/a.mp4", None, far, Ok(Class::BestEffort)),
            ("trailers/new/a.mp4", None, far, Ok(Class::Guaranteed)),
            ("ads.mp4", None, far, Ok(Class::BestEffort)),
            ("film.mp4", Some("class=best-effort"), far, Err(ClassRefused::NotAllowed)),
            ("film.mp4", Some("t=1&class=guaranteed"), far, Ok(Class::Guaranteed)),
            ("film.mp4", Some("class=best-effort&t=1"), near, Ok(Class::BestEffort)),
            ("ads.mp4", Some("class=guaranteed"), mapped, Ok(Class::Guaranteed)),
            ("film.mp4", Some("class=best-effort"), "::1".parse().unwrap(), Ok(Class::BestEffort)),
            ("film.mp4", Some("class=gold"), near, Err(ClassRefused::Unknown("gold".into()))),
            ("film.mp4", Some("klass=gold"), far, Ok(Class::Guaranteed)),
        ] {
            assert_eq!(rules.decide(path, query, client), decided, "{path} {query:?} {client}");
        }
        assert!(ClassQuery::Any.allows(far) && !ClassQuery::Off.allows(near));
        assert!("0.0.0.0/0".parse::<ClassQuery>().unwrap().allows(far));
    }

    #[test]
    fn the_smallest_network_decides_before_the_path() {
        let rules = ClassRules {
            default: Class::Guaranteed,
            paths: "trailers/=best-effort".parse().unwrap(),
            clients: "10.0.0.0/8=best-effort, 10.1.0.0/16=guaranteed, 2001:db8::/32 = best-effort".parse().unwrap(),
            query: ClassQuery::Off,
        };
        for (client, path, decided) in [
            ("10.2.3.4", "film.mp4", Class::BestEffort),
            ("10.1.3.4", "film.mp4", Class::Guaranteed),
            ("::ffff:10.1.3.4", "trailers/a.mp4", Class::Guaranteed),
            ("192.0.2.1", "trailers/a.mp4", Class::BestEffort),
            ("192.0.2.1", "film.mp4", Class::Guaranteed),
            ("2001:db8::1", "film.mp4", Class::BestEffort),
        ] {
            assert_eq!(rules.decide(path, None, client.parse().unwrap()), Ok(decided), "{client} {path}");
        }
        let far = "10.2.3.4".parse().unwrap();
        assert_eq!(rules.decide("film.mp4", Some("class=guaranteed"), far), Err(ClassRefused::NotAllowed));
    }

    #[test]
    fn wrong_rules_are_refused_and_right_ones_print_as_they_read() {
        for wrong in ["x", "=guaranteed", "/=guaranteed", "x=gold"] {
            assert!(wrong.parse::<ClassPaths>().is_err(), "{wrong}");
        }
        for wrong in ["", "10.0.0.0/33", "10.0.0/8", "on", "::/129"] {
            assert!(wrong.parse::<ClassQuery>().is_err(), "{wrong}");
        }
        for right in ["", "a/=guaranteed", "a/=guaranteed, b c=best-effort"] {
            assert_eq!(right.parse::<ClassPaths>().unwrap().to_string(), right);
        }
        for wrong in ["10.0.0.0/8", "10.0.0.0/33=guaranteed", "room=guaranteed", "::1=gold"] {
            assert!(wrong.parse::<ClassClients>().is_err(), "{wrong}");
        }
        for right in ["", "10.0.0.0/8=best-effort", "10.1.0.0/16=guaranteed, ::1/128=best-effort"] {
            assert_eq!(right.parse::<ClassClients>().unwrap().to_string(), right);
        }
        for right in ["off", "any", "10.0.0.0/8,::1/128"] {
            assert_eq!(right.parse::<ClassQuery>().unwrap().to_string(), right);
        }
    }
}
