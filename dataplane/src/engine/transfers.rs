//! Transfers: what is copied or recorded into files, as an engine core carries it out.
//!
//! ```text
//! StartTransfer ─► running ─► its end ─► over ─► StopTransfer ─► stopping, until no write is under way ─► boxes back, TransferGone
//!                     └─────────────────────────────▲
//! ```
//!
//! The file may be closed, renamed or removed once [`Event::TransferGone`] was told: then no engine core has anything to do with it.

use pacing::Clock;
use stack::host::Host;

use super::command::{Event, Refusal, Reply};
use super::core::EngineCore;
use super::modules::{AnyPair, SinkModule};
use crate::disks::Disk;
use crate::gdsl::{End, Outcome, PairId};

/// Transfers of one engine core at once.
pub const TRANSFERS_MAX: usize = 16;

/// How far a transfer is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TransferReport {
    /// Bytes that are in the file.
    pub bytes: u64,
    /// How it ended; `None` while it goes on.
    pub outcome: Option<Outcome>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Transfer {
    key: u64,
    pair: PairId,
    outcome: Option<Outcome>,
    stopping: bool,
}

impl<H: Host, D: Disk, C: Clock> EngineCore<H, D, C> {
    pub(super) fn start_transfer(&mut self, reply: u64, key: u64, pair: Box<AnyPair<D::File>>) {
        let refused = if self.transfers.iter().any(|transfer| transfer.key == key) { Some(Refusal::State) } else { None };
        let has_room = self.transfers.len() < self.transfers.capacity();
        let added = match refused {
            None if has_room => self.gdsl.add(pair).map_err(|pair| (Refusal::Full, pair)),
            refused => Err((refused.unwrap_or(Refusal::Full), pair)),
        };
        let answer = match added {
            Ok(pair) => {
                let now_ns = self.clock.now_ns();
                self.transfers.push(Transfer { key, pair, outcome: None, stopping: false });
                self.gdsl.wake(pair, End::Source, now_ns);
                self.gdsl.wake(pair, End::Destination, now_ns);
                Reply::Done
            }
            Err((refusal, pair)) => {
                self.tell(Event::Discard(pair));
                Reply::Refused(refusal)
            }
        };
        self.tell(Event::Reply { id: reply, reply: answer });
    }

    /// Ends the transfer, whatever state it is in; [`Event::TransferGone`] follows.
    pub(super) fn stop_transfer(&mut self, reply: u64, key: u64) {
        let answer = match self.transfers.iter_mut().find(|transfer| transfer.key == key) {
            Some(transfer) => {
                transfer.stopping = true;
                let pair = transfer.pair;
                self.gdsl.clear_link(pair);
                Reply::Done
            }
            None => Reply::Refused(Refusal::NoTransfer),
        };
        self.tell(Event::Reply { id: reply, reply: answer });
    }

    pub(super) fn transfer_status(&mut self, reply: u64, key: u64) {
        let answer = match self.transfers.iter().copied().find(|transfer| transfer.key == key) {
            Some(transfer) => Reply::Transfer(self.report(transfer)),
            None => Reply::Refused(Refusal::NoTransfer),
        };
        self.tell(Event::Reply { id: reply, reply: answer });
    }

    fn report(&mut self, transfer: Transfer) -> TransferReport {
        let bytes = match self.gdsl.pair_mut(transfer.pair).map(|pair| &pair.destination) {
            Some(SinkModule::File(sink)) => sink.written(),
            Some(SinkModule::Track(_)) | None => 0,
        };
        TransferReport { bytes, outcome: transfer.outcome }
    }

    /// Notes the end of a transfer; false when the pair is none's.
    pub(super) fn transfer_ended(&mut self, pair: PairId, outcome: Outcome) -> bool {
        let Some(transfer) = self.transfers.iter_mut().find(|transfer| transfer.pair == pair) else { return false };
        // Nothing that follows a failure changes that it failed.
        if transfer.outcome.is_none() {
            transfer.outcome = Some(outcome);
            let transfer = *transfer;
            let report = self.report(transfer);
            self.tell(Event::TransferOver { transfer: transfer.key, report });
        }
        true
    }

    /// Lets go of the transfers that are to stop and have nothing under way any more.
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
            self.tell(Event::TransferGone { transfer: transfer.key });
            any = true;
        }
        any
    }
}
