use proptest::prelude::*;

use super::*;

const MS: u64 = 1_000_000;
const ROUTER: Mac = [2, 0, 0, 0, 0, 9];

fn ip(last: u32) -> IpAddr {
    IpAddr::V4((0x0a00_0000 | last).into())
}

/// What the table says at a time, and what it asks.
struct Trace {
    table: Neighbours,
    asked: Vec<(u64, Solicit)>,
}

impl Trace {
    fn new(size: usize) -> Self {
        Self { table: Neighbours::new(size, 7), asked: Vec::new() }
    }

    /// Polls at each time that the table names, up to `until_ns`.
    fn run(&mut self, until_ns: u64) {
        while let Some(at_ns) = self.table.next_ns().filter(|at_ns| *at_ns <= until_ns) {
            self.table.poll(at_ns, &mut |solicit| {
                self.asked.push((at_ns / MS, solicit));
                true
            });
        }
    }

    fn answer(&mut self, now_ns: u64, mac: Mac) {
        self.table.advert(now_ns, Advert { ip: ip(1), mac: Some(mac), solicited: true, overrides: true });
    }
}

fn known(lookup: Lookup) -> Option<Mac> {
    match lookup {
        Lookup::Known(mac, _) => Some(mac),
        Lookup::Pending | Lookup::Full => None,
    }
}

#[test]
fn nobody_answers() {
    let mut trace = Trace::new(16);
    assert_eq!(trace.table.resolve(5 * MS, ip(1), Asker::Own), Lookup::Pending);
    for at_ms in 6..3_000 {
        assert_eq!(trace.table.resolve(at_ms * MS, ip(1), Asker::Own), Lookup::Pending);
        trace.run(at_ms * MS);
    }
    let everybody = Solicit { target: ip(1), at: None };
    assert_eq!(trace.asked, [(5, everybody), (1005, everybody), (2005, everybody)], "one request per second however often it is wanted");
    trace.run(10_000 * MS);
    assert_eq!((trace.table.len(), trace.asked.len(), trace.table.losses()), (0, 3, (0, 0, 1)));
    assert_eq!(trace.table.next_ns(), None);
}

#[test]
fn a_life() {
    let mut trace = Trace::new(16);
    trace.table.resolve(0, ip(1), Asker::Own);
    trace.run(0);
    trace.answer(MS, ROUTER);
    let Lookup::Known(ROUTER, handle) = trace.table.resolve(2 * MS, ip(1), Asker::Own) else { panic!("not known") };
    assert_eq!(trace.table.state(2 * MS, ip(1)), Some(NeighbourState::Reachable));
    assert!(trace.table.holds(14_000 * MS, handle), "REACHABLE lasts at least 15 s");
    assert!(!trace.table.holds(46_001 * MS, handle), "and at most 45 s");
    assert_eq!(trace.table.state(46_001 * MS, ip(1)), Some(NeighbourState::Stale));
    // Used again: five seconds of grace, then unicast probes.
    assert_eq!(known(trace.table.resolve(50_000 * MS, ip(1), Asker::Own)), Some(ROUTER));
    assert_eq!(trace.table.state(50_000 * MS, ip(1)), Some(NeighbourState::Delay));
    assert!(trace.table.holds(54_000 * MS, handle));
    trace.run(55_500 * MS);
    assert_eq!(trace.table.state(55_500 * MS, ip(1)), Some(NeighbourState::Probe));
    assert_eq!(trace.asked[1..], [(55_000, Solicit { target: ip(1), at: Some(ROUTER) })]);
    trace.answer(55_600 * MS, ROUTER);
    assert!(trace.table.holds(56_000 * MS, handle), "the same address needs no new handle");
    // It falls silent: three probes, then it is forgotten and the handle worth nothing.
    trace.table.resolve(200_000 * MS, ip(1), Asker::Own);
    trace.run(300_000 * MS);
    let times: Vec<u64> = trace.asked[2..].iter().map(|(at_ms, _)| *at_ms).collect();
    assert_eq!(times, [205_000, 206_000, 207_000]);
    assert!(!trace.table.holds(208_000 * MS, handle));
    assert_eq!(trace.table.state(208_000 * MS, ip(1)), None);
}

#[test]
fn a_solicitation_that_cannot_be_sent_stays_due() {
    let mut table = Neighbours::new(16, 7);
    table.resolve(0, ip(1), Asker::Own);
    table.poll(0, &mut |_| false);
    assert_eq!(table.next_ns(), Some(0));
    let mut sent = 0;
    table.poll(MS, &mut |_| {
        sent += 1;
        true
    });
    assert_eq!((sent, table.next_ns()), (1, Some(1_001 * MS)));
}

/// RFC 4861 7.2.5, each case of the table there: state, own address, flags, then state and address.
#[test]
fn advertisements() {
    use NeighbourState::{Reachable, Stale};
    let other: Mac = [2, 0, 0, 0, 0, 8];
    let cases = [
        (Reachable, Some(other), false, false, Stale, ROUTER),
        (Stale, Some(other), false, false, Stale, ROUTER),
        (Reachable, Some(other), true, false, Stale, ROUTER),
        (Reachable, Some(other), false, true, Stale, other),
        (Reachable, Some(other), true, true, Reachable, other),
        (Reachable, Some(ROUTER), false, true, Reachable, ROUTER),
        (Stale, Some(ROUTER), false, true, Stale, ROUTER),
        (Stale, Some(ROUTER), true, false, Reachable, ROUTER),
        (Stale, None, true, false, Reachable, ROUTER),
        (Stale, None, false, false, Stale, ROUTER),
    ];
    for (nth, (before, mac, solicited, overrides, after, expected)) in cases.into_iter().enumerate() {
        let mut trace = Trace::new(16);
        if before == Reachable {
            trace.table.resolve(0, ip(1), Asker::Own);
            trace.answer(0, ROUTER);
        } else {
            trace.table.heard(0, ip(1), ROUTER);
        }
        assert_eq!(trace.table.state(0, ip(1)), Some(before), "case {nth}");
        trace.table.advert(MS, Advert { ip: ip(1), mac, solicited, overrides });
        assert_eq!(trace.table.state(MS, ip(1)), Some(after), "case {nth}");
        assert_eq!(known(trace.table.resolve(MS, ip(1), Asker::Own)), Some(expected), "case {nth}");
    }
    let mut table = Neighbours::new(16, 7);
    table.advert(0, Advert { ip: ip(1), mac: Some(other), solicited: true, overrides: true });
    assert_eq!(table.len(), 0, "nobody becomes known by speaking of himself");
    table.resolve(0, ip(1), Asker::Own);
    table.advert(0, Advert { ip: ip(1), mac: None, solicited: true, overrides: true });
    assert_eq!(table.state(0, ip(1)), Some(NeighbourState::Incomplete));
}

#[test]
fn a_new_hardware_address_ends_old_handles() {
    let mut table = Neighbours::new(16, 7);
    table.heard(0, ip(1), ROUTER);
    let Lookup::Known(_, handle) = table.resolve(0, ip(1), Asker::Own) else { panic!("not known") };
    assert!(table.holds(1, handle));
    table.heard(2, ip(1), ROUTER);
    assert!(table.holds(2, handle), "no news");
    table.heard(3, ip(1), [2, 0, 0, 0, 0, 7]);
    assert!(!table.holds(3, handle));
    assert_eq!(known(table.resolve(3, ip(1), Asker::Own)), Some([2, 0, 0, 0, 0, 7]));
}

#[test]
fn a_flood_does_not_push_out_those_in_use() {
    let mut trace = Trace::new(64);
    for nth in 0..8 {
        trace.table.resolve(0, ip(nth), Asker::Own);
        trace.table.advert(0, Advert { ip: ip(nth), mac: Some(ROUTER), solicited: true, overrides: true });
    }
    let mut now_ns = 0;
    for nth in 0..100_000 {
        now_ns += 100_000;
        trace.table.heard(now_ns, ip(1000 + nth), [2, 0, 0, 1, 1, 1]);
        if nth % 10_000 == 0 {
            for nth in 0..8 {
                assert_eq!(known(trace.table.resolve(now_ns, ip(nth), Asker::Own)), Some(ROUTER));
            }
        }
    }
    assert_eq!(trace.table.len(), 64);
    let (evicted, refused, _) = trace.table.losses();
    assert!(evicted + refused >= 100_000 - 56 && refused < 10, "{evicted} {refused}");
}

#[test]
fn strangers_cannot_take_all_places_for_unfinished_resolutions() {
    let mut trace = Trace::new(64);
    let begun =
        |table: &mut Neighbours, from: u32, asker| (0..64).filter(|nth| table.resolve(0, ip(from + nth), asker) == Lookup::Pending).count();
    assert_eq!(begun(&mut trace.table, 100, Asker::Foreign), 8);
    assert_eq!(begun(&mut trace.table, 200, Asker::Own), 8);
    assert_eq!(begun(&mut trace.table, 300, Asker::Own), 0);
    trace.run(3_000 * MS);
    assert_eq!(trace.table.len(), 0);
    assert_eq!(trace.asked.len(), 16 * 3);
    assert_eq!(begun(&mut trace.table, 400, Asker::Foreign), 8, "places come back");
}

#[derive(Clone, Copy, Debug)]
enum Deed {
    Resolve(bool),
    Heard(u8),
    Confirmed(u8),
    Advert(Option<u8>, bool, bool),
    Pass(u64),
}

fn deed() -> impl Strategy<Value = Deed> {
    prop_oneof![
        any::<bool>().prop_map(Deed::Resolve),
        (0_u8..3).prop_map(Deed::Heard),
        (0_u8..3).prop_map(Deed::Confirmed),
        (prop::option::of(0_u8..3), any::<bool>(), any::<bool>())
            .prop_map(|(mac, solicited, overrides)| Deed::Advert(mac, solicited, overrides)),
        (0_u64..40_000).prop_map(|ms| Deed::Pass(ms * MS)),
    ]
}

proptest! {
    /// Whatever happens: the table keeps its size, handles never give an address that the neighbour does not have, and counts come back.
    #[test]
    fn any_deeds(size in 4_usize..12, deeds in prop::collection::vec((0_u32..20, deed()), 0..200)) {
        let mut trace = Trace::new(size);
        let mut now_ns = 0;
        let mut handles: Vec<(u32, Mac, Handle)> = Vec::new();
        for (who, deed) in deeds {
            match deed {
                Deed::Resolve(own) => {
                    let asker = if own { Asker::Own } else { Asker::Foreign };
                    if let Lookup::Known(mac, handle) = trace.table.resolve(now_ns, ip(who), asker) {
                        handles.push((who, mac, handle));
                    }
                }
                Deed::Confirmed(mac) => trace.table.confirmed(now_ns, ip(who), [2, 0, 0, 0, 0, mac]),
                Deed::Heard(mac) => trace.table.heard(now_ns, ip(who), [2, 0, 0, 0, 0, mac]),
                Deed::Advert(mac, solicited, overrides) => {
                    let mac = mac.map(|mac| [2, 0, 0, 0, 0, mac]);
                    trace.table.advert(now_ns, Advert { ip: ip(who), mac, solicited, overrides });
                }
                Deed::Pass(ns) => {
                    now_ns += ns;
                    trace.run(now_ns);
                }
            }
            prop_assert!(trace.table.len() <= size && trace.table.index.len() == trace.table.len());
            prop_assert!(trace.table.timed.len() <= size);
            for (who, mac, handle) in &handles {
                if trace.table.holds(now_ns, *handle) {
                    let slot = trace.table.index.get(&key(ip(*who))).copied();
                    prop_assert_eq!(slot.map(|slot| trace.table.entries[slot as usize].mac), Some(*mac));
                }
            }
        }
        trace.run(u64::MAX - 1);
        prop_assert_eq!((trace.table.incomplete, trace.table.incomplete_foreign, trace.table.timed.len()), (0, 0, 0));
    }
}
