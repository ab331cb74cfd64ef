//! Deliveries that cannot keep up: how far behind they may fall, and how they go on from a later sync sample.
//!
//! A delivery that gets too little of the disk or the network is late, loses nothing and keeps its RTP time line. When it is later than
//! its [`LagPolicy`] allows, or when the disk cannot read what is due, it drops what lies before a later sync sample (sound: a later
//! frame) and goes on there: sequence numbers run on, RTP times jump with the media. Receivers see a cut, never a damaged stream.

use pacing::schedule::{ns_to_ticks, ticks_to_ns};
use stack::host::Host;

use super::super::walk::BlockWalk;
use super::feed::{Feed, Next, TitleFeed};
use super::packet::Missing;
use super::{Current, Place, TAPE_PATIENCE_NS, TrackSender};
use crate::disks::Disk;
use crate::gdsl::{BlockState, IoBatch, NextUpcall};
use crate::media::TrackKind;

/// Skips without a packet in between that end the delivery: the disk reads nothing any more.
const SKIPS_IN_A_ROW_MAX: u32 = 8;
/// Places that are looked at for one that does not lie in an unreadable block.
const CANDIDATES_MAX: u32 = 256;

/// What becomes of a delivery that is further behind than it may be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LagAction {
    /// It goes on with the first sync sample that is not late.
    #[default]
    Skip,
    /// It ends.
    End,
}

/// How far a delivery may fall behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LagPolicy {
    /// Highest lateness, nanoseconds; `u64::MAX` for any.
    pub max_ns: u64,
    /// What happens beyond it.
    pub action: LagAction,
}

impl Default for LagPolicy {
    /// Any lateness will do.
    fn default() -> Self {
        Self { max_ns: u64::MAX, action: LagAction::Skip }
    }
}

impl TrackSender {
    pub(super) fn is_too_late(&self, now_ns: u64, due_ns: u64) -> bool {
        now_ns.saturating_sub(due_ns) > self.lag_max_ns()
    }

    /// The policy's limit, and twice as much after each skip that brought no packet: what was asked for is on its way, and skipping again
    /// would only ask for more.
    fn lag_max_ns(&self) -> u64 {
        self.config.lag.max_ns.saturating_mul(1 << self.skips_in_a_row.min(SKIPS_IN_A_ROW_MAX))
    }

    /// There is something to go on with in place of the current sample, or the delivery is to end.
    pub(super) fn may_drop_behind<H: Host, D: Disk>(&self, current: &Current, io: &IoBatch<'_, H, D>) -> bool {
        match &self.feed {
            Feed::Title(_) => true,
            Feed::Tape(feed) => {
                let mark = io.tape(feed.tape).and_then(|place| place.mark);
                self.config.lag.action == LagAction::End || mark.is_some_and(|(offset, _)| offset > current.sample.offset)
            }
        }
    }

    /// The current packet's bytes are on their way; they are waited for until it is too late for them.
    pub(super) fn wait_for_data<H: Host, D: Disk>(&mut self, now_ns: u64, io: &mut IoBatch<'_, H, D>) -> NextUpcall {
        let Some(due_ns) = self.current.and_then(|current| self.due_ns(&current)) else { return NextUpcall::OnLink };
        if self.is_too_late(now_ns, due_ns) {
            return self.drop_behind(now_ns, io);
        }
        match due_ns.saturating_add(self.lag_max_ns()) {
            u64::MAX => NextUpcall::OnLink,
            last_ns => NextUpcall::OnLinkOrAt(last_ns.saturating_add(1)),
        }
    }

    /// It is further behind than it may be.
    pub(super) fn drop_behind<H: Host, D: Disk>(&mut self, now_ns: u64, io: &mut IoBatch<'_, H, D>) -> NextUpcall {
        if self.config.lag.action == LagAction::End {
            return self.fail("the delivery fell further behind than it may", io);
        }
        if self.skips_in_a_row >= SKIPS_IN_A_ROW_MAX {
            return self.fail("the disk does not answer", io);
        }
        let Feed::Title(feed) = &self.feed else { return self.catch_up_with_tape(now_ns, io) };
        let Some(track) = feed.title.tracks.get(feed.track) else { return self.fail("the title has no such track", io) };
        // Rounded up: a sample that begins before now would be late at once.
        let ticks = ns_to_ticks(self.timeline.dts_at(now_ns), track.timescale).saturating_add(1);
        let first = track.samples.first_at_or_after(ticks).max(feed.next);
        let target = feed.entry_from(first);
        self.skip_to(target, now_ns, io)
    }

    /// The block at file offset `unreadable` cannot be read: the delivery goes on behind it.
    pub(super) fn conceal<H: Host, D: Disk>(&mut self, unreadable: u64, now_ns: u64, io: &mut IoBatch<'_, H, D>) -> NextUpcall {
        if self.skips_in_a_row >= SKIPS_IN_A_ROW_MAX {
            return self.fail("the disk cannot read the file", io);
        }
        let unreadable_end = unreadable.saturating_add(io.block_bytes() as u64);
        let Feed::Title(feed) = &self.feed else { return self.catch_up_with_tape(now_ns, io) };
        let mut target = feed.entry_from(feed.next);
        for _ in 0..CANDIDATES_MAX {
            let sample = feed.title.tracks.get(feed.track).and_then(|track| track.samples.get(target)).filter(|_| target < feed.end);
            let Some(sample) = sample else { break };
            if sample.offset >= unreadable_end || sample.offset + u64::from(sample.size) <= unreadable {
                break;
            }
            target = feed.entry_from(target.saturating_add(1));
        }
        self.skip_to(target, now_ns, io)
    }

    /// The current record's bytes are not in the link: they come when its source has had its turn, or they are lost.
    pub(super) fn wait_for_tape<H: Host, D: Disk>(&mut self, now_ns: u64, io: &mut IoBatch<'_, H, D>) -> NextUpcall {
        let (Some(current), Feed::Tape(feed)) = (self.current, &self.feed) else { return NextUpcall::At(now_ns) };
        let Place { in_link, .. } = self.place(&current, io.block_bytes() as u64);
        match feed.missing(in_link, current.at(), io) {
            Next::Lost => self.catch_up_with_tape(now_ns, io),
            Next::End => self.end(now_ns, io),
            _ => NextUpcall::OnLinkOrAt(now_ns + TAPE_PATIENCE_NS),
        }
    }

    /// Goes on from the newest place of the tape that a decoder can start with; as it is, when there is none that is newer.
    pub(super) fn catch_up_with_tape<H: Host, D: Disk>(&mut self, now_ns: u64, io: &mut IoBatch<'_, H, D>) -> NextUpcall {
        let block_bytes = io.block_bytes() as u64;
        let from = self.current.map(|current| current.sample.offset);
        let Feed::Tape(feed) = &mut self.feed else { return NextUpcall::At(now_ns) };
        let Some(place) = io.tape(feed.tape) else { return self.end(now_ns, io) };
        let Some(offset) = feed.jump_ahead(from, place, block_bytes) else { return NextUpcall::At(now_ns + TAPE_PATIENCE_NS) };
        self.begin_elsewhere(offset, io);
        NextUpcall::At(now_ns)
    }

    fn skip_to<H: Host, D: Disk>(&mut self, target: u32, now_ns: u64, io: &mut IoBatch<'_, H, D>) -> NextUpcall {
        if let Feed::Title(feed) = &mut self.feed {
            (feed.next, feed.walk) = (target, BlockWalk::default());
        }
        self.begin_elsewhere(target.into(), io);
        NextUpcall::At(now_ns)
    }

    /// Has the source go on from `mark`.
    fn begin_elsewhere<H: Host, D: Disk>(&mut self, mark: u64, io: &mut IoBatch<'_, H, D>) {
        if self.held_back.take().is_some() {
            self.rtp.take_back();
        }
        self.status.skips += 1;
        self.skips_in_a_row += 1;
        (self.current, self.released) = (None, 0);
        io.restart_from(mark);
    }

    /// Why the current sample's next packet cannot be made.
    pub(super) fn missing<H: Host, D: Disk>(&self, io: &IoBatch<'_, H, D>) -> Missing {
        let Some(current) = self.current else { return Missing::Nothing };
        let (mut at, end) = (current.at(), current.sample.offset + u64::from(current.sample.size));
        let Place { in_link: mut place, block_bytes } = self.place(&current, io.block_bytes() as u64);
        let mut block_end = current.block_end;
        while at < end {
            match io.block(place) {
                None | Some((_, BlockState::Reading)) => return Missing::OnItsWay,
                Some((_, BlockState::Failed(error))) if error.is_for_good() => return Missing::ForGood("the file or its disk is gone"),
                Some((offset, BlockState::Failed(_))) => return Missing::Unreadable(offset),
                Some((offset, BlockState::Ready(bytes))) if offset + (bytes.len() as u64) < end.min(block_end) => {
                    return Missing::ForGood("the file is shorter than it was");
                }
                Some((_, BlockState::Ready(_))) => (at, block_end, place) = (block_end, block_end + block_bytes, place + 1),
            }
        }
        Missing::Nothing
    }

    pub(super) fn end_dts_ns(&self) -> i64 {
        let feed = match &self.feed {
            Feed::Title(feed) => feed,
            Feed::Tape(feed) => return feed.end_ns,
        };
        let track = feed.title.tracks.get(feed.track);
        let last = track.and_then(|t| Some((t.samples.get(feed.end.checked_sub(1)?)?, t.timescale)));
        last.map_or(self.timeline.start_dts_ns, |(s, scale)| ticks_to_ns(s.dts.saturating_add(i64::from(s.duration)), scale))
    }
}

impl TitleFeed {
    /// The first sample at or after `first` that a decoder can start with; the end of the range when there is none.
    fn entry_from(&self, first: u32) -> u32 {
        let Some(track) = self.title.tracks.get(self.track) else { return self.end };
        let entry = match track.kind {
            TrackKind::Video => track.samples.sync_from(first).unwrap_or(self.end),
            TrackKind::Audio => first,
        };
        entry.min(self.end)
    }
}
