//! The deadline wheel: GDSL's I/O scheduling table.
//!
//! ```text
//! near:  4096 slots of one tick each, from the current tick on      bitmap of 64 words + 1 summary word
//! far 1:   64 slots of 4096 ticks   far 2: 64 of 64 * 4096   ...    one bitmap word each
//! ```
//!
//! Each slot is a doubly linked list through one array indexed by key, so nothing is allocated after [`Wheel::new`] and setting, moving
//! and taking out a deadline each touch a handful of words. A deadline at most 4096 ticks ahead goes straight to its slot of the near
//! level: that is where packets live. A farther one waits in a far level and moves down when time reaches the start of its slot's
//! span. Empty slots are skipped by bitmap, so an idle hour costs no more than an idle tick.

/// Slots of the near level, as a power of two.
const NEAR_BITS: u32 = 12;
const NEAR_SLOTS: usize = 1 << NEAR_BITS;
/// Slots of a far level, as a power of two: one bitmap word.
const FAR_BITS: u32 = 6;
const FAR_SLOTS: usize = 1 << FAR_BITS;
/// Far levels needed to reach [`MAX_AHEAD_NS`] even with ticks of 1 ns.
const FAR_LEVELS: usize = (63 - NEAR_BITS).div_ceil(FAR_BITS) as usize;
/// Deadlines are kept up to this far from the start (292 years); those beyond are due then.
const MAX_AHEAD_NS: u64 = i64::MAX as u64;

/// No key: the end of a list.
const NONE: u32 = u32::MAX;
/// In `Node::prev`: this node is the first of its list, and the other bits are the list's slot.
const FIRST: u32 = 1 << 31;
/// In `Node::prev`: not in any list. (No slot has the number `UNSCHEDULED & !FIRST`.)
const UNSCHEDULED: u32 = u32::MAX;

#[derive(Clone, Copy)]
struct Node {
    due_ns: u64,
    next: u32,
    prev: u32,
}

/// Holds at most one deadline per key (a small number, such as a peer's place in its table).
///
/// The wheel hands deadlines out at ticks: one whose time lies inside a tick is handed out at that tick's end.
pub struct Wheel {
    start_ns: u64,
    tick_shift: u32,
    /// The latest time told.
    now_ns: u64,
    /// The tick of `now_ns`.
    now_tick: u64,
    /// No deadline is filed before this tick; at most `now_tick`.
    current: u64,
    /// No far slot's span starts before this tick, `u64::MAX` when there is nothing far. (May be early after a cancel.)
    descend_at: u64,
    len: usize,
    /// Which words of `near_words` are not 0.
    near_summary: u64,
    near_words: [u64; NEAR_SLOTS / 64],
    far_words: [u64; FAR_LEVELS],
    /// First key of each slot's list: the near slots, then level after level of the far ones.
    heads: Box<[u32]>,
    nodes: Box<[Node]>,
}

impl Wheel {
    /// A wheel for keys below `keys` (at most 2^31 - 1), whose time starts at `start_ns`. `tick_ns` is its resolution (rounded down to
    /// a power of two, and at least 1): a deadline is handed out at most one tick after it is due, and never before.
    pub fn new(keys: u32, tick_ns: u64, start_ns: u64) -> Self {
        let keys = keys.min(FIRST - 1) as usize;
        Self {
            start_ns,
            tick_shift: tick_ns.max(1).ilog2().min(40),
            now_ns: start_ns,
            now_tick: 0,
            current: 0,
            descend_at: u64::MAX,
            len: 0,
            near_summary: 0,
            near_words: [0; NEAR_SLOTS / 64],
            far_words: [0; FAR_LEVELS],
            heads: vec![NONE; NEAR_SLOTS + FAR_LEVELS * FAR_SLOTS].into(),
            nodes: vec![Node { due_ns: 0, next: NONE, prev: UNSCHEDULED }; keys].into(),
        }
    }

    /// Sets the deadline of `key`, in place of the one it had. A time in the past is due at once. A key that the wheel was not made for
    /// is a caller's mistake: refused by a debug assertion, ignored otherwise.
    pub fn schedule(&mut self, key: u32, due_ns: u64) {
        self.cancel(key);
        let Some(node) = self.nodes.get_mut(key as usize) else {
            debug_assert!(false, "key {key} is beyond the wheel's {} keys", self.nodes.len());
            return;
        };
        node.due_ns = due_ns;
        self.len += 1;
        self.file(key, due_ns);
    }

    /// Takes the deadline of `key` out, if it has one.
    pub fn cancel(&mut self, key: u32) {
        let Some(&Node { next, prev, .. }) = self.nodes.get(key as usize) else { return };
        if prev == UNSCHEDULED {
            return;
        }
        self.nodes[key as usize].prev = UNSCHEDULED;
        self.len -= 1;
        if next != NONE {
            self.nodes[next as usize].prev = prev;
        }
        if prev & FIRST == 0 {
            self.nodes[prev as usize].next = next;
            return;
        }
        let slot = (prev & !FIRST) as usize;
        self.heads[slot] = next;
        if next == NONE {
            self.mark_empty(slot);
        }
    }

    /// Takes out one deadline that is due at `now_ns`, as (key, due time); earlier ticks first. A `now_ns` before an earlier call's
    /// counts as that one.
    pub fn pop_due(&mut self, now_ns: u64) -> Option<(u32, u64)> {
        if now_ns > self.now_ns {
            self.now_ns = now_ns;
            self.now_tick = self.elapsed_ns(now_ns) >> self.tick_shift;
        }
        loop {
            let near = self.first_near();
            let until = near.unwrap_or(u64::MAX).min(self.now_tick);
            if self.descend_at <= until {
                self.descend();
                continue;
            }
            self.current = until;
            if near != Some(until) {
                return None;
            }
            let key = self.heads[near_slot(until)];
            let due_ns = self.nodes[key as usize].due_ns;
            self.cancel(key);
            return Some((key, due_ns));
        }
    }

    /// When to call [`Self::pop_due`] next, `None` when there is no deadline. For deadlines at most 4096 ticks ahead this is when the
    /// earliest one is handed out: a moment at most one tick after it is due, and never later than that. While all are farther away it
    /// is earlier, when the first of them must be looked at; each such call brings the next answer nearer to the deadline.
    pub fn next_due_ns(&self) -> Option<u64> {
        if self.len == 0 {
            return None;
        }
        let tick = self.first_near().unwrap_or(u64::MAX).min(self.first_far());
        Some(self.start_ns.saturating_add(tick << self.tick_shift))
    }

    /// Deadlines held.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True when there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn elapsed_ns(&self, at_ns: u64) -> u64 {
        at_ns.saturating_sub(self.start_ns).min(MAX_AHEAD_NS)
    }

    /// Puts a node that is in no list into the slot that its time belongs to, seen from the current tick.
    fn file(&mut self, key: u32, due_ns: u64) {
        let after_ns = self.elapsed_ns(due_ns);
        // The first tick that starts at or after the deadline, or now if that is past.
        let mut tick = (after_ns >> self.tick_shift) + u64::from(after_ns & ((1 << self.tick_shift) - 1) != 0);
        if due_ns <= self.now_ns {
            tick = tick.min(self.now_tick);
        }
        let tick = tick.max(self.current);
        if tick - self.current < NEAR_SLOTS as u64 {
            let slot = near_slot(tick);
            self.near_words[slot / 64] |= 1 << (slot % 64);
            self.near_summary |= 1 << (slot / 64);
            self.link(key, slot);
            return;
        }
        // The lowest level on which the deadline is less than one turn ahead; below the top one it is at least one slot ahead there,
        // because it is a full turn or more ahead on the level beneath.
        let ahead = |level: usize| (tick >> far_shift(level)) - (self.current >> far_shift(level));
        let level = (0..FAR_LEVELS - 1).find(|&level| ahead(level) < FAR_SLOTS as u64).unwrap_or(FAR_LEVELS - 1);
        let block = tick >> far_shift(level);
        self.far_words[level] |= 1 << (block % FAR_SLOTS as u64);
        self.descend_at = self.descend_at.min(block << far_shift(level));
        self.link(key, far_slot(level, block));
    }

    fn link(&mut self, key: u32, slot: usize) {
        let next = std::mem::replace(&mut self.heads[slot], key);
        if next != NONE {
            self.nodes[next as usize].prev = key;
        }
        let node = &mut self.nodes[key as usize];
        node.next = next;
        node.prev = FIRST | slot as u32;
    }

    fn mark_empty(&mut self, slot: usize) {
        if slot < NEAR_SLOTS {
            self.near_words[slot / 64] &= !(1 << (slot % 64));
            if self.near_words[slot / 64] == 0 {
                self.near_summary &= !(1 << (slot / 64));
            }
        } else {
            let far = slot - NEAR_SLOTS;
            self.far_words[far / FAR_SLOTS] &= !(1 << (far % FAR_SLOTS));
        }
    }

    /// The tick of the first filled near slot.
    fn first_near(&self) -> Option<u64> {
        if self.near_summary == 0 {
            return None;
        }
        let from = near_slot(self.current);
        let word = from / 64;
        let here = self.near_words[word] & (u64::MAX << (from % 64));
        let slot = if here != 0 {
            word * 64 + here.trailing_zeros() as usize
        } else {
            // The words after this one, and in the end this one again for its slots before `from`.
            let turned = self.near_summary.rotate_right(word as u32 + 1);
            let word = (word + 1 + turned.trailing_zeros() as usize) % 64;
            word * 64 + self.near_words[word].trailing_zeros() as usize
        };
        Some(self.current + (slot.wrapping_sub(from) % NEAR_SLOTS) as u64)
    }

    /// The first tick of the span of the first filled far slot, `u64::MAX` if there is none.
    fn first_far(&self) -> u64 {
        let mut first = u64::MAX;
        for (level, &word) in self.far_words.iter().enumerate() {
            if word != 0 {
                let after_this = (self.current >> far_shift(level)) + 1;
                let turned = word.rotate_right((after_this % FAR_SLOTS as u64) as u32);
                first = first.min((after_this + u64::from(turned.trailing_zeros())) << far_shift(level));
            }
        }
        first
    }

    /// Moves the current tick on to `descend_at`, where spans of far slots start, and files their deadlines anew, farther down.
    fn descend(&mut self) {
        self.current = self.descend_at;
        for level in 0..FAR_LEVELS {
            let block = self.current >> far_shift(level);
            let slot = far_slot(level, block);
            let mut key = std::mem::replace(&mut self.heads[slot], NONE);
            self.mark_empty(slot);
            while key != NONE {
                let Node { due_ns, next, .. } = self.nodes[key as usize];
                self.file(key, due_ns);
                key = next;
            }
        }
        self.descend_at = self.first_far();
    }
}

impl std::fmt::Debug for Wheel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Wheel({} deadlines, next at {:?} ns)", self.len, self.next_due_ns())
    }
}

/// Ticks of one slot of a far level, as a power of two.
const fn far_shift(level: usize) -> u32 {
    NEAR_BITS + FAR_BITS * level as u32
}

const fn near_slot(tick: u64) -> usize {
    tick as usize % NEAR_SLOTS
}

const fn far_slot(level: usize, block: u64) -> usize {
    NEAR_SLOTS + level * FAR_SLOTS + block as usize % FAR_SLOTS
}

const _: () = assert!(NEAR_SLOTS / 64 == 64, "one summary word covers the near level");
const _: () = assert!(far_shift(FAR_LEVELS) >= 63, "the far levels reach MAX_AHEAD_NS");
const _: () = assert!(NEAR_SLOTS + FAR_LEVELS * FAR_SLOTS < (UNSCHEDULED & !FIRST) as usize, "a slot fits beside the FIRST flag");

#[cfg(test)]
mod tests;
