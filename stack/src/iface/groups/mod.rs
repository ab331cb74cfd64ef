//! Which multicast groups we listen to, and when that is told to routers: IGMP (RFC 3376, RFC 2236, RFC 1112) and MLD (RFC 3810, RFC 2710) of
//! a host, as a state machine in time.
//!
//! ```text
//! join  ─► "joins"  ─► again, robustness times in all, each within 1 s (10 s in older versions) of the one before
//! leave ─► "leaves" ─► the same, then forgotten
//! query ─► within the time that it allows: "listens", all groups in one report; about one group: that one
//! ```
//!
//! As long as a router of an older version was heard, its version is spoken (RFC 3376 7.2.1, RFC 3810 8.2.1). All groups are listened to
//! whatever their source. Reports of others are not heard: who listens says so himself, which is what switches that snoop want
//! (RFC 3376 A.2).

mod query;
mod report;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub(crate) use self::query::{Query, has_router_alert, igmp, mld};
pub(crate) use self::report::{Change, REPORT_BYTES_MAX, Report};
use super::address::ALL_NODES;
use super::hash::mix;
use super::limit::Bucket;

/// Groups of a family at once, those of own addresses counted.
pub(crate) const MEMBERS_MAX: usize = 48;
/// All hosts of a link: who has IGMP listens, and never says so (RFC 3376 5).
pub(crate) const ALL_SYSTEMS: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 1);
/// RFC 3376 8.1, RFC 3810 9.1: Robustness Variable, until a router says another.
const ROBUSTNESS: u8 = 2;
/// RFC 3376 8.2, RFC 3810 9.2: Query Interval, until a router says another.
const QUERY_INTERVAL_NS: u64 = 125_000_000_000;
/// RFC 3376 8.11, RFC 3810 9.11: Unsolicited Report Interval.
const UNSOLICITED_NS: u64 = 1_000_000_000;
/// RFC 2236 8.10, RFC 2710 7.10: that of older versions.
const UNSOLICITED_OLD_NS: u64 = 10_000_000_000;
/// An older version is spoken at most this long after it was heard, whatever intervals a router has claimed.
const OLD_VERSION_NS_MAX: u64 = 3_600_000_000_000;
/// Queries of a family that are looked at; what many of them make us say has a bound.
const QUERIES_PER_SECOND: u32 = 20;
/// Where nothing can be said yet (no link-local address), it is tried again after this time.
const POSTPONED_NS: u64 = 500_000_000;

/// Versions of IGMP; MLD's first one is like IGMP's second, and its second like IGMP's third.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Version {
    First,
    Second,
    Third,
}

struct Member {
    group: IpAddr,
    /// How many listen; 0: it was left, and that is still being told.
    users: u32,
    /// How often the last change is still to be told, and when next.
    changes_left: u8,
    change_ns: u64,
    /// When a query about this group is to be answered.
    answer_ns: Option<u64>,
}

impl Member {
    fn next_ns(&self) -> Option<u64> {
        let change_ns = (self.changes_left > 0).then_some(self.change_ns);
        [change_ns, self.answer_ns].into_iter().flatten().min()
    }
}

/// Groups of IPv4, or of IPv6.
struct Family {
    members: Vec<Member>,
    /// When a query about all groups is to be answered.
    answer_ns: Option<u64>,
    /// Until when routers of the first version, and of the second, are taken to be there.
    old_until_ns: [u64; 2],
    /// What was spoken last.
    spoken: Version,
    robustness: u8,
    query_interval_ns: u64,
    queries: Bucket,
    random: u64,
}

/// All groups.
pub(crate) struct Groups {
    v4: Family,
    v6: Family,
}

/// Routers are told of this group; of those that stay in the host or that everybody listens to they are not (RFC 3376 5, RFC 3810 6).
fn is_reported(group: IpAddr) -> bool {
    match group {
        IpAddr::V4(v4) => v4 != ALL_SYSTEMS,
        // RFC 4291 2.7: scopes 0 and 1 never leave the interface.
        IpAddr::V6(v6) => v6 != ALL_NODES && v6.octets()[1] & 15 > 1,
    }
}

impl Groups {
    /// No group yet but those of own addresses, whose joining somebody else tells. `seed` makes delays random.
    pub(crate) fn new(own: impl Iterator<Item = Ipv6Addr>, seed: u64) -> Self {
        let mut groups = Self { v4: Family::new(mix(seed ^ 0x4947_4d50)), v6: Family::new(mix(seed ^ 0x4d4c_4400)) };
        for group in own {
            groups.v6.join(0, group.into(), 0);
        }
        groups
    }

    fn family(&mut self, group: IpAddr) -> &mut Family {
        if group.is_ipv4() { &mut self.v4 } else { &mut self.v6 }
    }

    /// We listen to the group.
    pub(crate) fn is_member(&self, group: IpAddr) -> bool {
        let family = if group.is_ipv4() { &self.v4 } else { &self.v6 };
        family.members.iter().any(|member| member.group == group && member.users > 0)
    }

    /// One more listens to the group; false: there are too many groups, or it is none.
    pub(crate) fn join(&mut self, now_ns: u64, group: IpAddr) -> bool {
        let family = self.family(group);
        group.is_multicast() && family.join(now_ns, group, family.robustness)
    }

    /// One less listens to the group.
    pub(crate) fn leave(&mut self, now_ns: u64, group: IpAddr) {
        self.family(group).leave(now_ns, group);
    }

    /// A router asks.
    pub(crate) fn asked(&mut self, now_ns: u64, is_ipv4: bool, query: Query) {
        let family = if is_ipv4 { &mut self.v4 } else { &mut self.v6 };
        family.asked(now_ns, query);
    }

    /// When something is to be said.
    pub(crate) fn next_ns(&self) -> Option<u64> {
        [self.v4.next_ns(), self.v6.next_ns()].into_iter().flatten().min()
    }

    /// Says what is due; `say` answers whether it could be said, if not it stays due. MLD waits for a link-local address of ours (RFC 3810
    /// 5.2.13: routers pass over what has none).
    pub(crate) fn poll(&mut self, now_ns: u64, has_link_local: bool, say: &mut dyn FnMut(Report<'_>) -> bool) {
        self.v4.poll(now_ns, say);
        if has_link_local {
            self.v6.poll(now_ns, say);
        } else {
            self.v6.postpone(now_ns);
        }
    }
}

impl Family {
    fn new(random: u64) -> Self {
        Self {
            members: Vec::with_capacity(MEMBERS_MAX),
            answer_ns: None,
            old_until_ns: [0; 2],
            spoken: Version::Third,
            robustness: ROBUSTNESS,
            query_interval_ns: QUERY_INTERVAL_NS,
            queries: Bucket::new(QUERIES_PER_SECOND, QUERIES_PER_SECOND),
            random,
        }
    }

    /// A random time after now, within `max_ns`.
    fn delayed(&mut self, now_ns: u64, max_ns: u64) -> u64 {
        self.random = mix(self.random);
        now_ns.saturating_add(self.random % max_ns.max(1))
    }

    fn join(&mut self, now_ns: u64, group: IpAddr, robustness: u8) -> bool {
        let changes_left = if is_reported(group) { robustness } else { 0 };
        let new = Member { group, users: 1, changes_left, change_ns: now_ns, answer_ns: None };
        let is_full = self.members.len() >= MEMBERS_MAX;
        match self.members.iter_mut().find(|member| member.group == group) {
            Some(member) if member.users > 0 => member.users = member.users.saturating_add(1),
            Some(left) => *left = new,
            None if is_full => return false,
            None => self.members.push(new),
        }
        true
    }

    fn leave(&mut self, now_ns: u64, group: IpAddr) {
        let version = self.version(now_ns);
        let Some(at) = self.members.iter().position(|member| member.group == group) else { return };
        let Some(member) = self.members.get_mut(at).filter(|member| member.users > 0) else { return };
        member.users -= 1;
        if member.users > 0 {
            return;
        }
        // What was never told need not be taken back. The first version knows no leaving; the second says it once (RFC 2236 3).
        let is_told = is_reported(group) && member.changes_left < self.robustness;
        member.changes_left = match version {
            _ if !is_told => 0,
            Version::First => 0,
            Version::Second => 1,
            Version::Third => self.robustness,
        };
        (member.change_ns, member.answer_ns) = (now_ns, None);
        if member.changes_left == 0 {
            self.members.swap_remove(at);
        }
    }

    /// What is spoken now: the oldest version that a router was heard to speak.
    fn version(&self, now_ns: u64) -> Version {
        match self.old_until_ns {
            [first, _] if now_ns < first => Version::First,
            [_, second] if now_ns < second => Version::Second,
            _ => Version::Third,
        }
    }

    /// RFC 3376 7.2.1, RFC 3810 8.2.1: with the version all that is pending is dropped. But whoever was still telling that he joined says so
    /// once in the new one: a router that knows only that has understood nothing of it.
    fn change_version(&mut self, now_ns: u64) -> Version {
        let version = self.version(now_ns);
        if version == self.spoken {
            return version;
        }
        self.spoken = version;
        self.answer_ns = None;
        self.members.retain(|member| member.users > 0);
        for member in &mut self.members {
            member.answer_ns = None;
            member.changes_left = member.changes_left.min(1);
        }
        version
    }

    fn asked(&mut self, now_ns: u64, query: Query) {
        if !self.queries.take(now_ns) {
            return;
        }
        match query.version {
            Version::Third => {
                if query.robustness > 0 {
                    self.robustness = query.robustness;
                }
                if query.interval_ns > 0 {
                    self.query_interval_ns = query.interval_ns;
                }
            }
            old => {
                // RFC 3376 8.12, RFC 3810 9.12: Older Version Querier Present Timeout.
                let present_ns = u64::from(self.robustness).saturating_mul(self.query_interval_ns).saturating_add(query.max_delay_ns);
                let until_ns = now_ns.saturating_add(present_ns.min(OLD_VERSION_NS_MAX));
                let [first, second] = &mut self.old_until_ns;
                *(if old == Version::First { first } else { second }) = until_ns;
            }
        }
        let version = self.change_version(now_ns);
        let answer_ns = self.delayed(now_ns, query.max_delay_ns);
        // RFC 3376 5.2, rule 1: what is to be said sooner answers this too.
        if self.answer_ns.is_some_and(|pending_ns| pending_ns <= answer_ns) {
            return;
        }
        match query.group {
            None if version == Version::Third => self.answer_ns = (!self.members.is_empty()).then_some(answer_ns),
            // In older versions each group has a delay of its own (RFC 2236 3).
            None => {
                for at in 0..self.members.len() {
                    let answer_ns = self.delayed(now_ns, query.max_delay_ns);
                    self.answer(at, answer_ns);
                }
            }
            Some(group) => {
                if let Some(at) = self.members.iter().position(|member| member.group == group) {
                    self.answer(at, answer_ns);
                }
            }
        }
    }

    /// Answers about one group at the latest at `answer_ns`.
    fn answer(&mut self, at: usize, answer_ns: u64) {
        if let Some(member) = self.members.get_mut(at).filter(|member| member.users > 0 && is_reported(member.group)) {
            member.answer_ns = Some(member.answer_ns.map_or(answer_ns, |pending_ns| pending_ns.min(answer_ns)));
        }
    }

    fn next_ns(&self) -> Option<u64> {
        self.members.iter().filter_map(Member::next_ns).chain(self.answer_ns).min()
    }

    fn postpone(&mut self, now_ns: u64) {
        let later_ns = now_ns.saturating_add(POSTPONED_NS);
        let is_due = |at_ns: u64| at_ns <= now_ns;
        for member in &mut self.members {
            if member.changes_left > 0 && is_due(member.change_ns) {
                member.change_ns = later_ns;
            }
            member.answer_ns = member.answer_ns.map(|at_ns| if is_due(at_ns) { later_ns } else { at_ns });
        }
        self.answer_ns = self.answer_ns.map(|at_ns| if is_due(at_ns) { later_ns } else { at_ns });
    }

    fn poll(&mut self, now_ns: u64, say: &mut dyn FnMut(Report<'_>) -> bool) {
        if self.next_ns().is_none_or(|at_ns| at_ns > now_ns) {
            return;
        }
        let version = self.change_version(now_ns);
        if self.answer_ns.is_some_and(|at_ns| at_ns <= now_ns) {
            let listens = |member: &Member| member.users > 0 && is_reported(member.group);
            if !self.tell(version, listens, |_| Change::Listens, say) {
                return;
            }
            self.answer_ns = None;
        }
        let is_asked = |member: &Member| member.answer_ns.is_some_and(|at_ns| at_ns <= now_ns);
        if !self.tell(version, is_asked, |_| Change::Listens, say) {
            return;
        }
        for member in self.members.iter_mut().filter(|member| is_asked(member)) {
            member.answer_ns = None;
        }
        let is_due = |member: &Member| member.changes_left > 0 && member.change_ns <= now_ns;
        if self.tell(version, is_due, |member| if member.users > 0 { Change::Joins } else { Change::Leaves }, say) {
            self.changes_were_told(now_ns, version);
        }
    }

    fn changes_were_told(&mut self, now_ns: u64, version: Version) {
        let interval_ns = if version == Version::Third { UNSOLICITED_NS } else { UNSOLICITED_OLD_NS };
        let again_ns = self.delayed(now_ns, interval_ns);
        self.members.retain_mut(|member| {
            if member.changes_left > 0 && member.change_ns <= now_ns {
                (member.changes_left, member.change_ns) = (member.changes_left - 1, again_ns);
            }
            member.users > 0 || member.changes_left > 0
        });
    }

    /// Says something of all members that are chosen; true when all was said. The newest versions put it all into one report.
    fn tell(
        &self,
        version: Version,
        chosen: impl Fn(&Member) -> bool,
        change: impl Fn(&Member) -> Change,
        say: &mut dyn FnMut(Report<'_>) -> bool,
    ) -> bool {
        let mut records = [(Change::Listens, IpAddr::V4(ALL_SYSTEMS)); MEMBERS_MAX];
        let mut count = 0;
        for (place, member) in records.iter_mut().zip(self.members.iter().filter(|member| chosen(member))) {
            *place = (change(member), member.group);
            count += 1;
        }
        let records = records.get(..count).unwrap_or_default();
        if version == Version::Third {
            records.is_empty() || say(Report { version, records })
        } else {
            records.chunks(1).all(|one| say(Report { version, records: one }))
        }
    }
}
