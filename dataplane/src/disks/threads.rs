//! Reads by plain threads (`pread`), for where io_uring is forbidden or the file system refuses O_DIRECT.
//!
//! ```text
//! engine core ─► bounded queue of requests ─► reader thread: pread ─► bounded queue of finished reads ─► engine core
//! ```
//!
//! The reads go through the page cache. Neither queue can fill up: both have room for all reads that may be in flight, so neither side
//! ever waits for the other with a chunk in its hands. The threads run on the CPUs of the thread that makes the disk: make it before
//! that thread is pinned to an engine core.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam_channel::{Receiver, Sender, bounded};

use super::{Disk, DiskCounters, DiskError, MediaFile, ReadDone, ReadRequest};

/// A disk read by threads. When it is dropped the threads end after the read that each is at; its chunk goes back to the pool then.
pub struct ThreadDisk {
    requests: Sender<ReadRequest<MediaFile>>,
    finished: Receiver<ReadDone>,
    stop: Arc<AtomicBool>,
    depth: usize,
    in_flight: usize,
    description: String,
    counters: DiskCounters,
}

impl ThreadDisk {
    /// A disk with `threads` readers (at least 1) and at most `depth` reads under way (at least 1).
    ///
    /// # Errors
    /// The system's when it refuses a thread.
    pub fn new(threads: usize, depth: u16) -> io::Result<Self> {
        let (threads, depth) = (threads.max(1), usize::from(depth.max(1)));
        let (requests, request_queue) = bounded(depth);
        let (done_queue, finished) = bounded(depth);
        let stop = Arc::new(AtomicBool::new(false));
        let disk = Self {
            requests,
            finished,
            stop,
            depth,
            in_flight: 0,
            description: format!("reader threads ({threads}), page cache, depth {depth}"),
            counters: DiskCounters::default(),
        };
        for id in 0..threads {
            let (requests, done, stop) = (request_queue.clone(), done_queue.clone(), Arc::clone(&disk.stop));
            // Threads that run already end when `disk` is dropped on the way out.
            std::thread::Builder::new().name(format!("disk-{id}")).spawn(move || read_until_stopped(&requests, &done, &stop))?;
        }
        Ok(disk)
    }
}

impl Drop for ThreadDisk {
    fn drop(&mut self) {
        // A reader may hang in the kernel, so it is not waited for: it owns its chunk, nobody else can reach that memory.
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn read_until_stopped(requests: &Receiver<ReadRequest<MediaFile>>, done: &Sender<ReadDone>, stop: &AtomicBool) {
    while let Ok(mut request) = requests.recv() {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let result = read_whole(&mut request);
        if done.send(ReadDone { tag: request.tag, chunk: request.chunk, result }).is_err() {
            return;
        }
    }
}

/// Reads until all is there or the file ends.
fn read_whole(request: &mut ReadRequest<MediaFile>) -> Result<usize, DiskError> {
    let wanted = request.len.min(request.chunk.len());
    let mut filled = 0;
    while let Some(rest) = request.chunk.get_mut(filled..wanted).filter(|rest| !rest.is_empty()) {
        match request.file.read_at(rest, request.offset.saturating_add(filled as u64)) {
            Ok(0) => break,
            Ok(bytes) => filled += bytes,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(DiskError::Os(e.raw_os_error().unwrap_or(libc::EIO))),
        }
    }
    Ok(filled)
}

impl Disk for ThreadDisk {
    type File = MediaFile;

    fn device_of(file: &MediaFile) -> u64 {
        file.identity().device
    }

    // Inodes that were made one after the other lie near each other on most file systems.
    fn place_of(file: &MediaFile) -> u64 {
        file.identity().inode
    }

    fn submit(&mut self, _now_ns: u64, batch: &mut VecDeque<ReadRequest<MediaFile>>) {
        while self.in_flight < self.depth {
            let Some(request) = batch.pop_front() else { break };
            if let Err(refused) = self.requests.try_send(request) {
                batch.push_front(refused.into_inner());
                break;
            }
            self.in_flight += 1;
            self.counters.reads += 1;
        }
    }

    fn reap(&mut self, _now_ns: u64, done: &mut Vec<ReadDone>) {
        while done.len() < done.capacity() {
            let Ok(finished) = self.finished.try_recv() else { break };
            self.in_flight -= 1;
            self.counters.count(finished.result);
            done.push(finished);
        }
    }

    fn in_flight(&self) -> usize {
        self.in_flight
    }

    fn describe(&self) -> &str {
        &self.description
    }

    fn counters(&self) -> DiskCounters {
        DiskCounters { in_flight: self.in_flight as u32, ..self.counters }
    }
}

impl std::fmt::Debug for ThreadDisk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ThreadDisk({}, {:?})", self.description, self.counters())
    }
}
