//! An address with the length of its prefix: `192.0.2.1/24`, `2001:db8::1/64`.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

/// An address and its prefix length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    addr: IpAddr,
    len: u8,
}

/// Why a text is no [`Cidr`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CidrError {
    /// No `/`, or what stands beside it is no address or no number.
    #[error("{0:?} is not ADDRESS/LENGTH, for instance 192.0.2.1/24")]
    Syntax(String),
    /// More bits than the address has.
    #[error("a prefix of {len} bits is longer than the address {addr}")]
    Length {
        /// The address.
        addr: IpAddr,
        /// The length asked for.
        len: u8,
    },
}

impl Cidr {
    /// An address within a prefix of `len` bits.
    ///
    /// # Errors
    /// [`CidrError::Length`] when the address is shorter.
    pub fn new(addr: IpAddr, len: u8) -> Result<Self, CidrError> {
        if len > bits(addr) { Err(CidrError::Length { addr, len }) } else { Ok(Self { addr, len }) }
    }

    /// The address itself and nothing else.
    pub fn host(addr: IpAddr) -> Self {
        Self { addr, len: bits(addr) }
    }

    /// The address.
    pub fn addr(&self) -> IpAddr {
        self.addr
    }

    /// Bits of the prefix.
    pub fn len(&self) -> u8 {
        self.len
    }

    /// The prefix has no bits: it is the default route.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The address lies within the prefix.
    pub fn contains(&self, addr: IpAddr) -> bool {
        match (self.addr, addr) {
            (IpAddr::V4(a), IpAddr::V4(b)) => (a.to_bits() ^ b.to_bits()).checked_shr(32 - u32::from(self.len)).unwrap_or(0) == 0,
            (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits() ^ b.to_bits()).checked_shr(128 - u32::from(self.len)).unwrap_or(0) == 0,
            _ => false,
        }
    }

    /// The directed broadcast address; networks of 31 and 32 bits have none (RFC 3021), nor has IPv6.
    pub fn broadcast(&self) -> Option<Ipv4Addr> {
        match self.addr {
            IpAddr::V4(addr) if self.len < 31 => Some(Ipv4Addr::from_bits(addr.to_bits() | (u32::MAX >> self.len))),
            _ => None,
        }
    }
}

fn bits(addr: IpAddr) -> u8 {
    if addr.is_ipv4() { 32 } else { 128 }
}

impl FromStr for Cidr {
    type Err = CidrError;

    fn from_str(text: &str) -> Result<Self, CidrError> {
        let syntax = || CidrError::Syntax(text.to_owned());
        let (addr, len) = text.split_once('/').ok_or_else(syntax)?;
        Self::new(addr.parse().map_err(|_| syntax())?, len.parse().map_err(|_| syntax())?)
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.addr, self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts() {
        for good in ["192.0.2.1/24", "0.0.0.0/0", "10.0.0.1/32", "2001:db8::1/64", "::/0", "fe80::1/128"] {
            assert_eq!(good.parse::<Cidr>().unwrap().to_string(), good);
        }
        for bad in ["", "/", "1.2.3.4", "1.2.3.4/", "1.2.3.4/x", "1.2.3/24", "1.2.3.4/-1", "1.2.3.4/999"] {
            assert_eq!(bad.parse::<Cidr>(), Err(CidrError::Syntax(bad.into())));
        }
        assert_eq!("1.2.3.4/33".parse::<Cidr>(), Err(CidrError::Length { addr: "1.2.3.4".parse().unwrap(), len: 33 }));
        assert!("::1/129".parse::<Cidr>().is_err());
    }

    #[test]
    fn what_is_within() {
        let cases = [
            ("192.0.2.1/24", "192.0.2.255", true),
            ("192.0.2.1/24", "192.0.3.1", false),
            ("192.0.2.1/32", "192.0.2.1", true),
            ("192.0.2.1/32", "192.0.2.0", false),
            ("0.0.0.0/0", "255.255.255.255", true),
            ("0.0.0.0/0", "::1", false),
            ("2001:db8::1/64", "2001:db8::ffff:0:0:1", true),
            ("2001:db8::1/64", "2001:db8:0:1::1", false),
            ("::/0", "ffff::", true),
            ("::1/128", "::2", false),
        ];
        for (prefix, addr, expected) in cases {
            assert_eq!(prefix.parse::<Cidr>().unwrap().contains(addr.parse().unwrap()), expected, "{prefix} {addr}");
        }
    }

    #[test]
    fn broadcasts() {
        let broadcast = |text: &str| text.parse::<Cidr>().unwrap().broadcast();
        assert_eq!(broadcast("192.0.2.1/24"), Some([192, 0, 2, 255].into()));
        assert_eq!(broadcast("10.0.0.1/0"), Some(Ipv4Addr::BROADCAST));
        assert_eq!(broadcast("10.0.0.1/30"), Some([10, 0, 0, 3].into()));
        assert_eq!((broadcast("10.0.0.1/31"), broadcast("10.0.0.1/32"), broadcast("::1/64")), (None, None, None));
    }
}
