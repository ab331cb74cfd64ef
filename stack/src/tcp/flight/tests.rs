use super::*;
use proptest::prelude::*;

/// A segment of the plain model.
#[derive(Clone, Debug, PartialEq)]
struct Model {
    start: u32,
    end: u32,
    sacked: bool,
    lost: bool,
    resent: bool,
    xmit_ns: u64,
}

fn listed(flight: &Flight, records: &Records, base: Seq) -> Vec<Model> {
    let mut out = Vec::new();
    let mut at = flight.head;
    while let Some(r) = records.get(at) {
        let (start, end) = (r.start.since(base), r.end.since(base));
        out.push(Model { start, end, sacked: r.sacked(), lost: r.flags & LOST != 0, resent: r.resent(), xmit_ns: r.xmit_ns });
        at = r.next;
    }
    out
}

proptest! {
    #[test]
    fn like_a_plain_list(base: u32, ops in prop::collection::vec((0..9u8, 1..100u32, 1..100u32), 1..120)) {
        let base = Seq(base);
        let blocks = Blocks::new(4096);
        let at = Cursor { block: 0, offset: 0 };
        let mut records = Records::new(20, 1);
        let (mut flight, mut model) = (Flight::EMPTY, Vec::<Model>::new());
        let (mut una, mut nxt) = (0u32, 0u32);
        for (now, (op, a, b)) in (1u64..).zip(ops) {
            match op {
                0..=2 => {
                    let room = flight.has_room(&records);
                    prop_assert_eq!(room, model.is_empty() || model.len() < 20);
                    if room {
                        prop_assert!(flight.push(&mut records, (base + nxt, base + nxt + a), at, false, now));
                        model.push(Model { start: nxt, end: nxt + a, sacked: false, lost: false, resent: false, xmit_ns: now });
                        nxt += a;
                    }
                }
                3 => {
                    una += (nxt - una) * a / 200;
                    let mut news = 0;
                    flight.acknowledge(&mut records, &blocks, base + una, |_| news += 1);
                    prop_assert_eq!(news, model.iter().filter(|m| m.end <= una && !m.sacked).count());
                    model.retain(|m| m.end > una);
                    if let Some(first) = model.first_mut() { first.start = first.start.max(una); }
                }
                4 => {
                    let (start, end) = (una + (nxt - una) * a / 200, una + (nxt - una) * (a + b) / 200);
                    let mut news = 0;
                    flight.sack(&mut records, &[(base + start, base + end)], |_| news += 1);
                    for m in model.iter_mut().filter(|m| start <= m.start && m.end <= end && !m.sacked) {
                        (m.sacked, m.lost) = (true, false);
                        news -= 1;
                    }
                    prop_assert_eq!(news, 0);
                }
                5 => {
                    let before = u64::from(a);
                    flight.mark_lost(&mut records, |record| Some(record.xmit_ns < before));
                    model.iter_mut().filter(|m| !m.sacked && m.xmit_ns < before).for_each(|m| m.lost = true);
                }
                6 => {
                    let lost = flight.first_lost(&records);
                    let expected = model.iter_mut().find(|m| m.lost);
                    prop_assert_eq!(lost.is_some(), expected.is_some());
                    if let (Some(index), Some(m)) = (lost, expected) {
                        flight.resent(&mut records, index, now);
                        (m.lost, m.resent, m.xmit_ns) = (false, true, now);
                    }
                }
                7 if b < 20 => {
                    flight.mark_all_lost(&mut records);
                    if model.first().is_some_and(|m| m.sacked) { model.iter_mut().for_each(|m| m.sacked = false); }
                    model.iter_mut().filter(|m| !m.sacked).for_each(|m| m.lost = true);
                }
                8 if b < 20 => {
                    flight.unmark_lost(&mut records);
                    model.iter_mut().for_each(|m| m.lost = false);
                }
                _ => {
                    let Some(pick) = model.len().checked_sub(1).map(|last| last.min(a as usize / 20)) else { continue };
                    let mut index = flight.head;
                    for _ in 0..pick { index = records.get(index).unwrap().next; }
                    let m = model[pick].clone();
                    if records.free() > 1 && flight.split(&mut records, &blocks, index, b) {
                        prop_assert!(b < m.end - m.start && !m.sacked);
                        model[pick].end = m.start + b;
                        model.insert(pick + 1, Model { start: m.start + b, ..m });
                    }
                }
            }
            prop_assert_eq!(&listed(&flight, &records, base), &model);
            prop_assert_eq!(flight.count as usize, model.len());
            prop_assert_eq!(records.free(), 21 - model.len());
            let bytes = |of: fn(&Model) -> bool| model.iter().filter(|m| of(m)).map(|m| m.end - m.start).sum::<u32>();
            prop_assert_eq!(flight.sacked_bytes, bytes(|m| m.sacked));
            prop_assert_eq!(flight.sacked_count as usize, model.iter().filter(|m| m.sacked).count());
            prop_assert_eq!(flight.lost_bytes, bytes(|m| m.lost));
            let mut timed = 0;
            flight.mark_lost(&mut records, |_| { timed += 1; Some(false) });
            prop_assert_eq!(timed, model.iter().filter(|m| !m.sacked && !m.lost).count());
        }
        flight.clear(&mut records);
        prop_assert_eq!(records.free(), 21);
    }
}
