//! Transfers: what is copied or recorded into files, as an engine core carries it out.
//!
//! ```text
//! StartTransfer ─► running ─► its end ─► over ─► StopTransfer ─► stopping, until no write is under way ─► boxes back, TransferGone
//!                     └─────────────────────────────▲
//! ```
//!
//! A recording has a pair for each track, which end one by one. The file may be closed, renamed or removed once [`Event::TransferGone`] was told: then no engine core has anything to do with it.

use pacing::Clock;
use stack::host::Host;

use super::command::{Event, Refusal, Reply};
use super::core::EngineCore;
use super::modules::{AnyPair, SinkModule};
use crate::disks::Disk;
use crate::gdsl::{End, Outcome, PairId};

/// Pairs of all transfers of one engine core at once.
pub const TRANSFERS_MAX: usize = 16;

/// How far a transfer is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TransferReport {
    /// Bytes that are in the file.
    pub bytes: u64,
    /// How it ended, or the first of its pairs that failed; `None` while all go on.
    pub outcome: Option<Outcome>,
    /// Pairs that go on.
    pub going_on: u32,
}

/// One pair of a transfer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Transfer {
    key: u64,
    pair: PairId,
    outcome: Option<Outcome>,
    stopping: bool,
}

impl<H: Host, D: Disk, C: Clock> EngineCore<H, D, C> {
    pub(super) fn start_transfer(&mut self, reply: u64, key: u64, mut pairs: Vec<Box<AnyPair<D::File>>>) {
        let room = self.transfers.capacity() - self.transfers.len();
        let refused = match () {
            () if pairs.is_empty() || self.transfers.iter().any(|transfer| transfer.key == key) => Some(Refusal::State),
            () if pairs.len() > room => Some(Refusal::Full),
            () => self.prepare_recording(&mut pairs).err(),
        };
        if refused.is_none() {
            // From the back, so that taking one moves no other.
            while let Some(pair) = pairs.pop() {
                self.add_pair(key, pair);
            }
        }
        self.tell(Event::DiscardAll(pairs));
        self.tell(Event::Reply { id: reply, reply: refused.map_or(Reply::Done, Reply::Refused) });
    }

    fn add_pair(&mut self, key: u64, pair: Box<AnyPair<D::File>>) {
        match self.gdsl.add(pair) {
            Ok(pair) => {
                let now_ns = self.clock.now_ns();
                self.transfers.push(Transfer { key, pair, outcome: None, stopping: false });
                self.gdsl.wake(pair, End::Source, now_ns);
                self.gdsl.wake(pair, End::Destination, now_ns);
            }
            // The executor has places for as many as there may be, beside all tracks: this is not the way it goes.
            Err(pair) => self.tell(Event::Discard(pair)),
        }
    }

    /// Ends the transfer, whatever state it is in; [`Event::TransferGone`] follows.
    pub(super) fn stop_transfer(&mut self, reply: u64, key: u64) {
        let mut answer = Reply::Refused(Refusal::NoTransfer);
        for transfer in self.transfers.iter_mut().filter(|transfer| transfer.key == key) {
            transfer.stopping = true;
            self.gdsl.clear_link(transfer.pair);
            answer = Reply::Done;
        }
        self.tell(Event::Reply { id: reply, reply: answer });
    }

    /// What is recorded is recorded up to now.
    pub(super) fn end_recording(&mut self, reply: u64, key: u64) {
        let mut answer = Reply::Refused(Refusal::NoTransfer);
        let now_ns = self.clock.now_ns();
        for transfer in self.transfers.iter().filter(|transfer| transfer.key == key) {
            if let Some(SinkModule::Record(sink)) = self.gdsl.pair_mut(transfer.pair).map(|pair| &mut pair.destination) {
                sink.end();
            }
            self.gdsl.wake(transfer.pair, End::Destination, now_ns);
            answer = Reply::Done;
        }
        self.tell(Event::Reply { id: reply, reply: answer });
    }

    pub(super) fn transfer_status(&mut self, reply: u64, key: u64) {
        let known = self.transfers.iter().any(|transfer| transfer.key == key);
        let answer = if known { Reply::Transfer(self.report(key)) } else { Reply::Refused(Refusal::NoTransfer) };
        self.tell(Event::Reply { id: reply, reply: answer });
    }

    fn report(&mut self, key: u64) -> TransferReport {
        let mut report = TransferReport::default();
        let (mut failed, mut ended) = (None, None);
        for transfer in self.transfers.iter().filter(|transfer| transfer.key == key) {
            report.bytes += match self.gdsl.pair_mut(transfer.pair).map(|pair| &pair.destination) {
                Some(SinkModule::File(sink)) => sink.written(),
                Some(SinkModule::Record(sink)) => sink.written(),
                Some(SinkModule::Track(_)) | None => 0,
            };
            match transfer.outcome {
                None => report.going_on += 1,
                Some(Outcome::Ended) => ended = transfer.outcome,
                Some(Outcome::Failed(_)) => failed = failed.or(transfer.outcome),
            }
        }
        report.outcome = failed.or(ended.filter(|_| report.going_on == 0));
        report
    }

    /// Notes the end of a pair of a transfer; false when the pair is none's.
    pub(super) fn transfer_ended(&mut self, pair: PairId, outcome: Outcome) -> bool {
        let Some(transfer) = self.transfers.iter_mut().find(|transfer| transfer.pair == pair) else { return false };
        // Nothing that follows a failure changes that it failed.
        if transfer.outcome.is_none() {
            transfer.outcome = Some(outcome);
            let key = transfer.key;
            let report = self.report(key);
            self.tell(Event::TransferOver { transfer: key, report });
        }
        true
    }

    /// Lets go of the pairs that are to stop and have nothing under way any more.
    pub(super) fn release_transfers(&mut self) -> bool {
        let mut any = false;
        let mut at = 0;
        while let Some(transfer) = self.transfers.get(at).copied() {
            if !transfer.stopping || self.gdsl.writes_under_way(transfer.pair) > 0 {
                at += 1;
                continue;
            }
            self.transfers.swap_remove(at);
            if let Some(pair) = self.gdsl.remove(transfer.pair) {
                self.tell(Event::Discard(pair));
            }
            if !self.transfers.iter().any(|other| other.key == transfer.key) {
                self.tell(Event::TransferGone { transfer: transfer.key });
            }
            any = true;
        }
        any
    }
}
