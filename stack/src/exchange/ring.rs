//! A ring of frames from one core to another: one writes, one reads, neither waits.
//!
//! ```text
//! Writer ─ push (copies) ─► [ slot ][ slot ][ slot ] ─► show ─ Reader
//!          tail ────────────────────────────────────► head
//! ```
//!
//! Each side keeps its own cursor and what it last saw of the other's, and looks at the shared one only when it runs short. All memory is
//! taken, and touched, at start.

use std::cell::UnsafeCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A cursor that shares its cache line with nothing that the other side writes.
#[repr(align(128))]
#[derive(Default)]
struct Cursor(AtomicUsize);

struct Slot {
    len: usize,
    bytes: Box<[u8]>,
}

struct Shared {
    slots: Box<[UnsafeCell<Slot>]>,
    /// Frames ever read; only the reader writes it.
    head: Cursor,
    /// Frames ever written; only the writer writes it.
    tail: Cursor,
}

// SAFETY: a slot is touched by the writer alone while its place is at or beyond `tail`, and by the reader alone while it is between `head`
// and `tail`. There is one writer and one reader, for neither can be cloned; each hands a slot over by a release store that the other has
// loaded with acquire before it touches the slot.
unsafe impl Sync for Shared {}

/// The side that writes.
pub(super) struct Writer {
    shared: Arc<Shared>,
    tail: usize,
    /// `head` as it was last seen.
    head_seen: usize,
}

/// The side that reads.
pub(super) struct Reader {
    shared: Arc<Shared>,
    head: usize,
    /// `tail` as it was last seen.
    tail_seen: usize,
}

/// A ring of `frames` frames of at most `frame_bytes`.
pub(super) fn ring(frames: usize, frame_bytes: usize) -> (Writer, Reader) {
    // Ones, not zeros: fresh zeros would be memory that is not there until it is touched.
    let slot = |_| UnsafeCell::new(Slot { len: 0, bytes: vec![1; frame_bytes].into_boxed_slice() });
    let slots = (0..frames.max(1)).map(slot).collect();
    let shared = Arc::new(Shared { slots, head: Cursor::default(), tail: Cursor::default() });
    (Writer { shared: Arc::clone(&shared), tail: 0, head_seen: 0 }, Reader { shared, head: 0, tail_seen: 0 })
}

impl Writer {
    /// Copies a frame in; false when the ring holds `limit` frames already, or the frame is too long for it.
    pub(super) fn push(&mut self, frame: &[u8], limit: usize) -> bool {
        let limit = limit.min(self.shared.slots.len());
        if self.tail.wrapping_sub(self.head_seen) >= limit {
            self.head_seen = self.shared.head.0.load(Ordering::Acquire);
            if self.tail.wrapping_sub(self.head_seen) >= limit {
                return false;
            }
        }
        let Some(slot) = self.shared.slots.get(self.tail % self.shared.slots.len()) else { return false };
        // SAFETY: fewer than all slots lie between `head` and `tail`, so this one has been read and is the writer's; the reader touches it
        // only after the store below.
        let slot = unsafe { &mut *slot.get() };
        let Some(room) = slot.bytes.get_mut(..frame.len()) else { return false };
        room.copy_from_slice(frame);
        slot.len = frame.len();
        self.tail = self.tail.wrapping_add(1);
        self.shared.tail.0.store(self.tail, Ordering::Release);
        true
    }

    /// Frames that fit.
    pub(super) fn capacity(&self) -> usize {
        self.shared.slots.len()
    }
}

impl Reader {
    /// Nothing to read now.
    pub(super) fn is_empty(&self) -> bool {
        self.head == self.shared.tail.0.load(Ordering::Acquire)
    }

    /// Shows up to `limit` frames, oldest first; how many that were. A frame's place is free when `sink` returns.
    pub(super) fn show(&mut self, limit: usize, sink: &mut dyn FnMut(&[u8])) -> usize {
        for shown in 0..limit {
            if self.head == self.tail_seen {
                self.tail_seen = self.shared.tail.0.load(Ordering::Acquire);
                if self.head == self.tail_seen {
                    return shown;
                }
            }
            let Some(slot) = self.shared.slots.get(self.head % self.shared.slots.len()) else { return shown };
            // SAFETY: the slot lies between `head` and `tail`: it has been written, and the writer touches it again only after the store
            // below, which comes after the last use of this reference.
            let slot = unsafe { &*slot.get() };
            sink(slot.bytes.get(..slot.len).unwrap_or_default());
            self.head = self.head.wrapping_add(1);
            self.shared.head.0.store(self.head, Ordering::Release);
        }
        limit
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Push(Vec<u8>, usize),
        Show(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (prop::collection::vec(any::<u8>(), 0..12), 0_usize..12).prop_map(|(frame, limit)| Step::Push(frame, limit)),
            (0_usize..6).prop_map(Step::Show),
        ]
    }

    proptest! {
        #[test]
        fn behaves_like_a_queue(frames in 1_usize..9, steps in prop::collection::vec(step(), 0..200)) {
            let (mut writer, mut reader) = ring(frames, 10);
            let mut oracle: VecDeque<Vec<u8>> = VecDeque::new();
            for step in steps {
                match step {
                    Step::Push(frame, limit) => {
                        let fits = oracle.len() < limit.min(frames) && frame.len() <= 10;
                        prop_assert_eq!(writer.push(&frame, limit), fits);
                        if fits {
                            oracle.push_back(frame);
                        }
                    }
                    Step::Show(limit) => {
                        let mut seen = Vec::new();
                        let count = reader.show(limit, &mut |frame| seen.push(frame.to_vec()));
                        let expected: Vec<_> = oracle.drain(..limit.min(oracle.len())).collect();
                        prop_assert_eq!(count, expected.len());
                        prop_assert_eq!(seen, expected);
                    }
                }
                prop_assert_eq!(reader.is_empty(), oracle.is_empty());
            }
        }
    }

    /// Two threads; frames of changing lengths, each filled with its number, come whole and in order.
    #[test]
    fn frames_cross_between_threads_whole_and_in_order() {
        const FRAMES: u32 = 200_000;
        let (mut writer, mut reader) = ring(7, 64);
        let writing = std::thread::spawn(move || {
            for nth in 0..FRAMES {
                let frame: Vec<u8> = nth.to_le_bytes().repeat(1 + nth as usize % 16);
                while !writer.push(&frame, 7) {
                    std::thread::yield_now();
                }
            }
        });
        let mut next = 0_u32;
        while next < FRAMES {
            let shown = reader.show(5, &mut |frame| {
                assert_eq!(frame, next.to_le_bytes().repeat(1 + next as usize % 16));
                next += 1;
            });
            if shown == 0 {
                std::thread::yield_now();
            }
        }
        writing.join().unwrap();
        assert!(reader.is_empty());
    }
}
