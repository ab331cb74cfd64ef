//! What is promised of an engine core's buffers.
//!
//! Viewers of one title share its blocks, and a block is in memory once. So all viewers of a title together need no more buffers than
//! each of them would alone, one after another, and no more than the title has blocks, wherever in it they are: that is what is reserved.
//! It holds in the worst case. What viewers who are close together share beyond that is not counted: one of them may pause or seek at any
//! time, and must find its buffers.

use std::collections::HashMap;

/// The promises of one engine core, in buffers.
#[derive(Debug)]
pub(super) struct Buffers {
    max: usize,
    reserved: usize,
    titles: HashMap<u64, Title>,
}

#[derive(Clone, Copy, Debug)]
struct Title {
    /// What its sessions would need if they shared nothing.
    asked: usize,
    /// Blocks that it has.
    blocks: usize,
}

impl Title {
    fn reserves(self) -> usize {
        self.asked.min(self.blocks)
    }
}

/// A session's share of a core's buffers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Share {
    /// The title: sessions whose numbers are equal share blocks.
    pub(super) title: u64,
    /// Buffers that the session needs at most.
    pub(super) chunks: usize,
    /// Blocks of the whole title.
    pub(super) blocks: usize,
}

/// Numbers of live channels have this bit, those of titles do not.
const LIVE: u64 = 1 << 63;

impl Share {
    /// A share of a live channel: what it retains, or what a viewer holds of it, who may be far behind all others.
    pub(super) fn of_live(channel: u64, chunks: usize) -> Self {
        Self { title: LIVE | channel, chunks, blocks: usize::MAX }
    }
}

impl Buffers {
    /// So many that may be promised.
    pub(super) fn new(max: usize) -> Self {
        Self { max, reserved: 0, titles: HashMap::new() }
    }

    /// Promises a session its share; otherwise how many buffers more it would need than are left, all in all.
    pub(super) fn reserve(&mut self, share: Share) -> Result<(), usize> {
        let Share { title, chunks, blocks } = share;
        let before = self.titles.get(&title).copied().unwrap_or(Title { asked: 0, blocks });
        let after = Title { asked: before.asked.saturating_add(chunks), ..before };
        let reserved = self.reserved - before.reserves() + after.reserves();
        if reserved > self.max {
            return Err(reserved - self.max);
        }
        self.reserved = reserved;
        self.titles.insert(title, after);
        Ok(())
    }

    /// Takes back what was promised.
    pub(super) fn release(&mut self, share: Share) {
        let Some(title) = self.titles.get_mut(&share.title) else { return };
        let before = title.reserves();
        title.asked = title.asked.saturating_sub(share.chunks);
        self.reserved = self.reserved - before + title.reserves();
        if title.asked == 0 {
            self.titles.remove(&share.title);
        }
    }

    /// Promises buffers to what is no session; otherwise how many more it would need than are left.
    pub(super) fn take(&mut self, chunks: usize) -> Result<(), usize> {
        let reserved = self.reserved.saturating_add(chunks);
        if reserved > self.max {
            return Err(reserved - self.max);
        }
        self.reserved = reserved;
        Ok(())
    }

    /// Takes back what [`Self::take`] promised.
    pub(super) fn give_back(&mut self, chunks: usize) {
        self.reserved = self.reserved.saturating_sub(chunks);
    }

    /// What is promised.
    pub(super) fn reserved(&self) -> usize {
        self.reserved
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn many_viewers_of_a_title_need_no_more_than_it_has() {
        let mut buffers = Buffers::new(100);
        let short = Share { title: 1, chunks: 6, blocks: 40 };
        for _ in 0..5000 {
            buffers.reserve(short).unwrap();
        }
        assert_eq!(buffers.reserved(), 40);
        // A long one, whose viewers may be anywhere: ten fit.
        let long = Share { title: 2, chunks: 6, blocks: 5000 };
        for _ in 0..10 {
            buffers.reserve(long).unwrap();
        }
        assert_eq!((buffers.reserve(long), buffers.reserved()), (Err(6), 100));
        for _ in 0..4995 {
            buffers.release(short);
        }
        assert_eq!(buffers.reserved(), 90);
        buffers.reserve(long).unwrap();
    }

    #[test]
    fn what_is_no_session_takes_from_the_same_buffers() {
        let mut buffers = Buffers::new(10);
        buffers.take(8).unwrap();
        assert_eq!(buffers.take(3), Err(1));
        assert_eq!(buffers.reserve(Share { title: 1, chunks: 5, blocks: 40 }), Err(3));
        buffers.give_back(8);
        assert_eq!(buffers.reserved(), 0);
        buffers.reserve(Share { title: 1, chunks: 5, blocks: 40 }).unwrap();
    }

    proptest! {
        #[test]
        fn what_is_reserved_is_what_the_sessions_need(max in 0usize..200, steps in prop::collection::vec((0u64..4, 1usize..20, any::<bool>()), 0..200)) {
            let mut buffers = Buffers::new(max);
            let mut held: Vec<Share> = Vec::new();
            let blocks = |title: u64| [3, 20, 70, 1000][title as usize];
            let needed = |held: &[Share]| -> usize {
                (0..4).map(|title| held.iter().filter(|s| s.title == title).map(|s| s.chunks).sum::<usize>().min(blocks(title))).sum()
            };
            for (title, chunks, comes) in steps {
                if comes {
                    let share = Share { title, chunks, blocks: blocks(title) };
                    held.push(share);
                    let fits = needed(&held) <= max;
                    prop_assert_eq!(buffers.reserve(share).is_ok(), fits);
                    if !fits {
                        held.pop();
                    }
                } else if !held.is_empty() {
                    buffers.release(held.swap_remove(chunks % held.len()));
                }
                prop_assert_eq!(buffers.reserved(), needed(&held));
            }
            for share in held.drain(..) {
                buffers.release(share);
            }
            prop_assert_eq!((buffers.reserved(), buffers.titles.len()), (0, 0));
        }
    }
}
