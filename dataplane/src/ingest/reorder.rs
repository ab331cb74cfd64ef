//! Packets in the order in which they were sent.
//!
//! A packet that comes in order passes through untouched. One that comes early waits, copied, until those before it have come, or until
//! they are given up: after [`PATIENCE_NS`], or when one comes that is too far ahead to wait with the others. So a network that never
//! reorders costs nothing, and one that loses costs a bounded delay.

/// Packets that may wait.
const SLOTS: u16 = 64;
/// Longest packet that may wait, bytes; a longer one that comes early is lost.
const PACKET_BYTES_MAX: usize = 1500;
/// How long a gap may keep what is behind it waiting, nanoseconds.
pub const PATIENCE_NS: u64 = 60_000_000;
/// A packet that is older than the newest by less than this is late or a duplicate (RFC 3550 A.1: MAX_MISORDER); by more, it is of a
/// sender that began anew.
const MISORDER_MAX: u16 = 100;
/// Packets of a sender that began anew that must follow each other before it is believed.
const PROBATION: u8 = 2;

/// What to do with a packet that was pushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pushed {
    /// It is the next one: deal with it now, then call [`Reorder::pop`] until there is nothing more.
    Next,
    /// It waits. Call [`Reorder::pop`] until there is nothing more.
    Waits,
    /// It is too far ahead to wait with the others: call [`Reorder::pop`] until there is nothing more, which gives up what is missing
    /// between those, and push it again.
    Full,
    /// It is too far ahead to wait, and nothing waits: so many packets before it are missing. Deal with it now.
    Jumps(u16),
    /// It is late, a duplicate, or too long.
    Dropped,
}

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Popped<'a> {
    /// A packet.
    Packet(&'a [u8]),
    /// This many packets are missing here.
    Gap(u16),
}

#[derive(Debug)]
struct Slot {
    bytes: usize,
    came_ns: u64,
    data: [u8; PACKET_BYTES_MAX],
}

/// The packets of one stream that wait.
#[derive(Debug)]
pub struct Reorder {
    slots: Box<[Slot]>,
    /// Sequence number that comes next.
    next: Option<u16>,
    waiting: u16,
    /// What is missing between those that wait is given up.
    give_up: bool,
    /// A sender that may have begun anew: the number that it would send next, and how many it sent.
    stranger: Option<(u16, u8)>,
}

impl Default for Reorder {
    fn default() -> Self {
        Self::new()
    }
}

impl Reorder {
    /// Nothing came yet.
    pub fn new() -> Self {
        let slots = (0..SLOTS).map(|_| Slot { bytes: 0, came_ns: 0, data: [0; PACKET_BYTES_MAX] }).collect();
        Self { slots, next: None, waiting: 0, give_up: false, stranger: None }
    }

    /// Takes the packet with this sequence number.
    pub fn push(&mut self, now_ns: u64, seq: u16, packet: &[u8]) -> Pushed {
        let next = *self.next.get_or_insert(seq);
        let ahead = seq.wrapping_sub(next);
        if ahead >= 1 << 15 {
            return self.late(seq, next);
        }
        self.stranger = None;
        if ahead == 0 {
            self.next = Some(seq.wrapping_add(1));
            return Pushed::Next;
        }
        if ahead >= SLOTS {
            if self.waiting > 0 {
                self.give_up = true;
                return Pushed::Full;
            }
            self.next = Some(seq.wrapping_add(1));
            return Pushed::Jumps(ahead);
        }
        if packet.len() > PACKET_BYTES_MAX || packet.is_empty() {
            return Pushed::Dropped;
        }
        let Some(slot) = self.slots.get_mut(usize::from(seq % SLOTS)).filter(|slot| slot.bytes == 0) else { return Pushed::Dropped };
        let Some(place) = slot.data.get_mut(..packet.len()) else { return Pushed::Dropped };
        place.copy_from_slice(packet);
        (slot.bytes, slot.came_ns) = (packet.len(), now_ns);
        self.waiting += 1;
        Pushed::Waits
    }

    fn late(&mut self, seq: u16, next: u16) -> Pushed {
        if next.wrapping_sub(seq) <= MISORDER_MAX {
            return Pushed::Dropped;
        }
        let count = match self.stranger {
            Some((expected, count)) if expected == seq => count + 1,
            _ => 1,
        };
        self.stranger = Some((seq.wrapping_add(1), count));
        if count < PROBATION {
            return Pushed::Dropped;
        }
        self.reset();
        self.next = Some(seq.wrapping_add(1));
        Pushed::Next
    }

    /// The next packet, or the gap before it. Call until there is nothing more.
    pub fn pop(&mut self, now_ns: u64) -> Option<Popped<'_>> {
        let next = self.next?;
        if self.waiting == 0 {
            self.give_up = false;
            return None;
        }
        let first = self.first_waiting(next)?;
        let gap = first.wrapping_sub(next);
        if gap > 0 {
            if !self.give_up && self.next_ns().is_some_and(|at_ns| now_ns < at_ns) {
                return None;
            }
            self.next = Some(first);
            return Some(Popped::Gap(gap));
        }
        let slot = self.slots.get_mut(usize::from(first % SLOTS))?;
        let bytes = std::mem::take(&mut slot.bytes);
        self.waiting -= 1;
        self.next = Some(first.wrapping_add(1));
        self.slots.get(usize::from(first % SLOTS))?.data.get(..bytes).map(Popped::Packet)
    }

    /// When [`Self::pop`] is worth a call though nothing came; `None` while nothing waits.
    pub fn next_ns(&self) -> Option<u64> {
        // The one that has waited longest decides, wherever it stands.
        let waiting = self.slots.iter().filter(|slot| slot.bytes > 0 && self.waiting > 0);
        waiting.map(|slot| slot.came_ns.saturating_add(PATIENCE_NS)).min()
    }

    /// Forgets what waits, and what came.
    pub fn reset(&mut self) {
        for slot in &mut self.slots {
            slot.bytes = 0;
        }
        (self.next, self.waiting, self.give_up, self.stranger) = (None, 0, false, None);
    }

    /// The number of the first packet that waits, at or after `next`.
    fn first_waiting(&self, next: u16) -> Option<u16> {
        (0..SLOTS).map(|i| next.wrapping_add(i)).find(|seq| self.slots.get(usize::from(seq % SLOTS)).is_some_and(|slot| slot.bytes > 0))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MS: u64 = 1_000_000;

    /// What comes out, gaps as `None`, for packets of (sequence number, time); each packet holds its number.
    fn through(packets: &[(u16, u64)], end_ns: u64) -> Vec<Option<u16>> {
        let mut reorder = Reorder::new();
        let mut out = Vec::new();
        let number = |packet: &[u8]| Some(u16::from_be_bytes([packet[0], packet[1]]));
        let drain = |reorder: &mut Reorder, out: &mut Vec<Option<u16>>, now_ns| {
            while let Some(popped) = reorder.pop(now_ns) {
                match popped {
                    Popped::Packet(packet) => out.push(number(packet)),
                    Popped::Gap(count) => {
                        assert!(count > 0);
                        out.push(None);
                    }
                }
            }
        };
        for &(seq, at_ns) in packets {
            drain(&mut reorder, &mut out, at_ns);
            let mut pushed = reorder.push(at_ns, seq, &seq.to_be_bytes());
            if pushed == Pushed::Full {
                drain(&mut reorder, &mut out, at_ns);
                pushed = reorder.push(at_ns, seq, &seq.to_be_bytes());
            }
            match pushed {
                Pushed::Next => out.push(Some(seq)),
                Pushed::Jumps(missing) => {
                    assert!(missing >= SLOTS);
                    out.extend([None, Some(seq)]);
                }
                Pushed::Full => panic!("there is room for it now"),
                Pushed::Waits | Pushed::Dropped => {}
            }
            drain(&mut reorder, &mut out, at_ns);
        }
        assert!(reorder.next_ns().is_none_or(|at_ns| at_ns <= end_ns + PATIENCE_NS));
        drain(&mut reorder, &mut out, end_ns);
        out
    }

    #[test]
    fn a_gap_is_waited_for_and_given_up() {
        let some = |numbers: &[u16]| numbers.iter().map(|&n| Some(n)).collect::<Vec<_>>();
        assert_eq!(through(&[(9, 0), (11, 1), (10, 2), (12, 3), (11, 4)], 5), some(&[9, 10, 11, 12]));
        let late = [some(&[65535]), vec![None], some(&[1, 2])].concat();
        assert_eq!(through(&[(65535, 0), (1, 1), (2, 70 * MS), (0, 71 * MS)], 80 * MS), late);
        assert_eq!(through(&[(65535, 0), (1, 1), (2, 2)], 3), some(&[65535]));
        let jump = [some(&[5]), vec![None], some(&[7]), vec![None], some(&[500, 501])].concat();
        assert_eq!(through(&[(5, 0), (7, 1), (500, 2), (501, 3)], 4), jump);
        // One stray packet is nobody's new beginning; two in a row are.
        assert_eq!(through(&[(5000, 0), (100, 1), (5001, 2), (7, 3), (8, 4), (9, 5)], 6), some(&[5000, 5001, 8, 9]));
    }

    proptest! {
        /// Whatever is lost, doubled and shuffled within the window: what comes out is in order, each once, with a gap wherever one is
        /// missing; and nothing that came is missing.
        #[test]
        fn order_is_restored(start: u16, fates in prop::collection::vec((0u16..12, 0u8..12), 1..400)) {
            // Where nearly a window of packets is missing, what comes behind it cannot wait for what was overtaken.
            let lost_in_a_row_max = usize::from(SLOTS) - 20;
            let mut fates = fates;
            for n in 0..fates.len() {
                if n.checked_sub(lost_in_a_row_max).is_some_and(|from| fates[from..n].iter().all(|&(_, fate)| fate == 0)) {
                    fates[n].1 = 5;
                }
            }
            let mut packets: Vec<(u16, u16)> = Vec::new();
            for (n, &(delay, fate)) in fates.iter().enumerate() {
                let n = n as u16;
                if fate > 0 || n == 0 {
                    packets.push((n, n + if n == 0 { 0 } else { delay }));
                    if fate == 1 {
                        packets.push((n, n + 13));
                    }
                }
            }
            packets.sort_by_key(|&(_, at)| at);
            let timed: Vec<(u16, u64)> = packets.iter().map(|&(n, at)| (start.wrapping_add(n), u64::from(at) * 2 * MS)).collect();
            let out = through(&timed, 10_000 * MS);
            let mut expected: Vec<Option<u16>> = Vec::new();
            for (n, &(_, fate)) in fates.iter().enumerate() {
                if fate > 0 || n == 0 {
                    expected.push(Some(start.wrapping_add(n as u16)));
                } else if expected.last() != Some(&None) {
                    expected.push(None);
                }
            }
            if expected.last() == Some(&None) {
                expected.pop();
            }
            prop_assert_eq!(out, expected);
        }

        #[test]
        fn any_numbers_are_survived(packets in prop::collection::vec((any::<u16>(), 0u64..200), 0..300)) {
            let mut at = 0;
            let timed: Vec<_> = packets.iter().map(|&(seq, ms)| { at += ms * MS; (seq, at) }).collect();
            let out = through(&timed, at + 100 * MS);
            prop_assert!(out.iter().flatten().count() <= packets.len());
        }
    }
}
