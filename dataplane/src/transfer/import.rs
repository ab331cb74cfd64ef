//! Import: the pair of modules that copies a file.
//!
//! ```text
//! FileSource: block after block, no faster than it may ─► link ─► FileSink: the same blocks to the same places of another file
//! ```
//!
//! No byte is copied in memory: the chunk that a read has filled is the one that is written. At most as many blocks as the link holds are
//! on their way from one file to the other, and a few more are being written.

use pacing::NS_PER_SEC;
use stack::host::Host;

use crate::disks::{Disk, DiskError};
use crate::gdsl::{
    BlockState, Class, IoBatch, IssueModule, Lateness, Link, NextUpcall, Outcome, Pair, ReadIssue, WRITES_PER_PAIR_MAX, WriteIssue,
};

/// Blocks on their way from one file to the other.
const LINK_BLOCKS: usize = 16;
/// Buffers that an import needs at most.
pub const IMPORT_CHUNKS: usize = LINK_BLOCKS + WRITES_PER_PAIR_MAX;
/// Blocks asked for, or written, in one upcall at most; what is left waits for the next turn.
const BLOCKS_PER_UPCALL: usize = 4;
/// How soon to try again when no buffer is free, or too much is written.
const RETRY_NS: u64 = 2_000_000;

/// The pair that copies the first `bytes` of `from` to `to`, best-effort, at no more than `rate_bps` if that is given. Pairs with equal
/// `from_key` share what they read.
pub fn import<F: Clone>(from: F, from_key: u64, to: F, bytes: u64, rate_bps: Option<u64>) -> Pair<FileSource<F>, FileSink<F>> {
    Pair {
        source: FileSource { file: from, key: from_key, bytes, next: 0, rate_bps, begun_ns: None },
        destination: FileSink { file: to, bytes, issued: 0, written: 0, over: false },
        link: Link::new(LINK_BLOCKS),
        class: Class::BestEffort,
        lateness: Lateness::new(),
    }
}

/// Reads a file from its start to its end.
#[derive(Debug)]
pub struct FileSource<F> {
    file: F,
    key: u64,
    bytes: u64,
    /// Offset of the next block.
    next: u64,
    rate_bps: Option<u64>,
    begun_ns: Option<u64>,
}

impl<F> FileSource<F> {
    /// When the next block may be read.
    fn due_ns(&self, begun_ns: u64) -> u64 {
        let Some(rate_bps) = self.rate_bps else { return begun_ns };
        let after_ns = u128::from(self.next) * 8 * u128::from(NS_PER_SEC) / u128::from(rate_bps.max(1));
        begun_ns.saturating_add(u64::try_from(after_ns).unwrap_or(u64::MAX))
    }
}

impl<H: Host, D: Disk> IssueModule<H, D> for FileSource<D::File> {
    fn upcall(&mut self, now_ns: u64, io: &mut IoBatch<'_, H, D>) -> NextUpcall {
        let begun_ns = *self.begun_ns.get_or_insert(now_ns);
        for _ in 0..BLOCKS_PER_UPCALL {
            if self.next >= self.bytes {
                return NextUpcall::Never;
            }
            let due_ns = self.due_ns(begun_ns);
            if due_ns > now_ns {
                return NextUpcall::At(due_ns);
            }
            match io.read(&self.file, self.key, self.next, now_ns) {
                ReadIssue::Issued => self.next += io.block_bytes() as u64,
                ReadIssue::NoRoom => return NextUpcall::OnLink,
                ReadIssue::NoChunk => return NextUpcall::At(now_ns + RETRY_NS),
            }
        }
        NextUpcall::At(now_ns)
    }
}

/// Writes what comes over the link to a file, each block to where it was in the other one.
#[derive(Debug)]
pub struct FileSink<F> {
    file: F,
    bytes: u64,
    /// Bytes that are on their way to the disk, or there.
    issued: u64,
    written: u64,
    over: bool,
}

impl<F> FileSink<F> {
    /// Bytes that are in the file.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// The next block's bytes are to be these; why they are not.
    fn check(&self, block_bytes: u64, found: &BlockState) -> Result<(), &'static str> {
        let expected = block_bytes.min(self.bytes - self.issued);
        match found {
            BlockState::Ready(slice) if (slice.len() as u64) < expected => Err("the source has become shorter while it was copied"),
            BlockState::Failed(error) if error.is_for_good() => Err("the source or its disk is gone"),
            BlockState::Failed(_) => Err("the disk cannot read the source"),
            BlockState::Ready(_) | BlockState::Reading => Ok(()),
        }
    }

    fn over<H: Host, D: Disk>(&mut self, outcome: Outcome, io: &mut IoBatch<'_, H, D>) -> NextUpcall {
        self.over = true;
        io.finish(outcome);
        NextUpcall::Never
    }
}

/// Why a write failed, for people.
pub(super) fn why_not_written(error: DiskError) -> &'static str {
    let DiskError::Os(number) = error;
    match number {
        libc::ENOSPC | libc::EDQUOT => "the disk is full",
        libc::EFBIG => "the file system takes no file of this size",
        libc::EROFS => "the file system is read-only",
        _ if error.is_for_good() => "the file or its disk is gone",
        _ => "the disk cannot write the file",
    }
}

impl<H: Host, D: Disk> IssueModule<H, D> for FileSink<D::File> {
    fn upcall(&mut self, now_ns: u64, io: &mut IoBatch<'_, H, D>) -> NextUpcall {
        while let Some(write) = io.take_written() {
            match write.result {
                Ok(()) => self.written += write.bytes as u64,
                Err(error) if !self.over => return self.over(Outcome::Failed(why_not_written(error)), io),
                Err(_) => {}
            }
        }
        if self.over {
            return NextUpcall::Never;
        }
        for _ in 0..BLOCKS_PER_UPCALL {
            if self.issued >= self.bytes {
                return if self.written >= self.bytes { self.over(Outcome::Ended, io) } else { NextUpcall::Never };
            }
            let block_bytes = io.block_bytes() as u64;
            let Some((offset, found)) = io.block(0) else { return NextUpcall::OnLink };
            if let Err(why) = self.check(block_bytes, found) {
                return self.over(Outcome::Failed(why), io);
            }
            let BlockState::Ready(slice) = found else { return NextUpcall::OnLink };
            // A source that has grown is copied as far as it was when the import began.
            let len = slice.len().min(usize::try_from(self.bytes - self.issued).unwrap_or(usize::MAX));
            let Some(slice) = slice.sub(0..len) else { return NextUpcall::OnLink };
            match io.write(&self.file, offset, slice) {
                WriteIssue::Issued => {
                    io.pop_for_good();
                    self.issued += len as u64;
                }
                WriteIssue::NoRoom => return NextUpcall::Never,
                WriteIssue::Busy => return NextUpcall::At(now_ns + RETRY_NS),
            }
        }
        NextUpcall::At(now_ns)
    }
}

#[cfg(test)]
mod tests;
