//! The source of whoever follows a tape: puts its blocks on the link, from a mark on.

use stack::host::Host;

use crate::disks::Disk;
use crate::gdsl::{IoBatch, IssueModule, NextUpcall, TapeId, TapeIssue};

/// The source module of a reader of a tape.
///
/// It sleeps until [`TapeSource::start`] or its destination ([`IoBatch::restart_from`], with an offset of the tape) says where to begin.
/// The link then holds the blocks from there on without a gap: those that are retained, and up to two that are still to come, which the
/// destination waits for as for a read. When the next block is not retained any more, or the tape is gone, nothing further is put on the
/// link: a destination that finds the link at its end compares its position with [`IoBatch::tape`].
#[derive(Debug)]
pub struct TapeSource {
    tape: TapeId,
    next: Option<u64>,
}

impl TapeSource {
    /// A source of this tape, which sleeps.
    pub fn new(tape: TapeId) -> Self {
        Self { tape, next: None }
    }

    /// The tape.
    pub fn tape(&self) -> TapeId {
        self.tape
    }

    /// Another tape from now on.
    pub fn set_tape(&mut self, tape: TapeId) {
        (self.tape, self.next) = (tape, None);
    }

    /// Begins with the block that holds the tape's byte at `offset`, once the peer is woken. The pair's link must be empty.
    pub fn start(&mut self, offset: u64) {
        self.next = Some(offset);
    }
}

impl<H: Host, D: Disk> IssueModule<H, D> for TapeSource {
    fn upcall(&mut self, _now_ns: u64, io: &mut IoBatch<'_, H, D>) -> NextUpcall {
        let block_bytes = io.block_bytes() as u64;
        if let Some(offset) = io.take_mark() {
            self.next = Some(offset);
        }
        let Some(next) = self.next else { return NextUpcall::Never };
        let mut block = next / block_bytes * block_bytes;
        loop {
            match io.read_tape(self.tape, block) {
                TapeIssue::Issued => block += block_bytes,
                TapeIssue::NoRoom | TapeIssue::Later => {
                    self.next = Some(block);
                    return NextUpcall::OnLink;
                }
                TapeIssue::Gone => return NextUpcall::Never,
            }
        }
    }
}
