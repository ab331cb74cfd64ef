//! The deadline wheel: GDSL's I/O scheduling table.

use std::collections::{BTreeSet, HashMap};

/// Holds at most one deadline per key (a small number, such as a peer's place in its table).
#[derive(Debug)]
pub struct Wheel {
    by_time: BTreeSet<(u64, u32)>,
    by_key: HashMap<u32, u64>,
}

impl Wheel {
    /// A wheel for keys below `keys`, whose time starts at `start_ns`. `tick_ns` is its resolution: a deadline is handed out at most
    /// one tick after it is due, and never before.
    pub fn new(_keys: u32, _tick_ns: u64, _start_ns: u64) -> Self {
        Self { by_time: BTreeSet::new(), by_key: HashMap::new() }
    }

    /// Sets the deadline of `key`, in place of the one it had. A time in the past is due at once.
    pub fn schedule(&mut self, key: u32, due_ns: u64) {
        self.cancel(key);
        self.by_key.insert(key, due_ns);
        self.by_time.insert((due_ns, key));
    }

    /// Takes the deadline of `key` out, if it has one.
    pub fn cancel(&mut self, key: u32) {
        if let Some(due) = self.by_key.remove(&key) {
            self.by_time.remove(&(due, key));
        }
    }

    /// Takes out one deadline that is due at `now_ns`, as (key, due time); earlier ticks first.
    pub fn pop_due(&mut self, now_ns: u64) -> Option<(u32, u64)> {
        let &(due, key) = self.by_time.first()?;
        if due > now_ns {
            return None;
        }
        self.cancel(key);
        Some((key, due))
    }

    /// When the earliest deadline is due (exact to one tick, never later than it), `None` when there is none.
    pub fn next_due_ns(&self) -> Option<u64> {
        self.by_time.first().map(|&(due, _)| due)
    }

    /// Deadlines held.
    pub fn len(&self) -> usize {
        self.by_key.len()
    }

    /// True when there are none.
    pub fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }
}
