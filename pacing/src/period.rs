//! Who has an engine core's time within a period: what guaranteed work has reserved, and what is left for everything else.
//!
//! ```text
//! one period   |#### reserved for guaranteed work ####|.... left ....|
//!
//! guaranteed work is due     everything else goes on in slices, and in all periods together for no longer than what is left
//! nothing of it is due       everything else goes on in slices
//! ```
//!
//! Work is not taken back once it has begun, so each slice is short, and what goes on when its slice is over was bounded beforehand: a
//! command, a datagram, an upcall. What it took too much is missing in the next period; but what takes longer than any piece of work can
//! was interrupted, by another thread or by the machine's owner, and nobody is made to pay for that. So of any period guaranteed work gets at least
//! what it has reserved, less the longest single piece of other work; and the others get at least what is left, however much guaranteed
//! work there is.

/// Kinds of work that have no reservation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unreserved {
    /// Commands of the control core: set-ups, starts, stops, status, bytes for streams.
    Commands,
    /// What clients send, and what a stack of our own has to do for it.
    Receive,
    /// Sessions that begin and end.
    Sessions,
    /// Upcalls of best-effort peers, and their packets.
    BestEffort,
    /// Disk reads of best-effort peers.
    Reads,
    /// Byte streams that carry nothing guaranteed.
    Streams,
}

impl Unreserved {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Commands, Self::Receive, Self::Sessions, Self::BestEffort, Self::Reads, Self::Streams];

    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Commands => "commands",
            Self::Receive => "receive",
            Self::Sessions => "sessions",
            Self::BestEffort => "best-effort",
            Self::Reads => "reads",
            Self::Streams => "streams",
        }
    }
}

/// What one kind of work came to since start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spent {
    /// Time that it took, nanoseconds.
    pub ns: u64,
    /// Its longest slice, nanoseconds: what guaranteed work may have waited for at a stretch. What interrupted it is contained.
    pub longest_ns: u64,
    /// Times that it was put off, because the time was reserved or the slice was over.
    pub put_off: u64,
}

/// Time that one kind of work was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slice {
    kind: Unreserved,
    from_ns: u64,
    until_ns: u64,
    contested: bool,
}

impl Slice {
    /// No further piece of work is to be begun.
    pub fn is_over(&self, now_ns: u64) -> bool {
        now_ns >= self.until_ns
    }

    /// When it began.
    pub fn from_ns(&self) -> u64 {
        self.from_ns
    }

    /// How many pieces of work fit that take `each_ns`; at least one.
    pub fn pieces(&self, each_ns: u64) -> u64 {
        ((self.until_ns - self.from_ns) / each_ns.max(1)).max(1)
    }
}

/// How long other work goes on before guaranteed work is looked at again, nanoseconds.
const SLICE_NS: u64 = 100_000;
/// No piece of work takes this long, nanoseconds: what does was interrupted.
const PIECE_NS_MAX: u64 = 1_000_000;
/// Of a period, what can be reserved at most, per mille: so much that commands still come through when work is dearer than it was thought
/// when it was admitted.
const RESERVED_PERMILLE_MAX: u64 = 900;

/// The account of one engine core.
#[derive(Clone, Copy, Debug)]
pub struct Period {
    length_ns: u64,
    ends_ns: u64,
    reserved_ns: u64,
    /// What other work may still take while guaranteed work is due; below 0 what it took too much.
    left_ns: i64,
    spent: [Spent; Unreserved::ALL.len()],
}

impl Period {
    /// An account of periods of `length_ns`, of which nothing is reserved yet.
    pub fn new(length_ns: u64, now_ns: u64) -> Self {
        let length_ns = length_ns.max(1);
        let left_ns = i64::try_from(length_ns).unwrap_or(i64::MAX);
        Self { length_ns, ends_ns: now_ns.saturating_add(length_ns), reserved_ns: 0, left_ns, spent: Default::default() }
    }

    /// Is the period over? Then [`Self::begin`] is to be called.
    pub fn is_over(&self, now_ns: u64) -> bool {
        now_ns >= self.ends_ns
    }

    /// Begins the period that `now_ns` is in, of which guaranteed work has reserved this much.
    pub fn begin(&mut self, now_ns: u64, reserved_permille: u64) {
        let reserved = u128::from(reserved_permille.min(RESERVED_PERMILLE_MAX));
        self.reserved_ns = (u128::from(self.length_ns) * reserved / 1000) as u64;
        let periods = now_ns.saturating_sub(self.ends_ns) / self.length_ns + 1;
        self.ends_ns = self.ends_ns.saturating_add(periods.saturating_mul(self.length_ns));
        let fresh_ns = i64::try_from(self.length_ns - self.reserved_ns).unwrap_or(i64::MAX);
        // What was not used is not saved up. What was taken too much is made good by every period since.
        let made_good_ns = fresh_ns.saturating_mul(i64::try_from(periods).unwrap_or(i64::MAX));
        self.left_ns = self.left_ns.min(0).saturating_add(made_good_ns).min(fresh_ns);
    }

    /// Of a period, what is reserved, nanoseconds.
    pub fn reserved_ns(&self) -> u64 {
        self.reserved_ns
    }

    /// Length of a period, nanoseconds.
    pub fn length_ns(&self) -> u64 {
        self.length_ns
    }

    /// The time that work of this kind may have from now on; `None`: it is put off, and that is counted. `contested`: guaranteed work is
    /// due.
    pub fn slice(&mut self, kind: Unreserved, now_ns: u64, contested: bool) -> Option<Slice> {
        let length_ns = if contested { u64::try_from(self.left_ns).unwrap_or(0).min(SLICE_NS) } else { SLICE_NS };
        if length_ns == 0 {
            self.put_off(kind);
            return None;
        }
        Some(Slice { kind, from_ns: now_ns, until_ns: now_ns.saturating_add(length_ns), contested })
    }

    /// There is more work of this kind than its slice was long.
    pub fn put_off(&mut self, kind: Unreserved) {
        self.of(kind).put_off += 1;
    }

    /// The work of a slice went on until now.
    pub fn took(&mut self, slice: Slice, now_ns: u64) {
        let ns = now_ns.saturating_sub(slice.from_ns);
        let spent = self.of(slice.kind);
        spent.ns = spent.ns.saturating_add(ns);
        spent.longest_ns = spent.longest_ns.max(ns);
        let left_ns = self.left_ns.saturating_sub(ns.min(PIECE_NS_MAX) as i64);
        // Time that nobody else wanted is not owed to anyone.
        self.left_ns = if slice.contested { left_ns } else { left_ns.max(self.left_ns.min(0)) };
    }

    /// What a kind of work came to since start.
    pub fn spent(&self, kind: Unreserved) -> Spent {
        self.spent[kind as usize]
    }

    fn of(&mut self, kind: Unreserved) -> &mut Spent {
        &mut self.spent[kind as usize]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MS: u64 = 1_000_000;

    fn length(slice: Option<Slice>) -> u64 {
        slice.map_or(0, |slice| slice.until_ns - slice.from_ns)
    }

    /// Work goes on for this long, however long its slice is.
    fn work(period: &mut Period, kind: Unreserved, ns: u64, contested: bool) {
        let slice = period.slice(kind, 0, contested).unwrap();
        period.took(slice, ns);
    }

    #[test]
    fn others_get_what_is_left_and_make_good_what_they_took_too_much() {
        use Unreserved::{BestEffort, Commands};
        let mut period = Period::new(8 * MS, 0);
        period.begin(8 * MS, 750);
        assert_eq!(period.reserved_ns(), 6 * MS);
        // 2 ms are left, in slices of 0.1 ms.
        for _ in 0..19 {
            assert_eq!(length(period.slice(Commands, 0, true)), SLICE_NS);
            work(&mut period, Commands, SLICE_NS, true);
        }
        // The last one takes 0.8 ms more than it should.
        work(&mut period, BestEffort, 9 * MS / 10, true);
        assert_eq!(period.slice(Commands, 0, true), None);
        // Nothing guaranteed is due: nobody is kept waiting, and nothing is owed for it.
        assert_eq!(length(period.slice(Commands, 0, false)), SLICE_NS);
        work(&mut period, Commands, 3 * MS, false);
        assert!(!period.is_over(16 * MS - 1) && period.is_over(16 * MS));
        period.begin(16 * MS, 750);
        work(&mut period, Commands, 6 * MS / 10, true);
        work(&mut period, Commands, 6 * MS / 10 - 1, true);
        assert_eq!((length(period.slice(Commands, 0, true)), period.spent(BestEffort).longest_ns), (1, 9 * MS / 10));
        // After a long pause there is no more than in any period.
        period.begin(800 * MS + 1, 750);
        work(&mut period, Commands, MS, true);
        work(&mut period, Commands, MS, true);
        assert_eq!((period.slice(Commands, 0, true), period.spent(Commands).put_off), (None, 2));
        assert!(!period.is_over(808 * MS - 1) && period.is_over(808 * MS));
    }

    #[test]
    fn nobody_pays_for_an_interruption() {
        let mut period = Period::new(8 * MS, 0);
        period.begin(8 * MS, RESERVED_PERMILLE_MAX);
        // Within a slice another thread has the processor for a second.
        work(&mut period, Unreserved::Receive, 1000 * MS, true);
        assert_eq!((period.slice(Unreserved::Commands, 0, true), period.spent(Unreserved::Receive).longest_ns), (None, 1000 * MS));
        period.begin(16 * MS, RESERVED_PERMILLE_MAX);
        assert_eq!(length(period.slice(Unreserved::Commands, 0, true)), SLICE_NS);
    }

    proptest! {
        /// Guaranteed work is always due: other work gets what is left, to within one piece, and never less.
        #[test]
        fn of_any_number_of_periods_guaranteed_work_gets_what_it_reserved(
            reserved in 0u64..1000,
            pieces in prop::collection::vec((0usize..6, 1u64..400_000), 200..600),
        ) {
            let mut period = Period::new(8 * MS, 0);
            period.begin(8 * MS, reserved);
            let (mut now_ns, mut others_ns, mut longest_ns) = (8 * MS, 0, 0);
            let left_ns = 8 * MS - 8 * MS * reserved.min(RESERVED_PERMILLE_MAX) / 1000;
            for (kind, ns) in pieces {
                let slice = loop {
                    if period.is_over(now_ns) {
                        period.begin(now_ns, reserved);
                    }
                    if let Some(slice) = period.slice(Unreserved::ALL[kind], now_ns, true) {
                        break slice;
                    }
                    // Guaranteed work goes on meanwhile.
                    now_ns += 50_000;
                };
                now_ns += ns;
                (others_ns, longest_ns) = (others_ns + ns, longest_ns.max(ns));
                period.took(slice, now_ns);
                let periods = now_ns / (8 * MS);
                prop_assert!(others_ns <= periods * left_ns + longest_ns, "{} ns in {} periods", others_ns, periods);
            }
            let waited_ns = now_ns - 8 * MS - others_ns;
            let reserved_ns = 8 * MS - left_ns;
            prop_assert!(waited_ns <= (now_ns / (8 * MS) + 1) * (reserved_ns + 50_000), "nobody waits for more than is reserved");
            let spent: u64 = Unreserved::ALL.iter().map(|&kind| period.spent(kind).ns).sum();
            prop_assert_eq!(spent, others_ns);
        }
    }
}
