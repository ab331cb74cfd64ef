//! The send queue of a byte stream: a ring of fixed size that takes several parts all or nothing and shows what it holds as at most two
//! slices.
//!
//! The ring restarts at its first byte whenever it runs empty. A stream whose peer keeps up therefore works in the same few pages, and only
//! those need to be in memory ([`ByteRing::new`] touches as many as it is told; the rest cost a fault when a peer first falls behind).

const PAGE_BYTES: usize = 4096;

/// The queue. Never grows.
pub(crate) struct ByteRing {
    bytes: Vec<u8>,
    head: usize,
    len: usize,
}

impl ByteRing {
    /// A ring of `capacity` bytes of which the first `touched` are made present now.
    pub(crate) fn new(capacity: usize, touched: usize) -> Self {
        let mut bytes = vec![0; capacity];
        for byte in bytes.iter_mut().take(touched).step_by(PAGE_BYTES) {
            *byte = 1;
        }
        Self { bytes, head: 0, len: 0 }
    }

    /// Bytes held.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Nothing held.
    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Takes all parts, one after another, or none: false when they do not fit.
    pub(crate) fn push(&mut self, parts: &[&[u8]]) -> bool {
        let room = self.bytes.len() - self.len;
        let mut total = 0_usize;
        for part in parts {
            total = total.saturating_add(part.len());
        }
        if total > room {
            return false;
        }
        for part in parts {
            self.append(part);
        }
        true
    }

    /// What is held, oldest first; the second slice is empty unless the content wraps.
    pub(crate) fn slices(&self) -> (&[u8], &[u8]) {
        let straight = self.bytes.len() - self.head;
        if self.len <= straight {
            (&self.bytes[self.head..self.head + self.len], &[])
        } else {
            (&self.bytes[self.head..], &self.bytes[..self.len - straight])
        }
    }

    /// Drops the oldest `count` bytes (all, if fewer are held).
    pub(crate) fn consume(&mut self, count: usize) {
        if count >= self.len {
            self.clear();
            return;
        }
        self.len -= count;
        self.head += count;
        if self.head >= self.bytes.len() {
            self.head -= self.bytes.len();
        }
    }

    /// Drops everything.
    pub(crate) fn clear(&mut self) {
        self.head = 0;
        self.len = 0;
    }

    fn append(&mut self, part: &[u8]) {
        let capacity = self.bytes.len();
        let mut tail = self.head + self.len;
        if tail >= capacity {
            tail -= capacity;
        }
        let (first, second) = part.split_at(part.len().min(capacity - tail));
        self.bytes[tail..tail + first.len()].copy_from_slice(first);
        self.bytes[..second.len()].copy_from_slice(second);
        self.len += part.len();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Push(Vec<Vec<u8>>),
        Consume(usize),
        Clear,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            6 => prop::collection::vec(prop::collection::vec(any::<u8>(), 0..12), 0..4).prop_map(Step::Push),
            5 => (0_usize..24).prop_map(Step::Consume),
            1 => Just(Step::Clear),
        ]
    }

    proptest! {
        #[test]
        fn behaves_like_a_deque(capacity in 0_usize..40, touched in 0_usize..80, steps in prop::collection::vec(step(), 0..120)) {
            let mut ring = ByteRing::new(capacity, touched);
            let mut oracle: VecDeque<u8> = VecDeque::new();
            for step in steps {
                match step {
                    Step::Push(parts) => {
                        let flat = parts.concat();
                        let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
                        let fits = oracle.len() + flat.len() <= capacity;
                        prop_assert_eq!(ring.push(&parts), fits);
                        if fits {
                            oracle.extend(flat);
                        }
                    }
                    Step::Consume(count) => {
                        ring.consume(count);
                        oracle.drain(..count.min(oracle.len()));
                    }
                    Step::Clear => {
                        ring.clear();
                        oracle.clear();
                    }
                }
                let (first, second) = ring.slices();
                prop_assert!(!first.is_empty() || second.is_empty());
                let held: Vec<u8> = first.iter().chain(second).copied().collect();
                prop_assert_eq!(held, Vec::from(oracle.clone()));
                prop_assert_eq!(ring.len(), oracle.len());
                prop_assert_eq!(ring.is_empty(), oracle.is_empty());
            }
        }
    }
}
