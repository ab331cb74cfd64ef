//! A first-in first-out ring of connections through one preallocated array: each connection is in it at most once.

const NONE: u32 = u32::MAX;
/// In `links`: not in the ring.
const OUT: u32 = u32::MAX - 1;

#[derive(Debug)]
pub(super) struct Fifo {
    links: Box<[u32]>,
    head: u32,
    tail: u32,
    len: usize,
}

impl Fifo {
    pub fn new(keys: usize) -> Self {
        Self { links: vec![OUT; keys].into(), head: NONE, tail: NONE, len: 0 }
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub fn contains(&self, key: u32) -> bool {
        self.links.get(key as usize).is_some_and(|link| *link != OUT)
    }

    /// Puts `key` at the end, unless it is in the ring already. True when it was not.
    pub fn push(&mut self, key: u32) -> bool {
        match self.links.get_mut(key as usize) {
            Some(link) if *link == OUT => *link = NONE,
            _ => return false,
        }
        match self.links.get_mut(self.tail as usize) {
            Some(link) => *link = key,
            None => self.head = key,
        }
        self.tail = key;
        self.len += 1;
        true
    }

    /// Puts `key` in front, unless it is in the ring already.
    pub fn push_front(&mut self, key: u32) {
        match self.links.get_mut(key as usize) {
            Some(link) if *link == OUT => *link = self.head,
            _ => return,
        }
        if self.head == NONE {
            self.tail = key;
        }
        self.head = key;
        self.len += 1;
    }

    /// The key that the next [`Fifo::pop`] gives.
    pub fn first(&self) -> Option<u32> {
        (self.head != NONE).then_some(self.head)
    }

    pub fn pop(&mut self) -> Option<u32> {
        let key = self.head;
        let link = self.links.get_mut(key as usize)?;
        self.head = std::mem::replace(link, OUT);
        if self.head == NONE {
            self.tail = NONE;
        }
        self.len -= 1;
        Some(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    proptest! {
        #[test]
        fn like_a_queue_without_repeats(ops in prop::collection::vec((0..3u8, 0..6u32), 0..200)) {
            let (mut fifo, mut model) = (Fifo::new(5), VecDeque::new());
            for (op, key) in ops {
                let known = key < 5 && !model.contains(&key);
                match op {
                    0 => {
                        prop_assert_eq!(fifo.push(key), known);
                        if known { model.push_back(key) }
                    }
                    1 => {
                        fifo.push_front(key);
                        if known { model.push_front(key) }
                    }
                    _ => {
                        prop_assert_eq!(fifo.first(), model.front().copied());
                        prop_assert_eq!(fifo.pop(), model.pop_front());
                    }
                }
                prop_assert_eq!(fifo.len(), model.len());
                prop_assert!((0..6).all(|key| fifo.contains(key) == model.contains(&key)));
            }
        }
    }
}
