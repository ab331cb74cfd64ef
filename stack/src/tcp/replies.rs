//! What is said to segments that have no connection: resets and SYN cookies. A bounded ring; under a flood the excess is counted and dropped.

use std::collections::VecDeque;

use super::wire::{Header, Tuple};

/// Replies that can wait for the next egress.
const REPLIES_MAX: usize = 256;

#[derive(Debug)]
pub(super) struct Replies {
    ring: VecDeque<(Tuple, Header)>,
    had_turn: bool,
}

impl Replies {
    pub fn new() -> Self {
        Self { ring: VecDeque::with_capacity(REPLIES_MAX), had_turn: false }
    }

    /// False when the ring is full.
    pub fn push(&mut self, tuple: Tuple, header: Header) -> bool {
        let room = self.ring.len() < REPLIES_MAX;
        if room {
            self.ring.push_back((tuple, header));
        }
        room
    }

    /// Whether it is their turn, which is every other one: then connections get on under a flood, and replies beside busy connections.
    pub fn take_turn(&mut self) -> bool {
        self.had_turn = !self.had_turn;
        self.had_turn
    }

    pub fn first(&self) -> Option<&(Tuple, Header)> {
        self.ring.front()
    }

    pub fn pop(&mut self) {
        self.ring.pop_front();
    }
}
