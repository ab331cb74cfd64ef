//! How much of a disk's cycles is promised to guaranteed streams.

/// Reads a cycle, in thousandths: what a stream reserves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reads(pub u64);

impl Reads {
    /// The reads of a cycle of a stream that needs `blocks` reads in any window of `window_ns`. Rounded up.
    pub fn of(blocks: u64, window_ns: u64, cycle_ns: u64) -> Self {
        let milli = (u128::from(blocks) * 1000 * u128::from(cycle_ns)).div_ceil(u128::from(window_ns.max(1)));
        Self(u64::try_from(milli).unwrap_or(u64::MAX))
    }
}

/// A stream's reads do not fit into the disk's cycles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OverCommitted {
    /// Of each cycle, what is promised already, per mille.
    pub promised_permille: u64,
    /// What the stream would need in addition, per mille.
    pub asked_permille: u64,
    /// What may be promised, per mille.
    pub share_permille: u64,
}

impl std::fmt::Display for OverCommitted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let percent = |permille: u64| permille as f64 / 10.0;
        let (asked, promised, share) = (percent(self.asked_permille), percent(self.promised_permille), percent(self.share_permille));
        write!(f, "the stream needs {asked} % of the disk's time, {promised} % of at most {share} % are promised already")
    }
}

impl std::error::Error for OverCommitted {}

/// The promises of one disk.
#[derive(Clone, Copy, Debug)]
pub struct DiskBudget {
    cycle_ns: u64,
    share_permille: u64,
    /// Device time of a read by the profile.
    profile_read_ns: u64,
    /// And as it was observed, when it was.
    observed_read_ns: Option<u64>,
    promised: Reads,
}

/// A disk may turn out this many times faster than its profile says and is then still taken for slower.
const FASTER_MAX: u64 = 2;

impl DiskBudget {
    /// A budget of which at most `share_permille` of each cycle is promised; one read takes `read_ns` of device time by the profile.
    pub fn new(cycle_ns: u64, share_permille: u64, read_ns: u64) -> Self {
        let promised = Reads::default();
        Self { cycle_ns: cycle_ns.max(1), share_permille, profile_read_ns: read_ns.max(1), observed_read_ns: None, promised }
    }

    /// Length of a cycle, nanoseconds.
    pub fn cycle_ns(&self) -> u64 {
        self.cycle_ns
    }

    /// Device time that a read is reckoned with, nanoseconds: what was observed, but no less than half of what the profile says (a cache
    /// may have answered).
    pub fn read_ns(&self) -> u64 {
        self.observed_read_ns.map_or(self.profile_read_ns, |observed| observed.max(self.profile_read_ns / FASTER_MAX))
    }

    /// Corrects the profile by the device time per read that was observed while the disk was busy.
    pub fn observe(&mut self, read_ns: u64) {
        self.observed_read_ns = Some(read_ns.max(1));
    }

    fn permille(&self, reads: Reads) -> u64 {
        let ns = u128::from(reads.0) * u128::from(self.read_ns());
        u64::try_from(ns.div_ceil(u128::from(self.cycle_ns))).unwrap_or(u64::MAX)
    }

    /// What is promised of each cycle, per mille.
    pub fn promised_permille(&self) -> u64 {
        self.permille(self.promised)
    }

    /// Promises `reads` of each cycle.
    ///
    /// # Errors
    /// [`OverCommitted`]; nothing is promised then.
    pub fn reserve(&mut self, reads: Reads) -> Result<(), OverCommitted> {
        let all = Reads(self.promised.0.saturating_add(reads.0));
        if self.permille(all) > self.share_permille {
            let (promised_permille, asked_permille) = (self.promised_permille(), self.permille(reads));
            return Err(OverCommitted { promised_permille, asked_permille, share_permille: self.share_permille });
        }
        self.promised = all;
        Ok(())
    }

    /// Takes a promise back.
    pub fn release(&mut self, reads: Reads) {
        self.promised.0 = self.promised.0.saturating_sub(reads.0);
    }
}
