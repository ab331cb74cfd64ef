//! Byte streams of a host: a ring per stream, and lists of those that have something to send, so that idle ones cost nothing.
//!
//! ```text
//! stream_send ─► ring ─► ready ──► socket takes all: off the lists
//!                          └─────► socket is full: stalled, tried again after 1 ms, then 2, 4 .. 16 ms until it takes something
//! ```
//!
//! Streams that are preferred have a ready list of their own, which can be written out without the others.

use std::collections::VecDeque;

use crate::host::{StreamError, StreamId};
use crate::ring::ByteRing;
use crate::slots::Slots;

/// A stream that keeps up uses no more of its ring than this, so this much is made present at start.
const TOUCHED_BYTES: usize = 16 << 10;
/// Bytes that are offered in one call: whoever comes next does not wait for more.
const WRITE_BYTES_MAX: usize = 32 << 10;
const RETRY_NS_MIN: u64 = 1_000_000;
const RETRY_NS_MAX: u64 = 16_000_000;

/// Why a [`ByteSink`] took nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SinkError {
    /// It is full now.
    Full,
    /// It will never take anything again.
    Closed,
}

/// The layer below one stream.
pub(crate) trait ByteSink {
    /// Offers bytes in two parts (the second may be empty) in one call; answers how many were taken.
    fn write(&mut self, first: &[u8], second: &[u8]) -> Result<usize, SinkError>;
}

struct Stream<S> {
    sink: S,
    closed: bool,
    /// It is on one of the lists.
    listed: bool,
    preferred: bool,
}

#[derive(Clone, Copy)]
struct Stalled {
    id: u32,
    next_try_ns: u64,
    pause_ns: u64,
}

/// What one write achieved.
enum Written {
    All,
    /// All that one call may offer, and there is more.
    Part,
    Some,
    Nothing,
    Closed,
}

/// The table of streams.
pub(crate) struct Streams<S> {
    table: Slots<Stream<S>>,
    rings: Vec<ByteRing>,
    ready: VecDeque<u32>,
    ready_first: VecDeque<u32>,
    stalled: Vec<Stalled>,
    next_try_ns: u64,
    tx_bytes: u64,
}

impl<S: ByteSink> Streams<S> {
    pub(crate) fn new(streams_max: u32, queue_bytes: usize) -> Self {
        Self {
            table: Slots::new(streams_max),
            rings: (0..streams_max).map(|_| ByteRing::new(queue_bytes, TOUCHED_BYTES)).collect(),
            ready: VecDeque::with_capacity(streams_max as usize),
            ready_first: VecDeque::with_capacity(streams_max as usize),
            stalled: Vec::with_capacity(streams_max as usize),
            next_try_ns: u64::MAX,
            tx_bytes: 0,
        }
    }

    pub(crate) fn len(&self) -> u32 {
        self.table.len()
    }

    /// Bytes written since start.
    pub(crate) fn tx_bytes(&self) -> u64 {
        self.tx_bytes
    }

    /// When the next stalled stream is due to be tried; `u64::MAX` when none is stalled.
    pub(crate) fn next_try_ns(&self) -> u64 {
        self.next_try_ns
    }

    /// `None` when the table is full.
    pub(crate) fn attach(&mut self, sink: S) -> Option<StreamId> {
        let id = self.table.insert(Stream { sink, closed: false, listed: false, preferred: false }).ok()?;
        self.rings[self.table.slot(id)].clear();
        Some(StreamId(id))
    }

    pub(crate) fn send(&mut self, id: StreamId, parts: &[&[u8]]) -> Result<(), StreamError> {
        let slot = self.table.slot(id.0);
        let stream = self.table.get_mut(id.0).filter(|stream| !stream.closed).ok_or(StreamError::Closed)?;
        let ring = &mut self.rings[slot];
        if !ring.push(parts) {
            return Err(StreamError::Full);
        }
        if !stream.listed && !ring.is_empty() {
            stream.listed = true;
            if stream.preferred { self.ready_first.push_back(id.0) } else { self.ready.push_back(id.0) }
        }
        Ok(())
    }

    /// Whether what is queued from now on is written out before what other streams have.
    pub(crate) fn prefer(&mut self, id: StreamId, preferred: bool) {
        if let Some(stream) = self.table.get_mut(id.0) {
            stream.preferred = preferred;
        }
    }

    pub(crate) fn queued_bytes(&self, id: StreamId) -> usize {
        if self.table.get(id.0).is_some() { self.rings[self.table.slot(id.0)].len() } else { 0 }
    }

    /// Writes out what all streams have.
    pub(crate) fn flush(&mut self, now_ns: u64) {
        self.flush_up_to(now_ns, true, usize::MAX);
        self.flush_up_to(now_ns, false, usize::MAX);
    }

    /// Writes out at most `limit` of the preferred streams, or of the others and those that were stalled; true when there are more.
    pub(crate) fn flush_up_to(&mut self, now_ns: u64, preferred: bool, limit: usize) -> bool {
        let mut left = limit;
        if !preferred && now_ns >= self.next_try_ns {
            self.retry(now_ns, &mut left);
        }
        while left > 0 {
            let ready = if preferred { &mut self.ready_first } else { &mut self.ready };
            let Some(id) = ready.pop_front() else { break };
            left -= 1;
            match self.write(id) {
                Written::All | Written::Closed => {}
                Written::Part if preferred => self.ready_first.push_back(id),
                Written::Part => self.ready.push_back(id),
                Written::Some | Written::Nothing => {
                    let next_try_ns = now_ns.saturating_add(RETRY_NS_MIN);
                    self.stalled.push(Stalled { id, next_try_ns, pause_ns: RETRY_NS_MIN });
                    self.next_try_ns = self.next_try_ns.min(next_try_ns);
                }
            }
        }
        if preferred { !self.ready_first.is_empty() } else { !self.ready.is_empty() || now_ns >= self.next_try_ns }
    }

    pub(crate) fn detach(&mut self, id: StreamId) {
        let Some(stream) = self.table.get(id.0) else { return };
        if stream.listed {
            self.ready.retain(|listed| *listed != id.0);
            self.ready_first.retain(|listed| *listed != id.0);
            self.stalled.retain(|stalled| stalled.id != id.0);
            self.next_try_ns = self.stalled.iter().map(|stalled| stalled.next_try_ns).min().unwrap_or(u64::MAX);
            while matches!(self.write(id.0), Written::Part) {}
        }
        self.table.remove(id.0);
    }

    fn retry(&mut self, now_ns: u64, left: &mut usize) {
        self.next_try_ns = u64::MAX;
        let mut at = 0;
        while let Some(&stalled) = self.stalled.get(at) {
            let mut next = stalled;
            if now_ns >= stalled.next_try_ns && *left > 0 {
                *left -= 1;
                next.pause_ns = match self.write(stalled.id) {
                    Written::All | Written::Closed => {
                        self.stalled.swap_remove(at);
                        continue;
                    }
                    Written::Part => {
                        self.stalled.swap_remove(at);
                        self.ready.push_back(stalled.id);
                        continue;
                    }
                    Written::Some => RETRY_NS_MIN,
                    Written::Nothing => (stalled.pause_ns * 2).min(RETRY_NS_MAX),
                };
                next.next_try_ns = now_ns.saturating_add(next.pause_ns);
                self.stalled[at] = next;
            }
            self.next_try_ns = self.next_try_ns.min(next.next_try_ns);
            at += 1;
        }
    }

    /// One call into the kernel for one stream.
    fn write(&mut self, id: u32) -> Written {
        let slot = self.table.slot(id);
        let Some(stream) = self.table.get_mut(id) else { return Written::Closed };
        let ring = &mut self.rings[slot];
        let (first, second) = ring.slices();
        let first = first.get(..WRITE_BYTES_MAX).unwrap_or(first);
        let second = second.get(..WRITE_BYTES_MAX - first.len()).unwrap_or(second);
        let offered = first.len() + second.len();
        match stream.sink.write(first, second) {
            Ok(count) => {
                self.tx_bytes += count as u64;
                ring.consume(count);
                if ring.is_empty() {
                    stream.listed = false;
                    Written::All
                } else if count == offered {
                    Written::Part
                } else {
                    Written::Some
                }
            }
            Err(SinkError::Full) => Written::Nothing,
            Err(SinkError::Closed) => {
                ring.clear();
                stream.closed = true;
                stream.listed = false;
                Written::Closed
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use super::*;

    #[derive(Default)]
    struct Shared {
        room: usize,
        calls: u32,
        seen: Vec<u8>,
    }

    impl ByteSink for Rc<RefCell<Shared>> {
        fn write(&mut self, first: &[u8], second: &[u8]) -> Result<usize, SinkError> {
            let mut shared = self.borrow_mut();
            shared.calls += 1;
            let taken: Vec<u8> = first.iter().chain(second).copied().take(shared.room).collect();
            shared.room -= taken.len();
            shared.seen.extend(&taken);
            if taken.is_empty() { Err(SinkError::Full) } else { Ok(taken.len()) }
        }
    }

    #[test]
    fn a_stalled_stream_is_tried_ever_more_seldom_until_it_moves() {
        let sink = Rc::new(RefCell::new(Shared::default()));
        let mut streams = Streams::new(2, 64);
        let id = streams.attach(Rc::clone(&sink)).unwrap();
        streams.send(id, &[b"abc", b"def"]).unwrap();
        let mut tried_ms = Vec::new();
        for now_ms in 0..64_u64 {
            let before = sink.borrow().calls;
            streams.flush(now_ms * 1_000_000);
            if sink.borrow().calls > before {
                tried_ms.push(now_ms);
                assert!(streams.next_try_ns() > now_ms * 1_000_000);
            }
        }
        assert_eq!(tried_ms, [0, 1, 3, 7, 15, 31, 47, 63]);
        sink.borrow_mut().room = 2;
        streams.flush(79_000_000);
        assert_eq!((sink.borrow().seen.as_slice(), streams.queued_bytes(id), streams.next_try_ns()), (&b"ab"[..], 4, 80_000_000));
        sink.borrow_mut().room = 64;
        streams.flush(80_000_000);
        assert_eq!((sink.borrow().seen.as_slice(), streams.queued_bytes(id), streams.next_try_ns()), (&b"abcdef"[..], 0, u64::MAX));
        let calls = sink.borrow().calls;
        streams.flush(90_000_000);
        assert_eq!(sink.borrow().calls, calls, "an idle stream costs nothing");
    }

    #[test]
    fn preferred_streams_go_first_and_the_others_in_turn_a_few_at_a_time() {
        let sink = || Rc::new(RefCell::new(Shared { room: 64, ..Shared::default() }));
        let sinks: Vec<_> = (0..6).map(|_| sink()).collect();
        let mut streams = Streams::new(6, 64);
        let ids: Vec<_> = sinks.iter().map(|sink| streams.attach(Rc::clone(sink)).unwrap()).collect();
        streams.prefer(ids[4], true);
        sinks[1].borrow_mut().room = 0;
        for &id in &ids {
            streams.send(id, &[b"x"]).unwrap();
        }
        let served = || sinks.iter().map(|sink| sink.borrow().seen.len()).collect::<Vec<_>>();
        assert!(!streams.flush_up_to(0, true, 8));
        assert_eq!(served(), [0, 0, 0, 0, 1, 0]);
        assert!(streams.flush_up_to(0, false, 3));
        assert_eq!(served(), [1, 0, 1, 0, 1, 0]);
        assert!(!streams.flush_up_to(0, false, 3));
        assert_eq!(served(), [1, 0, 1, 1, 1, 1]);
        // Nobody waits for a stream that has much to say.
        let mut long = Streams::new(2, 256 << 10);
        let two = [0, 1].map(|_| Rc::new(RefCell::new(Shared { room: 1 << 20, ..Shared::default() })));
        for (sink, bytes) in two.iter().zip([200_000, 10]) {
            let id = long.attach(Rc::clone(sink)).unwrap();
            long.send(id, &[&vec![7; bytes]]).unwrap();
        }
        assert!(long.flush_up_to(0, false, 2));
        assert_eq!(two.each_ref().map(|sink| sink.borrow().seen.len()), [WRITE_BYTES_MAX, 10]);
        long.flush(0);
        assert_eq!(two[0].borrow().seen.len(), 200_000);
        // A stalled one counts as well, and waits when there is no time for it.
        sinks[1].borrow_mut().room = 64;
        assert!(streams.flush_up_to(RETRY_NS_MIN, false, 0));
        assert!(!streams.flush_up_to(RETRY_NS_MIN, false, 1));
        assert_eq!((served(), streams.next_try_ns()), (vec![1; 6], u64::MAX));
    }

    #[test]
    fn detaching_offers_the_rest_once_and_leaves_no_trace_on_the_lists() {
        let sink = Rc::new(RefCell::new(Shared { room: 3, ..Shared::default() }));
        let mut streams = Streams::new(1, 64);
        for _ in 0..3 {
            let id = streams.attach(Rc::clone(&sink)).unwrap();
            streams.send(id, &[b"x"]).unwrap();
            streams.detach(id);
            assert_eq!(streams.send(id, &[b"y"]), Err(StreamError::Closed));
        }
        assert_eq!((sink.borrow().seen.as_slice(), streams.len(), streams.ready.len()), (&b"xxx"[..], 0, 0));
        let id = streams.attach(Rc::clone(&sink)).unwrap();
        streams.send(id, &[b"x"]).unwrap();
        streams.flush(0);
        streams.detach(id);
        assert_eq!((streams.stalled.len(), streams.next_try_ns()), (0, u64::MAX));
    }
}
