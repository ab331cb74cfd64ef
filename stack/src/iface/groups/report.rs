//! What is told to multicast routers, written: IGMP (RFC 1112, RFC 2236, RFC 3376 4.2) and MLD (RFC 2710, RFC 3810 5.2).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{MEMBERS_MAX, Version};

/// Who hears reports of the newest versions (RFC 3376 4.2.14, RFC 3810 5.2.14).
const IGMP_ROUTERS: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 22);
const MLD_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x16);
/// Who hears that a group was left, in older versions (RFC 2236 9, RFC 2710 3).
const ALL_ROUTERS_V4: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 2);
const ALL_ROUTERS_V6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
/// Longest message: all groups in one.
pub(crate) const REPORT_BYTES_MAX: usize = 8 + MEMBERS_MAX * 20;
// RFC 8200 5: it fits any link, with its headers and a router alert.
const _: () = assert!(REPORT_BYTES_MAX + 48 <= 1280);

/// What is said of a group, as the type of a record (RFC 3376 4.2.12, RFC 3810 5.2.12). All sources are wanted, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Change {
    /// We listen, as before: MODE_IS_EXCLUDE of no source.
    Listens = 2,
    /// We do not listen any more: CHANGE_TO_INCLUDE_MODE of no source.
    Leaves = 3,
    /// We listen from now on: CHANGE_TO_EXCLUDE_MODE of no source.
    Joins = 4,
}

/// A message about groups of one family. Those of older versions have one record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Report<'a> {
    pub(crate) version: Version,
    pub(crate) records: &'a [(Change, IpAddr)],
}

impl Report<'_> {
    /// Whom it is sent to; `None`: there is nothing in it.
    pub(crate) fn destination(&self) -> Option<IpAddr> {
        let &(change, group) = self.records.first()?;
        Some(match (self.version, group) {
            (Version::Third, IpAddr::V4(_)) => IGMP_ROUTERS.into(),
            (Version::Third, IpAddr::V6(_)) => MLD_ROUTERS.into(),
            (_, group) if change != Change::Leaves => group,
            (_, IpAddr::V4(_)) => ALL_ROUTERS_V4.into(),
            (_, IpAddr::V6(_)) => ALL_ROUTERS_V6.into(),
        })
    }

    /// Writes it without its checksum, which is the half-word at 2; its length.
    pub(crate) fn write(&self, to: &mut [u8; REPORT_BYTES_MAX]) -> usize {
        to.fill(0);
        let Some(&(change, group)) = self.records.first() else { return 0 };
        let leaves = change == Change::Leaves;
        let mut writer = Writer { to, at: 0 };
        match (self.version, group) {
            (Version::Third, _) => {
                writer.put(&[if group.is_ipv4() { 0x22 } else { 143 }, 0, 0, 0, 0, 0]);
                writer.put(&(self.records.len() as u16).to_be_bytes());
                for (change, group) in self.records {
                    writer.put(&[*change as u8, 0, 0, 0]);
                    writer.address(*group);
                }
            }
            (version, IpAddr::V4(_)) => {
                let kind = match (version, leaves) {
                    (_, true) => 0x17,
                    (Version::First, false) => 0x12,
                    _ => 0x16,
                };
                writer.put(&[kind, 0, 0, 0]);
                writer.address(group);
            }
            (_, IpAddr::V6(_)) => {
                writer.put(&[if leaves { 132 } else { 131 }, 0, 0, 0, 0, 0, 0, 0]);
                writer.address(group);
            }
        }
        writer.at
    }
}

struct Writer<'a> {
    to: &'a mut [u8],
    at: usize,
}

impl Writer<'_> {
    fn put(&mut self, bytes: &[u8]) {
        super::super::header::put(self.to, self.at, bytes);
        self.at += bytes.len();
    }

    fn address(&mut self, address: IpAddr) {
        match address {
            IpAddr::V4(v4) => self.put(&v4.octets()),
            IpAddr::V6(v6) => self.put(&v6.octets()),
        }
    }
}
