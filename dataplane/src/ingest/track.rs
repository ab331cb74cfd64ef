//! One track of what arrives, from complete access units to records.

use pacing::schedule::ticks_to_ns;

use super::sync::SyncRule;
use super::times::DecodeTimes;
use crate::delivery::live::RecordHeader;
use crate::media::TrackKind;

/// Longest access unit, bytes; longer ones are dropped.
pub const UNIT_BYTES_MAX: usize = 2 << 20;
/// Time that one access unit is reckoned with, nanoseconds: at most, at least, and before there was another.
const SPAN_NS_MAX: u64 = 1_000_000_000;
const SPAN_NS_MIN: u64 = 1_000_000;
const SPAN_NS_FIRST: u64 = 20_000_000;
/// Presentation times that jump by more than this are of another time line, nanoseconds.
const JUMP_NS: i64 = 10_000_000_000;

/// What became of what arrived.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TrackCounters {
    /// Access units that became records.
    pub units: u64,
    /// Bytes of these.
    pub bytes: u64,
    /// Access units that were dropped: something of them was lost or not understood.
    pub broken_units: u64,
    /// Access units that were complete and dropped: no decoder could have used them before the next sync sample.
    pub skipped_units: u64,
    /// Records that found no room on the tape.
    pub overruns: u64,
    /// Packets that arrived.
    pub packets: u64,
    /// Packets that were lost on the way.
    pub lost_packets: u64,
    /// Packets that were late, doubled, or of no use.
    pub ignored_packets: u64,
}

/// The times of a track and what it waits for.
#[derive(Debug)]
pub struct UnitTrack {
    rule: SyncRule,
    clock_rate: u32,
    decode: DecodeTimes,
    needs_sync: bool,
    last: Option<RecordHeader>,
    usual_ns: u64,
    breaks: bool,
    /// Something was left out since the last record.
    gap: bool,
    /// What became of what arrived.
    pub counters: TrackCounters,
}

impl UnitTrack {
    /// A track to which nothing has come.
    pub fn new(rule: SyncRule, clock_rate: u32) -> Self {
        let needs_sync = rule.kind() == TrackKind::Video;
        let counters = TrackCounters::default();
        let (decode, usual_ns) = (DecodeTimes::default(), SPAN_NS_FIRST);
        Self { rule, clock_rate, decode, needs_sync, last: None, usual_ns, breaks: true, gap: false, counters }
    }

    /// Sight or sound.
    pub fn kind(&self) -> TrackKind {
        self.rule.kind()
    }

    /// Units per second of its times.
    pub fn clock_rate(&self) -> u32 {
        self.clock_rate
    }

    /// An access unit, or a part of one, was lost.
    pub fn broken(&mut self) {
        self.counters.broken_units += 1;
        self.gap = true;
        self.needs_sync |= self.rule.kind() == TrackKind::Video;
    }

    /// The header of the record that this complete access unit becomes; `None` when it is of no use. `dts` is the decode time if the
    /// sender told it; `local_ns` tells the time on the engine core's clock of a decode time.
    pub fn header(&mut self, data: &[u8], pts: i64, dts: Option<i64>, local_ns: impl FnOnce(i64) -> u64) -> Option<RecordHeader> {
        let bytes = u32::try_from(data.len()).ok().filter(|&bytes| bytes > 0)?;
        let sync = self.rule.is_sync(data);
        if self.needs_sync && !sync {
            self.counters.skipped_units += 1;
            self.gap = true;
            return None;
        }
        self.needs_sync = false;
        let jump = self.last.is_some_and(|last| ticks_to_ns(pts.saturating_sub(last.pts()), self.clock_rate).saturating_abs() > JUMP_NS);
        if jump {
            self.restart();
        }
        let dts = match (dts, self.rule) {
            (Some(dts), _) => dts,
            (None, SyncRule::Always) => pts,
            (None, _) => self.decode.next(pts),
        };
        let last = self.last.filter(|_| !self.breaks);
        let dts = last.map_or(dts, |last| dts.max(last.dts));
        // Times never fall, over a break neither: they are our own clock's.
        let at_ns = local_ns(dts).max(self.last.map_or(0, |last| last.at_ns));
        let gap = std::mem::take(&mut self.gap);
        let since_ns =
            last.filter(|_| !gap).and_then(|last| u64::try_from(ticks_to_ns(dts.saturating_sub(last.dts), self.clock_rate)).ok());
        let span_ns = self.span(since_ns);
        let offset = pts.saturating_sub(dts).clamp(i32::MIN.into(), i32::MAX.into()) as i32;
        let header = RecordHeader { at_ns, dts, pts_offset: offset, span_ns, bytes, sync, discontinuity: self.breaks };
        self.breaks = false;
        self.last = Some(header);
        self.counters.units += 1;
        self.counters.bytes += u64::from(bytes);
        Some(header)
    }

    /// How long the access unit that comes `since_ns` after the one before will last: as long as that one did, as far as that is known.
    /// Longer ones become usual step by step.
    fn span(&mut self, since_ns: Option<u64>) -> u32 {
        let usual_ns = self.usual_ns;
        if let Some(since_ns) = since_ns {
            self.usual_ns = since_ns.min(usual_ns.saturating_mul(2)).clamp(SPAN_NS_MIN, SPAN_NS_MAX);
        }
        let span_ns = since_ns.map_or(usual_ns, |since_ns| since_ns.min(usual_ns));
        u32::try_from(span_ns).unwrap_or(u32::MAX)
    }

    /// What comes now is of another sender, or another time line.
    pub fn restart(&mut self) {
        self.decode.restart();
        self.breaks = true;
    }
}
