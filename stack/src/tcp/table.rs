//! The connection table: from the two ends of a connection to its place, by a keyed hash. Open addressing with linear probing; an entry that
//! goes lets those behind it move up, so there are no tombstones and lookups stay short for ever.

const EMPTY: u32 = u32::MAX;

#[derive(Clone, Copy, Debug)]
struct Entry {
    /// High half of the hash: almost always tells entries apart without a look at the connection.
    tag: u32,
    index: u32,
}

#[derive(Debug)]
pub(super) struct Table {
    entries: Box<[Entry]>,
    mask: usize,
}

impl Table {
    /// A table that is never more than half full with `connections` in it.
    pub fn new(connections: usize) -> Self {
        let len = (connections.max(4) * 2).next_power_of_two();
        Self { entries: vec![Entry { tag: 0, index: EMPTY }; len].into(), mask: len - 1 }
    }

    fn home(&self, tag: u32) -> usize {
        tag as usize & self.mask
    }

    /// The entry of that hash of which `is` says that it is the one.
    pub fn find(&self, hash: u64, is: impl Fn(u32) -> bool) -> Option<u32> {
        let tag = (hash >> 32) as u32;
        let mut at = self.home(tag);
        loop {
            let entry = self.entries[at];
            if entry.index == EMPTY {
                return None;
            }
            if entry.tag == tag && is(entry.index) {
                return Some(entry.index);
            }
            at = (at + 1) & self.mask;
        }
    }

    /// Adds an entry; the caller has seen to it that it is not there, and that there are no more than the table was made for.
    pub fn insert(&mut self, hash: u64, index: u32) {
        let tag = (hash >> 32) as u32;
        let mut at = self.home(tag);
        while self.entries[at].index != EMPTY {
            at = (at + 1) & self.mask;
        }
        self.entries[at] = Entry { tag, index };
    }

    pub fn remove(&mut self, hash: u64, index: u32) {
        let tag = (hash >> 32) as u32;
        let mut hole = self.home(tag);
        while self.entries[hole].index != index {
            if self.entries[hole].index == EMPTY {
                return;
            }
            hole = (hole + 1) & self.mask;
        }
        let mut at = hole;
        loop {
            at = (at + 1) & self.mask;
            let entry = self.entries[at];
            if entry.index == EMPTY {
                break;
            }
            // An entry may move up only if its home is not between the hole and itself.
            let from_home = at.wrapping_sub(self.home(entry.tag)) & self.mask;
            if from_home >= (at.wrapping_sub(hole) & self.mask) {
                self.entries[hole] = entry;
                hole = at;
            }
        }
        self.entries[hole].index = EMPTY;
    }

    /// Bytes of memory.
    pub fn bytes(&self) -> usize {
        std::mem::size_of_val(&*self.entries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    proptest! {
        /// Few distinct hashes, so that entries collide all the time.
        #[test]
        fn like_a_map(ops in prop::collection::vec((any::<bool>(), 0u32..40), 0..300)) {
            let hash = |key: u32| u64::from(key % 7) << 32;
            let (mut table, mut model) = (Table::new(40), HashMap::new());
            for (add, key) in ops {
                if add && !model.contains_key(&key) {
                    table.insert(hash(key), key);
                    model.insert(key, ());
                } else if !add {
                    table.remove(hash(key), key);
                    model.remove(&key);
                }
                for key in 0..40 {
                    prop_assert_eq!(table.find(hash(key), |index| index == key).is_some(), model.contains_key(&key));
                }
            }
        }
    }
}
