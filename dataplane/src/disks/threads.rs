//! Reads and writes by plain threads (`pread`, `pwrite`), for where io_uring is forbidden or the file system refuses O_DIRECT.
//!
//! ```text
//! engine core ─► bounded queue of requests ─► reader thread: pread ─► bounded queue of finished reads ─► engine core
//!             ─► the same for writes ───────► one thread: pwrite ───► the same
//! ```
//!
//! All goes through the page cache. No queue can fill up: each has room for all that may be in flight, so neither side ever waits for
//! the other with a chunk in its hands. Writes have a thread of their own: the kernel may hold it until other pages have been written
//! back, and no read waits for that. The threads run on the CPUs of the thread that makes the disk: make it before
//! that thread is pinned to an engine core.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam_channel::{Receiver, Sender, bounded};

use super::{Disk, DiskCounters, DiskError, MediaFile, ReadDone, ReadRequest, WriteDone, WriteRequest};

/// A disk read and written by threads. When it is dropped the threads end after what each is at; its chunk goes back to the pool then.
pub struct ThreadDisk {
    reads: Lane<ReadRequest<MediaFile>, ReadDone>,
    writes: Lane<WriteRequest<MediaFile>, WriteDone>,
    stop: Arc<AtomicBool>,
    description: String,
    counters: DiskCounters,
}

/// The way to some threads and back.
struct Lane<R, D> {
    requests: Sender<R>,
    finished: Receiver<D>,
    depth: usize,
    in_flight: usize,
}

/// The threads' ends of a [`Lane`].
type Ends<R, D> = (Receiver<R>, Sender<D>);

impl<R, D> Lane<R, D> {
    fn new(depth: usize) -> (Self, Ends<R, D>) {
        let (requests, request_queue) = bounded(depth);
        let (done_queue, finished) = bounded(depth);
        (Self { requests, finished, depth, in_flight: 0 }, (request_queue, done_queue))
    }

    /// Takes requests while there is room; how many.
    fn submit(&mut self, batch: &mut VecDeque<R>) -> u64 {
        let before = self.in_flight;
        while self.in_flight < self.depth {
            let Some(request) = batch.pop_front() else { break };
            if let Err(refused) = self.requests.try_send(request) {
                batch.push_front(refused.into_inner());
                break;
            }
            self.in_flight += 1;
        }
        (self.in_flight - before) as u64
    }

    fn next_done(&mut self) -> Option<D> {
        let done = self.finished.try_recv().ok()?;
        self.in_flight -= 1;
        Some(done)
    }
}

impl ThreadDisk {
    /// A disk with `threads` readers (at least 1), and at most `depth` reads and as many writes under way (at least 1).
    ///
    /// # Errors
    /// The system's when it refuses a thread.
    pub fn new(threads: usize, depth: u16) -> io::Result<Self> {
        let (threads, depth) = (threads.max(1), usize::from(depth.max(1)));
        let (reads, read_ends) = Lane::new(depth);
        let (writes, write_ends) = Lane::new(depth);
        let stop = Arc::new(AtomicBool::new(false));
        let disk = Self {
            reads,
            writes,
            stop,
            description: format!("reader threads ({threads}), page cache, depth {depth}"),
            counters: DiskCounters::default(),
        };
        // Threads that run already end when `disk` is dropped on the way out.
        for id in 0..threads {
            disk.spawn(format!("disk-{id}"), read_ends.clone(), |mut request: ReadRequest<MediaFile>| {
                let result = read_whole(&mut request);
                ReadDone { tag: request.tag, chunk: request.chunk, result }
            })?;
        }
        disk.spawn("disk-write".to_owned(), write_ends, |request: WriteRequest<MediaFile>| {
            let result = write_whole(&request);
            WriteDone { tag: request.tag, slice: request.slice, result }
        })?;
        Ok(disk)
    }

    fn spawn<R: Send + 'static, D: Send + 'static>(&self, name: String, ends: Ends<R, D>, work: fn(R) -> D) -> io::Result<()> {
        let stop = Arc::clone(&self.stop);
        std::thread::Builder::new().name(name).spawn(move || work_until_stopped(&ends, &stop, work)).map(drop)
    }
}

impl Drop for ThreadDisk {
    fn drop(&mut self) {
        // A reader may hang in the kernel, so it is not waited for: it owns its chunk, nobody else can reach that memory.
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn work_until_stopped<R, D>((requests, done): &Ends<R, D>, stop: &AtomicBool, work: fn(R) -> D) {
    while let Ok(request) = requests.recv() {
        if stop.load(Ordering::Relaxed) || done.send(work(request)).is_err() {
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

/// Writes until all is written.
fn write_whole(request: &WriteRequest<MediaFile>) -> Result<(), DiskError> {
    let mut written = 0;
    while let Some(rest) = request.slice.get(written..).filter(|rest| !rest.is_empty()) {
        match request.file.write_at(rest, request.offset.saturating_add(written as u64)) {
            Ok(0) => return Err(DiskError::Os(libc::EIO)),
            Ok(bytes) => written += bytes,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(DiskError::Os(e.raw_os_error().unwrap_or(libc::EIO))),
        }
    }
    Ok(())
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
        self.counters.reads += self.reads.submit(batch);
    }

    fn reap(&mut self, _now_ns: u64, done: &mut Vec<ReadDone>) {
        while done.len() < done.capacity() {
            let Some(finished) = self.reads.next_done() else { break };
            self.counters.count(finished.result);
            done.push(finished);
        }
    }

    fn submit_writes(&mut self, _now_ns: u64, batch: &mut VecDeque<WriteRequest<MediaFile>>) {
        self.counters.writes += self.writes.submit(batch);
    }

    fn reap_writes(&mut self, _now_ns: u64, done: &mut Vec<WriteDone>) {
        while done.len() < done.capacity() {
            let Some(finished) = self.writes.next_done() else { break };
            self.counters.count_write(finished.slice.len(), finished.result);
            done.push(finished);
        }
    }

    fn in_flight(&self) -> usize {
        self.reads.in_flight + self.writes.in_flight
    }

    fn describe(&self) -> &str {
        &self.description
    }

    fn counters(&self) -> DiskCounters {
        DiskCounters { in_flight: self.in_flight() as u32, ..self.counters }
    }
}

impl std::fmt::Debug for ThreadDisk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ThreadDisk({}, {:?})", self.description, self.counters())
    }
}
