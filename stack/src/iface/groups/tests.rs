//! Traces: groups are joined and left, routers ask, and what is said is looked at with its time.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const MS: u64 = 1_000_000;
const S: u64 = 1000 * MS;

struct Trace {
    groups: Groups,
    now_ns: u64,
    has_link_local: bool,
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn query(version: Version, group: Option<&str>, max_delay_ns: u64) -> Query {
    let third = version == Version::Third;
    let (robustness, interval_ns) = if third { (2, 125 * S) } else { (0, 0) };
    Query { version, group: group.map(ip), max_delay_ns, robustness, interval_ns }
}

impl Trace {
    fn new(seed: u64) -> Self {
        Self { groups: Groups::new(["ff02::1:ff00:7".parse().unwrap()].into_iter(), seed), now_ns: 0, has_link_local: true }
    }

    /// The same with a group that was joined and reported.
    fn settled(group: &str, seed: u64) -> Self {
        let mut trace = Self::new(seed);
        assert!(trace.groups.join(0, ip(group)));
        trace.pass(100 * S);
        trace
    }

    /// Lets time pass; what was said meanwhile, with the time in ms since it began.
    fn pass(&mut self, ns: u64) -> Vec<(u64, String)> {
        let (begin_ns, until_ns) = (self.now_ns, self.now_ns + ns);
        let mut said = Vec::new();
        loop {
            let now_ns = self.now_ns;
            self.groups.poll(now_ns, self.has_link_local, &mut |report| {
                let records: Vec<String> = report.records.iter().map(|(change, group)| format!("{change:?} {group}")).collect();
                said.push(((now_ns - begin_ns) / MS, format!("{:?}: {}", report.version, records.join(", "))));
                true
            });
            match self.groups.next_ns() {
                Some(at_ns) if at_ns <= until_ns => self.now_ns = now_ns.max(at_ns),
                _ => break,
            }
        }
        self.now_ns = until_ns;
        said
    }

    fn ask(&mut self, query: Query) {
        let is_ipv4 = query.group.is_none_or(|group| group.is_ipv4());
        self.groups.asked(self.now_ns, is_ipv4, query);
    }
}

fn words(said: &[(u64, String)]) -> Vec<&str> {
    said.iter().map(|(_, words)| words.as_str()).collect()
}

#[test]
fn joining_and_leaving_is_told_twice() {
    for (group, seed) in [("239.1.2.3", 1), ("ff15::9", 2), ("232.0.0.1", 3)] {
        let mut trace = Trace::new(seed);
        assert!(trace.groups.join(0, ip(group)) && trace.groups.is_member(ip(group)));
        let said = trace.pass(100 * S);
        assert_eq!(words(&said), [format!("Third: Joins {group}"), format!("Third: Joins {group}")]);
        assert!(said[0].0 == 0 && said[1].0 < 1000, "{said:?}");
        // Who else joins is no news, nor is it when one of two leaves.
        assert!(trace.groups.join(trace.now_ns, ip(group)));
        trace.groups.leave(trace.now_ns, ip(group));
        assert_eq!(trace.pass(100 * S), []);
        trace.groups.leave(trace.now_ns, ip(group));
        assert!(!trace.groups.is_member(ip(group)));
        let said = trace.pass(100 * S);
        assert_eq!(words(&said), [format!("Third: Leaves {group}"), format!("Third: Leaves {group}")]);
        assert!(said[0].0 == 0 && said[1].0 < 1000, "{said:?}");
        assert_eq!(trace.groups.next_ns(), None);
        trace.groups.leave(trace.now_ns, ip(group));
        assert_eq!(trace.pass(S), [], "left is left");
    }
}

#[test]
fn who_comes_back_while_he_leaves_has_joined() {
    let mut trace = Trace::settled("239.1.2.3", 4);
    trace.groups.leave(trace.now_ns, ip("239.1.2.3"));
    assert_eq!(words(&trace.pass(0)), ["Third: Leaves 239.1.2.3"]);
    assert!(trace.groups.join(trace.now_ns, ip("239.1.2.3")));
    assert_eq!(words(&trace.pass(100 * S)), ["Third: Joins 239.1.2.3"; 2]);
    // What nobody was told of need not be taken back.
    assert!(trace.groups.join(trace.now_ns, ip("239.1.2.4")));
    trace.groups.leave(trace.now_ns, ip("239.1.2.4"));
    assert_eq!(trace.pass(100 * S), []);
}

#[test]
fn a_general_query_is_answered_once_for_all_groups_within_its_time() {
    let mut delays = Vec::new();
    for seed in 0..50 {
        let mut trace = Trace::settled("239.1.2.3", seed);
        assert!(trace.groups.join(trace.now_ns, ip("239.1.2.4")));
        trace.pass(100 * S);
        trace.ask(query(Version::Third, None, 10 * S));
        let said = trace.pass(100 * S);
        assert_eq!(words(&said), ["Third: Listens 239.1.2.3, Listens 239.1.2.4"]);
        assert!(said[0].0 < 10_000);
        delays.push(said[0].0);
    }
    delays.sort_unstable();
    assert!(delays[5] < 2_500 && delays[45] > 7_500, "spread over the time: {delays:?}");
    // Groups of own addresses are told too, though others tell of their joining.
    let mut trace = Trace::new(1);
    assert_eq!(trace.pass(S), []);
    trace.groups.asked(trace.now_ns, false, query(Version::Third, None, S));
    assert_eq!(words(&trace.pass(100 * S)), ["Third: Listens ff02::1:ff00:7"]);
}

#[test]
fn questions_about_one_group_are_answered_for_that_one() {
    let mut trace = Trace::settled("239.1.2.3", 5);
    assert!(trace.groups.join(trace.now_ns, ip("239.9.9.9")));
    trace.pass(100 * S);
    trace.ask(query(Version::Third, Some("239.9.9.9"), S));
    // Asked twice, answered once: at the earlier of both times.
    trace.ask(query(Version::Third, Some("239.9.9.9"), S / 10));
    let said = trace.pass(100 * S);
    assert_eq!(words(&said), ["Third: Listens 239.9.9.9"]);
    assert!(said[0].0 < 100, "{said:?}");
    trace.ask(query(Version::Third, Some("239.5.5.5"), S));
    assert_eq!(trace.pass(100 * S), [], "nobody listens to that");
    // RFC 3376 5.2, rule 1: what is said sooner about all groups answers it too.
    trace.ask(query(Version::Third, None, 1));
    trace.ask(query(Version::Third, Some("239.9.9.9"), 10 * S));
    assert_eq!(words(&trace.pass(100 * S)), ["Third: Listens 239.1.2.3, Listens 239.9.9.9"]);
}

#[test]
fn everybodys_groups_are_never_told() {
    let mut trace = Trace::new(6);
    for group in ["224.0.0.1", "ff02::1", "ff01::9", "ff00::9"] {
        assert!(trace.groups.join(0, ip(group)) && trace.groups.is_member(ip(group)));
        trace.ask(query(Version::Third, Some(group), S));
    }
    assert_eq!(trace.pass(100 * S), []);
    trace.ask(query(Version::Second, None, S));
    assert_eq!(trace.pass(10 * S), []);
    assert!(!trace.groups.join(0, ip("192.0.2.1")) && !trace.groups.join(0, ip("fe80::1")), "no groups at all");
}

#[test]
fn the_oldest_version_heard_is_spoken_for_a_time() {
    let mut trace = Trace::settled("239.1.2.3", 7);
    trace.ask(query(Version::Second, None, 10 * S));
    let said = trace.pass(11 * S);
    assert_eq!(words(&said), ["Second: Listens 239.1.2.3"]);
    // Joining is told within ten seconds again, leaving once.
    assert!(trace.groups.join(trace.now_ns, ip("239.9.9.9")));
    let said = trace.pass(20 * S);
    assert_eq!(words(&said), ["Second: Joins 239.9.9.9"; 2]);
    assert!(said[0].0 == 0 && said[1].0 < 10_000);
    trace.groups.leave(trace.now_ns, ip("239.9.9.9"));
    assert_eq!(words(&trace.pass(20 * S)), ["Second: Leaves 239.9.9.9"]);
    trace.ask(query(Version::First, None, 10 * S));
    assert_eq!(words(&trace.pass(11 * S)), ["First: Listens 239.1.2.3"]);
    // A router of the third version beside them changes nothing while they are there: 2 x 125 s and the 10 s for answers.
    trace.pass(248 * S);
    trace.ask(query(Version::Third, None, S / 10));
    assert_eq!(words(&trace.pass(S / 2)), ["First: Listens 239.1.2.3"]);
    trace.pass(2 * S);
    trace.ask(query(Version::Third, None, S / 10));
    assert_eq!(words(&trace.pass(S)), ["Third: Listens 239.1.2.3"]);
    // In the first version nobody leaves, he falls silent.
    trace.ask(query(Version::First, None, S));
    trace.groups.leave(trace.now_ns, ip("239.1.2.3"));
    assert_eq!(trace.pass(20 * S), []);
}

#[test]
fn a_change_of_version_drops_what_is_pending_and_tells_new_groups_again() {
    let mut trace = Trace::settled("239.1.2.3", 8);
    trace.groups.leave(trace.now_ns, ip("239.1.2.3"));
    assert!(trace.groups.join(trace.now_ns, ip("239.9.9.9")));
    assert_eq!(words(&trace.pass(0)), ["Third: Leaves 239.1.2.3, Joins 239.9.9.9"]);
    trace.ask(query(Version::Second, Some("239.5.5.5"), S));
    assert_eq!(words(&trace.pass(100 * S)), ["Second: Joins 239.9.9.9"]);
}

#[test]
fn an_older_version_never_holds_for_ever() {
    let mut trace = Trace::settled("ff15::9", 9);
    let boast = Query { robustness: 7, interval_ns: 31_744 * S, ..query(Version::Third, None, S) };
    trace.groups.asked(trace.now_ns, false, boast);
    trace.groups.asked(trace.now_ns, false, query(Version::Second, None, S));
    let said = trace.pass(10 * S);
    assert!(said.len() == 2 && said.iter().all(|(_, words)| words.starts_with("Second")), "{said:?}");
    trace.pass(3600 * S);
    trace.groups.asked(trace.now_ns, false, query(Version::Third, None, S));
    assert_eq!(words(&trace.pass(10 * S)), ["Third: Listens ff02::1:ff00:7, Listens ff15::9"]);
    // What the router says of losses holds for what is told from now on.
    assert!(trace.groups.join(trace.now_ns, ip("ff15::a")));
    trace.groups.asked(trace.now_ns, false, Query { robustness: 4, ..boast });
    trace.pass(10 * S);
    trace.groups.leave(trace.now_ns, ip("ff15::a"));
    assert_eq!(words(&trace.pass(10 * S)), ["Third: Leaves ff15::a"; 4]);
}

#[test]
fn listeners_wait_for_a_link_local_address() {
    let mut trace = Trace { has_link_local: false, ..Trace::new(10) };
    assert!(trace.groups.join(0, ip("ff15::9")) && trace.groups.join(0, ip("239.1.2.3")));
    let said = trace.pass(2 * S);
    assert_eq!(words(&said), ["Third: Joins 239.1.2.3"; 2]);
    trace.has_link_local = true;
    let said = trace.pass(10 * S);
    assert_eq!(words(&said), ["Third: Joins ff15::9"; 2]);
    assert!(said[0].0 <= 500, "{said:?}");
}

#[test]
fn what_cannot_be_said_stays_due() {
    let mut trace = Trace::new(11);
    assert!(trace.groups.join(0, ip("239.1.2.3")));
    let mut offered = 0;
    for _ in 0..3 {
        trace.groups.poll(0, true, &mut |_| {
            offered += 1;
            false
        });
    }
    assert_eq!((offered, trace.groups.next_ns()), (3, Some(0)));
    assert_eq!(words(&trace.pass(100 * S)), ["Third: Joins 239.1.2.3"; 2]);
}

#[test]
fn messages_are_those_of_the_documents() {
    let write = |version, records: &[(Change, &str)]| {
        let records: Vec<_> = records.iter().map(|(change, group)| (*change, ip(group))).collect();
        let report = Report { version, records: &records };
        let mut bytes = [0xee; REPORT_BYTES_MAX];
        let len = report.write(&mut bytes);
        (report.destination().unwrap().to_string(), bytes[..len].to_vec())
    };
    let (to, bytes) = write(Version::Third, &[(Change::Joins, "239.1.2.3"), (Change::Leaves, "239.1.2.4")]);
    assert_eq!(to, "224.0.0.22");
    assert_eq!(bytes, [0x22, 0, 0, 0, 0, 0, 0, 2, 4, 0, 0, 0, 239, 1, 2, 3, 3, 0, 0, 0, 239, 1, 2, 4]);
    for (version, change, to, kind) in [
        (Version::First, Change::Listens, "239.1.2.3", 0x12),
        (Version::Second, Change::Joins, "239.1.2.3", 0x16),
        (Version::Second, Change::Leaves, "224.0.0.2", 0x17),
    ] {
        assert_eq!(write(version, &[(change, "239.1.2.3")]), (to.to_owned(), vec![kind, 0, 0, 0, 239, 1, 2, 3]));
    }
    let group = "ff15::9".parse::<Ipv6Addr>().unwrap().octets();
    let third = [&[143, 0, 0, 0, 0, 0, 0, 1, 2, 0, 0, 0][..], &group].concat();
    assert_eq!(write(Version::Third, &[(Change::Listens, "ff15::9")]), ("ff02::16".to_owned(), third));
    for (change, to, kind) in [(Change::Listens, "ff15::9", 131), (Change::Leaves, "ff02::2", 132)] {
        let expected = [&[kind, 0, 0, 0, 0, 0, 0, 0][..], &group].concat();
        assert_eq!(write(Version::Second, &[(change, "ff15::9")]), (to.to_owned(), expected));
    }
}

proptest! {
    /// Whatever happens: the groups are those of a plain count, tables have a bound, and nothing is ever due in the past once it was said.
    #[test]
    fn random_operations_agree_with_a_count(
        seed: u64,
        steps in prop::collection::vec((0_u8..4, 0_u16..60, any::<u8>(), 0_u64..20_000), 1..120),
    ) {
        let mut trace = Trace::new(seed);
        let mut count: BTreeMap<IpAddr, u32> = BTreeMap::new();
        for (kind, n, code, ms) in steps {
            let group = if n % 2 == 0 { IpAddr::from([239, 0, 0, n as u8]) } else { IpAddr::from([0xff15, 0, 0, 0, 0, 0, 0, n]) };
            match kind {
                0 => {
                    let joined = trace.groups.join(trace.now_ns, group);
                    prop_assert!(joined);
                    *count.entry(group).or_default() += 1;
                }
                1 => {
                    trace.groups.leave(trace.now_ns, group);
                    count.entry(group).and_modify(|users| *users = users.saturating_sub(1));
                }
                _ => {
                    let version = [Version::First, Version::Second, Version::Third][usize::from(code % 3)];
                    let about = (kind == 3).then_some(group);
                    let asked = Query { version, group: about, max_delay_ns: u64::from(code) * 100 * MS, robustness: code & 7, interval_ns: S };
                    trace.groups.asked(trace.now_ns, group.is_ipv4(), asked);
                }
            }
            prop_assert!(trace.pass(ms * MS).len() < 400);
            prop_assert!(trace.groups.next_ns().is_none_or(|at_ns| at_ns > trace.now_ns));
            for (group, users) in &count {
                prop_assert_eq!(trace.groups.is_member(*group), *users > 0);
            }
        }
        prop_assert!(trace.groups.v4.members.len() <= 30 && trace.groups.v6.members.len() <= 31);
    }
}

#[test]
fn a_flood_of_queries_makes_us_say_little() {
    for version in [Version::Second, Version::Third] {
        let mut trace = Trace::settled("239.1.2.3", 13);
        let mut said = 0;
        for _ in 0..10_000 {
            trace.ask(query(version, None, 0));
            said += trace.pass(MS / 10).len();
        }
        assert!((1..=40).contains(&said), "{said} reports in a second");
    }
}

#[test]
fn there_are_only_so_many_groups() {
    let mut trace = Trace::new(12);
    let joined = (0..=255).filter(|n| trace.groups.join(0, IpAddr::from([239, 0, 0, *n]))).count();
    assert_eq!(joined, MEMBERS_MAX);
    let said = trace.pass(10 * S);
    assert_eq!(said.len(), 2, "all in one report");
}
