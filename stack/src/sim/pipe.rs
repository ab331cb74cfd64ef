//! A simulated connection: the host writes into one end, the test holds the other.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::streams::{ByteSink, SinkError};

#[derive(Default)]
struct Pipe {
    buffer_bytes: usize,
    /// Written and not read; holds more than nothing only while the reader is stopped.
    buffered: Vec<u8>,
    read: Vec<u8>,
    read_bytes: u64,
    stopped: bool,
    closed: bool,
    given_up: bool,
}

#[derive(Default)]
struct Shared {
    pipe: Mutex<Pipe>,
    /// `read` is not empty.
    has_read: AtomicBool,
}

/// The sending side, for [`Host::attach_stream`](crate::host::Host::attach_stream).
pub struct SimStream(Arc<Shared>);

/// The peer's side. Reads everything at once until told to stop.
pub struct SimPeer(Arc<Shared>);

/// A connection whose buffers (of both machines together) hold `buffer_bytes` while the peer does not read.
pub fn stream_pair(buffer_bytes: usize) -> (SimStream, SimPeer) {
    let pipe = Arc::new(Shared { pipe: Mutex::new(Pipe { buffer_bytes, ..Pipe::default() }), ..Shared::default() });
    (SimStream(Arc::clone(&pipe)), SimPeer(pipe))
}

fn lock(shared: &Shared) -> MutexGuard<'_, Pipe> {
    // Every change is one statement, so that a panic elsewhere leaves nothing half done.
    shared.pipe.lock().unwrap_or_else(PoisonError::into_inner)
}

impl SimPeer {
    /// Stops reading: from now on the connection takes what its buffers hold and no more.
    pub fn stop_reading(&self) {
        lock(&self.0).stopped = true;
    }

    /// Reads again, first what the buffers hold.
    pub fn resume_reading(&self) {
        let mut pipe = lock(&self.0);
        pipe.stopped = false;
        let buffered = std::mem::take(&mut pipe.buffered);
        pipe.read_bytes += buffered.len() as u64;
        pipe.read.extend(buffered);
        self.0.has_read.store(true, Ordering::Relaxed);
    }

    /// Closes the connection: the host's next write fails.
    pub fn close(&self) {
        lock(&self.0).closed = true;
    }

    /// What was read since the last call. Call it now and then in long runs: it is kept until then.
    pub fn take(&self) -> Vec<u8> {
        let mut all = Vec::new();
        self.take_into(&mut all);
        all
    }

    /// As [`Self::take`], appended to `out`; how many bytes that is. Costs next to nothing when there are none.
    pub fn take_into(&self, out: &mut Vec<u8>) -> usize {
        if !self.0.has_read.swap(false, Ordering::Relaxed) {
            return 0;
        }
        let read = &mut lock(&self.0).read;
        let count = read.len();
        out.append(read);
        count
    }

    /// Bytes read since the connection began.
    pub fn read_bytes(&self) -> u64 {
        lock(&self.0).read_bytes
    }

    /// The host detached the stream.
    pub fn is_given_up(&self) -> bool {
        lock(&self.0).given_up
    }
}

impl Drop for SimStream {
    fn drop(&mut self) {
        lock(&self.0).given_up = true;
    }
}

impl ByteSink for SimStream {
    fn write(&mut self, first: &[u8], second: &[u8]) -> Result<usize, SinkError> {
        let mut pipe = lock(&self.0);
        if pipe.closed {
            return Err(SinkError::Closed);
        }
        if !pipe.stopped {
            pipe.read.extend_from_slice(first);
            pipe.read.extend_from_slice(second);
            let count = first.len() + second.len();
            pipe.read_bytes += count as u64;
            self.0.has_read.store(true, Ordering::Relaxed);
            return Ok(count);
        }
        let room = pipe.buffer_bytes.saturating_sub(pipe.buffered.len());
        let first = &first[..first.len().min(room)];
        let second = &second[..second.len().min(room - first.len())];
        pipe.buffered.extend_from_slice(first);
        pipe.buffered.extend_from_slice(second);
        match first.len() + second.len() {
            0 => Err(SinkError::Full),
            count => Ok(count),
        }
    }
}
