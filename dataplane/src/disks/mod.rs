//! The `Disk` seam: submit a batch of reads into chunks, or of writes from slices of chunks, reap completions.
//!
//! A disk is owned by one engine core. It never blocks: what it cannot take now it leaves in the batch. The chunk that is read into travels
//! with the request and comes back with the completion, so whoever holds it is its only owner; a slice that is written travels as a share.
//!
//! - [`any`]: the best of the next two that this machine grants.
//! - [`uring`]: io_uring with O_DIRECT and registered buffers.
//! - [`threads`]: plain reader threads, and one that writes, for where that is forbidden.
//! - [`file`](mod@file): the media files that both read and write.
//! - [`new_file`]: a file that comes to be: under another name until it is whole.
//! - [`cyclic`]: which reads go first, guaranteed ones in cycles, and how many at once.
//! - [`probe`](mod@probe): measures what a disk can do.
//! - [`sim`]: a disk in simulated time, with faults.

pub mod any;
pub mod cyclic;
pub mod file;
pub mod new_file;
pub mod probe;
pub mod sim;
pub mod threads;
pub mod uring;

use std::collections::VecDeque;

use hugepages::{Chunk, Slice};

pub use any::{AnyDisk, DiskOpenError};
pub use cyclic::{Cyclic, CyclicConfig, DEVICES_MAX, DeviceReport};
pub use file::{FileIdentity, MediaFile, OpenError};
pub use new_file::{NewFile, NewFileError};
pub use sim::{SimDisk, SimDiskConfig, SimFile};
pub use threads::ThreadDisk;
pub use uring::UringDisk;

/// Offsets and lengths of reads are multiples of this (O_DIRECT), except that a read may reach past the end of its file.
pub const READ_ALIGN_BYTES: u64 = 4096;

/// One read.
#[derive(Debug)]
pub struct ReadRequest<F> {
    /// Comes back with the completion.
    pub tag: u64,
    /// What to read from.
    pub file: F,
    /// Byte offset in the file; a multiple of [`READ_ALIGN_BYTES`].
    pub offset: u64,
    /// Bytes wanted; a multiple of [`READ_ALIGN_BYTES`] and at most the chunk's size.
    pub len: usize,
    /// Where the bytes go.
    pub chunk: Chunk,
}

/// One finished read.
#[derive(Debug)]
pub struct ReadDone {
    /// The request's tag.
    pub tag: u64,
    /// The request's chunk.
    pub chunk: Chunk,
    /// Bytes read (fewer than asked for only at the end of the file), or why not.
    pub result: Result<usize, DiskError>,
}

/// One write.
#[derive(Debug)]
pub struct WriteRequest<F> {
    /// Comes back with the completion.
    pub tag: u64,
    /// What to write to; opened for that.
    pub file: F,
    /// Byte offset in the file. A write that is a multiple of [`READ_ALIGN_BYTES`] in offset, length and memory bypasses the page cache where
    /// the file allows; of any other, what is not goes through the page cache, exactly as long as it is.
    pub offset: u64,
    /// The bytes; nobody can change them while a share of them exists.
    pub slice: Slice,
}

/// One finished write.
#[derive(Debug)]
pub struct WriteDone {
    /// The request's tag.
    pub tag: u64,
    /// The request's slice.
    pub slice: Slice,
    /// All of the slice was written, or why not. What was written survives a crash of the machine only after the file was synced
    /// ([`NewFile::finish`]).
    pub result: Result<(), DiskError>,
}

/// Why a read or a write failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DiskError {
    /// The operating system's or the device's error number.
    #[error("the disk answered: {}", std::io::Error::from_raw_os_error(*.0))]
    Os(i32),
}

impl DiskError {
    /// Nothing else that is asked of the file will succeed either: it, or the device that it lies on, is not there any more.
    pub fn is_for_good(self) -> bool {
        let Self::Os(number) = self;
        matches!(number, libc::ENODEV | libc::ENXIO | libc::ESTALE | libc::EBADF | libc::ENOENT)
    }

    /// A write that failed with this may succeed when it is tried again: it is not that the disk is full, or must not be written.
    pub fn may_pass(self) -> bool {
        let Self::Os(number) = self;
        !self.is_for_good() && !matches!(number, libc::ENOSPC | libc::EDQUOT | libc::EFBIG | libc::EROFS | libc::EACCES | libc::EPERM)
    }
}

/// Counters of a disk since start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskCounters {
    /// Reads submitted.
    pub reads: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Reads that failed.
    pub errors: u64,
    /// Writes submitted.
    pub writes: u64,
    /// Bytes written.
    pub write_bytes: u64,
    /// Writes that failed.
    pub write_errors: u64,
    /// Reads and writes under way.
    pub in_flight: u32,
}

impl DiskCounters {
    /// Counts a finished read.
    fn count(&mut self, result: Result<usize, DiskError>) {
        match result {
            Ok(bytes) => self.bytes += bytes as u64,
            Err(_) => self.errors += 1,
        }
    }

    /// Counts a finished write of `bytes`.
    fn count_write(&mut self, bytes: usize, result: Result<(), DiskError>) {
        match result {
            Ok(()) => self.write_bytes += bytes as u64,
            Err(_) => self.write_errors += 1,
        }
    }
}

/// A reader and writer of media files.
pub trait Disk {
    /// A handle of an open file; cheap to clone, safe to send from the thread that opened it.
    type File: Clone + Send + std::fmt::Debug + 'static;

    /// Number of the device that the file lies on; files on different devices do not wait for each other.
    fn device_of(file: &Self::File) -> u64;

    /// A number that grows with the file's place on its device, as far as that is known.
    fn place_of(file: &Self::File) -> u64;

    /// Takes requests from the front of `batch` until it is empty or the device's queue is full; all in one call to the device.
    fn submit(&mut self, now_ns: u64, batch: &mut VecDeque<ReadRequest<Self::File>>);

    /// Appends finished reads to `done`, without blocking; never more than `done` has spare capacity for.
    fn reap(&mut self, now_ns: u64, done: &mut Vec<ReadDone>);

    /// Takes writes from the front of `batch` until it is empty or as many are under way as are let to be beside reads, which always have
    /// room of their own; all in one call to the device.
    fn submit_writes(&mut self, now_ns: u64, batch: &mut VecDeque<WriteRequest<Self::File>>);

    /// Appends finished writes to `done`, without blocking; never more than `done` has spare capacity for.
    fn reap_writes(&mut self, now_ns: u64, done: &mut Vec<WriteDone>);

    /// Reads and writes under way.
    fn in_flight(&self) -> usize;

    /// What reads and writes the files and how, in a few words for people ("io_uring, O_DIRECT, fixed buffers").
    fn describe(&self) -> &str;

    /// Counters since start.
    fn counters(&self) -> DiskCounters;
}

#[cfg(test)]
mod tests;
