//! A simulated connection: the host writes into one end, the test holds the other.

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

/// The sending side, for [`Host::attach_stream`](crate::host::Host::attach_stream).
pub struct SimStream(Arc<Mutex<Pipe>>);

/// The peer's side. Reads everything at once until told to stop.
pub struct SimPeer(Arc<Mutex<Pipe>>);

/// A connection whose buffers (of both machines together) hold `buffer_bytes` while the peer does not read.
pub fn stream_pair(buffer_bytes: usize) -> (SimStream, SimPeer) {
    let pipe = Arc::new(Mutex::new(Pipe { buffer_bytes, ..Pipe::default() }));
    (SimStream(Arc::clone(&pipe)), SimPeer(pipe))
}

fn lock(pipe: &Mutex<Pipe>) -> MutexGuard<'_, Pipe> {
    // Every change is one statement, so that a panic elsewhere leaves nothing half done.
    pipe.lock().unwrap_or_else(PoisonError::into_inner)
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
    }

    /// Closes the connection: the host's next write fails.
    pub fn close(&self) {
        lock(&self.0).closed = true;
    }

    /// What was read since the last call. Call it now and then in long runs: it is kept until then.
    pub fn take(&self) -> Vec<u8> {
        std::mem::take(&mut lock(&self.0).read)
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
